"""The settings of a search: one nested, frozen model. The command line fills it, `--config FILE` reads it, the study
keeps it, and everything inside passes it on.

What was not given is not set (`model_fields_set`), so that settings can be laid over one another: those given now
over those of a file, over those of the study that goes on, over the defaults. Objectives, samplers, pruners and spaces
may be handed over as objects; what is kept of them is the text that names them, and of a space its whole tree.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import NoneType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError

from blockforge.errors import BlockforgeError, Locs, Path, Report
from blockforge.search.registry.describe import describe
from blockforge.search.space.load import DEFAULT_SPACE
from blockforge.spec import Spec
from blockforge.spec.fields import OrNone
from blockforge.spec.schema_errors import shown, validated
from blockforge.spec.slots import Model
from blockforge.units import Budget

MAX_IDLE = 500
LEASE = 60.0
"""Seconds without a sign of life after which a worker counts as dead."""
Launcher = Literal["local", "ray"]
_SPACES = (str, os.PathLike, dict, Spec)


def _is(law: str, *types: type) -> AfterValidator:
    """A value of one of some types; a union of pydantic's would tell of each of them by itself."""

    def check(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, types):
            raise PydanticCustomError("kind", "this should be {law}, not {value}", {"law": law, "value": shown(value)})
        return value

    return AfterValidator(check)


def _is_name(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | list | dict):
        raise PydanticCustomError("name", "this should be a name, as text, not {value}", {"value": shown(value)})
    return value


def _of_mappings(value: Any) -> Any:
    for name, values in value.items() if isinstance(value, dict) else ():
        if not isinstance(values, dict):
            told = {"name": str(name), "value": shown(values)}
            raise PydanticCustomError("start", "the values of the holes of '{name}' are a mapping, not {value}", told)
    return value


def _kept_space(value: Any) -> Any:
    return value.tree if isinstance(value, Spec) else dict(value) if isinstance(value, Mapping) else str(value)


def _kept_budget(value: Any) -> Any:
    return value.as_dict() if isinstance(value, Budget) else value


def _kept_start(value: Any) -> Any:
    return value if isinstance(value, dict) else [_kept_space(source) for source in value]


Named = Annotated[Any, AfterValidator(_is_name), PlainSerializer(describe)]
"""A text that names something, or the thing itself."""


class SpaceConfig(Model):
    """What is searched. In short: the source alone."""

    source: Annotated[Any, _is("a name, a file or a spec", *_SPACES), PlainSerializer(_kept_space)] = DEFAULT_SPACE
    """A packaged space by its name, a file, or a spec with holes written out."""
    overrides: Annotated[Any, _is("a mapping of paths to values", dict, list)] = Field(default_factory=dict)
    """Values of it to replace by path, as in stages.2.depth: 12."""
    start: Annotated[
        Any, _is("a list of specs", list, dict), AfterValidator(_of_mappings), PlainSerializer(_kept_start)
    ] = Field(default_factory=list)
    """Specs in it to begin with; or, by a name for each, the values of their holes."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value


class BudgetConfig(Model):
    """What a candidate may cost. In short: the limits alone."""

    limits: Annotated[Any, _is("text, as in 5GFLOPs", str, list, dict, Budget), PlainSerializer(_kept_budget)] = ""
    """Upper limits, as in 5GFLOPs,30Mparams."""
    fit: Annotated[Annotated[float, Field(gt=0, le=1)] | None, OrNone] = None
    """The least share of the budget that the widths of each candidate are scaled to; none: they stay as they are."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"limits": value} if isinstance(value, str) else value


