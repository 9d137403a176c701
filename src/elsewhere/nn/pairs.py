"""Pairs of examples that differ in a few factors, drawn for a whole batch at once from those that exist (spec 14, 2.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError

MOST_ALONE = 0.01  # share of examples that may have no partner


@dataclass
class Pairs:
    """Draws a second example for each first one, both from the same set.

    Args:
        values: [n, factors] labels of the examples.
        sizes: how many values each factor has.
        unordered: positions of factors without order, which do not walk.

    Examples:
        >>> grid = np.stack(np.unravel_index(np.arange(6), (2, 3)), 1)
        >>> pairs = Pairs(grid, (2, 3))
        >>> second = pairs.changed(np.array([0, 5]), 1, np.random.default_rng(0))
        >>> (grid[second] != grid[[0, 5]]).sum(1).tolist()
        [1, 1]
    """

    values: Array
    sizes: Sequence[int]
    unordered: Sequence[int] = ()

    def __post_init__(self) -> None:
        self.values = np.asarray(self.values, np.int64)
        self.strides = np.array([math.prod(self.sizes[i + 1 :]) for i in range(len(self.sizes))], np.int64)
        ids = self.values @ self.strides
        self.order = np.argsort(ids, kind="stable")
        self.ids = ids[self.order]
        self.alone = self.asked = 0

    def changed(self, rows: Array, k: int | Literal["random"], rng: np.random.Generator) -> Array:
        """Return partners in which k factors have other values (Ada-GVAE): factors in random order, each new value uniform among those that exist.

        ``k="random"`` draws from {1 .. factors - 1} for each pair. An example without any partner is its own.
        """
        now = self.values[rows].copy()
        n, d = now.shape
        left = rng.integers(1, max(2, d), n) if k == "random" else np.full(n, k)
        visits = rng.permuted(np.tile(np.arange(d), (n, 1)), axis=1)
        for factor in visits.T:
            exists = self._available(now, factor)
            exists[np.arange(n), now[np.arange(n), factor]] = False
            able = (left > 0) & exists.any(1)
            drawn = _draw(exists, rng)
            now[np.flatnonzero(able), factor[able]] = drawn[able]
            left = left - able
        return self._found(rows, now)

    def walked(self, rows: Array, rate: float, rng: np.random.Generator) -> Array:
        """Return partners after a Laplace walk (SlowVAE, PCL): each ordered factor in turn gets v with probability ∝ exp(-|v - f| / b), b = ln(size) / rate, among those that exist."""
        now = self.values[rows].copy()
        for i in range(now.shape[1]):
            if i in self.unordered or self.sizes[i] < 2:
                continue
            exists = self._available(now, np.full(len(now), i))[:, : self.sizes[i]]
            away = np.abs(np.arange(self.sizes[i])[None] - now[:, i : i + 1])
            now[:, i] = _draw(exists * np.exp(-away * rate / math.log(self.sizes[i])), rng)
        return self._found(rows, now, alone=False)

    def check(self) -> None:
        """Raise where more than 1 % of the examples asked for had no partner."""
        if self.asked and self.alone > MOST_ALONE * self.asked:
            raise UserError(f"{self.alone} of {self.asked} examples have no partner that differs in one factor: the training part of the grid is too sparse for pairs")

    def _available(self, now: Array, factor: Array) -> Array:
        """Return [n, largest size]: whether the example with that value of its factor exists, all other factors as they are."""
        most = int(np.max(self.sizes))
        candidates = np.arange(most)[None]
        at = np.arange(len(now))
        ids = (now @ self.strides - now[at, factor] * self.strides[factor])[:, None] + candidates * self.strides[factor][:, None]
        known = (candidates < np.asarray(self.sizes)[factor][:, None]) & (self._position(ids)[1])
        return np.asarray(known)

    def _position(self, ids: Array) -> tuple[Array, Array]:
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return at, self.ids[at] == ids

    def _found(self, rows: Array, now: Array, alone: bool = True) -> Array:
        same = (now == self.values[rows]).all(1)
        if alone:
            self.alone, self.asked = self.alone + int(same.sum()), self.asked + len(rows)
        return np.asarray(np.where(same, rows, self.order[self._position(now @ self.strides)[0]]))


def _draw(weight: Array, rng: np.random.Generator) -> Array:
    """Return one column [n] for each row of weights, with probability proportional to them; the last where all are 0."""
    total = np.cumsum(weight, axis=1, dtype=float)
    mark = rng.random(len(weight))[:, None] * total[:, -1:]
    return np.minimum((total <= mark).sum(1), weight.shape[1] - 1)
