"""Grad-CAM: which parts of an image speak for a class.

Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391, computed by captum's `LayerGradCam`.

Tensors: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blockforge.analyze.record import Grid, Intercepted, grid, units
from blockforge.compiler.graph.units import Layer
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.compiler.lowering.outputs import main_output
from blockforge.errors import AnalysisError, did_you_mean
from blockforge.extras import need

TOP = 5


@dataclass(frozen=True)
class ClassMap:
    """What speaks for a class in an image.

    Attributes:
        target: the class.
        layer: whose map was taken.
        map: (H, W), 0 to 1, on that map's positions.
        top: the most probable classes with their probabilities.
    """

    target: int
    layer: str
    map: Tensor
    top: tuple[tuple[int, float], ...]

    def table(self) -> list[dict[str, Any]]:
        """A row for each position."""
        rows = self.map.tolist()
        return [
            {"row": i, "column": j, "value": value} for i, values in enumerate(rows) for j, value in enumerate(values)
        ]

    def as_dict(self) -> dict[str, Any]:
        top = [{"class": k, "probability": p} for k, p in self.top]
        return {"target": self.target, "layer": self.layer, "top": top, "map": self.map.tolist()}


def grad_cam(model: Backbone, x_BCHW: Tensor, target: int | None = None, layer: str | None = None) -> ClassMap:
    """Grad-CAM of one image.

    Args:
        x_BCHW: the image as the network sees it, a batch of one.
        target: the class; None: the most probable one.
        layer: the layer whose map is taken, as in `stages.3.layers.1`; None: the last one, or where tokens without
            a place may carry the class the one before it, since the last layer's other tokens are not read.
    Raises: MissingExtraError without captum. AnalysisError for a class or a layer that is not there, for a map of one
        position, or if nothing in the map speaks for the class.
    """
    need("analyze", "captum")
    from captum.attr import LayerGradCam

    if model.num_classes and target is not None and not 0 <= target < model.num_classes:
        text = f"there is no class {target} in {model.arch.name}"
        raise AnalysisError(f"{text}\n  hint: 0 to {model.num_classes - 1}")
    if (given := model.arch.main_head.last.out_shape).positions > 1:
        text = f"{model.arch.name} gives a map, {given}, and no classes of the image"
        raise AnalysisError(f"{text}\n  hint: a head that pools, such as classifier")
    layer, laid = _layer_and_grid(model, layer)
    if laid.height * laid.width == 1:
        hint = "an earlier --layer, or a larger image: --set input.size=..."
        raise AnalysisError(f"the map of {layer} is 1x1: it has no places to tell apart\n  hint: {hint}")
    probed = _Probed(model, layer)
    with torch.no_grad():
        probabilities = main_output(model(x_BCHW))[0].softmax(0)
    likely = probabilities.topk(min(TOP, len(probabilities)))
    top = tuple(zip(likely.indices.tolist(), likely.values.tolist(), strict=True))
    chosen = target if target is not None else top[0][0]
    cam_B1HW = LayerGradCam(probed, probed.map).attribute(x_BCHW, target=chosen, relu_attributions=True)
    assert isinstance(cam_B1HW, Tensor)
    cam_HW = laid.picture(cam_B1HW[:, 0].detach().cpu())[0]
    if not cam_HW.max() > 0:
        hint = f"another --layer or --target; layers: {', '.join(unit.name for unit in units(model.arch))}"
        raise AnalysisError(f"nothing in the map of {layer} speaks for class {chosen}\n  hint: {hint}")
    return ClassMap(chosen, layer, cam_HW / cam_HW.max(), top)


def _layer_and_grid(model: Backbone, layer: str | None) -> tuple[str, Grid]:
    """The layer, and how its map lies in the image."""
    arch = model.arch
    windows = {stage.index for stage in arch.stages if stage.window_out is not None}
    looked_at = {unit.name for unit in units(arch) if not (isinstance(unit, Layer) and unit.stage in windows)}
    looked_at |= {stage.window_out.name for stage in arch.stages if stage.window_out is not None}  # layers see tiles
    grids = {unit.name: grid(unit.last) for unit in arch.units if unit.name in looked_at}
    names = list(grids)
    if layer is None:
        layer = names[-2] if grids[names[-1]].before and len(names) > 1 else names[-1]
    if layer not in grids:
        raise AnalysisError(f"there is no layer '{layer}' to look at\n  hint: {did_you_mean(layer, names, 'layers')}")
    return layer, grids[layer]


class _Probed(nn.Module):
    """A network with a module behind one of its layers that passes the map on as NCHW: what captum looks at."""

    def __init__(self, model: Backbone, layer: str) -> None:
        super().__init__()
        self.model, self.layer, self.map = model, layer, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return main_output(Intercepted(self.model, {self.layer: self._seen}).run(x))

    def _seen(self, map_BHWC: Tensor) -> Tensor:
        return self.map(map_BHWC.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
