"""faces-lite: drawn faces with a label (a smile), a group, and a cue of the group (long hair) that can be drawn the other way (spec 04, section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.errors import UserError
from elsewhere.metrics import classification_metrics
from elsewhere.task import Domain, Source, Task, task

CLASSES, GROUPS = ("serious", "smiling"), ("bob", "long")
BLOCK = 2000


@dataclass(frozen=True)
class Faces(Examples):
    """Faces that know how they would look with the other group's cue, all else equal: ``others`` [n, 1, side, side]."""

    others: Any = None

    def take(self, rows: Any) -> Self:
        taken = super().take(rows)
        return replace(taken, others=None if self.others is None else self.others[np.asarray(rows)])

    def counterfactual(self) -> Faces:
        """Return the same faces with the other hair: same latents, same noise."""
        return replace(self, inputs=self.others, others=self.inputs)


def faces(
    n: int,
    seed: int | Sequence[int] = 0,
    side: int = 16,
    cue: float = 0.95,
    rates: Sequence[float] = (0.65, 0.35),
    background: Sequence[float] = (0.1, 0.9),
    blur: float = 0.0,
) -> Faces:
    """Draw n faces.

    Args:
        seed: of everything drawn.
        side: pixels.
        cue: probability that the hair is the group's.
        rates: probability of a smile in each group.
        background: range of its grey.
        blur: deviation of a Gaussian, in pixels.

    Examples:
        >>> x = faces(4)
        >>> x.inputs.shape, x.counterfactual().counterfactual().inputs is x.inputs
        ((4, 1, 16, 16), True)
    """
    if n < 1 or side < 8 or not 0 <= cue <= 1:
        raise UserError(f"faces need at least 1 of them, 8 pixels and a cue between 0 and 1, not {n}, {side}, {cue}")
    rng = np.random.default_rng(seed)
    s = rng.integers(2, size=n)
    y = (rng.random(n) < np.asarray(rates, float)[s]).astype(int)
    g = np.where(rng.random(n) < cue, s, 1 - s)
    latents = {
        "cx": rng.uniform(-0.1, 0.1, n),
        "cy": rng.uniform(-0.1, 0.1, n),
        "bg": rng.uniform(background[0], background[1], n),
        "skin": rng.uniform(0.35, 0.85, n),
        "hair": rng.uniform(0, 1, n),
        "k": rng.normal(np.where(y == 1, 0.5, -0.5), 0.45),
    }
    images = [np.empty((n, 1, side, side), np.float32) for _ in range(2)]
    for start in range(0, n, BLOCK):
        part = slice(start, min(n, start + BLOCK))
        mine = {k: v[part] for k, v in latents.items()}
        noise = rng.normal(0, 0.04, (part.stop - start, side, side))
        for out, cued in zip(images, (g[part], 1 - g[part]), strict=True):
            out[part, 0] = _drawn(mine, cued, side, noise, blur)
    columns = {"group": np.array(GROUPS)[s], "cue": g, "domain": np.full(n, "home")}
    return Faces(images[0], y, columns, CLASSES, images[1])


def _drawn(z: dict[str, Array], g: Array, side: int, noise: Array, blur: float) -> Array:
    grid = (np.arange(side) + 0.5) / side * 2 - 1
    v = grid[None, :, None] - z["cy"][:, None, None]
    u = grid[None, None, :] - z["cx"][:, None, None]

    def soft(a: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-np.clip(a / 0.06, -60, 60))))

    image = np.broadcast_to(z["bg"][:, None, None], (len(g), side, side)).copy()

    def over(mask: Array, colour: Any) -> None:
        nonlocal image
        image = image * (1 - mask) + mask * (colour[:, None, None] if np.ndim(colour) else colour)

    over(soft(0.78 - np.sqrt(u**2 / 0.9 + (v + 0.05) ** 2)) * soft(-0.35 - v), z["hair"])
    over(g[:, None, None] * soft(0.14 - np.abs(np.abs(u) - 0.62)) * soft(0.55 - v) * soft(v + 0.4), z["hair"])
    over(soft(0.62 - np.sqrt((u / 0.85) ** 2 + v**2)), z["skin"])
    over(soft(0.06 - np.abs(v - 0.28 + 2 * z["k"][:, None, None] * (u**2 - 0.09))) * soft(0.32 - np.abs(u)), 0.05)
    for sign in (-1, 1):
        over(soft(0.08 - np.sqrt((u + sign * 0.22) ** 2 + (v + 0.15) ** 2)), 0.05)
    if blur > 0:
        from scipy.ndimage import gaussian_filter

        image = gaussian_filter(image, (0, blur, blur))
    return np.clip(image + noise, 0, 1)


ELSEWHERE: dict[str, dict[str, Any]] = {
    "weaker cue": {"cue": 0.7},
    "cue turned round": {"cue": 0.05},
    "equal base rates": {"rates": (0.5, 0.5)},
    "dark backgrounds": {"background": (0.0, 0.3)},
    "blurred": {"blur": 1.0},
}


@task("faces-lite", learners=("parity-regularised:penalty=0", "parity-regularised:penalty=20", "two-heads:slack=0.05"))
def faces_lite(seed: int = 0, train: int = 4000, validation: int = 3000, test: int = 3000, side: int = 16, places: Sequence[str] | str | None = None) -> Task[Examples]:
    """Is a drawn face smiling? Two groups smile at different rates and mostly differ in hair. Elsewhere the cue is weaker or turned round, base rates are equal, backgrounds dark, pictures blurred."""
    names = list(ELSEWHERE) if places is None else [places] if isinstance(places, str) else list(places)
    if unknown := [p for p in names if p not in ELSEWHERE]:
        raise UserError(f"no place {unknown[0]!r} for faces; there are {', '.join(ELSEWHERE)}")
    home: Domain[Examples] = Domain("home", faces(test, [seed, 2], side), "home")
    there: list[Domain[Examples]] = [Domain(name, _placed(faces(test, [seed, 3 + list(ELSEWHERE).index(name)], side, **ELSEWHERE[name]), name)) for name in names]
    return Task(Source(faces(train, [seed, 0], side), faces(validation, [seed, 1], side)), [home, *there], classification_metrics(True, 2))


def _placed(data: Faces, name: str) -> Faces:
    return replace(data, columns={**data.columns, "domain": np.full(len(data), name)})
