"""``elsewhere.assay``: one call from data to a result."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any

from elsewhere import catalogue
from elsewhere.assay.engine import Progress, run_trials
from elsewhere.assay.expectation import Expectation
from elsewhere.assay.plan import noted, plan
from elsewhere.assay.previews import keep as keep_previews
from elsewhere.assay.result import Result, write_study
from elsewhere.assay.study import NamedLearner, Study, learners_of, parse_task, read_study, seeds_of
from elsewhere.closed import check_options
from elsewhere.errors import UserError, did_you_mean
from elsewhere.identity import reference
from elsewhere.places import place
from elsewhere.task import TaskFunction, as_task_function, resolve
from elsewhere.wrapping import ignoring_weights


def assay(
    what: Any,
    *,
    learners: Sequence[Any] = (),
    seeds: int | Sequence[int] | None = None,
    out: str | os.PathLike[str] | None = None,
    expect: Sequence[Expectation | dict[str, Any]] = (),
    workers: int = 1,
    retry: bool = False,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
    reader: str | None = None,
    **options: Any,
) -> Result:
    """Train on the data you have, measure at home and in every other place, and return the result.

    Args:
        what: a path that a reader takes (CSV, Parquet …), a DataFrame, a study file, a catalogued study or task
            (``"penguins"``), a task function, ``named("mine", task)``, a ``Study``, or a list of tasks.
        learners: names (``"boosting:max_depth=3"``), learners, scikit-learn estimators, ``named`` things.
        seeds: a number of seeds or the seeds themselves; default 3.
        out: the folder of the result, a path or a URL (``s3://…``); given again, only what is missing runs. Default ``results/<name>-<time>``.
        expect: expectations, for ``result.check()``.
        workers: local processes.
        retry: run failed trials again.
        progress: called with a ``Progress`` after each trial; ``print`` will do.
        executor: any ``concurrent.futures.Executor`` instead of local processes; ``elsewhere.assay.cluster.RayExecutor``.
        reader: the reader to use where several take the path.
        options: of the reader or the task: ``predict=``, ``domain=``, ``source=`` …

    Raises:
        UserError: anything that was handed in is wrong; nothing has run then.
    """
    study = study_from(what, learners, seeds, expect, reader, options)
    folder = place(out) if out is not None else default_folder(what)
    return run_study(study, folder, workers, retry, progress, executor)


def run_study(
    study: Study,
    folder: Path,
    workers: int = 1,
    retry: bool = False,
    progress: Callable[[Progress], None] | None = None,
    executor: Executor | None = None,
    command: str = "",
) -> Result:
    """Run what is missing of a study in its folder and return the result."""
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise UserError(f"workers must be at least 1, not {workers!r}")
    if str(folder).startswith("memory://") and (workers > 1 or executor is not None):
        raise UserError(f"{folder} lives in this process alone; use workers=1, or a folder that every worker reaches")
    trials = plan(study)
    study = noted(study)
    write_study(folder, study, trials, command)
    result = Result(folder, study)
    if retry:
        result.store.remove(result.trials().query("status == 'failed'").trial)
    run_trials(trials, folder, workers, study.threads, executor, progress)
    result = Result(folder, study)
    keep_previews(result)
    return result


def study_from(
    what: Any, learners: Sequence[Any] = (), seeds: int | Sequence[int] | None = None, expect: Sequence[Any] = (), reader: str | None = None, options: dict[str, Any] | None = None
) -> Study:
    """Return the study of whatever ``assay`` was asked for; what is given beside it overrides what a study file says."""
    options = {k: v for k, v in (options or {}).items() if v is not None}
    if isinstance(learners, (str, NamedLearner)) or hasattr(learners, "fit"):
        learners = [learners]
    wanted = learners_of(learners)
    expectations = tuple(e if isinstance(e, Expectation) else Expectation.of(e) for e in expect)
    found = what if isinstance(what, Study) else _study_asked_for(what)
    if found is not None:
        if options:
            raise UserError(f"a study takes no {next(iter(options))}; write it into the study file")
        found = replace(found, learners=wanted or found.learners, expectations=(*found.expectations, *expectations))
        return found if seeds is None else replace(found, seeds=seeds_of(seeds))
    tasks = _tasks(what, wanted, reader, options)
    default = dict.fromkeys(n for t in tasks for n in t.learners)
    chosen = wanted or learners_of(default)
    if not chosen:
        raise UserError(f"{tasks[0].label} has no default learners; name some, for example learners=['logistic-regression']")
    notes = []
    if any(t.options.get("weight") for t in tasks) and (ignoring := ignoring_weights([n.learner for n in chosen])):
        notes.append(f"Weights are ignored by {', '.join(ignoring)}; metrics use them.")
    # Other learners read no predictions but groups beside the features.
    given = any(hasattr(n.learner, "trained_on") for n in chosen)
    if given and any(t.options.get("carried") and not t.options.get("trained_on") for t in tasks):
        notes.append("Home may contain rows that the given model was trained on, which makes home look better; name the column that marks them: given:column=…,trained_on=….")
    return Study(tuple(tasks), chosen, seeds_of(3 if seeds is None else seeds), expectations, notes=tuple(notes))


def _study_asked_for(what: Any) -> Study | None:
    """Return the study that a file or a catalogued name stands for, or None."""
    if not isinstance(what, (str, os.PathLike)):
        return None
    text = os.fspath(what)
    if text.endswith(".toml"):
        return read_study(text)
    readers = _readers_for(text)
    names = [kind for kind in ("studies", "tasks") if text in catalogue.entries(kind)]
    if readers and names and _is_data(text):
        raise UserError(f"{text!r} is a file (reader {readers[0]}) and one of the {names[0]}; write ./{text} for the file")
    if "studies" in names and "tasks" not in names:
        return read_study(study_path(text))
    if len(names) == 2:
        raise UserError(f"{text!r} is a study and a task; say studies/{text} or tasks/{text}")
    if text.startswith("studies/"):
        return read_study(study_path(text.removeprefix("studies/")))
    return None


def _is_data(text: str) -> bool:
    """Return whether something lies at a path that could be meant as data: what an earlier run left there, a result, is none."""
    return Path(text).exists() and not (Path(text) / "study.json").exists()


def study_path(name: str) -> Path:
    """Return the file of a catalogued study."""
    from importlib.resources import files

    package, _, file = catalogue.entry("studies", name).target.partition(":")
    return Path(str(files(package).joinpath(file)))


def _tasks(what: Any, wanted: Sequence[NamedLearner], reader: str | None, options: dict[str, Any]) -> list[TaskFunction]:
    if isinstance(what, (list, tuple)):
        return [t for one in what for t in _tasks(one, wanted, reader, options)]
    if isinstance(what, (str, os.PathLike)):
        text = os.fspath(what)
        if text.removeprefix("tasks/").partition(":")[0] in catalogue.entries("tasks") and not _is_data(text):
            return list(parse_task(text.removeprefix("tasks/"), options).expand())
        return list(_read(text, wanted, reader, options).expand())
    if reads_object(what):
        return list(_read(what, wanted, reader, options).expand())
    function = as_task_function(what)
    return list((function.bind(**options) if options else function).expand())


def _readers_for(text: str, options: Mapping[str, Any] | None = None) -> list[str]:
    """Return the readers of a path's ending; those that a given option asks for go before the others."""
    path = (f"{text.rstrip('/')}/" if Path(text).is_dir() else text).lower()
    readers = catalogue.entries("readers").items()
    asked = [name for name, e in readers if e.asked_by and e.asked_by in (options or {}) and path.endswith(e.also)]
    return asked or [name for name, e in readers if path.endswith(e.takes)]


def reads_object(thing: Any) -> list[str]:
    """Return the readers of an object of Python, told by its class without importing what defines it."""
    kinds = {reference(kind) for kind in type(thing).__mro__}
    return [name for name, e in catalogue.entries("readers").items() if kinds.intersection(e.objects)]


def reader_for(thing: Any, reader: str | None = None, options: Mapping[str, Any] | None = None) -> str:
    """Return the name of the reader that takes a path, a DataFrame or another object; none or several are errors that say so."""
    text = os.fspath(thing) if isinstance(thing, (str, os.PathLike)) else type(thing).__name__
    names = [reader] if reader else _readers_for(text, options) if isinstance(thing, (str, os.PathLike)) else reads_object(thing)
    if not names:
        known = [*catalogue.entries("studies"), *catalogue.entries("tasks")]
        if Path(text).exists():
            endings = ", ".join(sorted({t for e in catalogue.entries("readers").values() for t in e.takes}))
            kind = "folder" if Path(text).is_dir() else "file"
            raise UserError(f"no reader takes the {kind} {text}; readers take {endings}, and studies are .toml files")
        raise UserError(f"{text!r} is no file, study or task{did_you_mean(text, known)}")
    if len(names) > 1:
        raise UserError(f"{text} can be read by {' and '.join(names)}; say reader={names[0]}")
    return names[0]


def reader_options(name: str, options: dict[str, Any], thing: Any = None) -> dict[str, Any]:
    """Return the options of a reader, checked; one value of a list is a list of one."""
    entry = catalogue.entry("readers", name)
    known_options = {o.name.replace("-", "_") for o in entry.options}
    for option in options:
        if option not in known_options:
            folder = f"{thing} is a folder, and " if isinstance(thing, (str, os.PathLike)) and Path(thing).is_dir() else ""
            raise UserError(f"{folder}reader {name!r} has no option {option!r}{did_you_mean(option, known_options)}")
    if entry.target:
        check_options(resolve(entry.target), options)
    kinds = {o.name.replace("-", "_"): o.type for o in entry.options}
    return {k: [v] if kinds[k] == "list" and isinstance(v, str) else v for k, v in options.items()}


def _read(thing: Any, wanted: Sequence[NamedLearner], reader: str | None, options: dict[str, Any]) -> TaskFunction:
    name = reader_for(thing, reader, options)
    entry = catalogue.entry("readers", name)
    if not (entry.takes or entry.also):
        raise UserError(f"reader {name!r} only reads new data for a fitted model")
    listed = reader_options(name, options, thing)
    carried = [c for n in wanted for c in n.learner.reads]
    if carried:
        listed["carried"] = carried
        marks = {getattr(n.learner, "trained_on", None) for n in wanted} - {None}
        if len(marks) > 1:
            raise UserError(f"two columns say what was trained on: {', '.join(sorted(map(str, marks)))}; assay one model at a time")
        if marks:
            listed["trained_on"] = marks.pop()
    made = resolve(entry.target)(thing, **listed)
    if not isinstance(made, TaskFunction):
        raise UserError(f"reader {name!r} returned a {type(made).__name__}, not a task function")
    return made


def default_folder(what: Any) -> Path:
    """Return ``results/<name>-<time>`` for what was asked for."""
    name = getattr(what, "name", None) if not isinstance(what, (str, os.PathLike)) else Path(os.fspath(what)).name.split(".")[0]
    safe = re.sub(r"[^\w-]+", "-", str(name or "assay")).strip("-") or "assay"
    base = Path("results") / f"{safe}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, n = base, 2
    while path.exists():
        path, n = base.with_name(f"{base.name}-{n}"), n + 1
    return path


def command_line(arguments: Sequence[str]) -> str:
    """Return the command as a person would type it."""
    return shlex.join(["elsewhere", *arguments])
