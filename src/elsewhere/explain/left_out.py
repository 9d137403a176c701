"""Whole domains (or units) left out together: their predictions, the derivative of the loss on them, and who is to blame for a judge's loss (spec 13, 2.5)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from elsewhere.data import Array
from elsewhere.explain.judging import Loss, judged, slopes
from elsewhere.explain.ridge import Solution, inverted

RESAMPLES = 1000


@dataclass(frozen=True)
class _Part:
    """One domain: its rows, their features and outputs, and what is fitted without it."""

    rows: Array
    z: Tensor
    y: Tensor
    alpha: Tensor
    inverse: Tensor
    coefficients: Tensor


def _parts(solution: Solution, domain: Array) -> Iterator[tuple[str, _Part]]:
    """Yield each domain with what is fitted without it, one at a time: of a thousand units not all inverses fit in memory."""
    assert solution.moments is not None
    for name in np.unique(domain):
        rows = np.flatnonzero(domain == name)
        z, alpha = solution.rows.at(rows), solution.weight[torch.as_tensor(rows)]
        y = solution.targets.part(rows, torch.float64, solution.rows.device)
        scaled = z * alpha[:, None]
        if len(rows) < z.shape[1] // 4:  # Woodbury: A_k⁻¹ = C + C Zᵀ D (I - K D)⁻¹ Z C
            inner = torch.linalg.solve(torch.eye(len(rows), dtype=torch.float64, device=z.device) - (z @ solution.inverse @ z.T) * alpha, z @ solution.inverse)
            inverse = solution.inverse + solution.inverse @ scaled.T @ inner
        else:
            inverse, _ = inverted(solution.moments.gram + solution.penalty - scaled.T @ z, solution.ridge)
        yield str(name), _Part(rows, z, y, alpha, inverse, inverse @ (solution.moments.cross - scaled.T @ y))


def leave_domain_out(solution: Solution, domain: Array) -> Array:
    """Return the predictions [n, outputs] of each example by what is fitted on all other domains."""
    _warn_of_lost_classes(solution, domain)
    found = np.empty((len(solution), solution.targets.outputs))
    for _, part in _parts(solution, domain):
        found[part.rows] = (part.z @ part.coefficients).cpu().numpy()
    return found


def leave_domain_out_gradient(solution: Solution, domain: Array, loss: Loss = "squared", outer: Tensor | None = None) -> Array:
    """Return the derivative [n] of the loss on domains that are left out in turn: which examples hurt places that were not seen?

    With S_k = A_k⁻¹ Z_Iᵀ G_I of domain k with rows I, every j outside it gets ⟨z_jᵀ S_k, Y_j - W_kᵀ z_j⟩, summed over k.
    """
    _warn_of_lost_classes(solution, domain)
    found = np.zeros(len(solution))
    for _, part in _parts(solution, domain):
        g = slopes(loss, part.z @ part.coefficients, part.y)
        if outer is not None:
            g = g * outer[torch.as_tensor(part.rows), None].to(g)
        s = part.inverse @ (part.z.T @ g)
        outside = np.ones(len(solution), bool)
        outside[part.rows] = False
        for place, z in solution.rows.blocks(torch.float64):
            e = solution.targets.part(place, torch.float64, solution.rows.device) - z @ part.coefficients
            found[place] += ((z @ s) * e).sum(1).cpu().numpy() * outside[place]
    return found


def blame(solution: Solution, domain: Array, judges: Mapping[str, tuple[Tensor, Tensor]], loss: Loss = "squared", interval: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Return domain × judge: what scaling a domain's weights does to the judge's loss, with bootstrap intervals over its examples, and what leaving the domain out does, exactly.

    B[k, t] = Σ_{j in k} α_j g_j = Σ over judged examples of rowsum((V C T_k) ⊙ G), T_k = Z_IᵀD_IE_I. Shares are of the judge's loss.

    Args:
        judges: features and wanted outputs by name.
    """
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    told = {}
    for judge, (v, wanted) in judges.items():
        predicted = v @ solution.coefficients
        drawn = rng.multinomial(len(v), np.full(len(v), 1 / len(v)), size=RESAMPLES)
        told[judge] = (v, wanted, float(judged(loss, predicted, wanted)), slopes(loss, predicted, wanted), drawn)
    for name, part in _parts(solution, domain):
        pull = solution.inverse @ (part.z.T @ (part.alpha[:, None] * (part.y - part.z @ solution.coefficients)))
        for judge, (v, wanted, whole, g, drawn) in told.items():
            each = ((v @ pull) * g).sum(1).cpu().numpy()
            low, high = np.quantile(drawn @ each, [(1 - interval) / 2, (1 + interval) / 2])
            removed = float(judged(loss, v @ part.coefficients, wanted)) - whole
            blamed = float(each.sum())
            row = {"domain": name, "judge": judge, "examples": len(part.rows), "blame": blamed, "blame low": float(low), "blame high": float(high)}
            rows.append({**row, "share": blamed / whole if whole else float("nan"), "removal": removed, "removal share": removed / whole if whole else float("nan")})
    return pd.DataFrame(rows)


def _warn_of_lost_classes(solution: Solution, domain: Array) -> None:
    codes = solution.targets.codes
    if codes is None:
        return
    for k in np.unique(codes):
        places = np.unique(domain[codes == k])
        if len(places) == 1:
            name = k if solution.targets.classes is None else solution.targets.classes[k]
            warnings.warn(f"class {name} occurs in domain {places[0]} only: left out, nothing can predict it", UserWarning, stacklevel=3)
