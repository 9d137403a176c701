"""One fitted model: what ``elsewhere fit`` writes and ``elsewhere predict`` reads, with the reader of its data."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from elsewhere import catalogue
from elsewhere.assay.api import reader_for, reader_options, reads_object
from elsewhere.assay.judge import judge, predict
from elsewhere.assay.plan import asked_of, granted, refuses
from elsewhere.assay.study import learners_of, parse_task
from elsewhere.closed import check_fields
from elsewhere.data import Data, optional_column
from elsewhere.errors import NotOffered, UserError, did_you_mean, one_line
from elsewhere.identity import digest, identity
from elsewhere.learner import Learner
from elsewhere.run import Run, first_process, write_whole
from elsewhere.saving import load, save
from elsewhere.task import Source, Task, TaskFunction, as_task_function, resolve

if TYPE_CHECKING:
    import pandas as pd

ABOUT = "model.json"
SUFFIXES = (".parquet", ".pq", ".csv")


@dataclass
class Model:
    """A fitted learner, and what is needed to ask it about new data.

    Args:
        learner: fitted.
        about: the reader of new data and what it remembers (columns and their types), the classes, how it was fitted.
    """

    learner: Learner[Any, Any]
    about: dict[str, Any]

    def predict(self, what: Any = None, run: Run = Run(), **asks: Any) -> pd.DataFrame:
        """Return one row an example: its id, ``prediction``, and ``probability_<class>`` where there are classes.

        Args:
            what: a path or a DataFrame that the model's reader takes, or data of the kind it was fitted on; None where a question says it all.
            run: device and precision.
            asks: questions that the model's reader knows: ``do="a,b"``, ``size=1000`` …

        Raises:
            UserError: the data are not of the form that the model was fitted on; what differs is named.
        """
        if isinstance(what, Data) and asks:
            raise UserError(f"{next(iter(asks))} is a question to the model's reader; these are data already")
        data = what if isinstance(what, Data) else self._read(what, asks)
        if asked_of(self.learner, data) is None:
            raise UserError(f"the model needs {self.learner.accepts.__name__}, and the data are {type(data).__name__}")
        return _named(predict(self.learner, data, run)[0], data, self.about.get("classes"), self.about.get("label_names") or ())

    def _read(self, what: Any, asks: Mapping[str, Any]) -> Any:
        name = self.about.get("reader")
        if not name:
            raise UserError("this model does not know how to read files (its task names no reader); give it data from Python")
        entry = catalogue.entry("readers", name)
        if not entry.new:
            raise UserError(f"reader {name!r} reads no new data")
        known = [o.name.replace("-", "_") for o in entry.asks]
        if unknown := [k for k in asks if k not in known]:
            raise UserError(f"a model fitted on {self.about.get('from', 'such data')} takes no --{unknown[0].replace('_', '-')}{did_you_mean(unknown[0], known) if known else ''}")
        if what is None and not known:
            raise UserError("say what to predict for: a file of the kind that the model was fitted on")
        return resolve(entry.new)(what, self.about.get("reads") or {}, **asks)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write learner and reader to a folder, whole or not at all; a model that was there is replaced."""
        place = Path(folder)
        _check_place(place)
        try:
            save(self.learner, place, {ABOUT: json.dumps(self.about, indent=1).encode()})
        except NotOffered as reason:
            raise UserError(f"the fitted model cannot be saved: {reason}") from reason
        except OSError as error:
            raise UserError(f"cannot write {place}: {error.strerror}") from error

    @classmethod
    def load(cls, folder: str | os.PathLike[str], trust: Sequence[type] = ()) -> Self:
        """Return the model in a folder; like ``elsewhere.load`` it makes catalogued classes and those in ``trust`` only."""
        learner = load(folder, trust)
        path = Path(folder) / ABOUT
        try:
            about = json.loads(path.read_text()) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged: {one_line(error)}") from error
        if not isinstance(about, dict):
            raise UserError(f"{path} is damaged: expected an object")
        return cls(learner, about)


def fit(
    what: Any,
    learner: Any = None,
    *,
    out: str | os.PathLike[str] | None = None,
    seed: int = 0,
    reader: str | None = None,
    run: Run | None = None,
    **options: Any,
) -> Model:
    """Fit one learner and return it as a model that reads new data.

    A table is fitted on all its rows and domains, unless ``source=`` names some; a task on its source (what it holds out
    as home stays held out, and is judged). Under torchrun every process calls this and the first one writes.

    Args:
        what: a path that a reader takes, a DataFrame, a task by name or as a function, or a ``Source``.
        learner: a name (``"cnn:steps=2000"``), a learner, an estimator, a torch module; default: the last of those the data come with.
        out: the model's folder. A training that was cut off goes on when the same call is given again.
        seed: of the task and of the training.
        reader: the reader to use where several take the path.
        run: device, precision, progress; its seed is ``seed``.
        options: of the reader or the task: ``predict=``, ``domain=``, ``source=`` …

    Raises:
        UserError: anything handed in is wrong; nothing is written then.

    Examples:
        >>> model = fit("penguins", "logistic-regression")
        >>> model.about["classes"]
        ['female', 'male']
    """
    source, about, default = _source(what, reader, seed, options)
    (named,) = learners_of([learner if learner is not None else default])
    check_fields(named.learner, named.label)
    if reason := refuses(named.learner, source):
        raise UserError(f"{named.label} cannot be fitted: {reason}")
    if named.learner.reads:
        raise UserError(f"{named.label} reads columns beside the features: there is nothing to fit")
    if out is not None:
        _check_place(Path(out))
    task: Task[Any] | None = about.pop("task", None)
    made, folder = _run(run, seed, out, named.learner, source)
    fitted = named.learner.fit(granted(source, named.learner), made)
    told = {"learner": named.label, "seed": seed, "examples": len(source.train), **about, **_home(task, fitted, made)}
    model = Model(fitted, told)
    if out is not None and first_process():
        model.save(out)
    if folder is not None and first_process():
        shutil.rmtree(folder, ignore_errors=True)
    return model


