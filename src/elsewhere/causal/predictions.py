"""What causal learners answer: latents of observations, and distributions under interventions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elsewhere.causal.questions import Gaussian, Interventions
from elsewhere.data import Array
from elsewhere.errors import Undefined

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Latents:
    """Estimated latents [N, k] of observations; None with the reason, where a learner estimates none.

    Examples:
        >>> Latents(np.zeros((2, 3))).to_frame().columns.tolist()
        ['z1', 'z2', 'z3']
    """

    mean: Array | None
    reason: str = ""
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 0 if self.mean is None else len(self.mean)

    def to_frame(self) -> pd.DataFrame:
        import pandas as pd

        z = np.empty((0, 0)) if self.mean is None else self.mean
        return pd.DataFrame(z, columns=list(self.names) or [f"z{k + 1}" for k in range(z.shape[1])])


@dataclass(frozen=True)
class Outcomes:
    """A distribution for each question: a ``Gaussian`` or rows [N, d]; None with the reason, where a learner has no answer.

    ``to_frame`` gives ``size`` rows a question, with the question in the column ``do``.

    Examples:
        >>> asked = Interventions((("a", "b"),), size=3)
        >>> Outcomes((Gaussian(np.zeros(2), np.eye(2)),), asked).to_frame().do.tolist()
        ['a+b', 'a+b', 'a+b']
    """

    each: tuple[Any, ...] | None
    asked: Interventions
    reason: str = ""
    features: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 0 if self.each is None else len(self.each)

    def rows(self) -> list[Array]:
        """Return [size, d] drawn for each question."""
        if self.each is None:
            raise Undefined(self.reason)
        return [_rows(one, self.asked.size, np.random.default_rng([self.asked.seed, k])) for k, one in enumerate(self.each)]

    def to_frame(self) -> pd.DataFrame:
        import pandas as pd

        if self.each is None:
            return pd.DataFrame()
        drawn = self.rows()
        names = [*(self.asked.features or self.features)] or [f"x{k + 1}" for k in range(drawn[0].shape[1])]
        frame = pd.DataFrame(np.concatenate(drawn), columns=names)
        frame.insert(0, "do", np.repeat(self.asked.column("id"), [len(x) for x in drawn]))
        return frame


def _rows(one: Any, size: int, rng: np.random.Generator) -> Array:
    if isinstance(one, Gaussian):
        return one.sample(size, rng)
    x = np.asarray(one, float)
    return x if len(x) == size else x[rng.integers(len(x), size=size)]


def moments(one: Any) -> Gaussian:
    """Return the mean and covariance of a distribution given as a ``Gaussian`` or as rows.

    Examples:
        >>> moments(np.array([[0.0], [2.0]])).mean
        array([1.])
    """
    return one if isinstance(one, Gaussian) else Gaussian.of(one)


def values_of(prediction: Any) -> Array:
    """Return predicted latents [N, k] of what a learner predicted: ``Latents``, values of a regression, or an array.

    Raises:
        Undefined: the learner estimates no latents.
    """
    if isinstance(prediction, Outcomes):
        raise Undefined("this domain asks what happens, not for latents")
    if isinstance(prediction, Latents) and prediction.mean is None:
        raise Undefined(prediction.reason)
    mean = np.asarray(getattr(prediction, "mean", prediction), float)
    return mean[:, None] if mean.ndim == 1 else mean


def answers_of(prediction: Any) -> Sequence[Any]:
    """Return the distributions that answer questions; raise ``Undefined`` where there are none."""
    if not isinstance(prediction, Outcomes):
        raise Undefined("this domain asks for latents, not what happens")
    if prediction.each is None:
        raise Undefined(prediction.reason)
    return prediction.each
