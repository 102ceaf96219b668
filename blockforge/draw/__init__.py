"""A compiled network for people to look at: pictures, text for drawing tools, tables. A format is a file here and a row
in `_TEXT` of `picture.py`."""
