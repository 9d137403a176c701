"""Metrics that compare groups of people, by the ``group`` column."""

from __future__ import annotations

from typing import Any

import numpy as np

from elsewhere.data import Array, Examples, optional_column
from elsewhere.errors import Undefined
from elsewhere.metrics.bias import bias_of_absolute_sum, bias_of_least
from elsewhere.metrics.classification import SHARE, correct
from elsewhere.metrics.weighting import scaled, weights
from elsewhere.prediction import ClassPrediction
from elsewhere.task import Estimate, Metric


def demographic_disparity(predicted: Array, group: Array, weight: Array | None = None) -> Estimate:
    """Return D = Σ_e (n_e / n) · ½ Σ_k |share of class k in all - share of class k in group e|.

    Creager et al. 2020 and Locatello et al. 2019, as the assay of Wenzel et al. 2022 uses it.

    Examples:
        >>> round(demographic_disparity(np.array([0, 1, 0, 1, 1]), np.array(list("aabbb"))).value, 4)  # 2/25
        0.08
    """
    w = scaled(weight, len(predicted))
    k, e = _codes(predicted), _codes(group)
    joint = np.zeros((e.max() + 1, k.max() + 1))
    np.add.at(joint, (e, k), w)
    joint /= joint.sum()
    of_group, of_class = joint.sum(1), joint.sum(0)
    away = np.outer(of_group, of_class) - joint
    away[np.abs(away) < 1e-12] = 0
    sign = np.sign(away)
    pull = (sign @ of_class)[e] + (of_group @ sign)[k] - sign[e, k]
    influence = w * pull / 2
    value = float(np.abs(away).sum() / 2)
    return Estimate(value, influence=influence - influence.mean() * w, bias=_bias(joint, len(w)))


def _bias(joint: Array, n: int) -> float:
    """Return what is expected of a disparity above the truth, from the shares of group and class.

    A cell's share minus the product of its margins has the variance a (1 - a) b (1 - b) / n where
    group (share a) and class (share b) are independent.
    """
    a, b = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    error = np.sqrt(a * (1 - a) * b * (1 - b) / n)
    return bias_of_absolute_sum((joint - a * b).ravel(), error.ravel()) / 2


def equalised_odds(predicted: Array, labels: Array, group: Array, weight: Array | None = None) -> Estimate:
    """Return the largest difference between two groups in P(predicted = k | label = y), over k and y.

    For two classes this is the larger of the differences in true and false positive rates (Hardt et al. 2016; fairlearn).

    Raises:
        Undefined: fewer than two groups, or a group has no example of a class.
    """
    w = scaled(weight, len(predicted))
    e, n = _codes(group), len(predicted)
    groups = range(e.max() + 1)
    if len(groups) < 2:
        raise Undefined("one group only")
    worst = Estimate(-1.0)
    for y in np.unique(labels):
        cells = [(e == g) & (labels == y) for g in groups]
        mass = [float(w[c].sum()) for c in cells]
        if min(mass) <= 0:
            raise Undefined(f"a group has no example of class {y}")
        for k in np.unique(predicted):
            rate = [float(w[c] @ (predicted[c] == k)) / m for c, m in zip(cells, mass, strict=True)]
            high, low = int(np.argmax(rate)), int(np.argmin(rate))
            if rate[high] - rate[low] > worst.value:
                move = np.zeros(n)
                for g, sign in ((high, 1.0), (low, -1.0)):
                    c = cells[g]
                    move[c] += sign * w[c] * ((predicted[c] == k) - rate[g]) * n / mass[g]
                worst = Estimate(rate[high] - rate[low], influence=move)
    return worst


def demographic_parity_difference(accepted: Array, group: Array, weight: Array | None = None) -> Estimate:
    """Return the acceptance rate of the second of two groups (in the order of their names) minus that of the first: signed, unlike fairlearn's.

    Raises:
        Undefined: there are not two groups.

    Examples:
        >>> demographic_parity_difference(np.array([1, 0, 1, 1]), np.array(list("ffmm"))).value
        0.5
    """
    w, e = scaled(weight, len(accepted)), _codes(group)
    if len(e) == 0 or e.max() != 1:
        raise Undefined(f"{e.max() + 1 if len(e) else 0} groups: a signed difference needs two")
    mass = np.bincount(e, w)
    if mass.min() <= 0:
        raise Undefined("the weights of a group are 0")
    rate = np.bincount(e, w * accepted) / mass
    influence = np.where(e == 1, 1.0, -1.0) * w * (accepted - rate[e]) * len(e) / mass[e]
    return Estimate(float(rate[1] - rate[0]), influence=influence)


def worst_group_accuracy(prediction: ClassPrediction, data: Examples) -> Estimate:
    """Return the accuracy of the group that has the least."""
    group, right, w = _group(data), correct(prediction, data), weights(data)
    e = _codes(group)
    mass = np.bincount(e, w)
    share = np.bincount(e, w * right) / np.where(mass > 0, mass, 1)
    worst = int(np.argmin(np.where(mass > 0, share, np.inf)))
    influence = np.where(e == worst, w * (right - share[worst]) * len(e) / mass[worst], 0.0)
    answers = np.square(mass) / np.bincount(e, np.square(w))  # Kish's number
    kept = mass > 0
    error = np.sqrt((share * (1 - share) / answers)[kept])
    bias = bias_of_least(share[kept], error)
    return Estimate(float(share[worst]), influence=influence, effective=float(answers[worst]), bias=bias)


def _disparity(prediction: ClassPrediction, data: Examples) -> Estimate:
    return demographic_disparity(prediction.classes(), _group(data), weights(data))


def _odds(prediction: ClassPrediction, data: Examples) -> Estimate:
    return equalised_odds(prediction.classes(), np.asarray(data.labels), _group(data), weights(data))


def _accepted(prediction: ClassPrediction, data: Examples) -> Array:
    if data.classes is None or len(data.classes) != 2:
        raise Undefined("acceptance is of two classes")
    return (prediction.classes() == 1).astype(float)


def _difference(prediction: ClassPrediction, data: Examples) -> Estimate:
    return demographic_parity_difference(_accepted(prediction, data), _group(data), weights(data))


def _group(data: Examples) -> Array:
    group = optional_column(data, "group")
    if group is None:
        raise Undefined("the data have no group column")
    return group


def _codes(values: Any) -> Array:
    codes = np.unique(np.asarray(values), return_inverse=True)[1]
    return np.asarray(codes)


DEMOGRAPHIC_DISPARITY = Metric("demographic_disparity", _disparity, False, range=SHARE)
EQUALISED_ODDS = Metric("equalised_odds", _odds, False, range=SHARE)
ACCEPTANCE = Metric("acceptance", _accepted, range=SHARE)
DDP = Metric("ddp", _difference, range=(-1, 1))
WORST_GROUP_ACCURACY = Metric("worst_group_accuracy", worst_group_accuracy, range=SHARE)
