"""A learned guess at what candidates are worth, by which the best of several proposals is let through."""
