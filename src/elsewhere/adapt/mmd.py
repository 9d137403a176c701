"""MMD: features of all domains get the same distribution, by a sum of Gaussian kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from elsewhere.adapt.domains import DomainBatch, DomainLearner, features_by_domain, mean_over_pairs

WIDTHS = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)


@dataclass
class Mmd(DomainLearner):
    """Fit the labels while the kernel distance between the domains' features is kept small (Li et al. 2018; DomainBed's form).

    mean_e ℓ_e + γ mean over pairs of [E k(a, a') + E k(b, b') - 2 E k(a, b)], k = Σ exp(-γ' |·|²) over γ' = 10⁻³ … 10³.

    Args:
        weight: γ.
        unlabelled: also align the unlabelled domains that the task grants.
    """

    weight: float = 1.0
    unlabelled: bool = False
    aligns = True

    def objective(self, network: Any, batch: DomainBatch) -> Tensor:
        made, features = features_by_domain(network, batch)
        return self.by_domain(made, batch).mean() + self.weight * mean_over_pairs(features, kernel_distance)


def kernel_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the squared maximum mean discrepancy of features [m, d] and [n, d] under the sum of kernels.

    Examples:
        >>> x = torch.randn(5, 2)
        >>> abs(kernel_distance(x, x).item()) < 1e-5
        True
    """
    return kernel(a, a).mean() + kernel(b, b).mean() - 2 * kernel(a, b).mean()


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """Return Σ exp(-γ' |a_i - b_j|²): [m, n]."""
    square = (a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T).clamp(min=1e-30)
    return torch.stack([torch.exp(-width * square) for width in WIDTHS]).sum(0)
