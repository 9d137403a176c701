"""Rows of tables as 64-bit fingerprints: which are copies, and a random order by content alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt64

from elsewhere.data import Array, Examples
from elsewhere.encoding import as_numbers, is_category

CELLS = 20_000_000  # rows × columns beyond which nothing is read
RARE = 4  # occurrences beyond which a row is a common combination and no copy
SAME = 0.5  # of the rows that agree in half of the columns agree in all, where rows were copied
SURE = 1.645  # deviations below the share found, which must lie above: 95 % on one side
ALIKE = 0.95  # rank correlation from which two columns count as one
SAMPLE, SAMPLED_CELLS = 2000, 1_000_000  # rows, and rows × columns, on which columns are compared

Halves = tuple[list[int], list[int]]  # of the columns


def columns_of(data: Examples) -> list[str]:
    """Return the names of the columns of inputs; those of an array are numbered."""
    inputs = data.inputs
    if hasattr(inputs, "iloc"):
        return [str(c) for c in inputs.columns]
    return [f"input {k}" for k in range(inputs.shape[1])]


@dataclass(frozen=True)
class Columns:
    """The same columns in several places, the first of which is the source's training rows.

    Args:
        parts: the data of each place.
        text: for each column, whether it holds text in any place.
        rows: [n] fingerprint of each row's inputs and label, one array per place.
        salts: of the columns: they keep a 1 in one column apart from a 1 in another.
    """

    parts: Sequence[Examples]
    text: Sequence[bool]
    rows: Sequence[UInt64[Array, " n"]]
    salts: UInt64[Array, " columns"]

    @classmethod
    def of(cls, parts: Sequence[Examples]) -> Columns | None:
        """Return the fingerprints of places; None for tables too large, or of other objects."""
        width = len(columns_of(parts[0]))
        if not width or width * sum(map(len, parts)) > CELLS:
            return None
        text = [any(is_category(_column(p, j)) for p in parts) for j in range(width)]
        try:
            cells = [_cells(_column(parts[0], j), text[j]) for j in range(width)]
            salts = np.array([_salt(c) for c in cells], np.uint64)
            table = cls(parts, text, [], salts)
            rows = [table.fingerprint(p, range(width)) + _label_cells(p) for p in parts]
        except (TypeError, ValueError):  # lists in cells, labels that are no numbers
            return None
        return cls(parts, text, rows, salts)

    @property
    def width(self) -> int:
        return len(self.text)

    def fingerprint(self, part: Examples, columns: Sequence[int]) -> UInt64[Array, " n"]:
        """Return a number for each row [n]: the same for rows that agree in these columns."""
        total = np.zeros(len(part), np.uint64)
        for j in columns:
            total += _mixed(_cells(_column(part, j), self.text[j]) ^ self.salts[j])
        return total

    def each(self, rows: Mapping[int, Array]) -> Iterator[tuple[str, Array]]:
        """Yield each column's name and its values at some rows of some places, as ``values``."""
        for j, name in enumerate(columns_of(self.parts[0])):
            yield name, self.values(j, rows)

    def values(self, j: int, rows: Mapping[int, Array]) -> Array:
        """Return one column at rows of places, joined: floats, or codes of texts (-1: missing)."""
        parts = [_column(self.parts[k], j, at) for k, at in rows.items()]
        if not self.text[j]:
            x = np.concatenate([as_numbers(p) for p in parts])
            return np.where(np.isfinite(x), x + 0.0, np.nan)
        texts = _texts(pd.concat(parts, ignore_index=True))
        return np.asarray(pd.factorize(texts, sort=True)[0], np.int64)


def spread_by(fingerprints: UInt64[Array, " n"], most: int) -> Array:
    """Return the positions of at most this many rows in an order that content alone decides.

    The order is random, but equal rows stand together.
    """
    order = np.argsort(fingerprints, kind="stable")
    return order if len(order) <= most else order[np.linspace(0, len(order) - 1, most).astype(int)]


def copied_rows(table: Columns) -> list[int]:
    """Return for each place after the first how many of its rows are copies of training rows.

    Copies have the same features and the same label. Rows agree by chance where columns have few
    values, so agreement alone is no copy. The columns are cut into two halves, those that go together
    on one side. Where rows were copied, agreement in one half comes with agreement in everything; by
    chance, rows that agree in one half mostly differ in the other. Combinations that occur more than
    four times are left out.
    """
    train = pd.Series(table.rows[0]).value_counts()
    hits = [train.reindex(r).fillna(0).to_numpy() for r in table.rows[1:]]
    if not any((h > 0).any() for h in hits):
        return [0] * len(hits)
    halves = _halves(table)
    known = [pd.Series(table.fingerprint(table.parts[0], half)).value_counts() for half in halves]
    return [_copied(table, place, hit, halves, known) for place, hit in enumerate(hits, 1)]


