"""Tables by domain: which rows and columns keep every role and task apart, and pivots that never average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

ORDER = {"home": 0, "stress": 1, "elsewhere": 2}


@dataclass(frozen=True)
class Layout:
    """How cells are laid out as a table.

    Args:
        rows: the columns of cells that name a row: learner, or task and learner.
        labels: [cells] the column of the table that each cell belongs to.
        columns: the labels in order.
    """

    rows: list[str]
    labels: pd.Series[Any]
    columns: list[str]


def layout(cells: pd.DataFrame) -> Layout:
    """Return how cells of (task, learner, domain, role) become a table of one value a cell.

    - One task: learner × domain, home first.
    - Several tasks, each domain elsewhere in one of them (one left out at a time): learner × domain,
      and beside the domains of a task its own home.
    - Several tasks that judge the same domains: (task, learner) × domain.
    """
    places = cells[["task", "domain", "role"]].astype(str).drop_duplicates()
    several = places.task.nunique() > 1
    beyond = places[places.role != "home"]
    repeated = several and bool(beyond.duplicated(["domain", "role"]).any())
    names = _names(places, several, repeated)
    if several and not repeated:
        task = {name: k for k, name in enumerate(dict.fromkeys(places.task))}
        places = places.assign(by=places.task.map(task))
    else:
        places = places.assign(by=0)
    at = places.assign(order=places.role.map(ORDER), label=names)
    ordered = at.sort_values(["by", "order"], kind="stable").label
    key = pd.MultiIndex.from_frame(cells[["task", "domain", "role"]].astype(str))
    labels = at.set_index(["task", "domain", "role"]).label.reindex(key).set_axis(cells.index)
    rows = ["task", "learner"] if repeated else ["learner"]
    return Layout(rows, labels, list(dict.fromkeys(ordered)))


def _names(places: pd.DataFrame, several: bool, repeated: bool) -> pd.Series[str]:
    """Return the label of each (task, domain, role); two that are not one column never share a label."""
    if not several:
        return places.domain
    home = places.role == "home"
    label = places.domain.copy()
    if repeated:  # a row is a task: its home, if there is one, needs no further name
        alone = places[home].groupby("task").domain.nunique().max() <= 1
        label = label.mask(home, "home" if alone else label + " (home)")
        column = places.role + "\0" + places.domain.mask(home & alone, "")
    else:
        label = label.mask(home, "home (" + _short(places.task) + ")")
        column = places.role + "\0" + places.domain + "\0" + places.task.where(home, "")
        if places[home].duplicated("task").any():
            label = label.mask(home, places.domain + " (home, " + _short(places.task) + ")")
    shared = column.groupby(label).transform("nunique") > 1
    return label.mask(shared, label + " (" + places.role + ")")


def _short(tasks: pd.Series[str]) -> pd.Series[str]:
    """Return the options of tasks of one family, whole labels of several families."""
    family, _, options = zip(*(str(t).partition(":") for t in tasks), strict=True)
    same = len(set(family)) == 1 and all(options)
    return pd.Series(options if same else tasks.tolist(), tasks.index)


def interval_text(value: float, low: float, high: float, digits: int = 3) -> str:
    """Return a value with its interval as text; a dash where there is no value.

    Examples:
        >>> interval_text(0.5, 0.25, 0.75, 2)
        '0.50 [0.25, 0.75]'
    """
    if pd.isna(value):
        return "–"
    bounds = "" if pd.isna(low) or pd.isna(high) else f" [{low:,.{digits}f}, {high:,.{digits}f}]"
    return f"{value:,.{digits}f}{bounds}"


def wide(long: pd.DataFrame, index: str | Sequence[str], columns: str, values: str | Sequence[str]) -> pd.DataFrame:
    """Return ``long`` pivoted, rows and columns in order of appearance.

    Raises:
        ValueError: two rows for one cell: a mean over roles, tasks or domains is never taken here.
    """
    index = [index] if isinstance(index, str) else list(index)
    twice = long.duplicated([*index, columns])
    if twice.any():
        cell = ", ".join(f"{k} {v}" for k, v in long.loc[twice, [*index, columns]].iloc[0].items())
        raise ValueError(f"two rows for one cell of a table: {cell}")
    plain = long.assign(**{c: long[c].astype(object) for c in (*index, columns)})
    names = index if len(index) > 1 else index[0]
    found = plain.pivot(index=names, columns=columns, values=values)
    rows = plain.drop_duplicates(index).set_index(names).index
    return found.reindex(rows)
