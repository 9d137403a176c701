"""Common corruptions at five severities, on whole batches of tensors (Hendrycks & Dietterich 2019; spec 01, 2.4).

Seventeen of the published types: glass blur (slow) and frost (needs pictures) are left out, as the assay's reference leaves
them out. Two sets of constants: ``imagenet`` for sides of 96 and more, ``small`` (those of CIFAR-10-C) below. What is drawn
depends on the seed, the type, the severity and the picture's own index, never on the batch. Spatter's water is simplified:
thresholded blurred noise, where the original follows edges.
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, interpolate, pad

from elsewhere.data import Array
from elsewhere.errors import UserError, did_you_mean
from elsewhere.images.shifts import blur, contrast, gaussian_matrix
from elsewhere.nn.augmentation import grey

SEVERITIES = (1, 3, 5)  # what an assay judges unless told
LARGE = 96  # sides from which the constants of ImageNet-C hold
BLOCK = 256


@dataclass(frozen=True)
class Drawn:
    """Random numbers of some pictures, by key and index: each picture has a counter-based generator of its own (Philox; Salmon et al. 2011)."""

    key: str
    index: Array

    def uniform(self, part: str, count: int) -> Tensor:
        return self._each(part, count, lambda rng, out, row: rng.random(out=out, dtype=np.float32))

    def normal(self, part: str, count: int) -> Tensor:
        return self._each(part, count, lambda rng, out, row: rng.standard_normal(out=out, dtype=np.float32))

    def poisson(self, part: str, rates: Array) -> Tensor:
        def fill(rng: np.random.Generator, out: Array, row: int) -> None:
            out[:] = rng.poisson(rates[row])

        return self._each(part, rates.shape[1], fill)

    def _each(self, part: str, count: int, fill: Callable[[np.random.Generator, Array, int], Any]) -> Tensor:
        word = int.from_bytes(hashlib.sha256(f"{self.key} {part}".encode()).digest()[:8], "big")
        out = np.empty((len(self.index), count), np.float32)
        for row, index in enumerate(np.asarray(self.index).tolist()):
            fill(np.random.Generator(np.random.Philox(key=[word, int(index)])), out[row], row)
        return torch.from_numpy(out)


Apply = Callable[[Tensor, Any, Drawn, bool], Tensor]  # pictures, constants of the severity, random numbers, whether the small set


@dataclass(frozen=True)
class Corruption:
    """A type of corruption: its definition, its constants at severities 1 to 5 in both sets, and what applies them."""

    definition: str
    imagenet: tuple[Any, ...]
    small: tuple[Any, ...]
    apply: Apply
    least_side: int = 1


def corrupt(images: Array | Tensor, name: str, severity: int, seed: int = 0, index: Array | None = None) -> Array:
    """Return corrupted pictures as float32 [n, channels, height, width] in 0..1.

    Args:
        images: [n, channels, height, width], bytes or 0..1.
        name: one of ``CORRUPTIONS``.
        severity: 1 to 5.
        seed: of what is drawn.
        index: [n] which picture each is; default: its position.

    Raises:
        UserError: no such type or severity, values outside 0..1, or pictures too small for its kernel.

    Examples:
        >>> x = np.full((2, 3, 32, 32), 128, np.uint8)
        >>> bool((corrupt(x, "fog", 3)[1] == corrupt(x[1:], "fog", 3, index=np.array([1]))[0]).all())
        True
    """
    (name,), (severity,) = checked([name], [severity])
    x = torch.from_numpy(np.array(images))
    if x.ndim != 4:
        raise UserError(f"pictures have shape [n, channels, height, width]; these have {list(x.shape)}")
    if x.dtype != torch.uint8 and len(x) and (float(x.min()) < 0 or float(x.max()) > 1):
        raise UserError(f"pictures have values in 0..1; these reach from {float(x.min()):g} to {float(x.max()):g}: pass bytes (uint8), or divide")
    chosen, side = CORRUPTIONS[name], min(x.shape[-2:])
    if side < chosen.least_side:
        raise UserError(f"{name} needs pictures of at least {chosen.least_side} × {chosen.least_side}; these are {x.shape[-2]} × {x.shape[-1]}")
    if name == "saturate" and x.shape[1] != 3:
        warnings.warn("saturate changes nothing on grey pictures", stacklevel=2)
    small = side < LARGE
    constants = (chosen.small if small else chosen.imagenet)[severity - 1]
    at = np.arange(len(x)) if index is None else np.asarray(index)
    out = np.empty(x.shape, np.float32)
    for start in range(0, len(x), BLOCK):
        part = x[start : start + BLOCK]
        part = part.float() / 255 if part.dtype == torch.uint8 else part.float()
        out[start : start + BLOCK] = chosen.apply(part, constants, Drawn(f"{seed} {name} {severity}", at[start : start + BLOCK]), small).clamp(0, 1).numpy()
    return out


def checked(names: str | Sequence[str], severities: int | Sequence[int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return names and severities as given, one or several, ``"all"`` as every name."""
    listed = [names] if isinstance(names, str) else list(names)
    listed = [n for name in listed for n in (CORRUPTIONS if name == "all" else [name])]
    levels = [severities] if isinstance(severities, int) else list(severities)
    for name in listed:
        if name not in CORRUPTIONS:
            raise UserError(f"no corruption {name!r}{did_you_mean(name, CORRUPTIONS)}")
    for severity in levels:
        if isinstance(severity, bool) or severity not in range(1, 6):
            raise UserError(f"severity must be 1 to 5, not {severity!r}")
    return tuple(listed), tuple(levels)


