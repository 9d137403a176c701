"""Rankings whose scores are never made dense; the labels are the future."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from elsewhere import Domain, Learner, Metric, Run, Source, Task, UserError, task
from elsewhere.data import Array
from elsewhere.task import TaskFunction


@dataclass(frozen=True)
class Requests:
    past: Array
    future: Array | None

    def __len__(self) -> int:
        return len(self.past)

    def take(self, rows: Any) -> Self:
        rows = np.asarray(rows)
        return replace(self, past=self.past[rows], future=None if self.future is None else self.future[rows])

    def unlabelled(self) -> Self:
        return replace(self, future=None)

    def column(self, name: str) -> Array:
        return {"events": self.past.sum(1)}[name]


@dataclass(frozen=True)
class FactoredScores:
    """exp(A Bᵀ), asked for tops only."""

    users: Array
    items: Array

    def __len__(self) -> int:
        return len(self.users)

    def top_items(self, k: int, rows: int = 50) -> Array:
        return np.concatenate([np.argsort(-(self.users[i : i + rows] @ self.items.T), 1, kind="stable")[:, :k] for i in range(0, len(self.users), rows)])

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise AssertionError("somebody made the scores dense")


@task("toy/market", files=("path",))
def market(seed: int = 0, users: int = 200, items: int = 40, path: str | None = None) -> Task[Requests]:
    rng = np.random.default_rng(seed)
    taste = rng.dirichlet(np.full(6, 0.3), users) @ rng.dirichlet(np.full(items, 0.1), 6)
    rate = rng.lognormal(1, 1, users)[:, None]

    def draw() -> Array:
        return rng.poisson(rate * taste).astype(float)

    def hit(prediction: FactoredScores, data: Requests) -> Array:
        assert data.future is not None
        bought = np.take_along_axis(data.future, prediction.top_items(3), 1) > 0
        return np.where(data.future.sum(1) > 0, bought.mean(1), np.nan)  # nobody who bought nothing is judged

    past = draw() + draw()
    half = users // 2
    newer = draw()
    domains = [Domain("later", Requests(past, draw()), "home"), Domain("new users", lambda: Requests(past[half:], newer[half:]))]
    return Task(Source(Requests(past[:half], draw()[:half])), domains, [Metric("precision", hit)], ("toy-hardest",))


def read(path: str, later: int = 10) -> TaskFunction:
    if later < 1:
        raise UserError(f"later must be at least 1, not {later}")
    return TaskFunction("market", market.make, files=("path",), options={"path": str(path)}, learners=("toy-intensity",))


@dataclass
class Intensity(Learner[Requests, FactoredScores]):
    intensity: bool = True
    accepts = Requests

    def fit(self, source: Source[Requests], run: Run = Run()) -> Self:
        self.vectors_ = np.linalg.svd(np.log1p(source.train.past), full_matrices=False)[2][:8].T.copy()
        return self

    def predict(self, data: Requests, run: Run = Run()) -> FactoredScores:
        assert data.future is None, "the future must be hidden"
        h = np.log1p(data.past) @ self.vectors_
        rate = np.log(data.past.sum(1) + 0.01) if self.intensity else np.zeros(len(data))
        return FactoredScores(np.c_[h, rate], np.c_[self.vectors_, np.ones(len(self.vectors_))])
