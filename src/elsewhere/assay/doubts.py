"""Doubts about the data of a task: what makes scores look better than they are, before any run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd

from elsewhere.assay import tells
from elsewhere.assay.fingerprints import Columns, as_text, columns_of, copied_rows, spread_by
from elsewhere.data import Array, Examples, optional_column
from elsewhere.task import Domain, Task

Measure = Callable[[Array, Array], float]
Place = tuple[Domain[Any], Any]  # and its data
Kind = Literal["unit", "unit at home", "copies", "label", "domain"]
SURE = 0.995  # AUC, or R², of one column alone
GLANCE, PROMISING = 2000, 0.95  # on a glance at this many rows, a column below is dismissed
GLANCE_CELLS = 200_000  # rows × columns of the glance
WIDEST = 500  # columns beyond which single columns are not looked at: it would take longer than a fit
ROWS = 20_000  # at which single columns are looked at
CELLS = 4_000_000  # rows × columns at which single columns are looked at
FEW = 0.005  # a smaller share of copied rows moves no score that a report prints
NAMED = 5  # places or columns that one sentence names


@dataclass(frozen=True)
class Doubt:
    """One doubt about one place or column of one task.

    Args:
        kind: unit (also in the training rows), unit at home, copies; label or domain: a column
            tells it alone.
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

    Units are compared for any data. Copies and single columns need ``Examples`` whose inputs are a
    DataFrame or a two-dimensional array. Domains that are made when they are asked for are loaded
    only if one of these applies; stress domains are home distorted on purpose and are passed over.

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


# --- units on both sides --------------------------------------------------------------------------


def shared_units(task: Task[Any], places: Sequence[Place], unit: str = "unit") -> list[Doubt]:
    """Return where rows share a unit with training rows; else, elsewhere, with home's rows."""
    trained = _units(task.source.train) | _units(task.source.validation)
    home = set[str]().union(*(_units(data) for d, data in places if d.role == "home"))
    found = []
    for domain, data in places:
        if count := _among(data, trained):
            found.append(Doubt("unit", domain.name, count, len(data), unit=unit))
        elif domain.role == "elsewhere" and (count := _among(data, home)):
            found.append(Doubt("unit at home", domain.name, count, len(data), unit=unit))
    return found


def _units(data: Any) -> set[str]:
    return set() if data is None else set(_different(data)[1])


def _among(data: Any, known: set[str]) -> int:
    """Return how many rows have a unit that is known; a unit that is missing is nobody's."""
    codes, different = _different(data)
    return int(np.isin(codes, [k for k, name in enumerate(different) if name in known]).sum())


def _different(data: Any) -> tuple[Array, list[str]]:
    """Return each row's unit as a code (-1: missing), and the units: 7, 7.0 and "7" are one."""
    values = optional_column(data, "unit")
    if values is None:
        return np.empty(0, int), []
    codes, different = pd.factorize(values)
    return codes, [as_text(v) for v in different.tolist()]


# --- rows and columns -----------------------------------------------------------------------------


def about_rows(task: Task[Any], places: Sequence[Place]) -> list[Doubt]:
    """Return doubts about copied rows and about columns that tell the label or the domain alone."""
    train = task.source.train
    if not _tabular(train):
        return []
    names = columns_of(train)
    alike = [(d, data) for d, data in places if _tabular(data) and columns_of(data) == names]
    table = Columns.of([train, *(data for _, data in alike)])
    if table is None:
        return []
    found = []
    for (domain, data), count in zip(alike, copied_rows(table), strict=True):
        if count and count >= FEW * len(data):
            found.append(Doubt("copies", domain.name, count, len(data)))
    if table.width > WIDEST:
        return found
    return [*found, *_told_label(table, train), *_told_domain(table, train, alike)]


def _told_label(table: Columns, train: Examples) -> list[Doubt]:
    y = None if train.labels is None else np.asarray(train.labels)
    if y is None or y.ndim != 1 or y.dtype.kind not in "biuf":
        return []
    known = np.flatnonzero(np.isfinite(y))
    rows = known[spread_by(table.rows[0][known], _most(table))]
    measure, scale = (tells.class_auc, "AUC") if train.classes is not None else (tells.r2, "R²")
    return _telling("label", table, {0: rows}, y[rows], measure, scale)


