"""What makes the things of a search that a text names: samplers, objectives. Ours and those of plugins, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from blockforge.errors import PluginError
from blockforge.plugins import Registry
from blockforge.provenance import Source, source_in

Factory = Callable[..., Any]
"""A class or a function whose parameters are the options of a text."""
T = TypeVar("T", bound=Factory)


class Factories(Registry[Factory]):
    """Those of plugins, which are registered, beside ours, which are imported when they are wanted.

    Args:
        ours: name -> what imports ours.
    """

    def __init__(self, group: str, what: str, ours: Callable[[], Mapping[str, Callable[[], Factory]]]) -> None:
        super().__init__(group, what)
        self.ours = ours

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that registers what makes a thing. Raises: PluginError for no name, or one that there is."""
        self.check_name(name)

        def registered(factory: T) -> T:
            if name in self.ours():
                raise PluginError(f"two {self.what}s are named '{name}': blockforge's own and {factory.__module__}")
            self.add(name, factory, factory.__module__)
            return factory

        return registered

    def names(self) -> list[str]:
        """Of all, ours first."""
        return [*self.ours(), *self]

    def named_in(self, text: str) -> str | None:
        """The name that a text begins with, `tpe` of `tpe:group=true`; None: it names none of these."""
        name = name_in(text)
        return name if name in self.ours() or name in self else None

    def factory(self, name: str) -> Factory:
        """What makes the thing of a name."""
        ours = self.ours()
        return ours[name]() if name in ours else self[name]

    def source(self, text: str) -> Source | None:
        """The plugin that a text names a thing of; None: it names none, or one of ours."""
        return source_in(self, name_in(text))


def name_in(text: str) -> str:
    """The part of a text that may be a name."""
    return text.strip().partition(":")[0]
