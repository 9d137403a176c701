"""Trials of a pair of domains on other draws of their test units: resampled, and cut into two halves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from elsewhere.assay import analysis
from elsewhere.data import Array
from elsewhere.run import Run

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

PAIRED_UP_TO = 200  # trials; above, closed forms are used instead of reading every example
MOST_VALUES = 5_000_000  # values per example that are resampled
RESAMPLES = 500


class _Values(NamedTuple):
    """The values [trials, n] of trials that were judged on the same examples, with their units and weights [n]."""

    values: Array
    unit: Array
    weight: Array


def resampled(result: Result, points: pd.DataFrame, domain: str, metric: str) -> analysis.Resampled | None:
    """Return the trials of a pair on resampled test units, at home and in a domain; None where they are unknown or many.

    Trials of one seed share a test set, so they are resampled together.
    """
    if len(points) > PAIRED_UP_TO or points.judged.sum() > MOST_VALUES:
        return None
    each = result.examples_of(points.trial)
    at_home = _homes(result)
    sides = [np.empty((RESAMPLES, len(points))) for _ in range(2)]
    for _, at in points.groupby("seed", observed=True).indices.items():
        trials = [str(t) for t in points.trial.iloc[at]]
        for side, places in zip(sides, ([at_home.get(t, []) for t in trials], None), strict=True):
            told = _values(each, trials, places or [[domain]] * len(trials), metric)
            if told is None or np.isnan(told.values).any():
                return None
            rng = Run().rng("lines")
            side[:, at] = analysis.resampled_means(told.values, told.unit, RESAMPLES, rng, told.weight)
    return sides[0], sides[1]


def halves(result: Result, trials: Sequence[str], domain: str, metric: str) -> tuple[pd.Series[float], pd.Series[float]] | None:
    """Return the value of each trial on the two halves of a domain's units; None where they are unknown or many."""
    if result.trials().trial.nunique() > PAIRED_UP_TO:
        return None
    told = _values(result.examples_of(trials), trials, [[domain]] * len(trials), metric)
    if told is None or np.isnan(told.values).any():
        return None
    names, at = np.unique(told.unit, return_inverse=True)
    first = Run().rng("halves").permutation(len(names))[at] * 2 < len(names)
    if not (told.weight[first].sum() > 0 and told.weight[~first].sum() > 0):
        return None
    one, other = (_means(told, rows, trials) for rows in (first, ~first))
    return one, other


def _means(told: _Values, rows: Array, trials: Sequence[str]) -> pd.Series[float]:
    means = np.average(told.values[:, rows], axis=1, weights=told.weight[rows])
    return pd.Series(means, list(trials))


def _homes(result: Result) -> dict[str, list[str]]:
    homes = result.scores().query("role == 'home'").drop_duplicates(["trial", "domain"])
    told = homes[["trial", "domain"]].astype(str).groupby("trial").domain.agg(list).to_dict()
    return {str(k): list(v) for k, v in told.items()}


def _values(
    each: dict[tuple[str, str], pd.DataFrame],
    trials: Sequence[str],
    places: Sequence[Sequence[str]],
    metric: str,
) -> _Values | None:
    """Return values of trials in their domains; None unless all were judged on as many examples of each."""
    found: list[list[Any]] = [[each.get((str(t), d)) for d in of] for t, of in zip(trials, places, strict=True)]
    if not found or not found[0] or any(p is None or metric not in p for row in found for p in row):
        return None
    if len({tuple(len(p) for p in row) for row in found}) > 1:
        return None
    values = np.stack([np.concatenate([p[metric].to_numpy(float) for p in row]) for row in found])
    first = pd.concat(found[0])
    unit = _column(first, "unit", first.domain.astype(str) + "\0" + first.row.astype(str))
    weight = _column(first, "weight", pd.Series(1.0, first.index))
    return _Values(values, unit, np.asarray(weight, float))


def _column(frame: pd.DataFrame, name: str, default: pd.Series[Any]) -> Array:
    known = name in frame and frame[name].notna().all()
    return np.asarray((frame[name] if known else default).to_numpy())
