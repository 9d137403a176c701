"""Options with a closed set of values (``Literal`` in their type) are checked where they are given, not where they are used."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal

from elsewhere.errors import UserError, did_you_mean


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
        known = allowed.get(name)
        if known and isinstance(value, str) and value not in known:
            close = did_you_mean(value, map(str, known))
            hint = close if close.startswith("; did") else ""
            raise UserError(f"{what}{': ' if what else ''}{name} must be {_one_of(known)}, not {value!r}{hint}")


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
def _closed(function: Any) -> dict[str, tuple[Any, ...]]:
    """Return the allowed values of each option whose type is a ``Literal``, alone or beside types that are no text."""
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # annotations of others may name what exists for type checkers only
        return {}
    return {name: values for name, hint in hints.items() if (values := _values(hint))}


def _values(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return ()
    parts = typing.get_args(hint)
    if str in parts or Any in parts:
        return ()
    return tuple(v for part in parts for v in _values(part))


def _one_of(values: tuple[Any, ...]) -> str:
    names = [str(v) for v in values]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
