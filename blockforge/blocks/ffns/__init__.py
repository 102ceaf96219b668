"""Blocks that mix channels at each position."""
