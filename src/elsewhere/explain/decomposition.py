"""Where the loss came from: harder cases, a changed relation, cases never seen. Functions on arrays.

Cai, Namkoong & Yadlowsky, "Diagnosing model performance under distribution shift" (arXiv 2303.02011).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm

from elsewhere.data import Array, listed
from elsewhere.encoding import is_category
from elsewhere.errors import UserError, did_you_mean
from elsewhere.explain.domain_classifier import (
    Cases,
    Classifier,
    area,
    cases,
    column_areas,
    log_ratio,
    most_predictive,
    well_determined,
)
from elsewhere.explain.small_samples import widening

TERMS = ("harder cases", "relation changed", "cases unseen at home")
APART_AUC, LEAST_OVERLAP, LEAST_CASES = 0.98, 0.05, 30
# Overlap seen from home minus overlap seen from elsewhere, which agree for a calibrated classifier.
# Too few cases per coefficient part them; beyond this the intervals of the terms miss the truth.
MOST_DISAGREEMENT = 0.35
_APART_ALONE = 0.9  # AUC of a column that tells the domains apart by itself
_FEWEST_RESAMPLES = 40  # whose extremes are bounds of 95 %
_LEAST_ROWS = 50  # of an identifier: fewer values may all differ by accident
_BLOCK, _REFIT_BLOCK = 1_000_000, 20_000_000  # numbers in a block of resamples: fixed, refitted
_MOST_WORK = 6e10  # floating-point operations that refitting for the intervals may take: half a minute on 2 cores


@dataclass(frozen=True)
class Decomposition:
    """The four levels and three terms of one model's loss between home and one domain elsewhere.

    Args:
        levels: [4] E_P[R_P], E_S[R_P], E_S[R_Q], E_Q[R_Q].
        low, high: [4] bounds of gap and terms: gap, harder cases, relation changed, unseen.
        overlap: V seen from the home side; ``overlap_there`` from the other side: they agree if the
            classifier is calibrated.
        auc: out of fold, of telling the domains apart.
        effective: effective sample sizes of both sides.
        refused: why the terms mean nothing, or "".
        apart: columns that tell the domains apart by themselves, with their AUC.
        refitted: whether the intervals hold the classifier's own uncertainty.
        shared: the mean of both overlaps, cut to [0, 1]; it errs less than either.
        shared_interval: its bounds, NaN where nothing was resampled.
        identifiers: columns that number or name the rows.
        drop: what to exclude: identifiers, and columns that tell the domains apart by themselves if
            the domains overlap without them.
        auc_without: the AUC without those columns, NaN if there are none.
        log_ratio: [n] out-of-fold log q/p of the cases at home, then of those elsewhere.
        compared: domains that were looked at: a gap is shown, and a term named as its reason, only
            if the interval, widened for as many (Bonferroni), excludes 0.
    """

    levels: Array
    low: Array
    high: Array
    overlap: float
    overlap_there: float
    auc: float
    effective: tuple[float, float]
    refused: str
    apart: dict[str, float]
    refitted: bool
    shared: float = float("nan")
    shared_interval: tuple[float, float] = (float("nan"), float("nan"))
    identifiers: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    auc_without: float = float("nan")
    log_ratio: Array = field(default_factory=lambda: np.empty(0), repr=False)
    compared: int = 1

    @property
    def gap(self) -> float:
        return float(self.levels[3] - self.levels[0])

    @property
    def terms(self) -> Array:
        """[3] harder cases, relation changed, cases unseen at home; they sum to the gap."""
        return np.asarray(np.diff(self.levels))

    @property
    def shows_gap(self) -> bool:
        """Whether the gap is beyond doubt among all domains that were looked at."""
        return self._beyond(0, self.gap)

    def _beyond(self, k: int, value: float) -> bool:
        """Whether the interval of gap (0) or term (1 to 3), widened for all domains, excludes 0."""
        wider = float(norm.ppf(1 - 0.025 / self.compared) / norm.ppf(0.975))
        low = value - wider * (value - float(self.low[k]))
        high = value + wider * (float(self.high[k]) - value)
        return not low <= 0 <= high

    def verdict(self, least: float = 0.01) -> str:
        """Return the answer in a few words: cannot tell, no gap worth explaining, or the term that explains most."""
        if not self.shows_gap or abs(self.gap) < least:
            return "no gap worth explaining" if not self.refused else "cannot tell"
        if self.refused:
            return "cannot tell"
        sure = [k for k, v in enumerate(self.terms) if self._beyond(k + 1, float(v)) and v * self.gap > 0]
        return TERMS[max(sure, key=lambda k: abs(self.terms[k]))] if sure else "no single reason beyond doubt"


def decompose(
    home_x: pd.DataFrame,
    home_loss: Array,
    elsewhere_x: pd.DataFrame,
    elsewhere_loss: Array,
    *,
    classifier: Classifier = "logistic",
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    folds: int = 5,
    resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
    home_weight: Array | None = None,
    elsewhere_weight: Array | None = None,
    home_unit: Array | None = None,
    elsewhere_unit: Array | None = None,
    forbidden: Sequence[str] = (),
) -> list[Decomposition]:
    """Decompose the loss of one or more models between home and elsewhere, one decomposition a model.

    E_Q[R_Q] - E_P[R_P] = (E_S[R_P] - E_P[R_P]) + (E_S[R_Q] - E_S[R_P]) + (E_Q[R_Q] - E_S[R_Q]), with the shared
    distribution s ∝ p q / (p + q) reached by weights w_P ∝ ratio / (1 + ratio), w_Q ∝ 1 / (1 + ratio), ratio = q / p from
    a domain classifier, out of fold (equations 1 to 3 of the source). The classifier is fitted once for all models.

    Args:
        home_x, elsewhere_x: features of test examples (not training examples), same columns.
        home_loss, elsewhere_loss: [n] or [n, models] loss per example.
        classifier: "logistic" (standardised, squares, one-hot, missing indicators, C = 10) or "boosting".
        features, exclude: which columns to decompose on; the identity holds for any subset.
        folds: of the cross-fitting; units are never split.
        resamples: for the intervals: units drawn within each domain, the logistic classifier refitted (for large tables,
            and for boosting, it is held fixed, which ``Decomposition.refitted`` tells).
        level: of the two-sided intervals.
        seed: of folds and resamples.
        home_weight, elsewhere_weight: survey weights, which multiply the weights of the decomposition.
        home_unit, elsewhere_unit: what is resampled together.
        forbidden: columns that would leak (the domain, the label).

    Raises:
        UserError: an unknown or forbidden feature, or a loss of the wrong length.
    """
    home_x, elsewhere_x = features_of(home_x, elsewhere_x, features, exclude, forbidden)
    losses = [_as_matrix(home_loss, home_x), _as_matrix(elsewhere_loss, elsewhere_x)]
    weights = [np.ones(len(v)) if w is None else np.asarray(w, float) for v, w in zip(losses, (home_weight, elsewhere_weight), strict=True)]
    rng = np.random.default_rng(seed)
    folds = max(2, min(folds, len(home_x), len(elsewhere_x)))
    c = cases(home_x, elsewhere_x, classifier, folds, rng, home_unit, elsewhere_unit)
    ratio, start = log_ratio(c)
    overlap, there, effective = _overlap(ratio[0], c.there, weights)
    auc = area(ratio[0], c.there)
    sizes = len(home_x), len(elsewhere_x)
    refused = _refusal(auc, (overlap, there), effective, sizes, c.x.shape[1])
    columns = _columns(home_x, elsewhere_x, folds, rng, bool(refused) and auc >= _APART_ALONE)
    again = 0 if refused or classifier != "logistic" else _affordable(c, resamples)
    resamples, refit = again or resamples, again > 0
    every = np.ones((1, len(c.there)))
    levels = terms_with(ratio, c.there, losses, weights, every)[0]
    sample = _Sample(losses, weights, resamples, rng)
    drawn = [_resampled(c, ratio, start, sample, refit)]
    if not refused and (other := most_predictive(c, ratio[0], start)) is not c:
        drawn.append(_resampled(other, *log_ratio(other), sample, refit))
    found = np.concatenate([levels[3:] - levels[:1], np.diff(levels, axis=0)])
    wider = widening(ratio[0], c.there, losses, weights, (home_unit, elsewhere_unit), level)
    low, high = _bounds([moves for moves, _ in drawn], level)
    low, high = found - wider * (found - low), found + wider * (high - found)
    between = np.clip(_bounds([overlaps for _, overlaps in drawn], level), 0, 1)
    apart, identifiers, drop, without = columns
    about: dict[str, Any] = {
        "overlap": overlap,
        "overlap_there": there,
        "auc": auc,
        "effective": effective,
        "refused": refused,
        "apart": apart,
        "refitted": refit,
        "shared": float(np.clip((overlap + there) / 2, 0, 1)),
        "shared_interval": (float(between[0]), float(between[1])),
        "identifiers": identifiers,
        "drop": drop,
        "auc_without": without,
        "log_ratio": ratio[0],
    }
    models = range(levels.shape[1])
    return [Decomposition(levels[:, m], low[:, m], high[:, m], **about) for m in models]


def _affordable(c: Cases, resamples: int) -> int:
    """Return how many resamples may refit the classifier (0: none), fewer where it is uncertain."""
    each = c.folds * c.x.shape[0] * (c.x.shape[1] + 1) ** 2 * 6.0
    if resamples * each <= _MOST_WORK:
        return resamples
    fewer = int(_MOST_WORK / 2 // each)
    return min(resamples, fewer) if fewer >= _FEWEST_RESAMPLES and not well_determined(c) else 0


def _bounds(drawn: Sequence[Array], level: float) -> tuple[Array, Array]:
    """Return the widest percentile bounds over several sets of resamples [resamples, ...]."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    # The usual interpolation lies 4 % too far inside with 200 resamples.
    found = np.array([np.nanquantile(v, tails, axis=0, method="weibull") for v in drawn])
    return found[:, 0].min(0), found[:, 1].max(0)


