"""Normalisations over channels."""
