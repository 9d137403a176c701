"""The ready-made predictions. A learner gives what it has; a metric that needs more raises ``Undefined``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import Undefined, UserError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ClassPrediction:
    """Predicted classes: logits or probabilities [n, classes], or only class codes [n].

    Raises:
        UserError: a value is not finite, a shape is wrong, or nothing is given.

    Examples:
        >>> ClassPrediction(logits=np.array([[0.0, 2.0]])).classes()
        array([1])
    """

    logits: Array | None = None
    probabilities_: Array | None = None
    labels: Array | None = None

    def __init__(self, logits: Any = None, probabilities: Any = None, labels: Any = None) -> None:
        given = [v for v in (logits, probabilities, labels) if v is not None]
        if not given:
            raise UserError("a ClassPrediction needs logits, probabilities or labels")
        for name, value in (("logits", logits), ("probabilities_", probabilities), ("labels", labels)):
            object.__setattr__(self, name, None if value is None else _checked(name.strip("_"), value))

    def __len__(self) -> int:
        return len(next(v for v in (self.logits, self.probabilities_, self.labels) if v is not None))

    def probabilities(self) -> Array:
        """Return probabilities [n, classes]; raise ``Undefined`` where the learner gave only classes."""
        if self.probabilities_ is not None:
            return self.probabilities_
        if self.logits is None:
            raise Undefined("the learner gives classes, no probabilities")
        from scipy.special import softmax

        return np.asarray(softmax(self.logits, axis=1))

    def log_probabilities(self) -> Array:
        """Return log probabilities [n, classes], stable where logits are given, floored at log(machine epsilon) else."""
        if self.logits is not None:
            from scipy.special import log_softmax

            return np.asarray(log_softmax(self.logits, axis=1))
        p = self.probabilities()
        eps = float(np.finfo(p.dtype).eps)
        return np.asarray(np.log(np.clip(p, eps, 1 - eps)))

    def classes(self) -> Array:
        """Return the predicted class codes [n]."""
        if self.labels is not None:
            return self.labels
        scores = self.logits if self.logits is not None else self.probabilities_
        assert scores is not None
        return np.asarray(scores.argmax(1))

    def take(self, rows: Any) -> Self:
        cut = {k: None if v is None else v[rows] for k, v in (("logits", self.logits), ("probabilities", self.probabilities_), ("labels", self.labels))}
        return type(self)(**cut)

    def to_frame(self) -> pd.DataFrame:
        import pandas as pd

        frame = pd.DataFrame({"class": self.classes()})
        try:
            p = self.probabilities()
        except Undefined:
            return frame
        return frame.assign(**{f"probability_{k}": p[:, k] for k in range(p.shape[1])})


@dataclass(frozen=True)
class ValuePrediction:
    """Predicted values [n], or [n, d] of d numbers an example; perhaps with standard deviations of the same shape."""

    mean: Array
    deviation: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", _checked("mean", self.mean))

    def __len__(self) -> int:
        return len(self.mean)

    def take(self, rows: Any) -> Self:
        return type(self)(self.mean[rows], None if self.deviation is None else self.deviation[rows])

    def to_frame(self) -> pd.DataFrame:
        import pandas as pd

        if self.mean.ndim == 2:
            return pd.DataFrame({f"mean_{k}": self.mean[:, k] for k in range(self.mean.shape[1])})
        frame = pd.DataFrame({"mean": self.mean})
        return frame if self.deviation is None else frame.assign(deviation=self.deviation)


def _checked(name: str, value: Any) -> Array:
    array = np.asarray(value)
    wanted = {"logits": (2,), "probabilities": (2,), "mean": (1, 2)}.get(name, (1,))
    if array.ndim not in wanted:
        raise UserError(f"{name} have shape {array.shape}; expected {'[n] or [n, d]' if len(wanted) > 1 else '[n, classes]' if wanted == (2,) else '[n]'}")
    if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
        bad = int((~finite).reshape(len(array), -1).any(1).sum())
        raise UserError(f"{bad} of {len(array)} predictions have {name} that are not finite")
    if name == "probabilities" and len(array):
        if array.min() < -1e-6 or np.abs(array.sum(1) - 1).max() > 1e-3:
            raise UserError("probabilities must be ≥ 0 and sum to 1 in each row; pass scores of another kind as logits=")
    elif name == "logits" and len(array) and array.min() >= 0 and np.abs(array.sum(1) - 1).max() < 1e-6:
        warnings.warn("the logits look like probabilities (rows sum to 1): pass them as probabilities=", stacklevel=4)
    return array
