"""GroupDRO: the domain with the largest loss weighs most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elsewhere.adapt.domains import DomainBatch, DomainLearner
from elsewhere.training import Descent


@dataclass
class GroupDro(DomainLearner):
    """Σ q_e ℓ_e with q_e ← q_e exp(η ℓ_e), normalised, without gradient (Sagawa et al. 2020).

    Args:
        rate: η.
    """

    rate: float = 0.01

    def stepper(self, optimizer: Any) -> Any:
        return _Weighted(self, optimizer)


class _Weighted(Descent):
    def __init__(self, learner: GroupDro, optimizer: Any) -> None:
        self.weights = DomainWeights(learner.rate)
        options = {"schedule": learner.scheduler(), "clip": learner.clip, "average": learner.average}
        super().__init__(learner.network_, lambda network, batch: self._loss(learner, network, batch), optimizer, **options)

    def parts(self) -> Any:
        return {**super().parts(), "weights": self.weights}

    def _loss(self, learner: GroupDro, network: Any, batch: DomainBatch) -> Tensor:
        losses = learner.by_domain(network(batch.inputs), batch)
        return (self.weights.update(losses.detach()) * losses).sum()


class DomainWeights:
    """The weights q of the domains, kept in checkpoints.

    Examples:
        >>> DomainWeights(1.0).update(torch.tensor([0.0, 0.6931472])).round(decimals=4)  # 1 : 2
        tensor([0.3333, 0.6667])
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.q: Tensor | None = None

    def update(self, losses: Tensor) -> Tensor:
        q = torch.ones_like(losses) / len(losses) if self.q is None else self.q.to(losses.device)
        q = q * (self.rate * losses).exp()
        self.q = q / q.sum()
        return self.q

    def state_dict(self) -> dict[str, Any]:
        return {} if self.q is None else {"q": self.q}

    def load_state_dict(self, state: Any) -> None:
        self.q = state.get("q")
