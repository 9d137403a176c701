"""The linear row that every table of forecasts over domains must have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from elsewhere.data import Examples
from elsewhere.errors import UserError
from elsewhere.learner import Learner
from elsewhere.prediction import ValuePrediction
from elsewhere.run import Run
from elsewhere.task import Source


@dataclass
class LinearWindows(Learner[Examples, ValuePrediction]):
    """Least squares from the inputs of a window to its outputs.

    Args:
        january: fit only on windows that begin in January, as those that are judged do (the column ``start`` is 0 there).
        constant: predict the source's mean and look at nothing.

    Examples:
        >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> LinearWindows().fit(Source(Examples(x, 2 * x))).predict(Examples(np.ones((1, 2)))).mean.round(6).tolist()
        [[2.0, 2.0]]
    """

    january: bool = False
    constant: bool = False

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        data = source.train
        if self.january:
            data = data.take(data.column("start") == 0)
            if not len(data):
                raise UserError("no window of the source begins in January")
        y = np.asarray(data.labels, float)
        x = self._design(data)
        self.coefficients_ = np.linalg.lstsq(x, y, rcond=None)[0]
        return self

    def predict(self, data: Examples, run: Run = Run()) -> ValuePrediction:
        return ValuePrediction(self._design(data) @ self.coefficients_)

    def _design(self, data: Examples) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        one = np.ones((len(data), 1))
        return one if self.constant else np.concatenate([np.asarray(data.inputs, float), one], 1)
