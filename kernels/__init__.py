"""Kernels and their twins."""
