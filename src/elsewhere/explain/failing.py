"""Where a learner fails, and the trial whose source that place was held out from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from elsewhere.assay.analysis import away
from elsewhere.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

ROLES = {"elsewhere": 0, "stress": 1, "home": 2}


@dataclass(frozen=True)
class Place:
    """A domain as one task judges it.

    Args:
        task: label of the task.
        domain: its name there.
        label: the name, with the task where several tasks judge a domain of this name.
        trial: the learner's first trial (by seed) of that task.
        fails: whether the learner is worse there than at home beyond doubt; None: not known.
    """

    task: str
    domain: str
    label: str
    trial: str
    fails: bool | None


def places(result: Result, learner: str, asked: str | None, most: int) -> tuple[list[Place], str]:
    """Return the domains to explain, worst first, and a sentence on how they were chosen ("").

    Those where the learner is worse than at home beyond doubt, at most ``most``; if there is none,
    the one with the largest gap. A domain that is asked for is taken from the task that judges it
    elsewhere, the one where it is worst if there are several.

    Raises:
        UserError: no task of this learner judges the domain that is asked for.
    """
    rows = _judged(result, learner)
    if asked is not None:
        if not len(mine := rows[rows.domain == asked]):
            raise UserError(f"no domain {asked!r}{did_you_mean(asked, sorted(set(rows.domain)))}")
        return [_place(result, learner, rows, mine.iloc[0])], ""
    there = away(rows) if len(away(rows)) else rows
    fails = there[there.fails.eq(True)]
    chosen = [_place(result, learner, rows, row) for _, row in fails.head(most).iterrows()]
    if chosen:
        few = f"Of {len(fails)} domains that do not hold, the {most} worst are explained."
        return chosen, few if len(fails) > most else ""
    worst = _place(result, learner, rows, there.iloc[0])
    return [worst], f"No domain is worse than home beyond doubt; {worst.label} is the worst."


def _judged(result: Result, learner: str) -> pd.DataFrame:
    """Return task, domain, role, gap and fails of what was judged: elsewhere first, then by gap."""
    cells, gaps = result.cells(), result.gaps()
    names = ["task", "domain", "role"]
    cells, gaps = (t[t.learner == learner].astype(dict.fromkeys(names, str)) for t in (cells, gaps))
    rows = cells.dropna(subset=["value"])
    rows = rows.merge(gaps[[*names, "gap", "low"]], on=names, how="left", suffixes=("_", ""))
    sign = -1.0 if result.higher_is_better(result.headline) else 1.0
    rows["fails"] = [None if pd.isna(low) else low > 0 for low in rows["low"]]
    rows["level"] = sign * rows["value"]  # where nothing is home there is no gap to sort by
    rows["rank"] = rows.role.map(ROLES)
    keys = ["rank", "gap", "level"]
    return rows.sort_values(keys, ascending=[True, False, False], kind="stable")


def _place(result: Result, learner: str, rows: pd.DataFrame, row: Any) -> Place:
    trials = result.trials().query("status == 'done'").sort_values("seed")
    mine = trials[(trials.task.astype(str) == row.task) & (trials.learner == learner)]
    several = rows[(rows.domain == row.domain) & (rows.role == row.role)].task.nunique() > 1
    label = f"{row.domain} ({row.task})" if several else str(row.domain)
    return Place(str(row.task), str(row.domain), label, str(mine.trial.iloc[0]), row.fails)
