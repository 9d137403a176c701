"""What sections of a report are made of: tables and figures as the page wants them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from elsewhere.assay.layout import interval_text
from elsewhere.errors import UserError
from elsewhere.explainer import Image

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

MOST_ROWS = 200
Section = dict[str, Any]


def section(title: str, text: str = "", tables: list[Any] | None = None, plots: list[Any] | None = None, limits: str = "") -> Section:
    return {"title": title, "text": text, "tables": tables or [], "figures": plots or [], "pictures": [], "limits": limits}


def table_of(frame: pd.DataFrame, caption: str, digits: int = 3) -> dict[str, Any]:
    """Return a table as the page wants it; long ones are cut, and say so."""
    frame = _readable(frame, digits)
    note = f"The first {MOST_ROWS} of {len(frame):,} rows; all are in the Parquet files of the result." if len(frame) > MOST_ROWS else ""
    shown = frame.head(MOST_ROWS)
    rows = [[_cell(v, digits) for v in row] for row in shown.itertuples(index=False)]
    return {"caption": caption, "columns": [str(c) for c in frame.columns], "rows": rows, "note": note}


def _readable(frame: pd.DataFrame, digits: int) -> pd.DataFrame:
    """Return the frame with each value and its bounds in one column, and without a task column that says one thing only."""
    out = frame.drop(columns="task") if "task" in frame and frame.task.nunique() == 1 else frame.copy()
    for name in list(out.columns):
        bounds = next(([low, high] for low, high in ((f"{name} low", f"{name} high"), (f"{name}_low", f"{name}_high")) if low in out and high in out), None)
        if bounds is None and name == next((c for c in ("value", "gap", "rho", "change") if c in out), None) and {"low", "high"} <= set(out.columns):
            bounds = ["low", "high"]
        if bounds is not None:
            merged: Any = [Interval(v, low, high, digits) for v, low, high in zip(out[name], out[bounds[0]], out[bounds[1]], strict=True)]
            out[name] = merged
            out = out.drop(columns=bounds)
    return out


class Interval:
    """A value with its bounds, shown as one cell and sorted by the value."""

    def __init__(self, value: float, low: float, high: float, digits: int) -> None:
        self.value = float("nan") if value is None else float(value)
        self.text = interval_text(self.value, low, high, digits)


def _cell(value: Any, digits: int) -> dict[str, Any]:
    if isinstance(value, Interval):
        return {"text": value.text, "sort": "" if np.isnan(value.value) else repr(value.value), "number": True}
    if value is None or (isinstance(value, (float, np.floating)) and bool(np.isnan(value))):
        return {"text": "–", "sort": "", "number": True}
    if isinstance(value, (bool, np.bool_)):
        return {"text": "yes" if value else "no", "sort": str(int(value)), "number": False}
    if isinstance(value, (int, np.integer)):
        return {"text": f"{value:,}", "sort": str(value), "number": True}
    if isinstance(value, (float, np.floating)):
        return {"text": f"{value:,.{digits}f}" if abs(float(value)) < 1e6 else f"{value:.3e}", "sort": repr(float(value)), "number": True}
    return {"text": str(value), "sort": str(value), "number": False}


def figure_of(title: str, figure: Any) -> dict[str, Any]:
    if isinstance(figure, Image):
        content = figure.content.encode() if isinstance(figure.content, str) else figure.content
        kind = "svg+xml" if isinstance(figure.content, str) else "png"
        return {"title": title, "image": f"data:image/{kind};base64,{base64.b64encode(content).decode()}", "alt": figure.alt, "json": None, "caption": ""}
    spec = json.loads(figure.to_json())
    spec["layout"].pop("template", None)
    return {"title": title, "image": None, "alt": title, "json": spec, "caption": ""}


def quiet(make: Callable[[Result], list[Section]]) -> Callable[[Result], list[Section]]:
    """A section whose numbers are not there yet is left out, not an error: reports of half-filled folders work."""

    def made(result: Result) -> list[Section]:
        try:
            return make(result)
        except UserError:
            return []

    return made
