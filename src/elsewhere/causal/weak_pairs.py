"""Latents from pairs that share an unknown set of factors (spec 05, D), and autoencoders that are told nothing."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elsewhere.batching import in_batches, order, taker
from elsewhere.causal.baselines import Unmixing, seen_of
from elsewhere.causal.codecs import NetworkCodec, scales
from elsewhere.causal.data import Pairs
from elsewhere.causal.learning import assumed
from elsewhere.errors import UserError
from elsewhere.nn import variational as v
from elsewhere.nn.building import build
from elsewhere.nn.learners import seeded
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.training import Descent, adam, train

SPREAD = 1e-3  # of δ within a pair, below which nothing or everything changed


@dataclass
class Autoencoder(Unmixing):
    """An autoencoder with a Gaussian code: β-VAE, or with ``beta=0`` a plain one whose code is not even drawn (spec 05, 4).

    Args:
        latents: size of the code.
        beta: weight of the divergence from a standard normal.
        width, depth: of the perceptrons for vectors; pictures get the strided convolutions of the image room.
        architecture: of pictures: "auto" or "keypoints".
        batch, steps, learning_rate: of Adam.

    Examples:
        >>> from elsewhere.causal.data import Environments
        >>> data = Environments(np.random.default_rng(0).normal(size=(20, 4)), np.zeros(20, int))
        >>> Autoencoder(latents=2, steps=2, batch=8).fit(Source(data)).encode(data.inputs).shape
        (20, 2)
    """

    latents: int = 10
    beta: float = 1.0
    width: int = 128
    depth: int = 2
    architecture: Literal["auto", "keypoints"] = "auto"
    batch: int = 64
    steps: int = 10_000
    learning_rate: float = 5e-4

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        data = source.train
        x = seen_of(data)
        self._begin(x, run)
        take, rows = taker(self._seen(x)), order(len(x), run, self.batch)
        train(Descent(self.network_, self.loss, adam(self.learning_rate)), lambda step: take(rows(step)), run, steps=self.steps)
        self.model_, self.assumptions_ = None, []
        return self

    def loss(self, network: Any, x: Tensor) -> Tensor:
        """Return reconstruction + β KL, means over observations."""
        adapt = (lambda q: v.Gaussian(q.mean, torch.full_like(q.mean, -30.0))) if self.beta == 0 else None
        made = network(x, adapt)
        return self.reconstruction(made.logits, x) + (self.beta * v.kl_to_normal(made.posterior).mean() if self.beta else 0.0)

    def reconstruction(self, made: Tensor, x: Tensor) -> Tensor:
        """Return the Bernoulli cross-entropy summed over pixels; of vectors half the squared error."""
        return v.reconstruction_loss(made, x) if x.ndim > 2 else 0.5 * functional.mse_loss(made, x, reduction="sum") / len(x)

    def _begin(self, x: Any, run: Run) -> None:
        shape = [int(s) for s in np.shape(x)[1:]]
        self.center_, self.spread_ = scales(x)
        options: dict[str, Any] = {"architecture": self.architecture} if self.architecture != "auto" else {}
        self.network_ = seeded(run, lambda: build("autoencoder", shape=shape, head=False, latents=self.latents, width=self.width, depth=self.depth, **options))

    def _seen(self, x: Any) -> Any:
        return NetworkCodec(None, None, self.center_, self.spread_).seen(x)

    @property
    def codec_(self) -> NetworkCodec:
        """From observations to mean codes and back."""
        return NetworkCodec(v.MeanCode(self.network_), self.network_.decoder, self.center_, self.spread_, logits=self.center_ is None)


@dataclass
class WeakPairs(Autoencoder):
    """Ada-GVAE on pairs of observations that share an unknown, non-empty set of independent factors (Locatello et al. 2020).

    Of the latents of a pair those whose posteriors differ least are taken as shared and averaged. Identifies independent factors up to order and
    element-wise maps, where pairs change some of them and not always the same.

    L = ½ Σ rec + β ½ Σ KL(q̃ ‖ N(0, I)), rec summed over pixels.

    Args:
        latents, beta, width, depth, architecture, batch, steps, learning_rate: as for ``Autoencoder``; a batch holds half as many pairs.
        changes: how many latents change within each pair, where that is known; None: those at or above the threshold.
        product: average by the product of the posteriors (Ada-ML-VAE).

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(20, 2, 4)).astype(np.float32)
        >>> WeakPairs(latents=3, steps=2, batch=8).fit(Source(Pairs(x))).encode(x[:, 0]).shape
        (20, 3)
    """

    changes: int | None = None
    product: bool = False

    @property
    def accepts(self) -> type:
        return Pairs

    def refuses(self, source: Source[Any]) -> str | None:
        if self.batch % 2:
            return f"a batch of pairs holds an even number of observations, not {self.batch}"
        if self.changes is not None and not 0 < self.changes < self.latents:
            return f"changes must lie between 1 and {self.latents - 1}, one less than the latents, not {self.changes}"
        return None

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        if reason := self.refuses(source):
            raise UserError(reason)
        data = source.train
        self._begin(data.inputs[:, 0], run)
        shape = np.shape(data.inputs)
        both = self._seen(data.inputs.reshape(-1, *shape[2:])) if isinstance(data.inputs, np.ndarray) else data.inputs
        take, rows = taker(both), order(len(data), run, self.batch // 2)

        def draw(step: int) -> Tensor:
            at = rows(step)
            return take(torch.stack([2 * at, 2 * at + 1], 1).flatten())

        train(Descent(self.network_, self.loss, adam(self.learning_rate)), draw, run, steps=self.steps)
        self.model_ = None
        self._check(both, len(data))
        return self

    def loss(self, network: Any, x: Tensor) -> Tensor:
        made = network(x, lambda q: v.averaged_pairs(q, self.product, self.changes))
        return self.reconstruction(made.logits, x) + self.beta * v.kl_to_normal(made.posterior).mean()

    def _check(self, both: Any, pairs: int, most: int = 2000) -> None:
        """Record how far latents differ within pairs; warn where they differ in all or in none."""
        some = np.linspace(0, pairs - 1, min(most, pairs)).astype(int)
        at = np.stack([2 * some, 2 * some + 1], 1).ravel()
        q = in_batches(_Posterior(self.network_), both[at], Run(progress=False), output=None)
        mean, log_variance = (torch.from_numpy(p) for p in np.split(q, 2, axis=1))
        delta = v.changes(v.Gaussian(mean[0::2], log_variance[0::2]), v.Gaussian(mean[1::2], log_variance[1::2])).numpy()
        still = float((np.ptp(delta, axis=1) < SPREAD).mean())
        if still > 0.5:
            told = f"{still:.0%} of the pairs differ in all or in none of the latents (spread of their divergences below {SPREAD:g})"
            warnings.warn(f"{told}: such pairs teach nothing, or the code has collapsed (lower beta, train longer)", UserWarning, stacklevel=3)
        shared = v.shared_latents(v.Gaussian(mean[0::2], log_variance[0::2]), v.Gaussian(mean[1::2], log_variance[1::2]), self.changes).numpy().mean()
        self.assumptions_ = [
            assumed("pairs share some factors and change others", "failed" if still > 0.5 else "checked", f"{still:.0%} differ in all or in none; {shared:.0%} of latents shared"),
            assumed("factors are independent, and which change is not always the same", "untestable", "dependent factors are mixed"),
        ]


class _Posterior(torch.nn.Module):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(list(self.network.posterior(x)), 1)
