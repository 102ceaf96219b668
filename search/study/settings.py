"""The settings of a study: all that proposals, refusals and values depend on, and how they are kept in it.

They stand in the study's user attributes, so that a worker on another machine needs nothing but the storage and the
study's name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blockforge import __version__
from blockforge.compiler import Architecture
from blockforge.compiler.graph import canonical
from blockforge.errors import SearchError
from blockforge.kernels import costs
from blockforge.plugins import Source, needed, plugins, sources
from blockforge.saving import spec_text
from blockforge.search.objectives.measure import Direction, Measure, as_measure, as_read
from blockforge.search.objectives.registry import is_packaged
from blockforge.search.samplers.sampling import check_sampler
from blockforge.search.space.load import fingerprint
from blockforge.spec import Spec, from_text, load
from blockforge.units import Budget

IDENTITY, SETTINGS = "identity", "settings"
Objectives = Sequence[str | Callable[[Architecture], Any] | Measure]


@dataclass(frozen=True)
class Plan:
    """What a study is.

    Attributes:
        weights: of the objectives in a sum; none: with several objectives the study looks for a Pareto front.
        rungs: cheap stand-ins for the first objective, the cheapest first.
        eta: on each rung the best 1/eta go up.
        fit: the least share of the budget that candidates are widened or narrowed to; None: they stay as they are.
        trial_timeout: seconds that one evaluation may take; None: any.
        starts: candidates to begin with, the answers of each by its name.
        target: evaluated candidates that end the search.
    """

    space: Spec
    budget: Budget
    seed: int
    objectives: tuple[Measure, ...]
    weights: tuple[float, ...] = ()
    rungs: tuple[Measure, ...] = ()
    eta: int = 3
    fit: float | None = None
    sampler: str = "tpe"
    trial_timeout: float | None = None
    starts: Mapping[str, Mapping[str, Any]] | None = None
    target: int = 64

    def __post_init__(self) -> None:
        check_sampler(self.sampler)
        names = [m.name for m in self.objectives]
        if len(set(names)) < len(names):
            raise SearchError(f"objectives need names of their own, there are {', '.join(names)}")
        if self.weights and len(self.weights) != len(self.objectives):
            raise SearchError(f"{len(self.objectives)} objectives need as many weights, there are {len(self.weights)}")
        if self.eta < 2:
            raise SearchError("with rungs at most every second candidate goes up\n  hint: --eta 2 or more")
        for rung in self.rungs:
            if rung.direction != (first := self.objectives[0]).direction:
                text = f"the rung {rung.text} is to {rung.direction}, what it stands for ({first.text}) is not"
                raise SearchError(f"{text}\n  hint: all rungs of a search have one direction")

    @property
    def levels(self) -> list[tuple[Measure, ...]]:
        """What is measured on each rung, the lowest first."""
        return [*((rung, *self.objectives[1:]) for rung in self.rungs), self.objectives]

    @property
    def directions(self) -> list[Direction]:
        """One for each value that the study ranks by."""
        return ["maximize"] if self.weights else [m.direction for m in self.objectives]

    @property
    def signs(self) -> tuple[float, ...]:
        """1 for each value that is better when larger, -1 for the others."""
        return tuple(1.0 if d == "maximize" else -1.0 for d in self.directions)

    @property
    def value_names(self) -> list[str]:
        """What each value is called."""
        return ["score"] if len(self.directions) == 1 else [m.name for m in self.objectives]

    @property
    def about(self) -> str:
        """What the study ranks by, for a heading."""
        if self.weights:
            return " + ".join(f"{w:g} * {m.about}" for w, m in zip(self.weights, self.objectives, strict=True))
        return ", ".join(m.about for m in self.objectives)

    def values(self, measured: Sequence[float]) -> list[float]:
        """What the study ranks by, from what the objectives gave."""
        if not self.weights:
            return list(measured)
        signs = (m.sign for m in self.objectives)
        return [sum(w * s * v for w, s, v in zip(self.weights, signs, measured, strict=True))]

    @property
    def objective(self) -> str:
        """The objectives as text."""
        texts = [m.text for m in self.objectives]
        if self.weights:
            texts = [f"{w:g} * {t}" for w, t in zip(self.weights, texts, strict=True)]
        return (" + " if self.weights else ", ").join(texts)

    def identity(self) -> dict[str, Any]:
        """What must be equal for a study to go on."""
        found = {
            "blockforge": f"{__version__}, graph {canonical.VERSION}",
            "space": f"{self.space.name} ({fingerprint(self.space)})",
            "budget": self.budget.as_dict(),
            "memory": f"of the {costs.DEFAULT} backend",
            "seed": self.seed,
            "objective": self.objective,
        }
        if self.rungs:
            found["rungs"] = ", ".join(m.text for m in self.rungs) + f", eta {self.eta}"
        return found | ({"fit": self.fit} if self.fit is not None else {})

    def settings(self) -> dict[str, Any]:
        """Everything, as JSON."""
        return {
            "space": spec_text(self.space),
            "budget": self.budget.as_dict(),
            "seed": self.seed,
            "objectives": [m.text for m in self.objectives],
            "measures": [m.said() for m in (*self.objectives, *self.rungs)],
            "weights": list(self.weights),
            "rungs": [m.text for m in self.rungs],
            "eta": self.eta,
            "fit": self.fit,
            "sampler": self.sampler,
            "trial_timeout": self.trial_timeout,
            "starts": {name: dict(answers) for name, answers in (self.starts or {}).items()},
            "target": self.target,
            "plugins": [s.where() for s in needed(self.space.tree)],
        }


def read_plan(attrs: Mapping[str, Any], evaluating: bool = True) -> Plan:
    """The plan in a study's attributes.

    Args:
        evaluating: make the objectives; else they can be named and no more.
    Raises: SearchError if it is no study of ours, or one of another version.
    """
    if SETTINGS not in attrs or IDENTITY not in attrs:
        raise SearchError(
            "this study was not made by blockforge search\n  hint: start one with blockforge search --out DIR"
        )
    known, own = attrs[IDENTITY]["blockforge"], f"{__version__}, graph {canonical.VERSION}"
    if evaluating and known != own:
        raise SearchError(f"the study was made by blockforge {known}, this is {own}\n  hint: install the same version")
    settings = dict(attrs[SETTINGS])
    wanted = settings.pop("plugins", [])
    have = {s.where() for s in sources()}
    if evaluating and (missing := [Source.at(where) for where in wanted if where not in have]):
        names = ", ".join(s.name for s in missing)
        raise SearchError(f"the study uses blocks of {names}\n  hint: {'; '.join(s.how() for s in missing)}")
    seed = settings["seed"]
    settings["space"] = load(from_text(settings["space"], "space.yaml"))
    settings["budget"] = Budget(**settings["budget"])
    described = {said["text"]: said for said in settings.pop("measures", [])}
    for key in ("objectives", "rungs"):
        settings[key] = tuple(_measure(text, seed, evaluating, described) for text in settings[key])
    settings["weights"] = tuple(settings["weights"])
    return Plan(**settings)


def announce(plan: Plan) -> None:
    """Name the user's code that is run, and where it lies, on standard error: a line each."""
    for measure in (*plan.objectives, *plan.rungs):
        if measure.source is not None:
            print(f"objective {measure.text}: runs {measure.source}", file=sys.stderr, flush=True)
    for file in plugins():
        print(f"plugin: runs {file}", file=sys.stderr, flush=True)


def _measure(text: str, seed: int, evaluating: bool, known: Mapping[str, Any]) -> Measure:
    """An objective of a study. Only what evaluates imports a user's code."""
    if evaluating:
        return as_measure(text, seed)
    if text in known:
        return as_read(known[text])
    if is_packaged(text):
        return as_measure(text, seed)
    name = text.partition(":")[2].partition(":")[0] or text.partition("(")[0]
    return as_read({"text": text, "name": name.lower(), "direction": "maximize", "cost": 0.0, "about": text})
