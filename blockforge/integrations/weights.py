"""Weights of a whole model for one that is not the same: another classifier, or none."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor

from blockforge.api import build
from blockforge.compiler.backbone import Backbone
from blockforge.errors import WeightsError, did_you_mean
from blockforge.saving import read_checkpoint
from blockforge.spec import Spec
from blockforge.weights.official import convert, family_of, unwrap


def with_our_names(tensors: Mapping[str, Tensor], spec: Spec) -> Mapping[str, Tensor]:
    """A checkpoint under our names; one in its family's official layout is converted.

    Args:
        spec: what the weights are of, with the checkpoint's own classes, channels and size.
    Raises: WeightsError if the layout is unknown or does not fit.
    """
    own = build(spec).state_dict()
    if len(set(own) & set(tensors)) * 2 >= len(own):
        return tensors
    return convert(own, tensors, family_of(tensors))


def load_features(model: Backbone, file: str | os.PathLike[str], prefix: str = "") -> None:
    """Load what a model with `features_only` needs out of a whole model's checkpoint, ours or official.

    Args:
        prefix: what the names begin with in a larger model's checkpoint (`backbone.`); others are left out, and a
            wrapper's own `model.` behind it is dropped.
    Raises: WeightsError if the file cannot be read safely or does not fit; the model is then unchanged.
    """
    tensors = unwrap(read_checkpoint(file))
    if prefix:
        found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if not found:
            begin = did_you_mean(prefix, {k.partition(".")[0] for k in tensors}, "they begin with")
            raise WeightsError(f"{file}: no name begins with '{prefix}'; {begin}")
        tensors = {k.removeprefix("model."): v for k, v in found.items()}
    own = model.state_dict()
    known = tensors if set(own) <= set(tensors) else with_our_names(tensors, model.spec)
    problems = [f"missing: {k}; {did_you_mean(k, known, 'there are')[:200]}" for k in own if k not in known]
    problems += [
        f"shape: {k} is {tuple(known[k].shape)} in the file, {tuple(v.shape)} in the model"
        for k, v in own.items()
        if k in known and known[k].shape != v.shape
    ]
    if problems:
        raise WeightsError(f"{file} does not fit this model:\n  " + "\n  ".join(problems[:12]))
    model.load_state_dict({k: known[k] for k in own})
