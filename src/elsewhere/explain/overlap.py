"""Are examples that judge training examples too? By ids or whole rows, never by features alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from elsewhere.data import Data, optional_column

BY_CHANCE = 10  # times the share of training rows with a twin: above it, equal rows are one example


def shared_examples(training: Data, judging: Data) -> int | None:
    """Return how many examples that judge are training examples, by id and domain; None: no ids.

    Examples:
        >>> import numpy as np
        >>> from elsewhere.data import Examples
        >>> data = Examples(np.zeros((3, 2)), np.zeros(3, int), {"id": np.array(["a", "b", "c"])})
        >>> shared_examples(data.take([0, 1]), data.take([1, 2]))
        1
    """
    if optional_column(training, "id") is None or optional_column(judging, "id") is None:
        return None
    both = optional_column(training, "domain") is not None
    both &= optional_column(judging, "domain") is not None
    names = ["id", "domain"] if both else ["id"]  # ids may start anew in every domain
    known = set(_keys(training, names))
    return sum(key in known for key in _keys(judging, names))


def _keys(data: Data, names: list[str]) -> list[tuple[str, ...]]:
    columns = [data.column(name).astype(str).tolist() for name in names]
    return list(zip(*columns, strict=True))


def shared_rows(training: Iterable[bytes], judging: Iterable[bytes]) -> int:
    """Return how many rows that judge are training rows; 0 where chance may have made them equal.

    Whole rows, features and labels. In a table of few values strangers are equal: the share of
    training rows that have a twin says how often.

    Examples:
        >>> shared_rows([b"a", b"b", b"c"], [b"c", b"d"])
        1
        >>> shared_rows([b"a", b"a", b"b", b"b"], [b"a", b"b"])
        0
    """
    known = Counter(training)
    asked = list(judging)
    same = sum(row in known for row in asked)
    twins = sum(count for count in known.values() if count > 1) / max(1, known.total())
    return same if same > BY_CHANCE * twins * len(asked) else 0
