"""Doubts about the data of a task: what would make its scores look better than they are, found before anything runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from elsewhere.assay import tells
from elsewhere.assay.fingerprints import Columns, as_text, columns_of, copied_rows, spread_by
from elsewhere.data import Array, Examples, optional_column
from elsewhere.task import Domain, Task

Measure = Callable[[Array, Array], float]
Kind = Literal["unit", "unit at home", "copies", "label", "domain"]
SURE = 0.995  # AUC, or R², of one column alone
GLANCE, PROMISING = 2000, 0.95  # on a glance at this many rows, a column below is dismissed
ROWS = 20_000  # at which single columns are looked at
CELLS = 4_000_000  # rows × columns at which single columns are looked at
FEW = 0.005  # a smaller share of copied rows moves no score that a report prints
NAMED = 5  # places or columns that one sentence names


@dataclass(frozen=True)
class Doubt:
    """One doubt about one place or column of one task.

    Args:
        kind: unit (also in the training rows), unit at home, copies, label or domain (a column tells it alone).
        about: the place, or the column.
        count, of: rows concerned, of this many in the place.
        value: AUC or R² of the column alone.
        scale: "AUC" or "R²".
        unit: what the units are called.
    """

    kind: Kind
    about: str
    count: int = 0
    of: int = 0
    value: float = 0.0
    scale: str = "AUC"
    unit: str = "unit"


def doubts(task: Task[Any], unit: str = "unit") -> list[Doubt]:
    """Return every doubt about a task's data; what does not apply to them is left out.

    Units are compared for any data. Copies and single columns need ``Examples`` whose inputs are a DataFrame or a
    two-dimensional array. Domains that are made when they are asked for are loaded only if one of these applies;
    stress domains are home distorted on purpose and are passed over.

    Args:
        task: with its source and domains.
        unit: what the units are called, for the sentence.
    """
    has_units = optional_column(task.source.train, "unit") is not None
    if not has_units and not _tabular(task.source.train):
        return []
    places = [(d, d.load()) for d in task.domains if d.role != "stress"]
    places = [(d, data) for d, data in places if len(data)]
    found = shared_units(task, places, unit) if has_units else []
    return found + about_rows(task, places)


def _tabular(data: Any) -> bool:
    if not isinstance(data, Examples) or not len(data):
        return False
    inputs = data.inputs
    return hasattr(inputs, "iloc") or (isinstance(inputs, np.ndarray) and inputs.ndim == 2)


# --- units on both sides ----------------------------------------------------------------------------------------------


def shared_units(task: Task[Any], places: Sequence[tuple[Domain[Any], Any]], unit: str = "unit") -> list[Doubt]:
    """Return where rows share a unit with training rows; else, elsewhere, with the rows held out at home."""
    trained = _units(task.source.train) | _units(task.source.validation)
    home = set[str]().union(*(_units(data) for d, data in places if d.role == "home"))
    found = []
    for domain, data in places:
        for kind, known in (("unit", trained), ("unit at home", home)):
            count = _among(data, known)
            if count and (kind == "unit" or domain.role == "elsewhere"):
                found.append(Doubt(kind, domain.name, count, len(data), unit=unit))  # type: ignore[arg-type]
                break
    return found


def _units(data: Any) -> set[str]:
    return set() if data is None else set(_different(data)[1])


def _among(data: Any, known: set[str]) -> int:
    """Return how many rows have a unit that is known; a unit that is missing is nobody's."""
    codes, different = _different(data)
    return int(np.isin(codes, [k for k, name in enumerate(different) if name in known]).sum())


def _different(data: Any) -> tuple[Array, list[str]]:
    """Return each row's unit as a code (-1: missing) and the units as texts: 7, 7.0 and "7" are one."""
    values = optional_column(data, "unit")
    if values is None:
        return np.empty(0, int), []
    codes, different = pd.factorize(values)
    return codes, [as_text(v) for v in different.tolist()]


# --- rows and columns -------------------------------------------------------------------------------------------------


def about_rows(task: Task[Any], places: Sequence[tuple[Domain[Any], Any]]) -> list[Doubt]:
    """Return doubts about copied rows and about columns that tell the label or the domain alone."""
    train = task.source.train
    if not _tabular(train):
        return []
    alike = [(d, data) for d, data in places if _tabular(data) and columns_of(data) == columns_of(train)]
    table = Columns.of([train, *(data for _, data in alike)])
    if table is None:
        return []
    found = []
    for (domain, data), count in zip(alike, copied_rows(table), strict=True):
        if count and count >= FEW * len(data):
            found.append(Doubt("copies", domain.name, count, len(data)))
    return [*found, *_told_label(table, train), *_told_domain(table, train, alike)]


def _told_label(table: Columns, train: Examples) -> list[Doubt]:
    y = None if train.labels is None else np.asarray(train.labels)
    if y is None or y.ndim != 1 or y.dtype.kind not in "biuf":
        return []
    known = np.flatnonzero(np.isfinite(y))
    rows = known[spread_by(table.rows[0][known], _most(table))]
    measure, scale = (tells.class_auc, "AUC") if train.classes is not None else (tells.r2, "R²")
    return _telling("label", table, {0: rows}, y[rows], measure, scale)


