"""A study, resolved: its settings, and what they name, at hand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blockforge import __version__
from blockforge.compiler.graph import canonical
from blockforge.errors import BlockforgeError, SearchError, SpecError
from blockforge.kernels import costs
from blockforge.plugins import plugins
from blockforge.search.budget import as_budget
from blockforge.search.objectives.measure import Direction, Measure, as_measure, as_rung
from blockforge.search.registry import user_code
from blockforge.search.registry.describe import describe
from blockforge.search.samplers.registry import check_pruner, check_sampler
from blockforge.search.screen.predictor import check_installed
from blockforge.search.space.load import fingerprint, load_space
from blockforge.search.space.starts import check_starts, find_starts
from blockforge.search.study.config import SearchConfig, setting
from blockforge.search.study.defaults import settled
from blockforge.spec import Hole, Spec, holes
from blockforge.units import Budget, parse_duration

if TYPE_CHECKING:
    from blockforge.search.study.records import TrialRecord
    from blockforge.train import Recipe
    from blockforge.train.recipe_space import RecipeSpace

VERSION = f"{__version__}, graph {canonical.VERSION}"


@dataclass(frozen=True)
class Plan:
    """What a study is.

    Attributes:
        config: its settings; the space, the budget and the starts stand in them as they were found.
        space, budget, objectives, rungs: what the settings name.
        recipe: what trains, where it is written out in the settings, holes and all; None: a recipe by its name.
    """

    config: SearchConfig
    space: Spec
    budget: Budget
    objectives: tuple[Measure, ...]
    rungs: tuple[Measure, ...] = ()
    recipe: RecipeSpace | None = None

    def __post_init__(self) -> None:
        names = [m.name for m in self.objectives]
        if len(set(names)) < len(names):
            raise SearchError(f"objectives need names of their own, there are {', '.join(names)}").about(
                "goal", "objectives"
            )
        if self.weights and len(self.weights) != len(self.objectives):
            text = f"{len(self.objectives)} objectives need as many weights, there are {len(self.weights)}"
            raise SearchError(text).about("goal", "weights")
        if self.eta < 2:
            text = "with rungs at most every second candidate goes up\n  hint: --eta 2 or more"
            raise SearchError(text).about("goal", "eta")
        steps = [rung.until for rung in self.rungs if rung.until is not None]
        if steps != sorted(set(steps)):
            text = f"rungs go up, steps {', '.join(map(str, steps))} do not\n  hint: the lowest step first"
            raise SearchError(text).about("goal", "rungs")
        for i, rung in enumerate(self.rungs):
            if rung.direction != (first := self.objectives[0]).direction:
                text = f"the rung {rung.text} is to {rung.direction}, what it stands for ({first.text}) is not"
                raise SearchError(f"{text}\n  hint: all rungs of a search have one direction").about("goal", "rungs", i)
        if self.fit is not None and not self.budget.limits:
            raise SearchError("--fit needs a budget to fit to\n  hint: --budget 5GFLOPs").about("budget", "fit")

    def check_proposals(self) -> None:
        """Raise SearchError where the sampler or the pruner cannot be had, or the pruner has nothing to go by."""
        with setting("proposals", "sampler"):
            check_sampler(self.config.proposals.sampler)
        with setting("proposals", "pruner"):
            check_pruner(self.config.proposals.pruner)
        if self.screen is not None:
            with setting("proposals", "screen"):
                check_installed()
        if self.pruner is None:
            return
        if not any(m.reports for m in (*self.objectives, *self.rungs)):
            text = f"the pruner has nothing to go by: {self.objective} tells no values on its way"
            hint = "def score(arch, trial), which calls trial.report(step, value)"
            raise SearchError(f"{text}\n  hint: {hint}").about("proposals", "pruner")

    def check_recipe(self) -> None:
        """Raise SearchError where the recipe has holes that no objective sees, or another one is named."""
        if self.recipe is None:
            return
        seeing = [m for m in (*self.objectives, *self.rungs) if m.sees_trial]
        for measure in seeing:
            if getattr(measure.call, "recipe", None) is not None:
                text = f"{measure.text} names a recipe, and --recipe is another one that candidates choose in"
                raise SearchError(f"{text}\n  hint: leave out one of them")
        if self.recipe.holes and not seeing:
            text = f"the recipe has holes, and no objective trains by it ({self.objective})"
            hint = "--data, as in --data fashion; or def score(arch, trial), which trains by trial.recipe"
            raise SearchError(f"{text}\n  hint: {hint}")
        for hole in self.recipe.holes.values():
            fixed = [m for m in seeing if hole.path[1] in getattr(m.call, "fixed", ())]
            if len(fixed) == len(seeing):
                text = f"{fixed[0].text} does not go by the recipe's {hole.path[1]}, so its hole changes no score"
                raise SearchError(f"{text}\n  hint: write a value there, or --objective train:data=...")

    @property
    def code(self) -> list[str]:
        """Files of the user's code, by the names that the settings have for them."""
        texts = [*(m.text for m in (*self.objectives, *self.rungs)), self.sampler, self.pruner or ""]
        refs = (user_code.reference(text) for text in texts)
        return list(dict.fromkeys(ref.module for ref in refs if ref is not None and ref.module.endswith(".py")))

    @property
    def holes(self) -> dict[str, Hole]:
        """All that a candidate is asked for: the holes of the space, then those of the recipe."""
        return {**holes(self.space), **self.recipe_holes}

    @property
    def recipe_holes(self) -> dict[str, Hole]:
        """Those of the recipe, by names that begin with `recipe.`."""
        return self.recipe.holes if self.recipe is not None else {}

    def recipe_of(self, trial: TrialRecord) -> Recipe | None:
        """What a trial's candidate is trained by, where candidates have recipes of their own."""
        if self.recipe is None or trial.hash is None:
            return None
        return self.recipe.filled(trial.holes)

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the objectives in a sum; none: with several objectives the study looks for a Pareto front."""
        return tuple(float(weight) for weight in self.config.goal.weights)

    @property
    def untrained(self) -> bool:
        """Whether a size alone ranks, as where nothing else was asked for."""
        return [m.text for m in self.objectives] == ["capacity"] and not self.rungs

    @property
    def data(self) -> str | None:
        """What the best are trained again on; None: nothing."""
        return self.config.goal.data if self.config.confirm.top is not None else None

    @property
    def eta(self) -> int:
        """On each rung the best 1/eta go up."""
        return self.config.goal.eta

    @property
    def fit(self) -> float | None:
        """The least share of the budget that candidates are widened or narrowed to; None: they stay as they are."""
        return self.config.budget.fit

    @property
    def seed(self) -> int:
        """Of proposals and scores."""
        return self.config.proposals.seed

    @property
    def sampler(self) -> str:
        """The text of what proposes candidates."""
        return str(describe(self.config.proposals.sampler))

    @property
    def pruner(self) -> str | None:
        """The text of what cuts evaluations short; None: nothing."""
        return describe(self.config.proposals.pruner)

    @property
    def screen(self) -> int | None:
        """Proposals of which a predictor chooses the one that is evaluated; None: there is one, and it is."""
        return self.config.proposals.screen

    @property
    def target(self) -> int:
        """Evaluated candidates that end the search."""
        return self.config.goal.trials

    @property
    def trial_timeout(self) -> float | None:
        """Seconds that one evaluation may take; None: any."""
        timeout = self.config.goal.trial_timeout
        return None if timeout is None else parse_duration(timeout)

    @property
    def time(self) -> float | None:
        """Seconds of a run after which no candidate is begun; None: any."""
        return None if self.config.goal.time is None else parse_duration(self.config.goal.time)

    @property
    def starts(self) -> Mapping[str, Mapping[str, Any]]:
        """Candidates to begin with, the answers of each by its name."""
        return dict(self.config.space.start)

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
    def metric_names(self) -> list[str]:
        """The same in Optuna's own tools, where a single value has the name of its objective."""
        return ["score"] if self.weights else [m.name for m in self.objectives]

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
        identity: dict[str, Any] = {
            "blockforge": VERSION,
            "space": f"{self.space.name} ({fingerprint(self.space)})",
            "budget": self.budget.as_dict(),
            "memory": f"of the {costs.DEFAULT} backend",
            "seed": self.seed,
            "objective": self.objective,
            "sampler": self.sampler,
        }
        if self.rungs:
            identity["rungs"] = ", ".join(m.text for m in self.rungs) + f", eta {self.eta}"
        if self.pruner is not None:
            identity["pruner"] = self.pruner
        if self.screen is not None:
            identity["screen"] = self.screen
        if self.recipe is not None:
            identity["recipe"] = self.recipe.tree
        return identity | ({"fit": self.fit} if self.fit is not None else {})


