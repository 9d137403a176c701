"""A run: what is not a hyper-parameter. Seed, device, streams of randomness, curves, what is fitted once and shared."""

from __future__ import annotations

import copy
import hashlib
import io
import os
import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import NotOffered
from elsewhere.identity import digest, identity
from elsewhere.places import is_local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from elsewhere.task import Source

L = TypeVar("L")
_SHARED: dict[tuple[str, str], Any] = {}
_SHARED_LIMIT = 8


@dataclass(frozen=True)
class Run:
    """What a learner is told beside the data. The default works in a notebook.

    Args:
        seed: of every stream of randomness.
        device: "auto", "cpu", "cuda", …
        precision: as Lightning Fabric names it.
        threads: that one trial may use.
        folder: where shared parts and cached arrays lie; None: they are kept in memory only.
        progress: whether long work may report itself on the terminal; a function gets each line instead.
        strategy: how several processes share one training, as Lightning Fabric names it; "auto" is "ddp" under torchrun.
        trial: what names the checkpoints of this run, and the run in messages; "" keeps none.
    """

    seed: int = 0
    device: str = "auto"
    precision: str = "32"
    threads: int = 1
    folder: Path | None = None
    progress: bool | Callable[[str], None] = True
    strategy: str = "auto"
    trial: str = ""
    history: list[tuple[int, str, float]] = field(default_factory=list, compare=False, repr=False)
    stages: list[Path] = field(default_factory=list, compare=False, repr=False)  # one checkpoint a training, in order

    def rng(self, purpose: str) -> np.random.Generator:
        """Return the stream of randomness for a purpose: ``init``, ``batches``, ``sample``, ``few-shot``, …

        Streams of two purposes are independent; asked for twice, a stream starts anew.

        Examples:
            >>> Run(3).rng("init").integers(1000) == Run(3).rng("init").integers(1000)
            np.True_
        """
        word = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "big")
        return np.random.default_rng([self.seed, word])

    def integer(self, purpose: str) -> int:
        """Return one seed in [0, 2³¹) for libraries that want an integer."""
        return int(self.rng(purpose).integers(2**31))

    def log(self, step: int, **values: float) -> None:
        """Add points to the trial's curves."""
        self.history.extend((int(step), name, float(value)) for name, value in values.items())

    def say(self, line: str) -> None:
        """Report long work: on the terminal's last line, or to the function given as ``progress``."""
        if callable(self.progress):
            self.progress(line)
        elif self.progress and sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()

    def checkpoint(self) -> Path | None:
        """Return where the next training of this run keeps its state: the first call names the first training, and so on."""
        if self.folder is None or not self.trial:
            return None
        self.stages.append(self.folder / "checkpoints" / f"{self.trial}-{len(self.stages)}.safetensors")
        return self.stages[-1]

    def forget(self) -> None:
        """Remove the checkpoints of this run: what they led to is kept elsewhere."""
        for path in self.stages:
            path.unlink(missing_ok=True)

    def fitted(self, part: L, source: Source[Any]) -> L:
        """Return a learner fitted on ``source``: fitted once per (part, source, seed) and shared between trials."""
        key = digest([identity(part), source.key, self.seed])
        return self._shared(("part", key), lambda: self._kept_part(key, part, source))

    def cached(self, key: Any, make: Callable[[], Array]) -> Array:
        """Return ``make()``, computed once per key and memory-mapped from then on (in memory without a folder)."""
        name = digest(identity(key))
        if self.folder is None:
            return self._shared(("array", name), make)
        path = self.folder / "cache" / f"{name}.npy"
        with locked(self.folder / "cache" / "lock", int(name[:12], 16)):
            if not path.exists():
                buffer = io.BytesIO()
                np.save(buffer, make(), allow_pickle=False)
                write_whole(path, buffer.getvalue())
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        return array

    def _kept_part(self, key: str, part: Any, source: Source[Any]) -> Any:
        def fit() -> Any:
            inner = replace(self, trial=self.trial and key, history=[], stages=[])
            fitted = copy.deepcopy(part).fit(source, inner)
            inner.forget()
            return fitted

        if self.folder is None:
            return fit()
        folder = self.folder / "parts" / key
        with locked(self.folder / "parts" / "lock", int(key[:12], 16)):
            if (folder / "learner.json").exists():
                return type(part).load(folder)
            fitted = fit()
            try:
                fitted.save(folder)
            except (NotOffered, TypeError):
                pass  # not portable: other processes fit it again and get the same
            return fitted

    def _shared(self, key: tuple[str, str], make: Callable[[], Any]) -> Any:
        place = (f"{self.folder}|{key[0]}", key[1])
        if place not in _SHARED:
            while len(_SHARED) >= _SHARED_LIMIT:
                _SHARED.pop(next(iter(_SHARED)))
            _SHARED[place] = make()
        return _SHARED[place]


def first_process() -> bool:
    """Whether this process is the one that writes: the only one, or the first that torchrun started."""
    return "LOCAL_RANK" not in os.environ or int(os.environ.get("RANK", "0")) == 0


def duration(seconds: float) -> str:
    """Write seconds as people say them.

    Examples:
        >>> duration(4), duration(160), duration(9000)
        ('4 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: aside, then renamed; on an object store one put."""
    if not is_local(path):
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(content)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, offset: int, wait: bool = True) -> Iterator[bool]:
    """Hold byte ``offset`` of a lock file; yields False if it is held elsewhere and ``wait`` is not set.

    The lock belongs to the process and dies with it, however it dies. Where the platform or the store has no such locks, it is
    never refused: a trial done twice is the same trial. (A lock on the same file taken inside ends with the inner one.)
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    if not is_local(path):
        yield True
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, offset)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            yield True
            return
        yield True
    finally:
        os.close(handle)
