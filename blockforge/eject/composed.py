"""Composed blocks as classes: one for each code that runs, named after the place where it first stands."""

from __future__ import annotations

import ast
import re
from keyword import iskeyword

from blockforge.blocks.compose.head import ComposedHead
from blockforge.blocks.compose.module import Composed
from blockforge.eject.expressions import Call, Code, Expr, Func, Items, replaced
from blockforge.eject.simplify import simplified


def code_of(module: Composed) -> Code:
    """What a composed block runs, without what only speed needs."""
    lines = [line.strip() for line in simplified(module.code).splitlines()[1:]]
    lines = [line for line in lines if not line.endswith(" = None")]
    if not isinstance(module, ComposedHead):
        return Code("\n".join(lines))
    lines[-1] += ".flatten(1)" if module.program.out_shape.positions == 1 else ".permute(0, 3, 1, 2)"
    return Code("\n".join(lines), is_head=True)


def by_name(modules: dict[str, Expr]) -> tuple[tuple[str, Expr], ...]:
    """Modules as the arguments of `Parts`."""
    if all(name.isidentifier() and not iskeyword(name) for name in modules):
        return tuple(modules.items())
    keys = tuple(f'"{name}"' for name in modules)
    return (("", Items("**{", tuple(modules.values()), "}", keys)),)


class Classes:
    """The classes of a network's composed blocks.

    Attributes:
        names: of each.
        made: what makes the network's modules, with these names.
    """

    def __init__(self, made: dict[str, Expr], taken: set[str]) -> None:
        self.names: dict[Code, str] = {}
        self._taken = set(taken)
        for path, expr in made.items():
            self._find(expr, path.rpartition(".")[2])
        self.made = {path: replaced(expr, lambda leaf: leaf, self._named) for path, expr in made.items()}

    def texts(self) -> list[str]:
        """The classes, as Python."""
        return [_text(name, code) for code, name in self.names.items()]

    def attributes(self) -> set[str]:
        """What they ask of their parts."""
        return {n.attr for text in self.texts() for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Attribute)}

    def _named(self, func: Func) -> Func:
        return self.names[func] if isinstance(func, Code) else func

    def _find(self, expr: Expr, label: str) -> None:
        """`label`: the last name on the way to the expression, a branch's or that of the module."""
        if isinstance(expr, Call):
            if isinstance(expr.func, Code) and expr.func not in self.names:
                self.names[expr.func] = self._unique(label)
            for _, value in expr.args:
                self._find(value, label)
        elif isinstance(expr, Items):
            for key, item in zip(expr.keys or [label] * len(expr.items), expr.items, strict=True):
                self._find(item, key.strip('"'))

    def _unique(self, label: str) -> str:
        name = re.sub(r"\W", "", label.title().replace("_", ""))
        name = name if name.isidentifier() else f"Block{name}"
        found = next(n for i in range(1, 10**6) if (n := name if i == 1 else f"{name}{i}") not in self._taken)
        self._taken.add(found)
        return found


def _text(name: str, code: Code) -> str:
    logits = "logits_BK" if code.text.endswith(".flatten(1)") else "logits_BKHW"
    lines = [
        f"class {name}(Parts):",
        f'    """x_BHWC -> {logits if code.is_head else "y_BHWC"}."""',
        "",
        "    def forward(self, x: Tensor) -> Tensor:",
        *(f"        {line}" for line in code.text.splitlines()),
    ]
    return "\n".join(lines)