def resolve(config: SearchConfig, earlier: Mapping[str, Mapping[str, Any]] | None = None) -> Plan:
    """What settings name, found: the space, the budget, the objectives, the candidates to begin with.

    Args:
        earlier: candidates that the study was told to begin with before.
    Raises: SearchError, SpecError, BudgetError.
    """
    space = _space(config)
    with setting("budget", "limits"):
        budget = as_budget(config.budget.limits)
    with setting("confirm", "recipe"):
        config, recipe = with_recipe(config)
    config, seed = settled(config, space, budget), config.proposals.seed
    begin = config.space.start
    with setting("space", "start"):
        starts = {**(earlier or {}), **(begin if isinstance(begin, dict) else find_starts(space, begin))}
    goal = tuple(_named(i, "objectives", as_measure, o, seed) for i, o in enumerate(config.goal.objectives))
    rungs = tuple(_named(i, "rungs", as_rung, rung, goal[0], seed) for i, rung in enumerate(config.goal.rungs))
    plan = Plan(with_values(config, space, budget, starts), space, budget, goal, rungs, recipe)
    plan.check_proposals()
    with setting("confirm", "recipe"):
        plan.check_recipe()
    with setting("space", "start"):
        check_starts(begin if isinstance(begin, dict) else {}, plan.holes)
    return plan


