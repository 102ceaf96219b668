"""A resolved spec: no extends, references or holes, and every layer written out.

The compiler turns a plan into a graph. Blocks are still names with parameters; the registry knows the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from blockforge.errors import Loc, Locs, Path
from blockforge.spec.model import BranchSpec, ConnectSpec, InputSpec, OpSpec, ScaleSpec


@dataclass(frozen=True, slots=True)
class PlannedOp:
    """A block to be made: its name and parameters, and where they are written."""

    spec: OpSpec
    path: Path
    origins: tuple[tuple[Path, Path], ...] = ()
    """For values that came through `$name`: where they are used, and where `let` gives them."""

    def related(self, path: Path, locs: Locs) -> tuple[tuple[str, Loc], ...]:
        """The `let` that a value at `path` came from, for an error there."""
        for used, given in self.origins:
            if path[: len(used)] == used and (loc := locs.value(given)) is not None:
                return ((f"the value comes from {'.'.join(map(str, given))}", loc),)
        return ()


@dataclass(frozen=True, slots=True)
class Branch:
    """One residual branch of a layer."""

    op: PlannedOp
    norm: PlannedOp | None
    scale: ScaleSpec | None
    drop_path: bool

    @classmethod
    def of(cls, spec: BranchSpec, path: Path, norm: PlannedOp | None, scale: ScaleSpec | None, origins: tuple[tuple[Path, Path], ...]) -> Branch:
        return cls(PlannedOp(spec, path, origins), norm, scale, spec.drop_path)


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage with its layers written out: `layers[i]` is the block's name and its branches."""

    index: int
    dim: int
    layers: tuple[tuple[str, tuple[Branch, ...]], ...]
    downsample: PlannedOp | None
    window: int | None
    connect: ConnectSpec | None
    aggregate: PlannedOp | None

    @property
    def path(self) -> Path:
        return ("stages", self.index)


@dataclass(frozen=True, slots=True)
class Skip:
    """A long edge between stage inputs."""

    source: int
    targets: tuple[int, ...]
    op: PlannedOp
    path: Path


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything the compiler needs, and the table of places for its errors."""

    name: str
    input: InputSpec
    num_classes: int
    drop_path: tuple[float, ...]
    stem: PlannedOp
    stages: tuple[Stage, ...]
    skips: tuple[Skip, ...]
    stage_norm: PlannedOp | None
    head: PlannedOp
    locs: Locs = field(repr=False)
