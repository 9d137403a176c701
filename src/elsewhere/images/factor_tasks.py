"""Tasks on worlds whose factors are known: trained on a part of the factor grid, judged where values or combinations are new (spec 14)."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np

from elsewhere.data import Array, find
from elsewhere.errors import UserError
from elsewhere.images import worlds
from elsewhere.images.factors import SPLITS, Split, split
from elsewhere.images.metrics import NEW, factor_metrics
from elsewhere.images.worlds import FactorImages, World
from elsewhere.run import Run
from elsewhere.task import Domain, Source, Task, TaskFunction, task

VALIDATION_SHARE = HOME_SHARE = 0.05
MOST = 20_000  # test images of a domain that are scored: the standard error of R² is below .01
KEPT = 1 << 26  # bytes of a domain's images up to which they are drawn once a task
LEARNERS = ("prior", "ridge-regression", "cnn", "beta-vae")
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


@task("sprites", choices=CHOICES, learners=LEARNERS, reader="pictures")
def sprites(
    seed: int = 0,
    split: str = "extrapolation",
    resolution: int = 32,
    whole: bool = False,
    orientations: int | None = None,
    fraction: float | None = None,
    train_images: int | None = None,
    full: bool = False,
) -> Task[FactorImages]:
    """Sprites drawn as in dSprites: 46,080 images of 32 × 32 (``whole``: dSprites' own 737,280)."""
    return factor_task(worlds.sprites(resolution, whole, orientations), split, seed, fraction=fraction, train_images=train_images, full=full)


@task("rooms", choices=CHOICES, learners=LEARNERS, reader="pictures")
def rooms(seed: int = 0, split: str = "extrapolation", resolution: int = 32, fraction: float | None = None, train_images: int | None = 20_000, full: bool = False) -> Task[FactorImages]:
    """Coloured rooms with the factors of Shapes3D, drawn; 20,000 training images unless told."""
    return factor_task(worlds.rooms(resolution), split, seed, fraction=fraction, train_images=train_images, full=full)


def _published(name: str, file: str, read: Callable[..., World], help: str) -> TaskFunction:
    @lru_cache(maxsize=2)
    def opened(path: str, options: tuple[tuple[str, Any], ...]) -> World:
        return read(path, **dict(options))

    def make(
        seed: int = 0, split: str = "extrapolation", path: str | None = None, orientations: int | None = None, fraction: float | None = None, train_images: int | None = None, full: bool = False
    ) -> Task[FactorImages]:
        options: dict[str, Any] = {} if orientations is None else {"orientations": orientations}
        place = os.fspath(path or find(file, "docs/rooms/images.md says where to get it"))
        return factor_task(opened(place, tuple(options.items())), split, seed, fraction=fraction, train_images=train_images, full=full)

    make.__doc__, make.__name__, make.__qualname__ = help, name, name
    return task(name, choices=CHOICES, files=("path",), learners=LEARNERS, reader="pictures")(make)


dsprites = _published("dsprites", "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz", worlds.dsprites, "dSprites, from its published file.")
shapes3d = _published("shapes3d", "3dshapes.h5", worlds.shapes3d, "Shapes3D, from its published file.")
mpi3d = _published("mpi3d", "mpi3d_real.npz", worlds.mpi3d, "MPI3D, from its published file.")
celebglow = _published("celebglow", "celebglow.npz", worlds.celebglow, "CelebGlow, from an array of its images.")


@lru_cache(maxsize=2)
def _table(folder: str, table: str, kept: tuple[str, ...], categorical: tuple[str, ...], side: int | None) -> World:
    return worlds.factor_table(folder, table, kept, categorical, side)


@task("factor-table", choices=CHOICES, files=("folder",), learners=LEARNERS, reader="pictures")
def factor_table(
    seed: int = 0,
    split: str = "extrapolation",
    folder: str | None = None,
    table: str = "factors.csv",
    kept: str | Sequence[str] = (),
    categorical: str | Sequence[str] = (),
    side: int | None = None,
    fraction: float | None = None,
    train_images: int | None = None,
    full: bool = False,
) -> Task[FactorImages]:
    """A folder of images and a CSV ``file, factor1, factor2, …`` beside them."""
    if folder is None:
        raise UserError("factor-table needs folder=FOLDER, with a table of factors in it")
    named = [(v,) if isinstance(v, str) else tuple(v) for v in (kept, categorical)]
    return factor_task(_table(folder, table, named[0], named[1], side), split, seed, fraction=fraction, train_images=train_images, full=full)
