"""Tasks on worlds whose factors are known: trained on a part of the factor grid, judged where values or combinations are new (spec 14)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from elsewhere.data import find
from elsewhere.errors import UserError
from elsewhere.factors.task import CHOICES, factor_task
from elsewhere.factors.world import FactorImages, World
from elsewhere.images import worlds
from elsewhere.images.pictures import touched
from elsewhere.task import Task, TaskFunction, task

LEARNERS = ("prior", "ridge-regression", "cnn", "beta-vae")


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
def _table(
    folder: str,
    table: str,
    kept: tuple[str, ...],
    categorical: tuple[str, ...],
    side: int | None,
    mark: Any,
) -> World:
    return worlds.factor_table(folder, table, kept, categorical, side)


@task("factor-table", revision=2, choices=CHOICES, files=("folder", "table"), learners=LEARNERS, reader="pictures")
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
    mark = (touched(folder), touched(Path(folder) / table))
    return factor_task(_table(folder, table, named[0], named[1], side, mark), split, seed, fraction=fraction, train_images=train_images, full=full)
