"""Seven named shifts of pictures, five severities each, on whole batches.

Every shift acts on pictures [n, channels, height, width] in 0..1 and clips to that range; severity 0 is the identity.
What is drawn (a direction, a sign, noise) depends on the seed, the shift, the severity and the picture's own index.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elsewhere.data import Array
from elsewhere.errors import UserError, did_you_mean
from elsewhere.images.counter import normal, uniform


@dataclass(frozen=True)
class Shift:
    """A named shift: its closed definition, the amount at each severity 1 to 5, and what applies it.

    ``apply(pictures, amount, key, index)`` gets the key of the random numbers and each picture's index.
    """

    definition: str
    amounts: tuple[float, ...]
    apply: Callable[[Tensor, float, str, Array], Tensor]


def rotate(x: Tensor, degrees: Tensor | float) -> Tensor:
    """Turn each picture about its centre, counter-clockwise by ``degrees`` (a number or [n]); bilinear, zeros from outside."""
    angle = torch.deg2rad(torch.as_tensor(degrees, dtype=torch.float64).expand(len(x)))
    h, w = x.shape[-2:]
    c, s, zero = angle.cos(), angle.sin(), torch.zeros(len(x), dtype=torch.float64)
    theta = torch.stack([torch.stack([c, -s * h / w, zero], 1), torch.stack([s * w / h, c, zero], 1)], 1)
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x.double(), grid, mode="bilinear", padding_mode="zeros", align_corners=False).to(x.dtype)


def translate(x: Tensor, down: Tensor | int, right: Tensor | int) -> Tensor:
    """Move each picture by whole pixels (numbers or [n]); zeros come in."""
    n, _, h, w = x.shape
    dy, dx = (torch.as_tensor(v, dtype=torch.long).expand(n) for v in (down, right))
    rows, columns = torch.arange(h)[None] - dy[:, None], torch.arange(w)[None] - dx[:, None]
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    moved = x[torch.arange(n)[:, None, None], :, rows.clamp(0, h - 1)[:, :, None], columns.clamp(0, w - 1)[:, None, :]]
    return (moved * inside[..., None]).permute(0, 3, 1, 2).contiguous()


def blur(x: Tensor, sigma: float) -> Tensor:
    """Filter with a Gaussian of deviation ``sigma`` pixels, reach 4 sigma, edges repeated."""
    if sigma <= 0:
        return x
    down, right = (gaussian_matrix(side, sigma, max(1, math.ceil(4 * sigma)), "nearest").to(x.dtype) for side in x.shape[-2:])
    return down @ x @ right.T  # two products are faster than convolutions of one channel


@cache
def gaussian_matrix(side: int, sigma: float, reach: int, edges: str) -> Tensor:
    """Return the matrix [side, side] that filters a line with a Gaussian; edges "nearest" (repeated) or "reflect" (mirrored, the edge itself too)."""
    taps = torch.exp(-torch.arange(-reach, reach + 1, dtype=torch.float64).square() / (2 * sigma**2))
    taps = taps / taps.sum()
    at = torch.arange(side)[:, None] + torch.arange(-reach, reach + 1)
    at = at.clamp(0, side - 1) if edges == "nearest" else torch.where((at % (2 * side)) < side, at % (2 * side), 2 * side - 1 - at % (2 * side))
    return torch.zeros(side, side, dtype=torch.float64).scatter_add_(1, at, taps.expand(side, -1))


def contrast(x: Tensor, factor: float) -> Tensor:
    """Bring every value towards its channel's mean: (x - mean) factor + mean."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) * factor + mean


def invert(x: Tensor) -> Tensor:
    """Exchange dark and light: 1 - x."""
    return 1 - x


def thicken(x: Tensor, pixels: float) -> Tensor:
    """Dilate light strokes by so many pixels (erode below 0): the largest value in a square of side 2r + 1; between whole r, the mix of both."""
    if pixels < 0:
        return 1 - thicken(1 - x, -pixels)
    low = math.floor(pixels)
    part = pixels - low

    def dilated(r: int) -> Tensor:
        return x if r == 0 else functional.max_pool2d(x, 2 * r + 1, stride=1, padding=r)

    return dilated(low) if part == 0 else (1 - part) * dilated(low) + part * dilated(low + 1)


