"""A task and learners that take no time: for the engine's own tests."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from elsewhere import Domain, Examples, Explainer, Finding, Learner, Metric, Run, Source, Task, ValuePrediction, task
from elsewhere.metrics.regression import MAE, SQUARED_ERROR


@task("toy/quick", choices={"slope": [1.0, 2.0]})
def quick(seed: int = 0, slope: float = 1.0, n: int = 40) -> Task[Examples]:
    rng = np.random.default_rng([seed, int(slope * 10)])

    def place(shift: float) -> Examples:
        x = rng.normal(shift, 1, (n, 3))
        return Examples(x, slope * x[:, 0] + rng.normal(size=n), {"unit": np.arange(n) // 2})

    return Task(Source(place(0)), [Domain("home", place(0), "home"), Domain("away", place(1))], [SQUARED_ERROR, MAE, Metric("always", lambda p, d: 0.5)])


@dataclass
class Quick(Learner[Examples, ValuePrediction]):
    """Predicts a drawn constant; can be slow, fail, or die, as a test asks."""

    level: float = 0.0
    sleep: float = 0.0
    fails: bool = False
    dies: bool = False

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        time.sleep(self.sleep)
        if self.fails:
            raise RuntimeError("asked to fail")
        if self.dies:
            os._exit(7)
        self.mean_ = float(np.mean(source.train.labels)) + self.level * float(run.rng("init").normal())
        for step in range(3):
            run.log(step, loss=1.0 / (step + 1))
        return self

    def predict(self, data: Examples, run: Run = Run()) -> ValuePrediction:
        assert data.labels is None
        return ValuePrediction(np.full(len(data), self.mean_))


@dataclass
class Stacked(Learner[Examples, ValuePrediction]):
    """Ridge regressions of equal shape in one pass."""

    penalty: float = 1.0
    passes: ClassVar[list[int]] = []

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        return type(self).fit_many([self], [source], [run])[0]

    @staticmethod
    def fit_many(learners: Sequence[Any], sources: Sequence[Any], runs: Sequence[Run]) -> Sequence[Any]:
        Stacked.passes.append(len(learners))
        x = np.stack([s.train.inputs for s in sources])
        y = np.stack([s.train.labels for s in sources])
        penalty = np.array([one.penalty for one in learners])
        a = np.einsum("kni,knj->kij", x, x) + penalty[:, None, None] * np.eye(x.shape[2])
        weights = np.linalg.solve(a, np.einsum("kni,kn->ki", x, y)[..., None])[..., 0]
        for one, w in zip(learners, weights, strict=True):
            one.weights_ = w
        return learners

    def predict(self, data: Examples, run: Run = Run()) -> ValuePrediction:
        return ValuePrediction(data.inputs @ self.weights_)


@dataclass
class Hardest(Explainer):
    """Name the domain with the worst headline."""

    metric: str | None = None

    def explain(self, result: Any) -> Finding:
        cells = result.cells(self.metric)
        higher = result.higher_is_better(self.metric or result.headline)
        worst = cells.sort_values("value", ascending=higher).iloc[0]
        return Finding(f"{worst.domain} is the hardest for {worst.learner}.", {"Cells": pd.DataFrame(cells)}, limits="It says nothing about why.")
