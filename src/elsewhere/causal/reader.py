"""The reader of tables of interventions: a table with a column that says what was done in, a task or a source out, and questions for a fitted model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from elsewhere.causal.data import OBSERVATIONAL, Environments
from elsewhere.causal.loading import features_of, from_frame, named_interventions, read_table
from elsewhere.causal.measures import ENERGY, RELATIVE
from elsewhere.causal.questions import JOIN, Interventions
from elsewhere.causal.tasks import FINDINGS, LEARNERS
from elsewhere.errors import UserError, did_you_mean
from elsewhere.run import Run
from elsewhere.task import Domain, Source, Task, TaskFunction, task

HOME_SHARE = 0.2


@task("interventions", files=("path",), learners=LEARNERS, reader="interventions")
def interventions(
    seed: int = 0, path: str | None = None, intervention: str | None = None, features: Sequence[str] | None = None, exclude: Sequence[str] = (), home_share: float = HOME_SHARE, frame: Any = None
) -> Task[Any]:
    """A table of one's own, for study files: trained on rows in which one thing was done, judged where several were (names joined by "+")."""
    table = frame if frame is not None else read_table(path or "")
    name = _column(intervention)
    columns = features_of(table, name, features, exclude)
    done = named_interventions(table[name].tolist())
    x = table[columns].to_numpy(dtype=float, na_value=np.nan)
    together = sorted({d for d in done if JOIN in d})
    singles = sorted({d for d in done if d and JOIN not in d})
    if not together:
        raise UserError(f"no row of {name!r} has several interventions (names joined by '+'): there is nothing to judge predictions by; fit and predict need none")
    if unknown := sorted({part for d in together for part in d.split(JOIN)} - set(singles)):
        raise UserError(f"{unknown[0]!r} is only ever done together with others: nothing says what it does alone; there are: {', '.join(singles[:12])}")
    data = from_frame(Environments, table, name, features, exclude)
    rng = Run(seed).rng("home")
    held = np.zeros(len(data), bool)
    for k in range(len(data.names)):
        rows = np.flatnonzero(data.environment == k)
        held[rng.permutation(rows)[: max(1, round(home_share * len(rows)))]] = True
    source, home = data.take(~held), data.take(held)
    if len(missing := [n for k, n in enumerate(data.names) if not (source.environment == k).any()]):
        raise UserError(f"environment {missing[0]!r} has too few rows to hold some out")
    reference = home.of(0)
    there = Interventions(tuple(tuple(d.split(JOIN)) for d in together), tuple(x[done == d] for d in together), reference, features=tuple(columns))
    alone = Interventions(tuple((str(n),) for n in data.names[1:]), tuple(home.of(k) for k in range(1, len(data.names))), reference, features=tuple(columns))
    return Task(Source(source), [Domain("single interventions", alone, "home"), Domain("combinations", there)], [RELATIVE, ENERGY], FINDINGS)


def _column(intervention: str | None) -> str:
    if intervention is None:
        raise UserError("a table of interventions needs --intervention COLUMN: the column that says what was done in a row")
    return intervention


def read(what: Any, intervention: str | None = None, features: Sequence[str] | None = None, exclude: Sequence[str] = (), home_share: float = HOME_SHARE) -> TaskFunction:
    """Return the task function of a table of interventions."""
    options: dict[str, Any] = {"intervention": _column(intervention), "home_share": home_share}
    options |= {k: list(v) for k, v in (("features", features), ("exclude", exclude)) if v}
    where = {"frame": what} if hasattr(what, "iloc") else {"path": os.fspath(what)}
    made = interventions.make(**where, **options)
    name = "interventions" if "frame" in where else re.sub(r"[^\w.-]+", "-", Path(where["path"]).name.split(".")[0]) or "interventions"
    counts = np.bincount(made.source.train.environment)
    told = ", ".join(f"{n} {c:,}" for n, c in list(zip(made.source.train.names, counts, strict=True))[:12])
    summary = f"{len(made.source.train.features):,} columns; rows to train on: {told}\nasked: {', '.join(made.domain('combinations').load().column('id')[:12])}"
    return replace(interventions, name=name, options={**where, **options}, summary=summary)


def source(what: Any, intervention: str | None = None, features: Sequence[str] | None = None, exclude: Sequence[str] = (), **others: Any) -> tuple[Source[Environments], dict[str, Any], str]:
    """Return the rows in which nothing or one thing was done, what a model must remember, and a default learner."""
    if others:
        raise UserError(f"--{next(iter(others)).replace('_', '-')} is for assays: a fit uses every row in which nothing or one thing was done")
    frame = what if hasattr(what, "iloc") else read_table(what)
    data = from_frame(Environments, frame, _column(intervention), features, exclude)
    return Source(data), {"features": list(data.features or ()), "interventions": [str(n) for n in data.names[1:]]}, "linear-interventional"


def new(what: Any, remembered: Mapping[str, Any], do: str | None = None, size: int = 1000, seed: int = 0, strength: float = 1.0) -> Any:
    """Return a question to a fitted model (``do``, no data needed), or new observations to encode.

    Args:
        what: None with ``do``; else a table with the columns the model was fitted on.
        remembered: features and interventions.
        do: names of interventions done together, joined by commas or "+"; "" is nothing.
        size: rows to draw.
        seed: of the draw.
        strength: factor of the shifts.
    """
    known: list[str] | None = remembered.get("interventions")  # a model fitted on a task remembers none: it knows its own
    if do is not None:
        if what is not None:
            raise UserError("--do asks what would be observed, and needs no data: leave the table away")
        names = tuple(part.strip() for part in re.split(r"[,+]", do) if part.strip() and part.strip() != OBSERVATIONAL)
        if known is not None and (unknown := [name for name in names if name not in known]):
            raise UserError(f"the model knows no intervention {unknown[0]!r}{did_you_mean(unknown[0], known)}")
        if len(set(names)) < len(names):
            raise UserError(f"--do {do} names an intervention twice")
        if size < 1:
            raise UserError(f"--size must be at least 1, not {size}")
        return Interventions((names,), strength=np.array([float(strength)]), size=size, seed=seed, features=tuple(remembered.get("features", ())))
    if what is None:
        raise UserError(f"say what is done, --do {','.join(known[:2] if known else ['NAME'])}, or give a table of observations to find the latents of")
    frame = what if hasattr(what, "iloc") else read_table(what)
    names_ = [str(c) for c in frame.columns]
    wanted = list(remembered.get("features", names_))
    if missing := [c for c in wanted if c not in names_]:
        raise UserError(f"{what if not hasattr(what, 'iloc') else 'the table'} lacks {len(missing)} of the model's {len(wanted)} columns: {', '.join(missing[:8])}; it has: {', '.join(names_[:12])}")
    x = frame[wanted].to_numpy(dtype=float, na_value=np.nan)
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise UserError(f"column {wanted[column]!r} has a missing value in row {row}: latents cannot be found of it")
    return Environments(x, np.zeros(len(x), int), (OBSERVATIONAL,), features=tuple(wanted))
