"""Groups of people in every assay: domain × group from the kept values per example, and who pays for the move elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from elsewhere.assay import analysis
from elsewhere.assay.intervals import spread_of_mean
from elsewhere.data import Array

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

FEWEST = 30  # people of a group in a domain; a cell of fewer says too little to be read
SURE = ["value", "error", "freedom", "effective"]  # columns that an interval is made of
KEYS = ["task", "learner", "domain", "role", "group"]
_EMPTY = pd.DataFrame(columns=[*KEYS, "value", "low", "high", "n", "seeds"])


def by_group(result: Result, metric: str, confidence: float = 0.95) -> pd.DataFrame:
    """Return value, interval and people of a per-example metric for each learner × domain × group; empty where there are no groups."""
    rows = _kept_rows(result, metric)
    return _EMPTY if not len(rows) else analysis.cells(rows, KEYS, confidence, metric)


def who_pays(result: Result, metric: str, learner: str) -> tuple[pd.DataFrame, str]:
    """Return what each group loses from home to each domain, and a sentence: the group that loses most, with its interval, and whether that is beyond noise."""
    rows = _kept_rows(result, metric)
    sign = 1.0 if not len(rows) or result.higher_is_better(metric) else -1.0
    rows = rows[rows.learner == learner] if len(rows) else rows
    if not len(rows):
        return pd.DataFrame(), ""
    keys = ["task", "seed", "group"]
    home = rows[rows.role == "home"].drop_duplicates(keys)[[*keys, *SURE]]
    home = home.rename(columns={c: f"home {c}" for c in SURE})
    there = rows[rows.role != "home"].merge(home, on=keys)
    if not len(there):
        return pd.DataFrame(), ""
    joined = _differences(there, sign)
    by = ["task", "domain", "group"]
    table = analysis.cells_of_arms(joined, by).sort_values("value", ascending=False, kind="stable")
    return table.reset_index(drop=True), _sentence(joined, table, metric, learner)


def _differences(there: pd.DataFrame, sign: float) -> pd.DataFrame:
    """Return what is lost from home to there in each row, with both scores' columns to make its arms of."""
    return there.assign(value=sign * (there["home value"] - there["value"]), there=there["value"], sign=sign)


def _sentence(joined: pd.DataFrame, table: pd.DataFrame, metric: str, learner: str) -> str:
    """Say which group loses most, and whether that is beyond noise among all pairs of groups in all domains."""
    enough = table[table.n >= FEWEST]
    if not len(enough):
        return ""
    groups = enough.groupby(["task", "domain"], observed=True).group.nunique()
    compared = int((groups * (groups - 1) / 2).sum())
    worst = enough.iloc[0]
    told = f"{worst['value']:.3f} [{worst['low']:.3f}, {worst['high']:.3f}]"
    if not compared:
        return f"{learner} loses {told} in {metric} for {worst['group']} in {worst['domain']}."
    narrow = analysis.cells_of_arms(joined, ["task", "domain", "group"], 1 - 0.05 / compared)
    worst, least, half = _widest(enough, narrow)
    where, apart = worst["domain"], worst["value"] - least["value"]
    told = f"{worst['value']:.3f} [{worst['low']:.3f}, {worst['high']:.3f}] for {worst['group']}"
    both = f"{told}, {least['value']:.3f} for {least['group']}"
    if apart > half:
        return f"In {where} {learner} loses most in {metric} for {worst['group']}, beyond noise: {both}."
    nothing = "No group is shown to lose more than another"
    return f"{nothing}: the largest difference is in {where}, where {learner} loses {both} in {metric}."


def _widest(enough: pd.DataFrame, narrow: pd.DataFrame) -> tuple[Any, Any, float]:
    """Return the groups of one domain that lie farthest apart, by their difference over its half width."""
    keys = ["task", "domain", "group"]
    sure = narrow.set_index(keys)
    found: list[tuple[float, Any, Any, float]] = []
    for _, mine in enough.groupby(["task", "domain"], observed=True, sort=False):
        if len(mine) < 2:
            continue
        most, least = mine.iloc[0], mine.iloc[-1]
        up, down = (sure.loc[tuple(row[k] for k in keys)] for row in (most, least))
        half = float(np.hypot(up["value"] - up["low"], down["high"] - down["value"]))
        found.append(((most["value"] - least["value"]) / half if half > 0 else 0.0, most, least, half))
    _, most, least, half = max(found, key=lambda f: f[0])
    return most, least, half


def _kept_rows(result: Result, metric: str) -> pd.DataFrame:
    return result._once(("group rows", metric), lambda: _rows(result, metric))


def _rows(result: Result, metric: str) -> pd.DataFrame:
    """Return one row a trial × domain × group: value, standard error over units, n, with the trial's names."""
    each = result.examples()
    if metric == "calibration" and metric not in each and {"confidence", "accuracy"} <= set(each):
        each = each.assign(calibration=each.accuracy - each.confidence)
    if "group" not in each or metric not in each:
        return pd.DataFrame()
    each = each.dropna(subset=[metric, "group"])
    roles = result.scores().drop_duplicates(["trial", "domain"])[["trial", "domain", "role"]]
    told: list[dict[str, Any]] = []
    within = analysis.value_range(result.scores().query("metric == @metric"), metric)
    for (trial, domain, group), mine in each.groupby(["trial", "domain", "group"], observed=True, sort=False):
        w = mine["weight"].to_numpy(float) if "weight" in mine else np.ones(len(mine))
        if not w.sum() > 0:
            continue
        v = mine[metric].to_numpy(float)
        unit: Array | None = mine["unit"].to_numpy() if "unit" in mine and mine["unit"].notna().all() else None
        sure = spread_of_mean(v, w, unit, within)
        place = {"trial": trial, "domain": domain, "group": group}
        told.append({**place, "value": float(np.average(v, weights=w)), **sure._asdict(), "n": len(mine)})
    names = result.trials()[["trial", "task", "learner", "seed"]]
    rows = pd.DataFrame(told).merge(names, on="trial")
    rows["domain"] = rows["domain"].astype(str)
    rows["least"], rows["most"] = within
    roles = roles.assign(trial=roles.trial.astype(str), domain=roles.domain.astype(str))
    return rows.merge(roles, on=["trial", "domain"])
