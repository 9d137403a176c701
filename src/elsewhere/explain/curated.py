"""Learners on a source that the dataset derivative has changed: reweighted, with examples dropped, or extended from a pool; and their controls."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np

from elsewhere.data import Array, Examples, optional_column
from elsewhere.errors import UserError, did_you_mean
from elsewhere.explain.data_values import closeness_weights, knn_shapley, learnt_weights
from elsewhere.explain.dataset_derivative import OWN, DatasetDerivative
from elsewhere.explain.overlap import shared_examples
from elsewhere.explain.represented import representing
from elsewhere.learner import offers
from elsewhere.nn.combined import Refitted
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.wrapping import EstimatorLearner, ignoring_weights

VALIDATION = "validation"


class Curated(Refitted):
    """What they share: the learner inside is fitted on the source as it is, its representation feeds a dataset derivative, and it is fitted again on what that advises."""

    ridge: float | Literal["loo"]
    judge: str
    loss: Literal["squared", "cross_entropy"]

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        self.base_ = copy.deepcopy(self.base).fit(replace(source, train=self.curated(source, run)), run)
        return self

    def curated(self, source: Source[Any], run: Run) -> Examples:
        """Return the examples to train on."""
        raise NotImplementedError(f"{type(self).__name__} has no curated")

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains of the source that must be there."""
        return () if self.judge in (*OWN, VALIDATION) else (self.judge,)

    def refuses(self, source: Source[Any]) -> str | None:
        place = optional_column(source.train, "domain")
        known = [] if place is None else sorted({str(v) for v in place.tolist()})
        for name in self.domains:
            if name not in known:
                return f"the source has no domain {name!r}{did_you_mean(name, [*known, *OWN, VALIDATION])}"
        if self.judge == "leave-domain-out" and len(known) < 2:
            return f"leaving domains out needs two or more, and the source has {len(known)}"
        if self.judge == VALIDATION and source.validation is None:
            return "the source has no validation part to judge by; use leave-one-out"
        return super().refuses(source)

    def derivative(self, source: Source[Any], run: Run) -> tuple[DatasetDerivative, Examples, Any]:
        """Return the derivative fitted on what the learner represents, the examples it is fitted on, and the judge."""
        train = source.train
        held = None if self.judge in OWN else source.validation if self.judge == VALIDATION else train.take(optional_column(train, "domain").astype(str) == self.judge)  # type: ignore[union-attr]
        if self.judge not in (*OWN, VALIDATION):
            train = train.take(train.column("domain").astype(str) != self.judge)
        seen = _representing(self.base, replace(source, train=train), run)
        fitted = DatasetDerivative(ridge=self.ridge).fit(seen(train), *_labels(train), domain=optional_column(train, "domain"), classes=_classes(train))
        if held is None:
            return fitted, train, self.judge
        judge = (seen(held), _labels(held)[0])
        if (shared := shared_examples(train, held)) is not None:
            fitted.compared(judge)
            if shared:
                told = f"{shared} of the judge's {len(held)} examples are training examples too"
                warnings.warn(f"{told}: use judge='leave-one-out'", UserWarning, stacklevel=3)
        return fitted, train, judge


def _representing(base: Any, source: Source[Any], run: Run) -> Any:
    """Return what gives the features of data: what the learner represents, fitted on the source as it is."""
    known = not offers(base, "represent") or isinstance(base, EstimatorLearner)  # nothing to be learnt first
    return representing(base if known else run.fitted(base, source), source, run)


def _labels(data: Examples) -> tuple[Array, Array | None]:
    if data.labels is None:
        raise UserError("the source has no labels to fit")
    labels = np.asarray(data.labels)
    return (labels if data.classes is not None else labels.astype(float)), optional_column(data, "weight")


def _classes(data: Examples) -> list[int] | None:
    return None if data.classes is None else list(range(len(data.classes)))


