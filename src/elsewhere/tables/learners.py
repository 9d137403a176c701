"""Learners over scikit-learn, and a model one already has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np

from elsewhere.data import Array, Examples, named_column
from elsewhere.encoding import Encoder
from elsewhere.errors import UserError
from elsewhere.learner import Learner
from elsewhere.prediction import ClassPrediction, ValuePrediction
from elsewhere.run import Run
from elsewhere.tables.data import class_name
from elsewhere.task import Source
from elsewhere.wrapping import EstimatorLearner, Prediction

_TREE = "sklearn.tree._tree.Tree"
_PREDICTOR = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"


@dataclass
class Prior(EstimatorLearner):
    """The class shares, or the mean, of the source, whatever the input: the bar that everything must clear."""

    def build(self, classification: bool, seed: int) -> Any:
        from sklearn.dummy import DummyClassifier, DummyRegressor

        return DummyClassifier(strategy="prior") if classification else DummyRegressor()


@dataclass
class LogisticRegression(EstimatorLearner):
    """Logistic regression on standardised features and one-hot categories.

    Args:
        C: inverse strength of the squared penalty.
        steps: at most this many iterations of L-BFGS.
    """

    C: float = 1.0
    steps: int = 1000

    def build(self, classification: bool, seed: int) -> Any:
        from sklearn.linear_model import LogisticRegression as Estimator

        if not classification:
            raise UserError("logistic-regression predicts classes and this label is a number; use ridge-regression, or --kind classification")
        return Estimator(C=self.C, max_iter=self.steps)


@dataclass
class RidgeRegression(EstimatorLearner):
    """Ridge regression on standardised features and one-hot categories; ``penalty`` is scikit-learn's alpha."""

    penalty: float = 1.0

    def build(self, classification: bool, seed: int) -> Any:
        from sklearn.linear_model import Ridge

        if classification:
            raise UserError("ridge-regression predicts a number and this label is a class; use logistic-regression, or --kind regression")
        return Ridge(alpha=self.penalty)


@dataclass
class RandomForest(EstimatorLearner):
    """A random forest; ``max_depth`` None grows every tree to the end."""

    trees: int = 200
    max_depth: int | None = None
    min_leaf: int = 1
    trusted: ClassVar[tuple[str, ...]] = (_TREE,)
    encode: ClassVar[Encoder] = Encoder(scale=False)

    def build(self, classification: bool, seed: int) -> Any:
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        kind = RandomForestClassifier if classification else RandomForestRegressor
        return kind(self.trees, max_depth=self.max_depth, min_samples_leaf=self.min_leaf, random_state=seed)


@dataclass
class Boosting(EstimatorLearner):
    """Histogram gradient boosting; missing values and categories are handled by the trees themselves."""

    rounds: int = 100
    learning_rate: float = 0.1
    max_depth: int | None = None
    leaves: int = 31
    min_leaf: int = 20
    trusted: ClassVar[tuple[str, ...]] = (_PREDICTOR, "functools.partial", "sklearn.utils.validation.check_array")
    encode: ClassVar[Encoder] = Encoder(codes=True, max_categories=200)

    def build(self, classification: bool, seed: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        kind = HistGradientBoostingClassifier if classification else HistGradientBoostingRegressor
        return kind(
            max_iter=self.rounds,
            learning_rate=self.learning_rate,
            max_depth=self.max_depth,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=self.min_leaf,
            categorical_features=None if self.encoder_ is None else self.encoder_.categorical(),
            early_stopping=False,
            random_state=seed,
        )


@dataclass
class NearestNeighbours(EstimatorLearner):
    """Nearest neighbours on standardised features; a source smaller than ``neighbours`` uses all of it."""

    neighbours: int = 5
    ignores_weights: ClassVar[bool] = True
    trusted: ClassVar[tuple[str, ...]] = (
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neighbors._ball_tree.BallTree",
    )

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        self.rows_ = len(source.train)
        return super().fit(source, run)

    def build(self, classification: bool, seed: int) -> Any:
        from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

        return (KNeighborsClassifier if classification else KNeighborsRegressor)(min(self.neighbours, self.rows_))


@dataclass
class Given(Learner[Examples, Prediction]):
    """A model one already has: a column of its predictions is judged, nothing is trained.

    Args:
        column: where the predictions are; the column leaves every other learner's features.
        scale: "class" (names of classes), "probability" (of the second class, in sorted order), "score" (log-odds of
            the second class), "value" (regression), or "auto".
        trained_on: a column that is true in the rows the model was trained on: they are not judged.
    """

    column: str
    scale: Literal["auto", "class", "probability", "score", "value"] = "auto"
    trained_on: str | None = None
    ignores_weights: ClassVar[bool] = False

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.column,) if self.trained_on is None else (self.column, self.trained_on)

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        self.classes_ = None if source.train.classes is None else list(source.train.classes)
        return self

    def predict(self, data: Examples, run: Run = Run()) -> Prediction:
        values = named_column(data, self.column)
        if values is None:
            raise UserError(f"the data have no column {self.column!r}")
        if absent := int(np.sum([v is None or v != v for v in values.tolist()])):
            raise UserError(f"{absent} of {len(values)} rows have no prediction in column {self.column!r}")
        if self.classes_ is None:
            return ValuePrediction(_numbers(values, self.column))
        scale = self._scale(values) if self.scale == "auto" else self.scale
        if scale == "class":
            return ClassPrediction(labels=self._codes(values))
        if len(self.classes_) != 2:
            raise UserError(f"column {self.column!r} holds one number a row, which cannot stand for {len(self.classes_)} classes; give classes")
        x = _numbers(values, self.column)
        if scale == "score":
            return ClassPrediction(logits=np.c_[np.zeros(len(x)), x])
        if x.min() < 0 or x.max() > 1:
            raise UserError(f"column {self.column!r} goes from {x.min():g} to {x.max():g}: no probability; say given:column=…,scale=score")
        return ClassPrediction(probabilities=np.c_[1 - x, x])

    def _scale(self, values: Array) -> str:
        assert self.classes_ is not None
        return "class" if {class_name(v) for v in values.tolist()} <= set(self.classes_) else "probability"

    def _codes(self, values: Array) -> Array:
        assert self.classes_ is not None
        codes = {name: k for k, name in enumerate(self.classes_)}
        if unknown := {class_name(v) for v in values.tolist()} - set(codes):
            raise UserError(f"column {self.column!r} predicts {sorted(unknown)[0]!r}, which is no class of the label: {', '.join(self.classes_[:8])}")
        return np.array([codes[class_name(v)] for v in values.tolist()])


def _numbers(values: Array, column: str) -> Array:
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError) as error:
        raise UserError(f"column {column!r} holds text where predictions are numbers") from error
