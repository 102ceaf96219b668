"""Between stages, and on skips."""
