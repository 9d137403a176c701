"""The task of a world and a split: trained on a part of the factor grid, judged where values or combinations are new (spec 14)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, lru_cache

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.factors.grid import SPLITS, Split, split
from elsewhere.factors.metrics import NEW, factor_metrics
from elsewhere.factors.world import FactorImages, World
from elsewhere.run import Run
from elsewhere.task import Domain, Source, Task

VALIDATION_SHARE = HOME_SHARE = 0.05
MOST = 20_000  # test images of a domain that are scored: the standard error of R² is below .01
KEPT = 1 << 26  # bytes of a domain's images up to which they are drawn once a task
CHOICES = {"split": list(SPLITS)}
FINDINGS = ("factors",)


def factor_task(world: World, kind: str, seed: int = 0, *, fraction: float | None = None, train_images: int | None = None, full: bool = False) -> Task[FactorImages]:
    """Return the task of a world and a split: home is held out from the training part, ``all`` is the test part, ``only f new`` those images where f alone is new.

    Args:
        world: ``sprites()``, ``rooms()``, ``dsprites(path)`` … or ``factor_table(folder)``.
        kind: random, composition, interpolation or extrapolation.
        seed: draws home, the images to stop by, and the test images that are scored.
        fraction: of each factor's values that is held out; default: the world's own.
        train_images: so many training images at most, drawn.
        full: score every test image instead of 20,000 of each domain.
    """
    made, run = _split(world, kind, world.fraction if fraction is None else fraction), Run(seed)
    order = made.train[run.rng("split").permutation(len(made.train))]
    size = max(1, round(HOME_SHARE * len(order)))
    home, stop, rest = order[:size], order[size : 2 * size], order[2 * size :]
    if train_images is not None:
        if train_images < 1:
            raise UserError(f"train_images must be at least 1, not {train_images}")
        rest = rest[:train_images]
    if not len(rest):
        raise UserError(f"the {kind} split leaves {len(order)} training images, too few to hold some out as home: hold out a smaller fraction")
    train = world.examples(np.sort(rest))
    domains = [Domain("home", world.examples(np.sort(home)), "home", {"split": kind})]
    domains += [Domain("all", _drawn(world, made.test, run, "all", full), about={"split": kind})]
    for name, rows in made.one_factor.items():
        if len(rows):
            domains.append(Domain(f"only {name} new", _drawn(world, rows, run, name, full, name), about={"split": kind, "new": name}))
    targets = world.factors.targets(world.values(np.arange(len(world))))
    single = [f"Factor {n} has one value: it is left out of the mean." for n, size in zip(world.factors.names, world.factors.sizes, strict=True) if size == 1]
    metrics = factor_metrics(world.factors, made, targets, np.asarray(train.labels))
    return Task(Source(train, world.examples(np.sort(stop))), domains, metrics, FINDINGS, (*world.notes, *single, *made.notes))


def _drawn(world: World, rows: Array, run: Run, name: str, full: bool, new: str | None = None) -> Callable[[], FactorImages]:
    chosen = rows if full or len(rows) <= MOST else np.sort(run.rng(f"test {name}").choice(rows, MOST, replace=False))

    def make() -> FactorImages:
        data = world.examples(chosen)
        return data if new is None else replace(data, columns={**data.columns, NEW: np.full(len(data), new)})

    return cache(make) if len(chosen) * math.prod(world.shape) <= KEPT else make


@lru_cache(maxsize=16)
def _split(world: World, kind: str, fraction: float) -> Split:
    return split(world.factors, kind, fraction, world.labels, world.composition_share)