class GoalConfig(Model):
    """What is wanted of candidates, and of how many."""

    objectives: list[Named] = Field(default_factory=lambda: ["capacity"], min_length=1)
    """What candidates are ranked by: names, module:function, file.py:function, each with options. Where none is given:
    training, if there are data, else capacity; and candidates are then scaled to the budget."""
    data: Annotated[str | None, OrNone] = None
    """Images to rank and to confirm by, as for blockforge train; none: nothing is trained."""
    fidelity: Annotated[str | None, OrNone] = None
    """A file of blockforge bench fidelity, which says how long to train on each rung; none: 160 and 320 steps."""
    cheaper: Annotated[str | None, OrNone] = None
    """A cost to be kept small beside the accuracy: what is wanted is the cheapest network that is not worse than the
    first start by more than confirm.margin; none: the best network is."""
    weights: list[float] = Field(default_factory=list)
    """Of the objectives in a sum that is maximised; none of them: a Pareto front."""
    rungs: list[Named] = Field(default_factory=list)
    """Cheap stand-ins for the first objective, the cheapest first."""
    checkpoints: Annotated[str | None, OrNone] = None
    """A URL of shared storage that keeps trainings as well, as in s3://bucket/runs; none: the folder alone does."""
    eta: int = 3
    """The best 1/eta of a rung go up."""
    trials: int = 64
    """Distinct candidates within the budget to evaluate, in total."""
    time: Annotated[Any, _is("a time, as in 8h", int, float, str, NoneType), OrNone] = None
    """What ends the search beside trials: after this time of a run no candidate is begun; none: nothing."""
    gpu_hours: Annotated[Annotated[float, Field(gt=0)] | None, OrNone] = None
    """The same for hours of evaluation, of all runs and workers, times the GPUs that each worker sees (or 1)."""
    trial_timeout: Annotated[Any, _is("a time, as in 5min", int, float, str, NoneType), OrNone] = None
    """What one evaluation may take, in seconds or as 90s, 5min, 2h; none: any time."""


class ConfirmConfig(Model):
    """How the best are trained again where there are data. In short: how many."""

    top: Annotated[Annotated[int, Field(ge=1, le=100)] | None, OrNone] = 5
    """How many of the best; none: no candidate is trained again."""
    seeds: Annotated[int, Field(ge=3, le=100)] = 5
    """Trainings of each network, with seeds that no score has seen."""
    recipe: Annotated[Any, _is("a name, a file or a recipe", str, dict, NoneType), OrNone] = None
    """A packaged recipe, a file, or a recipe written out, for the trainings that rank as well; none: micro. Its holes
    are searched beside those of the space."""
    epochs: Annotated[Annotated[int, Field(ge=1)] | None, OrNone] = None
    """In place of the recipe's."""
    margin: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3
    """Points that the winner may have less than the start, where goal.cheaper is wanted."""
    control: bool = False
    """Whether as many random candidates are evaluated as the search has, and the best of them is a baseline."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        short = value == "none" or (isinstance(value, int) and not isinstance(value, bool))
        return {"top": value} if short else value


class ProposalConfig(Model):
    """Who proposes candidates. In short: the sampler alone."""

    sampler: Named = "tpe"
    """tpe, random, nsga2, evolution, brute; or module:factory, file.py:factory."""
    pruner: Annotated[Named, OrNone] = None
    """module:factory or file.py:factory of a pruner of Optuna's; none: every evaluation runs to its end."""
    screen: Annotated[Annotated[int, Field(ge=2)] | None, OrNone] = None
    """Of so many proposals the one that a learned predictor likes best is evaluated; none: every one is."""
    seed: int = Field(default=0, ge=0)
    """Of proposals and scores."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"sampler": value} if isinstance(value, str) else value


class WorkersConfig(Model):
    """Who evaluates candidates in this run. In short: how many."""

    number: int = 1
    """Processes on this machine, or Ray tasks."""
    launcher: Launcher = "local"
    """What starts them."""
    address: Annotated[str | None, OrNone] = None
    """Of the Ray cluster; none: one on this machine."""
    gpus_per_worker: Annotated[float | None, OrNone] = Field(default=None, gt=0, allow_inf_nan=False)
    """GPUs that each worker sees: 1, 2, ... or a part of one; none: one each, in turns where there are fewer."""
    cpus_per_worker: Annotated[float | None, OrNone] = Field(default=None, gt=0, allow_inf_nan=False)
    """CPUs that each Ray task asks for; none: one."""
    resources: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    """What else of the Ray cluster's own resources each task asks for."""
    runtime_env: dict[str, Any] = Field(default_factory=dict)
    """What Ray makes for its tasks: packages, variables of the environment."""
    lease: float = Field(default=LEASE, gt=0, allow_inf_nan=False)
    """Seconds without a sign of life after which a worker counts as dead."""
    max_idle: int = Field(default=MAX_IDLE, ge=1)
    """Proposals in a row that may bring nothing to evaluate before a worker ends."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"number": value} if isinstance(value, int) and not isinstance(value, bool) else value


class StudyConfig(Model):
    """Where the study is. In short: its folder."""

    out: Annotated[str | None, OrNone] = None
    """A folder for the study and its results; one that holds a study goes on with it."""
    storage: Annotated[str | None, OrNone] = None
    """A database by its URL, in place of a journal in the folder."""
    name: Annotated[str | None, OrNone] = None
    """The study's name there; by default that of the folder."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"out": value} if isinstance(value, str) else value