def _space(config: SearchConfig) -> Spec:
    """The space, with the values of it that settings replace."""
    overrides = config.space.overrides or None
    try:
        return load_space(config.space.source, overrides)
    except BlockforgeError as e:
        places = [d.loc for d in e.diagnostics] if isinstance(e, SpecError) else []
        of_overrides = any(loc is not None and loc.source.name in ("override", "--set") for loc in places)
        e.about("space", "overrides" if of_overrides else "source")
        raise


def _named(index: int, key: str, make: Callable[..., Measure], *arguments: Any) -> Measure:
    with setting("goal", key, index):
        return make(*arguments)


def with_recipe(config: SearchConfig) -> tuple[SearchConfig, RecipeSpace | None]:
    """Settings with a recipe that has holes written out in them, so that no worker needs its file; and that recipe.

    Raises: SpecError.
    """
    if (source := config.confirm.recipe) is None:
        return config, None
    from blockforge.train.recipe_space import recipe_space

    recipe = recipe_space(source)
    if isinstance(source, str) and not recipe.holes:
        return config, None
    return config.model_copy(update={"confirm": config.confirm.model_copy(update={"recipe": recipe.tree})}), recipe


def with_values(config: SearchConfig, space: Spec, budget: Budget, starts: Mapping[str, Any]) -> SearchConfig:
    """Settings with what was found in the place of names, so that they say the same everywhere and later."""
    return config.model_copy(
        update={
            "space": config.space.model_copy(update={"source": space, "overrides": {}, "start": dict(starts)}),
            "budget": config.budget.model_copy(update={"limits": budget}),
        }
    )


def announce(plan: Plan) -> None:
    """Name the user's code that is run, and where it lies, on standard error: a line each."""
    for measure in (*plan.objectives, *plan.rungs):
        if measure.source is not None:
            print(f"objective {measure.text}: runs {measure.source}", file=sys.stderr, flush=True)
    for file in plugins():
        print(f"plugin: runs {file}", file=sys.stderr, flush=True)
