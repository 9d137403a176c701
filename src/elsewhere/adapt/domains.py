"""What methods over several domains share: minibatches with as many examples of each domain, and the loss of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from elsewhere.batching import batches, order, taker
from elsewhere.data import Examples, optional_column
from elsewhere.errors import UserError
from elsewhere.nn.building import build
from elsewhere.nn.learners import NetworkLearner, seeded
from elsewhere.optimisers import adam
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.training import Descent, train


class DomainBatch(NamedTuple):
    """Examples of several domains, as many of each: inputs [b, …], labels [b], weights, domain codes [b]; unlabelled inputs [u, …] and their codes, after those of the source."""

    inputs: Tensor
    labels: Tensor
    weight: Tensor | None
    domain: Tensor
    unlabelled: Tensor | None = None
    unlabelled_domain: Tensor | None = None


@dataclass
class DomainLearner(NetworkLearner):
    """A network trained on minibatches that hold ``batch`` examples of each domain; a subclass writes ``objective``.

    The domains are those of the source's ``domain`` column. The data may be tables, vectors or pictures.

    Args:
        backbone: any network of the catalogue; "auto": mlp for vectors and tables, small-cnn for pictures.
        width: of the backbone, where it takes one; None: its own.
        batch: examples of each domain in a step.
    """

    backbone: str = "auto"
    width: int | None = None
    batch: int = 32

    aligns = False  # whether unlabelled domains can be used

    @property
    def sees_unlabelled(self) -> bool:
        return bool(self.aligns and getattr(self, "unlabelled", False))

    def refuses(self, source: Source[Examples]) -> str | None:
        told = optional_column(source.train, "domain")
        count = (1 if told is None else len(set(told.tolist()))) + (len(source.unlabelled) if self.sees_unlabelled else 0)
        if count >= 2:
            return None
        more = ", or unlabelled=true where the task grants unlabelled domains" if self.aligns else ""
        return f"{type(self).__name__} needs a source of at least 2 domains (a leave-one-out task has one){more}; this one has {count}"

    def network(self, data: Examples) -> nn.Module:
        name = self.backbone if self.backbone != "auto" else "mlp" if np.ndim(data.inputs) == 2 else "small-cnn"
        options: dict[str, Any] = {} if self.width is None else {"width": self.width}
        made: nn.Module = build(name, like=data, **options)
        return made

    def objective(self, network: Any, batch: DomainBatch) -> Tensor:
        """Return the loss of a step."""
        raise NotImplementedError(f"{type(self).__name__} has no objective")

    def stepper(self, optimizer: Callable[[Any], Any]) -> Any:
        """Return what is trained: gradient descent on ``objective``."""
        return Descent(self.network_, self.objective, optimizer, self.scheduler(), self.clip, self.accumulate, self.average)

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        if self.accumulate != 1:
            raise UserError("a step over several domains is taken whole: leave accumulate away, or use a smaller batch")
        if reason := self.refuses(source):
            raise UserError(reason)
        data, held = self.prepared(source, run)
        self.network_ = seeded(run, lambda: self.network(data))
        there = [self.inputs(d.inputs, run) for d in source.unlabelled.values()] if self.sees_unlabelled else []
        draw, self.domains_ = domain_batches(data, there, run, self.batch)
        self._train(seeded(run, lambda: self.stepper(adam(self.learning_rate, self.weight_decay))), draw, held, run)
        return self

    def _train(self, stepper: Any, draw: Callable[[int], DomainBatch], held: Examples | None, run: Run) -> None:
        evaluate = None if held is None else lambda: {"validation loss": self.mean_loss(held, run)}
        train(stepper, draw, run, steps=self.steps, evaluate=evaluate, patience=self.patience)

    def by_domain(self, made: Any, batch: DomainBatch) -> Tensor:
        """Return the mean loss of each labelled domain [domains]."""
        each = self.losses(made, batch)  # type: ignore[arg-type]
        return torch.stack([each[batch.domain == e].mean() for e in range(int(batch.domain.max()) + 1)])


def domain_batches(data: Examples, unlabelled: Sequence[Any], run: Run, size: int) -> tuple[Callable[[int], DomainBatch], int]:
    """Return step -> ``DomainBatch`` with ``size`` examples of each domain, and how many domains there are with the unlabelled ones."""
    told = optional_column(data, "domain")
    codes = np.unique(np.zeros(len(data)) if told is None else told, return_inverse=True)[1]
    parts = [data.take(np.flatnonzero(codes == e)) for e in range(codes.max() + 1)]
    draws = [batches(part, run, size, f"batches of domain {e}") for e, part in enumerate(parts)]
    takes = [(taker(x), order(len(x), run, size, f"batches of unlabelled domain {e}")) for e, x in enumerate(unlabelled)]
    code = torch.arange(len(parts)).repeat_interleave(size)
    other = len(parts) + torch.arange(len(takes)).repeat_interleave(size)

    def draw(step: int) -> DomainBatch:
        drawn = [d(step) for d in draws]
        weights = [b.weight for b in drawn if b.weight is not None]
        there = [take(rows(step)) for take, rows in takes]
        return DomainBatch(
            torch.cat([b.inputs for b in drawn]),
            torch.cat([b.labels for b in drawn]),
            torch.cat(weights) if weights else None,
            code,
            torch.cat(there) if there else None,
            other if there else None,
        )

    return draw, len(parts) + len(takes)


def features_by_domain(network: Any, batch: DomainBatch) -> tuple[Any, list[Tensor]]:
    """Return what the network made of the labelled examples, and the features of every domain, the unlabelled ones too."""
    if batch.unlabelled is None or batch.unlabelled_domain is None:
        made = network(batch.inputs)
        return made, [made.features[batch.domain == e] for e in range(int(batch.domain.max()) + 1)]
    n = len(batch.inputs)
    both = network(torch.cat([batch.inputs, batch.unlabelled]))
    code = torch.cat([batch.domain, batch.unlabelled_domain])
    return type(both)(both[0][:n], both.features[:n]), [both.features[code == e] for e in range(int(code.max()) + 1)]


def mean_over_pairs(parts: Sequence[Tensor], distance: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the mean of a distance over all pairs of domains."""
    found = [distance(a, b) for i, a in enumerate(parts) for b in parts[i + 1 :]]
    return torch.stack(found).mean()