def _told_domain(table: Columns, train: Examples, places: Sequence[tuple[Domain[Any], Any]]) -> list[Doubt]:
    """Look for columns that say where a row comes from; rows without the value are left out: that is said elsewhere."""
    where = _where(train, places)
    share = _most(table) / max(1, sum(map(len, where)))
    rows = {k: spread_by(table.rows[k], int(np.ceil(share * len(w)))) for k, w in enumerate(where)}
    told = np.concatenate([where[k][at] for k, at in rows.items()])
    _, codes = np.unique(told.astype(str), return_inverse=True)
    return _telling("domain", table, rows, codes, lambda x, y: tells.class_auc(x, y, missing=False), "AUC")


def _where(train: Examples, places: Sequence[tuple[Domain[Any], Any]]) -> list[Array]:
    """Return where each row comes from: by the domain column if all have one (a source may join domains), else by place."""
    columns = [optional_column(data, "domain") for data in (train, *(data for _, data in places))]
    if all(c is not None for c in columns):
        return [np.asarray(c, object) for c in columns]
    names = ["", *("" if d.role == "home" else d.name for d, _ in places)]
    return [np.full(len(data), name, object) for name, data in zip(names, (train, *(data for _, data in places)), strict=True)]


def _most(table: Columns) -> int:
    return min(ROWS, CELLS // max(1, table.width))


def _telling(kind: Kind, table: Columns, rows: Mapping[int, Array], y: Array, measure: Measure, scale: str) -> list[Doubt]:
    """Return a doubt for each column whose measure on these rows is above ``SURE``; most are dismissed on a few of them."""
    prints = np.concatenate([table.rows[k][at] for k, at in rows.items()])
    order = np.argsort(prints, kind="stable")
    glance = order[spread_by(prints[order], GLANCE)]
    found = []
    for name, values in table.each(rows):
        if measure(values[glance], y[glance]) < PROMISING:  # NaN: too few rows to dismiss it
            continue
        if (value := measure(values[order], y[order])) > SURE:
            found.append(Doubt(kind, name, value=value, scale=scale))
    return found


# --- in words -----------------------------------------------------------------------------------------------------------


def sentences(found: Iterable[Doubt]) -> list[str]:
    """Return one sentence for each kind of doubt, over all tasks that raised it.

    Examples:
        >>> sentences([Doubt("unit", "north", 312, 4100, unit="writer")])[0].split(":")[0]
        '312 of 4,100 rows of north share a `writer` with training rows'
    """
    by_kind: dict[Kind, dict[str, Doubt]] = defaultdict(dict)
    for doubt in found:
        kept = by_kind[doubt.kind].setdefault(doubt.about, doubt)
        if (doubt.count, doubt.value) > (kept.count, kept.value):
            by_kind[doubt.kind][doubt.about] = doubt
    written = {
        "unit": _unit,
        "unit at home": _unit_at_home,
        "copies": _copies,
        "label": _label,
        "domain": _domain,
    }
    return [write(list(by_kind[kind].values())) for kind, write in written.items() if kind in by_kind]


def _unit(found: list[Doubt]) -> str:
    unit = found[0].unit
    return f"{_rows(found)} share a `{unit}` with training rows: scores there partly measure how well known ones are remembered; keep every `{unit}` on one side."


def _unit_at_home(found: list[Doubt]) -> str:
    unit = found[0].unit
    return f"{_rows(found)} share a `{unit}` with rows held out at home: intervals take the two places as independent, which they are not."


def _copies(found: list[Doubt]) -> str:
    return f"{_rows(found)} are copies of training rows (same features, same label): scores there partly measure memory; remove the copies."


def _label(found: list[Doubt]) -> str:
    many = len(found) > 1
    return (
        f"{_listed([f'{d.about} ({d.scale} {_shown(d)})' for d in found])} alone {'give' if many else 'gives'} the label in the source"
        f"{', each by itself' if many else ''}: {'are they' if many else 'is it'} known before the label is? If not, exclude {'them' if many else 'it'}."
    )


def _domain(found: list[Doubt]) -> str:
    many = len(found) > 1
    return (
        f"{_listed([f'{d.about} (AUC {_shown(d)})' for d in found])} alone {'tell' if many else 'tells'} which domain a row comes from"
        f"{', each by itself' if many else ''}: the values of one place do not occur in another, so nothing learnt from "
        f"{'them' if many else 'it'} can be expected to hold elsewhere; exclude {'them' if many else 'it'}, or read the numbers with that in mind."
    )


def _shown(doubt: Doubt) -> str:
    return f"{min(doubt.value, 1):.3f}"


def _rows(found: list[Doubt]) -> str:
    return _listed([f"{d.count:,} of {d.of:,} rows of {d.about}" for d in sorted(found, key=lambda d: -d.count / d.of)])


def _listed(items: list[str]) -> str:
    shown = items[:NAMED] + ([f"{len(items) - NAMED} more"] if len(items) > NAMED else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
