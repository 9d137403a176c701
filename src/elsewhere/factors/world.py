"""Worlds whose factors are known for every image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.factors.grid import Factors
from elsewhere.pictures import Lazy, in_memory


@dataclass(frozen=True, eq=False)
class World:
    """Images of every combination of some factors' values, or of the rows of a table.

    Args:
        name: as it is read in tables.
        factors: names, sizes, which are kept.
        shape: [channels, height, width] of an image.
        draw: rows -> uint8 [n, channels, height, width].
        fraction: r, the share of a factor's values that the splits hold out.
        labels: [rows, factors] where the grid has holes; None: the whole grid.
        composition_share: q of the composition split, where its formula leaves no value.
        notes: what a reader must know.
    """

    name: str
    factors: Factors
    shape: tuple[int, int, int]
    draw: Callable[[Array], Array] = field(repr=False)
    fraction: float = 0.2
    labels: Array | None = field(default=None, repr=False)
    composition_share: float | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.factors.count if self.labels is None else len(self.labels)

    def values(self, rows: Array) -> Array:
        """Return the labels [n, factors] of rows."""
        return self.factors.values(rows) if self.labels is None else self.labels[rows]

    def images(self, rows: Array) -> Any:
        """Return the images of rows: uint8 in memory, or a reader that draws what is asked for where they are many."""
        return in_memory(Lazy(self.draw, self.shape, rows, self.name))

    def examples(self, rows: Array) -> FactorImages:
        """Return the images of rows with their labels."""
        values = self.values(rows)
        return FactorImages(self.images(rows), self.factors.targets(values), {"id": np.asarray(rows)}, None, values, self.factors)


@dataclass(frozen=True)
class FactorImages(Examples):
    """Images with the labels of their factors: ``labels`` are the targets in 0..1 [n, factors], ``values`` the integers behind them."""

    values: Array | None = None
    factors: Factors | None = None

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """What the columns of the labels are called."""
        return None if self.factors is None else self.factors.names

    def take(self, rows: Any) -> Self:
        kept = super().take(rows)
        return kept if self.values is None else replace(kept, values=self.values[np.asarray(rows)])

    def unlabelled(self) -> Self:
        return replace(self, labels=None, values=None)

    def preview(self, row: int) -> Any:
        return np.asarray(self.inputs[row])
