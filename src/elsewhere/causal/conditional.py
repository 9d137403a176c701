"""The black box: a network from what is done to a normal distribution of x."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from elsewhere.batching import order
from elsewhere.causal.data import Environments
from elsewhere.data import Array
from elsewhere.nn.building import build
from elsewhere.nn.learners import seeded
from elsewhere.run import Run
from elsewhere.training import Descent, adam, cosine, train

SMALLEST = 1e-9  # of the largest variance: directions with less do not vary


class MeanAndFactor(nn.Module):
    """What is done [b, m] -> mean [b, d] and Cholesky factor [b, d, d] of the covariance."""

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.mean, self.factor = nn.Linear(width, outputs), nn.Linear(width, outputs * (outputs + 1) // 2)
        self.outputs = outputs

    def forward(self, done: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(done)
        rows, columns = torch.tril_indices(self.outputs, self.outputs, device=h.device)
        lower = h.new_zeros(len(h), self.outputs, self.outputs)
        lower[:, rows, columns] = self.factor(h)
        diagonal = torch.diagonal(lower, dim1=1, dim2=2)
        return self.mean(h), lower - torch.diag_embed(diagonal) + torch.diag_embed(nn.functional.softplus(diagonal) + 1e-3)


class Seen(NamedTuple):
    x: Tensor
    done: Tensor


def conditional_gaussian(shape: Sequence[int], outputs: int, width: int = 64) -> MeanAndFactor:
    """Build the network for vectors that say what is done."""
    return MeanAndFactor(int(shape[0]), outputs, width)


def negative_log_likelihood(network: Any, batch: Seen) -> Tensor:
    """Return the mean of -ln N(x; mean, L Lᵀ)."""
    mean, lower = network(batch.done)
    white = torch.linalg.solve_triangular(lower, (batch.x - mean)[:, :, None], upper=False)[:, :, 0]
    log_det = torch.diagonal(lower, dim1=1, dim2=2).log().sum(1)
    return (0.5 * white.square().sum(1) + log_det + 0.5 * math.log(2 * math.pi) * batch.x.shape[1]).mean()


def fit_conditional(data: Environments, width: int, steps: int, batch: int, learning_rate: float, run: Run) -> tuple[Any, Array, Array]:
    """Fit the network on whitened x, in the directions in which x varies at all; return it with the center [d] and the way back [d, directions]."""
    flat = np.asarray(data.inputs, float).reshape(len(data), -1)
    center = flat.mean(0)
    values, vectors = np.linalg.eigh(np.cov((flat - center).T).reshape(flat.shape[1], -1))
    kept = values > SMALLEST * values[-1]
    back = vectors[:, kept] * np.sqrt(values[kept])
    x = torch.as_tensor((flat - center) @ (vectors[:, kept] / np.sqrt(values[kept])), dtype=torch.float32)
    one_hot = torch.eye(len(data.names))[:, 1:]
    done, rows = one_hot[torch.as_tensor(np.asarray(data.environment, np.int64))], order(len(data), run, batch)
    network = seeded(run, lambda: build("conditional-gaussian", shape=[len(data.names) - 1], head=False, outputs=x.shape[1], width=width))
    draw: Callable[[int], Seen] = lambda step: Seen(x[rows(step)], done[rows(step)])  # noqa: E731
    train(Descent(network, negative_log_likelihood, adam(learning_rate), cosine(steps), clip=10.0), draw, run, steps=steps)
    return network, center, back
