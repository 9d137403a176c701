"""The explicit two-headed network: one output for the label, one for the group, merged into one rule at every slack (Lohaus et al., NeurIPS 2022)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from elsewhere.batching import in_batches
from elsewhere.data import Array, Examples
from elsewhere.errors import UserError
from elsewhere.fairness.baselines import GroupAround, with_validation
from elsewhere.fairness.frontier import WIDTH, Merge, Space, base_score, best_merges, frontier
from elsewhere.fairness.rates import CRITERIA, Criterion, binary_labels, cells, ddp, disparity, sampling_error
from elsewhere.fairness.regularised import GroupNetwork, as_prediction, merged_prediction
from elsewhere.nn.building import build
from elsewhere.nn.learners import first_of
from elsewhere.prediction import ClassPrediction
from elsewhere.run import Run
from elsewhere.task import Source

BEYOND_CHANCE = 1.645  # standard errors; in 95 % of random groups the area lies below


@dataclass
class TwoHeads(GroupNetwork):
    """Two linear outputs on one body, f for the label and g for the group, merged as h = f + b g + c so that accuracy is largest within a slack.

    L = (1 - ω) BCE(f, y) + ω MSE(σ(g), s). The best fair rule that does not see the group is two such heads merged; the merged
    network has the original architecture and needs no group to predict. That is treatment by predicted group, in the open.

    Args:
        group_weight: ω.
        group_loss: "squared" on σ(g); "raw", squared on g itself (an earlier revision of the reference); "cross_entropy".
        space: merge probabilities, which is optimal for calibrated heads, or logits, which folds into one head.
        slack: largest allowed disparity on the validation part when predicting; None: f alone.
        criterion: "parity"; "opportunity" or "odds", whose second head tells label and group together.

    Examples:
        >>> rng = np.random.default_rng(0); y = rng.integers(2, size=200); s = np.where(rng.random(200) < 0.3 + 0.4 * y, "m", "f")
        >>> data = Examples(rng.normal(size=(200, 3)) + y[:, None] + (s == "m")[:, None], y, {"group": s}, classes=("no", "yes"))
        >>> model = TwoHeads(steps=20, slack=0.1).fit(Source(data))
        >>> model.frontier(data, slacks=3).shape[0]
        3
    """

    revision: ClassVar[int] = 1

    group_weight: float = 0.5
    group_loss: Literal["squared", "raw", "cross_entropy"] = "squared"
    space: Space = "probability"
    slack: float | None = None
    criterion: Criterion = "parity"
    stratified: bool = False
    best_epoch: bool = True

    def refuses(self, source: Source[Examples]) -> str | None:
        if self.criterion not in CRITERIA:
            return f"criterion must be one of {', '.join(CRITERIA)}, not {self.criterion!r}"
        if self.space not in WIDTH or self.group_loss not in ("squared", "raw", "cross_entropy"):
            return f"space must be probability or logit, group_loss squared, raw or cross_entropy; not {self.space!r}, {self.group_loss!r}"
        if not 0 <= self.group_weight <= 1:
            return f"group_weight must lie between 0 and 1, not {self.group_weight}"
        return super().refuses(source)

    @property
    def outputs_wanted(self) -> int:
        count = len(self.groups_)
        return 1 + (2 * count if self.criterion != "parity" else 1 if count == 2 else count)

    def loss(self, network: Any, batch: Any) -> Tensor:
        made = first_of(network(batch.inputs)).reshape(len(batch.labels), -1)
        f, g = made[:, 0], made[:, 1:]
        weight = torch.ones_like(f) if batch.weight is None else batch.weight / self.weight_mean_
        label = functional.binary_cross_entropy_with_logits(f, batch.labels.float(), reduction="none")
        return ((1 - self.group_weight) * label * weight).mean() + (self.group_weight * self._group_losses(g, batch) * weight).mean()

    def _group_losses(self, g: Tensor, batch: Any) -> Tensor:
        """Return the second head's loss of each example [b]: one output for two groups, else one a group (or a label and group)."""
        if g.shape[1] == 1:
            s = batch.group.float()
            if self.group_loss == "cross_entropy":
                return functional.binary_cross_entropy_with_logits(g[:, 0], s, reduction="none")
            return ((torch.sigmoid(g[:, 0]) if self.group_loss == "squared" else g[:, 0]) - s).square()
        code = batch.group if self.criterion == "parity" else batch.labels.long() * len(self.groups_) + batch.group
        if self.group_loss == "cross_entropy":
            return functional.cross_entropy(g, code, reduction="none")
        wanted = functional.one_hot(code, g.shape[1]).to(g)
        return ((torch.softmax(g, 1) if self.group_loss == "squared" else g) - wanted).square().sum(1)

    def finished(self, held: Examples, run: Run) -> None:
        """Choose the merge on the validation part: choosing it on the examples that are judged leaks."""
        self.merge_: list[float] | None = None
        labels, codes, made = binary_labels(held, self.name), self.codes(held), self.scores(held, run)
        self.cell_shares_ = [[float(((labels == y) & (codes == k)).mean()) for k in range(len(self.groups_))] for y in (0, 1)]
        self.group_auc_ = self._group_auc(made, codes)
        told = made[:, 1:] if self.group_loss == "raw" else base_score(made[:, 1:], "probability")
        self.near_binary_ = float(((np.abs(told) < 0.1) | (np.abs(told - 1) < 0.1)).mean())  # near 1: merging is thresholds by predicted group
        if self.group_auc_ < chance_area(codes):
            warnings.warn(f"the group cannot be told from the inputs (area under the curve {self.group_auc_:.2f}): merging cannot help", UserWarning, stacklevel=2)
        if self.slack is not None:
            found = self.merge(held, self.slack, run)
            self.merge_ = [*found.b, found.c]

    def _group_auc(self, made: Array, codes: Array) -> float:
        from sklearn.metrics import roc_auc_score

        if made.shape[1] != 2 or len(np.unique(codes)) < 2:
            return 1.0
        return float(roc_auc_score(codes, made[:, 1]))

    # --- merging ---

    def directions(self, made: Array, space: Space | None = None) -> tuple[Array, list[str]]:
        """Return the directions t [n, k] along which f is moved, and the names of their coefficients, of outputs [n, 1 + …].

        Parity of two groups: q = σ(g). Of more: q_g - p_g for all but one. Opportunity: π₁₁/P₁₁ - π₁₀/P₁₀; odds: that, and the same of label 0.
        """
        space = space or self.space
        g, count = made[:, 1:], len(self.groups_)
        from scipy.special import softmax

        raw = self.group_loss == "raw"  # that head gives shares, not logits
        if self.criterion == "parity" and count == 2:
            return (g if raw else base_score(g, space)), ["b"]
        p = g if raw else softmax(g, axis=1)
        if self.criterion == "parity":
            return p[:, 1:] - np.array(self.shares_[1:]), [f"b {name}" for name in self.groups_[1:]]
        joint = p.reshape(len(p), 2, count) / np.maximum(np.array(self.cell_shares_), 1e-9)
        columns, names = [], []
        for y in (1,) if self.criterion == "opportunity" else (1, 0):
            for k in range(1, count):
                columns.append(joint[:, y, k] - joint[:, y, 0])
                names.append(f"b {self.groups_[k]}, label {y}")
        return np.stack(columns, 1), names

    def merge(self, validation: Examples, slack: float, run: Run = Run(), space: Space | None = None) -> Merge:
        """Return the most accurate merge whose disparity on these examples is at most ``slack``."""
        made, used = self.scores(validation, run), space or self.space
        t, _ = self.directions(made, used)
        (found,) = best_merges(base_score(made[:, 0], used), t, binary_labels(validation, self.name), self.codes(validation), [slack], self.criterion, WIDTH[used])
        if found is None:
            raise UserError(f"no merge reaches a disparity of {slack:g} on these {len(validation)} examples")
        return found

    def frontier(self, validation: Examples, slacks: int | Sequence[float] = 21, test: Examples | None = None, run: Run = Run()) -> pd.DataFrame:
        """Return accuracy and disparity at each slack, chosen on ``validation``; with ``test`` also what they are there.

        ``calibration`` is c + ½ + b p, 0 for calibrated heads in the space of probabilities.
        """
        made = self.scores(validation, run)
        t, names = self.directions(made)
        table = frontier(base_score(made[:, 0], self.space), t, binary_labels(validation, self.name), self.codes(validation), slacks, self.criterion, WIDTH[self.space], names)
        if self.space == "probability" and names == ["b"] and "b" in table:
            table["calibration"] = table["c"] + 0.5 + table["b"] * self.shares_[1]
        return table if test is None else pd.concat([table, self.along(table, test, run)], axis=1)

    def along(self, table: pd.DataFrame, data: Examples, run: Run = Run()) -> pd.DataFrame:
        """Return what the merges of a frontier are on other examples, row by row: test accuracy, disparity, ddp and its sampling error."""
        made = self.scores(data, run)
        t, names = self.directions(made)
        f, t = base_score(made[:, 0], self.space), t.reshape(len(made), -1)
        labels, codes = binary_labels(data, self.name), self.codes(data)
        sets = cells(labels, codes, self.criterion)
        rows: list[dict[str, float]] = []
        for row in table.to_dict("records"):
            if pd.isna(row.get("c")):
                rows.append({})  # a slack that no merge reaches
                continue
            accepted = f + t @ np.array([row[n] for n in names], float) + row["c"] > 0
            told = {"test accuracy": float((accepted == labels).mean()), "test disparity": disparity(accepted, sets)}
            rows.append({**told, "test ddp": ddp(accepted, codes), "test ddp error": sampling_error(accepted, codes)})
        return pd.DataFrame(rows, index=table.index)

    def merged(self, slack: float, validation: Examples, run: Run = Run()) -> Merged:
        """Return a learner of one head: the outputs' weights added up, w_f + b w_g, in the space of logits. The original architecture; no group needed to predict."""
        if self.criterion != "parity" or len(self.groups_) != 2:
            raise UserError("one head can stand for a merge of two groups' parity; other merges are not linear in the outputs")
        found = self.merge(validation, slack, run, "logit")
        body, head, built = self.network_.body, self.network_.head, self.network_.built
        options = {k: v for k, v in built.items() if k not in ("name", "shape", "classes", "head", "values", "hidden")}
        made = Merged(base=self, slack=slack)
        made.network_ = build(built["name"], shape=built["shape"], values=1, **options)
        made.network_.body.load_state_dict(body.state_dict())
        mix = torch.tensor([1.0, found.b[0]], dtype=head.weight.dtype)
        made.network_.head.load_state_dict({"weight": (mix @ head.weight)[None], "bias": (mix @ head.bias + found.c)[None]})
        made.base_, made.b_, made.c_ = self, found.b[0], found.c
        return made

    def predict(self, data: Examples, run: Run = Run()) -> ClassPrediction:
        made = self.scores(data, run)
        if self.merge_ is None:
            return as_prediction(made[:, 0])
        t = self.directions(made)[0].reshape(len(made), -1)
        return merged_prediction(base_score(made[:, 0], self.space) + t @ np.array(self.merge_[:-1]) + self.merge_[-1], self.space)


