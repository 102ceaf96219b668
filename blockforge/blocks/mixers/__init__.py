"""Blocks that mix positions."""
