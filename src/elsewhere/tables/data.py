"""Tables in: infer types, choose roles, say in words what is odd about them."""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from elsewhere.data import Array, own
from elsewhere.encoding import as_numbers, is_category
from elsewhere.errors import UserError, did_you_mean, one_line
from elsewhere.tables.order import canonical_order

Kind = Literal["classification", "regression"]
MOST_CLASSES = 1000
FEW_VALUES = 10  # whole numbers with no more values than these are classes
_COMPARISON = re.compile(r"^(.+?)\s*(>=|<=|==|!=|>|<)\s*(.+)$")
_OPERATORS = {">": operator.gt, "<": operator.lt, ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne}
_STANDS_FOR_MISSING = (0, -1, -9, -99, -999, -9999, 99, 999, 9999)


@dataclass(frozen=True)
class Roles:
    """Which column plays which part; every other column is a feature."""

    predict: str
    domain: str
    features: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    unit: str | None = None
    group: str | None = None
    weight: str | None = None
    id: str | None = None
    kind: Kind | None = None
    carried: tuple[str, ...] = ()  # read by a learner beside the features


@dataclass(frozen=True)
class Prepared:
    """A table ready to be split.

    Args:
        inputs: the features.
        labels: [n] class codes or numbers.
        classes: names of the classes; None: the labels are numbers.
        columns: [n] each; roles by their reserved names, the table's own as ``column:NAME``.
        notes: sentences that stand before the numbers of every report.
        types: one row for each feature.
        inferred: sentences for the plan: what nobody said and was inferred.
    """

    inputs: pd.DataFrame
    labels: Array
    classes: tuple[str, ...] | None
    columns: dict[str, Array]
    notes: tuple[str, ...]
    types: pd.DataFrame = field(repr=False)
    inferred: tuple[str, ...] = ()


def prepare(frame: pd.DataFrame, roles: Roles, as_stored: bool = False) -> Prepared:
    """Give columns their roles, drop rows without label or domain, note what is odd.

    Args:
        frame: the table.
        roles: which column plays which part.
        as_stored: keep the order of rows; else they are ordered by what they hold (by ``roles.id``
            where there is one), so that splits and fits do not depend on their order in the file.

    Raises:
        UserError: a column does not exist, leaks, or cannot play its role.
    """
    frame = _string_names(frame)
    label, behind = _label(frame, roles.predict)
    _check_roles(frame, roles, behind)
    kept, notes = _with_label_and_domain(frame, label, roles)
    rows = np.flatnonzero(kept.to_numpy())
    if not as_stored:
        content = frame.loc[kept]
        rows = rows[canonical_order(content if roles.id is None else content[[roles.id]])]
    frame = frame.iloc[rows].reset_index(drop=True)
    label = label.iloc[rows].reset_index(drop=True)
    inputs, more = _features(frame, roles, behind)
    labels, classes = _encode(label, roles)
    columns = _columns(frame, roles, rows)
    odd = audit(inputs, columns["domain"], labels, classes)
    said = (_kind_said(label, roles, classes),)
    all_notes = (*notes, *more, *odd)
    return Prepared(inputs, labels, classes, columns, all_notes, describe(inputs), said)


def _string_names(frame: pd.DataFrame) -> pd.DataFrame:
    names = [str(c) for c in frame.columns]
    if len(set(names)) < len(names):
        raise UserError(f"the table has two columns called {next(n for n in names if names.count(n) > 1)!r}; rename one")
    return frame.set_axis(names, axis=1)


def _label(frame: pd.DataFrame, predict: str) -> tuple[pd.Series[Any], str]:
    """Return the label column and the raw column behind it; ``predict`` may be a comparison."""
    if predict in frame.columns:
        return frame[predict], predict
    if match := _COMPARISON.match(predict):
        name, sign, text = match.groups()
        column = frame[_known(name, frame, "predict")]
        try:
            bound: Any = text.strip("'\"") if is_category(column) else float(text)
            truth = _OPERATORS[sign](column, bound)
        except (TypeError, ValueError) as error:
            raise UserError(f"cannot compare column {name!r} ({column.dtype}) with {text!r}") from error
        answer: pd.Series[Any] = truth.map({True: "yes", False: "no"}).where(column.notna(), None)
        return answer, name
    _known(predict, frame, "predict")
    raise AssertionError


