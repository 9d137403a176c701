"""Does a confidence of 0.8 mean right in 8 of 10?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.metrics.bias import bias_of_absolute_sum
from elsewhere.metrics.classification import correct
from elsewhere.metrics.weighting import scaled, weights
from elsewhere.prediction import ClassPrediction
from elsewhere.task import Estimate, Metric

if TYPE_CHECKING:
    import pandas as pd


def expected_calibration_error(confidence: Array, right: Array, bins: int = 10, weight: Array | None = None) -> Estimate:
    """Return Σ_b (n_b / n) |mean right_b - mean confidence_b| over equal bins, b = min(⌊bins · confidence⌋, bins - 1).

    A confidence of exactly 1 belongs to the last bin (well-known implementations give it a bin of its own).

    Args:
        confidence: [n] probability of the predicted class, in [0, 1].
        right: [n] whether the prediction is right.
        bins: number of equal bins.
        weight: [n] weights.

    Examples:
        >>> round(expected_calibration_error(np.array([0.95, 1.0]), np.array([1, 0])).value, 3)
        0.475
    """
    w = scaled(weight, len(confidence))
    which = _bin(confidence, bins)
    excess = w * (right - confidence)
    total, n = np.bincount(which, excess, bins), len(confidence)
    value = float(np.abs(total).sum() / n)
    count = np.maximum(np.bincount(which, minlength=bins), 1)
    variance = np.bincount(which, np.square(excess), bins) - np.square(total) / count
    bias = bias_of_absolute_sum(total / n, np.sqrt(np.maximum(variance, 0)) / n)
    return Estimate(value, influence=np.sign(total)[which] * excess - value, bias=bias)


def reliability_curve(confidence: Array, right: Array, bins: int = 10) -> pd.DataFrame:
    """Return one row a bin that is not empty: mean confidence, accuracy, n."""
    import pandas as pd

    frame = pd.DataFrame({"bin": _bin(confidence, bins), "confidence": confidence, "accuracy": right})
    return frame.groupby("bin").agg(confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), n=("accuracy", "size")).reset_index()


def _bin(confidence: Array, bins: int) -> Array:
    return np.minimum(np.floor(bins * np.asarray(confidence, float)).astype(int), bins - 1)


def confidence(prediction: ClassPrediction, data: Examples) -> Array:
    """Return the probability of the predicted class [n]."""
    p = prediction.probabilities()
    return np.asarray(p[np.arange(len(p)), prediction.classes()], float)


def _ece(prediction: ClassPrediction, data: Examples) -> Estimate:
    return expected_calibration_error(np.minimum(confidence(prediction, data), 1.0), correct(prediction, data), weight=weights(data))


def _overconfidence(prediction: ClassPrediction, data: Examples) -> Array:
    return confidence(prediction, data) - correct(prediction, data)


ECE = Metric("ece", _ece, higher_is_better=False, range=(0, 1))
CONFIDENCE = Metric("confidence", confidence, range=(0, 1))
OVERCONFIDENCE = Metric("overconfidence", _overconfidence, higher_is_better=False, range=(-1, 1))
