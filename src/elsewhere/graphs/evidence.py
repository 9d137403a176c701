"""Statistics that the bundled studies of graphs expect something of."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from elsewhere.data import Array
from elsewhere.graphs.contribution import NAMES, feature_contribution_ratio

if TYPE_CHECKING:
    from elsewhere.assay.result import Result


def contribution_foretells_gain(result: Result) -> Array:
    """Return, for each seed, the rank correlation over tasks of 100 - FCR with what the student gains over the perceptron on isolated nodes."""
    from scipy.stats import spearmanr

    rows = result.scores()
    rows = rows[rows.metric == "accuracy"]
    index = ["seed", "task"]
    home = rows[rows.role == "home"].pivot_table(index=index, columns="learner_name", values="value", observed=True)[list(NAMES)]
    there = rows[rows.domain == "isolated"].pivot_table(index=index, columns="learner_name", values="value", observed=True)
    told = there[["cold-brew", "mlp"]].diff(axis=1)["mlp"].mul(-1).rename("gain").to_frame()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        told["ratio"] = [feature_contribution_ratio(*v) for v in home.reindex(told.index).to_numpy().tolist()]
    return np.array([float(spearmanr(-mine.ratio, mine.gain)[0]) for _, mine in told.dropna().groupby("seed")])
