"""A task: one source, the domains it is judged in, and the metrics; and the functions that make tasks."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from elsewhere.closed import check_options
from elsewhere.data import Array, Data
from elsewhere.errors import UserError, did_you_mean
from elsewhere.identity import Named, content_key, digest, file_key, identity, reference

D = TypeVar("D", bound=Data)
Role = Literal["home", "stress", "elsewhere"]
# What the tables of a result hold beside values per example, and beside what is told about a trial.
EXAMPLE_COLUMNS = ("trial", "domain", "row", "id", "unit", "group", "weight")
_TRIAL_COLUMNS = ("trial", "task", "task_name", "learner", "learner_name", "seed")
_SCORE_COLUMNS = ("domain", "role", "metric", "value", "error", "n", "reason", "higher_is_better")
SCORE_COLUMNS = (*_TRIAL_COLUMNS, *_SCORE_COLUMNS)


@dataclass(frozen=True)
class Source(Generic[D]):
    """Where a learner may train. Rooms may subclass it: a domain graph, a catalogue of items.

    Args:
        train: labelled examples.
        validation: labelled examples, for stopping only.
        unlabelled: data of other domains, if the task grants it; the engine passes it only to learners that declare it.
        transductive: the unlabelled data are the very examples that are judged.
    """

    train: D
    validation: D | None = None
    unlabelled: Mapping[str, D] = field(default_factory=dict)
    transductive: bool = False

    @cached_property
    def key(self) -> str:
        """A key of the content; parts that trials share are found by it. Computed once, and only when asked for."""
        return content_key([getattr(self, f.name) for f in fields(self) if f.name != "transductive"])


@dataclass(frozen=True)
class Domain(Generic[D]):
    """A named place that data comes from.

    Args:
        name: as it shall be read in tables.
        data: the examples, or a function that gives them, called each time the domain is judged: the same each time.
        role: *home* (held out from the source), *stress* (home, distorted on purpose) or *elsewhere*.
        about: severity, hops, degree …: axes of figures, keys of expectations.
    """

    name: str
    data: D | Callable[[], D]
    role: Role = "elsewhere"
    about: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> D:
        return self.data() if callable(self.data) else self.data


@dataclass(frozen=True)
class Estimate:
    """A value that is no mean of one number an example.

    Args:
        value: the metric.
        error: its standard error over units, where the metric knows it.
        influence: [n] how much each example moves the value (mean 0, the empirical influence function). The standard
            error over units then follows in closed form: the infinitesimal jackknife (Efron 1982), which is what the
            bootstrap over units estimates by resampling.
        effective: of values in 0..1, independent answers that would give this precision: used where every
            influence is 0, which is when the value lies at an end (an AUROC of 1) and not when it is exact.
        bias: what is expected of the value above the truth (sums of absolute values lie above): the interval reaches
            lower by it.
    """

    value: float
    error: float = float("nan")
    influence: Array | None = None
    effective: float = float("nan")
    bias: float = 0.0


@dataclass(frozen=True)
class Metric:
    """A named measure of a prediction (or, with ``of="learner"``, of a fitted learner).

    ``fn(prediction, data)`` returns an array with one number an example (NaN: not judged), a float, an ``Estimate``, or a
    mapping suffix -> any of these (the suffix ``""`` is the metric itself); it raises ``Undefined(reason)`` where it has no value.
    No interval reaches beyond ``range``, the least and the largest value there can be.
    """

    name: str
    fn: Callable[[Any, Any], Any]
    higher_is_better: bool = True
    of: Literal["prediction", "learner"] = "prediction"
    range: tuple[float, float] = (float("-inf"), float("inf"))


@dataclass(frozen=True)
class Task(Generic[D]):
    """One source, the domains a learner is judged in, and the metrics; the first metric is the headline.

    Args:
        source: where learners train.
        domains: where they are judged.
        metrics: what is measured in each.
        findings: explainers that stand in every report of this task.
        notes: sentences about these data that a reader must know before the numbers.
    """

    source: Source[D]
    domains: Sequence[Domain[D]]
    metrics: Sequence[Metric]
    findings: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        names = [d.name for d in self.domains]
        if not names or not self.metrics:
            raise UserError(f"a task needs at least one domain and one metric; this one has {len(names)} and {len(self.metrics)}")
        if twice := {n for n in names if names.count(n) > 1}:
            raise UserError(f"two domains of this task are called {sorted(twice)[0]!r}")
        _check_names([m.name for m in self.metrics], self.domains)

    def domain(self, name: str) -> Domain[D]:
        for d in self.domains:
            if d.name == name:
                return d
        raise UserError(f"no domain {name!r}{did_you_mean(name, [d.name for d in self.domains])}")


def _check_names(metrics: Sequence[str], domains: Sequence[Domain[Any]]) -> None:
    """Refuse names that would hide a column of a result, or each other."""
    if twice := {n for n in metrics if metrics.count(n) > 1}:
        raise UserError(f"two metrics of this task are called {sorted(twice)[0]!r}")
    if hidden := set(metrics) & set(EXAMPLE_COLUMNS):
        told = f"a metric cannot be called {sorted(hidden)[0]!r}"
        raise UserError(f"{told}: results have a column of that name")
    for domain in domains:
        if hidden := set(domain.about) & set(SCORE_COLUMNS):
            told = f"{domain.name}: about cannot hold {sorted(hidden)[0]!r}"
            raise UserError(f"{told}: results have a column of that name")


@dataclass(frozen=True)
class TaskFunction:
    """A function ``make(seed, **options) -> Task`` with a name, and the options it is bound to.

    A study holds task functions, not tasks: data are redrawn with each trial's seed. ``expand`` turns the choices
    that are still open into one bound function each.
    """

    name: str
    make: Callable[..., Task[Any]]
    choices: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    revision: int = 1
    files: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    here: bool = False  # made of objects of this process: cannot leave it
    shown: tuple[str, ...] = ()  # the options that its label names
    learners: tuple[str, ...] = ()  # what runs if nobody names learners
    summary: str = ""  # what is said before anything runs
    reader: str = ""  # the catalogued reader of new data for a model fitted on this task

    def __call__(self, seed: int = 0, **options: Any) -> Task[Any]:
        self._check(options)
        return self.make(seed=seed, **{**self.options, **options})

    def bind(self, **options: Any) -> TaskFunction:
        """Return the function with these options fixed."""
        self._check(options)
        return replace(self, options={**self.options, **options}, shown=(*self.shown, *(k for k in options if k not in self.files)))

    def expand(self) -> Iterator[TaskFunction]:
        """Yield one function for each value of the first open choice, recursively."""
        for name, values in self.choices.items():
            if name not in self.options:
                for value in values:
                    yield from self.bind(**{name: value}).expand()
                return
        yield self

    @property
    def label(self) -> str:
        told = [f"{k}={self.options[k]}" for k in dict.fromkeys(self.shown) if isinstance(self.options.get(k), (str, int, float))]
        return self.name + (":" + ",".join(told) if told else "")

    def identity(self) -> Any:
        """Name, revision and options, with the content of files in the place of their paths."""
        options = {k: {"file": file_key(str(self.path_of(k)))} if k in self.files and v is not None else identity(v) for k, v in sorted(self.options.items())}
        return {"task": self.name, "revision": self.revision, "options": options}

    def path_of(self, option: str) -> Path:
        """Return where an option's file lies: below what the first of ``files`` names, or not."""
        path = Path(str(self.options[option]))
        first = self.options.get(self.files[0])
        if first is None or option == self.files[0]:
            return path
        inside = Path(str(first)) / path
        return inside if inside.exists() else path

    @cached_property
    def key(self) -> str:
        return digest(self.identity())

    def _check(self, options: Mapping[str, Any]) -> None:
        check_options(self.make, options, f"task {self.name!r}")
        known = inspect.signature(self.make).parameters
        if any(p.kind is p.VAR_KEYWORD for p in known.values()):
            return
        for name in options:
            if name not in known or name == "seed":
                raise UserError(f"task {self.name!r} has no option {name!r}{did_you_mean(name, [k for k in known if k != 'seed'])}")

    def __reduce__(self) -> Any:
        if self.here or resolve(reference(self.make), quiet=True) is self.make:
            return super().__reduce__()
        return _restore, (reference(self.make), {k: getattr(self, k) for k in ("name", "choices", "revision", "files", "options", "shown", "learners", "reader")})


