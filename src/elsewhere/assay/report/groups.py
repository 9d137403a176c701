"""Groups of people in a report: domain × group, and who pays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from elsewhere.assay.people import FEWEST, who_pays
from elsewhere.assay.report.parts import MOST_ROWS, Interval, Section, quiet, section

if TYPE_CHECKING:
    from elsewhere.assay.result import Result


@quiet
def groups(result: Result) -> list[Section]:
    main = "accuracy" if "accuracy" in set(result.scores().metric) else "squared_error"
    if len(result.trials()) > 500 or not len(result.by_group(main)):
        return []
    titles = {"accuracy": "Accuracy", "squared_error": "Squared error", "acceptance": "Acceptance (share predicted the second class)", "calibration": "Calibration (accuracy minus confidence)"}
    tables = [_group_table(result.by_group(metric), f"{title} of each group in each domain", metric == "acceptance") for metric, title in titles.items() if len(result.by_group(metric))]
    learner = next((str(n) for n in result.ranking().learner if "prior" not in str(n)), "")
    _, told = who_pays(result, main, learner)
    text = f"{told} " if told else ""
    return [section("Groups", f"{text}Cells of fewer than {FEWEST} people are in brackets: they say too little.", tables)]


def _group_table(cells: pd.DataFrame, caption: str, signed: bool) -> dict[str, Any]:
    """Return learner × domain × group with intervals, and the largest difference (signed where acceptance of two groups is compared: the DDP)."""
    names = sorted(map(str, cells["group"].unique()))
    several = cells["task"].nunique() > 1
    rows = []
    for key, mine in cells.groupby([*(["task"] if several else []), "learner", "domain"], observed=True, sort=False):
        told = {str(c["group"]): c for c in mine.to_dict("records")}
        row = [{"text": str(v), "sort": str(v), "number": False} for v in (key if isinstance(key, tuple) else (key,))]
        values = []
        for name in names:
            if name not in told or np.isnan(told[name]["value"]):
                row.append({"text": "–", "sort": "", "number": True})
                continue
            c = told[name]
            shown = Interval(c["value"], c["low"], c["high"], 3).text
            row.append({"text": f"({shown})" if c["n"] < FEWEST else shown, "sort": repr(float(c["value"])), "number": True})
            values.append(float(c["value"]))
        apart = values[1] - values[0] if signed and len(names) == 2 and len(values) == 2 else max(values) - min(values) if len(values) > 1 else float("nan")
        row.append({"text": "–" if np.isnan(apart) else f"{apart:+.3f}" if signed and len(names) == 2 else f"{apart:.3f}", "sort": "" if np.isnan(apart) else repr(apart), "number": True})
        rows.append(row)
    last = "DDP" if signed and len(names) == 2 else "largest difference"
    note = f"The first {MOST_ROWS} of {len(rows):,} rows; all are in the Parquet files of the result." if len(rows) > MOST_ROWS else ""
    return {"caption": caption, "columns": [*(["task"] if several else []), "learner", "domain", *names, last], "rows": rows[:MOST_ROWS], "note": note}
