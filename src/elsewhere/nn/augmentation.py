"""Augmentation of training pictures, on whole batches of tensors: crops, colour, RandAugment, AugMix (spec 01, 2.2).

All take pictures [n, channels, height, width] in 0..1 and draw from torch's generator, which the training loop seeds by step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

from elsewhere.errors import UserError, did_you_mean

Augment = Literal["none", "flip", "crop", "colour", "randaugment", "augmix"]


def augmented(x: Tensor, how: str) -> Tensor:
    """Return pictures as one training step sees them.

    Args:
        x: [n, channels, height, width] in 0..1.
        how: "none"; "flip", sideways in half of the cases; "crop", a random resized crop and flip; "colour", these and darker, flatter, greyer;
            "randaugment" (2 of 15 operations, magnitude 9 ± .5) and "augmix" (severity 5, width 4, depth 2), both after crop and flip.

    Examples:
        >>> augmented(torch.rand(2, 3, 8, 8), "augmix").shape
        torch.Size([2, 3, 8, 8])
    """
    if how not in get_args(Augment):
        raise UserError(f"no augmentation {how!r}{did_you_mean(how, get_args(Augment))}")
    if how == "none":
        return x
    if x.ndim != 4:
        raise UserError(f"augmentation needs pictures [n, channels, height, width], not {list(x.shape)}")
    x = flipped(x if how == "flip" else random_resized_crop(x))
    more: dict[str, Callable[[Tensor], Tensor]] = {"colour": darker_flatter_greyer, "randaugment": randaugment, "augmix": augmix}
    return more[how](x) if how in more else x


def flipped(x: Tensor) -> Tensor:
    """Turn each picture sideways with probability ½."""
    return torch.where(_coin(x, 0.5), x.flip(3), x)


def random_resized_crop(x: Tensor, scale: tuple[float, float] = (0.08, 1.0), ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> Tensor:
    """Cut a rectangle of a random share of the area and shape from each picture, resized to the picture's size (torchvision's defaults)."""
    n, _, height, width = x.shape
    area = _uniform(x, n, *scale)
    shape = _uniform(x, n, math.log(ratio[0]), math.log(ratio[1])).exp()
    wide, high = (area * shape).sqrt().clamp(max=1), (area / shape * height / width).sqrt().clamp(max=1)  # shares of the sides
    theta = torch.zeros(n, 2, 3, device=x.device)
    theta[:, 0, 0], theta[:, 1, 1] = wide, high
    theta[:, 0, 2], theta[:, 1, 2] = _uniform(x, n, -1, 1) * (1 - wide), _uniform(x, n, -1, 1) * (1 - high)
    return grid_sample(x, affine_grid(theta, list(x.shape), align_corners=False), padding_mode="border", align_corners=False)


def darker_flatter_greyer(x: Tensor, factor: float = 0.3, grey_share: float = 0.1) -> Tensor:
    """Multiply brightness, contrast and saturation by fixed factors, then grey a tenth: what the assay's reference does (it is no jitter)."""
    x = blend(torch.zeros_like(x), x, factor)
    x = blend(grey(x).mean((1, 2, 3), keepdim=True).expand_as(x), x, factor)
    x = blend(grey(x).expand_as(x), x, factor)
    return torch.where(_coin(x, grey_share), grey(x).expand_as(x), x)


def randaugment(x: Tensor, layers: int = 2, magnitude: float = 9.0, deviation: float = 0.5, chance: float = 0.5) -> Tensor:
    """Apply ``layers`` operations drawn for each picture, each with probability ``chance``, magnitude normal about 9 of 10 (Cubuk et al. 2020; ``rand-m9-mstd0.5-inc1``)."""
    for _ in range(layers):
        m = (magnitude + deviation * torch.randn(len(x), device=x.device)).clamp(0, 10)
        x = torch.where(_coin(x, chance), _drawn_operation(x, m, list(OPERATIONS)), x)
    return x


def augmix(x: Tensor, severity: float = 5.0, width: int = 4, depth: int = 2) -> Tensor:
    """Mix ``width`` chains of ``depth`` operations with Dirichlet weights, and the mix with the picture by a Beta weight (Hendrycks et al. 2020; ``augmix-m5-w4-d2-b1``)."""
    n = len(x)
    weight = torch.distributions.Dirichlet(torch.ones(width, device=x.device)).sample((n,))
    names = [name for name in OPERATIONS if name not in ("invert", "solarize-add")]
    mixed = torch.zeros_like(x)
    for k in range(width):
        chain = x
        for _ in range(depth):
            chain = _drawn_operation(chain, _uniform(x, n, 0, severity), names)
        mixed += weight[:, k].view(-1, 1, 1, 1) * chain
    share = torch.rand(n, 1, 1, 1, device=x.device)
    return torch.lerp(x, mixed, share)


def _drawn_operation(x: Tensor, magnitude: Tensor, names: list[str]) -> Tensor:
    which = torch.randint(len(names), (len(x),), device=x.device)
    out = x.clone()
    for k, name in enumerate(names):
        mine = which == k
        if bool(mine.any()):
            out[mine] = OPERATIONS[name](x[mine], magnitude[mine] / 10).clamp(0, 1)
    return out


