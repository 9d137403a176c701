"""SWAD: the dense average of the weights over a valley of the validation loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from elsewhere.adapt.domains import DomainBatch
from elsewhere.adapt.erm import Erm
from elsewhere.errors import UserError
from elsewhere.training import Descent, train


@dataclass
class Swad(Erm):
    """Empirical risk minimisation whose weights are averaged at every step of a valley (Cha et al. 2021, algorithm 1).

    The valley begins where the validation loss is the least of ``optimum_patience`` evaluations, and ends where it has
    exceeded ``tolerance`` times their mean for ``overfit_patience`` of them.

    Args:
        optimum_patience: N_s.
        overfit_patience: N_e.
        tolerance: r.
        evaluations: how often the validation loss is looked at.
    """

    optimum_patience: int = 3
    overfit_patience: int = 6
    tolerance: float = 1.3
    evaluations: int = 40

    @property
    def validates(self) -> bool:
        return True

    def _train(self, stepper: Any, draw: Callable[[int], DomainBatch], held: Any, run: Any) -> None:
        if self.patience is not None:
            raise UserError("swad looks for its own end: leave patience away")
        if self.average is not None:
            raise UserError("swad averages its weights itself: leave average away")
        valley = Valley(self.optimum_patience, self.overfit_patience, self.tolerance)
        averaged = _Segments(stepper, self.network_, valley)

        def evaluate() -> Mapping[str, float]:
            loss = self.mean_loss(held, run)
            valley.add(averaged.taken(), loss)
            return {"validation loss": loss}

        train(averaged, draw, run, steps=self.steps, evaluate=evaluate, every=max(1, self.steps // self.evaluations))
        self.network_.load_state_dict({**self.network_.state_dict(), **valley.average()})


class _Segments:
    """A stepper that also sums the weights of every step since the last evaluation."""

    def __init__(self, inner: Descent, network: nn.Module, valley: Valley) -> None:
        self.inner, self.network, self.valley = inner, network, valley
        self.sum = _Sum()

    def parts(self) -> Mapping[str, Any]:
        return {**{f"inner_{k}": v for k, v in self.inner.parts().items()}, "valley": self.valley, "sum": self.sum}

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("inner_"):
            setattr(self.inner, name.removeprefix("inner_"), value)  # the loop puts placed parts here
        else:
            super().__setattr__(name, value)

    def step(self, batch: Any, backward: Any) -> Mapping[str, Any]:
        told: Mapping[str, Any] = self.inner.step(batch, backward)
        self.sum.add({k: p for k, p in self.network.state_dict().items() if p.is_floating_point()})
        return told

    def taken(self) -> tuple[dict[str, Tensor], int]:
        """Return the summed weights and their number since the last call, and begin anew."""
        told = self.sum.weights, self.sum.count
        self.sum.weights, self.sum.count = {}, 0
        return told


class _Sum:
    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self.count = 0

    def add(self, weights: Mapping[str, Tensor]) -> None:
        for k, p in weights.items():
            held = p.detach()
            self.weights[k] = self.weights[k].to(held.device).add_(held) if k in self.weights else held.clone()
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"weights": dict(self.weights), "count": self.count}

    def load_state_dict(self, state: Any) -> None:
        self.weights, self.count = {k: v.clone() for k, v in state["weights"].items()}, int(state["count"])


class Valley:
    """Which stretches of training lie in the valley of the validation loss; told one stretch at a time.

    Examples:
        >>> import torch
        >>> valley = Valley(2, 2, 1.5)
        >>> for w, loss in enumerate([3.0, 1.0, 1.2, 1.1, 4.0, 4.0, 4.0]):
        ...     valley.add(({"w": torch.tensor(float(w))}, 1), loss)
        >>> valley.average()["w"].item()  # from the second stretch, where the loss was the least of two, to the fourth
        2.0
    """

    def __init__(self, optimum_patience: int, overfit_patience: int, tolerance: float) -> None:
        self.patience, self.tolerance = (optimum_patience, overfit_patience), tolerance
        self.losses: list[float] = []
        self.waiting: list[tuple[dict[str, Tensor], int]] = []  # stretches that may or may not belong to it
        self.sum: dict[str, Tensor] = {}
        self.count, self.level, self.over = 0, 0.0, False

    def add(self, stretch: tuple[dict[str, Tensor], int], loss: float) -> None:
        """Take the summed weights of a stretch, how many they are, and the loss at its end."""
        if self.over:
            return
        begin, end = self.patience
        self.losses.append(loss)
        self.waiting.append(stretch)
        if not self.level:
            self.waiting, last = self.waiting[-begin:], self.losses[-begin:]
            if len(last) == begin and last[0] == min(last):
                self.level = self.tolerance * sum(last) / begin
                self._flush()
            return
        if loss <= self.level:
            self._flush()
        elif len(self.waiting) >= end:
            self.over, self.waiting = True, []

    def _flush(self) -> None:
        for weights, count in self.waiting:
            for k, w in weights.items():
                self.sum[k] = self.sum[k].to(w.device) + w if k in self.sum else w.clone()
            self.count += count
        self.waiting = []

    def average(self) -> dict[str, Tensor]:
        """Return the mean of the weights in the valley; without one, of the last stretch."""
        if not self.count:
            self.waiting = self.waiting[-1:]
        if not self.over:
            self._flush()
        return {k: w / max(1, self.count) for k, w in self.sum.items()}

    def state_dict(self) -> dict[str, Any]:
        kept = {"losses": list(self.losses), "count": self.count, "level": self.level, "over": self.over, "sum": dict(self.sum)}
        return {**kept, "waiting": [{"weights": dict(w), "count": n} for w, n in self.waiting]}

    def load_state_dict(self, state: Any) -> None:
        self.losses, self.count, self.level, self.over = list(state["losses"]), int(state["count"]), float(state["level"]), bool(state["over"])
        self.sum = dict(state["sum"])
        self.waiting = [(dict(w["weights"]), int(w["count"])) for w in state["waiting"]]
