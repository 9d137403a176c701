"""The dataset derivative: which training examples help, which hurt, and what to do about it (Dukler et al., ICLR 2022)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from elsewhere.data import Array
from elsewhere.errors import UserError, did_you_mean
from elsewhere.explain import advice, left_out
from elsewhere.explain.advice import Extension, Say
from elsewhere.explain.judging import Loss, judged, slopes
from elsewhere.explain.overlap import shared_rows
from elsewhere.explain.ridge import Reduce, Solution, alone, best_ridge
from elsewhere.explain.rows import Rows, Targets

Judge = str | tuple[Any, Any] | Mapping[str, tuple[Any, Any]] | None
OWN = ("leave-one-out", "leave-domain-out")
SAME_ROWS_UP_TO = 20_000_000  # numbers in features; above, whether judge and training share rows is not looked at


@dataclass(frozen=True)
class LeaveOneOut:
    """What each example's prediction is when it is left out: predictions and residuals [n, outputs], leverage [n], squared error (mean), accuracy."""

    predictions: Array
    residuals: Array
    leverage: Array
    error: float
    accuracy: float | None


class DatasetDerivative(BaseEstimator):
    """Ridge regression on features, and the derivative of its errors by the weight of every training example.

    Exact for ridge regression on the features given, in one pass of linear algebra where retraining takes one training an
    example. It is not the truth about a fully retrained deep network. After Dukler et al. 2022 (Props. 1-3); the leave-one-out
    gradient and the finite effects are derived in this project's specification 13.

    Args:
        ridge: λ, or "loo": the one with the least leave-one-out error. Choose it first: scaling all weights is scaling the ridge.
        intercept: add a constant column, not penalised.
        dtype: "float64", or "mixed": single-precision passes, refused where features are ill-conditioned.
        block: rows read at a time.
        device: of the passes.
        reduce: sums a tensor over processes that hold parts of the rows (``fabric.all_reduce`` with ``reduce_op="sum"``).

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> y = rng.integers(2, size=200); x = rng.normal(size=(200, 5)); x[:, 0] += 4 * y
        >>> wrong = np.arange(10); y[wrong] = 1 - y[wrong]
        >>> d = DatasetDerivative(ridge=1.0).fit(x, y)
        >>> len(set(d.suspects(fraction=0.05)["row"]) & set(wrong)) >= 7
        True
        >>> weights = d.optimise(steps=1, step=0.1)
        >>> bool(weights[wrong].mean() < weights.mean())
        True
    """

    def __init__(
        self,
        ridge: float | Literal["loo"] = "loo",
        intercept: bool = True,
        dtype: Literal["float64", "mixed"] = "float64",
        block: int = 8192,
        device: str = "cpu",
        reduce: Reduce | None = None,
    ) -> None:
        self.ridge, self.intercept, self.dtype, self.block, self.device, self.reduce = ridge, intercept, dtype, block, device, reduce

    # --- fitting ---

    def fit(self, features: Any, labels: Any, sample_weight: Any = None, domain: Any = None, classes: Any = None) -> Self:
        """Fit on features [n, d] and class ids, class names, one-hot rows or numbers.

        Args:
            features: an array, a memory map, a path (.npy, .parquet), or a loader that can be read again and again.
            sample_weight: α [n]; 1 if not given; 0 leaves an example out of the fit, and its derivative says what adding it would do.
            domain: a name an example, for leaving domains out and for blame.
            classes: the order of classes; sorted if not given.

        Raises:
            UserError: lengths differ, a value is not finite, weights are negative or all zero, or the features have no full rank for this ridge.
        """
        if self.dtype not in ("float64", "mixed"):
            raise UserError(f"dtype must be float64 or mixed, not {self.dtype!r}")
        if self.ridge != "loo" and not (isinstance(self.ridge, (int, float)) and self.ridge >= 0):
            raise UserError(f"ridge must be a number ≥ 0 or 'loo', not {self.ridge!r}")
        if int(self.block) < 1:
            raise UserError(f"block must be at least 1 row, not {self.block}")
        rows, targets = Rows(features, int(self.block), self.intercept, self.device), Targets.of(labels, classes)
        if len(targets) < 2 and self.reduce is None:
            raise UserError(f"{len(targets)} example is too few: leaving it out leaves nothing")
        if hasattr(rows.given, "shape") and len(rows.given) != len(targets):
            raise UserError(f"features have {len(rows.given)} rows, labels {len(targets)}")
        weight = _weights(sample_weight, len(targets), self.device)
        self.domain_ = None if domain is None else np.asarray(domain)
        if self.domain_ is not None and len(self.domain_) != len(targets):
            raise UserError(f"domain has {len(self.domain_)} entries for {len(targets)} examples")
        self.ridge_, self.grid_ = self._chosen(rows, targets, weight)
        self.solution_ = Solution(rows, targets, weight, self.ridge_, self.dtype, self.reduce or alone)
        self.classes_ = targets.classes
        self.compared_: set[int] = set()  # judges whose rows were looked for among the training's
        self.sample_weight_ = weight.cpu().numpy()
        return self

    def _chosen(self, rows: Rows, targets: Targets, weight: Tensor) -> tuple[float, pd.DataFrame]:
        if self.ridge != "loo":
            return float(self.ridge), pd.DataFrame({"ridge": [], "error": []})
        chosen, grid, errors = best_ridge(rows, targets, weight, reduce=self.reduce or alone)
        return chosen, pd.DataFrame({"ridge": grid, "error": errors})

    def reweighted(self, sample_weight: Any) -> Self:
        """Return the same fitted with other weights, at the same ridge."""
        made = type(self)(**{**self.get_params(), "ridge": self.ridge_})
        made.domain_, made.ridge_, made.grid_, made.classes_ = self.domain_, self.ridge_, self.grid_, self.classes_
        made.compared_ = self.compared_
        weight = _weights(sample_weight, len(self.solution_), self.device)
        made.solution_ = Solution(self.solution_.rows, self.solution_.targets, weight, self.ridge_, self.dtype, self.reduce or alone)
        made.sample_weight_ = weight.cpu().numpy()
        return made

    @property
    def coef_(self) -> Array:
        """Weights [outputs, d], the constant's left out."""
        w = self.solution_.coefficients.cpu().numpy().T
        return w[:, :-1] if self.intercept else w

    @property
    def intercept_(self) -> Array:
        w = self.solution_.coefficients.cpu().numpy().T
        return w[:, -1] if self.intercept else np.zeros(len(w))

    def decision_function(self, features: Any) -> Array:
        """Return Z W [m, outputs]."""
        return self.solution_.predict(self._rows(features)).cpu().numpy()

    def predict(self, features: Any) -> Array:
        """Return class labels, or numbers, of features [m, d]."""
        made = self.decision_function(features)
        return made.squeeze(-1) if self.solution_.targets.codes is None and made.shape[1] == 1 else made if self.solution_.targets.codes is None else self._named(made.argmax(1))

    def _named(self, codes: Array) -> Array:
        return codes if self.classes_ is None else np.asarray(self.classes_)[codes]

    def outputs(self) -> Array:
        """Return the outputs Y [n, outputs] that were fitted: one-hot rows, or numbers."""
        return self.solution_.targets.part(slice(None), torch.float64).numpy()

    def wanted(self, labels: Any) -> Array:
        """Return the outputs [m, outputs] of labels, classes in the order that was fitted."""
        given = np.asarray(labels)
        found = Targets.of(given, self.classes_ if given.ndim == 1 else None)
        return found.part(slice(None), torch.float64).numpy()

    # --- leaving out ---

    def leave_one_out(self) -> LeaveOneOut:
        """Return each example's prediction when it is left out: P_i = Y_i - E_i / (1 - α_i h_i) (Prop. 3, in the form that survives α = 0)."""
        residuals, leverage = self.solution_.leave_one_out()
        if undefined := int(np.isnan(residuals[:, 0]).sum()):
            warnings.warn(f"{undefined} examples alone determine their own prediction: leaving them out is undefined there (NaN); raise ridge", UserWarning, stacklevel=2)
        wanted = self.solution_.targets.part(slice(None), torch.float64).numpy()
        codes = self.solution_.targets.codes
        predictions = wanted - residuals
        known = ~np.isnan(residuals[:, 0])
        accuracy = None if codes is None else float((predictions[known].argmax(1) == codes[known]).mean())
        return LeaveOneOut(predictions, residuals, leverage, float(np.square(residuals[known]).sum(1).mean()), accuracy)

    def leave_one_out_error(self) -> float:
        """Return the mean squared error of leave-one-out predictions (summed over outputs)."""
        return self.leave_one_out().error

    def leave_domain_out(self, domain: Any = None) -> Array:
        """Return predictions [n, outputs] of each example by what is fitted on all other domains, or on all other units given as ``domain``."""
        return left_out.leave_domain_out(self.solution_, self._domain(domain))

    # --- derivatives ---

    def gradient(self, judge: Judge = "leave-one-out", loss: Loss = "squared", outer: Any = None, domain: Any = None) -> Any:
        """Return the derivative of a judge's loss (a sum) by the weight of each example: positive means detrimental.

        Args:
            judge: "leave-one-out", "leave-domain-out", features and labels of examples that judge (a domain elsewhere, say), or several by name.
            loss: "squared", "cross_entropy" or a function of (predicted, wanted) that gives one differentiable number.
            outer: weights v [n] of the examples in the leave-one-out or leave-domain-out loss, which are not the weights that are derived by; 1 if not given.
            domain: instead of the fitted one; units leave out what belongs together.

        Returns:
            [n]; of several judges a frame [n, judges].
        """
        v = None if outer is None else torch.as_tensor(np.asarray(outer, float), dtype=torch.float64, device=self.device)
        if judge is None or isinstance(judge, str):
            if judge not in (None, *OWN):
                raise UserError(f"no judge {judge!r}{did_you_mean(str(judge), OWN)}")
            if judge == "leave-domain-out":
                return left_out.leave_domain_out_gradient(self.solution_, self._domain(domain), loss, v)
            return self.solution_.leave_one_out_gradient(loss, v)
        judges = {name: self._judge(*given) for name, given in _several(judge).items()}
        sloped = {name: (x, slopes(loss, x @ self.solution_.coefficients, y)) for name, (x, y) in judges.items()}
        found = self.solution_.gradient(sloped)
        return pd.DataFrame(found, columns=list(judges)) if isinstance(judge, Mapping) else found[:, 0]

    def judged(self, judge: tuple[Any, Any], loss: Loss = "squared") -> float:
        """Return a judge's loss (a sum over its examples)."""
        v, wanted = self._judge(*judge)
        return float(judged(loss, v @ self.solution_.coefficients, wanted))

    def removal_effect(self, judge: tuple[Any, Any]) -> Array:
        """Return the exact change [n] of a judge's squared error (a sum) when each example alone is removed: what n retrainings would give."""
        v, wanted = self._judge(*judge)
        return self.solution_.changed_by(v, slopes("squared", v @ self.solution_.coefficients, wanted))

    def relabel(self, judge: tuple[Any, Any], top: int | None = None) -> pd.DataFrame:
        """Return, for each example, the label that lowers a judge's squared error most and by how much: row, label, suggested, gain; best first, ``top`` of them."""
        codes = self._codes("a relabelling")
        v, wanted = self._judge(*judge)
        change = self.solution_.relabelled(v, slopes("squared", v @ self.solution_.coefficients, wanted))
        best = change.argmin(1)
        frame = pd.DataFrame({"row": np.arange(len(best)), "label": self._named(codes), "suggested": self._named(best), "gain": -change[np.arange(len(best)), best]})
        frame = frame.sort_values("gain", ascending=False, kind="stable").reset_index(drop=True)
        return frame if top is None else frame.head(top)

    def remove(self, rows: Any) -> Self:
        """Return the same fitted without a set of rows (their weights become 0)."""
        weight = self.sample_weight_.copy()
        weight[np.asarray(rows)] = 0
        return self.reweighted(weight)

    def blame(self, judges: Mapping[str, tuple[Any, Any]], loss: Loss = "squared", interval: float = 0.95, domain: Any = None) -> pd.DataFrame:
        """Return which domain the loss of each judge is due to: domain × judge, see ``left_out.blame``."""
        told = {name: self._judge(*given) for name, given in judges.items()}
        return left_out.blame(self.solution_, self._domain(domain), told, loss, interval)

    # --- what to do ---

    def optimise(
        self,
        judge: Judge = "leave-one-out",
        steps: int = 3,
        step: float | Literal["auto"] = "auto",
        loss: Loss = "squared",
        say: Say = None,
        seed: int = 0,
    ) -> Array:
        """Return weights [n] for any estimator's ``sample_weight``: α ← max(α - η g, 0) and refit, ``steps`` times (eq. 14; the clipping is ours).

        The loss is estimated without bias at the first step only: more steps overfit. ``step="auto"`` takes η of 0, 0.1, 0.3 and 1
        by 5 folds. Ctrl-C keeps the steps done.
        """
        self.step_ = advice.best_step(self, judge, steps, loss, seed) if step == "auto" else float(step)
        return advice.descended(self, judge, steps, self.step_, loss, say)

    def extend(
        self,
        pool_features: Any,
        pool_labels: Any,
        judge: Literal["core"] | tuple[Any, Any] = "core",
        batch: float = 0.02,
        limit: int | None = None,
        loss: Loss = "squared",
        say: Say = None,
    ) -> Extension:
        """Choose which examples of a pool to add to the fitted core, the most helpful first, until none helps (section 3.4).

        Core examples have weight 1 (as fitted) and judge by leave-one-out, pool examples 0 (outer weights 1 and 0); each round gives
        weight 1 to the ``batch`` (share of the pool, or a number of examples from 1 on) with the most negative derivative. Ctrl-C keeps
        the rounds done.
        """
        return advice.extended(self, pool_features, pool_labels, judge, batch, limit, loss, say)

    def suspects(self, fraction: float | None = None, threshold: float = 0.0, by: Literal["gradient", "leave_one_out", "removal"] = "gradient", judge: Judge = "leave-one-out") -> pd.DataFrame:
        """Return the examples that hurt most, worst first: row, label, what the others predict for it, derivative, value (= -derivative), residual.

        Args:
            fraction: so many of all; None: those whose score exceeds ``threshold`` (0 for the derivative, as the paper does).
            by: the derivative; the squared leave-one-out residual (no judge; for uniform label noise it finds more); or the exact gain of removal, which needs examples that judge.
        """
        frame = self.to_frame(judge)
        if by == "removal":
            if judge is None or isinstance(judge, (str, Mapping)):
                raise UserError("by='removal' needs a judge: features and labels of examples the model shall be right on")
            frame = frame.assign(removal=-self.removal_effect(judge))
        names = {"gradient": "derivative", "leave_one_out": "residual", "removal": "removal"}
        if by not in names:
            raise UserError(f"no way {by!r} to suspect{did_you_mean(by, names)}")
        if fraction is not None and not 0 < fraction <= 1:
            raise UserError(f"fraction must lie above 0 and be at most 1, not {fraction}")
        frame = frame.sort_values(names[by], ascending=False, kind="stable").reset_index(drop=True)
        return frame.head(max(1, round(fraction * len(frame)))) if fraction is not None else frame[frame[names[by]] > threshold]

    def augmentation_probabilities(self, copy_of: Any, weights: Any = None, **options: Any) -> pd.Series[float]:
        """Return with which probability each transform should be used: the share of the optimised weights that its copies get, p_k = Σ_{i in k} α_i / Σ α.

        Args:
            copy_of: [n] the transform that made each example ("original", "flip", …).
            weights: optimised ones; ``optimise(**options)`` if not given.
        """
        names = np.asarray(copy_of)
        if len(names) != len(self.solution_):
            raise UserError(f"copy_of has {len(names)} entries for {len(self.solution_)} examples")
        alpha = self.optimise(**options) if weights is None else np.asarray(weights, float)
        return pd.Series(alpha, name="probability").groupby(names, sort=False).sum() / alpha.sum()

    def to_frame(self, judge: Judge = "leave-one-out") -> pd.DataFrame:
        """Return one row an example: label, weight, leave-one-out prediction, residual (squared), margin, leverage, derivative and value = -derivative (high is good, as pyDVL has it)."""
        loo, g = self.leave_one_out(), self.gradient(judge)
        codes = self.solution_.targets.codes
        frame = pd.DataFrame({"row": np.arange(len(loo.leverage)), "weight": self.sample_weight_, "residual": np.square(loo.residuals).sum(1), "leverage": loo.leverage})
        if codes is not None:
            own = loo.predictions[np.arange(len(codes)), codes]
            others = np.where(np.eye(self.solution_.targets.outputs, dtype=bool)[codes], -np.inf, loo.predictions)
            frame.insert(1, "label", self._named(codes))
            frame.insert(2, "predicted", self._named(np.nan_to_num(loo.predictions, nan=-np.inf).argmax(1)))
            frame["margin"] = own - others.max(1)
        if self.domain_ is not None:
            frame.insert(1, "domain", self.domain_)
        if isinstance(g, pd.DataFrame):
            return frame.assign(**{f"derivative {name}": g[name].to_numpy() for name in g})
        return frame.assign(derivative=g, value=-g)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the table of examples as Parquet, and coefficients, ridge and condition number as safetensors."""
        from pathlib import Path

        from safetensors.numpy import save_file

        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        self.to_frame().to_parquet(place / "examples.parquet")
        told = {"coef": np.ascontiguousarray(self.coef_), "intercept": np.ascontiguousarray(self.intercept_), "ridge": np.array(self.ridge_), "condition": np.array(self.solution_.condition)}
        save_file(told, place / "ridge.safetensors")

    # --- inside ---

    def with_rows(self, rows: Rows, targets: Targets, weight: Array) -> Self:
        """Return the same fitted on other rows, at the same ridge."""
        made = type(self)(**{**self.get_params(), "ridge": self.ridge_})
        made.domain_, made.ridge_, made.grid_, made.classes_ = None, self.ridge_, self.grid_, self.classes_
        made.compared_ = set()
        made.solution_ = Solution(rows, targets, torch.as_tensor(weight, device=self.device), self.ridge_, self.dtype)
        made.sample_weight_ = weight.copy()
        return made

    def _rows(self, features: Any) -> Rows:
        made = Rows(features, int(self.block), self.intercept, self.device)
        if made.columns != self.solution_.rows.columns:
            raise UserError(f"features have {made.columns - self.intercept} columns; {self.solution_.rows.columns - self.intercept} were fitted")
        return made

    def _judge(self, features: Any, labels: Any) -> tuple[Tensor, Tensor]:
        """Return features V [m, d] and wanted outputs [m, outputs] of examples that judge; labels are mapped by name."""
        v, outputs = self._read(features, labels)
        self._warn_of_same_rows(v, outputs)
        return v, outputs

    def _read(self, features: Any, labels: Any) -> tuple[Tensor, Tensor]:
        if not len(labels):
            raise UserError("the judge has no examples")
        v = torch.cat([z for _, z in self._rows(features).blocks(torch.float64)])
        given = np.asarray(labels)
        wanted = Targets.of(given, self.classes_ if given.ndim == 1 else None)
        if len(v) != len(wanted):
            raise UserError(f"the judge has {len(v)} rows of features and {len(wanted)} labels")
        if not bool(torch.isfinite(v).all()):
            raise UserError("the judge's features hold values that are not finite")
        return v, wanted.part(slice(None), torch.float64, self.device)

    def _warn_of_same_rows(self, v: Tensor, outputs: Tensor) -> None:
        """Warn once of a judge that shares whole rows, features and labels, with the training."""
        if len(self.solution_) * v.shape[1] > SAME_ROWS_UP_TO:
            return
        judging = _whole_rows(v, outputs)
        key = hash(tuple(judging))
        if key in self.compared_:
            return
        self.compared_.add(key)
        solution = self.solution_
        training: list[bytes] = []
        for place, z in solution.rows.blocks(torch.float64):
            fitted = solution.targets.part(place, torch.float64, self.device)
            training += _whole_rows(z, fitted)
        if same := shared_rows(training, judging):
            told = f"{same} of the judge's {len(v)} examples are training examples too"
            warnings.warn(f"{told}: use judge='leave-one-out'", UserWarning, stacklevel=5)

    def compared(self, judge: tuple[Any, Any]) -> None:
        """Do not compare a judge's rows with the training: its ids have told which are shared."""
        self.compared_.add(hash(tuple(_whole_rows(*self._read(*judge)))))

    def _domain(self, given: Any) -> Array:
        found = self.domain_ if given is None else np.asarray(given)
        if found is None:
            raise UserError("leaving domains out needs to know them: fit(…, domain=…)")
        if len(np.unique(found)) < 2:
            raise UserError(f"all examples are of domain {found[0]!r}: leaving it out leaves nothing")
        return found

    def _codes(self, what: str) -> Array:
        codes = self.solution_.targets.codes
        if codes is None:
            raise UserError(f"{what} needs classes; these labels are numbers")
        return codes


def _whole_rows(z: Tensor, y: Tensor) -> list[bytes]:
    return [row.tobytes() for row in torch.cat([z, y], 1).cpu().numpy()]


def _weights(given: Any, n: int, device: str) -> Tensor:
    if given is None:
        return torch.ones(n, dtype=torch.float64, device=device)
    w = np.asarray(given, float).reshape(-1)
    if len(w) != n:
        raise UserError(f"weights have {len(w)} entries for {n} examples")
    bad = ~(np.isfinite(w) & (w >= 0))
    if bad.any() or not w.any():
        told = f": weight[{int(bad.argmax())}] = {w[bad.argmax()]:g}" if bad.any() else ": all are 0"
        raise UserError(f"weights must be non-negative and not all zero{told}")
    return torch.as_tensor(w, device=device)


def _several(judge: Any) -> Mapping[str, tuple[Any, Any]]:
    return judge if isinstance(judge, Mapping) else {"judge": judge}
