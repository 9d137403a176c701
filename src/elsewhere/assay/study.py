"""A study: tasks × learners × seeds, plus optional expectations; a TOML file or one Python call."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from elsewhere import catalogue
from elsewhere.assay.expectation import Expectation
from elsewhere.closed import check_options
from elsewhere.errors import UserError, did_you_mean, one_line
from elsewhere.identity import Named, identity, named_files, reference
from elsewhere.learner import Learner
from elsewhere.task import TaskFunction, resolve
from elsewhere.wrapping import wrap


@dataclass(frozen=True)
class NamedLearner:
    """A learner as a study knows it: the label of its rows, the name of its kind, and the tasks it is kept to (by name; none: all)."""

    label: str
    name: str
    learner: Learner[Any, Any]
    on: tuple[str, ...] = ()

    def runs_on(self, task: TaskFunction) -> bool:
        """Whether the study runs it on a task."""
        return not self.on or task.name in self.on

    def options_on(self, task: TaskFunction) -> dict[str, Any]:
        """Return the plain options of a task and fields of the learner: columns of the scores, keys of expectations."""
        return plain_options(task, self.learner)


@dataclass(frozen=True)
class Study:
    """What is run: every task with every learner and seed."""

    tasks: tuple[TaskFunction, ...]
    learners: tuple[NamedLearner, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    expectations: tuple[Expectation, ...] = ()
    claim: str = ""
    reference: str = ""
    threads: int = 1
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.tasks or not self.learners:
            raise UserError(f"a study needs at least one task and one learner; this one has {len(self.tasks)} and {len(self.learners)}")
        labels = [n.label for n in self.learners]
        if twice := sorted({n for n in labels if labels.count(n) > 1}):
            raise UserError(f"two learners are called {twice[0]!r}; give one a label")
        names = {t.name for t in self.tasks}
        for n in self.learners:
            if missing := [t for t in n.on if t not in names]:
                raise UserError(f"{n.label} is kept to the task {missing[0]!r}, which the study does not have{did_you_mean(missing[0], names)}")
        if twice := sorted({t.label for t in self.tasks if sum(t.label == o.label for o in self.tasks) > 1}):
            raise UserError(f"two tasks are called {twice[0]!r}; they differ in nothing, or in options that have no short form")

    def crossed(self) -> Iterator[tuple[TaskFunction, int, NamedLearner]]:
        """Yield task, seed and learner of every trial, in the order they run."""
        for task in self.tasks:
            for seed in self.seeds:
                yield from ((task, seed, n) for n in self.learners if n.runs_on(task))


def plain_options(task: TaskFunction, learner: Any) -> dict[str, Any]:
    """Return the options of a task and the fields of a learner that are one text, number or truth value."""
    held = {f.name: getattr(learner, f.name) for f in dataclasses.fields(learner)} if dataclasses.is_dataclass(learner) else {}
    plain = (str, int, float, bool)
    return {k: v for part in (task.options, held) for k, v in part.items() if isinstance(v, plain)}


def seeds_of(given: int | Sequence[int]) -> tuple[int, ...]:
    """Return the seeds: ``5`` means 0, 1, 2, 3, 4."""
    seeds = tuple(range(given)) if isinstance(given, int) and not isinstance(given, bool) else tuple(given) if isinstance(given, (list, tuple)) else ()
    if not seeds or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"seeds must be a number ≥ 1 or a list of different numbers ≥ 0, not {given!r}")
    return seeds


# --- learners and tasks by name -------------------------------------------------------------------------------------


def learners_of(given: Iterable[Any]) -> tuple[NamedLearner, ...]:
    """Return named learners of strings, learners, estimators and ``named`` things."""
    return tuple(_one_learner(thing) for thing in given)


def _one_learner(thing: Any) -> NamedLearner:
    if isinstance(thing, NamedLearner):
        return thing
    if isinstance(thing, str):
        return parse_learner(thing)
    if isinstance(thing, Named):
        learner = wrap(thing.thing)
        return NamedLearner(thing.name, thing.name, learner)
    learner = wrap(thing)
    name = _catalogued_name(type(learner)) or type(getattr(learner, "estimator", learner)).__name__
    return NamedLearner(name + _differing(learner), name, learner)


def _differing(learner: Any) -> str:
    """Return ``:field=value,…`` for the plain fields that differ from their defaults."""
    told = []
    for f in dataclasses.fields(learner):
        value = getattr(learner, f.name)
        if f.default is not dataclasses.MISSING and value != f.default and isinstance(value, (str, int, float, bool)):
            told.append(f"{f.name}={value}")
    return ":" + ",".join(told) if told else ""


def parse_learner(text: str) -> NamedLearner:
    """Read ``NAME:field=value,field=value``; NAME is in the catalogue or an import path of a learner or estimator.

    Examples:
        >>> parse_learner("boosting:max_depth=3").learner.max_depth
        3
    """
    name, options = split_options(text)
    return NamedLearner(text.strip(), name, make_learner(name, options))


def split_options(text: str) -> tuple[str, dict[str, Any]]:
    """Read ``NAME:field=value,…`` (first colon only; a dotted import path keeps its own) into name and values."""
    name, _, rest = text.strip().partition(":")
    options: dict[str, Any] = {}
    if not name or not name.isprintable():
        raise UserError(f"expected NAME or NAME:field=value,…, got {one_line(text, 60)!r}")
    for part in rest.split(",") if rest else []:
        key, equals, value = part.partition("=")
        if not equals or not key.strip().isidentifier():
            raise UserError(f"{one_line(text, 60)!r}: expected field=value, got {one_line(part, 40)!r}")
        if key.strip() in options:
            raise UserError(f"{one_line(text, 60)!r} sets {key.strip()!r} twice")
        options[key.strip()] = _literal(value.strip())
    return name, options


def _literal(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() in ("none", "null"):
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def make_learner(name: str, options: Mapping[str, Any]) -> Learner[Any, Any]:
    """Return the learner of a name and field values, types checked."""
    return wrap(construct(_class("learners", name), options, name))


def _class(kind: str, name: str) -> Any:
    if name in catalogue.entries(kind):
        return catalogue.get(kind, name)
    if ":" in name:
        return resolve(name)
    if "." in name and re.fullmatch(r"[\w.]+", name):
        module, _, attribute = name.rpartition(".")
        return resolve(f"{module}:{attribute}")
    catalogue.entry(kind, name)  # raises with the nearest name
    raise AssertionError


def construct(kind: Any, options: Mapping[str, Any], name: str) -> Any:
    """Call a dataclass or estimator class with options; unknown fields and wrong types are told in one line."""
    if not isinstance(kind, type):
        raise UserError(f"{name!r} is no class of learner, estimator or explainer")
    if not dataclasses.is_dataclass(kind):
        try:
            return kind(**options)
        except TypeError as error:
            raise UserError(f"{name}: {one_line(error)}") from error
    check_options(kind, options, name)
    known = {f.name: f for f in dataclasses.fields(kind) if f.init}
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in options.items():
        if key not in known:
            raise UserError(f"{name} has no field {key!r}{did_you_mean(key, known)}")
        values[key] = make_learner(value, {}) if isinstance(value, str) and key in getattr(kind, "inside", ()) else _converted(value, hints[key], f"{name}: {key}")
    if missing := [k for k, f in known.items() if k not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING]:
        raise UserError(f"{name} needs {missing[0]}: {name}:{missing[0]}=…")
    return kind(**values)


def _converted(value: Any, hint: Any, what: str) -> Any:
    if isinstance(value, Mapping) and "name" in value:
        inner = dict(value)
        return make_learner(inner.pop("name"), inner)
    if hint is Any or isinstance(value, (Learner, Named)) or hasattr(value, "get_params"):
        return value
    try:
        if isinstance(value, int) and not isinstance(value, bool) and hint is float:
            return float(value)
        return msgspec.convert(value, hint, strict=not (isinstance(value, (int, float)) and hint is str))
    except msgspec.ValidationError as error:
        raise UserError(f"{what} cannot be {value!r}: {one_line(error)}") from error
    except TypeError:  # a hint that msgspec does not know
        return value


def _catalogued_name(kind: type) -> str | None:
    return next((name for name, e in catalogue.entries("learners").items() if e.target == reference(kind)), None)


def parse_task(text: str, options: Mapping[str, Any] | None = None) -> TaskFunction:
    """Read ``NAME:option=value,…`` of the catalogue, or ``module:function``."""
    if text in catalogue.entries("tasks"):
        name, found = text, dict[str, Any]()
    elif ":" in text and "=" not in text and text.partition(":")[0] not in catalogue.entries("tasks"):
        return _bound(resolve(text), options or {}, text)
    else:
        name, found = split_options(text)
    return _bound(catalogue.get("tasks", name), {**found, **(options or {})}, name)


def _bound(function: Any, options: Mapping[str, Any], name: str) -> TaskFunction:
    if not isinstance(function, TaskFunction):
        raise UserError(f"{name!r} is no task function; decorate it with @task('name')")
    return function.bind(**options) if options else function


# --- study files ----------------------------------------------------------------------------------------------------


class _Task(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    options: dict[str, Any] = {}
    sweep: dict[str, list[Any]] = {}


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """A study file as written."""

    claim: str = ""
    reference: str = ""
    seeds: int | list[int] = 3
    threads: int = 1
    tasks: list[str] = []
    task: list[_Task] = []
    learners: list[str] = []
    learner: list[dict[str, Any]] = []
    expect: list[dict[str, Any]] = []


def read_study(path: str | os.PathLike[str]) -> Study:
    """Read a study file. It is code: tasks and learners may name ``module:attribute`` of installed modules.

    Raises:
        UserError: it is no TOML, has an unknown key, or names what does not exist.
    """
    place = Path(path)
    try:
        text = place.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    return study_of(text, str(path))


def study_of(text: bytes | str, where: str = "study") -> Study:
    """Return the study that TOML text describes."""
    try:
        file = msgspec.toml.decode(text, type=_File)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        message = one_line(error, 200)
        if match := re.search(r"unknown field `(\w+)`", message):
            message = f"unknown key {match[1]!r}{did_you_mean(match[1], _File.__struct_fields__)}"
        raise UserError(f"{where}: {message}") from error
    try:
        tasks = [f for name in file.tasks for f in parse_task(name).expand()]
        tasks += [f for item in file.task for options in _crossed(item.sweep, "sweep") for f in parse_task(item.name, {**item.options, **options}).expand()]
        learners = [parse_learner(name) for name in file.learners]
        learners += [one for item in file.learner for one in _swept_learners(item)]
        if not learners:
            learners = [parse_learner(n) for n in dict.fromkeys(n for t in tasks for n in t.learners)]
        if not 1 <= file.threads <= 1024:
            raise UserError(f"threads must be at least 1, not {file.threads}")
        expectations = tuple(Expectation.of(item) for item in file.expect)
        return Study(tuple(tasks), tuple(learners), seeds_of(file.seeds), expectations, file.claim, file.reference, file.threads)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _swept_learners(item: Mapping[str, Any]) -> Iterator[NamedLearner]:
    fields = dict(item)
    try:
        name, label, sweep, on = fields.pop("name"), fields.pop("label", None), fields.pop("sweep", {}), fields.pop("on", [])
    except KeyError as error:
        raise UserError("a [[learner]] needs a name") from error
    if not isinstance(name, str) or not isinstance(label, (str, type(None))):
        raise UserError("a learner's name and label are texts")
    if not isinstance(on, list) or not all(isinstance(t, str) for t in on):
        raise UserError(f"on of {name} is a list of names of tasks, not {on!r}")
    for options in _crossed(sweep, f"sweep of {name}"):
        told = {k: v for k, v in {**fields, **options}.items() if isinstance(v, (str, int, float, bool))}
        full = name + (":" + ",".join(f"{k}={v}" for k, v in told.items()) if told else "")
        if label is not None:
            full = label + (":" + ",".join(f"{k}={v}" for k, v in options.items()) if options else "")
        yield NamedLearner(full, name, make_learner(name, {**fields, **options}), tuple(on))


def _crossed(sweep: Any, what: str) -> Iterator[dict[str, Any]]:
    if not isinstance(sweep, Mapping) or any(not isinstance(v, list) or not v for v in sweep.values()):
        raise UserError(f"{what} needs lists of values: field = [1, 2, 3]")
    for values in itertools.product(*sweep.values()):
        yield dict(zip(sweep, values, strict=True))


# --- the study of a result folder ------------------------------------------------------------------------------------


def to_json(study: Study) -> dict[str, Any]:
    """Return what a result folder keeps, so that another process can make the tasks and learners again."""
    return {
        "claim": study.claim,
        "reference": study.reference,
        "seeds": list(study.seeds),
        "threads": study.threads,
        "notes": list(study.notes),
        "tasks": [_task_json(t) for t in study.tasks],
        "learners": [{"label": n.label, "name": n.name, "learner": _learner_json(n.learner), **({"on": list(n.on)} if n.on else {})} for n in study.learners],
        "expect": [msgspec.to_builtins(e) for e in study.expectations],
    }


def _task_json(task: TaskFunction) -> Any:
    try:
        options = {k: str(task.path_of(k).resolve()) if k in task.files and v is not None else v for k, v in task.options.items()}
        json.dumps(options)
    except (TypeError, ValueError):
        return {"here": task.label}
    target = reference(task.make)
    if task.here or "<" in target:
        return {"here": task.label}
    return {"make": target, "name": task.name, "options": options, "shown": list(task.shown)}


def _learner_json(thing: Any) -> Any:
    if isinstance(thing, (list, tuple)):
        return {type(thing).__name__: [_learner_json(v) for v in thing]}
    if thing is None or isinstance(thing, (str, int, float, bool)):
        return thing
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type) and not isinstance(thing, Named):
        return {"class": reference(type(thing)), "fields": _fields_json(thing)}
    if hasattr(thing, "get_params"):
        return {"class": reference(type(thing)), "fields": {k: _learner_json(v) for k, v in thing.get_params(deep=False).items()}}
    if isinstance(thing, Mapping):
        return {"mapping": {str(k): _learner_json(v) for k, v in thing.items()}}
    return {"here": one_line(identity(thing), 60)}


def _fields_json(thing: Any) -> dict[str, Any]:
    """Return the fields of a learner; a path is made absolute, as those of tasks are."""
    names = [f.name for f in dataclasses.fields(thing) if f.init]
    told = {name: _learner_json(getattr(thing, name)) for name in names}
    paths = {k: os.fspath(v) for k, v in named_files(thing).items()}
    return told | {k: str(Path(v).resolve()) for k, v in paths.items() if told.get(k) == v}


def from_json(content: Mapping[str, Any]) -> Study:
    """Return the study of a result folder. Like a study file it names modules; imports happen only here."""
    tasks = tuple(_task_of(t) for t in content["tasks"])
    learners = tuple(NamedLearner(n["label"], n["name"], _learner_of(n["learner"]), tuple(n.get("on", ()))) for n in content["learners"])
    expectations = tuple(Expectation.of(e) for e in content["expect"])
    told = {k: content[k] for k in ("claim", "reference", "threads")}
    return Study(tasks, learners, tuple(content["seeds"]), expectations, **told, notes=tuple(content["notes"]))


def _task_of(item: Mapping[str, Any]) -> TaskFunction:
    if "here" in item:
        raise UserError(f"the data of {item['here']!r} were given in Python and lived there; explain and predict in that session")
    found = resolve(item["make"])
    if isinstance(found, TaskFunction):
        return dataclasses.replace(found, name=item["name"], options=item["options"], shown=tuple(item["shown"]))
    return TaskFunction(item["name"], found, options=item["options"], shown=tuple(item["shown"]))


def _learner_of(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    if "here" in item:
        raise UserError(f"a learner holds {item['here']}, which lived in the Python session that ran the study")
    if "mapping" in item:
        return {k: _learner_of(v) for k, v in item["mapping"].items()}
    if "class" in item:
        return resolve(item["class"])(**{k: _learner_of(v) for k, v in item["fields"].items()})
    (kind, values), *_ = item.items()
    return (tuple if kind == "tuple" else list)(_learner_of(v) for v in values)