def _known(name: str, frame: pd.DataFrame, role: str) -> str:
    if name not in frame.columns:
        raise UserError(f"{role} column {name!r} is not in the table{did_you_mean(name, frame.columns)}")
    return name


def _check_roles(frame: pd.DataFrame, roles: Roles, behind: str) -> None:
    taken = {behind: "predict"}
    for role in ("domain", "unit", "group", "weight", "id"):
        name = getattr(roles, role)
        if name is None:
            continue
        _known(name, frame, role)
        if (name in taken and role in ("domain", "weight")) or taken.get(name) == "predict":
            raise UserError(f"column {name!r} cannot be both {taken[name]} and {role}")
        taken.setdefault(name, role)
    for name in roles.carried:
        _known(name, frame, "prediction")
        if name == behind:
            raise UserError(f"column {name!r} is the label and cannot be the given prediction too")
    for name in roles.features or ():
        if taken.get(_known(name, frame, "feature")) in ("predict", "domain", "weight", "id", "unit"):
            raise UserError(f"feature {name!r} is the {taken[name]} column: it would leak; leave it out of --features")
        if name in roles.carried:
            told = f"feature {name!r} is read by a learner beside the features"
            raise UserError(f"{told}: leave it out of --features")
    for name in roles.exclude:
        if _known(name, frame, "excluded") in (roles.features or ()):
            raise UserError(f"column {name!r} is named in --features and in --exclude; remove it from one of them")
    if roles.kind not in (None, *get_args(Kind)):
        raise UserError(f"kind must be {' or '.join(get_args(Kind))}, not {roles.kind!r}")


def _with_label_and_domain(frame: pd.DataFrame, label: pd.Series[Any], roles: Roles) -> tuple[pd.Series[bool], list[str]]:
    known = label.notna()
    if not is_category(label):
        known &= np.isfinite(as_numbers(label))
    placed = frame[roles.domain].notna()
    notes = []
    if lost := int((~known).sum()):
        notes.append(f"{lost:,} of {len(frame):,} rows have no {roles.predict} and were dropped.")
    if lost := int((known & ~placed).sum()):
        notes.append(f"{lost:,} of {len(frame):,} rows have no {roles.domain} and were dropped.")
    kept = known & placed
    if not kept.any():
        raise UserError(f"no row has both {roles.predict!r} and {roles.domain!r}")
    return kept, notes


