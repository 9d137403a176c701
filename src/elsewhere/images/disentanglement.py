"""Encoders that seek the factors behind images, each with a read-out: β-VAE, Ada-GVAE, SlowVAE, PCL (spec 14, 2.4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from elsewhere.batching import in_batches, order, taker
from elsewhere.data import Array, Examples
from elsewhere.errors import NotOffered, UserError
from elsewhere.factors.world import FactorImages
from elsewhere.learner import Learner, Probe
from elsewhere.nn import variational as v
from elsewhere.nn.building import build
from elsewhere.nn.learners import Mlp, Prediction, seeded
from elsewhere.nn.pairs import Pairs
from elsewhere.optimisers import adam
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.training import Descent, train

STEPS_AT_ONCE = 64  # pairs of so many steps are drawn together


def read_out() -> Any:
    """Return the reference's read-out: 5 hidden layers of 256 on the frozen mean code, squared error."""
    return Mlp(width=256, depth=5, steps=5000, batch=128, learning_rate=1e-4, schedule="constant")


@dataclass
class Encoding(Learner[Examples, Prediction]):
    """What the four encoders share: training without labels, the mean code as representation, a head that reads it.

    The encoder is fitted once per source and seed and shared by all heads (``Probe``); ``head=None`` is the encoder alone.

    Args:
        latent: size of the code.
        batch: images a step; of pairs, two a pair.
        steps: of training.
        learning_rate: of Adam.
        head: what reads the code; None: the encoder alone.
    """

    latent: int = 10
    batch: int = 64
    steps: int = 4000
    learning_rate: float = 1e-4
    head: Any = field(default_factory=read_out)

    architecture: ClassVar[str] = "vae"

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        vars(self).pop("probe_", None)
        if self.head is not None:
            alone = replace(self, head=None)
            self.probe_ = Probe(alone, self.head).fit(source, run)
            return self
        draw = self.draw(source.train, run)
        self.network_ = seeded(run, lambda: build(self.architecture, shape=list(source.train.inputs.shape[1:]), head=False, latent=self.latent))
        train(Descent(self.network_, self.loss, adam(self.learning_rate)), draw, run, steps=self.steps)
        return self

    def draw(self, data: Any, run: Run) -> Callable[[int], Tensor]:
        """Return step -> pictures [batch, …]."""
        take, rows = taker(data.inputs), order(len(data), run, self.batch)
        return lambda step: take(rows(step))

    def loss(self, network: Any, pictures: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def predict(self, data: Any, run: Run = Run()) -> Prediction:
        if self.head is None:
            raise NotOffered(f"{type(self).__name__} without a head is an encoder alone: it represents, and predicts nothing")
        found: Prediction = self.probe_.predict(data, run)
        return found

    def represent(self, data: Any, run: Run = Run()) -> Array:
        """Return the mean of each code, never a sample: [n, latent]."""
        if self.head is not None:
            return self.probe_.represent(data, run)
        return in_batches(v.MeanCode(self.network_), data.inputs, run, output=None)


class PairEncoding(Encoding):
    """An encoder that learns from pairs of images: which pairs, from the labels of the training part."""

    @property
    def accepts(self) -> type:
        return FactorImages

    def partner(self, pairs: Pairs, rows: Array, rng: np.random.Generator) -> Array:
        raise NotImplementedError(f"{type(self).__name__} has no pairs")

    def draw(self, data: Any, run: Run) -> Callable[[int], Tensor]:
        """Return step -> interleaved pairs [batch, …]: first, second, first, second …"""
        if data.values is None:
            raise UserError("pairs are drawn by the labels of the factors, and the source has none")
        if self.batch % 2:
            raise UserError(f"a batch of pairs holds an even number of images, not {self.batch}")
        factors = data.factors
        pairs = Pairs(data.values, factors.sizes, [factors.names.index(n) for n in factors.unordered])
        self.partner(pairs, np.arange(min(len(data), 5000)), run.rng("pairs tried"))
        pairs.check()
        take, rows = taker(data.inputs), order(len(data), run, self.batch // 2)

        @lru_cache(maxsize=2)
        def block(number: int) -> Tensor:
            """The pairs of many steps at once: [steps, pairs, 2]."""
            first = torch.stack([rows(number * STEPS_AT_ONCE + k) for k in range(STEPS_AT_ONCE)])
            second = self.partner(pairs, first.flatten().numpy(), run.rng(f"pairs {number}"))
            return torch.stack([first, torch.from_numpy(second).view(first.shape)], 2)

        return lambda step: take(block(step // STEPS_AT_ONCE)[step % STEPS_AT_ONCE].flatten())


@dataclass
class BetaVae(Encoding):
    """β-VAE (Higgins et al. 2017): reconstruction and β times the divergence of the code from a standard normal.

    Args:
        beta: weight of the divergence.
        latent, batch, steps, learning_rate, head: as for ``Encoding``.

    Examples:
        >>> data = Examples(np.zeros((4, 1, 32, 32), np.uint8), np.zeros((4, 2), np.float32))
        >>> BetaVae(steps=1, head=None).fit(Source(data)).represent(data).shape
        (4, 10)
    """

    beta: float = 1.0

    def loss(self, network: Any, pictures: Tensor) -> Tensor:
        return v.beta_vae_loss(network(pictures), pictures, self.beta)


@dataclass
class AdaGvae(PairEncoding):
    """Ada-GVAE (Locatello et al. 2020): of two images that differ in k factors, latents that hardly differ are averaged.

    Args:
        beta: weight of the divergence.
        changes: k, how many factors differ within a pair, or "random".
        latent, batch, steps, learning_rate, head: as for ``Encoding``.

    Examples:
        >>> from elsewhere.images.worlds import sprites
        >>> data = sprites().examples(np.arange(0, 46080, 40))
        >>> AdaGvae(steps=1, head=None).fit(Source(data)).represent(data.take(np.arange(3))).shape
        (3, 10)
    """

    beta: float = 1.0
    changes: int | Literal["random"] = 1

    def partner(self, pairs: Pairs, rows: Array, rng: np.random.Generator) -> Array:
        return pairs.changed(rows, self.changes, rng)

    def loss(self, network: Any, pictures: Tensor) -> Tensor:
        return v.ada_gvae_loss(network(pictures, v.averaged_pairs), pictures, self.beta)


@dataclass
class SlowVae(PairEncoding):
    """SlowVAE (Klindt et al. 2021): codes of neighbouring images lie a sparse, Laplace-distributed step apart.

    Args:
        beta: weight of the divergence from the standard normal.
        gamma: weight of the transition's divergence.
        rate: λ of the transition between codes.
        walk: rate of the walk that draws the second image.
        latent, batch, steps, learning_rate, head: as for ``Encoding``.
    """

    beta: float = 1.0
    gamma: float = 10.0
    rate: float = 6.0
    walk: float = 1.0

    def partner(self, pairs: Pairs, rows: Array, rng: np.random.Generator) -> Array:
        return pairs.walked(rows, self.walk, rng)

    def loss(self, network: Any, pictures: Tensor) -> Tensor:
        return v.slow_vae_loss(network(pictures), pictures, self.beta, self.gamma, self.rate)


@dataclass
class Pcl(PairEncoding):
    """Permutation-contrastive learning (Hyvärinen & Morioka 2017): tell neighbouring images from those of other pairs.

    Args:
        walk: rate of the walk that draws the second image.
        latent, batch, steps, learning_rate, head: as for ``Encoding``.
    """

    architecture: ClassVar[str] = "contrast"
    walk: float = 1.0

    def partner(self, pairs: Pairs, rows: Array, rng: np.random.Generator) -> Array:
        return pairs.walked(rows, self.walk, rng)

    def loss(self, network: Any, pictures: Tensor) -> Tensor:
        return v.contrast_loss(network(pictures))
