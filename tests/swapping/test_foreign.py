"""Blocks from a file in place of a network's own: which fit, what they learn, and that a run goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch

import blockforge as bf
from blockforge.cli import main
from blockforge.errors import BudgetError, RunError, SpecError
from blockforge.swapping import lessons
from blockforge.swapping.edits import edited, written_out
from blockforge.swapping.foreign import foreign_alternatives, foreign_blocks
from blockforge.swapping.lessons import Lessons, distilled
from blockforge.swapping.weights import new_branch, standing_in, with_alternatives

NET: dict[str, Any] = {
    "blockforge": 1,
    "name": "parent",
    "input": {"channels": 1, "size": 16},
    "num_classes": 10,
    "defaults": {"norm": "layer_norm", "scale": 1.0},
    "blocks": {"a": [{"op": "attention", "num_heads": 2}, {"op": "mlp", "mlp_ratio": 4}]},
    "stem": {"op": "patch_embed", "patch": 4},
    "stages": [{"dim": 16, "depth": 2, "layers": "a"}],
    "head": {"op": "classifier", "pool": "avg"},
}
PAGE = """
define:
  separable: {params: {k: 3}, body: [{op: dwconv, kernel_size: $k}, gelu, {op: linear, dim: $out}]}
blocks:
  dw: [{op: dwconv, kernel_size: {$choice: [3, 7]}}]
  sep: [{op: separable, k: 5, norm: none}]
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("alternatives") / "page.yaml"
    file.write_text(PAGE, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def parent() -> bf.Backbone:
    """Its branches add about as much as they read, as those of a trained network do."""
    model = bf.build(written_out(NET), seed=0).eval()
    for name, parameter in model.named_parameters():
        if ".layers." in name and parameter.ndim > 1:
            parameter.data.mul_(8)
    return model


def _images() -> Any:
    draw = torch.Generator().manual_seed(0)
    while True:
        yield torch.randn(16, 1, 16, 16, generator=draw)


def test_blocks_fit_where_their_kind_may_stand(page: Path, parent: bf.Backbone, capsys: Any) -> None:
    """Mixers for mixers; composed blocks anywhere. What the file does not say of a branch stays as it was."""
    arch = parent.arch
    found = list(foreign_alternatives(arch, arch.source, foreign_blocks(page)))
    at = {name: [a.label for a in found if a.slot.name.endswith(name)] for name in ("0.attention", "0.mlp")}
    assert at == {"0.attention": ["dw kernel_size 3", "dw kernel_size 7", "sep"], "0.mlp": ["sep"]}
    for alternative in found[:4]:
        other = bf.compile(edited(arch.source, [alternative]))
        assert arch.macs - other.macs == alternative.saved["macs"]
        assert arch.params - other.params == alternative.saved["params"]
    spec = edited(arch.source, [found[0], found[3]])
    assert spec.tree["blocks"]["a_dw_sep"] == [
        {"op": "dwconv", "norm": "layer_norm", "scale": 1.0, "kernel_size": 3},
        {"op": "separable", "scale": 1.0, "norm": "none", "k": 5},
    ]
    capsys.readouterr()
    assert not list(foreign_alternatives(arch, arch.source, []))
    assert capsys.readouterr().err == ""
    only = Path(page.parent / "only.yaml")
    only.write_text("blocks: {wide: [{op: mlp, mlp_ratio: 8}]}", encoding="utf-8")
    assert not list(foreign_alternatives(arch, arch.source, foreign_blocks(only)))
    said = capsys.readouterr().err
    assert "no alternative fits stages.0.layers.0.attention and 1 more (wide: a ffn for a mixer)" in said
    assert "no alternative fits stages.0.layers.0.mlp and 1 more (wide: it costs no less)" in said


def test_what_an_aggregator_feeds_otherwise_does_not_fit(page: Path, capsys: Any) -> None:
    """A mixer may be fed through its input projection, at another width than a block that has none."""
    blocks = {"a": [{"op": "ss2d"}, {"op": "mlp", "mlp_ratio": 4}]}
    stage = {
        "dim": 16,
        "depth": 3,
        "layers": "a",
        "connect": {"rule": "sparx", "stride": 2, "aggregate": {"op": "dmca"}},
    }
    arch = bf.compile(written_out({**NET, "blocks": blocks, "stages": [stage]}))
    fed = {layer.index for layer in arch.stages[0].layers if layer.fed is not None}
    found = list(foreign_alternatives(arch, arch.source, foreign_blocks(page)))
    assert fed
    assert {a.slot.layer for a in found if a.slot.op == "ss2d"} == {0, 1, 2} - fed
    assert "it reads or gives another map" in capsys.readouterr().err


def test_foreign_blocks_learn_and_stand_in(page: Path, parent: bf.Backbone) -> None:
    """Small at first, nearer to the branch's outputs after; alone in the network and written out they are the same."""
    arch = parent.arch
    (found,) = [
        a
        for a in foreign_alternatives(arch, arch.source, foreign_blocks(page))
        if (a.slot.name, a.label) == ("stages.0.layers.1.attention", "sep")
    ]
    x = next(_images())
    args, y = lessons.seen_by(parent, {found.slot.name}, x)[found.slot.name]
    torch.manual_seed(0)
    new = new_branch(parent, found)
    for parameter in new.op.parameters():
        parameter.data.mul_(10)
    lessons._scale_down(new, args, y)
    with torch.no_grad():
        added, wanted = (float((z - args[0]).square().mean().sqrt()) for z in (new(*args), y))
    assert added == pytest.approx(lessons.START * wanted, rel=1e-4)
    kept = distilled(parent, [found], _images, Lessons(60, 4, lr=1e-2), None, {})
    with torch.no_grad(), standing_in(parent, found, kept):
        near, _ = lessons.seen_by(parent, {found.slot.name}, x)[found.slot.name][1], None
        alone = parent(x)
    assert float((near - y).square().mean()) < 0.5 * wanted**2
    assert all(parameter.requires_grad for parameter in parent.parameters())
    with torch.no_grad():
        torch.testing.assert_close(with_alternatives(parent, arch.source, [found], kept).eval()(x), alone)


@pytest.mark.parametrize("names", [("pool",), ("pool", "dw")])
def test_a_block_without_parameters_has_nothing_to_learn(
    names: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone in a page or beside others; it is scored and chosen like them, and all steps are told."""
    blocks = {"pool": "[{op: pooling, norm: none, scale: none}]", "dw": "[{op: dwconv, kernel_size: 3}]"}
    page = tmp_path / "page.yaml"
    page.write_text("\n".join(["blocks:", *(f"  {name}: {blocks[name]}" for name in names)]), encoding="utf-8")
    parent = bf.build(written_out(NET), seed=0).eval()
    arch = parent.arch
    found = list(foreign_alternatives(arch, arch.source, foreign_blocks(page)))
    told: list[int] = []
    monkeypatch.setattr(lessons, "counting", lambda *_: contextlib.nullcontext(told.append))
    kept = distilled(parent, found, _images, Lessons(2, 1), None, {})
    assert sum(told) == 3 * len(found) == 3 * 2 * len(names)
    pools = [a for a in found if a.label == "pool"]
    assert [dict(kept[a]) for a in pools] == [{}, {}]
    x = next(_images())
    with torch.no_grad(), standing_in(parent, pools[0], kept):
        alone = parent(x)
    with torch.no_grad():
        torch.testing.assert_close(with_alternatives(parent, arch.source, pools[:1], kept).eval()(x), alone)


def test_from_the_command_line(page: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """A network with foreign blocks, which loads again; what was learnt and scored is not done again."""
    bf.save_model(bf.build(NET, seed=0), tmp_path / "parent")
    run = ["swap", str(tmp_path / "parent/spec.yaml"), "--weights", str(tmp_path / "parent/model.safetensors")]
    run += ["--data", "digits", "--images", "16", "--steps", "4", "--out", str(tmp_path / "out"), "--budget", "90%"]
    assert main([*run, "--alternatives", str(page)]) == 0
    files = sorted((tmp_path / "out/library").iterdir())
    assert len(files) == 8
    assert "sep" in (tmp_path / "out/alternatives.csv").read_text()
    bf.load_model(tmp_path / "out/90pct")
    monkeypatch.setattr(lessons, "_learn_alone", None)
    assert main([*run, "--alternatives", str(page)]) == 0
    files[0].write_bytes(b"torn")
    capsys.readouterr()
    assert main([*run, "--alternatives", str(page)]) == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("define: {}", "has no blocks"),
        ("blocks: {b: [attention, mlp]}", "block 'b' of .* has 2 branches"),
        ("blocks: {b: [{op: dwconv, kernel_size: {$int: [1, 200]}}]}", "more than 64 forms"),
    ],
)
def test_pages_that_are_none(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "page.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BudgetError, match=message):
        foreign_blocks(file)


def test_mistakes_in_a_page_are_told_where_they_are(tmp_path: Path, parent: bf.Backbone) -> None:
    file = tmp_path / "page.yaml"
    file.write_text("blocks:\n  b: [{op: dwcnv}]\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"page\.yaml:2:12: .*dwcnv"):
        foreign_blocks(file)
    file.write_text("define: {f: [dwconv]}\nblocks: {b: [f]}\n", encoding="utf-8")
    named = bf.compile(written_out({**NET, "define": {"f": ["linear"]}, "blocks": {"a": ["f", "mlp"]}}))
    with pytest.raises(BudgetError, match="'f' is defined otherwise in parent"):
        list(foreign_alternatives(named, named.source, foreign_blocks(file)))


def test_thinner_branches_may_learn_before_they_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They then move the answers less, answers have what they learnt, the second run learns nothing, and the scores
    are not mixed with others."""
    model, out = bf.build(NET, seed=0), tmp_path / "out"
    plain = bf.swap(model, "digits", "50%", images=16)
    taught = bf.swap(model, "digits", "50%", images=16, score_steps=8, out=out)
    for kind, learns in (("thinner", True), ("gone or narrower", False)):
        pairs = [
            (a.kl, b.kl)
            for a, b, alternative in zip(plain.scores, taught.scores, plain.alternatives, strict=True)
            if (alternative.cut is not None and not alternative.is_whole) == learns
        ]
        assert (sum(b for _, b in pairs) < sum(a for a, _ in pairs)) == learns, kind
    monkeypatch.setattr(lessons, "_learn_alone", None)
    again = bf.swap(model, "digits", "50%", images=16, score_steps=8, out=out)
    assert again.scores == taught.scores
    tensors = again.answers[0].model.state_dict()
    assert all(torch.equal(t, tensors[n]) for n, t in taught.answers[0].model.state_dict().items())
    with pytest.raises(RunError, match="holds the scores of another run: other method"):
        bf.swap(model, "digits", "50%", images=16, out=out)
