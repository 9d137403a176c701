"""Small convolutional networks: a classifier's body, an encoder and its decoder."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, conv2d

from elsewhere.errors import UserError


class SmallCnn(nn.Module):
    """Four 3×3 convolutions (the second of stride 2), each with ReLU and group normalisation, then the mean over the picture.

    With ``width`` 64 this is DomainBed's network for digits (Gulrajani & Lopez-Paz 2021, appendix D): 64, 128, 128, 128
    channels, 8 groups. ``stride`` of the first convolution: 2 costs a quarter.
    """

    def __init__(self, channels: int, width: int = 64, stride: int = 1) -> None:
        super().__init__()
        sizes, steps = [channels, width, 2 * width, 2 * width, 2 * width], (stride, 2, 1, 1)
        layers: list[nn.Module] = []
        for a, b, step in zip(sizes, sizes[1:], steps, strict=False):
            layers += [nn.Conv2d(a, b, 3, step, padding=1), nn.ReLU(), nn.GroupNorm(8, b)]
        self.layers, self.width = nn.Sequential(*layers), sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x).mean((2, 3))
        return out


class ConvEncoder(nn.Module):
    """4×4 convolutions of stride 2 until the side is 4 or less, then a layer of 256: [n, channels, side, side] -> [n, width].

    At 64 × 64: 32, 32, 64, 64 channels, the encoder of Locatello et al. 2019 and of spec 14 (whose last 4×4 convolution is this
    layer); smaller pictures drop the second convolution, larger ones repeat the last.
    """

    def __init__(self, channels: int, side: int, width: int = 256) -> None:
        super().__init__()
        self.sides = halvings(side)
        sizes = [channels, *strided_widths(len(self.sides) - 1)]
        layers: list[nn.Module] = []
        for k, (a, b) in enumerate(pairwise(sizes)):
            layers += [nn.Conv2d(a, b, 4, 2, padding=1 if self.sides[k] % 2 == 0 else 2), nn.ReLU()]
        self.shape = (sizes[-1], self.sides[-1], self.sides[-1])
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(sizes[-1] * self.sides[-1] ** 2, width), nn.ReLU())
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out


class ConvDecoder(nn.Module):
    """The mirror of ``ConvEncoder``: codes [n, latent] -> logits of pixels [n, channels, side, side]."""

    def __init__(self, latent: int, channels: int, side: int, width: int = 256) -> None:
        super().__init__()
        self.sides = halvings(side)
        sizes = [channels, *strided_widths(len(self.sides) - 1)]
        self.start = (sizes[-1], self.sides[-1], self.sides[-1])
        self.expand = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, sizes[-1] * self.sides[-1] ** 2), nn.ReLU())
        self.layers = nn.ModuleList(nn.ConvTranspose2d(b, a, 4, 2, padding=1) for a, b in reversed(list(pairwise(sizes))))

    def forward(self, z: Tensor) -> Tensor:
        x = self.expand(z).view(len(z), *self.start)
        for k, layer in enumerate(self.layers):
            side = self.sides[-2 - k]
            x = layer(x)[:, :, :side, :side]
            x = x.relu() if k < len(self.layers) - 1 else x
        return x


def strided_widths(count: int) -> list[int]:
    """Return the channels of so many strided convolutions: 32, 32, 64, 64; three of them drop the second.

    Examples:
        >>> strided_widths(4), strided_widths(3)
        ([32, 32, 64, 64], [32, 64, 64])
    """
    return [32] * max(1, count - 2) + [64] * min(2, count - 1) if count < 5 else [32, 32] + [64] * (count - 2)


class RandomConv(nn.Module):
    """Random convolution features, never trained: 5×5 filters, ReLU, the mean over a grid of 4 × 4: [n, 16·filters].

    Filters are normal with variance 1/fan-in and come from a seed of their own, so that features do not change with the trial
    (in the spirit of Saxe et al. 2011, on random weights).
    """

    def __init__(self, channels: int, filters: int, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(filters, channels, 5, 5, generator=torch.Generator().manual_seed(seed)) / (25 * channels) ** 0.5
        self.filters, self.width = nn.Parameter(drawn, requires_grad=False), 16 * filters

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avg_pool2d(conv2d(x, self.filters, padding=2).relu(), 4).flatten(1)


def halvings(side: int) -> list[int]:
    """Return the sides from the picture down to 4 or less, each half of the one before, rounded up.

    Examples:
        >>> halvings(64), halvings(28)
        ([64, 32, 16, 8, 4], [28, 14, 7, 4])
    """
    sides = [side]
    while sides[-1] > 4:
        sides.append((sides[-1] + 1) // 2)
    return sides


def small_cnn(shape: Sequence[int], width: int = 64, stride: int = 1) -> SmallCnn:
    """Build the body of the small convolutional network."""
    channels, *_ = picture(shape)
    if width % 8:
        raise UserError(f"small-cnn needs a width that 8 divides (its groups), not {width}")
    return SmallCnn(channels, width, stride)


def random_conv(shape: Sequence[int], filters: int = 64, seed: int = 0) -> RandomConv:
    """Build random convolution features."""
    return RandomConv(picture(shape)[0], filters, seed)


def encoder(shape: Sequence[int], width: int = 256) -> ConvEncoder:
    """Build the convolutional encoder."""
    channels, side = square(shape)
    return ConvEncoder(channels, side, width)


def decoder(shape: Sequence[int], latent: int = 10, width: int = 256) -> ConvDecoder:
    """Build the decoder of pictures of a shape from codes of size ``latent``."""
    channels, side = square(shape)
    return ConvDecoder(latent, channels, side, width)


def picture(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return channels, height and width, or raise where the inputs are no pictures."""
    if len(shape) != 3:
        raise UserError(f"this network needs pictures [channels, height, width]; the inputs have shape {list(shape)}")
    return shape[0], shape[1], shape[2]


def square(shape: Sequence[int]) -> tuple[int, int]:
    """Return channels and side, or raise where the inputs are no square pictures."""
    channels, height, width = picture(shape)
    if height != width:
        raise UserError(f"this network needs square pictures, not {height} × {width}")
    return channels, height
