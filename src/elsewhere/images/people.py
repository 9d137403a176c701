"""Published sets of faces with attributes of people, from their own files: CelebA and FairFace. Neither may be redistributed; both need their owners' terms."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from elsewhere.data import Array, Examples, find
from elsewhere.errors import UserError, did_you_mean, one_line
from elsewhere.images.pictures import decoded
from elsewhere.metrics import classification_metrics
from elsewhere.run import Run
from elsewhere.splitting import held_out
from elsewhere.task import Domain, Source, Task, task

LEARNERS = ("cnn", "parity-regularised:penalty=20", "two-heads:slack=0.05")
AGES = {"0-2": 0, "3-9": 3, "10-19": 10, "20-29": 20, "30-39": 30, "40-49": 40, "50-59": 50, "60-69": 60, "more than 70": 70}


@task("celeba", files=(), learners=LEARNERS)
def celeba(seed: int = 0, predict: str = "Smiling", group: str = "Male", path: str | None = None, side: int = 64, count: int | None = 5000, domain: str | None = None) -> Task[Examples]:
    """Attributes of CelebA's faces (Liu et al. 2015), with the official split; the group is an attribute too.

    Args:
        path: the folder with ``list_attr_celeba.txt``, ``list_eval_partition.txt`` and ``img_align_celeba/``.
        count: so many of each part, drawn with the seed; None: all.
        domain: an attribute: trained where it is present, elsewhere it is absent. Both are judged
            on the official test part: a person of it is in no other part.
    """
    place = Path(path or find("celeba", "CelebA is for non-commercial research: get it from its authors' page and put its files into that folder"))
    frame = read_celeba(place)
    for name in (predict, group, *([domain] if domain else [])):
        if name not in frame:
            raise UserError(f"CelebA has no attribute {name!r}{did_you_mean(name, frame.columns[1:])}")
    inside = frame[domain] == 1 if domain else pd.Series(True, index=frame.index)

    def part(rows: pd.DataFrame, name: str, purpose: str) -> Examples:
        drawn = rows if count is None or len(rows) <= count else rows.iloc[np.sort(Run(seed).rng(purpose).permutation(len(rows))[:count])]
        if not len(drawn):
            raise UserError(f"CelebA in {place} has no picture of {name}")
        labels = (drawn[predict] == 1).to_numpy(int)
        who = np.where(drawn[group] == 1, group, f"not {group}")
        pictures, names = place / "img_align_celeba", (f"not {predict}", predict)
        return _faces(pictures, drawn["file"], labels, who, side, names, name)

    train, validation = (part(frame[(frame["part"] == k) & inside], "home", f"part {k}") for k in (0, 1))
    domains = [Domain("home", part(frame[(frame["part"] == 2) & inside], "home", "test"), "home")]
    if domain:
        domains.append(Domain(f"not {domain}", part(frame[(frame["part"] == 2) & ~inside], f"not {domain}", "there")))
    return Task(Source(train, validation), domains, classification_metrics(True, 2))


def read_celeba(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """Return one row a picture: file, its attributes (-1 or 1) and ``part`` (0 train, 1 validation, 2 test).

    Raises:
        UserError: a list is missing or has another form.
    """
    return _celeba(str(Path(folder).resolve()))


@lru_cache(maxsize=2)
def _celeba(folder: str) -> pd.DataFrame:
    place = Path(folder)
    try:
        with open(place / "list_attr_celeba.txt") as file:
            count, names = int(file.readline()), file.readline().split()
            table = pd.read_csv(file, sep=r"\s+", header=None, names=["file", *names])
        parts = pd.read_csv(place / "list_eval_partition.txt", sep=r"\s+", header=None, names=["file", "part"])
    except FileNotFoundError as error:
        raise UserError(f"{place} lacks {Path(str(error.filename)).name}: it is part of CelebA") from error
    except (ValueError, pd.errors.ParserError) as error:
        raise UserError(f"{place / 'list_attr_celeba.txt'} has another form than CelebA's: {one_line(error, 100)}") from error
    if len(table) != count or not table[names].isin([-1, 1]).all().all():
        raise UserError(f"{place / 'list_attr_celeba.txt'} says {count} pictures with attributes -1 or 1, and has {len(table)} lines")
    joined: pd.DataFrame = table.merge(parts, on="file")
    return joined


@task("fairface", revision=2, files=(), learners=LEARNERS)
def fairface(seed: int = 0, below: int = 30, group: str = "gender", path: str | None = None, side: int = 64, count: int | None = 5000, domain: str | None = None) -> Task[Examples]:
    """Is a face of FairFace (Kärkkäinen & Joo 2021) younger than ``below``? The published training part is split 70 : 30, the published validation part is for validation.

    Args:
        path: the folder with ``fairface_label_train.csv``, ``fairface_label_val.csv`` and the pictures that they name.
        group: "gender", or "race" (White against all others).
        domain: a race that is left out of training; all its pictures of both parts are judged.
    """
    place = Path(path or find("fairface", "get FairFace from its authors and put its two CSV files and pictures into that folder"))
    train, validation = (_fairface(place, name) for name in ("fairface_label_train.csv", "fairface_label_val.csv"))
    if group not in ("gender", "race"):
        raise UserError(f"group must be gender or race, not {group!r}")
    if domain is not None and domain not in set(train["race"]):
        raise UserError(f"FairFace has no race {domain!r}{did_you_mean(domain, sorted(set(train['race'])))}")
    if below not in AGES.values() or below == 0:
        raise UserError(f"ages are told in ranges: below must be one of {', '.join(str(a) for a in AGES.values() if a)}, not {below}")

    def part(rows: pd.DataFrame, name: str, purpose: str) -> Examples:
        drawn = rows if count is None or len(rows) <= count else rows.iloc[np.sort(Run(seed).rng(purpose).permutation(len(rows))[:count])]
        who = drawn["gender"].to_numpy(str) if group == "gender" else np.where(drawn["race"] == "White", "White", "other")
        labels = (drawn["age"].map(AGES).to_numpy() < below).astype(int)
        classes = f"{below} or older", f"younger than {below}"
        return _faces(place, drawn["file"], labels, who, side, classes, name)

    mine = train if domain is None else train[train["race"] != domain]
    stand_in = Examples(np.zeros((len(mine), 1)), (mine["age"].map(AGES).to_numpy() < below).astype(int), {"domain": mine[group].to_numpy(str)}, ("a", "b"))
    test = held_out(stand_in, 0.3, Run(seed).rng("split"))
    domains = [Domain("home", part(mine[test], "home", "home"), "home")]
    if domain is not None:
        every = pd.concat([train, validation], ignore_index=True)  # that race trains nowhere
        domains.append(Domain(domain, part(every[every["race"] == domain], domain, "there")))
    kept = validation if domain is None else validation[validation["race"] != domain]
    return Task(Source(part(mine[~test], "home", "train"), part(kept, "home", "validation")), domains, classification_metrics(True, 2))


def _fairface(place: Path, name: str) -> pd.DataFrame:
    if not (place / name).exists():
        raise UserError(f"{place} lacks {name}: it is part of FairFace")
    frame = pd.read_csv(place / name)
    if missing := [c for c in ("file", "age", "gender", "race") if c not in frame]:
        raise UserError(f"{place / name} has no column {missing[0]!r}; FairFace has file, age, gender, race")
    if unknown := sorted(set(frame["age"]) - set(AGES)):
        raise UserError(f"{place / name} has the age {unknown[0]!r}; FairFace has {', '.join(AGES)}")
    return frame


def _faces(
    place: Path,
    files: Iterable[str],
    labels: Array,
    group: Any,
    side: int,
    classes: tuple[str, str],
    domain: str,
) -> Examples:
    listed = [str(f) for f in files]
    columns = {
        "group": np.asarray(group),
        "domain": np.full(len(labels), domain),
        "id": np.array(listed),  # with its folder: two parts may use one name
    }
    return Examples(decoded([place / f for f in listed], side), labels, columns, classes)
