"""Losses that judge predictions, and how they move with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from elsewhere.errors import UserError, did_you_mean

SHARPNESS = 3.0  # cross-entropy of softmax(3 P): a squared-error fit gives outputs of the size of one-hot rows
Loss = Literal["squared", "cross_entropy"] | Callable[[Tensor, Tensor], Tensor]


def judged(loss: Loss, predicted: Tensor, wanted: Tensor) -> Tensor:
    """Return the sum of the loss over examples, of predictions and wanted outputs [m, outputs].

    Args:
        loss: "squared", "cross_entropy" (of softmax(3 P)), or a function of both that gives one number.

    Examples:
        >>> float(judged("squared", torch.zeros(2, 1), torch.ones(2, 1)))
        2.0
    """
    if callable(loss):
        return loss(predicted, wanted)
    if loss == "squared":
        return (predicted - wanted).square().sum()
    if loss == "cross_entropy":
        return -(wanted * torch.log_softmax(SHARPNESS * predicted, 1)).sum()
    raise UserError(f"no loss {loss!r}{did_you_mean(str(loss), ('squared', 'cross_entropy'))}")


def slopes(loss: Loss, predicted: Tensor, wanted: Tensor) -> Tensor:
    """Return ∂L/∂P [m, outputs]; closed forms for the two named losses, autograd for any other.

    Raises:
        UserError: the loss gives no number, or slopes that are not finite.
    """
    if loss == "squared":
        return 2 * (predicted - wanted)
    if loss == "cross_entropy":
        return SHARPNESS * (torch.softmax(SHARPNESS * predicted, 1) * wanted.sum(1, keepdim=True) - wanted)
    with torch.enable_grad():
        p = predicted.detach().requires_grad_()
        value: Any = judged(loss, p, wanted)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            raise UserError(f"the loss {getattr(loss, '__name__', loss)!r} must give one differentiable number of (predicted, wanted)")
        (found,) = torch.autograd.grad(value, p)
    if not bool(torch.isfinite(found).all()):
        raise UserError(f"the loss {getattr(loss, '__name__', loss)!r} has slopes that are not finite")
    return found
