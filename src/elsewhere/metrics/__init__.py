"""Metrics of the ready-made predictions: classification, regression, calibration, groups."""

from __future__ import annotations

from elsewhere.metrics.calibration import CONFIDENCE, ECE, OVERCONFIDENCE, expected_calibration_error, reliability_curve
from elsewhere.metrics.classification import ACCURACY, AUROC, AVERAGE_PRECISION, BALANCED_ACCURACY, BRIER, MAJORITY_SHARE, NLL, TOP5, TOP10, area_under_roc
from elsewhere.metrics.groups import ACCEPTANCE, DDP, DEMOGRAPHIC_DISPARITY, EQUALISED_ODDS, WORST_GROUP_ACCURACY, demographic_disparity, demographic_parity_difference, equalised_odds
from elsewhere.metrics.inferred_groups import INFERRED_DISPARITY, inferred_groups
from elsewhere.metrics.regression import MAE, R2, RMSE, SQUARED_ERROR
from elsewhere.task import Metric

__all__ = [
    "area_under_roc",
    "classification_metrics",
    "demographic_disparity",
    "demographic_parity_difference",
    "equalised_odds",
    "expected_calibration_error",
    "inferred_groups",
    "regression_metrics",
    "reliability_curve",
]


def classification_metrics(groups: bool = False, classes: int | None = None) -> list[Metric]:
    """Return the metrics of a classification task, accuracy first; with ``groups`` those by the group column too, with many ``classes`` top-5 and top-10 accuracy."""
    fair = [WORST_GROUP_ACCURACY, DEMOGRAPHIC_DISPARITY, EQUALISED_ODDS] if groups else []
    fair += [AVERAGE_PRECISION, ACCEPTANCE, DDP] if groups and classes == 2 else []
    top = [m for m, k in ((TOP5, 5), (TOP10, 10)) if classes is not None and classes > k]
    return [ACCURACY, BALANCED_ACCURACY, NLL, BRIER, ECE, CONFIDENCE, OVERCONFIDENCE, AUROC, INFERRED_DISPARITY, MAJORITY_SHARE, *top, *fair]


def regression_metrics() -> list[Metric]:
    """Return the metrics of a regression task, RMSE first."""
    return [RMSE, MAE, R2, SQUARED_ERROR]