@dataclass
class Reweighted(Curated):
    """A learner fitted with the weights that the dataset derivative advises (Dukler et al. 2022, section 3.4).

    Args:
        base: a learner that uses weights.
        judge: "leave-one-out"; "leave-domain-out", which needs nothing of the places to come; "validation"; or a domain of the source whose examples judge the others and are not trained on.
        by: "derivative"; or a rival: "learnt" (Ren et al. 2018, needs a judge with examples), "closeness" (Chang et al. 2017).
        steps, step: of the descent; "auto" takes a step that helps on held-out folds, or none.
        ridge: of the regression on what the learner represents; "loo" chooses it.
        loss: that judges.

    Examples:
        >>> from elsewhere.explain.ridge_readout import RidgeReadout
        >>> rng = np.random.default_rng(0); y = rng.integers(2, size=100); x = rng.normal(size=(100, 3)) + 3 * y[:, None]
        >>> data = Examples(x, y, classes=("a", "b"))
        >>> Reweighted(RidgeReadout(ridge=1.0)).fit(Source(data)).predict(data).classes().shape
        (100,)
    """

    base: Any
    judge: str = "leave-one-out"
    by: Literal["derivative", "learnt", "closeness"] = "derivative"
    steps: int = 3
    step: float | Literal["auto"] = "auto"
    ridge: float | Literal["loo"] = "loo"
    loss: Literal["squared", "cross_entropy"] = "squared"

    def refuses(self, source: Source[Any]) -> str | None:
        if ignored := ignoring_weights([self.base]):
            return f"{ignored[0]} cannot use weights; use dropped, which leaves examples out"
        return super().refuses(source)

    def curated(self, source: Source[Any], run: Run) -> Examples:
        fitted, train, judge = self.derivative(source, run)
        if self.by == "derivative":
            self.weights_ = fitted.optimise(judge, self.steps, self.step, self.loss, run.say, run.integer("folds"))
            self.step_ = fitted.step_
        else:
            self.weights_ = self._rival(fitted, train, judge, run)
        return replace(train, columns={**train.columns, "weight": self.weights_})

    def _rival(self, fitted: DatasetDerivative, train: Examples, judge: Any, run: Run) -> Array:
        if self.by not in ("learnt", "closeness"):
            raise UserError(f"no way {self.by!r} to weigh{did_you_mean(self.by, ('derivative', 'learnt', 'closeness'))}")
        if train.classes is None:
            raise UserError(f"by={self.by!r} weighs examples of classes, and this label is a number")
        x, y = fitted.solution_.rows.at(np.arange(len(train)))[:, :-1].numpy(), np.asarray(train.labels)
        if self.by == "closeness":
            return closeness_weights(x, y)
        if isinstance(judge, str):
            raise UserError("by='learnt' needs examples that judge: judge=validation, or a domain of the source")
        return learnt_weights(x, y, judge, seed=run.integer("weights"))


@dataclass
class Dropped(Curated):
    """A learner fitted without the examples that hurt.

    Args:
        base: a learner.
        by: the derivative; the leave-one-out residual, which finds more of uniformly wrong labels; the exact effect of removal and k-NN
            Shapley, which need a judge with examples; "random", the control.
        fraction: so many of all; None: those with a positive derivative.
        judge, ridge, loss: as in ``reweighted``.

    Examples:
        >>> from elsewhere.explain.ridge_readout import RidgeReadout
        >>> rng = np.random.default_rng(0); y = rng.integers(2, size=100); x = rng.normal(size=(100, 3)) + 3 * y[:, None]
        >>> data = Examples(x, y, classes=("a", "b"))
        >>> len(Dropped(RidgeReadout(ridge=1.0), fraction=0.1).fit(Source(data)).dropped_)
        10
    """

    base: Any
    by: Literal["gradient", "leave_one_out", "removal", "knn-shapley", "random"] = "gradient"
    fraction: float | None = None
    judge: str = "leave-one-out"
    ridge: float | Literal["loo"] = "loo"
    loss: Literal["squared", "cross_entropy"] = "squared"

    def curated(self, source: Source[Any], run: Run) -> Examples:
        fitted, train, judge = self.derivative(source, run)
        harm = self._harm(fitted, train, judge, run)
        share = self.fraction if self.fraction is not None else float((fitted.gradient(judge, self.loss) > 0).mean())
        count = round(share * len(train))
        if not 0 <= share < 1 or count >= len(train):
            raise UserError(f"fraction must lie between 0 and 1, and {self.fraction} leaves {len(train) - count} of {len(train)} examples")
        self.dropped_ = np.argsort(-harm, kind="stable")[:count]
        kept = np.ones(len(train), bool)
        kept[self.dropped_] = False
        labels = np.asarray(train.labels)
        if train.classes is not None and (lost := set(np.unique(labels)) - set(np.unique(labels[kept]))):
            warnings.warn(f"every example of class {train.classes[sorted(lost)[0]]} was dropped", UserWarning, stacklevel=2)
        return train.take(kept)

    def _harm(self, fitted: DatasetDerivative, train: Examples, judge: Any, run: Run) -> Array:
        if self.by == "random":
            return run.rng("dropped").random(len(train))
        if self.by == "gradient":
            return np.asarray(fitted.gradient(judge, self.loss))
        if self.by == "leave_one_out":
            return np.nan_to_num(np.square(fitted.leave_one_out().residuals).sum(1), nan=-np.inf)
        if isinstance(judge, str):
            raise UserError(f"by={self.by!r} needs examples that judge: judge=validation, or a domain of the source")
        if self.by == "removal":
            return -np.nan_to_num(fitted.removal_effect(judge), nan=np.inf)
        if self.by == "knn-shapley":
            return -knn_shapley(fitted.solution_.rows.at(np.arange(len(train))).numpy(), np.asarray(train.labels), (np.c_[judge[0], np.ones(len(judge[0]))], judge[1]))
        raise UserError(f"no way {self.by!r} to drop{did_you_mean(self.by, ('gradient', 'leave_one_out', 'removal', 'knn-shapley', 'random'))}")


