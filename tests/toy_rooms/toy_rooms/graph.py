"""A graph with isolated nodes; students that share a teacher; nodes that are also plain examples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from elsewhere import ClassPrediction, Domain, Examples, Learner, Metric, Run, Source, Task, task
from elsewhere.data import Array
from elsewhere.wrapping import wrap


@dataclass(frozen=True)
class Nodes:
    """Some nodes of one graph; labels are -1 where unknown."""

    features: Array
    links: Array
    labels: Array
    ask: Array

    def __len__(self) -> int:
        return len(self.ask)

    def take(self, rows: Any) -> Self:
        return replace(self, ask=self.ask[np.asarray(rows)])

    def unlabelled(self) -> Self:
        hidden = self.labels.copy()
        hidden[self.ask] = -1
        return replace(self, labels=hidden)

    def column(self, name: str) -> Array:
        return {"degree": self.links[self.ask].sum(1), "id": self.ask}[name]

    def examples(self) -> Examples:
        labels = self.labels[self.ask]
        return Examples(self.features[self.ask], None if (labels < 0).any() else labels, {"id": self.ask}, ("0", "1", "2"))


def right(prediction: Any, data: Nodes) -> Array:
    return (prediction.classes() == data.labels[data.ask]).astype(float)


@task("toy/communities")
def communities(seed: int = 0, nodes: int = 300) -> Task[Nodes]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, nodes)
    features = rng.normal(size=(nodes, 8))
    features[np.arange(nodes), labels] += 0.9
    links = np.triu(rng.random((nodes, nodes)) < np.where(labels[:, None] == labels, 0.08, 0.01), 1).astype(float)
    links += links.T
    order = rng.permutation(nodes)
    alone, train, rest = np.split(order, [nodes // 10, nodes // 3])
    links[alone] = 0
    links[:, alone] = 0
    known = np.full(nodes, -1)
    known[train] = labels[train]

    def ask(who: Array) -> Nodes:
        told = known.copy()
        told[who] = labels[who]
        return Nodes(features, links, told, who)

    domains = [Domain("linked", ask(rest), "home"), Domain("isolated", ask(alone), "elsewhere", {"degree": 0})]
    return Task(Source(Nodes(features, links, known, train)), domains, [Metric("accuracy", right)], ("toy-hardest",))


@dataclass
class Teacher(Learner[Nodes, ClassPrediction]):
    hops: int = 2
    accepts = Nodes
    fitted_here: ClassVar[int] = 0

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        Teacher.fitted_here += 1
        data = source.train
        x = self.represent(data, run)
        self.weights_ = np.linalg.lstsq(np.c_[x, np.ones(len(x))], np.eye(3)[data.labels[data.ask]], rcond=None)[0]
        run.log(0, residual=float(np.abs(np.c_[x, np.ones(len(x))] @ self.weights_).mean()))
        return self

    def represent(self, data: Nodes, run: Run = Run()) -> Array:
        a = data.links + np.eye(len(data.links))
        a /= a.sum(1, keepdims=True)
        x = data.features
        for _ in range(self.hops):
            x = a @ x
        return x[data.ask]

    def predict(self, data: Nodes, run: Run = Run()) -> ClassPrediction:
        assert (data.labels[data.ask] == -1).all(), "labels must be hidden"
        x = self.represent(data, run)
        return ClassPrediction(logits=np.c_[x, np.ones(len(x))] @ self.weights_)


@dataclass
class Student(Learner[Nodes, ClassPrediction]):
    teacher: Teacher = field(default_factory=Teacher)
    neighbours: int = 10
    accepts = Nodes

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        data = source.train
        self.teacher_ = run.fitted(self.teacher, source)
        linked = np.flatnonzero(data.links.sum(1) > 0)
        everyone = replace(data, ask=linked)
        self.bank_ = self.teacher_.represent(everyone, run)
        self.guess_ = np.linalg.lstsq(data.features[linked], self.bank_, rcond=None)[0]
        self.head_ = np.linalg.lstsq(self._inputs(data), np.eye(3)[data.labels[data.ask]], rcond=None)[0]
        return self

    def _inputs(self, data: Nodes) -> Array:
        x = data.features[data.ask]
        guess = x @ self.guess_
        near = np.argsort(-(guess @ self.bank_.T), 1)[:, : self.neighbours]
        return np.c_[x, guess, self.bank_[near].mean(1), np.ones(len(x))]

    def predict(self, data: Nodes, run: Run = Run()) -> ClassPrediction:
        return ClassPrediction(logits=self._inputs(data) @ self.head_)


def plain_learner() -> Learner[Any, Any]:
    from sklearn.linear_model import LogisticRegression

    return wrap(LogisticRegression())
