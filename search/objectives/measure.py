"""What a search asks of a candidate.

An objective is any callable `(arch: Architecture) -> float | mapping` with

- `name`: a short word, the column in tables and the key in records; default: the callable's own name;
- `direction`: `maximize` or `minimize`; default: `maximize`;
- `cost`: roughly how many seconds a candidate takes; cheaper objectives run first; default: 1;
- `about`: what a ranking by it is, for headings, as in "top-1 on mnist5k after 200 steps"; default: its text.

A mapping holds the value under `name`; its other entries are kept with the trial as figures that nobody ranks by
(a loss beside an accuracy). What an objective raises is kept with the trial, and the search goes on; a value that is
not finite is a failure too. Workers call objectives in processes of their own, so one that is to run there is
written as text and made again by each worker:

    expressivity            a name: module `blockforge.search.objectives.scores.NAME`, which holds a function or
    micro:seconds=10        class NAME; it is called with the options (and with `seed`, if it takes one and none is
                            given) and returns the objective
    my_package.scores:mine  a function of the user's own, which is the objective; see `user_code`
    mine.py:score:steps=10  one in a file, with options

Values of options are numbers, true, false or text.

An objective with a parameter `trial` is given the trial, see `objectives.trial`: its seed, device and folder, and
`trial.report(step, value)`, after which `trial.should_stop()` says whether a pruner has seen enough. One with a
parameter `report` may call `report(value, step)`, which raises `optuna.TrialPruned` then.

A study has one value a trial (one objective; or several with weights, whose signed sum is maximised) or one a
direction (several without weights: a Pareto front). With rungs, cheap stand-ins take the place of the first
objective on the lower rungs, or it takes its own place up to a report (`report:step=5`); see `rungs`.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

from blockforge.compiler import Architecture
from blockforge.errors import ScoreError, SearchError
from blockforge.search.objectives import registry
from blockforge.search.objectives.trial import ObjectiveTrial, ReachedError
from blockforge.search.registry import user_code
from blockforge.search.registry.describe import describe
from blockforge.search.registry.options import read_options

Direction = Literal["maximize", "minimize"]
Report = Callable[[float, int], None]
"""Takes a value on the way and its step."""
_OF_TRIALS = {"trial", "report"}
_CUT = "report"


class Objective(Protocol):
    """See the top of this file."""

    name: str
    direction: Direction
    cost: float

    def __call__(self, arch: Architecture) -> float | Mapping[str, float]: ...


@dataclass(frozen=True)
class Measure:
    """An objective with everything that is known of it, and the text that makes it again elsewhere.

    `text` is also what tells objectives apart: values of different ones are never compared.
    """

    text: str
    name: str
    direction: Direction
    cost: float
    call: Callable[..., Any] = field(compare=False, repr=False)
    about: str = field(default="", compare=False)
    source: str | None = field(default=None, compare=False)
    """The user's file that its code is in."""
    by_text: bool = field(default=True, compare=False)
    """It was named, not handed over."""
    until: int | None = field(default=None, compare=False)
    """The step whose report is the value; None: what it gives at its end."""

    def said(self) -> dict[str, Any]:
        """What is kept of it in a study, so that reading one needs no code."""
        return {k: getattr(self, k) for k in ("text", "name", "direction", "cost", "about")}

    @property
    def sign(self) -> float:
        """What turns a value into one that is larger when it is better."""
        return 1.0 if self.direction == "maximize" else -1.0

    @property
    def reports(self) -> bool:
        """Whether it can tell values on its way, which pruners and rungs go by."""
        return bool(self._taken) and getattr(self.call, "reports", True)

    @property
    def sees_trial(self) -> bool:
        """Whether it is given its trial, and so the recipe that a candidate has chosen."""
        return "trial" in self._taken

    @property
    def _taken(self) -> frozenset[str]:
        try:
            return frozenset(_OF_TRIALS & inspect.signature(self.call).parameters.keys())
        except (TypeError, ValueError):  # of some built-in callables nothing is known
            return frozenset()

    def __call__(self, arch: Architecture, trial: ObjectiveTrial | None = None) -> tuple[float, dict[str, float]]:
        """The value, and all figures by name.

        Raises: ScoreError if the value is not finite, TrialPruned if the trial was told to stop and did.
        """
        with (trial or ObjectiveTrial()).measured() as own:
            given = {"trial": own, "report": own.legacy_report}
            try:
                answer = self.call(arch, **{name: given[name] for name in self._taken})
            except ReachedError:
                answer = {}
            own.check()
        figures = dict(answer) if isinstance(answer, Mapping) else {self.name: answer}
        if own.reached is not None:
            figures |= {"step": own.reached[0], self.name: own.reached[1]}
        if self.name not in figures:
            raise ScoreError(f"the objective gave {', '.join(figures) or 'nothing'} and no '{self.name}'")
        value = checked(figures[self.name])
        return value, {self.name: value, **{k: float(v) for k, v in figures.items() if math.isfinite(v)}}


