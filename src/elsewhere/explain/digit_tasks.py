"""Small worlds of digits where it is known which training examples hurt: wrong labels, wrong domains, a pool to choose from (spec 13, section 7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.errors import UserError
from elsewhere.metrics import classification_metrics
from elsewhere.task import Domain, Source, Task, task

CLASSES = tuple("0123456789")
LEARNERS = ("ridge-readout:random=512,ridge=1", "ridge-readout:random=512")
TRANSFORMS: dict[str, Callable[[Array], Array]] = {
    "upright": lambda x: x,
    "quarter turn": lambda x: np.rot90(x, 1, (1, 2)),
    "mirror": lambda x: x[:, :, ::-1],
    "negative": lambda x: 1 - x,
    "half turn": lambda x: np.rot90(x, 2, (1, 2)),
}


def _digits() -> tuple[Array, Array]:
    """Return scikit-learn's digits [1797, 8, 8] in 0..1 (Alpaydin & Kaynak 1998) and their labels."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    return raw.images / 16, raw.target


def _examples(images: Array, labels: Array, domain: str | Array, wrong: Array | None = None, rows: Array | None = None) -> Examples:
    columns: dict[str, Array] = {"domain": np.full(len(labels), domain) if isinstance(domain, str) else domain}
    columns |= {"wrong": np.zeros(len(labels), bool) if wrong is None else wrong}
    columns |= {} if rows is None else {"id": rows}
    return Examples(np.ascontiguousarray(images[:, None], np.float32), labels, columns, CLASSES)


def _joined(parts: list[Examples]) -> Examples:
    columns = {k: np.concatenate([p.columns[k] for p in parts]) for k in parts[0].columns}
    return Examples(np.concatenate([p.inputs for p in parts]), np.concatenate([np.asarray(p.labels) for p in parts]), columns, CLASSES)


@task("digits/noisy", learners=LEARNERS)
def noisy(seed: int = 0, noise: float = 0.2, kind: Literal["uniform", "pair"] = "uniform", clean: int = 0) -> Task[Examples]:
    """1,000 digits of which some have a wrong label: any of the nine others, or (pair) the next; 797 with right ones at home.

    ``clean`` of the 797 become the source's validation part instead, a judge with right labels. The column ``wrong`` says which labels were changed.
    """
    if kind not in ("uniform", "pair") or not 0 <= noise < 1:
        raise UserError(f"kind must be uniform or pair and noise at least 0 and below 1, not {kind!r} and {noise}")
    images, labels = _digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    train, test = order[:1000], order[1000:]
    wrong = rng.random(1000) < noise
    given = labels[train].copy()
    given[wrong] = (given[wrong] + (rng.integers(1, 10, wrong.sum()) if kind == "uniform" else 1)) % 10
    validation = _examples(images[test[:clean]], labels[test[:clean]], "home", rows=test[:clean]) if clean else None
    home = _examples(images[test[clean:]], labels[test[clean:]], "home", rows=test[clean:])
    return Task(Source(_examples(images[train], given, "home", wrong, train), validation), [Domain("home", home, "home")], classification_metrics(classes=10))


@task("digits/shifted", learners=LEARNERS)
def shifted(seed: int = 0, labelled: int = 100) -> Task[Examples]:
    """Five source domains of 200 digits (upright, quarter turn, mirror, negative, half turn); elsewhere they are upright, one column to the right and noisy.

    So many ``labelled`` examples of the place elsewhere lie in the source, as domain ``target``: use them as a judge.
    """
    images, labels = _digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    parts = [_examples(make(images[order[200 * k : 200 * k + 200]]), labels[order[200 * k : 200 * k + 200]], name) for k, (name, make) in enumerate(TRANSFORMS.items())]
    rest = order[1000:]
    moved = np.clip(np.roll(images[rest], 1, 2) + rng.normal(0, 0.1, (len(rest), 8, 8)), 0, 1)
    target = _examples(moved, labels[rest], "target")
    if not 0 <= labelled < len(rest):
        raise UserError(f"labelled must lie between 0 and {len(rest) - 1}, not {labelled}")
    held = [target.take(np.arange(labelled))] if labelled else []
    return Task(Source(_joined([*parts, *held])), [Domain("target", target.take(np.arange(labelled, len(rest))))], classification_metrics(classes=10))


@task("digits/pool", learners=LEARNERS)
def pool(seed: int = 0, core: int = 100, each: int = 150) -> Task[Examples]:
    """A core of upright noisy digits, and a pool of clean ones under five transforms: which of the pool help on more like the core?"""
    images, labels = _digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    if core + 5 * each + 100 > len(labels):
        raise UserError(f"{core} of the core and 5 × {each} of the pool leave fewer than 100 of {len(labels)} digits to judge by")

    def noisy_ones(rows: Array) -> Array:
        return np.clip(images[rows] + rng.normal(0, 0.15, (len(rows), 8, 8)), 0, 1)

    parts = [_examples(noisy_ones(order[:core]), labels[order[:core]], "core")]
    for k, (name, make) in enumerate(TRANSFORMS.items()):
        rows = order[core + each * k : core + each * (k + 1)]
        parts.append(_examples(make(images[rows]), labels[rows], name))
    test = order[-797:] if core + 5 * each <= 1000 else order[core + 5 * each :]
    return Task(Source(_joined(parts)), [Domain("home", _examples(noisy_ones(test), labels[test], "core"), "home")], classification_metrics(classes=10))


@task("digits/rotated", learners=LEARNERS)
def rotated(seed: int = 0, angle: float = 45.0) -> Task[Examples]:
    """Digits turned by -30, -15, 0, 15 and 30 degrees, 200 each; half of the labels of the last are the next digit. Elsewhere: 45 degrees, never seen."""
    from scipy.ndimage import rotate

    images, labels = _digits()
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    parts = []
    for k, degrees in enumerate((-30, -15, 0, 15, 30)):
        rows = order[200 * k : 200 * k + 200]
        wrong = (rng.random(200) < 0.5) & (degrees == 30)
        turned = rotate(images[rows], degrees, (1, 2), order=1, reshape=False)
        parts.append(_examples(turned, (labels[rows] + wrong) % 10, f"{degrees}°", wrong))
    there = rotate(images[order[1000:]], angle, (1, 2), order=1, reshape=False)
    return Task(Source(_joined(parts)), [Domain(f"{angle:g}°", _examples(there, labels[order[1000:]], f"{angle:g}°"))], classification_metrics(classes=10))
