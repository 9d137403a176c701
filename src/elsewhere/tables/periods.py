"""Time is a domain: a date or number column becomes periods whose names sort by time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from elsewhere.encoding import as_numbers, is_category
from elsewhere.errors import UserError

_FORMATS = {"year": "%Y", "month": "%Y-%m", "day": "%Y-%m-%d"}
NAMES = (*_FORMATS, "quarter", "week")
_DAY_AND_MONTH = r"^\s*(\d{1,2})[./-](\d{1,2})[./-]\d{2,4}\b"


def as_periods(frame: pd.DataFrame, column: str, period: str) -> pd.DataFrame:
    """Return the table with ``column`` replaced by the name of each row's period.

    Args:
        frame: the table.
        column: dates, or numbers such as a year.
        period: year, quarter, month, week, day; for numbers, a width (``"5"``: 2000-2004, 2005-2009, …).

    Examples:
        >>> as_periods(pd.DataFrame({"year": [2001, 2003, 2006]}), "year", "5")["year"].tolist()
        ['2000–2005', '2000–2005', '2005–2010']
    """
    if column not in frame.columns:
        return frame  # the roles are checked with a better message
    values = frame[column]
    if period in NAMES:
        return frame.assign(**{column: _calendar(values, column, period)})
    try:
        width = float(period)
    except ValueError:
        width = math.nan
    if not width > 0 or math.isinf(width):
        raise UserError(f"period {period!r} is none of {', '.join(NAMES)}, nor a width > 0")
    if is_category(values) or pd.api.types.is_datetime64_any_dtype(values):
        raise UserError(f"period {period} is a width for numbers, and column {column!r} holds {'dates' if not is_category(values) else 'text'}")
    named: Any = _widths(as_numbers(values), width)
    return frame.assign(**{column: named})


def _calendar(values: pd.Series[Any], column: str, period: str) -> Any:
    if is_category(values):
        day_first = _day_first(values, column, period)
        values = pd.to_datetime(values, errors="coerce", format="mixed", dayfirst=day_first)
        if values.isna().all():
            raise UserError(f"column {column!r} holds no dates that can be read; write them as 2024-03-31")
    elif not pd.api.types.is_datetime64_any_dtype(values):
        x = as_numbers(values)
        if period != "year" or np.nanmin(x) < 1000 or np.nanmax(x) > 9999:
            raise UserError(f"column {column!r} holds numbers, not dates; give --period a width, such as --period 1")
        return values.map(lambda v: f"{v:.0f}", na_action="ignore")
    if period == "quarter":
        names = values.dt.year.astype("Int64").astype(str) + "-Q" + values.dt.quarter.astype("Int64").astype(str)
    elif period == "week":
        iso = values.dt.isocalendar()
        names = iso.year.astype(str) + "-W" + iso.week.astype(str).str.zfill(2)
    else:
        names = values.dt.strftime(_FORMATS[period])
    return names.astype(object).where(values.notna(), None)


def _day_first(values: pd.Series[Any], column: str, period: str) -> bool:
    """Return whether dates such as 31/3/2024 begin with the day: a number above 12 tells.

    Raises:
        UserError: some begin with the day and some with the month, or nothing tells.
    """
    parts = values.dropna().astype(str).str.extract(_DAY_AND_MONTH).dropna().astype(int)
    first, second = bool((parts[0] > 12).any()), bool((parts[1] > 12).any())
    if first and second:
        what = "dates that begin with the day and others that begin with the month"
    elif len(parts) and not first and not second and period != "year":
        what = f"dates such as {values.loc[parts.index[0]]!r}: which number is the month?"
    else:
        return first
    raise UserError(f"column {column!r} holds {what}; write them as 2024-03-31")


def _widths(x: np.ndarray[Any, Any], width: float) -> list[str | None]:
    """Name each number's interval so that names sort as numbers do: padded, and shifted where numbers are negative."""
    low = np.floor(x / width) * width
    known = low[np.isfinite(low)]
    if len(known) and known.min() < 0:
        raise UserError(f"periods of width {width:g} need numbers ≥ 0; the column goes down to {x[np.isfinite(x)].min():g}")
    decimals = max(0, -math.floor(math.log10(width))) if width < 1 else 0
    digits = len(f"{known.max() + width:.{decimals}f}") if len(known) else 1
    return [None if not np.isfinite(v) else f"{v:0{digits}.{decimals}f}–{v + width:0{digits}.{decimals}f}" for v in low]
