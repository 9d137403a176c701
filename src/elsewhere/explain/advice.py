"""What to do about examples that hurt: weights by a few descent steps, and which of a pool to add (Dukler et al. 2022, section 3.4)."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.explain.judging import Loss
from elsewhere.explain.rows import Rows, Targets

if TYPE_CHECKING:
    from elsewhere.explain.dataset_derivative import DatasetDerivative

STEPS = (0.0, 0.1, 0.3, 1.0)
Say = Callable[[str], None] | None


@dataclass(frozen=True)
class Extension:
    """What ``extend`` chose of a pool: rows in order, one row of ``rounds`` a round, and why it stopped."""

    order: Array
    rounds: pd.DataFrame
    stopped_because: str


def descended(d: DatasetDerivative, judge: Any, steps: int, size: float, loss: Loss, say: Say = None) -> Array:
    """Return weights [n] after α ← max(α - η g, 0), refitted between the steps; Ctrl-C keeps the steps done."""
    at = d
    weight = d.sample_weight_.copy()
    for k in range(steps if size > 0 else 0):
        try:
            moved = np.maximum(weight - size * at.gradient(judge, loss), 0)
            if not moved.any():
                warnings.warn(f"a step of {size:g} leaves no example any weight; the weights before it are kept", UserWarning, stacklevel=3)
                break
            weight = moved
            if say is not None:
                say(f"weights, step {k + 1} of {steps}")
            if k + 1 < steps:
                at = at.reweighted(weight)
        except KeyboardInterrupt:
            warnings.warn(f"stopped after {k} of {steps} steps, which are kept", UserWarning, stacklevel=3)
            break
    return weight


def best_step(d: DatasetDerivative, judge: Any, steps: int, loss: Loss, seed: int = 0) -> float:
    """Return the step of STEPS with the least unweighted squared error on the fifth fold, optimised on four: of the training examples, or of those that judge."""
    if isinstance(judge, Mapping):
        raise UserError("weights are optimised for one judge; join several into one")
    errors = _errors_on_own_folds if judge is None or isinstance(judge, str) else _errors_on_folds_of_the_judge
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        total = np.sum([errors(d, judge, steps, loss, fold, seed) for fold in range(5)], axis=0)
    return STEPS[int(np.argmin(total))]


def _errors_on_folds_of_the_judge(d: DatasetDerivative, judge: Any, steps: int, loss: Loss, fold: int, seed: int) -> list[float]:
    v, u = (np.asarray(part) for part in judge)
    held = np.random.default_rng(seed).permutation(len(u)) % 5 == fold
    if held.all() or not held.any():
        raise UserError(f"a judge of {len(u)} examples is too small for step='auto'; give a number")
    made = [d.reweighted(descended(d, (v[~held], u[~held]), steps, size, loss)) for size in STEPS]
    return [m.judged((v[held], u[held])) for m in made]


def _errors_on_own_folds(d: DatasetDerivative, judge: Any, steps: int, loss: Loss, fold: int, seed: int) -> list[float]:
    rows, targets = d.solution_.rows, d.solution_.targets
    held = np.random.default_rng(seed).permutation(len(targets)) % 5 == fold
    kept, out = np.flatnonzero(~held), np.flatnonzero(held)
    inner = d.with_rows(Rows(rows.at(kept)[:, : rows.columns - d.intercept], rows.block, d.intercept, d.device), Targets(targets.values[kept], targets.classes), d.sample_weight_[kept])
    inner.domain_ = None if d.domain_ is None else d.domain_[kept]
    v, wanted = rows.at(out), targets.part(out, torch.float64, d.device)
    return [float((v @ inner.reweighted(descended(inner, judge, steps, size, loss)).solution_.coefficients - wanted).square().sum()) for size in STEPS]


def extended(d: DatasetDerivative, pool_features: Any, pool_labels: Any, judge: Any, batch: float, limit: int | None, loss: Loss, say: Say) -> Extension:
    """Return what of a pool to add to the fitted core: the most negative derivatives get weight 1, round by round, until none is negative. Core and pool are held in memory."""
    core, pool = d.solution_, Targets.of(pool_labels, d.classes_)
    extra = Rows(pool_features, core.rows.block, False, d.device)
    x = torch.cat([core.rows.at(np.arange(len(core)))[:, : core.rows.columns - d.intercept], *(z for _, z in extra.blocks(torch.float64))])
    size = max(1, round(batch * len(pool))) if batch < 1 else int(batch)
    targets = Targets(np.concatenate([core.targets.values, pool.values]), core.targets.classes)
    weight = np.concatenate([d.sample_weight_, np.zeros(len(pool))])
    outer = np.concatenate([np.ones(len(core)), np.zeros(len(pool))])
    order: list[int] = []
    rounds: list[dict[str, Any]] = []
    why = "the pool is used up"
    made = d.with_rows(Rows(x, core.rows.block, d.intercept, d.device), targets, weight)
    while len(order) < len(pool):
        try:
            g = made.gradient("leave-one-out" if judge == "core" else judge, loss, outer if judge == "core" else None)[len(core) :]
            g[order] = np.inf
            room = min(size, len(pool) - len(order), (limit or len(pool)) - len(order))
            chosen = np.argsort(g, kind="stable")[:room]
            chosen = chosen[g[chosen] < 0]
            if not len(chosen):
                why = "no example of the pool helps any more" if room else f"the limit of {limit} is reached"
                break
            gained = float(g[chosen].sum())
            order += chosen.tolist()
            weight[len(core) + chosen] = 1
            made = made.reweighted(weight)
            residual = made.solution_.leave_one_out()[0][: len(core)]
            rounds.append({"round": len(rounds) + 1, "added": len(order), "derivative": gained, "error of core": float(np.nanmean(np.square(residual).sum(1)))})
            if say is not None:
                say(f"extension, round {len(rounds)}: {len(order)} of {len(pool)} added")
        except KeyboardInterrupt:
            order, why = order[: rounds[-1]["added"] if rounds else 0], f"stopped after {len(rounds)} rounds, which are kept"
            break
    return Extension(np.array(order, int), pd.DataFrame(rounds, columns=["round", "added", "derivative", "error of core"]), why)
