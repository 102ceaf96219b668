"""Packaged ablations: a base spec and its variants, one YAML file a table."""