def _told_domain(table: Columns, train: Examples, places: Sequence[Place]) -> list[Doubt]:
    """Look for columns that say where a row comes from.

    Rows without a value are left out: the audit of a table says where a column was never measured.
    """
    where = _where(train, places)
    if len({name for names in where for name in pd.unique(names)}) < 2:
        return []
    share = _most(table) / max(1, sum(map(len, where)))
    rows = {k: spread_by(table.rows[k], int(np.ceil(share * len(w)))) for k, w in enumerate(where)}
    told = np.concatenate([where[k][at] for k, at in rows.items()])
    _, codes = np.unique(told.astype(str), return_inverse=True)
    return _telling("domain", table, rows, codes, partial(tells.class_auc, missing=False), "AUC")


def _where(train: Examples, places: Sequence[Place]) -> list[Array]:
    """Return where each row comes from, for the training rows and each place.

    By the domain column if all have one, since a source may join domains; else by place.
    """
    everywhere = [train, *(data for _, data in places)]
    columns = [optional_column(data, "domain") for data in everywhere]
    if all(c is not None for c in columns):
        return [np.asarray(c, object) for c in columns]
    names = ["", *("" if d.role == "home" else d.name for d, _ in places)]
    sizes = map(len, everywhere)
    return [np.full(n, name, object) for name, n in zip(names, sizes, strict=True)]


def _most(table: Columns) -> int:
    return min(ROWS, CELLS // max(1, table.width))


def _telling(
    kind: Kind,
    table: Columns,
    rows: Mapping[int, Array],
    y: Array,
    measure: Measure,
    scale: str,
) -> list[Doubt]:
    """Return a doubt for each column whose measure on these rows is above ``SURE``.

    Most columns are dismissed on a few of the rows.
    """
    prints = np.concatenate([table.rows[k][at] for k, at in rows.items()])
    order = np.argsort(prints, kind="stable")
    glance = order[spread_by(prints[order], min(GLANCE, GLANCE_CELLS // table.width))]
    found = []
    for name, values in table.each(rows):
        if measure(values[glance], y[glance]) < PROMISING:  # NaN: too few rows to dismiss it
            continue
        if (value := measure(values[order], y[order])) > SURE:
            found.append(Doubt(kind, name, value=value, scale=scale))
    return found


# --- in words -------------------------------------------------------------------------------------


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
    return [WORDS[kind](list(by_kind[kind].values())) for kind in WORDS if kind in by_kind]


def _unit(found: list[Doubt]) -> str:
    unit = found[0].unit
    why = "scores there partly measure how well known ones are remembered"
    what = f"{_rows(found)} share a `{unit}` with training rows"
    return f"{what}: {why}; keep every `{unit}` on one side."


def _unit_at_home(found: list[Doubt]) -> str:
    why = "intervals take the two places as independent, which they are not"
    return f"{_rows(found)} share a `{found[0].unit}` with rows held out at home: {why}."


def _copies(found: list[Doubt]) -> str:
    what = "are copies of training rows (same features, same label)"
    return f"{_rows(found)} {what}: scores there partly measure memory; remove the copies."


def _label(found: list[Doubt]) -> str:
    what = f"{_columns(found)} alone {_verb(found, 'gives', 'give')} the label in the source"
    itself, it = _verb(found, "", ", each by itself"), _verb(found, "it", "them")
    asked = _verb(found, "is it", "are they")
    return f"{what}{itself}: {asked} known before the label is? If not, exclude {it}."


def _domain(found: list[Doubt]) -> str:
    it, itself = _verb(found, "it", "them"), _verb(found, "", ", each by itself")
    tells = f"{_columns(found)} alone {_verb(found, 'tells', 'tell')} which domain a row comes from"
    why = "values of one place hardly occur in another"
    so = f"so what is learnt from {it} cannot be expected to hold elsewhere"
    return f"{tells}{itself}: {why}, {so}; exclude {it}."


WORDS: dict[Kind, Callable[[list[Doubt]], str]] = {
    "unit": _unit,
    "unit at home": _unit_at_home,
    "copies": _copies,
    "label": _label,
    "domain": _domain,
}


def _verb(found: list[Doubt], one: str, many: str) -> str:
    return one if len(found) == 1 else many


def _columns(found: list[Doubt]) -> str:
    return _listed([f"{d.about} ({d.scale} {min(d.value, 1):.3f})" for d in found])


def _rows(found: list[Doubt]) -> str:
    """Return the counts, the greatest share first."""
    order = sorted(found, key=lambda d: -d.count / d.of)
    return _listed([f"{d.count:,} of {d.of:,} rows of {d.about}" for d in order])


def _listed(items: list[str]) -> str:
    more = len(items) - NAMED
    shown = [*items[:NAMED], *([f"{more} more"] if more > 0 else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
