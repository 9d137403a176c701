"""Digits of many hands in one form, from the project's files, the original ones, torchvision's sets and folders of pictures."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from elsewhere.data import Array, Examples
from elsewhere.errors import UserError, did_you_mean, one_line
from elsewhere.images.pictures import picture_files, upright
from elsewhere.images.shifts import translate

CLASSES = tuple("0123456789")
WRITERS = ("employees", "students", "semeion", "pen", "optdigits")
_SERIES = {"employees": 0, "students": 4}  # of NIST SD-19: hsf_0 and hsf_4


def one_form(images: Array) -> Array:
    """Return digits as [n, 1, 28, 28] float32 in 0..1, as MNIST has them (spec 01, section 7).

    28 × 28: as they are. Any other side: bilinear to 20 × 20 with half-pixel centres (averaging when it shrinks), a border
    of 4, then moved by whole pixels so that the centre of mass rounds to (13.5, 13.5).

    Args:
        images: [n, height, width], light on dark, bytes or 0..1.
    """
    x = torch.from_numpy(np.array(images))  # a copy: pictures from files are not writable
    x = (x.float() / 255 if x.dtype == torch.uint8 else x.float())[:, None]
    if tuple(x.shape[2:]) == (28, 28):
        return x.numpy()
    x = functional.interpolate(x, (20, 20), mode="bilinear", align_corners=False, antialias=max(x.shape[2:]) > 20)
    return centred(functional.pad(x.clamp(0, 1), (4, 4, 4, 4)).numpy())


def centred(images: Array) -> Array:
    """Move each picture [n, 1, 28, 28] by whole pixels so that its centre of mass rounds to (13.5, 13.5)."""
    x = torch.as_tensor(images)
    mass = x.sum((1, 2, 3)).clamp(min=1e-12)
    place = torch.arange(x.shape[-1], dtype=x.dtype)
    down = torch.round(13.5 - (x.sum((1, 3)) @ place) / mass).long()
    right = torch.round(13.5 - (x.sum((1, 2)) @ place) / mass).long()
    return translate(x, down, right).numpy()


def drawn(points: Array) -> Array:
    """Draw pen strokes [n, 8, 2] (x, y in 0..100, y upwards) as [n, 1, 28, 28]: 1.6 minus the distance to the polyline, clipped to 0..1."""
    p = torch.from_numpy(np.array(points)).float()
    corner = torch.stack([24 - p[..., 1] / 5, 4 + p[..., 0] / 5], -1)  # row, column
    grid = torch.stack(torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij"), -1).view(1, 784, 2)
    out = torch.empty(len(p), 784)
    for start in range(0, len(p), 500):
        part = corner[start : start + 500]
        nearest = torch.full((len(part), 784), float("inf"))
        for a, b in zip(part.unbind(1), part[:, 1:].unbind(1), strict=False):
            along = (b - a)[:, None]
            t = (((grid - a[:, None]) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-12)).clamp(0, 1)
            nearest = torch.minimum(nearest, (grid - a[:, None] - t[..., None] * along).square().sum(-1))
        out[start : start + 500] = (1.6 - nearest.sqrt()).clamp(0, 1)
    return centred(out.view(-1, 1, 28, 28).numpy())


def optdigits() -> Examples:
    """Return scikit-learn's digits (1,797 of 43 people; Alpaydin & Kaynak 1998) in one form."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    return _examples(one_form(raw.images.astype(np.float32) / 16), raw.target, "optdigits")


def handwriting(path: str | os.PathLike[str], name: str) -> Examples:
    """Return one group of writers in one form: ``employees``, ``students``, ``semeion``, ``pen`` or ``optdigits``.

    Args:
        path: a folder with the project's ``.npz`` files, or with the original ones: ``t10k-images-idx3-ubyte`` beside
            ``qmnist-test-labels-idx2-int`` (both may end in .gz), ``semeion.data``, ``pendigits.tra`` and ``.tes``.
        name: of the group; ``optdigits`` comes with scikit-learn and needs no path.
    """
    if name not in WRITERS:
        raise UserError(f"no writers {name!r}{did_you_mean(name, WRITERS)}")
    return _handwriting(str(Path(path).resolve()), name)


@lru_cache(maxsize=8)
def _handwriting(path: str, name: str) -> Examples:
    if name == "optdigits":
        return optdigits()
    if name == "semeion":
        return _semeion(Path(path))
    if name == "pen":
        return _pen(Path(path))
    return _nist(Path(path), name)


def _nist(folder: Path, name: str) -> Examples:
    if (folder / "nist-test.npz").exists():
        held = _npz(folder / "nist-test.npz")
        images, labels, writer, mine = held["images"], held["label"], held["writer"], held["students"] == (name == "students")
    else:
        images = read_idx(_either(folder, "t10k-images-idx3-ubyte", "nist-test.npz"))
        told = read_idx(_either(folder, "qmnist-test-labels-idx2-int", "nist-test.npz"))[: len(images)]
        labels, writer, mine = told[:, 0], told[:, 2], told[:, 1] == _SERIES[name]
    return _examples(one_form(images[mine]), labels[mine], name, writer[mine])


