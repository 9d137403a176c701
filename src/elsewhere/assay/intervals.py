"""Intervals of scores: how far the units that were judged let a value lie from the truth.

A score carries its standard error over units, the degrees of freedom of that error and, where it
is a share, the number of independent answers that would give it. From these come the two *arms* of
its interval, below and above the value, which differ for shares: 100 right answers of 100 do not
say that the 101st will be right. Arms of independent scores add up as √Σ arm², which for
differences of shares is Newcombe's hybrid score interval (1998, method 10).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from elsewhere.data import Array
from elsewhere.task import clustered

NORMAL_FROM = 1000.0  # degrees of freedom from which Student's t is taken as normal


class Arms(NamedTuple):
    """How far an interval reaches below and above its values."""

    down: Array
    up: Array

    def of_difference(self, other: Arms) -> Arms:
        """Return the arms of these values minus other, independent ones."""
        return Arms(np.hypot(self.down, other.up), np.hypot(self.up, other.down))

    def turned(self, sign: float) -> Arms:
        """Return the arms of ``sign`` times the values, for a sign of 1 or -1."""
        return self if sign > 0 else Arms(self.up, self.down)


class Spread(NamedTuple):
    """How sure a score is.

    Args:
        error: its standard error over units; NaN where it is not known.
        freedom: degrees of freedom of the error; infinite where the error is exact.
        effective: for shares, independent answers that would give the same error; else NaN.
    """

    error: float
    freedom: float
    effective: float = float("nan")


def spread_of_mean(
    values: Array,
    weight: Array | None = None,
    unit: Array | None = None,
    within: tuple[float, float] = (-np.inf, np.inf),
) -> Spread:
    """Return how sure the (weighted) mean of values is.

    Shares (every value 0 or 1) get the effective number p (1 - p) / error². Where all answers agree
    they say nothing about how answers within a unit go together: then each unit counts as one.

    Args:
        values: [n], no NaN.
        weight: [n] weights, of any scale.
        unit: [n] the unit of each value, where values of one unit go together.
        within: the range of the metric: errors that happen to be all 0 are no shares, and neither
            is anything that may lie beyond 0 and 1.

    Examples:
        >>> spread_of_mean(np.ones(100))
        Spread(error=0.0, freedom=inf, effective=100.0)
        >>> spread_of_mean(np.ones(100), unit=np.arange(100) // 10).effective
        10.0
    """
    w = np.ones(len(values)) if weight is None else np.asarray(weight, float) / np.mean(weight)
    mean = float((w * values).mean())
    plain = spread(w * (values - mean), unit)
    unknown = within == (-np.inf, np.inf) and (values == 1).any()
    if (within == (0, 1) or unknown) and np.isin(values, (0.0, 1.0)).all():
        return _of_share(mean, w, unit, plain)
    # A value that never varies shows no error, which is not the same as an error of 0.
    return plain._replace(error=float("nan")) if plain.error == 0 else plain


def spread(influence: Array, unit: Array | None = None) -> Spread:
    """Return the standard error over units of a mean of influences, with its degrees of freedom.

    Satterthwaite's, with the kurtosis κ of the m units: 2 / (2 / (m - 1) + κ / m), at most m - 1.
    Where a few units make up most of the variance, the error itself is known badly.

    Args:
        influence: [n] of mean 0.
        unit: [n] the unit of each example.
    """
    sums = clustered(influence, unit)
    m, square = len(sums), np.square(sums)
    total = float(square.sum())
    if m < 2 or total == 0:
        return Spread(0.0 if m > 1 else float("nan"), float(max(m - 1, 0)))
    error = float(np.sqrt(m / (m - 1) * total) / len(influence))
    excess = max(m * float(np.square(square).sum()) / total**2 - 3, 0.0)
    return Spread(error, float(np.clip(2 / (2 / (m - 1) + excess / m), min(2, m - 1), m - 1)))


def _of_share(share: float, w: Array, unit: Array | None, plain: Spread) -> Spread:
    answers = float(np.square(w.sum()) / np.square(w).sum())  # Kish's number under weights
    freedom = float("inf") if unit is None else plain.freedom
    if share in (0.0, 1.0):
        of_unit = clustered(w, unit)
        return Spread(plain.error, freedom, float(of_unit.sum() ** 2 / np.square(of_unit).sum()))
    found = share * (1 - share) / plain.error**2 if plain.error > 0 else answers
    if found >= answers or (unit is None and np.ptp(w) == 0):
        units = float("inf") if unit is None else float(len(np.unique(unit)) - 1)
        return Spread(plain.error, units, answers)
    return Spread(plain.error, plain.freedom, found)


def wilson(share: Array, n: Array, z: float) -> tuple[Array, Array]:
    """Return Wilson's score interval of shares out of ``n`` answers (Wilson 1927).

    Examples:
        >>> [round(float(v), 4) for v in wilson(np.array(1.0), np.array(100.0), 1.959964)]
        [0.963, 1.0]
    """
    scale = 1 + z * z / n
    half = z * np.sqrt(np.maximum(share * (1 - share), 0) / n + z * z / (4 * n * n)) / scale
    centre = (share + z * z / (2 * n)) / scale
    return np.clip(centre - half, 0, share), np.clip(centre + half, share, 1)


def arms(scores: pd.DataFrame, level: float) -> Arms:
    """Return the arms of each score at a one-sided confidence; NaN where no error is known.

    Args:
        scores: columns ``value`` and ``error``, and where they are known ``freedom``, ``effective``
            (shares get Wilson's interval) and ``bias`` (what is expected of the value above the
            truth: the lower arm is longer by it).
        level: of one side: 0.975 for an interval of 95 %.
    """
    z = float(norm.ppf(level))
    value, error = (scores[name].to_numpy(float) for name in ("value", "error"))
    quantile = _quantiles(_column(scores, "freedom", np.inf), level)
    down = up = quantile * error
    effective = _column(scores, "effective", np.nan)
    if (share := np.isfinite(effective) & (value >= 0) & (value <= 1)).any():
        n = np.where(share, effective * np.square(z / quantile), 1.0)
        low, high = wilson(np.where(share, value, 0.5), np.maximum(n, 0.5), z)
        down, up = np.where(share, value - low, down), np.where(share, high - value, up)
    bias = np.nan_to_num(_column(scores, "bias", 0.0))
    return Arms(down + np.maximum(bias, 0), up + np.maximum(-bias, 0))


def _column(scores: pd.DataFrame, name: str, default: float) -> Array:
    if name not in scores:
        return np.full(len(scores), default)
    return scores[name].to_numpy(float)


def _quantiles(freedom: Array, level: float) -> Array:
    """Return quantiles of Student's t; few different degrees of freedom are looked up once each."""
    freedom = np.where(np.isfinite(freedom) & (freedom < NORMAL_FROM), freedom, np.inf)
    known, at = np.unique(freedom, return_inverse=True)
    finite = np.isfinite(known)
    found = np.full(len(known), float(norm.ppf(level)))
    found[finite] = t.ppf(level, np.maximum(known[finite], 1.0))
    return np.asarray(found[at])


def quantile(freedom: float, level: float) -> float:
    """Return the quantile of Student's t, or of the normal distribution for infinite freedom."""
    return float(_quantiles(np.array([freedom]), level)[0])


def over_seeds(deviation: Array, seeds: Array, level: float | Array) -> Array:
    """Return t_{k-1} s / √k, how far the mean of ``seeds`` seeds may lie from the truth; 0 for one seed."""
    student = t.ppf(level, np.maximum(seeds - 1, 1))
    with np.errstate(invalid="ignore"):
        half = student * np.nan_to_num(deviation) / np.sqrt(np.maximum(seeds, 1))
    return np.where(seeds > 1, half, 0.0)
