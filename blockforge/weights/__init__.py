"""Weights: the files that they come in, the official layouts (`layouts`), and whether they fit a network."""

from blockforge.weights.official import load_official

__all__ = ["load_official"]
