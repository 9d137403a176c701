"""Many linear support vector machines on shared rows, solved together."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from elsewhere.data import Array


def linear_svms(x: Any, positive: Any, cost: float = 1.0, tolerance: float = 0.01, newton: int = 20, conjugate: int = 30) -> tuple[Array, Array]:
    """Return w [d, k] and b [k] of k machines min ½|w|² + ½b² + C Σ_i max(0, 1 - y_i (w·x_i + b))², one a column of ``positive``.

    Newton's method in the primal (Keerthi & DeCoste 2005) with conjugate gradients, all columns at once: each iteration is one product
    with X and one with Xᵀ for every machine.

    Args:
        x: rows [n, d], CSR or dense.
        positive: [n, k] truth, dense or sparse.
        cost: C of both classes.
        tolerance: a column stops when its gradient is this share of what it was at 0.
        newton: most Newton steps.
        conjugate: most conjugate gradient steps in each.

    Examples:
        >>> w, b = linear_svms(np.array([[1.0], [-1.0]]), np.array([[1], [0]]), cost=100.0)
        >>> w.round(2).tolist(), b.round(2).tolist()
        ([[1.0]], [0.0])
    """
    truth = positive.toarray() if sp.issparse(positive) else np.asarray(positive)
    y = np.where(truth > 0, 1.0, -1.0).astype(np.float32)
    rows: Any = sp.csr_array(x, dtype=np.float32) if sp.issparse(x) else np.asarray(x, np.float32)
    across = rows.T.tocsr() if sp.issparse(rows) else rows.T
    weight = np.zeros((rows.shape[1] + 1, y.shape[1]), np.float32)  # the last row is the bias

    def forward(w: Array) -> Array:
        return np.asarray(rows @ w[:-1]) + w[-1]

    def backward(r: Array) -> Array:
        return np.concatenate([np.asarray(across @ r), r.sum(0, keepdims=True)])

    margin = np.zeros_like(y)
    first = None
    for _ in range(newton):
        slack = np.maximum(1 - y * margin, 0)
        gradient = weight - 2 * cost * backward(y * slack)
        size = np.linalg.norm(gradient, axis=0)
        first = size if first is None else first
        going = size > tolerance * np.maximum(first, 1e-12)
        if not going.any():
            break
        active = (slack > 0).astype(np.float32)
        step = _conjugate(lambda v, a=active: v + 2 * cost * backward(a * forward(v)), -gradient * going, conjugate)
        shift = forward(step)
        scale = _line_search(weight, step, margin, shift, y, cost)
        weight += scale * step
        margin += scale * shift
    return weight[:-1], weight[-1]


def _conjugate(apply: Any, b: Array, most: int) -> Array:
    """Return A⁻¹ b for each column, by conjugate gradients."""
    x = np.zeros_like(b)
    r, p = b.copy(), b.copy()
    rr = np.square(r).sum(0)
    stop = 0.01 * rr
    for _ in range(most):
        if (rr <= stop).all():
            break
        ap = apply(p)
        alpha = rr / np.maximum((p * ap).sum(0), 1e-20)
        x += alpha * p
        r -= alpha * ap
        new = np.square(r).sum(0)
        p = r + new / np.maximum(rr, 1e-20) * p
        rr = new
    return x


def _line_search(weight: Array, step: Array, margin: Array, shift: Array, y: Array, cost: float) -> Array:
    """Return for each column the first of 1, ½, ¼ … that does not raise the objective."""

    def value(scale: Array) -> Array:
        return 0.5 * np.square(weight + scale * step).sum(0) + cost * np.square(np.maximum(1 - y * (margin + scale * shift), 0)).sum(0)

    scale = np.ones(weight.shape[1], np.float32)
    before = value(np.zeros_like(scale))
    for _ in range(12):
        worse = value(scale) > before + 1e-6 * np.abs(before)
        if not worse.any():
            break
        scale = np.where(worse, scale / 2, scale)
    return scale
