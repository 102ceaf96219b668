"""The results as rows, for CSV files, JSON and the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch

from blockforge.analyze.cam import ClassMap
from blockforge.analyze.cka import Similarity
from blockforge.analyze.erf import ReceptiveField
from blockforge.analyze.record import short
from blockforge.analyze.token_weights import TokenWeights

if TYPE_CHECKING:
    from rich.console import Group

Row = dict[str, Any]


class _Item(Protocol):
    def as_dict(self) -> Row: ...


def labelled(networks: Mapping[str, Sequence[_Item]]) -> list[Row]:
    """A row for each item of each network."""
    return [{"network": label, **item.as_dict()} for label, items in networks.items() for item in items]


def field_rows(fields: Mapping[str, ReceptiveField]) -> list[Row]:
    """A row for each network."""
    return [{"network": label, **field.as_dict()} for label, field in fields.items()]


def similarity_rows(similarities: Mapping[str, Similarity]) -> list[Row]:
    """A row for each pair of layers of each comparison."""
    return [
        {"network": label, "layer": row, "other": column, "cka": value}
        for label, similarity in similarities.items()
        for row, values in zip(similarity.rows, similarity.values.tolist(), strict=True)
        for column, value in zip(similarity.columns, values, strict=True)
    ]


def summary_rows(similarities: Mapping[str, Similarity]) -> list[Row]:
    """A row for each comparison: layers, and mean and lowest CKA of different layers."""
    rows = []
    for label, similarity in similarities.items():
        values = similarity.values
        if similarity.rows == similarity.columns:
            values = values[~torch.eye(len(values), dtype=torch.bool)]
        kept = values[torch.isfinite(values)]
        mean, lowest = (float(kept.mean()), float(kept.min())) if kept.numel() else (float("nan"),) * 2
        rows.append({"network": label, "layers": len(similarity.rows), "mean": mean, "lowest": lowest})
    return rows


def token_rows(layers: Sequence[TokenWeights]) -> list[Row]:
    """A row for each position of each layer's map of each image."""
    return [
        {"image": image, "node": layer.node, "row": i, "column": j, "weight": value}
        for layer in layers
        for image, rows in enumerate(layer.weights.tolist())
        for i, values in enumerate(rows)
        for j, value in enumerate(values)
    ]


def top_rows(class_map: ClassMap) -> list[Row]:
    """A row for each of the most probable classes."""
    return [{"class": k, "probability": p} for k, p in class_map.top]


def shown(rows: Sequence[Row], title: str) -> Group:
    """Rows below a title, to be printed by rich. What all rows share as `network` goes into the title."""
    from rich.console import Group

    from blockforge.console.prose import Prose
    from blockforge.console.text_table import Label, Number, TextTable

    networks = {row.get("network") for row in rows}
    left_out = "network" if len(rows) > 1 and len(networks) == 1 and None not in networks else None
    kept = [key for key in rows[0] if key != left_out]
    of_text = [key for key in kept if isinstance(rows[0][key], str)]
    figures = [key for key in kept if key not in of_text]
    order = {key: len(figures) - i for i, key in enumerate(figures) if i}  # the last leave first; one figure stays
    titles = {key: key.replace("_", " ") for key in kept}
    columns = (Label(titles[k]) if k in of_text else Number(titles[k], leaves=order.get(k)) for k in kept)
    table = TextTable(*columns)
    for row in rows:
        table.add_row(*(_cell(key, row[key]) for key in kept))
    return Group(Prose(f"{rows[0]['network']}: {title}" if left_out else title), table)


def _cell(name: str, value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return short(str(value)) if name == "node" else str(value)
