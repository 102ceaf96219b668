"""A compiled network for people to look at: pictures, text for drawing tools, tables."""
