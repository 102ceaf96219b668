"""`attend`: against plain formulas, the mixer `attention`, and its own laws at places of every form."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from blockforge.blocks import registry
from blockforge.blocks.base import Shape
from blockforge.blocks.joins.attend import Attend
from blockforge.blocks.mixers.attention import Attention, shift_mask
from blockforge.blocks.rel_pos import RelativePositionBias
from blockforge.blocks.windows import cut_windows, join_windows
from blockforge.errors import OpError
from blockforge.testing import check_op, example_inputs, randomise

Shapes = tuple[Shape, ...]
ONE = (Shape(5, 4, 48),)
TWO = (Shape(6, 11, 16), Shape(3, 5, 32))
THREE = (Shape(6, 4, 16), Shape(3, 2, 16), Shape(3, 2, 8))
SHARED = (Shape(5, 3, 16), Shape(4, 3, 4), Shape(4, 3, 6))
SHARED_BESIDE = (Shape(5, 3, 16), Shape(4, 3, 8))
ALIKE = (Shape(5, 4, 16),) * 3
WIDE_VALUES = (Shape(3, 3, 16), Shape(5, 5, 16), Shape(5, 5, 32))
HEADS = 4


def make(**params: Any) -> Attend:
    op = registry.make("attend", {"num_heads": HEADS, **params}, "join")
    assert isinstance(op, Attend)
    return op


def run(op: Attend, shapes: Shapes) -> tuple[Any, tuple[Tensor, ...], Tensor]:
    """The module in float64, off its initial values, noise for it, and what it makes of that."""
    op.check(shapes, None)
    torch.manual_seed(0)
    module = randomise(op.build(shapes, None)).double()
    maps = example_inputs("join", shapes, None, dtype=torch.float64)
    with torch.no_grad():
        y = module(*maps)
    assert y.shape[1:] == op.out_shape(shapes, None)
    return module, maps, y


def each(x: Tensor, heads: int = HEADS) -> Tensor:
    """(B, H, W, N * D) -> (B, N, H * W, D)."""
    batch, height, width, dim = x.shape
    return x.reshape(batch, height * width, heads, dim // heads).transpose(1, 2)


def softmax(q: Tensor, k: Tensor, v: Tensor, scale: float | Tensor | None = None, bias: Tensor | float = 0) -> Tensor:
    logits = torch.einsum("bnld,bnsd->bnls", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale) + bias
    return torch.einsum("bnls,bnsd->bnld", logits.softmax(-1), v)


def whole(y: Tensor, like: Tensor) -> Tensor:
    """(B, N, L, D) -> (B, H, W, N * D)."""
    return y.transpose(1, 2).reshape(*like.shape[:3], -1)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


# --- what it computes


def test_three_maps() -> None:
    _, (q, k, v), y = run(make(), THREE)
    close(y, whole(softmax(each(q), each(k), each(v)), q))


def test_keys_beside_values() -> None:
    _, (q, kv), y = run(make(), TWO)
    close(y, whole(softmax(each(q), each(kv[..., :16]), each(kv[..., 16:])), q))


def test_all_beside_each_other() -> None:
    _, (x,), y = run(make(), ONE)
    close(y, whole(softmax(*(each(t) for t in x.chunk(3, -1))), x))


def test_head_by_head() -> None:
    _, (x,), y = run(make(order="by_head"), ONE)
    close(y, whole(softmax(*each(x).chunk(3, -1)), x))


def test_values_of_their_own_width_in_one_map() -> None:
    _, (x,), y = run(make(head_dim=3, order="by_head"), (Shape(5, 4, 4 * (3 + 3 + 7)),))
    close(y, whole(softmax(*each(x).split([3, 3, 7], -1)), x))


@pytest.mark.parametrize("form", ["softmax", "relu_linear"])
def test_shared_keys_and_values(form: str) -> None:
    _, (q, k, v), y = run(make(form=form), SHARED)
    k, v = (t.repeat(1, 1, 1, HEADS) for t in (k, v))
    expected = softmax(each(q), each(k), each(v)) if form == "softmax" else linear(each(q), each(k), each(v))
    close(y, whole(expected, q))


def test_shared_keys_beside_values() -> None:
    _, (q, kv), y = run(make(), SHARED_BESIDE)
    k, v = (t.repeat(1, 1, 1, HEADS) for t in kv.chunk(2, -1))
    close(y, whole(softmax(each(q), each(k), each(v)), q))


def test_scale() -> None:
    _, (q, k, v), y = run(make(scale=0.3), THREE)
    close(y, whole(softmax(each(q), each(k), each(v), 0.3), q))


def test_norms_of_queries_and_keys() -> None:
    module, (q, k, v), y = run(make(qk_norm=True), THREE)
    normed = (
        F.layer_norm(each(t), (4,), norm.weight, norm.bias) for t, norm in ((q, module.q_norm), (k, module.k_norm))
    )
    close(y, whole(softmax(*normed, each(v)), q))


def test_channels_attend_to_channels() -> None:
    """The whole formula, on maps laid on their sides: positions are what vectors are made of."""
    module, (q, k, v), y = run(make(form="channels"), ALIKE)
    assert make(form="channels").build(ALIKE, None).temperature.flatten().tolist() == [1] * HEADS
    on_side = [each(t).transpose(-1, -2) for t in (q, k, v)]
    unit = [F.normalize(t, dim=-1) for t in on_side[:2]]
    expected = softmax(*unit, on_side[2], module.temperature).transpose(-1, -2)
    torch.testing.assert_close(each(y), expected)
    assert module.no_weight_decay() == {"temperature"}
    with pytest.raises(OpError, match="channels cannot keep positions apart"):
        module(q, k, v, mask=torch.ones(1, 20, 20, dtype=torch.bool))


def test_talking_heads() -> None:
    """Heads are mixed before the softmax, with the bias, and behind it."""
    module, (q, k, v), y = run(make(talking_heads=True, bias="rel_pos_table"), (ALIKE[0],) * 3)
    logits = torch.einsum("bnld,bnsd->bnls", each(q), each(k)) * (each(q).shape[-1] ** -0.5) + module.rel_pos(None)
    before, behind = module.mix_products, module.mix_weights
    mixed = torch.einsum("bnls,mn->bmls", logits, before.weight) + before.bias[:, None, None]
    weights = torch.einsum("bnls,mn->bmls", mixed.softmax(-1), behind.weight) + behind.bias[:, None, None]
    close(y, whole(torch.einsum("bnls,bnsd->bnld", weights, each(v)), q))
    with pytest.raises(OpError, match="talking heads cannot keep the positions of rolled tiles apart"):
        make(talking_heads=True).check_masked()


def test_cosine_with_a_bounded_factor() -> None:
    module, (q, k, v), _ = run(make(cosine=True), THREE)
    assert make(cosine=True).build(THREE, None).logit_scale.exp().flatten().tolist() == pytest.approx([10] * HEADS)
    with torch.no_grad():
        module.logit_scale[0] = 7.0  # above log(100)
        y = module(q, k, v)
    factor = module.logit_scale.exp().clamp(max=100)
    assert factor[0] == 100
    unit = (each(t) / each(t).norm(dim=-1, keepdim=True) for t in (q, k))
    close(y, whole(softmax(*unit, each(v), factor), q))


def linear(q: Tensor, k: Tensor, v: Tensor, eps: float = 1e-5) -> Tensor:
    weights = torch.einsum("bnld,bnsd->bnls", q.relu(), k.relu())
    return torch.einsum("bnls,bnsd->bnld", weights, v) / (weights.sum(-1, keepdim=True) + eps)


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_linear_attention(eps: float) -> None:
    _, (x,), y = run(make(form="relu_linear", order="by_head", eps=eps), ONE)
    close(y, whole(linear(*each(x).chunk(3, -1), eps), x))


def test_linear_attention_sums_in_float32() -> None:
    """Half precision ends at 65504: sums over many positions would be infinite."""
    shapes = (Shape(16, 16, 12),)
    module, x = make(form="relu_linear").build(shapes, None), torch.full((1, *shapes[0]), 20.0)
    y = module(x.half())
    assert y.dtype == torch.half
    torch.testing.assert_close(y.float(), module(x), rtol=1e-3, atol=0)


# --- biases


def positions(shape: Shape, step: int = 1) -> list[tuple[int, int]]:
    return [(y * step, x * step) for y, x in itertools.product(range(shape.height), range(shape.width))]


def test_table() -> None:
    module, (q, k, v), y = run(make(bias="rel_pos_table"), ALIKE)
    table, (height, width, _) = module.rel_pos.table, ALIKE[0]
    assert table.shape == ((2 * height - 1) * (2 * width - 1), HEADS)
    at = positions(ALIKE[0])
    rows = [[(a - c + height - 1) * (2 * width - 1) + b - d + width - 1 for c, d in at] for a, b in at]
    bias = table[torch.tensor(rows)].permute(2, 0, 1)
    close(y, whole(softmax(each(q), each(k), each(v), bias=bias), q))


def test_symmetric_table_of_queries_at_every_second_key() -> None:
    module, (q, k, v), y = run(make(bias={"op": "rel_pos_table", "symmetric": True}), WIDE_VALUES)
    assert module.rel_pos.table.shape == (25, HEADS)
    rows = [
        [abs(a - c) * 5 + abs(b - d) for c, d in positions(WIDE_VALUES[1])] for a, b in positions(WIDE_VALUES[0], 2)
    ]
    bias = module.rel_pos.table[torch.tensor(rows)].permute(2, 0, 1)
    close(y, whole(softmax(each(q), each(k), each(v), bias=bias), q))


def test_network_of_positions() -> None:
    op = make(cosine=True, bias={"op": "rel_pos_mlp", "hidden": 7})
    module, (q, k, v), y = run(op, ALIKE)
    height, width, _ = ALIKE[0]

    def scaled(apart: int, size: int) -> float:
        return math.copysign(math.log2(abs(apart) * 8 / (size - 1) + 1) / 3, apart)

    at = positions(ALIKE[0])
    coords = torch.tensor([[[scaled(a - c, height), scaled(b - d, width)] for c, d in at] for a, b in at])
    first, _, last = module.rel_pos.cpb_mlp
    bias = 16 * torch.sigmoid((coords.double() @ first.weight.T + first.bias).relu() @ last.weight.T).permute(2, 0, 1)
    unit = (each(t) / each(t).norm(dim=-1, keepdim=True) for t in (q, k))
    expected = whole(softmax(*unit, each(v), module.logit_scale.clamp(max=math.log(100)).exp(), bias), q)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)  # its positions are kept in float32
    assert {"logit_scale", "rel_pos.cpb_mlp.0.weight", "rel_pos.cpb_mlp.2.weight"} <= module.state_dict().keys()
    rows = (2 * height - 1) * (2 * width - 1)
    assert op.once(ALIKE, None) == rows * (2 * 7 + 7 * HEADS)
    assert op.cost(ALIKE, None).macs - op.once(ALIKE, None) == make(cosine=True).cost(ALIKE, None).macs


def test_starts_as_papers_say() -> None:
    plain, symmetric = (
        make(bias={"op": "rel_pos_table", "symmetric": s}).build(ALIKE, None).rel_pos.table for s in (False, True)
    )
    assert 0 < plain.std() < 0.03
    assert not symmetric.any()


@pytest.mark.parametrize("bias", ["rel_pos_table", {"op": "rel_pos_table", "symmetric": True}])
def test_a_table_serves_smaller_maps(bias: Any) -> None:
    module, smaller = make(bias=bias).build(ALIKE, None), (Shape(3, 4, 16),) * 3
    whole_bias, part = module.rel_pos(), module.rel_pos((3, 4))
    kept = [y * 4 + x for y, x in positions(smaller[0])]
    assert torch.equal(part, whole_bias[:, :, kept][:, :, :, kept])
    assert module(*example_inputs("join", smaller, None)).shape[1:] == smaller[0]
    larger = example_inputs("join", (Shape(6, 4, 16),) * 3, None)
    with pytest.raises(OpError, match="was built for maps of 5x4 on 5x4, not 6x4 on 6x4"):
        module(*larger)


def test_a_network_of_positions_serves_any_map() -> None:
    op, other = make(bias="rel_pos_mlp"), (Shape(7, 3, 16),) * 3
    module, twin = op.build(ALIKE, None), op.build(other, None)
    twin.load_state_dict(module.state_dict())
    maps = example_inputs("join", other, None)
    assert torch.equal(module(*maps), twin(*maps))


# --- masks, and the mixer


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("additive", [False, True])
def test_shifted_windows_as_the_mixer_has_them(bias: bool, additive: bool) -> None:
    shape, side, shift = Shape(8, 12, 16), 4, 2
    mixer = Attention(num_heads=HEADS, window=side, shift=shift, rel_pos_bias=bias)
    torch.manual_seed(0)
    module: Any = randomise(mixer.build(shape))
    tile = (Shape(side, side, 48),)
    attend: Any = make(bias="rel_pos_table" if bias else None).build(tile, None)
    if bias:
        attend.rel_pos.load_state_dict(module.rel_pos.state_dict())
    seen = ~shift_mask(shape.height, shape.width, side, shift)[:, 0]
    mask = torch.zeros(seen.shape).masked_fill(~seen, -torch.inf) if additive else seen
    x = torch.randn(3, *shape)
    y = attend(module.qkv(cut_windows(x, side, shift)), mask=mask)
    y = module.proj(join_windows(y, side, shape.height, shape.width, shift))
    torch.testing.assert_close(y, module(x), rtol=1e-5, atol=1e-6)


def test_as_much_memory_as_the_mixer() -> None:
    shape = Shape(8, 12, 96)
    mixer, qkv = Attention(num_heads=HEADS), shape._replace(dim=3 * 96)
    assert make().workspace((qkv,), None) + qkv.elements == mixer.workspace(shape)
    side = 4
    shifted = Attention(num_heads=HEADS, window=side, shift=2, rel_pos_bias=True)
    tile, tiles = (Shape(side, side, 3 * 96),), 6
    op = make(bias="rel_pos_table")
    inside = op.workspace(tile, None) + tile[0].elements + op.mask_elements(tile, None)
    assert tiles * inside == shifted.workspace(shape)


def test_linear_attention_takes_no_mask() -> None:
    module = make(form="relu_linear").build(ONE, None)
    with pytest.raises(OpError, match="cannot keep positions apart"):
        module(*example_inputs("join", ONE, None), mask=torch.ones(1, 20, 20, dtype=torch.bool))


# --- laws and errors


@pytest.mark.parametrize(
    "shapes", [ONE, TWO, THREE, SHARED, WIDE_VALUES], ids=["one", "two", "three", "shared", "wide"]
)
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"cosine": True, "qk_norm": True},
        {"form": "relu_linear", "qk_norm": True},
        {"scale": 0.5},
        {"talking_heads": True},
    ],
    ids=str,
)
def test_laws(shapes: Shapes, params: dict[str, Any]) -> None:
    check_op(make(**params), shapes, None)


@pytest.mark.parametrize("shapes", [ONE, ALIKE, (Shape(3, 3, 96),)], ids=["one", "alike", "wide"])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("normalize", [None, False])
def test_laws_of_channels(shapes: Shapes, heads: int, normalize: bool | None) -> None:
    check_op(make(form="channels", num_heads=heads, normalize=normalize), shapes, None)


BIASES = ["rel_pos_table", {"op": "rel_pos_table", "symmetric": True}, {"op": "rel_pos_mlp", "hidden": 2}]
WIDE = ((Shape(5, 4, 192),), (Shape(5, 4, 64),) * 3, WIDE_VALUES)
"""Wide, with a small network: what is made once for all images would hide what each of them adds."""


@pytest.mark.parametrize("bias", BIASES, ids=str)
@pytest.mark.parametrize("shapes", WIDE, ids=["one", "alike", "wide"])
def test_laws_of_biases(shapes: Shapes, bias: Any) -> None:
    check_op(make(bias=bias), shapes, None)
    check_op(make(bias=bias, cosine=True), shapes, None)


@pytest.mark.parametrize(
    ("params", "shapes", "message"),
    [
        ({}, (Shape(5, 4, 50),), "50x5x4 does not hold queries, keys and values of one width"),
        ({}, (Shape(5, 4, 18),) * 3, "width of the queries 18 is not divisible by num_heads 4"),
        ({}, (*ALIKE[:2], Shape(5, 4, 18)), "width of the values 18 is not divisible by num_heads 4"),
        ({}, (*ALIKE, *ALIKE), "attend has 6 maps"),
        ({}, (Shape(5, 4, 16), Shape(5, 4, 8), Shape(5, 4, 8)), "keys of 8x5x4 do not fit queries of 16x5x4"),
        (
            {},
            (Shape(5, 4, 16), Shape(5, 4, 16), Shape(5, 2, 16)),
            "keys and values of 16x5x4 and 16x5x2 differ in size",
        ),
        ({}, ALIKE[:2], "16x5x4 and 16x5x4 leave no channels for values"),
        ({"head_dim": 5}, ALIKE, "4 heads of 5 are not the 16 channels of the queries"),
        ({"form": "channels"}, THREE, "channels of .* cannot attend to each other"),
        ({"bias": "rel_pos_table"}, THREE, "there are more queries than keys: of 16x6x4 and 16x3x2"),
    ],
)
def test_places_that_do_not_fit(params: dict[str, Any], shapes: Shapes, message: str) -> None:
    with pytest.raises(OpError, match=message):
        make(**params).check(shapes, None)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"form": "relu_linear", "cosine": True}, "relu_linear has no cosine"),
        ({"form": "relu_linear", "bias": "rel_pos_table"}, "relu_linear has no bias"),
        ({"form": "channels", "qk_norm": True}, "channels has no qk_norm"),
        ({"form": "channels", "talking_heads": True}, "channels has no talking_heads"),
        ({"form": "channels", "scale": 0.5}, "channels has no scale"),
        ({"normalize": False}, "softmax has no normalize"),
        ({"cosine": True, "scale": 0.5}, "cosine has no scale"),
        ({"bias": "rel_pos"}, "a bias is rel_pos_table, rel_pos_mlp, rel_pos_vectors, or none"),
        ({"bias": {"op": "rel_pos_mlp", "hidden": 0}}, "rel_pos_mlp: hidden: "),
        ({"bias": {"op": "rel_pos_table", "hidden": 4}}, "rel_pos_table: hidden: "),
        ({"bias": {"op": "rel_pos_vectors", "hidden": 4}}, "rel_pos_vectors: hidden: "),
    ],
)
def test_parameters_that_do_not_fit(params: dict[str, Any], message: str) -> None:
    with pytest.raises(OpError, match=message):
        make(**params)


def test_spellings_of_one_attention() -> None:
    plain = make().resolved(ALIKE, None)
    assert make(scale=0.5).resolved(ALIKE, None) == plain
    assert registry.make("attend", {"head_dim": 4}).resolved(ALIKE, None) == plain
    assert make(head_dim=4, eps=0.1, order="by_head").resolved(ALIKE, None) == plain
    assert make(head_dim=4).resolved(ONE, None) == make().resolved(ONE, None)
    own = make(head_dim=3).resolved((Shape(5, 4, 52),), None)
    assert own.head_dim == 3
    assert make(order="by_head").resolved(ONE, None) != make().resolved(ONE, None)


def test_no_weight_decay() -> None:
    module = make(cosine=True, bias="rel_pos_table").build(ALIKE, None)
    assert isinstance(module.rel_pos, RelativePositionBias)
    assert module.no_weight_decay() == {"logit_scale"}
