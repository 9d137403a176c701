"""Where, among the cases that both domains have, did the relation change? Honest rules in words (after WhyShift's idea)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import t

from elsewhere.data import Array
from elsewhere.encoding import Encoder, is_category

FEWEST = 10  # cases of the measuring half in a region that is told


def risky_regions(
    home_x: pd.DataFrame, home_loss: Array, elsewhere_x: pd.DataFrame, elsewhere_loss: Array, log_ratio_elsewhere: Array, seed: int = 0, level: float = 0.95, depth: int = 3
) -> pd.DataFrame:
    """Return the leaves of a tree on (loss there - loss expected as at home), worst first.

    The expected loss is boosted on the home cases; the tree is grown, weighted by the shared distribution, on half of
    the cases elsewhere; leaf means and intervals come from the other half. Leaves hold at least 5 % of the weight, and are
    told only if the other half has 10 cases in them.

    Returns:
        A frame: region (a rule in words), change, low, high, share (of the weight), n.
    """
    x, names = _readable(pd.concat([home_x, elsewhere_x], ignore_index=True))
    home, away = x[: len(home_x)], x[len(home_x) :]
    excess = elsewhere_loss - _expected(home, home_loss, away)
    weight = expit(-log_ratio_elsewhere)
    grow = np.random.default_rng(seed).permutation(len(away)) % 2 == 0
    columns = ["region", "change", "low", "high", "share", "n"]
    if min(grow.sum(), (~grow).sum()) < 20:
        return pd.DataFrame(columns=columns)
    from sklearn.tree import DecisionTreeRegressor

    tree = DecisionTreeRegressor(max_depth=depth, min_weight_fraction_leaf=0.05, random_state=0).fit(away[grow], excess[grow], sample_weight=weight[grow])
    leaf = tree.apply(away[~grow])
    rules = _rules(tree.tree_, names, elsewhere_x)
    rows = [_leaf(rules[k], excess[~grow][leaf == k], weight[~grow][leaf == k], float(weight[~grow].sum()), level) for k in np.unique(leaf) if (leaf == k).sum() >= FEWEST]
    return pd.DataFrame(rows, columns=columns).sort_values("change", ascending=False).reset_index(drop=True)


def _expected(home: Array, loss: Array, away: Array) -> Array:
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(max_iter=50, max_leaf_nodes=8, learning_rate=0.1, early_stopping=False, random_state=0)
    return np.asarray(model.fit(home, loss).predict(away))


def _leaf(rule: str, excess: Array, weight: Array, total: float, level: float) -> tuple[str, float, float, float, float, int]:
    mean = float(np.average(excess, weights=weight))
    n = float(weight.sum() ** 2 / np.square(weight).sum())
    error = float(np.sqrt(np.average(np.square(excess - mean), weights=weight) / max(n - 1, 1)))
    half = float(t.ppf((1 + level) / 2, max(n - 1, 1))) * error
    return rule, mean, mean - half, mean + half, float(weight.sum()) / total, len(excess)


def _readable(frame: pd.DataFrame) -> tuple[Array, list[tuple[str, str | None]]]:
    """Encode without scaling, so that thresholds are in the units of the table; return (column, category) a column."""
    encoder = Encoder(scale=False).fit(frame)
    names: list[tuple[str, str | None]] = []
    for column in encoder.columns_:
        names += [(column["name"], level) for level in column["levels"]] if "levels" in column else [(column["name"], None)]
        if column.get("missing"):
            names.append((column["name"], "missing"))
    return encoder.transform(frame), names


def _rules(tree: Any, names: list[tuple[str, str | None]], frame: pd.DataFrame) -> dict[int, str]:
    """Return the rule of every leaf in words."""
    found: dict[int, str] = {}

    def walk(node: int, told: dict[tuple[int, bool], float]) -> None:
        """``told``: the tightest threshold so far for each (feature, above)."""
        if tree.children_left[node] < 0:
            found[node] = " and ".join(_condition(*names[k], above, bound, frame) for (k, above), bound in told.items()) or "everywhere"
            return
        k, threshold = int(tree.feature[node]), float(tree.threshold[node])
        for child, above in ((tree.children_left[node], False), (tree.children_right[node], True)):
            before = told.get((k, above), threshold)
            walk(int(child), {**told, (k, above): max(before, threshold) if above else min(before, threshold)})

    walk(0, {})
    return found


def _condition(column: str, level: str | None, above: bool, threshold: float, frame: pd.DataFrame) -> str:
    if level is not None:
        return f"{column} is {'' if above else 'not '}{level}"
    values = np.unique(frame[column].dropna()) if not is_category(frame[column]) else np.array([])
    if len(values) == 2:
        return f"{column} = {values[int(above)]:g}" if values.dtype != bool else f"{column} is {'true' if above else 'false'}"
    return f"{column} {'>' if above else '≤'} {threshold:.4g}"
