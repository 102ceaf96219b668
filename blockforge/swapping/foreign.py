"""Blocks from a file as alternatives: what may stand in a slot beside thinner forms of what is there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from blockforge.blocks.registry import blocks
from blockforge.compiler import Architecture
from blockforge.errors import BudgetError, SpecError
from blockforge.notes import note
from blockforge.search.space.size import enumerate_space
from blockforge.spec import Spec, fill, from_text, load
from blockforge.spec.expanded import expand
from blockforge.swapping.edits import branch_at
from blockforge.swapping.slots import Alternative, Savings, Slot, in_words, slots_of
from blockforge.swapping.thinner import AROUND
from blockforge.train.data import digest_of

MOST = 64
"""Forms of one block, with all that its holes may be."""
_FRAME: dict[str, Any] = {"blockforge": 1, "name": "alternatives", "stem": "none", "head": "classifier"}
_KINDS = ("mixer", "ffn")


@dataclass(frozen=True)
class Foreign:
    """A block of a file, its holes filled.

    Attributes:
        name: of the block, and what its holes were filled with.
        branch: it written out.
        around: the keys beside its op that the file says; others are those of the branch whose place it takes.
        define: the definitions that it names.
    """

    name: str
    branch: Mapping[str, Any]
    around: frozenset[str] = frozenset()
    define: Mapping[str, Any] = field(default_factory=dict)

    def instead_of(self, there: Mapping[str, Any]) -> dict[str, Any]:
        """The branch that stands in another's place."""
        kept = {key: there[key] for key in AROUND if key in there and key not in self.around}
        return {"op": self.branch["op"], **kept, **self.branch}


def foreign_blocks(file: str | os.PathLike[str]) -> list[Foreign]:
    """The blocks of a page with `blocks`, and `define`, `use`, `let`, `defaults` if they need them; holes are filled in
    every way.

    Raises: SpecError for what is wrong in it; BudgetError for a block of several branches, or of too many forms.
    """
    written = load(os.fspath(file), {**_FRAME, "stages": [{"from": "input", "dim": 16}]}).lifted.get("blocks", {})
    if not written:
        raise BudgetError(f"{file} has no blocks\n  hint: blocks: {{dw: [{{op: dwconv, kernel_size: 7}}]}}")
    forms: list[Foreign] = []
    for name, branches in written.items():
        if len(branches) != 1:
            hint = "a chain of `residual` is one branch: {op: [{op: residual, of: ...}, ...], skip: false}"
            raise BudgetError(f"block '{name}' of {file} has {len(branches)} branches, a slot is one\n  hint: {hint}")
        stage = {"from": "input", "dim": 16, "depth": 1, "layers": name}
        space = load(os.fspath(file), {**_FRAME, "stages": [stage]})
        for number, (answers, outcome) in enumerate(enumerate_space(space)):
            if isinstance(outcome, SpecError) and any(d.code.startswith("unknown") for d in outcome.diagnostics):
                raise outcome
            if number == MOST:
                raise BudgetError(f"block '{name}' of {file} has more than {MOST} forms\n  hint: fewer holes")
            forms.append(_made(name, space, answers))
    return forms


def _made(name: str, space: Spec, answers: Mapping[str, Any]) -> Foreign:
    filled = fill(space, answers)
    said = filled.lifted
    around = {*(said.get("defaults") or ()), *_keys(said["blocks"][name][0])} & {*AROUND}
    tree = from_text(expand(filled)).tree
    (branches,) = tree["blocks"].values()
    branch = branches[0] if isinstance(branches[0], dict) else {"op": branches[0]}
    branch |= {key: "none" for key in around if key == "norm" and key not in branch}
    words = in_words({path.rpartition(".")[2]: value for path, value in answers.items()})
    return Foreign(f"{name} {words}".strip(), branch, frozenset(around), tree.get("define", {}))


def _keys(branch: Any) -> list[str]:
    return list(branch) if isinstance(branch, dict) else []


def foreign_alternatives(
    arch: Architecture, spec: Spec, given: Sequence[Foreign], learns: str = ""
) -> Iterator[Alternative]:
    """The foreign blocks that fit a slot and save something there; a line says of slots where none does.

    Mixers stand in for mixers and FFNs for FFNs; composed blocks for any.

    Args:
        arch: the network.
        spec: it written out.
        learns: how they learn: with other words they are others.
    Raises: BudgetError for a definition that means another thing in the network.
    """
    own = spec.tree.get("define", {})
    for name, written in ((n, w) for foreign in given for n, w in foreign.define.items()):
        if own.get(name, written) != written:
            raise BudgetError(f"'{name}' is defined otherwise in {arch.name}\n  hint: rename it in the alternatives")
    savings, refused = Savings(arch, spec), dict[str, list[str]]()
    for slot in slots_of(arch):
        there, reasons = branch_at(spec, arch, slot), dict[str, str]()
        fitting = 0
        for foreign in given:
            branch = foreign.instead_of(there)
            mark = digest_of(json.dumps([branch, foreign.define], sort_keys=True), learns)
            made = Alternative(slot, foreign.name, branch, define=foreign.define, mark=mark)
            saved = _saved(arch, slot, savings, made)
            if isinstance(saved, str):
                reasons.setdefault(saved, foreign.name)
                continue
            fitting += 1
            yield replace(made, saved=saved)
        if given and not fitting:
            why = "; ".join(f"{name}: {reason}" for reason, name in reasons.items())
            refused.setdefault(why, []).append(slot.name)
    for why, names in refused.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        note(f"no alternative fits {names[0]}{more} ({why})")


def _saved(arch: Architecture, slot: Slot, savings: Savings, made: Alternative) -> Mapping[str, int] | str:
    """What an alternative saves; a text says why it does not fit."""
    kinds = arch.nodes[slot.name].kind, _kind(made)
    if all(kind in _KINDS for kind in kinds) and kinds[0] != kinds[1]:
        return f"a {kinds[1]} for a {kinds[0]}"
    return savings.of(made)


def _kind(made: Alternative) -> str:
    """What a registered block does; of a composed one, nothing is said."""
    assert made.branch is not None
    op = made.branch["op"]
    return blocks()[op].kind if isinstance(op, str) and op not in made.define else ""
