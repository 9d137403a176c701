"""The small networks of spec 04: a perceptron of 64 and 32 units for tables, two convolutions for pictures of 16 to 32 pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from elsewhere.errors import UserError


class TaperedMlp(nn.Module):
    """Flattened inputs -> 64 -> 32 with ReLU."""

    def __init__(self, inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in zip([inputs, *widths], widths, strict=False):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.layers, self.width = nn.Sequential(*layers), int(widths[-1])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class PooledCnn(nn.Module):
    """Convolution 16, pool, convolution 32, pool, a layer of 32, all 3×3 and ReLU."""

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(32 * (side // 4) ** 2, width), nn.ReLU()),
        )
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


def tapered_mlp(shape: Sequence[int], widths: Sequence[int] = (64, 32)) -> TaperedMlp:
    """Build the perceptron's body for inputs of a shape."""
    return TaperedMlp(math.prod(shape), list(widths))


def pooled_cnn(shape: Sequence[int], width: int = 32) -> PooledCnn:
    """Build the convolutional body for pictures [channels, side, side]."""
    if len(shape) != 3 or shape[1] != shape[2] or shape[1] < 4:
        raise UserError(f"pooled-cnn needs square pictures [channels, side, side] of at least 4 pixels, not {list(shape)}")
    return PooledCnn(int(shape[0]), int(shape[1]), width)
