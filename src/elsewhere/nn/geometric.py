"""Networks with something built in: coordinates, quarter turns, an alignment (spec 14, 2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, conv2d, grid_sample

from elsewhere.errors import UserError
from elsewhere.nn.cnn import ConvEncoder, halvings, picture, square, strided_widths


class CoordConv(nn.Module):
    """``ConvEncoder`` with two more input channels, x and y in -1..1 (Liu et al. 2018)."""

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        self.encoder = ConvEncoder(channels + 2, side, width)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.encoder(torch.cat([x, places(x).expand(len(x), -1, -1, -1)], 1))
        return out


class CoordinateMlp(nn.Module):
    """A perceptron on each pixel's value and place, with sines and cosines of it at frequencies 1, 2, 4, 8; the mean over pixels."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [channels + 2 + 16, *[width] * depth]
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        self.layers, self.width = nn.Sequential(*layers), width

    def forward(self, x: Tensor) -> Tensor:
        at = places(x)[0].flatten(1).T  # [pixels, 2]
        waves = torch.cat([f(torch.pi * frequency * at) for frequency in (1, 2, 4, 8) for f in (torch.sin, torch.cos)], 1)
        seen = torch.cat([x.flatten(2).transpose(1, 2), torch.cat([at, waves], 1).expand(len(x), -1, -1)], 2)
        out: Tensor = self.layers(seen).mean(1)
        return out


class QuarterTurns(nn.Module):
    """``ConvEncoder``'s convolutions equivariant to the four quarter turns (Cohen & Welling 2016).

    Kernels are shared by their rotations, each orientation has a quarter of the channels; features are the mean over orientations. A picture turned by 90 degrees gives the same features.
    """

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        self.sides = halvings(side)
        if any(s % 2 for s in self.sides[:-1]):
            raise UserError(f"rotation-equivariant needs a side that halves to 4 or less without a rest, not {side}: a turned grid would not fall on itself")
        sizes = [channels, *(w // 4 for w in strided_widths(len(self.sides) - 1)), width // 4]
        turns = [1, *[4] * (len(sizes) - 2)]
        kernels = [4] * (len(sizes) - 2) + [self.sides[-1]]
        self.kernels = nn.ParameterList(nn.Parameter(torch.randn(b, a, t, k, k) * (2 / (a * t * k * k)) ** 0.5) for (a, b), t, k in zip(pairwise(sizes), turns, kernels, strict=True))
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(b)) for b in sizes[1:])
        self.width = width // 4

    def forward(self, x: Tensor) -> Tensor:
        for k, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            last = k == len(self.kernels) - 1
            x = conv2d(x, turned(kernel), bias.repeat_interleave(4), stride=1 if last else 2, padding=0 if last else 1).relu()
        return x.flatten(1).view(len(x), -1, 4).mean(2)


def turned(kernel: Tensor) -> Tensor:
    """Return the four rotations of a kernel [out, in, turns, k, k] as one [4 out, turns in, k, k]; with four input orientations these turn along."""
    made = [torch.rot90(kernel.roll(r, 2) if kernel.shape[2] == 4 else kernel, r, (3, 4)) for r in range(4)]
    out = torch.stack(made, 1)  # [out, 4, in, turns, k, k]
    return out.reshape(out.shape[0] * 4, -1, *kernel.shape[-2:])


class SpatialTransformer(nn.Module):
    """A small network that says an affine map, the picture sampled on it, then ``ConvEncoder`` (Jaderberg et al. 2015)."""

    def __init__(self, channels: int, side: int, width: int) -> None:
        super().__init__()
        self.where = nn.Sequential(
            nn.Conv2d(channels, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5, padding=2), nn.ReLU(), nn.AdaptiveMaxPool2d(4), nn.Flatten(), nn.Linear(512, 6)
        )
        last = self.where[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        last.bias.data.copy_(torch.tensor([1.0, 0, 0, 0, 1, 0]))
        self.encoder, self.width = ConvEncoder(channels, side, width), width

    def forward(self, x: Tensor) -> Tensor:
        grid = affine_grid(self.where(x).view(-1, 2, 3), list(x.shape), align_corners=False)
        out: Tensor = self.encoder(grid_sample(x, grid, align_corners=False))
        return out


def places(x: Tensor) -> Tensor:
    """Return x and y of each pixel in -1..1: [1, 2, height, width]."""
    h, w = x.shape[-2:]
    down, right = torch.linspace(-1, 1, h, device=x.device, dtype=x.dtype), torch.linspace(-1, 1, w, device=x.device, dtype=x.dtype)
    return torch.stack([right.expand(h, w), down[:, None].expand(h, w)])[None]


def coordconv(shape: Sequence[int], width: int = 256) -> CoordConv:
    """Build a convolutional encoder that sees coordinates."""
    return CoordConv(*square(shape), width)


def coordinate_mlp(shape: Sequence[int], width: int = 256, depth: int = 5) -> CoordinateMlp:
    """Build a coordinate-based network."""
    return CoordinateMlp(picture(shape)[0], width, depth)


def rotation_equivariant(shape: Sequence[int], width: int = 256) -> QuarterTurns:
    """Build a network that is equivariant to quarter turns."""
    return QuarterTurns(*square(shape), width)


def spatial_transformer(shape: Sequence[int], width: int = 256) -> SpatialTransformer:
    """Build a spatial transformer."""
    return SpatialTransformer(*square(shape), width)
