"""Search: fill the holes of a spec under a budget. Imported as `blockforge.search`."""

from blockforge.search.errors import SearchError
from blockforge.search.records import TrialRecord
from blockforge.search.result import SearchResult
from blockforge.search.run import search
from blockforge.search.space import list_spaces, load_space

__all__ = ["SearchError", "SearchResult", "TrialRecord", "list_spaces", "load_space", "search"]
