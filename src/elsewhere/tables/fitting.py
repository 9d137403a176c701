"""A whole table to fit on, and new rows for the model that came of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from elsewhere.data import Examples, listed
from elsewhere.encoding import is_category
from elsewhere.errors import UserError, did_you_mean
from elsewhere.tables.data import Kind, Roles, class_name, prepare
from elsewhere.tables.reading import Reading, read_table, reading
from elsewhere.task import Source

_EVERYWHERE = "the table"  # the column of the one place that all rows are in


def source(
    path: str | pd.DataFrame,
    predict: str | None = None,
    domain: str | None = None,
    source: Sequence[str] = (),
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    unit: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    id: str | None = None,
    kind: Kind | None = None,
    **others: Any,
) -> tuple[Source[Examples], dict[str, Any], str]:
    """Return a table's rows as a source (all of them, or those of the domains in ``source``), what a model must remember, and a default learner.

    Raises:
        UserError: a column is missing or leaks, or an option is for assays only.
    """
    if others:
        raise UserError(f"--{next(iter(others)).replace('_', '-')} is for assays: a fit uses the whole table, or the domains named by --source")
    if predict is None:
        raise UserError("a table needs --predict COLUMN: what to predict")
    if source and domain is None:
        raise UserError("--source needs --domain COLUMN: the column that says where a row comes from")
    found = Reading(path) if isinstance(path, pd.DataFrame) else reading(path)
    raw = found.frame
    place = domain or _unused(_EVERYWHERE, raw)
    if domain is None:
        raw = raw.assign(**{place: "all"})
    names = [str(c) for c in raw.columns]
    roles = Roles(predict, place, None if features is None else tuple(listed(features, names)), tuple(listed(exclude, names)), unit, group, weight, id, kind)
    ready = prepare(raw, roles)
    data = Examples(ready.inputs, ready.labels, ready.columns, ready.classes)
    if source:
        places = sorted(set(ready.columns["domain"]))
        wanted = listed(source, places)
        for name in wanted:
            if name not in places:
                raise UserError(f"there is no domain {name!r}{did_you_mean(name, places)}")
        data = data.take(np.isin(ready.columns["domain"], wanted))
    columns = [{"name": str(name), "kind": _kind(ready.inputs[name])} for name in ready.inputs.columns]
    said = [*found.inferred, *ready.inferred, *found.notes, *ready.notes]
    return Source(data), {"columns": columns, "id": id, "predict": predict, "said": said}, "boosting"


def _unused(name: str, frame: pd.DataFrame) -> str:
    while name in frame.columns:
        name = f"{name} "
    return name


def new_rows(what: str | os.PathLike[str] | pd.DataFrame, remembered: Mapping[str, Any]) -> Examples:
    """Return new rows with the columns that a model was fitted on.

    Raises:
        UserError: a column is missing, or holds text where it held numbers; it is named.
    """
    frame = what if isinstance(what, pd.DataFrame) else read_table(what)
    where = "the table" if isinstance(what, pd.DataFrame) else str(what)
    frame = frame.set_axis([str(c) for c in frame.columns], axis=1)
    columns = remembered.get("columns", [])
    if missing := [c["name"] for c in columns if c["name"] not in frame.columns]:
        raise UserError(
            f"{where} lacks {len(missing)} of the model's {len(columns)} input columns: {', '.join(missing[:8])}; it has: {', '.join(frame.columns[:12])}{' …' if len(frame.columns) > 12 else ''}"
        )
    inputs = pd.DataFrame({c["name"]: _as_fitted(frame[c["name"]], c["kind"], where) for c in columns}, index=frame.index).reset_index(drop=True)
    name = remembered.get("id")
    ids = frame[name].map(class_name).to_numpy(object) if name in frame.columns else np.arange(len(frame))
    return Examples(inputs, None, {"id": ids})


def _kind(values: pd.Series[Any]) -> str:
    return "category" if is_category(values) else "date" if pd.api.types.is_datetime64_any_dtype(values) else "number"


def _as_fitted(values: pd.Series[Any], kind: str, where: str) -> pd.Series[Any]:
    """Return a column in the form it had when the model was fitted."""
    if kind == "category":
        return values.astype(str).where(values.notna(), None)
    found = _kind(values)
    if found != kind and not values.isna().all():
        odd = values.dropna().iloc[0]
        raise UserError(f"{where}: column {values.name!r} held {kind}s when the model was fitted and holds {'text' if found == 'category' else found + 's'} now, first {str(odd)[:40]!r}")
    return values if found == kind else pd.Series(np.nan, values.index, name=values.name)
