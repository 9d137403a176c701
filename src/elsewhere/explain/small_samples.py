"""How much wider intervals of the decomposition must be where few cases carry its terms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import expit

from elsewhere.assay.intervals import quantile, spread
from elsewhere.data import Array


def widening(
    ratio: Array,
    there: Array,
    losses: Sequence[Array],
    weights: Sequence[Array],
    units: Sequence[Array | None],
    level: float,
) -> Array:
    """Return [4, models] factors for gap and terms: Student's quantile over the normal one.

    Percentiles of resamples know the spread as badly as the cases do. The degrees of freedom are
    Satterthwaite's, from the influences of the cases of both sides (with the classifier fixed) and
    their kurtosis: a few cases of large weight and loss leave few.

    Args:
        ratio: [n] log q/p of the cases at home, then of those elsewhere.
        there: [n] 0 at home, 1 elsewhere.
        losses: [n_side, models] of each side.
        weights: [n_side] survey weights of each side.
        units: [n_side] of each side, or None.
        level: of the two-sided intervals.
    """
    moves = [_influences(sign * ratio[there == side], losses[side], weights[side]) for side, sign in ((0, 1.0), (1, -1.0))]
    (home, shared_home), (away, shared_away) = moves
    nothing = np.zeros_like(home), np.zeros_like(away)
    terms = (
        (home, away),  # the gap
        (shared_home - home, nothing[1]),  # harder cases
        (shared_home, shared_away),  # relation changed
        (nothing[0], away - shared_away),  # cases unseen at home
    )
    tail = (1 + level) / 2
    found = [[quantile(_freedom([s[:, m] for s in sides], units), tail) for m in range(home.shape[1])] for sides in terms]
    return np.asarray(found) / quantile(float("inf"), tail)


def _influences(ratio: Array, loss: Array, u: Array) -> tuple[Array, Array]:
    """Return how each case moves the mean loss of its side, and that over the shared cases [n, models]."""
    w = u * expit(ratio)
    found = []
    for weight in (u, w):
        total = float(weight.sum())
        mean = weight @ loss / total if total > 0 else np.zeros(loss.shape[1])
        scale = weight * len(u) / total if total > 0 else np.zeros(len(u))
        found.append(scale[:, None] * (loss - mean))
    return found[0], found[1]


def _freedom(sides: Sequence[Array], units: Sequence[Array | None]) -> float:
    """Return Satterthwaite's degrees of freedom of a difference of two means of influences."""
    sure = [spread(v, unit) for v, unit in zip(sides, units, strict=True)]
    known = [(s.error**2, s.freedom) for s in sure if s.error > 0]
    if not known:
        return float("inf")
    total = sum(v for v, _ in known)
    return float(total**2 / sum(v**2 / f for v, f in known))
