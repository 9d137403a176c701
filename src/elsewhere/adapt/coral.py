"""CORAL: features of all domains get the same mean and covariance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from elsewhere.adapt.domains import DomainBatch, DomainLearner, features_by_domain, mean_over_pairs


@dataclass
class Coral(DomainLearner):
    """Fit the labels while means and covariances of the domains' features are kept equal (Sun & Saenko 2016; DomainBed's form).

    mean_e ℓ_e + γ mean over pairs of [mean (m_a - m_b)² + mean (C_a - C_b)²], covariances with divisor B - 1.

    Args:
        weight: γ.
        unlabelled: also align the unlabelled domains that the task grants.

    Examples:
        >>> import numpy as np
        >>> from elsewhere.data import Examples
        >>> from elsewhere.task import Source
        >>> data = Examples(np.eye(4), np.arange(4) % 2, {"domain": np.array(list("aabb"))}, ("even", "odd"))
        >>> Coral(steps=5).fit(Source(data)).represent(data).shape
        (4, 128)
    """

    weight: float = 1.0
    unlabelled: bool = False
    aligns = True

    def objective(self, network: Any, batch: DomainBatch) -> Tensor:
        made, features = features_by_domain(network, batch)
        return self.by_domain(made, batch).mean() + self.weight * mean_over_pairs(features, moment_distance)


def moment_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean squared difference of means plus that of covariances, of features [m, d] and [n, d].

    Examples:
        >>> import torch
        >>> moment_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [3.0]]))
        tensor(1.)
    """
    means = (a.mean(0) - b.mean(0)).square().mean()
    return means + (covariance(a) - covariance(b)).square().mean()


def covariance(x: Tensor) -> Tensor:
    """Return the covariance [d, d] of [n, d], divisor n - 1."""
    centred = x - x.mean(0)
    return centred.T @ centred / max(1, len(x) - 1)
