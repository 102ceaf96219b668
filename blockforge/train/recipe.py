"""How a network is trained, as a page of YAML: one flat mapping, checked like a spec."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from pydantic import Field

from blockforge.errors import Diagnostic, Loc, Locs, Path, Report, Source, SpecError, did_you_mean
from blockforge.plugins import YamlFiles
from blockforge.spec.fields import OrNone
from blockforge.spec.merge import Base, extend, short_path
from blockforge.spec.schema_errors import validated
from blockforge.spec.slots import Model
from blockforge.spec.yaml.loader import Document, load_file, load_text, load_value, text_of
from blockforge.spec.yaml.plain_data import plain_data

RECIPES = YamlFiles("blockforge.recipes", "recipe", "blockforge.train.recipes")
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
Pair = Annotated[list[Positive], Field(min_length=2, max_length=2)]
Channels = Annotated[list[float], Field(min_length=1, max_length=4096)]
NO_RESULT = {"about", "workers", "save_seconds"}
"""Keys of a recipe that change no result."""


class CropSpec(Model):
    """A random part of the image, in training."""

    scale: Pair | None = None
    """Least and largest share of the area that a random resized crop takes."""
    ratio: Pair = [3 / 4, 4 / 3]
    """Least and largest width / height of that crop."""
    padding: Annotated[int, Field(ge=1, le=1024)] | None = None
    """In place of `scale`: pad with zeros by as many pixels and cut out the image's own size."""


class RandAugmentSpec(Model):
    """RandAugment of kornia; the operations are drawn anew for every `group` images of a batch."""

    num_ops: Annotated[int, Field(ge=1, le=15)] = 2
    """Operations in a row."""
    magnitude: Annotated[int, Field(ge=1, le=29)] = 9
    """Strength, of 30."""
    group: Count = 16
    """Images that get the same operations, each at its own strength and sign."""


class DistillSpec(Model):
    """How a network learns from a teacher's answers, where there is one."""

    temperature: Positive = 2.0
    """What both networks' logits are divided by before they are compared."""
    share: Share = 0.5
    """Of the loss, what is the teacher's; the rest is that of the labels. 1: no labels are used."""


class NormalizeSpec(Model):
    """What is subtracted from an image in 0..1, and what it is divided by, a channel."""

    mean: Channels
    """Means."""
    std: Channels
    """Standard deviations."""


