"""Tasks on digits: shifts of known severity, and other people's hands."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from elsewhere.data import Examples, find, root
from elsewhere.errors import UserError, did_you_mean
from elsewhere.images import data
from elsewhere.images.shifts import SHIFTS, shift
from elsewhere.metrics import classification_metrics
from elsewhere.run import Run
from elsewhere.splitting import held_out
from elsewhere.task import Domain, Source, Task, task

HOME_SHARE, VALIDATION_SHARE = 0.25, 0.1
LEARNERS = ("prior", "linear-probe", "mlp", "cnn")
FINDINGS = ("shift-decomposition",)


def split(whole: Examples, run: Run) -> tuple[Source[Examples], Examples]:
    """Return the source (train, a tenth of it for stopping) and the quarter held out as home; units are never split."""
    test = held_out(whole, HOME_SHARE, run.rng("split"))
    rest = whole.take(~test)
    stop = held_out(rest, VALIDATION_SHARE, run.rng("validation split"))
    return Source(rest.take(~stop), rest.take(stop)), whole.take(test)


@task("digits/shifts", learners=LEARNERS, reader="digit-pictures")
def digits_shifts(seed: int = 0, severities: int | Sequence[int] = (1, 2, 3, 4, 5), shifts: str | Sequence[str] = tuple(SHIFTS)) -> Task[Examples]:
    """Scikit-learn's digits at home; the same held-out digits rotated, shifted, blurred, noisy, low-contrast, inverted, thick."""
    severities, shifts = [severities] if isinstance(severities, int) else severities, [shifts] if isinstance(shifts, str) else shifts
    for name in shifts:
        if name not in SHIFTS:
            raise UserError(f"no shift {name!r}{did_you_mean(name, SHIFTS)}")
    for severity in severities:
        if severity not in range(1, 6):
            raise UserError(f"severity must be 1 to 5, not {severity!r}")
    source, home = split(_optdigits(), Run(seed))
    stress = [
        Domain(f"{name} {severity}", _shifted(home, name, severity, seed), "stress", {"shift": name, "severity": severity})
        for name in shifts
        for severity in severities
    ]  # fmt: skip
    return Task(source, [Domain("home", home, "home"), *stress], classification_metrics(classes=len(data.CLASSES)), FINDINGS)


def _shifted(home: Examples, name: str, severity: int, seed: int) -> Callable[[], Examples]:
    @cache
    def make() -> Examples:
        images = shift(home.inputs, name, severity, seed, home.columns["id"])
        return Examples(images, home.labels, home.columns, home.classes)

    return make


@cache
def _optdigits() -> Examples:
    return data.optdigits()


@task("handwriting", revision=2, choices={"source": ["employees"]}, files=("path",), learners=LEARNERS, reader="digit-pictures")
def handwriting(
    seed: int = 0, source: str = "employees", path: str | None = None, writers: Sequence[str] = data.WRITERS, also: str | Sequence[str] = (), leave_out: str | None = None
) -> Task[Examples]:
    """Digits by census employees, students, Italians (Semeion), people with a tablet pen (pen) and Turkish forms (optdigits).

    Trained on one group, judged on a held-out quarter of it and on all of every other; writers are
    disjoint where they are known. ``also`` names
    sets of torchvision (``USPS``, ``MNIST``, ``SVHN``) that lie under the data root in ``torchvision``. ``leave_out`` trains on
    all groups but one instead.
    """
    also = [also] if isinstance(also, str) else also
    groups = {name: _group(name, path) for name in writers} | {name.lower(): _also(name) for name in also}
    if source not in groups:
        raise UserError(f"there are no writers {source!r}{did_you_mean(source, groups)}")
    if len(groups) < 2:
        raise UserError(f"the task has 1 group of writers, {source!r}; an assay needs a source and at least 1 other")
    run = Run(seed)
    if leave_out is not None:
        return _without(groups, leave_out, run)
    fitted_on, home = split(groups[source], run)
    away = {name: whole for name, whole in groups.items() if name != source}
    domains = [Domain(source, home, "home"), *(Domain(name, whole) for name, whole in away.items())]
    return Task(fitted_on, domains, classification_metrics(classes=len(data.CLASSES)), FINDINGS)


def _without(groups: dict[str, Examples], left_out: str, run: Run) -> Task[Examples]:
    """Return the task that trains on every group but one."""
    if left_out not in groups:
        raise UserError(f"there are no writers {left_out!r}{did_you_mean(left_out, groups)}")
    rest = _joined([whole for name, whole in groups.items() if name != left_out])
    fitted_on, home = split(rest, run)
    return Task(fitted_on, [Domain("home", home, "home"), Domain(left_out, groups[left_out])], classification_metrics(classes=len(data.CLASSES)), FINDINGS)


def _joined(groups: Sequence[Examples]) -> Examples:
    """Return groups of writers as one; where writers are not known, each digit is of its own hand."""
    unit = [g.columns.get("unit", np.arange(len(g))) for g in groups]
    names = [g.columns["domain"].astype(str) for g in groups]
    units = np.concatenate([np.char.add(np.char.add(n, " "), np.asarray(u).astype(str)) for n, u in zip(names, unit, strict=True)])
    labels = np.concatenate([np.asarray(g.labels) for g in groups])
    columns = {"id": np.arange(len(labels)), "domain": np.concatenate(names), "unit": units}
    return Examples(np.concatenate([g.inputs for g in groups]), labels, columns, groups[0].classes)


def _group(name: str, path: str | None) -> Examples:
    if name == "optdigits":
        return _optdigits()
    place = path or find("handwriting", "get the files that docs/rooms/images.md names")
    return data.handwriting(place, name)


@cache
def _also_in(name: str, folder: str) -> Examples:
    return data.from_torchvision(name, folder, **({"split": "test"} if name == "SVHN" else {"train": False}))


def _also(name: str) -> Examples:
    return _also_in(name, os.fspath(root() / "torchvision"))


def new_pictures(path: str | os.PathLike[str], about: Any = None) -> Examples:
    """Return pictures of digits, one file or a folder, in one form: what a fitted model is asked about."""
    names, images = data.read_pictures(path)
    edge = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], 1)
    if light := int((np.median(edge, axis=1) > 127).sum()):
        warnings.warn(f"{light} of {len(images)} pictures are light at the border, as ink on paper is; these models know light strokes on dark: invert them", stacklevel=2)
    return Examples(data.one_form(images), None, {"id": np.array(names)}, data.CLASSES)
