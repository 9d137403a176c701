"""The rows of scores that a study will have, without values: what its expectations can select."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from elsewhere.assay.expectation import Expectation, filtered
from elsewhere.errors import UserError, did_you_mean
from elsewhere.task import Task, TaskFunction, resolve

if TYPE_CHECKING:
    from elsewhere.assay.study import Study

BY_TASK_AND_LEARNER = ("task", "learner", "seed")


class Planned:
    """Collects the rows of made tasks; ``check`` refuses an expectation that selects none of them.

    Args:
        study: whose tasks are added one by one. Tasks that are not added count with the metrics of
            others of their name, and what only their domains would tell is not checked.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.made: set[str] = set()
        self.metrics: dict[str, set[str]] = {}
        self.domains: dict[str, list[dict[str, Any]]] = {}

    def add(self, function: TaskFunction, task: Task[Any]) -> None:
        """Note the metrics and domains of a made task."""
        self.made.add(function.label)
        self.metrics.setdefault(function.name, set()).update(m.name for m in task.metrics)
        rows = [{**d.about, "domain": d.name, "role": d.role} for d in task.domains]
        self.domains[function.label] = rows

    def check(self, expectations: Sequence[Expectation]) -> None:
        """Refuse the first expectation that names something that the study does not have.

        That is a metric, learner, domain, task, option, a value of these, or a statistic.

        Raises:
            UserError: with the nearest name there is.
        """
        for expectation in expectations:
            try:
                expectation.check_itself()
                if expectation.statistic is not None:
                    resolve(expectation.statistic)
                for where, inherited in expectation.selections():
                    self._check(expectation.metric, where, inherited)
            except UserError as error:
                raise UserError(f"expectation '{expectation.text}': {error}") from error

    def _check(self, metric: str, where: Mapping[str, Any], inherited: frozenset[str]) -> None:
        tasks = {t for t, names in self.metrics.items() if any(_of(metric, n) for n in names)}
        if not tasks:
            known = sorted({name for names in self.metrics.values() for name in names})
            raise UserError(f"no task measures {metric!r}{did_you_mean(metric, known)}")
        rows = self._rows("seed" in where)
        rows = rows[rows.task_name.isin(tasks)]
        complete = all(f.label in self.made for f in self.study.tasks)
        sure = {k: v for k, v in where.items() if complete or k in self._options()}
        filtered(rows, sure, inherited)
        for key in sure.keys() - inherited:
            for value in sure[key] if isinstance(sure[key], list) else ():
                filtered(rows, {**sure, key: value}, inherited)  # each of several is there

    def _options(self) -> set[str]:
        """Return the keys that every trial has by its task and learner alone."""
        pairs = itertools.product(self.study.tasks, self.study.learners)
        return {*BY_TASK_AND_LEARNER, *(key for f, named in pairs for key in named.options_on(f))}

    def _rows(self, with_seeds: bool) -> pd.DataFrame:
        rows = []
        for function, named in itertools.product(self.study.tasks, self.study.learners):
            if named.runs_on(function):
                task = {"task": function.label, "task_name": function.name}
                learner = {"learner": named.label, "learner_name": named.name}
                trial = {**named.options_on(function), **task, **learner}
                rows += [{**d, **trial} for d in self.domains.get(function.label, [{}])]
        frame = pd.DataFrame(rows)
        if not with_seeds:
            return frame
        return frame.merge(pd.DataFrame({"seed": list(self.study.seeds)}), how="cross")


def _of(metric: str, name: str) -> bool:
    """Return whether a measure is a metric of this name, or of the family of this name."""
    return metric == name or metric.startswith(f"{name}/")
