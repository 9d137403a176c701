"""The engine: trials through an executor, each written whole or not at all, work shared by every command on one folder."""

from __future__ import annotations

import copy
import importlib
import json
import os
import platform
import resource
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from elsewhere.assay.judge import judge
from elsewhere.assay.plan import Trial, batches, granted
from elsewhere.assay.store import COMPACT_AT, Store
from elsewhere.assay.study import plain_options
from elsewhere.errors import UserError, one_line
from elsewhere.learner import offers
from elsewhere.places import scratch
from elsewhere.run import Run, duration, locked
from elsewhere.task import Task

_TASKS: dict[tuple[str, int], Task[Any]] = {}
_TASK_LIMIT = 4
_SAY: ContextVar[bool | Callable[[str], None]] = ContextVar("say", default=False)  # where trials of this process report long work


class WorkerDied(Exception):
    """What an executor raises for a batch that killed its worker, where the executor itself lives on."""


@dataclass(frozen=True)
class Progress:
    """How far a study is. ``str(progress)`` is a line that a person can read."""

    done: int
    total: int
    failed: int
    seconds: float
    left: float | None
    last: str

    def __str__(self) -> str:
        left = "" if self.left is None else f", about {duration(self.left)} left"
        failed = f", {self.failed} failed" if self.failed else ""
        return f"{self.done} of {self.total} trials{failed}{left}  {self.last}"


