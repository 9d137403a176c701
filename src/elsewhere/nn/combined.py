"""Learners around learners: scaled logits, and the mean over seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.learner import Learner
from elsewhere.prediction import ClassPrediction
from elsewhere.run import Run
from elsewhere.splitting import held_out
from elsewhere.task import Source


class Around(Learner[Any, ClassPrediction]):
    """What they share: what the learner inside accepts and sees."""

    inside: ClassVar[tuple[str, ...]] = ("base",)

    base: Any

    @property
    def accepts(self) -> type:
        if not isinstance(self.base, Learner):
            raise UserError(f"{type(self).__name__} needs a learner as base, not {self.base!r}")
        kind: type = self.base.accepts
        return kind

    @property
    def sees_unlabelled(self) -> bool:
        return bool(self.base.sees_unlabelled)

    @property
    def reads(self) -> tuple[str, ...]:
        told: tuple[str, ...] = self.base.reads
        return told

    def refuses(self, source: Source[Any]) -> str | None:
        why: str | None = self.base.refuses(source)
        return why


class Refitted(Around):
    """One that fits the learner inside on a source it has changed, and then predicts and represents as that does."""

    base_: Any

    def predict(self, data: Any, run: Run = Run()) -> Any:
        return self.base_.predict(data, run)

    def represent(self, data: Any, run: Run = Run()) -> Array:
        found: Array = self.base_.represent(data, run)
        return found


@dataclass
class TemperatureScaled(Around):
    """A learner whose logits are divided by one temperature, the one with the least negative log-likelihood on the source's validation part (Guo et al. 2017).

    A source without one gives a tenth of its training part. The question it is for: does calibration at home survive elsewhere?

    Args:
        base: a learner of classes.

    Examples:
        >>> from elsewhere.data import Examples
        >>> from elsewhere.nn.learners import Mlp
        >>> x = Examples(np.random.default_rng(0).normal(size=(80, 3)), np.arange(80) % 2, classes=("a", "b"))
        >>> TemperatureScaled(Mlp(steps=5)).fit(Source(x)).predict(x).classes().shape
        (80,)
    """

    base: Any

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        if source.validation is None:
            out = held_out(source.train, 0.1, run.rng("temperature"))
            source = replace(source, train=source.train.take(~out), validation=source.train.take(out))
        assert source.validation is not None
        self.base_ = run.fitted(self.base, source)
        self.temperature_ = temperature(_logits(self.base_.predict(source.validation.unlabelled(), run)), np.asarray(source.validation.labels))
        return self

    def predict(self, data: Any, run: Run = Run()) -> ClassPrediction:
        return ClassPrediction(logits=_logits(self.base_.predict(data, run)) / self.temperature_)

    def represent(self, data: Any, run: Run = Run()) -> Array:
        found: Array = self.base_.represent(data, run)
        return found


def temperature(logits: Array, labels: Array) -> float:
    """Return T > 0 with the least mean cross-entropy of logits / T [n, classes].

    Examples:
        >>> z = np.array([[0.0, 1.0]] * 3 + [[1.0, 0.0]])  # right 3 times in 4 at a log-odds of 1: ln 3 is calibrated
        >>> round(1 / temperature(z, np.array([1, 1, 1, 1])[:4] * 0 + np.array([1, 1, 0, 0])), 2)
        1.1
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded", options={"xatol": 1e-6}).x))


@dataclass
class Ensemble(Around):
    """The mean of the probabilities of one learner fitted with several seeds (Lakshminarayanan et al. 2017).

    Args:
        base: a learner of classes.
        members: how many.
    """

    base: Any
    members: int = 5

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        if self.members < 1:
            raise UserError(f"an ensemble needs at least 1 member, not {self.members}")
        seeds = run.rng("members").integers(2**31, size=self.members)
        self.members_ = [replace(run, seed=int(s)).fitted(self.base, source) for s in seeds]
        return self

    def predict(self, data: Any, run: Run = Run()) -> ClassPrediction:
        return ClassPrediction(probabilities=np.mean([m.predict(data, run).probabilities() for m in self.members_], axis=0))


def _logits(prediction: ClassPrediction) -> Array:
    return prediction.logits if prediction.logits is not None else prediction.log_probabilities()
