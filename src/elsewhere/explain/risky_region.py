"""Where, among the cases that both domains have, did the relation change? Honest rules in words (after WhyShift's idea)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import t

from elsewhere.data import Array
from elsewhere.encoding import Encoder, is_category

FEWEST = 10  # effective cases of the measuring half, on each side, in a region that is reported
FEWEST_OF_A_HALF = 20  # cases of a side
COLUMNS = ["region", "change", "low", "high", "share", "n"]


def risky_regions(
    home_x: pd.DataFrame,
    home_loss: Array,
    elsewhere_x: pd.DataFrame,
    elsewhere_loss: Array,
    log_ratio: Array,
    seed: int = 0,
    level: float = 0.95,
    depth: int = 3,
    units: Array | None = None,
    weights: Array | None = None,
) -> pd.DataFrame:
    """Return regions of the shared distribution, by the lower bound of the change of loss in them.

    Both sides are split in halves. On the first half the loss at home is boosted and a tree is
    grown on (loss there - loss expected as at home), weighted by the shared distribution, each leaf
    with at least 5 % of the weight. Everything reported comes from the other half:

    change = Σ w_Q (loss - expected) / Σ w_Q - Σ w_P (loss - expected) / Σ w_P, over a region,

    which needs only the weights to be right, or only the expected loss. Two sibling regions whose
    changes cannot be told apart at ``level`` become one, from the leaves upwards.

    Args:
        home_x, elsewhere_x: features, same columns.
        home_loss, elsewhere_loss: [n_home], [n_there] loss per example.
        log_ratio: [n_home + n_there] log q/p of the cases at home, then of those elsewhere.
        seed: of the halves.
        level: of the two-sided intervals and of telling siblings apart.
        depth: of the tree.
        units: [n_home + n_there] what stays in one half; intervals are over units.
        weights: [n_home + n_there] survey weights.

    Returns:
        A frame: region (a rule in words), change, low, high, share (of the weight elsewhere), n
        (cases elsewhere). Empty where a half holds fewer than 20 cases of a side.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> x, z = (pd.DataFrame({"age": rng.uniform(20, 80, 2000)}) for _ in range(2))
        >>> there = (z.age > 60) * rng.random(2000)
        >>> risky_regions(x, np.zeros(2000), z, there, np.zeros(4000)).region[0][:8]
        'age > 60'
    """
    x, names = _readable(pd.concat([home_x, elsewhere_x], ignore_index=True))
    there = np.arange(len(x)) >= len(home_x)
    loss = np.r_[home_loss, elsewhere_loss]
    weight = expit(np.where(there, -log_ratio, log_ratio)) * (1.0 if weights is None else weights)
    unit = np.arange(len(x)) if units is None else np.unique(units, return_inverse=True)[1]
    grow = _half(unit, there, seed)
    parts = [(there == side) & (grow == half) for side in (False, True) for half in (False, True)]
    if min(part.sum() for part in parts) < FEWEST_OF_A_HALF:
        return pd.DataFrame(columns=COLUMNS)
    excess = loss - _expected(x[grow & ~there], loss[grow & ~there], x)
    tree = _grown(x[grow & there], excess[grow & there], weight[grow & there], depth)
    inside = tree.decision_path(x[~grow]).toarray() > 0
    measure = _Measure(excess[~grow], weight[~grow], unit[~grow], there[~grow], inside, level)
    rules = _rules(tree.tree_, names, elsewhere_x)
    regions = [k for k in _merged(tree.tree_, measure, 0) if measure.enough(k)]
    table = pd.DataFrame([(rules[k], *measure.row(k)) for k in regions], columns=COLUMNS)
    return table.sort_values("low", ascending=False).reset_index(drop=True)


def _half(unit: Array, there: Array, seed: int) -> Array:
    """Return which cases belong to the half that grows: half of the units of each side."""
    rng, grow = np.random.default_rng(seed), np.zeros(len(unit), bool)
    for side in (False, True):
        _, which = np.unique(unit[there == side], return_inverse=True)
        grow[there == side] = (rng.permutation(int(which.max()) + 1) % 2 == 0)[which]
    return grow


def _expected(home: Array, loss: Array, x: Array) -> Array:
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        max_iter=50,
        max_leaf_nodes=8,
        learning_rate=0.1,
        early_stopping=False,
        random_state=0,
    )
    return np.asarray(model.fit(home, loss).predict(x))


def _grown(x: Array, excess: Array, weight: Array, depth: int) -> Any:
    from sklearn.tree import DecisionTreeRegressor

    tree = DecisionTreeRegressor(max_depth=depth, min_weight_fraction_leaf=0.05, random_state=0)
    return tree.fit(x, excess, sample_weight=weight)


@dataclass(frozen=True)
class _Measure:
    """Excess loss, weight, unit, side [n], and which nodes hold a case [n, nodes]."""

    excess: Array
    weight: Array
    unit: Array
    there: Array
    inside: Array
    level: float

    def change(self, node: int) -> tuple[float, float, float]:
        """Return the change of loss in a node, its variance and degrees of freedom (Welch)."""
        (home, a, m), (away, b, n) = (self._mean(rows) for rows in self._sides(node))
        return away - home, a + b, (a + b) ** 2 / (a**2 / m + b**2 / n) if a + b > 0 else min(m, n)

    def enough(self, node: int) -> bool:
        return all(self._size(rows) >= FEWEST for rows in self._sides(node))

    def _sides(self, node: int) -> tuple[Array, Array]:
        """Return which cases at home and elsewhere a node holds."""
        mine = self.inside[:, node]
        return mine & ~self.there, mine & self.there

    def differ(self, one: int, other: int) -> bool:
        """Return whether the changes of two nodes can be told apart."""
        if not (self.enough(one) and self.enough(other)):
            return False
        (a, va, m), (b, vb, n) = self.change(one), self.change(other)
        # Bonferroni: where nothing differs, 95 % of trees become one node.
        siblings = max(1, self.inside.shape[1] // 2)
        return abs(a - b) > self._quantile(min(m, n), siblings) * (va + vb) ** 0.5

    def row(self, node: int) -> tuple[float, float, float, float, int]:
        """Return change, low, high, share of the weight elsewhere and cases elsewhere."""
        change, variance, freedom = self.change(node)
        half = self._quantile(freedom) * variance**0.5
        mine = self.inside[:, node] & self.there
        share = float(self.weight[mine].sum() / self.weight[self.there].sum())
        return change, change - half, change + half, share, int(mine.sum())

    def _quantile(self, freedom: float, comparisons: int = 1) -> float:
        return float(t.ppf(1 - (1 - self.level) / 2 / comparisons, freedom))

    def _size(self, rows: Array) -> float:
        """Return the effective number of units."""
        per_unit = np.bincount(self.unit[rows], self.weight[rows])
        return float(per_unit.sum() ** 2 / np.square(per_unit).sum()) if rows.any() else 0.0

    def _mean(self, rows: Array) -> tuple[float, float, float]:
        """Return the weighted mean, its squared standard error over units, degrees of freedom."""
        w, e, n = self.weight[rows], self.excess[rows], self._size(rows)
        mean = float(w @ e / w.sum())
        per_unit = np.bincount(self.unit[rows], w * (e - mean))
        return mean, float(np.square(per_unit).sum() / w.sum() ** 2 * n / (n - 1)), n - 1


def _merged(tree: Any, measure: _Measure, node: int) -> list[int]:
    """Return the nodes below ``node`` after merging siblings that cannot be told apart."""
    left, right = int(tree.children_left[node]), int(tree.children_right[node])
    if left < 0:
        return [node]
    below = _merged(tree, measure, left), _merged(tree, measure, right)
    if below == ([left], [right]) and not measure.differ(left, right):
        return [node]
    return [*below[0], *below[1]]


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
    """Return the rule of every node in words."""
    found: dict[int, str] = {}

    def walk(node: int, told: dict[tuple[int, bool], float]) -> None:
        """``told``: the tightest threshold so far for each (feature, above)."""
        bounds = told.items()
        conditions = [_condition(*names[k], above, bound, frame) for (k, above), bound in bounds]
        found[node] = " and ".join(conditions) or "everywhere"
        if tree.children_left[node] < 0:
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
