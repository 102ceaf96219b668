"""`head`, or `heads` in its place: what only both keys together tell."""

from __future__ import annotations

from typing import Any

from blockforge.described import descriptions
from blockforge.errors import Report
from blockforge.spec.model import Spec

_NAMED = "heads: {seg: [conv_bn, logits], aux: classifier}"


def check_heads(tree: dict[Any, Any], report: Report) -> None:
    """Report a spec without a head, or with both keys."""
    heads = tree.get("heads")
    if "heads" not in tree and "head" not in tree:
        hint = f"head: {descriptions(Spec)['head']}"
        report.error("missing-key", "the key 'head' is missing", ("head",), hint=hint)
    elif "heads" in tree and "head" in tree:
        text = "head and heads are both given; keep one of them"
        report.error("both", text, ("heads",), on_key=True, hint="head is one without a name, heads are by name")
    elif heads == {} or (isinstance(heads, dict) and "op" in heads):
        text = "heads are ops by name; this is one op" if heads else "heads name no head"
        report.error("heads", text, ("heads",), on_key=True, hint=f"as in {_NAMED}; one alone is head")
