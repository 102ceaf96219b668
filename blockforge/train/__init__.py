"""Training and evaluation: recipes as YAML, data by name, a loop that survives `kill -9`."""

from blockforge.errors import DataError, RunError
from blockforge.train.check import DataReport, check_data
from blockforge.train.data import Data
from blockforge.train.epoch_progress import Reporter
from blockforge.train.evaluate import evaluate
from blockforge.train.fit import fit
from blockforge.train.open_data import open_data
from blockforge.train.recipe import Recipe, list_recipes, load_recipe
from blockforge.train.result import DivergedError, EpochRecord, Evaluation, TrainResult

__all__ = [
    "Data",
    "DataError",
    "DataReport",
    "DivergedError",
    "EpochRecord",
    "Evaluation",
    "Recipe",
    "Reporter",
    "RunError",
    "TrainResult",
    "check_data",
    "evaluate",
    "fit",
    "list_recipes",
    "load_recipe",
    "open_data",
]
