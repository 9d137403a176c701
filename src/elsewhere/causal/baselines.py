"""What a causal model must beat: unmixing without interventions, and predictions of combinations without a graph (spec 05, 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from elsewhere.causal.data import CausalData, Environments, Pairs, Transitions, Views
from elsewhere.causal.learning import CausalLearner, checked_columns, observations
from elsewhere.causal.model import LinearCodec
from elsewhere.causal.predictions import Latents, Outcomes
from elsewhere.causal.questions import Gaussian, Interventions
from elsewhere.data import Array
from elsewhere.errors import UserError, did_you_mean
from elsewhere.learner import Learner
from elsewhere.run import Run
from elsewhere.task import Source


class Unmixing(CausalLearner[Any]):
    """An encoder that finds no graph and knows no interventions: ``codec_`` is all it leaves."""

    no_graph: ClassVar[str] = "it finds no graph: what an intervention does cannot be said"
    answers: ClassVar[tuple[type, ...]] = (Interventions,)

    codec_: Any

    @property
    def accepts(self) -> type:
        return CausalData

    def represent(self, data: Any, run: Run = Run()) -> Array:
        """Return the codes [N, k]: of pairs those of the first, of steps those of the frame after, of views those of all side by side."""
        return self.encode(seen_of(data))

    def encode(self, x: Any) -> Array:
        return np.asarray(self.codec_.encode(x))

    def decode(self, z: Array) -> Array:
        return np.asarray(self.codec_.decode(z))


def seen_of(data: Any) -> Any:
    """Return one observation an example [N, …] of any data of this room: of pairs the first, of steps the one after, of views all side by side."""
    several = isinstance(data, (Pairs, Transitions, Views))
    return data.examples().inputs if several else observations(data)


def flat(data: Any) -> Array:
    """Return those observations as rows [N, d]."""
    x = seen_of(data)
    return np.asarray(x, float).reshape(len(x), -1)


@dataclass
class PrincipalComponents(Unmixing):
    """Principal components as latents (scikit-learn's PCA), of all environments together.

    Args:
        latents: how many; default: one an environment in which something was done.

    Examples:
        >>> data = Environments(np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 3)
        >>> PrincipalComponents().fit(Source(data)).encode(data.inputs).shape
        (30, 2)
    """

    latents: int | None = None

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        from sklearn.decomposition import PCA

        made = PCA(_count(source.train, self.latents), random_state=run.integer("fit")).fit(flat(source.train))
        self.codec_ = LinearCodec(made.components_ / np.sqrt(np.maximum(made.explained_variance_, 1e-12))[:, None], made.components_.T * np.sqrt(made.explained_variance_), made.mean_)
        self.model_, self.assumptions_ = None, []
        return self


@dataclass
class IndependentComponents(Unmixing):
    """Independent components as latents (scikit-learn's FastICA), of all environments together.

    Args:
        latents: how many; default: one an environment in which something was done.
        steps: at most so many iterations.

    Examples:
        >>> data = Environments(np.random.default_rng(0).uniform(size=(60, 3)), np.arange(60) % 3)
        >>> IndependentComponents().fit(Source(data)).encode(data.inputs).shape
        (60, 2)
    """

    latents: int | None = None
    steps: int = 500

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        import warnings

        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning

        made = FastICA(_count(source.train, self.latents), whiten="unit-variance", max_iter=self.steps, random_state=run.integer("fit"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # normal latents have no independent directions: it wanders, as it must
            made.fit(flat(source.train))
        self.codec_ = LinearCodec(made.components_, made.mixing_, made.mean_)
        self.model_, self.assumptions_ = None, []
        return self


def _count(data: Any, latents: int | None) -> int:
    if latents is not None:
        return latents
    if isinstance(data, Environments):
        return len(data.names) - 1
    raise UserError("say how many latents there are: latents=…")


# --- predictions without a graph ------------------------------------------------------------------------------------


class Rule(Learner[Environments, Any]):
    """A prediction of combinations from the moments of what was done singly; it estimates no latents."""

    answers: ClassVar[tuple[type, ...]] = (Interventions,)
    holds: ClassVar[tuple[type, ...]] = (Gaussian,)

    @property
    def accepts(self) -> type:
        return Environments

    def fit(self, source: Source[Environments], run: Run = Run()) -> Self:
        data = source.train
        checked_columns(data)
        self.names_ = [str(n) for n in data.names]
        self.features_ = list(data.features) if data.features is not None else []
        self.single_ = [Gaussian.of(_nonempty(data, k)) for k in range(len(data.names))]
        return self

    def predict(self, data: Any, run: Run = Run()) -> Any:
        if not isinstance(data, Interventions):
            return Latents(None, f"{type(self).__name__} estimates no latents")
        if data.of == "latents":
            return Outcomes(None, data, f"{type(self).__name__} knows no true latents")
        strength = np.asarray(data.strength, float)
        told = [self.combined([position(name, self.names_) for name in names], s) for names, s in zip(data.do, strength, strict=True)]
        return Outcomes(tuple(told), data, features=tuple(self.features_))

    def combined(self, environments: Sequence[int], strength: float) -> Gaussian:
        raise NotImplementedError(f"{type(self).__name__} has no rule")


def _nonempty(data: Environments, k: int) -> Array:
    x = data.of(k)
    if not len(x):
        raise UserError(f"environment {str(data.names[k])!r} has no observations")
    return np.asarray(x, float)


def position(name: str, names: Sequence[str]) -> int:
    """Return the position of an environment by its name."""
    if name not in names:
        raise UserError(f"no environment {name!r}{did_you_mean(name, names)}")
    return list(names).index(name)


def additive(single: Sequence[Gaussian], environments: Sequence[int], strength: float = 1.0) -> Gaussian:
    """Return the additive prediction: mean μ_0 + Σ Δ_k, covariance S_0 + Σ (S_k - S_0) clipped to be positive semi-definite.

    In perturbation data this rule is hard to beat. ``strength`` multiplies the shifts.

    Examples:
        >>> zero, one = Gaussian(np.zeros(1), np.eye(1)), Gaussian(np.ones(1), 2 * np.eye(1))
        >>> additive([zero, one, one], (1, 2)).mean, additive([zero, one, one], (1, 2)).covariance
        (array([2.]), array([[3.]]))
    """
    zero = single[0]
    mean = zero.mean + strength * sum((single[k].mean - zero.mean for k in environments), np.zeros_like(zero.mean))
    covariance = zero.covariance + sum((single[k].covariance - zero.covariance for k in environments), np.zeros_like(zero.covariance))
    values, vectors = np.linalg.eigh(covariance)
    return Gaussian(mean, (vectors * np.clip(values, 0, None)) @ vectors.T)


@dataclass
class AdditiveInterventions(Rule):
    """The additive baseline: effects of single interventions on mean and covariance are added up.

    Examples:
        >>> from elsewhere.causal.worlds import linear_gaussian_world
        >>> data = linear_gaussian_world(2, 3, shifts=True).environments(50, np.random.default_rng(0))
        >>> AdditiveInterventions().fit(Source(data)).predict(Interventions((("env_1", "env_2"),))).each[0].mean.shape
        (3,)
    """

    def combined(self, environments: Sequence[int], strength: float) -> Gaussian:
        return additive(self.single_, environments, strength)


@dataclass
class NearestIntervention(Rule):
    """The single intervention whose distribution is nearest to the additive prediction, of those that are combined, stands for the combination.

    Examples:
        >>> from elsewhere.causal.worlds import linear_gaussian_world
        >>> data = linear_gaussian_world(2, 3, shifts=True).environments(50, np.random.default_rng(0))
        >>> NearestIntervention().fit(Source(data)).predict(Interventions((("env_1", "env_2"),))).each[0].mean.shape
        (3,)
    """

    def combined(self, environments: Sequence[int], strength: float) -> Gaussian:
        from elsewhere.causal.metrics import wasserstein

        wanted = additive(self.single_, environments, strength)
        return min((self.single_[k] for k in environments), key=lambda g: wasserstein(g, wanted), default=self.single_[0])


@dataclass
class NoChange(Rule):
    """Nothing happens: the observational distribution.

    Examples:
        >>> from elsewhere.causal.worlds import linear_gaussian_world
        >>> data = linear_gaussian_world(2, 3, shifts=True).environments(50, np.random.default_rng(0))
        >>> NoChange().fit(Source(data)).predict(Interventions((("env_1", "env_2"),))).each[0].mean.shape
        (3,)
    """

    def combined(self, environments: Sequence[int], strength: float) -> Gaussian:
        return self.single_[0]


@dataclass
class ConditionalGaussian(Rule):
    """A black box: a network from which interventions are done to mean and covariance of x, by maximum likelihood.

    Which interventions are done is told as ones (times the strength) in a vector; singles are seen in training, combinations never.

    Args:
        width: of the two hidden layers.
        steps, batch, learning_rate: of AdamW.

    Examples:
        >>> from elsewhere.causal.worlds import linear_gaussian_world
        >>> data = linear_gaussian_world(2, 3, shifts=True).environments(50, np.random.default_rng(0))
        >>> ConditionalGaussian(steps=2).fit(Source(data)).predict(Interventions((("env_1", "env_2"),))).each[0].mean.shape
        (3,)
    """

    width: int = 64
    steps: int = 2000
    batch: int = 256
    learning_rate: float = 2e-3

    def fit(self, source: Source[Environments], run: Run = Run()) -> Self:
        from elsewhere.causal.conditional import fit_conditional

        super().fit(source, run)
        self.network_, self.center_, self.back_ = fit_conditional(source.train, self.width, self.steps, self.batch, self.learning_rate, run)
        return self

    def combined(self, environments: Sequence[int], strength: float) -> Gaussian:
        import torch

        done = torch.zeros(1, len(self.names_) - 1)
        done[0, [k - 1 for k in environments if k]] = strength
        with torch.no_grad():
            mean, lower = (v[0].numpy().astype(float) for v in self.network_(done))
        root = self.back_ @ lower
        return Gaussian(self.center_ + self.back_ @ mean, root @ root.T)
