"""Merging two heads: the most accurate rule h = f + b g + c at each slack of the disparity, by an exact sweep over thresholds (Lohaus et al. 2022; spec 04, 2.4 and 2.5).

With η(x) = P(y = 1 | x) and q(x) = P(s = 1 | x), the best rule that does not see s is 1[η - ½ + b (q - p) > 0]: two heads merged.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.fairness.rates import Criterion, cells, ddp, disparity, sampling_error

Space = Literal["probability", "logit"]
CLIP = 25.0  # logits
WIDTH = {"probability": 2.0, "logit": 15.0}  # b lies within ± this; doubled up to three times where a slack is not reached
POINTS, REFINEMENTS, FINER = 601, 3, 21
BLOCK = 4_000_000  # scores sorted at a time


@dataclass(frozen=True)
class Merge:
    """A rule 1[f + Σ_k b_k t_k + c > 0], with what it reached where it was chosen."""

    b: tuple[float, ...]
    c: float
    accuracy: float
    disparity: float

    def score(self, f: Array, t: Array) -> Array:
        """Return h [n] of base scores f [n] and directions t [n] or [n, k]."""
        return np.asarray(f + np.asarray(t, float).reshape(len(f), -1) @ np.array(self.b) + self.c)


def base_score(logits: Array, space: Space) -> Array:
    """Return f as merging sees it: probabilities, or logits clipped to ± 25."""
    z = np.clip(np.asarray(logits, float), -CLIP, CLIP)
    return 1 / (1 + np.exp(-z)) if space == "probability" else z


def best_merges(f: Array, t: Array, labels: Array, codes: Array, slacks: Sequence[float], criterion: Criterion = "parity", width: float = 2.0) -> list[Merge | None]:
    """Return the most accurate merge at each slack: all thresholds of every b swept at once, ties kept whole, thresholds half-way between neighbours.

    One b is 601 values in ± width and three refinements around the best; several directions go one after another, twice. Among equal
    accuracies the smallest |b| is kept. A slack that no b reaches gives None.

    Args:
        f: base scores [n].
        t: directions [n] or [n, k].
        labels, codes: [n], of the examples that choose.
        slacks: largest allowed disparities.
    """
    t = np.asarray(t, float).reshape(len(f), -1)
    sets = cells(labels, codes, criterion)
    if any(not m.any() for masks in sets for m in masks):
        raise UserError("a group has no member (or none with a label) among the examples that choose the merge")
    found: list[Merge | None] = [None] * len(slacks)
    starts = [np.zeros(t.shape[1]) for _ in slacks]
    for turn in range(1 if t.shape[1] == 1 else 2 * t.shape[1]):
        k = turn % t.shape[1]
        for group in _alike(starts, k):
            rest = f + t @ np.where(np.arange(t.shape[1]) == k, 0.0, starts[group[0]])
            for i, merge in zip(group, _along(rest, t[:, k], labels, sets, [slacks[i] for i in group], width), strict=True):
                if merge is None:
                    continue
                kept = found[i]
                if kept is None or merge.accuracy > kept.accuracy + 1e-12:
                    b = starts[i].copy()
                    b[k] = merge.b[0]
                    starts[i] = b
                    found[i] = Merge(tuple(b.tolist()), merge.c, merge.accuracy, merge.disparity)
    return found


def _alike(starts: list[Array], k: int) -> list[list[int]]:
    """Return the slacks whose other directions agree: one sweep serves them all."""
    groups: dict[tuple[float, ...], list[int]] = {}
    for i, b in enumerate(starts):
        groups.setdefault(tuple(np.delete(b, k).tolist()), []).append(i)
    return list(groups.values())


def _along(f: Array, t: Array, labels: Array, sets: list[list[Array]], slacks: Sequence[float], width: float) -> list[Merge | None]:
    """Search b along one direction for all slacks together."""
    sweep = _Sweep(f, t, labels, sets)
    best: list[tuple[float, float] | None] = [None] * len(slacks)  # (accuracy, b)

    def offer(b: Array) -> None:
        accuracy = sweep.best(b, slacks)  # [b, slacks], -1: not reached
        for i in range(len(slacks)):
            column = accuracy[:, i]
            top = column.max()
            if top < 0:
                continue
            mine = b[column == top]
            chosen = float(mine[np.abs(mine).argmin()])
            if best[i] is None or top > best[i][0] or (top == best[i][0] and abs(chosen) < abs(best[i][1])):  # type: ignore[index]
                best[i] = (float(top), chosen)

    for doubling in range(4):
        reach = width * 2**doubling
        offer(np.linspace(-reach, reach, POINTS))
        if all(b is not None for b in best):
            break
    step = 2 * reach / (POINTS - 1)
    for _ in range(REFINEMENTS):
        around = np.unique([b[1] for b in best if b is not None])
        if not len(around):
            break
        offer(np.unique(np.concatenate([np.linspace(b - step, b + step, FINER) for b in around])))
        step *= 2 / (FINER - 1)
    return [None if b is None else sweep.merge(b[1], s) for b, s in zip(best, slacks, strict=True)]


class _Sweep:
    """All thresholds of h = f + b t at once, for many b: one sort each, of keys that carry label and group in their lowest bits."""

    def __init__(self, f: Array, t: Array, labels: Array, sets: list[list[Array]]) -> None:
        self.f, self.t, self.labels, self.sets = np.asarray(f, float), np.asarray(t, float), labels, sets
        masks = [m for group in sets for m in group]
        kinds = np.stack([labels.astype(int), *(m.astype(int) for m in masks)], 1)
        self.kinds, self.kind = np.unique(kinds, axis=0, return_inverse=True)
        self.kind = self.kind.reshape(-1).astype(np.int64)
        self.sizes = [[int(m.sum()) for m in group] for group in sets]

    def curves(self, b: Array) -> tuple[Array, Array, Array]:
        """Return correct answers, disparity [b, n + 1] when the k highest are accepted, and which k keep ties whole."""
        h = (self.f[None] + b[:, None] * self.t[None]).astype(np.float32)
        h += np.float32(0)  # -0 is 0
        raw = h.view(np.int32).astype(np.int64)
        ordered = np.where(raw < 0, -(raw & 0x7FFFFFFF), raw)  # the order of the floats
        keys = -ordered * 256 + self.kind[None]
        keys.sort(axis=1)
        kind = keys & 255
        value = (keys - kind) >> 8
        n = self.f.size
        accepted = np.zeros((len(b), n + 1, len(self.kinds)), np.int32)
        for j in range(len(self.kinds)):
            np.cumsum(kind == j, axis=1, out=accepted[:, 1:, j])
        positive = self.kinds[:, 0] == 1
        total = int(self.labels.sum())
        hits = accepted[:, :, positive].sum(2)
        misses = accepted[:, :, ~positive].sum(2)
        right = hits + (n - total) - misses
        apart = np.zeros(right.shape)
        column = 1
        for sizes in self.sizes:
            rates = []
            for size in sizes:
                rates.append(accepted[:, :, self.kinds[:, column] == 1].sum(2) / size)
                column += 1
            high, low = rates[0], rates[0]
            for r in rates[1:]:
                high, low = np.maximum(high, r), np.minimum(low, r)
            apart = np.maximum(apart, high - low)
        whole = np.ones(right.shape, bool)
        whole[:, 1:-1] = value[:, 1:] != value[:, :-1]
        return right, apart, whole

    def best(self, b: Array, slacks: Sequence[float]) -> Array:
        """Return the largest accuracy [b, slacks] of any threshold within each slack; -1 where there is none."""
        found = np.empty((len(b), len(slacks)))
        size = max(1, BLOCK // (self.f.size * max(4, len(self.kinds))))
        for start in range(0, len(b), size):
            right, apart, whole = self.curves(b[start : start + size])
            right = np.where(whole, right, -1)
            for i, slack in enumerate(slacks):
                found[start : start + size, i] = np.where(apart <= slack + 1e-12, right, -1).max(1)
        return np.where(found < 0, -1.0, found / self.f.size)

    def merge(self, b: float, slack: float) -> Merge:
        """Return the merge at one b: its threshold half-way between neighbours, in double precision."""
        right, apart, whole = (v[0] for v in self.curves(np.array([b])))
        allowed = np.flatnonzero(whole & (apart <= slack + 1e-12))
        count = int(allowed[right[allowed].argmax()])
        h = np.sort(self.f + b * self.t)[::-1]
        ends = np.r_[h[0] + 2.0, h, h[-1] - 2.0]
        threshold = (ends[count] + ends[count + 1]) / 2
        accepted = self.f + b * self.t - threshold > 0
        return Merge((b,), -float(threshold), float((accepted == self.labels).mean()), disparity(accepted, self.sets))


def default_slacks(unconstrained: float, count: int = 21) -> Array:
    """Return slacks from 0.001 up to the unconstrained disparity, which is left out."""
    if not unconstrained > 0.001:
        return np.array([0.001])
    return np.linspace(0.001, unconstrained, count + 1)[:-1]


def frontier(f: Array, t: Array, labels: Array, codes: Array, slacks: int | Sequence[float] = 21, criterion: Criterion = "parity", width: float = 2.0, names: Sequence[str] = ("b",)) -> pd.DataFrame:
    """Return one row a slack: slack, b, c, accuracy and its standard error, ddp (two groups), disparity and the sampling error of a difference; NaN with a reason where a slack is not reached.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> s, y = rng.integers(2, size=500), rng.integers(2, size=500)
        >>> f = y + 0.5 * s + rng.normal(size=500); table = frontier(f, s.astype(float), y, s, slacks=5, width=15)
        >>> bool((table.disparity <= table.slack + 1e-9).all() and table.accuracy.is_monotonic_increasing)
        True
    """
    labels, codes, f = np.asarray(labels, int), np.asarray(codes, int), np.asarray(f, float)
    t = np.asarray(t, float).reshape(len(f), -1)
    sets = cells(labels, codes, criterion)
    start = disparity(f > (0.5 if f.min() >= 0 and f.max() <= 1 else 0.0), sets)
    if np.isnan(start):
        raise UserError("a group has no member among the examples that choose the merge: the frontier has no meaning")
    wanted = default_slacks(start, slacks) if isinstance(slacks, int) else np.asarray(slacks, float)
    if (wanted < 0).any() or np.isnan(wanted).any():
        raise UserError(f"slacks must be at least 0, not {float(wanted.min()):g}")
    finest = 1 / min(int(m.sum()) for masks in sets for m in masks)
    if wanted.min() < finest:
        warnings.warn(f"the smallest slack, {wanted.min():.4f}, is finer than the disparity can be told here: it moves in steps of {finest:.4f}", UserWarning, stacklevel=2)
    constant = np.ptp(f) == 0 and bool((np.ptp(t, axis=0) == 0).all())
    rows = []
    for slack, merge in zip(wanted.tolist(), best_merges(f, t, labels, codes, wanted.tolist(), criterion, width), strict=True):
        if merge is None:
            rows.append({"slack": slack, "reason": f"no b within ± {8 * width:g} reaches it"})
            continue
        accepted = merge.score(f, t) > 0
        told = dict(zip(names if len(names) == len(merge.b) else [f"b{k}" for k in range(len(merge.b))], merge.b, strict=True))
        rows.append({"slack": slack, **told, "c": merge.c, **_measured(accepted, labels, codes, sets), "reason": "the scores are constant: only the constant is left" if constant else ""})
    return pd.DataFrame(rows)


def _measured(accepted: Array, labels: Array, codes: Array, sets: list[list[Array]]) -> dict[str, float]:
    accuracy = float((accepted == labels).mean())
    two = int(codes.max()) == 1
    return {
        "accuracy": accuracy,
        "accuracy error": float(np.sqrt(accuracy * (1 - accuracy) / len(labels))),
        "disparity": disparity(accepted, sets),
        "ddp": ddp(accepted, codes) if two else float("nan"),
        "ddp error": sampling_error(accepted, codes) if two else float("nan"),
        "acceptance": float(accepted.mean()),
    }


def group_thresholds(scores: Array, codes: Array, ratio: float = 1.0) -> tuple[float, float]:
    """Return one threshold a group on logits [n]: the fewest and cheapest changes until the acceptance rates are in ``ratio`` (after Lipton et al. 2018, as the reference does it).

    From threshold 0: A is the group with the higher rate, B the other. Demoting an accepted member of A gains ρ / (n_A (2σ(f) - 1)), promoting a
    rejected member of B 1 / (n_B (1 - 2σ(f))); while ρ · rate_A - rate_B ≥ 0 whoever gains most is changed, and the group's threshold moves
    half-way to its next.

    Args:
        scores: logits [n].
        codes: [n] group 0 or 1.
        ratio: ρ, the wanted ratio of acceptance rates; 1 is parity.
    """
    if not 0 <= ratio <= 1:
        raise UserError(f"ratio must lie between 0 and 1, not {ratio}")
    z = np.clip(np.asarray(scores, float), -CLIP, CLIP)
    rates = [float((z[codes == k] > 0).mean()) if (codes == k).any() else np.nan for k in (0, 1)]
    if np.isnan(rates).any():
        raise UserError("a group has no member: thresholds by group need both")
    a = int(rates[1] > rates[0])
    down, up = np.sort(z[(codes == a) & (z > 0)]), np.sort(z[(codes == 1 - a) & (z <= 0)])[::-1]
    n_a, n_b = int((codes == a).sum()), int((codes == 1 - a).sum())
    gain_down, gain_up = ratio / (n_a * _certainty(down)), 1 / (n_b * _certainty(up))
    i = j = 0
    while ratio * (len(down) - i) / n_a - (n_b - len(z[(codes == 1 - a) & (z <= 0)]) + j) / n_b >= 0 and (i < len(down) or j < len(up)):
        if j >= len(up) or (i < len(down) and gain_down[i] >= gain_up[j]):
            i += 1
        else:
            j += 1
    thresholds = [0.0, 0.0]
    if i:
        thresholds[a] = float("inf") if i == len(down) else float((down[i - 1] + down[i]) / 2)
    if j:
        thresholds[1 - a] = float("-inf") if j == len(up) else float((up[j - 1] + up[j]) / 2)
    return thresholds[0], thresholds[1]


def _certainty(z: Array) -> Array:
    """Return |2σ(z) - 1|, kept from 0."""
    return np.maximum(np.abs(2 / (1 + np.exp(-z)) - 1), 1e-12)
