"""Parts of data, drawn by seed: what is held out, and the few labels of a few-shot source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.errors import UserError
from elsewhere.run import Run


def held_out(data: Examples, share: float, rng: np.random.Generator) -> Array:
    """Return a mask [n]: ``share`` of the units, the same share within every domain and label (a number: by quintile).

    Units are shuffled, sorted by stratum, and every 1/share-th is taken from a random start, so that each stratum gets
    its share to within one unit.
    """
    labels = np.asarray(data.labels)
    if labels.ndim > 1:
        labels = np.zeros(len(data), int)  # several numbers an example: no stratum
    elif data.classes is None:
        labels = np.digitize(labels, np.quantile(labels, [0.2, 0.4, 0.6, 0.8]))
    unit = data.columns.get("unit", np.arange(len(data)))
    place = data.columns.get("domain", np.zeros(len(data), int))
    _, first, which = np.unique(unit, return_index=True, return_inverse=True)
    stratum = np.unique(place[first].astype(str), return_inverse=True)[1] * (labels.max() + 1) + labels[first]
    order = rng.permutation(len(first))
    order = order[np.argsort(stratum[order], kind="stable")]
    start = rng.random()
    position = np.arange(len(order))
    taken = np.empty(len(order), bool)
    taken[order] = np.floor((position + 1) * share + start) > np.floor(position * share + start)
    return np.asarray(taken[which])


def home_name(at_home: Sequence[str], everywhere: Sequence[str]) -> str:
    """Return what the held-out part of the source is called: its one domain, or "home" for several.

    Args:
        at_home: the domains that are trained on.
        everywhere: all domains; where one of them is called "home", another word is taken.

    Examples:
        >>> home_name(["CA"], ["CA", "TX"]), home_name(["CA", "TX"], ["CA", "home", "TX"])
        ('CA', 'held-out home')
    """
    name = at_home[0] if len(at_home) == 1 else "home"
    while len(at_home) > 1 and name in everywhere:
        name = f"held-out {name}"
    return name


def few_shot(data: Examples, samples: int | None, run: Run, order: Literal["drawn", "stored"] = "drawn") -> Examples:
    """Return ``samples`` examples of each class (spec 01: all of a class that has fewer), the same for every learner of a seed.

    Draws are nested: the 10 of a class are among its 100. ``order="stored"`` takes the first of each class as they are
    stored, as the assay's reference does.

    Examples:
        >>> data = Examples(np.arange(6), np.array([0, 0, 0, 0, 1, 1]), classes=("a", "b"))
        >>> few_shot(data, 3, Run(), "stored").inputs
        array([0, 1, 2, 4, 5])
    """
    if samples is None:
        return data
    if data.classes is None or data.labels is None:
        raise UserError("samples counts examples of a class, and this label is a number")
    if samples < 1:
        raise UserError(f"samples must be at least 1 of each class, not {samples}")
    ranked = run.rng("few-shot").permutation(len(data)) if order == "drawn" else np.arange(len(data))
    labels = np.asarray(data.labels)[ranked]
    taken = np.concatenate([ranked[labels == k][:samples] for k in np.unique(labels)])
    return data.take(np.sort(taken))
