"""DANN: features from which a discriminator cannot tell the domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from elsewhere.adapt.domains import DomainBatch, DomainLearner, features_by_domain
from elsewhere.errors import UserError
from elsewhere.nn.building import build, width_of
from elsewhere.optimisers import adam


@dataclass
class Dann(DomainLearner):
    """The network minimises mean_e ℓ_e - λ · discriminator loss, the discriminator its own loss, step by step (Ganin et al. 2016; DomainBed's alternating form).

    Args:
        weight: λ.
        discriminator_rate: learning rate of the discriminator, a perceptron of 2 hidden layers of 256.
        unlabelled: also align the unlabelled domains that the task grants.
    """

    weight: float = 1.0
    discriminator_rate: float = 1e-3
    unlabelled: bool = False
    aligns = True

    def stepper(self, optimizer: Any) -> Any:
        if self.average is not None:
            raise UserError("dann keeps no average of its weights: leave average away")
        width = width_of(self.network_.body)
        discriminator = build("mlp", shape=[width], classes=max(2, self.domains_), width=256, depth=2)
        return Adversaries(self, self.network_, discriminator, adam(self.learning_rate, self.weight_decay, (0.5, 0.9)), adam(self.discriminator_rate, betas=(0.5, 0.9)))


class Adversaries:
    """Both steps on one batch: the discriminator on fixed features, then the network against it."""

    def __init__(self, learner: Dann, network: nn.Module, discriminator: nn.Module, optimizer: Any, against: Any) -> None:
        self.learner, self.network, self.discriminator = learner, network, discriminator
        self.optimiser, self.against = optimizer(list(network.parameters())), against(list(discriminator.parameters()))
        make = learner.scheduler()
        self.schedule = None if make is None else make(self.optimiser)

    def parts(self) -> Mapping[str, Any]:
        named = {"network": self.network, "discriminator": self.discriminator, "optimiser": self.optimiser, "against": self.against, "schedule": self.schedule}
        return {k: v for k, v in named.items() if v is not None}

    def step(self, batch: DomainBatch, backward: Any) -> Mapping[str, Any]:
        made, features = features_by_domain(self.network, batch)
        told = self._told(features, detach=True)
        self.against.zero_grad()
        backward(told)
        self.against.step()
        labelled = self.learner.by_domain(made, batch).mean()
        self.optimiser.zero_grad()
        backward(labelled - self.learner.weight * self._told(features, detach=False))
        if self.learner.clip is not None:
            backward.clip(self.network, self.optimiser, self.learner.clip)
        self.optimiser.step()
        if self.schedule is not None:
            self.schedule.step()
        return {"loss": labelled.detach(), "discriminator loss": told.detach()}

    def _told(self, features: list[Tensor], detach: bool) -> Tensor:
        """Return how badly the discriminator tells the domains."""
        x = torch.cat(features)
        code = torch.cat([torch.full((len(f),), e, device=x.device) for e, f in enumerate(features)])
        return cross_entropy(self.discriminator(x.detach() if detach else x).logits, code)
