"""Weights of a whole model for one that gives feature maps."""

from __future__ import annotations

import os

from blockforge.compiler.backbone import Backbone
from blockforge.errors import WeightsError
from blockforge.notes import note
from blockforge.saving import unwrap_file
from blockforge.weights.files import Weights
from blockforge.weights.misfit import check_ours
from blockforge.weights.official import left_out, with_our_names
from blockforge.weights.resize import resizers


def load_features(model: Backbone, file: str | os.PathLike[str], prefix: str = "") -> None:
    """Load what a model with `features_only` needs out of a whole model's checkpoint, ours or official; a line names
    what it leaves out.

    Args:
        prefix: what the names begin with in a larger model's checkpoint (`backbone.`); others are left out, and a
            wrapper's own `model.` behind it is dropped.
    Raises: WeightsError if the file cannot be read safely or does not fit; the model is then unchanged.
    """
    own, tensors = model.state_dict(), unwrap_file(Weights(file, prefix=prefix or None))
    try:
        known = with_our_names(tensors, own, surplus=False, resize=resizers(model))
        check_ours(own, known, surplus=False)
    except WeightsError as e:
        raise WeightsError(f"{file}: {e}") from None
    if surplus := [name for name in known if name not in own]:
        note(left_out(surplus))
    model.load_state_dict({k: known[k] for k in own})
