"""An architecture in the form that is deployed: each node's parts rewritten, what nothing can be done about kept."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from blockforge.blocks.base import AnyPlaced, Mixer, Norm, Placed, Shape
from blockforge.blocks.compose.fixed import Fixed, FixedHead
from blockforge.blocks.compose.joined import Add
from blockforge.blocks.compose.program import Program, Step
from blockforge.blocks.facts import facts
from blockforge.blocks.parts.scale import Scale
from blockforge.compiler.costs.cost import priced
from blockforge.compiler.deploy.rules import simplify
from blockforge.compiler.deploy.tensors import Named, New, Own, Recipe
from blockforge.compiler.deploy.terms import Term, Terms
from blockforge.compiler.graph.branch_keys import Residual
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import BlockSite, BranchSite, EdgeSite, HeadSite, ReducingSite, Site
from blockforge.spec.model import BranchKeys

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture


@dataclass(frozen=True)
class Rewritten:
    """What a node runs in the deployed form, and for each step where its values come from, below the node's module.

    Attributes:
        has_branch: whether the parts around a branch's block are among them.
    """

    program: Program
    recipes: tuple[Recipe, ...]
    has_branch: bool = False


@dataclass(frozen=True)
class Deployment:
    """The deployed form of an architecture, and by their names the nodes in which it differs."""

    arch: Architecture
    rewritten: dict[str, Rewritten]


def deployment(arch: Architecture) -> Deployment:
    """See `Architecture.deployed`."""
    sites: list[Site] = []
    shapes, rewritten = {}, {}
    for name, node in arch.nodes.items():
        site, shapes[name] = node.site, node.shapes
        if isinstance(site, BlockSite) and (deployed := _of(node)) is not None:
            rewritten[name] = deployed
            site, placed = _as_site(node, deployed)
            shapes[name] = replace(node.shapes, placed=placed)
        sites.append(site)
    nodes = priced(sites, shapes, arch.backend)
    return Deployment(dataclasses.replace(arch, nodes=nodes, trained=arch), rewritten)


def _of(node: Node) -> Rewritten | None:
    """What a node becomes; None: it stays as it is."""
    site, placed = node.site, node.shapes.placed
    assert placed is not None
    if isinstance(site, BranchSite):
        if not site.residual.options().keys() <= _REWRITTEN:
            return None  # with a key that `_branch` knows nothing of it stays as it is
        if len(site.inputs) == 1:
            return _branch(placed, node.norm, site.residual, node.shapes.in_shape)
        return _block(placed, "op.")
    return _block(placed, "") if isinstance(site, ReducingSite | EdgeSite | HeadSite) else None


def _as_site(node: Node, deployed: Rewritten) -> tuple[Site, AnyPlaced]:
    """The site and the block of a node that is rewritten."""
    site, placed = node.site, node.shapes.placed
    assert isinstance(site, BlockSite)
    assert placed is not None
    block = Fixed.of(deployed.program, site.block.title)
    if isinstance(site, HeadSite):
        head = FixedHead(block=block)
        return replace(site, block=head), Placed(head, placed.place)
    if isinstance(site, BranchSite) and deployed.has_branch:
        site = replace(site, norm=None, norm_planned=None, residual=_NOTHING_AROUND)
    return replace(site, block=block), Placed(block, (deployed.program.shape, None))


_REWRITTEN = {"scale", "skip", "post_act"}
"""The keys of a branch that become parts."""
_NOTHING_AROUND = Residual.of(BranchKeys(skip=False), 0.0, None)


@functools.lru_cache(4096)
def _block(placed: AnyPlaced, prefix: str) -> Rewritten | None:
    """A block alone, whose modules stand below `prefix`."""
    terms = Terms(placed.place[0])
    terms.result = _add(terms, placed, None, prefix)
    return _simplified(terms)


@functools.lru_cache(4096)
def _branch(placed: AnyPlaced, norm: Norm | None, residual: Residual, shape: Shape) -> Rewritten | None:
    """A block and what stands around it."""
    terms, x = Terms(shape), None
    names = _Names({step.name[0] for step, _ in _steps(placed, "op.") if step.name})
    y: Term | None = x
    if norm is not None:
        y = _normed(terms, Placed(norm, (shape,)), names.new("norm"))
    y = _add(terms, placed, y, "op.")
    keys, out = residual.keys, facts(placed).out_shape
    if keys.scale is not None and keys.scale.branch is not None:
        scale = Placed(Scale(init=keys.scale.branch), (out, None))
        y = terms.part(scale, [y], names.new("scale"), Named("scale", None))
    if keys.skip:
        if keys.scale is not None and keys.scale.skip is not None:
            scale = Placed(Scale(init=keys.scale.skip, bias=True), (out, None))
            x = terms.part(scale, [x], names.new("skip_scale"), Named("skip_scale", "skip_bias"))
        y = terms.part(Placed(Add(), ((out, out), None)), [x, y], names.new("add"), New())
    if (act := residual.post_act) is not None:
        y = terms.part(Placed(act, (out,)), [y], names.new("post_act"), Own("post_act", Placed(act, (out,))))
    terms.result = y
    simplified = _simplified(terms)
    return replace(simplified, has_branch=True) if simplified is not None else None


def _normed(terms: Terms, norm: AnyPlaced, name: tuple[str, ...]) -> Term | None:
    """The norm of a branch, or its parts."""
    if (program := norm.op.as_program(*norm.told)) is None:
        return terms.part(norm, [None], name, Own("norm", norm))
    named = Program(program.shape, tuple(replace(step, name=(*name, *step.name)) for step in program.steps))
    return terms.add_program(named, None, [Own(f"norm.{step.path}", step.placed) for step in program.steps])


def _simplified(terms: Terms) -> Rewritten | None:
    simplify(terms)
    if not terms.has_changed:
        return None
    return Rewritten(terms.program(), tuple(term.recipe for term in terms.terms))


class _Names:
    """Names of modules that nothing has."""

    def __init__(self, taken: set[str]) -> None:
        self.taken = taken

    def new(self, wanted: str) -> tuple[str, ...]:
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}_{number}"
        self.taken.add(name)
        return (name,)


def _add(terms: Terms, placed: AnyPlaced, x: Term | None, prefix: str) -> Term | None:
    """The parts of a block that reads x."""
    steps = list(_steps(placed, prefix))
    program = Program(placed.place[0], tuple(step for step, _ in steps))
    return terms.add_program(program, x, [recipe for _, recipe in steps])


def _steps(placed: AnyPlaced, prefix: str) -> Iterator[tuple[Step, Recipe]]:
    """The parts of a block, with where their modules are; of one of one piece itself."""
    if (program := placed.op.as_program(*placed.place)) is not None:
        yield from ((step, Own(prefix + step.path, step.placed)) for step in program.steps)
        return
    op: Any = placed.op
    part = op.as_part() if isinstance(op, Mixer) else None
    own: AnyPlaced = placed if part is None else Placed(part, (placed.place[0], None))
    yield Step(own, (0,), facts(own).out_shape, name=(op.op,)), Own(prefix.rstrip("."), own)
