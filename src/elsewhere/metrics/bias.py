"""By how much sums of absolute values and extremes of noisy numbers lie above the truth.

A calibration error or a disparity of a finite sample is positive even where the truth is 0. The
value stays what its definition says; the interval is told how far above the truth it is expected.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

from elsewhere.data import Array

DRAWS = 400


def bias_of_absolute_sum(found: Array, error: Array) -> float:
    """Return E Σ |d| - Σ |δ| for normal d around δ, at estimates of δ without what noise adds.

    The mean of |N(δ, σ²)| is σ √(2/π) exp(-δ²/2σ²) + δ (1 - 2 Φ(-δ/σ)) (the folded normal); δ² is
    estimated by d² - σ², at least 0.

    Args:
        found: [k] differences d that were found.
        error: [k] their standard errors σ.

    Examples:
        >>> round(bias_of_absolute_sum(np.array([0.0]), np.array([1.0])), 3)  # √(2/π)
        0.798
        >>> round(bias_of_absolute_sum(np.array([9.0]), np.array([1.0])), 3)
        0.0
    """
    known = error > 0
    sigma = error[known]
    delta = np.sqrt(np.maximum(np.square(found[known]) - np.square(sigma), 0))
    x = delta / sigma
    above = sigma * np.sqrt(2 / np.pi) * np.exp(-np.square(x) / 2) - 2 * delta * norm.cdf(-x)
    return float(above.sum())


def bias_of_least(found: Array, error: Array) -> float:
    """Return E min(values) - min(truth) for normal values around the truth; at most 0.

    The truth is estimated by shrinking the values to their mean until their variance is what is left
    of it without noise; the mean of the minimum is that of 400 draws.

    Args:
        found: [k] values.
        error: [k] their standard errors.
    """
    if len(found) < 2:
        return 0.0
    noise = float(np.square(error).mean())
    spread = float(found.var(ddof=1))
    kept = np.sqrt(max(spread - noise, 0.0) / spread) if spread > 0 else 0.0
    truth = found.mean() + kept * (found - found.mean())
    drawn = truth + error * np.random.default_rng(0).normal(size=(DRAWS, len(found)))
    return min(0.0, float(drawn.min(1).mean() - truth.min()))
