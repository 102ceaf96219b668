"""Ablations as data: a base spec and a list of overrides, compiled into one table.

base: smt_t
about: {paper: ..., table: ...}
rows:
  - {label: 1 head, set: {blocks.sam.0.num_heads: 1}}
  - {label: stage 3 in turn, set: {}, reported: {params: 11.5M, flops: 2.4G}}
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from blockforge.compiler import Architecture, compile_spec
from blockforge.console.csv_text import columns
from blockforge.errors import BlockforgeError, Report, did_you_mean
from blockforge.spec.schema_errors import validated
from blockforge.spec.slots import Model
from blockforge.spec.yaml.loader import Document, load_file, load_text
from blockforge.units import format_bytes, format_count


class RowSpec(Model):
    """One variant of the base."""

    label: str
    """What the table calls it."""
    set: dict[str, Any] = {}
    """Values to replace in the base, by path."""
    reported: dict[str, Any] = {}
    """The paper's figures for this row."""
    note: str | None = None
    """Why ours differ from the reported figures, or what to know."""


class AblationSpec(Model):
    """A table of variants of one spec."""

    base: str
    """A zoo name, or a path beside the file."""
    about: dict[str, Any] = {}
    """Paper and table: free form."""
    rows: Annotated[list[RowSpec], Field(min_length=1, max_length=1000)]
    """The variants, in the table's order."""


@dataclass(frozen=True)
class Row:
    """A variant, compiled."""

    spec: RowSpec
    arch: Architecture


def list_ablations() -> list[str]:
    """Names of the packaged ablations."""
    files = resources.files("blockforge.specs.ablations").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_ablation(source: str | os.PathLike[str]) -> tuple[AblationSpec, Document]:
    """A packaged ablation by name, or one from a file.

    Raises: SpecError with every error of the file.
    """
    text = os.fspath(source)
    if text.endswith((".yaml", ".yml")) or os.sep in text:
        document = load_file(text)
    else:
        file = resources.files("blockforge.specs.ablations") / f"{text}.yaml"
        if not text.replace("_", "").isalnum() or not file.is_file():
            raise BlockforgeError(f"no ablation named '{text}'\n  hint: {did_you_mean(text, list_ablations())}")
        document = load_text(file.read_text(encoding="utf-8"), f"{text}.yaml")
    return validated(AblationSpec, document.tree, Report(document.locs)), document


def run(source: str | os.PathLike[str]) -> tuple[AblationSpec, list[Row]]:
    """Compile every row of an ablation. Raises: SpecError of the first row that does not compile."""
    spec, _ = load_ablation(source)
    base = spec.base
    if base.endswith((".yaml", ".yml")):
        base = str(Path(os.fspath(source)).parent / base)
    return spec, [Row(row, compile_spec(base, row.set)) for row in spec.rows]


def figures(row: Row) -> dict[str, Any]:
    """The columns of a row, as numbers."""
    arch = row.arch
    return {
        "label": row.spec.label,
        "params": arch.params,
        "macs": arch.macs,
        "activation_bytes": arch.activation_bytes,
        **{f"reported_{k}": v for k, v in row.spec.reported.items()},
    }


def to_markdown(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown, with figures as papers write them."""
    names = columns(rows)
    lines = [f"| {' | '.join(title(n) for n in names)} |", f"|{'|'.join('---' for _ in names)}|"]
    lines += [f"| {' | '.join(shown(n, row.get(n)).replace('|', '/') for n in names)} |" for row in rows]
    return "\n".join(lines) + "\n"


def title(column: str) -> str:
    """A column's heading."""
    fixed = {"label": "variant", "macs": "MACs", "activation_bytes": "peak activations", "latency_ms": "ms"}
    return fixed.get(column, column.replace("reported_", "reported "))


def shown(column: str, value: Any) -> str:
    """A cell as people read it."""
    if value is None:
        return ""
    if column in ("params", "macs"):
        return format_count(value)
    if column == "activation_bytes":
        return format_bytes(value)
    return f"{value:.2f}" if isinstance(value, float) and column == "latency_ms" else str(value)
