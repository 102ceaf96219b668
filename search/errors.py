"""What can be wrong with a search, apart from its space and its budget."""

from blockforge.errors import BlockforgeError


class SearchError(BlockforgeError, ValueError):
    """A search that cannot start or go on: nothing to fill, another study in the folder, a folder in use."""
