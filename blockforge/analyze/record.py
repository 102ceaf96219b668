"""Looking into a forward pass: the value of every node, and what modules of a kind read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, fx, nn

from blockforge.compiler import Architecture
from blockforge.compiler.graph.nodes import Node
from blockforge.compiler.graph.sites import ReducingSite, SkipSite, SumSite
from blockforge.compiler.graph.units import Layer, Unit
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.lower import is_leaf_on_nchw
from blockforge.compiler.lowering.outputs import Outputs

Visit = Callable[[str, Tensor], None]


def run(model: Backbone, x_BCHW: Tensor, visit: Visit) -> Outputs:
    """Run a network and show the value of every node of its graph, in execution order.

    Values are maps_BHWC, of the head logits_BK, or of a map logits_BKHW. Inside a stage with windows B counts the
    tiles, image by image.
    """
    known = dict(model.named_modules())
    nodes = model.arch.nodes
    sums = [name for name, node in nodes.items() if isinstance(node.site, SumSite)]  # no module makes them

    def show(name: str, value: Tensor) -> Tensor:
        visit(name, value.permute(0, 2, 3, 1) if is_leaf_on_nchw(nodes[name]) else value)
        return value

    hooks = [
        known[name].register_forward_hook(lambda _, args, value, name=name: show(name, value))  # type: ignore[misc]
        for name in nodes
        if name in known
    ]
    try:
        outputs: Outputs = Intercepted(model, {name: partial(show, name) for name in sums}).run(x_BCHW)
        return outputs
    finally:
        for hook in hooks:
            hook.remove()


class Intercepted(fx.Interpreter):
    """Runs a network's graph; what some of its nodes give goes through a function first.

    Args:
        changes: by what the graph calls: a layer (`stages.2.layers.0`) or a node outside of layers.
    """

    def __init__(self, model: Backbone, changes: Mapping[str, Callable[[Tensor], Tensor]]) -> None:
        super().__init__(model)
        self.changes = {name.replace(".", "_"): change for name, change in changes.items()}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        return self.changes[n.name](value) if n.name in self.changes else value


@contextmanager
def reading(modules: dict[str, nn.Module], see: Callable[[str, nn.Module, Tensor], None]) -> Iterator[None]:
    """Show what each module reads, x_BHWC, as long as this lasts."""
    hooks = [
        module.register_forward_pre_hook(lambda module, args, name=name: see(name, module, args[0]))  # type: ignore[misc]
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def units(arch: Architecture) -> list[Unit]:
    """The stem, each downsampling and each layer, in execution order."""
    return [unit for unit in arch.units if isinstance(unit, Layer) or _is_reducing(unit)]


def _is_reducing(unit: Unit) -> bool:
    site = unit.first.site
    return isinstance(site, ReducingSite) and not isinstance(site, SkipSite)


@dataclass(frozen=True)
class Grid:
    """Where the positions of a map lie in the image.

    Attributes:
        height, width: positions in each direction.
        before: positions at the start of the row that lie nowhere, such as a class token.
    """

    height: int
    width: int
    before: int = 0

    def place(self, row: Any, column: Any) -> tuple[Any, Any]:
        """A position on the map -> where it lies; numbers or tensors. Tokens without a place get negative ones."""
        if not self.before:
            return row, column
        index = column - self.before
        return index // self.width, index - index // self.width * self.width

    def picture(self, values_BHW: Tensor) -> Tensor:
        """Values of each position of a map -> as they lie in the image, (B, height, width)."""
        return values_BHW.flatten(1)[:, self.before :].unflatten(1, (self.height, self.width))


def grid(node: Node) -> Grid:
    """How the map that a node gives lies in the image."""
    shape = node.out_shape
    return Grid(shape.height, shape.width, shape.extra)


@dataclass(frozen=True)
class Place:
    """Where a module works: its node, the map's grid, and the windows that its stage cuts the map into, if any."""

    node: Node
    grid: Grid
    window: int | None

    @property
    def tiles(self) -> int:
        """Windows of a map."""
        if self.window is None:
            return 1
        return -(-self.grid.height // self.window) * -(-self.grid.width // self.window)


def place_of(arch: Architecture, module: str) -> Place:
    """The place of the module of this name."""
    path = module
    while path not in arch.nodes:
        path = path.rpartition(".")[0]
    node = arch.nodes[path]
    out = arch.stages[node.stage].window_out if node.stage is not None and node.layer is not None else None
    return Place(node, grid(node), None) if out is None else Place(node, grid(arch.nodes[out.like]), out.window)


def short(name: str) -> str:
    """A node or layer in few letters: `stages.2.layers.5.mlp` -> `2.5 mlp`, `stages.1.downsample` -> `1 downsample`."""
    parts = [part for part in name.split(".") if part not in ("stages", "layers")]
    numbers = [part for part in parts if part.isdigit()]
    return " ".join([".".join(numbers), *parts[len(numbers) :]]).strip() if name.startswith("stages.") else name
