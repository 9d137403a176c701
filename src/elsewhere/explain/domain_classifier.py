"""Which domain does a case come from? Out-of-fold log density ratios, also for many resamples at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.special import expit, log_expit

from elsewhere.data import Array
from elsewhere.encoding import Encoder
from elsewhere.errors import UserError

Classifier = Literal["logistic", "boosting"]
# Inverse penalty on standardised features. With 1, as one would take on raw ones, the penalty bites where domains are far
# apart: at m = 4 of the known-terms world the first term comes out 0.047 too small (8 standard errors); with 10 it does not.
STRENGTH = 10.0
# From this many cases per coefficient on the penalty hardly matters, and no other one is tried.
WELL_DETERMINED = 50
_WEAKER = (1.0, 0.1, 0.01, 0.001, 0.0001)
_CHUNK = 4_000_000  # numbers of a [resamples, n] block
_MANY = 8  # resamples from which on all products of two columns are worth their memory
_ROWS = 4096  # of a block of the Hessian: stays in the cache


@dataclass(frozen=True)
class Cases:
    """The cases of two domains, encoded once: x [n, d], there [n] (0 home, 1 elsewhere), fold and unit [n]."""

    x: Array
    there: Array
    fold: Array
    unit: Array
    folds: int
    classifier: Classifier
    categorical: tuple[bool, ...] = ()
    strength: float = STRENGTH

    @property
    def offset(self) -> float:
        """log((1 - a) / a), a the share of cases elsewhere: turns the log-odds of the classifier into log q/p."""
        a = float(self.there.mean())
        return float(np.log((1 - a) / a))


def cases(home: pd.DataFrame, elsewhere: pd.DataFrame, classifier: Classifier, folds: int, rng: np.random.Generator, home_unit: Array | None = None, elsewhere_unit: Array | None = None) -> Cases:
    """Encode the union of two samples and deal their units into folds, domain by domain."""
    both = pd.concat([home, elsewhere], ignore_index=True)
    encoder = Encoder(squares=True) if classifier == "logistic" else Encoder(codes=True, max_categories=200)
    x = encoder.fit(both).transform(both)
    there = np.r_[np.zeros(len(home), int), np.ones(len(elsewhere), int)]
    unit = np.r_[codes(home_unit, len(home)), -1 - codes(elsewhere_unit, len(elsewhere))]
    fold = np.empty(len(both), int)
    for side in (0, 1):
        _, which = np.unique(unit[there == side], return_inverse=True)
        count = int(which.max()) + 1
        fold[there == side] = (rng.permutation(count) % folds)[which]
    return Cases(x, there, fold, unit, folds, classifier, tuple(encoder.categorical()) if classifier == "boosting" else ())


def codes(unit: Array | None, n: int) -> Array:
    """Return units as integers [n], each case its own unit where there are none."""
    return np.arange(n) if unit is None else np.unique(unit.astype(str), return_inverse=True)[1]


def log_ratio(c: Cases, counts: Array | None = None, start: Array | None = None) -> tuple[Array, Array]:
    """Return out-of-fold log q/p [resamples, n] (one row without ``counts``), and the coefficients of each fold to start from.

    Args:
        c: the cases.
        counts: [resamples, n] how often a resample holds each case; whole units stay in one fold, so a case that is
            drawn twice never trains the classifier that judges it.
        start: [folds, d + 1] coefficients, which make refitting quick.
    """
    if c.classifier == "boosting":
        return _boosted(c)[None], np.empty(0)
    counts = np.ones((1, len(c.x))) if counts is None else counts
    design = np.c_[c.x, np.ones(len(c.x))]
    out = np.empty(counts.shape)
    begun = []
    for k in range(c.folds):
        inside = c.fold != k
        begin = None if start is None else start[k]
        b = fit_logistic(design[inside], c.there[inside], counts[:, inside], c.strength, begin)
        out[:, ~inside] = b @ design[~inside].T
        begun.append(b[0])
    return out + c.offset, np.array(begun)


def most_predictive(c: Cases, ratio: Array, start: Array) -> Cases:
    """Return the cases with the penalty whose classifier predicts held-out cases best.

    The penalty grows from ``STRENGTH`` on while the mean held-out log loss falls, each fit starting
    from the one before. The folds are those of the cross-fitting.

    Args:
        c: the cases; returned as given for boosting and for well-determined classifiers.
        ratio: [n] out-of-fold log-ratio of the cases as given.
        start: [folds, d + 1] its coefficients.

    Returns:
        The cases, with another ``strength`` where another one predicts better.
    """
    if c.classifier != "logistic" or well_determined(c):
        return c
    best, least = c, held_out_loss(c, ratio)
    for strength in _WEAKER:
        tried = replace(c, strength=strength)
        ratios, start = log_ratio(tried, start=start)
        loss = held_out_loss(c, ratios[0])
        if loss >= least:
            break
        best, least = tried, loss
    return best


def well_determined(c: Cases) -> bool:
    """Return whether there are so many cases per coefficient that the penalty hardly matters."""
    return len(c.x) >= WELL_DETERMINED * (c.x.shape[1] + 1)


def held_out_loss(c: Cases, ratio: Array) -> float:
    """Return the mean log loss of telling the domains apart by out-of-fold log-ratios [n]."""
    logit = ratio - c.offset
    return -float(np.mean(log_expit(np.where(c.there == 1, logit, -logit))))


def fit_logistic(design: Array, label: Array, counts: Array, C: float = STRENGTH, start: Array | None = None, steps: int = 100) -> Array:
    """Fit many weighted logistic regressions at once by Newton's method and return coefficients [resamples, d].

    Each minimises ½ |b|² + C Σ_i counts_i log(1 + exp(∓ design_i b)), as scikit-learn does; the last column is the
    intercept and goes unpenalised. A step that does not lower the gradient's norm is halved.

    Args:
        design: [n, d], ones in the last column.
        label: [n] of 0 and 1.
        counts: [resamples, n] weights.
        C: inverse penalty.
        start: [d] to start from.
        steps: at most so many.
    """
    n, d = design.shape
    rows = max(1, _CHUNK // max(n, 1))
    upper = np.triu_indices(d)
    few = len(counts) < _MANY or n * len(upper[0]) > 50_000_000
    products = None if few else design[:, upper[0]] * design[:, upper[1]]
    first = np.zeros(d) if start is None else start
    return np.concatenate([_newton(design, label, counts[i : i + rows], C, first, steps, upper, products) for i in range(0, len(counts), rows)])


def _newton(design: Array, label: Array, counts: Array, C: float, start: Array, steps: int, upper: Any, products: Array | None) -> Array:
    penalty = np.r_[np.ones(design.shape[1] - 1), 1e-9]
    b = np.repeat(start[None], len(counts), 0)
    p, gradient = _gradient(design, label, counts, C, penalty, b)
    active = np.arange(len(b))
    for _ in range(steps):
        before = np.square(gradient[active]).sum(1)
        active = active[before > 1e-10]
        if not len(active):
            break
        before, c, q = np.square(gradient[active]).sum(1), counts[active], p[active]
        step = np.linalg.solve(_hessian(design, C * c * q * (1 - q), penalty, upper, products), gradient[active][..., None])[..., 0]
        size = np.ones(len(active))
        for _ in range(30):  # Newton's direction always lowers the gradient's norm, if the step is short enough
            trial = b[active] - size[:, None] * step
            p_new, g_new = _gradient(design, label, c, C, penalty, trial)
            worse = np.square(g_new).sum(1) > before
            if not worse.any():
                break
            size[worse] /= 2
        stuck = np.abs(trial - b[active]).max(1) < 1e-12
        b[active], p[active], gradient[active] = trial, p_new, g_new
        active = active[~stuck]
    return b


def _gradient(design: Array, label: Array, counts: Array, C: float, penalty: Array, b: Array) -> tuple[Array, Array]:
    p = expit(b @ design.T)
    return p, C * ((counts * (p - label)) @ design) + penalty * b


def _hessian(design: Array, weight: Array, penalty: Array, upper: Any, products: Array | None) -> Array:
    d = design.shape[1]
    h = np.zeros((len(weight), d, d))
    if products is None:
        for at in range(0, len(design), _ROWS):
            z = design[at : at + _ROWS]
            for i, w in enumerate(weight[:, at : at + _ROWS]):
                h[i] += (z * w[:, None]).T @ z
    else:
        h[:, upper[0], upper[1]] = weight @ products
        h[:, upper[1], upper[0]] = h[:, upper[0], upper[1]]
    return h + np.diag(penalty)


def _boosted(c: Cases) -> Array:
    """Return out-of-fold log q/p of histogram gradient boosting, Platt-calibrated on a fifth of each training part."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    out = np.empty(len(c.x))
    for k in range(c.folds):
        inside = c.fold != k
        held = c.fold == (k + 1) % c.folds
        grown = inside & ~held
        model = HistGradientBoostingClassifier(max_iter=100, max_leaf_nodes=8, learning_rate=0.05, early_stopping=False, random_state=0, categorical_features=np.array(c.categorical)).fit(
            c.x[grown], c.there[grown]
        )
        platt = LogisticRegression(C=1e6).fit(model.decision_function(c.x[held])[:, None], c.there[held])
        out[~inside] = platt.decision_function(model.decision_function(c.x[~inside])[:, None])
    return out + c.offset


def area(ratio: Array, there: Array) -> float:
    """Return the AUC of a log-ratio for telling the domains apart."""
    from elsewhere.metrics import area_under_roc

    return area_under_roc(ratio, there == 1).value


def column_areas(home: pd.DataFrame, elsewhere: pd.DataFrame, folds: int, rng: np.random.Generator) -> pd.Series[float]:
    """Return, for each column alone, the out-of-fold AUC of telling the domains apart, largest first."""
    found = {}
    for name in home.columns:
        try:
            c = cases(home[[name]], elsewhere[[name]], "logistic", folds, rng)
        except UserError:
            continue
        found[name] = area(log_ratio(c)[0][0], c.there)
    return pd.Series(found, dtype=float).sort_values(ascending=False)
