"""Norms behind the feature maps, as official dense backbones have them (`outnorm0`, `norm0`): an option of
`features_only`. Any registered norm will do; that of stage 2 is the module `out_norms.2`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from blockforge.blocks.base import Norm, Placed
from blockforge.blocks.building import built
from blockforge.blocks.compose.frame import Bound
from blockforge.blocks.compose.norm import is_op, norm_of
from blockforge.blocks.compose.written import freeze
from blockforge.errors import BlockforgeError, OpError

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture

OutNorm = str | Mapping[str, Any] | Sequence[Any] | Norm | None
"""A norm as a spec writes it: `layer_norm`, `{"op": "layer_norm", "eps": 1e-6}`, or a list of ops; None and `none`: no
norms."""
_LAW = "a norm as specs name it, 'layer_norm' or {'op': 'layer_norm', 'eps': 1e-6}; None: no norms"


def out_norm_path(stage: int) -> str:
    """The name of the module that normalises a stage's map."""
    return f"out_norms.{stage}"


def out_norm_op(given: OutNorm) -> Norm | None:
    """The block that the option means. Raises: BlockforgeError if it is no norm."""
    if given is None or isinstance(given, Norm):
        return given
    if not isinstance(given, str | Mapping | Sequence):
        raise BlockforgeError(f"out_norm is a {type(given).__name__}\n  hint: {_LAW}")
    written = dict(given) if isinstance(given, Mapping) else given
    if not is_op(written) or not written:
        raise BlockforgeError(f"out_norm={given!r} names no norm\n  hint: {_LAW}")
    if written in ("none", {"op": "none"}):
        return None
    try:
        return norm_of(Bound(freeze(written)))
    except OpError as e:
        raise BlockforgeError(f"out_norm: {e}\n  hint: {e.hint or _LAW}") from None


def build_out_norms(arch: Architecture, op: Norm | None, stages: Sequence[int]) -> dict[str, nn.Module]:
    """The norms of these stages' maps by path, freshly initialised. Raises: BlockforgeError where one cannot stand."""
    made: dict[str, nn.Module] = {}
    for stage in stages if op is not None else ():
        assert op is not None
        shape = arch.stage_maps()[stage]
        try:
            op.check(shape)
        except OpError as e:
            hint = f"\n  hint: {e.hint}" if e.hint else ""
            raise BlockforgeError(f"out_norm cannot stand behind stage {stage}: {e}{hint}") from None
        made[out_norm_path(stage)] = built(Placed(op, (shape,)))
    return made


def out_norm_values(op: Norm | None) -> Any:
    """The option as plain values, for files; it means the same norm."""
    return None if op is None else op.as_parameter()
