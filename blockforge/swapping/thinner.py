"""Thinner forms of a branch: one of its numbers smaller, and its weights some of what is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

from pydantic import ValidationError

from blockforge.blocks.base import AnyOp, Placed
from blockforge.compiler import Architecture, compile_spec
from blockforge.errors import BlockforgeError
from blockforge.spec import Spec
from blockforge.spec.model import BranchKeys
from blockforge.swapping.edits import branch_at, edited
from blockforge.swapping.slots import Alternative, Slot, in_words
from blockforge.weights.symmetry import Cut, cut_between, small_place

AROUND = ("norm", *BranchKeys.model_fields)
"""What a branch says beside its op."""
Path = tuple[str | int, ...]


def thinner(
    arch: Architecture, spec: Spec, slot: Slot, shares: tuple[float, ...]
) -> Iterator[tuple[str, Mapping[str, Any], Cut]]:
    """What each says in a few words, the branch with a smaller number in it, and how its tensors come about.

    Args:
        arch: the network. spec: it written out, see `edits.written_out`.
        shares: of each number.
    """
    node, written = arch.nodes[slot.name], branch_at(spec, arch, slot)
    placed = node.shapes.placed
    assert placed is not None
    wide = placed.resolved()
    is_composed = node.written_out is not None
    given = wide.parameters_dict()
    numbers = _numbers(written, ()) if is_composed else (((name,), value) for name, value in given.items())
    for path, value in numbers:
        seen = [value]
        for share in shares:
            for less in _smaller(value, share):
                if less in seen:
                    continue
                seen.append(less)
                params: dict[str, Any] = {str(path[-1]): less}
                if path == ("num_heads",) and given.get("head_dim", 0) is None:
                    params["head_dim"] = placed.place[0].dim // value  # heads that stay are as wide as before
                changed = _with(written, path, less) if is_composed else {**written, **params}
                narrow = _compiled(spec, slot, changed) if is_composed else made(wide, {**given, **params})
                cut = _cut(wide, narrow, small_place(placed), value) if narrow is not None else None
                if cut is not None:
                    how = f"{share:.0%}" if isinstance(less, str) else less
                    yield _said(path, how) if is_composed else in_words(params), changed, cut
                    break


def _said(path: Path, value: Any) -> str:
    """The whole path, for a block may have several numbers of one name."""
    return in_words({".".join(map(str, path)): value})


def _numbers(tree: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """The numbers in a branch as it is written, and what is computed; not what stands around its op."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        if path or key not in AROUND:
            yield from _numbers(value, (*path, key))
    if not isinstance(tree, dict | list):
        yield path, tree


def _smaller(value: Any, share: float) -> Iterator[Any]:
    """What a number may become that is to have a share of itself; kernels are odd, and those of a list shrink alike.
    What is true may be false."""
    if value is True:
        yield False
    elif isinstance(value, float) and value > 0:
        yield round(value * share, 4)
    elif type(value) is int and value > 1:
        yield max(1, round(value * share))
        yield _odd(value * share)
    elif isinstance(value, str) and value.startswith("$("):
        part = Fraction(share).limit_denominator(16)
        yield f"$(({value[2:-1]}) * {part.numerator} // {part.denominator})"
    elif isinstance(value, list | tuple) and value and all(type(v) is int and v % 2 for v in value):
        less = [_odd(v * share) for v in value]
        yield tuple(less) if isinstance(value, tuple) else less


def _odd(value: float) -> int:
    """The largest odd number that is no larger, 1 at least."""
    return max(1, int(value) - (int(value) + 1) % 2)


def _with(tree: Any, path: Path, value: Any) -> Any:
    """A tree with another value at a path."""
    if not path:
        return value
    changed: Any = dict(tree) if isinstance(tree, dict) else list(tree)
    changed[path[0]] = _with(tree[path[0]], path[1:], value)
    return changed


def made(wide: AnyOp, given: Mapping[str, Any]) -> AnyOp | None:
    """The same block with other parameters; None: there is none."""
    try:
        return type(wide)(**given)
    except (BlockforgeError, ValidationError, ValueError):
        return None


def _compiled(spec: Spec, slot: Slot, changed: Mapping[str, Any]) -> AnyOp | None:
    """The composed block that a changed branch is; None: it is none."""
    try:
        other = compile_spec(edited(spec, [Alternative(slot, "", changed)]))
    except BlockforgeError:
        return None
    (*_, node) = [*other.stages[slot.stage].layers[slot.layer].branches.values()][: slot.branch + 1]
    return node.block


def _cut(wide: AnyOp, narrow: AnyOp, place: tuple[Any, ...], value: Any) -> Cut | None:
    """How the narrower block's tensors come from the wide one's; None: it cannot stand there, or they do not."""
    try:
        one, other = Placed(wide, place), Placed(narrow, place)
        if one.out_shape() != other.out_shape():
            return None
        for block in (one, other):
            block.op.check(*block.told)
        return cut_between(one, other, value if type(value) is int else None)
    except (BlockforgeError, RuntimeError, ValueError):
        return None
