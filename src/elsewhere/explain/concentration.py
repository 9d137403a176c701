"""Is the harm held by few examples, and by whose? Named only beyond what chance leaves.

The share of the harm that the worst tenth holds is large on clean data too: 44 % of a Gaussian,
more of a product. It is compared with the values of refits on permuted residuals. Whether a domain
or group is over-represented among the worst is a test of conditional independence given the
features, so that a place with harder cases alone is not accused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from elsewhere.assay.analysis import holm
from elsewhere.data import Array

if TYPE_CHECKING:
    from elsewhere.explain.dataset_derivative import DatasetDerivative

Judges = Mapping[str, tuple[Array, Array]]
WORST = (0.01, 0.05, 0.1)  # shares of all examples among which parts are counted
TENTH = 0.1
REFITS = 99
LEVEL = 0.05  # of a whole finding: every judge, part and share that is looked at
ALIKE = 30  # examples with alike predictions, among which labels of classes are permuted
ALIKE_IN_SCALE = 200  # the same for numbers, which are alike in the size of their residuals
RANDOM_FEATURES = 200
RIDGES = np.logspace(-3, 1, 5)
FEWEST = 2.5  # examples of a part expected among the worst; below, the normal tail is wrong
LEAST_ODDS = 1.5  # odds ratio; a smaller over-representation names nobody, however significant
MOST_PARTS = 100


@dataclass(frozen=True)
class Concentration:
    """How concentrated the harm to one judge is.

    Args:
        held: one row per share: the share of the harm that the worst hold, the median and the 95 %
            band of refits on permuted residuals, and p of the worst tenth.
        parts: one row per domain or group and share of the worst: its share of the worst, of all
            examples, what its features explain of it, and p.
    """

    held: pd.DataFrame
    parts: pd.DataFrame

    @property
    def concentrated(self) -> bool:
        """Whether the worst tenth holds more of the harm than chance leaves it."""
        return bool((self.held["p"] <= LEVEL).any())

    def over_represented(self) -> pd.DataFrame:
        """Return the parts to be named, one row each, the surest first."""
        odds = _odds(self.parts["share of the worst"]) / _odds(self.parts["expected"])
        sure = self.parts[(self.parts["p"] <= LEVEL) & (odds >= LEAST_ODDS)]
        return sure.sort_values("p", kind="stable").drop_duplicates(["column", "part"])


def held_by_worst(g: Array) -> pd.DataFrame:
    """Return which share of the harm (positive derivative) the worst 1, 10 and 50 % hold.

    Args:
        g: derivative of a judge's loss by the weight of each example [n].

    Examples:
        >>> held_by_worst(np.r_[np.full(99, 0.01), 0.99])["share of the harm"].round(2).tolist()
        [0.5, 0.55, 0.75]
    """
    counts = [max(1, round(share * len(g))) for share in (0.01, TENTH, 0.5)]
    shares = [_held(g, k) for k in counts]
    worst = ["1 %", "10 %", "50 %"]
    return pd.DataFrame({"worst": worst, "examples": counts, "share of the harm": shares})


def _held(g: Array, count: int) -> float:
    harm = np.sort(np.maximum(g, 0))[::-1]
    return float(harm[:count].sum() / (harm.sum() or 1.0))


def concentrations(
    derivative: DatasetDerivative,
    features: Array,
    judges: Judges,
    columns: Mapping[str, Array],
    unit: Array | None = None,
) -> dict[str, Concentration]:
    """Return how concentrated the harm to each judge is; p-values are of single tests.

    Args:
        derivative: fitted on ``features``.
        features: [n, d].
        judges: features [m, d] and labels of the examples that judge, by name.
        columns: what may be over-represented, a value per example [n] by name ("domain", "group").
        unit: [n]; examples of one unit count as one observation.

    Examples:
        >>> from elsewhere.explain.dataset_derivative import DatasetDerivative
        >>> rng = np.random.default_rng(0)
        >>> x, place = rng.normal(size=(300, 3)), np.repeat(["a", "b", "c"], 100)
        >>> y, d = x[:, 0] + rng.normal(size=300), DatasetDerivative(ridge=1.0)
        >>> judge = {"new": (x[:50] + 0.1, y[:50])}
        >>> found = corrected(concentrations(d.fit(x, y), x, judge, {"domain": place}))["new"]
        >>> found.concentrated, len(found.over_represented())
        (False, 0)
    """
    refits = _refits(derivative, features, judges)
    counted = {k: v.astype(str) for k, v in columns.items() if len(set(v.astype(str))) > 1}
    found = {}
    for name, judge in judges.items():
        g = np.asarray(derivative.gradient(judge))
        parts = _counted_parts(features, g, counted, unit)
        found[name] = Concentration(_against_chance(g, refits[name]), parts)
    return found


def corrected(found: Mapping[str, Concentration]) -> dict[str, Concentration]:
    """Return the same with p-values corrected for everything that was looked at (Holm 1979).

    Examples:
        >>> corrected({})
        {}
    """
    frames = [frame for c in found.values() for frame in (c.held, c.parts)]
    if not frames:
        return {}
    p = np.concatenate([f["p"].to_numpy(float) for f in frames])
    cut = np.cumsum([len(f) for f in frames])[:-1]
    ready = iter([f.assign(p=q) for f, q in zip(frames, np.split(holm(p), cut), strict=True)])
    return {name: replace(c, held=next(ready), parts=next(ready)) for name, c in found.items()}


# --- the share of the harm against refits on permuted residuals ---


def _against_chance(g: Array, refits: Array) -> pd.DataFrame:
    """Return ``held_by_worst`` with what refits [REFITS, 3] hold, and p of the worst tenth.

    p is Student's, of one more value than the refits: 99 of them would end at p = .01.
    """
    table = held_by_worst(g)
    low, middle, high = np.quantile(refits, [0.025, 0.5, 0.975], axis=0)
    mean, deviation = refits[:, 1].mean(), refits[:, 1].std(ddof=1) * np.sqrt(1 + 1 / len(refits))
    far = (table["share of the harm"].iloc[1] - mean) / max(float(deviation), 1e-12)
    p = [np.nan, float(t.sf(far, len(refits) - 1)), np.nan]
    return table.assign(**{"by chance": middle, "chance low": low, "chance high": high}, p=p)


def _refits(derivative: DatasetDerivative, features: Array, judges: Judges) -> dict[str, Array]:
    """Return what the worst hold when the regression is fitted again on permuted residuals.

    W = C Zᵀ D_α Y*, g = rowsum((Z C Vᵀ G) ⊙ (Y* - Z W)); C, the features and the judges stay.
    """
    rng, permuted = np.random.default_rng(0), _permuting(derivative, features)
    z, c = _padded(derivative, features), derivative.solution_.inverse.cpu().numpy()
    weighted = derivative.sample_weight_[:, None] * z
    sides = {k: (_padded(derivative, v), derivative.wanted(u)) for k, (v, u) in judges.items()}
    found: dict[str, list[list[float]]] = {name: [] for name in judges}
    for _ in range(REFITS):
        y = permuted(rng)
        w = c @ (weighted.T @ y)
        residual = y - z @ w
        for name, (v, u) in sides.items():
            pull = c @ (v.T @ (2 * (v @ w - u)))
            table = held_by_worst(((z @ pull) * residual).sum(1))
            found[name].append(table["share of the harm"].tolist())
    return {name: np.array(rows) for name, rows in found.items()}


def _permuting(derivative: DatasetDerivative, features: Array) -> Callable[..., Array]:
    """Return a function from a generator to outputs [n, outputs] with permuted residuals.

    Residuals of classes are not exchangeable: their spread depends on the prediction. So labels
    are permuted among examples with alike left-out predictions; residuals of numbers among those of
    alike size, each divided by the size that its features predict.
    """
    y = derivative.outputs()
    residual = beyond_features(features, y)
    if derivative.solution_.targets.codes is not None:
        predicted = y - residual
        strata = _strata(np.lexsort((predicted.max(1), predicted.argmax(1))), ALIKE)
        return lambda rng: y[_within(strata, rng)]
    size = np.log(np.abs(residual).mean(1) + 1e-3 * np.abs(residual).mean() + 1e-300)[:, None]
    scale = np.exp(size - beyond_features(features, size))
    strata = _strata(np.argsort(scale[:, 0], kind="stable"), ALIKE_IN_SCALE)
    return lambda rng: (y - residual) + scale * (residual / scale)[_within(strata, rng)]


def _strata(order: Array, size: int) -> list[Array]:
    return np.array_split(order, max(1, len(order) // size))


def _within(strata: list[Array], rng: np.random.Generator) -> Array:
    """Return a permutation [n] that moves rows within their stratum alone."""
    moved = np.empty(sum(map(len, strata)), int)
    for rows in strata:
        moved[rows] = rng.permutation(rows)
    return moved


def _padded(derivative: DatasetDerivative, features: Array) -> Array:
    x = np.asarray(features, float)
    return np.c_[x, np.ones(len(x))] if derivative.intercept else x


# --- domains and groups among the worst ---


def _counted_parts(
    features: Array,
    g: Array,
    columns: Mapping[str, Array],
    unit: Array | None,
) -> pd.DataFrame:
    """Return part × share of the worst, with the one-sided p of independence given the features.

    The generalised covariance measure (Shah and Peters 2020): with R_w and R_k what the features
    leave unexplained of "is among the worst" and "is of part k", Σ R_w R_k / √(Σ (R_w R_k)²) is
    standard normal if the two are independent given the features.
    """
    order, rows = np.argsort(-g, kind="stable"), []
    worst = np.zeros((len(g), len(WORST)))
    for k, share in enumerate(WORST):
        worst[order[: max(1, round(share * len(g)))], k] = 1
    left = beyond_features(features, worst)
    for column, values in columns.items():
        names, counts = np.unique(values, return_counts=True)
        names = names[np.argsort(-counts, kind="stable")][:MOST_PARTS]
        inside = (values[:, None] == names).astype(float)
        own = beyond_features(features, inside)
        for k, share in enumerate(WORST):
            of_worst = inside[worst[:, k] == 1].mean(0)
            product = left[:, [k]] * own
            excess = product.sum(0) / worst[:, k].sum()
            score = _score(product, unit)
            for i in np.flatnonzero(worst[:, k].sum() * inside.mean(0) >= FEWEST):
                told = {"column": column, "part": str(names[i]), "worst": share}
                told |= {"share of the worst": of_worst[i], "share of all": inside[:, i].mean()}
                told |= {"expected": np.clip(of_worst[i] - excess[i], 1e-9, 1)}
                rows.append({**told, "p": float(norm.sf(score[i]))})
    names_ = ["column", "part", "worst", "share of the worst", "share of all", "expected", "p"]
    return pd.DataFrame(rows, columns=names_)


def _score(product: Array, unit: Array | None) -> Array:
    """Return sums [parts] over their standard errors; examples of a unit are one observation."""
    if unit is not None:
        _, codes = np.unique(unit.astype(str), return_inverse=True)
        product = np.stack([np.bincount(codes, column) for column in product.T], 1)
    return np.asarray(product.sum(0) / np.sqrt(np.square(product).sum(0) + 1e-300))


def beyond_features(features: Array, targets: Array) -> Array:
    """Return what features do not explain of each target: left-out residuals [n, targets].

    Ridge regression on the features and random rectified ones (an additive or linear fit leaves
    curvature, and curvature looks like a domain wherever domains differ in their cases), with the
    ridge that is best left out, for each target.

    Args:
        features: [n, d].
        targets: [n, k].

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(400, 2))
        >>> bool(np.abs(beyond_features(x, x[:, :1] ** 2)).mean() < 0.2)
        True
    """
    x = _expanded(np.asarray(features, float))
    n, mean = len(x), targets.mean(0)
    level, axes = np.linalg.eigh(x.T @ x)
    x = x @ axes
    cross = x.T @ (targets - mean)
    found, least = np.empty(targets.shape), np.full(targets.shape[1], np.inf)
    for ridge in RIDGES * n:
        shrink = 1 / (np.maximum(level, 0) + ridge)
        free = 1 - 1 / n - np.square(x) @ shrink
        residual = (targets - mean - x @ (shrink[:, None] * cross)) / free[:, None]
        error = np.square(residual).sum(0)
        better = error < least
        found[:, better], least[better] = residual[:, better], error[better]
    return found


def _expanded(x: Array) -> Array:
    rng, x = np.random.default_rng(0), _standardised(x)
    turn = rng.normal(size=(x.shape[1], RANDOM_FEATURES)) * np.sqrt(2 / max(1, x.shape[1]))
    return np.c_[x, _standardised(np.maximum(x @ turn + rng.normal(size=RANDOM_FEATURES), 0))]


def _standardised(x: Array) -> Array:
    spread = x.std(0)
    return np.asarray((x - x.mean(0)) / np.where(spread > 1e-12, spread, 1.0))


def _odds(share: pd.Series[float]) -> pd.Series[float]:
    return share / (1 - share).clip(lower=1e-9)
