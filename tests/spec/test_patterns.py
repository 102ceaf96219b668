"""The pattern language of `layers`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockforge.spec.patterns import MAX_DEPTH, PatternError, expand, names


@pytest.mark.parametrize(
    ("pattern", "depth", "expected"),
    [
        ("sam", 1, "sam"),
        ("sam", 3, "sam sam sam"),
        (" sam ", 2, "sam sam"),
        ("sam*", 3, "sam sam sam"),
        ("sam*2 msa*6", 8, "sam sam msa msa msa msa msa msa"),
        ("sam msa", 2, "sam msa"),
        ("(sam msa)*", 4, "sam msa sam msa"),
        ("(sam msa)*", 5, "sam msa sam msa sam"),
        ("(sam msa)*2", 4, "sam msa sam msa"),
        ("mamba* msa*", 8, "mamba mamba mamba mamba msa msa msa msa"),
        ("mamba* msa*", 7, "mamba mamba mamba mamba msa msa msa"),
        ("mamba* msa*", 1, "mamba"),
        ("a* b* c*", 8, "a a a b b b c c"),
        ("(mamba*3 msa)*", 9, "mamba mamba mamba msa mamba mamba mamba msa mamba"),
        ("sam msa* sam", 5, "sam msa msa msa sam"),
        ("((a b)*2 c)*2", 10, "a b a b c a b a b c"),
        ("a*2(b c)*", 5, "a a b c b"),
        ("stage-1_x*", 1, "stage-1_x"),
    ],
)
def test_expands_as_documented(pattern: str, depth: int, expected: str) -> None:
    assert expand(pattern, depth) == tuple(expected.split())


@pytest.mark.parametrize(
    ("pattern", "depth", "message", "column"),
    [
        ("sam*2 msa*6", 7, "gives 8 layers, the depth is 7", 0),
        ("sam*1", 2, "gives 1 layers, the depth is 2", 0),
        ("(sam)", 2, "gives 1 layers, the depth is 2", 0),
        ("sam*3 msa* sam*2", 4, "needs at least 5 layers", 0),
        ("", 1, "the pattern is empty", 0),
        ("   ", 1, "the pattern is empty", 0),
        ("sam + msa", 2, r"'\+' has no place", 4),
        ("sam 2", 2, "'2' has no place", 4),
        ("sam,msa", 2, "',' has no place", 3),
        ("* sam", 2, "needs a name or a group before it", 0),
        ("sam**", 2, "needs a name or a group before it", 4),
        ("sam (msa", 2, "never closed", 4),
        ("sam msa)", 2, r"'\)' without '\('", 7),
        ("sam ()*", 2, "the group is empty", 4),
        ("(sam* msa)*", 4, "needs a number", 1),
        ("sam*0", 1, "'0' times", 4),
        ("sam*99999", 1, "'99999' times", 4),
        ("sam*" + "9" * 600, 1, "'so many' times", 4),
        ("(((a*100)*100)*100)*100", 1, f"at most {MAX_DEPTH} layers", 2),
        ("(" * 40 + "a" + ")" * 40, 1, "nest at most 16 deep", 16),
        ("a " * 600, 600, "at most 1000 characters", 0),
    ],
)
def test_says_what_is_wrong_and_where(pattern: str, depth: int, message: str, column: int) -> None:
    with pytest.raises(PatternError, match=message) as caught:
        expand(pattern, depth)
    assert caught.value.column == column


def test_names_come_with_their_columns() -> None:
    assert names("sam*2 (msa sam)*") == (("sam", 0), ("msa", 7), ("sam", 11))


NAMES = st.sampled_from(["a", "b", "long_name"])


@st.composite
def groups(draw: st.DrawFn, nesting: int = 2) -> tuple[str, list[str]]:
    """A pattern of certain length, and what it stands for."""
    text, layers = [], []
    for _ in range(draw(st.integers(1, 3))):
        if nesting and draw(st.booleans()):
            inner, block = draw(groups(nesting - 1))
            inner = f"({inner})"
        else:
            inner = draw(NAMES)
            block = [inner]
        times = draw(st.none() | st.integers(1, 3))
        text.append(inner if times is None else f"{inner}*{times}")
        layers += block * (times or 1)
    return " ".join(text), layers


@given(groups())
def test_a_fixed_pattern_is_what_it_says(case: tuple[str, list[str]]) -> None:
    text, layers = case
    if text in ("a", "b", "long_name"):  # a single name fills any depth
        assert expand(text, 5) == (text,) * 5
        return
    assert expand(text, len(layers)) == tuple(layers)
    with pytest.raises(PatternError, match="the depth is"):
        expand(text, len(layers) + 1)


@given(st.lists(groups(), min_size=1, max_size=4), st.integers(1, 60))
def test_starred_parts_share_what_there_is(parts: list[tuple[str, list[str]]], depth: int) -> None:
    """Shares differ by at most one, earlier ones take the remainder, and each repeats its part."""
    found = expand(" ".join(f"({text})*" for text, _ in parts), depth)
    assert len(found) == depth
    share, rest = divmod(depth, len(parts))
    start = 0
    for i, (_, layers) in enumerate(parts):
        count = share + (i < rest)
        assert list(found[start : start + count]) == (layers * (count + 1))[:count]
        start += count


@given(st.text(alphabet="ab()*0123 _-", max_size=30), st.integers(1, 30))
def test_any_text_is_a_pattern_or_a_pattern_error(text: str, depth: int) -> None:
    error = None
    try:
        found = expand(text, depth)
    except PatternError as e:
        error = e
    if error is not None:
        assert 0 <= error.column <= len(text)
    else:
        assert len(found) == depth
        assert {n for n, _ in names(text)} >= set(found)
