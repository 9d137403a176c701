"""Nonlinear causal disentanglement from one intervention on each latent, by telling environments apart (spec 05, B)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elsewhere.batching import as_tensor, in_batches, order
from elsewhere.causal.codecs import NetworkCodec, scales
from elsewhere.causal.data import Environments
from elsewhere.causal.decoding import fit_decoder
from elsewhere.causal.learning import CausalLearner, assumed, checked_columns, checked_environments, measured
from elsewhere.causal.linear import mechanisms, start_order
from elsewhere.causal.metrics import closure
from elsewhere.causal.model import CausalModel
from elsewhere.causal.networks import acyclicity
from elsewhere.causal.questions import Interventions
from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.nn.building import build
from elsewhere.nn.learners import seeded
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.training import Descent, adam, train

VALIDATION_SHARE = 0.1
CHECKED_EVERY = 10  # epochs; short trainings are checked ten times
EDGE = 0.3  # of latents with unit variance


class Told(NamedTuple):
    """A batch: observational rows with the environment that each is told from, and rows of environments, balanced."""

    observational: Tensor
    told_from: Tensor
    interventional: Tensor
    environment: Tensor


def odds_loss(network: Any, batch: Told) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of telling environments 0 and m apart, and the codes of the observational rows.

    logit > 0 means "observational"; two-class softmax of (logit, 0).
    """
    z = network(torch.cat([batch.observational, batch.interventional]))
    zero, other = z[: len(batch.observational)], z[len(batch.observational) :]
    cross = functional.softplus(-network.odds(zero, batch.told_from)).mean() + functional.softplus(network.odds(other, batch.environment)).mean()
    return cross, zero


def contrastive_loss(network: Any, batch: Told, center: float, sparsity: float, cycles: float) -> Tensor:
    """Return the cross-entropy + κ ‖mean h(x_0)‖² + η ‖A‖₁ + μ (tr exp(A ∘ A) - n), A without its diagonal (Buchholz et al. 2023)."""
    cross, zero = odds_loss(network, batch)
    a = network.adjacency()
    return cross + center * zero.mean(0).square().sum() + sparsity * a.abs().sum() + cycles * acyclicity(a)


@dataclass
class PlateauDescent(Descent):
    """Gradient descent whose rate falls where the validation loss stands still."""

    factor: float = 0.3
    patience: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.plateau_ = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimiser_, factor=self.factor, patience=self.patience)

    def parts(self) -> Any:
        return {**super().parts(), "plateau_": self.plateau_}


