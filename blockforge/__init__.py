"""BlockForge: a vision backbone is a page of YAML.

    import blockforge as bf
    spec = bf.load("smt_b")
    arch = bf.compile("smt_b", {"stages.2.depth": 12})
    model = bf.build("smt_b", num_classes=100, img_size=(192, 256))

Everything is imported when it is first used, so that `import blockforge` costs nothing. This is the front door: it
alone knows every room, and what an object offers of a room above its own (`model.save_pretrained`) goes through here.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if os.path.isfile(os.path.join(__path__[0], "kernels")):
    # a checkout without links (Windows, some unpackers of zip files), where text stands for each: look beside us
    __path__.append(os.path.dirname(__path__[0]))

if TYPE_CHECKING:
    from blockforge.api import build, compile, from_official
    from blockforge.compiler import Architecture
    from blockforge.compiler.deploy.model import deploy
    from blockforge.draw.dot_mermaid import to_dot as to_dot
    from blockforge.draw.dot_mermaid import to_mermaid as to_mermaid
    from blockforge.draw.summary import summary as summary
    from blockforge.draw.svg import framed_svg as framed_svg
    from blockforge.draw.svg import to_svg as to_svg
    from blockforge.errors import BlockforgeError, BudgetError, SpecError, WeightsError
    from blockforge.integrations.hub import from_pretrained, push_to_hub, save_pretrained
    from blockforge.saving import load_model, load_weights, save_model
    from blockforge.search.fidelity.benchmark import benchmark
    from blockforge.search.run import search
    from blockforge.spec import Spec, list_specs, load
    from blockforge.spec.expanded import expand
    from blockforge.swapping.run import swap
    from blockforge.weights.files import Weights
    from blockforge.weights.transplant import transplant

_HOMES = {
    "build": "api",
    "compile": "api",
    "from_official": "api",
    "Architecture": "compiler",
    "BlockforgeError": "errors",
    "BudgetError": "errors",
    "SpecError": "errors",
    "WeightsError": "errors",
    "from_pretrained": "integrations.hub",
    "push_to_hub": "integrations.hub",
    "save_pretrained": "integrations.hub",
    "deploy": "compiler.deploy.model",
    "benchmark": "search.fidelity.benchmark",
    "summary": "draw.summary",
    "to_dot": "draw.dot_mermaid",
    "to_mermaid": "draw.dot_mermaid",
    "to_svg": "draw.svg",
    "framed_svg": "draw.svg",
    "load_model": "saving",
    "load_weights": "saving",
    "Weights": "weights.files",
    "save_model": "saving",
    "transplant": "weights.transplant",
    "Spec": "spec",
    "expand": "spec.expanded",
    "swap": "swapping.run",
    "list_specs": "spec",
    "load": "spec",
}
__all__ = [
    "Architecture",
    "BlockforgeError",
    "BudgetError",
    "Spec",
    "SpecError",
    "Weights",
    "WeightsError",
    "__version__",
    "benchmark",
    "build",
    "compile",
    "deploy",
    "expand",
    "from_official",
    "from_pretrained",
    "list_specs",
    "load",
    "load_model",
    "load_weights",
    "push_to_hub",
    "save_model",
    "save_pretrained",
    "search",
    "swap",
    "transplant",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'blockforge' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"blockforge.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """This package, whose `search` is the function of the subpackage of that name, in whatever order they are imported.

    The import system sets `blockforge.search` to the subpackage once it is loaded; a plain attribute would then
    change under its users' hands.
    """

    @property
    def search(self) -> Any:
        """`blockforge.search.search`."""
        return vars(self).get("search") or importlib.import_module("blockforge.search").search

    @search.setter
    def search(self, value: Any) -> None:
        if not isinstance(value, ModuleType):  # somebody's own, as a test puts it there
            vars(self)["search"] = value


sys.modules[__name__].__class__ = _Package
