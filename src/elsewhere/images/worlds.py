"""Worlds whose factors are known for every image: drawn, read from published files, or a user's own table of factors."""

from __future__ import annotations

import csv
import os
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError, did_you_mean, one_line
from elsewhere.factors.grid import Factors
from elsewhere.factors.world import FactorImages, World
from elsewhere.identity import digest
from elsewhere.images import rooms as room
from elsewhere.images import sprites as sprite
from elsewhere.images.pictures import bytes_of, decoded, stamp

# --- drawn ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def sprites(resolution: int = 32, full: bool = False, orientations: int | None = None) -> World:
    """Return the sprites world: 46,080 images of 3 shapes, 6 scales, 10 angles of a quarter circle, 16 × 16 places.

    Args:
        resolution: side of an image.
        full: dSprites' own grid of 737,280: 40 angles of the whole circle, 32 × 32 places. (Its angle 39 draws the same as angle 0,
            and squares and ellipses repeat: the angle cannot be told from the image. ``orientations=10`` takes the first ten.)
        orientations: only the first so many angles.
    """
    turns, places = (40, 32) if full else (10, 16)
    turns = orientations or turns
    factors = Factors(("shape", "scale", "orientation", "x", "y"), (3, 6, turns, places, places), ("shape",))

    def draw(rows: Array) -> Array:
        v = factors.values(rows)
        return sprite.draw(v[:, 0], 0.5 + v[:, 1] / 10, 2 * np.pi * v[:, 2] / 39, v[:, 3] / (places - 1), v[:, 4] / (places - 1), resolution)

    notes = ("Orientation 39 is orientation 0, squares repeat every quarter turn and ellipses every half: the angle cannot be told from the image.",)
    return World(f"sprites-{resolution}{'-full' if full else ''}-{turns}", factors, (1, resolution, resolution), draw, 0.2, notes=notes if turns == 40 else ())


SHAPES3D = Factors(("floor hue", "wall hue", "object hue", "size", "type", "azimuth"), (10, 10, 10, 8, 4, 15), ("type",))
MPI3D = Factors(("colour", "shape", "size", "height", "background", "x", "y"), (6, 6, 2, 3, 3, 40, 40), ("shape", "size"))
CELEBGLOW = Factors(("person", "smile", "blond", "age"), (1000, 6, 6, 6), ("person",))
DSPRITES = Factors(("shape", "scale", "orientation", "x", "y"), (3, 6, 40, 32, 32), ("shape",))


@lru_cache(maxsize=4)
def rooms(resolution: int = 32) -> World:
    """Return the rooms world: 480,000 coloured pictures with the factors of Shapes3D."""
    return World(f"rooms-{resolution}", SHAPES3D, (3, resolution, resolution), lambda rows: room.draw(SHAPES3D.values(rows), resolution), 0.15)


# --- published files ------------------------------------------------------------------------------------------------


def dsprites(path: str | os.PathLike[str], orientations: int | None = None) -> World:
    """Return dSprites from its published ``.npz``. Its ``metadata`` is a pickle and is never read.

    Args:
        path: of ``dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz``.
        orientations: only the first so many of the 40 angles; 10 leaves angles that can be told from the image.
    """
    images = _member(path, "imgs")
    _of_shape(path, images, (DSPRITES.count, 64, 64))
    bits = np.packbits(np.asarray(images, np.uint8).reshape(len(images), -1), axis=1)  # 378 MB instead of 3 GB
    factors = DSPRITES if orientations is None else replace(DSPRITES, sizes=(*DSPRITES.sizes[:2], orientations, *DSPRITES.sizes[3:]))
    return World(f"dsprites-{_mark(path)}-{orientations or 40}", factors, (1, 64, 64), lambda rows: _unpacked(bits, DSPRITES.rows(factors.values(rows))), 0.2)


def _unpacked(bits: Array, rows: Array) -> Array:
    return np.unpackbits(bits[rows], axis=1).reshape(-1, 1, 64, 64) * np.uint8(255)


