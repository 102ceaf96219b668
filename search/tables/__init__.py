"""Packaged tables of trainings, see `blockforge.search.fidelity.benchmark`."""
