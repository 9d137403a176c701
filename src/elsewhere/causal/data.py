"""The five kinds of data that causal variables can be learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.errors import UserError, did_you_mean
from elsewhere.identity import content_key

OBSERVATIONAL = "observational"


class CausalData:
    """What the data types of this room share: columns, and a content key that is computed once."""

    columns: Mapping[str, Array]
    lacks: ClassVar[str] = "the data have"

    def column(self, name: str) -> Array:
        if name not in self.columns:
            raise UserError(f"{self.lacks} no column {name!r}{did_you_mean(name, self.columns)}")
        return self.columns[name]


@dataclass(frozen=True)
class Environments(CausalData):
    """Observations from several environments: the observational one, and others in each of which something unknown was done.

    Args:
        inputs: x [N, d] or pictures [N, channels, side, side].
        environment: [N] codes into ``names``; 0 is observational.
        names: of the environments.
        latents: [N, n] the true causal variables, where they are known: labels, never seen by a learner of this room.
        graph: [n, n] true adjacency, ``graph[i, j]`` means i → j.
        targets: for each environment the latents that it intervenes on; the observational one has none.
        features: names of the columns of x.
        latent_names: names of the latents.
        columns: [N] arrays beside.

    Examples:
        >>> data = Environments(np.arange(8.0).reshape(4, 2), np.array([0, 0, 1, 1]), ("observational", "heat"))
        >>> data.environments(), data.take([3]).column("environment").tolist()
        (('observational', 'heat'), ['heat'])
    """

    inputs: Any
    environment: Array
    names: tuple[str, ...] = ()
    latents: Array | None = None
    graph: Array | None = None
    targets: tuple[tuple[int, ...], ...] | None = None
    features: tuple[str, ...] | None = None
    latent_names: tuple[str, ...] | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        codes = np.asarray(self.environment)
        if not self.names:
            object.__setattr__(self, "names", (OBSERVATIONAL, *(f"env_{k}" for k in range(1, int(codes.max(initial=0)) + 1))))
        if codes.dtype.kind not in "iu" or (len(codes) and (codes.min() < 0 or codes.max() >= len(self.names))):
            raise UserError(f"environment holds codes 0 to {len(self.names) - 1} into {', '.join(map(str, self.names[:8]))}; got {np.unique(codes)[:8].tolist()}")
        for name, values in [("environment", codes), ("latents", self.latents), *self.columns.items()]:
            if values is not None and len(values) != len(self.inputs):
                raise UserError(f"{name} has {len(values):,} entries for {len(self.inputs):,} examples")

    @classmethod
    def from_frame(cls, frame: Any, intervention: str, features: Sequence[str] | None = None, exclude: Sequence[str] = ()) -> Self:
        """Return the environments of a data frame with a column that names what was done in a row; empty, None or "observational" is nothing.

        Args:
            frame: numbers, one column a feature.
            intervention: the column of names; interventions that were done together are joined by "+".
            features: the columns that are x; default: every other.
            exclude: columns that are not.

        Raises:
            UserError: no such column, a feature that holds text, a missing value or one number only, or no observational row.
        """
        from elsewhere.causal.loading import from_frame

        return from_frame(cls, frame, intervention, features, exclude)

    def __len__(self) -> int:
        return len(self.inputs)

    def environments(self) -> tuple[str, ...]:
        """Return the names of the environments."""
        return self.names

    def take(self, rows: Any) -> Self:
        rows = np.asarray(rows)
        latents = None if self.latents is None else self.latents[rows]
        return replace(self, inputs=self.inputs[rows], environment=self.environment[rows], latents=latents, columns={k: v[rows] for k, v in self.columns.items()})

    def unlabelled(self) -> Self:
        """Return the same observations without the truth: latents, graph and targets are gone."""
        return replace(self, latents=None, graph=None, targets=None)

    def column(self, name: str) -> Array:
        if name == "environment" and name not in self.columns:
            return np.asarray(self.names, object)[self.environment]
        return super().column(name)

    def of(self, environment: int) -> Any:
        """Return the observations x of one environment by its code."""
        return self.inputs[np.asarray(self.environment) == environment]

    def examples(self) -> Examples:
        """Return x with the true latents as labels, for learners that are told them."""
        return Examples(self.inputs, self.labels, {**self.columns, "environment": self.column("environment")})

    @property
    def labels(self) -> Array | None:
        """The true latents [N, n] as float32, or None."""
        return None if self.latents is None else np.asarray(self.latents, np.float32)

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """What the columns of the labels are called."""
        return self.latent_names

    @cached_property
    def _key(self) -> str:
        return content_key([self.inputs, self.environment, list(self.names), self.latents, self.graph, dict(self.columns)])

    def content_key(self) -> str:
        """A key of the content, computed once."""
        return self._key

    def preview(self, row: int) -> Any:
        return np.asarray(self.inputs[row])


@dataclass(frozen=True)
class Actions(CausalData):
    """Observations x of a system on which continuous actions act, with an outcome (Saengkyongam et al. 2024).

    Args:
        inputs: x [N, d]; None where it is asked what *would* happen: nothing has been observed.
        action: [N, k].
        outcome: y [N]; None: not known. Where x is None: the mean of y if the action were done.
        latents: [N, n] the truth, where it is known.
        columns: [N] arrays beside.

    Examples:
        >>> len(Actions(None, np.zeros((3, 2))))  # a question: nothing has been observed
        3
    """

    inputs: Any
    action: Array
    outcome: Array | None = None
    latents: Array | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if np.ndim(self.action) != 2:
            raise UserError(f"action has shape {list(np.shape(self.action))}; expected [examples, dimensions]")
        for name, values in [("inputs", self.inputs), ("outcome", self.outcome), ("latents", self.latents), *self.columns.items()]:
            if values is not None and len(values) != len(self.action):
                raise UserError(f"{name} has {len(values):,} entries for {len(self.action):,} actions")

    def __len__(self) -> int:
        return len(self.action)

    def take(self, rows: Any) -> Self:
        rows = np.asarray(rows)
        cut = {k: None if (v := getattr(self, k)) is None else v[rows] for k in ("inputs", "outcome", "latents")}
        return replace(self, action=self.action[rows], columns={k: v[rows] for k, v in self.columns.items()}, **cut)

    def unlabelled(self) -> Self:
        return replace(self, outcome=None, latents=None)

    def examples(self) -> Examples:
        """Return the actions with the outcome as label: what a regression of y on a knows."""
        return Examples(np.asarray(self.action, np.float32), self.labels, dict(self.columns))

    @property
    def labels(self) -> Array | None:
        """The outcomes [N], or None."""
        return None if self.outcome is None else np.asarray(self.outcome, float)


@dataclass(frozen=True)
class Pairs(CausalData):
    """Pairs of observations that share an unknown set of factors (Locatello et al. 2020).

    Args:
        inputs: [N, 2, d] or [N, 2, channels, side, side].
        factors: [N, 2, n] the truth, where it is known.
        columns: [N] arrays beside.

    Examples:
        >>> Pairs(np.zeros((5, 2, 4))).take([0, 1]).inputs.shape
        (2, 2, 4)
    """

    inputs: Any
    factors: Array | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if np.ndim(self.inputs) < 3 or np.shape(self.inputs)[1] != 2:
            raise UserError(f"pairs have shape {list(np.shape(self.inputs))}; expected [pairs, 2, …]")

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Any) -> Self:
        rows = np.asarray(rows)
        return replace(self, inputs=self.inputs[rows], factors=None if self.factors is None else self.factors[rows], columns={k: v[rows] for k, v in self.columns.items()})

    def unlabelled(self) -> Self:
        return replace(self, factors=None)

    def examples(self) -> Examples:
        """Return the first observation of each pair with its factors as labels."""
        return Examples(self.inputs[:, 0], None if self.factors is None else np.asarray(self.factors[:, 0], np.float32), dict(self.columns))

    def preview(self, row: int) -> Any:
        return np.asarray(self.inputs[row][0])


@dataclass(frozen=True)
class Views(CausalData):
    """Several views of each example; view k sees the latents S_k (Yao et al. 2024).

    Args:
        inputs: one array [N, …] a view.
        content: for each view the latents it sees, as indices into all.
        latents: [N, n] the truth, where it is known.
        columns: [N] arrays beside.

    Examples:
        >>> data = Views((np.zeros((5, 3)), np.zeros((5, 4))), ((0, 1), (1, 2)))
        >>> len(data), data.shared((0, 1))
        (5, (1,))
    """

    inputs: tuple[Any, ...]
    content: tuple[tuple[int, ...], ...]
    latents: Array | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.inputs) < 2 or len(self.inputs) != len(self.content):
            raise UserError(f"views need at least two arrays and the latents that each sees; got {len(self.inputs)} arrays and {len(self.content)} lists")
        if len({len(x) for x in self.inputs}) > 1:
            raise UserError(f"views have {', '.join(str(len(x)) for x in self.inputs)} examples: they must be views of the same ones")

    def __len__(self) -> int:
        return len(self.inputs[0])

    def shared(self, views: Sequence[int]) -> tuple[int, ...]:
        """Return the latents that all of some views see."""
        return tuple(sorted(set.intersection(*(set(self.content[k]) for k in views))))

    def take(self, rows: Any) -> Self:
        rows = np.asarray(rows)
        latents = None if self.latents is None else self.latents[rows]
        return replace(self, inputs=tuple(x[rows] for x in self.inputs), latents=latents, columns={k: v[rows] for k, v in self.columns.items()})

    def unlabelled(self) -> Self:
        return replace(self, latents=None)

    def examples(self) -> Examples:
        """Return all views side by side with the true latents as labels."""
        wide = np.concatenate([np.asarray(x, np.float32).reshape(len(x), -1) for x in self.inputs], axis=1)
        return Examples(wide, None if self.latents is None else np.asarray(self.latents, np.float32), dict(self.columns))


@dataclass(frozen=True)
class Transitions(CausalData):
    """Steps of a system: what was seen, the action that was done, what was seen next (Lippe et al. 2023).

    Args:
        inputs: [N, 2, …] frames before and after.
        action: [N, k] done in between.
        latents: [N, 2, n] the truth, where it is known.
        columns: [N] arrays beside.

    Examples:
        >>> Transitions.from_sequence(np.zeros((6, 3)), np.zeros((5, 1))).inputs.shape
        (5, 2, 3)
    """

    inputs: Any
    action: Array
    latents: Array | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if np.ndim(self.inputs) < 3 or np.shape(self.inputs)[1] != 2:
            raise UserError(f"transitions have shape {list(np.shape(self.inputs))}; expected [steps, 2, …]: the frame before and the frame after")
        if len(self.action) != len(self.inputs) or np.ndim(self.action) != 2:
            raise UserError(f"action has shape {list(np.shape(self.action))} for {len(self.inputs):,} steps; expected [{len(self.inputs)}, dimensions]")

    @classmethod
    def from_sequence(cls, frames: Any, action: Array, latents: Array | None = None) -> Self:
        """Return the steps of one sequence: frames [T, …], ``action[t]`` done between t and t + 1, [T - 1, k]."""
        if len(action) != len(frames) - 1:
            raise UserError(f"{len(frames):,} frames have {len(frames) - 1:,} steps between them, and there are {len(action):,} actions")
        return cls(np.stack([frames[:-1], frames[1:]], 1), action, None if latents is None else np.stack([latents[:-1], latents[1:]], 1))

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Any) -> Self:
        rows = np.asarray(rows)
        latents = None if self.latents is None else self.latents[rows]
        return replace(self, inputs=self.inputs[rows], action=self.action[rows], latents=latents, columns={k: v[rows] for k, v in self.columns.items()})

    def unlabelled(self) -> Self:
        return replace(self, latents=None)

    def examples(self) -> Examples:
        """Return the frames after each step with the true latents as labels."""
        return Examples(self.inputs[:, 1], None if self.latents is None else np.asarray(self.latents[:, 1], np.float32), dict(self.columns))

    def preview(self, row: int) -> Any:
        return np.asarray(self.inputs[row][1])
