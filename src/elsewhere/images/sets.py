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
from elsewhere.images.pictures import as_array, stacked
from elsewhere.metrics import classification_metrics
from elsewhere.pictures import Lazy
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
    if name == "EMNIST":  # its files hold columns first, and torchvision leaves them so
        images = np.ascontiguousarray(images.swapaxes(2, 3))
    labels = labels[:, 0] if labels.ndim == 2 else labels
    names = getattr(held, "classes", None) or [str(k) for k in range(int(labels.max()) + 1)]
    return Examples(images, labels.astype(np.int64), {"id": np.arange(len(labels))}, tuple(map(str, names)))


def _first_channels(images: Array) -> Array:
    if images.ndim == 3:
        return np.ascontiguousarray(images[:, None])
    return np.ascontiguousarray(images if images.shape[1] in (1, 3) else images.transpose(0, 3, 1, 2))


def _drawn_one_by_one(held: Any, side: int | None) -> tuple[Array, Array]:
    pairs = [held[k] for k in range(len(held))]
    return stacked([as_array(picture, side) for picture, _ in pairs]), np.array([int(label) for _, label in pairs])


def parquet_set(path: str | os.PathLike[str], image: str = "img", label: str = "label", classes: Sequence[str] | None = None, side: int | None = None) -> Examples:
    """Return labelled pictures of a Parquet file whose column ``image`` holds encoded bytes (or structs with ``bytes``), as data hubs lay them out."""
    import pyarrow.parquet as pq
    from PIL import Image, UnidentifiedImageError

    try:
        table = pq.read_table(path, columns=[image, label])
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"{path} cannot be read as pictures: {one_line(error, 120)}") from error
    held = table[image].combine_chunks()
    encoded = [row["bytes"] if isinstance(row, dict) else row for row in held.to_pylist()]

    def one(content: bytes) -> Array:
        with Image.open(io.BytesIO(content)) as picture:
            return as_array(picture, side, f"a picture of {path}")

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


@task("torchvision", revision=2, files=("path",), learners=("prior", "linear-probe:backbone=random-conv", "cnn"), reader="pictures")
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


@task("wilds", revision=2, files=("path",), learners=("prior", "linear-probe:backbone=torchvision:resnet18", "fine-tune"), reader="pictures")
def wilds(seed: int = 0, name: str = "camelyon17", path: str | None = None, side: int = 96) -> Task[Examples]:
    """A set of WILDS by its own package, with its official splits: trained in its places, judged at home and in its test places.

    Where the package has one held-out part at home, that part is halved into one to stop by and one to judge by (spec 01, 2.1).
    """
    try:
        from wilds import get_dataset  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise UserError("the sets of WILDS are read by their own package: pip install wilds") from error
    try:
        held = get_dataset(dataset=name, root_dir=os.fspath(path or root() / "wilds"), download=False)
    except (ValueError, OSError, FileNotFoundError) as error:
        raise UserError(f"WILDS' {name} cannot be read: {one_line(error, 120)}") from error
    known = held.split_dict
    parts = {part: _wilds_part(held, part, side) for part in ("train", "id_val", "id_test", "test") if part in known}
    if "id_val" in parts and "id_test" in parts:
        stop, home = parts["id_val"], parts["id_test"]
    else:
        only = parts.get("id_val", parts.get("id_test"))
        if only is None:
            raise UserError(f"WILDS' {name} has no held-out part at home (id_val or id_test)")
        half = held_out(only, 0.5, Run(seed).rng("home"))
        stop, home = only.take(np.flatnonzero(~half)), only.take(np.flatnonzero(half))
    metrics = classification_metrics(classes=len(home.classes or ()))
    return Task(Source(parts["train"], stop), [Domain("home", home, "home"), Domain("test", parts["test"])], metrics, ("shift-decomposition",))


def _wilds_part(held: Any, part: str, side: int) -> Examples:
    subset = held.get_subset(part)
    labels = np.asarray(subset.y_array).astype(np.int64).reshape(-1)

    def one(row: Any) -> Array:
        picture = as_array(subset[int(row)][0], side)
        return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)

    def read(rows: Array) -> Array:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            return np.stack(list(pool.map(one, rows))).transpose(0, 3, 1, 2)

    pictures = Lazy(read, (3, side, side), np.arange(len(labels)), f"wilds {getattr(held, 'dataset_name', '')} {part} {side}")
    return Examples(pictures, labels, {"id": np.arange(len(labels))}, tuple(str(k) for k in range(int(held.n_classes))))


def _corrupted(
    train: Examples, test: Examples, seed: int, corruptions: str | Sequence[str], severities: int | Sequence[int], train_images: int | None, test_images: int, attacks: bool
) -> Task[Examples]:
    run = Run(seed)
    notes = _drawn_notes(train, train_images, "trained on")
    notes += _drawn_notes(test, test_images, "judged")
    train, test = _drawn(train, train_images, run, "train"), _drawn(test, test_images, run, "test")
    stop = held_out(train, 0.1, run.rng("validation split"))
    metrics = [*classification_metrics(classes=len(train.classes or ())), *([adversarial()] if attacks else [])]
    source = Source(train.take(np.flatnonzero(~stop)), train.take(np.flatnonzero(stop)))
    return Task(source, [Domain("home", test, "home"), *stress_domains(test, corruptions, severities, seed)], metrics, ("shift-decomposition",), notes)


def _drawn_notes(data: Examples, count: int | None, what: str) -> list[str]:
    if count is None or count >= len(data):
        return []
    option = "train_images" if what == "trained on" else "test_images"
    return [f"{count:,} of {len(data):,} pictures are {what} ({option}), drawn by the seed."]


def _drawn(data: Examples, count: int | None, run: Run, part: str) -> Examples:
    if count is None or count >= len(data):
        return data
    if count < 1:
        raise UserError(f"{part}_images must be at least 1, not {count}")
    return data.take(np.flatnonzero(held_out(data, count / len(data), run.rng(f"{part} images"))))
