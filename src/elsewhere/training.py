"""The one training loop, on Lightning Fabric. The method owns the step; the loop owns the device, precision, processes,
checkpoint and resume in mid-training, the finite check, early stopping, curves and progress."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from elsewhere.batching import on_device, pieces, share_of
from elsewhere.errors import UserError
from elsewhere.optimisers import WeightAverage, adam, cosine, halving, sgd, stepwise
from elsewhere.processes import asked_to_stop, fabric_of, forked, seed_step
from elsewhere.run import Run, duration, write_whole
from elsewhere.saving import from_bytes, to_bytes

if TYPE_CHECKING:
    import pandas as pd

CHECKPOINT_SECONDS = 60.0
LOGGED = 200  # points of a curve

Values = Mapping[str, "Tensor | float"]
Evaluate = Callable[[], "float | Mapping[str, float]"]


class Stepper(Protocol):
    """A method's training: what it is made of, and one step of it."""

    def parts(self) -> Mapping[str, Any]:
        """Return attribute name -> module, optimiser or anything else with a ``state_dict``.

        While training runs, the attributes hold the placed and wrapped parts. Any number of each: adversaries, two optimisers.
        """
        ...

    def step(self, batch: Any, backward: Backward) -> Values:
        """Do one step on a batch, calling ``backward(loss)`` where one would write ``loss.backward()``; return values to log."""
        ...


@dataclass
class Backward:
    """What a step calls with its loss: Fabric's backward, and its clipping of gradients."""

    fabric: Any
    share: float = 1.0

    def __call__(self, loss: Tensor, **options: Any) -> None:
        self.fabric.backward(loss * self.share if self.share != 1.0 else loss, **options)

    def clip(self, module: nn.Module, optimizer: Optimizer, norm: float) -> None:
        """Scale the gradients of a module down to a norm of at most ``norm``."""
        self.fabric.clip_gradients(module, optimizer, max_norm=norm, error_if_nonfinite=False)


@dataclass
class Descent:
    """Gradient descent on one loss: the stepper of most learners.

    Args:
        module: the network.
        loss: (module, batch) -> a scalar, a mean over the batch.
        optimizer: parameters -> optimiser; ``adam(1e-3)`` and ``sgd(0.1)`` make such functions.
        schedule: optimiser -> scheduler, stepped once a step; ``cosine(steps)`` makes such a function.
        clip: largest norm of the gradient.
        accumulate: the batch goes through in so many parts: the same step in less memory.
        average: decay of an exponential moving average of the weights, which is what is judged and kept; 1: their plain mean.

    Examples:
        >>> net, x = nn.Linear(1, 1), torch.linspace(0, 1, 8)[:, None]
        >>> descent = Descent(net, lambda m, batch: (m(batch) - 2 * batch).square().mean(), adam(0.1))
        >>> history = train(descent, lambda step: x, steps=200)
        >>> abs(net(torch.ones(1, 1)).item() - 2) < 0.05
        True
    """

    module: nn.Module
    loss: Callable[[Any, Any], Tensor]
    optimizer: Callable[[Any], Optimizer]
    schedule: Callable[[Optimizer], Any] | None = None
    clip: float | None = None
    accumulate: int = 1
    average: float | None = None

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise UserError(f"accumulate must be at least 1, not {self.accumulate}")
        if self.average is not None and not 0 < self.average <= 1:
            raise UserError(f"average must lie in (0, 1], not {self.average}")
        self.optimiser_ = self.optimizer([p for p in self.module.parameters() if p.requires_grad])
        self.schedule_ = None if self.schedule is None else self.schedule(self.optimiser_)
        self.average_ = None if self.average is None else WeightAverage(self.average)

    def parts(self) -> Mapping[str, Any]:
        named = {"module": self.module, "optimiser_": self.optimiser_, "schedule_": self.schedule_, "average_": self.average_}
        return {k: v for k, v in named.items() if v is not None}

    def step(self, batch: Any, backward: Backward) -> Values:
        total: Tensor | float = 0.0
        self.optimiser_.zero_grad()
        for part, share in pieces(batch, self.accumulate):
            loss = self.loss(self.module, part) * share if share != 1.0 else self.loss(self.module, part)
            backward(loss)
            total = total + loss.detach()
        if self.clip is not None:
            backward.clip(self.module, self.optimiser_, self.clip)
        self.optimiser_.step()
        if self.schedule_ is not None:
            self.schedule_.step()
        if self.average_ is not None:
            self.average_.update(self.module)
        return {"loss": total}

    def swap(self) -> None:
        """Exchange the weights with their average: called around evaluations and at the end."""
        if self.average_ is not None:
            self.average_.swap(self.module)


