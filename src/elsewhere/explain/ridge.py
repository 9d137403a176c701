"""Weighted ridge regression in three passes over the rows, its leave-one-out predictions and their derivatives (Dukler et al. 2022).

    W = C Zᵀ D_α Y    A = Zᵀ D_α Z + Λ    C = A⁻¹    E = Y - Z W    h_i = z_iᵀ C z_i    d_i = 1 - α_i h_i

No matrix of examples by examples is made: memory is D² and one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.explain.judging import Loss, slopes
from elsewhere.explain.rows import Rows, Targets

MIXED_UP_TO = 1e4  # condition of A; beyond it the gradient of single-precision passes is wrong by a percent and more (spec 13, section 9)
UNDEFINED = 1e-8  # d_i below this: nothing else determines the example's own prediction
Reduce = Callable[[Tensor], Tensor]


def alone(total: Tensor) -> Tensor:
    """One process: a sum over its rows is the sum."""
    return total


@dataclass
class Moments:
    """What one pass over the rows adds up: Zᵀ D_α Z [d, d] and Zᵀ D_α Y [d, outputs], in float64."""

    gram: Tensor
    cross: Tensor
    count: int = 0

    @classmethod
    def of(cls, rows: Rows, targets: Targets, weight: Tensor, reduce: Reduce = alone) -> Moments:
        """Add up the rows of this process, then those of all (``reduce`` sums over processes)."""
        d = rows.columns
        gram, cross = torch.zeros(d, d, dtype=torch.float64, device=rows.device), torch.zeros(d, targets.outputs, dtype=torch.float64, device=rows.device)
        bad, first, n = 0, None, 0
        for place, z in rows.blocks(torch.float64):
            if place.stop > len(targets):
                n = place.stop
                continue
            if not bool(torch.isfinite(z.sum())):
                finite = torch.isfinite(z)
                if not finite.all():
                    at = torch.nonzero(~finite)
                    first = first or (place.start + int(at[0, 0]), int(at[0, 1]))
                    bad += len(at)
                    n = place.stop
                    continue
            scaled = z * weight[place, None]
            gram += scaled.T @ z
            cross += scaled.T @ targets.part(place, torch.float64, rows.device)
            n = place.stop
        if first is not None:
            raise UserError(f"features hold {bad} values that are not finite, the first at row {first[0]}, column {first[1]}")
        if n != len(targets):
            raise UserError(f"features have {n} rows, labels {len(targets)}")
        return cls(reduce(gram), reduce(cross), n)


@dataclass
class Solution:
    """A ridge regression solved: inverse C, weights W, and the rows it stands on.

    Args:
        rows, targets, weight: what was fitted; ``weight`` is α [n], float64.
        ridge: λ; the constant column is not penalised.
        precision: of the passes after the factorisation, "float64" or "mixed" (single; refused where A is ill-conditioned).
        reduce: sums a tensor over processes that hold parts of the rows.
    """

    rows: Rows
    targets: Targets
    weight: Tensor
    ridge: float
    precision: str = "float64"
    reduce: Reduce = alone
    moments: Moments | None = None
    inverse: Tensor = field(init=False)
    coefficients: Tensor = field(init=False)
    condition: float = field(init=False)

    def __post_init__(self) -> None:
        self.moments = self.moments or Moments.of(self.rows, self.targets, self.weight, self.reduce)
        self.inverse, self.condition = inverted(self.moments.gram + self.penalty, self.ridge)
        self.coefficients = self.inverse @ self.moments.cross
        if self.precision == "mixed" and self.condition > MIXED_UP_TO:
            raise UserError(f"dtype='mixed' loses the gradient where features are ill-conditioned (condition {self.condition:.0e}, at most {MIXED_UP_TO:.0e}): use dtype='float64' or a larger ridge")

    @property
    def penalty(self) -> Tensor:
        """Λ = λ diag(1, …, 1, 0)."""
        diagonal = torch.full((self.rows.columns,), self.ridge, dtype=torch.float64, device=self.rows.device)
        if self.rows.intercept:
            diagonal[-1] = 0
        return torch.diag(diagonal)

    @property
    def dtype(self) -> Any:
        return torch.float32 if self.precision == "mixed" else torch.float64

    def __len__(self) -> int:
        return len(self.targets)

    def predict(self, rows: Rows) -> Tensor:
        """Return Z W of other rows [m, outputs]."""
        return torch.cat([z @ self.coefficients for _, z in rows.blocks(torch.float64)])

    def passes(self) -> Iterator[tuple[slice, Tensor, Tensor, Tensor, Tensor]]:
        """Yield place, Z, the residual E, the leverage h and the weight α of each block."""
        w, c = self.coefficients.to(self.dtype), self.inverse.to(self.dtype)
        for place, z in self.rows.blocks(self.dtype):
            e = self.targets.part(place, self.dtype, self.rows.device) - z @ w
            yield place, z, e, ((z @ c) * z).sum(1), self.weight[place].to(self.dtype)

    def leave_one_out(self) -> tuple[Array, Array]:
        """Return the residuals R [n, outputs] that each example has if it is left out, and its leverage h [n]; NaN where nothing else determines it."""
        residual, leverage = np.empty((len(self), self.targets.outputs)), np.empty(len(self))
        for place, _, e, h, alpha in self.passes():
            d = 1 - alpha * h
            residual[place] = torch.where((d > UNDEFINED)[:, None], e / d[:, None], torch.nan).cpu().numpy()
            leverage[place] = h.cpu().numpy()
        return residual, leverage

    def leave_one_out_gradient(self, loss: Loss = "squared", outer: Tensor | None = None) -> Array:
        """Return the derivative [n] of the leave-one-out loss Σ_i v_i ℓ(P_i, Y_i) by the weight of each example.

        With G = ∂L/∂P and s_i = ⟨G_i, E_i⟩ / d_i²:  S₁ = C Zᵀ(G/d),  M = C (Zᵀ diag(α s) Z) C,
        g = rowsum((Z S₁) ⊙ E) + rowsum((Z M) ⊙ Z) - s ⊙ h.  The three terms cancel for an example's own weight.
        Derived in spec 13, 2.3; the paper's appendix has it.
        """
        given = self._slopes_of_all(loss, outer) if callable(loss) else None
        d_ = self.rows.columns
        first = torch.zeros(d_, self.targets.outputs, dtype=torch.float64, device=self.rows.device)
        second = torch.zeros(d_, d_, dtype=torch.float64, device=self.rows.device)
        s_all, h_all = torch.empty(len(self), dtype=torch.float64), torch.empty(len(self), dtype=torch.float64)
        undefined = 0
        for place, z, e, h, alpha in self.passes():
            d = 1 - alpha * h
            undefined += int((d <= UNDEFINED).sum())
            y = e + z @ self.coefficients.to(self.dtype)
            g = slopes(loss, y - e / d[:, None], y) if given is None else given[place].to(z)
            if outer is not None:
                g = g * outer[place, None].to(g)
            s = (g * e).sum(1) / d.square()
            first += (z.T @ (g / d[:, None])).double()
            second += (z.T @ ((alpha * s)[:, None] * z)).double()
            s_all[place], h_all[place] = s.double().cpu(), h.double().cpu()
        if undefined:
            raise UserError(f"{undefined} examples alone determine their own prediction (leverage 1), so leaving them out is undefined; raise ridge")
        s1, m = (self.inverse @ self.reduce(first)).to(self.dtype), (self.inverse @ self.reduce(second) @ self.inverse).to(self.dtype)
        found = np.empty(len(self))
        for place, z in self.rows.blocks(self.dtype):
            e = self.targets.part(place, self.dtype, self.rows.device) - z @ self.coefficients.to(self.dtype)
            found[place] = (((z @ s1) * e).sum(1) + ((z @ m) * z).sum(1)).cpu().numpy()
        return np.asarray(found - (s_all * h_all).numpy())

    def _slopes_of_all(self, loss: Loss, outer: Tensor | None) -> Tensor:
        """Return ∂L/∂P [n, outputs] of a loss over all predictions at once."""
        y = self.targets.part(slice(None), torch.float64)
        return slopes(loss, y - torch.from_numpy(self.leave_one_out()[0]), y).to(self.rows.device)

    def directions(self, judges: Mapping[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Return S = C Vᵀ G of each judge, stacked [d, judges · outputs]; a judge is features V [m, d] and slopes G [m, outputs]."""
        return torch.cat([self.inverse @ (v.T @ g) for v, g in judges.values()], 1)

    def gradient(self, judges: Mapping[str, tuple[Tensor, Tensor]]) -> Array:
        """Return the derivative [n, judges] of each judge's loss by the weight of each example: g = rowsum((Z S) ⊙ E) (Prop. 2), all judges in one pass."""
        s = self.directions(judges).to(self.dtype)
        found = np.empty((len(self), len(judges)))
        for place, z in self.rows.blocks(self.dtype):
            e = self.targets.part(place, self.dtype, self.rows.device) - z @ self.coefficients.to(self.dtype)
            found[place] = ((z @ s).view(len(z), len(judges), -1) * e[:, None]).sum(2).cpu().numpy()
        return found

    def changed_by(self, v: Tensor, g: Tensor, to: float | None = 0.0, step: float | None = None) -> Array:
        """Return the exact change [n] of a judge's squared error when each weight alone becomes ``to``, or grows by ``step``.

        ΔL = c g_j + c² ‖E_j‖² q_j with c = t / (1 + t h_j), q_j = z_jᵀ C VᵀV C z_j (spec 13, 2.4); removing is t = -α_j.
        """
        s, q = (self.inverse @ (v.T @ g)).to(self.dtype), (self.inverse @ (v.T @ v) @ self.inverse).to(self.dtype)
        found = np.empty(len(self))
        for place, z, e, h, alpha in self.passes():
            t = torch.full_like(alpha, step) if step is not None else (to or 0.0) - alpha
            c = t / (1 + t * h)
            slope, curve = ((z @ s) * e).sum(1), ((z @ q) * z).sum(1)
            change = c * slope + c.square() * e.square().sum(1) * curve
            found[place] = torch.where(1 + t * h > UNDEFINED, change, torch.nan).cpu().numpy()
        return found

    def relabelled(self, v: Tensor, g: Tensor) -> Array:
        """Return the exact change [n, classes] of a judge's squared error when each example alone gets each label.

        ΔL = α_j ⟨Sᵀz_j, Y' - Y_j⟩ + α_j² q_j ‖Y' - Y_j‖² (spec 13, 2.4).
        """
        s, q = (self.inverse @ (v.T @ g)).to(self.dtype), (self.inverse @ (v.T @ v) @ self.inverse).to(self.dtype)
        found = np.empty((len(self), self.targets.outputs))
        for place, z, _, _, alpha in self.passes():
            y = self.targets.part(place, self.dtype, self.rows.device)
            pull, curve = z @ s, ((z @ q) * z).sum(1, keepdim=True)
            apart = y.square().sum(1, keepdim=True) + 1 - 2 * y  # ‖e_c - Y‖²
            found[place] = (alpha[:, None] * (pull - (pull * y).sum(1, keepdim=True)) + alpha.square()[:, None] * curve * apart).cpu().numpy()
        return found

    def without(self, rows: Array) -> Tensor:
        """Return the coefficients [d, outputs] when a set of rows is left out, exactly: m × m algebra, or a smaller factorisation where the set is larger than d."""
        z, alpha = self.rows.at(rows), self.weight[torch.as_tensor(np.asarray(rows))]
        y = self.targets.part(np.asarray(rows), torch.float64, self.rows.device)
        if len(z) <= z.shape[1]:
            k = z @ self.inverse @ z.T
            system = torch.eye(len(z), dtype=torch.float64, device=z.device) - k * alpha
            return self.coefficients - self.inverse @ (z.T @ (alpha[:, None] * torch.linalg.solve(system, y - z @ self.coefficients)))
        assert self.moments is not None
        scaled = z * alpha[:, None]
        inverse, _ = inverted(self.moments.gram + self.penalty - scaled.T @ z, self.ridge)
        return inverse @ (self.moments.cross - scaled.T @ y)


