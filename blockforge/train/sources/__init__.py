"""Data by name, a file or more each: what registers itself with `source` is found by standing here."""
