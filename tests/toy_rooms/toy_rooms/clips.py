"""Masks in clips of different lengths; the light differs between domains, and a learner adapts to it without labels."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from elsewhere import Domain, Learner, Metric, Run, Source, Task, task
from elsewhere.data import Array


@dataclass(frozen=True)
class Clips:
    """One [frames, side, side] array a clip; masks alike, hidden where they are judged."""

    frames: tuple[Array, ...]
    masks: tuple[Array, ...] | None

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, rows: Any) -> Self:
        rows = np.arange(len(self))[np.asarray(rows)]
        return replace(self, frames=tuple(self.frames[i] for i in rows), masks=None if self.masks is None else tuple(self.masks[i] for i in rows))

    def unlabelled(self) -> Self:
        return replace(self, masks=None)

    def column(self, name: str) -> Array:
        return {"unit": np.arange(len(self)) // 2, "frames": np.array([len(f) for f in self.frames])}[name]


def overlap(prediction: Sequence[Array], data: Clips) -> Array:
    assert data.masks is not None
    return np.array([(p & m).sum() / max(1, (p | m).sum()) for p, m in zip(prediction, data.masks, strict=True)])


@task("toy/clips")
def clips(seed: int = 0, n: int = 12) -> Task[Clips]:
    rng = np.random.default_rng(seed)

    def place(light: float, count: int) -> Clips:
        frames, masks = [], []
        for _ in range(count):
            mask = np.zeros((rng.integers(2, 5), 12, 12), bool)
            i, j = rng.integers(0, 7, 2)
            mask[:, i : i + 5, j : j + 5] = True
            frames.append(mask * 1.0 + light + 0.2 * rng.normal(size=mask.shape))
            masks.append(mask)
        return Clips(tuple(frames), tuple(masks))

    bright = place(2.0, n)
    train = place(0.0, n)
    domains = [Domain("home light", place(0.0, n), "home"), Domain("bright", bright, "stress", {"light": 2.0}), Domain("dark", place(-1.0, n), "elsewhere", {"light": -1.0})]
    return Task(Source(train, unlabelled={"bright": place(2.0, n).unlabelled()}), domains, [Metric("iou", overlap)], ("toy-hardest",))


@dataclass
class Threshold(Learner[Clips, tuple[Array, ...]]):
    adapts: bool = True
    accepts = Clips

    @property
    def sees_unlabelled(self) -> bool:
        return self.adapts

    def fit(self, source: Source[Clips], run: Run = Run()) -> Self:
        assert bool(source.unlabelled) == self.adapts, "the engine grants only what is declared"
        data = source.train
        assert data.masks is not None
        inside = np.concatenate([f[m] for f, m in zip(data.frames, data.masks, strict=True)])
        outside = np.concatenate([f[~m] for f, m in zip(data.frames, data.masks, strict=True)])
        self.bound_ = float((inside.mean() + outside.mean()) / 2)
        self.light_ = float(np.median(np.concatenate([f.ravel() for f in data.frames])))
        return self

    def adapt(self, data: Clips, run: Run = Run()) -> Self:
        assert data.masks is None, "labels must be hidden"
        twin = copy.deepcopy(self)
        twin.bound_ = self.bound_ + float(np.median(np.concatenate([f.ravel() for f in data.frames]))) - self.light_
        return twin

    def predict(self, data: Clips, run: Run = Run()) -> tuple[Array, ...]:
        return tuple(f > self.bound_ for f in data.frames)