# --- noise ----------------------------------------------------------------------------------------------------------


def gaussian_noise(x: Tensor, sigma: float, drawn: Drawn, small: bool) -> Tensor:
    return x + sigma * drawn.normal("noise", x[0].numel()).view(x.shape)


def shot_noise(x: Tensor, photons: float, drawn: Drawn, small: bool) -> Tensor:
    return drawn.poisson("photons", photons * x.flatten(1).numpy()).view(x.shape) / photons


def impulse_noise(x: Tensor, share: float, drawn: Drawn, small: bool) -> Tensor:
    u = drawn.uniform("impulse", x[0].numel()).view(x.shape)
    return torch.where(u < share / 2, 0.0, torch.where(u < share, 1.0, x))


def speckle_noise(x: Tensor, sigma: float, drawn: Drawn, small: bool) -> Tensor:
    return x + x * sigma * drawn.normal("noise", x[0].numel()).view(x.shape)


# --- blur -----------------------------------------------------------------------------------------------------------


def defocus_blur(x: Tensor, constants: tuple[float, float], drawn: Drawn, small: bool) -> Tensor:
    kernel = disk(*constants)
    reach = kernel.shape[-1] // 2
    flat = pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="reflect")
    return conv2d(flat, kernel[None, None]).view(x.shape)


@cache
def disk(radius: float, edge: float) -> Tensor:
    """Return a disk's kernel, its edge softened by a Gaussian of 3 × 3 (5 × 5 above radius 8)."""
    reach = 8 if radius <= 8 else int(radius)
    at = torch.arange(-reach, reach + 1, dtype=torch.float64)
    inside = (at[:, None].square() + at[None].square() <= radius**2).double()
    half = 1 if radius <= 8 else 2
    taps = torch.exp(-torch.arange(-half, half + 1, dtype=torch.float64).square() / (2 * edge**2))
    taps = taps / taps.sum()
    padded = pad((inside / inside.sum())[None, None], (half,) * 4, mode="reflect")
    whole = conv2d(padded, (taps[:, None] * taps[None])[None, None])[0, 0].float()
    empty = int((whole[reach] != 0).float().argmax())  # small disks leave most of the square empty
    return whole[empty : len(whole) - empty, empty : len(whole) - empty]


def motion_blur(x: Tensor, constants: tuple[int, float], drawn: Drawn, small: bool) -> Tensor:
    return smeared(x, *constants, -45 + 90 * drawn.uniform("angle", 1)[:, 0])


def smeared(x: Tensor, radius: int, sigma: float, degrees: Tensor) -> Tensor:
    """Add up shifted copies along a direction [n], with the 2r + 1 weights of one side of a Gaussian; edges repeat."""
    n, _, h, w = x.shape
    width = 2 * radius + 1
    weight = torch.exp(-torch.arange(width, dtype=torch.float64).square() / (2 * sigma**2))
    weight = (weight / weight.sum()).float()
    angle = torch.deg2rad(degrees.double())
    out = torch.zeros_like(x)
    rows, columns, each = torch.arange(h), torch.arange(w), torch.arange(n)[:, None, None]
    last = x.permute(0, 2, 3, 1).contiguous()
    for i in range(width):
        dy, dx = -torch.ceil(i * angle.sin() - 0.5).long(), -torch.ceil(i * angle.cos() - 0.5).long()
        far = (dy.abs() >= h) | (dx.abs() >= w)
        y, z = (rows - dy[:, None]).clamp(0, h - 1), (columns - dx[:, None]).clamp(0, w - 1)
        share = torch.where(far, 0.0, weight[i]).view(-1, 1, 1, 1)
        out += share * last[each, y[:, :, None], z[:, None, :]].permute(0, 3, 1, 2)
    return out


