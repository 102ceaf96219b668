"""Options behind a name: `NAME:key=value,key=value`. Values are numbers, true, false or text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter
from typing import Any

from blockforge.errors import BlockforgeError, SearchError, did_you_mean


def read_options(name: str, text: str) -> dict[str, Any]:
    """`steps=10,data=mnist5k` -> a mapping. Raises: SearchError for a part that is no option, or one twice."""
    options: dict[str, Any] = {}
    for key, value in (_option(name, part) for part in text.split(",") if part.strip()):
        if key in options:
            raise SearchError(f"'{name}' is given the option '{key}' twice\n  hint: leave out one of them")
        options[key] = value
    return options


def _option(name: str, text: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise SearchError(f"'{text.strip()}' is no option of '{name}'\n  hint: {name}:key=value,key=value")
    if value in ("true", "false"):
        return key, value == "true"
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, value


def call_with_options(
    name: str, factory: Callable[..., Any], taken: Mapping[str, Parameter], text: str, seed: int | None
) -> Any:
    """What a factory of this package or of a plugin makes with the options of a text, and with `seed` if it takes one
    and none is given.

    Raises: SearchError for an option that it does not take, that is missing, or that is of another kind.
    """
    options = read_options(name, text)
    for key in options:
        if key not in taken:
            raise SearchError(f"'{name}' has no option '{key}'\n  hint: {did_you_mean(key, taken, 'options')}")
    if "seed" in taken and seed is not None:
        options.setdefault("seed", seed)
    for key, parameter in taken.items():
        if parameter.default is parameter.empty and key not in options:
            raise SearchError(f"'{name}' needs the option '{key}'\n  hint: {name}:{key}=...")
    try:
        return factory(**options)
    except BlockforgeError:
        raise
    except (TypeError, ValueError) as e:  # a text where a number belongs
        raise SearchError(f"'{name}:{text}' cannot be made: {e}\n  hint: options: {', '.join(taken)}") from None
    except (Exception, SystemExit) as e:  # of a plugin
        raise SearchError(f"'{name}' cannot be made: {type(e).__name__}: {e}") from e
