"""Options whose type closes their set of values (``Literal``, ``OneOf``), checked where given."""

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
        """Every allowed name."""
        return [*self.listed, *self._catalogued]

    def allows(self, value: str) -> bool:
        """Return whether a text is one of the names."""
        if value in self.names:
            return True
        family, colon, _ = value.partition(":")
        return bool(colon) and (f"{family}:" in self.listed or family in self._catalogued)

    @property
    def _catalogued(self) -> list[str]:
        return list(catalogues.entries(self.catalogue)) if self.catalogue else []


def check_options(function: Callable[..., Any], given: Mapping[str, Any], what: str = "") -> None:
    """Refuse a value outside the closed set of an option.

    Args:
        function: or dataclass, whose annotations say what is allowed.
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
        known = allowed.get(name)
        if isinstance(value, str) and known is not None and not known.allows(value):
            near = did_you_mean(value, known.names)
            hint = "" if near.startswith("; there") else near
            of = f"{what}: {name}" if what else name
            raise UserError(f"{of} must be {_listed(known.names)}, not {value!r}{hint}")


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
    extras = getattr(hint, "__metadata__", ())
    if marked := [extra for extra in extras if isinstance(extra, OneOf)]:
        return marked[0]
    if typing.get_origin(hint) is Literal:
        return OneOf(*map(str, typing.get_args(hint)))
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return None
    parts = typing.get_args(hint)
    closed = [known for known in map(_allowed, parts) if known is not None]
    names = [name for known in closed for name in known.names]
    return OneOf(*names) if names and not {str, Any}.intersection(parts) else None


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 12 else [*names[:11], f"one of {len(names) - 11} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