def zoom_blur(x: Tensor, constants: tuple[float, int], drawn: Drawn, small: bool) -> Tensor:
    step, count = constants
    total = x.clone()
    for i in range(count):
        total += zoomed(x, 1 + step * i, centred=small)
    return total / (count + 1)


def zoomed(x: Tensor, factor: float, centred: bool) -> Tensor:
    """Enlarge the centre by a factor, linearly with corners aligned; of what is too large the first (or central) part is kept."""
    h, w = x.shape[-2:]
    ch, cw = math.ceil(h / factor), math.ceil(w / factor)
    top, left = (h - ch) // 2, (w - cw) // 2
    part = x[:, :, top : top + ch, left : left + cw]
    large = interpolate(part, (max(h, round(ch * factor)), max(w, round(cw * factor))), mode="bilinear", align_corners=True)
    y, z = ((large.shape[2] - h) // 2, (large.shape[3] - w) // 2) if centred else (0, 0)
    return large[:, :, y : y + h, z : z + w]


# --- weather --------------------------------------------------------------------------------------------------------


def snow(x: Tensor, constants: tuple[float, ...], drawn: Drawn, small: bool) -> Tensor:
    mean, sigma, zoom, threshold, radius, blur_sigma, mix = constants
    layer = mean + sigma * drawn.normal("flakes", x.shape[2] * x.shape[3]).view(len(x), 1, *x.shape[2:])
    layer = zoomed(layer, zoom, centred=small)
    layer = torch.where(layer < threshold, 0.0, layer).clamp(0, 1)
    layer = (255 * layer).floor() / 255
    layer = smeared(layer, int(radius), blur_sigma, -135 + 90 * drawn.uniform("angle", 1)[:, 0])
    bright = mix * x + (1 - mix) * torch.maximum(x, 1.5 * grey(x) + 0.5)
    return bright + layer + layer.flip((2, 3))


def fog(x: Tensor, constants: tuple[float, float], drawn: Drawn, small: bool) -> Tensor:
    amount, decay = constants
    side = 1 << max(1, math.ceil(math.log2(max(x.shape[2:]))))
    cloud = plasma(side, decay, drawn)[:, None, : x.shape[2], : x.shape[3]]
    most = x.amax((1, 2, 3), keepdim=True)
    return (x + amount * cloud) * most / (most + amount)


def plasma(side: int, decay: float, drawn: Drawn) -> Tensor:
    """Return height maps [n, side, side] in 0..1 by the diamond-square rule on a torus: the mean of four neighbours and a jitter, which is divided by ``decay`` each level."""
    z = torch.zeros(len(drawn.index), side, side)
    step, jitter = side, 100.0

    def filled(around: Tensor, part: str) -> Tensor:
        u = 2 * drawn.uniform(part, around[0].numel()).view(around.shape) - 1
        return around / 4 + jitter * jitter * u

    while step >= 2:
        half = step // 2
        corners = z[:, ::step, ::step]
        square = corners + corners.roll(-1, 1)
        z[:, half::step, half::step] = filled(square + square.roll(-1, 2), f"squares {step}")
        middle = z[:, half::step, half::step]
        z[:, ::step, half::step] = filled(middle + middle.roll(1, 1) + corners + corners.roll(-1, 2), f"tops {step}")
        z[:, half::step, ::step] = filled(middle + middle.roll(1, 2) + corners + corners.roll(-1, 1), f"sides {step}")
        step, jitter = half, jitter / decay
    z = z - z.amin((1, 2), keepdim=True)
    return z / z.amax((1, 2), keepdim=True).clamp(min=1e-12)


def spatter(x: Tensor, constants: tuple[float, ...], drawn: Drawn, small: bool) -> Tensor:
    mean, sigma, blur_sigma, threshold, strength, mud = constants
    liquid = mean + sigma * drawn.normal("drops", x.shape[2] * x.shape[3]).view(len(x), 1, *x.shape[2:])
    liquid = blur(liquid, blur_sigma)
    colour = torch.tensor((63, 42, 20) if mud else (175, 238, 238)).view(1, 3, 1, 1) / 255
    colour = colour if x.shape[1] == 3 else grey(colour)
    if not mud:
        return x + torch.where(liquid < threshold, 0.0, liquid) * strength * colour
    mask = blur((liquid > threshold).float(), strength)
    mask = torch.where(mask < 0.8, 0.0, mask)
    return x * (1 - mask) + colour * mask


# --- digital --------------------------------------------------------------------------------------------------------


def brightness(x: Tensor, amount: float, drawn: Drawn, small: bool) -> Tensor:
    """Add to the value of HSV, hue and saturation kept."""
    value = x.amax(1, keepdim=True)
    return torch.where(value > 0, x * ((value + amount).clamp(max=1) / value.clamp(min=1e-12)), amount)


def saturate(x: Tensor, constants: tuple[float, float], drawn: Drawn, small: bool) -> Tensor:
    """Scale the saturation of HSV and add to it, hue and value kept; grey pixels have hue 0."""
    if x.shape[1] != 3:
        return x
    factor, more = constants
    value, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    before = torch.where(value > 0, (value - least) / value.clamp(min=1e-12), 0.0)
    after = (before * factor + more).clamp(0, 1)
    coloured = value - (value - x) * (after / before.clamp(min=1e-12))
    red = torch.cat([value, value * (1 - after), value * (1 - after)], 1)
    return torch.where(before > 0, coloured, red)


def elastic(x: Tensor, constants: Any, drawn: Drawn, small: bool) -> Tensor:
    h, w = x.shape[-2:]
    side = min(h, w)
    if small:
        amplitude, sigma, affine = (side * c for c in constants)
        x = _jittered(x, affine, drawn)
        most = 1.0
    else:
        amplitude, sigma, most = float(constants), 0.01 * side, 0.005 * side
    if amplitude == 0:
        return x
    noise = most * (2 * drawn.uniform("field", 2 * h * w).view(len(x), 2, h, w) - 1)
    field = amplitude * _smooth(noise, sigma)
    y, z = torch.arange(h)[:, None] + field[:, 0], torch.arange(w)[None] + field[:, 1]
    grid = torch.stack([(2 * z + 1) / w - 1, (2 * y + 1) / h - 1], -1)
    return grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _smooth(x: Tensor, sigma: float) -> Tensor:
    """A Gaussian of reach 3σ; edges are mirrored with the edge pixel repeated."""
    reach = int(3 * sigma + 0.5)
    if sigma <= 0 or reach < 1:
        return x
    down, right = (gaussian_matrix(side, sigma, reach, "reflect").to(x.dtype) for side in x.shape[-2:])
    return down @ x @ right.T


def _jittered(x: Tensor, amount: float, drawn: Drawn) -> Tensor:
    """Move three points about the centre by up to ``amount`` pixels each and warp affinely with them; edges mirrored."""
    n, _, h, w = x.shape
    reach = min(h, w) // 3
    cx, cy = w // 2, h // 2
    before = torch.tensor([[cx + reach, cy + reach], [cx + reach, cy - reach], [cx - reach, cy - reach]], dtype=torch.float64)
    after = before + amount * (2 * drawn.uniform("affine", 6).view(n, 3, 2).double() - 1)
    ones = torch.ones(n, 3, 1, dtype=torch.float64)
    back = torch.linalg.solve(torch.cat([after, ones], 2), before.expand(n, 3, 2))  # where each pixel comes from: [n, 3, 2]
    y, z = torch.meshgrid(torch.arange(h, dtype=torch.float64), torch.arange(w, dtype=torch.float64), indexing="ij")
    at = torch.stack([z, y, torch.ones_like(y)], -1).view(1, -1, 3) @ back
    grid = (2 * at / torch.tensor([w - 1, h - 1], dtype=torch.float64) - 1).view(n, h, w, 2).float()
    return grid_sample(x, grid, padding_mode="reflection", align_corners=True)


def pixelate(x: Tensor, share: float, drawn: Drawn, small: bool) -> Tensor:
    h, w = x.shape[-2:]
    down = (max(1, int(h * share)), max(1, int(w * share)))
    low = box(down[0], h) @ x @ box(down[1], w).T
    low = (255 * low).round() / 255
    return low[:, :, _nearest(h, down[0])][..., _nearest(w, down[1])]


@cache
def box(to: int, of: int) -> Tensor:
    """Return the weights [to, of] of a box filter that shrinks a side, as PIL has it."""
    scale = of / to
    weights = torch.zeros(to, of, dtype=torch.float64)
    for i in range(to):
        centre = (i + 0.5) * scale
        at = torch.arange(max(0, int(centre - scale / 2 + 0.5)), min(of, int(centre + scale / 2 + 0.5)))
        inside = (at - centre + 0.5) / scale
        mine = ((inside > -0.5) & (inside <= 0.5)).double()
        weights[i, at] = mine / mine.sum()
    return weights.float()


def _nearest(to: int, of: int) -> Tensor:
    return ((torch.arange(to, dtype=torch.float64) + 0.5) * of / to).long().clamp(max=of - 1)


def jpeg(x: Tensor, quality: int, drawn: Drawn, small: bool) -> Tensor:
    from PIL import Image

    pictures = (255 * x).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    found = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(buffer, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(buffer)))
    out = torch.from_numpy(np.stack(found)).float() / 255
    return out[:, None] if out.ndim == 3 else out.permute(0, 3, 1, 2)