@dataclass
class History:
    """What a training came to.

    Args:
        steps: steps done.
        points: (step, name, value) of every logged value.
        best: the step whose weights were kept, where ``patience`` chose them.
        stopped: whether it stopped before the last step.
    """

    steps: int = 0
    points: list[tuple[int, str, float]] = field(default_factory=list)
    best: int | None = None
    stopped: bool = False

    def frame(self) -> pd.DataFrame:
        """Return the points as step, name, value."""
        import pandas as pd

        return pd.DataFrame(self.points, columns=["step", "name", "value"])


def train(
    stepper: Stepper,
    batches: Callable[[int], Any],
    run: Run = Run(),
    *,
    steps: int,
    evaluate: Evaluate | None = None,
    every: int | None = None,
    patience: int | None = None,
) -> History:
    """Train: ``stepper.step(batches(step))`` for each step.

    ``batches`` must depend on the seed and the step alone: that is what makes a resumed training the same as an unbroken
    one. On several processes each gets its share of the batch's rows.

    Args:
        stepper: the method: a ``Descent``, or anything with ``parts`` and ``step``.
        batches: step -> batch: tensors in tuples, mappings or dataclasses, examples first.
        run: seed, device, precision, folder of checkpoints, where curves go.
        steps: how many.
        evaluate: called every ``every`` steps and at the end; a number, or names and numbers, the first of which is to fall.
        every: default: a twentieth of the steps.
        patience: stop after so many evaluations without improvement and keep the best weights.

    Raises:
        UserError: a value that the stepper returns is not finite; the message says at which step and what to try.
        KeyboardInterrupt: Ctrl-C; the step is finished and kept first, where the run keeps checkpoints.
    """
    if steps < 1:
        raise UserError(f"steps must be at least 1, not {steps}")
    return _Loop(stepper, batches, run, steps, evaluate, every or max(1, steps // 20), patience).train()


@dataclass
class _Loop:
    stepper: Any
    batches: Callable[[int], Any]
    run: Run
    steps: int
    evaluate: Evaluate | None
    every: int
    patience: int | None

    def __post_init__(self) -> None:
        self.history = History()
        self.best: dict[str, Any] | None = None
        self.best_value, self.waited = math.inf, 0
        self.done = False
        self.asked: list[int] = []
        self.path = self.run.checkpoint()
        self.log_every = max(1, self.steps // LOGGED)
        self.base = self.run.integer("training")

    def train(self) -> History:
        fabric = fabric_of(self.run)
        raw = dict(self.stepper.parts())
        with forked(fabric), _placed(self.stepper, raw, fabric) as placed:
            self.fabric, self.placed, self.raw = fabric, placed, raw
            self._resume()
            if not self.done:
                with asked_to_stop() as self.asked:
                    self._steps()
                self._swap()
                self._keep_best()
                self.done = True
                self._checkpoint(final=True)
        for module in raw.values():
            if isinstance(module, nn.Module):
                module.zero_grad(set_to_none=True)
                module.eval()
        self.run.history.extend(self.history.points)
        return self.history

    def _steps(self) -> None:
        start = saved = said = time.monotonic()
        first, sparse = self.history.steps, self.fabric.world_size > 1 or self.fabric.device.type != "cpu"
        self._mode(True)
        for step in range(first, self.steps):
            seed_step(self.base, step, self.fabric.device)
            batch = self.batches(step)
            part, share = share_of(batch, self.fabric.global_rank, self.fabric.world_size)
            values = self.stepper.step(on_device(part, self.fabric.device), Backward(self.fabric, share))
            self.history.steps = step + 1
            due = (step + 1) % self.log_every == 0 or step + 1 == self.steps
            if due or not sparse:  # reading a value waits for the device: there only when it is due
                numbers = self._numbers(values, step)
                if due:
                    self._log(step + 1, numbers)
            if self.evaluate is not None and ((step + 1) % self.every == 0 or step + 1 == self.steps) and self._judged(step + 1):
                return
            if self.asked:
                self._checkpoint()
                raise KeyboardInterrupt
            now = time.monotonic()
            if now - said > 0.5 and self.fabric.is_global_zero:
                said = now
                left = (now - start) / (step + 1 - first) * (self.steps - step - 1)
                loss = "".join(f", {k} {float(v):.3g}" for k, v in list(values.items())[:1])
                self.run.say(f"step {step + 1:,} of {self.steps:,}{loss}, about {duration(left)} left")
            if now - saved > CHECKPOINT_SECONDS:
                saved = now
                self._checkpoint()
        if time.monotonic() - start > 0.5 and self.fabric.is_global_zero:
            self.run.say("")

    def _numbers(self, values: Values, step: int) -> dict[str, float]:
        numbers = {k: float(self.fabric.all_reduce(torch.as_tensor(v)) if self.fabric.world_size > 1 else v) for k, v in values.items()}
        for name, value in numbers.items():
            if not math.isfinite(value):
                who = f" of trial {self.run.trial}" if self.run.trial else ""
                raise UserError(f"{name} is {value} at step {step + 1} of {self.steps}{who}: try a lower learning_rate, or clip=1.0 (precision {self.run.precision})")
        return numbers

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        self.history.points.extend((step, k, float(v)) for k, v in values.items())

    def _judged(self, step: int) -> bool:
        """Evaluate and return whether to stop."""
        assert self.evaluate is not None
        self._swap()
        self._mode(False)
        found = self.evaluate()
        numbers = dict(found) if isinstance(found, Mapping) else {"validation": float(found)}
        self._log(step, numbers)
        value = next(iter(numbers.values()))
        if self.patience is not None:
            if value < self.best_value:
                self.best_value, self.waited, self.history.best = value, 0, step
                self.best = {k: _cloned(m.state_dict()) for k, m in self._modules()}
            else:
                self.waited += 1
        self._mode(True)
        self._swap()
        self.history.stopped = self.patience is not None and self.waited >= self.patience and step < self.steps
        return self.history.stopped

    def _swap(self) -> None:
        if hasattr(self.stepper, "swap"):
            self.stepper.swap()

    def _mode(self, training: bool) -> None:
        for _, module in self._modules():
            module.train(training)

    def _modules(self) -> list[tuple[str, nn.Module]]:
        return [(k, m) for k, m in self.raw.items() if isinstance(m, nn.Module)]

    def _keep_best(self) -> None:
        if self.best is not None:
            for k, module in self._modules():
                module.load_state_dict(self.best[k])

    def _checkpoint(self, final: bool = False) -> None:
        if self.path is None or not self.fabric.is_global_zero or (final and not self.path.exists()):
            return  # a training too short to have been saved once is simply done again
        h = self.history
        told = {"steps": h.steps, "points": [list(p) for p in h.points], "best": h.best, "stopped": h.stopped}
        state = {"parts": {k: p.state_dict() for k, p in self.placed.items()}, "history": told, "weights": self.best, "value": self.best_value, "waited": self.waited, "done": self.done}
        write_whole(self.path, to_bytes(state))

    def _resume(self) -> None:
        if self.path is None or not self.path.exists():
            return
        before = copy.deepcopy({k: part.state_dict() for k, part in self.placed.items()})
        try:
            state = from_bytes(self.path.read_bytes())
            for k, part in self.placed.items():
                part.load_state_dict(state["parts"][k])
        except (ValueError, KeyError, RuntimeError):  # cut off or of another version: begin again, with nothing of it
            for k, part in self.placed.items():
                part.load_state_dict(before[k])
            return
        told = state["history"]
        self.history = History(told["steps"], [(int(s), str(n), float(v)) for s, n, v in told["points"]], told["best"], told["stopped"])
        self.best, self.best_value, self.waited, self.done = state["weights"], state["value"], state["waited"], state["done"]


def _cloned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in state.items()}


@contextmanager
def _placed(stepper: Any, raw: Mapping[str, Any], fabric: Any) -> Iterator[dict[str, Any]]:
    """Put the placed and wrapped parts where the stepper looks for them; afterwards the raw ones stand there again."""
    placed = dict(raw)
    for name, part in raw.items():
        if isinstance(part, nn.Module):
            placed[name] = fabric.setup_module(part) if any(p.requires_grad for p in part.parameters()) else part.to(fabric.device)
    for name, part in raw.items():
        if isinstance(part, Optimizer):
            placed[name] = fabric.setup_optimizers(part)
    for name, part in placed.items():
        setattr(stepper, name, part)
    try:
        yield placed
    finally:
        for name, part in raw.items():
            setattr(stepper, name, part)


__all__ = ["Backward", "Descent", "History", "Stepper", "WeightAverage", "adam", "cosine", "halving", "sgd", "stepwise", "train"]
