"""Search: fill the holes of a spec under a budget. Imported, `blockforge.search` is a package; called, it starts one:

    import blockforge as bf
    result = bf.search("tiny", budget="20MFLOPs", objectives=["expressivity", "params"], trials=50)
    result.dataframe()

`bf.search` is the function, and what this package holds is found on it too: `bf.search.load_space`.
"""

from __future__ import annotations

from blockforge.one_tree import at_home

__all__ = ["SearchConfig", "SearchError", "SearchResult", "TrialRecord", "list_spaces", "load_space", "open_result",
           "search"]  # fmt: skip

if at_home(__name__, __file__):
    from blockforge.errors import SearchError
    from blockforge.search.result import SearchResult
    from blockforge.search.run import open_result, search
    from blockforge.search.space.load import list_spaces, load_space
    from blockforge.search.study.config import SearchConfig
    from blockforge.search.study.records import TrialRecord

    # The names of this package, modules imported later included, are the function's attributes: the import system
    # sets `blockforge.search` to the package, `blockforge/__init__.py` answers with the function, and both serve.
    search.__dict__ = globals()
