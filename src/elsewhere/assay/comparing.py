"""What was measured: cells with intervals, differences from home, ranks with ties. Plain functions on data frames.

What holds an interval, and how intervals of means and differences are made, is in ``intervals.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from elsewhere.assay.intervals import arms, over_seeds, quantile
from elsewhere.data import Array

UNIT_METRICS = ("accuracy", "balanced_accuracy", "auroc", "worst_group_accuracy")  # in [0, 1]: their lines are straight on probit axes
# what lies in [0, 1], for results that were written before scores carried their range
BOUNDED = (*UNIT_METRICS, "ece", "confidence", "majority_share", "demographic_disparity", "equalised_odds")
MOST_COMPARED = 40  # learners that are compared pair by pair; the others rank behind them


def cells(scores: pd.DataFrame, by: list[str], confidence: float = 0.95, metric: str = "") -> pd.DataFrame:
    """Return value, low, high, n and seeds for each cell ``by``.

    Over k seeds Student's t, over units the interval of one seed: √((t_{k-1} s / √k)² + arm²), on
    each side. Shares have the arms of Wilson's interval, at the effective number of their units.

    Args:
        scores: rows of one metric, with columns ``seed``, ``value``, ``error``, ``n``, and where
            they are known ``freedom``, ``effective``, ``bias``, ``least`` and ``most``.
        by: columns that name a cell; several rows of one seed in a cell (tasks, domains) are
            averaged first.
        confidence: of the two-sided interval.
        metric: its name; where ``least`` and ``most`` are missing, intervals of metrics that are
            known to lie in [0, 1] are cut there.
    """
    level = (1 + confidence) / 2
    seeds = seed_means(scores, by, level)
    table = _over_seeds(seeds, by, level)
    least, most = value_range(scores, metric)
    table["low"] = (table.value - table.down).clip(least, most)
    table["high"] = (table.value + table.up).clip(least, most)
    return table[[*by, "value", "low", "high", "n", "seeds"]]


def cells_of_arms(differences: pd.DataFrame, by: list[str], confidence: float = 0.95) -> pd.DataFrame:
    """Return ``cells`` of differences of two independent scores, home and there.

    Args:
        differences: columns ``seed``, ``n``, ``value`` (the difference), ``sign`` (1 for home minus
            there), the score ``there`` with its ``error`` …, and those of home as ``home value`` ….
        by: columns that name a cell.
        confidence: of the two-sided interval.
    """
    level = (1 + confidence) / 2
    home = differences[["home value", "home error", "home freedom", "home effective"]]
    at_home = arms(home.rename(columns=lambda name: name.removeprefix("home ")), level)
    there = arms(differences.assign(value=differences.there), level)
    down, up = at_home.of_difference(there).turned(float(differences.sign.iloc[0]))
    rows = differences[[*by, "seed", "value", "n"]].assign(down=down, up=up, rows=1)
    table = _over_seeds(_averaged(rows, [*by, "seed"]), by, level)
    table = table.assign(low=table.value - table.down, high=table.value + table.up)
    return table[[*by, "value", "low", "high", "n", "seeds"]]


def value_range(scores: pd.DataFrame, metric: str) -> tuple[float, float]:
    """Return the least and the largest value that a metric can have."""
    if {"least", "most"} <= set(scores) and len(scores) and scores.least.notna().any():
        return float(scores.least.min()), float(scores.most.max())
    return (0.0, 1.0) if metric in BOUNDED else (-np.inf, np.inf)


def seed_means(scores: pd.DataFrame, by: list[str], level: float) -> pd.DataFrame:
    """Return one row a cell and seed: mean value, squared arms of that mean, n.

    Several tasks may judge one domain elsewhere: then on the same examples, whose errors go
    together, and their arms are added; arms of different domains add up as squares do.
    """
    down, up = arms(scores, level)
    rows = scores[[*by, "seed", "value", "n"]].assign(down=down, up=up)
    keys = [*by, "seed"]
    if "task" not in by and "task" in scores and scores.task.nunique() > 1:
        rows["place"] = _shared_place(scores)
        told = {"value": "sum", "down": "mean", "up": "mean", "n": "sum"}
        grouped = rows.groupby([*keys, "place"], observed=True, sort=False)
        counted = grouped.value.count().rename("rows")
        rows = grouped.agg(told).join(counted).reset_index()
        rows[["down", "up"]] = rows[["down", "up"]].mul(rows["rows"], axis=0)
    else:
        rows["rows"] = rows.value.notna().astype(int)
    return _averaged(rows, keys)


def _shared_place(scores: pd.DataFrame) -> pd.Series[Any]:
    """Return what tells sets of judged examples apart: the domain; at home, where each task holds out its own, the task too."""
    domain: pd.Series[Any] = scores.domain.astype(str)
    if "role" not in scores:
        return domain
    return domain + ("\0" + scores.task.astype(str)).where(scores.role == "home", "")


def _averaged(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Return means of independent rows, which hold sums of ``rows`` values each."""
    known = rows.down.notna()
    squares = rows.assign(down=rows.down**2, up=rows.up**2, sure=rows["rows"].where(known, 0))
    grouped = squares.groupby(keys, observed=True, sort=False)
    table = grouped[["value", "down", "up", "n", "rows", "sure"]].sum(min_count=0).reset_index()
    count = table["rows"].to_numpy(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        table["value"] = table.value / count
        # rows of unknown error count as if theirs were the mean of the others
        share = count / table.sure.where(table.sure > 0)
        table["down"], table["up"] = (table[c] * share / count**2 for c in ("down", "up"))
    return table


def _over_seeds(seeds: pd.DataFrame, by: list[str], level: float) -> pd.DataFrame:
    """Return the mean over seeds of each cell, with its arms; NaN where no spread is known."""
    told = {"value": ("value", "mean"), "deviation": ("value", "std"), "down": ("down", "mean")}
    told |= {"up": ("up", "mean"), "n": ("n", "mean"), "seeds": ("value", "count")}
    table = seeds.groupby(by, observed=True, sort=False).agg(**told).reset_index()
    spread = over_seeds(table.deviation.to_numpy(), table.seeds.to_numpy(), level)
    for side in ("down", "up"):
        half = np.hypot(spread, np.sqrt(np.nan_to_num(table[side].to_numpy(float))))
        table[side] = half
    nothing = (table.down == 0) & (table.up == 0)
    table.loc[nothing, ["down", "up"]] = np.nan
    return table


def away(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of domains elsewhere; where a result has none, those of stress domains, which then stand for elsewhere."""
    elsewhere = scores.role == "elsewhere"
    rows: pd.DataFrame = scores[elsewhere if elsewhere.any() else scores.role == "stress"]
    return rows


def gaps(scores: pd.DataFrame, higher_is_better: bool, confidence: float = 0.95) -> pd.DataFrame:
    """Return, for each task, learner and domain, how much worse it is there than at home, with its interval.

    Differences are taken within a seed; the errors over units of the two test sets are independent.
    """
    keys, level = ["task", "learner"], (1 + confidence) / 2
    joined = _gaps_of_seeds(scores, higher_is_better, level)
    by = [*keys, "domain", "role"]
    table = _over_seeds(joined, by, level)
    means = joined.groupby(by, observed=True, sort=False)[["home", "there"]].mean().reset_index()
    table = table.rename(columns={"value": "gap"}).merge(means, on=by)
    least, most = value_range(scores, "")
    table["low"] = (table.gap - table.down).clip(least - most, most - least)
    table["high"] = (table.gap + table.up).clip(least - most, most - least)
    table = table.rename(columns={"there": "value"})
    return table[[*by, "home", "value", "gap", "low", "high", "seeds"]]


def _gaps_of_seeds(scores: pd.DataFrame, higher_is_better: bool, level: float) -> pd.DataFrame:
    """Return one row a task, learner, domain and seed: home, there, how much worse (value), squared arms."""
    keys = ["task", "learner"]
    names = {"value": "home", "down": "home_down", "up": "home_up"}
    home = seed_means(scores[scores.role == "home"], keys, level).rename(columns=names)
    there = seed_means(scores[scores.role != "home"], [*keys, "domain", "role"], level)
    joined = there.merge(home[[*keys, "seed", *names.values()]], on=[*keys, "seed"])
    sign = 1.0 if higher_is_better else -1.0
    longer = joined.home_down.fillna(0) + joined.up.fillna(0)
    shorter = joined.home_up.fillna(0) + joined.down.fillna(0)
    joined = joined.rename(columns={"value": "there"})
    joined["value"] = sign * (joined.home - joined.there)
    joined["down"], joined["up"] = (longer, shorter) if sign > 0 else (shorter, longer)
    return joined


def sure_gaps(scores: pd.DataFrame, higher_is_better: bool, confidence: float = 0.95) -> pd.DataFrame:
    """Return ``gaps`` of one learner with a column ``sure``: whether the difference is beyond doubt among all domains.

    Holm's steps (1979): with k differences still open, those whose interval at 1 - (1 - confidence) / k
    excludes 0 are sure; then k is smaller. If nothing differs, anything is called sure in at most
    1 - confidence of studies. What the seeds of all domains have in common (the luck at home) is one
    quantity, however many domains are compared with it, and is not corrected for their number; what
    is left of a domain's seeds has the spread of all domains together, or its own if that is more.
    """
    table = gaps(scores, higher_is_better, confidence)
    judged = away(table).index.intersection(table.index[table.low.notna()])
    sure = pd.Series(False, table.index)
    while len(left := judged[~sure[judged]]):
        beyond = _beyond(scores, table, higher_is_better, confidence, len(left))
        found = left[beyond[left]]
        if not len(found):
            break
        sure[found] = True
    return table.assign(sure=sure)


def _beyond(scores: pd.DataFrame, table: pd.DataFrame, higher_is_better: bool, confidence: float, open_: int) -> pd.Series[bool]:
    """Return which gaps exclude 0 with a correction for ``open_`` of them."""
    common, level = (1 + confidence) / 2, 1 - (1 - confidence) / 2 / open_
    rows = _gaps_of_seeds(scores, higher_is_better, level)
    keys = ["task", "learner", "domain", "role"]
    by_seed = rows.set_index([*keys, "seed"]).value.unstack("seed")
    places = pd.MultiIndex.from_frame(table[keys])
    shared, own, freedom = _two_way(by_seed.reindex(places).to_numpy(float).T)
    k = table.seeds.to_numpy(float)
    seeds = np.hypot(over_seeds(shared, k, common), np.sqrt(own / k) * quantile(freedom, level))
    arm = rows.groupby(keys, observed=True, sort=False)[["down", "up"]].mean().reindex(places)
    units = np.where(table.gap > 0, np.sqrt(arm.down), np.sqrt(arm.up))
    half = np.hypot(np.nan_to_num(seeds), np.nan_to_num(units))
    return pd.Series((half > 0) & (np.abs(table.gap.to_numpy(float)) > half), table.index)


def _two_way(values: Array) -> tuple[Array, Array, float]:
    """Split the spread over seeds of values [seeds, places] in what all places share and what each has alone.

    Returns:
        The deviation of the seeds' means over places, the variance of each place beside them (that
        of all places together, or its own if that is larger), and the degrees of freedom of the latter.
    """
    seeds, places = values.shape
    if seeds < 2:
        return np.zeros(places), np.zeros(places), float("inf")
    if places < 2 or np.isnan(values).any():
        return np.nanstd(values, axis=0, ddof=1), np.zeros(places), float("inf")
    mean = values.mean(1)
    rest = values - mean[:, None] - values.mean(0) + mean.mean()
    own = np.square(rest).sum(0) / (seeds - 1) * places / (places - 1)
    freedom = (seeds - 1) * (places - 1)
    pooled = float(np.square(rest).sum() / freedom)
    return np.full(places, mean.std(ddof=1)), np.maximum(own, pooled), float(freedom)


def p_values(mean: Array, deviation: Array, seeds: Array, error: Array) -> Array:
    """Return the two-sided p of means over seeds: one minus the confidence at which the interval just touches 0."""
    low, high = np.zeros(len(mean)), np.ones(len(mean))
    for _ in range(50):
        middle = (low + high) / 2
        half = np.nan_to_num(half_widths_at(deviation, seeds, error, middle), nan=np.inf)
        inside = half >= np.abs(mean)  # the interval at this p holds 0
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    nothing = ~(np.nan_to_num(error) > 0) & ~((seeds > 1) & (np.nan_to_num(deviation) > 0))
    return np.where(mean == 0, 1.0, np.where(nothing, np.nan, (low + high) / 2))


def half_widths_at(deviation: Array, seeds: Array, error: Array, p: Array) -> Array:
    """Return half widths √((t_{k-1} s / √k)² + (z e)²), each at its own two-sided p."""
    level = np.asarray(1 - p / 2)
    units = np.nan_to_num(norm.ppf(level) * error, nan=0.0)
    return np.hypot(over_seeds(deviation, seeds, level), units)


def holm(p: Array) -> Array:
    """Return p-values corrected for so many comparisons (Holm 1979); NaN stays.

    Examples:
        >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
        [0.03, 0.06, 0.06]
    """
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known])]
    corrected = np.full(len(p), np.nan)
    running = 0.0
    for rank, at in enumerate(order):
        running = max(running, min(1.0, float(p[at]) * (len(order) - rank)))
        corrected[at] = round(running, 15)
    return corrected


def ranking(scores: pd.DataFrame, higher_is_better: bool, differences: Mapping[tuple[str, str], float] | None = None, confidence: float = 0.95, metric: str = "") -> pd.DataFrame:
    """Rank learners by their mean elsewhere: rank = 1 + how many are better beyond doubt; ties share a rank.

    Two learners tie when the paired interval of their difference (within seed, over the same tasks and domains) holds 0, Holm-corrected over all pairs.

    Args:
        scores: rows of one metric.
        higher_is_better: the metric's direction.
        differences: standard error over units of the difference of two learners, where it is known on the same
            examples; else the two errors are added as if independent, which is wider.
        confidence: of the family of comparisons.
    """
    there = away(scores)
    means = cells(there, ["learner"], confidence, metric).sort_values("value", ascending=not higher_is_better).dropna(subset=["value"])
    names = [str(n) for n in means.learner.head(MOST_COMPARED)]
    per_seed = _common(there[there.learner.isin(names)])
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    d = np.array([_difference(per_seed[a], per_seed[b], (differences or {}).get((a, b))) for a, b in pairs]).reshape(-1, 4)
    corrected = holm(p_values(*d.T)) if len(pairs) else np.array([])
    better = dict.fromkeys(names, 0)
    sign = 1.0 if higher_is_better else -1.0
    for (a, b), p, mean in zip(pairs, corrected, d[:, 0], strict=True):
        if p < 1 - confidence:
            better[b if sign * mean > 0 else a] += 1
    table = means.reset_index(drop=True)
    table.insert(0, "rank", [1 + better.get(str(n), MOST_COMPARED) for n in table.learner])
    return table.sort_values("rank", kind="stable").reset_index(drop=True)


def _common(away: pd.DataFrame) -> dict[str, pd.DataFrame]:
    down, up = arms(away, 0.975)
    place = away.task.astype(str) + "\0" + away.domain.astype(str)
    told = away[["learner", "seed", "value", "domain"]].assign(place=place, down=down, up=up)
    kept = ["value", "down", "up", "domain"]
    return {str(name): rows.dropna(subset=["value"]).set_index(["seed", "place"])[kept] for name, rows in told.groupby("learner", observed=True)}


def _difference(a: pd.DataFrame, b: pd.DataFrame, known: float | None) -> tuple[float, float, int, float]:
    """Return mean, deviation over seeds, seeds and standard error over units of a difference of two learners.

    Where the error is not known on the same examples, it is that whose normal interval has the arm
    on the side of 0 of the two values' intervals, as if the two were independent.
    """
    joined = a.join(b, rsuffix="_b", how="inner")
    if not len(joined):
        return float("nan"), float("nan"), 0, float("nan")
    d = (joined.value - joined.value_b).groupby("seed").mean()
    mean = float(d.mean())
    if known is None:
        sides = ("down", "up_b") if mean > 0 else ("up", "down_b")
        square = sum(_square_of_mean(joined, side) for side in sides)
        known = float(np.sqrt(square)) / float(norm.ppf(0.975))
    return mean, float(d.std()) if len(d) > 1 else float("nan"), len(d), known


def _square_of_mean(rows: pd.DataFrame, arm: str) -> float:
    """Return the squared arm of the mean over places of one seed, mean over seeds; places of one domain go together."""
    by_domain = rows.groupby(["seed", "domain"], observed=True)[arm].sum()
    squares = np.square(by_domain).groupby("seed").sum() / np.square(rows.groupby("seed").size())
    return float(squares.mean())
