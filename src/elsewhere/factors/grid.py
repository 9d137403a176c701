"""Factors of variation on a grid, and the four splits of it that hold out what is to be generalised to (spec 14, 2.1 and 2.2).

The splits are those of Schott et al. 2022 (*Visual Representation Learning Does Not Generalize Strongly Within the Same
Domain*): the training part is the small one, about 30 % of all images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError, did_you_mean

Kind = Literal["random", "composition", "interpolation", "extrapolation"]
SPLITS: tuple[str, ...] = get_args(Kind)


@dataclass(frozen=True)
class Factors:
    """What varies: names, how many values each has, and which are *kept*: never held out.

    Labels are integers f in {0..size-1}; the regression target is f / (size - 1) in 0..1 for every factor, categorical
    ones too, as the paper's reference has it. The image of labels f has the row Σ f_i Π_{j>i} n_j: the last factor is the fastest.

    Args:
        names: of the factors.
        sizes: number of values of each.
        kept: names of factors whose values have no order, or of which there are only two.
        categorical: names of factors without order: they make no walk, and the second headline leaves them out; default: the kept ones.

    Examples:
        >>> toy = Factors(("shape", "size"), (2, 3), kept=("shape",))
        >>> toy.values(np.array([4])).tolist(), toy.rows(np.array([[1, 1]])).tolist(), toy.targets(np.array([[1, 1]])).tolist()
        ([[1, 1]], [4], [[1.0, 0.5]])
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    kept: tuple[str, ...] = ()
    categorical: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.names) != len(self.sizes) or not self.names:
            raise UserError(f"factors need as many sizes as names; got {len(self.names)} names and {len(self.sizes)} sizes")
        for name in (*self.kept, *(self.categorical or ())):
            if name not in self.names:
                raise UserError(f"there is no factor {name!r}{did_you_mean(name, self.names)}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def count(self) -> int:
        """How many images the whole grid has."""
        return math.prod(self.sizes)

    @property
    def unordered(self) -> tuple[str, ...]:
        """Names of the factors without order."""
        return self.kept if self.categorical is None else self.categorical

    def values(self, rows: Array) -> Array:
        """Return the labels [n, factors] of images by row."""
        return np.stack(np.unravel_index(np.asarray(rows, np.int64), self.sizes), 1).astype(np.int64)

    def rows(self, values: Array) -> Array:
        """Return the rows [n] of images by label."""
        values = np.asarray(values)
        if len(values) and ((values < 0).any() or (values.max(0) >= self.sizes).any()):
            worst = int(np.argmax(values.max(0) - np.asarray(self.sizes)))
            raise UserError(f"factor {self.names[worst]!r} has {self.sizes[worst]} values, and a label is {int(values[:, worst].max())}")
        return np.ravel_multi_index(tuple(values.T), self.sizes)

    def targets(self, values: Array) -> Array:
        """Return what is regressed on, f / (size - 1) in 0..1: [n, factors] float32; 0 for a factor with one value."""
        return (np.asarray(values) / np.maximum(np.asarray(self.sizes) - 1, 1)).astype(np.float32)


@dataclass(frozen=True)
class Split:
    """Which images are trained on and which are tested.

    Args:
        kind: random, composition, interpolation or extrapolation.
        train, test: rows.
        held_out: factor -> its values that are in no training image (inter- and extrapolation).
        low: factor -> the values any one of which makes an image a training image (composition).
        one_factor: factor -> the test rows in which it alone is held out (inter- and extrapolation).
        notes: what a reader must know.
    """

    kind: str
    train: Array
    test: Array
    held_out: Mapping[str, Array] = field(default_factory=dict)
    low: Mapping[str, Array] = field(default_factory=dict)
    one_factor: Mapping[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def split(factors: Factors, kind: str, fraction: float, values: Array | None = None, composition_share: float | None = None) -> Split:
    """Split the grid, or the rows of a table of labels.

    Args:
        factors: of the grid.
        kind: random, composition, interpolation or extrapolation.
        fraction: r, the share of each factor's values that is held out.
        values: [n, factors] labels of the rows of a table with holes; None: the whole grid.
        composition_share: q in the place of 1 - (1 - (1 - r)^k)^(1/k).

    Raises:
        UserError: no such split, fraction outside (0, 1), or nothing is left to train or test on.

    Examples:
        >>> s = split(Factors(("a", "b"), (3, 4)), "extrapolation", 0.25)
        >>> len(s.train), len(s.test), s.held_out["b"].tolist(), s.one_factor["b"].tolist()
        (6, 6, [3], [3, 7])
    """
    if kind not in SPLITS:
        raise UserError(f"no split {kind!r}{did_you_mean(kind, SPLITS)}")
    if not 0 < fraction < 1:
        raise UserError(f"fraction must lie between 0 and 1, not {fraction!r}")
    labels = factors.values(np.arange(factors.count)) if values is None else np.asarray(values)
    if kind == "composition":
        return _composition(factors, fraction, labels, composition_share)
    held = held_out_values(factors, "interpolation" if kind == "interpolation" else "extrapolation", fraction)
    out = np.stack([np.isin(labels[:, i], held[name]) for i, name in enumerate(factors.names)], 1)
    test = np.asarray(out.any(1))
    if kind == "random":
        share = float(test.mean())
        test = np.zeros(len(labels), bool)
        test[: int(len(labels) * share)] = True
        np.random.RandomState(0).shuffle(test)
        return _checked(Split(kind, *_parts(test)), factors)
    alone = {name: np.flatnonzero(out[:, i] & (out.sum(1) == 1)) for i, name in enumerate(factors.names) if len(held[name])}
    return _checked(Split(kind, *_parts(test), {k: v for k, v in held.items() if len(v)}, {}, alone), factors)


def held_out_values(factors: Factors, kind: str, fraction: float) -> dict[str, Array]:
    """Return H_i of each factor: the ⌈n r⌉ largest values (extrapolation), or those between equally spaced ones that stay (interpolation)."""
    found = {}
    for name, n in zip(factors.names, factors.sizes, strict=True):
        p = math.ceil(n * fraction)
        everything, m = np.arange(n), n - p
        if name in factors.kept or n == 1:  # one value cannot be held out
            found[name] = everything[:0]
        elif kind == "extrapolation":
            found[name] = everything[m:]
        else:
            stay = [round(j * (n - 1) / (m - 1)) for j in range(m)] if m > 1 else [0] * m
            found[name] = np.setdiff1d(everything, stay)
    return found


def _composition(factors: Factors, fraction: float, labels: Array, share: float | None) -> Split:
    free = [n for name, n in zip(factors.names, factors.sizes, strict=True) if name not in factors.kept and n > 1]
    k = len(free)
    q = share if share is not None else 1 - (1 - (1 - fraction) ** k) ** (1 / k) if k else 0.0
    low = {name: np.arange(math.floor(n * q)) for name, n in zip(factors.names, factors.sizes, strict=True) if name not in factors.kept and math.floor(n * q)}
    if not low:
        most = max(free, default=1)
        enough = 1 - (1 - (1 - 1 / most) ** k) ** (1 / k) if k else 0.0
        raise UserError(f"composition with fraction {fraction:g} keeps no value of any factor (sizes {', '.join(map(str, free))}): lower fraction to {math.floor(100 * enough) / 100:g} or less")
    train = np.stack([np.isin(labels[:, factors.names.index(name)], values) for name, values in low.items()], 1).any(1)
    notes = () if len(low) > 1 else (f"Only {next(iter(low))} takes part in this composition: it is an extrapolation downwards.",)
    return _checked(Split("composition", *_parts(~train), {}, low, {}, notes), factors)


def _parts(test: Any) -> tuple[Array, Array]:
    return np.flatnonzero(~test), np.flatnonzero(test)


def _checked(made: Split, factors: Factors) -> Split:
    if not len(made.train):
        raise UserError(f"the {made.kind} split leaves no training image: hold out a smaller fraction")
    if not len(made.test):
        kept = ", ".join(factors.kept) or "none"
        raise UserError(f"the {made.kind} split leaves no test image: kept factors are {kept}; keep fewer of them or hold out a larger fraction")
    return made
