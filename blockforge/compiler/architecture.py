"""A compiled spec: the graph with shapes and costs, and what can be asked of it."""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import networkx as nx

from blockforge.blocks.base import Shape, Tokens
from blockforge.compiler.costs.cost import add_costs
from blockforge.compiler.costs.liveness import live_bytes, peak_bytes
from blockforge.compiler.graph import canonical
from blockforge.errors import Diagnostic, SpecError
from blockforge.kernels.costs import DEFAULT, check_backend
from blockforge.spec.holes import fill
from blockforge.spec.model import Spec
from blockforge.spec.plan import Plan

if TYPE_CHECKING:
    from rich.console import Group

    from blockforge.compiler.costs.training import TrainingMemory

_BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
_SHOWN = (
    "kind", "op", "parameters", "stage", "layer", "in_shape", "out_shape", "windows", "reduction", "params", "macs",
    "scan", "activation_bytes", "workspace_bytes", "drop_path",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Architecture:
    """A network without tensors.

    Attributes:
        graph: a DiGraph in execution order. Node attributes: `kind` (input, stem, downsample, mixer, ffn,
            aggregator, norm, window_in, window_out, skip, add, head), `op` and `parameters` (the block and all
            its parameters), `inputs` (nodes read, in order), `stage`, `layer`, `in_shape`, `out_shape`
            (height, width, dim of one image or one window), `windows`, `reduction` (pixels of the image along a side
            for one position), `params`, `macs`, `scan`,
            `activation_bytes`, `workspace_bytes`, `scratch`, `path` and `loc` (where it is written). Edges carry `role`
            (main, intra, inter, skip) and `shape`.
        source: the spec it was compiled from; `spec` is the same with its holes filled.
        warnings: findings that did not stop the compiler.
        backend: whose memory the figures are of (`blockforge.kernels.costs`): a name, not what a machine has.
    """

    graph: nx.DiGraph
    source: Spec
    plan: Plan = field(repr=False)
    warnings: tuple[Diagnostic, ...] = ()
    backend: str = DEFAULT

    @property
    def name(self) -> str:
        return self.source.name

    @functools.cached_property
    def spec(self) -> Spec:
        """What was compiled, as an ordinary spec: no `extends`, no holes."""
        return fill(self.source, self.plan.answers) if self.plan.answers else self.source

    @functools.cached_property
    def params(self) -> int:
        """Learnt parameters."""
        return sum(n["params"] for n in self.graph.nodes.values())

    @functools.cached_property
    def macs(self) -> int:
        """Multiply-adds for one image, scans included: what vision papers call FLOPs."""
        return sum(n["macs"] for n in self.graph.nodes.values())

    @functools.cached_property
    def scan_macs(self) -> int:
        """The part of `macs` that is the closed form of scans, which operator counters do not see."""
        return sum(n["scan"] for n in self.graph.nodes.values())

    @functools.cached_property
    def depth(self) -> int:
        """Number of layers."""
        return sum(len(s.layers) for s in self.plan.stages)

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
        graph = self.graph.copy()
        add_costs(graph, backend)
        return dataclasses.replace(self, graph=graph, backend=backend)

    @property
    def peak_node(self) -> str:
        """The node that runs when most is alive."""
        return self._peak[1]

    def peak_activation_bytes(self, batch: int = 1, dtype: str = "float32") -> int:
        """Peak bytes that inference allocates for a batch: live activations and, in float32, what an operation on the
        CPU holds beside them, such as copies of its weights."""
        if dtype == "float32":
            return peak_bytes(self.graph, self._live, batch)
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

        return training_memory(self, batch, optimizer, checkpointing)

    @functools.cached_property
    def _live(self) -> dict[str, int]:
        return live_bytes(self.graph)

    @functools.cached_property
    def _peak(self) -> tuple[int, str]:
        at = max(self._live, key=self._live.__getitem__)
        return self._live[at], at

    @functools.cached_property
    def hash(self) -> str:
        """Equal for equal architectures, however they are written."""
        return canonical.digest(self.graph)

    def stage_shapes(self) -> list[Shape]:
        """What each stage gives: a map, or a row of tokens."""
        return [node["out_shape"] for node in self.stage_ends()]

    def stage_maps(self) -> list[Shape]:
        """The map that each stage gives; of a row of tokens, its patches."""
        return [_map(node["out_shape"], node["tokens"]) for node in self.stage_ends()]

    def stage_ends(self) -> list[dict[str, Any]]:
        """The node that gives each stage's map, its norm included."""
        last = {node["stage"]: node for node in self.graph.nodes.values() if node["stage"] is not None}
        return [last[i] for i in sorted(last)]

    def summary(self, layers: bool = True) -> Group:
        """A table a stage, and one a layer, to be printed by rich."""
        from blockforge.draw.summary import summary

        return summary(self, layers)

    def to_json(self, indent: int | None = None) -> str:
        """The graph as node-link JSON, with the spec; `from_json` reloads it."""
        nodes = [
            {"id": n, "inputs": list(d["inputs"]), **{k: d[k] for k in _SHOWN}} for n, d in self.graph.nodes(data=True)
        ]
        edges = [{"source": u, "target": v, **d} for u, v, d in self.graph.edges(data=True)]
        whole = {
            "blockforge": 1,
            "spec": self.spec.tree,
            "totals": {
                "params": self.params,
                "macs": self.macs,
                "activation_bytes": self.activation_bytes,
                "backend": self.backend,
                "hash": self.hash,
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
        from blockforge.compiler import compile_spec
        from blockforge.spec import load

        try:
            whole: Any = json.loads(text)
            tree, known = whole["spec"], whole["totals"]["hash"]
            backend = whole["totals"].get("backend", DEFAULT)
            if not isinstance(tree, dict):  # a text would name a file
                raise TypeError("its spec is no mapping")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
            raise SpecError([Diagnostic("json", f"not a graph written by blockforge: {e}")]) from None
        arch = compile_spec(load(tree), backend=backend)
        if arch.hash != known:
            text = f"the spec now compiles to another graph ({arch.hash}, was {known})"
            raise SpecError([Diagnostic("json", text, hint="it was written by another version of blockforge")])
        return arch

    def to_dot(self) -> str:
        """The graph in graphviz's language."""
        from blockforge.draw.dot_mermaid import to_dot

        return to_dot(self.graph, self.name)

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        from blockforge.draw.dot_mermaid import to_mermaid

        return to_mermaid(self.graph)


def _map(shape: Shape, tokens: Tokens | None) -> Shape:
    return shape if tokens is None else Shape(tokens.height, tokens.width, shape.dim)
