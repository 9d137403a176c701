"""The tables of a result as CSV files that a spreadsheet can open without running anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elsewhere.errors import UserError
from elsewhere.run import write_whole

if TYPE_CHECKING:
    import pandas as pd

    from elsewhere.assay.result import Result


def write_csv(result: Result, folder: Path) -> list[Path]:
    """Write cells, gaps, ranking and pairs of the headline, and the trials; return the paths."""
    tables = {"cells": result.cells(), "gaps": result.gaps(), "ranking": result.ranking(), "pairs": result.pairs(), "trials": result.trials()}
    written = []
    for name, table in tables.items():
        path = folder / f"{name}.csv"
        try:
            write_whole(path, harmless(table).to_csv(index=False).encode())
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        written.append(path)
    return written


def harmless(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with a quote before every text that a spreadsheet would take for a formula."""

    def quoted(value: Any) -> Any:
        return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value

    table = table.set_axis([quoted(str(c)) for c in table.columns], axis=1)
    texts = [c for c in table.columns if table[c].dtype == object or str(table[c].dtype) in ("category", "str", "string")]
    return table.assign(**{c: table[c].astype(object).map(quoted) for c in texts})
