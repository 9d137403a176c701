"""Linear-quadratic fine-tuning: a network linearised at its weights, fitted by squared error in closed form (Achille et al., CVPR 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from elsewhere.batching import in_batches
from elsewhere.data import Array, optional_column
from elsewhere.errors import UserError
from elsewhere.explain.judging import SHARPNESS
from elsewhere.explain.tangent import Linearised, TangentDerivative, direction, jacobians, leaky
from elsewhere.nn.combined import Around
from elsewhere.prediction import ClassPrediction
from elsewhere.run import Run
from elsewhere.task import Source


@dataclass
class LinearQuadratic(Around):
    """A trained network, linearised at its weights by forward-mode derivatives and fitted again by squared error on one-hot labels, in closed form.

    The closed form is the minimum that the paper's preconditioned descent goes to. Predictions are those of the linearised
    network, by ``torch.func.jvp``.

    Args:
        base: a learner over a network, fitted first (mlp, cnn, or one that starts from published weights).
        layers: whose parameters move: "last", "all", or one layer's name.
        project: Jacobians to so many random numbers; None keeps all parameters.
        ridge: λ, or "loo".
        leak: slope of the leaky ReLU that takes the place of ReLU (the paper gives no number here); None: ReLU stays.

    Examples:
        >>> from elsewhere.data import Examples
        >>> from elsewhere.nn.learners import Mlp
        >>> data = Examples(np.random.default_rng(0).normal(size=(30, 4)), np.arange(30) % 2, classes=("a", "b"))
        >>> LinearQuadratic(Mlp(steps=5, width=8), project=16).fit(Source(data)).predict(data).classes().shape
        (30,)
    """

    base: Any
    layers: str = "last"
    project: int | None = 512
    ridge: float | Literal["loo"] = "loo"
    leak: float | None = 0.1

    def fit(self, source: Source[Any], run: Run = Run()) -> Self:
        self.base_ = run.fitted(self.base, source)
        train = source.train
        if train.classes is None or train.labels is None:
            raise UserError("linear-quadratic fits classes, and this label is a number")
        if not hasattr(self.base_, "network_"):
            raise UserError(f"{type(self.base).__name__} has no network to linearise; use mlp, cnn or another learner over a network")
        self.seed_ = run.integer("projection")
        out, j = jacobians(self._network(), self._inputs(train, run), self._layers, self.project, self.seed_)
        offsets = np.asarray(out) / SHARPNESS
        fitted = TangentDerivative(self.ridge).fit(j / SHARPNESS, np.asarray(train.labels), offsets, optional_column(train, "weight"), classes=list(range(len(train.classes))))
        self.moved_ = np.asarray(fitted.coefficients(), np.float32)
        return self

    def predict(self, data: Any, run: Run = Run()) -> ClassPrediction:
        line = Linearised(self._network(), self._layers)
        line.move(self._moves(line.parameters_))
        return ClassPrediction(logits=in_batches(line, self._inputs(data, run).numpy(), run, output=None))

    def represent(self, data: Any, run: Run = Run()) -> Array:
        """Return what the network represents before it moves, [n, d]."""
        found: Array = self.base_.represent(data, run)
        return found

    @property
    def _layers(self) -> Any:
        return self.layers if self.layers in ("last", "all") else [self.layers]

    def _network(self) -> nn.Module:
        network: nn.Module = self.base_.network_
        return (leaky(network, self.leak) if self.leak is not None else leaky(network, 0.0)).cpu()

    def _inputs(self, data: Any, run: Run) -> Tensor:
        return torch.from_numpy(np.array(self.base_.inputs(data.inputs, run), np.float32))

    def _moves(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.project is None:
            flat = torch.from_numpy(self.moved_)
            sizes = [p.numel() for p in parameters.values()]
            return {name: part.view(p.shape) for (name, p), part in zip(parameters.items(), flat.split(sizes), strict=True)}
        moves = {name: torch.zeros_like(p) for name, p in parameters.items()}
        for k, value in enumerate(self.moved_.tolist()):
            for name, signs in direction(parameters, self.seed_, k, self.project).items():
                moves[name] += value * signs
        return moves