def inverted(a: Tensor, ridge: float) -> tuple[Tensor, float]:
    """Return A⁻¹ by Cholesky, and A's condition number as LAPACK estimates it.

    Raises:
        UserError: A has no full rank.
    """
    from scipy.linalg.lapack import dpocon

    factor, info = torch.linalg.cholesky_ex(a)
    diagonal = torch.diagonal(factor).abs()
    if int(info) or not bool(torch.isfinite(diagonal).all()) or float(diagonal.min()) ** 2 < 1e-14 * float(torch.diagonal(a).abs().max()) * (ridge == 0):
        pivot = float(torch.linalg.eigvalsh(a)[0]) if bool(torch.isfinite(a).all()) else float("nan")
        raise UserError(f"ridge={ridge:g} needs features of full column rank; the smallest pivot is {abs(pivot):.0e}: try ridge={max(1e-6, 10 * ridge):g}")
    reciprocal, _ = dpocon(factor.cpu().numpy(), float(a.abs().sum(0).max()), uplo="L")
    return torch.cholesky_inverse(factor), float(1 / reciprocal) if reciprocal > 0 else float("inf")


def best_ridge(rows: Rows, targets: Targets, weight: Tensor, points: int = 30, reduce: Reduce = alone) -> tuple[float, Array, Array]:
    """Return the ridge with the least leave-one-out squared error, the grid and its errors: one eigendecomposition for all (spec 13, 2.8).

    The constant column is taken out by (weighted) centring: h_i = 1/Σα + z_cᵀ (Q (ℓ + λ)⁻¹ Qᵀ) z_c. The grid is 10⁻⁶ … 10³ times the mean diagonal of ZᵀZ / n.
    """
    moments = Moments.of(rows, targets, weight, reduce)
    total = float(reduce(weight.sum()))
    if rows.intercept:
        mean_z, mean_y = moments.gram[-1, :-1] / total, moments.cross[-1] / total
        gram = moments.gram[:-1, :-1] - total * torch.outer(mean_z, mean_z)
        cross = moments.cross[:-1] - total * torch.outer(mean_z, mean_y)
    else:
        mean_z, mean_y, gram, cross = torch.zeros(rows.columns, dtype=torch.float64, device=rows.device), moments.cross.new_zeros(targets.outputs), moments.gram, moments.cross
    level, axes = torch.linalg.eigh(gram)
    level = level.clamp(min=0)
    raw = torch.diagonal(moments.gram)[: len(level)].mean() / total
    grid = np.logspace(-6, 3, points) * max(float(raw), 1e-12)
    shrink = 1 / (level[:, None] + torch.as_tensor(grid, device=level.device))  # [d, points]
    weights = (shrink[:, :, None] * (axes.T @ cross)[:, None, :]).flatten(1)  # [d, points · outputs]
    errors = torch.zeros(points, dtype=torch.float64, device=rows.device)
    for place, z in rows.blocks(torch.float64):
        x = (z[:, : len(level)] - mean_z) @ axes
        h = x.square() @ shrink + (1 / total if rows.intercept else 0.0)
        fitted = mean_y + (x @ weights).view(len(z), points, -1)
        e = targets.part(place, torch.float64, rows.device)[:, None] - fitted
        d = (1 - weight[place, None] * h).clamp(min=UNDEFINED)
        errors += ((e / d[:, :, None]).square().sum(2) * (weight[place, None] > 0)).sum(0)
    found = reduce(errors).cpu().numpy()
    return float(grid[int(np.argmin(found))]), grid, found