# --- operations: pictures and strengths [n] in 0..1 -----------------------------------------------------------------


def grey(x: Tensor) -> Tensor:
    """Return luma (ITU-R 601) as one channel; grey pictures as they are."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return (x * torch.tensor([0.299, 0.587, 0.114], device=x.device, dtype=x.dtype).view(1, 3, 1, 1)).sum(1, keepdim=True)


def blend(a: Tensor, b: Tensor, factor: Tensor | float) -> Tensor:
    """Return a + factor (b - a): 0 is a, 1 is b, beyond 1 away from a."""
    return (a + _column(factor) * (b - a)).clamp(0, 1)


def autocontrast(x: Tensor, strength: Tensor) -> Tensor:
    """Stretch each channel to 0..1."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp(min=1e-6), x)


def equalize(x: Tensor, strength: Tensor) -> Tensor:
    """Flatten each channel's histogram of 256 levels."""
    flat = (255 * x).round().long().flatten(2).flatten(0, 1)
    counts = torch.zeros(len(flat), 256, device=x.device).scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float32))
    below = counts.cumsum(1) - counts
    last = counts.gather(1, 255 - (counts.flip(1) > 0).float().argmax(1, keepdim=True))
    step = ((flat.shape[1] - last) / 255).floor()  # whole steps, as PIL takes them
    table = (((step / 2).floor() + below) / step.clamp(min=1)).floor().clamp(max=255) / 255
    table = torch.where(step > 0, table, torch.arange(256, device=x.device) / 255)
    return table.gather(1, flat).view(x.shape)


def posterize(x: Tensor, strength: Tensor) -> Tensor:
    """Keep 4 bits at strength 0, none at 1."""
    bits = 4 - (4 * strength).floor()
    step = _column(2 ** (8 - bits))
    return ((255 * x).round() / step).floor() * step / 255


def solarize(x: Tensor, strength: Tensor) -> Tensor:
    """Invert what is brighter than 1 - strength."""
    return torch.where(x >= _column(1 - strength), 1 - x, x)


def solarize_add(x: Tensor, strength: Tensor) -> Tensor:
    """Brighten the darker half by up to 110 of 255."""
    return torch.where(x < 128 / 255, x + _column(strength * 110 / 255), x)


def _sharpened(x: Tensor, factor: Tensor) -> Tensor:
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], device=x.device, dtype=x.dtype) / 13
    soft = conv2d(pad(x.flatten(0, 1)[:, None], (1, 1, 1, 1), mode="replicate"), kernel.view(1, 1, 3, 3)).view(x.shape)
    return blend(soft, x, factor)


def _either_way(strength: Tensor, most: float) -> Tensor:
    """Return ± most × strength, the sign drawn."""
    return torch.where(torch.rand(len(strength), device=strength.device) < 0.5, -1.0, 1.0) * most * strength


def _moved(x: Tensor, *, turn: Tensor | None = None, shear: tuple[Tensor, int] | None = None, shift: tuple[Tensor, int] | None = None) -> Tensor:
    n, _, h, w = x.shape
    theta = torch.eye(2, 3, device=x.device).repeat(n, 1, 1)
    if turn is not None:
        c, s = turn.cos(), turn.sin()
        theta[:, 0, 0], theta[:, 0, 1], theta[:, 1, 0], theta[:, 1, 1] = c, -s * h / w, s * w / h, c
    if shear is not None:
        theta[:, shear[1], 1 - shear[1]] = shear[0]
    if shift is not None:
        theta[:, shift[1], 2] = 2 * shift[0]
    return grid_sample(x, affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "autocontrast": autocontrast,
    "equalize": equalize,
    "invert": lambda x, s: 1 - x,
    "rotate": lambda x, s: _moved(x, turn=_either_way(s, math.radians(30))),
    "posterize": posterize,
    "solarize": solarize,
    "solarize-add": solarize_add,
    "saturation": lambda x, s: blend(grey(x).expand_as(x), x, 1 + _either_way(s, 0.9)),
    "contrast": lambda x, s: blend(grey(x).mean((1, 2, 3), keepdim=True).expand_as(x), x, 1 + _either_way(s, 0.9)),
    "brightness": lambda x, s: blend(torch.zeros_like(x), x, 1 + _either_way(s, 0.9)),
    "sharpness": lambda x, s: _sharpened(x, 1 + _either_way(s, 0.9)),
    "shear-x": lambda x, s: _moved(x, shear=(_either_way(s, 0.3), 0)),
    "shear-y": lambda x, s: _moved(x, shear=(_either_way(s, 0.3), 1)),
    "translate-x": lambda x, s: _moved(x, shift=(_either_way(s, 0.45), 0)),
    "translate-y": lambda x, s: _moved(x, shift=(_either_way(s, 0.45), 1)),
}


def _column(value: Tensor | float) -> Tensor | float:
    return value.view(-1, 1, 1, 1) if isinstance(value, Tensor) else value


def _coin(x: Tensor, chance: float) -> Tensor:
    return torch.rand(len(x), 1, 1, 1, device=x.device) < chance


def _uniform(x: Tensor, n: int, low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(n, device=x.device)
