"""Empirical risk minimisation over domains: the bar for every other method here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from elsewhere.adapt.domains import DomainBatch, DomainLearner
from elsewhere.data import Examples
from elsewhere.task import Source


@dataclass
class Erm(DomainLearner):
    """The mean loss over examples, as many of each domain in every step (Vapnik 1998; ERM of Gulrajani & Lopez-Paz 2021).

    Examples:
        >>> import numpy as np
        >>> data = Examples(np.eye(4), np.arange(4) % 2, {"domain": np.array(list("aabb"))}, ("even", "odd"))
        >>> Erm(steps=5).fit(Source(data)).predict(data).classes().shape
        (4,)
    """

    def refuses(self, source: Source[Examples]) -> str | None:
        return None  # one domain is enough

    def objective(self, network: Any, batch: DomainBatch) -> Tensor:
        return self.by_domain(network(batch.inputs), batch).mean()
