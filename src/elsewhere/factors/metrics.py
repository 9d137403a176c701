"""How well each factor is read off images: R² against the variance of the whole grid, and what predictions are pulled to (spec 14, 2.3 and 2.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elsewhere.data import Array, optional_column
from elsewhere.errors import Undefined, UserError
from elsewhere.factors.grid import Factors, Split
from elsewhere.prediction import ValuePrediction
from elsewhere.task import Estimate, Metric

NEW = "new factor"  # column of a domain's examples: the one factor whose value is held out in them


def factor_metrics(factors: Factors, split: Split, targets: Array, train: Array) -> list[Metric]:
    """Return the metrics of a factor task: r2 (headline), mse, signed error of each factor, and the pull to the known range.

    Args:
        factors: of the world.
        split: what is held out.
        targets: [rows, factors] of the whole grid: its variances are the scale.
        train: [n, factors] targets of the training images.
    """
    variance = np.asarray(targets, float).var(0)

    def r2(prediction: ValuePrediction, data: Any) -> Mapping[str, Any]:
        return grid_r2(_errors(prediction, data), variance, factors.names, factors.unordered)

    def error(prediction: ValuePrediction, data: Any) -> Mapping[str, Any]:
        e = _errors(prediction, data)
        return {name: e[:, i] for i, name in enumerate(factors.names)}

    def pull(prediction: ValuePrediction, data: Any) -> Mapping[str, Any]:
        new = optional_column(data, NEW)
        if new is None or split.kind != "extrapolation":
            raise Undefined("no single factor is extrapolated here")
        i = factors.names.index(str(new[0]))
        return pull_to_known(prediction.mean[:, i], np.asarray(data.labels)[:, i], train[:, i], factors.sizes[i])

    return [
        Metric("r2", r2, range=(-np.inf, 1.0)),
        Metric("mse", lambda p, data: np.square(_errors(p, data)).mean(1), False, range=(0, np.inf)),
        Metric("error", error, higher_is_better=False, range=(0, np.inf)),
        Metric("pull", pull, higher_is_better=False),
    ]


def grid_r2(errors: Array, variance: Array, names: Sequence[str], unordered: Sequence[str] = ()) -> dict[str, Estimate]:
    """Return R²_i = 1 - mean(error_i²) / Var_i for each factor, their mean ("") and the mean without factors that have no order ("ordered").

    Var_i is the variance over the whole grid, not over these images: a constant guess at the grid's mean scores 0 on the
    whole grid, and scores of different splits share one scale (Schott et al. 2022). Nothing is clipped. Factors with one value have no R².

    Args:
        errors: [n, factors] predicted minus true target.
        variance: [factors] of the targets over the grid.
        names: of the factors.
        unordered: names of the factors without order.

    Examples:
        >>> e = np.array([[0.0, 0.5], [0.0, -0.5]])
        >>> {k: round(v.value, 2) for k, v in grid_r2(e, np.array([0.25, 0.25]), ("a", "b")).items()}
        {'a': 1.0, 'b': 0.0, '': 0.5}
    """
    judged = [i for i in range(len(names)) if variance[i] > 0]
    if not judged:
        raise Undefined("every factor has one value")
    square = np.square(errors[:, judged]) / variance[judged]
    value, influence = 1 - square.mean(0), square.mean(0) - square
    found = {names[i]: Estimate(float(value[k]), influence=influence[:, k]) for k, i in enumerate(judged)}
    ordered = [k for k, i in enumerate(judged) if names[i] not in unordered]
    found[""] = Estimate(float(value.mean()), influence=influence.mean(1))
    if ordered and len(ordered) < len(judged):
        found["ordered"] = Estimate(float(value[ordered].mean()), influence=influence[:, ordered].mean(1))
    return found


def pull_to_known(predicted: Array, truth: Array, train: Array, size: int) -> dict[str, Any]:
    """Return how predictions of an extrapolated factor are pulled to what was seen (spec 14, 2.5).

    ``share`` of predictions within the trained range, at most its largest value + ½ / (size - 1); ``slope`` of the
    least-squares line of prediction on truth (absent for one held-out value); ``regression``, the mean of (y - ŷ) / (y - ȳ of training).

    Args:
        predicted, truth: [n] of one factor on images in which it alone is new.
        train: [m] its targets in training.
        size: how many values it has.

    Examples:
        >>> told = pull_to_known(np.array([0.5, 0.5]), np.array([0.75, 1.0]), np.array([0.0, 0.25, 0.5]), 5)
        >>> float(told["share"].mean()), round(told["slope"].value, 3) + 0.0
        (1.0, 0.0)
    """
    share = (predicted <= train.max() + 0.5 / (size - 1)).astype(float)
    told: dict[str, Any] = {"share": share, "regression": (truth - predicted) / (truth - train.mean())}
    x = truth - truth.mean()
    if np.ptp(truth) > 0:
        slope = float(x @ predicted / (x @ x))
        rest = predicted - predicted.mean() - slope * x
        told["slope"] = Estimate(slope, influence=x * rest / float((x @ x) / len(x)))
    return told


def _errors(prediction: ValuePrediction, data: Any) -> Array:
    truth = np.asarray(data.labels, float)
    if np.shape(prediction.mean) != truth.shape:
        raise UserError(f"predictions have shape {list(np.shape(prediction.mean))}; the labels have {list(truth.shape)}")
    return np.asarray(prediction.mean - truth)
