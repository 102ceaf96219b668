"""Turn an official checkpoint into a file of ours, and find out which variant it is of."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.zoo import compile_zoo
from blockforge.errors import WeightsError, did_you_mean
from blockforge.provenance import source_in
from blockforge.spec import SpecLike
from blockforge.weights.family import FAMILIES, Family, family_of
from blockforge.weights.mismatch import MismatchError, looks_ours
from blockforge.weights.official import convert
from blockforge.weights.tensor_files import about, save_tensors, unwrap_file

_TRIED = 6
"""Variants whose modules are built to see whether a checkpoint fits; those of the nearest sizes come first."""


def convert_file(
    checkpoint: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    family: str | None = None,
    spec: SpecLike | None = None,
    overrides: Mapping[str, Any] | list[str] | None = None,
) -> Architecture:
    """Write an official checkpoint as a safetensors file with our names.

    Args:
        checkpoint: a file, or a `Weights`.
        family: name of its layout; by default what its keys say.
        spec: what it is the weights of; by default the zoo's variant that it fits.
        overrides: values of the spec to replace, such as `num_classes`.
    Returns:
        The architecture that the weights are for; its name and hash stand in the file's metadata.
    Raises: WeightsError if the file cannot be read safely, or fits nothing; OutputError.
    """
    state = unwrap_file(checkpoint)
    try:
        layout = _layout(state, family)
        arch = compile_spec(spec, overrides) if spec is not None else variant(state, layout, overrides)
        tensors = convert(Backbone.from_architecture(arch).state_dict(), state, layout)
    except MismatchError as e:
        hint = e.hint or "without --spec the variant is found that they are of"
        raise MismatchError(f"{checkpoint}: {e.differences}", hint) from None
    except WeightsError as e:
        raise WeightsError(f"{checkpoint}: {e}") from None
    header = {**about(arch), "family": layout.name}
    if (source := source_in(FAMILIES, layout.name)) is not None:
        header["family_from"] = source.where()
    save_tensors(tensors, Path(output), header)
    return arch


def _layout(state: Mapping[str, Tensor], name: str | None) -> Family:
    if name is not None and name not in FAMILIES:
        raise WeightsError(f"no family is named '{name}'\n  hint: {did_you_mean(name, FAMILIES, 'families')}")
    if looks_ours(state):
        raise WeightsError("these are our names already\n  hint: --weights takes the file as it is")
    family = family_of(state)
    if name is not None and name != family.name:
        raise WeightsError(f"these keys are the layout of {family.name}, not of {name}\n  hint: --family {family.name}")
    return family


def variant(
    state: Mapping[str, Tensor], layout: Family, overrides: Mapping[str, Any] | list[str] | None = None
) -> Architecture:
    """The spec of the zoo that a checkpoint fits; the search starts at those of about its size.

    Raises: WeightsError if it fits none.
    """
    size = sum(t.numel() for k, t in state.items() if not layout.computed(k))
    zoo = _compiled(overrides)
    zoo.sort(key=lambda a: abs(math.log(a.params / size)))
    hint, nearest = "name its spec with --spec, and what differs with --set (as in --set num_classes=100)", ""
    for arch in zoo[:_TRIED]:
        with torch.device("meta"):
            ours = Backbone.from_architecture(arch).state_dict()
        try:
            convert(ours, state, layout)
        except MismatchError as e:
            if not nearest and _is_of(ours, layout):
                nearest, hint = f"; {arch.name} is nearest:\n{e.differences}", e.hint or hint
        else:
            return arch
    raise WeightsError(f"no variant of the zoo fits this {layout.name} checkpoint{nearest}\n  hint: {hint}")


def _compiled(overrides: Mapping[str, Any] | list[str] | None) -> list[Architecture]:
    """The zoo with some values replaced, without the specs that have no such value."""
    zoo, refused = compile_zoo(overrides=overrides)
    if not zoo and refused:
        raise next(iter(refused.values()))
    return list(zoo.values())


def _is_of(ours: Mapping[str, Tensor], layout: Family) -> bool:
    """Whether a model's keys are of a family at all."""
    sources = layout.sources_in(ours)
    return all(sources(key) is not None for key in ours)
