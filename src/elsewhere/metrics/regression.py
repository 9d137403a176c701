"""Metrics of predicted values."""

from __future__ import annotations

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.errors import Undefined
from elsewhere.metrics.weighting import weights
from elsewhere.prediction import ValuePrediction
from elsewhere.task import Estimate, Metric


def squared_error(prediction: ValuePrediction, data: Examples) -> Array:
    """Return (mean - label)² [n]; of several numbers an example, their mean."""
    return _each(np.square(prediction.mean - np.asarray(data.labels, float)))


def absolute_error(prediction: ValuePrediction, data: Examples) -> Array:
    """Return |mean - label| [n]; of several numbers an example, their mean."""
    return _each(np.abs(prediction.mean - np.asarray(data.labels, float)))


def root_mean_squared_error(prediction: ValuePrediction, data: Examples) -> Estimate:
    """Return sqrt(mean squared error); its influence is that of the mean, divided by 2 RMSE."""
    e, w = squared_error(prediction, data), weights(data)
    mean = float((w * e).mean())
    root = mean**0.5
    return Estimate(root, influence=w * (e - mean) / (2 * root) if root > 0 else np.zeros(len(e)))


def r_squared(prediction: ValuePrediction, data: Examples) -> Estimate:
    """Return 1 - Σ (y - mean)² / Σ (y - ȳ)², ȳ the mean label of this domain."""
    e, w, y = squared_error(prediction, data), weights(data), np.asarray(data.labels, float)
    if y.ndim > 1:
        raise Undefined("R² of several numbers at once has no one variance")
    spread = np.square(y - (w * y).mean())
    variance = float((w * spread).mean())
    if variance <= 0:
        raise Undefined("the label is constant")
    ratio = float((w * e).mean()) / variance
    return Estimate(1 - ratio, influence=-w * (e - ratio * spread) / variance)


def _each(values: Array) -> Array:
    return values if values.ndim == 1 else np.asarray(values.mean(1))


LOSS = (0.0, float("inf"))
SQUARED_ERROR = Metric("squared_error", squared_error, higher_is_better=False, range=LOSS)
MAE = Metric("mae", absolute_error, higher_is_better=False, range=LOSS)
RMSE = Metric("rmse", root_mean_squared_error, higher_is_better=False, range=LOSS)
R2 = Metric("r2", r_squared, range=(float("-inf"), 1.0))
