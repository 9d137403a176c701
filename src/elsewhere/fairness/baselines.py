"""What two heads are compared with: thresholds by group, and data changed before training (Kamiran & Calders 2012)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.errors import Undefined, UserError
from elsewhere.fairness.frontier import group_thresholds
from elsewhere.fairness.rates import binary_labels, codes_of, groups_of
from elsewhere.fairness.regularised import VALIDATION_SHARE, as_prediction
from elsewhere.nn.combined import Refitted
from elsewhere.prediction import ClassPrediction
from elsewhere.run import Run
from elsewhere.splitting import held_out
from elsewhere.task import Source
from elsewhere.wrapping import ignoring_weights


def with_validation(source: Source[Examples], run: Run) -> tuple[Source[Examples], Examples]:
    """Return the source and its validation part; a fifth of the training part where it has none."""
    if source.validation is not None:
        return source, source.validation
    out = held_out(source.train, VALIDATION_SHARE, run.rng("validation"))
    held = source.train.take(out)
    return replace(source, train=source.train.take(~out), validation=held), held


def logits_of(prediction: ClassPrediction) -> Array:
    """Return the logit of the second class [n], clipped to ± 25.

    Raises:
        UserError: the learner gives classes alone.
    """
    try:
        p = prediction.log_probabilities()
    except Undefined as error:
        raise UserError("this needs scores, and the learner gives classes alone") from error
    return np.clip(p[:, 1] - p[:, 0], -25, 25)


class GroupAround(Refitted):
    """What learners around one that know the group share."""

    group: str

    def refuses(self, source: Source[Any]) -> str | None:
        try:
            binary_labels(source.train, type(self).__name__)
            groups_of(source.train, self.group)
        except UserError as error:
            return str(error)
        return super().refuses(source)


@dataclass
class GroupThresholds(GroupAround):
    """One threshold a group on the scores of a learner, after Lipton et al. 2018: the bound when the group is known at prediction time.

    Args:
        base: a learner with scores.
        ratio: ρ, the wanted ratio of acceptance rates; 1 is parity.
        predicted: use a predicted group, by a second copy of the learner; else the true one, which prediction then needs.
        group: column of people compared.

    Examples:
        >>> from elsewhere.nn.learners import Mlp
        >>> rng = np.random.default_rng(0); y = rng.integers(2, size=100); s = np.where(rng.random(100) < 0.3 + 0.4 * y, "m", "f")
        >>> data = Examples(rng.normal(size=(100, 3)) + y[:, None], y, {"group": s}, classes=("no", "yes"))
        >>> GroupThresholds(Mlp(steps=20)).fit(Source(data)).predict(data).classes().shape
        (100,)
    """

    base: Any
    ratio: float = 1.0
    predicted: bool = False
    group: str = "group"

    def refuses(self, source: Source[Any]) -> str | None:
        why = super().refuses(source)
        count = 0 if why else len(set(groups_of(source.train, self.group).tolist()))
        return why or (f"thresholds by group need two groups, and {self.group!r} has {count}" if count != 2 else None)

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        if why := self.refuses(source):
            raise UserError(why)
        source, held = with_validation(source, run)
        self.groups_ = sorted(set(groups_of(source.train, self.group).tolist()))
        self.base_ = run.fitted(self.base, source)
        self.group_model_ = None
        if self.predicted:
            told = [replace(d, labels=self._true(d), classes=tuple(self.groups_)) for d in (source.train, held)]
            self.group_model_ = copy.deepcopy(self.base).fit(replace(source, train=told[0], validation=told[1]), run)
        self.thresholds_ = list(group_thresholds(logits_of(self.base_.predict(held.unlabelled(), run)), self._codes(held, run), self.ratio))
        self.thresholds_ = [float(np.clip(t, -26, 26)) for t in self.thresholds_]  # beyond every clipped score
        return self

    def predict(self, data: Any, run: Run = Run()) -> ClassPrediction:
        return as_prediction(logits_of(self.base_.predict(data, run)) - np.array(self.thresholds_)[self._codes(data, run)])

    def _codes(self, data: Any, run: Run) -> Array:
        if self.group_model_ is not None:
            return (logits_of(self.group_model_.predict(data.unlabelled(), run)) > 0).astype(int)
        return self._true(data)

    def _true(self, data: Any) -> Array:
        return codes_of(groups_of(data, self.group), self.groups_)


@dataclass
class MassagedLabels(GroupAround):
    """A learner on labels of which as few as parity takes are changed: the best-ranked negatives of the worse-off group up, the worst-ranked positives of the other down.

    ⌈n₁ n₀ |DDP of the labels| / n⌉ of each are changed; a first fit of the learner ranks (Kamiran & Calders 2012).

    Args:
        base: a learner with scores.
        group: column of people compared.

    Examples:
        >>> from elsewhere.nn.learners import Mlp
        >>> y = np.repeat([0, 0, 1, 1], 20); s = np.where(np.arange(80) % 4 < 1 + 2 * y, "m", "f")
        >>> data = Examples(np.random.default_rng(0).normal(size=(80, 3)) + y[:, None], y, {"group": s}, classes=("no", "yes"))
        >>> MassagedLabels(Mlp(steps=20)).fit(Source(data)).changed_
        10
    """

    base: Any
    group: str = "group"

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        if why := self.refuses(source):
            raise UserError(why)
        labels, codes = self._labels(source.train)
        scores = logits_of(run.fitted(self.base, source).predict(source.train.unlabelled(), run))
        rates = [float(labels[codes == k].mean()) for k in (0, 1)]
        worse = int(rates[1] < rates[0])
        n0, n1 = int((codes == 0).sum()), int((codes == 1).sum())
        self.changed_ = int(np.ceil(n0 * n1 * abs(rates[1] - rates[0]) / len(labels) - 1e-9))
        up = np.flatnonzero((codes == worse) & (labels == 0))
        down = np.flatnonzero((codes != worse) & (labels == 1))
        new = labels.copy()
        new[up[np.argsort(-scores[up], kind="stable")[: self.changed_]]] = 1
        new[down[np.argsort(scores[down], kind="stable")[: self.changed_]]] = 0
        self.base_ = copy.deepcopy(self.base).fit(replace(source, train=replace(source.train, labels=new)), run)
        return self

    def _labels(self, data: Examples) -> tuple[Array, Array]:
        told = np.unique(groups_of(data, self.group), return_inverse=True)[1]
        if told.max() != 1:
            raise UserError(f"massaging needs two groups, and {self.group!r} has {told.max() + 1}")
        return binary_labels(data, "massaging"), told


@dataclass
class Reweighed(GroupAround):
    """A learner with the weights P(s) P(y) / P(s, y), under which label and group are independent (Kamiran & Calders 2012).

    Args:
        base: a learner that uses weights.
        group: column of people compared.

    Examples:
        >>> from elsewhere.nn.learners import Mlp
        >>> y = np.repeat([0, 0, 1, 1], 20); s = np.where(np.arange(80) % 4 < 1 + 2 * y, "m", "f")
        >>> data = Examples(np.random.default_rng(0).normal(size=(80, 3)) + y[:, None], y, {"group": s}, classes=("no", "yes"))
        >>> Reweighed(Mlp(steps=20)).fit(Source(data)).predict(data).classes().shape
        (80,)
    """

    base: Any
    group: str = "group"

    def refuses(self, source: Source[Any]) -> str | None:
        if ignored := ignoring_weights([self.base]):
            return f"{ignored[0]} cannot use weights"
        return super().refuses(source)

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        if why := self.refuses(source):
            raise UserError(why)
        data = source.train
        weight = independence_weights(binary_labels(data, "reweighing"), groups_of(data, self.group))
        given = data.columns.get("weight")
        columns = {**data.columns, "weight": weight if given is None else weight * np.asarray(given, float)}
        self.base_ = copy.deepcopy(self.base).fit(replace(source, train=replace(data, columns=columns)), run)
        return self


def independence_weights(labels: Array, group: Array) -> Array:
    """Return P(s) P(y) / P(s, y) of each example [n].

    Examples:
        >>> independence_weights(np.array([0, 1, 1, 1]), np.array(["a", "a", "b", "b"])).tolist()
        [0.5, 1.5, 0.75, 0.75]
    """
    y, s = np.unique(labels, return_inverse=True)[1], np.unique(group, return_inverse=True)[1]
    joint = np.zeros((s.max() + 1, y.max() + 1))
    np.add.at(joint, (s, y), 1.0)
    joint /= len(y)
    return np.asarray((joint.sum(1)[s] * joint.sum(0)[y]) / joint[s, y])
