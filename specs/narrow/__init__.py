"""Narrow variants of the zoo's families, 0.3 to 1M parameters, for small images and a first run on a CPU."""
