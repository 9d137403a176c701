"""iVAE: latents that are independent given a label (spec 05, G): the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from elsewhere.batching import in_batches, order
from elsewhere.causal.binary_interactions import log_normal
from elsewhere.causal.codecs import scales, standardised
from elsewhere.causal.data import Environments
from elsewhere.causal.learning import CausalLearner, assumed
from elsewhere.causal.questions import Interventions
from elsewhere.data import Array
from elsewhere.nn.building import build
from elsewhere.nn.learners import seeded
from elsewhere.nn.variational import Gaussian
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.training import Descent, adam, train


class Labelled(NamedTuple):
    x: Tensor
    u: Tensor


def negative_bound(network: Any, batch: Labelled) -> Tensor:
    """Return the mean of -ln p(x | z) - ln p(z | u) + ln q(z | x, u), z drawn from q (Khemakhem et al. 2020)."""
    q = network.posterior(batch.x, batch.u)
    z = q.sample()
    made = network.decoder(z)
    likelihood = log_normal(batch.x, Gaussian(made, network.log_variance.expand_as(made)))
    return (log_normal(z, q) - log_normal(z, network.given(batch.u)) - likelihood).mean()


@dataclass
class IdentifiableVae(CausalLearner[Environments]):
    """A variational autoencoder whose prior depends on the environment (Khemakhem et al. 2020).

    Assumes latents that are independent given the environment, from exponential families, and enough environments (2n + 1 for n latents); identifies them
    element-wise up to a linear map. It finds no graph.

    Args:
        latents: how many; default: one an environment in which something was done.
        width, depth: of the perceptrons.
        learn_variance: of the decoder, which is e⁻¹⁰ otherwise.
        epochs, batch, learning_rate: of Adam.

    Examples:
        >>> from elsewhere.causal.worlds import nonlinear_world
        >>> data = nonlinear_world(2, d=4).environments(40, np.random.default_rng(0))
        >>> IdentifiableVae(width=8, depth=1, epochs=1).fit(Source(data)).represent(data).shape
        (120, 2)
    """

    answers: ClassVar[tuple[type, ...]] = (Interventions,)
    no_graph: ClassVar[str] = "it finds latents that are independent given the environment, and no graph"

    latents: int | None = None
    width: int = 512
    depth: int = 6
    learn_variance: bool = False
    epochs: int = 100
    batch: int = 1024
    learning_rate: float = 1e-4

    @property
    def accepts(self) -> type:
        return Environments

    def fit(self, source: Source[Environments], run: Run = Run()) -> Self:
        data = source.train
        n = self.latents or len(data.names) - 1
        self.names_ = [str(k) for k in data.names]
        flat = np.asarray(data.inputs, float).reshape(len(data), -1)
        self.center_, self.spread_ = scales(flat)
        x = torch.as_tensor(standardised(flat, self.center_, self.spread_))
        u = torch.eye(len(data.names))[torch.as_tensor(np.asarray(data.environment, np.int64))]
        options: dict[str, Any] = {"environments": len(data.names), "latents": n, "width": self.width, "depth": self.depth, "learn_variance": self.learn_variance}
        self.network_ = seeded(run, lambda: build("identifiable-vae", shape=[x.shape[1]], head=False, **options))
        size = min(self.batch, len(x))
        rows = order(len(x), run, size)
        train(Descent(self.network_, negative_bound, adam(self.learning_rate), clip=100.0), lambda step: Labelled(x[rows(step)], u[rows(step)]), run, steps=self.epochs * max(1, len(x) // size))
        self.model_ = None
        enough = len(data.names) >= 2 * n + 1
        self.assumptions_ = [
            assumed("enough environments: 2 n + 1", "checked" if enough else "failed", f"{len(data.names)} environments for {n} latents"),
            assumed("latents are independent given the environment", "untestable", "a graph between latents breaks it"),
        ]
        return self

    def represent(self, data: Any, run: Run = Run()) -> Array:
        """Return the mean codes [N, latents] of observations in their environments; observations without one count as observational."""
        x = np.asarray(data.inputs, float).reshape(len(data), -1)
        codes = np.zeros(len(x), int)
        if isinstance(data, Environments):
            known = {name: k for k, name in enumerate(self.names_)}
            codes = np.array([known.get(str(n), 0) for n in data.names])[np.asarray(data.environment)]
        both = np.concatenate([standardised(x, self.center_, self.spread_), np.eye(len(self.names_), dtype=np.float32)[codes]], axis=1)
        return in_batches(self.network_, both, run, output=None).astype(float)

    def encode(self, x: Any) -> Array:
        """Return the mean codes of observations as if they were observational."""
        return self.represent(Environments(np.asarray(x), np.zeros(len(x), int), tuple(self.names_[:1])))
