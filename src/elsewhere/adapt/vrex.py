"""V-REx: the risk shall be the same in every domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from elsewhere.adapt.domains import DomainBatch, Penalised


@dataclass
class VRex(Penalised):
    """mean_e ℓ_e + λ · population variance of ℓ_e over domains (Krueger et al. 2021).

    Args:
        weight: λ after the warm-up; 1 before.
        warm_up: steps; the optimiser begins anew after them.
    """

    weight: float = 10.0

    def both(self, network: Any, batch: DomainBatch) -> tuple[Tensor, Tensor]:
        """Return the mean and the variance of the domains' losses."""
        losses = self.by_domain(network(batch.inputs), batch)
        return losses.mean(), losses.var(correction=0)
