"""Worlds whose answer is known: what every estimate here must find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from scipy.integrate import quad
from scipy.stats import norm

from elsewhere.assay.analysis import fit_line
from elsewhere.data import Array, Examples
from elsewhere.learner import Learner
from elsewhere.metrics import classification_metrics, regression_metrics
from elsewhere.metrics.regression import SQUARED_ERROR
from elsewhere.prediction import ClassPrediction
from elsewhere.run import Run
from elsewhere.task import Domain, Source, Task, task

if TYPE_CHECKING:
    from elsewhere.assay.result import Result


TERMS = ("harder cases", "relation changed", "cases unseen at home")


@task("worlds/known-terms", choices={"shift": [1.0]}, learners=("given:column=prediction",))
def known_terms(seed: int = 0, shift: float = 1.0, relation: float = 0.3, home: int = 10_000, elsewhere: int = 5_000) -> Task[Examples]:
    """A model whose loss is known at every x: R_P(x) = 0.1 + 0.2 x² at home, x ~ N(0, 1); elsewhere x ~ N(shift, 1) and
    R_Q(x) = R_P(x) + relation / (1 + e^{-2x}). The loss is R(x) times an exponential variable of mean 1.

    The model predicts 0 in the column ``prediction``; the label is ± the root of the loss, so that its squared error is the loss.
    """
    rng = Run(seed).rng("known-terms")

    def place(n: int, mean: float, change: float) -> Examples:
        x = rng.normal(mean, 1, n)
        loss = risk(x, change) * rng.exponential(size=n)
        return Examples(pd.DataFrame({"x": x}), rng.choice([-1.0, 1.0], n) * np.sqrt(loss), {"prediction": np.zeros(n)})

    truth, overlap = true_terms(shift, relation)
    about = {"shift": shift, "true overlap": overlap, **{f"true {name}": float(v) for name, v in zip(TERMS, truth, strict=True)}}
    domains = [Domain("home", place(home, 0, 0), "home"), Domain("elsewhere", place(elsewhere, shift, relation), "elsewhere", about)]
    metrics = [SQUARED_ERROR, *(m for m in regression_metrics() if m is not SQUARED_ERROR)]
    return Task(Source(place(200, 0, 0)), domains, metrics, ("shift-decomposition",))


def risk(x: Any, relation: float) -> Any:
    """Return the expected loss at x of the known-terms world."""
    return 0.1 + 0.2 * np.square(x) + relation / (1 + np.exp(-2 * x))


def true_terms(shift: float, relation: float = 0.3) -> tuple[Array, float]:
    """Return the true terms [3] (harder, relation, unseen) and the overlap of the known-terms world, by quadrature."""

    def p(x: float) -> float:
        return float(norm.pdf(x))

    def q(x: float) -> float:
        return float(norm.pdf(x - shift))

    def s(x: float) -> float:
        return p(x) * q(x) / (p(x) + q(x)) if p(x) + q(x) > 0 else 0.0

    def mean(density: Any, change: float) -> float:
        top = quad(lambda x: density(x) * float(risk(np.float64(x), change)), -10, 10 + shift, limit=200)[0]
        return float(top / quad(density, -10, 10 + shift, limit=200)[0])

    levels = [mean(p, 0), mean(s, 0), mean(s, relation), mean(q, relation)]
    return np.diff(levels), 2 * float(quad(s, -10, 10 + shift, limit=200)[0])


@dataclass
class RandomDirection(Learner[Examples, ClassPrediction]):
    """A linear classifier through the origin, at ``angle`` degrees from the mean difference of the classes, in a plane
    drawn with the seed: a family of classifiers of every quality, for worlds where all of them lie on one line."""

    angle: float = 30.0

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        x, y = np.asarray(source.train.inputs, float), 2.0 * np.asarray(source.train.labels) - 1
        best = (x * y[:, None]).mean(0)
        best /= np.linalg.norm(best)
        away = run.rng("direction").normal(size=x.shape[1])
        away -= away @ best * best
        turn = np.deg2rad(self.angle)
        self.direction_ = np.cos(turn) * best + np.sin(turn) * away / np.linalg.norm(away)
        return self

    def predict(self, data: Examples, run: Run = Run()) -> ClassPrediction:
        return ClassPrediction(labels=(np.asarray(data.inputs, float) @ self.direction_ > 0).astype(int))


@task("worlds/linear-gaussian", learners=tuple(f"random-direction:angle={a}" for a in (0, 15, 30, 45, 55, 65, 75, 85)))
def linear_gaussian(seed: int = 0, dimensions: int = 20, separation: float = 1.5, shrink: float = 0.7, noise: float = 1.3, moved: float = 0.0, n: int = 2_000) -> Task[Examples]:
    """Home x | y ~ N(yμ, I), elsewhere N(shrink · yμ + moved · δ, noise² I), y = ±1, |μ| = separation, δ a random direction.

    With ``moved`` 0 every linear classifier through the origin lies on Φ⁻¹(elsewhere) = (shrink / noise) Φ⁻¹(home)
    (Miller et al. 2021); a moved mean breaks the line.
    """
    rng = Run(seed).rng("linear-gaussian")
    mean = np.zeros(dimensions)
    mean[0] = separation
    off = rng.normal(size=dimensions)
    off /= np.linalg.norm(off)

    def place(count: int, scale: float, spread: float, shift: Array | float = 0.0) -> Examples:
        y = rng.integers(0, 2, count)
        x = np.outer(2 * y - 1, mean) * scale + shift + spread * rng.normal(size=(count, dimensions))
        return Examples(x, y, classes=("-1", "1"))

    domains = [Domain("home", place(n, 1, 1), "home"), Domain("elsewhere", place(n, shrink, noise, moved * off), "elsewhere")]
    return Task(Source(place(n, 1, 1)), domains, classification_metrics())


def slopes(result: Result) -> Array:
    """Return the slope of the linear-Gaussian world's line, fitted in each seed by itself."""
    rows = result.scores().query("metric == 'accuracy'").pivot_table(index=["seed", "learner"], columns="domain", values="value", observed=True)
    lines = [fit_line(of.home.to_numpy(), of.elsewhere.to_numpy(), 2_000, 2_000) for _, of in rows.groupby("seed")]
    return np.array([line.slope for line in lines if line is not None])


def rank_correlation_of_pair(result: Result) -> float:
    """Return Spearman's correlation of accuracy at home and elsewhere over the trials."""
    return float(result.pairs("accuracy").rho.iloc[0])
