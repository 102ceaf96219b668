"""A network is the same whatever size it was built for, long skips arrive at every size, and maps are maps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import blockforge as bf
from blockforge.blocks import registry
from blockforge.blocks.base import Shape
from blockforge.compiler import Architecture, compile_spec
from blockforge.compiler.maps import rounding
from blockforge.errors import BlockforgeError, OpError, SpecError
from blockforge.search import spaces
from blockforge.spec import load
from blockforge.testing import check_sizes, check_spec
from blockforge.testing.measure import randomise

NARROW = sorted(Path("specs/narrow").glob("*.yaml"))
SPACES = sorted(Path(next(iter(spaces.__path__))).glob("*.yaml"))


@pytest.mark.parametrize("file", NARROW, ids=lambda f: f.stem)
def test_every_family_serves_other_sizes_as_if_built_for_them(file: Path) -> None:
    model = randomise(bf.build(str(file), {"input.size": 64}, seed=0))
    check_sizes(model, (96, 64), (72, 131), (45, 50), (224, 33))


def test_swin_shifts_on_the_map_at_hand() -> None:
    """At the size it is built for, one window covers the last stage; on a larger image several do."""
    change = {"input.channels": 3, "let.window": 4, "stages.3.depth": 2}
    built = randomise(bf.build("specs/narrow/swin.yaml", {**change, "input.size": 128})).eval()
    larger = bf.build("specs/narrow/swin.yaml", {**change, "input.size": [180, 240]}).eval()
    larger.load_state_dict(built.state_dict())
    x = torch.randn(1, 3, 180, 240, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(built(x), larger(x))
    windows: Any = built.get_submodule("stages.3.layers.1.attention.op")
    assert windows.windows.on(4, 4) == (4, 0)
    assert windows.windows.on(6, 8) == (4, 2)


# --- long skips


def skipping(downsample: str, skip: str, size: Any) -> dict[str, Any]:
    return {
        "blockforge": 1,
        "name": "skipping",
        "input": {"size": size},
        "num_classes": 3,
        "blocks": {"b": [{"op": "dwconv", "norm": "layer_norm"}]},
        "stem": {"op": "patch_embed", "patch": 2},
        "downsample": downsample,
        "stages": [{"dim": 8 * 2**i, "depth": 1, "layers": "b"} for i in range(3)],
        "skips": [{"from": 0, "to": [1, 2], "op": skip}],
        "head": "classifier",
    }


DOWNSAMPLES = sorted(registry.blocks("downsample"))


@pytest.mark.parametrize("skip", DOWNSAMPLES)
@pytest.mark.parametrize("downsample", ["conv_downsample", "patch_downsample"])
@pytest.mark.parametrize("size", [[50, 37], [64, 64], [31, 75]], ids=str)
def test_skips_round_as_the_main_path_does(downsample: str, skip: str, size: list[int]) -> None:
    check_spec(skipping(downsample, skip, size))


def _keeps(seen: dict[str, torch.Tensor]) -> Any:
    """A hook that keeps what a convolution read and gave, x_BCHW."""
    return lambda module, args, y: seen.update(read=args[0], given=y)


def test_a_skip_that_rounds_down_reads_zeros_where_the_main_path_rounds_up() -> None:
    model = bf.build(skipping("conv_downsample", "dwconv_downsample", 50), seed=0).eval()  # 25 -> 13 -> 7
    seen: dict[str, torch.Tensor] = {}
    model.get_submodule("skips.0.1").register_forward_hook(_keeps(seen))
    assert model.arch.graph.nodes["skips.0.1"]["in_shape"] == Shape(26, 26, 8)
    for height, width in ((50, 50), (48, 54), (20, 22)):
        with torch.no_grad():
            model(torch.randn(1, 3, height, width))
        rows, columns = -(-height // 4), -(-width // 4)
        assert seen["given"].shape[2:] == (rows, columns)
        assert not seen["read"][:, :, height // 2 :].any()
        assert not seen["read"][..., width // 2 :].any()
    assert rounding(registry.make("dwconv_downsample", {}), Shape(25, 25, 8), 16) == (False, False)
    assert rounding(registry.make("patch_merging", {}), Shape(25, 25, 8), 16) == (False, True)


def test_skips_of_one_rounding_are_left_alone() -> None:
    for downsample, skip in (("patch_downsample", "dwconv_downsample"), ("conv_downsample", "inverted_downsample")):
        model = bf.build(skipping(downsample, skip, 50))
        assert "fit" not in model.code
    assert "fit" in bf.build(skipping("conv_downsample", "dwconv_downsample", 64)).code


def test_a_skip_of_another_stride_is_refused_even_where_it_happens_to_fit() -> None:
    spec = skipping("conv_downsample", {"op": "bottleneck_downsample", "stride": 3}, 4)  # 2 -> 1 either way
    spec["stages"], spec["skips"][0]["to"] = spec["stages"][:2], [1]
    with pytest.raises(SpecError, match=r"takes 16x1x1 of stride 4.*, the skip adds 16x1x1 of stride 6"):
        bf.compile(spec)


def test_an_image_that_is_too_small_is_refused_in_words() -> None:
    model = bf.build("convnext_t", {"stages.2.depth": 1}, features_only=True).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 40))[-1].shape == (1, 768, 1, 1)
        with pytest.raises(OpError, match="leaves nothing of images of 31x40") as e:
            model(torch.zeros(1, 3, 31, 40))
    assert e.value.hint == "32x32 or larger"


# --- random networks at random sizes


def drawn(file: Path, rng: random.Random) -> Iterator[Architecture]:
    """Candidates of a space for random sizes of images."""
    while True:
        size = [rng.randint(20, 100), rng.randint(20, 100)]
        try:
            arch = compile_spec(load(str(file), {"input.size": size}), ask=lambda hole: rng.choice(_options(hole)))
        except SpecError as e:
            if "skip-shape" in {d.code for d in e.diagnostics}:
                raise
            continue
        if arch.params < 2e7:
            yield arch


def _options(hole: Any) -> list[Any]:
    return list(hole.labels) if hole.kind == "choice" else [hole.low, hole.high]


@pytest.mark.parametrize("file", SPACES, ids=lambda f: f.stem)
def test_what_compiles_runs_at_every_size(file: Path) -> None:
    rng = random.Random(1)
    for arch, _ in zip(drawn(file, rng), range(4), strict=False):
        model = bf.build(arch, features_only=True).eval()
        for size in (arch.plan.input.size, (rng.randint(1, 20), 40), (rng.randint(30, 130), rng.randint(30, 130))):
            with torch.no_grad():
                try:
                    maps = model(torch.zeros(1, arch.plan.input.channels, *size))
                except BlockforgeError:
                    assert size != arch.plan.input.size
                    continue
            wanted = compile_spec(arch.spec, {"input.size": list(size)}).stage_maps()
            assert [m.shape[1:] for m in maps] == [(s.dim, s.height, s.width) for s in wanted], (arch.spec, size)


# --- what maps are


@pytest.mark.parametrize("size", [224, [200, 200], [136, 321]], ids=str)
def test_reductions_are_products_of_strides(size: Any) -> None:
    for name, reductions in (
        ("swin_tiny", [4, 8, 16, 32]),
        ("convnext_t", [4, 8, 16, 32]),
        ("resnet50", [4, 8, 16, 32]),
    ):
        arch = bf.compile(name, {"input.size": size})
        assert [stage.end.last.shapes.reduction for stage in arch.stages] == reductions
    arch = bf.compile("deit_s", {"input.size": size})
    assert [stage.end.last.shapes.reduction for stage in arch.stages] == [16]


def test_maps_of_class_token_networks_are_their_patches() -> None:
    change = {"stages.0.depth": 2, "input.size": [64, 96]}
    whole = bf.build("deit_s", change, seed=0).eval()
    x = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    row = whole.forward_features(x)
    assert row.shape == (2, 384, 1, 25)
    for model in (bf.build("deit_s", change, features_only=True).eval(), whole.features()):
        model.load_state_dict(whole.state_dict(), strict=False)
        (found,) = model(x)
        assert found.shape == (2, 384, 4, 6)
        torch.testing.assert_close(found.flatten(2), row[:, :, 0, 1:])
        assert model.feature_info.channels() == [384]
        assert model.feature_info.reduction() == [16]
    last, maps = whole.forward_intermediates(x)
    torch.testing.assert_close(last, row)
    torch.testing.assert_close(maps[0], found)
    torch.testing.assert_close(whole.forward_head(last), whole(x))


@pytest.mark.parametrize(
    ("name", "built"),
    [("strip_mlp_t", "strip_mixing was built for maps of"), ("smlp_t", "sparse_mlp was built for maps of"),
     ("mlp_mixer_b16", "token_mlp was built for maps of")],
)  # fmt: skip
def test_blocks_for_one_size_say_which(name: str, built: str) -> None:
    shallow = {f"stages.{i}.depth": 1 for i in range(len(bf.load(name).stages))}
    model = bf.build(name, {**shallow, "input.size": 64}).eval()
    with pytest.raises(OpError, match=built + r" \d+x\d+, not \d+x\d+") as e, torch.no_grad():
        model(torch.zeros(1, model.in_chans, 96, 64))
    assert "input.size" in str(e.value.hint)
