"""What may stand in the place of parts: each rule gives the same result in inference, and costs no more.

- A part that acts in training alone is left out.
- Of two convolutions in a row one of which sees each channel alone (a norm by running statistics, a scale) one is left.
- Terms of a sum that read one map, it itself among them, are one convolution where their kernels lie in each other.

What a convolution is, and what a sum, the blocks say (`Op.as_filter`, `Join.factors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from blockforge.blocks.base import Placed, Shape
from blockforge.blocks.compose.joined import Add
from blockforge.blocks.facts import facts
from blockforge.blocks.filters import Filter, after, identity, total
from blockforge.blocks.joins.sum import WeightedSumJoin
from blockforge.blocks.part import TrainingPart
from blockforge.compiler.deploy.tensors import Added, Before, Behind, Member, New, Ones, Recipe
from blockforge.compiler.deploy.terms import Term, Terms


def simplify(terms: Terms) -> None:
    """Rewrite until no rule applies."""
    for term in [t for t in terms.terms if isinstance(t.op, TrainingPart)]:
        terms.replace(term, term.reads[0])
    terms.sweep()
    while _fold_rows(terms) or _fold_sums(terms):
        terms.has_changed = True
        terms.sweep()


def _fold_rows(terms: Terms) -> bool:
    """Put a convolution and the one that alone reads it together, wherever that is one."""
    readers, folded = terms.readers(), False
    for second in list(terms.terms):
        first = second.reads[0]
        if first is None or len(second.reads) > 1 or readers[first] > 1:
            continue
        if (f := first.filter) is None or (g := second.filter) is None or (both := after(f, g)) is None:
            continue
        recipe = Behind(first.recipe, second.recipe) if g.is_affine else Before(first.recipe, second.recipe, g.groups)
        if (made := _made([first, second], both, recipe, first.reads[0])) is None:
            continue
        terms.terms[terms.terms.index(second)] = made
        terms.terms.remove(first)
        terms.replace(second, made)
        readers, folded = terms.readers(), True
    return folded


def _made(parts: Sequence[Term], filter: Filter, recipe: Recipe, x: Term | None) -> Term | None:
    """The part that does what others do, if there is one that costs no more. Of their names it takes that of the one
    which does most."""
    lead = max(parts, key=lambda p: (p.step.classifies, not _is_affine(p), p.cost.macs, p.cost.params))
    shape: Shape = lead.placed.place[0]
    if (op := lead.op.with_filter(filter)) is None:
        return None
    placed = Placed(op, (shape, filter.out_chs))
    cost = facts(placed).cost
    if cost.params > sum(p.cost.params for p in parts) or cost.macs > sum(p.cost.macs for p in parts):
        return None
    assert facts(placed).out_shape == lead.step.shape
    step = replace(lead.step, placed=placed)
    return Term(step, [x], recipe)


def _is_affine(term: Term) -> bool:
    return term.filter is not None and term.filter.is_affine


@dataclass(eq=False)
class _Summand:
    """One of the maps that are added, times `factor`.

    Attributes:
        value: the map.
        parts: the terms that make it of `x`, those that make nothing else; none: it is `x`.
        members: the convolutions whose sum makes it of `x`.
    """

    value: Term | None
    factor: float
    x: Term | None
    parts: tuple[Term, ...]
    members: tuple[tuple[Recipe, Filter, float], ...]


def _fold_sums(terms: Terms) -> bool:
    """Put terms of sums together. A sum that only another one reads is a part of that."""
    readers = terms.readers()
    inner = {v for t in terms.terms if t.factors is not None for v in t.reads if readers[v] == 1}
    for term in terms.terms:
        if term.factors is None or term in inner:
            continue
        summands = _summands(terms, term, 1.0)
        merged = _merged(summands)
        if len(merged) < len(summands):
            _rebuild(terms, term, merged)
            return True
    return False


def _summands(terms: Terms, of: Term, factor: float) -> list[_Summand]:
    """What a sum adds, `factor` times; of a sum in it what that adds."""
    readers, summands = terms.readers(), []
    assert of.factors is not None
    for value, own in zip(of.reads, of.factors, strict=True):
        times, is_only_here = own * factor, readers[value] == 1
        if value is not None and is_only_here and value.factors is not None:
            summands += _summands(terms, value, times)
        elif value is not None and is_only_here and (f := value.filter) is not None:
            summands.append(_Summand(value, times, value.reads[0], (value,), ((value.recipe, f, times),)))
        else:
            dim = of.step.shape.dim
            summands.append(_Summand(value, times, value, (), ((Ones(dim), identity(dim), times),)))
    return summands


def _merged(summands: Sequence[_Summand]) -> list[_Summand]:
    """The fewest that their sum can be made of, as far as taking two at a time finds them."""
    left = list(summands)
    i = 0
    while i < len(left):
        for j in range(i + 1, len(left)):
            if (both := _both(left[i], left[j])) is not None:
                left[i] = both
                del left[j]
                i = -1  # those before may fit what there is now
                break
        i += 1
    return left


def _both(a: _Summand, b: _Summand) -> _Summand | None:
    """Two summands as one convolution, if that is one."""
    parts, members = (*a.parts, *b.parts), (*a.members, *b.members)
    if a.x is not b.x or not parts or (both := total([f for _, f, _ in members])) is None:
        return None
    whole, placings = both
    recipe = Added(tuple(Member(r, f, times, p) for (r, f, times), p in zip(members, placings, strict=True)), whole)
    if (made := _made(parts, whole, recipe, a.x)) is None:
        return None
    return _Summand(made, 1.0, a.x, parts, members)


def _rebuild(terms: Terms, old: Term, summands: Sequence[_Summand]) -> None:
    """Let the sum of these stand in the place of one."""
    for made in [s.value for s in summands if s.value is not None and s.value not in terms.terms]:
        parts = next(s.parts for s in summands if s.value is made)
        terms.terms.insert(min(map(terms.terms.index, parts)), made)
    if all(s.factor == 1 for s in summands):
        whole = _chain(terms, old, [s.value for s in summands])
    else:
        join = WeightedSumJoin(weights=tuple(s.factor for s in summands))
        placed = Placed(join, ((old.step.shape,) * len(summands), None))
        whole = Term(replace(old.step, placed=placed), [s.value for s in summands], New())
        terms.terms.insert(terms.terms.index(old), whole)
    terms.replace(old, whole)


def _chain(terms: Terms, old: Term, values: Sequence[Term | None]) -> Term | None:
    """The sum of maps, each added as it comes: no more than two live for it."""
    order = {term: i for i, term in enumerate(terms.terms)}
    whole, *others = sorted(values, key=lambda value: -1 if value is None else order[value])
    shape = old.step.shape
    for i, value in enumerate(others):
        step = replace(old.step, placed=Placed(Add(), ((shape, shape), None)), name=(*old.step.name, str(i)))
        added = Term(step, [whole, value], New())
        terms.terms.insert(terms.terms.index(value) + 1 if value is not None else 0, added)
        whole = added
    return whole
