"""Statistics that bundled studies expect something of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from elsewhere.data import Array, Examples
from elsewhere.explain.dataset_derivative import DatasetDerivative
from elsewhere.explain.decomposition import TERMS
from elsewhere.explain.ridge_readout import RidgeReadout
from elsewhere.run import Run
from elsewhere.task import Source

if TYPE_CHECKING:
    from elsewhere.assay.result import Result


def largest_error_of_terms(result: Result) -> float:
    """Return how far the estimated terms of worlds with known terms lie from the truth, at most."""
    table = result.explain("shift-decomposition").tables["Terms"]
    errors = []
    for _, row in table.iterrows():
        trial = result.trials().query("task == @row.task").trial.iloc[0]
        about = result.task(trial).domain("elsewhere").about
        truth = np.array([about[f"true {name}"] for name in TERMS])
        errors.append(np.abs(row[list(TERMS)].to_numpy(float) - truth).max())
    return float(max(errors))


def _tasks(result: Result, name: str, **options: Any) -> list[tuple[int, Any]]:
    """Return (seed, task) of a task's finished trials with these options, one a seed."""
    rows = result.trials().query("status == 'done' and task_name == @name").drop_duplicates(["task", "seed"]).sort_values("seed")
    found = [(result.trial(str(t.trial)), t) for t in rows.itertuples()]
    return [(trial.seed, result.task(trial.key)) for trial, _ in found if all(trial.task.options.get(k) == v for k, v in options.items())]


def _regression(ridge: float, train: Examples, run: Run, center: float | None = None, domain: bool = False) -> tuple[RidgeReadout, DatasetDerivative]:
    model = RidgeReadout(ridge=ridge, random=512, center=center).fit(Source(train), run)
    fitted = DatasetDerivative(ridge=ridge).fit(model.represent(train), np.asarray(train.labels), domain=train.column("domain") if domain else None, classes=list(range(10)))
    return model, fitted


def clean_judge_advantage(result: Result) -> Array:
    """Return, for each seed, how much better the derivative finds systematically wrong labels when a few right ones judge: area under the curve, judged minus left out."""
    from sklearn.metrics import roc_auc_score

    found = []
    for seed, task in _tasks(result, "digits/noisy", kind="pair"):
        train, clean = task.source.train, task.source.validation
        model, d = _regression(10.0, train, Run(seed))
        wrong = train.column("wrong")
        judged = d.gradient((model.represent(clean), np.asarray(clean.labels)))
        found.append(roc_auc_score(wrong, judged) - roc_auc_score(wrong, d.gradient()))
    return np.array(found)


def blame_is_removal(result: Result) -> Array:
    """Return, for each seed, the rank correlation over source domains of blame for the error elsewhere and the exact gain of leaving the domain out."""
    from scipy.stats import spearmanr

    found = []
    for seed, task in _tasks(result, "digits/shifted"):
        train = task.source.train.take(task.source.train.column("domain") != "target")
        model, d = _regression(10.0, train, Run(seed), 0.3, domain=True)
        there = task.domains[0].load()
        table = d.blame({"target": (model.represent(there), np.asarray(there.labels))})
        found.append(float(spearmanr(table["blame"], -table["removal"])[0]))
    return np.array(found)


def wrong_domain_found(result: Result) -> Array:
    """Return, for each seed, 1.0 where the domain with wrong labels has the largest blame for the errors on domains left out."""
    found = []
    for seed, task in _tasks(result, "digits/rotated"):
        train = task.source.train
        _, d = _regression(10.0, train, Run(seed), 0.3, domain=True)
        g, place = d.gradient("leave-domain-out"), train.column("domain")
        blame = {str(name): float(g[place == name].sum()) for name in np.unique(place)}
        found.append(float(max(blame, key=blame.__getitem__) == "30°"))
    return np.array(found)
