"""Learners: anything with ``fit`` and ``predict``, configured by its dataclass fields and nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

from elsewhere.data import Array, Data, Examples
from elsewhere.errors import NotOffered
from elsewhere.identity import content_key
from elsewhere.run import Run
from elsewhere.task import Source

D = TypeVar("D", bound=Data)
P = TypeVar("P")


class Learner(Generic[D, P]):
    """Subclass as a dataclass; fields are JSON values, other learners, estimators or ``named`` things.

    The engine fits a copy and passes data without labels to ``predict``; attributes that ``fit`` makes end in ``_``.
    ``accepts``, ``sees_unlabelled`` and ``reads`` are properties of the instance: a learner that contains learners
    derives them from those, others set a plain class attribute. So is ``files``.
    """

    revision: ClassVar[int] = 1  # raise it when the method changes: older trials no longer count
    trusted: ClassVar[tuple[str, ...]] = ()  # types beyond scikit-learn's public ones that a saved model may hold
    holds: ClassVar[tuple[type, ...]] = ()  # dataclasses of its own that its fitted attributes are made of
    inside: ClassVar[tuple[str, ...]] = ()  # fields that are learners: on the command line a name stands for one
    answers: ClassVar[tuple[type, ...]] = ()  # types of data that predict takes beside the one it trains on: questions

    @property
    def accepts(self) -> type:
        """The type of data it trains on; checked while planning, before anything runs."""
        return Examples

    @property
    def sees_unlabelled(self) -> bool:
        """Whether it asks for unlabelled data of other domains: granted only then, and shown in every table."""
        return False

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns of the data that it reads beside the inputs."""
        return ()

    @property
    def files(self) -> Mapping[str, str | os.PathLike[str]]:
        """Fields that name a file or a folder as they are set now, field -> path.

        Content, not path, tells one learner from another: another checkpoint in the same place is
        another learner, the same one in another place is not. A missing file is refused while
        planning.
        """
        return {}

    def refuses(self, source: Source[D]) -> str | None:
        """Return why it cannot train on a source of the type it accepts (too few domains, say), or None; asked while planning."""
        return None

    def fit(self, source: Source[D], run: Run = Run()) -> Self:
        raise NotImplementedError(f"{type(self).__name__} has no fit")

    def predict(self, data: D, run: Run = Run()) -> P:
        raise NotImplementedError(f"{type(self).__name__} has no predict")

    def represent(self, data: D, run: Run = Run()) -> Array:
        """Return a representation [n, d]: for probes, neighbours, influence, shift decomposition."""
        raise NotOffered(f"{type(self).__name__} has no representation")

    def adapt(self, data: D, run: Run = Run()) -> Self:
        """Return a copy adapted to the unlabelled data of one domain; called before ``predict`` in each."""
        raise NotOffered(f"{type(self).__name__} does not adapt")

    @staticmethod
    def fit_many(learners: Sequence[Any], sources: Sequence[Any], runs: Sequence[Run]) -> Sequence[Any]:
        """Fit aligned lists of copies and return them; what has the same shapes is trained in one pass."""
        raise NotOffered("this learner is fitted one by one")

    def beside(self) -> Mapping[str, bytes]:
        """Return files for people that lie beside a saved learner, name -> content: a graph, a report."""
        return {}

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write fields as JSON and fitted attributes as safetensors, JSON, Parquet and sub-folders; never pickle."""
        from elsewhere.saving import save

        save(self, folder)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], trust: Sequence[type] = ()) -> Self:
        """Return the learner saved in a folder; only catalogued classes, this class and those in ``trust`` are made."""
        from elsewhere.saving import load

        loaded: Self = load(folder, trust=(cls, *trust))
        return loaded


def offers(learner: Learner[Any, Any], method: str) -> bool:
    """Return whether a learner has written an optional method: represent, adapt or fit_many.

    Examples:
        >>> offers(Probe(Learner(), Learner()), "adapt")
        False
    """
    if isinstance(learner, Probe) and method == "represent":
        return True
    return getattr(type(learner), method, None) is not getattr(Learner, method)


@dataclass
class Probe(Learner[Any, Any]):
    """Any learner with ``represent``, plus any head on its representation: read-outs, linear probes, nearest neighbours.

    The encoder is fitted once per source and seed and shared by all heads.
    """

    inside: ClassVar[tuple[str, ...]] = ("encoder", "head")

    encoder: Learner[Any, Any]
    head: Learner[Any, Any]

    @property
    def accepts(self) -> type:
        return self.encoder.accepts

    @property
    def sees_unlabelled(self) -> bool:
        return self.encoder.sees_unlabelled or self.head.sees_unlabelled

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.encoder.reads, *self.head.reads)

    def refuses(self, source: Source[Any]) -> str | None:
        return self.encoder.refuses(source)

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        import copy

        self.encoder_ = run.fitted(self.encoder, source)
        there = {name: self._seen(data, run) for name, data in source.unlabelled.items()}
        validation = None if source.validation is None else self._seen(source.validation, run)
        inner = replace(source, train=self._seen(source.train, run), validation=validation, unlabelled=there)
        self.head_ = copy.deepcopy(self.head).fit(inner, run)
        return self

    def predict(self, data: Any, run: Run = Run()) -> Any:
        return self.head_.predict(self._seen(data, run), run)

    def represent(self, data: Any, run: Run = Run()) -> Array:
        return self.encoder_.represent(data, run)

    def _seen(self, data: Any, run: Run) -> Any:
        """Represent the data; labels, classes and columns come along where the data have them.

        A head that accepts the data as they are (a network over a graph) gets them with the representation in the place
        of their features, where they offer ``represented_by``.
        """
        kind: Any = self.head.accepts
        if kind is not Examples and isinstance(data, kind) and hasattr(data, "represented_by"):
            return data.represented_by(lambda every: self._represented(every, run))
        plain = data if hasattr(data, "represented_by") else as_examples(data) or data
        labels, columns, classes = (getattr(plain, name, None) for name in ("labels", "columns", "classes"))
        return Examples(self.encoder_.represent(data, run), labels, columns or {}, classes)

    def _represented(self, data: Any, run: Run) -> Array:
        """Represent the data; the last two that were asked for are kept, since domains may share all of it."""
        kept = self.__dict__.setdefault("_kept", {})
        key = (id(self.encoder_), content_key(data))
        if key not in kept:
            while len(kept) > 1:
                kept.pop(next(iter(kept)))
            kept[key] = self.encoder_.represent(data, run)
        found: Array = kept[key]
        return found


def as_examples(data: Any) -> Examples | None:
    """Return the data as ``Examples``: themselves, or what their ``examples()`` gives; None where they have none."""
    if isinstance(data, Examples):
        return data
    return data.examples() if hasattr(data, "examples") else None
