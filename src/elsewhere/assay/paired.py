"""The error over units of a difference of two learners that were judged on the very same examples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from elsewhere.assay.intervals import Spread, spread
from elsewhere.data import Array

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

MOST_PAIRED = 500  # rows of a selection; above, the two errors are joined as if independent


def paired_error(result: Result, metric: str, this: pd.DataFrame, that: pd.DataFrame) -> float | None:
    """Return the standard error of ``paired_spread``, or None where there is none."""
    found = paired_spread(result, metric, this, that)
    return None if found is None else found.error


def paired_spread(result: Result, metric: str, this: pd.DataFrame, that: pd.DataFrame) -> Spread | None:
    """Return how sure the mean difference of two selections of scores is, from the same examples.

    Within a seed the influences of an example on the mean over all tasks and domains are summed
    before they are squared: a domain that several tasks judge counts its examples once. Over seeds
    the mean square is taken, since seeds share their test sets.

    Args:
        result: whose values per example are read.
        metric: one that has them.
        this, that: rows of ``scores()`` with the same tasks, seeds and domains.

    Returns:
        None where the two were not judged on the same examples, or there are too many rows.
    """
    joined = this.merge(that, on=["task", "seed", "domain"], suffixes=("", "_other"))
    whole = len(joined) == len(this) == len(that) and 0 < len(joined) <= MOST_PAIRED
    if not whole or (joined.trial.astype(str) == joined.trial_other.astype(str)).any():
        return None
    each = result.examples_of([*joined.trial, *joined.trial_other])
    by_seed: dict[Any, list[pd.DataFrame]] = {}
    for row in joined.itertuples():
        two = [each.get((str(t), str(row.domain))) for t in (row.trial, row.trial_other)]
        differences = _differences(two[0], two[1], metric)
        if differences is None:
            return None
        by_seed.setdefault(row.seed, []).append(differences)
    sure = [_of_seed(parts) for parts in by_seed.values()]
    error = float(np.sqrt(np.mean([s.error**2 for s in sure])))
    return Spread(error, float(np.mean([s.freedom for s in sure])))


def _differences(one: pd.DataFrame | None, other: pd.DataFrame | None, metric: str) -> pd.DataFrame | None:
    """Return the difference of each example, its weight and the unit that it belongs to."""
    if one is None or other is None or len(one) != len(other) or metric not in one:
        return None
    a, b = one[metric].to_numpy(float), other[metric].to_numpy(float)
    if "id" in one and (one["id"].to_numpy() != other["id"].to_numpy()).any():
        return None
    judged = ~np.isnan(a - b)
    weighted = "weight" in one and one.weight.notna().all()
    weight = one.weight.to_numpy(float) if weighted else np.ones(len(one))
    told = {"difference": a - b, "weight": weight, "unit": _units(one), "shares": _shares(a, b)}
    return pd.DataFrame(told)[judged] if judged.any() else None


def _units(each: pd.DataFrame) -> Array:
    """Return what goes together: units where they are known, else each example of a domain for itself."""
    if "unit" in each and each["unit"].notna().all():
        return each["unit"].to_numpy(object)
    name = "id" if "id" in each and each["id"].notna().all() else "row"
    return (each.domain.astype(str) + "\0" + each[name].astype(str)).to_numpy(object)


def _shares(a: Array, b: Array) -> Array:
    return np.isin(a, (0.0, 1.0)) & np.isin(b, (0.0, 1.0))


def _of_seed(parts: list[pd.DataFrame]) -> Spread:
    """Return how sure the mean over parts of their mean differences is."""
    influence = [_influence(part, len(parts)) for part in parts]
    every = pd.concat(parts, ignore_index=True)
    total = np.concatenate(influence) * len(every)
    found = spread(total, every.unit.to_numpy())
    return _with_rare_answers(found, every) if every.shares.all() else found


def _influence(part: pd.DataFrame, parts: int) -> Array:
    d, w = part.difference.to_numpy(), part.weight.to_numpy()
    if not w.sum() > 0:
        return np.zeros(len(d))
    return (d - np.average(d, weights=w)) * w / w.sum() / parts


def _with_rare_answers(found: Spread, every: pd.DataFrame) -> Spread:
    """Widen the error of a difference of shares as one more answer of each kind would.

    Two learners that agree on every example may still differ on the next. Half an answer is added
    to each of the four kinds (both, one, the other or neither right; Agresti & Min 2005).
    """
    d, n = every.difference.to_numpy(), len(every)
    plain = float(d.var())
    apart = (np.square(d).sum() + 1) / (n + 2)
    wider = (apart - (d.sum() / (n + 2)) ** 2) * n / (n + 2)
    if found.error > 0 and plain > 0:
        return found._replace(error=found.error * float(np.sqrt(max(1.0, wider / plain))))
    return found._replace(error=float(np.sqrt(wider / every.unit.nunique())))
