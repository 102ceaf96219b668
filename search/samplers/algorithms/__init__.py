"""Our samplers, one file each, found by their places: `NAME.py` has the class that `--sampler NAME` makes, whose
parameters are the options of its text."""
