"""Weights of examples, as every metric uses them."""

from __future__ import annotations

import numpy as np

from elsewhere.data import Array, Data, optional_column


def weights(data: Data) -> Array:
    """Return the weight column [n] scaled to mean 1, or ones."""
    given = optional_column(data, "weight")
    if given is None:
        return np.ones(len(data))
    return scaled(np.asarray(given, float))


def scaled(given: Array | None, n: int | None = None) -> Array:
    """Return weights [n] scaled to mean 1; ones where none are given."""
    if given is None:
        assert n is not None
        return np.ones(n)
    mean = float(given.mean()) if len(given) else 1.0
    return given / mean if mean > 0 else np.ones(len(given))
