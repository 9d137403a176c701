"""What trials say together: lines of elsewhere on home, kinds of pairs, what foretells elsewhere. Plain functions on data frames.

The definitions are ours, after Miller et al. 2021 and Taori et al. 2020. What each learner is worth
and how learners compare is in ``comparing.py``, which this module passes on: it is the one that
readers of a result import.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import binom, norm, rankdata

from elsewhere.assay.comparing import (
    BOUNDED,
    UNIT_METRICS,
    away,
    cells,
    cells_of_arms,
    gaps,
    half_widths_at,
    holm,
    p_values,
    ranking,
    seed_means,
    sure_gaps,
    value_range,
)
from elsewhere.assay.constants import CONSTANT
from elsewhere.assay.intervals import over_seeds, quantile, wilson
from elsewhere.data import Array

__all__ = [
    "BOUNDED",
    "UNIT_METRICS",
    "Line",
    "away",
    "cells",
    "cells_of_arms",
    "fit_line",
    "gaps",
    "half_widths_at",
    "holm",
    "kind_of_pair",
    "over_pairs",
    "p_values",
    "pairs",
    "predictors",
    "rank_correlation",
    "ranking",
    "resampled_means",
    "seed_means",
    "sure_gaps",
    "value_range",
]

ENOUGH = 8  # trials of a pair, for a line
FEWEST_FOR_A_MEDIAN = 5  # pairs of domains
LEAST_JUDGED = 30  # examples of a domain, for a kind
NOT_MEASURES = ("confidence", "majority_share", CONSTANT)
Kind = Literal["chance", "flat", "underspecified", "inverse", "line", "loose", "scattered", "too few"]


@dataclass(frozen=True)
class Line:
    """The least-squares line of elsewhere on home over trials, on probit or plain axes."""

    slope: float
    intercept: float
    r2: float
    residual: float
    slope_low: float
    slope_high: float
    probit: bool
    trials: int

    def at(self, home: Array) -> Array:
        """Return the value elsewhere that the line foretells for values at home."""
        if not self.probit:
            return self.intercept + self.slope * home
        return np.asarray(norm.cdf(self.intercept + self.slope * norm.ppf(np.clip(home, 1e-9, 1 - 1e-9))))


Resampled = tuple[Array, Array]  # [resamples, trials] values at home and elsewhere on resampled test units


def fit_line(home: Array, elsewhere: Array, n_home: float, n_elsewhere: float, probit: bool = True, resampled: Resampled | None = None) -> Line | None:
    """Fit Φ⁻¹(elsewhere) = intercept + slope Φ⁻¹(home) over trials; None for fewer than 8 or no spread.

    Args:
        home, elsewhere: [trials] values of one metric.
        n_home, n_elsewhere: test examples; accuracies are clipped to [½/n, 1 - ½/n].
        probit: plain axes if not set.
        resampled: the same trials on resampled test units. Trials are judged on one test set, so their errors go
            together, which the scatter of trials cannot show: without this the interval is too narrow.
    """
    x, y = (_axis(v, n, probit) for v, n in ((home, n_home), (elsewhere, n_elsewhere)))
    if len(x) < ENOUGH or np.ptp(x) == 0:
        return None
    slope, intercept = _least_squares(x[None], y[None])
    rest = y - intercept[0] - slope[0] * x
    total = float(np.square(y - y.mean()).sum())
    r2 = 1 - float(np.square(rest).sum()) / total if total > 0 else 0.0
    error = _slope_error(x, rest)
    if resampled is not None:
        drawn = (_axis(v, n, probit) for v, n in zip(resampled, (n_home, n_elsewhere), strict=True))
        error = float(np.hypot(error, _least_squares(*drawn)[0].std(ddof=1)))
    half = quantile(len(x) - 2, 0.975) * error
    return Line(
        float(slope[0]),
        float(intercept[0]),
        r2,
        float(rest.std(ddof=2)),
        float(slope[0]) - half,
        float(slope[0]) + half,
        probit,
        len(x),
    )


def _slope_error(x: Array, rest: Array) -> float:
    """Return the standard error of a slope whatever the residuals' spread at each x: HC3 (MacKinnon & White 1985)."""
    centred = np.square(x - x.mean())
    leverage = 1 / len(x) + centred / centred.sum()
    return float(np.sqrt((centred * np.square(rest / (1 - leverage))).sum()) / centred.sum())