def shapes3d(path: str | os.PathLike[str]) -> World:
    """Return Shapes3D from its published ``3dshapes.h5``, read by slices (h5py)."""
    try:
        import h5py  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except ImportError as error:
        raise UserError("Shapes3D is an HDF5 file: pip install 'elsewhere[vision]' (h5py)") from error
    try:
        images = h5py.File(path, "r")["images"]
    except (OSError, KeyError) as error:
        raise UserError(f"{path} is no Shapes3D file: {one_line(error, 80)}") from error
    _of_shape(path, images, (SHAPES3D.count, 64, 64, 3))

    def draw(rows: Array) -> Array:
        wanted, back = np.unique(rows, return_inverse=True)  # HDF5 wants them in order, once each
        return np.ascontiguousarray(images[wanted.tolist()][back].transpose(0, 3, 1, 2))

    return World(f"shapes3d-{_mark(path)}", SHAPES3D, (3, 64, 64), draw, 0.15)


def mpi3d(path: str | os.PathLike[str]) -> World:
    """Return MPI3D from its published ``mpi3d_real.npz`` (or the other two); it is unpacked beside itself once and memory-mapped."""
    return _channels_last(f"mpi3d-{_mark(path)}", path, "images", MPI3D, 0.1, None)


def celebglow(path: str | os.PathLike[str]) -> World:
    """Return CelebGlow from an ``.npy`` or ``.npz`` array [216000, 64, 64, 3]."""
    return _channels_last(f"celebglow-{_mark(path)}", path, None, CELEBGLOW, 0.3, 0.2)


def _channels_last(name: str, path: str | os.PathLike[str], key: str | None, factors: Factors, fraction: float, share: float | None) -> World:
    images = _mapped(path, key)
    images = images.reshape(-1, *images.shape[-3:])
    _of_shape(path, images, (factors.count, *images.shape[1:3], 3))
    if images.dtype != np.uint8:
        raise UserError(f"{path} holds images of {images.dtype}; expected bytes (uint8)")
    shape = (3, int(images.shape[1]), int(images.shape[2]))
    return World(name, factors, shape, lambda rows: np.ascontiguousarray(images[rows].transpose(0, 3, 1, 2)), fraction, composition_share=share)


def published_split(folder: str | os.PathLike[str], name: str, variant: str, part: str) -> FactorImages:
    """Return one part of a split as the paper publishes it (Zenodo 4835774, 4898937, 4899346, 5512188).

    Args:
        folder: with ``{name}_{variant}_{part}_images.npz`` (channels first) and ``…_labels.npz`` (integers), key ``arr_0``.
        name: dsprites, shapes3d, mpi3d or celebglow.
        variant: random, composition, interpolation or extrapolation.
        part: train or test.
    """
    known = {"dsprites": DSPRITES, "shapes3d": SHAPES3D, "mpi3d": MPI3D, "celebglow": CELEBGLOW}
    if name not in known:
        raise UserError(f"no published split of {name!r}{did_you_mean(name, known)}")
    files = [Path(folder) / f"{name}_{variant}_{part}_{what}.npz" for what in ("images", "labels")]
    images, labels = (_member(file, "arr_0") for file in files)
    if len(images) != len(labels) or labels.ndim != 2 or labels.shape[1] != len(known[name]):
        raise UserError(f"{files[1]} has labels of shape {list(labels.shape)} for {len(images)} images; expected [{len(images)}, {len(known[name])}]")
    values = labels.astype(np.int64)
    known[name].rows(values)  # labels that exceed the grid are told
    images = bytes_of(images, str(files[0]))
    return FactorImages(images, known[name].targets(values), {"id": np.arange(len(images))}, None, values, known[name])


def _member(path: str | os.PathLike[str], key: str) -> Array:
    try:
        with np.load(path, allow_pickle=False) as held:
            return np.asarray(held[key])
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}: docs/rooms/images.md says where to get it") from error
    except Exception as error:  # zipfile, zlib, numpy: each has kinds of its own for a truncated archive
        raise UserError(f"{path} cannot be read: {one_line(error, 80)}") from error


def _mapped(path: str | os.PathLike[str], key: str | None) -> Array:
    """Return an array of a file, memory-mapped: an archive is unpacked beside itself once."""
    place = Path(path)
    if place.suffix == ".npz":
        unpacked = place.with_suffix(".unpacked.npy")
        if not unpacked.exists() or unpacked.stat().st_mtime < place.stat().st_mtime:
            _unpack(place, f"{key or 'arr_0'}.npy", unpacked)
        place = unpacked
    try:
        return np.asanyarray(np.load(place, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error, 80)}") from error