@dataclass
class Penalised(DomainLearner):
    """What methods with an annealed penalty share; a subclass writes ``both`` and has the fields ``weight`` and ``warm_up``."""

    weight: float = 1.0
    warm_up: int = 500

    def both(self, network: Any, batch: DomainBatch) -> tuple[Tensor, Tensor]:
        """Return the mean loss over domains and the penalty."""
        raise NotImplementedError(f"{type(self).__name__} has no penalty")

    def stepper(self, optimizer: Callable[[Any], Any]) -> Any:
        return Annealed(self.network_, self.both, optimizer, self.weight, self.warm_up, schedule=self.scheduler(), clip=self.clip, accumulate=self.accumulate, average=self.average)


class Annealed(Descent):
    """Gradient descent whose penalty weighs 1 for ``warm_up`` steps and ``weight`` after; the optimiser begins anew at the switch, as DomainBed's does."""

    def __init__(self, module: nn.Module, losses: Callable[[Any, Any], tuple[Tensor, Tensor]], optimizer: Any, weight: float, warm_up: int, **options: Any) -> None:
        self.weight, self.warm_up, self.count = weight, warm_up, Count()
        super().__init__(module, lambda m, batch: self._joined(losses(m, batch)), optimizer, **options)

    def parts(self) -> Any:
        return {**super().parts(), "count": self.count}

    def step(self, batch: Any, backward: Any) -> Any:
        if self.count.value == self.warm_up and self.warm_up:
            getattr(self.optimiser_, "optimizer", self.optimiser_).state.clear()
        told = super().step(batch, backward)
        self.count.value += 1
        return told

    def _joined(self, both: tuple[Tensor, Tensor]) -> Tensor:
        loss, penalty = both
        return loss + (1.0 if self.count.value < self.warm_up else self.weight) * penalty


class Count:
    """How many steps were done; kept in checkpoints."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: Any) -> None:
        self.value = int(state["value"])
