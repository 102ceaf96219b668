"""What can be wrong with an analysis that is the user's to mend."""

from __future__ import annotations

from blockforge.errors import BlockforgeError


class AnalysisError(BlockforgeError, ValueError):
    """A network, images or options that an analysis cannot work with."""
