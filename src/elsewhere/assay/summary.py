"""A result in plain words: which domains fail, by how much, which learner to pick and why, what is missing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from elsewhere.assay.analysis import ENOUGH, away
from elsewhere.assay.holding import MOST, domains
from elsewhere.errors import UserError

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

MOST_ADVISED = 20_000  # trials
LEAST_RHO = 0.1  # rank correlations below it have no sign worth a sentence


def summary(result: Result) -> list[str]:
    """Return one sentence a fact, only where the data support it."""
    try:
        metric = result.headline
    except UserError as error:
        return [f"Nothing can be said yet: {error}.", *_missing(result)]
    there = away(result._of(None))
    if not there.value.notna().any():
        by = f" by {metric}" if len(there) else ""
        return [f"No domain elsewhere was judged{by}: nothing can be said about holding there.", *_missing(result)]
    ranking = result.ranking()
    return [*_pick(ranking, metric), *domains(result, str(ranking.learner.iloc[0]), metric), *_foretells(result, metric), *_advice(result, metric), *_missing(result)]


def _pick(ranking: pd.DataFrame, metric: str) -> list[str]:
    top = ranking.iloc[0]
    value = f"{metric} {top.value:.2f}{_interval(top)} on average elsewhere"
    if len(ranking) == 1:
        return [f"{top.learner} has {value}; there is no other learner to compare it with."]
    tied = [str(n) for n in ranking.learner[(ranking["rank"] == top["rank"]) & (ranking.learner != top.learner)]]
    worse = ranking[ranking["rank"] > top["rank"]]
    if tied:
        named = tied if len(tied) <= MOST else [*tied[:5], f"{len(tied) - 5} others"]
        return [f"No learner is best beyond doubt: {top.learner} has {value}, and {_list(named)} tie{'s' if len(tied) == 1 else ''} with it{_behind(worse)}."]
    return [f"Pick {top.learner}: it has {value}, better than every other beyond doubt{_behind(worse.iloc[:1], 'next: ')}."]


def _behind(worse: pd.DataFrame, word: str = "behind them: ") -> str:
    return "" if not len(worse) else f" ({word}{_list([f'{r.learner} {r.value:.2f}' for r in worse.head(3).itertuples()])})"


def _foretells(result: Result, metric: str) -> list[str]:
    table = result.predictors()
    if not len(table):
        trials = result.trials().query("status == 'done'").groupby("task").size()
        most = int(trials.max()) if len(trials) else 0
        return [f"Whether a measure at home foretells {metric} elsewhere takes at least {ENOUGH} trials of a task; there are {most}."] if most < ENOUGH else []
    top = table.iloc[0]
    if top.pairs > 4 and not pd.isna(top.low):
        told = f"rank correlation {top.rho:.2f} [{top.low:.2f}, {top.high:.2f}], median over {int(top.pairs)} pairs"
    elif top.pairs > 1:
        told = f"rank correlation {top.least:.2f} to {top.most:.2f} over {int(top.pairs)} pairs"
    else:
        told = f"rank correlation {top.rho:.2f} [{top.low:.2f}, {top.high:.2f}] over its trials"
    low = top.low if not pd.isna(top.low) else top.least
    if top.rho > 0.5 and low > 0:
        return [f"Of the measures at home, {top['home measure']} foretells {metric} elsewhere best: {told}."]
    return [f"No measure at home foretells {metric} elsewhere well; the best is {top['home measure']}: {told}."]


def _advice(result: Result, metric: str) -> list[str]:
    """Say what helps and how to choose, only where the numbers of this result say it beyond doubt (spec 01, 2.6.8)."""
    if len(result.trials()) > MOST_ADVISED:
        return []
    parts = (_little_said, _simpson, _helping, _choosing)
    said = [line for part in parts for line in _told(partial(part, result, metric))]
    return [*said, *_told(lambda: _calibrated(result))]


def _told(make: Callable[[], list[str]]) -> list[str]:
    try:
        return make()
    except UserError:
        return []


def _little_said(result: Result, metric: str) -> list[str]:
    """Name the pairs where better at home does not mean better there."""
    pairs = result.pairs()
    poor = pairs[(pairs.rho_low < 0.3) & (pairs.rho < 0.3) & (pairs.trials >= ENOUGH)].sort_values("rho")
    if not len(poor) or len(pairs) < 2:
        return []
    row = poor.iloc[0]
    more = f" (and on {len(poor) - 1} more of {len(pairs)} pairs)" if len(poor) > 1 else ""
    return [f"On {row.domain} ({row.task}), {metric} at home says little: rank correlation {row.rho:.2f} [{row.rho_low:.2f}, {row.rho_high:.2f}]{more}."]


def _simpson(result: Result, metric: str) -> list[str]:
    """Say where trials pooled over pairs of domains say the opposite of what each pair says."""
    table = result.correlations()
    row = table[(table.measure == metric) & (table["with"] == metric)]
    if not len(row) or int(row.pairs.iloc[0]) < 2:
        return []
    within, pooled = float(row.rho.iloc[0]), float(row.pooled.iloc[0])
    if not within * pooled < 0 or min(abs(within), abs(pooled)) < LEAST_RHO:
        return []
    better, worse = ("better", "worse") if within > 0 else ("worse", "better")
    return [
        f"Within pairs of domains, better {metric} at home goes with {better} {metric} elsewhere (rank correlation "
        f"{within:.2f}, median over {int(row.pairs.iloc[0])} pairs); pooled over all trials it seems to go with "
        f"{worse} ({pooled:.2f}), because the pairs differ (Simpson's paradox): trust the first."
    ]


def _helping(result: Result, metric: str) -> list[str]:
    said = []
    for choice in result.choices()[:8]:
        table = result.helps(choice)
        sure = table[(table["gain low"] > 0) | (table["gain high"] < 0)]
        if not len(sure) or int(table.pairs.max()) < 2:
            continue
        row = sure.iloc[int(sure.gain.abs().to_numpy().argmax())]
        robust, low, high = "", *sorted((abs(row["gain low"]), abs(row["gain high"])))
        if row["at fixed home low"] > 0 or row["at fixed home high"] < 0:
            robust = f", {'more' if row['at fixed home'] > 0 else 'less'} than its {metric} at home foretells ({row['at fixed home']:+.2f})"
        said.append(f"{choice} {row['to']} instead of {row['from']} {'gains' if row.gain > 0 else 'loses'} {abs(row.gain):.2f} [{low:.2f}, {high:.2f}] of {metric} elsewhere{robust}.")
    return said[:3]


def _choosing(result: Result, metric: str) -> list[str]:
    if result.trials().groupby("task").size().max() < ENOUGH:
        return []
    table = result.regrets().set_index("by")
    name = f"{metric} at home"
    if name not in table.index or "at random" not in table.index or table.pairs.max() < 2:
        return []
    row, chance = table.loc[name], table.loc["at random"]
    if pd.isna(row.low) or pd.isna(chance.low):
        return []
    if row.high < chance.low:
        return [f"Choosing by {name} costs {row.regret:.2f} [{row.low:.2f}, {row.high:.2f}] of {metric} elsewhere against the best trial there; choosing at random would cost {chance.regret:.2f}."]
    if row.low > 0.02:
        return [f"Choosing by {name} is not shown to be better than choosing at random ({chance.regret:.2f}): it costs {row.regret:.2f} [{row.low:.2f}, {row.high:.2f}] of {metric} elsewhere."]
    return []


def _calibrated(result: Result) -> list[str]:
    table = result.correlations()
    row = table[(table.measure == "ece") & (table["with"] == "ece")]
    if not len(row) or int(row.pairs.iloc[0]) < 4 or not row.high.iloc[0] < 0.5:
        return []
    one = row.iloc[0]
    return [f"Calibration at home does not stay elsewhere: rank correlation {one.rho:.2f} [{one.low:.2f}, {one.high:.2f}] over {int(one.pairs)} pairs."]


def _missing(result: Result) -> list[str]:
    said = []
    trials = result.trials()
    failed = trials[trials.status == "failed"]
    for reason, rows in failed.groupby("reason", sort=False):
        names = _list(list(dict.fromkeys(rows.learner)))
        said.append(f"{len(rows)} trial{'s' * (len(rows) > 1)} of {names} failed: {reason}.")
    if result.missing:
        said.append(f"{result.missing} of {len(result.about['planned'])} planned trials have not run yet.")
    if any(name in trials and trials[name].nunique() > 1 for name in ("versions", "threads", "device")):
        said.append("Trials ran under different library versions, thread counts or devices: small differences may come from there.")
    return said


def _interval(row: pd.Series[float]) -> str:
    return "" if pd.isna(row.low) else f" [{row.low:.2f}, {row.high:.2f}]"


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" and {names[-1]}" if names else ""
