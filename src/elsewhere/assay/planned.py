"""The rows of scores that a study will have, without their values: what expectations can select, known before anything runs."""

from __future__ import annotations

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
    """Collects the rows of made tasks; ``check`` then refuses an expectation that selects none of them.

    Args:
        study: whose tasks are added one by one. Tasks that are not added count with the metrics of others of their
            name, and what only their domains would tell is not checked.
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
        self.domains[function.label] = [{**d.about, "domain": d.name, "role": d.role} for d in task.domains]

    def check(self, expectations: Sequence[Expectation]) -> None:
        """Refuse the first expectation that names a metric, learner, domain, task, option or value that the study does not have.

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
        known = sorted({name for names in self.metrics.values() for name in names})
        tasks = {task for task, names in self.metrics.items() if any(metric == n or metric.startswith(f"{n}/") for n in names)}
        if not tasks:
            raise UserError(f"no task measures {metric!r}{did_you_mean(metric, known)}")
        rows = self._rows("seed" in where)
        rows = rows[rows.task_name.isin(tasks)]
        every_task_made = all(f.label in self.made for f in self.study.tasks)
        sure = {k: v for k, v in where.items() if every_task_made or k in self._options()}
        filtered(rows, sure, inherited)
        for key in sure.keys() - inherited:  # of several values each must stand for something
            for value in sure[key] if isinstance(sure[key], list) else ():
                filtered(rows, {**sure, key: value}, inherited)

    def _options(self) -> set[str]:
        """Return the keys that every trial has by its task and learner alone."""
        return {
            *BY_TASK_AND_LEARNER,
            *(k for f in self.study.tasks for n in self.study.learners for k in n.options_on(f)),
        }

    def _rows(self, with_seeds: bool) -> pd.DataFrame:
        rows = []
        for function in self.study.tasks:
            for named in filter(lambda n: n.runs_on(function), self.study.learners):
                trial = {
                    "task": function.label,
                    "task_name": function.name,
                    "learner": named.label,
                    "learner_name": named.name,
                }
                about = {**named.options_on(function), **trial}
                rows += [{**domain, **about} for domain in self.domains.get(function.label, [{}])]
        frame = pd.DataFrame(rows)
        return frame.merge(pd.DataFrame({"seed": list(self.study.seeds)}), how="cross") if with_seeds else frame
