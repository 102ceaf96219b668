"""Blocks in YAML beside the Python that they replaced: `python docs/experiments/twins.py ../before [NAME ...]`.

`git worktree add ../before COMMIT` gives a checkout in which the blocks are still written in Python; those that this
tree has in YAML are imported from it. Both sides get equal weights and run in turn in one process with one thread; the
ratios are medians of the CPU's time, YAML / Python. `predicted` is what the compiler says of memory, `held` what a
forward pass takes, `saved` what a backward pass needs; `compile` is that of a network with the block, with nothing kept
from before.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import blockforge as bf
from blockforge.blocks import defined, facts, registry
from blockforge.blocks.base import AnyOp, Shape
from blockforge.blocks.compose import expand
from blockforge.blocks.defined import Defined
from blockforge.compiler.costs import cost
from blockforge.testing.measure import peak_bytes_per_image
from blockforge.testing.steps import saved_on_cpu

SECONDS = 0.25
"""For each ratio."""
PAIRS = 15
PLACES: dict[str, tuple[tuple[Any, ...], ...]] = {
    "mixer": ((Shape(28, 28, 96),), (Shape(7, 7, 384),)),
    "ffn": ((Shape(28, 28, 96),), (Shape(7, 7, 384),)),
    "stem": ((Shape(224, 224, 3), 64), (Shape(64, 64, 3), 96)),
    "downsample": ((Shape(28, 28, 96), 192), (Shape(14, 14, 192), 384)),
}
BATCHES = (1, 8)


class Pair(NamedTuple):
    """A block in YAML and its twin in Python, with the same parameters."""

    yaml: AnyOp
    python: AnyOp


def twins(before: Path, names: list[str]) -> Iterator[Pair]:
    """Every block in YAML that the other checkout has in Python, with its defaults and with those of `VARIANTS`."""
    new = {n: c for n, c in registry.blocks(*PLACES).items() if issubclass(c, Defined)}  # type: ignore[arg-type]
    old = _classes(before)
    for name in [n for n in new if n in old and (not names or n in names)]:
        for params in ({}, *VARIANTS.get(name, ())):
            yield Pair(new[name].model_validate(params), old[name].model_validate(params))


VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "convnext": ({"grn": True},),
    "patch_downsample": ({"pre_norm": {"op": "layer_norm"}},),
}


ZOO = {
    "bottleneck": "resnet50", "bottleneck_downsample": "resnet50", "conv_block": "mambavision_t",
    "conv_mlp": "smt_t", "conv_pool_stem": "resnet50", "conv_stem": "smt_t",
    "convnext": "convnext_t", "grn_mlp": "strip_mlp_t", "inverted_downsample": "vssd_tiny", "mlp": "swin_tiny",
    "overlap_embed": "poolformer_s12", "patch_downsample": "convnext_t", "patch_embed": "swin_tiny",
    "patch_merging": "swin_tiny", "pooling": "poolformer_s12", "residual_stem": "vssd_tiny",
}  # fmt: skip
"""Networks that are made of a block."""


def _classes(before: Path) -> dict[str, type[AnyOp]]:
    """The classes of the other checkout whose files this one does not have, by their names in specs."""
    found: dict[str, type[AnyOp]] = {}

    def taken(name: str) -> Callable[[type[AnyOp]], type[AnyOp]]:
        def take(cls: type[AnyOp]) -> type[AnyOp]:
            cls.op, found[name] = name, cls
            return cls

        return take

    kept, maps = {kind: getattr(registry, kind) for kind in PLACES}, sys.modules["blockforge.blocks.maps"]
    try:
        spec = importlib.util.spec_from_file_location(maps.__name__, before / "blockforge" / "blocks" / "maps.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[maps.__name__] = theirs = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(theirs)
        for kind in PLACES:
            setattr(registry, kind, taken)
        packages = [importlib.import_module(f"blockforge.blocks.{kind}s") for kind in PLACES]
        for package in packages:  # what is not here is found there
            package.__path__.append(str(before.resolve() / package.__name__.replace(".", "/")))
        for package in packages:
            here, there = ({file.stem for file in Path(path).glob("*.py")} for path in package.__path__)
            for name in sorted(there - here):
                importlib.import_module(f"{package.__name__}.{name}")
    finally:
        for kind, decorator in kept.items():
            setattr(registry, kind, decorator)
        sys.modules[maps.__name__] = maps
    return found


def ratio(ours: Callable[[], Any], theirs: Callable[[], Any]) -> float:
    """The median of ours / theirs over runs in turn."""
    ours(), theirs()
    start = time.process_time()
    ours(), theirs()
    calls = max(1, int(SECONDS / PAIRS / (time.process_time() - start)))
    found = []
    for i in range(PAIRS):
        times = [0.0, 0.0]
        for _ in range(calls):
            for which in (0, 1) if i % 2 else (1, 0):
                begun = time.process_time()
                (ours, theirs)[which]()
                times[which] += time.process_time() - begun
        found.append(times[0] / times[1])
    return statistics.median(found)


def modules(pair: Pair, place: tuple[Any, ...]) -> list[nn.Module]:
    """Both, with equal weights."""
    built = [op.build(*place) for op in pair]
    assert list(built[0].state_dict()) == list(built[1].state_dict()), "the names of tensors differ"
    built[0].load_state_dict(built[1].state_dict())
    return built


def forwards(pair: Pair, place: tuple[Any, ...]) -> Iterator[float]:
    """Ratios of inference, then of a training step, for each batch."""
    built, (shape, *_) = modules(pair, place), place
    inputs = [torch.randn(batch, *shape) for batch in BATCHES]
    with torch.inference_mode():
        outputs = [module.eval()(inputs[0]) for module in built]
        torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
        for x in inputs:
            yield ratio(*(lambda m=m, x=x: m(x) for m in built))
    for x in inputs:
        yield ratio(*(lambda m=m, x=x: step(m.train(), x) for m in built))


def step(module: nn.Module, x: Tensor) -> None:
    """Forward and backward, for the input too."""
    x = x.detach().requires_grad_()
    module(x).sum().backward()


def compiling(pair: Pair) -> float:
    """The ratio of compiling a network of it."""
    spec = network(pair.yaml)

    def run(op: AnyOp) -> None:
        registry.BLOCKS.things[op.op] = type(op)
        for module in (expand, defined, facts, cost):
            for thing in vars(module).values():
                getattr(thing, "cache_clear", int)()
        registry._MADE.clear()
        bf.compile(spec)

    found = ratio(lambda: run(pair.yaml), lambda: run(pair.python))
    registry.BLOCKS.things[pair.yaml.op] = type(pair.yaml)
    return found


def network(op: AnyOp) -> Any:
    """One of the zoo that uses it, or else that of its tests."""
    return ZOO.get(op.op) or Path(__file__).parents[2] / "tests" / "specs" / f"{op.op}.yaml"


def memory(pair: Pair, place: tuple[Any, ...]) -> list[float]:
    """YAML / Python of what is predicted, of what a forward pass holds, and of what is kept for the backward pass."""
    shape, built = place[0], [module.eval() for module in modules(pair, place)]
    predicted = [op.workspace(*place) for op in pair]
    held = [peak_bytes_per_image(module, lambda batch: (torch.randn(batch, *shape),)) for module in built]
    saved = [saved_on_cpu(op, place, 2, "torch") for op in pair]
    return [new / old for new, old in (predicted, held, saved)]


def main() -> None:
    torch.set_num_threads(1)
    before, names = Path(sys.argv[1]), sys.argv[2:]
    print("| block | map | batch 1 | batch 8 | training, 1 | training, 8 | predicted | held | saved | compile |")
    print(f"|{'---|' * 10}")
    for pair in twins(before, names):
        changed = ", ".join(f"{k}: {v}" for k, v in pair.yaml if v != type(pair.yaml).model_fields[k].default)
        for i, place in enumerate(PLACES[pair.yaml.kind]):
            figures = [*forwards(pair, place), *memory(pair, place)]
            cells = [f"{figure:.2f}" for figure in figures] + ([f"{compiling(pair):.2f}"] if i == 0 else [""])
            label = f"{pair.yaml.op}{f', {changed}' if changed else ''}"
            print(f"| {label} | {place[0]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