def terms_with(ratio: Array, there: Array, losses: Sequence[Array], weights: Sequence[Array], counts: Array) -> Array:
    """Return the four levels [resamples, 4, models] for resample counts [resamples, n] and log-ratios [1 or resamples, n].

    With one row of log-ratios (the classifier fixed) this is one matrix product a side.
    """
    return _levels_and_overlap(ratio, there, losses, weights, counts)[0]


def _levels_and_overlap(
    ratio: Array,
    there: Array,
    losses: Sequence[Array],
    weights: Sequence[Array],
    counts: Array,
) -> tuple[Array, Array]:
    """Return the levels [resamples, 4, models] and the mean of the two overlaps [resamples]."""
    sides, overlap = [], np.zeros(len(counts))
    first = int((there == 0).sum())  # home cases stand first, so both sides are views
    for side, sign, part in ((0, 1.0, slice(0, first)), (1, -1.0, slice(first, None))):
        loss, u, n = losses[side], weights[side], counts[:, part]
        w = expit(sign * ratio[:, part]) * u
        models = loss.shape[1]
        if len(ratio) == 1:
            sums = n @ np.asfortranarray(np.c_[u, u[:, None] * loss, w[0], w[0][:, None] * loss])
            plain, shared = sums[:, : models + 1], sums[:, models + 1 :]
        else:
            plain, shared = n @ np.c_[u, u[:, None] * loss], (n * w) @ np.c_[np.ones(len(u)), loss]
        overlap += shared[:, 0] / plain[:, 0]
        sides.append((plain[:, 1:] / plain[:, :1], shared[:, 1:] / shared[:, :1]))
    (home, shared_home), (away, shared_away) = sides
    return np.stack([home, shared_home, shared_away, away], axis=1), overlap


