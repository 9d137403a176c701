"""The outcome of actions that are stronger than any that was tried (spec 05, C)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elsewhere.batching import in_batches, order
from elsewhere.causal.codecs import NetworkCodec, scales
from elsewhere.causal.data import Actions
from elsewhere.causal.learning import CausalLearner, assumed
from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.nn.building import build
from elsewhere.nn.learners import seeded
from elsewhere.prediction import ValuePrediction
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.training import Descent, adam, train

WARM_UP = 0.2  # of the steps in which the penalty rises
RESIDUALS = 4000  # v̂ that an outcome is averaged over
ELLIPSOID = 0.995  # of the training codes lie within it
LEVELS = 5  # of each dimension of an action, below which linearity cannot be tested
CENTRES = (200, 100)
RIDGE = 1e-6


@dataclass(frozen=True)
class Effect(ValuePrediction):
    """Mean outcomes [n], and for each the share of ẑ under the action that lies where no training code did."""

    extrapolation_fraction: Array | None = None


class Acted(NamedTuple):
    x: Tensor
    action: Tensor
    penalty: Tensor


def moment_restriction(codes: Tensor, action: Tensor) -> Tensor:
    """Return MMR = n⁻² Σ_ij k(a_i, a_j) r_i · r_j, r the residuals of least squares of codes on (1, a); 0 iff E[φ | a] is linear in a.

    k is a Gaussian kernel whose bandwidth is the median distance of actions. Gradients flow through the least squares.

    Args:
        codes: [b, n].
        action: [b, k].

    Examples:
        >>> a = torch.linspace(0, 1, 8, dtype=torch.float64)[:, None]
        >>> bool(moment_restriction(3 * a + 1, a) < 1e-9 < moment_restriction(a**2, a))
        True
    """
    design = torch.cat([torch.ones_like(action[:, :1]), action], 1)
    gram = design.T @ design + 1e-6 * torch.eye(design.shape[1], device=codes.device)
    r = codes - design @ torch.linalg.solve(gram, design.T @ codes)
    square = torch.cdist(action, action).square()
    kernel = torch.exp(-square / (2 * square[square > 0].median().clamp(min=1e-12))) if bool((square > 0).any()) else torch.ones_like(square)
    return (r * (kernel @ r)).sum() / len(codes) ** 2


@dataclass
class InterventionExtrapolation(CausalLearner[Actions]):
    """Predict E[y given do(a*)] for actions beyond those that were tried (Saengkyongam et al. 2024, Rep4Ex; derived anew, see the docs).

    Assumes z = M a + v with v independent of a and M of full row rank, x = g(z) with g injective, y = ℓ(z) + u; u and v may depend. An autoencoder whose code
    is on average linear in the action is affine in z; with v̂ = φ - α̂ - Ŵ a, an additive regression of y on φ and v̂ identifies ℓ, and

        E[y given do(a*)] = mean_i [ν(Ŵ a* + α̂ + v̂_i) + ψ(v̂_i)]

    is valid as long as Ŵ a* + v̂_i stays where codes were seen: ``extrapolation_fraction`` says how much does not.

    Args:
        latents: how many; default: as many as dimensions of the action.
        encoder: "autoencoder", or "identity" where x is an affine map of the latents.
        penalty: ρ of the restriction, rising from 0 over the first fifth of the steps.
        regression: "networks" (two perceptrons, added), or "kernel" (ridge on radial features, closed form).
        control: use v̂; without it the confounding stays (an ablation).
        width, depth: of encoder and decoder.
        epochs, batch, learning_rate: of Adam.

    Examples:
        >>> from elsewhere.causal.worlds import action_world
        >>> data = action_world(oracle=True).draw(300, np.random.default_rng(0))
        >>> model = InterventionExtrapolation(encoder="identity", regression="kernel").fit(Source(data))
        >>> model.effect(np.array([[1.0, 0.0]])).mean.shape
        (1,)
    """

    no_graph: ClassVar[str] = "it finds latents up to an affine map, and no graph; ask effect(action) for outcomes"

    latents: int | None = None
    encoder: Literal["autoencoder", "identity"] = "autoencoder"
    penalty: float = 10.0
    regression: Literal["networks", "kernel"] = "networks"
    control: bool = True
    width: int = 128
    depth: int = 2
    epochs: int = 200
    batch: int = 512
    learning_rate: float = 1e-3

    @property
    def accepts(self) -> type:
        return Actions

    def refuses(self, source: Source[Any]) -> str | None:
        data = source.train
        if data.inputs is None or data.outcome is None:
            return "it needs observations x and outcomes y of the source"
        distinct = len(np.unique(np.asarray(data.action), axis=0))
        n, k = self._count(data), np.shape(data.action)[1]
        if distinct <= k:
            return f"the source has {distinct} distinct actions of {k} dimensions, too few to say what each dimension does: at least {k + 1}"
        if n > k:
            return f"actions of {k} dimensions cannot move {n} latents in every direction (M needs full row rank): latents={k} or fewer"
        return None

    def fit(self, source: Source[Actions], run: Run = Run()) -> Self:
        if reason := self.refuses(source):
            raise UserError(reason)
        data = source.train
        n, action = self._count(data), np.asarray(data.action, float)
        self.center_, self.spread_ = scales(data.inputs)
        x = self._codec().seen(data.inputs)
        self.network_ = None if self.encoder == "identity" else self._autoencoder(x, action, n, run)
        phi = self._code(data.inputs)
        self.shift_, self.scale_ = phi.mean(0), np.where(phi.std(0) > 0, phi.std(0), 1.0)
        phi = (phi - self.shift_) / self.scale_
        design = np.c_[np.ones(len(action)), action]
        self.linear_ = np.linalg.lstsq(design, phi, rcond=None)[0]
        v = phi - design @ self.linear_
        self.residuals_ = v[run.rng("residuals").permutation(len(v))[:RESIDUALS]]
        self.precision_ = np.linalg.inv(np.cov(phi.T).reshape(n, n) + 1e-9 * np.eye(n))
        self.reach_ = float(np.quantile(self._distance(phi), ELLIPSOID))
        self._regress(phi, v, np.asarray(data.outcome, float), run)
        self.model_ = None
        self.assumptions_ = self._assumptions(phi, v, action)
        return self

    def effect(self, action: Array) -> Effect:
        """Return E[y given do(a*)] of actions [q, k], and for each the share of ẑ outside what was seen.

        Warns where that share is above a half.
        """
        asked = np.atleast_2d(np.asarray(action, float))
        there = (np.c_[np.ones(len(asked)), asked] @ self.linear_)[:, None] + self.residuals_[None]
        flat, v = there.reshape(-1, there.shape[2]), np.tile(self.residuals_, (len(asked), 1))
        mean = self._outcome(flat, v).reshape(len(asked), -1).mean(1)
        outside = (self._distance(flat) > self.reach_).reshape(len(asked), -1).mean(1)
        if outside.max(initial=0) > 0.5:
            warnings.warn(f"{outside.max():.0%} of the latents under an action lie where none was seen (extrapolation_fraction): its outcome is a guess", UserWarning, stacklevel=2)
        return Effect(mean, None, outside)

    def predict(self, data: Any, run: Run = Run()) -> Any:
        """Return the effect of actions that were not observed (``inputs`` None), else the outcome of those that were."""
        if data.inputs is None:
            return self.effect(data.action)
        phi = self.represent(data, run)
        return Effect(self._outcome(phi, phi - np.c_[np.ones(len(phi)), data.action] @ self.linear_))

    def represent(self, data: Any, run: Run = Run()) -> Array:
        """Return the latents [N, n] of observations; of actions that were not observed the mean latents under them."""
        if data.inputs is None:
            return np.asarray(np.c_[np.ones(len(data)), data.action] @ self.linear_)
        return self.encode(data.inputs)

    def encode(self, x: Any) -> Array:
        return (self._code(x) - self.shift_) / self.scale_

    def _count(self, data: Actions) -> int:
        return self.latents or (np.shape(data.inputs)[1] if self.encoder == "identity" else np.shape(data.action)[1])

    def _codec(self) -> NetworkCodec:
        return NetworkCodec(None, None, self.center_, self.spread_)

    def _code(self, x: Any) -> Array:
        seen = self._codec().seen(x)
        return np.asarray(seen, float).reshape(len(seen), -1) if self.network_ is None else in_batches(self.network_, seen, Run(progress=False), output=None).astype(float)

    def _autoencoder(self, x: Any, action: Array, n: int, run: Run) -> Any:
        network = seeded(run, lambda: build("linear-in-actions", shape=[int(s) for s in np.shape(x)[1:]], head=False, latents=n, width=self.width, depth=self.depth))
        seen, told = torch.as_tensor(np.asarray(x, np.float32)), torch.as_tensor(action, dtype=torch.float32)
        size = min(self.batch, len(seen))
        rows, steps = order(len(seen), run, size), self.epochs * max(1, len(seen) // size)

        def draw(step: int) -> Acted:
            at = rows(step)
            return Acted(seen[at], told[at], torch.tensor(self.penalty * min(1.0, step / max(1.0, WARM_UP * steps))))

        def loss(module: Any, batch: Acted) -> Tensor:
            codes = module(batch.x)
            made = module.decoder(codes)
            return functional.mse_loss(made, batch.x) + batch.penalty * moment_restriction(codes, batch.action)

        train(Descent(network, loss, adam(self.learning_rate)), draw, run, steps=steps)
        return network

    def _regress(self, phi: Array, v: Array, y: Array, run: Run) -> None:
        self.outcome_mean_, self.outcome_spread_ = float(y.mean()), float(y.std()) or 1.0
        wanted = (y - self.outcome_mean_) / self.outcome_spread_
        self.spread_of_v_ = np.where(v.std(0) > 0, v.std(0), 1.0)
        if self.regression == "kernel":
            rng = run.rng("centres")
            self.centres_ = [phi[rng.permutation(len(phi))[: CENTRES[0]]], v[rng.permutation(len(v))[: CENTRES[1]]] / self.spread_of_v_]
            features = self._features(phi, v)
            self.weights_ = np.linalg.solve(features.T @ features / len(y) + RIDGE * np.eye(features.shape[1]), features.T @ wanted / len(y))
            return
        self.regressor_ = fit_additive(phi, v / self.spread_of_v_ if self.control else np.zeros_like(v), wanted, replace(run, trial=run.trial and f"{run.trial}-outcome"))

    def _features(self, phi: Array, v: Array) -> Array:
        parts = [_radial(phi, self.centres_[0])]
        if self.control:
            parts.append(_radial(v / self.spread_of_v_, self.centres_[1]))
        return np.concatenate([*parts, np.ones((len(phi), 1))], axis=1)

    def _outcome(self, phi: Array, v: Array, block: int = 1 << 16) -> Array:
        found = []
        for start in range(0, len(phi), block):
            some, rest = phi[start : start + block], v[start : start + block]
            if self.regression == "kernel":
                found.append(self._features(some, rest) @ self.weights_)
                continue
            both = np.concatenate([some, rest / self.spread_of_v_ if self.control else np.zeros_like(rest)], axis=1)
            found.append(in_batches(self.regressor_, both, Run(progress=False), size=8192, output=None)[:, 0])
        return np.concatenate(found).astype(float) * self.outcome_spread_ + self.outcome_mean_

    def _distance(self, phi: Array) -> Array:
        return np.asarray(np.sqrt(np.einsum("ni,ij,nj->n", phi, self.precision_, phi)))

    def _assumptions(self, phi: Array, v: Array, action: Array) -> list[dict[str, str]]:
        levels = min(len(np.unique(a)) for a in action.T)
        curved = float(1 - np.square(v - _quadratic(v, action)).sum() / np.square(v).sum())
        told = f"squares of the action explain {curved:.1%} of what its linear part leaves of the code"
        if levels < LEVELS:
            warnings.warn(f"a dimension of the action has {levels} levels, fewer than {LEVELS}: whether codes are linear in it cannot be tested", UserWarning, stacklevel=4)
        state = "untestable" if levels < LEVELS else "checked" if curved < 0.02 else "failed"
        return [
            assumed("codes are on average linear in the action", state, told if levels >= LEVELS else f"{levels} levels"),
            assumed("the noise of the latents does not depend on the action, and has full support", "untestable", "its spread: " + ", ".join(f"{s:.2f}" for s in v.std(0))),
            assumed("the action moves the latents in every direction", "checked", f"singular values of Ŵ: {', '.join(f'{s:.2f}' for s in np.linalg.svd(self.linear_[1:], compute_uv=False))}"),
        ]


def _quadratic(v: Array, action: Array) -> Array:
    k = action.shape[1]
    design = np.c_[np.ones(len(action)), action, *[action[:, [i]] * action[:, [j]] for i in range(k) for j in range(i, k)]]
    return np.asarray(design @ np.linalg.lstsq(design, v, rcond=None)[0])


def _radial(x: Array, centres: Array) -> Array:
    square = np.square(x).sum(1)[:, None] + np.square(centres).sum(1) - 2 * x @ centres.T
    return np.asarray(np.exp(-0.5 * np.maximum(square, 0)))


class Seen(NamedTuple):
    inputs: Tensor
    wanted: Tensor


def fit_additive(phi: Array, v: Array, y: Array, run: Run, steps: int = 4000) -> Any:
    """Fit ν(φ) + ψ(v̂), two perceptrons 64-64 trained together and stopped by a tenth of the rows; takes [n, 2 latents], gives [n, 1]."""
    both, wanted = torch.as_tensor(np.c_[phi, v], dtype=torch.float32), torch.as_tensor(y, dtype=torch.float32)
    held = torch.from_numpy(run.rng("validation").permutation(len(y)) < max(1, len(y) // 10))
    network = seeded(run, lambda: build("additive-outcome", shape=[both.shape[1]], head=False))
    at = torch.nonzero(~held)[:, 0]
    rows = order(len(at), run, min(512, len(at)), "outcome")
    draw: Callable[[int], Seen] = lambda step: Seen(both[at[rows(step)]], wanted[at[rows(step)]])  # noqa: E731

    def evaluate() -> float:
        with torch.no_grad():
            return float((network(both[held])[:, 0] - wanted[held]).square().mean())

    train(Descent(network, lambda m, b: (m(b.inputs)[:, 0] - b.wanted).square().mean(), adam(1e-3)), draw, run, steps=steps, evaluate=evaluate, patience=5)
    return network
