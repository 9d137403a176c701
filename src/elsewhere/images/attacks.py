"""Accuracy under attack: auto-PGD with the difference-of-logits-ratio loss, on batches of tensors (Croce & Hein 2020; spec 01, 2.3.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from elsewhere.batching import as_tensor
from elsewhere.data import Array, Examples
from elsewhere.errors import Undefined
from elsewhere.task import Metric

RADII = (0.005, 0.05, 0.1, 0.15, 0.3, 0.5)  # of 255, in units of pixels in 0..1: before any standardisation
MOST = 1000
BLOCK = 256


def adversarial(radii: Sequence[float] = RADII, steps: int = 100, most: int = MOST) -> Metric:
    """Return the metric ``adversarial``: accuracy under ℓ∞ attack on the first ``most`` examples, mean over radii, and at each (``adversarial/0.1``).

    Undefined for learners that give no gradients, and for tables.
    """

    def measure(fitted: Any, data: Examples) -> Mapping[str, Array]:
        if not hasattr(fitted, "outputs") or data.classes is None:
            raise Undefined("only networks that classify can be attacked")
        if np.ndim(data.inputs) != 4:
            raise Undefined("the inputs are no pictures")
        device = next(fitted.network_.parameters()).device
        x, y = as_tensor(data.inputs[:most]), torch.as_tensor(np.asarray(data.labels[:most])).long()  # type: ignore[index]
        held = robust(lambda t: fitted.outputs(t.to(device)).to(t.device), x, y, radii, steps)
        told = {f"{r:g}": _padded(held[k], len(data)) for k, r in enumerate(radii)}
        return {"": _padded(held.mean(0), len(data)), **told}

    return Metric("adversarial", measure, of="learner", range=(0, 1))


def _padded(values: Array, n: int) -> Array:
    return np.concatenate([values, np.full(n - len(values), np.nan)])


def robust(outputs: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, radii: Sequence[float], steps: int = 100, seed: int = 0) -> Array:
    """Return [radii, n]: 1.0 where no attack within the radius (of 255) changes the class to a wrong one.

    A larger ball holds the smaller one, so that only what withstood the last radius is attacked at the next.
    """
    order = np.argsort(radii)
    held = np.zeros((len(radii), len(x)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for start in range(0, len(x), BLOCK):
            part = slice(start, start + BLOCK)
            left = torch.arange(len(x[part]))
            with torch.no_grad():
                left = left[outputs(x[part]).argmax(1) == y[part]]
            for k in order:
                if len(left):
                    stands = auto_pgd(outputs, x[part][left], y[part][left], radii[k] / 255, steps)
                    left = left[stands]
                held[k, start + left.numpy()] = 1.0
    return held


def dlr_loss(z: Tensor, y: Tensor) -> Tensor:
    """Return -(z_y - max_{i≠y} z_i) / (z_π1 - z_π3) [n], at least 3 classes: the same for scaled logits.

    Examples:
        >>> dlr_loss(torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([0]))
        tensor([-0.6667])
    """
    top = z.sort(1, descending=True).values
    own = z.gather(1, y[:, None])[:, 0]
    other = torch.where(z.argmax(1) == y, top[:, 1], top[:, 0])
    return -(own - other) / (top[:, 0] - top[:, 2] + 1e-12)


def checkpoints(steps: int) -> list[int]:
    """Return the steps at which the step size may be halved: ⌈p_j N⌉, p = 0, .22, p_j + max(p_j - p_{j-1} - .03, .06).

    Examples:
        >>> checkpoints(100)[:5]
        [0, 22, 41, 57, 70]
    """
    p = [0.0, 0.22]
    while p[-1] < 1:
        p.append(p[-1] + max(p[-1] - p[-2] - 0.03, 0.06))
    return [math.ceil(round(v * steps, 9)) for v in p if v <= 1]


def auto_pgd(outputs: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, radius: float, steps: int = 100, loss: Literal["dlr", "cross-entropy", "auto"] = "auto") -> Tensor:
    """Return which examples [n] keep their class under one run of auto-PGD in the ℓ∞ ball: no step size to choose.

    Args:
        outputs: x -> logits, with gradients.
        x: [n, …] in 0..1, rightly classified.
        y: [n] labels.
        radius: in units of x.
        steps: of the attack.
        loss: "auto" is dlr, or cross-entropy for 2 classes.
    """
    stands = torch.ones(len(x), dtype=torch.bool)
    low, high = (x - radius).clamp(min=0), (x + radius).clamp(max=1)

    def judged(at: Tensor) -> tuple[Tensor, Tensor]:
        at = at.detach().requires_grad_()
        z = outputs(at)
        each = cross_entropy(z, y, reduction="none") if loss == "cross-entropy" or (loss == "auto" and z.shape[1] < 3) else dlr_loss(z, y)
        (gradient,) = torch.autograd.grad(each.sum(), at)
        stands.logical_and_((z.argmax(1) == y).cpu())
        return each.detach(), gradient

    def wide(v: Tensor) -> Tensor:
        return v.view(-1, *[1] * (x.ndim - 1))

    noise = 2 * torch.rand_like(x) - 1
    now = torch.minimum(torch.maximum(x + radius * noise / noise.abs().amax(tuple(range(1, x.ndim)), keepdim=True), low), high)
    value, gradient = judged(now)
    best, best_value, best_gradient, before = now.clone(), value.clone(), gradient.clone(), now.clone()
    step = torch.full((len(x),), 2 * radius)
    rises, last_step, last_best = torch.zeros(len(x)), step.clone(), best_value.clone()
    marks = checkpoints(steps)
    for k in range(steps):
        moved = torch.minimum(torch.maximum(now + wide(step) * gradient.sign(), low), high)
        inertia = 0.75 if k else 1.0
        following = torch.minimum(torch.maximum(now + inertia * (moved - now) + (1 - inertia) * (now - before), low), high)
        before, now, previous = now, following, value
        value, gradient = judged(now)
        rises += (value > previous).float()
        better = value > best_value
        best_value = torch.where(better, value, best_value)
        best, best_gradient = torch.where(wide(better), now, best), torch.where(wide(better), gradient, best_gradient)
        if k + 1 in marks:
            since = k + 1 - marks[marks.index(k + 1) - 1]
            stuck = (rises < 0.75 * since) | ((step == last_step) & (best_value == last_best))
            last_step, last_best, rises = step.clone(), best_value.clone(), torch.zeros(len(x))
            step = torch.where(stuck, step / 2, step)
            now, gradient, value = torch.where(wide(stuck), best, now), torch.where(wide(stuck), best_gradient, gradient), torch.where(stuck, best_value, value)
    return stands
