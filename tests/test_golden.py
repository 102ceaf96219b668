"""What users keep stays: hashes, graphs, memory, tensors, candidates of spaces, a folder saved by an early version."""

from __future__ import annotations

import json

import golden
import pytest
import torch

import blockforge as bf
from blockforge.search import list_spaces

KNOWN = json.loads(golden.FILE.read_text(encoding="utf-8"))
SAVED = golden.TESTS / "data" / "saved"
"""Written by `save_model` of 22 November 2026, when `versions.json` did not name plugins or norms of maps yet."""
SCORES = [[-0.9692, 0.88779, 1.0964, -0.00543, -0.69522], [-0.4893, 1.62288, 1.35425, -0.26315, -0.35068]]
"""What that version computed for `image()`."""
HINT = "if the change is meant: python tests/golden.py, and a line in CHANGELOG"


def image() -> torch.Tensor:
    return torch.linspace(-9, 9, 2 * 3 * 32 * 48).sin().reshape(2, 3, 32, 48)


def test_every_spec_and_space_is_pinned() -> None:
    assert list(KNOWN["architectures"]) == [*bf.list_specs(), *golden.small_specs()], HINT
    assert list(KNOWN["graphs"]) == list(KNOWN["tensors"]) == [*golden.one_a_family(), *golden.small_specs()], HINT
    assert list(KNOWN["candidates"]) == list_spaces(), HINT


@pytest.mark.parametrize("name", KNOWN["architectures"])
def test_hash_and_memory(name: str) -> None:
    assert golden.architecture(name) == KNOWN["architectures"][name], HINT


@pytest.mark.parametrize("name", KNOWN["graphs"])
def test_nodes_and_edges(name: str) -> None:
    assert golden.graph(name) == KNOWN["graphs"][name], HINT


@pytest.mark.parametrize("name", KNOWN["tensors"])
def test_names_and_shapes_of_tensors(name: str) -> None:
    assert golden.tensors(name) == KNOWN["tensors"][name], HINT


@pytest.mark.parametrize("name", KNOWN["candidates"])
def test_candidates_of_a_space(name: str) -> None:
    assert golden.candidates(name) == KNOWN["candidates"][name], HINT


def test_a_folder_of_an_earlier_version_loads_and_computes_the_same() -> None:
    model = bf.load_model(SAVED).eval()
    assert model.arch.hash == json.loads((SAVED / "versions.json").read_text(encoding="utf-8"))["hash"]
    with torch.no_grad():
        torch.testing.assert_close(model(image()), torch.tensor(SCORES), rtol=1e-3, atol=1e-4)


def test_the_graph_of_an_earlier_version_reloads() -> None:
    arch = bf.Architecture.from_json((SAVED / "graph.json").read_text(encoding="utf-8"))
    assert arch.hash == bf.compile(SAVED / "spec.yaml").hash
