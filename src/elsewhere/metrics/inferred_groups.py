"""Groups that nobody named: the split of the examples that disagrees most on how the logits should be scaled, in closed form."""

from __future__ import annotations

from typing import Literal

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.errors import Undefined
from elsewhere.metrics.groups import demographic_disparity
from elsewhere.metrics.weighting import weights
from elsewhere.prediction import ClassPrediction
from elsewhere.task import Estimate, Metric


def scale_gradient(logits: Array, labels: Array) -> Array:
    """Return g_i = ∂ cross-entropy(s · logits_i) / ∂s at s = 1: the model's own expected logit minus that of the label [n].

    Examples:
        >>> scale_gradient(np.array([[0.0, 2.0]]), np.array([0])).round(3)
        array([1.762])
    """
    from scipy.special import softmax

    z = np.asarray(logits, float)
    return np.asarray((softmax(z, axis=1) * z).sum(1) - z[np.arange(len(z)), labels])


def inferred_groups(logits: Array, labels: Array, solver: Literal["closed-form", "adam"] = "closed-form", steps: int = 10_000, seed: int = 0) -> Array:
    """Return the group of each example [n], False or True: whether its label's logit lies below what the model expects.

    Creager et al. 2021 (EIIL) seek the soft split w that maximises ½ [(mean w g)² + (mean (1 - w) g)²] by 10,000 steps of
    gradient ascent. The objective is convex in mean(w g), so its maximum lies at an end of that mean's range, w = 1[g > 0]
    or its complement, which are the same split: one line instead.

    Args:
        logits: [n, classes].
        labels: [n].
        solver: "adam" is the reference's search, for comparison; examples with g near 0 stay on the side they were drawn on.
        steps, seed: of that search.
    """
    g = scale_gradient(logits, labels)
    return np.asarray(g > 0) if solver == "closed-form" else _searched(g, steps, seed)


def _searched(g: Array, steps: int, seed: int) -> Array:
    import torch

    gradient = torch.as_tensor(g, dtype=torch.float64)
    a = torch.randn(len(g), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.Adam([a], lr=1e-3)
    for _ in range(steps):
        w = a.sigmoid()
        optimiser.zero_grad()
        (-0.5 * ((w * gradient).mean().square() + ((1 - w) * gradient).mean().square())).backward()
        optimiser.step()
    return (a.detach().sigmoid() > 0.5).numpy()


def _inferred_disparity(prediction: ClassPrediction, data: Examples) -> Estimate:
    logits = prediction.logits if prediction.logits is not None else prediction.log_probabilities()
    if len(logits) < 2:
        raise Undefined("fewer than 2 examples")
    group = inferred_groups(logits, np.asarray(data.labels))
    if group.all() or not group.any():
        return Estimate(0.0)
    return demographic_disparity(prediction.classes(), group, weights(data))


INFERRED_DISPARITY = Metric("inferred_disparity", _inferred_disparity, False, range=(0, 1))
