"""The errors that users meet: what was given, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake in what was handed in. One line, no traceback, exit code 2 on the command line."""


class Undefined(Exception):
    """Raised by a metric that has no value here, with the reason; it never fails a trial."""


class NotOffered(Exception):
    """Raised by an optional method that a learner does not have."""


class ExpectationFailed(AssertionError):
    """Raised by ``Result.check`` when an expectation fails or cannot be told."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"``, or the known names, or nothing, to end an error with.

    Examples:
        >>> did_you_mean("stat", ["state", "age"])
        "; did you mean 'state'?"
    """
    names = [str(k) for k in known]
    letters = sorted(str(name))
    close = sorted(get_close_matches(str(name), names, n=3), key=lambda k: sorted(k) != letters)  # letters exchanged come first
    close = close or [k for k in names if k.lower() == str(name).lower()]
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
    return f"; there are: {shown}" if names else ""


def one_line(text: object, limit: int = 500) -> str:
    """Return the text on one line, control characters shown as spaces, cut at ``limit`` characters."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else " " for c in str(text)).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
