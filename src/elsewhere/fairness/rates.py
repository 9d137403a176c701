"""Groups and rates: who is compared, and how far the groups' rates lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from elsewhere.data import Array, Examples, named_column, optional_column
from elsewhere.errors import UserError, did_you_mean

Criterion = Literal["parity", "opportunity", "odds"]
CRITERIA = ("parity", "opportunity", "odds")
FEWEST = 30  # people; a rate of fewer is greyed
_NAMED = "column:"


def groups_of(data: Examples, group: Any = "group", missing: Literal["error", "own group"] = "error") -> Array:
    """Return the group [n] of each example, as text.

    Args:
        group: "group", the task's group; the name of a column of the data or of their table (one
            that is called "group" and is not the task's: "column:group"); several names whose
            intersections are groups; or one value for each example.
        missing: what a missing value is: a mistake, or a group of its own.

    Raises:
        UserError: no such column, one value in every row, or a value is missing.

    Examples:
        >>> x = Examples(np.zeros((3, 1)), columns={"sex": np.array(["f", "m", "m"]), "old": np.array([0, 0, 1])})
        >>> groups_of(x, ["sex", "old"]).tolist()
        ['f, 0', 'm, 0', 'm, 1']
    """
    if isinstance(group, str):
        named, values = f"group column {group!r}", _column(data, group)
    elif isinstance(group, Sequence) and all(isinstance(g, str) for g in group) and len(group) != len(data):
        parts = [groups_of(data, g, missing) for g in group]
        return np.array([", ".join(row) for row in zip(*parts, strict=True)])
    else:
        named, values = "the group", np.asarray([", ".join(map(str, g)) if isinstance(g, tuple) else g for g in np.asarray(group, dtype=object)], dtype=object)
        if len(values) != len(data):
            raise UserError(f"the group has {len(values)} entries for {len(data)} examples")
    absent = np.array([v is None or v != v for v in values.tolist()])
    if absent.any() and missing == "error":
        raise UserError(f"{named} is missing in {int(absent.sum())} of {len(values)} rows; drop them, or missing='own group'")
    told = np.array(["missing" if a else _named(v) for v, a in zip(values.tolist(), absent, strict=True)])
    if len(set(told.tolist())) < 2:
        raise UserError(f"{named} is {str(told[0])!r} in every row: there is nobody to compare" if len(told) else f"{named} has no rows")
    return told


def codes_of(told: Array, known: Sequence[str]) -> Array:
    """Return the places [n] of groups among the sorted names that were fitted.

    Examples:
        >>> codes_of(np.array(["m", "f"]), ["f", "m"]).tolist()
        [1, 0]
    """
    if unknown := set(told.tolist()) - set(known):
        raise UserError(f"group {sorted(unknown)[0]!r} is not in the source, which has {', '.join(known)}")
    return np.searchsorted(np.array(known), told)


def read_beside(group: str) -> tuple[str, ...]:
    """Return the columns that a learner with this ``group`` reads beside the features.

    Examples:
        >>> read_beside("group"), read_beside("sex"), read_beside("column:group")
        ((), ('sex',), ('group',))
    """
    return () if group == "group" else (group.removeprefix(_NAMED),)


def group_column(data: Examples, group: str) -> Array | None:
    """Return the task's group [n] for "group", else the column of this name; None if there is none."""
    if group == "group":
        return optional_column(data, "group")
    (name,) = read_beside(group)
    values = named_column(data, name)
    if values is None and hasattr(data.inputs, "iloc") and name in data.inputs:
        values = data.inputs[name].to_numpy()
    return values


def _column(data: Examples, name: str) -> Array:
    values = group_column(data, name)
    if values is None:
        known = [*data.columns, *(data.inputs.columns if hasattr(data.inputs, "iloc") else ())]
        raise UserError(f"the data have no group column {name!r}{did_you_mean(name, known)}")
    return values


def _named(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def binary_labels(data: Examples, who: str) -> Array:
    """Return labels [n] in 0 and 1, or raise a ``UserError`` that says how many values there are."""
    if data.labels is None:
        raise UserError("the data have no labels")
    if data.classes is None:
        raise UserError(f"the label is a number; {who} needs two classes")
    if len(data.classes) != 2:
        raise UserError(f"the label has {len(data.classes)} values; {who} needs two")
    return np.asarray(data.labels, int)


def cells(labels: Array, codes: Array, criterion: Criterion) -> list[list[Array]]:
    """Return sets of masks whose acceptance rates shall agree: all by group; those labelled 1 by group; or both labels.

    Examples:
        >>> [len(s) for s in cells(np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1]), "odds")]
        [2, 2]
    """
    if criterion not in CRITERIA:
        raise UserError(f"no criterion {criterion!r}{did_you_mean(str(criterion), CRITERIA)}")
    inside = {"parity": [np.ones(len(labels), bool)], "opportunity": [labels == 1], "odds": [labels == 1, labels == 0]}[criterion]
    return [[(codes == k) & part for k in range(int(codes.max()) + 1)] for part in inside]


def disparity(accepted: Array, sets: list[list[Array]]) -> float:
    """Return the largest difference of acceptance rates within a set of masks; NaN where a mask is empty."""
    rates = [[float(accepted[m].mean()) if m.any() else np.nan for m in masks] for masks in sets]
    return float(max(np.max(r) - np.min(r) for r in rates))


def ddp(accepted: Array, codes: Array) -> float:
    """Return the difference in demographic parity, signed: mean of 1[f > 0] in the second group minus that in the first.

    Examples:
        >>> ddp(np.array([1, 0, 1, 1]), np.array([0, 0, 1, 1]))
        0.5
    """
    if not (codes == 1).any() or not (codes == 0).any():
        return float("nan")
    return float(accepted[codes == 1].mean() - accepted[codes == 0].mean())


def p_ratio(accepted: Array, codes: Array) -> float:
    """Return the smallest acceptance rate of a group over the largest; 1 where all are 0."""
    rates = [float(accepted[codes == k].mean()) for k in np.unique(codes)]
    return min(rates) / max(rates) if max(rates) > 0 else 1.0


def sampling_error(accepted: Array, codes: Array) -> float:
    """Return the standard error of the difference between two groups' acceptance rates, √(r (1 - r) (1/n₀ + 1/n₁)): how large a difference chance alone makes."""
    n0, n1 = int((codes == 0).sum()), int((codes == 1).sum())
    if not n0 or not n1:
        return float("nan")
    r = float(accepted.mean())
    return float(np.sqrt(r * (1 - r) * (1 / n0 + 1 / n1)))


def wilson(share: float, n: float, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of n (1927); it has a width at 0 and 1.

    Examples:
        >>> [round(v, 3) for v in wilson(0.0, 100)]
        [0.0, 0.037]
    """
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
