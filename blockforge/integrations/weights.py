"""Weights of a whole model for one that gives feature maps."""

from __future__ import annotations

import os

from blockforge.compiler.backbone import Backbone
from blockforge.errors import WeightsError, did_you_mean
from blockforge.saving import read_checkpoint
from blockforge.weights.misfit import check_ours
from blockforge.weights.official import tensors_in, with_our_names, without_prefixes


def load_features(model: Backbone, file: str | os.PathLike[str], prefix: str = "") -> None:
    """Load what a model with `features_only` needs out of a whole model's checkpoint, ours or official.

    Args:
        prefix: what the names begin with in a larger model's checkpoint (`backbone.`); others are left out, and a
            wrapper's own `model.` behind it is dropped.
    Raises: WeightsError if the file cannot be read safely or does not fit; the model is then unchanged.
    """
    own, state = model.state_dict(), read_checkpoint(file)
    try:
        tensors = tensors_in(state)
        found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        if not found:
            begin = did_you_mean(prefix, {k.partition(".")[0] for k in tensors}, "they begin with")
            raise WeightsError(f"no name begins with '{prefix}'; {begin}")
        known = with_our_names(without_prefixes(found), own, surplus=False)
        check_ours(own, known, surplus=False)
    except WeightsError as e:
        raise WeightsError(f"{file}: {e}") from None
    model.load_state_dict({k: known[k] for k in own})