def _rotated(x: Tensor, amount: float, key: str, index: Array) -> Tensor:
    sign = np.where(uniform(key, index, 1)[:, 0] < 0.5, -1.0, 1.0)
    return rotate(x, torch.from_numpy(amount * sign))


def _shifted(x: Tensor, amount: float, key: str, index: Array) -> Tensor:
    side = torch.from_numpy((uniform(key, index, 1)[:, 0] * 4).astype(int))
    step = int(amount)
    return translate(x, step * torch.tensor([1, -1, 0, 0])[side], step * torch.tensor([0, 0, 1, -1])[side])


def _noisy(x: Tensor, amount: float, key: str, index: Array) -> Tensor:
    z = normal(key, index, x[0].numel()).astype(np.float32)
    return x + amount * torch.from_numpy(z).view(x.shape).to(x.dtype)


def _inverted(x: Tensor, amount: float, key: str, index: Array) -> Tensor:
    chosen = torch.from_numpy(uniform(key, index, 1)[:, 0] < amount)
    return torch.where(chosen.view(-1, 1, 1, 1), invert(x), x)


SHIFTS = {
    "rotated": Shift("turned about the centre by ±a degrees, the sign drawn; bilinear", (5, 10, 20, 30, 45), _rotated),
    "shifted": Shift("moved by a whole pixels up, down, left or right, the side drawn", (1, 2, 3, 4, 5), _shifted),
    "blurred": Shift("Gaussian of deviation a pixels, edges repeated", (0.5, 1.0, 1.5, 2.0, 2.5), lambda x, a, key, index: blur(x, a)),
    "noisy": Shift("x + a z, z standard normal for each pixel", (0.1, 0.2, 0.3, 0.45, 0.6), _noisy),
    "low-contrast": Shift("(x - m) a + m, m the picture's mean", (0.75, 0.5, 0.3, 0.2, 0.1), lambda x, a, key, index: contrast(x, a)),
    "inverted": Shift("1 - x for a share a of the pictures, drawn", (0.2, 0.4, 0.6, 0.8, 1.0), _inverted),
    "thick": Shift("strokes dilated by a pixels: largest value in a square; between whole pixels, the mix", (0.5, 1.0, 1.5, 2.0, 2.5), lambda x, a, key, index: thicken(x, a)),
}


def shift(images: Array | Tensor, name: str, severity: int, seed: int = 0, index: Array | None = None) -> Array:
    """Return pictures under a named shift.

    Args:
        images: [n, channels, height, width] in 0..1, or bytes.
        name: one of ``SHIFTS``.
        severity: 0 (nothing happens) to 5.
        seed: of what is drawn.
        index: [n] which picture each is; default: its position.

    Raises:
        UserError: no such shift or severity, or values outside 0..1.

    Examples:
        >>> x = np.zeros((1, 1, 28, 28), np.float32)
        >>> float(shift(x, "inverted", 5).min())
        1.0
    """
    if name not in SHIFTS:
        raise UserError(f"no shift {name!r}{did_you_mean(name, SHIFTS)}")
    if severity not in range(6):
        raise UserError(f"severity must be 0 to 5, not {severity!r}")
    x = torch.from_numpy(np.array(images))
    if x.ndim != 4:
        raise UserError(f"pictures have shape [n, channels, height, width]; these have {list(x.shape)}")
    x = x.float() / 255 if x.dtype == torch.uint8 else x.float()
    if len(x) and (float(x.min()) < 0 or float(x.max()) > 1):
        raise UserError(f"pictures have values in 0..1; these reach from {float(x.min()):g} to {float(x.max()):g}: divide them, or pass bytes")
    if severity == 0 or not len(x):
        return x.numpy()
    at = np.arange(len(x)) if index is None else np.asarray(index)
    chosen = SHIFTS[name]
    return chosen.apply(x, chosen.amounts[severity - 1], f"{seed} {name} {severity}", at).clamp(0, 1).numpy()
