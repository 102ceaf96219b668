"""What the tests of the language share: every YAML test runs with both of PyYAML's parsers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml

from blockforge.spec.yaml import events as yaml_events

PARSERS = [yaml_events.PythonParser] + ([yaml.CBaseLoader] if yaml.__with_libyaml__ else [])


@pytest.fixture(params=PARSERS, ids=lambda p: p.__name__)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """Both of PyYAML's parsers in turn."""
    monkeypatch.setattr(yaml_events, "Parser", request.param)
    return request.param
