"""Scores of latents that are far from normal, by sliced score matching (Song et al. 2019; spec 05, A.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elsewhere.batching import order
from elsewhere.causal.linear import Scores
from elsewhere.data import Array
from elsewhere.nn.learners import seeded
from elsewhere.run import Run
from elsewhere.training import Descent, adam, train

EPOCHS, BATCH, SLICES, WIDTH = 20, 512, 2, 64


def score_network(n: int) -> nn.Module:
    """Return the network n → 64 → 64 → n with tanh that gives ∇ log p."""
    return nn.Sequential(nn.Linear(n, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, n))


def sliced_loss(network: Any, x: Tensor) -> Tensor:
    """Return mean over slices v of vᵀ ∇(vᵀ s(x)) + ½ (vᵀ s(x))², v normal."""
    x = x.detach().requires_grad_(True)
    total = x.new_zeros(())
    for _ in range(SLICES):
        v = torch.randn_like(x)
        along = (network(x) * v).sum(1)
        (slope,) = torch.autograd.grad(along.sum(), x, create_graph=True)
        total = total + ((slope * v).sum(1) + 0.5 * along.square()).mean()
    return total / SLICES


def fit_score(x: Array, run: Run) -> Any:
    """Fit the score of standardised rows x [N, n]; returns a function rows -> scores [N, n] in the units of x."""
    spread, center = x.std(0), x.mean(0)
    seen = torch.as_tensor((x - center) / spread, dtype=torch.float32)
    network = seeded(run, lambda: score_network(x.shape[1]))
    rows = order(len(seen), run, min(BATCH, len(seen)))
    steps = EPOCHS * max(1, len(seen) // BATCH)
    train(Descent(network, sliced_loss, adam(1e-3, betas=(0.5, 0.999))), lambda step: seen[rows(step)], run, steps=steps)

    def score(z: Array) -> Array:
        with torch.no_grad():
            return network(torch.as_tensor((z - center) / spread, dtype=torch.float32)).numpy().astype(float) / spread

    return score


def score_differences(s: Scores, each: Sequence[Array], run: Run) -> Scores:
    """Return the scores with R_m replaced by the mean outer product of the difference of learnt scores under environment 0."""
    found = [fit_score(x, replace(run, seed=run.seed * 1000 + k, trial="")) for k, x in enumerate(each)]
    zero = each[0]
    base = found[0](zero)
    steps = [f(zero) - base for f in found[1:]]
    return replace(s, differences=np.stack([d.T @ d / len(d) for d in steps]))
