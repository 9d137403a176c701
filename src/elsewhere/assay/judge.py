"""What a fitted learner is worth in each domain: its scores, and the values per example behind them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from elsewhere.assay.plan import asked_of
from elsewhere.data import Array, optional_column
from elsewhere.errors import NotOffered, Undefined, UserError
from elsewhere.learner import Learner, offers
from elsewhere.run import Run
from elsewhere.task import Domain, Estimate, Metric, Task, standard_error


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
            scores.append(_score(domain, task.metrics[0].name, task.metrics[0], float("nan"), float("nan"), 0, "no examples"))
            continue
        try:
            prediction, model = predict(fitted, data, run)
        except NotOffered as reason:
            if asked_of(fitted, data.unlabelled()) is not None:
                raise
            # a question that this kind of learner cannot be asked
            scores.append(_score(domain, task.metrics[0].name, task.metrics[0], float("nan"), float("nan"), len(data), str(reason)))
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
    units, weight = optional_column(data, "unit"), optional_column(data, "weight")
    rows: list[dict[str, Any]] = []
    each: dict[str, Array] = {}
    for metric in task.metrics:
        try:
            value = metric.fn(model if metric.of == "learner" else prediction, data)
        except Undefined as error:
            rows.append(_score(domain, metric.name, metric, float("nan"), float("nan"), len(data), str(error)))
            continue
        for name, v in _flat(metric.name, value):
            if any(r["metric"] == name for r in rows):
                raise UserError(f"two metrics give a value called {name!r}")
            mean, error_, n, values, why = summarised(v, len(data), units, weight)
            rows.append(_score(domain, name, metric, mean, error_, n, why))
            if values is not None:
                each[name] = values
    return rows, each


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the members of a metric family; the suffix "" is the metric's own name."""
    if isinstance(value, Mapping):
        for suffix, v in value.items():
            yield from _flat(f"{name}/{suffix}" if suffix else name, v)
    else:
        yield name, value


def summarised(value: Any, n: int, units: Array | None, weight: Array | None) -> tuple[float, float, int, Array | None, str]:
    """Return value, standard error over units, examples judged, values per example (if any) and the reason for none."""
    if isinstance(value, Estimate):
        error = value.error if value.influence is None else standard_error(value.influence, units)
        return float(value.value), float(error), n, None, ""
    if np.ndim(value) == 0:
        return float(value), float("nan"), n, None, ""
    values = np.asarray(value, float)
    judged = ~np.isnan(values)
    if len(values) != n:
        raise UserError(f"a metric gave {len(values)} values for {n} examples")
    if not judged.any():
        return float("nan"), float("nan"), 0, values, "no example was judged"
    v = values[judged]
    w = np.ones(len(v)) if weight is None else np.asarray(weight, float)[judged]
    if not w.sum() > 0:
        return float("nan"), float("nan"), len(v), values, "the weights of the judged examples are 0"
    w = w / w.mean()
    mean = float((w * v).mean())
    return mean, standard_error(w * (v - mean), None if units is None else units[judged]), len(v), values, ""


def _score(domain: Domain[Any], name: str, metric: Metric, value: float, error: float, n: int, reason: str) -> dict[str, Any]:
    about = json.dumps(dict(domain.about), sort_keys=True, default=str)
    place = {"domain": domain.name, "role": domain.role, "about": about}
    return {**place, "metric": name, "higher_is_better": metric.higher_is_better, "value": value, "error": error, "n": n, "reason": reason}


def _examples(domain: Domain[Any], data: Any, each: Mapping[str, Array]) -> pa.Table:
    n = len(data)
    columns: dict[str, Any] = {"domain": pa.array([domain.name] * n).dictionary_encode(), "row": np.arange(n, dtype=np.int32)}
    for name in ("id", "unit", "group"):
        if (values := optional_column(data, name)) is not None:
            columns[name] = pa.array([str(v) for v in values.tolist()])
    if (weight := optional_column(data, "weight")) is not None:
        columns["weight"] = np.asarray(weight, float)
    return pa.table({**columns, **{k: pa.array(v) for k, v in each.items()}})
