"""Networks with the images that each of them is shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from blockforge.analyze.inputs import NOISE, Images, estimate_statistics, open_images
from blockforge.analyze.networks import Network, build_networks
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import AnalysisError


@dataclass(frozen=True)
class NetworkWithImages:
    """A network, ready to be looked into, and its images."""

    network: Network
    images: Images

    @property
    def label(self) -> str:
        return self.network.label

    @property
    def model(self) -> Backbone:
        return self.network.model

    @property
    def batches(self) -> list[Tensor]:
        return self.images.batches


def networks_with_images(
    names: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    variants: Sequence[str] = (),
    weights: Sequence[str | os.PathLike[str]] = (),
    seed: int = 0,
    device: str = "cpu",
    data: str | None = None,
    count: int = 16,
    batch_size: int = 16,
) -> list[NetworkWithImages]:
    """Build networks and open the images for each; see `build_networks` and `open_images` for the arguments.

    BatchNorms of networks without weights get the images' statistics.
    """
    networks = build_networks(names, overrides=overrides, variants=variants, weights=weights, seed=seed, device=device)
    opened = []
    for network in networks:
        images = open_images(
            data, network.model, count=count, batch_size=batch_size, seed=seed, weights=network.weights
        )
        if network.weights is None:
            estimate_statistics(network.model, images.batches)
        opened.append(NetworkWithImages(network, images))
    return opened


def pair(networks: Sequence[NetworkWithImages]) -> tuple[NetworkWithImages, NetworkWithImages]:
    """The two networks of a comparison. Raises: AnalysisError if there are not two that see the same images."""
    if len(networks) != 2:
        raise AnalysisError(
            f"--between compares two networks, not {len(networks)}\n  hint: two specs, or rows TABLE:ROW"
        )
    first, second = networks
    shapes = [tuple(each.batches[0].shape[1:]) for each in networks]
    if first.images.name == NOISE and shapes[0] != shapes[1]:
        sizes = " and ".join("x".join(map(str, shape)) for shape in shapes)
        hint = f"--set input.size={shapes[0][1]} for both, or images with --data"
        raise AnalysisError(f"noise of {sizes} is not the same image\n  hint: {hint}")
    return first, second
