"""A result: a study's folder. Tables out, explanations, a report, expectations checked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from elsewhere import catalogue
from elsewhere.assay import analysis, engine, resampling, statistics
from elsewhere.assay.expectation import Verdict
from elsewhere.assay.intervals import quantile
from elsewhere.assay.judge import predict
from elsewhere.assay.layout import interval_text, layout, wide
from elsewhere.assay.paired import paired_spread
from elsewhere.assay.plan import Trial
from elsewhere.assay.store import Store
from elsewhere.assay.study import Study, construct, from_json, split_options, to_json
from elsewhere.errors import ExpectationFailed, UserError, did_you_mean, one_line
from elsewhere.explainer import Explainer, Finding
from elsewhere.identity import digest
from elsewhere.places import is_local, listing, place, scratch
from elsewhere.run import Run, write_whole
from elsewhere.task import Task

MOST_KEPT = 2_000_000  # rows of values per example that a result keeps in memory


@dataclass(repr=False)
class Result:
    """The folder of a study, finished or still being filled.

    Examples:
        >>> Result("no/such/folder")
        Traceback (most recent call last):
        elsewhere.errors.UserError: no/such/folder holds no study (no study.json)
    """

    folder: Path
    study: Study | None = None
    _kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __init__(self, folder: str | os.PathLike[str], study: Study | None = None) -> None:
        self.folder, self.study, self._kept = place(folder), study, {}
        self.store = Store(self.folder)
        try:
            self.about: dict[str, Any] = json.loads((self.folder / "study.json").read_text())
        except FileNotFoundError as error:
            raise UserError(f"{folder} holds no study (no study.json)") from error
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"{self.folder / 'study.json'} cannot be read: {one_line(error)}; give the assay command again") from error

    # --- tables ---

    def trials(self) -> pd.DataFrame:
        """Return one row a finished trial of the plan: status, reason, seconds, memory, threads, versions, what it saw."""
        if "trials" not in self._kept:
            frame = self.store.records().to_pandas()
            planned = set(self.about["planned"])
            frame = frame[frame.trial.isin(planned)] if len(frame) else pd.DataFrame(columns=["trial", "status", "learner", "task", "seed", "reason"])
            self._kept["trials"] = frame.drop(columns="sizes", errors="ignore").rename(columns={"name": "learner_name"}).reset_index(drop=True)
        frame_: pd.DataFrame = self._kept["trials"]
        return frame_

    def scores(self) -> pd.DataFrame:
        """Return one row a trial × domain × metric: value, error over units, n, reason; with the trial's own columns."""
        if "scores" not in self._kept:
            trials = self.trials()
            rows = self.store.read("scores").to_pandas() if len(trials) else pd.DataFrame()
            self._kept["scores"] = _joined(rows, trials)
        frame: pd.DataFrame = self._kept["scores"]
        return frame

    def examples(self, trials: Collection[str] | None = None) -> pd.DataFrame:
        """Return the values per example of array metrics: one row a trial × domain × example, one column a metric."""
        wanted = set(self.trials().trial) if trials is None else set(trials)
        return self.store.read("examples", wanted).to_pandas()

    def examples_of(self, trials: Collection[str]) -> dict[tuple[str, str], pd.DataFrame]:
        """Return (trial, domain) -> its rows of ``examples()``; few are kept, so that each is read once."""
        kept: dict[str, dict[tuple[str, str], pd.DataFrame]] = self._kept.setdefault("examples of", {})
        wanted = {str(t) for t in trials}
        if missing := wanted - set(kept):
            if sum(len(rows) for parts in kept.values() for rows in parts.values()) > MOST_KEPT:
                kept.clear()
                missing = wanted
            kept |= {trial: {} for trial in missing}
            for key, rows in self.examples(missing).groupby(["trial", "domain"], observed=True):
                kept[str(key[0])][str(key[0]), str(key[1])] = rows
        return {key: rows for trial in wanted for key, rows in kept[trial].items()}

    def history(self) -> pd.DataFrame:
        """Return the curves that learners logged: trial, step, name, value."""
        return self.store.read("history", set(self.trials().trial)).to_pandas()

    def cells(self, metric: str | None = None, confidence: float = 0.95) -> pd.DataFrame:
        """Return task, learner, domain, role, value, low, high, n, seeds of one metric (the headline)."""
        name = metric or self.headline
        by = ["task", "learner", "domain", "role"]
        return self._once(("cells", name, confidence), lambda: self._in_order(analysis.cells(self._of(name), by, confidence, name)))

    def _in_order(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return rows in the order in which the study names tasks and learners; trials lie in that of their keys."""
        planned = {key: k for k, key in enumerate(self.about["planned"])}
        trials = self.trials()
        trials = trials.assign(at=trials.trial.astype(str).map(planned).astype(float)).sort_values("at", kind="stable")
        keys = []
        for name in ("task", "learner"):
            place = {v: k for k, v in enumerate(dict.fromkeys(trials[name].astype(str)))}
            keys.append(table[name].astype(str).map(place).to_numpy())
        return table.iloc[np.lexsort(keys[::-1])].reset_index(drop=True)

    def table(self, metric: str | None = None, confidence: float = 0.95) -> pd.DataFrame:
        """Return learner × domain: value, low, high; where tasks judge the same domains, task and learner × domain.

        Home and elsewhere, and different tasks, are never averaged. Where each task leaves out another
        domain, its home stands before it as ``home (leave_out=…)``.
        """
        long = self.cells(metric, confidence)
        plan = layout(long)
        long = long.assign(domain=plan.labels)
        values = ["value", "low", "high"]
        table = wide(long, plan.rows, "domain", values).swaplevel(axis=1)
        columns = pd.MultiIndex.from_product([plan.columns, values], names=["domain", None])
        return table.reindex(columns=columns)

    def __repr__(self) -> str:
        done, planned = len(self.trials()), len(self.about["planned"])
        head = f"Result({str(self.folder)!r}): {done} of {planned} trials"
        try:
            return f"{head}\n{self.headline}\n{self.as_text()}"
        except UserError as error:
            return f"{head}; {error}"

    def _repr_html_(self) -> str:
        """Show a notebook the summary and the headline's table."""
        import html

        said = "".join(f"<li>{html.escape(line)}</li>" for line in (*self.notes(), *self.summary()))
        try:
            table = self.as_strings().to_html(escape=True)
        except UserError:
            table = ""
        return f"<div><b>{html.escape(str(self.folder))}</b><ul>{said}</ul>{table}</div>"

    def as_strings(self, metric: str | None = None) -> pd.DataFrame:
        """Return ``table()`` with one text a cell: value and interval."""
        table = self.table(metric)
        shown = {d: [interval_text(*row) for row in table[d].itertuples(index=False)] for d in _first_level(table)}
        return pd.DataFrame(shown, index=table.index)

    def as_text(self, rows: int = 30, columns: int = 8) -> str:
        """Return the headline's table as lines of text, at most this many rows and columns of it."""
        table = self.as_strings()
        short = table.iloc[:rows, :columns]
        short = short.set_axis([one_line(str(c), 40) for c in short.columns], axis=1)
        left = table.shape[1] - short.shape[1]
        more = f"\n(and {left} more columns in the report)" if left > 0 else ""
        return f"{short.to_string()}{more}"

    def gaps(self, metric: str | None = None) -> pd.DataFrame:
        """Return how much worse each learner is in each domain than at home, with the interval."""
        name = metric or self.headline
        return self._once(("gaps", name), lambda: analysis.gaps(self._of(name), self.higher_is_better(name)))

    def ranking(self, metric: str | None = None) -> pd.DataFrame:
        """Return learners ranked by their mean elsewhere; ties share a rank."""
        name = metric or self.headline
        return self._once(("ranking", name), lambda: analysis.ranking(self._of(name), self.higher_is_better(name), self._paired_errors(name), metric=name))

    def pairs(self, metric: str | None = None) -> pd.DataFrame:
        """Return kind, slope, R² and rank correlation of home and elsewhere for each task and domain."""
        name = metric or self.headline
        drawn = partial(resampling.resampled, self, metric=name)
        return self._once(("pairs", name), lambda: analysis.pairs(self.scores(), name, resampled=drawn))

    def predictors(self, metric: str | None = None) -> pd.DataFrame:
        """Return which measure at home foretells ``metric`` elsewhere, best first."""
        name = metric or self.headline
        return self._once(("predictors", name), lambda: analysis.predictors(self.scores(), name))

    def correlations(self, rows: str = "home", columns: str = "there", given: str | None = None) -> pd.DataFrame:
        """Return how each measure at home (or there) goes with each elsewhere: rank correlation within each pair, median and interval over pairs; ``given``: beyond that measure at home."""
        return self._once(("correlations", rows, columns, given), lambda: statistics.correlations(self.scores(), rows, columns, given))

    def loadings(self) -> pd.DataFrame:
        """Return how many things the measures measure: loadings of a factor analysis."""
        return self._once("loadings", lambda: statistics.factor_loadings(self.scores()))

    def choices(self) -> list[str]:
        """Return the fields of learners that have several values here."""
        return statistics.choices(self.scores())

    def helps(self, choice: str, metric: str | None = None) -> pd.DataFrame:
        """Return what each level of a choice gains elsewhere over the first, paired with trials that agree in all else."""
        name = metric or self.headline
        return self._once(("helps", choice, name), lambda: statistics.helps(self.scores(), choice, name))

    def shares(self, metric: str | None = None) -> pd.DataFrame:
        """Return the share of the variance elsewhere that each choice explains."""
        name = metric or self.headline
        return self._once(("shares", name), lambda: statistics.variance_shares(self.scores(), name))

    def choose(self, by: str, metric: str | None = None) -> pd.DataFrame:
        """Return the trial that a measure at home picks for each task, seed and domain, its value there and its regret."""
        return statistics.chosen(self.scores(), metric or self.headline, by)

    def regrets(self, metric: str | None = None) -> pd.DataFrame:
        """Return what choosing by each measure at home costs elsewhere."""
        name = metric or self.headline
        halves = partial(resampling.halves, self, metric=name)
        return self._once(("regrets", name), lambda: statistics.regrets(self.scores(), name, halves))

    def _once(self, key: Any, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return a table computed once for this object; callers get a copy of their own."""
        if key not in self._kept:
            self._kept[key] = make()
        table: pd.DataFrame = self._kept[key]
        return table.copy()

    def by_group(self, metric: str = "accuracy", confidence: float = 0.95) -> pd.DataFrame:
        """Return one row a learner × domain × group: value, low, high, people (n), seeds, from the kept values per example; empty where there are no groups.

        ``metric`` is any that is measured per example: accuracy, acceptance, nll, …, or "calibration" (accuracy minus confidence).
        """
        from elsewhere.assay.people import by_group

        return self._once(("groups", metric, confidence), lambda: by_group(self, metric, confidence))

    @property
    def headline(self) -> str:
        """The first metric of the tasks."""
        trials = self.trials()
        told = [json.loads(text)["headline"] for text in trials[trials.status == "done"].about_task.unique()] if len(trials) else []
        if not told:
            raise UserError(f"no trial of {self.folder} has finished" + self._first_failure())
        return str(told[0])

    def higher_is_better(self, metric: str) -> bool:
        """Whether larger values of a metric are better."""
        rows = self._of(metric)
        return bool(rows.higher_is_better.iloc[0])

    def _of(self, metric: str | None) -> pd.DataFrame:
        name = metric or self.headline
        scores = self.scores()
        if "metric" not in scores or not len(rows := scores[scores.metric == name]):
            known = list(scores.metric.unique()) if "metric" in scores else []
            raise UserError(f"no score of metric {name!r}{did_you_mean(name, known)}")
        return rows

    def _first_failure(self) -> str:
        failed = self.trials().query("status == 'failed'")
        return f"; {failed.learner.iloc[0]}: {failed.reason.iloc[0]}" if len(failed) else ""

    def _paired_errors(self, metric: str) -> dict[tuple[str, str], float]:
        rows = self._of(metric)
        rows = analysis.away(rows)
        names = list(rows.learner.unique())
        if rows.trial.nunique() > resampling.PAIRED_UP_TO or len(names) > 12:
            return {}
        found = {}
        for a in names:
            for b in names:
                if a < b and (pair := paired_spread(self, metric, rows[rows.learner == a], rows[rows.learner == b])) is not None:
                    # p-values are normal over units: few units widen the error instead
                    found[(a, b)] = found[(b, a)] = pair.error * quantile(pair.freedom, 0.975) / quantile(np.inf, 0.975)
        return found

    @cached_property
    def missing(self) -> int:
        """How many planned trials have not run yet."""
        return len(self.about["planned"]) - len(self.trials())

    @cached_property
    def key(self) -> str:
        """A key of the planned trials: two folders with the same key hold the same study."""
        return digest(sorted(self.about["planned"]))

    def notes(self) -> list[str]:
        """Return what a reader must know about the data before the numbers, each sentence once."""
        said = [n for a in self._about_tasks() for n in a.get("notes", [])]
        return list(dict.fromkeys([*self.about.get("notes", []), *said]))

    def warnings(self) -> list[str]:
        """Return what libraries warned of while trials ran, each once."""
        return list(dict.fromkeys(w for a in self._about_tasks() for w in a.get("warnings", [])))

    def _about_tasks(self) -> list[dict[str, Any]]:
        trials = self.trials()
        return [json.loads(text) for text in trials.about_task.unique()] if "about_task" in trials else []

    def summary(self) -> list[str]:
        """Return in plain words which domains fail, by how much, which learner to pick and why, and what is missing."""
        from elsewhere.assay.summary import summary

        return summary(self)

    # --- tasks and models ---

    def plan(self) -> list[Trial]:
        """Return the planned trials, tasks and learners made anew; needs the data the study was made of."""
        if self.study is None:
            self.study = from_json(self.about)
        if "plan" not in self._kept:
            self._kept["plan"] = [Trial(t, n.learner, n.label, n.name, seed) for t, seed, n in self.study.crossed()]
        trials: list[Trial] = self._kept["plan"]
        return trials

    def trial(self, key: str) -> Trial:
        """Return one trial by its key."""
        for t in self.plan():
            if _key_if_there(t) == key:
                return t
        raise UserError(f"trial {key} cannot be made again: its data or the code have changed since the study ran")

    def task(self, trial: str) -> Task[Any]:
        """Return the task of a trial, its data drawn as they were."""
        return engine._task(self.trial(trial))

    def fitted(self, trial: str) -> Any:
        """Return the fitted learner of a trial: fitted again, since trials are deterministic."""
        if ("fitted", trial) not in self._kept:
            self._kept[("fitted", trial)] = engine.refit(self.trial(trial), self.folder)
        return self._kept[("fitted", trial)]

    def predictions(self, trial: str, domain: str) -> Any:
        """Return the prediction of a trial in a domain, made again."""
        fitted = self.fitted(trial)
        run = Run(seed=self.trial(trial).seed, folder=scratch(self.folder), progress=False)
        return predict(fitted, self.task(trial).domain(domain).load(), run)[0]

    # --- explanations, expectations, report ---

    def explain(self, explainer: str | Explainer, **fields: Any) -> Finding:
        """Return what an explainer finds; kept in the folder, so that the report shows it too.

        Args:
            explainer: a name, ``NAME:field=value,…`` or an ``Explainer``.
            fields: of the explainer, if it is given by name.
        """
        made = explainer if isinstance(explainer, Explainer) else make_explainer(explainer, fields)
        from elsewhere.assay.findings import keep, name_of

        if reason := made.applies(self):
            raise UserError(f"{name_of(made)} does not apply: {reason}")
        finding = made.explain(self)
        keep(self, made, finding)
        return finding

    def explainers(self) -> pd.DataFrame:
        """Return one row an explainer: name, whether it applies here, the reason if not, its cost, what it says; those to read first come first.

        First what this kind of task names itself, then what says why in general, the cheap before the dear.
        """
        named = [n for a in self._about_tasks() for n in a.get("findings", [])]
        rows = []
        for name, entry in catalogue.entries("explainers").items():
            made = make_explainer(name, {})
            reason = made.applies(self)
            rows.append({"explainer": name, "applies": reason is None, "cost": made.cost, "reason": reason or "", "says": entry.help, "named": name in named})
        frame = pd.DataFrame(rows)
        order = frame.assign(rank=frame.cost.map({"free": 0, "minutes": 1, "long": 2})).sort_values(["applies", "named", "rank"], ascending=[False, False, True], kind="stable").index
        return frame.loc[order].drop(columns="named").reset_index(drop=True)

    def findings(self) -> dict[str, Finding]:
        """Return the findings kept in the folder, by explainer."""
        from elsewhere.assay.findings import kept

        return kept(self)

    def verdicts(self) -> list[tuple[str, Verdict]]:
        """Return each expectation in words with what became of it."""
        from elsewhere.assay.expectation import Expectation

        if "verdicts" not in self._kept:  # a statistic may take minutes
            self._kept["verdicts"] = [(e.text, e.check(self)) for e in map(Expectation.of, self.about["expect"])]
        return list(self._kept["verdicts"])

    def check(self) -> None:
        """Raise ``ExpectationFailed`` naming every expectation that fails or cannot be told."""
        bad = [v.sentence for _, v in self.verdicts() if v.state != "holds"]
        if bad:
            raise ExpectationFailed("; ".join(bad))

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write one self-contained HTML page and return its path (``report.html`` in the folder by default)."""
        from elsewhere.assay.report import write

        return write(self, place(path) if path is not None else self.folder / "report.html")


def _first_level(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(c[0] for c in table.columns))


def _key_if_there(trial: Trial) -> str | None:
    """Return the key of a trial; None where a file that its task or learner names is gone."""
    try:
        return trial.key
    except UserError:
        return None


def make_explainer(text: str, fields: Mapping[str, Any]) -> Explainer:
    """Return the explainer of ``NAME:field=value,…`` and further fields."""
    name, options = split_options(text)
    made = construct(catalogue.get("explainers", name), {**options, **fields}, name)
    if not isinstance(made, Explainer):
        raise UserError(f"{name!r} is no explainer")
    return made


def write_study(folder: Path, study: Study, trials: list[Trial], command: str) -> None:
    """Write ``study.json``: the study, the keys of its planned trials, the command that repeats it.

    Raises:
        UserError: the folder holds a study with no task in common, or cannot be written.
    """
    path = folder / "study.json"
    _reachable(folder)
    content = {**to_json(study), "planned": [t.key for t in trials], "command": command, "elsewhere": json.loads(engine.versions())["elsewhere"]}
    if path.exists():
        before = {json.dumps(t, sort_keys=True) for t in json.loads(path.read_text()).get("tasks", [])}
        if not before & {json.dumps(t, sort_keys=True) for t in content["tasks"]}:
            raise UserError(f"{folder} holds another study, with none of these tasks; choose another --out")
    elif not is_local(folder):
        if any(n for kind in ("trials", "segments") for n in listing(folder / kind)):
            raise UserError(f"{folder} holds trials and no study; choose another --out")
    elif folder.exists() and (not folder.is_dir() or any(not p.name.startswith(".") for p in folder.iterdir())):
        raise UserError(f"{folder} is not empty and holds no study; choose another --out")
    try:
        write_whole(path, json.dumps(content, indent=1, default=str).encode())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or one_line(error)}") from error


def _reachable(folder: Path) -> None:
    """Ask a remote store once before anything runs, so that a wrong name or missing rights are told in one line."""
    if not is_local(folder):
        try:
            (folder / "study.json").exists()
        except Exception as error:  # every driver raises kinds of its own
            raise UserError(f"{folder} does not answer: {one_line(error)}") from error


def key_of(result: Result) -> str:
    """Return a key of what has finished so far: findings of other states are stale."""
    return digest(sorted(result.trials().trial.tolist()))


def _joined(rows: pd.DataFrame, trials: pd.DataFrame) -> pd.DataFrame:
    """Join scores with their trials by code, which stays fast for millions of rows; options and ``about`` become columns."""
    if not len(rows):
        return pd.DataFrame(columns=["trial", "task", "learner", "learner_name", "task_name", "seed", "domain", "role", "metric", "value", "error", "n", "reason", "higher_is_better"])
    keys = rows.trial.astype("category")
    where = pd.Index(trials.trial).get_indexer(pd.Index(keys.cat.categories))
    at = where[keys.cat.codes.to_numpy()]
    if (at < 0).any():
        rows, keys, at = rows[at >= 0], keys[at >= 0], at[at >= 0]
    told: dict[str, Any] = {"trial": keys}
    for name in ("task", "task_name", "learner", "learner_name"):
        told[name] = _taken(trials[name], at)
    told["seed"] = trials.seed.to_numpy()[at]
    frame = rows.drop(columns="trial").assign(**told)
    options = pd.DataFrame([json.loads(o) for o in trials.options])
    for name in options.columns:
        # An option or field that is named like a column of scores stands beside it.
        shown = f"option {name}" if name in frame else name
        frame[shown] = _taken(options[name].astype(object), at)
    about = rows["about"].astype("category")
    keys_about = pd.DataFrame([json.loads(a) for a in about.cat.categories])
    for name in keys_about.columns:
        values = keys_about[name].to_numpy()[about.cat.codes.to_numpy()]
        if name not in frame:
            frame[name] = values
        elif name not in rows and name not in told and _differ(values, frame[name]):
            frame[f"option {name}"], frame[name] = frame[name], values
    return frame.drop(columns="about")


def _differ(values: Any, others: pd.Series[Any]) -> bool:
    """Return whether two columns disagree where the first has a value."""
    known = pd.notna(values)
    return bool((np.asarray(values, object)[known] != np.asarray(others, object)[known]).any())


def _taken(values: pd.Series[Any], at: np.ndarray[Any, Any]) -> Any:
    category = pd.Categorical(values)
    return pd.Categorical.from_codes(category.codes[at], dtype=category.dtype)
