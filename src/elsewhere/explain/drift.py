"""How much does each column differ between two domains? The plain baseline beside the decomposition."""

from __future__ import annotations

import numpy as np
import pandas as pd

from elsewhere.encoding import as_numbers, is_category
from elsewhere.explain.domain_classifier import column_areas


def column_drift(home: pd.DataFrame, elsewhere: pd.DataFrame, folds: int = 5, seed: int = 0) -> pd.DataFrame:
    """Return, for each column, the AUC by which it alone tells the domains apart (out of fold) and a distance.

    The distance is Kolmogorov–Smirnov's for numbers, and ½ Σ (p - q)² / (p + q) (χ², in [0, 1]) for categories.

    Examples:
        >>> frame = pd.DataFrame({"x": np.arange(50.0)})
        >>> float(column_drift(frame, frame + 100).distance[0])
        1.0
    """
    from scipy.stats import ks_2samp

    auc = column_areas(home, elsewhere, folds, np.random.default_rng(seed))
    rows = []
    for name in home.columns:
        a, b = home[name].dropna(), elsewhere[name].dropna()
        if not len(a) or not len(b):
            distance = 1.0 if len(a) + len(b) else 0.0
        elif is_category(home[name]):
            p, q = a.astype(str).value_counts(normalize=True), b.astype(str).value_counts(normalize=True)
            p, q = p.align(q, fill_value=0.0)
            distance = float(0.5 * ((p - q) ** 2 / (p + q)).sum())
        else:
            distance = float(ks_2samp(as_numbers(a), as_numbers(b)).statistic)
        rows.append({"column": name, "auc": float(auc.get(name, np.nan)), "distance": distance, "missing at home": home[name].isna().mean(), "missing there": elsewhere[name].isna().mean()})
    return pd.DataFrame(rows).sort_values("auc", ascending=False).reset_index(drop=True)
