"""Random numbers by counter: the same for an example whatever batch it comes in."""

from __future__ import annotations

import hashlib

import numpy as np

from elsewhere.data import Array

_GAMMA, _A, _B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def uniform(key: str, index: Array, count: int) -> Array:
    """Return [n, count] numbers in (0, 1) that depend on the key and each example's own index alone (SplitMix64, Steele et al. 2014).

    Examples:
        >>> bool((uniform("a", np.array([7]), 3) == uniform("a", np.arange(10), 3)[7]).all())
        True
    """
    word = np.uint64(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    with np.errstate(over="ignore"):
        rows = _mixed(_mixed(np.asarray(index).astype(np.uint64) * _GAMMA + word))
        bits = _mixed(rows[:, None] + np.arange(1, count + 1, dtype=np.uint64)[None] * _GAMMA)
    return ((bits >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


def normal(key: str, index: Array, count: int) -> Array:
    """Return [n, count] standard normal numbers by counter."""
    from scipy.special import ndtri

    return np.asarray(ndtri(uniform(key, index, count)))


def _mixed(x: Array) -> Array:
    x = (x ^ (x >> np.uint64(30))) * _A
    x = (x ^ (x >> np.uint64(27))) * _B
    return x ^ (x >> np.uint64(31))
