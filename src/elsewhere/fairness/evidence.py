"""Statistics that the bundled studies of groups expect something of: one number a seed, of networks fitted again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.fairness.audit import observed
from elsewhere.fairness.awareness import group_awareness
from elsewhere.fairness.baselines import logits_of
from elsewhere.fairness.rates import ddp
from elsewhere.fairness.scores import Scores, scores_of
from elsewhere.fairness.treatment import same_as_two_heads
from elsewhere.run import Run

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

QUIET = Run(progress=False)
FREE, FAIR, HEADS = "unconstrained", "penalty 20", "two heads"  # labels in the studies


def _each_seed(result: Result, measure: Callable[[dict[str, Any], Examples, Examples], float]) -> Array:
    """Return ``measure(fitted learners by label, validation, home)`` for each seed of the first task."""
    done = result.trials().query("status == 'done'")
    done = done[done.task == done.task.iloc[0]]
    found = []
    for _, mine in done.sort_values("seed").groupby("seed"):
        keys = dict(zip(mine.learner, mine.trial, strict=True))
        task = result.task(keys[FREE])
        models = {label: result.fitted(keys[label]) for label in (FREE, FAIR, HEADS)}
        assert task.source.validation is not None
        found.append(measure(models, task.source.validation, task.domain("home").load()))
    return np.array(found)


def _scores(models: dict[str, Any], validation: Examples, home: Examples, label: str = FAIR) -> tuple[Scores, Scores]:
    fit, test = (scores_of(models[label], models[HEADS], d, QUIET, models[FREE]) for d in (validation, home))
    return fit, test


def awareness_gained(result: Result) -> Array:
    """Return how much better the group is read off the regularised network than off the unconstrained one (accuracy)."""

    def gained(models: dict[str, Any], validation: Examples, home: Examples) -> float:
        fair, free = (group_awareness(models[k], validation, test=home, references=False).accuracy.iloc[0] for k in (FAIR, FREE))
        return float(fair - free)

    return _each_seed(result, gained)


def frontier_against_regularised(result: Result) -> Array:
    """Return the accuracy of the merged heads, at the slack of the regularised network's own difference on the validation part, minus that network's; on home."""

    def gained(models: dict[str, Any], validation: Examples, home: Examples) -> float:
        heads = models[HEADS]
        apart = abs(ddp(logits_of(models[FAIR].predict(validation)) > 0, heads.codes(validation)))
        merged = heads.frontier(validation, [apart], home)["test accuracy"].iloc[0]
        return float(merged - (models[FAIR].predict(home).classes() == home.labels).mean())

    return _each_seed(result, gained)


def approximation_gained(result: Result) -> Array:
    """Return how many more of the fair decisions two heads reproduce than the label head alone."""
    return _each_seed(result, lambda m, v, h: float(np.diff(_same(m, v, h)[:2])[0]))


def approximation(result: Result) -> Array:
    """Return the share of fair decisions that two heads reproduce."""
    return _each_seed(result, lambda m, v, h: _same(m, v, h)[1])


def recovery_gained(result: Result) -> Array:
    """Return how many more of the unfair decisions the fair score gives back once the group head is beside it."""
    return _each_seed(result, lambda m, v, h: float(np.diff(_same(m, v, h)[2:])[0]))


def recovered_difference(result: Result) -> Array:
    """Return how far the recovered classifier's |DDP| lies from the unconstrained one's."""

    def apart(models: dict[str, Any], validation: Examples, home: Examples) -> float:
        fit, test = _scores(models, validation, home)
        assert test.u is not None
        return abs(abs(float(same_as_two_heads(fit, test)["ddp"].iloc[3])) - abs(ddp(test.u > 0, test.s)))

    return _each_seed(result, apart)


def _same(models: dict[str, Any], validation: Examples, home: Examples) -> list[float]:
    return [float(v) for v in same_as_two_heads(*_scores(models, validation, home))["agreement"]]


def _flip(model: Any, home: Any) -> float:
    return float((model.predict(home.counterfactual()).classes() != model.predict(home).classes()).mean())


def flips_beyond_twice(result: Result) -> Array:
    """Return the counterfactual flip of the regularised network minus twice that of the unconstrained one."""
    return _each_seed(result, lambda m, v, h: _flip(m[FAIR], h) - 2 * _flip(m[FREE], h))


def band_against_flip(result: Result) -> Array:
    """Return how far the band of the regularised network lies from its counterfactual flip."""

    def apart(models: dict[str, Any], validation: Examples, home: Examples) -> float:
        band = observed(*_scores(models, validation, home)).who[0]
        return abs(float(band.mean()) - _flip(models[FAIR], home))

    return _each_seed(result, apart)
