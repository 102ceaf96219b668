"""MMEngine's registry knows the zoo: `type="BlockForge", spec="smt_t"` is a backbone for MMDetection and
MMSegmentation. Configs name this module in `custom_imports`; see docs/integrations.md."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from blockforge.api import build
from blockforge.compiler.lowering.out_norms import OutNorm
from blockforge.errors import BlockforgeError
from blockforge.extras import MissingExtraError
from blockforge.saving import load_weights
from blockforge.spec import SpecLike
from blockforge.torch_private import BatchNorm

try:
    from mmengine.model import BaseModule
    from mmengine.registry import MODELS
except ModuleNotFoundError as e:
    raise MissingExtraError(f"this needs mmengine ({e})\n  hint: pip install 'blockforge[mmengine]'") from None


@MODELS.register_module(name="BlockForge")
class BlockForge(BaseModule):
    """A backbone of any spec, `forward(x_BCHW) -> maps_BCHW`.

    Args:
        spec: a zoo name, the path of a YAML file, or a mapping.
        overrides: values of the spec to replace by path, `{"stages.2.depth": 12}`.
        out_indices: the stages whose maps it gives; all by default.
        out_norm: a norm behind each map, `"layer_norm"` or `{"op": "layer_norm", "eps": 1e-6}`; never frozen.
        frozen_stages: 0: the stem is not trained, 1: nor the first stage, and so on; -1: all are.
        norm_eval: keep the statistics of batch norms as they are.
        with_cp: recompute each layer in the backward pass, to save memory.
        in_channels, img_size, drop_path_rate: as in `blockforge.build`.
        init_cfg: `{"type": "Pretrained", "checkpoint": FILE, "prefix": "backbone."}` loads our weights or an official
            checkpoint of the spec, output norms included and its classifier left out; `prefix` for a larger model's.
            Others go to MMEngine.
    """

    def __init__(
        self,
        spec: SpecLike,
        overrides: Mapping[str, Any] | None = None,
        *,
        out_indices: Sequence[int] | None = None,
        out_norm: OutNorm = None,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        in_channels: int | None = None,
        img_size: int | tuple[int, int] | None = None,
        drop_path_rate: float | None = None,
        init_cfg: Any = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self._is_init = False  # BaseModule asks for this name
        self.model = build(
            spec,
            overrides,
            in_chans=in_channels,
            img_size=img_size,
            drop_path_rate=drop_path_rate,
            features_only=True,
            out_indices=out_indices,
            out_norm=out_norm,
        )
        stages = len(self.model.feature_info)
        if not -1 <= frozen_stages <= stages:
            raise BlockforgeError(f"frozen_stages is {frozen_stages}; it may be -1 (none), 0 (the stem) to {stages}")
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        self.out_channels: list[int] = self.model.feature_info.channels()
        self.model.set_grad_checkpointing(with_cp)
        for module in self._frozen():
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.model(x))

    def init_weights(self) -> None:
        """Load what `init_cfg` says, once."""
        cfg = self.init_cfg
        if not isinstance(cfg, Mapping) or cfg.get("type") != "Pretrained":
            super().init_weights()
            return
        if not self._is_init:
            load_weights(self.model, os.fspath(cfg["checkpoint"]), prefix=cfg.get("prefix"))
            self._is_init = True

    def train(self, mode: bool = True) -> BlockForge:
        """As every module's, but what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, BatchNorm):
                    module.eval()
        for module in self._frozen():
            module.eval()
        return self

    def _frozen(self) -> list[nn.Module]:
        """The stem and the stages that are not trained, those that were built."""
        names = ["stem", *(f"stages.{i}" for i in range(self.frozen_stages))] if self.frozen_stages >= 0 else []
        modules = dict(self.model.named_modules())
        return [modules[name] for name in names if name in modules]