def resampled_means(values: Array, unit: Array | None, resamples: int, rng: np.random.Generator, weight: Array | None = None) -> Array:
    """Return [resamples, trials] (weighted) means of values per example [trials, n] on resampled units: one matrix product."""
    n = values.shape[1]
    _, which = np.unique(np.arange(n) if unit is None else unit, return_inverse=True)
    units = int(which.max()) + 1
    drawn = rng.integers(units, size=(resamples, units)) + units * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=units * resamples).reshape(resamples, units)[:, which].astype(float)
    counts = counts if weight is None else counts * weight
    return (counts @ values.T) / counts.sum(1, keepdims=True)


def _axis(values: Array, n: float, probit: bool) -> Array:
    return np.asarray(norm.ppf(np.clip(values, 0.5 / n, 1 - 0.5 / n))) if probit else np.asarray(values, float)


def _least_squares(x: Array, y: Array) -> tuple[Array, Array]:
    cx, cy = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    slope = (cx * cy).sum(1) / np.square(cx).sum(1)
    return slope, y.mean(1) - slope * x.mean(1)


def effective_robustness(home: Array, elsewhere: Array, line: Line) -> Array:
    """Return how far each trial lies above the line (Taori et al. 2020)."""
    return np.asarray(elsewhere - line.at(home))


