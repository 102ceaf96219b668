"""Joins of the outputs of earlier layers."""
