"""Norms with running statistics while a thinned network is fine-tuned: those of each batch, or those that they have.

    python docs/experiments/swap_norms.py --seeds 3

For each seed a small network of MBConv blocks learns Fashion-MNIST, is brought to 50 and 30% of its multiply-adds, and
fine-tuned with it as the teacher for so many steps, once in each way. Test images are looked at only to tell top-1.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import types
from statistics import mean
from typing import Any

import torch
from torch import nn

import blockforge as bf
from blockforge.train.cutting import cut
from blockforge.train.data import Cuttable, Data, Split
from blockforge.train.evaluate import evaluate
from blockforge.train.fit import fit
from blockforge.train.open_data import open_data

SPEC: dict[str, Any] = {
    "blockforge": 1,
    "name": "small_mbconv",
    "input": {"channels": 1, "size": 28},
    "num_classes": 10,
    "blocks": {"b": [{"op": "mbconv", "expand": 4, "norm": "none"}]},
    "stem": [{"op": "conv", "dim": "$out", "kernel_size": 4, "stride": 4}, "batch_norm"],
    "downsample": [{"op": "conv", "dim": "$out", "kernel_size": 3, "stride": 2}, "batch_norm"],
    "stages": [{"dim": 24, "depth": 3, "layers": "b*"}, {"dim": 48, "depth": 4, "layers": "b*"}],
    "head": ["global_pool", "logits"],
}
BATCH = 64
BEFORE, AFTER = 2e-3, 1e-3
"""Learning rates of the parent and of fine-tuning."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=19_200, help="to train on")
    parser.add_argument("--test", type=int, default=3000)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 40, 160])
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = open_data("fashion")
    assert data.test is not None
    train, val, test = part(data.train, given.images), part(data.val, 1000), part(data.test, given.test)
    data = dataclasses.replace(data, train=train, val=val, test=test)
    leads: dict[tuple[str, int], list[float]] = {}
    print("| seed | budget | steps | before | of each batch | kept |\n|---|---|---|---|---|---|")
    for seed in range(given.seeds):
        parent = fit(bf.compile(SPEC), data, recipe(BEFORE), seed=seed).model.eval()
        for answer in bf.swap(parent, data, ["50%", "30%"], images=128, seed=seed).answers:
            before = top1(answer.model, data)
            for steps in given.steps:
                few = dataclasses.replace(data, train=part(train, steps * BATCH))
                reached = [tuned(answer.model, parent, few, seed, kept) for kept in (False, True)]
                leads.setdefault((answer.budget, steps), []).append(reached[1] - reached[0])
                row = (seed, answer.budget, steps, *(f"{value:.2f}" for value in (before, *reached)))
                print(f"| {' | '.join(map(str, row))} |", flush=True)
    for (budget, steps), own in leads.items():
        print(f"{budget}, {steps} steps: kept ones lead by {mean(own):+.2f} points, the mean of {len(own)}")


def part(split: Split, images: int) -> Split:
    """So many images of a part, of each class the same share."""
    assert isinstance(split, Cuttable)
    return split if images >= len(split) else split.only(cut(split.labels(), images / len(split), 0)[1])


def recipe(lr: float) -> dict[str, Any]:
    return {"extends": "micro", "epochs": 1, "batch_size": BATCH, "lr": lr, "warmup_epochs": 0.1}


def tuned(model: nn.Module, teacher: nn.Module, data: Data, seed: int, kept: bool) -> float:
    """Test top-1 of a copy after fine-tuning."""
    own: Any = copy.deepcopy(model)
    if kept:
        keep_statistics(own)
    distilling = {**recipe(AFTER), "distill": {"share": 0.5, "temperature": 2}}
    fit(own, data, distilling, seed=seed, teacher=teacher)  # type: ignore[arg-type]
    return top1(own.eval(), data)


def keep_statistics(model: nn.Module) -> None:
    """Norms with running statistics stay in inference, whatever the network is set to."""
    for module in model.modules():
        if isinstance(getattr(module, "running_mean", None), torch.Tensor):
            module.eval()
            module.train = types.MethodType(lambda self, mode=True: self, module)  # type: ignore[method-assign]


def top1(model: Any, data: Data) -> float:
    return evaluate(model, data, recipe=recipe(AFTER), split="test").top1


if __name__ == "__main__":
    main()
