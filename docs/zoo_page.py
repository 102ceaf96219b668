"""The text of zoo.md: every packaged spec with what it costs and what its paper says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import blockforge as bf
from blockforge.units import format_count

HEAD = """# The zoo

Written by `make docs` from the packaged specs; do not edit. Build one with `blockforge build NAME`, list them
with `blockforge zoo`.

Parameters and MACs are those of the spec's own input size, counted as [conventions.md](conventions.md) says; they
equal what the released code has and computes. The reported columns are the paper's own words: parameters, FLOPs
(multiply-adds) and top-1 accuracy on ImageNet-1K in percent. Weights are not part of the package: convert an
official checkpoint with `blockforge convert`.
"""
NOT_SAID = """## Networks that are not here

What a network of the literature needs that YAML alone does not say, and so is a [block in Python](adding-a-block.md):

- **VOLO, HaloNet**: patches that overlap, each with a mixing of its own, and put together again.
- **GCViT**: queries of the whole map that every window reads; an op in `tiles` reads its tile alone.
- **CoaT**: layers with weights of their own but for one convolution, which all of a stage share; `repeat` shares all or
  nothing. **NextViT**: means of so many positions one behind the other, across the ends of rows.
- **ConViT**: weights between those of two softmaxes. **BEiT**: a table of positions with entries for the class token.
- **Sequencer**: an LSTM.
- **ResMLP** can be said, but `scale` with a term counts multiply-adds, which timm's affine layer does not; the global
  context of **GCNet**, too, but the sum of what `softmax` weighs counts none, which timm's product does.
- **Vision Mamba** (Vim-T): its scan is causal in both directions, each with a convolution and step sizes of its own,
  over a row of tokens with the class token in the middle. Scans are blocks, not parts: `ss2d`, `bi_ssd` and
  `mamba_vision` are other ones.
"""
COLUMNS = ("spec", "params", "MACs", "input", "reported params", "reported FLOPs", "reported top-1")


def page() -> str:
    """The whole page: one section a paper, in the order of the papers' first specs."""
    sections: dict[str, list[bf.Architecture]] = {}
    for name in bf.list_specs():
        arch = bf.compile(name)
        sections.setdefault(str(arch.spec.about["paper"]), []).append(arch)
    return "\n".join([HEAD, *(section(paper, archs) for paper, archs in sections.items()), NOT_SAID])


def section(paper: str, archs: list[bf.Architecture]) -> str:
    """One paper: its specs, the smallest first, and where they differ from what was published."""
    archs = sorted(archs, key=lambda a: a.params)
    lines = [f"## {paper}", "", f"<{archs[0].spec.about['source']}>", "", row(COLUMNS), row("-" * 3 for _ in COLUMNS)]
    lines += [row(cells(arch)) for arch in archs]
    notes: dict[str, list[str]] = {}
    for arch in archs:
        if text := note(arch.spec.about):
            notes.setdefault(text, []).append(arch.name)
    if notes:
        lines += ["", *(f"- {', '.join(names)}: {text}." for text, names in notes.items())]
    return "\n".join([*lines, ""])


def cells(arch: bf.Architecture) -> list[str]:
    """One spec's row."""
    height, width = arch.plan.input.size
    reported: dict[str, Any] = arch.spec.about.get("reported") or {}
    figures = [str(reported.get(key, "")) for key in ("params", "flops", "top1")]
    return [f"`{arch.name}`", format_count(arch.params), format_count(arch.macs), f"{height}x{width}", *figures]


def note(about: Any) -> str:
    """What `about` says of differences."""
    parts = ["a reconstruction" if about.get("reconstruction") else "", about.get("differs") or ""]
    return ": ".join(filter(None, parts))


def row(values: Iterable[str]) -> str:
    return f"| {' | '.join(values)} |"