def _unpack(place: Path, member: str, to: Path) -> None:
    """Copy a member of an archive to a file of its own, a block at a time: it may be larger than the memory."""
    aside = to.with_name(f".{to.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(place) as archive, archive.open(member) as packed, aside.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 24)
        os.replace(aside, to)
    except (OSError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{place} cannot be read: {one_line(error, 80)}") from error
    finally:
        aside.unlink(missing_ok=True)


def _of_shape(path: Any, images: Any, wanted: tuple[int, ...]) -> None:
    if tuple(images.shape) != wanted:
        raise UserError(f"{path} holds images of shape {list(images.shape)}; expected {list(wanted)}")


def _mark(path: str | os.PathLike[str]) -> str:
    """Return a short mark of a large file: its size and time, not its content."""
    stat = os.stat(path) if os.path.exists(path) else None
    return digest([str(Path(path).resolve()), None if stat is None else [stat.st_size, stat.st_mtime_ns]])[:8]


# --- a user's own ---------------------------------------------------------------------------------------------------


def factor_table(folder: str | os.PathLike[str], table: str | os.PathLike[str] = "factors.csv", kept: Sequence[str] = (), categorical: Sequence[str] = (), side: int | None = None) -> World:
    """Return a world of a folder of images and a CSV ``file, factor1, factor2, …``; the grid may have holes.

    Values are ranked to 0..n-1: numbers by size, names by the alphabet.

    Args:
        folder: where the files lie.
        table: the CSV, in the folder or by its own path.
        kept: factors that are never held out; default: the categorical ones and those with two values.
        categorical: factors whose values have no order; factors that hold text must be among them.
        side: images are resized to it; default: as they are, all of one size.
    """
    place = Path(folder) / table
    names, files, columns = _read_table(place)
    for name in (*kept, *categorical):
        if name not in names:
            raise UserError(f"{place} has no factor {name!r}{did_you_mean(name, names)}")
    values, sizes = [], []
    for name, column in zip(names, columns, strict=True):
        ranked = _ranked(name, column, name in categorical, place)
        values.append(ranked)
        sizes.append(int(ranked.max()) + 1)
    paths = [Path(folder) / f for f in files]
    if missing := [str(p) for p in paths if not p.exists()]:
        raise UserError(f"{len(missing)} of {len(paths)} files of {place} are missing, first {missing[0]}")
    two = [n for n, size in zip(names, sizes, strict=True) if size <= 2]
    factors = Factors(tuple(names), tuple(sizes), tuple(kept) or tuple(n for n in names if n in categorical or n in two), tuple(categorical))
    labels = np.stack(values, 1)
    twice = len(labels) - len(np.unique(labels, axis=0))
    images = decoded(paths, side)
    notes = [f"{twice} rows of {place.name} repeat the factors of another."] if twice else []
    return World(f"table-{_mark(place)}-{stamp(paths, side)}", factors, images.shape[1:], lambda rows: np.asarray(images[rows]), 0.2, labels, notes=tuple(notes))


def _read_table(place: Path) -> tuple[list[str], list[str], list[list[str]]]:
    try:
        with place.open(newline="") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        raise UserError(f"cannot read {place}: {error.strerror}") from error
    if len(rows) < 2 or "file" not in rows[0] or len(rows[0]) < 2:
        raise UserError(f"{place} needs a header file,factor1,factor2,… and rows; it has {len(rows)} lines")
    header = rows[0]
    if bad := [k for k, row in enumerate(rows[1:], 2) if len(row) != len(header)]:
        raise UserError(f"{place}: line {bad[0]} has {len(rows[bad[0] - 1])} fields; the header has {len(header)}")
    at = header.index("file")
    columns = [[row[k] for row in rows[1:]] for k in range(len(header)) if k != at]
    return [h for k, h in enumerate(header) if k != at], [row[at] for row in rows[1:]], columns


def _ranked(name: str, column: Sequence[str], categorical: bool, place: Path) -> Array:
    if categorical:
        return np.unique(np.array(column), return_inverse=True)[1]
    try:
        numbers = np.array([float(v) for v in column])
    except ValueError as error:
        raise UserError(f"{place}: factor {name!r} has values that are no numbers ({one_line(error, 60)}); declare it categorical, or repair it") from error
    return np.unique(numbers, return_inverse=True)[1]
