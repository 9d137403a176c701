"""Folders of pictures: ``photos/<domain>/<class>/*.jpg``, each domain in turn left out or the source (DomainBed's layout)."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from elsewhere.data import Array, Examples, listed, own
from elsewhere.errors import UserError, did_you_mean
from elsewhere.images.attacks import adversarial
from elsewhere.images.corruptions import SEVERITIES, checked, corrupt
from elsewhere.images.pictures import ENDINGS, decoded, picture_files, touched
from elsewhere.metrics import classification_metrics
from elsewhere.run import Run
from elsewhere.splitting import held_out, home_name
from elsewhere.task import Domain, Source, Task, TaskFunction, task

LEARNERS = ("prior", "linear-probe:backbone=random-conv", "cnn")
FINDINGS = ("shift-decomposition",)
HOME_SHARE = VALIDATION_SHARE = 0.1
PROTOCOLS = ("leave-one-out", "one-to-all")


@dataclass(frozen=True)
class Folder:
    """What a folder of domains holds: one path, class code and domain a picture, and columns told beside it."""

    paths: tuple[Path, ...]
    labels: Array
    place: Array
    classes: tuple[str, ...]
    columns: Mapping[str, Array]

    @property
    def domains(self) -> list[str]:
        return sorted(set(self.place.tolist()))

    def missing(self) -> dict[str, list[str]]:
        """Return domain -> the classes of which it has no picture."""
        told = {d: sorted(set(self.classes) - {self.classes[k] for k in np.unique(self.labels[self.place == d])}) for d in self.domains}
        return {d: names for d, names in told.items() if names}


def scan(path: str | os.PathLike[str], columns: str | None = None, levels: int = 1) -> Folder:
    """List ``<domain>/<class>/`` folders of pictures; ``columns`` is a CSV ``file, unit, group, …`` beside them.

    With more ``levels`` a domain is this many folders deep and is called ``<view>/<year>``, say.
    Pictures beside the domains' folders, and what is hidden, do not count.

    Raises:
        UserError: pictures lie at another depth, there is one class, or the table does not fit.
    """
    root = Path(path)
    if not root.is_dir():
        raise UserError(f"{path} is no folder")
    if levels < 1:
        raise UserError(f"levels must be at least 1, not {levels}")
    found = _at_depth(root, levels + 2)
    names = sorted({p.parent.name for p in found})
    code = {name: k for k, name in enumerate(names)}
    labels = np.array([code[p.parent.name] for p in found])
    place = np.array([p.parent.parent.relative_to(root).as_posix() for p in found])
    if len(names) == 1:
        raise UserError(_one_class(root, names[0], sorted(set(place.tolist()))))
    return Folder(tuple(found), labels, place, tuple(names), _columns(root, columns, found))


def _one_class(root: Path, name: str, domains: Sequence[str]) -> str:
    shown = ", ".join(domains[:5]) + (" …" if len(domains) > 5 else "")
    found = f"{root} holds 1 class, {name!r}, in {len(domains)} domains ({shown})"
    expected = f"at least 2 are needed, as {root.name}/<domain>/<class>/<file>"
    return f"{found}; {expected}: are domains and classes exchanged, or is a folder missing?"


def _at_depth(root: Path, depth: int) -> list[Path]:
    """Return the pictures ``depth`` parts below a folder; others are refused, not lost."""
    by: dict[int, list[Path]] = {}
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in ENDINGS):
        parts = path.relative_to(root).parts
        if not any(part.startswith(".") for part in parts):
            by.setdefault(len(parts), []).append(path)
    found = by.pop(depth, [])
    if found:
        by.pop(1, None)  # an overview beside the domains, say
    if not found or by:
        raise UserError(_wrong_depth(root, depth, len(found), by))
    return found


def _wrong_depth(root: Path, depth: int, count: int, others: Mapping[int, Sequence[Path]]) -> str:
    """Say which pictures lie where, and where they are expected."""
    domain = "<domain>" if depth == 3 else f"<domain, {depth - 2} folders deep>"
    expected = f"{domain}/<class>/<file>"
    if not others:
        expected += f" ({', '.join(ENDINGS)})"
    told = [_found_at(root, k, paths) for k, paths in sorted(others.items())]
    if count:
        found = f"{count:,} pictures as {expected}, and {'; '.join(told)}"
        return f"{root} holds {found}: move those away"
    deep = max(others, default=0)
    hint = (
        f"--levels {deep - 2} reads domains {deep - 2} folders deep"
        if deep > depth
        else "a folder with a table of factors needs --factors TABLE"
    )  # fmt: skip
    return f"{root} holds no pictures as {expected}{', but '.join(['', *told[:1]])}; {hint}"


def _found_at(root: Path, depth: int, paths: Sequence[Path]) -> str:
    form = f"{'<folder>/' * (depth - 1)}<file>"
    return f"{len(paths):,} as {form}, first {paths[0].relative_to(root).as_posix()}"


def _columns(root: Path, table: str | None, files: Sequence[Path]) -> dict[str, Array]:
    if table is None:
        return {}
    try:
        with (root / table).open(newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise UserError(f"cannot read {root / table}: {error.strerror}") from error
    if not rows or "file" not in rows[0]:
        raise UserError(f"{root / table} needs a header with file, and rows")
    by = {row["file"]: row for row in rows}
    told = [by.get(str(f.relative_to(root))) for f in files]
    if absent := [str(f.relative_to(root)) for f, row in zip(files, told, strict=True) if row is None]:
        raise UserError(f"{table} has no row for {len(absent)} of {len(files)} pictures, first {absent[0]}")
    return {name: np.array([row[name] for row in told if row is not None]) for name in rows[0] if name != "file"}


@lru_cache(maxsize=2)
def _folder(
    path: str,
    side: int,
    columns: str | None,
    levels: int,
    mark: Any,
) -> tuple[Folder, Any]:
    found = scan(path, columns, levels)
    return found, decoded(found.paths, side)


@task("image-folder", revision=2, files=("path", "columns"), learners=LEARNERS, reader="pictures")
def image_folder(
    seed: int = 0,
    path: str | None = None,
    source: str | None = None,
    leave_out: str | None = None,
    side: int = 64,
    classes: str = "same",
    columns: str | None = None,
    corruptions: str | Sequence[str] = (),
    severities: int | Sequence[int] = SEVERITIES,
    home_share: float = HOME_SHARE,
    unlabelled: bool = False,
    attacks: bool = False,
    levels: int = 1,
) -> Task[Examples]:
    """A folder of pictures by domain and class, in turn left out or the source.

    At home 80 % are trained on, 10 % stop and 10 % are judged; every other domain is judged whole.

    Args:
        seed: of the split.
        path: the folder.
        source: train on this domain alone; with ``leave_out`` on all others; with neither the first.
        leave_out: judge this domain, which is in no way trained on.
        side: pictures become side × side.
        classes: "same": an error where a domain lacks a class; "shared": only classes that all domains have; "any": as they are.
        columns: a CSV beside the folders, ``file, unit, group``: units are never on both sides of a split.
        corruptions: names of common corruptions, or "all": the pictures held out as home, corrupted, are stress domains.
        severities: of these.
        home_share: of the domains at home that is held out to be judged, and again to stop by.
        unlabelled: grant half of each other domain without labels; the other half is judged.
        attacks: also measure adversarial accuracy (long).
        levels: folders that name a domain: 2 for ``<view>/<year>/<class>``.
    """
    if path is None:
        raise UserError("image-folder needs path=FOLDER, with <domain>/<class>/<file> in it")
    found, images = _folder(os.fspath(path), side, columns, levels, touched(path))
    kept = _kept_classes(found, classes)
    names = tuple(found.classes[k] for k in kept)
    rows = np.flatnonzero(np.isin(found.labels, kept))
    labels = np.searchsorted(kept, found.labels[rows])
    ids = np.array([str(p.relative_to(path)) for p in found.paths])[rows]
    whole = Examples(images[rows] if len(rows) < len(images) else images, labels, {"id": ids, "domain": found.place[rows], **_roles(found.columns, rows)}, names)
    return domains_task(whole, seed, source, leave_out, corruptions, severities, home_share, unlabelled, attacks)


def domains_task(
    whole: Examples,
    seed: int = 0,
    source: str | None = None,
    leave_out: str | None = None,
    corruptions: str | Sequence[str] = (),
    severities: int | Sequence[int] = SEVERITIES,
    home_share: float = HOME_SHARE,
    unlabelled: bool = False,
    attacks: bool = False,
) -> Task[Examples]:
    """Return the task of pictures with a ``domain`` column: one to many, or one left out. Arguments as for ``image_folder``."""
    if source is not None and leave_out is not None:
        raise UserError("a task of pictures takes source or leave_out, not both: they say where to train")
    place, run = np.asarray(whole.column("domain")), Run(seed)
    everywhere = sorted(set(place.tolist()))
    for name in (source, leave_out):
        if name is not None and name not in everywhere:
            raise UserError(f"there is no domain {name!r}{did_you_mean(name, everywhere)}")
    if len(everywhere) < 2:
        raise UserError(f"the task has 1 domain, {everywhere[0]!r}; an assay needs a source and at least 1 other")
    if not 0 < home_share < 0.5:
        raise UserError(f"the home share must lie between 0 and a half, not {home_share}")
    at_home = [d for d in everywhere if d != leave_out] if leave_out is not None else [source or everywhere[0]]
    bare = replace(whole, inputs=np.arange(len(whole)))  # splitting looks at no picture
    inside = np.flatnonzero(np.isin(place, at_home))
    parts = _home_parts(bare, inside, home_share, run, at_home)
    train, stop, test = (whole.take(rows) for rows in parts)
    home = Domain(home_name(at_home, everywhere), test, "home")
    stress = stress_domains(test, corruptions, severities, seed)
    domains, granted = [home, *stress], {}
    for name in (d for d in everywhere if d not in at_home):
        rows = np.flatnonzero(place == name)
        if unlabelled:
            judged = _judged_half(bare, rows, run, name)
            granted[name], rows = whole.take(rows[~judged]).unlabelled(), rows[judged]
        domains.append(Domain(name, whole.take(rows)))
    metrics = classification_metrics("group" in whole.columns, len(whole.classes or ()))
    return Task(Source(train, stop, granted), domains, [*metrics, *([adversarial()] if attacks else [])], FINDINGS)


def _home_parts(
    whole: Examples,
    rows: Array,
    share: float,
    run: Run,
    names: Sequence[str],
) -> tuple[Array, Array, Array]:
    """Return the rows at home to train on, to stop by and to judge by.

    Stratified by domain and class. The domains at home are split together, so that a unit that
    several of them share stays whole.
    """
    test = held_out(whole.take(rows), share, run.rng("split"))
    rest = rows[~test]
    stop = held_out(whole.take(rest), share / (1 - share), run.rng("validation split"))
    where = ", ".join(names)
    if not test.any() or not stop.any() or stop.all():
        few = f"{where} has {len(rows)} pictures"
        raise UserError(f"{few}, too few to hold out {share:.0%} of them")
    known = np.unique(np.asarray(whole.labels)[rest[~stop]])
    if len(known) < 2:
        only = (whole.classes or ("",))[int(known[0])]
        raise UserError(f"{where} has 1 class to train on, {only!r}; at least 2 are needed")
    return rest[~stop], rest[stop], rows[test]


def _judged_half(whole: Examples, rows: Array, run: Run, name: str) -> Array:
    """Return a mask of the half of a domain that is judged; the other is granted without labels."""
    judged = held_out(whole.take(rows), 0.5, run.rng(f"unlabelled {name}"))
    if not judged.any() or judged.all():
        few = f"{name} has {len(rows)} pictures"
        raise UserError(f"{few}, too few to grant one half and judge the other")
    return judged


def stress_domains(home: Examples, corruptions: str | Sequence[str], severities: int | Sequence[int], seed: int) -> list[Domain[Examples]]:
    """Return a stress domain for each corruption and severity of the pictures held out as home; corrupted once, when asked for."""
    names, levels = checked(corruptions, severities)

    def corrupted(name: str, severity: int) -> Callable[[], Examples]:
        @cache
        def make() -> Examples:
            index = np.arange(len(home))
            return Examples(corrupt(home.inputs, name, severity, seed, index), home.labels, home.columns, home.classes)

        return make

    return [Domain(f"{name} {s}", corrupted(name, s), "stress", {"corruption": name, "severity": s}) for name in names for s in levels]


def _roles(columns: Mapping[str, Array], rows: Array) -> dict[str, Array]:
    """Return unit and group, which a table of pictures names so; other columns have no role."""
    return {k if k in ("unit", "group") else own(k): v[rows] for k, v in columns.items()}


def _kept_classes(found: Folder, classes: str) -> Array:
    everything = np.arange(len(found.classes))
    if classes not in ("same", "shared", "any"):
        raise UserError(f"classes must be same, shared or any, not {classes!r}")
    missing = found.missing()
    if not missing or classes == "any":
        return everything
    if classes == "same":
        told = "; ".join(f"{d} has no {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" for d, names in list(missing.items())[:5])
        raise UserError(f"the domains have different classes: {told}. Say --classes shared to keep those that all have, or --classes any")
    gone = {name for names in missing.values() for name in names}
    kept = np.array([k for k in everything if found.classes[k] not in gone], int)
    if len(kept) < 2:
        raise UserError(f"the domains share {len(kept)} classes; at least 2 are needed")
    return kept


# --- the reader -----------------------------------------------------------------------------------------------------


def read(
    path: str,
    source: Sequence[str] = (),
    protocol: str | None = None,
    side: int = 64,
    classes: str = "same",
    columns: str | None = None,
    corruptions: Sequence[str] = (),
    severities: Sequence[str] = (),
    home_share: float | None = None,
    unlabelled: bool = False,
    attacks: bool = False,
    factors: str | None = None,
    split: Sequence[str] = (),
    kept: Sequence[str] = (),
    categorical: Sequence[str] = (),
    levels: int = 1,
) -> TaskFunction:
    """Return the task function of a folder of pictures; with ``factors``, of a table of factors beside them.

    Raises:
        UserError: the folder holds no domains of pictures, or an option does not go with it.
    """
    if factors is not None:
        return _factor_reader(path, factors, side, split, kept, categorical)
    if split or kept or categorical:
        raise UserError("--split, --kept and --categorical go with --factors TABLE")
    found = scan(path, columns, levels)
    if len(found.domains) < 2:
        raise UserError(f"the task has 1 domain, {found.domains[0]!r}; an assay needs a source and at least 1 other")
    if protocol is not None and protocol not in PROTOCOLS:
        raise UserError(f"no protocol {protocol!r}{did_you_mean(protocol, PROTOCOLS)}")
    if source and protocol == "leave-one-out":
        raise UserError("--source goes with --protocol one-to-all, not leave-one-out")
    wanted = listed(source, found.domains)
    for name in wanted:
        if name not in found.domains:
            raise UserError(f"there is no domain {name!r}{did_you_mean(name, found.domains)}")
    _kept_classes(found, classes)
    names, grades = checked(listed(corruptions, ()), [_whole(s) for s in listed(severities, ())] or SEVERITIES)
    told: dict[str, Any] = {"path": os.fspath(path), "side": side}
    given = {"classes": (classes, "same"), "columns": (columns, None), "unlabelled": (unlabelled, False), "attacks": (attacks, False), "home_share": (home_share, None), "levels": (levels, 1)}
    told |= {k: v for k, (v, default) in given.items() if v != default}
    told |= {"corruptions": list(names), "severities": list(grades)} if names else {}
    one = bool(wanted) or protocol == "one-to-all"
    choices = {"source": wanted or found.domains} if one else {"leave_out": found.domains}
    name = Path(path).resolve().name or "pictures"
    counts = ", ".join(f"{d} {int((found.place == d).sum()):,}" for d in found.domains[:12])
    summary = f"{len(found.paths):,} pictures of {len(found.classes)} classes: {', '.join(found.classes[:8])}{' …' if len(found.classes) > 8 else ''}\ndomains: {counts}"
    return replace(image_folder, name=name, choices=choices, options=told, summary=summary)


def _whole(text: str) -> int:
    if not text.isdigit():
        raise UserError(f"severities are numbers from 1 to 5, not {text!r}")
    return int(text)


def _factor_reader(path: str, factors: str, side: int, split: Sequence[str], kept: Sequence[str], categorical: Sequence[str]) -> TaskFunction:
    from elsewhere.factors.grid import SPLITS
    from elsewhere.images import factor_tasks

    kinds = listed(split, ()) or list(SPLITS)
    for kind in kinds:
        if kind not in SPLITS:
            raise UserError(f"no split {kind!r}{did_you_mean(kind, SPLITS)}")
    told = {"folder": os.fspath(path), "table": factors, "side": side, "kept": listed(kept, ()), "categorical": listed(categorical, ())}
    made = factor_tasks.factor_table.bind(**{k: v for k, v in told.items() if v})
    return replace(made, name=Path(path).resolve().name, choices={"split": kinds}, shown=())


def new_pictures(path: str | os.PathLike[str], about: Mapping[str, Any]) -> Examples:
    """Return pictures, one file or a folder of them, in the size that a fitted model knows."""
    names, files = picture_files(path)
    shape = list(about.get("shape") or [])
    images = decoded(files, int(shape[-1]) if shape else None)
    if shape and images.shape[1] != shape[0]:
        images = np.repeat(images, 3, axis=1) if shape[0] == 3 else np.round(images.mean(1, keepdims=True)).astype(np.uint8)
    return Examples(images, None, {"id": np.array(names)})
