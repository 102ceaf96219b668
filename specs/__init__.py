"""The zoo: one YAML a variant."""
