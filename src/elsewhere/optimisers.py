"""Optimisers and schedules as functions of what they act on, and running means of weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


def adam(learning_rate: float, weight_decay: float = 0.0, betas: tuple[float, float] = (0.9, 0.999), coupled: bool = False) -> Callable[[Any], Optimizer]:
    """Return what makes AdamW of parameters: decoupled weight decay (Loshchilov & Hutter 2019); Adam without decay.

    ``coupled`` adds the decay to the gradient instead (L2, as networks over graphs are published with).
    """
    if coupled:
        return lambda parameters: torch.optim.Adam(parameters, learning_rate, betas, weight_decay=weight_decay, fused=_fusable(parameters))
    return lambda parameters: torch.optim.AdamW(parameters, learning_rate, betas, weight_decay=weight_decay, fused=_fusable(parameters))


def sgd(learning_rate: float, weight_decay: float = 0.0, momentum: float = 0.9) -> Callable[[Any], Optimizer]:
    """Return what makes stochastic gradient descent with momentum of parameters."""
    return lambda parameters: torch.optim.SGD(parameters, learning_rate, momentum, weight_decay=weight_decay)


def _fusable(parameters: Any) -> bool:
    return isinstance(parameters, list) and all(isinstance(p, Tensor) and p.is_floating_point() for p in parameters)


def cosine(steps: int, warm_up: int = 0, floor: float = 0.0) -> Callable[[Optimizer], Any]:
    """Return what makes a cosine schedule from the full rate to ``floor`` times it, after a linear warm-up (Loshchilov & Hutter 2017)."""

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up))))

    return lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def stepwise(steps: int, at: Sequence[float] = (0.3, 0.6, 0.9), factor: float = 0.1) -> Callable[[Optimizer], Any]:
    """Return what makes the step schedule of the assay's reference: a tenth after 30, 60 and 90 % of the steps."""
    return lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [round(a * steps) for a in at], factor)


def halving(every: int = 1000) -> Callable[[Optimizer], Any]:
    """Return what makes a schedule that falls smoothly by half in every so many steps."""
    return lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 ** (step / every))


class WeightAverage:
    """A running mean of a module's weights: exponential with a decay below 1 (Polyak & Juditsky 1992; bias-corrected), plain at 1."""

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.weights: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        keep = (self.steps - 1) / self.steps if self.decay == 1 else self.decay * (1 - self.decay ** (self.steps - 1)) / (1 - self.decay**self.steps)
        for name, p in self._floats(module):
            if name not in self.weights:
                self.weights[name] = p.detach().clone()
            else:
                self.weights[name] = self.weights[name].to(p.device)  # a checkpoint comes back on the processor
                self.weights[name].lerp_(p.detach(), 1 - keep)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        for name, p in self._floats(module):
            if name in self.weights:
                other = self.weights[name].clone()
                self.weights[name].copy_(p)
                p.copy_(other)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "weights": dict(self.weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        self.weights = {k: v.clone() for k, v in state["weights"].items()}

    @staticmethod
    def _floats(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
        for name, p in module.state_dict().items():
            if p.is_floating_point():
                yield name, p
