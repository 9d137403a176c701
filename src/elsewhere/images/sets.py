"""Whole sets of pictures as sources: torchvision's, and Parquet files as data hubs lay them out; judged at home and under common corruptions."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from elsewhere.data import Array, Examples, find, root
from elsewhere.errors import UserError, did_you_mean, one_line
from elsewhere.images.attacks import adversarial
from elsewhere.images.corruptions import SEVERITIES
from elsewhere.images.folders import stress_domains
from elsewhere.metrics import classification_metrics
from elsewhere.run import Run
from elsewhere.splitting import held_out
from elsewhere.task import Domain, Source, Task, task

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def torchvision_set(name: str, folder: str | os.PathLike[str], side: int | None = None, **options: Any) -> Examples:
    """Return any of torchvision's sets of labelled pictures as bytes [n, channels, height, width].

    Args:
        name: of the class in ``torchvision.datasets``.
        folder: where its files lie.
        side: pictures are resized and cropped to it; needed where they have several sizes.
        options: of that class: ``train=False``, ``split="test"``, ``download=True`` …
    """
    from torchvision import datasets

    kind = getattr(datasets, name, None)
    if not isinstance(kind, type):
        raise UserError(f"torchvision has no data set {name!r}{did_you_mean(name, [n for n in dir(datasets) if n[0].isupper()])}")
    try:
        held: Any = kind(str(folder), **options)
    except (RuntimeError, OSError, TypeError, ValueError) as error:
        raise UserError(f"torchvision's {name} cannot be read from {folder}: {one_line(error)}") from error
    array = getattr(held, "data", None)
    if array is not None and hasattr(array, "shape") and side is None:
        images, labels = _first_channels(np.asarray(array)), np.asarray(held.targets if hasattr(held, "targets") else held.labels)
    else:
        images, labels = _drawn_one_by_one(held, side)
    labels = labels[:, 0] if labels.ndim == 2 else labels
    names = getattr(held, "classes", None) or [str(k) for k in range(int(labels.max()) + 1)]
    return Examples(images, labels.astype(np.int64), {"id": np.arange(len(labels))}, tuple(map(str, names)))


def _first_channels(images: Array) -> Array:
    if images.ndim == 3:
        return np.ascontiguousarray(images[:, None])
    return np.ascontiguousarray(images if images.shape[1] in (1, 3) else images.transpose(0, 3, 1, 2))


def _drawn_one_by_one(held: Any, side: int | None) -> tuple[Array, Array]:
    from elsewhere.images.pictures import as_array, stacked

    pairs = [held[k] for k in range(len(held))]
    return stacked([as_array(picture, side) for picture, _ in pairs]), np.array([int(label) for _, label in pairs])


def parquet_set(path: str | os.PathLike[str], image: str = "img", label: str = "label", classes: Sequence[str] | None = None, side: int | None = None) -> Examples:
    """Return labelled pictures of a Parquet file whose column ``image`` holds encoded bytes (or structs with ``bytes``), as data hubs lay them out."""
    import pyarrow.parquet as pq
    from PIL import Image, UnidentifiedImageError

    from elsewhere.images.pictures import as_array, stacked

    try:
        table = pq.read_table(path, columns=[image, label])
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} cannot be read as pictures: {one_line(error, 120)}") from error
    held = table[image].combine_chunks()
    encoded = [row["bytes"] if isinstance(row, dict) else row for row in held.to_pylist()]

    def one(content: bytes) -> Array:
        with Image.open(io.BytesIO(content)) as picture:
            return as_array(picture, side)

    try:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            images = stacked(list(pool.map(one, encoded)))
    except (UnidentifiedImageError, OSError, TypeError) as error:
        raise UserError(f"{path}: column {image!r} holds no pictures: {one_line(error, 80)}") from error
    labels = table[label].to_numpy().astype(np.int64)
    names = tuple(classes) if classes is not None else tuple(str(k) for k in range(int(labels.max()) + 1))
    return Examples(images, labels, {"id": np.arange(len(labels))}, names)


@lru_cache(maxsize=4)
def _torchvision(name: str, folder: str, side: int | None, part: str) -> Examples:
    told: dict[str, Any] = {"split": part} if name in ("SVHN", "STL10", "GTSRB", "Flowers102", "Food101", "PCAM") else {"train": part == "train"}
    return torchvision_set(name, folder, side, **told)


@lru_cache(maxsize=2)
def _parquet(path: str, side: int | None) -> Examples:
    return parquet_set(path, classes=CIFAR10, side=side)


@task("torchvision", files=("path",), learners=("prior", "linear-probe:backbone=random-conv", "cnn"), reader="pictures")
def torchvision(
    seed: int = 0,
    name: str = "CIFAR10",
    path: str | None = None,
    side: int | None = None,
    corruptions: str | Sequence[str] = "all",
    severities: int | Sequence[int] = SEVERITIES,
    train_images: int | None = None,
    test_images: int = 1000,
    attacks: bool = False,
) -> Task[Examples]:
    """One of torchvision's sets: trained on its training part, judged on its test part and under common corruptions of that."""
    folder = os.fspath(path or root() / "torchvision")
    return _corrupted(_torchvision(name, folder, side, "train"), _torchvision(name, folder, side, "test"), seed, corruptions, severities, train_images, test_images, attacks)


@task("cifar10-small", files=("path",), learners=("prior", "linear-probe:backbone=random-conv", "cnn"), reader="pictures")
def cifar10_small(
    seed: int = 0,
    path: str | None = None,
    corruptions: str | Sequence[str] = "all",
    severities: int | Sequence[int] = SEVERITIES,
    train_images: int | None = None,
    test_images: int = 1000,
    attacks: bool = False,
) -> Task[Examples]:
    """A balanced part of CIFAR-10 (``train.parquet``, ``test.parquet``): photographs at home and under common corruptions."""
    place = Path(path or find("cifar10-small", "save CIFAR-10 as train.parquet and test.parquet with columns img and label into that folder"))
    return _corrupted(_parquet(str(place / "train.parquet"), None), _parquet(str(place / "test.parquet"), None), seed, corruptions, severities, train_images, test_images, attacks)


def _corrupted(
    train: Examples, test: Examples, seed: int, corruptions: str | Sequence[str], severities: int | Sequence[int], train_images: int | None, test_images: int, attacks: bool
) -> Task[Examples]:
    run = Run(seed)
    train, test = _drawn(train, train_images, run, "train"), _drawn(test, test_images, run, "test")
    stop = held_out(train, 0.1, run.rng("validation split"))
    metrics = [*classification_metrics(classes=len(train.classes or ())), *([adversarial()] if attacks else [])]
    source = Source(train.take(np.flatnonzero(~stop)), train.take(np.flatnonzero(stop)))
    return Task(source, [Domain("home", test, "home"), *stress_domains(test, corruptions, severities, seed)], metrics, ("shift-decomposition",))


def _drawn(data: Examples, count: int | None, run: Run, part: str) -> Examples:
    if count is None or count >= len(data):
        return data
    if count < 1:
        raise UserError(f"{part}_images must be at least 1, not {count}")
    return data.take(np.flatnonzero(held_out(data, count / len(data), run.rng(f"{part} images"))))
