"""Expressions in a space: one hole however many values are computed from it, solved for, counted, found and fitted."""

from __future__ import annotations

import random
from typing import Any

import pytest

from blockforge.compiler import compile_spec
from blockforge.compiler.candidates import compile_candidate
from blockforge.errors import SpecError
from blockforge.search.space.fit import fit
from blockforge.search.space.locate import NotInSpaceError, locate
from blockforge.search.space.size import count, enumerate_space
from blockforge.spec import Hole, Spec, fill, holes, load
from blockforge.spec.relations.repair import relations_of
from blockforge.spec.relations.require import violations

TREE: dict[str, Any] = {
    "blockforge": 1,
    "name": "computed",
    "input": {"size": 32},
    "num_classes": 10,
    "let": {"w": {"$int": [16, 1024, 4]}, "heads": {"$choice": [1, 2, 4]}, "double": "$(2 * w)"},
    "blocks": {"attn": [{"op": "attention", "norm": "none", "num_heads": "$heads"}, {"op": "dwconv", "norm": "none"}]},
    "stem": "conv_stem",
    "downsample": "conv_downsample",
    "stages": [
        {"dim": "$w", "depth": 1, "layers": "attn"},
        {"dim": "$double", "depth": "$(stage + heads)", "layers": "attn"},
    ],
    "head": "classifier",
}


def space(*require: str, **top: Any) -> Spec:
    return load({**TREE, "require": list(require), **top})


def drawn(found: Spec, seed: int) -> dict[str, Any]:
    """The answers of a candidate that starts at random ones."""
    rng = random.Random(seed)

    def ask(hole: Hole) -> Any:
        if hole.kind == "choice":
            return rng.choice(hole.labels)
        return rng.randrange(int(hole.low), int(hole.high) + 1, hole.step)

    return dict(compile_candidate(found, ask).plan.answers)


@pytest.mark.parametrize(
    ("relation", "answers"),
    [
        ("stages.1.dim == 3 * stages.0.dim - 40", {"let.w": 40}),
        ("stages.1.dim == heads * 28 and heads == 4", {"let.w": 56, "let.heads": 4}),
        ("double + stages.1.depth == 171 and heads == 2", {"let.w": 84, "let.heads": 2}),
        ("stages.1.dim / 8 == 25", {"let.w": 100}),
        ("stages.1.dim == 404 - num_classes - 10 * stages.0.depth", {"let.w": 192}),
    ],
)
def test_relations_on_computed_values_are_solved(relation: str, answers: dict[str, Any]) -> None:
    found = space(relation)
    assert relations_of(found).narrow
    for seed in range(5):
        assert drawn(found, seed).items() >= answers.items()


def test_a_relation_says_what_a_computed_value_is() -> None:
    found = space("stages.1.dim <= 32", "stages.1.depth >= 2")
    (broken,) = violations(found.lifted, {"let.w": 20, "let.heads": 1})
    assert broken.values == "stages.1.dim is 40"
    with pytest.raises(SpecError, match=r"stages.1.dim <= 32 does not hold: stages.1.dim is 40"):
        compile_spec(found, ask=lambda hole: 20 if hole.name == "let.w" else 1)


def test_no_range_is_taken_for_the_ends_of_what_is_computed_from_it() -> None:
    """`5 * w % 64` is 16 at both ends of a range, and other things between them."""
    let = {"w": {"$int": [16, 80, 4]}, "x": {"$choice": [4, "$(5 * w % 64)"]}, "heads": 1, "double": 32}
    found = space("x == 40 and w > 40", let=let)
    assert relations_of(found).mend({"let.w": 16, "let.x": 4})["let.w"] == 72


def test_what_is_computed_is_no_hole_of_its_own() -> None:
    found = space()
    assert list(holes(found)) == ["let.w", "let.heads"]
    assert count(found).combinations == len(range(16, 1025, 4)) * 3


def test_the_count_is_that_of_all_candidates() -> None:
    let = {**TREE["let"], "w": {"$int": [16, 24, 4]}, "k": {"$choice": [3, "$(heads + 4)"]}}
    blocks = {"attn": [{"op": "dwconv", "norm": "none", "kernel_size": "$(k if layer == 0 else 3)"}]}
    found = space(let=let, blocks=blocks)
    assert count(found).combinations == len(list(enumerate_space(found)))


@pytest.mark.parametrize("w", [16, 100])
def test_a_network_is_found_in_a_space_of_expressions(w: int) -> None:
    answers = {"let.w": w, "let.heads": 2}
    assert locate(space(), fill(space(), answers)) == answers
    written = {**TREE, "let": {"heads": 2, "w": w, "double": 2 * w}}
    assert locate(space(), load(written)) == answers


def test_a_network_whose_layers_differ_is_found() -> None:
    let = {**TREE["let"], "k": {"$choice": [3, 5]}}
    blocks = {"attn": [{"op": "dwconv", "norm": "none", "kernel_size": "$(k + 2 * layer)"}]}
    found, answers = space(let=let, blocks=blocks), {"let.w": 32, "let.heads": 2, "let.k": 5}
    arch = compile_spec(found, ask=lambda hole: answers[hole.name])
    assert [[b.op.spec.params["kernel_size"] for b in bs] for _, bs in arch.plan.stages[1].layers] == [[5], [7], [9]]
    assert locate(found, fill(found, answers)) == answers
    with pytest.raises(NotInSpaceError, match=r"stages\.0\.layers"):
        locate(space(let={**let, "k": 3}, blocks=blocks), fill(found, answers))


def test_computed_widths_are_fitted() -> None:
    arch = compile_spec({**TREE, "let": {"w": 64, "heads": 2, "double": "$(2 * w)"}})
    fitted = fit(arch, "2MMACs")
    assert 0.97 * 2e6 <= fitted.macs <= 2e6
    assert [stage.dim for stage in fitted.plan.stages] != [stage.dim for stage in arch.plan.stages]