def _copied(table: Columns, place: int, hit: Array, halves: Halves, known: Sequence[Any]) -> int:
    """Return the copies in one place.

    Args:
        table: of all places.
        place: its number.
        hit: [n] training rows that agree with each row in everything.
        halves: of the columns.
        known: for each half how often each fingerprint occurs among the training rows.
    """
    own = pd.Series(table.rows[place])
    rare = (hit > 0) & (hit + own.map(own.value_counts()).to_numpy() <= RARE)
    if not rare.any() or not all(halves):
        return 0
    part = table.parts[place].take(np.flatnonzero(rare))
    prints = [table.fingerprint(part, half) for half in halves]
    agree = [count.reindex(p).fillna(0).sum() for count, p in zip(known, prints, strict=True)]
    return int(rare.sum()) if _lower_bound(hit[rare].sum(), max(agree)) > SAME else 0


def _lower_bound(hits: float, n: float) -> float:
    """Return Wilson's lower bound of a share: above a half for 3 of 3, not for 2 of 2."""
    share, z2 = hits / n, SURE**2
    half_width = SURE * np.sqrt(share * (1 - share) / n + z2 / (4 * n**2))
    return float((share + z2 / (2 * n) - half_width) / (1 + z2 / n))


def _halves(table: Columns) -> Halves:
    """Return two halves of the columns that tell rows apart about as well as each other.

    Columns that go together stay together.
    """
    rows = {0: spread_by(table.rows[0], min(SAMPLE, SAMPLED_CELLS // table.width))}
    ranks, ties = [], []
    for _, values in table.each(rows):
        _, at, counts = np.unique(values, return_inverse=True, return_counts=True, equal_nan=True)
        ranks.append((np.cumsum(counts) - (counts - 1) / 2)[at])
        ties.append(float(np.square(counts / counts.sum()).sum()))
    varied = [j for j in range(table.width) if ties[j] < 1]
    order = sorted(varied, key=lambda j: (ties[j], table.salts[j]))
    halves: Halves = ([], [])
    told = [0.0, 0.0]  # how well each half tells rows apart: the sum of -log P(two rows agree)
    for group in _groups(order, np.array(ranks)):
        k = int(told[1] < told[0])
        halves[k].extend(group)
        told[k] -= np.log(max(min(ties[j] for j in group), 1e-12))
    return halves


def _groups(order: Sequence[int], ranks: Array) -> list[list[int]]:
    """Return groups of columns whose ranks agree, up or down, with those of its first."""
    scaled = ranks - ranks.mean(1, keepdims=True)
    scaled /= np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1e-12)
    groups: list[list[int]] = []
    for j in order:
        agree = np.abs(scaled[[g[0] for g in groups]] @ scaled[j]) if groups else np.zeros(0)
        if (agree >= ALIKE).any():
            groups[int(agree.argmax())].append(j)
        else:
            groups.append([j])
    return groups


def _column(data: Examples, j: int, rows: Any = slice(None)) -> pd.Series[Any]:
    if hasattr(data.inputs, "iloc"):
        return data.inputs.iloc[:, j].iloc[rows]
    return pd.Series(data.inputs[rows, j])


def as_text(value: Any) -> str:
    """Return one text for 7, 7.0 and "7"."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _texts(values: pd.Series[Any]) -> Array:
    """Return texts [n], None where missing; 7, 7.0 and "7" are one text."""
    codes, different = pd.factorize(values)
    names = np.array([*(as_text(v) for v in different.tolist()), None], object)  # the last: code -1
    return names[codes]


def _cells(values: pd.Series[Any], text: bool) -> UInt64[Array, " n"]:
    """Return a fingerprint of each cell: of its text, or of its number as a float."""
    if text:
        return pd.util.hash_array(_texts(values), categorize=True)
    x = as_numbers(values) + 0.0  # -0.0 becomes 0.0
    x[np.isnan(x)] = np.nan
    return pd.util.hash_array(x)


def _label_cells(part: Examples) -> UInt64[Array, " n"]:
    if part.labels is None:
        return np.zeros(len(part), np.uint64)
    total = np.zeros(len(part), np.uint64)
    for k, values in enumerate(np.asarray(part.labels).reshape(len(part), -1).T, 1):
        total += _mixed(_cells(pd.Series(values), False) + np.uint64(k))
    return total


def _salt(cells: UInt64[Array, " n"]) -> np.uint64:
    """Return a number that a column's content decides: no name, no place, no order of rows."""
    return _mixed(cells).sum(dtype=np.uint64)


def _mixed(x: UInt64[Array, "..."]) -> UInt64[Array, "..."]:
    """Return the bits stirred (the finaliser of SplitMix64; Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