_DEFOCUS = (((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)), ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)))
_ZOOM = (((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11)), ((0.01, 7), (0.01, 12), (0.01, 16), (0.01, 21), (0.01, 26)))
_ELASTIC = ((12.5, 16.25, 21.25, 25.0, 30.0), ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)))
_SNOW_LARGE = ((0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7), (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55))
_SNOW_SMALL = ((0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9), (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8))
_SPATTER_LARGE = ((0.65, 0.3, 4, 0.69, 0.6, False), (0.65, 0.3, 3, 0.68, 0.6, False), (0.65, 0.3, 2, 0.68, 0.5, False), (0.65, 0.3, 1, 0.65, 1.5, True), (0.67, 0.4, 1, 0.65, 1.5, True))
_SPATTER_SMALL = ((0.62, 0.1, 0.7, 0.7, 0.5, False), (0.65, 0.1, 0.8, 0.7, 0.5, False), (0.65, 0.3, 1, 0.69, 0.5, False), (0.65, 0.1, 0.7, 0.69, 0.6, True), (0.65, 0.1, 0.5, 0.68, 0.6, True))

CORRUPTIONS = {
    "gaussian-noise": Corruption("x + σ z", (0.08, 0.12, 0.18, 0.26, 0.38), (0.04, 0.06, 0.08, 0.09, 0.10), gaussian_noise),
    "shot-noise": Corruption("Poisson(c x) / c", (60, 25, 12, 5, 3), (500, 250, 100, 75, 50), shot_noise),
    "impulse-noise": Corruption("a share of values set to 0 or 1", (0.03, 0.06, 0.09, 0.17, 0.27), (0.01, 0.02, 0.03, 0.05, 0.07), impulse_noise),
    "speckle-noise": Corruption("x + x σ z", (0.15, 0.2, 0.35, 0.45, 0.6), (0.06, 0.1, 0.12, 0.16, 0.2), speckle_noise),
    "gaussian-blur": Corruption("Gaussian of σ pixels, edges repeated", (1, 2, 3, 4, 6), (0.4, 0.6, 0.7, 0.8, 1), lambda x, c, drawn, small: blur(x, c)),
    "defocus-blur": Corruption("a disk of a radius, its edge softened", *_DEFOCUS, defocus_blur, 11),
    "motion-blur": Corruption("shifted copies along a drawn direction", ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)), ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)), motion_blur, 8),
    "zoom-blur": Corruption("the mean of x and zooms 1 + step i", *_ZOOM, zoom_blur, 8),
    "snow": Corruption("bright flakes, smeared", _SNOW_LARGE, _SNOW_SMALL, snow, 8),
    "fog": Corruption("(x + t plasma) m / (m + t), m the largest value", ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)), ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)), fog),
    "brightness": Corruption("value of HSV + c", (0.1, 0.2, 0.3, 0.4, 0.5), (0.05, 0.1, 0.15, 0.2, 0.3), brightness),
    "contrast": Corruption("(x - μ) c + μ, μ a channel's mean", (0.4, 0.3, 0.2, 0.1, 0.05), (0.75, 0.5, 0.4, 0.3, 0.15), lambda x, c, drawn, small: contrast(x, c)),
    "saturate": Corruption("saturation of HSV · a + b", ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)), ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)), saturate),
    "elastic": Corruption("a smooth random field moves pixels", *_ELASTIC, elastic, 8),
    "pixelate": Corruption("shrunk by a box filter, enlarged again", (0.6, 0.5, 0.4, 0.3, 0.25), (0.95, 0.9, 0.85, 0.75, 0.65), pixelate),
    "jpeg": Corruption("JPEG of a quality", (25, 18, 15, 10, 7), (80, 65, 58, 50, 40), jpeg),
    "spatter": Corruption("drops of water, then mud", _SPATTER_LARGE, _SPATTER_SMALL, spatter, 8),
}  # fmt: skip
