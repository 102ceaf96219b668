"""Files of definitions that every spec can use by name: one YAML each."""
