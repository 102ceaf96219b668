"""Looking into a forward pass: the value of every node, and what modules of a kind read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, fx, nn

from blockforge.compiler import Architecture
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.lower import is_leaf_on_nchw

Visit = Callable[[str, Tensor], None]


def run(model: Backbone, x_BCHW: Tensor, visit: Visit) -> Tensor:
    """Run a network and show the value of every node of its graph, in execution order.

    Values are maps_BHWC, of the head logits_BK. Inside a stage with windows B counts the tiles, image by image.
    """
    known = dict(model.named_modules())
    nodes = model.arch.graph.nodes
    sums = [name for name in nodes if nodes[name]["kind"] == "add"]  # no module makes them

    def show(name: str, value: Tensor) -> Tensor:
        visit(name, value.permute(0, 2, 3, 1) if is_leaf_on_nchw(nodes[name]) else value)
        return value

    hooks = [
        known[name].register_forward_hook(lambda _, args, value, name=name: show(name, value))  # type: ignore[misc]
        for name in nodes
        if name in known
    ]
    try:
        return Intercepted(model, {name: partial(show, name) for name in sums}).run(x_BCHW)
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


def units(arch: Architecture) -> dict[str, str]:
    """The stem, each downsampling and each layer, by the node that gives its value."""
    found: dict[str, str] = {}
    last: dict[str, str] = {}
    for name, node in arch.graph.nodes(data=True):
        if node["layer"] is not None:
            last[f"stages.{node['stage']}.layers.{node['layer']}"] = name
        elif node["kind"] in ("stem", "downsample"):
            last[name] = name
    found.update({node: unit for unit, node in last.items()})
    return found


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


def grid(arch: Architecture, node: str) -> Grid:
    """How the map that a node gives lies in the image.

    A stem that makes a row of tokens says by its `patches` how many of them lie where.
    """
    nodes = arch.graph.nodes
    stem, shape = nodes["stem"], nodes[node]["out_shape"]
    patches: Any = getattr(stem["impl"], "patches", None)
    if patches is not None and shape[:2] == stem["out_shape"][:2]:
        laid = patches(*stem["place"])
        if laid.positions < shape.positions:
            return Grid(laid.height, laid.width, shape.positions - laid.positions)
    return Grid(shape.height, shape.width)


@dataclass(frozen=True)
class Place:
    """Where a module works: its node, the map's grid, and the windows that its stage cuts the map into, if any."""

    node: str
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
    nodes, node = arch.graph.nodes, module
    while node not in nodes:
        node = node.rpartition(".")[0]
    out = f"stages.{nodes[node]['stage']}.window_out"
    if nodes[node]["layer"] is None or out not in nodes:
        return Place(node, grid(arch, node), None)
    return Place(node, grid(arch, nodes[out]["like"]), nodes[out]["window"])


def short(name: str) -> str:
    """A node or layer in few letters: `stages.2.layers.5.mlp` -> `2.5 mlp`, `stages.1.downsample` -> `1 downsample`."""
    parts = [part for part in name.split(".") if part not in ("stages", "layers")]
    numbers = [part for part in parts if part.isdigit()]
    return " ".join([".".join(numbers), *parts[len(numbers) :]]).strip() if name.startswith("stages.") else name
