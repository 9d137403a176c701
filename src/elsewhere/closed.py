"""Options with a closed set of values (``Literal`` or ``OneOf`` in their type) are checked where they are given, not where they are used."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal

from elsewhere import catalogue as catalogues
from elsewhere.errors import UserError, did_you_mean


class OneOf:
    """Beside ``str`` in ``Annotated``: what a text may be, where a ``Literal`` cannot name it.

    Args:
        names: that are allowed; one that ends in ":" allows whatever follows.
        catalogue: a kind of the catalogue whose names are allowed too, alone or before a ":".

    Examples:
        >>> OneOf("auto", catalogue="networks").allows("torchvision:resnet18")
        True
    """

    def __init__(self, *names: str, catalogue: str = "") -> None:
        self.listed, self.catalogue = names, catalogue

    @property
    def names(self) -> list[str]:
        return [*self.listed, *(catalogues.entries(self.catalogue) if self.catalogue else ())]

    def allows(self, value: str) -> bool:
        family, colon, _ = value.partition(":")
        return value in self.names or (bool(colon) and (f"{family}:" in self.listed or (bool(self.catalogue) and family in self.names)))


def check_options(function: Callable[..., Any] | type, given: Mapping[str, Any], what: str = "") -> None:
    """Refuse a value outside the closed set that the type of a function's argument, or of a dataclass's field, names.

    Args:
        function: whose annotations say what is allowed.
        given: values by name.
        what: whose options they are, for the message.

    Raises:
        UserError: a value is none of those allowed.

    Examples:
        >>> def draw(kind: Literal["uniform", "pair"] = "uniform") -> None: ...
        >>> check_options(draw, {"kind": "pairs"})
        Traceback (most recent call last):
            ...
        elsewhere.errors.UserError: kind must be uniform or pair, not 'pairs'; did you mean 'pair'?
    """
    allowed = _closed(function)
    for name, value in given.items():
        if isinstance(value, str) and (known := allowed.get(name)) and not known.allows(value):
            hint = did_you_mean(value, known.names)
            there_are = "" if hint.startswith("; there") else hint
            raise UserError(f"{what}{': ' if what else ''}{name} must be {_listed(known.names)}, not {value!r}{there_are}")


def check_fields(thing: Any, what: str = "") -> None:
    """Refuse a dataclass, or one within it, with a field outside its closed set.

    Raises:
        UserError: naming the field, what it may be and what it is.
    """
    if not dataclasses.is_dataclass(thing) or isinstance(thing, type):
        return
    values = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.init}
    check_options(type(thing), values, what)
    for value in values.values():
        check_fields(value, what)


@lru_cache(maxsize=1024)
def _closed(function: Any) -> dict[str, OneOf]:
    """Return what is allowed for each option with a closed set."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception:  # annotations of others may name what exists for type checkers only
        return {}
    return {name: known for name, hint in hints.items() if (known := _allowed(hint)) is not None}


def _allowed(hint: Any) -> OneOf | None:
    """Return what a text may be by a type; None where any text will do, or none is meant."""
    if marked := [extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, OneOf)]:
        return marked[0]
    if typing.get_origin(hint) is Literal:
        return OneOf(*map(str, typing.get_args(hint)))
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return None
    parts = typing.get_args(hint)
    names = [name for part in parts if (known := _allowed(part)) is not None for name in known.names]
    return OneOf(*names) if names and not {str, Any}.intersection(parts) else None


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 12 else [*names[:11], f"one of {len(names) - 11} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