def _semeion(folder: Path) -> Examples:
    if (folder / "semeion.npz").exists():
        held = _npz(folder / "semeion.npz")
        return _examples(one_form(held["images"].astype(np.float32)), held["label"], "semeion")
    table = _text(folder / "semeion.data", None, "semeion.npz")
    if table.shape[1] < 266:
        raise UserError(f"{folder / 'semeion.data'} has {table.shape[1]} columns; expected 256 pixels and 10 classes")
    return _examples(one_form(table[:, :256].reshape(-1, 16, 16).astype(np.float32)), table[:, 256:266].argmax(1), "semeion")


def _pen(folder: Path) -> Examples:
    if (folder / "pendigits.npz").exists():
        held = _npz(folder / "pendigits.npz")
        return _examples(drawn(held["points"]), held["label"], "pen")
    parts = [_text(folder / f"pendigits.{end}", ",", "pendigits.npz") for end in ("tra", "tes")]
    table = np.concatenate(parts)
    return _examples(drawn(table[:, :16].reshape(-1, 8, 2)), table[:, 16].astype(int), "pen")


def _examples(images: Array, labels: Array, name: str, writer: Array | None = None) -> Examples:
    columns: dict[str, Array] = {"id": np.arange(len(images)), "domain": np.full(len(images), name)}
    if writer is not None:
        columns["unit"] = np.asarray(writer)
    return Examples(images, np.asarray(labels).astype(np.int64), columns, CLASSES)


def _npz(path: Path) -> dict[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as held:
            return {k: held[k] for k in held.files}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from error


def _either(folder: Path, name: str, ours: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.exists():
            return path
    raise UserError(f"{folder} has neither {ours} nor {name}(.gz): download the original, or say where it lies with path= or --data")


def _text(path: Path, separator: str | None, ours: str) -> Array:
    if not path.exists():
        raise UserError(f"{path.parent} has neither {ours} nor {path.name}: download it from the UCI repository, or say where it lies with path= or --data")
    try:
        return np.loadtxt(path, delimiter=separator, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path} cannot be read: {one_line(error)}") from error


def read_idx(path: str | os.PathLike[str]) -> Array:
    """Read an IDX file (MNIST's format), perhaps gzipped."""
    place = Path(path)
    opened: Callable[..., Any] = gzip.open if place.suffix == ".gz" else open
    kinds = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
    try:
        with opened(place, "rb") as file:
            content = file.read()
        zero, kind, dimensions = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{dimensions}I", content[4 : 4 + 4 * dimensions])
        if zero or kind not in kinds:
            raise ValueError("it does not begin as an IDX file does")
        return np.frombuffer(content, kinds[kind], offset=4 + 4 * dimensions).reshape(shape).astype(kinds[kind][1:])
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise UserError(f"{place} cannot be read: {one_line(error)}") from error


def from_torchvision(name: str, root: str | os.PathLike[str], download: bool = False, **options: Any) -> Examples:
    """Return one of torchvision's sets of digits (``MNIST``, ``USPS``, ``SVHN``, ``EMNIST``, ``QMNIST`` …) in one form.

    Args:
        name: of the class in ``torchvision.datasets``.
        root: where its files lie, or go with ``download``.
        options: of that class: ``train=False``, ``split="test"`` …
    """
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    if not isinstance(kind, type):
        raise UserError(f"torchvision has no data set {name!r}{did_you_mean(name, [n for n in dir(datasets) if n[0].isupper()])}")
    try:
        held = kind(str(root), download=download, **options)
    except (RuntimeError, OSError, TypeError) as error:
        raise UserError(f"torchvision's {name} cannot be read from {root}: {one_line(error)}") from error
    images = np.asarray(held.data)
    if name == "EMNIST":  # its files hold columns first, and torchvision leaves them so
        images = images.swapaxes(1, 2)
    if images.ndim == 4:  # colour: channels first or last
        images = images.mean(1 if images.shape[1] == 3 else 3).astype(np.uint8)
    labels = np.asarray(held.targets if hasattr(held, "targets") else held.labels)
    labels = labels[:, 0] if labels.ndim == 2 else labels
    if labels.max() > 9:
        raise UserError(f"torchvision's {name} has labels up to {labels.max()}: no digits")
    return _examples(one_form(images), labels, name.lower())


def read_pictures(path: str | os.PathLike[str]) -> tuple[list[str], Array]:
    """Read a picture, or every picture below a folder in order of name, as grey [n, height, width] bytes light on dark as they are.

    Raises:
        UserError: none is there, or one cannot be read (it is named).
    """
    from PIL import Image, UnidentifiedImageError

    names, files = picture_files(path)
    found = []
    for file in files:
        try:
            with file.open("rb") as handle, Image.open(handle) as picture:
                found.append(np.asarray(upright(picture, str(file)).convert("L")))
        except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
            raise UserError(f"{file} cannot be read as a picture: {one_line(error, 80)}") from error
    return names, _stacked(found)


def _stacked(pictures: Sequence[Array]) -> Array:
    """Return pictures of one size as one array; of several sizes, each in one form first."""
    if len({p.shape for p in pictures}) == 1:
        return np.stack(pictures)
    return np.concatenate([np.round(255 * one_form(p[None])[:, 0]).astype(np.uint8) for p in pictures])
