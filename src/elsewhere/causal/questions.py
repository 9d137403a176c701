"""The questions asked of a causal model, and normal distributions as answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from elsewhere.causal.data import OBSERVATIONAL, CausalData
from elsewhere.data import Array

JOIN = "+"  # of the names of interventions that are done together


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution: mean [d], covariance [d, d].

    Examples:
        >>> Gaussian(np.zeros(2), np.eye(2)).sample(5, np.random.default_rng(0)).shape
        (5, 2)
    """

    mean: Array
    covariance: Array

    def sample(self, size: int, rng: np.random.Generator) -> Array:
        """Draw [size, d]; directions without variance stay at the mean."""
        values, vectors = np.linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.clip(values, 0, None))
        return np.asarray(self.mean + rng.normal(size=(size, len(self.mean))) @ root.T)

    @classmethod
    def of(cls, x: Array) -> Gaussian:
        """Return the normal distribution with the moments of rows x [N, d]."""
        x = np.asarray(x, float).reshape(len(x), -1)
        mean = x.mean(0)
        return cls(mean, (x - mean).T @ (x - mean) / len(x))


@dataclass(frozen=True)
class Interventions(CausalData):
    """Questions to a causal model, one an example: what is observed if these interventions are done together?

    Args:
        do: for each question the names of interventions of the source, done together; () is nothing.
        outcomes: for each question what happened: a ``Gaussian``, or rows [N, d]; None where nobody knows.
        reference: what is observed where nothing is done: the scale of every error.
        strength: [questions] by which the shift of each intervention is multiplied.
        of: "x", the observations, or "latents", the true causal variables.
        size: rows that are drawn where an answer is asked for as a table.
        seed: of these rows.
        features: names of the columns of the answer.

    Examples:
        >>> asked = Interventions((("env_1", "env_2"),))
        >>> len(asked), asked.column("id").tolist()
        (1, ['env_1+env_2'])
    """

    do: tuple[tuple[str, ...], ...]
    outcomes: tuple[Any, ...] | None = None
    reference: Any = None
    strength: Array | None = None
    of: str = "x"
    size: int = 1000
    seed: int = 0
    features: tuple[str, ...] | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.strength is None:
            object.__setattr__(self, "strength", np.ones(len(self.do)))
        if "id" not in self.columns:
            strength = np.asarray(self.strength)
            names = [JOIN.join(names) or OBSERVATIONAL for names in self.do]
            told = [n if s == 1 else f"{n} × {s:g}" for n, s in zip(names, strength, strict=True)]
            object.__setattr__(self, "columns", {**self.columns, "id": np.array(told, object)})

    def __len__(self) -> int:
        return len(self.do)

    def take(self, rows: Any) -> Self:
        at = np.arange(len(self))[np.asarray(rows)]
        outcomes = None if self.outcomes is None else tuple(self.outcomes[k] for k in at)
        return replace(self, do=tuple(self.do[k] for k in at), outcomes=outcomes, strength=np.asarray(self.strength)[at], columns={k: v[at] for k, v in self.columns.items()})

    def unlabelled(self) -> Self:
        """Return the same questions without what happened."""
        return replace(self, outcomes=None, reference=None)