def importance_weighted(ratio: Array, there: Array, home_loss: Array, elsewhere_loss: Array, most: float = 20.0) -> tuple[float, float]:
    """Return the two terms of the importance-weighting baseline: other cases, other relation; weights q/p clipped at ``most``."""
    w = np.minimum(np.exp(np.minimum(ratio[there == 0], 50.0)), most)
    carried = float(w @ home_loss / w.sum())
    return carried - float(home_loss.mean()), float(elsewhere_loss.mean()) - carried


def features_of(home: pd.DataFrame, away: pd.DataFrame, features: Sequence[str] | None = None, exclude: Sequence[str] = (), forbidden: Sequence[str] = ()) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both sides with the chosen features only; an unknown or forbidden one is a ``UserError``."""
    known = [*home.columns, *forbidden]
    features, exclude = None if features is None else listed(features, known), listed(exclude, known)
    for name in [*(features or ()), *exclude]:
        if name in forbidden:
            raise UserError(f"feature {name!r} is the domain or the label: it would leak")
        if name not in home.columns:
            raise UserError(f"no feature {name!r}{did_you_mean(name, home.columns)}")
    names = [c for c in (features if features is not None else home.columns) if c not in exclude and c not in forbidden]
    if not names:
        raise UserError("no feature is left to decompose on")
    return home[names].reset_index(drop=True), away[names].reset_index(drop=True)


def _as_matrix(loss: Array, x: pd.DataFrame) -> Array:
    matrix = np.asarray(loss, float)
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if len(matrix) != len(x):
        raise UserError(f"{len(matrix)} losses for {len(x)} cases")
    if not len(matrix) or not np.isfinite(matrix).all():
        raise UserError(f"{int((~np.isfinite(matrix)).any(1).sum())} of {len(matrix)} losses are not finite" if len(matrix) else "no case on one side")
    return matrix


def _overlap(ratio: Array, there: Array, weights: Sequence[Array]) -> tuple[float, float, tuple[float, float]]:
    found, sizes = [], []
    for side, sign in ((0, 1.0), (1, -1.0)):
        w = expit(sign * ratio[there == side])
        u = weights[side]
        found.append(float(2 * (u * w).sum() / u.sum()))
        total = float((u * w).sum())
        sizes.append(total**2 / float(np.square(u * w).sum()) if total > 0 else 0.0)
    return found[0], found[1], (sizes[0], sizes[1])


def _refusal(
    auc: float,
    overlaps: tuple[float, float],
    effective: tuple[float, float],
    sizes: tuple[int, int],
    columns: int,
) -> str:
    """Return why the terms mean nothing: overlap is judged first, since it is the better reason."""
    if auc >= APART_AUC:
        return f"the domains do not overlap: the features tell them apart (AUC {auc:.2f})"
    if overlaps[0] < LEAST_OVERLAP:
        return f"the domains hardly overlap (V = {overlaps[0]:.3f})"
    n_home, n_there = sizes
    if min(sizes) < LEAST_CASES:
        return f"too few cases: {n_home} at home, {n_there} there"
    if min(effective) < LEAST_CASES:
        return f"the overlap holds too few cases: effectively {effective[0]:.0f} at home, {effective[1]:.0f} there"
    if abs(overlaps[0] - overlaps[1]) > MOST_DISAGREEMENT:
        return (
            f"{n_home} cases at home and {n_there} there are too few "
            f"to compare {columns} numbers per case: the overlap comes out {overlaps[0]:.2f} "
            f"seen from home and {overlaps[1]:.2f} seen from there; "
            "choose fewer columns with --features"
        )
    return ""


def _columns(
    home: pd.DataFrame,
    away: pd.DataFrame,
    folds: int,
    rng: np.random.Generator,
    search: bool,
) -> tuple[dict[str, float], tuple[str, ...], tuple[str, ...], float]:
    """Return columns that tell the domains apart, identifiers, what to drop, the AUC without it."""
    both = pd.concat([home, away], ignore_index=True)
    identifiers = tuple(str(k) for k in both.columns if is_identifier(both[k]))
    if not search or min(len(home), len(away)) < folds:
        return {}, identifiers, identifiers, float("nan")
    alone = column_areas(home, away, folds, rng)
    apart = {str(k): float(v) for k, v in alone[alone >= _APART_ALONE].head(5).items()}
    named = tuple(dict.fromkeys([*identifiers, *apart]))
    rest = [k for k in home.columns if str(k) not in named]
    if not named or not rest:
        return apart, identifiers, identifiers, float("nan")
    c = cases(home[rest], away[rest], "logistic", folds, rng)
    without = area(log_ratio(c)[0][0], c.there)
    return apart, identifiers, named if without < APART_AUC else identifiers, without


def is_identifier(values: pd.Series[Any]) -> bool:
    """Return whether a column numbers or names rows: nearly every value occurs once.

    Text in which at least 95 % of values differ; whole numbers that all differ and fill at least
    half of their range.

    Examples:
        >>> is_identifier(pd.Series([f"patient {k}" for k in range(50)]))
        True
        >>> is_identifier(pd.Series(np.arange(50) + 1000))
        True
        >>> is_identifier(pd.Series(np.arange(50) / 7))
        False
    """
    known = values.dropna()
    if len(known) < _LEAST_ROWS:
        return False
    if is_category(values):
        return bool(known.astype(str).nunique() >= 0.95 * len(known))
    if not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        return False
    low, high = float(known.min()), float(known.max())
    return high - low < 2 * len(known) and bool((known % 1 == 0).all()) and bool(known.is_unique)


@dataclass(frozen=True)
class _Sample:
    """Losses and weights of both sides, how often they are resampled, and the generator.

    Each set of resamples starts from the same state of it: two classifiers see the same resamples.
    """

    losses: Sequence[Array]
    weights: Sequence[Array]
    resamples: int
    rng: np.random.Generator


def _resampled(
    c: Cases,
    ratio: Array,
    start: Array,
    sample: _Sample,
    refit: bool,
) -> tuple[Array, Array]:
    """Return gap and terms [resamples, 4, models] and overlaps [resamples] of resampled units."""
    rows = max(1, (_REFIT_BLOCK if refit else _BLOCK) // len(c.there))
    moves, overlaps, rng = [], [], copy.deepcopy(sample.rng)
    for i in range(0, sample.resamples, rows):
        counts = _counts(c, min(rows, sample.resamples - i), rng)
        drawn = log_ratio(c, counts, start)[0] if refit else ratio
        levels, overlap = _levels_and_overlap(drawn, c.there, sample.losses, sample.weights, counts)
        gap = levels[:, 3:] - levels[:, :1]
        moves.append(np.concatenate([gap, np.diff(levels, axis=1)], axis=1))
        overlaps.append(overlap)
    return np.concatenate(moves), np.concatenate(overlaps)


def _counts(c: Cases, resamples: int, rng: np.random.Generator) -> Array:
    """Draw how often each case is in each resample: units with replacement, within each domain."""
    counts = np.empty((resamples, len(c.there)))
    for side in (0, 1):
        mine = c.there == side
        _, which = np.unique(c.unit[mine], return_inverse=True)
        units = int(which.max()) + 1
        drawn = rng.integers(units, size=(resamples, units)) + units * np.arange(resamples)[:, None]
        per_unit = np.bincount(drawn.ravel(), minlength=units * resamples).reshape(resamples, units)
        counts[:, mine] = per_unit[:, which]
    return counts
