"""Metrics of predicted classes."""

from __future__ import annotations

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.errors import Undefined
from elsewhere.metrics.weighting import scaled, weights
from elsewhere.prediction import ClassPrediction
from elsewhere.task import Estimate, Metric


def correct(prediction: ClassPrediction, data: Examples) -> Array:
    """Return 1.0 where the predicted class is the label [n]."""
    return (prediction.classes() == data.labels).astype(float)


def balanced_accuracy(prediction: ClassPrediction, data: Examples) -> Estimate:
    """Return the mean recall over the classes present.

    Its influence: w_i (c_i - recall_k) / (K share_k) for an example of class k.
    """
    labels, right, w = np.asarray(data.labels), correct(prediction, data), weights(data)
    _, k = np.unique(labels, return_inverse=True)
    mass = np.bincount(k, w)
    present = mass > 0
    recall = np.bincount(k, w * right) / np.where(present, mass, 1)
    count = int(present.sum())
    influence = w * (right - recall[k]) / np.where(mass[k] > 0, mass[k], 1) * len(labels) / count
    answers = count**2 / (1 / np.bincount(k)[present]).sum()  # p (1 - p) / n_k, averaged over classes
    return Estimate(float(recall[present].mean()), influence=influence, effective=float(answers))


def negative_log_likelihood(prediction: ClassPrediction, data: Examples) -> Array:
    """Return -log p(label) in nats [n]; probabilities are floored at machine epsilon, as scikit-learn does."""
    p = prediction.log_probabilities()
    return -p[np.arange(len(p)), _within(data, p)]


def brier(prediction: ClassPrediction, data: Examples) -> Array:
    """Return Σ_k (p_k - 1[label = k])² [n], halved for two classes (Brier 1950; scikit-learn's convention)."""
    p = prediction.probabilities()
    one_hot = np.zeros_like(p)
    one_hot[np.arange(len(p)), _within(data, p)] = 1
    return np.square(p - one_hot).sum(1) * (0.5 if p.shape[1] == 2 else 1.0)


def auroc(prediction: ClassPrediction, data: Examples) -> Estimate:
    """Return the area under the ROC curve: of class 1 if there are two classes, else the mean of one against the rest."""
    p, labels = prediction.probabilities(), np.asarray(data.labels)
    codes = [1] if p.shape[1] == 2 else [k for k in range(p.shape[1]) if 0 < (labels == k).sum() < len(labels)]
    if len(np.unique(labels)) < 2:
        raise Undefined("one class only")
    scores = p if prediction.logits is None else prediction.logits - (prediction.logits[:, :1] if p.shape[1] == 2 else 0)
    parts = [area_under_roc(scores[:, k] if p.shape[1] == 2 else p[:, k], labels == k, weights(data)) for k in codes]
    influence = np.mean([np.asarray(part.influence) for part in parts], axis=0)
    answers = min(part.effective for part in parts)
    value = float(np.mean([part.value for part in parts]))
    return Estimate(value, influence=influence, effective=answers)


def area_under_roc(scores: Array, positive: Array, weight: Array | None = None) -> Estimate:
    """Return the area under the ROC curve with its influence (placement values; DeLong et al. 1988).

    Args:
        scores: [n], larger for positives.
        positive: [n] bool.
        weight: [n] weights.

    Examples:
        >>> area_under_roc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])).value
        0.75
    """
    w, positive = scaled(weight, len(scores)), np.asarray(positive, bool)
    high, low = scores[positive], scores[~positive]
    w_high, w_low = w[positive], w[~positive]
    if not w_high.sum() or not w_low.sum():
        raise Undefined("one class only")
    above = _share_below(high, low, w_low)  # for each positive, the share of negatives below it
    beaten = 1 - _share_below(low, high, w_high)  # for each negative, the share of positives above it
    area = float(w_high @ above / w_high.sum())
    influence = np.empty(len(scores))
    influence[positive] = w_high * (above - area) * len(scores) / w_high.sum()
    influence[~positive] = w_low * (beaten - area) * len(scores) / w_low.sum()
    # The largest variance that an area can have is a (1 - a) / min(positives, negatives) (Van Dantzig 1951).
    return Estimate(area, influence=influence, effective=float(min(len(high), len(low))))


def average_precision(prediction: ClassPrediction, data: Examples) -> float:
    """Return Σ (R_k - R_{k-1}) P_k of the second of two classes, as scikit-learn defines it."""
    from sklearn.metrics import average_precision_score

    p, labels = prediction.probabilities(), np.asarray(data.labels)
    if p.shape[1] != 2:
        raise Undefined(f"{p.shape[1]} classes")
    if len(np.unique(labels)) < 2:
        raise Undefined("one class only")
    scores = p[:, 1] if prediction.logits is None else prediction.logits[:, 1] - prediction.logits[:, 0]
    return float(average_precision_score(labels, scores, sample_weight=weights(data)))


def top_accuracy(prediction: ClassPrediction, data: Examples, k: int) -> Array:
    """Return 1.0 where the label is among the k most probable classes [n]; undefined for fewer than k + 1 classes."""
    scores = prediction.logits if prediction.logits is not None else prediction.probabilities()
    if scores.shape[1] <= k:
        raise Undefined(f"{scores.shape[1]} classes")
    own = scores[np.arange(len(scores)), _within(data, scores)]
    return ((scores > own[:, None]).sum(1) < k).astype(float)


def majority_share(prediction: ClassPrediction, data: Examples) -> Estimate:
    """Return the share of the most frequent class here: what always guessing it would get, whatever the learner."""
    labels, w = np.asarray(data.labels), weights(data)
    mass = np.bincount(labels, w)
    share = float(mass.max() / mass.sum())
    answers = float(np.square(w.sum()) / np.square(w).sum())
    return Estimate(share, influence=w * ((labels == mass.argmax()) - share), effective=answers)


def _share_below(of: Array, among: Array, weight: Array) -> Array:
    """Return, for each value of ``of``, the weighted share of ``among`` below it, ties counting half."""
    order = np.argsort(among, kind="stable")
    below = np.r_[0.0, np.cumsum(weight[order])]
    ranked = among[order]
    return np.asarray((below[np.searchsorted(ranked, of, "left")] + below[np.searchsorted(ranked, of, "right")]) / 2 / below[-1])


def _within(data: Examples, p: Array) -> Array:
    labels = np.asarray(data.labels)
    if len(labels) and labels.max() >= p.shape[1]:
        raise Undefined(f"a label has no probability: class {int(labels.max())} of {p.shape[1]}")
    return labels


SHARE = (0.0, 1.0)
ACCURACY = Metric("accuracy", correct, range=SHARE)
BALANCED_ACCURACY = Metric("balanced_accuracy", balanced_accuracy, range=SHARE)
NLL = Metric("nll", negative_log_likelihood, higher_is_better=False, range=(0, float("inf")))
BRIER = Metric("brier", brier, higher_is_better=False, range=(0, 2))
AUROC = Metric("auroc", auroc, range=SHARE)
TOP5 = Metric("top5_accuracy", lambda p, data: top_accuracy(p, data, 5), range=SHARE)
TOP10 = Metric("top10_accuracy", lambda p, data: top_accuracy(p, data, 10), range=SHARE)
AVERAGE_PRECISION = Metric("average_precision", average_precision, range=SHARE)
MAJORITY_SHARE = Metric("majority_share", majority_share, range=SHARE)
