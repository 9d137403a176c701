"""Pictures of known causal variables: balls, an optical bench, a pendulum and its shadow (spec 05, 7.4)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.factors.grid import Factors
from elsewhere.factors.world import World

BALL = ("x1", "y1", "x2", "y2", "x3", "y3")
BENCH = ("red", "green", "blue", "angle1", "angle2")
REACH = 0.4  # of a ball's centre from the middle
BLOCK = 2048


def balls(z: Array, size: int = 32, occlusion: bool = False) -> Array:
    """Draw balls at (½ + z_2b, ½ + z_2b+1) as uint8 [n, 3, size, size], each in a colour channel of its own.

    A pixel's value is σ((.08 - distance) / .02) at its centre. ``occlusion`` paints all balls into every channel, the later over the earlier, each
    in a colour of its own.

    Args:
        z: [n, 2 balls], |z| ≤ .4; one to three balls.
        size: side of a picture.

    Examples:
        >>> int(balls(np.zeros((1, 2)), 32)[0, 0, 16, 16])
        242
    """
    z = np.asarray(z, float)
    if z.ndim != 2 or z.shape[1] not in (2, 4, 6):
        raise UserError(f"balls need 2, 4 or 6 numbers an example, two a ball; got shape {list(z.shape)}")
    place = (np.arange(size) + 0.5) / size
    out = np.zeros((len(z), 3, size, size), np.uint8)
    for start in range(0, len(z), BLOCK):
        some = z[start : start + BLOCK]
        drawn = [_soft(0.08 - _distances(0.5 + some[:, 2 * b], 0.5 + some[:, 2 * b + 1], place)) for b in range(z.shape[1] // 2)]
        canvas = np.zeros((len(some), 3, size, size))
        for b, ball in enumerate(drawn):
            if occlusion:
                colour = np.array([[1.0, 0.3, 0.3], [0.3, 1.0, 0.3], [0.3, 0.3, 1.0]])[b]
                canvas = canvas * (1 - ball[:, None]) + ball[:, None] * colour[None, :, None, None]
            else:
                canvas[:, b] = ball
        out[start : start + BLOCK] = np.round(255 * canvas)
    return out


def bench(z: Array, size: int = 32, noise: float = 0.0, rng: np.random.Generator | None = None) -> Array:
    """Draw an optical bench as uint8 [n, 3, size, size]: a lamp (red, green, blue) seen through two polarisers (θ1, θ2), and their dials.

    A disc of radius .25 in the middle has the colour (r, g, b) cos²(θ1 - θ2); two dials of radius .12 at (.2, .2) and (.8, .2) have needles at their
    angles. At cos² = 0 the colour is gone: injective only almost everywhere, on purpose.

    Args:
        z: [n, 5] red, green, blue in 0..1, angles in degrees, |θ| ≤ 90.
        size: side of a picture.
        noise: deviation of normal noise on every pixel, of 1.
        rng: of the noise.

    Examples:
        >>> bench(np.array([[1.0, 0.5, 0.0, 0.0, 0.0]]))[0, :, 16, 16].tolist()
        [255, 127, 0]
    """
    z = np.asarray(z, float)
    if z.ndim != 2 or z.shape[1] != 5:
        raise UserError(f"the bench has 5 variables ({', '.join(BENCH)}); got shape {list(z.shape)}")
    place = (np.arange(size) + 0.5) / size
    rng = rng or np.random.default_rng(0)
    out = np.zeros((len(z), 3, size, size), np.uint8)
    for start in range(0, len(z), BLOCK):
        some = z[start : start + BLOCK]
        angle = np.deg2rad(some[:, 3:])
        colour = np.clip(some[:, :3], 0, 1) * np.square(np.cos(angle[:, 0] - angle[:, 1]))[:, None]
        middle = np.full(len(some), 0.5)
        disc = _soft(0.25 - _distances(middle, middle, place), 0.01)
        canvas = disc[:, None] * colour[:, :, None, None]
        for k, x in enumerate((0.2, 0.8)):
            dial = _dial(x, 0.2, angle[:, k], place)
            canvas = np.maximum(canvas, dial[:, None])
        if noise:
            canvas = canvas + noise * rng.normal(size=canvas.shape)
        out[start : start + BLOCK] = np.round(255 * np.clip(canvas, 0, 1))
    return out


def pendulum(z: Array, size: int = 64) -> Array:
    """Draw a pendulum, a light and the shadow on the ground as uint8 [n, 1, size, size], in the frame [-½, 1½]².

    Args:
        z: [n, 4] angle θ (radians), place of the light ℓ in [.35, .65], centre s and width w of the shadow (``shadow`` gives their mechanisms).
        size: side of a picture.

    Examples:
        >>> pendulum(pendulum_latents(2, np.random.default_rng(0)), 32).shape
        (2, 1, 32, 32)
    """
    z = np.asarray(z, float)
    if z.ndim != 2 or z.shape[1] != 4:
        raise UserError(f"the pendulum has 4 variables (angle, light, shadow, width); got shape {list(z.shape)}")
    place = 2 * (np.arange(size) + 0.5) / size - 0.5
    up = place[::-1]
    out = np.zeros((len(z), 1, size, size), np.uint8)
    for start in range(0, len(z), BLOCK):
        some = z[start : start + BLOCK]
        x, y = bob(some[:, 0])
        ball = _soft(0.08 - np.hypot(place[None, None] - x[:, None, None], up[None, :, None] - y[:, None, None]))
        rod = _soft(0.015 - _segment(place, up, np.full(len(some), 0.5), np.full(len(some), 0.8), x, y), 0.01)
        light = _soft(0.08 - np.hypot(place[None, None] - some[:, 1, None, None], up[None, :, None] - 1.0))
        ground = np.where(np.abs(up[None, :, None]) < 0.04, _soft(some[:, 3, None, None] / 2 - np.abs(place[None, None] - some[:, 2, None, None])), 0.0)
        out[start : start + BLOCK, 0] = np.round(255 * np.clip(np.maximum.reduce([ball, 0.5 * rod, light, 0.8 * ground]), 0, 1))
    return out


def bob(angle: Array) -> tuple[Array, Array]:
    """Return where the bob of the pendulum is: pivot (½, .8), length .35."""
    return 0.5 + 0.35 * np.sin(angle), 0.8 - 0.35 * np.cos(angle)


def shadow(angle: Array, light: Array) -> tuple[Array, Array]:
    """Return centre and width of the shadow of the bob by a light at (ℓ, 1): s = ℓ + (x_b - ℓ) / (1 - y_b), w = .05 / (1 - y_b)."""
    x, y = bob(np.asarray(angle, float))
    return light + (x - light) / (1 - y), 0.05 / (1 - y)


def pendulum_latents(size: int, rng: np.random.Generator, target: int | None = None) -> Array:
    """Draw the pendulum's variables [size, 4], mechanisms with noise N(0, .01²); ``target`` is set to a value of its own range instead."""
    z = np.empty((size, 4))
    z[:, 0], z[:, 1] = rng.uniform(-np.pi / 4, np.pi / 4, size), rng.uniform(0.35, 0.65, size)
    if target in (0, 1):
        z[:, target] = rng.uniform(np.pi / 8, np.pi / 3, size) if target == 0 else rng.uniform(0.6, 0.8, size)
    s, w = shadow(z[:, 0], z[:, 1])
    z[:, 2], z[:, 3] = s + 0.01 * rng.normal(size=size), np.abs(w + 0.01 * rng.normal(size=size))
    if target in (2, 3):
        z[:, target] = rng.uniform(0.9, 1.3, size) if target == 2 else rng.uniform(0.2, 0.3, size)
    return z