def rank_correlation(x: Array, y: Array, resamples: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """Return Spearman's ρ with a 95 % interval: bootstrap over trials, or Fieller's approximation above 200 trials; none without resamples."""
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan"), float("nan"), float("nan")
    rho = float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
    if not resamples:
        return rho, float("nan"), float("nan")
    if len(x) > 200:
        half = 1.96 * 1.06 / (len(x) - 3) ** 0.5
        centre = float(np.arctanh(np.clip(rho, -0.999999, 0.999999)))
        return rho, float(np.tanh(centre - half)), float(np.tanh(centre + half))
    rows = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    a, b = rankdata(x[rows], axis=1), rankdata(y[rows], axis=1)
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (a * b).sum(1) / np.sqrt(np.square(a).sum(1) * np.square(b).sum(1))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return rho, float(low), float(high)


@dataclass(frozen=True)
class Thresholds:
    """What tells one kind of pair from another; shown in the report."""

    flat_spread: float = 0.02
    vertical_spread: float = 0.03
    line_correlation: float = 0.5
    line_r2: float = 0.7
    chance_spread: float = 1.5


def kind_of_pair(
    home: Array,
    elsewhere: Array,
    n_home: float,
    n_elsewhere: float,
    majority: float | None = None,
    line: Line | None = None,
    thresholds: Thresholds = Thresholds(),
    rho: tuple[float, float, float] | None = None,
    error: float | None = None,
) -> Kind:
    """Return what kind of pair these accuracies come from: does better at home pay elsewhere?

    Sampling noise is subtracted from the spreads; rules are tried in the order chance, flat,
    underspecified, inverse, line, loose, scattered. *Chance*: the majority share lies in the 95 %
    interval of the mean accuracy elsewhere, and trials spread no more than the test set explains.

    Args:
        home, elsewhere: [trials] accuracies.
        n_home, n_elsewhere: test examples, the effective number where units go together.
        majority: share of the most frequent class elsewhere.
        line, rho: of these trials, if they are known.
        thresholds: that tell the kinds apart.
        error: of the mean accuracy elsewhere over the test units that trials share; without it
            they are taken to be right and wrong on the same examples, where it is largest.
    """
    if len(home) < ENOUGH:
        return "too few"
    if majority is not None and _is_chance(elsewhere, n_elsewhere, majority, error, thresholds):
        return "chance"
    s_x, s_y = _true_spread(home, n_home), _true_spread(elsewhere, n_elsewhere)
    if s_y < thresholds.flat_spread <= s_x:
        return "flat"
    if s_x < thresholds.flat_spread and s_y >= thresholds.vertical_spread:
        return "underspecified"
    _, low, high = rho or rank_correlation(home, elsewhere)
    if high < 0:
        return "inverse"
    line = line or fit_line(home, elsewhere, n_home, n_elsewhere)
    if low > thresholds.line_correlation and line is not None and line.r2 >= thresholds.line_r2:
        return "line"
    return "loose" if low > 0 else "scattered"


def _is_chance(elsewhere: Array, n: float, majority: float, error: float | None, thresholds: Thresholds) -> bool:
    mean, noise = float(elsewhere.mean()), float((elsewhere * (1 - elsewhere) / n).mean())
    if error is None:
        low, high = (float(end) for end in wilson(np.asarray(mean), np.asarray(n), 1.96))
    else:
        low, high = mean - 1.96 * error, mean + 1.96 * error
    calm = elsewhere.var(ddof=1) <= thresholds.chance_spread * noise
    return bool(low <= majority <= high and calm)


def _true_spread(values: Array, n: float) -> float:
    return float(np.sqrt(max(0.0, values.var(ddof=1) - (values * (1 - values) / n).mean())))


def pairs(scores: pd.DataFrame, metric: str, thresholds: Thresholds = Thresholds(), resampled: Callable[[pd.DataFrame, str], Resampled | None] = lambda points, domain: None) -> pd.DataFrame:
    """Return one row a (task, domain): kind, line, rank correlation of home and elsewhere over its trials.

    ``resampled(points, domain)`` gives the trials of a pair on resampled test units, where they are known.
    """
    rows = []
    for (task, domain), points, majority in points_of_pairs(scores, metric):
        home, away = points.home.to_numpy(), points.value.to_numpy()
        n_home, n_away = float(points.home_n.mean()), float(points.n.mean())
        probit = metric in UNIT_METRICS
        drawn = resampled(points, domain)
        line = fit_line(home, away, n_home, n_away, probit, resampled=drawn)
        error = None if drawn is None else float(drawn[1].mean(1).std(ddof=1))
        nothing = (float("nan"), float("nan"), float("nan"))
        rho, low, high = rank_correlation(home, away) if len(points) >= ENOUGH else nothing
        kind = kind_of_pair(home, away, n_home, n_away, majority, line, thresholds, (rho, low, high), error) if probit else ""
        kind = "too few" if kind and float(points.judged.mean()) < LEAST_JUDGED else kind
        told = {} if line is None else {"slope": line.slope, "slope_low": line.slope_low, "slope_high": line.slope_high, "intercept": line.intercept, "r2": line.r2, "residual": line.residual}
        rows.append({"task": task, "domain": domain, "trials": len(points), "kind": kind, "rho": rho, "rho_low": low, "rho_high": high, **told})
    columns = ["task", "domain", "trials", "kind", "rho", "rho_low", "rho_high", "slope", "slope_low", "slope_high", "intercept", "r2", "residual"]
    return pd.DataFrame(rows).reindex(columns=columns)


def over_pairs(values: Array, statistic: Literal["mean", "median"] = "mean") -> tuple[float, float]:
    """Return the 95 % interval of the mean or median of values, one a pair of domains; NaN where there are too few.

    The mean's is Student's t, for 2 pairs or more. The median's takes order statistics, whose
    coverage the binomial distribution gives, interpolated between two of them (Hettmansperger &
    Sheather 1986), for 5 pairs or more: the least and largest of 5 cover 94 %, of 4 but 87 %.

    Examples:
        >>> over_pairs(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), "median")
        (1.0, 5.0)
    """
    k = len(values)
    if statistic == "median":
        return _median_interval(np.sort(values)) if k >= FEWEST_FOR_A_MEDIAN else (float("nan"), float("nan"))
    if k < 2:
        return float("nan"), float("nan")
    mean, half = float(values.mean()), float(over_seeds(values.std(ddof=1), np.asarray(k), 0.975))
    return mean - half, mean + half


def _median_interval(ordered: Array, confidence: float = 0.95) -> tuple[float, float]:
    k = len(ordered)
    coverage = 1 - 2 * binom.cdf(np.arange(k // 2), k, 0.5)  # of [d-th smallest, d-th largest], d from 1
    d = max(int((coverage >= confidence).sum()), 1)
    low, high = float(ordered[d - 1]), float(ordered[k - d])
    if coverage[0] < confidence or d >= len(coverage):
        return low, high
    share = (coverage[d - 1] - confidence) / (coverage[d - 1] - coverage[d])
    inside = (k - d) * share / (d + (k - 2 * d) * share)
    low += inside * float(ordered[d] - ordered[d - 1])
    high -= inside * float(ordered[k - d] - ordered[k - d - 1])
    return low, high


def _effective(rows: pd.DataFrame) -> pd.Series[float]:
    """Return the examples judged, or for shares the effective number of them, which units and weights lower."""
    if "effective" not in rows:
        return rows.n.astype(float)
    return rows.effective.astype(float).fillna(rows.n.astype(float))


def points_of_pairs(scores: pd.DataFrame, metric: str) -> list[tuple[tuple[str, str], pd.DataFrame, float | None]]:
    """Return for each (task, domain) its trials, with their values at home and there, and the majority share there, if it is known."""
    rows = scores[scores.metric == metric]
    rows = rows.assign(judged=rows.n, n=_effective(rows))
    by_trial = rows[rows.role == "home"].groupby("trial", observed=True)
    home = by_trial.agg(home=("value", "mean"), home_n=("n", "sum"))
    there = away(rows).merge(home, left_on="trial", right_index=True).dropna(subset=["value", "home"])
    base = away(scores[scores.metric == "majority_share"]).groupby(["task", "domain"], observed=True).value.mean()
    shares = {(str(task), str(domain)): float(v) for (task, domain), v in base.items()}  # type: ignore[misc, has-type]
    out = []
    for key, points in there.groupby(["task", "domain"], observed=True, sort=False):
        named = (str(key[0]), str(key[1]))
        out.append((named, points, shares.get(named)))
    return out


def predictors(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return, for each measure at home, how well it foretells ``metric`` elsewhere: Spearman's ρ within each pair, median over pairs.

    Signs are turned so that larger is better on both sides. The interval is that of a median over pairs (a bootstrap over
    trials where there is one pair); pairs with fewer than 8 trials do not count.
    """
    home = scores[(scores.role == "home") & ~scores.metric.isin(NOT_MEASURES)]
    wide = home.assign(value=np.where(home.higher_is_better, 1, -1) * home.value).pivot_table(index="trial", columns="metric", values="value", observed=True)
    kept = [(key, p) for key, p, _ in points_of_pairs(scores, metric) if len(p) >= ENOUGH]
    rows = []
    for name in wide.columns:
        found = []
        for _, points in kept:
            sign = 1 if bool(points.higher_is_better.iloc[0]) else -1
            found.append(rank_correlation(wide[name].reindex(points.trial).to_numpy(), sign * points.value.to_numpy(), resamples=1000 if len(kept) == 1 else 0))
        rho = np.array([f[0] for f in found])
        rho = rho[~np.isnan(rho)]
        if not len(rho):
            continue
        low, high = found[0][1:] if len(kept) == 1 else over_pairs(rho, "median")
        rows.append({"home measure": name, "rho": float(np.median(rho)), "low": float(low), "high": float(high), "least": rho.min(), "most": rho.max(), "pairs": len(rho)})
    table = pd.DataFrame(rows, columns=["home measure", "rho", "low", "high", "least", "most", "pairs"])
    return table.sort_values("rho", ascending=False).reset_index(drop=True)