def _features(frame: pd.DataFrame, roles: Roles, behind: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the features, and sentences about the columns that were left out."""
    taken = {behind, roles.domain, roles.unit, roles.group, roles.weight, roles.id, *roles.carried, *roles.exclude}
    names = list(roles.features) if roles.features is not None else [c for c in frame.columns if c not in taken]
    if len(set(names)) < len(names):
        raise UserError(f"feature {next(n for n in names if names.count(n) > 1)!r} is named twice")
    kept: dict[str, Any] = {}
    notes = []
    for name in names:
        values = frame[name]
        if values.isna().all():
            notes.append(f"Column {name} is missing in every row and was left out.")
        elif roles.features is None and _row_names(name, values):
            told = "has no name in the file and another value in every row"
            notes.append(f"{name} {told}: row names, left out; name it in the header to use it.")
        elif is_category(values):
            try:
                text = values.astype(str)
                levels = values.nunique()
            except TypeError as error:
                raise UserError(f"column {name!r} holds {type(values.dropna().iloc[0]).__name__} values, not numbers or text; leave it out with --exclude") from error
            if roles.features is None and levels > 50 and levels > len(values) / 2:
                notes.append(f"Column {name} looks like an identifier ({levels:,} different texts) and was left out; name it in --features to keep it.")
            else:
                kept[name] = text.where(values.notna(), None)
                if levels > 50:
                    notes.append(f"Column {name} has {levels:,} categories; learners that need one column a category keep the 50 most frequent.")
        else:
            if pd.api.types.is_float_dtype(values) and np.isinf(values.to_numpy(dtype=float, na_value=np.nan)).any():
                notes.append(f"{int(np.isinf(values.to_numpy(dtype=float, na_value=np.nan)).sum()):,} infinite values of {name} count as missing.")
                values = values.replace([np.inf, -np.inf], np.nan)
            kept[name] = values
    if not kept:
        raise UserError("no feature is left: every column is a label, a domain, left out or missing")
    return pd.DataFrame(kept, index=frame.index), notes


def _row_names(name: str, values: pd.Series[Any]) -> bool:
    """Return whether a column is an index that was written without a name."""
    return bool(re.fullmatch(r"Unnamed: \d+", name)) and bool(values.is_unique)


def _encode(label: pd.Series[Any], roles: Roles) -> tuple[Array, tuple[str, ...] | None]:
    if label.nunique() < 2:
        raise UserError(f"the label {roles.predict!r} is {one_line(label.iloc[0], 40)!r} in every row: there is nothing to predict")
    kind = roles.kind or infer_kind(label)
    if kind == "regression":
        if is_category(label):
            raise UserError(f"the label {roles.predict!r} is text; it cannot be a number (--kind regression)")
        return as_numbers(label), None
    names = label.map(class_name)
    classes = tuple(sorted(names.unique(), key=_by_number))
    if len(classes) > MOST_CLASSES:
        raise UserError(f"the label {roles.predict!r} has {len(classes):,} different values: no classes; is it an identifier, or --kind regression?")
    return pd.Categorical(names, categories=list(classes)).codes.astype(np.int64), classes


def _kind_said(label: pd.Series[Any], roles: Roles, classes: tuple[str, ...] | None) -> str:
    """Return what the label is taken for, and the option that changes it."""
    if classes is None:
        other = "" if roles.kind else "; --kind classification predicts its values as classes"
        return f"label {roles.predict}: a number (regression){other}"
    shown = ", ".join(classes[:8]) + (" …" if len(classes) > 8 else "")
    told = f"label {roles.predict}: {len(classes)} classes: {shown}"
    if roles.kind or is_category(label) or pd.api.types.is_bool_dtype(label):
        return told
    rule = f"whole numbers, at most {FEW_VALUES} of them, count as classes"
    return f"{told} ({rule}; --kind regression predicts the number)"


def infer_kind(label: pd.Series[Any]) -> Kind:
    """Return classification for text, truth values and whole numbers with at most 10 values; else regression."""
    if is_category(label) or pd.api.types.is_bool_dtype(label):
        return "classification"
    x = as_numbers(label)
    whole = bool((x == np.round(x)).all())
    return "classification" if whole and label.nunique() <= FEW_VALUES else "regression"


def class_name(value: Any) -> str:
    """Write a class as text; 1.0 and 1 are one class."""
    return str(int(value)) if isinstance(value, (float, np.floating)) and float(value).is_integer() else str(value)


def _by_number(name: str) -> tuple[int, float, str]:
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name


def _columns(frame: pd.DataFrame, roles: Roles, rows: Array) -> dict[str, Array]:
    columns: dict[str, Array] = {"domain": frame[roles.domain].map(class_name).to_numpy(object)}
    columns["id"] = frame[roles.id].map(class_name).to_numpy(object) if roles.id else rows
    if roles.id and len(set(columns["id"])) < len(columns["id"]):
        raise UserError(f"id column {roles.id!r} names some rows twice; is it a unit (--unit {roles.id})?")
    for role in ("unit", "group"):
        if name := getattr(roles, role):
            if frame[name].isna().any():
                raise UserError(f"{int(frame[name].isna().sum()):,} rows have no {role} in column {name!r}; fill or drop them")
            columns[role] = frame[name].map(class_name).to_numpy(object)
    if roles.group:  # under its own name too: explainers are asked for it by that
        columns[own(roles.group)] = columns["group"]
    if roles.weight:
        columns["weight"] = _weights(frame[roles.weight], roles.weight)
    for name in roles.carried:
        values = frame[name]
        columns[own(name)] = values.to_numpy(object) if is_category(values) else values.to_numpy()
    return columns


def _weights(values: pd.Series[Any], name: str) -> Array:
    if is_category(values):
        raise UserError(f"weight column {name!r} holds text, not numbers")
    w = as_numbers(values)
    if not np.isfinite(w).all() or (w < 0).any() or not w.sum() > 0:
        raise UserError(f"weight column {name!r} must hold numbers ≥ 0 in every row, not all 0; {int((~np.isfinite(w) | (w < 0)).sum()):,} rows do not")
    return w


def describe(inputs: pd.DataFrame) -> pd.DataFrame:
    """Return one row a feature: its inferred type, how much is missing, an example."""
    rows = []
    for name in inputs.columns:
        values = inputs[name]
        text = pd.api.types.is_datetime64_any_dtype(values)
        levels = values.nunique()
        kind = f"category ({levels})" if is_category(values) else "date" if text else "truth value" if pd.api.types.is_bool_dtype(values) else "number"
        known = values.dropna()
        rows.append({"feature": name, "type": kind, "missing": float(values.isna().mean()), "example": one_line(known.iloc[0], 30) if len(known) else ""})
    return pd.DataFrame(rows)


def audit(inputs: pd.DataFrame, domain: Array, labels: Array, classes: Sequence[str] | None, most: int = 12) -> list[str]:
    """Return sentences about what a reader must know: columns never measured somewhere, values that stand for missing, one class only."""
    said = []
    places, counts = np.unique(domain, return_counts=True)
    for name in inputs.columns:
        said += _odd_values(name, inputs[name], domain, places)
    for place, n in zip(places, counts, strict=True):
        if classes is not None and len(present := np.unique(labels[domain == place])) == 1:
            said.append(f"{place} has only one class, {classes[int(present[0])]}: AUROC and calibration say little there.")
        if n < 30:
            said.append(f"{place} has only {n} rows: its interval is wide.")
    return said if len(said) <= most else [*said[:most], f"… and {len(said) - most} more remarks of this kind."]


def _odd_values(name: str, values: pd.Series[Any], domain: Array, places: Array) -> list[str]:
    absent = values.isna().to_numpy()
    shares = {place: float(absent[domain == place].mean()) for place in places}
    said = [f"{name} was never measured in {place}." for place, share in shares.items() if share == 1]
    for place, share in shares.items():
        if 0.5 <= share < 1 and min(shares.values()) < 0.1:
            said.append(f"{name} is missing in {share:.0%} of {place}.")
    if not is_category(values) and (stand_in := _stands_for_missing(as_numbers(values))) is not None:
        x = as_numbers(values)
        where = [(place, float((x[domain == place] == stand_in).mean())) for place in places]
        for place, share in where:
            if share == 1:
                said.append(f"{name} is {stand_in:g} in every row of {place}: it was never measured there?")
        told = ", ".join(f"{round(share * (domain == place).sum())} in {place}" for place, share in where if 0 < share < 1)
        if told:
            said.append(f"{name} is {stand_in:g} in some rows, far from its other values ({told}): does {stand_in:g} stand for missing?")
    return said


def _stands_for_missing(x: Array) -> float | None:
    """Return a usual stand-in for missing that lies further from all other values than those spread (their interquartile range)."""
    x = x[np.isfinite(x)]
    for value in _STANDS_FOR_MISSING:
        rest = x[x != value]
        if len(rest) == len(x) or len(np.unique(rest)) < 5 or len(rest) < len(x) / 4:
            continue
        spread = float(np.subtract(*np.percentile(rest, [75, 25])))
        apart = rest.min() - value if value < rest.min() else value - rest.max() if value > rest.max() else 0.0
        if apart > max(spread, 0):
            return float(value)
    return None
