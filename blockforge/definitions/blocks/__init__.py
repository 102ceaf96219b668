"""Blocks that are written in YAML, one file each: their kind, parameters and parts. See `blockforge.blocks.defined`."""
