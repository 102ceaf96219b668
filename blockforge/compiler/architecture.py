"""A compiled spec: the graph with shapes and costs, and what can be asked of it."""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx

import blockforge
from blockforge.blocks.base import Shape
from blockforge.compiler.costs.cost import priced
from blockforge.compiler.costs.liveness import live_bytes, peak_bytes
from blockforge.compiler.deploy.network import deployment
from blockforge.compiler.graph import canonical
from blockforge.compiler.graph.nodes import Edge, Node, digraph
from blockforge.compiler.graph.sites import HeadSite
from blockforge.compiler.graph.units import Stage, Unit, stages_of, units_of
from blockforge.compiler.least_image import least_image
from blockforge.errors import Diagnostic, SpecError
from blockforge.kernels.costs import DEFAULT, CostError, check_backend
from blockforge.spec.holes import fill
from blockforge.spec.model import Spec
from blockforge.spec.plan import Plan
from blockforge.units import format_bytes, format_count

if TYPE_CHECKING:
    from collections.abc import Collection

    from rich.console import Group

    from blockforge.compiler.costs.training import TrainingMemory

_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_SHOWN = (
    "kind", "op", "parameters", "stage", "layer", "in_shape", "out_shape", "windows", "reduction", "params", "macs",
    "scan", "activation_bytes", "workspace_bytes", "drop_path",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Architecture:
    """A network without tensors.

    Attributes:
        nodes: by name, in execution order: what stands there, the maps that it reads and gives, what it costs.
        source: the spec it was compiled from; `spec` is the same with its holes filled.
        warnings: findings that did not stop the compiler.
        backend: whose memory the figures are of (`blockforge.kernels.costs`): a name, not what a machine has.
        trained: of an architecture in the form that is deployed the form that is trained; None: it is that.
    """

    nodes: dict[str, Node]
    source: Spec
    plan: Plan
    warnings: tuple[Diagnostic, ...] = ()
    backend: str = DEFAULT
    trained: Architecture | None = None

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def title(self) -> str:
        """Its name, and the form where that is the one that is deployed."""
        return self.name if self.trained is None else f"{self.name} (deployed)"

    def __repr__(self) -> str:
        """A line: the nodes are pages of text."""
        return f"<Architecture {self.title}: {self.totals}>"

    @functools.cached_property
    def graph(self) -> nx.DiGraph[str]:
        """The network as a networkx graph, in execution order.

        Attributes of a node: `node`, its object; `kind` (input, stem, downsample, mixer, ffn, aggregator, norm,
        window_in, window_out, skip, add, head); `op` and `parameters` (the block and all its parameters); `impl`,
        `norm` and `place` (the blocks as objects, and where the first stands); `inputs` (nodes read, in order);
        `stage`, `layer`; `in_shape`, `out_shape` (height, width, dim of one image or one window, and how many tokens
        stand beside it if any do), `windows`, `reduction` (pixels of the image along a side for one position);
        `params`, `macs`, `scan`, `activation_bytes`, `workspace_bytes`, `scratch`; `drop_path`; `path` and `loc` (where
        it is written). Edges have an `edge`, and its `role` (main, intra, inter, skip) and `shape`.
        """
        return digraph(self.nodes.values(), self.plan.locs)

    @property
    def edges(self) -> list[Edge]:
        """The edges of `graph`, by the node that they leave."""
        return [attributes["edge"] for *_, attributes in self.graph.edges(data=True)]

    @functools.cached_property
    def units(self) -> tuple[Unit, ...]:
        """What runs as one module, in execution order: layers, and nodes outside of them."""
        return units_of(self.nodes.values(), self.plan)

    @functools.cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages with their layers."""
        return stages_of(self.units)

    @functools.cached_property
    def heads(self) -> dict[str, Unit]:
        """What gives each output, by its name: the main one first. The one of `head` is called so."""
        return {unit.first.site.output: unit for unit in self.units if isinstance(unit.first.site, HeadSite)}

    @property
    def main_head(self) -> Unit:
        """What gives the main output."""
        return next(iter(self.heads.values()))

    def units_of(self, head: Unit) -> tuple[Unit, ...]:
        """A head with what is on its edges."""
        return tuple(unit for unit in self.units if unit.first.site.output == head.first.site.output)

    def read_by(self, head: Unit) -> tuple[Unit, ...]:
        """What a head reads, its edges and their join included: each once, in the order in which it is read."""
        own = {unit.name: unit for unit in self.units_of(head)}
        read = dict.fromkeys(i for unit in own.values() for i in unit.inputs if i not in own)
        units = {unit.name: unit for unit in self.units}
        return tuple(units[name] for name in read)

    @functools.cached_property
    def spec(self) -> Spec:
        """What was compiled, as an ordinary spec: no `extends`, no holes."""
        return fill(self.source, self.plan.answers) if self.plan.answers else self.source

    @functools.cached_property
    def params(self) -> int:
        """Learnt parameters of what leads to an output."""
        return sum(n.params for n in self.computed.values())

    @functools.cached_property
    def computed(self) -> dict[str, Node]:
        """The nodes that `forward(x)` runs, in execution order: those that lead to an output. A stage that only
        `features` name leads to none; `build` leaves it out, unless its maps are asked for."""
        wanted = {unit.last.name for unit in self.heads.values()}
        for node in reversed(self.nodes.values()):  # what a node reads stands before it
            if node.name in wanted:
                wanted.update(node.inputs)
        return {name: node for name, node in self.nodes.items() if name in wanted}

    @functools.cached_property
    def macs(self) -> int:
        """Multiply-adds of `forward(x)` for one image, scans included: what vision papers call FLOPs."""
        return sum(n.macs for n in self.computed.values())

    @functools.cached_property
    def scan_macs(self) -> int:
        """The part of `macs` that is the closed form of scans, which operator counters do not see."""
        return sum(n.costs.scan for n in self.computed.values())

    @functools.cached_property
    def depth(self) -> int:
        """Number of layers."""
        return sum(len(s.layers) for s in self.plan.stages)

    @property
    def features(self) -> tuple[int, ...]:
        """The stages whose maps are the network's features: those that the spec names, else all."""
        return self.plan.features or tuple(range(len(self.plan.stages)))

    @property
    def form(self) -> Literal["trained", "deployed"]:
        """Which form of the network this is."""
        return "trained" if self.trained is None else "deployed"

    @functools.cached_property
    def deployed(self) -> Architecture:
        """The form that is deployed: equal outputs in inference, and costs of its own. Convolutions have taken up the
        norms behind them, and sums of convolutions are one; see `bf.deploy`."""
        return self if self.trained is not None else deployment(self).arch

    def in_form(self, form: str) -> Architecture:
        """This network in a form, `trained` or `deployed`."""
        return self.deployed if form == "deployed" else self.trained or self

    @property
    def totals(self) -> str:
        """The figures in one line."""
        figures = f"{format_count(self.params)} params, {format_count(self.macs)} MACs"
        return f"{figures}, {format_bytes(self.activation_bytes)} peak activations, {self.depth} layers"

    @property
    def activation_bytes(self) -> int:
        """Peak bytes of live activations in inference, one float32 image, on `backend`. What each image of a batch
        adds; what is allocated for a batch is `peak_activation_bytes`."""
        return self._peak[0]

    def on(self, backend: str) -> Architecture:
        """The same network with the memory of another backend: `arch.on("torch").activation_bytes`.

        Raises: CostError if no costs of it are known.
        """
        check_backend(backend)
        if backend == self.backend:
            return self
        sites, shapes = [n.site for n in self.nodes.values()], {name: n.shapes for name, n in self.nodes.items()}
        return dataclasses.replace(self, nodes=priced(sites, shapes, backend), backend=backend)

    @property
    def peak_node(self) -> str:
        """The node that runs when most is alive."""
        return self._peak[1]

    def peak_activation_bytes(self, batch: int = 1, dtype: str = "float32") -> int:
        """Peak bytes that inference allocates for a batch: live activations and, in float32, what an operation on the
        CPU holds beside them, such as copies of its weights."""
        if dtype == "float32":
            return peak_bytes(list(self.computed.values()), self.live_bytes, batch)
        return self.activation_bytes // 4 * _BYTES[dtype] * batch

    def training_memory(self, batch: int = 64, optimizer: str = "adamw", checkpointing: bool = False) -> TrainingMemory:
        """What training in float32 holds, found by a step on the meta device: no memory, about a second.

        Args:
            batch: images of a step, in one process.
            optimizer: `adamw`, `sgd` (with momentum) or `plain_sgd`.
            checkpointing: with every layer computed anew in the backward pass (`set_grad_checkpointing`).
        Raises: CostError if there is no such optimiser, or a block does not run on the meta device.
        """
        from blockforge.compiler.costs.training import training_memory

        if self.trained is not None:
            text = f"{self.name} is deployed, which is not trained"
            raise CostError(f"{text}\n  hint: arch.trained.training_memory() is of the form that is")
        return training_memory(self, batch, optimizer, checkpointing)

    @functools.cached_property
    def live_bytes(self) -> dict[str, int]:
        """Node -> most bytes alive at once while it runs, for one float32 image; 0 where `forward(x)` leaves it out."""
        return dict.fromkeys(self.nodes, 0) | live_bytes(list(self.computed.values()))

    @functools.cached_property
    def _peak(self) -> tuple[int, str]:
        at = max(self.live_bytes, key=self.live_bytes.__getitem__)
        return self.live_bytes[at], at

    @functools.cached_property
    def hash(self) -> str:
        """Equal for equal architectures, however they are written; of either form that of the one that is trained."""
        if self.trained is not None:
            return self.trained.hash
        return canonical.digest(list(self.nodes.values()))

    @functools.cached_property
    def least_image(self) -> tuple[int, int]:
        """Height and width of the smallest image of which all that reads it leaves something."""
        return self.trained.least_image if self.trained is not None else least_image(self.nodes)

    def stage_shapes(self) -> list[Shape]:
        """What each stage gives: its map, and how many tokens stand beside it."""
        return [stage.end.last.out_shape for stage in self.stages]

    def stage_maps(self) -> list[Shape]:
        """The map that each stage gives, without the tokens beside it."""
        return [shape._replace(extra=0) for shape in self.stage_shapes()]

    def summary(self, layers: bool = True, parts: bool = False) -> Group:
        """A table a stage, one a layer, and with `parts` one a composed block, to be printed by rich."""
        return blockforge.summary(self, layers, parts)

    def to_json(self, indent: int | None = None) -> str:
        """The graph as node-link JSON, with the spec; `from_json` reloads it."""
        known = {name: node.attributes() for name, node in self.nodes.items()}
        nodes = [{"id": n, "inputs": list(d["inputs"]), **{k: d[k] for k in _SHOWN}} for n, d in known.items()]
        edges = [{"source": e.source, "target": e.target, "role": e.role, "shape": e.shape} for e in self.edges]
        whole = {
            "blockforge": 1,
            "spec": self.spec.tree,
            "totals": {
                "params": self.params,
                "macs": self.macs,
                "activation_bytes": self.activation_bytes,
                "backend": self.backend,
                "hash": self.hash,
                **({"form": self.form} if self.trained is not None else {}),
            },
            "directed": True,
            "multigraph": False,
            "graph": {"name": self.name},
            "nodes": nodes,
            "edges": edges,
        }
        return json.dumps(whole, indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """The architecture that `to_json` wrote, compiled anew from the spec in it.

        Raises: SpecError if the text is not such JSON, or if this version compiles the spec to another graph.
        """
        from blockforge.spec import load

        try:
            whole: Any = json.loads(text)
            tree, known = whole["spec"], whole["totals"]["hash"]
            backend, form = whole["totals"].get("backend", DEFAULT), whole["totals"].get("form", "trained")
            if not isinstance(tree, dict):  # a text would name a file
                raise TypeError("its spec is no mapping")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            raise SpecError([Diagnostic("json", f"not a graph written by blockforge: {e}")]) from None
        arch = blockforge.compile(load(tree), backend=backend)
        if arch.hash != known:
            text = f"the spec now compiles to another graph ({arch.hash}, was {known})"
            raise SpecError([Diagnostic("json", text, hint="it was written by another version of blockforge")])
        return arch.in_form(form)

    def to_svg(self, opened: Collection[str] = ()) -> str:
        """A picture. `opened`: nodes whose blocks are drawn as their parts; in a browser others open where pressed."""
        return blockforge.to_svg(self, opened=opened)

    def to_dot(self, opened: Collection[str] = ()) -> str:
        """The graph in graphviz's language."""
        return blockforge.to_dot(self, opened)

    def to_mermaid(self, opened: Collection[str] = ()) -> str:
        """The graph as a Mermaid flowchart."""
        return blockforge.to_mermaid(self, opened)

    def _repr_html_(self) -> str:
        """The picture, for notebooks; in a frame of its own, where blocks open."""
        return blockforge.framed_svg(self)
