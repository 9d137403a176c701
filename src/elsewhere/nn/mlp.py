"""The multilayer perceptron."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Mlp(nn.Module):
    """``depth`` hidden layers of ``width`` units with ReLU (and dropout) on flattened inputs [n, ...] -> [n, width]; depth 0 only flattens."""

    def __init__(self, inputs: int, width: int, depth: int, dropout: float = 0.0) -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth]
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
        self.layers, self.width = nn.Sequential(*layers), sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def mlp(shape: Sequence[int], width: int = 128, depth: int = 2, dropout: float = 0.0) -> Mlp:
    """Build the body of a multilayer perceptron for inputs of a shape."""
    return Mlp(math.prod(shape), width, depth, dropout)
