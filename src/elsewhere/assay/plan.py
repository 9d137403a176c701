"""The plan: which trials a study is made of, checked before anything runs."""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from elsewhere.assay.doubts import Doubt, doubts, sentences
from elsewhere.assay.planned import Planned
from elsewhere.assay.study import Study
from elsewhere.closed import check_fields
from elsewhere.errors import UserError
from elsewhere.identity import digest, identity
from elsewhere.learner import Learner, as_examples, offers
from elsewhere.run import Run
from elsewhere.task import Source, Task, TaskFunction

CHECKED = 12
BATCH = 32  # trials that one fit_many gets; part of the plan, so that a resumed study stacks what the first would have


@dataclass(frozen=True)
class Trial:
    """One learner, one task, one seed: the unit that is run, stored, resumed and counted."""

    task: TaskFunction
    learner: Learner[Any, Any]
    label: str
    name: str
    seed: int

    @cached_property
    def key(self) -> str:
        """Identity: not metrics, device, threads or versions."""
        return digest([self.task.key, identity(self.learner), self.seed])

    @property
    def here(self) -> bool:
        return self.task.here


def plan(study: Study) -> list[Trial]:
    """Return the trials of a study in the order they run.

    Raises:
        UserError: a learner cannot run on a task, or an expectation names what the study does not have.
    """
    doubts_of(study)  # checks it; once, although the command line asks before
    return [Trial(task, named.learner, named.label, named.name, seed) for task, seed, named in study.crossed()]


def noted(study: Study) -> Study:
    """Return the study with the doubts about its data before its other notes."""
    return replace(study, notes=tuple(dict.fromkeys((*doubts_of(study), *study.notes))))


def doubts_of(study: Study) -> tuple[str, ...]:
    """Return what would make a study's scores look better than they are, in sentences; found once for a study.

    Raises:
        UserError: the study cannot run as it stands.
    """
    kept = vars(study)
    if "doubts" not in kept:
        kept["doubts"] = check(study)
    told: tuple[str, ...] = kept["doubts"]
    return told


def check(study: Study) -> tuple[str, ...]:
    """Return the doubts about a study's data as sentences; refuse what cannot run before anything does.

    Each task is made once for it, with the first seed; of many tasks of one name, the first ``CHECKED``.

    A learner must have an identity, too: the files that it names must be there.

    Raises:
        UserError: a learner cannot train on a task's data, asks for what the task does not grant or has a field
            outside its closed set; an expectation names what the study does not have.
    """
    for named in study.learners:
        check_fields(named.learner, named.label)
        identity(named.learner)  # raises where a file that it names is missing
    seen: Counter[str] = Counter()
    planned = Planned(study)
    found: dict[str, list[Doubt]] = {}
    for function in study.tasks:
        seen[function.name] += 1
        if seen[function.name] > CHECKED:
            continue
        task = function(study.seeds[0])
        _check_task(study, function, task)
        planned.add(function, task)
        found.setdefault(function.name, []).extend(doubts(task, _unit_of(function)))
    planned.check(study.expectations)
    said = {name: sentences(list_) for name, list_ in found.items()}
    return tuple(s if len(found) == 1 else f"{name}: {s}" for name, told in said.items() for s in told)


def _check_task(study: Study, function: TaskFunction, task: Any) -> None:
    if not isinstance(task, Task):
        raise UserError(f"task {function.name!r} returned a {type(task).__name__}, not a Task")
    for named in filter(lambda n: n.runs_on(function), study.learners):
        if reason := refuses(named.learner, task.source):
            raise UserError(f"{named.label} cannot run on {function.label}: {reason}")


def _unit_of(function: TaskFunction) -> str:
    """Return what a table's reader was told is the column of units, else "unit"."""
    name = function.options.get("unit")
    return name if isinstance(name, str) else "unit"


def refuses(learner: Learner[Any, Any], source: Source[Any]) -> str | None:
    """Return why a learner cannot train on a source, or None."""
    if fit_for(learner, source.train) is None:
        return f"it needs {learner.accepts.__name__}, and the data are {type(source.train).__name__}"
    if learner.sees_unlabelled and not source.unlabelled:
        return "it needs unlabelled data of other domains, which this task does not grant"
    return learner.refuses(granted(source, learner))


