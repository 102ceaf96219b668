"""What a study keeps of itself in Optuna's user attributes, so that a worker on another machine needs nothing but the
storage and the study's name.

`identity`: what must be equal for it to go on. It is written last: a study that has one is whole.
`config`: its settings, see `config`. Studies of version 0.1 have `settings` instead, flat.
`about`: what its objectives are and which plugins its blocks and its own code are of, so that reading it needs no code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from blockforge.errors import SearchError
from blockforge.provenance import Source, needed, sources
from blockforge.search.budget import as_budget
from blockforge.search.objectives import registry as objectives
from blockforge.search.objectives.measure import Measure, as_measure, as_read
from blockforge.search.objectives.registry import is_packaged
from blockforge.search.samplers import registry as samplers
from blockforge.search.study.config import SearchConfig
from blockforge.search.study.plan import VERSION, Plan, resolve, with_recipe, with_values
from blockforge.spec import from_text, load

IDENTITY, CONFIG, ABOUT = "identity", "config", "about"
_SETTINGS = "settings"
_FLAT = {
    "space": ("space", "source"), "starts": ("space", "start"), "budget": ("budget", "limits"),
    "fit": ("budget", "fit"), "objectives": ("goal", "objectives"), "weights": ("goal", "weights"),
    "rungs": ("goal", "rungs"), "eta": ("goal", "eta"), "target": ("goal", "trials"),
    "trial_timeout": ("goal", "trial_timeout"), "sampler": ("proposals", "sampler"), "seed": ("proposals", "seed"),
}  # fmt: skip
"""Where each setting of version 0.1 stands now."""


def attributes(plan: Plan) -> dict[str, Any]:
    """What a study of this plan keeps, `identity` last."""
    about = {
        "objectives": [m.said() for m in (*plan.objectives, *plan.rungs)],
        "plugins": [source.where() for source in needed(plan.space.tree)],
        "code_of": sorted({source.where() for source in _sources_of_code(plan)}),
    }
    return {CONFIG: plan.config.kept(), ABOUT: about, IDENTITY: plan.identity()}


def _sources_of_code(plan: Plan) -> Iterator[Source]:
    """The plugins that objectives and the sampler come from."""
    texts = [measure.text for measure in (*plan.objectives, *plan.rungs)]
    yield from (source for text in texts if (source := objectives.source_of(text)) is not None)
    if (source := samplers.source_of(plan.config.proposals.sampler)) is not None:
        yield source


def read_identity(attrs: Mapping[str, Any]) -> dict[str, Any] | None:
    """What must be equal for a study to go on; None where it has none yet. Version 0.1 did not count the sampler."""
    if (identity := attrs.get(IDENTITY)) is None:
        return None
    flat = attrs.get(_SETTINGS, {})
    return {**({"sampler": flat["sampler"]} if "sampler" in flat else {}), **identity}


def stored_config(attrs: Mapping[str, Any]) -> SearchConfig:
    """The settings of a study. Raises: SearchError if it is no study of ours."""
    if IDENTITY not in attrs or (CONFIG not in attrs and _SETTINGS not in attrs):
        hint = "start one with blockforge search --out DIR"
        raise SearchError(f"this study was not made by blockforge search\n  hint: {hint}")
    try:
        return SearchConfig.model_validate(attrs[CONFIG] if CONFIG in attrs else _nested(attrs[_SETTINGS]))
    except ValidationError as e:
        raise SearchError(f"the settings of this study cannot be read: {e.errors()[0]['msg']}") from None


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of version 0.1."""
    nested: dict[str, dict[str, Any]] = {}
    for key, (part, name) in _FLAT.items():
        if flat.get(key) is not None:
            nested.setdefault(part, {})[name] = flat[key]
    nested["space"]["source"] = from_text(flat["space"], "space.yaml")
    return nested


def read_plan(attrs: Mapping[str, Any], evaluating: bool = True) -> Plan:
    """The plan in a study's attributes.

    Args:
        evaluating: make the objectives; else they can be named and no more.
    Raises: SearchError if it is no study of ours, or one of another version.
    """
    config = stored_config(attrs)
    if evaluating:
        _check_version(attrs)
        check_plugins(attrs)
        return resolve(config)
    goal, space, budget = config.goal, load(config.space.source), as_budget(config.budget.limits)
    told = attrs.get(ABOUT, {}).get("objectives") or attrs.get(_SETTINGS, {}).get("measures", [])
    known = {said["text"]: said for said in told}
    named, rungs = (tuple(_named(text, config, known) for text in group) for group in (goal.objectives, goal.rungs))
    config, recipe = with_recipe(config) if isinstance(config.confirm.recipe, dict) else (config, None)
    return Plan(with_values(config, space, budget, config.space.start), space, budget, named, rungs, recipe)


def _check_version(attrs: Mapping[str, Any]) -> None:
    known = attrs[IDENTITY]["blockforge"]
    if known != VERSION:
        text = f"the study was made by blockforge {known}, this is {VERSION}"
        raise SearchError(f"{text}\n  hint: install the same version")


def check_plugins(attrs: Mapping[str, Any]) -> None:
    """Raise SearchError where the study's blocks, objectives or sampler are of plugins that are not there."""
    have = {source.where() for source in sources()}
    about = attrs.get(ABOUT, attrs.get(_SETTINGS, {}))
    for key, what in (("plugins", "blocks"), ("code_of", "objectives or the sampler")):
        if missing := [Source.at(where) for where in about.get(key, []) if where not in have]:
            names = ", ".join(source.name for source in missing)
            raise SearchError(f"the study uses {what} of {names}\n  hint: {'; '.join(s.how() for s in missing)}")


def _named(text: str, config: SearchConfig, known: Mapping[str, Any]) -> Measure:
    """An objective of a study, of which nothing is imported."""
    if text in known:
        return as_read(known[text])
    if is_packaged(text):
        return as_measure(text, config.proposals.seed)
    name = text.partition(":")[2].partition(":")[0] or text.partition("(")[0]
    return as_read({"text": text, "name": name.lower(), "direction": "maximize", "cost": 0.0, "about": text})
