"""What adversarial methods share: an opponent that reads the features, and the two steps on one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from elsewhere.adapt.domains import DomainBatch, DomainLearner, features_by_domain
from elsewhere.errors import UserError
from elsewhere.nn.building import build, width_of
from elsewhere.optimisers import adam


@dataclass
class Adversarial(DomainLearner):
    """A network against an opponent, step by step on one batch: the opponent on fixed features, then the network against the new opponent.

    A subclass writes ``opponent`` (a module), ``told`` (the loss it minimises) and, where that is not -weight · told, ``against``.

    Args:
        weight: λ, of what the network does against the opponent.
        discriminator_rate: learning rate of the opponent.
        discriminator_width: of its hidden layers.
        discriminator_depth: how many.
        betas: of both Adams.
        unlabelled: also use the unlabelled domains that the task grants.
    """

    weight: float = 1.0
    discriminator_rate: float = 1e-3
    discriminator_width: int = 256
    discriminator_depth: int = 2
    betas: tuple[float, float] = (0.5, 0.9)
    unlabelled: bool = False
    aligns = True

    def opponent(self, width: int) -> nn.Module:
        """Return the opponent for features of a width; called with torch's randomness seeded."""
        raise NotImplementedError(f"{type(self).__name__} has no opponent")

    def told(self, opponent: Any, made: Any, features: list[Tensor], batch: DomainBatch) -> Tensor:
        """Return the loss that the opponent minimises; ``features`` [b, width] of each domain, those of the source first."""
        raise NotImplementedError(f"{type(self).__name__} has no loss of its opponent")

    def against(self, opponent: Any, made: Any, features: list[Tensor], batch: DomainBatch) -> Tensor:
        """Return what the network minimises beside the loss of the labels."""
        return -self.weight * self.told(opponent, made, features, batch)

    def perceptron(self, width: int, outputs: int) -> nn.Module:
        """Return a discriminator: so many hidden layers and ``outputs`` numbers."""
        made: nn.Module = build("mlp", shape=[width], classes=outputs, width=self.discriminator_width, depth=self.discriminator_depth)
        return made

    def objective(self, network: Any, batch: DomainBatch) -> Tensor:
        return self.by_domain(network(batch.inputs), batch).mean()

    def stepper(self, optimizer: Callable[[Any], Any]) -> Any:
        if self.average is not None:
            raise UserError(f"{type(self).__name__} keeps no average of its weights: leave average away")
        if self.weight == 0:  # nobody to play against: the loss of the labels alone, to the bit
            return super().stepper(self._adam(self.learning_rate, self.weight_decay))
        self.adversary: Any = self.opponent(width_of(self.network_.body))
        return Adversaries(self, self.network_, self.adversary, self._adam(self.learning_rate, self.weight_decay), self._adam(self.discriminator_rate))

    def _adam(self, rate: float, decay: float = 0.0) -> Callable[[Any], Any]:
        return adam(rate, decay, (float(self.betas[0]), float(self.betas[1])))

    def moved(self, step: int, value: float) -> None:
        """Called with the opponent's loss after each step; a method may warn here."""


class Adversaries:
    """Both steps on one batch; the opponent's gradient is that of its own loss and of nothing else."""

    def __init__(self, learner: Adversarial, network: nn.Module, discriminator: nn.Module, optimizer: Any, against: Any) -> None:
        self.learner, self.network, self.discriminator = learner, network, discriminator
        self.optimiser, self.against = optimizer(list(network.parameters())), against(list(discriminator.parameters()))
        make = learner.scheduler()
        self.schedule: Any = None if make is None else make(self.optimiser)
        self.falling: Any = None if make is None else make(self.against)
        self.done = 0

    def parts(self) -> Mapping[str, Any]:
        named = {"network": self.network, "discriminator": self.discriminator, "optimiser": self.optimiser, "against": self.against, "schedule": self.schedule, "falling": self.falling}
        return {k: v for k, v in named.items() if v is not None}

    def step(self, batch: DomainBatch, backward: Any) -> Mapping[str, Any]:
        made, features = features_by_domain(self.network, batch)
        fixed = type(made)(*(t.detach() for t in made))
        told = self.learner.told(self.discriminator, fixed, [f.detach() for f in features], batch)
        self.against.zero_grad()
        backward(told)
        self.against.step()
        labelled = self.learner.by_domain(made, batch).mean()
        self.optimiser.zero_grad()
        with _fixed(self.discriminator):  # the updated opponent judges, and learns nothing from it
            backward(labelled + self.learner.against(self.discriminator, made, features, batch))
        if self.learner.clip is not None:
            backward.clip(self.network, self.optimiser, self.learner.clip)
        self.optimiser.step()
        for schedule in (self.schedule, self.falling):
            if schedule is not None:
                schedule.step()
        self.done += 1
        if self.done <= math.ceil(0.1 * self.learner.steps):
            self.learner.moved(self.done, float(told.detach()))
        return {"loss": labelled.detach(), "discriminator loss": told.detach()}


@contextmanager
def _fixed(module: nn.Module) -> Iterator[None]:
    """Keep gradients from a module's weights."""
    for p in module.parameters():
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in module.parameters():
            p.requires_grad_(True)


def codes(features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return features of all domains [n, width] and the code of each one's domain [n]."""
    x = torch.cat(features)
    return x, torch.cat([torch.full((len(f),), e, device=x.device) for e, f in enumerate(features)])
