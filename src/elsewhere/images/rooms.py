"""Rooms: a coloured three-dimensional world with the factors of Shapes3D, drawn by ray casting (spec 14, 7.3).

The geometry depends on size, type and azimuth alone: 480 maps, computed once; colours are a weighted sum of three maps.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from elsewhere.data import Array
from elsewhere.places import cache as cache_folder
from elsewhere.run import locked, write_whole
from elsewhere.saving import from_bytes, to_bytes

SIZES, TYPES, AZIMUTHS, HUES = 8, 4, 15, 10
SUB = 4  # sub-samples a pixel and side
LIGHT = torch.nn.functional.normalize(torch.tensor([0.5, 1.0, 0.7], dtype=torch.float64), dim=0)


def draw(values: Array, resolution: int = 64) -> Array:
    """Draw rooms as uint8 [n, 3, resolution, resolution].

    Args:
        values: [n, 6] labels: floor hue, wall hue, object hue (of 10), size (of 8), type (cube, cylinder, sphere, capsule), azimuth (of 15).
        resolution: side of a picture.
    """
    v = torch.from_numpy(np.asarray(values, np.int64))
    maps = geometry(resolution)
    which = (v[:, 3] * TYPES + v[:, 4]) * AZIMUTHS + v[:, 5]
    colour = _palette()[v[:, :3]].transpose(1, 2).contiguous()  # [n, rgb, part]
    out = torch.empty(len(v), 3, resolution * resolution, dtype=torch.uint8)
    for start in range(0, len(v), 256):
        part = slice(start, start + 256)
        out[part] = torch.baddbmm(_HALF, colour[part], maps[which[part]]).to(torch.uint8)  # shades sum to at most 1: no clipping is needed
    return out.view(-1, 3, resolution, resolution).numpy()


_HALF = torch.full((1, 1, 1), 0.5)


@cache
def _palette() -> Tensor:
    """Return 255 × the colour of each hue: [hues, rgb]; HSV with saturation .85 and value 1."""
    import colorsys

    return torch.tensor([[255 * c for c in colorsys.hsv_to_rgb(h / HUES, 0.85, 1.0)] for h in range(HUES)])


@cache
def geometry(resolution: int) -> Tensor:
    """Return the maps [480, 3, pixels]: for floor, wall and object the mean shade of its sub-samples in each pixel.

    Computed once and kept as float16 in the user's cache.
    """
    path = cache_folder() / "worlds" / f"rooms-{resolution}.safetensors"
    with locked(path.with_suffix(".lock"), 0):
        try:
            kept = from_bytes(path.read_bytes())["maps"]
        except (OSError, ValueError):
            kept = torch.stack([_maps(s, t, a, resolution) for s in range(SIZES) for t in range(TYPES) for a in range(AZIMUTHS)]).half()
            try:
                write_whole(path, to_bytes({"maps": kept}))
            except OSError:
                pass  # a read-only home: computed again next time
    maps: Tensor = kept.float()
    return maps


def _maps(size: int, kind: int, azimuth: int, side: int) -> Tensor:
    s = 0.5 + 0.5 * size / 7
    start, direction = _rays(azimuth, side)
    wall_distance, wall_normal = _walls(start, direction)
    floor_distance = torch.where(direction[:, 1] < 0, -start[1] / direction[:, 1], torch.inf)
    object_distance, object_normal = _object(kind, s, start.expand_as(direction), direction)
    nearest = torch.stack([floor_distance, wall_distance, object_distance]).argmin(0)
    lit = torch.stack([LIGHT[1].expand(len(direction)), wall_normal @ LIGHT, object_normal @ LIGHT]).clamp(min=0)
    shade = 0.35 + 0.65 * lit
    ground = start + floor_distance.nan_to_num(0, 0, 0)[:, None] * direction + 1e-4 * LIGHT
    shadowed = torch.isfinite(_object(kind, s, ground, LIGHT.expand_as(ground))[0])
    shade[0] = torch.where(shadowed, shade[0] / 2, shade[0])
    seen = torch.stack([torch.where(nearest == part, shade[part], 0.0) for part in range(3)])
    return seen.view(3, side, SUB, side, SUB).mean((2, 4)).flatten(1)


def _rays(azimuth: int, side: int) -> tuple[Tensor, Tensor]:
    """Return the camera's place [3] and the direction of every sub-sample's ray [rays, 3]."""
    phi = math.radians(-30 + 60 * azimuth / 14)
    eye = torch.tensor([4.5 * math.sin(phi), 2.4, 4.5 * math.cos(phi)], dtype=torch.float64)
    unit = torch.nn.functional.normalize
    w = unit(eye - torch.tensor([0, 0.6, 0], dtype=torch.float64), dim=0)
    right = unit(torch.linalg.cross(torch.tensor([0, 1.0, 0], dtype=torch.float64), w), dim=0)
    up = torch.linalg.cross(w, right)
    n = SUB * side
    at = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 - 1
    b, a = torch.meshgrid(-at, at, indexing="ij")
    t = math.tan(math.radians(25))
    return eye, unit(-w + t * (a.reshape(-1, 1) * right + b.reshape(-1, 1) * up), dim=1)


def _walls(start: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return distance to the nearest of the walls x = ±5, z = ±5 and its normal towards the room."""
    distances = torch.stack([torch.where(direction[:, k] != 0, (5 * direction[:, k].sign() - start[k]) / direction[:, k], torch.inf) for k in (0, 2)])
    distance, which = distances.min(0)
    normal = torch.zeros_like(direction)
    for k, axis in enumerate((0, 2)):
        normal[:, axis] = torch.where(which == k, -direction[:, axis].sign(), 0.0)
    return distance, normal


