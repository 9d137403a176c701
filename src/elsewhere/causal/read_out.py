"""True variables read off a code, and their distribution under interventions: by a graph, or by adding up effects (spec 05, 6.7)."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from elsewhere.causal.baselines import additive, position
from elsewhere.causal.data import Environments
from elsewhere.causal.learning import DRAWN
from elsewhere.causal.linear_interventional import LinearInterventional
from elsewhere.causal.model import CausalModel
from elsewhere.causal.predictions import Outcomes
from elsewhere.causal.questions import Gaussian, Interventions
from elsewhere.data import Array, Examples
from elsewhere.errors import UserError
from elsewhere.learner import Learner
from elsewhere.prediction import ValuePrediction
from elsewhere.run import Run
from elsewhere.task import Source


@dataclass
class ReadOut(Learner[Environments, Any]):
    """Read the true variables off what an encoder finds, with labels of the source, and say how they are distributed under interventions.

    Args:
        encoder: a learner of environments with latents; or one that is told the variables (``cnn``), whose predictions are then taken as they are.
        head: what reads the variables off the code; None: the encoder predicts them itself.
        rule: "causal": combinations by the encoder's own causal model (where it has none, by the linear method on what was read off); "additive": effects of
            single interventions on mean and covariance are added up.

    Examples:
        >>> from elsewhere.causal.linear_interventional import LinearInterventional
        >>> from elsewhere.causal.worlds import linear_gaussian_world
        >>> from elsewhere.wrapping import wrap
        >>> from sklearn.linear_model import Ridge
        >>> data = linear_gaussian_world(2, 3, shifts=True).environments(100, np.random.default_rng(0))
        >>> model = ReadOut(LinearInterventional(), wrap(Ridge()), "causal").fit(Source(data))
        >>> model.predict(Interventions((("env_1", "env_2"),), of="latents")).each[0].mean.shape
        (2,)
    """

    inside: ClassVar[tuple[str, ...]] = ("encoder", "head")
    answers: ClassVar[tuple[type, ...]] = (Interventions,)
    holds: ClassVar[tuple[type, ...]] = (Gaussian,)

    encoder: Learner[Any, Any]
    head: Any = None
    rule: Literal["causal", "additive"] = "additive"

    @property
    def accepts(self) -> type:
        return Environments

    def fit(self, source: Source[Environments], run: Run = Run()) -> Self:
        data = source.train
        if data.latents is None:
            raise UserError("a read-out needs the true variables of the source as labels")
        told = self.encoder.accepts is Examples
        self.encoder_ = run.fitted(self.encoder, Source(data.examples()) if told else source)
        if self.head is None and not told:
            raise UserError("this encoder is told no variables: say what reads them off, head=ridge-regression")
        codes = self._codes(data, run)
        self.head_: Any = None if self.head is None else copy.deepcopy(self.head).fit(Source(Examples(codes, data.labels)), run)
        read = self._read(codes, run)
        environment = np.asarray(data.environment)
        self.names_ = [str(n) for n in data.names]
        self.single_ = [Gaussian.of(read[environment == k]) for k in range(len(self.names_))]
        self.linear_ = None
        if self.rule == "causal" and self._model() is None:
            self.linear_ = LinearInterventional(latents=read.shape[1]).fit(Source(Environments(read, environment, data.names)), run)
        return self

    def predict(self, data: Any, run: Run = Run()) -> Any:
        if not isinstance(data, Interventions):
            return ValuePrediction(self._read(self._codes(data, run), run))
        if data.of != "latents":
            return Outcomes(None, data, "a read-out speaks of the true variables, not of x")
        strength: list[float] = np.asarray(data.strength, float).tolist()
        if self.rule == "additive":
            return Outcomes(tuple(additive(self.single_, [position(n, self.names_) for n in names], s) for names, s in zip(data.do, strength, strict=True)), data)
        if self.linear_ is not None:
            return Outcomes(tuple(self.linear_.model.moments_of(list(data.do), strength)), data)
        model = self._model()
        assert model is not None
        codes = model.do_latents(list(data.do), DRAWN, data.seed, strength)
        return Outcomes(tuple(Gaussian.of(self._read(z, run)) for z in codes), data)

    def represent(self, data: Any, run: Run = Run()) -> Array:
        return self._codes(data, run)

    def _model(self) -> CausalModel | None:
        found: CausalModel | None = getattr(self.encoder_, "model_", None)
        return found

    def _codes(self, data: Any, run: Run) -> Array:
        if self.encoder.accepts is Examples:
            plain = Examples(data.inputs)
            return np.asarray(self.encoder_.predict(plain, run).mean if self.head is None else self.encoder_.represent(plain, run), float)
        return np.asarray(self.encoder_.represent(data, run), float)

    def _read(self, codes: Array, run: Run) -> Array:
        if self.head_ is None:
            return codes
        made: Array = np.asarray(self.head_.predict(Examples(codes), run).mean, np.float64)
        return made if made.ndim == 2 else made[:, None]
