"""Sprites: a renderer of dSprites' black and white shapes, fitted to its real frames (spec 14, 7.2).

dSprites: Matthey, Higgins, Hassabis & Lerchner 2017. Only the window around the sprite is drawn, many at once.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from elsewhere.data import Array
from elsewhere.errors import UserError

SHAPES = ("square", "ellipse", "heart")
# radius of the heart's outline as a cosine series of the angle from its tip
HEART = (8.217, -1.921, -0.290, 1.722, -0.417, 0.551, -0.080, 0.371, -0.080, 0.240, -0.013, 0.148, -0.020, 0.138, -0.029, 0.083)
REACH = 15.0  # of 64: no shape reaches further from its centre
BLOCK = 256  # sprites drawn at once: their windows fit the cache


def draw(shape: Array, scale: Array, angle: Array, x: Array, y: Array, resolution: int = 64, antialias: int | None = None) -> Array:
    """Draw sprites as uint8 [n, 1, resolution, resolution], 0 outside and 255 inside.

    Args:
        shape: [n] 0 square, 1 ellipse, 2 heart.
        scale: [n] in ½..1.
        angle: [n] radians, anticlockwise on the screen.
        x, y: [n] position in 0..1; the centre lies at (16 + 32 x, 16 + 32 y) of 64.
        resolution: side of a picture, at most 64 · antialias.
        antialias: a × a sub-pixels are averaged; default: 1 at 64, more for smaller pictures.

    Examples:
        >>> picture = draw(*np.zeros((1, 1)), *np.array([[1.0], [0.0], [0.5], [0.5]]))
        >>> picture.shape, int((picture > 0).sum())  # a square of side 19.2
        ((1, 1, 64, 64), 400)
    """
    sub = antialias if antialias is not None else max(1, 64 // resolution)
    if resolution < 8 or sub < 1:
        raise UserError(f"sprites need a resolution of at least 8 and antialias of at least 1, not {resolution} and {sub}")
    shape = np.asarray(shape, np.int64)
    order = np.argsort(shape, kind="stable")  # blocks of one shape
    parameters = torch.from_numpy(np.stack([np.asarray(v, np.float32) for v in (scale, angle, x, y)]))
    out = torch.zeros(len(shape), resolution, resolution, dtype=torch.uint8)
    for kind in np.unique(shape):
        mine = order[shape[order] == kind]
        for start in range(0, len(mine), BLOCK):
            rows = torch.from_numpy(mine[start : start + BLOCK])
            out[rows] = _block(int(kind), parameters[:, rows], resolution, sub)
    return out[:, None].numpy()


def _block(kind: int, parameters: Tensor, side: int, sub: int) -> Tensor:
    scale, angle, x, y = parameters
    raster = side * sub
    unit = 64 / raster
    wide = 2 * math.ceil(REACH / unit)
    cx, cy = (16 + 32 * x) / unit, (16 + 32 * y) / unit
    left, top = (torch.round(c).long() - wide // 2 for c in (cx, cy))
    steps = torch.arange(wide)
    along = ((left[:, None] + steps + 0.5) - cx[:, None]) * (unit / scale[:, None])
    down = ((top[:, None] + steps + 0.5) - cy[:, None]) * (unit / scale[:, None])
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    u = (cos * along)[:, None, :] - (sin * down)[:, :, None]
    v = (sin * along)[:, None, :] + (cos * down)[:, :, None]
    inside = (_square, _ellipse, _heart)[kind](u, v)
    canvas = torch.zeros(len(scale), raster * raster, dtype=torch.uint8)
    at = (top[:, None] + steps)[:, :, None] * raster + (left[:, None] + steps)[:, None, :]
    canvas.scatter_(1, at.flatten(1), inside.flatten(1).to(torch.uint8))
    if sub == 1:
        return canvas.view(-1, side, side) * 255
    shares = canvas.view(-1, side, sub, side, sub).sum((2, 4), dtype=torch.int32)
    return ((shares * 255 * 2 + sub * sub) // (2 * sub * sub)).to(torch.uint8)


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) <= 9.6


def _ellipse(u: Tensor, v: Tensor) -> Tensor:
    return (u / 12.75).square() + (v / 7.25).square() <= 1


def _heart(u: Tensor, v: Tensor) -> Tensor:
    radius = (u.square() + v.square()).sqrt_()
    cosine = v / radius.clamp(min=1e-6)
    twice = 2 * cosine
    after, last = torch.zeros_like(cosine), torch.full_like(cosine, HEART[-1])
    for h in HEART[-2:0:-1]:  # Clenshaw's recurrence: a cosine series is a Chebyshev series of the cosine
        after, last = last, torch.addcmul(h - after, twice, last)
    return radius <= torch.addcmul(HEART[0] - after, cosine, last)
