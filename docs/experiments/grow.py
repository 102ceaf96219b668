"""A small trained network that grows, beside the large one trained from scratch at the same cost.

    python docs/experiments/grow.py --seeds 0 1 2

A net of convolution and attention learns a part of Fashion-MNIST, then becomes deeper and wider (`bf.transplant`, the
function is kept) and learns on. Costs are multiply-adds of a forward pass times images seen. Accuracies are of the
10,000 test images, which are looked at only to tell them.
"""

from __future__ import annotations

import argparse
import dataclasses
from statistics import mean
from typing import Any

import blockforge as bf
from blockforge.train.data import Cuttable
from blockforge.train.evaluate import evaluate
from blockforge.train.fit import fit
from blockforge.train.open_data import open_data

SMALL: dict[str, Any] = {
    "blockforge": 1,
    "name": "grow",
    "input": {"channels": 1, "size": 28},
    "num_classes": 10,
    "defaults": {"norm": "layer_norm"},
    "blocks": {
        "conv": [{"op": "dwconv", "kernel_size": 3}, {"op": "mlp", "mlp_ratio": 1.5}],
        "attn": [{"op": "attention", "num_heads": 2, "head_dim": 8}, {"op": "mlp", "mlp_ratio": 1.5}],
    },
    "stem": {"op": "patch_embed", "patch": 4},
    "downsample": "patch_merging",
    "stages": [{"dim": 32, "depth": 2, "layers": "conv"}, {"dim": 48, "depth": 2, "layers": "attn"}],
    "head": "classifier",
}
LARGER = {
    "stages.0.depth": 3,
    "stages.1.depth": 3,
    "blocks.conv.0.kernel_size": 5,
    "blocks.conv.1.mlp_ratio": 4,
    "blocks.attn.0.num_heads": 4,
    "blocks.attn.1.mlp_ratio": 4,
}
SAID = "{}: small {:.1f}, grown {:.1f}, trained on {:.1f}, from scratch {:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--before", type=int, default=10, help="epochs of the small network")
    parser.add_argument("--after", type=int, default=5, help="epochs after it has grown")
    given = parser.parse_args()
    data = open_data("fashion")
    parts = data.train, data.val
    assert isinstance(parts[0], Cuttable)
    assert isinstance(parts[1], Cuttable)
    data = dataclasses.replace(data, train=parts[0].only(range(given.train)), val=parts[1].only(range(1000)))
    large = bf.load(SMALL, LARGER)
    costs = bf.compile(SMALL).macs, bf.compile(large).macs
    whole = round(given.after + given.before * costs[0] / costs[1])
    print(f"{costs[0]:,} and {costs[1]:,} MACs; {given.before} + {given.after} epochs beside {whole} from scratch")
    rows = []
    for seed in given.seeds:
        small = fit(SMALL, data, "micro", epochs=given.before, seed=seed).model
        grown = bf.transplant(small, large)
        tops = [evaluate(small, data).top1, evaluate(grown, data).top1]
        tops.append(evaluate(fit(grown, data, "micro", epochs=given.after, seed=seed + 100).model, data).top1)
        tops.append(evaluate(fit(large, data, "micro", epochs=whole, seed=seed).model, data).top1)
        rows.append(tops)
        print(SAID.format(f"seed {seed}", *tops), flush=True)
    print(SAID.format("mean", *(mean(row[i] for row in rows) for i in range(4))))


if __name__ == "__main__":
    main()
