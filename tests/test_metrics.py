"""Each metric against its library or closed form; standard errors against the bootstrap."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from elsewhere import ClassPrediction, Examples, Undefined, ValuePrediction
from elsewhere.assay.judge import summarised
from elsewhere.metrics import area_under_roc, classification_metrics, demographic_disparity, equalised_odds, expected_calibration_error, regression_metrics
from elsewhere.metrics.classification import ACCURACY, AUROC, BALANCED_ACCURACY, BRIER, NLL
from elsewhere.metrics.groups import WORST_GROUP_ACCURACY
from elsewhere.metrics.regression import MAE, R2, RMSE, SQUARED_ERROR
from elsewhere.task import Estimate, Metric, standard_error


def drawn(n: int = 400, classes: int = 3, seed: int = 0, shares: list[float] | None = None, **columns: np.ndarray) -> tuple[ClassPrediction, Examples]:
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=shares)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1.0
    return ClassPrediction(logits=logits), Examples(np.zeros((n, 1)), labels, columns, tuple("abcdef"[:classes]))


def value_of(metric: Metric, prediction: object, data: Examples) -> float:
    return summarised(metric.fn(prediction, data), len(data), None, data.columns.get("weight"))[0]


@pytest.mark.parametrize("classes", [2, 3])
def test_classification_metrics_equal_scikit_learns(classes: int) -> None:
    prediction, data = drawn(classes=classes)
    p, y = prediction.probabilities(), data.labels
    area = sk.roc_auc_score(y, p[:, 1]) if classes == 2 else sk.roc_auc_score(y, p, multi_class="ovr")
    expected = {ACCURACY: sk.accuracy_score(y, p.argmax(1)), BALANCED_ACCURACY: sk.balanced_accuracy_score(y, p.argmax(1)), NLL: sk.log_loss(y, p), AUROC: area}
    if classes == 2:
        expected[BRIER] = sk.brier_score_loss(y, p[:, 1])
    for metric, value in expected.items():
        assert value_of(metric, prediction, data) == pytest.approx(value, abs=1e-12), metric.name


def test_weighted_metrics_equal_scikit_learns() -> None:
    weight = np.random.default_rng(1).uniform(0.1, 3, 400)
    prediction, data = drawn(classes=2, weight=weight)
    p, y = prediction.probabilities(), data.labels
    expected = {
        ACCURACY: sk.accuracy_score(y, p.argmax(1), sample_weight=weight),
        BALANCED_ACCURACY: sk.balanced_accuracy_score(y, p.argmax(1), sample_weight=weight),
        NLL: sk.log_loss(y, p, sample_weight=weight),
        AUROC: sk.roc_auc_score(y, p[:, 1], sample_weight=weight),
        BRIER: sk.brier_score_loss(y, p[:, 1], sample_weight=weight),
    }
    for metric, value in expected.items():
        assert value_of(metric, prediction, data) == pytest.approx(value, abs=1e-10), metric.name


def test_regression_metrics_equal_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=300)
    guess, weight = y + rng.normal(size=300), rng.uniform(0.5, 2, 300)
    data = Examples(np.zeros((300, 1)), y, {"weight": weight})
    expected = {
        SQUARED_ERROR: sk.mean_squared_error(y, guess, sample_weight=weight),
        RMSE: sk.root_mean_squared_error(y, guess, sample_weight=weight),
        MAE: sk.mean_absolute_error(y, guess, sample_weight=weight),
        R2: sk.r2_score(y, guess, sample_weight=weight),
    }
    for metric, value in expected.items():
        assert value_of(metric, ValuePrediction(guess), data) == pytest.approx(value, abs=1e-12), metric.name


def test_calibration_error_puts_a_confidence_of_one_into_the_last_bin() -> None:
    assert expected_calibration_error(np.array([0.95, 1.0]), np.array([1, 0])).value == pytest.approx(0.475)


def test_calibration_error_equals_a_loop_over_bins() -> None:
    rng = np.random.default_rng(0)
    confidence, right = rng.uniform(0.3, 1, 500), rng.integers(0, 2, 500)
    total = 0.0
    for b in range(10):
        inside = (confidence >= b / 10) & (confidence < (b + 1) / 10) | (b == 9) & (confidence == 1)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(confidence, right).value == pytest.approx(total)


def test_demographic_disparity_of_the_published_examples() -> None:
    assert demographic_disparity(np.array([0, 1, 0, 1, 1]), np.array(list("aabbb"))).value == pytest.approx(2 / 25)
    assert demographic_disparity(np.array([0, 0, 0, 0, 1, 1]), np.array(list("aabbbb"))).value == pytest.approx(2 / 9)


def test_equalised_odds_is_the_larger_difference_of_the_two_rates() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0] * 2)
    group = np.array(["a"] * 8 + ["b"] * 8)
    predicted = np.array([1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0])  # true positives 1 and .5, false positives .25 and 0
    assert equalised_odds(predicted, labels, group).value == pytest.approx(0.5)
    with pytest.raises(Undefined, match="no example of class"):
        equalised_odds(predicted, np.where(group == "a", 0, labels), group)


def test_worst_group_is_the_group_with_least_accuracy() -> None:
    prediction, data = drawn(group=np.array(["a", "b"] * 200))
    right = prediction.classes() == data.labels
    assert value_of(WORST_GROUP_ACCURACY, prediction, data) == pytest.approx(min(right[::2].mean(), right[1::2].mean()))


def test_one_class_has_no_auroc() -> None:
    prediction, data = drawn(classes=2)
    with pytest.raises(Undefined, match="one class only"):
        AUROC.fn(prediction, Examples(data.inputs, np.zeros(400, int), {}, ("a", "b")))


def test_a_constant_label_has_no_r2() -> None:
    with pytest.raises(Undefined, match="constant"):
        R2.fn(ValuePrediction(np.arange(3.0)), Examples(np.zeros((3, 1)), np.ones(3)))


def test_classes_alone_leave_probability_metrics_undefined() -> None:
    _, data = drawn()
    with pytest.raises(Undefined, match="no probabilities"):
        NLL.fn(ClassPrediction(labels=data.labels), data)


SMOOTH = [m for m in (*classification_metrics(groups=True), *regression_metrics()) if m.name not in ("ece",)]


@pytest.mark.parametrize("metric", SMOOTH, ids=lambda m: m.name)
@pytest.mark.parametrize("clustered", [False, True], ids=["rows", "units"])
def test_standard_errors_equal_the_bootstraps(metric: Metric, clustered: bool) -> None:
    """The closed form (infinitesimal jackknife) against resamples of units, within 15 %."""
    n = 600
    rng = np.random.default_rng(3)
    group = np.where(rng.random(n) < 0.4, "a", "b")
    prediction, data = drawn(n, 2, 7, [0.7, 0.3], group=group)  # no ties between classes or groups: a largest of near-equals has no derivative
    harm = group == "a"
    shifted = np.asarray(prediction.logits).copy()
    shifted[harm] += rng.normal(0, 2, (harm.sum(), 2))
    shifted[harm, 0] += 2
    prediction = ClassPrediction(logits=shifted)
    if metric in regression_metrics():
        y = rng.normal(size=n)
        prediction, data = ValuePrediction(y + rng.normal(size=n)), Examples(data.inputs, y, data.columns)
    units = np.repeat(np.arange(n // 4), 4) if clustered else np.arange(n)
    if clustered:  # units whose members are alike, so that clustering matters
        raw = metric.fn(prediction, data)
        order = rng.permutation(n) if isinstance(raw, Estimate) else np.argsort(np.asarray(raw), kind="stable")
        data, prediction = data.take(order), prediction.take(order)
    found = summarised(metric.fn(prediction, data), n, units, None)[1]
    members = [np.flatnonzero(units == u) for u in np.unique(units)]
    resampled = []
    for _ in range(400):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        with contextlib.suppress(Undefined):  # a resample may lack a class in a group
            resampled.append(value_of(metric, prediction.take(rows), data.take(rows)))
    assert found == pytest.approx(float(np.std(resampled)), rel=0.15), metric.name


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=30), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_auroc_is_the_share_of_ordered_pairs(scores: list[float], seed: int) -> None:
    x = np.round(np.array(scores), 1)
    positive = np.random.default_rng(seed).permutation(np.arange(len(x)) % 2 == 0)
    pairs = np.subtract.outer(x[positive], x[~positive])
    assert area_under_roc(x, positive).value == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


@given(st.permutations(list(range(40))))
@settings(max_examples=20, deadline=None)
def test_metrics_do_not_depend_on_the_order_of_examples(order: list[int]) -> None:
    prediction, data = drawn(40, 2, 1, group=np.array(["a", "b"] * 20))
    for metric in classification_metrics(groups=True):
        assert value_of(metric, prediction.take(order), data.take(order)) == pytest.approx(value_of(metric, prediction, data)), metric.name


def test_a_weight_counts_as_repetition() -> None:
    prediction, data = drawn(60, 2, 2, group=np.array(["a", "b"] * 30))
    weight = np.random.default_rng(0).integers(1, 4, 60)
    rows = np.repeat(np.arange(60), weight)
    weighted = Examples(data.inputs, data.labels, {**data.columns, "weight": weight.astype(float)}, data.classes)
    for metric in classification_metrics(groups=True):
        assert value_of(metric, prediction, weighted) == pytest.approx(value_of(metric, prediction.take(rows), data.take(rows))), metric.name


def test_standard_error_of_a_mean_is_the_textbook_one() -> None:
    x = np.random.default_rng(0).normal(size=50)
    assert standard_error(x - x.mean()) == pytest.approx(x.std(ddof=1) / 50**0.5)
