"""Groups of people in every assay: domain × group from the kept values per example, and who pays for the move elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from elsewhere.assay import analysis
from elsewhere.data import Array
from elsewhere.task import standard_error

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

FEWEST = 30  # people of a group in a domain; a cell of fewer says too little to be read
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
    home = rows[rows.role == "home"].groupby(keys, observed=True)[["value", "error"]].mean().rename(columns={"value": "home", "error": "home error"})
    there = rows[rows.role != "home"].merge(home, on=keys)
    if not len(there):
        return pd.DataFrame(), ""
    lost = there.assign(value=sign * (there.home - there.value), error=np.hypot(there.error, there["home error"]))
    table = analysis.cells(lost, ["task", "domain", "group"], metric="drop").sort_values("value", ascending=False, kind="stable").reset_index(drop=True)
    return table, _sentence(table, metric, learner)


def _sentence(table: pd.DataFrame, metric: str, learner: str) -> str:
    enough = table[table.n >= FEWEST]
    if not len(enough):
        return ""
    worst = enough.iloc[0]
    others = enough[(enough["domain"] == worst["domain"]) & (enough["task"] == worst["task"]) & (enough["group"] != worst["group"])]
    told = f"{learner} loses most in {metric} for {worst['group']} in {worst['domain']}: {worst['value']:.3f} [{worst['low']:.3f}, {worst['high']:.3f}]"
    if not len(others):
        return told + "."
    least = others.iloc[-1]
    apart, half = worst["value"] - least["value"], np.hypot(worst["high"] - worst["value"], least["high"] - least["value"])
    verdict = "the gap between them is beyond noise" if apart > half else "the gap between them is within noise"
    return f"{told}; {least['group']} loses {least['value']:.3f} there, and {verdict} ({apart:.3f} ± {half:.3f})."


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
    for (trial, domain, group), mine in each.groupby(["trial", "domain", "group"], observed=True, sort=False):
        w = mine["weight"].to_numpy(float) if "weight" in mine else np.ones(len(mine))
        if not w.sum() > 0:
            continue
        w, v = w / w.mean(), mine[metric].to_numpy(float)
        mean = float((w * v).mean())
        unit: Array | None = mine["unit"].to_numpy() if "unit" in mine and mine["unit"].notna().all() else None
        told.append({"trial": trial, "domain": domain, "group": group, "value": mean, "error": standard_error(w * (v - mean), unit), "n": len(mine)})
    names = result.trials()[["trial", "task", "learner", "seed"]]
    rows = pd.DataFrame(told).merge(names, on="trial")
    rows["domain"] = rows["domain"].astype(str)
    roles = roles.assign(trial=roles.trial.astype(str), domain=roles.domain.astype(str))
    return rows.merge(roles, on=["trial", "domain"])
