"""Causal variables of a system that actions touch now and then, which ones unknown (spec 05, F)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from elsewhere.batching import as_tensor, in_batches, order
from elsewhere.causal.codecs import scales, standardised
from elsewhere.causal.data import Transitions
from elsewhere.causal.learning import CausalLearner, assumed
from elsewhere.causal.predictions import Latents
from elsewhere.data import Array
from elsewhere.nn.building import build
from elsewhere.nn.learners import seeded
from elsewhere.nn.variational import Gaussian
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.training import Descent, adam, cosine, train

NEGATIVE, SMALL = 0.004, 4e-5  # weights of the terms that keep interactions rare and their logits small
WARM_UP, FLOOR = 100, 0.05


class Step(NamedTuple):
    before: Tensor
    after: Tensor
    action: Tensor
    temperature: Tensor


def interaction_loss(network: Any, batch: Step, fidelity: float = 1.0) -> Tensor:
    """Return ‖x_{t+1} - dec(z_{t+1})‖² + ln q(f(z)_{t+1}) - ln p(f(z)_{t+1} | f(z)_t, r) + .004 Σ_i (1 + sign a_i + a_i - sg a_i)² + 4e-5 mean a_i².

    z is drawn from the encoder's posterior, and ln q(f(z)) = ln q(z) - ln |det ∂f/∂z|. The last two terms (Lippe et al. 2023) pull positive
    interaction logits towards -1 … 0: interactions are rare. ``fidelity`` weighs the reconstruction.
    """
    count = len(batch.before)
    q = network.posterior(torch.cat([batch.before, batch.after]))
    z = q.sample()
    f, log_det = network.flowed(z)
    told = network.prior(f[:count], batch.action, batch.temperature)
    density = log_normal(z[count:], Gaussian(q.mean[count:], q.log_variance[count:])) - log_det[count:]
    prior = log_normal(f[count:], Gaussian(told.mean, 2 * told.log_deviation.clamp(-5, 3)))
    reconstruction = (network.decoder(z[count:]) - batch.after).square().flatten(1).sum(1)
    a = told.interaction
    rare = NEGATIVE * (1 + a.sign() + a - a.detach()).square().sum(1) + SMALL * a.square().mean(1)
    return (fidelity * reconstruction + density - prior + rare).mean()


def log_normal(z: Tensor, g: Gaussian) -> Tensor:
    """Return Σ_i ln N(z_i; mean_i, variance_i) [b]."""
    return -0.5 * ((z - g.mean).square() * (-g.log_variance).exp() + g.log_variance + math.log(2 * math.pi)).sum(1)


def temperature(step: int, steps: int) -> float:
    """Return T: 1 → 2.5 over the first half of the steps, → 5 over the second (the reference's breakpoints, scaled).

    Examples:
        >>> temperature(0, 100), temperature(50, 100), temperature(100, 100)
        (1.0, 2.5, 5.0)
    """
    half = steps / 2
    return 1 + 1.5 * step / half if step < half else 2.5 + 2.5 * min(1.0, (step - half) / half)


@dataclass
class BinaryInteractions(CausalLearner[Transitions]):
    """BISCUIT-VAE (Lippe et al. 2023): variables each of which has two mechanisms, chosen by an unknown binary function of action and state.

    Identifies the variables up to order and element-wise maps. ``represent`` gives f of the mean code of the frame after each step;
    ``touched`` says which variables an action touches.

    Args:
        latents: size of the code; more than variables there are is fine.
        hidden: units of the networks of each latent.
        width: of the perceptrons for vectors; pictures get three strided convolutions of ``channels``.
        sees_state: whether interactions depend on the state, not on the action alone.
        fidelity: weight of the squared error of reconstruction; default: 1 for pictures, whose many pixels add up, 100 for vectors (ours).
        epochs, batch, learning_rate: of AdamW; 100 warm-up steps, then a cosine to 5 %.

    Examples:
        >>> from elsewhere.causal.worlds import transitions
        >>> data = transitions(40, 2)
        >>> BinaryInteractions(latents=3, hidden=4, width=8, epochs=1, batch=20).fit(Source(data)).represent(data).shape
        (40, 3)
    """

    no_graph: ClassVar[str] = "it finds variables and which actions touch them, and no graph within a step"

    latents: int = 12
    hidden: int = 32
    width: int = 512
    channels: int = 32
    sees_state: bool = True
    fidelity: float | None = None
    epochs: int = 100
    batch: int = 256
    learning_rate: float = 1e-3

    @property
    def accepts(self) -> type:
        return Transitions

    def fit(self, source: Source[Transitions], run: Run = Run()) -> Self:
        data = source.train
        self.center_, self.spread_ = scales(data.inputs[:, 1] if np.ndim(data.inputs) == 3 else data.inputs)
        before, after = (as_tensor(standardised(data.inputs[:, k], self.center_, self.spread_)) for k in (0, 1))
        action = torch.as_tensor(np.asarray(data.action, np.float32))
        shape = [int(s) for s in before.shape[1:]]
        options = {"latents": self.latents, "action": action.shape[1], "hidden": self.hidden, "width": self.width, "channels": self.channels, "sees_state": self.sees_state}
        self.network_ = seeded(run, lambda: build("interactions", shape=shape, head=False, **options))
        size = min(self.batch, len(data))
        rows, steps = order(len(data), run, size), self.epochs * max(1, len(data) // size)

        def draw(step: int) -> Step:
            at = rows(step)
            return Step(before[at], after[at], action[at], torch.tensor(temperature(step, steps)))

        fidelity = self.fidelity if self.fidelity is not None else 1.0 if len(shape) == 3 else 100.0
        train(Descent(self.network_, lambda network, batch: interaction_loss(network, batch, fidelity), adam(self.learning_rate), cosine(steps, WARM_UP, FLOOR), clip=4.0), draw, run, steps=steps)
        self.model_ = None
        touched = self.touched(data.take(np.arange(min(len(data), 5000))))
        self.assumptions_ = [
            assumed("each variable has two mechanisms, chosen by action and state", "untestable", "more than two would be averaged"),
            assumed("interactions are rare", "checked" if touched.mean() < 0.5 else "failed", f"{touched.mean():.0%} of variables and steps are touched"),
            assumed("no two variables are always touched together", *_apart(touched)),
        ]
        return self

    def touched(self, data: Transitions) -> Array:
        """Return which latents each step's action touches [N, latents] (bool): the interaction logit is positive."""
        f = torch.from_numpy(self._codes(data.inputs[:, 0]))
        action = torch.as_tensor(np.asarray(data.action, np.float32))
        with torch.no_grad():
            prior = self.network_.prior.cpu()
            return np.concatenate([(prior(a, b, 1.0).interaction > 0).numpy() for a, b in zip(f.split(4096), action.split(4096), strict=True)])

    def represent(self, data: Any, run: Run = Run()) -> Array:
        """Return the variables [N, latents] of the frames after each step, or of plain observations."""
        return self._codes(data.inputs[:, 1] if isinstance(data, Transitions) else data.inputs).astype(float)

    def encode(self, x: Any) -> Array:
        return self._codes(x).astype(float)

    def predict(self, data: Any, run: Run = Run()) -> Any:
        return Latents(self.represent(data, run))

    def _codes(self, x: Any) -> Array:
        return in_batches(self.network_, standardised(x, self.center_, self.spread_), Run(progress=False), output=None)


def _apart(touched: Array) -> tuple[str, str]:
    """Return whether the touches of any two latents that are touched at all can be told apart."""
    share = touched.mean(0)
    active = touched[:, (share > 0.01) & (share < 0.99)].astype(float)
    if active.shape[1] < 2:
        return "untestable", f"{active.shape[1]} latents are touched now and then"
    same = np.corrcoef(active.T)[np.triu_indices(active.shape[1], 1)].max()
    return "checked" if same < 0.95 else "failed", f"largest correlation of two latents' touches {same:.2f}"
