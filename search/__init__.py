"""Search: fill the holes of a spec under a budget. Imported as `blockforge.search`; called, it starts one:

import blockforge as bf
found = bf.search("tiny", budget="20MFLOPs", objectives=["expressivity", "params"], trials=50)
found.dataframe()
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from blockforge.one_tree import at_home

__all__ = ["SearchError", "SearchResult", "TrialRecord", "list_spaces", "load_space", "open_result", "search"]


class _Callable(ModuleType):
    """The package and its function have one name, so that both `bf.search(...)` and `bf.search.load_space` work."""

    def __call__(self, *args: Any, **kwargs: Any) -> SearchResult:
        return search(*args, **kwargs)


if at_home(__name__, __file__):
    from blockforge.errors import SearchError
    from blockforge.search.result import SearchResult
    from blockforge.search.run import open_result, search
    from blockforge.search.space.load import list_spaces, load_space
    from blockforge.search.study.records import TrialRecord

    _Callable.__call__.__doc__ = search.__doc__
    sys.modules[__name__].__class__ = _Callable