@dataclass
class Extended(Curated):
    """A learner fitted on the core domain and those examples of the other domains that help it: label a few examples of the new place first, then extend from the old ones.

    Args:
        base: a learner.
        core: the domain of the source that examples are added to.
        by: the derivative; "random", as many as the derivative adds; "core", none; "only-pool", all others and not the core.
        batch: share of the pool that is added in a round.
        limit: at most so many.
        ridge, loss: as in ``reweighted``.

    Examples:
        >>> from elsewhere.explain.ridge_readout import RidgeReadout
        >>> rng = np.random.default_rng(0); y = rng.integers(2, size=100); x = rng.normal(size=(100, 3)) + 3 * y[:, None]
        >>> data = Examples(x, y, {"domain": np.repeat(["new", "old"], [20, 80])}, classes=("a", "b"))
        >>> model = Extended(RidgeReadout(ridge=1.0), core="new").fit(Source(data))
        >>> 0 < len(model.added_) <= 80
        True
    """

    base: Any
    core: str = ""
    by: Literal["gradient", "random", "core", "only-pool"] = "gradient"
    batch: float = 0.02
    limit: int | None = None
    ridge: float | Literal["loo"] = "loo"
    loss: Literal["squared", "cross_entropy"] = "squared"

    judge = "leave-one-out"

    @property
    def domains(self) -> tuple[str, ...]:
        return (self.core,)

    def curated(self, source: Source[Any], run: Run) -> Examples:
        mine = source.train.column("domain").astype(str) == self.core
        core, pool = source.train.take(mine), source.train.take(~mine)
        if not len(pool):
            raise UserError(f"all examples are of the core {self.core!r}: there is no pool to add from")
        if self.by in ("core", "only-pool"):
            self.added_, self.stopped_ = np.arange(len(pool) if self.by == "only-pool" else 0), "as asked"
            return core if self.by == "core" else pool
        seen = _representing(self.base, replace(source, train=core), run)
        fitted = DatasetDerivative(ridge=self.ridge).fit(seen(core), *_labels(core), classes=_classes(core))
        found = fitted.extend(seen(pool), _labels(pool)[0], batch=self.batch, limit=self.limit, loss=self.loss, say=run.say)
        self.stopped_, self.rounds_ = found.stopped_because, found.rounds
        self.added_ = found.order if self.by == "gradient" else run.rng("extension").permutation(len(pool))[: len(found.order)]
        rows = np.r_[np.flatnonzero(mine), np.flatnonzero(~mine)[self.added_]]
        return source.train.take(rows)


@dataclass
class OnlyFrom(Refitted):
    """A learner fitted on one domain of the source alone: what any reweighting of the others for it must be compared with.

    Args:
        base: a learner.
        domain: of the source.

    Examples:
        >>> from elsewhere.explain.ridge_readout import RidgeReadout
        >>> data = Examples(np.eye(4), np.arange(4) % 2, {"domain": np.array(["a", "a", "b", "b"])}, classes=("x", "y"))
        >>> OnlyFrom(RidgeReadout(ridge=1.0), domain="a").fit(Source(data)).predict(data).classes().tolist()
        [0, 1, 0, 0]
    """

    base: Any
    domain: str = ""

    def refuses(self, source: Source[Any]) -> str | None:
        place = optional_column(source.train, "domain")
        known = set() if place is None else {str(v) for v in place.tolist()}
        return super().refuses(source) if self.domain in known else f"the source has no domain {self.domain!r}{did_you_mean(self.domain, known)}"

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        mine = source.train.column("domain").astype(str) == self.domain
        self.base_ = copy.deepcopy(self.base).fit(replace(source, train=source.train.take(mine)), run)
        return self