class LogConfig(Model):
    """Where trials are told beside the study, a run each. In short: the names."""

    trackers: list[str] = Field(default_factory=list)
    """tensorboard, mlflow, wandb, each through its own package."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"trackers": [value] if isinstance(value, str) else value} if isinstance(value, str | list) else value


class SearchConfig(Model):
    """All settings of a search."""

    space: SpaceConfig = Field(default_factory=SpaceConfig)
    """What is searched: source, overrides, start."""
    budget: BudgetConfig = Field(default_factory=BudgetConfig)
    """What a candidate may cost: limits, fit."""
    goal: GoalConfig = Field(default_factory=GoalConfig)
    """What is wanted: objectives, data, cheaper, weights, rungs, eta, trials, trial_timeout."""
    confirm: ConfirmConfig = Field(default_factory=ConfirmConfig)
    """How the best are trained again: top, seeds, recipe, epochs, margin, control."""
    proposals: ProposalConfig = Field(default_factory=ProposalConfig)
    """Who proposes: sampler, pruner, screen, seed."""
    log: LogConfig = Field(default_factory=LogConfig)
    """Where trials are told beside the study: trackers."""
    workers: WorkersConfig = Field(default_factory=WorkersConfig)
    """Who evaluates in this run: number, launcher, address, lease, max_idle."""
    study: StudyConfig = Field(default_factory=StudyConfig)
    """Where the study is: out, storage, name."""

    _locs: Locs | None = PrivateAttr(default=None)

    @property
    def locs(self) -> Locs | None:
        """Where they are written in the file that they were read from; None: in none."""
        return self._locs

    def written_in(self, locs: Locs) -> SearchConfig:
        """They, as read from a file."""
        self._locs = locs
        return self

    def sets(self, path: Path) -> bool:
        """Whether the setting at a path is set here."""
        part = getattr(self, str(path[0]))
        return len(path) == 1 or path[1] in part.model_fields_set

    def over(self, below: SearchConfig) -> SearchConfig:
        """What is set here, and for the rest what `below` has."""
        parts = {}
        for name in SearchConfig.model_fields:
            own: Model = getattr(self, name)
            parts[name] = getattr(below, name).model_copy(
                update={key: getattr(own, key) for key in own.model_fields_set}
            )
        return SearchConfig.model_construct(**parts)

    def kept(self) -> dict[str, Any]:
        """What a study keeps, as JSON: all but where it is and who works in this run."""
        kept = self.model_dump(exclude={"workers", "study"}, exclude_none=True)
        if self.confirm.top is None:  # the only one that is something where nothing is said
            kept["confirm"]["top"] = "none"
        return kept


@contextmanager
def setting(*path: str | int) -> Iterator[None]:
    """What is wrong meanwhile is about a setting."""
    try:
        yield
    except BlockforgeError as e:
        e.about(*path)
        raise


def from_tree(tree: Any, report: Report) -> SearchConfig:
    """Settings from plain data. Raises: SpecError with every one that is wrong."""
    for path in _nulls(tree, ()):
        report.error("value", "a null byte is in this text, and no file or name has one", path)
    return validated(SearchConfig, tree, report)


def _nulls(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, str) and "\0" in value:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from _nulls(each, (*path, key))


def given(**parts: Mapping[str, Any]) -> SearchConfig:
    """Settings from Python: those that are not None. Raises: SpecError with every one that is wrong."""
    tree = {name: {key: value for key, value in part.items() if value is not None} for name, part in parts.items()}
    report = Report(Locs())
    config = from_tree(tree, report)
    report.close()
    return config
