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


def largest_share_kept(result: Result) -> Array:
    """Return, for each seed, the largest share of its own random-split R² that any learner keeps on extrapolation (spec 14, 6.4)."""
    wide = _factor_scores(result, "r2").query("domain == 'all'").pivot_table(index=["seed", "learner"], columns="split", values="value", observed=True)
    return (wide["extrapolation"] / wide["random"]).groupby("seed").max().to_numpy()


def other_factors_keep(result: Result) -> Array:
    """Return, for each seed, mean over held-out factors i and other factors j of R²_j on images where i alone is new, over R²_j on the random split (spec 14, 6.3)."""
    told = _modular(result)
    others = told[told.factor != told.new]
    kept = others.groupby(["seed", "new"]).agg(there=("value", "mean"), random=("random", "mean"))
    return (kept.there / kept.random).groupby("seed").mean().to_numpy()


def new_factor_loses(result: Result) -> Array:
    """Return, for each seed, mean over held-out factors i of how much R²_i falls from the random split to images where i alone is new."""
    told = _modular(result)
    mine = told[told.factor == told.new]
    return (mine.random - mine.value).groupby(mine.seed).mean().to_numpy()


def _modular(result: Result) -> pd.DataFrame:
    """Return R² of each factor on images where one alone is extrapolated, with its R² on the random split, by seed."""
    scores = result.scores()
    rows = scores[scores.metric.str.startswith("r2/") & (scores.metric != "r2/ordered") & (scores.learner == "cnn")]
    rows = rows.assign(factor=rows.metric.str.removeprefix("r2/").astype(str), split=rows.split.astype(str))
    random = rows[(rows.split == "random") & (rows.domain == "all")][["seed", "factor", "value"]].rename(columns={"value": "random"})
    there = rows[(rows.split == "extrapolation") & rows.new.notna()][["seed", "new", "factor", "value"]]
    return there.merge(random, on=["seed", "factor"])


def _factor_scores(result: Result, metric: str) -> pd.DataFrame:
    scores = result.scores()
    rows: pd.DataFrame = scores[scores.metric == metric].assign(split=scores.split.astype(str))
    return rows
