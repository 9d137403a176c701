"""Linear causal disentanglement from interventions: score differences, orders, unmixing, likelihood (spec 05, A).

The setting is that of Squires et al. 2023, the score-based way that of Varıcı et al. 2025. Everything is a function of counts, means and
covariances (``Moments``), the observational environment first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from typing import Any

import numpy as np

from elsewhere.causal.model import Mechanisms
from elsewhere.causal.moments import Moments
from elsewhere.data import Array

LEVEL = 0.001  # of all tests of who is before whom, together
INFLATION = 4.0  # of the Wald covariance: its direction is estimated too
SMALLEST_T, SMALLEST_PARTIAL = 4.0, 0.15  # of a parent that is kept
SWEEPS = 3
REFERENCE_EDGE = 1e-3
REFERENCE_UP_TO = 9  # latents: the reference looks at n! orders


@dataclass(frozen=True)
class Scores:
    """Environments in the n directions that vary: basis Q [d, n], and there counts, mean shifts δ [m, n], covariances, precisions; R [m, n, n] of score differences."""

    basis: Array
    count: Array
    shift: Array
    covariance: Array
    precision: Array
    differences: Array


def support(moments: Moments, n: int) -> tuple[Array, Array]:
    """Return Q [d, n], the top eigenvectors of the sum of all covariances, and all its eigenvalues, largest first."""
    values, vectors = np.linalg.eigh(moments.covariance.sum(0))
    return vectors[:, ::-1][:, :n], values[::-1]


def scores(moments: Moments, n: int, shifts: bool = True, shrink: float = 0.0) -> Scores:
    """Return the environments in Q's coordinates and the second moments of their score differences to environment 0.

    R_m = (P_m - P_0) S_0 (P_m - P_0) + (P_m δ_m)(P_m δ_m)ᵀ: under environment 0 the score of a normal distribution is -P_m (x - μ_m). The
    term of the means (``shifts``) is absent from the reference; under a hard intervention P_m δ_m points exactly along row m of the encoder.

    Args:
        moments: of all environments, the observational one first.
        n: latents.
        shifts: use the means.
        shrink: towards a multiple of the identity (Ledoit-Wolf), for few observations.
    """
    q, _ = support(moments, n)
    covariance = np.einsum("di,mde,ej->mij", q, moments.covariance, q, optimize=True)
    if shrink:
        level = np.trace(covariance, axis1=1, axis2=2) / n
        covariance = (1 - shrink) * covariance + shrink * level[:, None, None] * np.eye(n)
    precision = np.linalg.inv(covariance)
    shift = (moments.mean - moments.mean[0]) @ q
    change = precision - precision[0]
    r = change @ covariance[0] @ change
    if shifts:
        along = np.einsum("mij,mj->mi", precision, shift)
        r = r + along[:, :, None] * along[:, None, :]
    return Scores(q, moments.count, shift, covariance, precision, r[1:])


def encoder_rows(differences: Array) -> Array:
    """Return E [n, n]: row m is the main direction of the score difference of environment m, a mix of latent m and its causes."""
    return np.asarray(np.linalg.eigh(differences)[1][:, :, -1])


def score_evidence(s: Scores, e: Array) -> Array:
    """Return X [i, m], how surely latent i is before latent m because environment m changes the score along latent i (0 where not significant).

    g_im = (P_m - P_0) D_·i is 0 unless i = m or i is an ancestor of m. Wald T = gᵀ C⁻¹ g ~ χ²_n with
    C = 4 Σ_{k ∈ {0, m}} [(aᵀ P_k a) P_k + P_k a aᵀ P_k] / N_k, a = D_·i.
    """
    from scipy.stats import chi2

    n = len(e)
    d = np.linalg.pinv(e)
    g = np.einsum("mij,jk->mki", s.precision[1:] - s.precision[0], d)  # [m, i, n]
    along = np.einsum("kij,jl->kli", s.precision, d)  # P_k a: [k, i, n]
    quadratic = np.einsum("jl,klj->kl", d, along)
    each = (quadratic[:, :, None, None] * s.precision[:, None] + along[..., :, None] * along[..., None, :]) / s.count[:, None, None, None]
    c = INFLATION * (each[1:] + each[0])
    t = np.einsum("mia,mia->mi", g, np.linalg.solve(c, g[..., None])[..., 0]).T
    return _significant(t, float(chi2.isf(LEVEL / max(1, n * (n - 1)), n)))


def change_evidence(s: Scores, e: Array) -> Array:
    """Return X [m, i], how surely latent m is before latent i because environment m changes the distribution of e_i x.

    ¼ [ln²(v_m / v_0) / (2/N_0 + 2/N_m) + (Δ mean)² / (v_0/N_0 + v_m/N_m)] ~ χ²_2.
    """
    from scipy.stats import chi2

    n = len(e)
    v = np.einsum("ia,kab,ib->ki", e, s.covariance, e)
    step = s.shift @ e.T
    count = s.count[:, None]
    t = (np.log(v[1:] / v[0]) ** 2 / (2 / count[0] + 2 / count[1:]) + step[1:] ** 2 / (v[0] / count[0] + v[1:] / count[1:])) / INFLATION
    return _significant(t, float(chi2.isf(LEVEL / max(1, n * (n - 1)), 2)))


def _significant(t: Array, least: float) -> Array:
    kept = np.where(t > least, t, 0.0)
    np.fill_diagonal(kept, 0.0)
    return kept


def start_order(before: Array) -> list[int]:
    """Return an order of the latents: again and again the one with the smallest evidence that another of those left is before it.

    Examples:
        >>> start_order(np.array([[0.0, 5.0], [0.0, 0.0]]))
        [0, 1]
    """
    left, found = list(range(len(before))), []
    while left:
        incoming = before[np.ix_(left, left)].sum(0)
        found.append(left.pop(int(np.argmin(incoming))))
    return found


class OrderLikelihood:
    """The negative log-likelihood of an order of the latents: a sum over latents of a term that depends on its set of predecessors alone.

    With E'_m = E_m - uᵀ E_pred (independent of what precedes it in environment m), ẑ = E' x and ordered regression in environment 0 with rows
    B_k = (I - W)_k / √v_k, spec 05 A.6 has

        N_0 [½ tr B Z_0 Bᵀ + ½ Σ ln v] + Σ_m N_m [½ Σ_{k≠m} B_k (Z_m + Δ_m Δ_mᵀ) B_kᵀ + ½ + ½ Σ_{k≠m} ln v_k + ½ ln Z_m[m, m]].

    Predecessors span the same space in E and in E', so B_k E' is the residual of E_k x on E_pred x in environment 0, whatever E' is, and Z_m[m, m] that in
    environment m: every term belongs to one latent and its set of predecessors. Moving a node changes the terms of those it passes and its own.
    """

    def __init__(self, s: Scores, e: Array) -> None:
        self.count = s.count.astype(float)
        self.c = np.einsum("ia,kab,jb->kij", e, s.covariance, e)
        step = s.shift @ e.T
        second = self.count[1:, None, None] * (self.c[1:] + step[1:, :, None] * step[1:, None, :])
        self.others = second.sum(0) - second  # [m]: all environments but 0 and m
        self.n = len(e)
        self.term = lru_cache(maxsize=1 << 16)(self._term)

    def residual(self, k: int, predecessors: Sequence[int], environment: int) -> tuple[Array, float]:
        """Return the coefficients of latent k on its predecessors in an environment, and the residual variance."""
        c, p = self.c[environment], list(predecessors)
        if not p:
            return np.empty(0), float(c[k, k])
        w = np.linalg.solve(c[np.ix_(p, p)], c[p, k])
        return w, max(float(c[k, k] - w @ c[p, k]), np.finfo(float).tiny)

    def _term(self, k: int, predecessors: frozenset[int]) -> float:
        p = sorted(predecessors)
        w, v = self.residual(k, p, 0)
        _, own = self.residual(k, p, k + 1)
        row = np.zeros(self.n)
        row[k], row[p] = 1.0, -w
        elsewhere = self.count[1:].sum() - self.count[k + 1]
        spread = float(row @ self.others[k] @ row) / v
        return 0.5 * (self.count[0] * (1 + np.log(v)) + spread + elsewhere * np.log(v) + self.count[k + 1] * (1 + np.log(own)))

    def of(self, order: Sequence[int]) -> float:
        """Return the negative log-likelihood of an order, up to a constant."""
        return sum(self.term(k, frozenset(order[:at])) for at, k in enumerate(order))

    def best_move(self, order: list[int], node: int) -> tuple[float, list[int]]:
        """Return by how much the best place of a node lowers the likelihood, and that order; each step past a neighbour costs two terms."""
        at = order.index(node)
        best, where, gain = 0.0, at, 0.0
        for direction in (1, -1):
            gain = 0.0
            place = at
            while 0 <= place + direction < self.n:
                other = order[place + direction]
                before = frozenset(order[: place + min(direction, 0)]) if direction < 0 else frozenset(order[: place + 1]) - {node}
                low = before if direction > 0 else frozenset(order[: place - 1])
                if direction > 0:  # node, other -> other, node
                    gain += self.term(other, low) + self.term(node, low | {other}) - self.term(node, low) - self.term(other, low | {node})
                else:  # other, node -> node, other
                    gain += self.term(node, low) + self.term(other, low | {node}) - self.term(other, low) - self.term(node, low | {other})
                place += direction
                if gain < best - 1e-9:
                    best, where = gain, place
        moved = [k for k in order if k != node]
        moved.insert(where, node)
        return best, moved


def likelihood_search(likelihood: OrderLikelihood, order: Sequence[int]) -> list[int]:
    """Return an order in which no move of one node helps: every node to every place, accepted if lower, at most 3 sweeps."""
    now = list(order)
    for _ in range(SWEEPS):
        improved = False
        for node in list(now):
            gain, moved = likelihood.best_move(now, node)
            if gain < 0:
                now, improved = moved, True
        if not improved:
            break
    return now


def unmixed(likelihood: OrderLikelihood, e: Array, predecessors: Sequence[Sequence[int]]) -> Array:
    """Return E' [n, n]: in environment m the target is independent of all that precede it, E'_m = E_m - uᵀ E_pred (E as given throughout)."""
    rows = []
    for m, p in enumerate(predecessors):
        u, _ = likelihood.residual(m, list(p), m + 1)
        rows.append(e[m] - u @ e[list(p)] if len(p) else e[m])
    return np.array(rows)


def mechanisms(covariance: Array, count: int, order: Sequence[int], parents_of: Array | None = None) -> Mechanisms:
    """Return linear mechanisms of latents with a covariance [n, n] in environment 0: regression on all predecessors, weak parents dropped backwards.

    A parent is dropped, the weakest first, while its |t| < 4 or its |partial correlation| < 0.15. Latents are centred: intercepts are 0.
    With ``parents_of`` [n, n] ([i, k]: i is a parent of k) the parents are given and none is dropped.

    Examples:
        >>> mechanisms(np.array([[1.0, 2.0], [2.0, 5.0]]), 1000, [0, 1]).weights.tolist()
        [[0.0, 2.0], [0.0, 0.0]]
    """
    n = len(covariance)
    weights, variance = np.zeros((n, n)), np.empty(n)
    for at, k in enumerate(order):
        parents = [i for i in order[:at] if parents_of is None or parents_of[i, k]]
        while parents:
            inverse = np.linalg.inv(covariance[np.ix_(parents, parents)])
            w = inverse @ covariance[parents, k]
            v = max(float(covariance[k, k] - w @ covariance[parents, k]), np.finfo(float).tiny)
            free = max(1, count - len(parents) - 1)
            t = np.abs(w) / np.sqrt(v * np.diag(inverse) / free)
            partial = t / np.sqrt(t**2 + free)
            weak = (t < SMALLEST_T) | (partial < SMALLEST_PARTIAL)
            if not weak.any() or parents_of is not None:
                break
            parents.pop(int(np.argmin(np.where(weak, t, np.inf))))
        if parents:
            weights[parents, k] = w
        variance[k] = v if parents else covariance[k, k]
    return Mechanisms(weights, np.zeros(n), variance)


def third_eigenvalues(s: Scores) -> Array:
    """Return for each environment the third largest |eigenvalue| of Lᵀ P_m L - I, S_0 = L Lᵀ: linear mixing and single targets allow rank 2.

    Examples:
        >>> s = Scores(np.eye(3), np.ones(2), np.zeros((2, 3)), np.stack([np.eye(3)] * 2), np.stack([np.eye(3)] * 2), np.zeros((1, 3, 3)))
        >>> third_eigenvalues(s)
        array([0.])
    """
    lower = np.linalg.cholesky(s.covariance[0])
    change = lower.T @ s.precision[1:] @ lower - np.eye(len(lower))
    return np.asarray(-np.sort(-np.abs(np.linalg.eigvalsh(change)), axis=1)[:, 2]) if len(lower) > 2 else np.zeros(len(change))


def largest_eigenvalues(s: Scores) -> Array:
    """Return for each environment the largest |eigenvalue| of that change: how much it differs from environment 0 in covariance."""
    lower = np.linalg.cholesky(s.covariance[0])
    return np.asarray(np.abs(np.linalg.eigvalsh(lower.T @ s.precision[1:] @ lower - np.eye(len(lower)))).max(1))


def same_as_observational(s: Scores) -> Array:
    """Return for each environment how probable as large a difference from environment 0 is by chance: the likelihood ratio of one normal distribution against two.

    T = (N_0 + N_m) ln |S_pooled| - N_0 ln |S_0| - N_m ln |S_m| ~ χ² with n (n + 3) / 2 degrees of freedom.
    """
    from scipy.stats import chi2

    n = s.covariance.shape[1]
    a, b = float(s.count[0]), s.count[1:].astype(float)
    share = (b / (a + b))[:, None, None]
    pooled = (1 - share) * s.covariance[0] + share * s.covariance[1:] + share * (1 - share) * s.shift[1:, :, None] * s.shift[1:, None, :]
    log_det = [np.linalg.slogdet(c)[1] for c in (pooled, s.covariance[0], s.covariance[1:])]
    return np.asarray(chi2.sf((a + b) * log_det[0] - a * log_det[1] - b * log_det[2], n * (n + 3) / 2))


def reference_rule(s: Scores, e: Array) -> tuple[list[int], list[list[int]]]:
    """Return the order and flagged ancestors of the reference's rule, to compare with: i before m if D_·iᵀ R_m D_·i ≥ 1e-3.

    The columns of Q D are scaled to a largest entry of 1; of all n! orders the one that keeps most flags is taken.
    """
    d = np.linalg.pinv(e)
    mixing = s.basis @ d
    d = d / np.abs(mixing).max(0)
    flag = np.einsum("ai,mab,bi->im", d, s.differences, d) >= REFERENCE_EDGE
    np.fill_diagonal(flag, False)
    n = len(e)
    best, kept = list(range(n)), -1
    for order in permutations(range(n)):
        inside = int(sum(flag[order[a], order[b]] for a in range(n) for b in range(a + 1, n)))
        if inside > kept:
            best, kept = list(order), inside
    place = {k: at for at, k in enumerate(best)}
    return best, [[i for i in range(n) if flag[i, m] and place[i] < place[m]] for m in range(n)]


@dataclass(frozen=True)
class Solution:
    """What the linear method found: encoder [n, d] (unit variance in environment 0), the order, mechanisms, means and variances of each target in its own environment."""

    encoder: Array
    order: list[int]
    before: Array
    mechanisms: Mechanisms
    means: Array
    variances: Array


def solve(s: Scores, rule: str = "tests", evidence: str = "both", search: bool = True, hard: bool = True) -> Solution:
    """Find encoder, order and mechanisms (spec 05, A.3 to A.7).

    Args:
        s: of ``scores``.
        rule: "tests" of who is before whom, or "reference".
        evidence: "score", "change" or "both".
        search: improve the order by its likelihood.
        hard: interventions cut their targets; else latents stay mixed with their ancestors and the graph is the closure of the evidence.
    """
    from elsewhere.causal.metrics import closure

    e = encoder_rows(s.differences)
    likelihood = OrderLikelihood(s, e)
    before = sum(f(s, e) for f, kind in ((score_evidence, "score"), (change_evidence, "change")) if evidence in (kind, "both"))
    assert isinstance(before, np.ndarray)
    if rule == "reference":
        order, predecessors = reference_rule(s, e)
    else:
        order = start_order(before)
        order = likelihood_search(likelihood, order) if search and hard else order
        predecessors = [order[: order.index(m)] for m in range(len(e))]
    rows = unmixed(likelihood, e, predecessors) if hard else e
    covariance = np.einsum("ia,kab,jb->kij", rows, s.covariance, rows)
    scale = _signs(rows, s, covariance) / np.sqrt(np.diag(covariance[0]))
    rows = rows * scale[:, None]
    covariance = covariance * (scale[:, None] * scale)
    step = s.shift @ rows.T
    own = np.arange(len(e))
    if hard:
        found = mechanisms(covariance[0], int(s.count[0]), order)
    else:
        place = np.argsort(order)
        reach = closure((before > 0) & (place[:, None] < place))
        found = mechanisms(covariance[0], int(s.count[0]), order, reach)  # what observations follow; which of it is an edge is not identified
    return Solution(rows @ s.basis.T, order, before, found, step[own + 1, own], covariance[own + 1, own, own])


def _signs(rows: Array, s: Scores, covariance: Array) -> Array:
    """Return ±1 a row: the own intervention's mean shift is positive where it is beyond doubt, else the largest loading is."""
    own = np.arange(len(rows))
    step = np.einsum("ma,ma->m", s.shift[1:], rows)
    error = np.sqrt(covariance[0, own, own] / s.count[0] + covariance[own + 1, own, own] / s.count[1:])
    loading = rows @ s.basis.T
    largest = loading[own, np.abs(loading).argmax(1)]
    return np.where(np.abs(step) > SMALLEST_T * error, np.sign(step), np.sign(largest))


def ledoit_wolf(x: Any) -> float:
    """Return Ledoit & Wolf's shrinkage of rows x [N, d]."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    return float(ledoit_wolf_shrinkage(np.asarray(x, float)))
