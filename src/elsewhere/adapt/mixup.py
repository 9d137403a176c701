"""Mixup between domains: examples of two domains are mixed, and so are their losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elsewhere.adapt.domains import DomainBatch, DomainLearner


@dataclass
class Mixup(DomainLearner):
    """Domains in random cyclic order; each is mixed with the next by one λ ~ Beta(α, α), loss λ ℓ(y_i) + (1 - λ) ℓ(y_j) (Zhang et al. 2018; Yan et al. 2020).

    Args:
        alpha: of the Beta distribution.
    """

    alpha: float = 0.2

    def objective(self, network: Any, batch: DomainBatch) -> Tensor:
        domains = int(batch.domain.max()) + 1
        ring = torch.randperm(domains)
        share = torch.distributions.Beta(self.alpha, self.alpha).sample((domains,))
        losses = []
        for k in range(domains):
            first, second = (batch.domain == ring[k]), (batch.domain == ring[(k + 1) % domains])
            mixed = network(share[k] * batch.inputs[first] + (1 - share[k]) * batch.inputs[second])
            a, b = (self.losses(mixed, part(batch, rows)).mean() for rows in (first, second))  # type: ignore[arg-type]
            losses.append(share[k] * a + (1 - share[k]) * b)
        return torch.stack(losses).mean()


def part(batch: DomainBatch, rows: Tensor) -> DomainBatch:
    """Return the labelled examples at rows [b], a mask."""
    return DomainBatch(batch.inputs[rows], batch.labels[rows], None if batch.weight is None else batch.weight[rows], batch.domain[rows])
