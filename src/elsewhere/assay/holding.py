"""In which domains a learner holds: differences from home, and what a constant would get there, in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from elsewhere.assay.analysis import away, sure_gaps
from elsewhere.assay.constants import CONSTANT

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

MOST = 6  # domains written about one by one


def domains(result: Result, learner: str, metric: str) -> list[str]:
    """Return a sentence for each domain elsewhere, or one for all of many; what is said holds for all at once.

    That a difference is beyond doubt is corrected for the number of domains looked at (Holm 1979).
    """
    rows = result._of(metric)
    gaps = sure_gaps(rows[rows.learner == learner], result.higher_is_better(metric))
    mine = away(gaps).sort_values("gap", ascending=False)
    said = _at_home(result, learner, metric)
    if not len(mine):
        return said
    several = set(mine.domain[mine.domain.duplicated()])
    if len(mine) <= MOST:
        return [*said, *(_domain(result, row, metric, several, len(mine)) for _, row in mine.iterrows())]
    known = int(mine.low.notna().sum())
    fails = int((mine.sure & (mine.gap > 0)).sum())
    kind = "stress domains" if (mine.role == "stress").all() else "domains elsewhere"
    worst = _domain(result, mine.iloc[0], metric, several, len(mine))
    told = f"{learner} is worse than at home beyond doubt in {fails} of {known} {kind}."
    return [*said, f"{told} {'Worst' if fails else 'Largest difference'}: {worst}"]


def _domain(result: Result, row: Any, metric: str, several: set[str], looked_at: int) -> str:
    where = f"{row.domain}" + (f" ({row.task})" if row.domain in several else "")
    change = f"{metric} {row.home:.2f} at home, {row.value:.2f} there"
    bar = _against_constant(result, row, metric)
    if pd.isna(row.low):
        unknown = "with one seed and no error over units nothing more can be said"
        return f"In {where}, {change}; {unknown}{bar}."
    low, high = sorted((abs(row.low), abs(row.high)))
    size = f"{abs(row.gap):.2f} [{low:.2f}, {high:.2f}]"
    if row.sure and row.gap > 0:
        return f"It does not hold in {where}: {change}, worse by {size}{bar}."
    if row.sure:
        return f"It is better in {where} than at home: {change}, by {size}{bar}."
    among = f" among {looked_at} domains" if row.low > 0 or row.high < 0 else ""
    ends = f"interval [{two(-row.high):.2f}, {two(-row.low):.2f}]"
    told = f"{change} (difference {two(-row.gap):+.2f}, {ends})"
    return f"In {where} no difference from home is beyond doubt{among}: {told}{bar}."


def _at_home(result: Result, learner: str, metric: str) -> list[str]:
    """Say where a learner is not even shown to be better than a constant at home."""
    cells = result.cells(metric)
    if _is_constant(result, learner):
        return []
    home = cells[(cells.learner == learner) & (cells.role == "home")]
    said = {_against_constant(result, row, metric) for _, row in home.iterrows()}
    if not len(home) or "" in said:
        return []
    row = home.iloc[0]
    return [f"At home {learner} has {metric} {row.value:.2f}{_against_constant(result, row, metric)}."]


def _against_constant(result: Result, row: Any, metric: str) -> str:
    """Say where a learner is not shown to be better than always guessing the same."""
    name, guess = _constant_of(result, metric)
    if _is_constant(result, row.learner):
        return ""
    here = {"domain": row.domain, "task": row.task}
    bar = _at(result.cells(name), here).value.mean() if name else float("nan")
    mine = _at(result.cells(metric), {**here, "learner": row.learner}).iloc[0]
    if pd.isna(bar) or pd.isna(mine.value):
        return ""
    sign = 1.0 if result.higher_is_better(metric) else -1.0
    if sign * mine.value < sign * bar:
        best = mine.high if sign > 0 else -mine.low
        sure = ", which is better beyond doubt" if best < sign * bar else ""
        return f"; {guess} would get {bar:.2f}{sure}"
    worst = mine.low if sign > 0 else -mine.high
    if pd.isna(worst) or worst > sign * bar:
        return ""
    return f"; it is not shown to be better than {guess} ({bar:.2f})"


def _is_constant(result: Result, learner: str) -> bool:
    trials = result.trials()
    return bool((trials.learner_name[trials.learner == learner] == "prior").all())


def _constant_of(result: Result, metric: str) -> tuple[str, str]:
    """Return the metric that holds what a constant gets, and the constant in words; the best one there is for accuracy."""
    known = set(result.scores().metric)
    if metric == "accuracy" and "majority_share" in known:
        return "majority_share", "always guessing the most frequent class there"
    if metric != result.headline or CONSTANT not in known:
        return "", ""
    labels = "mean label" if metric in ("squared_error", "mae", "rmse", "r2") else "class shares"
    return CONSTANT, f"always guessing the {labels} of the source"


def _at(cells: pd.DataFrame, where: dict[str, Any]) -> pd.DataFrame:
    for key, value in where.items():
        cells = cells[cells[key] == value]
    return cells


def two(value: float) -> float:
    """Round to two places, never to minus zero."""
    return round(float(value), 2) + 0.0
