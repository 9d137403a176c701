"""CDANN, ADDA and MDD: the other adversaries that methods over a graph of domains are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from elsewhere.adapt.adversaries import Adversarial, codes
from elsewhere.adapt.domains import DomainBatch
from elsewhere.data import Examples
from elsewhere.nn.building import build
from elsewhere.task import Source


@dataclass
class Towards(Adversarial):
    """What methods share that are defined by unlabelled domains: they ask for them."""

    unlabelled: bool = True

    def refuses(self, source: Source[Examples]) -> str | None:
        if not source.unlabelled:
            return f"{type(self).__name__} needs unlabelled data of other domains"
        return super().refuses(source)


@dataclass
class Cdann(Adversarial):
    """DANN whose discriminator also sees the predicted classes, sigmoid(f) embedded by two layers and fixed (Long et al. 2018, as spec 08 has it)."""

    unlabelled: bool = True

    def opponent(self, width: int) -> nn.Module:
        return _Conditional(self.perceptron(2 * width, max(2, self.domains_)), self.classes_ or max(1, len(torch.as_tensor(self.label_mean_).reshape(-1))), width)

    def told(self, opponent: Any, made: Any, features: list[Tensor], batch: DomainBatch) -> Tensor:
        x, code = codes(features)
        # scores of all domains: those of the unlabelled ones are the head's on their features
        scores = self.head(x).detach()
        return cross_entropy(opponent(x, scores), code)

    def head(self, x: Tensor) -> Tensor:
        """Return the network's scores of features [n, width]."""
        made: Tensor = self.network_.head(x)
        return made


class _Conditional(nn.Module):
    """A discriminator of features and of embedded scores."""

    def __init__(self, inner: nn.Module, scores: int, width: int) -> None:
        super().__init__()
        self.inner = inner
        self.embed = nn.Sequential(nn.Linear(scores, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        made: Tensor = self.inner(torch.cat([x, self.embed(scores.sigmoid())], 1)).logits
        return made


@dataclass
class Adda(Towards):
    """A discriminator of source against unlabelled domains; the network makes the latter look like the former (Tzeng et al. 2017, on one shared encoder).

    D minimises -log D(source) - log(1 - D(unlabelled)), the network ℓ - λ log D(unlabelled).
    """

    def opponent(self, width: int) -> nn.Module:
        return self.perceptron(width, 1)

    def told(self, opponent: Any, made: Any, features: list[Tensor], batch: DomainBatch) -> Tensor:
        here, there = self._logits(opponent, features, batch)
        return softplus(-here).mean() + softplus(there).mean()

    def against(self, opponent: Any, made: Any, features: list[Tensor], batch: DomainBatch) -> Tensor:
        return self.weight * softplus(-self._logits(opponent, features, batch)[1]).mean()

    def _logits(self, opponent: Any, features: list[Tensor], batch: DomainBatch) -> tuple[Tensor, Tensor]:
        count = int(batch.domain.max()) + 1
        return tuple(opponent(torch.cat(part)).logits[:, 0] for part in (features[:count], features[count:]))


@dataclass
class Mdd(Towards):
    """A second predictor agrees with the first on the source and disagrees elsewhere; features that leave it no room win (Zhang et al. 2019, as spec 08 has it).

    F' minimises (NLL_source(F' = F) + NLL_elsewhere of 1 - p(F' = F)) / 2, the network ℓ - λ of it. Numbers: p = exp(-|F' - F|²), which makes
    the first term a squared difference.
    """

    def opponent(self, width: int) -> nn.Module:
        outputs = self.classes_ or max(1, len(torch.as_tensor(self.label_mean_).reshape(-1)))
        return build("mlp", shape=[width], classes=outputs, width=self.discriminator_width, depth=2)

    def told(self, opponent: Any, made: Any, features: list[Tensor], batch: DomainBatch) -> Tensor:
        count = int(batch.domain.max()) + 1
        here, there = torch.cat(features[:count]), torch.cat(features[count:])
        return (self._disagreement(opponent, here) + self._agreement(opponent, there)) / 2

    def _disagreement(self, opponent: Any, x: Tensor) -> Tensor:
        """Return the mean of -log p(F' = F)."""
        first = self.network_.head(x).detach()
        second = opponent(x).logits
        if self.classes_ is not None:
            return cross_entropy(second, first.argmax(1))
        return (second - first).square().mean()

    def _agreement(self, opponent: Any, x: Tensor) -> Tensor:
        """Return the mean of -log(1 - p(F' = F))."""
        first = self.network_.head(x).detach()
        second = opponent(x).logits
        log_p = second.log_softmax(1).gather(1, first.argmax(1)[:, None])[:, 0] if self.classes_ is not None else -(second - first).square().mean(1)
        return -torch.log(-torch.expm1(log_p.clamp(max=-1e-6))).mean()
