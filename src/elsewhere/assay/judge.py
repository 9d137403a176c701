"""What a fitted learner is worth in each domain: its scores, and the values per example behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from elsewhere.assay.constants import CONSTANT, constant_like
from elsewhere.assay.intervals import spread, spread_of_mean
from elsewhere.assay.plan import asked_of
from elsewhere.data import Array, optional_column
from elsewhere.errors import NotOffered, Undefined, UserError
from elsewhere.learner import Learner, offers
from elsewhere.run import Run
from elsewhere.task import Domain, Estimate, Metric, Task


def predict(fitted: Learner[Any, Any], data: Any, run: Run) -> tuple[Any, Any]:
    """Return the prediction on a domain's data without their labels, and the (adapted) learner that made it."""
    asked = asked_of(fitted, data.unlabelled())
    if asked is None:
        raise NotOffered(f"{type(fitted).__name__} takes {fitted.accepts.__name__}, and these data are {type(data).__name__}")
    model = fitted.adapt(asked, run) if offers(fitted, "adapt") and fitted.sees_unlabelled else fitted
    return model.predict(asked, run), model


def judge(task: Task[Any], fitted: Learner[Any, Any], run: Run) -> dict[str, pa.Table]:
    """Return the scores of a fitted learner in every domain, and the values per example behind them."""
    scores: list[dict[str, Any]] = []
    kept: list[pa.Table] = []
    for domain in task.domains:
        data = domain.load()
        if not len(data):
            scores.append(_score(domain, task.metrics[0].name, task.metrics[0], nothing(0, "no examples")))
            continue
        try:
            prediction, model = predict(fitted, data, run)
        except NotOffered as reason:
            if asked_of(fitted, data.unlabelled()) is not None:
                raise
            # a question that this kind of learner cannot be asked
            scores.append(_score(domain, task.metrics[0].name, task.metrics[0], nothing(len(data), str(reason))))
            continue
        except UserError as error:
            raise UserError(f"in {domain.name}: {error}") from error
        rows, each = _measure(task, domain, data, prediction, model)
        scores += rows
        if each:
            kept.append(_examples(domain, data, each))
    tables = {"scores": pa.Table.from_pylist(scores)}
    if kept:
        tables["examples"] = pa.concat_tables(kept, promote_options="permissive")
    return tables


def _measure(task: Task[Any], domain: Domain[Any], data: Any, prediction: Any, model: Any) -> tuple[list[dict[str, Any]], dict[str, Array]]:
    """Return the scores of every metric in a domain, and the values per example of those that have them."""
    units, weight = optional_column(data, "unit"), optional_column(data, "weight")
    rows: list[dict[str, Any]] = []
    each: dict[str, Array] = {}
    for metric in task.metrics:
        try:
            value = metric.fn(model if metric.of == "learner" else prediction, data)
        except Undefined as error:
            rows.append(_score(domain, metric.name, metric, nothing(len(data), str(error))))
            continue
        for name, v in _flat(metric.name, value):
            if any(r["metric"] == name for r in rows):
                raise UserError(f"two metrics give a value called {name!r}")
            judged = summarised(v, len(data), units, weight, metric.range)
            rows.append(_score(domain, name, metric, judged))
            if judged.values is not None:
                each[name] = judged.values
    if not any(r["metric"] == CONSTANT for r in rows):
        rows += _constant(task, domain, data, prediction, (units, weight))
    return rows, each


def _constant(task: Task[Any], domain: Domain[Any], data: Any, prediction: Any, told: tuple[Array | None, Array | None]) -> list[dict[str, Any]]:
    """Return the headline's score of the best constant of the source, where there is one to compare with."""
    metric = task.metrics[0]
    guess = constant_like(prediction, task.source.train) if metric.of == "prediction" else None
    if guess is None:
        return []
    try:
        value = dict(_flat(metric.name, metric.fn(guess, data))).get(metric.name)
    except (Undefined, UserError):
        return []
    if value is None:
        return []
    return [_score(domain, CONSTANT, metric, summarised(value, len(data), *told, metric.range))]


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the members of a metric family; the suffix "" is the metric's own name."""
    if isinstance(value, Mapping):
        for suffix, v in value.items():
            yield from _flat(f"{name}/{suffix}" if suffix else name, v)
    else:
        yield name, value


