"""Ridge regression on one-hot labels, on inputs or on random features: the model that the dataset derivative is exact for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from elsewhere.data import Array, Examples, optional_column
from elsewhere.encoding import Encoder, as_matrix
from elsewhere.errors import UserError
from elsewhere.explain.dataset_derivative import DatasetDerivative
from elsewhere.explain.judging import SHARPNESS
from elsewhere.learner import Learner
from elsewhere.prediction import ClassPrediction, ValuePrediction
from elsewhere.run import Run
from elsewhere.task import Source

Prediction = ClassPrediction | ValuePrediction


@dataclass
class RidgeReadout(Learner[Examples, Prediction]):
    """Weighted ridge regression on one-hot labels (or numbers) in closed form.

    Args:
        ridge: λ, or "loo".
        random: so many random features relu((x - center) W + b), W ~ N(0, 2/d), b ~ N(0, 0.01); 0: the inputs as they are, a table encoded.
        center: taken from the inputs before; None: their mean in the source.

    Examples:
        >>> x = Examples(np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2, classes=("a", "b"))
        >>> RidgeReadout(random=16).fit(Source(x)).represent(x).shape
        (40, 16)
    """

    ridge: float | Literal["loo"] = "loo"
    random: int = 0
    center: float | None = None

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        train = source.train
        if train.labels is None:
            raise UserError("the source has no labels to fit")
        self.classes_ = None if train.classes is None else len(train.classes)
        self.encoder_ = Encoder().fit(train.inputs) if hasattr(train.inputs, "iloc") else None
        x = self._numbers(train)
        self.projection_: Array | None = None
        if self.random:
            rng = np.random.default_rng(run.seed)
            self.projection_ = np.r_[rng.normal(0, (2 / x.shape[1]) ** 0.5, (x.shape[1], self.random)), rng.normal(0, 0.1, (1, self.random))]
            self.origin_ = x.mean(0) if self.center is None else np.full(x.shape[1], float(self.center))
        classes = None if self.classes_ is None else range(self.classes_)
        labels = np.asarray(train.labels) if self.classes_ is not None else np.asarray(train.labels, float)
        fitted = DatasetDerivative(ridge=self.ridge).fit(self.represent(train), labels, optional_column(train, "weight"), classes=None if classes is None else list(classes))
        self.ridge_, self.coefficients_, self.intercept_ = fitted.ridge_, np.ascontiguousarray(fitted.coef_.T), fitted.intercept_
        return self

    def predict(self, data: Examples, run: Run = Run()) -> Prediction:
        made = self.represent(data, run) @ self.coefficients_ + self.intercept_
        if self.classes_ is None:
            return ValuePrediction(made[:, 0] if made.shape[1] == 1 else made)
        return ClassPrediction(logits=SHARPNESS * made)

    def represent(self, data: Examples, run: Run = Run()) -> Array:
        """Return the features [n, d] that the regression stands on."""
        x = self._numbers(data)
        return x if self.projection_ is None else np.maximum((x - self.origin_) @ self.projection_[:-1] + self.projection_[-1], 0)

    def _numbers(self, data: Examples) -> Array:
        if self.encoder_ is not None:
            return self.encoder_.transform(data.inputs)
        x: Any = as_matrix(data.inputs)
        return np.asarray(x.toarray() if hasattr(x, "toarray") else x)
