"""Budgets and short figures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockforge.errors import BudgetError
from blockforge.units import Budget, format_bytes, format_count, parse_budget

ADAMW = {"batch": 64, "optimizer": "adamw", "checkpointing": False}


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("5GFLOPs", {"macs": 5_000_000_000}),
        ("5GMACs", {"macs": 5_000_000_000}),
        ("5 gflops", {"macs": 5_000_000_000}),
        ("4.7GFLOPs", {"macs": 4_700_000_000}),
        (".5TMAC", {"macs": 500_000_000_000}),
        ("750000flops", {"macs": 750_000}),
        ("30Mparams", {"params": 30_000_000}),
        ("0.1K params", {"params": 100}),
        ("200MB", {"activation_bytes": 200_000_000}),
        ("200MiB", {"activation_bytes": 200 * 2**20}),
        ("1.5gib", {"activation_bytes": 3 * 2**29}),
        (
            "5GFLOPs,30Mparams, 200MB",
            {"macs": 5 * 10**9, "params": 30 * 10**6, "activation_bytes": 2 * 10**8},
        ),
    ],
)
def test_a_budget_is_read(text: str, limits: dict[str, int]) -> None:
    assert parse_budget(text).limits == limits


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("20ms@cpu", {"latency_ms": 20.0, "device": "cpu"}),
        ("latency=20ms@cpu", {"latency_ms": 20.0, "device": "cpu"}),
        ("1.5 s @ cuda:1", {"latency_ms": 1500.0, "device": "cuda:1"}),
        ("250us", {"latency_ms": 0.25, "device": "cpu"}),
        ("flops=5G macs,20ms@cuda", {"macs": 5 * 10**9, "latency_ms": 20.0, "device": "cuda"}),
        (["5GFLOPs", "params = 30Mparams"], {"macs": 5 * 10**9, "params": 30 * 10**6}),
        ("1GFLOPs@deploy", {"deployed_macs": 10**9}),
        ("2GFLOPs, 1GFLOPs @ Deploy", {"macs": 2 * 10**9, "deployed_macs": 10**9}),
        ("5Mparams@deploy,90MB@deploy", {"deployed_params": 5 * 10**6, "deployed_activation_bytes": 9 * 10**7}),
        ("20ms@cuda:1@deploy", {"deployed_latency_ms": 20.0, "deployed_device": "cuda:1"}),
        ("latency=20ms@deploy@cpu", {"deployed_latency_ms": 20.0, "deployed_device": "cpu"}),
        (
            "30ms,20ms@deploy",
            {"latency_ms": 30.0, "device": "cpu", "deployed_latency_ms": 20.0, "deployed_device": "cpu"},
        ),
        ("4GB:train", {"training_bytes": 4 * 10**9, **ADAMW}),
        ("train=4GB", {"training_bytes": 4 * 10**9, **ADAMW}),
        ("4 GiB : Train", {"training_bytes": 2**32, **ADAMW}),
        ("train=500MB:train, batch = 1", {"training_bytes": 5 * 10**8, **ADAMW, "batch": 1}),
        (["batch=32", "4GB:train"], {"training_bytes": 4 * 10**9, **ADAMW, "batch": 32}),
        ("4GB:train,optimizer=plain_sgd", {"training_bytes": 4 * 10**9, **ADAMW, "optimizer": "plain_sgd"}),
        ("4GB:train,checkpointing=false", {"training_bytes": 4 * 10**9, **ADAMW}),
        (
            "5GFLOPs,4GB:train,batch=96,SGD,checkpointing,200MB",
            {
                "macs": 5 * 10**9,
                "activation_bytes": 2 * 10**8,
                "training_bytes": 4 * 10**9,
                "batch": 96,
                "optimizer": "sgd",
                "checkpointing": True,
            },
        ),
    ],
)
def test_latencies_training_names_and_several_texts(text: str | list[str], known: dict[str, object]) -> None:
    budget = parse_budget(text)
    assert budget.as_dict() == known
    assert Budget(**known) == budget  # type: ignore[arg-type]


def test_a_budget_in_words() -> None:
    text = "5.00G MACs, 200 MB, 20 ms on cuda:0, 4.00 GB of training memory (1 image, SGD with momentum, checkpointing)"
    assert str(parse_budget("5GFLOPs,200MB,20ms@cuda:0,4GB:train,batch=1,sgd,checkpointing")) == text
    assert (
        str(parse_budget("5GFLOPs,1GFLOPs@deploy,9ms@deploy"))
        == "5.00G MACs, 1.00G MACs deployed, 9 ms on cpu deployed"
    )
    assert str(Budget(training_bytes=10**9)) == "1.00 GB of training memory (64 images, AdamW)"


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("5G", 2, "'5G' has no unit"),
        ("5", 1, "'5' has no unit"),
        ("GFLOPs", 1, "'GFLOPs' is not a number and a unit"),
        ("-3GFLOPs", 1, "'-3GFLOPs' is below 0"),
        ("nan", 1, "'nan' is not a number and a unit"),
        ("infGFLOPs", 1, "'infGFLOPs' is not a number and a unit"),
        ("5e9FLOPs", 1, "'5e9FLOPs' is not a number and a unit"),
        ("0GFLOPs", 1, "'0GFLOPs' leaves nothing"),
        ("5Gparms", 2, "the unit 'Gparms' is not known"),
        ("200B", 4, "the unit 'B' is not known"),
        ("5GFLOPs, 3GMACs", 10, "there is a limit on macs already"),
        ("5GFLOPs,,3Mparams", 9, "there is no limit here"),
        ("", 1, "there is no limit here"),
        ("5GFLOPs;3Mparams", 1, "'5GFLOPs;3Mparams' is not a number and a unit"),
        ("5\x1bGFLOPs", 1, "'5[?]GFLOPs' is not a number and a unit"),
        ("20ms@tpu", 6, "no device is named 'tpu'"),
        ("5GFLOPs@cpu", 9, "only a latency is one of a device"),
        ("params=5GFLOPs", 1, "'params' is not what GFLOPs measure"),
        ("time=5ms", 1, "limits are on flops, macs, params, memory, latency, train"),
        ("5ms@cpu,6ms@cuda", 9, "there is a limit on latency_ms already"),
        ("0ms", 1, "'0ms' leaves nothing"),
        ("1GFLOPs@deployed", 9, "'@deployed' is not known; there is @deploy"),
        ("1GFLOPs@deploy@deploy", 16, "@deploy is said already"),
        ("20ms@cpu@cuda", 10, "the device is said already"),
        ("20ms@deploi", 6, "no device is named 'deploi'; there are cpu, cuda and cuda:N, and of any @deploy"),
        ("1GFLOPs@cpu@deploy", 9, "only a latency is one of a device"),
        ("1GFLOPs@", 1, "'1GFLOPs@' is not a number and a unit"),
        ("4GB:train@deploy", 11, "training is of the form that is trained"),
        ("1GFLOPs@deploy,2GMACs@deploy", 16, "there is a limit on deployed_macs already"),
    ],
)
def test_what_cannot_be_read_is_pointed_at(text: str, column: int, message: str) -> None:
    with pytest.raises(BudgetError, match=rf"^budget:1:{column}: error\[budget\]: {message}") as e:
        parse_budget(text)
    assert "hint: 5GFLOPs or 5GMACs" in str(e.value)


@pytest.mark.parametrize(
    ("text", "column", "message", "hint"),
    [
        ("5GFLOPs:train", 8, "only memory is one of training", "5GFLOPs or"),
        ("20ms:train@cpu", 5, "only memory is one of training", "5GFLOPs or"),
        ("4GB:trian", 4, "':trian' is not known after a limit; there is :train", "5GFLOPs or"),
        ("4GB:train batch=64", 4, "':train batch=64' is not known after a limit; there is :train", "5GFLOPs or"),
        ("4GB:", 4, "':' is not known after a limit; there is :train", "5GFLOPs or"),
        ("4:train", 1, "'4:train' has no unit", "5GFLOPs or"),
        ("memory=4GB:train", 1, "'memory' is not what GB:train measure", "5GFLOPs or"),
        ("train=5GFLOPs", 1, "'train' is not what GFLOPs measure", "5GFLOPs or"),
        ("4GB:train@cuda", 11, "only a latency is one of a device", "5GFLOPs or"),
        ("4GB:train,2GB:train", 11, "there is a limit on training_bytes already", "5GFLOPs or"),
        ("4GB:train,batch=0", 17, "'0' is no number of images, 1 to 1000000", "5GFLOPs or"),
        ("4GB:train,batch=-4", 17, "'-4' is no number of images", "5GFLOPs or"),
        ("4GB:train,batch=", 11, "'' is no number of images", "5GFLOPs or"),
        ("4GB:train,batch=6.5", 17, "'6.5' is no number of images", "5GFLOPs or"),
        ("4GB:train,batch=1000001", 17, "'1000001' is no number of images", "5GFLOPs or"),
        ("4GB:train,batch=1,batch=2", 19, "the batch of training is given already", "5GFLOPs or"),
        ("4GB:train,sgd,adamw", 15, "the optimizer of training is given already", "5GFLOPs or"),
        ("4GB:train,adam", 11, "'adam' is neither a limit nor an option of training", "did you mean 'adamw'"),
        ("4GB:train,bathc=64", 11, "'bathc' is neither a limit nor an option of training", "did you mean 'batch'"),
        ("train=4GB, checkpoint", 12, "'checkpoint' is neither a limit nor", "did you mean 'checkpointing'"),
        ("4GB:train,optimizer=adam", 21, "'adam' is no optimizer of training", "did you mean 'adamw'"),
        ("4GB:train,checkpointing=on", 25, "'on' is no checkpointing of training", "known: false, true"),
        ("200MB,batch=64", 7, "'batch=64' is of training memory, on which there is no limit", "4GB:train,batch=64"),
        ("sgd", 1, "'sgd' is of training memory, on which there is no limit", "4GB:train,sgd"),
    ],
)
def test_what_is_wrong_with_a_limit_on_training_memory(text: str, column: int, message: str, hint: str) -> None:
    with pytest.raises(BudgetError, match=rf"^budget:1:{column}: error\[budget\]: {message}") as e:
        parse_budget(text)
    assert f"hint: {hint}" in str(e.value)


def test_other_budgets_say_nothing_of_training() -> None:
    assert Budget(macs=5).as_dict() == {"macs": 5}  # a study of an earlier version has the same identity


def test_a_long_text_is_refused() -> None:
    with pytest.raises(BudgetError, match="at most 200 characters"):
        parse_budget("5GFLOPs," * 1000)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert all(v > 0 for v in parse_budget(text).limits.values())
    except BudgetError as e:
        assert str(e).isascii() or text.isprintable()  # noqa: PT017


def test_a_budget_says_itself() -> None:
    assert str(Budget(macs=5_000_000_000, activation_bytes=200_000_000)) == "5.00G MACs, 200 MB"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (950, "950"),
        (999.6, "1.00K"),
        (9_996, "10.0K"),
        (4_838_833_152, "4.84G"),
        (32_037_352, "32.0M"),
        (999_499, "999K"),
        (999_500, "1.00M"),
        (-1_850_000, "-1.85M"),
        (10**18, "1000P"),
    ],
)
def test_counts_have_three_figures(value: float, shown: str) -> None:
    assert format_count(value) == shown


def test_bytes_have_their_unit() -> None:
    assert format_bytes(21_676_032) == "21.7 MB"
    assert format_bytes(12) == "12 B"


@given(st.integers(1000, 10**17))
def test_a_short_figure_is_right_within_half_a_percent(value: int) -> None:
    text = format_count(value)
    power = "KMGTP".index(text[-1]) + 1
    assert float(text[:-1]) * 1000**power == pytest.approx(value, rel=0.0051)


@pytest.mark.parametrize(
    "wrong", [{"macs": -1}, {"params": "many"}, {"latency_ms": float("nan")}, {"batch": True}, {"optimizer": "odd"}]
)
def test_a_limit_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(BudgetError, match=f"the budget's {next(iter(wrong))} is .*, and should be "):
        Budget(**wrong)  # type: ignore[arg-type]
