"""Label propagation: labels spread along links, features unused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.graphs.data import Nodes
from elsewhere.graphs.sparse import normalised
from elsewhere.learner import Learner
from elsewhere.prediction import ClassPrediction
from elsewhere.run import Run
from elsewhere.task import Source


@dataclass
class LabelPropagation(Learner[Nodes, ClassPrediction]):
    """Labels spread along links, features unused: F ← clip(α S F + (1 - α) G, 0, 1), G the known labels as one-hot rows.

    It keeps nothing of the source: what it spreads are the labels that the data know of other nodes than those asked.

    Args:
        alpha: weight of the neighbours; published grid .01, .1, .5, .9, .99.
        steps: of spreading.
        normalise: S; False: A.
    """

    alpha: float = 0.5
    steps: int = 50
    normalise: bool = True

    @property
    def accepts(self) -> type:
        return Nodes

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        if source.train.classes is None or source.train.known is None:
            raise UserError("label propagation spreads classes, and these labels are numbers or absent")
        if not 0 <= self.alpha <= 1:
            raise UserError(f"alpha must lie in [0, 1], not {self.alpha}")
        self.prior_ = np.bincount(np.asarray(source.train.labels), minlength=len(source.train.classes)) / len(source.train)
        return self

    def predict(self, data: Nodes, run: Run = Run()) -> ClassPrediction:
        known = data.hidden()
        if known is None:
            raise UserError("these data know no label of any node: there is nothing to spread")
        s = normalised(data.graph.links) if self.normalise else data.graph.links
        spread = propagated(known, len(self.prior_), s, self.alpha, self.steps)[data.ask]
        total = spread.sum(1, keepdims=True)
        return ClassPrediction(probabilities=np.where(total > 1e-12, spread / np.where(total > 1e-12, total, 1), self.prior_))


def propagated(known: Array, classes: int, s: Any, alpha: float = 0.5, steps: int = 50) -> Array:
    """Return F [N, classes] after ``steps`` of F ← clip(α s F + (1 - α) G, 0, 1); ``known`` are codes, -1 where unknown.

    Examples:
        >>> s = np.array([[0.0, 1.0], [1.0, 0.0]])
        >>> propagated(np.array([0, -1]), 2, s, 0.5, 50).argmax(1).tolist()
        [0, 0]
    """
    start = np.zeros((len(known), classes), np.float32)
    labelled = np.flatnonzero(known >= 0)
    start[labelled, known[labelled]] = 1
    found = start
    for _ in range(steps):
        found = np.clip(alpha * (s @ found) + (1 - alpha) * start, 0, 1)
    return found
