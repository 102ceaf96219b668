"""What linear layers and convolutions hold for themselves while they run in inference, in float32 on a CPU: copies of
weights above all, which do not grow with the batch. The rules are those of the code that runs: `kernels.linear.ways`,
`kernels.cpu.channel_blocks` and torch's own."""

from __future__ import annotations

from dataclasses import dataclass

from blockforge.kernels.cpu.channel_blocks import BLOCK, LANES, channels_at_once, is_outweighed
from blockforge.kernels.linear import ways

BYTES = 4
FEW = 20_480
"""A map's elements up to which torch has its own way for one image."""


@dataclass(frozen=True)
class LinearScratch:
    """Of a linear layer by oneDNN; the BLAS holds nothing.

    Attributes:
        on_map: whether the positions are a map's; only a map is convolved.
        alive: see `base.Scratch`.
    """

    positions: int
    in_chs: int
    out_chs: int
    on_map: bool
    alive: int | None

    def held(self, images: int) -> int:
        return ways.scratch(images * self.positions, self.in_chs, self.out_chs, on_map=self.on_map)


@dataclass(frozen=True)
class _OfConvolution:
    """What a convolution of a channels-last map is known by.

    Attributes:
        read, given: positions of the map and of the result, of one image.
        alive: see `base.Scratch`.
    """

    read: int
    given: int
    in_chs: int
    out_chs: int
    kernel: tuple[int, int]
    alive: int | None


@dataclass(frozen=True)
class GroupedScratch(_OfConvolution):
    """Of a convolution in groups of several channels, which oneDNN runs."""

    groups: int

    def held(self, images: int) -> int:
        taps, read, gives = self.kernel[0] * self.kernel[1], self.in_chs // self.groups, self.out_chs // self.groups
        ordered = self.groups * _filled(read, gives) * taps
        if self.kernel == (1, 1):  # strided: what it reads is copied, see `convolutions.conv2d`
            return BYTES * (ordered + (images * self.given * self.in_chs if self.read != self.given else 0))
        by_torch = self.groups * read * gives * taps if read > 1 else 0  # channels-last
        return BYTES * (ordered + by_torch)


def _filled(read: int, gives: int) -> int:
    """Weights of a group's channels in oneDNN's own order, which fills them up to whole lanes, as measured."""
    if max(read, gives) < LANES and read % 4 == gives % 4 == 0:
        return read * gives
    return max(read, LANES) * -(-gives // LANES) * LANES


@dataclass(frozen=True)
class ConvScratch(_OfConvolution):
    """Of a dense convolution, as `convolutions.conv2d` computes it, or torch if it is dilated."""

    dilated: bool = False

    @property
    def weights_of_one(self) -> int:
        """Weights of an output channel."""
        return self.in_chs * self.kernel[0] * self.kernel[1]

    def held(self, images: int) -> int:
        if self.kernel == (1, 1):  # strided: what it reads is copied, see `convolutions.conv2d`
            read = images * self.given * self.in_chs
            return BYTES * (read + self._reordered(images, self.out_chs, read))
        read = images * self.read * self.in_chs
        if not self.dilated and is_outweighed(read, self.weights_of_one * self.out_chs):
            return BYTES * self._by_channel_blocks(images, read)
        by_torch = (
            self.weights_of_one * self.out_chs if self.in_chs > 1 else 0
        )  # channels-last; of one channel either layout is
        return BYTES * (by_torch + self._reordered(images, self.out_chs, read))

    def _for_onednn(self, images: int, read: int) -> bool:
        """Whether torch hands it to oneDNN, by ATen's `ConvParams::use_mkldnn`."""
        return images > 1 or read > FEW or min(self.kernel) > 3

    def _reordered(self, images: int, channels: int, read: int) -> int:
        """Elements of the weights in oneDNN's order, or of the columns that torch's own way makes of the map."""
        return (channels if self._for_onednn(images, read) else images * self.given) * self.weights_of_one

    def _by_channel_blocks(self, images: int, read: int) -> int:
        """See `channel_blocks`: beside the result there are the map in NCHW and, block by block, what torch holds."""
        at_once, given = channels_at_once(self.weights_of_one, BLOCK), images * self.given
        # oneDNN wants the map in an order of its own too, but for few channels
        own_map = read if self._for_onednn(images, read) and self.in_chs >= LANES else 0
        most = given * self.out_chs  # in the end the blocks stand beside the result
        for first in range(0, self.out_chs, at_once):
            channels = min(at_once, self.out_chs - first)
            missing = given * (self.out_chs - first - channels)  # of the result, which counts as there
            most = max(most, own_map + self._reordered(images, channels, read) - missing)
        return read + most
