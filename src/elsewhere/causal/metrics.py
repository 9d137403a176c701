"""How near learnt variables come to the true ones: MCC, DCI, block R², graphs, and what is predicted under interventions (spec 05, 5)."""

from __future__ import annotations

from typing import Any

import numpy as np

from elsewhere.causal.predictions import moments
from elsewhere.causal.questions import Gaussian
from elsewhere.data import Array
from elsewhere.errors import Undefined, UserError

TREES_UP_TO = 5000  # points that gradient-boosted trees are fitted on
KERNEL_UP_TO = 2000


def correlations(z: Array, code: Array, rank: bool = False) -> Array:
    """Return |corr(z_i, code_j)| [n, k], Pearson or Spearman; 0 where a column is constant.

    Examples:
        >>> z = np.random.default_rng(0).normal(size=(50, 2))
        >>> correlations(z, -z).round(2).diagonal()
        array([1., 1.])
    """
    if rank:
        from scipy.stats import rankdata

        z, code = rankdata(z, axis=0), rankdata(code, axis=0)
    a, b = (v - v.mean(0) for v in (np.asarray(z, float), np.asarray(code, float)))
    scale = np.sqrt(np.square(a).sum(0))[:, None] * np.sqrt(np.square(b).sum(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.abs(a.T @ b) / scale)


def matched(z: Array, code: Array, rank: bool = False) -> Array:
    """Return for each true latent the code that stands for it [n], -1 where there are too few, by the assignment with the largest sum of |correlation|.

    Examples:
        >>> z = np.random.default_rng(0).normal(size=(50, 2))
        >>> matched(z, z[:, ::-1])
        array([1, 0])
    """
    from scipy.optimize import linear_sum_assignment

    found = correlations(z, code, rank)
    rows, columns = linear_sum_assignment(-found)
    out = np.full(found.shape[0], -1)
    out[rows] = columns
    return out


def mean_correlation(z: Array, code: Array, rank: bool = False) -> float:
    """Return the MCC: codes are assigned to latents on the first half of the rows, and the mean |correlation| of the matched is scored on the second.

    With more codes than latents the matrix is rectangular; with fewer, latents without a code count 0.

    Args:
        z: [N, n] true latents.
        code: [N, k] estimates.
        rank: Spearman's correlation instead of Pearson's.

    Examples:
        >>> z = np.random.default_rng(0).normal(size=(100, 3))
        >>> round(mean_correlation(z, -2 * z[:, [2, 0, 1]]), 6)
        1.0
    """
    if len(z) != len(code):
        raise UserError(f"{len(z):,} true latents and {len(code):,} estimates are compared row by row")
    if len(z) < 4:
        raise Undefined(f"{len(z)} rows are too few to assign codes on one half and score on the other")
    half = len(z) // 2
    at = matched(z[:half], code[:half], rank)
    found = correlations(z[half:], code[half:], rank)
    return float(np.where(at >= 0, found[np.arange(len(at)), at], 0).mean())


def importances(z: Array, code: Array, kind: str = "trees", seed: int = 0) -> tuple[Array, float]:
    """Return R [k, n], the importance of code j for factor i, and the mean R² of what gave it on a held-out fifth.

    Args:
        z: [N, n]; at most 5,000 rows are used.
        code: [N, k].
        kind: "trees" (gradient-boosted) or "lasso" (|weights| on standardised codes).
        seed: of the rows drawn and of the trees.

    Examples:
        >>> z = np.random.default_rng(0).normal(size=(200, 2))
        >>> importances(z, z[:, ::-1])[0].argmax(0)
        array([1, 0])
    """
    from sklearn.ensemble import GradientBoostingRegressor
    from sklearn.linear_model import LassoCV

    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(z))[:TREES_UP_TO]
    z, code = np.asarray(z, float)[rows], np.asarray(code, float)[rows]
    code = (code - code.mean(0)) / np.where(code.std(0) > 0, code.std(0), 1)
    cut = len(rows) - max(1, len(rows) // 5)
    found, scores = np.zeros((code.shape[1], z.shape[1])), []
    for i in range(z.shape[1]):
        model = GradientBoostingRegressor(n_estimators=50, subsample=0.5, random_state=seed) if kind == "trees" else LassoCV(cv=3)
        model.fit(code[:cut], z[:cut, i])
        found[:, i] = model.feature_importances_ if kind == "trees" else np.abs(model.coef_)
        scores.append(model.score(code[cut:], z[cut:, i]))
    return found, float(np.mean(scores))


def dci(importance: Array) -> dict[str, float]:
    """Return disentanglement and completeness of importances R [codes, factors] (Eastwood & Williams 2018).

    D = Σ_j ρ_j (1 - H_n(R_j· / Σ R_j·)), ρ_j the share of code j in Σ R; C the same over columns, entropy in base of the number of codes.

    Examples:
        >>> {k: round(v, 3) for k, v in dci(np.eye(3)).items()}
        {'disentanglement': 1.0, 'completeness': 1.0}
    """
    r = np.asarray(importance, float) + 1e-11

    def score(rows: Array) -> float:
        p = rows / rows.sum(1, keepdims=True)
        base = np.log(rows.shape[1]) if rows.shape[1] > 1 else 1.0
        return float((rows.sum(1) / rows.sum()) @ (1 + (p * np.log(p)).sum(1) / base))

    return {"disentanglement": score(r), "completeness": score(r.T)}


def linear_r2(inputs: Array, outputs: Array) -> float:
    """Return R² of least squares of a block on a block: fitted on one half, scored on the other, mean over columns.

    Examples:
        >>> z = np.random.default_rng(0).normal(size=(50, 2))
        >>> round(linear_r2(z @ np.array([[1.0, 2.0], [0.0, 1.0]]), z), 6)
        1.0
    """
    half = len(inputs) // 2
    x = np.c_[np.ones(len(inputs)), np.asarray(inputs, float).reshape(len(inputs), -1)]
    weights = np.linalg.lstsq(x[:half], outputs[:half], rcond=None)[0]
    return _r2(outputs[half:], x[half:] @ weights)


def block_r2(inputs: Array, outputs: Array, seed: int = 0) -> float:
    """Return R² of kernel ridge regression (RBF) of a block on a block: how much of ``outputs`` is in ``inputs``.

    Penalty in {1, .1, .01, .001} and width γ in logspace(-2, 2, 4) by 3 folds on at most 2,000 points, scored on the rest (or a half).

    Args:
        inputs: [N, k] a block of the code.
        outputs: [N, m] a block of latents.
        seed: of the points drawn.

    Examples:
        >>> z = np.random.default_rng(0).normal(size=(600, 2))
        >>> block_r2(z, z[:, :1]) > 0.95, block_r2(z[:, :1], z[:, 1:]) < 0.1
        (True, True)
    """
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV

    rows = np.random.default_rng(seed).permutation(len(inputs))
    cut = min(KERNEL_UP_TO, len(rows) // 2)
    fit, test = rows[:cut], rows[cut : cut + KERNEL_UP_TO]
    x = np.asarray(inputs, float).reshape(len(inputs), -1)
    x = (x - x[fit].mean(0)) / np.where(x[fit].std(0) > 0, x[fit].std(0), 1)
    y = np.asarray(outputs, float).reshape(len(x), -1)
    y = (y - y[fit].mean(0)) / np.where(y[fit].std(0) > 0, y[fit].std(0), 1)
    search = GridSearchCV(KernelRidge(kernel="rbf"), {"alpha": [1, 0.1, 0.01, 0.001], "gamma": np.logspace(-2, 2, 4)}, cv=3)
    return _r2(y[test], search.fit(x[fit], y[fit]).predict(x[test]).reshape(len(test), -1))


def r2_matrix(z: Array, code: Array) -> Array:
    """Return R² [codes, latents] of each latent read off each code alone, by boosted trees (spec 05, 5: F)."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    rows = np.random.default_rng(0).permutation(len(z))[:TREES_UP_TO]
    half = len(rows) // 2
    fit, test = rows[:half], rows[half:]
    found = np.empty((code.shape[1], z.shape[1]))
    for j in range(code.shape[1]):
        for i in range(z.shape[1]):
            model = HistGradientBoostingRegressor(max_iter=60, max_leaf_nodes=15).fit(code[fit][:, [j]], z[fit, i])
            found[j, i] = max(0.0, _r2(z[test][:, [i]], model.predict(code[test][:, [j]])[:, None]))
    return found


def assigned_r2(z: Array, code: Array) -> dict[str, float]:
    """Return the mean R² of latents from the codes assigned to them, and the mean over latents of the largest from other latents' codes.

    With more codes than latents each code is assigned to the latent that it predicts best, and a latent's value is the best of its codes.
    """
    found = r2_matrix(z, code)
    owner = found.argmax(1)
    diagonal = [found[owner == i, i].max(initial=0.0) for i in range(z.shape[1])]
    off = [found[(owner != i) & (found.max(1) > 0.1), i].max(initial=0.0) for i in range(z.shape[1])]
    return {"diagonal": float(np.mean(diagonal)), "off_diagonal": float(np.mean(off))}


# --- graphs ---------------------------------------------------------------------------------------------------------


def structural_hamming_distance(truth: Array, found: Array) -> int:
    """Return in how many unordered pairs the state of the edge (none, →, ←) differs.

    Examples:
        >>> structural_hamming_distance(np.array([[0, 1], [0, 0]]), np.array([[0, 0], [1, 0]]))
        1
    """
    a, b = (np.asarray(g) != 0 for g in (truth, found))
    if a.shape != b.shape:
        raise Undefined(f"the true graph has {a.shape[0]} latents and the learnt one {b.shape[0]}")
    return int(np.triu((a != b) | (a.T != b.T), 1).sum())


def edge_f1(truth: Array, found: Array) -> float:
    """Return F1 of directed edges; 1 where neither graph has any.

    Examples:
        >>> edge_f1(np.array([[0, 1], [0, 0]]), np.array([[0, 1], [0, 0]]))
        1.0
    """
    a, b = (np.asarray(g) != 0 for g in (truth, found))
    if a.shape != b.shape:
        raise Undefined(f"the true graph has {a.shape[0]} latents and the learnt one {b.shape[0]}")
    total = a.sum() + b.sum()
    return float(2 * (a & b).sum() / total) if total else 1.0


def closure(graph: Array) -> Array:
    """Return the transitive closure of an adjacency: who is an ancestor of whom (Warshall).

    Examples:
        >>> closure(np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])).astype(int).tolist()
        [[0, 1, 1], [0, 0, 1], [0, 0, 0]]
    """
    reach = np.array(graph) != 0
    for k in range(len(reach)):
        reach |= np.outer(reach[:, k], reach[k])
    return reach


def ancestor_f1(truth: Array, found: Array) -> float:
    """Return F1 of the transitive closures.

    Examples:
        >>> chain = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])
        >>> ancestor_f1(chain, closure(chain))
        1.0
    """
    return edge_f1(closure(truth), closure(found))


# --- distributions --------------------------------------------------------------------------------------------------


def wasserstein(a: Gaussian, b: Gaussian) -> float:
    """Return W₂² between normal distributions: ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Σ_a^½ Σ_b Σ_a^½)^½).

    Examples:
        >>> wasserstein(Gaussian(np.zeros(1), np.eye(1)), Gaussian(np.ones(1), 4 * np.eye(1)))
        2.0
    """
    root = _root(a.covariance)
    cross = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sqrt(np.clip(cross, 0, None)).sum()
    return float(np.square(a.mean - b.mean).sum() + max(trace, 0.0))


def energy_distance(a: Array, b: Array, most: int = 1000, seed: int = 0) -> float:
    """Return the energy distance of rows, 2 E|A - B| - E|A - A'| - E|B - B'|, from at most ``most`` of each (Székely & Rizzo 2013).

    Examples:
        >>> energy_distance(np.zeros((3, 1)), np.ones((3, 1)))
        2.0
    """
    from scipy.spatial.distance import cdist, pdist

    rng = np.random.default_rng(seed)
    a, b = (np.asarray(v, float)[rng.permutation(len(v))[:most]] for v in (a, b))
    within = sum(2 * pdist(v).sum() / (len(v) * max(1, len(v) - 1)) for v in (a, b))
    return float(2 * cdist(a, b).mean() - within)


def intervention_prediction_error(predicted: Any, truth: Any, reference: Any, distance: str = "wasserstein") -> float:
    """Return the distance of a prediction from the truth over that of "nothing happens": 0 is perfect, 1 is no better than nothing.

    Args:
        predicted, truth, reference: ``Gaussian``s or rows [N, d]; the reference is the observational distribution.
        distance: "wasserstein" (W₂² of the normal distributions with these moments) or "energy" (of rows).

    Examples:
        >>> home, there = Gaussian(np.zeros(2), np.eye(2)), Gaussian(np.ones(2), np.eye(2))
        >>> intervention_prediction_error(home, there, home), intervention_prediction_error(there, there, home)
        (1.0, 0.0)
    """
    if distance == "energy":
        rng = np.random.default_rng(0)
        rows = [v.sample(1000, rng) if isinstance(v, Gaussian) else np.asarray(v, float) for v in (predicted, truth, reference)]
        far, near = energy_distance(rows[2], rows[1]), energy_distance(rows[0], rows[1])
    else:
        p, t, r = (moments(v) for v in (predicted, truth, reference))
        far, near = wasserstein(r, t), wasserstein(p, t)
    if not far > 0:
        raise Undefined("nothing happens under this intervention: an error has no scale")
    return max(near, 0.0) / far


def _root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)


def _r2(truth: Array, found: Array) -> float:
    variance = np.asarray(truth).var(0)
    keep = variance > 0
    return float((1 - np.square(truth - found).mean(0)[keep] / variance[keep]).mean()) if keep.any() else float("nan")
