"""An order of rows that only what stands in the table decides, not the file that it came in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from elsewhere.data import Array

_ODD = np.uint64(0x9E3779B97F4A7C15)


def canonical_order(frame: pd.DataFrame) -> Array:
    """Return the rows [n] in an order that is the same for every order of rows and columns.

    It does not depend on the names of columns either, or on a column that stands there twice. The
    key of a row is the sum over columns of a hash of the cell and of what the column holds: first
    the multiset of its cells, then of its cells beside the keys of their rows. Rows with equal
    keys hold the same, or the table as a whole looks the same with them exchanged.

    Args:
        frame: columns of any type.

    Examples:
        >>> frame = pd.DataFrame({"a": [3, 1, 2], "b": ["x", "y", "y"]})
        >>> turned = frame.iloc[[2, 0, 1]][["b", "a"]].set_axis(["p", "q"], axis=1)
        >>> frame.iloc[canonical_order(frame)].a.tolist() == turned.iloc[
        ...     canonical_order(turned)].q.tolist()
        True
    """
    cells = {c.tobytes(): c for c in (_hashed(frame.iloc[:, k]) for k in range(frame.shape[1]))}
    row = np.zeros(len(frame), np.uint64)
    for _ in range(2):
        row = _sum(_mixed(c + _mixed(c ^ row).sum(dtype=np.uint64)) for c in cells.values())
    return np.argsort(row, kind="stable")


def _sum(parts: Any) -> Array:
    total: Any = 0
    for part in parts:
        total = total + part
    return np.asarray(total, np.uint64)


def _hashed(values: pd.Series[Any]) -> Array:
    try:
        return pd.util.hash_pandas_object(values, index=False).to_numpy(np.uint64)
    except TypeError:  # lists and the like
        return pd.util.hash_pandas_object(values.astype(str), index=False).to_numpy(np.uint64)


def _mixed(x: Array) -> Array:
    """Return the finaliser of SplitMix64 (Steele et al. 2014): close inputs get distant outputs."""
    with np.errstate(over="ignore"):
        x = (x + _ODD).astype(np.uint64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)), np.uint64)
