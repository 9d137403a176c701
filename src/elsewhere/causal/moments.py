"""Counts, means and covariances of environments: all that the linear method looks at. Those of parts of the data add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError

BLOCK = 1 << 16  # rows that are made float64 at once


@dataclass(frozen=True)
class Moments:
    """Of each environment: count [m], mean [m, d], covariance [m, d, d] (divided by the count).

    Examples:
        >>> x, e = np.random.default_rng(0).normal(size=(10, 2)), np.arange(10) % 2
        >>> whole = Moments.of(x, e, 2)
        >>> parts = Moments.of(x[:4], e[:4], 2) + Moments.of(x[4:], e[4:], 2)
        >>> bool(np.allclose(whole.covariance, parts.covariance))
        True
    """

    count: Array
    mean: Array
    covariance: Array

    @classmethod
    def of(cls, x: Any, environment: Array, environments: int) -> Moments:
        """Return the moments of rows x [N, d] by environment, a block at a time: x may be a memory map."""
        environment = np.asarray(environment)
        return cls.joined([_block(x, environment, k) for k in range(environments)])

    @classmethod
    def joined(cls, one: Sequence[Moments]) -> Moments:
        """Put environments one after another."""
        return cls(*(np.concatenate([getattr(m, name) for m in one]) for name in ("count", "mean", "covariance")))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        share = np.where(count > 0, other.count / np.maximum(count, 1), 0.0)
        step = other.mean - self.mean
        mean = self.mean + share[:, None] * step
        s = share[:, None, None]
        covariance = (1 - s) * self.covariance + s * other.covariance + (s * (1 - s)) * step[:, :, None] * step[:, None, :]
        return Moments(count, mean, covariance)


def _block(x: Any, environment: Array, k: int) -> Moments:
    rows = np.flatnonzero(environment == k)
    if not len(rows):
        raise UserError(f"environment {k} has no observations")
    parts = []
    for start in range(0, len(rows), BLOCK):
        block = np.asarray(x[rows[start : start + BLOCK]], np.float64)
        mean = block.mean(0)
        block = block - mean
        parts.append(Moments(np.array([len(block)]), mean[None], (block.T @ block / len(block))[None]))
    return reduce(Moments.__add__, parts)
