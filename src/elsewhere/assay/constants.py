"""What always guessing the same gets: the bar that every learner has to clear."""

from __future__ import annotations

from typing import Any

import numpy as np

from elsewhere.learner import as_examples
from elsewhere.metrics.weighting import weights
from elsewhere.prediction import ClassPrediction, ValuePrediction

CONSTANT = "constant_baseline"  # the metric that keeps the headline of a constant prediction


def constant_like(prediction: Any, train: Any) -> Any:
    """Return the constant prediction of a source: its shares of classes, or its mean label.

    Args:
        prediction: what it is compared with; decides kind, length and number of classes.
        train: the data that were trained on, with labels.

    Returns:
        A prediction of the same length, or None where no constant makes sense (labels that are
        neither classes nor numbers, or predictions of another kind).
    """
    plain = as_examples(train)
    if plain is None or plain.labels is None or not len(plain.labels):
        return None
    labels, w = np.asarray(plain.labels), weights(plain)
    if isinstance(prediction, ClassPrediction) and labels.ndim == 1 and labels.dtype.kind in "iu":
        return _shares(prediction, labels, w)
    if isinstance(prediction, ValuePrediction) and labels.dtype.kind in "iuf":
        mean = np.average(labels.astype(float), axis=0, weights=w)
        if np.shape(mean) == prediction.mean.shape[1:] and np.isfinite(mean).all():
            return ValuePrediction(np.broadcast_to(mean, prediction.mean.shape).copy())
    return None


def _shares(prediction: ClassPrediction, labels: Any, w: Any) -> ClassPrediction | None:
    given = prediction.logits if prediction.logits is not None else prediction.probabilities_
    classes = int(labels.max()) + 1 if given is None else given.shape[1]
    if labels.min() < 0 or labels.max() >= classes:
        return None
    share = np.bincount(labels, w, minlength=classes)
    return ClassPrediction(probabilities=np.tile(share / share.sum(), (len(prediction), 1)))