def run_trials(
    trials: Sequence[Trial],
    folder: Path,
    workers: int = 1,
    threads: int = 1,
    executor: Executor | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> int:
    """Run what is missing of a plan and return how many trials this call ran.

    Trials go to ``executor`` (any ``concurrent.futures`` one; else ``workers`` local processes, or this process for
    one worker). A batch that another command holds is looked at again until it is finished or its owner is gone.
    """
    store = Store(folder)
    finished = set(store.records()["trial"].to_pylist())
    todo = deque(b for b in batches(trials) if any(t.key not in finished for t in b))
    tally = _Tally(trials, finished, max(workers, getattr(executor, "workers", 1)), progress)
    pool = _Pool(workers, executor)
    said = _SAY.set(tally.say if progress is not None else False)
    try:
        _drive(todo, pool, str(folder), threads, tally)
    except BaseException:
        pool.stop(kill=True)
        raise
    finally:
        _SAY.reset(said)
    pool.stop()
    store.compact(at_least=COMPACT_AT)
    return tally.ran


def _drive(todo: deque[list[Trial]], pool: _Pool, folder: str, threads: int, tally: _Tally) -> None:
    flying: dict[Future[Any], list[Trial]] = {}
    cautious = 0  # after a worker died: so many batches go one at a time, to know which one kills
    busy = 0
    while todo or flying:
        room = 1 if cautious else pool.room
        while todo and len(flying) < room:
            batch = todo.popleft()
            flying[pool.submit(execute, batch, folder, threads)] = batch
        ready, _ = wait(flying, return_when=FIRST_COMPLETED)
        for future in ready:
            batch = flying.pop(future)
            try:
                outcomes = future.result()
            except WorkerDied:
                _give_up(batch, Store(folder), tally)
                continue
            except BrokenExecutor:
                again = [batch, *flying.values()]
                flying.clear()
                pool.renew()
                if cautious:
                    _give_up(batch, Store(folder), tally)
                    cautious -= 1
                else:
                    cautious = len(again)
                    todo.extendleft(reversed(again))
                break
            cautious = max(0, cautious - 1)
            if outcomes is None:  # held by another command
                todo.append(batch)
                busy += 1
                if busy > len(todo):
                    time.sleep(0.1)
                    busy = 0
                continue
            busy = 0
            tally.add(outcomes)
            if tally.ran and tally.ran % COMPACT_AT == 0:
                Store(folder).compact(at_least=COMPACT_AT)


def _give_up(batch: list[Trial], store: Store, tally: _Tally) -> None:
    reason = "the process that ran it died (out of memory, or a crash in native code)"
    for trial in batch:
        if not store.has(trial.key):
            store.write({**_record(trial, {}, 1), "status": "failed", "reason": reason, "seconds": 0.0}, {})
    tally.add([(t.key, t.label, "failed", 0.0, True) for t in batch])


class _Pool:
    """An executor that can be made anew after a worker died; one worker means this process."""

    def __init__(self, workers: int, executor: Executor | None) -> None:
        self.workers, self.given = workers, executor
        self.pool: Any = executor
        self.room = 1 if workers <= 1 and executor is None else 2 * max(workers, getattr(executor, "workers", 1))

    def submit(self, function: Callable[..., Any], batch: list[Trial], *args: Any) -> Future[Any]:
        if self.given is None and (self.workers <= 1 or any(t.here for t in batch)):
            future: Future[Any] = Future()
            try:
                future.set_result(function(batch, *args))
            except Exception as error:
                future.set_exception(error)
            return future
        if self.pool is None:
            from loky import ProcessPoolExecutor

            self.pool = ProcessPoolExecutor(self.workers)
        return cast("Future[Any]", self.pool.submit(function, batch, *args))

    def renew(self) -> None:
        if self.given is not None:
            raise UserError("the executor broke: a worker died")
        self.stop(kill=True)

    def stop(self, kill: bool = False) -> None:
        if self.given is None and self.pool is not None:
            self.pool.shutdown(wait=not kill, **({"kill_workers": True} if kill else {}))
            self.pool = None


class _Tally:
    """What is done, and how long the rest takes: by the mean time of each learner so far."""

    def __init__(self, trials: Sequence[Trial], finished: set[str], workers: int, progress: Callable[[Progress], None] | None) -> None:
        self.total, self.workers, self.progress = len(trials), workers, progress
        self.left = {t.key: t.label for t in trials if t.key not in finished}
        self.seconds: dict[str, list[float]] = {}
        self.ran = self.failed = 0
        self.start = time.perf_counter()

    def add(self, outcomes: Sequence[tuple[str, str, str, float, bool]]) -> None:
        for key, label, status, seconds, mine in outcomes:
            self.left.pop(key, None)
            self.ran += mine
            self.failed += status == "failed"
            if mine:
                self.seconds.setdefault(label, []).append(seconds)
        if self.progress is not None and outcomes:
            self.progress(Progress(self.total - len(self.left), self.total, self.failed, time.perf_counter() - self.start, self._left(), outcomes[-1][1]))

    def say(self, line: str) -> None:
        """Report what a trial in this process is at."""
        if self.progress is not None and line:
            self.progress(Progress(self.total - len(self.left), self.total, self.failed, time.perf_counter() - self.start, self._left(), line))

    def _left(self) -> float | None:
        if not self.seconds:
            return None
        means = {label: sum(s) / len(s) for label, s in self.seconds.items()}
        other = sum(means.values()) / len(means)
        return sum(means.get(label, other) for label in self.left.values()) / self.workers


def execute(batch: Sequence[Trial], folder: str, threads: int) -> list[tuple[str, str, str, float, bool]] | None:
    """Run the missing trials of a batch in this process; None if another process holds it."""
    store = Store(folder)
    with locked(store.folder / "claims", int(batch[0].key[:12], 16), wait=False) as mine:
        if not mine:
            return None
        missing = [t for t in batch if not store.has(t.key)]
        outcomes = [(t.key, t.label, "done", 0.0, False) for t in batch if t not in missing]
        if missing:
            with held_to(threads):
                outcomes += _run_missing(batch, missing, store, threads)
        return outcomes


def _run_missing(batch: Sequence[Trial], missing: Sequence[Trial], store: Store, threads: int) -> list[tuple[str, str, str, float, bool]]:
    together: Mapping[str, Any] = {}
    if len(batch) > 1 or offers(batch[0].learner, "fit_many"):
        together = _fit_together(batch, store.folder, threads)
    return [_run_one(t, store, threads, together.get(t.key)) for t in missing]


def _fit_together(batch: Sequence[Trial], folder: Path, threads: int) -> Mapping[str, Any]:
    """Fit a planned batch in one pass; where that fails, each trial is fitted alone and tells why itself."""
    start = time.perf_counter()
    try:
        runs = [_run(t, folder, threads) for t in batch]
        sources = [granted(_task(t).source, t.learner) for t in batch]
        fitted = type(batch[0].learner).fit_many([copy.deepcopy(t.learner) for t in batch], sources, runs)
    except Exception:
        return {}
    share = (time.perf_counter() - start) / len(batch)
    return {t.key: (f, run, share) for t, f, run in zip(batch, fitted, runs, strict=True)}


def _run_one(trial: Trial, store: Store, threads: int, already: tuple[Any, Run, float] | None) -> tuple[str, str, str, float, bool]:
    start = time.perf_counter()
    run = already[1] if already else _run(trial, store.folder, threads)
    status, reason, tables, notes = "done", "", {}, {}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("default")
        try:
            task = _task(trial)
            notes = {"notes": list(task.notes), "findings": list(task.findings), "headline": task.metrics[0].name}
            fitted = already[0] if already else fit(trial, task, run)
            if isinstance(fitted, Exception):  # what fit_many gives where the trial's own fit would have raised
                raise fitted
            tables = judge(task, fitted, run)
            tables["history"] = _history(run)
        except Exception as error:
            status, reason = "failed", one_line(error if isinstance(error, UserError) else f"{type(error).__name__}: {error}")
            tables = {}
    seconds = time.perf_counter() - start + (already[2] if already else 0.0)
    said = sorted({one_line(w.message, 200) for w in heard if not issubclass(w.category, (DeprecationWarning, FutureWarning))})
    record = {**_record(trial, {**notes, "warnings": said}, threads), "status": status, "reason": reason, "seconds": seconds}
    store.write(record, tables)
    run.forget()
    return trial.key, trial.label, status, seconds, True


def fit(trial: Trial, task: Task[Any], run: Run) -> Any:
    """Fit a copy of a trial's learner on what the task grants it."""
    return copy.deepcopy(trial.learner).fit(granted(task.source, trial.learner), run)


def refit(trial: Trial, folder: Path) -> Any:
    """Return the fitted learner of a trial again; nothing of its training is left in the folder."""
    run = _run(trial, folder, 1)
    try:
        return fit(trial, _task(trial), run)
    finally:
        run.forget()


def _history(run: Run) -> pa.Table:
    steps, names, values = zip(*run.history, strict=True) if run.history else ((), (), ())
    return pa.table({"step": pa.array(steps, pa.int64()), "name": pa.array(names, pa.string()), "value": pa.array(values, pa.float64())})


def _record(trial: Trial, notes: Mapping[str, Any], threads: int) -> dict[str, Any]:
    return {
        "trial": trial.key,
        "task": trial.task.label,
        "task_name": trial.task.name,
        "learner": trial.label,
        "name": trial.name,
        "seed": trial.seed,
        "options": json.dumps(plain_options(trial.task, trial.learner), default=str),
        "sees_unlabelled": bool(trial.learner.sees_unlabelled),
        "about_task": json.dumps(notes),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "threads": threads,
        "device": _device(),
        "versions": versions(),
    }


def _device() -> str:
    """Return what networks of this process train on; the processor where torch was never asked for."""
    torch = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"


@cache
def versions() -> str:
    """Return the versions that could change a number, as JSON."""
    from importlib.metadata import version

    told = {"python": platform.python_version(), "elsewhere": importlib.import_module("elsewhere").__version__}
    return json.dumps(told | {name: version(name) for name in ("numpy", "pandas", "scikit-learn", "scipy", "torch")})


def _run(trial: Trial, folder: Path, threads: int) -> Run:
    return Run(seed=trial.seed, threads=threads, folder=scratch(folder), progress=_SAY.get(), trial=trial.key)


def _task(trial: Trial) -> Task[Any]:
    place = (trial.task.key, trial.seed)
    if place not in _TASKS:
        while len(_TASKS) >= _TASK_LIMIT:
            _TASKS.pop(next(iter(_TASKS)))
        _TASKS[place] = trial.task(trial.seed)
    return _TASKS[place]


@contextmanager
def held_to(threads: int | None) -> Iterator[None]:
    """Hold native libraries to so many threads (None: as they choose): the same bits on any number of workers."""
    if threads is None:
        yield
        return
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    with _controller(len(sys.modules)).limit(limits=threads):
        yield


@lru_cache(maxsize=1)
def _controller(modules: int) -> Any:
    """Return what controls the loaded native libraries; looked up anew (4 ms) when more modules have been imported."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
