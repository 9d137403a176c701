"""Raw table columns to numbers, fitted on the source only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Encoder:
    """Encode a DataFrame as a matrix of numbers.

    Numbers: missing values take the median of the source and get an indicator column; then, if ``scale``, mean 0 and
    deviation 1 by the source. Dates count days. Categories: one column a category seen in the source (those beyond
    ``max_categories``, by frequency, and unseen ones elsewhere are all zeros).

    Args:
        scale: standardise numbers.
        squares: add the square of each standardised number that has more than two values.
        codes: categories as integer codes and missing values left as NaN, for trees; nothing else is applied.
        max_categories: kept per column.

    Examples:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"age": [20.0, 40.0, None], "job": ["a", "b", "a"]})
        >>> Encoder(scale=False).fit(frame).transform(frame).tolist()
        [[20.0, 0.0, 1.0, 0.0], [40.0, 0.0, 0.0, 1.0], [30.0, 1.0, 1.0, 0.0]]
    """

    scale: bool = True
    squares: bool = False
    codes: bool = False
    max_categories: int = 50

    def fit(self, frame: pd.DataFrame) -> Self:
        self.columns_: list[dict[str, Any]] = [self._learn(name, frame[name]) for name in frame.columns]
        return self

    @property
    def names_(self) -> list[str]:
        """The raw column behind each column of the matrix."""
        return [c["name"] for c in self.columns_ for _ in range(self._width(c))]

    def transform(self, frame: pd.DataFrame) -> Array:
        """Return [n, d] float64, d fixed by ``fit``."""
        if missing := [c["name"] for c in self.columns_ if c["name"] not in frame.columns]:
            raise UserError(f"the table lacks {len(missing)} of the {len(self.columns_)} columns this model was fitted on: {', '.join(map(str, missing[:5]))}")
        out = np.empty((len(frame), sum(map(self._width, self.columns_))), order="F")
        at = 0
        for column in self.columns_:
            width = self._width(column)
            self._encode(column, frame[column["name"]], out[:, at : at + width])
            at += width
        return out

    def categorical(self) -> list[bool]:
        """Return, for each column of the matrix with ``codes``, whether it holds category codes."""
        return ["levels" in c for c in self.columns_]

    def _learn(self, name: str, values: pd.Series[Any]) -> dict[str, Any]:
        if is_category(values):
            counts = values.astype(str)[values.notna()].value_counts()
            kept = sorted(counts.index[: self.max_categories])
            return {"name": name, "levels": kept}
        x = as_numbers(values)
        known = x[np.isfinite(x)]
        column: dict[str, Any] = {"name": name, "missing": bool(len(known) < len(x)), "median": float(np.median(known)) if len(known) else 0.0}
        filled = np.where(np.isfinite(x), x, column["median"])
        deviation = float(filled.std()) if len(filled) else 0.0
        column |= {"mean": float(filled.mean()) if len(filled) else 0.0, "deviation": deviation if deviation > 0 else 1.0}
        return {**column, "square": self.squares and len(np.unique(known)) > 2}

    def _width(self, column: dict[str, Any]) -> int:
        if self.codes:
            return 1
        return len(column["levels"]) if "levels" in column else 1 + column["missing"] + column["square"]

    def _encode(self, column: dict[str, Any], values: pd.Series[Any], out: Array) -> None:
        if "levels" in column:
            import pandas as pd

            text = values.astype(str).where(values.notna(), None)
            codes = pd.Categorical(text, categories=column["levels"]).codes
            if self.codes:
                out[:, 0] = np.where(codes < 0, np.nan, codes)
            else:
                out[:] = codes[:, None] == np.arange(len(column["levels"]))
            return
        x = as_numbers(values)
        if self.codes:
            out[:, 0] = np.where(np.isfinite(x), x, np.nan)
            return
        absent = ~np.isfinite(x)
        x = np.where(absent, column["median"], x)
        out[:, 0] = (x - column["mean"]) / column["deviation"] if self.scale else x
        if column["missing"]:
            out[:, 1] = absent
        if column["square"]:
            out[:, -1] = np.square((x - column["mean"]) / column["deviation"])


def is_category(values: pd.Series[Any]) -> bool:
    """Return whether a column holds categories: text, or what is neither number, truth value nor date."""
    from pandas.api import types

    return not (types.is_numeric_dtype(values) or types.is_bool_dtype(values) or types.is_datetime64_any_dtype(values))


def as_numbers(values: pd.Series[Any]) -> Array:
    """Return a column as float64: truth values as 0 and 1, dates as days since 1970, missing as NaN."""
    from pandas.api import types

    if types.is_datetime64_any_dtype(values):
        import pandas as pd

        naive = values.dt.tz_localize(None) if getattr(values.dt, "tz", None) is not None else values
        return np.asarray((naive - pd.Timestamp(0)) / pd.Timedelta(days=1), float)
    return values.to_numpy(dtype=float, na_value=np.nan)


def as_matrix(inputs: Any) -> Array:
    """Return inputs that are already numbers as [n, d] float64; sparse rows as the CSR that they are."""
    if hasattr(inputs, "tocsr"):
        return inputs.tocsr()
    array = np.asarray(inputs, float)
    return array.reshape(len(array), -1)