def chance_area(codes: Array) -> float:
    """Return the 95 % point of the area under the curve of a head that knows nothing of the group.

    ½ + 1.645 √((n₀ + n₁ + 1) / (12 n₀ n₁)) (Mann & Whitney 1947); -∞ without two groups.

    Examples:
        >>> round(chance_area(np.repeat([0, 1], 50)), 3)
        0.595
    """
    n1 = int((codes == 1).sum())
    n0 = int((codes == 0).sum())
    if not n0 or not n1:
        return -np.inf
    return float(0.5 + BEYOND_CHANCE * ((n0 + n1 + 1) / (12 * n0 * n1)) ** 0.5)


@dataclass
class Merged(GroupAround):
    """Two heads folded into one: fitted by ``TwoHeads(...).merged(slack, validation)``, or as a learner by itself.

    Args:
        base: the two-headed network.
        slack: largest allowed disparity on the validation part.

    Examples:
        >>> rng = np.random.default_rng(0); y = rng.integers(2, size=200); s = np.where(rng.random(200) < 0.3 + 0.4 * y, "m", "f")
        >>> data = Examples(rng.normal(size=(200, 3)) + y[:, None] + (s == "m")[:, None], y, {"group": s}, classes=("no", "yes"))
        >>> Merged(TwoHeads(steps=20), slack=0.1).fit(Source(data)).network_.head.weight.shape
        torch.Size([1, 32])
    """

    base: Any
    slack: float = 0.02

    def refuses(self, source: Source[Any]) -> str | None:
        why: str | None = self.base.refuses(source) if isinstance(self.base, TwoHeads) else "merged needs base, a two-heads learner"
        return why

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        if why := self.refuses(source):
            raise UserError(why)
        source, held = with_validation(source, run)
        made = run.fitted(self.base, source).merged(self.slack, held, run)
        self.base_, self.network_, self.b_, self.c_ = made.base_, made.network_, made.b_, made.c_
        return self

    def scores(self, data: Examples, run: Run = Run()) -> Array:
        """Return the one output [n, 1], a logit whose sign decides."""
        return in_batches(self.network_, self.base_._seen(data, run).inputs, run, output="mean").astype(float)

    def predict(self, data: Any, run: Run = Run()) -> ClassPrediction:
        return as_prediction(self.scores(data, run)[:, 0])
