"""Pairs of examples that differ in a few factors, drawn for a whole batch at once from those that exist (spec 14, 2.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError

DENSE = 1 << 26  # combinations up to which a table of all is kept
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
        count = math.prod(self.sizes)
        self.table = np.full(count, -1, np.int64) if count <= DENSE else None  # id -> example; larger grids are searched
        if self.table is not None:
            self.table[self.ids[::-1]] = self.order[::-1]
        self.alone = self.asked = 0

    def changed(self, rows: Array, k: int | Literal["random"], rng: np.random.Generator) -> Array:
        """Return partners in which k factors have other values (Ada-GVAE): factors in random order, each new value uniform among those that exist.

        ``k="random"`` draws from {1 .. factors - 1} for each pair. An example without any partner is its own.
        """
        now = self.values[rows].copy()
        n, d = now.shape
        left = rng.integers(1, max(2, d), n) if k == "random" else np.full(n, k)  # factors that still have to change
        visits = rng.permuted(np.tile(np.arange(d), (n, 1)), axis=1)
        for turn in range(d):
            at = np.flatnonzero(left > 0)
            if not len(at):
                break
            factor = visits[at, turn]
            exists = self._available(now[at], factor)
            exists[np.arange(len(at)), now[at, factor]] = False
            able = exists.any(1)
            now[at[able], factor[able]] = _draw(exists[able], rng)
            left[at[able]] -= 1
        return self._found(rows, now)

    def moved(self, rows: Array, factor: int, values: Array, rng: np.random.Generator) -> Array:
        """Return partners in which one factor has a value of ``values``, uniform among those that exist, and the others are as they were; an example without any is its own."""
        now = self.values[rows].copy()
        exists = self._available(now, np.full(len(rows), factor))
        exists[:, ~np.isin(np.arange(exists.shape[1]), values)] = False
        able = exists.any(1)
        now[able, factor] = _draw(exists[able], rng)
        return self._found(rows, now)

    def walked(self, rows: Array, rate: float, rng: np.random.Generator) -> Array:
        """Return partners after a Laplace walk (SlowVAE, PCL): each ordered factor in turn gets v with probability ∝ exp(-|v - f| / b), b = ln(size) / rate, among those that exist."""
        now = self.values[rows].copy()
        ids = now @ self.strides
        for i, size in enumerate(self.sizes):
            if i in self.unordered or size < 2:
                continue
            values = np.arange(size)
            density = np.exp(-np.abs(values[:, None] - values) * rate / math.log(size))  # from each value to each
            ids -= now[:, i] * self.strides[i]
            exists = self._example(ids[:, None] + values * self.strides[i]) >= 0
            now[:, i] = _draw(density[now[:, i]] * exists, rng)
            ids += now[:, i] * self.strides[i]
        return np.asarray(self._example(ids))

    def check(self) -> None:
        """Raise where more than 1 % of the examples asked for had no partner."""
        if self.asked and self.alone > MOST_ALONE * self.asked:
            raise UserError(f"{self.alone} of {self.asked} examples have no partner that differs in one factor: the training part of the grid is too sparse for pairs")

    def _available(self, now: Array, factor: Array) -> Array:
        """Return [n, largest size]: whether the example with that value of its factor exists, all other factors as they are."""
        candidates = np.arange(int(np.max(self.sizes)))[None]
        at = np.arange(len(now))
        ids = (now @ self.strides - now[at, factor] * self.strides[factor])[:, None] + candidates * self.strides[factor][:, None]
        inside = candidates < np.asarray(self.sizes)[factor][:, None]
        return np.asarray(inside & (self._example(np.where(inside, ids, 0)) >= 0))

    def _example(self, ids: Array) -> Array:
        """Return the example of each id, -1 where there is none."""
        if self.table is not None:
            return np.asarray(self.table[ids])
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.asarray(np.where(self.ids[at] == ids, self.order[at], -1))

    def _found(self, rows: Array, now: Array) -> Array:
        same = (now == self.values[rows]).all(1)
        self.alone, self.asked = self.alone + int(same.sum()), self.asked + len(rows)
        return np.asarray(np.where(same, rows, self._example(now @ self.strides)))


def _draw(weight: Array, rng: np.random.Generator) -> Array:
    """Return one column [n] for each row of weights, with probability proportional to them."""
    total = np.cumsum(weight, axis=1, dtype=float)
    total -= (rng.random(len(weight)) * total[:, -1])[:, None]
    return np.argmax(total > 0, axis=1)
