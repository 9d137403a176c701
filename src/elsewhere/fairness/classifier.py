"""Any learner of people as a scikit-learn classifier, with fairlearn's ``sensitive_features``."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

from elsewhere.data import Array, Examples
from elsewhere.errors import UserError
from elsewhere.run import Run
from elsewhere.task import Source


class FairClassifier(ClassifierMixin, BaseEstimator):
    """A learner of this room (or any other) for scikit-learn's pipelines and searches: the group is given at ``fit`` and not needed to predict.

    ``predict`` is deterministic. ``predict_proba`` is as calibrated as the learner: merged rules give the nearest thing to a probability, not one.

    Args:
        learner: ``TwoHeads()``, ``ParityRegularised()``, ``FairlearnLearner()``, …
        seed: of its training.

    Examples:
        >>> from elsewhere.fairness import TwoHeads
        >>> rng = np.random.default_rng(0); s = rng.integers(2, size=200); y = rng.integers(2, size=200)
        >>> x = np.c_[rng.normal(size=(200, 2)) + y[:, None], s + rng.normal(size=200)]
        >>> model = FairClassifier(TwoHeads(steps=20, slack=0.1)).fit(x, y, sensitive_features=s)
        >>> model.predict(x).shape, model.predict_proba(x).shape
        ((200,), (200, 2))
    """

    def __init__(self, learner: Any, seed: int = 0) -> None:
        self.learner, self.seed = learner, seed

    def fit(self, X: Any, y: Any, sensitive_features: Any = None, sample_weight: Any = None) -> Self:
        """Fit on features [n, d] (an array or a data frame), labels [n] and the group [n] of each person.

        Raises:
            UserError: the learner needs a group and none is given.
        """
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        columns: dict[str, Array] = {}
        if sensitive_features is not None:
            given = sensitive_features.to_numpy() if hasattr(sensitive_features, "to_numpy") else np.asarray(sensitive_features)
            columns["group"] = np.array([", ".join(map(str, row)) for row in given]) if given.ndim == 2 else given
        if sample_weight is not None:
            columns["weight"] = np.asarray(sample_weight, float)
        data = Examples(X if hasattr(X, "iloc") else np.asarray(X, float), codes, columns, tuple(map(str, self.classes_)))
        if why := self.learner.refuses(Source(data)):
            raise UserError(f"{why}; give the group as sensitive_features=" if sensitive_features is None and "group" in why else why)
        self.learner_ = copy.deepcopy(self.learner).fit(Source(data), Run(seed=self.seed, progress=False))
        return self

    def predict(self, X: Any) -> Array:
        """Return class labels [n]."""
        return np.asarray(self.classes_[self._asked(X).classes()])

    def predict_proba(self, X: Any) -> Array:
        """Return [n, classes]."""
        return np.asarray(self._asked(X).probabilities())

    def _asked(self, X: Any) -> Any:
        return self.learner_.predict(Examples(X if hasattr(X, "iloc") else np.asarray(X, float), classes=tuple(map(str, self.classes_))), Run(progress=False))