class Recipe(Model):
    """Settings of a training run."""

    about: str = ""
    """Where it comes from: free form."""
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    """Passes over the training images."""
    batch_size: Count
    """Images of an optimiser step, on all processes together."""
    accumulate: Count = 1
    """Parts that a batch is cut into, one after the other, where memory is short."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Of the forward pass; weights stay float32. auto: bf16 on a GPU that has it, float32 elsewhere."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with Nesterov momentum."""
    lr: Positive
    """Highest learning rate."""
    weight_decay: NotNegative = 0.05
    """Of matrices and kernels; norms, biases and what a block exempts have none."""
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)] = [0.9, 0.999]
    """AdamW's."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD's."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """From `lr` to `min_lr`, after the warm-up."""
    min_lr: NotNegative = 0.0
    """Learning rate at the end."""
    warmup_epochs: NotNegative = 0.0
    """Epochs in which the rate rises linearly to `lr`; may be a fraction."""
    warmup_lr: NotNegative = 0.0
    """Learning rate of the first step of the warm-up."""
    clip_grad: Annotated[Positive | None, OrNone] = None
    """Largest norm of all gradients together, or none."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all classes."""
    distill: Annotated[DistillSpec | None, OrNone] = None
    """How it learns from the teacher of the run; none: as DistillSpec says, where there is a teacher."""
    ema: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, OrNone] = None
    """Decay of a moving average of the weights, which is then what is evaluated and kept; or none."""
    crop: Annotated[CropSpec | None, OrNone] = None
    """Random crop, or none."""
    flip: Share = 0.0
    """Probability to mirror an image."""
    rand_augment: Annotated[RandAugmentSpec | None, OrNone] = None
    """RandAugment, or none."""
    erasing: Share = 0.0
    """Probability to erase a rectangle of an image."""
    mixup: NotNegative = 0.0
    """Parameter of mixup's Beta distribution; 0: none. With cutmix, each batch takes one of the two."""
    cutmix: NotNegative = 0.0
    """Parameter of cutmix's Beta distribution; 0: none."""
    normalize: NormalizeSpec | Literal["auto", "data", "imagenet"] = "auto"
    """data: mean and deviation of the training images; imagenet: ImageNet's; auto: data's where the images are in
    memory, else ImageNet's."""
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the side that the centre crop of evaluation keeps, for images from files."""
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Processes that read images from files; absent: one a core, at most 8. 0: none."""
    save_seconds: NotNegative = 60.0
    """Time between checkpoints."""

    def tree(self) -> dict[str, Any]:
        """What it says, as a file of it would; what is not said is left out."""
        return {k: "none" if v is None else v for k, v in self.model_dump(exclude_unset=True).items()}

    @property
    def hash(self) -> str:
        """Equal for recipes that train alike."""
        text = json.dumps(self.model_dump(exclude=NO_RESULT), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def list_recipes() -> list[str]:
    """Names of the packaged recipes."""
    return sorted(RECIPES)


def load_recipe(
    source: Recipe | str | os.PathLike[str] | Mapping[str, Any], overrides: Mapping[str, Any] | list[str] | None = None
) -> Recipe:
    """Read and validate a recipe.

    Args:
        source: a packaged name, a path, a mapping, or a Recipe. Files may say `extends: NAME`.
        overrides: `{"lr": 1e-4}` or `["lr=1e-4", "crop.padding=2"]`.
    Raises: SpecError with every error that the pass found.
    """
    if isinstance(source, Recipe):
        if not overrides:
            return source
        source = source.tree()
    return checked_recipe(read_recipe(source, overrides))


def read_recipe(
    source: str | os.PathLike[str] | Mapping[str, Any], overrides: Mapping[str, Any] | list[str] | None = None
) -> Document:
    """A recipe as it is written, what it extends merged; its values may be wrong, and there may be holes in it.

    Raises: SpecError if it cannot be read.
    """
    document = _overridden(extend(_open(source), _find), overrides)
    if not isinstance(document.tree, dict):
        report = Report(document.locs)
        report.error("recipe", "a recipe is a mapping of keys", hint="as in epochs: 10")
        report.close()
    return document


def checked_recipe(document: Document) -> Recipe:
    """The recipe that a document says. Raises: SpecError with every error that the pass found."""
    report = Report(document.locs)
    if (hole := next(holes_in(document.tree), None)) is not None:
        hint = "blockforge search --recipe FILE searches holes; one training needs a value"
        report.error("hole", "there is a hole in this recipe", hole, hint=hint)
        report.close()
    recipe = validated(Recipe, document.tree, report)
    if recipe.crop is not None and (recipe.crop.scale is None) == (recipe.crop.padding is None):
        report.error("value", "a crop says either scale or padding", ("crop",), hint="as in crop: {scale: [0.08, 1.0]}")
    if recipe.batch_size < recipe.accumulate:
        report.error("value", f"a batch of {recipe.batch_size} cannot be cut into {recipe.accumulate}", ("accumulate",))
    report.close()
    return recipe


def holes_in(tree: Any, path: Path = ()) -> Iterator[Path]:
    """Where the holes of a recipe stand."""
    if isinstance(tree, dict) and any(str(key).startswith("$") for key in tree):
        yield path
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if path or key != "about":
                yield from holes_in(value, (*path, key))


def _open(source: str | os.PathLike[str] | Mapping[str, Any]) -> Base:
    if isinstance(source, Mapping):
        report = Report(Locs({(): (None, Loc(Source("<mapping>", ()), 1, 1))}))
        tree = plain_data(source, report)
        report.close()
        return Base("<mapping>", Document(tree, report.locs))
    text = os.fspath(source)
    if not isinstance(source, str) or _is_path(text):
        return Base(os.path.realpath(text), load_file(text))
    return _packaged(text)


def _find(name: str, child: Base) -> Base:
    """What `extends: name` means in `child`: a path beside it, or a packaged recipe."""
    if not _is_path(name):
        return _packaged(name)
    path = os.path.realpath(FilePath(child.name).parent / name)
    return Base(path, load_file(short_path(path)))


def _is_path(text: str) -> bool:
    return text.endswith((".yaml", ".yml")) or "/" in text or os.sep in text


def _packaged(name: str) -> Base:
    if name not in RECIPES:
        hint = did_you_mean(name, RECIPES, what="recipes") + "; a file needs its .yaml"
        raise SpecError([Diagnostic("file", f"no recipe named '{name[:80]}'", hint=hint)])
    return Base(name, load_text(text_of(RECIPES[name]), RECIPES.shown(name)))


def _overridden(document: Document, overrides: Mapping[str, Any] | list[str] | None) -> Document:
    """The document with values replaced by path; the schema judges the paths."""
    if not overrides:
        return document
    report = Report(Locs(dict(document.locs.table)))
    tree = plain_data(document.tree, report)
    for key, value, loc in _assignments(overrides, report):
        *way, last = key.split(".")
        place = tree
        for part in way:
            if not isinstance(place.get(part), dict):
                place[part] = {}
            place = place[part]
        place[last] = value
        for end in range(1, len(way) + 2):
            report.locs.table[tuple(key.split("."))[:end]] = (loc, loc)
    report.close()
    return Document(tree, report.locs)


def _assignments(overrides: Mapping[str, Any] | list[str], report: Report) -> list[tuple[str, Any, Loc]]:
    if isinstance(overrides, Mapping):
        texts = {key: f"{key}={value}" for key, value in overrides.items()}
        return [(key, overrides[key], Loc(Source("override", (t,)), 1, 1, len(t))) for key, t in texts.items()]
    assignments = []
    for text in overrides:
        loc = Loc(Source("--recipe-set", (text[:200],)), 1, 1, len(text))
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            report.error("set", f"'{text[:80]}' is not key=value", loc=loc, hint="as in --recipe-set lr=1e-4")
            continue
        assignments.append((key.strip(), load_value(value, f"--recipe-set {key.strip()}").tree, loc))
    return assignments
