"""A resolved spec: no extends, references or holes, and every layer written out.

The compiler turns a plan into a graph. Blocks are still names with parameters; the registry knows the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blockforge.errors import Locs, Path
from blockforge.spec.glossary import Glossary
from blockforge.spec.model import BranchKeys, ConnectSpec, InputSpec
from blockforge.spec.reporting import Origins
from blockforge.spec.slots import OpSpec


@dataclass(frozen=True, slots=True)
class PlannedOp:
    """A block to be made: its name and parameters, and where they are written."""

    spec: OpSpec
    path: Path
    origins: Origins
    place: Mapping[str, Any] = field(default_factory=dict)
    """Names of the place, where the op reads them: layer, depth, stage, classes."""

    @property
    def at(self) -> Path:
        """Where the op's parameters are written: inside lists of one and mappings that say nothing more."""
        path, written = self.path, self.spec.written()
        while list(written) == ["op"] and isinstance(inner := written["op"], dict | list):
            path = (*path, "op")
            while isinstance(inner, list) and len(inner) == 1:
                path, inner = (*path, 0), inner[0]
            if not isinstance(inner, dict) or "op" not in inner:
                break
            written = inner
        return path


@dataclass(frozen=True, slots=True)
class Branch:
    """One residual branch of a layer."""

    op: PlannedOp
    norm: PlannedOp | None
    keys: BranchKeys
    post_act: PlannedOp | None


@dataclass(frozen=True, slots=True)
class Source:
    """A map that is read: that of a stage, `stem` or `input`; through an op, if there is one."""

    of: int | str
    op: PlannedOp | None
    path: Path


@dataclass(frozen=True, slots=True)
class Reads:
    """What is read, and how it becomes one map: nothing is joined where there is one. `written`: whether the spec says
    it; else it is the map before."""

    sources: tuple[Source, ...]
    join: PlannedOp
    written: bool = True


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage with its layers written out: `layers[i]` is the block's name and its branches. `dim`: None where nobody
    says; then it is what the layers give."""

    index: int
    name: str | None
    dim: int | None
    reads: Reads
    layers: tuple[tuple[str, tuple[Branch, ...]], ...]
    downsample: PlannedOp | None
    window: int | None
    connect: ConnectSpec | None
    aggregate: PlannedOp | None
    norm: PlannedOp | None
    origins: Origins
    takes_norm: bool = True
    """Whether its norm is the spec's."""

    @property
    def path(self) -> Path:
        return ("stages", self.index)

    @property
    def title(self) -> str:
        """As pictures call it."""
        return f"stage {self.index}" + (f" {self.name}" if self.name else "")

    def __str__(self) -> str:
        """As messages call it."""
        return f"stage {self.index}" + (f" '{self.name}'" if self.name else "")


@dataclass(frozen=True, slots=True)
class Skip:
    """A long edge between stage inputs."""

    source: int
    targets: tuple[int, ...]
    op: PlannedOp
    path: Path


@dataclass(frozen=True, slots=True)
class Head:
    """What gives an output of the network; `name`: the output's, by which a mapping of several has it."""

    name: str
    op: PlannedOp
    reads: Reads

    @property
    def path(self) -> str:
        """Of what stands below it: `head`, or `heads.seg`."""
        return ".".join(map(str, self.op.path))

    @property
    def module(self) -> str:
        """The path of the op's module: `head`; beside what is on its edges `head.op`."""
        is_alone = len(self.reads.sources) == 1 and self.reads.sources[0].op is None
        return self.path if is_alone else f"{self.path}.op"

    @property
    def op_path(self) -> str:
        """Where its op is written, for `--set`."""
        return f"{self.path}.op" if self.reads.written else self.path

    def __str__(self) -> str:
        """As messages call it."""
        return "the head" if self.op.path[0] == "head" else f"the head '{self.name}'"


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the compiler needs, and the table of places for its errors."""

    name: str
    input: InputSpec
    num_classes: int
    drop_path: tuple[float, ...]
    stem: PlannedOp | None
    stem_dim: int | None
    stages: tuple[Stage, ...]
    skips: tuple[Skip, ...]
    heads: tuple[Head, ...]
    """The main one first."""
    locs: Locs = field(repr=False)
    answers: Mapping[str, Any] = field(default_factory=dict)
    """What the holes were filled with, by name."""
    glossary: Glossary = field(default_factory=Glossary)
    """The definitions; holes in those that the network may use are filled."""
    features: tuple[int, ...] | None = None
    """The stages whose maps are asked for where nobody says which; None: all."""

    @property
    def head(self) -> PlannedOp:
        """The main head."""
        return self.heads[0].op

    @property
    def names_outputs(self) -> bool:
        """Whether the network gives a mapping of outputs, as `heads` does; else the one output of `head`."""
        return self.head.path[0] == "heads"