@dataclass
class ContrastiveInterventional(CausalLearner[Environments]):
    """Find latents and graph behind any injective mixing, from one intervention on each latent (Buchholz et al. 2023).

    Assumes linear Gaussian latents and, besides the observational environment, one that intervenes on each latent. A network h is trained so that
    log-odds that are quadratic in h(x) tell the environments apart; that identifies the latents up to order and scale, and their graph.

    Args:
        latents: how many; default: as many as interventional environments.
        interventions: "hard" cut their target from its causes; "soft" change how it depends on them: then only who is an ancestor of whom is identified.
        width, depth, residual: of the perceptron for vectors; pictures get convolutions.
        architecture: of pictures: "auto" (strided convolutions) or "keypoints" (mean places of maps).
        epochs: passes over the interventional rows.
        batch: rows of a step from either side.
        learning_rate: of Adam; it falls to .3 of itself where the validation loss stands still for 3 checks.
        center: κ, of the squared mean code.
        sparsity: η, of the sum of |A|.
        cycles: μ, of the acyclicity term; 0: without it.
        decoded: fit a network from latents back to x, for ``do``.

    Examples:
        >>> from elsewhere.causal.worlds import nonlinear_world
        >>> data = nonlinear_world(2, d=4).environments(60, np.random.default_rng(0))
        >>> model = ContrastiveInterventional(width=8, epochs=1, batch=32, decoded=False).fit(Source(data))
        >>> model.encode(data.inputs).shape
        (180, 2)
    """

    answers: ClassVar[tuple[type, ...]] = (Interventions,)

    latents: int | None = None
    interventions: Literal["hard", "soft"] = "hard"
    width: int = 512
    depth: int = 1
    residual: bool = False
    architecture: Literal["auto", "keypoints"] = "auto"
    epochs: int = 200
    batch: int = 512
    learning_rate: float = 5e-4
    center: float = 0.1
    sparsity: float = 1e-4
    cycles: float = 1e-5
    decoded: bool = True

    @property
    def accepts(self) -> type:
        return Environments

    def refuses(self, source: Source[Any]) -> str | None:
        try:
            checked_environments(source.train, self.latents, 0)
            checked_columns(source.train)
        except UserError as error:
            return str(error)
        return None

    def fit(self, source: Source[Environments], run: Run = Run()) -> Self:
        data = source.train
        n = checked_environments(data, self.latents, 0)
        checked_columns(data)
        self.features_ = list(data.features) if data.features is not None else []
        shape = [int(s) for s in np.shape(data.inputs)[1:]]
        self.center_, self.spread_ = scales(np.asarray(data.of(0)) if len(shape) == 1 else data.inputs)
        codec = NetworkCodec(None, None, self.center_, self.spread_)
        x = codec.seen(data.inputs)
        options: dict[str, Any] = {"architecture": self.architecture} if self.architecture != "auto" else {}
        options |= {"soft": True} if self.interventions == "soft" else {}
        self.network_ = seeded(run, lambda: build("interventional-odds", shape=shape, head=False, latents=n, width=self.width, depth=self.depth, residual=self.residual, **options))
        self._train(x, np.asarray(data.environment), n, run)
        self.model_ = self._model(x, data, n, run)
        self.assumptions_ = [
            assumed("the latents are linear Gaussian", "untestable", "the mixing is free: any latents can be bent"),
            assumed("each environment acts on one latent of its own" + (", and cuts it from its causes" if self.interventions == "hard" else ""), "untestable", f"{n} environments for {n} latents"),
            assumed("the environments can be told apart", *self._told_apart(x, data)),
            assumed("the graph has no cycle", "checked" if self.cycle_ < 1e-3 else "failed", f"tr exp(A ∘ A) - n = {self.cycle_:.2g}"),
        ]
        self.assumptions_ += measured(self, data)
        return self

    def _train(self, x: Any, environment: Array, n: int, run: Run) -> None:
        rng = run.rng("validation")
        held = np.zeros(len(x), bool)
        for k in range(n + 1):
            rows = np.flatnonzero(environment == k)
            held[rng.permutation(rows)[: max(1, round(VALIDATION_SHARE * len(rows)))]] = len(rows) > 1
        parts = [np.flatnonzero((environment == k) & ~held) for k in range(n + 1)]
        draw = told_batches(x, parts, run, self.batch)
        tests = [np.flatnonzero((environment == k) & held) for k in range(n + 1)]
        steps = self.epochs * max(1, -(-sum(map(len, parts[1:])) // self.batch))
        stepper = PlateauDescent(self.network_, lambda network, batch: contrastive_loss(network, batch, self.center, self.sparsity, self.cycles), adam(self.learning_rate))

        def evaluate() -> dict[str, float]:
            value = self._cross_entropy(x, tests, run)
            stepper.plateau_.step(value)
            return {"validation loss": value}

        every = max(1, steps // max(CHECKED_EVERY, self.epochs // CHECKED_EVERY))
        train(stepper, draw, run, steps=steps, evaluate=evaluate if all(map(len, tests)) else None, every=every, patience=1 << 30)

    def _cross_entropy(self, x: Any, rows: list[Array], run: Run) -> float:
        codes = [torch.from_numpy(in_batches(self.network_, x[r], run, output=None)) for r in rows]
        device = next(self.network_.parameters()).device
        found = []
        with torch.no_grad():
            for m in range(len(rows) - 1):
                zero, other = (self.network_.odds(z.to(device), torch.full((len(z),), m, device=device)) for z in (codes[0], codes[m + 1]))
                found.append(float(functional.softplus(-zero).mean() + functional.softplus(other).mean()))
        return float(np.mean(found))

    def _model(self, x: Any, data: Environments, n: int, run: Run) -> CausalModel:
        """Standardise the codes, orient them by their own shifts, and estimate the mechanisms as the linear method does."""
        codes = in_batches(self.network_, x, run, output=None).astype(float)
        environment = np.asarray(data.environment)
        zero = codes[environment == 0]
        shift, scale = zero.mean(0), np.where(zero.std(0) > 0, zero.std(0), 1.0)
        moved = np.array([codes[environment == m + 1, m].mean() - shift[m] for m in range(n)])
        scale = scale * np.where(moved < 0, -1.0, 1.0)
        z = (codes - shift) / scale
        a = self.network_.adjacency().detach().cpu().numpy().astype(float)
        self.adjacency_ = a * scale[None, :] / scale[:, None]  # effects between latents of unit variance
        self.cycle_ = float(acyclicity(torch.from_numpy(np.where(np.abs(self.adjacency_) > EDGE, self.adjacency_, 0.0))))
        sequence = start_order(np.abs(self.adjacency_).T)
        found = mechanisms(np.cov(z[environment == 0].T, bias=True).reshape(n, n), int((environment == 0).sum()), sequence)
        hard = self.interventions == "hard"
        if not hard:
            found = mechanisms(np.cov(z[environment == 0].T, bias=True).reshape(n, n), int((environment == 0).sum()), sequence, closure(found.graph))
        own = [z[environment == m + 1, m] for m in range(n)]
        codec = NetworkCodec(self.network_, None, self.center_, self.spread_, shift, scale)
        if self.decoded:
            codec.decoder, codec.logits = fit_decoder(z, x, replace(run, trial=run.trial and f"{run.trial}-decoder"))
        targets = np.r_[-1, np.arange(n)]
        return CausalModel(tuple(f"z{k + 1}" for k in range(n)), tuple(map(str, data.names)), codec, found, targets, np.r_[0.0, [v.mean() for v in own]], np.r_[0.0, [v.var() for v in own]], hard)

    def learnt_edges(self) -> Array:
        """Return the graph as the reference reads it, |A| > .3 between latents of unit variance: [i, j] is True where i → j.

        The penalties pull A towards 0 and it is often empty where ``graph``, the regression of the latents in A's order, is right.
        """
        return np.asarray(np.abs(self.adjacency_).T > EDGE)

    def _told_apart(self, x: Any, data: Environments) -> tuple[str, str]:
        codes = in_batches(self.network_, x, Run(progress=False), output=None)
        environment, shares = np.asarray(data.environment), []
        with torch.no_grad():
            for m in range(len(data.names) - 1):
                odds = [self.network_.odds(torch.from_numpy(codes[environment == k]), torch.full((int((environment == k).sum()),), m)).numpy() for k in (0, m + 1)]
                shares.append(0.5 * ((odds[0] > 0).mean() + (odds[1] <= 0).mean()))
        worst = int(np.argmin(shares))
        return "checked" if shares[worst] > 0.52 else "failed", f"hardest: {data.names[worst + 1]!r}, {shares[worst]:.0%} right of two"


def told_batches(x: Any, parts: list[Array], run: Run, size: int) -> Callable[[int], Told]:
    """Return step -> ``Told``: ``size`` observational rows, each with an environment, and as many rows of environments, all balanced."""
    n = len(parts) - 1
    seen = as_tensor(x) if not isinstance(x, torch.Tensor) else x
    rows = [order(len(p), run, -(-size // (n if k else 1)), f"batches {k}") for k, p in enumerate(parts)]
    at = [torch.from_numpy(p) for p in parts]

    def draw(step: int) -> Told:
        zero = at[0][rows[0](step)]
        others = torch.cat([at[k][rows[k](step)] for k in range(1, n + 1)])
        environment = torch.arange(n).repeat_interleave(len(others) // n)
        told_from = (torch.arange(len(zero)) + step) % n
        return Told(seen[zero], told_from, seen[others], environment)

    return draw
