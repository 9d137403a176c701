"""Statistics that bundled studies expect something of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from elsewhere.explain.decomposition import TERMS

if TYPE_CHECKING:
    from elsewhere.assay.result import Result


def largest_error_of_terms(result: Result) -> float:
    """Return how far the estimated terms of worlds with known terms lie from the truth, at most."""
    table = result.explain("shift-decomposition").tables["Terms"]
    errors = []
    for _, row in table.iterrows():
        trial = result.trials().query("task == @row.task").trial.iloc[0]
        about = result.task(trial).domain("elsewhere").about
        truth = np.array([about[f"true {name}"] for name in TERMS])
        errors.append(np.abs(row[list(TERMS)].to_numpy(float) - truth).max())
    return float(max(errors))
