"""The weight that a mixer gives to each token, as a map over the image.

In VSSD's non-causal state space duality the weight of a token in the shared state is m = -dt A
(https://arxiv.org/abs/2407.18559, section 3.2): what the figure shows is where a layer collects from.

Letters: B images, H height, W width of the map, N heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blockforge.analyze.record import Place, place_of, reading
from blockforge.analyze.zoo_lookup import nowhere
from blockforge.blocks.windows import join_windows
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import AnalysisError


@dataclass(frozen=True)
class TokenWeights:
    """The weights of a layer's tokens.

    Attributes:
        node: the mixer's node.
        weights: (B, H, W), mean over the heads, for each image.
        spread: standard deviation over the positions, mean over images, divided by the mean weight: 0 where all
            tokens weigh the same.
    """

    node: str
    weights: Tensor
    spread: float

    def as_dict(self) -> dict[str, Any]:
        w = self.weights
        size = {"height": w.shape[1], "width": w.shape[2]}
        range_ = {"mean": float(w.mean()), "min": float(w.min()), "max": float(w.max())}
        return {"node": self.node, **size, **range_, "spread": self.spread}


def token_weights(
    model: Backbone, batches: Sequence[Tensor], *, advance: Callable[[], None] = lambda: None
) -> list[TokenWeights]:
    """The token weights of every layer that has them.

    A module has them if it exposes `token_weights(x_BHWC)`, which gives (B, H, W, N).

    Raises: AnalysisError if there is none.
    """
    modules = {name: m for name, m in model.named_modules() if has_token_weights(m)}
    if not modules:
        raise AnalysisError(nowhere(model.arch.name, "token weights", has_token_weights))
    places = {name: place_of(model.arch, name) for name in modules}
    layer_maps: dict[str, list[Tensor]] = {}

    def see(name: str, module: nn.Module, x: Tensor) -> None:
        weigh: Any = modules[name].token_weights
        weights = _on_image(weigh(x).mean(-1), places[name]).cpu()
        layer_maps.setdefault(name, []).append(weights)

    with torch.no_grad(), reading(modules, see):
        for batch in batches:
            model(batch)
            advance()
    return [_measured(places[name].node.name, torch.cat(maps)) for name, maps in layer_maps.items()]


def has_token_weights(module: nn.Module) -> bool:
    """Whether a module gives tokens weights that can be seen."""
    return getattr(module, "token_weights", None) is not None


def _on_image(weights: Tensor, place: Place) -> Tensor:
    """(B * tiles, h, w) on the stage's windows -> (B, H, W) as it lies in the image."""
    if place.window is not None:
        laid = place.grid
        weights = join_windows(weights[..., None], place.window, laid.height, laid.width)[..., 0]
    return place.grid.picture(weights)


def _measured(node: str, weights_BHW: Tensor) -> TokenWeights:
    flat = weights_BHW.flatten(1)
    return TokenWeights(node, weights_BHW, float((flat.std(1, correction=0) / flat.mean(1)).mean()))
