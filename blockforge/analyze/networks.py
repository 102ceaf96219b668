"""Which networks are looked at: specs, rows of ablation tables, and variants of a spec."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blockforge import ablation
from blockforge.api import build
from blockforge.compiler.lowering.backbone import Backbone
from blockforge.errors import AnalysisError
from blockforge.spec import Spec, list_specs, load
from blockforge.units import count_of

_VARIANT = "as in --variant 'M=1: stages.2.connect.window=1; drop_path=0'"


@dataclass(frozen=True)
class Network:
    """A built network, in evaluation mode.

    Attributes:
        label: what tables and pictures call it.
        weights: the file that its weights come from; None: it is as initialised.
    """

    label: str
    model: Backbone
    weights: str | os.PathLike[str] | None = None


def build_networks(
    names: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    variants: Sequence[str] = (),
    weights: Sequence[str | os.PathLike[str]] = (),
    seed: int = 0,
    device: str = "cpu",
) -> list[Network]:
    """Build networks.

    Args:
        names: each a zoo name or a YAML file; `TABLE:ROW` for a row of an ablation table, by number from 1 or by
            label; or the name of a packaged table, for all of its rows.
        overrides: `path=value`, laid over every one of them.
        variants: `LABEL: path=value; path=value`, each laid over the first of `names`.
        weights: a file for each network, in their order; or none at all.
        seed: of the initialisation.
    Raises: AnalysisError, SpecError, WeightsError.
    """
    labelled = [pair for name in names for pair in _named(name)]
    labelled += [_variant(labelled[0][1], text) for text in variants]
    if weights and len(weights) != len(labelled):
        listed = ", ".join(label for label, _ in labelled)
        text = f"{len(weights)} files of weights for {len(labelled)} networks ({listed})"
        raise AnalysisError(f"{text}\n  hint: --weights once for each, in this order, or not at all")
    specs = [(label, load(spec, list(overrides))) for label, spec in labelled]
    files: Sequence[str | os.PathLike[str] | None] = weights or [None] * len(labelled)
    networks = []
    for (label, spec), file in zip(_distinct(specs), files, strict=True):
        model = build(spec, weights=file, seed=seed).eval().to(device)
        networks.append(Network(label, model, file))
    return networks


def _named(name: str) -> Iterator[tuple[str, Spec]]:
    """The specs that an argument stands for, with their labels."""
    table, colon, row = name.rpartition(":")
    if colon and table and not Path(name).exists():
        yield from _rows(table, row)
    elif name in ablation.list_ablations() and name not in list_specs():
        yield from _rows(name, None)
    else:
        spec = load(name)
        yield spec.name, spec


def _rows(table: str, row: str | None) -> Iterator[tuple[str, Spec]]:
    """A row of an ablation table, or all of them."""
    ablated, _ = ablation.load_ablation(table)
    base: Any = ablated.base
    if base.endswith((".yaml", ".yml")):
        base = Path(table).parent / base
    labels = [r.label for r in ablated.rows]
    chosen = ablated.rows if row is None else [ablated.rows[_row_number(table, row, labels)]]
    for each in chosen:
        yield each.label, load(base, each.set)


def _row_number(table: str, row: str, labels: list[str]) -> int:
    if row in labels:
        return labels.index(row)
    if (number := count_of(row)) is not None and 1 <= number <= len(labels):
        return number - 1
    numbered = ", ".join(f"{i} '{label}'" for i, label in enumerate(labels, 1))
    raise AnalysisError(f"{table} has no row '{row}'\n  hint: its rows: {numbered}")


def _variant(base: Spec, text: str) -> tuple[str, Spec]:
    """`LABEL: path=value; path=value` -> the label, and the base with these values."""
    label, colon, rest = text.partition(":")
    changes = [part.strip() for part in rest.split(";") if part.strip()]
    if not colon or not label.strip() or not changes:
        raise AnalysisError(f"'{text[:120]}' is no variant\n  hint: LABEL: path=value; path=value, {_VARIANT}")
    return label.strip(), load(base, changes)


def _distinct(pairs: list[tuple[str, Spec]]) -> Iterator[tuple[str, Spec]]:
    """Labels that occur twice get a number."""
    seen: dict[str, int] = {}
    for label, spec in pairs:
        seen[label] = seen.get(label, 0) + 1
        yield (label if seen[label] == 1 else f"{label} ({seen[label]})"), spec