def _object(kind: int, s: float, start: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return distance [rays] (infinite: no hit) and normal [rays, 3] of the object: 0 cube, 1 cylinder, 2 sphere, 3 capsule."""
    if kind == 0:
        return _cube(s, start, direction)
    if kind == 1:
        return _nearest(_tube(s, 0.0, 2 * s, start, direction), _disk(s, 2 * s, start, direction), _disk(s, 0.0, start, direction))
    if kind == 2:
        return _ball(s, s, start, direction)
    r = 0.6 * s
    return _nearest(_tube(r, r, 2 * s - r, start, direction), _ball(r, r, start, direction), _ball(r, 2 * s - r, start, direction))


def _nearest(*hits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    distance, normal = hits[0]
    for d, n in hits[1:]:
        closer = d < distance
        distance, normal = torch.where(closer, d, distance), torch.where(closer[:, None], n, normal)
    return distance, normal


def _cube(s: float, start: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    low, high = torch.tensor([-s, 0.0, -s], dtype=torch.float64), torch.tensor([s, 2 * s, s], dtype=torch.float64)
    safe = torch.where(direction == 0, 1e-12, direction)
    a, b = (low - start) / safe, (high - start) / safe
    enter, face = torch.minimum(a, b).max(1)
    leave = torch.maximum(a, b).amin(1)
    normal = torch.zeros_like(direction).scatter_(1, face[:, None], -direction.gather(1, face[:, None]).sign())
    return torch.where((enter <= leave) & (enter > 0), enter, torch.inf), normal


def _tube(r: float, low: float, high: float, start: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The side of an upright cylinder of radius r between two heights."""
    a = direction[:, 0].square() + direction[:, 2].square()
    half_b = start[:, 0] * direction[:, 0] + start[:, 2] * direction[:, 2]
    c = start[:, 0].square() + start[:, 2].square() - r * r
    root = half_b.square() - a * c
    distance = (-half_b - root.clamp(min=0).sqrt()) / a.clamp(min=1e-12)
    height = start[:, 1] + distance * direction[:, 1]
    hit = (root >= 0) & (a > 0) & (distance > 0) & (height >= low) & (height <= high)
    point = start + distance[:, None] * direction
    normal = torch.stack([point[:, 0] / r, torch.zeros_like(distance), point[:, 2] / r], 1)
    return torch.where(hit, distance, torch.inf), normal


def _disk(r: float, height: float, start: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    distance = (height - start[:, 1]) / torch.where(direction[:, 1] == 0, 1e-12, direction[:, 1])
    point = start + distance[:, None] * direction
    hit = (distance > 0) & (point[:, 0].square() + point[:, 2].square() <= r * r)
    normal = torch.zeros_like(direction)
    normal[:, 1] = -direction[:, 1].sign()
    return torch.where(hit, distance, torch.inf), normal


def _ball(r: float, height: float, start: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    centre = torch.tensor([0.0, height, 0.0], dtype=torch.float64)
    out = start - centre
    half_b, c = (out * direction).sum(1), out.square().sum(1) - r * r
    root = half_b.square() - c
    distance = -half_b - root.clamp(min=0).sqrt()
    point = start + distance[:, None] * direction
    return torch.where((root >= 0) & (distance > 0), distance, torch.inf), (point - centre) / r
