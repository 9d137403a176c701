"""Scikit-learn estimators and torch modules as learners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from elsewhere.data import Array, Examples, optional_column
from elsewhere.encoding import Encoder, as_matrix
from elsewhere.errors import UserError
from elsewhere.learner import Learner
from elsewhere.prediction import ClassPrediction, ValuePrediction
from elsewhere.run import Run
from elsewhere.task import Source

Prediction = ClassPrediction | ValuePrediction


class EstimatorLearner(Learner[Examples, Prediction]):
    """What every learner over a scikit-learn estimator shares; a subclass writes ``build``.

    A DataFrame is encoded first (one-hot categories, median and indicator for missing values, standardised); the
    encoder belongs to the learner and is fitted on the source. Weights are passed on where the estimator takes them.
    """

    encode: ClassVar[Encoder] = Encoder()

    def build(self, classification: bool, seed: int) -> Any:
        """Return the unfitted estimator."""
        raise NotImplementedError(f"{type(self).__name__} has no build")

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        train = source.train
        if train.labels is None:
            raise UserError("the source has no labels to fit")
        self.classes_ = None if train.classes is None else len(train.classes)
        self.encoder_ = self._encoder().fit(train.inputs) if hasattr(train.inputs, "iloc") else None
        estimator = several(self.build(self.classes_ is not None, run.integer("fit")), train.labels)
        weight = optional_column(train, "weight")
        extra = {} if weight is None or not takes_weights(estimator) else {"sample_weight": weight}
        self.estimator_ = estimator.fit(self.represent(train, run), train.labels, **extra)
        return self

    def predict(self, data: Examples, run: Run = Run()) -> Prediction:
        x = self.represent(data, run)
        if self.classes_ is None:
            return ValuePrediction(np.asarray(self.estimator_.predict(x), float))
        if not hasattr(self.estimator_, "predict_proba"):
            return ClassPrediction(labels=np.asarray(self.estimator_.predict(x), int))
        p = np.zeros((len(data), self.classes_))  # a class the source never had keeps probability 0
        p[:, np.asarray(self.estimator_.classes_, int)] = self.estimator_.predict_proba(x)
        return ClassPrediction(probabilities=p)

    def represent(self, data: Examples, run: Run = Run()) -> Array:
        """Return the encoded features [n, d] that the estimator sees."""
        return self.encoder_.transform(data.inputs) if self.encoder_ is not None else as_matrix(data.inputs)

    def _encoder(self) -> Encoder:
        return Encoder(self.encode.scale, self.encode.squares, self.encode.codes, self.encode.max_categories)


@dataclass
class Estimator(EstimatorLearner):
    """Any scikit-learn estimator as a learner; ``wrap(estimator)`` makes it."""

    estimator: Any

    def build(self, classification: bool, seed: int) -> Any:
        from sklearn.base import clone, is_classifier, is_regressor

        if (classification and is_regressor(self.estimator)) or (not classification and is_classifier(self.estimator)):
            wanted = "classes" if classification else "a number"
            raise UserError(f"{type(self.estimator).__name__} cannot predict this label, which is {wanted}")
        made = clone(self.estimator)
        unset = {k: seed for k, v in made.get_params().items() if k.split("__")[-1] == "random_state" and v is None}
        return made.set_params(**unset)


def several(estimator: Any, labels: Array) -> Any:
    """Return the estimator, or one of it a column where the labels are several numbers an example and it learns only one."""
    if np.ndim(labels) < 2:
        return estimator
    from sklearn.multioutput import MultiOutputRegressor
    from sklearn.utils import get_tags

    return estimator if get_tags(estimator).target_tags.multi_output else MultiOutputRegressor(estimator)


def wrap(thing: Any) -> Learner[Any, Any]:
    """Return a learner made of a scikit-learn estimator or a torch module (or a learner as it is).

    Examples:
        >>> from sklearn.linear_model import LogisticRegression
        >>> type(wrap(LogisticRegression())).__name__
        'Estimator'
    """
    if isinstance(thing, Learner):
        return thing
    if hasattr(thing, "fit") and hasattr(thing, "predict") and hasattr(thing, "get_params"):
        return Estimator(thing)
    if hasattr(thing, "state_dict") and hasattr(thing, "forward"):
        from elsewhere.nn.learners import Module

        return Module(module=thing)
    raise UserError(f"expected a learner, a scikit-learn estimator or a torch module, got {type(thing).__name__}")


def takes_weights(estimator: Any) -> bool:
    """Return whether an estimator's ``fit`` takes ``sample_weight``."""
    from sklearn.utils.validation import has_fit_parameter

    return bool(has_fit_parameter(estimator, "sample_weight"))


def ignoring_weights(learners: Sequence[Learner[Any, Any]]) -> list[str]:
    """Return the names of the learners that cannot use weights."""
    ignored = []
    for learner in learners:
        if isinstance(learner, Estimator) and not takes_weights(learner.estimator):
            ignored.append(type(learner.estimator).__name__)
        elif getattr(learner, "ignores_weights", False):
            ignored.append(type(learner).__name__)
    return ignored
