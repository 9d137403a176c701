"""How well one column alone tells a class or a number, out of fold."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from elsewhere.data import Array

LEAST = 20  # rows of a class, below which a perfect separation may be chance
LEAST_NUMBERS = 50  # rows, the same for regression
BINS = 200
A_BIN = 10  # rows that a bin of numbers holds at least
MANY = 5  # rows a value on average, below which a column of numbers counts as continuous
Counts = Float[Array, "bins classes"]  # of rows


def class_auc(x: Array, y: Int[Array, " n"], missing: bool = True) -> float:
    """Return how well one column tells classes: the mean AUC of one against the rest, out of fold.

    NaN with too few rows. Each of two folds is scored by the class shares that the other has in bins
    of ``x`` (quantiles of numbers, levels of text); numbers also by ``x`` itself, which needs no bins
    where the relation is monotone, and the better counts.

    Args:
        x: [n] numbers (NaN: missing), or codes of text levels as integers (-1: missing). In an order
            that is random but for equal rows: folds take every other row.
        y: class codes; classes of fewer than 20 rows are left out.
        missing: whether that a value is missing may tell, too.

    Examples:
        >>> x = np.random.default_rng(0).permutation(200).astype(float)
        >>> class_auc(x, (x > 99).astype(int)) > 0.995
        True
    """
    absent = x < 0 if x.dtype.kind == "i" else np.isnan(x)
    if not missing:
        x, y, absent = x[~absent], y[~absent], absent[~absent]
    classes, counts = np.unique(y, return_counts=True)
    classes = classes[counts >= LEAST]
    kept = np.isin(y, classes)
    x, codes, absent = x[kept], np.searchsorted(classes, y[kept]), absent[kept]
    if len(classes) < 2:
        return float("nan")
    if (x == x[0]).all():
        return 0.5
    fold = _folds(x)
    binned = _binned_auc(x, absent, codes, fold, len(classes))
    if x.dtype.kind == "i" or absent.any():
        return float(binned.mean())
    return float(np.maximum(binned, _monotone_auc(x, codes, len(classes))).mean())


def r2(x: Array, y: Float[Array, " n"]) -> float:
    """Return the out-of-fold R² of one column: the better of a straight line and interpolation.

    NaN with too few rows.

    Args:
        x: as for ``class_auc``.
        y: numbers.
    """
    if len(y) < LEAST_NUMBERS or not np.ptp(y) > 0:
        return float("nan")
    absent = x < 0 if x.dtype.kind == "i" else np.isnan(x)
    fold, text = _folds(x), x.dtype.kind == "i"
    guesses = np.full((2, len(y)), y.mean())
    for k in (0, 1):
        for part in (absent, ~absent):
            here, there = (fold == k) & part, (fold != k) & part
            if here.any() and there.any():
                levels = text or part is absent  # a missing value is a level of its own
                guesses[:, here] = _guesses(x[there], y[there], x[here], levels)
    left = np.square(y - guesses).sum(1).min()
    return float(1 - left / np.square(y - y.mean()).sum())


def _guesses(x: Array, y: Array, asked: Array, levels: bool) -> Array:
    """Return two guesses [2, m] at ``asked``: along a line, between neighbours; of levels the mean."""
    if levels:
        x, asked = (np.nan_to_num(v.astype(float), nan=-1) for v in (x, asked))
    values, at = np.unique(x, return_inverse=True)
    means = np.bincount(at, y) / np.bincount(at)
    if levels:
        where = np.searchsorted(values, asked).clip(max=len(values) - 1)
        level = np.where(values[where] == asked, means[where], y.mean())
        return np.stack([level, level])
    spread = np.square(x - x.mean()).sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread if spread > 0 else 0.0
    return np.stack([y.mean() + slope * (asked - x.mean()), np.interp(asked, values, means)])


def _folds(x: Array) -> Array:
    """Return 0 or 1 for each row: every other row, or of numbers with few ties every other value.

    Copies of a row then stay in one fold.
    """
    values, at = np.unique(x, return_inverse=True, equal_nan=True)
    continuous = x.dtype.kind == "f" and len(values) * MANY > len(x)
    return at % 2 if continuous else np.arange(len(x)) % 2


def _binned_auc(x: Array, absent: Array, codes: Array, fold: Array, classes: int) -> Array:
    """Return the AUC of each class, folds averaged."""
    found = []
    for k in (0, 1):
        here, there = fold == k, fold != k
        edges = _edges(x[there & ~absent]) if x.dtype.kind == "f" else None
        bins = x + 1  # 0: missing
        if edges is not None:
            at = np.searchsorted(edges, np.nan_to_num(x), side="right")
            bins = np.where(absent, 0, at + 1)
        shape = (2, int(bins.max()) + 1, classes)
        cell = np.ravel_multi_index((here.astype(int), bins, codes), shape)
        table = np.bincount(cell, minlength=np.prod(shape)).reshape(shape)
        found.append(_table_auc(table[0], table[1]))
    return np.mean(found, 0)


def _edges(x: Array) -> Array:
    """Return the inner edges of bins of about as many rows each; of few values, each has its own."""
    values = np.unique(x)
    if len(values) <= min(BINS, len(x) // A_BIN):
        return (values[1:] + values[:-1]) / 2
    wanted = max(2, min(BINS, len(x) // A_BIN))
    return np.unique(np.quantile(x, np.arange(1, wanted) / wanted))


def _table_auc(learnt: Counts, judged: Counts) -> Float[Array, " classes"]:
    """Return the AUC of each class in ``judged``, rows scored by their bin's shares in ``learnt``."""
    total = learnt.sum(0)
    # One more row, of the shares of all: what an empty bin has.
    shares = (learnt + total / total.sum()) / (learnt.sum(1, keepdims=True) + 1)
    order = np.argsort(shares, axis=0, kind="stable")
    hits = np.take_along_axis(judged, order, 0)
    misses = np.take_along_axis(judged.sum(1, keepdims=True) - judged, order, 0)
    ranked = np.take_along_axis(shares, order, 0)
    below = np.cumsum(misses, 0) - misses
    found = np.empty(len(total))
    for k in range(len(total)):  # bins with one score are tied
        _, group = np.unique(ranked[:, k], return_inverse=True)
        first = np.full(group.max() + 1, np.inf)
        np.minimum.at(first, group, below[:, k])
        tied = np.bincount(group, misses[:, k])
        pairs = hits[:, k].sum() * misses[:, k].sum()
        won = (hits[:, k] * (first[group] + tied[group] / 2)).sum()
        found[k] = won / pairs if pairs else 0.5
    return found


def _monotone_auc(x: Array, codes: Array, classes: int) -> Array:
    """Return the AUC of each class by the rank of ``x``, up or down."""
    _, at, counts = np.unique(x, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[at]
    n = np.bincount(codes, minlength=classes)
    auc = (np.bincount(codes, rank, classes) / n - (n + 1) / 2) / (len(x) - n)
    return np.maximum(auc, 1 - auc)
