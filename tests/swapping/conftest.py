"""The small network, compiled, and what may stand in its slots."""

from __future__ import annotations

import pytest
from small_parent import NET

import blockforge as bf
from blockforge.swapping.alternatives import alternatives_of
from blockforge.swapping.edits import written_out
from blockforge.swapping.slots import Alternative


@pytest.fixture(scope="module")
def network() -> bf.Architecture:
    return bf.compile(written_out(NET))


@pytest.fixture(scope="module")
def alternatives(network: bf.Architecture) -> list[Alternative]:
    return list(alternatives_of(network, network.source))
