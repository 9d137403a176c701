"""A generator judged by a distance between distributions, and by what it is good for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from elsewhere import Domain, Learner, Metric, NotOffered, Run, Source, Task, task
from elsewhere.data import Array


@dataclass(frozen=True)
class Contexts:
    hour: Array
    window: Array | None

    def __len__(self) -> int:
        return len(self.hour)

    def take(self, rows: Any) -> Self:
        rows = np.asarray(rows)
        return replace(self, hour=self.hour[rows], window=None if self.window is None else self.window[rows])

    def unlabelled(self) -> Self:
        return replace(self, window=None)

    def column(self, name: str) -> Array:
        return {"hour": self.hour}[name]


def frechet(a: Array, b: Array) -> float:
    m, c, d = a.mean(0) - b.mean(0), np.cov(a.T), np.cov(b.T)
    w, v = np.linalg.eigh(c)
    root = (v * np.sqrt(np.clip(w, 0, None))) @ v.T
    return float(m @ m + np.trace(c) + np.trace(d) - 2 * np.sqrt(np.clip(np.linalg.eigvalsh(root @ d @ root), 0, None)).sum())


@task("toy/daily")
def daily(seed: int = 0, n: int = 400, length: int = 8) -> Task[Contexts]:
    rng = np.random.default_rng(seed)

    def windows(hours: Array) -> Contexts:
        t = hours[:, None] + np.arange(length)
        return Contexts(hours, np.sin(2 * np.pi * t / 24) + 0.3 * rng.normal(size=t.shape).cumsum(1) / length**0.5)

    train = windows(rng.integers(0, 16, n))
    floor = frechet(np.asarray(windows(np.full(n, 20)).window), np.asarray(windows(np.full(n, 20)).window))

    def basis(h: Array) -> Array:
        return np.c_[np.sin(h * np.pi / 12), np.cos(h * np.pi / 12), np.ones(len(h))]

    def fid(prediction: Array, data: Contexts) -> Mapping[str, float]:
        away = frechet(prediction, np.asarray(data.window))
        return {"": away, "over_floor": away / floor}

    def downstream(prediction: Array, data: Contexts) -> Array:
        h, w = np.r_[train.hour, data.hour], np.r_[np.asarray(train.window), prediction]
        return -np.square(basis(data.hour) @ np.linalg.lstsq(basis(h), w, rcond=None)[0] - data.window).mean(1)

    domains = [Domain("seen hours", windows(rng.integers(0, 16, n)), "home"), Domain("unseen hours", windows(rng.integers(16, 24, n)))]
    return Task(Source(train), domains, [Metric("fid", fid, False), Metric("downstream", downstream)], ("toy-hardest",))


@dataclass
class Harmonic(Learner[Contexts, Array]):
    noise: bool = True
    accepts = Contexts

    def _basis(self, h: Array) -> Array:
        t = h[:, None] + np.arange(8)
        return np.stack([np.sin(t * np.pi / 12), np.cos(t * np.pi / 12)], -1)

    def fit(self, source: Source[Contexts], run: Run = Run()) -> Self:
        data, b = source.train, self._basis(source.train.hour)
        assert data.window is not None
        self.weights_ = np.linalg.lstsq(b.reshape(-1, 2), data.window.ravel(), rcond=None)[0]
        self.covariance_ = np.cov((data.window - b @ self.weights_).T)
        return self

    def predict(self, data: Contexts, run: Run = Run()) -> Array:
        drawn = run.rng("sample").multivariate_normal(np.zeros(8), self.covariance_, len(data)) if self.noise else 0.0
        return self._basis(data.hour) @ self.weights_ + drawn


@dataclass
class Stubborn(Harmonic):
    """A learner that holds what cannot be saved."""

    def fit(self, source: Source[Contexts], run: Run = Run()) -> Self:
        super().fit(source, run)
        self.odd_ = object()
        return self

    def save(self, folder: Any) -> None:
        raise NotOffered("it holds an open connection")
