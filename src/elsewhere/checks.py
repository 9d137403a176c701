"""What every learner promises, checked: as scikit-learn does for estimators."""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from elsewhere.assay.judge import predict
from elsewhere.assay.plan import asked_of, fit_for, granted, refuses
from elsewhere.errors import NotOffered
from elsewhere.identity import content_key, identity
from elsewhere.learner import Learner, offers
from elsewhere.run import Run
from elsewhere.task import Task


def check_learner(learner: Learner[Any, Any], task: Task[Any], seed: int = 0, trust: tuple[type, ...] = ()) -> list[str]:
    """Raise ``AssertionError`` where a learner breaks its contract on a task; return what could not be checked, with reasons.

    Checked: predictions do not depend on labels being present; the same seed gives the same bits; ``save`` and ``load``
    give equal predictions (or the learner is not portable, which is returned with its reason); ``fit`` changes no
    field; a fitted copy is independent; ``represent`` gives one row an example; ``fit_many`` equals ``fit``.

    Examples:
        >>> from elsewhere.tables.learners import Prior
        >>> from elsewhere.tables.worlds import linear_gaussian
        >>> check_learner(Prior(), linear_gaussian(n=50))
        []
    """
    name = type(learner).__name__
    assert dataclasses.is_dataclass(learner), f"{name} is no dataclass"
    assert refuses(learner, task.source) is None, f"{name}: {refuses(learner, task.source)}"
    told: list[str] = []
    source, run = granted(task.source, learner), Run(seed=seed, progress=False)
    before, source_before = identity(learner), content_key(source.train)
    fitted = copy.deepcopy(learner).fit(source, run)
    assert identity(fitted) == before, f"{name}: fit changed its fields"
    assert content_key(source.train) == source_before, f"{name}: fit changed the data"
    data = task.domains[-1].load()
    answer = _answer(fitted, data, run)
    assert _same(answer, _answer(fitted, data, run)), f"{name}: predicting twice gives two answers"
    _labels_do_not_matter(name, fitted, data, run, answer)
    again = copy.deepcopy(learner).fit(granted(task.source, learner), Run(seed=seed, progress=False))
    assert _same(answer, _answer(again, data, run)), f"{name}: the same seed gives other predictions"
    _copies_are_independent(name, fitted, learner, task, data, run, answer)
    told += _saved(name, fitted, data, run, answer, trust)
    if offers(learner, "represent") and fit_for(fitted, data.unlabelled()) is not None:
        z = np.asarray(fitted.represent(fit_for(fitted, data.unlabelled()), run))
        assert len(z) == len(data), f"{name}: represent gives {len(z)} rows for {len(data)} examples"
    if offers(learner, "fit_many"):
        many = type(learner).fit_many([copy.deepcopy(learner) for _ in range(2)], [source] * 2, [Run(seed=s, progress=False) for s in (seed, seed + 1)])
        assert _same(answer, _answer(many[0], data, run), 1e-4), f"{name}: fit_many differs from fit"
    return told


def _answer(fitted: Learner[Any, Any], data: Any, run: Run) -> Any:
    return predict(fitted, data, run)[0]


def _labels_do_not_matter(name: str, fitted: Learner[Any, Any], data: Any, run: Run, answer: Any) -> None:
    asked = asked_of(fitted, data)
    try:
        model = fitted.adapt(asked, run) if offers(fitted, "adapt") and fitted.sees_unlabelled else fitted
        seen = model.predict(asked, run)
    except (AssertionError, TypeError, ValueError):
        return  # it refuses data with labels, which is as good
    assert _same(answer, seen), f"{name}: predictions depend on the labels"


def _copies_are_independent(name: str, fitted: Any, learner: Any, task: Task[Any], data: Any, run: Run, answer: Any) -> None:
    twin = copy.deepcopy(fitted)
    source = granted(task.source, learner)
    half = dataclasses.replace(source, train=source.train.take(np.arange(0, len(source.train), 2)))
    try:
        twin.fit(half, Run(seed=run.seed + 1, progress=False))
    except Exception:
        return  # half of the data may not be enough; nothing is learnt about independence
    assert _same(answer, _answer(fitted, data, run)), f"{name}: fitting a copy changed the original"


def _saved(name: str, fitted: Any, data: Any, run: Run, answer: Any, trust: tuple[type, ...]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "model"
        try:
            fitted.save(place)
        except NotOffered as reason:
            return [f"not portable: {reason}"]
        loaded = type(fitted).load(place, trust=trust)
    assert identity(loaded) == identity(fitted), f"{name}: loading changed its fields"
    assert _same(answer, _answer(loaded, data, run)), f"{name}: the loaded learner predicts otherwise"
    return []


def _same(a: Any, b: Any, tolerance: float = 0.0) -> bool:
    """Whether two predictions are equal, whatever they are made of."""
    if tolerance:
        left, right = (x.mean if hasattr(x, "mean") and not callable(x.mean) else x.probabilities() if hasattr(x, "probabilities") else x for x in (a, b))
        return bool(np.allclose(np.asarray(left, float), np.asarray(right, float), atol=tolerance))
    if hasattr(a, "to_frame"):
        return bool(content_key(a.to_frame()) == content_key(b.to_frame()))
    return content_key(a) == content_key(b)
