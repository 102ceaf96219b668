"""Blocks that mix positions: one a file, found by standing here."""
