"""Statistics that the bundled studies of digits expect something of: one number a seed, each within pairs of source and domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from elsewhere.assay.analysis import away
from elsewhere.data import Array

if TYPE_CHECKING:
    from elsewhere.assay.result import Result


def accuracy_foretells(result: Result) -> Array:
    """Return, for each seed, the median over pairs of the rank correlation of accuracy at home and there."""
    return _over_pairs(result, "accuracy", "accuracy").groupby("seed").rho.median().to_numpy()


def accuracy_foretells_least(result: Result) -> Array:
    """Return, for each seed, the least rank correlation of accuracy at home and there over pairs."""
    return _over_pairs(result, "accuracy", "accuracy").groupby("seed").rho.min().to_numpy()


def accuracy_foretells_better_than_calibration(result: Result) -> Array:
    """Return, for each seed, the median over pairs of |ρ(accuracy at home, accuracy there)| minus that of the calibration error at home."""
    medians = [_over_pairs(result, name, "accuracy").assign(rho=lambda f: f.rho.abs()).groupby("seed").rho.median().to_numpy() for name in ("accuracy", "ece")]
    return np.asarray(medians[0] - medians[1])


def calibration_stays(result: Result) -> Array:
    """Return, for each seed, the median over pairs of the rank correlation of the calibration error at home and there."""
    return _over_pairs(result, "ece", "ece").groupby("seed").rho.median().to_numpy()


def pairs_that_fall(result: Result) -> Array:
    """Return, for each seed, in how many pairs the learners' mean accuracy is lower than at home."""
    rows = _rows(result)
    home = rows[(rows.metric == "accuracy") & (rows.role == "home")].groupby(["seed", "task"], observed=True).value.mean().rename("home")
    there = away(rows[rows.metric == "accuracy"]).groupby(["seed", "task", "domain"], observed=True).value.mean()
    return (there.reset_index().merge(home.reset_index(), on=["seed", "task"]).assign(falls=lambda f: f.value < f.home)).groupby("seed").falls.sum().to_numpy(float)


def _rows(result: Result) -> pd.DataFrame:
    rows = result.scores()
    return rows[rows.learner_name.astype(str) != "prior"]  # a learner that looks at nothing would join every line at its foot


def _over_pairs(result: Result, at_home: str, there: str) -> pd.DataFrame:
    """Return Spearman's ρ over learners for every seed and pair."""
    rows = _rows(result)
    home = rows[(rows.metric == at_home) & (rows.role == "home")][["task", "seed", "learner", "value"]].rename(columns={"value": "home"})
    joined = away(rows[rows.metric == there])[["task", "seed", "learner", "domain", "value"]].merge(home, on=["task", "seed", "learner"])
    found = joined.groupby(["seed", "task", "domain"], observed=True)[["home", "value"]].apply(lambda f: f.home.corr(f.value, method="spearman")).rename("rho")
    return found.reset_index().dropna(subset=["rho"])
