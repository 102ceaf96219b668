"""A program as a module: one line of Python a part, as in a `forward` that is written by hand."""

from __future__ import annotations

import functools
import json
import keyword
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from blockforge.blocks.base import Layout
from blockforge.blocks.building import built
from blockforge.blocks.compose import memory
from blockforge.blocks.compose.program import Program, Step
from blockforge.blocks.joins.meeting import added
from blockforge.blocks.layers import residual_dwconv
from blockforge.kernels.cpu import activate, untouched

Run = Callable[..., Tensor]


class Parts(nn.Module):
    """What holds the modules of parts that stand together, under their names."""


class Composed(Parts):
    """Runs a program: x_BHWC -> y_BHWC.

    Attributes:
        program: what it was made of; the modules of its parts are below it, under the names of the steps.
        code: what it runs, as Python.
        run: the function that this makes.
        made: the classes of the modules of the steps, as they were built.
    """

    program: Program
    made: tuple[type[nn.Module], ...]
    run: Run

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = program
        for step in program.own_modules():
            put(self, step.name, built(step.placed))
        self.hold_types()

    def hold_types(self) -> None:
        """Remember what was built: another class in its place takes no shorter way."""
        steps, called = enumerate(self.program.steps, 1), self.program.called
        self.made = tuple(type(self.get_submodule(s.path)) if n in called else nn.Identity for n, s in steps)
        self.run = _compiled(self.code, self.made)

    def become(self, program: Program) -> bool:
        """Run another program. What gives classes is new, and what stands otherwise in it; other modules stay. Says
        whether anything is new."""
        like, has_new = next(self.parameters(), None), False
        before = {step.name: step for step in self.program.own_modules()}
        kept = {name: self.get_submodule(step.path) for name, step in before.items()}
        self.program = program
        for name in {name[0] for name in before}:
            delattr(self, name)
        for step in program.own_modules():
            stays = step.name in before and before[step.name].placed == step.placed and not step.classifies
            module = kept[step.name] if stays else built(step.placed)
            put(self, step.name, module if stays or like is None else module.to(like.device, like.dtype))
            has_new = has_new or not stays
        self.hold_types()
        return has_new

    @property
    def code(self) -> str:
        return code(self.program)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "run"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.run = _compiled(self.code, self.made)


def code(program: Program) -> str:
    """A function of the module and the map, as Python: maps are dropped after their last use."""
    return _written(program, tuple(step.name for step in program.steps))


@functools.lru_cache(4096)
def _written(program: Program, names: tuple[tuple[str, ...], ...]) -> str:
    """`names`: of the modules that it calls; programs that differ in them alone are equal."""
    return _Writer(program).text()


@functools.lru_cache(4096)
def _compiled(text: str, made: tuple[type, ...]) -> Run:
    """The function that `code` writes: nothing of a spec is in the text but names of modules."""
    scope: dict[str, Any] = {"activate": activate, "untouched": untouched, "called": called, "made": made}
    scope |= {"added": added, "residual_dwconv": residual_dwconv}
    exec(compile(text, "<composed block>", "exec"), scope)
    run: Run = scope["run"]
    return run


def called(module: nn.Module, x: Tensor) -> Tensor:
    """What runs the module that gives the classes, unless a head says otherwise."""
    y: Tensor = module(x)
    return y


class _Writer:
    """Writes the lines; a value has a variable for each layout that somebody reads it in."""

    def __init__(self, program: Program) -> None:
        self.program, self.in_place, self.shorter = program, memory.in_place(program), program.shorter
        self.without_line = frozenset(self.shorter.added.values())
        self.without_line |= {n for numbers in self.shorter.shares.values() for n in numbers[1:]}
        self.known: list[dict[Layout, str]] = [{"NHWC": "x"}]
        self.lines: list[str] = []

    def text(self) -> str:
        last = len(self.program.steps)
        for number, step in enumerate(self.program.steps, 1):
            if number in self.without_line:  # another one's does it
                self.known.append({"NHWC": f"x{number}"} if number in self.shorter.views else {})
                self.forget(number)
                continue
            args = [self.variable(i, step.op.layout) for i in step.inputs if self.known[i]]
            self.known.append({step.op.layout: f"x{number}"})
            gives = ", ".join(f"x{n}" for n in self.shorter.shares.get(number, (number,)))
            self.lines.append(f"{gives} = {self.call(number, step, args)}")
            if any(s.sized_by == number for s in self.program.steps):
                self.lines.append(f"size{number} = {args[0]}.shape[1:3]")
            self.forget(number)
        self.lines.append(f"return {self.variable(last, 'NHWC')}")
        return "def run(self, x, classify=called):\n" + "".join(f"    {line}\n" for line in self.lines)

    def call(self, number: int, step: Step, args: list[str]) -> str:
        if number in self.shorter.added:
            return f"residual_dwconv({_module(self.program.steps[self.shorter.added[number] - 1])}, {args[0]})"
        if number in self.shorter.shares:
            sizes = [end - start for start, end in map(self.shorter.views.__getitem__, self.shorter.shares[number])]
            return f"{args[0]}.split({sizes}, -1)"
        if step.inline is not None:
            return step.inline.format(*args)
        if step.classifies:
            return f"classify({_module(step)}, {args[0]})"
        if number not in self.in_place:
            return f"{_module(step)}({', '.join([*args, *self.about_tiles(step, args[0])])})"
        giver = step.inputs[0]
        while giver in self.shorter.views:
            giver = self.program.steps[giver - 1].inputs[0]
        source = self.program.steps[giver - 1]
        own = f"untouched({_module(source)}, made[{giver - 1}])" if giver in self.program.called else "True"
        return f"activate({_module(step)}, {args[0]}, {own})"

    def about_tiles(self, step: Step, x: str) -> list[str]:
        """What a step is told of the tiles that it runs on, or puts together."""
        if step.sized_by is None:
            return []
        cut = self.program.steps[step.sized_by - 1]
        if step.op.kind == "join":
            return [f"mask={_module(cut)}.mask(size{step.sized_by}, {x}.device)"]
        return [f"size{step.sized_by}"]

    def variable(self, value: int, layout: Layout) -> str:
        """The variable that holds a value in this layout."""
        known = self.known[value]
        if layout not in known:
            (source,) = known.values()
            axes = "0, 3, 1, 2" if layout == "NCHW" else "0, 2, 3, 1"
            known[layout] = f"{source}_{layout.lower()}"
            self.lines.append(f"{known[layout]} = {source}.permute({axes})")
        return known[layout]

    def forget(self, number: int) -> None:
        """Drop the values that this step was the last to read."""
        step = self.program.steps[number - 1]
        done = [i for i in dict.fromkeys(step.inputs) if self.program.readers[i][-1] == number]
        names = [name for i in done for name in self.known[i].values()]
        if names:
            self.lines.append(f"{' = '.join(names)} = None")


def _module(step: Step) -> str:
    plain = (n.isidentifier() and not keyword.iskeyword(n) for n in step.name)
    return "self" + "".join(
        f".{n}" if is_plain else f"._modules[{json.dumps(n)}]" for n, is_plain in zip(step.name, plain, strict=True)
    )


def put(root: nn.Module, name: tuple[str, ...], module: nn.Module) -> None:
    """Register a module below `root`."""
    for part in name[:-1]:
        if part not in root._modules:
            root.add_module(part, Parts())
        root = root._modules[part]  # type: ignore[assignment]
    root.add_module(name[-1], module)