def _restore(path: str, state: Mapping[str, Any]) -> TaskFunction:
    found: TaskFunction = resolve(path)
    return replace(found, **state)


def resolve(path: str, quiet: bool = False) -> Any:
    """Return what ``module:attribute`` names; raise ``UserError`` where nothing is there (None if ``quiet``)."""
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        if quiet:
            return None
        raise UserError(f"cannot import {path!r}: {error}") from error
    return found


def task(
    name: str,
    choices: Mapping[str, Sequence[Any]] | None = None,
    revision: int = 1,
    files: Sequence[str] = (),
    learners: Sequence[str] = (),
    reader: str = "",
) -> Callable[[Callable[..., Task[Any]]], TaskFunction]:
    """Make a task function of ``def f(seed, **options) -> Task``.

    Args:
        name: how users ask for it; a slash separates the family from the case (``spirals/rotated``).
        choices: options with their possible values; ``assay NAME`` runs every combination.
        revision: raise it when what the function makes changes: older trials no longer count.
        files: options that are paths; their content, not the path, tells one task from another.
        learners: what runs if nobody names learners.
        reader: the catalogued reader of new data for a model fitted on this task.
    """

    def decorate(function: Callable[..., Task[Any]]) -> TaskFunction:
        made = TaskFunction(name, function, dict(choices or {}), revision, tuple(files), learners=tuple(learners), reader=reader)
        made.__dict__["__doc__"] = function.__doc__
        return made

    return decorate


def as_task_function(thing: Any) -> TaskFunction:
    """Return the task function of what a user passed: itself, a named ``Task``, or a named function."""
    if isinstance(thing, TaskFunction):
        return thing
    if isinstance(thing, Named) and isinstance(thing.thing, Task):
        fixed = thing.thing
        return TaskFunction(thing.name, lambda seed=0: fixed, here=True)
    if isinstance(thing, Named) and callable(thing.thing):
        return TaskFunction(thing.name, thing.thing, here=True)
    if isinstance(thing, Task):
        raise UserError("a Task object has no identity that survives a restart; pass named('a-name', task)")
    raise UserError(f"expected a task, got {type(thing).__name__}; decorate the function that makes it with @task('name')")


def clustered(influence: Array, units: Array | None = None) -> Array:
    """Return influences summed by unit [units]; each example is a unit of its own where none are given."""
    if units is None:
        return np.asarray(influence, float)
    _, codes = np.unique(units, return_inverse=True)
    return np.bincount(codes, influence)


def standard_error(influence: Array, units: Array | None = None) -> float:
    """Return the standard error of a mean of influences, clustered by unit: sqrt(m/(m-1) Σ_u (Σ_{i in u} v_i)²) / n.

    Examples:
        >>> round(standard_error(np.array([1.0, -1.0, 1.0, -1.0])), 4)  # = sd(ddof=1) / sqrt(4)
        0.5774
    """
    sums = clustered(influence, units)
    m = len(sums)
    return float(np.sqrt(m / (m - 1) * np.square(sums).sum()) / len(influence)) if m > 1 else float("nan")