def fit_for(learner: Learner[Any, Any], data: Any) -> Any:
    """Return the data in the form that a learner accepts, or None where there is none."""
    if isinstance(data, learner.accepts):
        return data
    plain = as_examples(data)
    return plain if plain is not None and isinstance(plain, learner.accepts) else None


def asked_of(learner: Learner[Any, Any], data: Any) -> Any:
    """Return the data in a form that a learner predicts on: as it trains on them, or as questions that it answers; None where there is none."""
    return data if isinstance(data, learner.answers) else fit_for(learner, data)


def granted(source: Source[Any], learner: Learner[Any, Any]) -> Source[Any]:
    """Return what of a source a learner may see: unlabelled data only if it declares that it does, in its own form."""
    train = fit_for(learner, source.train)
    unlabelled = {name: fit_for(learner, data) for name, data in source.unlabelled.items()} if learner.sees_unlabelled else {}
    if train is source.train and len(unlabelled) == len(source.unlabelled):
        return source
    if train is source.train:
        return replace(source, unlabelled=unlabelled)
    validation = None if source.validation is None else fit_for(learner, source.validation)
    return replace(source, train=train, validation=validation, unlabelled=unlabelled)


def batches(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Cut the plan into batches: one trial each, or up to ``BATCH`` of a class that offers ``fit_many``."""
    alone = [[t] for t in trials if not offers(t.learner, "fit_many")]
    kinds: dict[Any, list[Trial]] = {}
    for t in trials:
        if offers(t.learner, "fit_many"):
            kinds.setdefault((type(t.learner), t.task.name), []).append(t)
    together = [same[i : i + BATCH] for same in kinds.values() for i in range(0, len(same), BATCH)]
    return alone + together


def pilot(study: Study, rows: int = 1000) -> float:
    """Return roughly how many seconds the study takes on one worker, from fits on at most ``rows`` examples of one task (for learners kept to others: of the first of those)."""
    made: dict[int, tuple[Task[Any], float]] = {}
    total = 0.0
    for named in study.learners:
        mine = [k for k, task in enumerate(study.tasks) if named.runs_on(task)]
        if mine[0] not in made:
            start = time.perf_counter()
            made[mine[0]] = study.tasks[mine[0]](study.seeds[0]), time.perf_counter() - start
        task, drawing = made[mine[0]]
        total += drawing * len(study.seeds) * len(mine) / len(study.learners)
        source = granted(task.source, named.learner)
        few = min(rows, len(source.train))
        tried, factor = _shortened(named.learner, len(source.train) / max(few, 1))
        small = replace(source, train=source.train.take(range(few)))
        seconds = 0.0
        try:
            for _ in range(1 if tried is named.learner else 2):  # the first training of a process imports and warms up
                start = time.perf_counter()
                copy.deepcopy(tried).fit(small, Run(progress=False))
                seconds = time.perf_counter() - start
        except Exception:
            continue  # a few rows may lack a class; the trial itself will tell
        total += seconds * factor * len(study.seeds) * len(mine)
    return total


def _shortened(learner: Any, times_the_rows: float) -> tuple[Any, float]:
    """Return a learner that is quick to try, and by how much the real one takes longer: by rows, or by steps where it or a part of it has them."""
    counts: list[tuple[int, int]] = []
    shorter = _short(learner, counts)
    return (shorter, sum(n for n, _ in counts) / sum(n for _, n in counts)) if counts else (learner, times_the_rows)


def _short(learner: Any, counts: list[tuple[int, int]], steps: int = 20, epochs: int = 10) -> Any:
    """Return a copy with few steps or epochs, in its parts too; numbers before and after are added to ``counts``."""
    if not isinstance(learner, Learner) or not is_dataclass(learner):
        return learner
    told = {f.name: getattr(learner, f.name) for f in fields(learner) if f.init}
    changed = {k: _short(v, counts) for k, v in told.items() if isinstance(v, Learner)}
    for name, value in told.items():
        few = steps if name == "steps" and "batch" in told else epochs if name.endswith("epochs") else None
        if few is not None and isinstance(value, int) and value > few:
            counts.append((value, few))
            changed[name] = few
    made: Any = replace(learner, **changed) if changed else learner
    return made
