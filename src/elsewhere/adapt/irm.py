"""Invariant risk minimisation: one head shall be optimal in every domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elsewhere.adapt.domains import DomainBatch, Penalised, parted
from elsewhere.nn.learners import first_of


@dataclass
class Irm(Penalised):
    """mean_e ℓ_e + λ mean_e P_e, P_e the product of two halves' gradients of the loss by a scale of the logits, at 1 (Arjovsky et al. 2019, IRMv1, unbiased).

    Args:
        weight: λ after the warm-up; 1 before.
        warm_up: steps; the optimiser begins anew after them.
    """

    weight: float = 100.0

    def both(self, network: Any, batch: DomainBatch) -> tuple[Tensor, Tensor]:
        """Return the mean loss over domains and the mean penalty."""
        made = first_of(network(batch.inputs))
        scale = torch.ones((), device=made.device, requires_grad=True)
        each = self.losses(made * scale, batch)  # type: ignore[arg-type]
        parts = parted(each, batch.domain)
        penalty = torch.stack([invariance_penalty(part, scale) for part in parts]).mean()
        return torch.stack([part.mean() for part in parts]).mean(), penalty


def invariance_penalty(losses: Tensor, scale: Tensor) -> Tensor:
    """Return ∂ mean(even losses)/∂s · ∂ mean(odd losses)/∂s: an unbiased estimate of the squared gradient.

    Args:
        losses: [n] of one domain, functions of ``scale``.
        scale: the scalar that multiplies the logits.

    Examples:
        >>> s = torch.ones((), requires_grad=True)
        >>> invariance_penalty(s * torch.tensor([1.0, 2.0, 3.0, 4.0]), s).item()  # (1 + 3)/2 · (2 + 4)/2
        6.0
    """
    (even,) = torch.autograd.grad(losses[0::2].mean(), scale, create_graph=True)
    (odd,) = torch.autograd.grad(losses[1::2].mean(), scale, create_graph=True)
    return even * odd
