"""YAML text -> a plain tree and the place of everything in it."""
