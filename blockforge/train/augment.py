"""From a batch as it was read to what the network sees: on tensors, on the network's device.

Shapes: B images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Beta

from blockforge.errors import RunError
from blockforge.train.data import IMAGENET_MEAN, IMAGENET_STD, Data
from blockforge.train.recipe import Recipe


class Normalize(nn.Module):
    """Images_BCHW, uint8 or in 0..1 -> float32, less the mean, over the standard deviation."""

    def __init__(self, mean: list[float], std: list[float]) -> None:
        super().__init__()
        self.mean_C, self.std_C = torch.tensor(mean), torch.tensor(std)

    def forward(self, images: Tensor) -> Tensor:
        return self.standardized(unit(images))

    def standardized(self, images: Tensor) -> Tensor:
        """Of images that are in 0..1 already."""
        mean, std = (v.to(images.device)[:, None, None] for v in (self.mean_C, self.std_C))
        return (images - mean).div_(std)

    def as_dict(self) -> dict[str, list[float]]:
        return {"mean": self.mean_C.tolist(), "std": self.std_C.tolist()}


def unit(images: Tensor) -> Tensor:
    """uint8 in 0..255 -> float32 in 0..1."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()


def normalization(recipe: Recipe, data: Data, channels: int) -> Normalize:
    """What the recipe's `normalize` means for these data. Raises: RunError if its channels do not fit."""
    how = recipe.normalize
    mean_and_std = data.train.statistics(channels) if how in ("auto", "data") else None
    if how == "data" and mean_and_std is None:
        raise RunError(
            f"{data.name} is not in memory, so its mean and deviation are not known\n"
            "  hint: --recipe-set normalize=imagenet, or normalize={mean: [...], std: [...]}"
        )
    if not isinstance(how, str):
        mean_and_std = how.mean, how.std
        if not len(how.mean) == len(how.std) == channels or min(how.std) <= 0:
            raise RunError(f"normalize needs {channels} means and as many deviations above 0, one a channel")
    mean, std = mean_and_std if mean_and_std is not None else (list(IMAGENET_MEAN), list(IMAGENET_STD))
    return Normalize(_spread(mean, channels), _spread(std, channels))


def _spread(values: list[float], channels: int) -> list[float]:
    """Values of as many channels as the network takes: those of grey repeated, those of colour averaged."""
    return values if len(values) == channels else [sum(values) / len(values)] * channels


class Augment:
    """Training images_BCHW and labels_B -> what the network sees, and the targets: labels_B, or shares_BK.

    Args:
        size: height and width of the images.
        cropped: random crops were made while decoding.
        num_classes: K.
    """

    def __init__(
        self, recipe: Recipe, normalize: Normalize, size: tuple[int, int], cropped: bool, num_classes: int
    ) -> None:
        self.normalize, self.num_classes = normalize, num_classes
        self.group = recipe.rand_augment.group if recipe.rand_augment else 0
        self.before, self.rand_augment, self.after = _pipeline(recipe, size, len(normalize.mean_C), cropped)
        self.mixes = [(op, alpha) for op, alpha in ((_mixup, recipe.mixup), (_cutmix, recipe.cutmix)) if alpha > 0]

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        x = unit(images)
        for op in self.before:
            x = op(x)
        if self.rand_augment is not None:
            x = torch.cat([self.rand_augment(part) for part in x.split(self.group)])
        x = self.normalize.standardized(x)
        for op in self.after:
            x = op(x)
        if not self.mixes:
            return x, labels
        mix, alpha = self.mixes[int(torch.randint(len(self.mixes), ()))]
        targets = F.one_hot(labels, self.num_classes).to(x.dtype)
        return mix(x, targets, alpha)


def _pipeline(recipe: Recipe, size: tuple[int, int], channels: int, cropped: bool) -> tuple[list[Any], Any, list[Any]]:
    """kornia's modules before RandAugment, RandAugment, and those after normalisation."""
    before: list[Any] = []
    after: list[Any] = []
    if recipe.crop is None and not recipe.flip and recipe.rand_augment is None and not recipe.erasing:
        return before, None, after  # and kornia is not even imported
    import kornia.augmentation as K

    if recipe.crop is not None and recipe.crop.padding is not None:
        before.append(K.RandomCrop(size, padding=recipe.crop.padding, cropping_mode="slice"))
    elif recipe.crop is not None and recipe.crop.scale is not None and not cropped:
        scale, ratio = tuple(recipe.crop.scale), tuple(recipe.crop.ratio)
        before.append(K.RandomResizedCrop(size, scale, ratio, cropping_mode="slice", align_corners=False))  # type: ignore[arg-type]
    if recipe.flip:
        before.append(K.RandomHorizontalFlip(p=recipe.flip))
    if recipe.erasing:
        after.append(K.RandomErasing(scale=(0.02, 1 / 3), ratio=(0.3, 3.3), p=recipe.erasing))
    if recipe.rand_augment is None:
        return before, None, after
    from kornia.augmentation.auto.rand_augment.rand_augment import default_policy

    policy = [ops for ops in default_policy if channels == 3 or ops[0][0] != "color"]  # kornia's colour takes RGB alone
    return before, K.auto.RandAugment(recipe.rand_augment.num_ops, recipe.rand_augment.magnitude, policy), after


def _mixup(x: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Each image and another one, with one share for the batch from Beta(alpha, alpha), as the papers train.

    kornia's own mixup draws its shares evenly, so they are handed to it.
    """
    import kornia.augmentation as K

    op = K.RandomMixUpV2()
    params = op.forward_parameters(x.shape)
    share = Beta(alpha, alpha).sample().item()
    params["mixup_lambdas"] = torch.full_like(params["mixup_lambdas"], share)
    pairs = params["mixup_pairs"].to(targets.device)
    return cast(Tensor, op(x, params=params)), targets * (1 - share) + targets[pairs] * share


def _cutmix(x: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """A rectangle of another image in each image, its area from Beta(alpha, alpha); targets by area."""
    import kornia.augmentation as K

    op = K.RandomCutMixV2(beta=alpha, use_correct_lambda=True, data_keys=["input", "class"])
    labels = torch.arange(len(x), device=x.device)
    mixed, pairs = op(x, labels)
    own, other, kept = pairs[0].unbind(1)
    kept = kept.to(targets.dtype)[:, None]
    return mixed, targets[own.long()] * kept + targets[other.long()] * (1 - kept)
