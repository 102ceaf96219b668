"""The building blocks, one file each, found by their place; see `base` for what a block is."""
