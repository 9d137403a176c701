"""DANN: features from which a discriminator cannot tell the domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from elsewhere.adapt.adversaries import Adversarial, codes
from elsewhere.adapt.domains import DomainBatch


@dataclass
class Dann(Adversarial):
    """The network minimises mean_e ℓ_e - λ · discriminator loss, the discriminator its own loss, step by step (Ganin et al. 2016; DomainBed's alternating form).

    Args:
        weight: λ.
        discriminator_rate: learning rate of the discriminator, a perceptron of 2 hidden layers of 256.
        unlabelled: also align the unlabelled domains that the task grants.
    """

    revision = 2  # the discriminator's rate follows the schedule too

    def opponent(self, width: int) -> nn.Module:
        return self.perceptron(width, max(2, self.domains_))

    def told(self, opponent: Any, made: Any, features: list[Tensor], batch: DomainBatch) -> Tensor:
        x, code = codes(features)
        return cross_entropy(opponent(x).logits, code)