def _distances(x: Array, y: Array, place: Array) -> Array:
    return np.hypot(place[None, None] - x[:, None, None], place[None, :, None] - y[:, None, None])


def _soft(inside: Array, width: float = 0.02) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(inside / width, -60, 60))))


def _dial(x: float, y: float, angle: Array, place: Array) -> Array:
    middle = np.full(len(angle), 1.0)
    away = _distances(x * middle, y * middle, place)
    ring = _soft(0.015 - np.abs(away - 0.12), 0.008)
    tip = x + 0.11 * np.sin(angle), y - 0.11 * np.cos(angle)
    needle = _soft(0.015 - _segment(place, place, x * middle, y * middle, *tip), 0.008)
    return np.maximum(0.5 * ring, needle)


def _segment(across: Array, down: Array, x0: Array, y0: Array, x1: Array, y1: Array) -> Array:
    """Return distances [n, size, size] of pixels from segments."""
    dx, dy = (x1 - x0)[:, None, None], (y1 - y0)[:, None, None]
    px, py = across[None, None] - x0[:, None, None], down[None, :, None] - y0[:, None, None]
    along = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(px - along * dx, py - along * dy)


# --- as grids of factors --------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def balls_world(count: int = 2, values: int = 10, size: int = 32, occlusion: bool = False) -> World:
    """Return the grid of balls: places on ``values`` points in [-.4, .4]; every combination is a picture."""
    if not 1 <= count <= 3:
        raise UserError(f"there are one to three balls, a colour channel each, not {count}")
    factors = Factors(BALL[: 2 * count], (values,) * (2 * count))
    return World(f"balls-{count}-{values}-{size}-{occlusion}", factors, (3, size, size), lambda rows: balls(REACH * (2 * factors.targets(factors.values(rows)) - 1), size, occlusion), 0.2)


@lru_cache(maxsize=8)
def bench_world(values: int = 8, size: int = 32, noise: float = 0.0) -> World:
    """Return the grid of the bench: colours on ``values`` points in [.2, 1], angles in [-60, 60] degrees; the noise of a picture is always the same."""
    factors = Factors(BENCH, (values,) * 5)

    def draw(rows: Array) -> Array:
        t = factors.targets(factors.values(rows)).astype(float)
        z = np.concatenate([0.2 + 0.8 * t[:, :3], 120 * t[:, 3:] - 60], axis=1)
        if not noise:
            return bench(z, size)
        return np.concatenate([bench(one[None], size, noise, np.random.default_rng([int(r), 77])) for one, r in zip(z, rows, strict=True)])

    return World(f"bench-{values}-{size}-{noise}", factors, (3, size, size), draw, 0.25, composition_share=1.001 / values)