def as_measure(objective: str | Callable[[Architecture], Any] | Measure, seed: int = 0) -> Measure:
    """An objective from its text or from a callable.

    Raises: SearchError if the text names none.
    """
    if isinstance(objective, Measure):
        return objective
    if isinstance(objective, str):
        return _measure(registry.make(objective, seed), objective, by_text=True)
    return _measure(objective, describe(objective), by_text=False)


def is_cut(rung: Any) -> bool:
    """Whether a rung is the objective itself up to a report, `report:step=5`."""
    return isinstance(rung, str) and rung.partition(":")[0].strip() == _CUT


def as_rung(rung: str | Callable[[Architecture], Any] | Measure, objective: Measure, seed: int = 0) -> Measure:
    """What stands for an objective on a lower rung: another one, or itself up to a report.

    Raises: SearchError.
    """
    if not isinstance(rung, str) or not is_cut(rung):
        return as_measure(rung, seed)
    options = read_options(_CUT, rung.strip().partition(":")[2])
    step = options.get("step")
    if set(options) != {"step"} or not isinstance(step, int) or isinstance(step, bool) or step < 1:
        raise SearchError(f"'{rung}' names no step\n  hint: report:step=5, the objective up to its report of step 5")
    if not objective.reports:
        text = f"the rung {rung} has nothing to go by: {objective.text} tells no values on its way"
        raise SearchError(f"{text}\n  hint: def score(arch, trial), which calls trial.report(step, value)")
    about = f"{objective.about}, up to step {step}"
    return dataclasses.replace(objective, text=rung.strip(), about=about, until=step)


def as_read(said: Mapping[str, Any]) -> Measure:
    """An objective as a study keeps it: it can be named, and not called."""
    return Measure(**said, call=lambda arch: float("nan"))


def _measure(objective: Callable[[Architecture], Any], text: str, by_text: bool) -> Measure:
    own = getattr(objective, "__name__", type(objective).__name__).lower()
    direction = getattr(objective, "direction", "maximize")
    if direction not in get_args(Direction):
        raise SearchError(f"the direction of {text} is '{direction}'\n  hint: maximize or minimize")
    name, cost = getattr(objective, "name", own), getattr(objective, "cost", 1.0)
    if isinstance(cost, bool) or not isinstance(cost, int | float) or not math.isfinite(cost):
        raise SearchError(f"the cost of {text} is {cost!r}\n  hint: roughly how many seconds a candidate takes")
    about, source = str(getattr(objective, "about", text)), user_code.origin(objective)
    ours = source is None or Path(source).is_relative_to(Path(__file__).parents[1])
    return Measure(
        text, str(name), cast(Direction, direction), float(cost), objective, about, None if ours else source, by_text
    )


def checked(score: Any) -> float:
    """The score as a float. Raises: ScoreError if it is not finite."""
    value = float(score)
    if not math.isfinite(value):
        raise ScoreError(f"the score is {value}")
    return value


def is_remakable(measure: Measure) -> bool:
    """Whether a worker in a process of its own can make an objective from its text."""
    if measure.text.startswith("__main__:"):
        return False  # of a notebook or a script: the main module of a worker is another one
    try:
        made = registry.make(measure.text)
    except SearchError:
        return False
    return measure.by_text or made is measure.call


def check_remakable(measures: Sequence[Measure]) -> None:
    """Raise SearchError for an objective that a worker could not make from its text."""
    for measure in measures:
        if measure.until is None and not is_remakable(measure):
            hint = "write it at the top of a module and name it as module:function, or as file.py:function"
            more = "what a notebook or a script holds is not there for workers: without them, workers=1, it is"
            raise SearchError(f"workers cannot import the objective {measure.text}\n  hint: {hint}\n  {more}")
