"""The reader of tables: a path and options in, a task function with its choices out."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from elsewhere.assay.plan import pilot
from elsewhere.assay.study import Study, learners_of
from elsewhere.data import listed
from elsewhere.errors import UserError, did_you_mean
from elsewhere.run import duration
from elsewhere.tables.data import Kind, Prepared, Roles
from elsewhere.tables.reading import read_table
from elsewhere.tables.tasks import prepared, table
from elsewhere.task import TaskFunction

MOST_LEFT_OUT = 10
PROTOCOLS = ("leave-one-out", "one-to-all", "past-to-future")
TRAINED_BEFORE = 0.6  # of the periods


def read(
    path: str | pd.DataFrame,
    predict: str | None = None,
    domain: str | None = None,
    source: Sequence[str] = (),
    protocol: str | None = None,
    period: str | None = None,
    cut: str | None = None,
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    unit: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    id: str | None = None,
    kind: Kind | None = None,
    home_share: float = 0.25,
    unlabelled: bool = False,
    carried: Sequence[str] = (),
    trained_on: str | None = None,
) -> TaskFunction:
    """Return the task function of a table; its choices are the sources (or the domains left out, or the cut) of the protocol.

    Raises:
        UserError: a column is missing or leaks, or more than 10 domains and no protocol.
    """
    if predict is None or domain is None:
        missing = "--predict COLUMN" if predict is None else "--domain COLUMN"
        raise UserError(f"a table needs {missing}: {'what to predict' if predict is None else 'the column that says where a row comes from'}")
    if protocol is not None and protocol not in PROTOCOLS:
        raise UserError(f"no protocol {protocol!r}{did_you_mean(protocol, PROTOCOLS)}")
    if kind not in (None, "classification", "regression"):
        raise UserError(f"kind must be classification or regression, not {kind!r}")
    columns = _column_names(path) if features or exclude else []
    features, exclude = None if features is None else listed(features, columns), listed(exclude, columns)
    where = {"frame": path} if isinstance(path, pd.DataFrame) else {"path": str(path)}
    given: dict[str, Any] = {"features": None if features is None else list(features), "exclude": list(exclude), "unit": unit, "group": group, "weight": weight, "id": id, "kind": kind}
    options = {"predict": predict, "domain": domain, "period": period, "home_share": home_share, "unlabelled": unlabelled, "trained_on": trained_on, **given}
    options["carried"] = list(dict.fromkeys([*carried, *([trained_on] if trained_on else [])]))
    roles = Roles(predict, domain, None if features is None else tuple(features), tuple(exclude), unit, group, weight, id, kind, tuple(options["carried"]))
    ready = prepared(None if "frame" in where else str(path), where.get("frame"), roles, period)
    places = sorted(set(ready.columns["domain"]))
    if len(places) < 2:
        raise UserError(f"the table has 1 domain, {places[0]!r}; an assay needs a source and at least 1 other")
    if len(places) > len(ready.labels) / 2:
        raise UserError(f"domain column {domain!r} has {len(places):,} different values in {len(ready.labels):,} rows; is it a number or a date? Then say --period")
    source = listed(source, places)
    name = "table" if "frame" in where else re.sub(r"[^\w.-]+", "-", Path(str(path)).name.split(".")[0]) or "table"
    default = {"home_share": 0.25, "unlabelled": False, "exclude": [], "carried": []}
    told = {**where, **{k: v for k, v in options.items() if v is not None and default.get(k, ...) != v}}
    choice, values = _choices(places, source, protocol, period, cut)
    chosen = _protocol_said(choice, values, len(places), protocol, bool(source), cut)
    base = TaskFunction(
        name,
        table.make,
        revision=table.revision,
        files=("path",),
        options=told,
        learners=_default_learners(ready),
        summary=_summary(ready, places, [chosen, _home_said(home_share, unit)]),
    )
    function = TaskFunction(**{**vars(base), "choices": {choice: values}})
    if choice == "leave_out" and len(values) > MOST_LEFT_OUT and protocol is None:
        raise UserError(_too_many(function, ready, str(path), predict, domain))
    return function


def _column_names(path: str | pd.DataFrame) -> list[str]:
    return [str(c) for c in (path if isinstance(path, pd.DataFrame) else read_table(path)).columns]


def _choices(places: list[str], source: list[str], protocol: str | None, period: str | None, cut: str | None) -> tuple[str, list[str]]:
    """Return the open choice and its values: each source, each domain left out, or the one cut."""
    for name in source:
        if name not in places:
            raise UserError(f"there is no domain {name!r}{did_you_mean(name, places)}")
    if cut is not None and cut not in places:
        raise UserError(f"there is no period {cut!r}{did_you_mean(cut, places)}")
    if protocol is None:
        protocol = "one-to-all" if source else "past-to-future" if period or cut else "leave-one-out"
    if source and protocol != "one-to-all":
        raise UserError(f"--source goes with --protocol one-to-all, not {protocol}")
    if cut is not None and protocol != "past-to-future":
        raise UserError(f"--cut goes with --protocol past-to-future, not {protocol}")
    if protocol == "one-to-all":
        return "source", list(dict.fromkeys(source)) or places
    if protocol == "past-to-future":
        return "cut", [cut or places[min(max(1, round(TRAINED_BEFORE * len(places))), len(places) - 1)]]
    return "leave_out", places


def _default_learners(ready: Prepared) -> tuple[str, ...]:
    return ("prior", "logistic-regression" if ready.classes else "ridge-regression", "boosting")


def _protocol_said(
    choice: str,
    values: list[str],
    places: int,
    protocol: str | None,
    source: bool,
    cut: str | None,
) -> str:
    """Return how the source is chosen, and the option that changes it where nobody chose it."""
    if choice == "leave_out":
        told, option = f"each of the {places} domains is left out in turn", "--protocol, --source"
    elif choice == "source":
        told = f"trained in {', '.join(values[:8])}{' …' if len(values) > 8 else ''}"
        told, option = f"{told}{', each in turn' * (len(values) > 1)}, judged in all others", ""
    else:
        told, option = f"trained on the periods before {values[0]}, judged in each later one", ""
        if cut is None:
            option = f"the first {TRAINED_BEFORE:.0%} of the periods; --cut changes it"
    chosen = protocol is not None or source or cut is not None
    return f"protocol: {told}" + (f" ({option})" if option and not chosen else "")


def _home_said(share: float, unit: str | None) -> str:
    whole = "rows are drawn one by one; --unit keeps units whole"
    if unit:
        whole = f"units of {unit} stay whole"
    told = f"home: {share:.0%} of the source is held out, anew for every seed"
    return f"{told} ({whole}; --home-share)"


def _summary(ready: Prepared, places: list[str], chosen: Sequence[str]) -> str:
    """Return what was inferred and what is odd, to be shown before anything runs."""
    types = ready.types.assign(missing=[f"{m:.0%}" for m in ready.types.missing])
    shown = types.to_string(index=False, max_rows=40)
    counts = pd.Series(ready.columns["domain"]).value_counts()
    named = ", ".join(f"{p} {counts[p]:,}" for p in places[:12])
    named += f", … ({len(places)} domains)" if len(places) > 12 else ""
    size = f"{len(ready.labels):,} rows in {len(places)} domains: {named}"
    lines = [size, *ready.inferred, *chosen]
    return "\n".join([*lines, *(f"note: {note}" for note in ready.notes), shown])


def _too_many(function: TaskFunction, ready: Prepared, path: str, predict: str, domain: str) -> str:
    """Return the one line that names both commands and how long they take."""
    values = next(iter(function.choices.values()))
    largest = str(pd.Series(ready.columns["domain"]).value_counts().index[0])
    all_of = pilot(Study((function.bind(leave_out=values[0]),), learners_of(function.learners)))
    one = pilot(Study((function.bind(source=largest),), learners_of(function.learners)))
    command = f"elsewhere assay {shlex.quote(path)} --predict {shlex.quote(predict)} --domain {shlex.quote(domain)}"
    return (
        f"{len(values)} domains are many: '{command} --protocol leave-one-out' leaves out each in turn (about {duration(all_of * len(values))}), "
        f"'{command} --source {shlex.quote(largest)}' trains in one and judges in all others (about {duration(one)})"
    )
