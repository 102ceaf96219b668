"""The parts of a node as a graph that can be rewritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from blockforge.blocks.base import AnyOp, AnyPlaced, Cost, Shape
from blockforge.blocks.compose.program import Program, Step
from blockforge.blocks.facts import facts
from blockforge.blocks.filters import Filter
from blockforge.blocks.part import Join
from blockforge.compiler.deploy.tensors import Recipe


@dataclass(eq=False)
class Term:
    """A part. `reads`: what it reads, None: what the node does.

    Attributes:
        step: what runs; the numbers in it do not count.
        recipe: where its values come from.
        cut: what cut the tiles that it must know of.
        is_alone: whether no other part has its module.
    """

    step: Step
    reads: list[Term | None]
    recipe: Recipe
    cut: Term | None = None
    is_alone: bool = True

    @property
    def op(self) -> AnyOp:
        return self.step.op

    @property
    def placed(self) -> AnyPlaced:
        return self.step.placed

    @property
    def filter(self) -> Filter | None:
        """The convolution that it is, if it is one that may be put together with others."""
        return self.op.as_filter(*self.placed.place) if self.is_alone else None

    @property
    def factors(self) -> tuple[float, ...] | None:
        """What it multiplies each map that it reads by, if it adds them then."""
        return self.op.factors(self.placed.place[0]) if isinstance(self.op, Join) else None

    @property
    def cost(self) -> Cost:
        return facts(self.placed).cost


@dataclass
class Terms:
    """The parts of a node in the order they run; `result`: the one that gives its result, None: what it reads."""

    shape: Shape
    terms: list[Term] = field(default_factory=list)
    result: Term | None = None
    has_changed: bool = False

    def add(self, term: Term) -> Term:
        self.terms.append(term)
        return term

    def part(self, placed: AnyPlaced, reads: list[Term | None], name: tuple[str, ...], recipe: Recipe) -> Term:
        """A part at the end, of the whole map."""
        step = Step(placed, (), facts(placed).out_shape, name=name)
        return self.add(Term(step, reads, recipe))

    def add_program(self, program: Program, x: Term | None, recipes: Iterable[Recipe]) -> Term | None:
        """The parts of a block that reads x; gives the one that gives its result."""
        made: list[Term | None] = [x]
        uses = Counter(step.name for step in program.steps if step.has_module)
        for step, recipe in zip(program.steps, recipes, strict=True):
            cut = made[step.sized_by] if step.sized_by is not None else None
            term = Term(step, [made[i] for i in step.inputs], recipe, cut, uses[step.name] < 2)
            made.append(self.add(term))
        return made[-1]

    def readers(self) -> Counter[Term | None]:
        """How often each value is read, once more what is the result."""
        return Counter([value for term in self.terms for value in term.reads] + [self.result])

    def replace(self, old: Term, new: Term | None) -> None:
        """Let whatever reads one value read another."""
        for term in self.terms:
            term.reads = [new if value is old else value for value in term.reads]
        if self.result is old:
            self.result = new

    def sweep(self) -> None:
        """Leave out what nobody reads."""
        wanted = {self.result}
        for term in reversed(self.terms):
            if term in wanted:
                wanted |= {*term.reads, term.cut}
        self.terms = [term for term in self.terms if term in wanted]

    def program(self) -> Program:
        numbers: dict[Term | None, int] = {None: 0} | {term: i for i, term in enumerate(self.terms, 1)}
        assert numbers[self.result] == len(self.terms)
        steps = tuple(
            replace(
                term.step,
                inputs=tuple(numbers[value] for value in term.reads),
                sized_by=numbers[term.cut] if term.cut is not None else None,
            )
            for term in self.terms
        )
        return Program(self.shape, steps)