def _check_place(place: Path) -> None:
    if place.exists() and not (place / "learner.json").exists() and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{place} exists and holds no model; choose another --out")


def _run(run: Run | None, seed: int, out: str | os.PathLike[str] | None, learner: Any, source: Source[Any]) -> tuple[Run, Path | None]:
    given = run or Run()
    if out is None:
        return replace(given, seed=seed), None
    place = Path(out)
    folder = place.with_name(f".{place.name}.fit")
    return replace(given, seed=seed, folder=folder, trial=digest([identity(learner), source.key, seed])), folder


def _source(what: Any, reader: str | None, seed: int, options: dict[str, Any]) -> tuple[Source[Any], dict[str, Any], Any]:
    """Return what to fit on, what the model shall remember, and the learner that is used if none is named."""
    if isinstance(what, Source):
        return what, _names(what), None
    function = _task_function(what, options)
    if function is not None:
        task = next(iter(function.expand()))(seed)
        return task.source, {"reader": function.reader, "reads": _shape(task.source), "task": task, "from": function.label, **_names(task.source)}, (function.learners or (None,))[-1]
    name = reader_for(what, reader, options)
    entry = catalogue.entry("readers", name)
    if not entry.source:
        raise UserError(f"reader {name!r} gives nothing to fit on; fit a task instead")
    source, reads, default = resolve(entry.source)(what, **reader_options(name, options))
    return source, {"reader": name, "reads": reads, "from": str(what) if isinstance(what, (str, os.PathLike)) else f"a {type(what).__name__}", **_names(source)}, default


def _task_function(what: Any, options: Mapping[str, Any]) -> TaskFunction | None:
    if isinstance(what, (str, os.PathLike)):
        text = os.fspath(what).removeprefix("tasks/")
        if text.partition(":")[0] not in catalogue.entries("tasks") or Path(os.fspath(what)).exists():
            return None
        return parse_task(text, dict(options))
    if reads_object(what):
        return None
    function = as_task_function(what)
    return function.bind(**options) if options else function


def _names(source: Source[Any]) -> dict[str, Any]:
    """Return the names of the classes, and of several numbers an example where the data name them."""
    classes, several = (getattr(source.train, name, None) for name in ("classes", "label_names"))
    told: dict[str, Any] = {"classes": None if classes is None else [str(c) for c in classes]}
    return told if several is None else {**told, "label_names": [str(n) for n in several]}


def _shape(source: Source[Any]) -> dict[str, Any]:
    """Return the shape of one input, for readers of new pictures."""
    shape = getattr(getattr(source.train, "inputs", None), "shape", ())
    return {"shape": [int(s) for s in shape[1:]]} if len(shape) > 2 else {}


def _home(task: Task[Any] | None, fitted: Any, run: Run) -> dict[str, Any]:
    """Return the headline in the domains at home, which the task held out."""
    homes = [] if task is None else [d for d in task.domains if d.role == "home"]
    if task is None or not homes:
        return {}
    scores = judge(replace(task, domains=homes, metrics=task.metrics[:1]), fitted, run)["scores"].to_pylist()
    return {"home": [{"domain": s["domain"], "metric": s["metric"], "value": s["value"], "error": s["error"], "n": s["n"]} for s in scores]}


def _named(prediction: Any, data: Any, classes: Sequence[str] | None, several: Sequence[str] = ()) -> pd.DataFrame:
    """Return a prediction as a frame with ids, classes by name."""
    import numpy as np
    import pandas as pd

    if not hasattr(prediction, "to_frame"):
        raise UserError(f"predictions of type {type(prediction).__name__} have no table; use the model from Python")
    frame = prediction.to_frame()
    if "class" in frame and classes is not None:
        names = np.array(classes, object)
        frame = frame.rename(columns={f"probability_{k}": f"probability_{n}" for k, n in enumerate(classes)})
        frame["class"] = names[frame["class"].to_numpy()]
    frame = frame.rename(columns={"class": "prediction", "mean": "prediction", **_labels(several)})
    ids = optional_column(data, "id")
    frame.insert(0, "id", np.arange(len(frame)) if ids is None or len(ids) != len(frame) else pd.Series(ids))
    return frame


def _labels(names: Sequence[str]) -> dict[str, str]:
    """Return mean_0, mean_1, … -> names of labels; a name that the frame needs itself keeps "mean_"."""
    taken = ("id", "prediction")
    return {f"mean_{k}": f"mean_{n}" if n in taken else n for k, n in enumerate(names)}


def write_predictions(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write predictions as Parquet or CSV, by the path's ending, whole or not at all."""
    place = Path(path)
    buffer = io.BytesIO()
    if place.suffix in (".parquet", ".pq"):
        frame.to_parquet(buffer, index=False)
    else:
        frame.to_csv(buffer, index=False)
    try:
        write_whole(place, buffer.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {place}: {error.strerror}") from error
