"""Norms behind the feature maps, as official dense backbones have them (`outnorm0`, `norm0`): an option of
`features_only`. Any registered norm will do; that of stage 2 is the module `out_norms.2`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from blockforge.blocks.base import Norm
from blockforge.blocks.registry import make
from blockforge.errors import BlockforgeError, OpError

if TYPE_CHECKING:
    from blockforge.compiler.architecture import Architecture

OutNorm = str | Mapping[str, Any] | Norm | None
"""A norm as a spec names it: `layer_norm`, or `{"op": "layer_norm", "eps": 1e-6}`; None and `none`: no norms."""
_LAW = "a norm as specs name it, 'layer_norm' or {'op': 'layer_norm', 'eps': 1e-6}; None: no norms"


def out_norm_path(stage: int) -> str:
    """The name of the module that normalises a stage's map."""
    return f"out_norms.{stage}"


def out_norm_op(given: OutNorm) -> Norm | None:
    """The block that the option means. Raises: BlockforgeError if it is no norm."""
    if given is None or isinstance(given, Norm):
        return given
    named: dict[str, Any] = {"op": given} if isinstance(given, str) else _mapping(given)
    name = named.pop("op", None)
    if not isinstance(name, str):
        raise BlockforgeError(f"out_norm={given!r} names no norm\n  hint: {_LAW}")
    if name == "none":
        return None
    try:
        op = make(name, named, "norm")
    except OpError as e:
        raise BlockforgeError(f"out_norm: {e}\n  hint: {e.hint or _LAW}") from None
    assert isinstance(op, Norm)
    return op


def _mapping(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise BlockforgeError(f"out_norm is a {type(given).__name__}\n  hint: {_LAW}")
    return dict(given)


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
        made[out_norm_path(stage)] = op.build(shape)
    return made


def out_norm_values(op: Norm | None) -> dict[str, Any] | None:
    """The option as plain values, for files; it means the same norm."""
    return None if op is None else {"op": op.op, **op.parameters_dict()}