class Judged(NamedTuple):
    """A score: its value, how sure it is, the examples judged, their values, and why there is none."""

    value: float
    error: float
    n: int
    values: Array | None = None
    reason: str = ""
    freedom: float = float("inf")
    effective: float = float("nan")
    bias: float = 0.0


def nothing(n: int, reason: str) -> Judged:
    """Return the score of what could not be judged."""
    return Judged(float("nan"), float("nan"), n, reason=reason)


def summarised(
    value: Any,
    n: int,
    units: Array | None = None,
    weight: Array | None = None,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Judged:
    """Return the score of what a metric gave.

    Args:
        value: one number an example [n] (NaN: not judged), a number, or an ``Estimate``.
        n: examples of the domain.
        units: [n] the unit of each example.
        weight: [n] weights.
        within: the metric's range.
    """
    if isinstance(value, Estimate):
        return _of_estimate(value, n, units, within)
    if np.ndim(value) == 0:
        return Judged(float(value), float("nan"), n)
    values = np.asarray(value, float)
    if len(values) != n:
        raise UserError(f"a metric gave {len(values)} values for {n} examples")
    judged = ~np.isnan(values)
    if not judged.any():
        return nothing(0, "no example was judged")._replace(values=values)
    v = values[judged]
    w = None if weight is None else np.asarray(weight, float)[judged]
    if w is not None and not w.sum() > 0:
        return nothing(len(v), "the weights of the judged examples are 0")._replace(values=values)
    sure = spread_of_mean(v, w, None if units is None else units[judged], within)
    mean = float(np.average(v, weights=w))
    return Judged(mean, sure.error, len(v), values, "", sure.freedom, sure.effective)


def _of_estimate(found: Estimate, n: int, units: Array | None, within: tuple[float, float]) -> Judged:
    value, bias = float(found.value), float(found.bias)
    if found.influence is None:
        return Judged(value, float(found.error), n, bias=bias)
    error, freedom, _ = spread(found.influence, units)
    share = within == (0.0, 1.0) and np.isfinite(found.effective)
    if error == 0:  # the value lies at an end, or never varies: not the same as being exact
        error = 0.0 if share else float("nan")
        return Judged(value, error, n, None, "", freedom, found.effective, bias)
    effective = value * (1 - value) / error**2 if share and 0 < value < 1 else float("nan")
    return Judged(value, error, n, None, "", freedom, effective, bias)


def _score(domain: Domain[Any], name: str, metric: Metric, judged: Judged) -> dict[str, Any]:
    about = json.dumps(dict(domain.about), sort_keys=True, default=str)
    place = {"domain": domain.name, "role": domain.role, "about": about}
    least, most = metric.range
    told = {k: v for k, v in judged._asdict().items() if k != "values"}
    return {
        **place,
        "metric": name,
        "higher_is_better": metric.higher_is_better,
        **told,
        "least": least,
        "most": most,
    }


def _examples(domain: Domain[Any], data: Any, each: Mapping[str, Array]) -> pa.Table:
    n = len(data)
    columns: dict[str, Any] = {"domain": pa.array([domain.name] * n).dictionary_encode(), "row": np.arange(n, dtype=np.int32)}
    for name in ("id", "unit", "group"):
        if (values := optional_column(data, name)) is not None:
            columns[name] = pa.array([str(v) for v in values.tolist()])
    if (weight := optional_column(data, "weight")) is not None:
        columns["weight"] = np.asarray(weight, float)
    return pa.table({**columns, **{k: pa.array(v) for k, v in each.items()}})
