"""What methods over several domains share: minibatches with as many examples of each domain, and the loss of each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from elsewhere.adapt.domain_graph import DomainGraph, edges_file, graph_for
from elsewhere.batching import as_tensor, batches, order, taker
from elsewhere.closed import OneOf
from elsewhere.data import Array, Examples, optional_column
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
    sample: Tensor | None = None  # the domains that a method over pairs of them looks at in this step


@dataclass
class DomainLearner(NetworkLearner):
    """A network trained on minibatches that hold ``batch`` examples of each domain; a subclass writes ``objective``.

    The domains are those of the source's ``domain`` column. The data may be tables, vectors or pictures.

    Args:
        backbone: any network of the catalogue; "auto": mlp for vectors and tables, small-cnn for pictures.
        width: of the backbone, where it takes one; None: its own.
        batch: examples of each domain in a step.
        conditioning: what the network is told of an example's domain: "none", or a place in the plane found from a graph of the domains, by
            "graph" (links are products of places), "laplacian" or "positions". Rows need a ``domain`` column then, in prediction too.
        graph: of the domains, where the source has none: "chain", "complete", a CSV of edges, a ``DomainGraph``.
    """

    backbone: Annotated[str, OneOf("auto", catalogue="networks")] = "auto"
    width: int | None = None
    batch: int = 32
    conditioning: Literal["none", "graph", "laplacian", "positions"] = "none"
    graph: Any = None

    aligns = False  # whether unlabelled domains can be used
    pairs_rows = False  # whether the k-th examples of all domains stand at one place of the data

    @property
    def files(self) -> Mapping[str, str]:
        return edges_file(self.graph)

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
        if self.conditioning != "none":
            inner = self.backbone if self.backbone != "auto" else "none" if len(data.inputs.shape) == 2 else "small-cnn"
            joined: nn.Module = build("conditioned", like=data, hidden=2, width=self.width or 64, embedding=self.z_.shape[1], inner=inner)
            return joined
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
        self._place(source, run)
        data, held = self.prepared(source, run)
        self.network_ = seeded(run, lambda: self.network(data))
        draw, self.domains_ = self.draw(source, run, data)
        self._train(seeded(run, lambda: self.stepper(adam(self.learning_rate, self.weight_decay))), draw, held, run)
        return self

    def draw(self, source: Source[Examples], run: Run, data: Examples | None = None) -> tuple[Callable[[int], DomainBatch], int]:
        """Return step -> batch, and the number of domains; ``data`` is the source's training part as the network sees it."""
        there = [self._seen(d, run, name).inputs for name, d in source.unlabelled.items()] if self.sees_unlabelled else []
        draw, count = domain_batches(self._seen(source.train, run) if data is None else data, there, run, self.batch, self.pairs_rows)
        if type(self).drawn is DomainLearner.drawn:
            return draw, count
        return lambda step: draw(step)._replace(sample=self.drawn(step, run)), count

    def drawn(self, step: int, run: Run) -> Tensor | None:
        """Return the domains that a method over pairs looks at in a step, or None: all."""
        return None

    def _place(self, source: Source[Examples], run: Run) -> None:
        """Give each domain of the graph its place."""
        if self.conditioning == "none":
            return
        graph = graph_for(self.graph, source, domain_names(source))
        self.vertices_ = list(graph.names)
        self.z_ = graph.embedding(method=self.conditioning, seed=run.integer("places"))
        self.graph_ = graph.adjacency

    def _seen(self, data: Examples, run: Run, domain: str | None = None, z: Array | None = None) -> Examples:
        x = self.inputs(data.inputs, run)
        if self.conditioning != "none":
            x = conditioned(x, self._places(data, domain) if z is None else np.tile(z, (len(data), 1)))
        return Examples(x, data.labels, data.columns, data.classes)

    def _places(self, data: Examples, domain: str | None) -> Array:
        """Return the place of each row's domain [n, size]."""
        told = optional_column(data, "domain")
        if told is None and domain is None:
            raise UserError("the network is told the domain of every row: the data need a domain column, or predict(data, domain=NAME)")
        names = np.full(len(data), domain) if told is None or domain is not None else told.astype(str)
        at = {n: k for k, n in enumerate(self.vertices_)}
        if unknown := [n for n in dict.fromkeys(names.tolist()) if n not in at]:
            raise UserError(f"domain {unknown[0]!r} is not in the domain graph; say predict(data, links=[...]) with the domains that it is linked to")
        return self.z_[[at[n] for n in names.tolist()]]

    def predict(self, data: Examples, run: Run = Run(), domain: str | None = None, links: Sequence[str] | None = None) -> Any:
        """Predict; a network that is told the domain takes it from the ``domain`` column, from ``domain``, or, of a new domain, its ``links``."""
        if self.conditioning == "none" or (domain is None and links is None):
            return super().predict(data, run)
        z = None if links is None else DomainGraph(tuple(self.vertices_), self.graph_).placed(links, self.z_)
        twin = copy.copy(self)
        twin.__dict__["_seen"] = lambda d, r: self._seen(d, r, domain, z)
        return super(DomainLearner, twin).predict(data, run)

    def _shape(self, x: Any) -> list[int]:
        shape = super()._shape(x)
        fitted = self.conditioning != "none" and getattr(getattr(self, "network_", None), "built", None) is not None
        return [shape[0] - self.z_.shape[1], *shape[1:]] if fitted else shape

    def _train(self, stepper: Any, draw: Callable[[int], DomainBatch], held: Examples | None, run: Run) -> None:
        evaluate = None if held is None else lambda: {"validation loss": self.mean_loss(held, run)}
        train(stepper, draw, run, steps=self.steps, evaluate=evaluate, patience=self.patience)

    def by_domain(self, made: Any, batch: DomainBatch) -> Tensor:
        """Return the mean loss of each labelled domain [domains]."""
        each = self.losses(made, batch)  # type: ignore[arg-type]
        return torch.stack([part.mean() for part in parted(each, batch.domain)])


def domain_names(source: Source[Examples]) -> list[str]:
    """Return the names of the domains in the order of their codes: those of the source, then the unlabelled ones."""
    told = optional_column(source.train, "domain")
    here = ["source"] if told is None else [str(n) for n in np.unique(told)]
    return [*here, *(str(n) for n in source.unlabelled)]


def conditioned(x: Any, z: Array) -> Any:
    """Return inputs with the places of their domains as further columns (vectors) or as constant further channels (pictures).

    Examples:
        >>> conditioned(np.zeros((2, 3), np.float32), np.ones((2, 2))).shape
        (2, 5)
    """
    if len(x.shape) == 2:
        return np.concatenate([np.asarray(x, np.float32), z.astype(np.float32)], 1)
    return _WithPlaces(x, z.astype(np.float32))


class _WithPlaces:
    """Pictures [n, c, h, w] with constant channels of their domain's place, joined when rows are taken."""

    def __init__(self, inner: Any, z: Array) -> None:
        self.inner, self.z = inner, z
        self.shape = (len(z), inner.shape[1] + z.shape[1], *inner.shape[2:])
        self.ndim, self.dtype = len(self.shape), np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: Any) -> Array:
        z = self.z[rows]
        x = as_tensor(np.asarray(self.inner[rows])).numpy()
        planes = np.broadcast_to(z[:, :, None, None], (*z.shape, *x.shape[2:]))
        return np.concatenate([x, planes], 1)


def domain_batches(data: Examples, unlabelled: Sequence[Any], run: Run, size: int, together: bool = False) -> tuple[Callable[[int], DomainBatch], int]:
    """Return step -> ``DomainBatch`` with ``size`` examples of each domain, and how many domains there are with the unlabelled ones.

    Each domain has an order of its own; ``together`` draws the same rows of all domains instead, which tells something of their labels
    where the data list them in one order.
    """
    told = optional_column(data, "domain")
    codes = np.unique(np.zeros(len(data)) if told is None else told, return_inverse=True)[1]
    parts = [data.take(np.flatnonzero(codes == e)) for e in range(codes.max() + 1)]
    draws = [batches(part, run, size, "batches" if together else f"batches of domain {e}") for e, part in enumerate(parts)]
    takes = [(taker(x), order(len(x), run, size, "batches" if together else f"batches of unlabelled domain {e}")) for e, x in enumerate(unlabelled)]
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


def parted(values: Tensor, code: Tensor) -> list[Tensor]:
    """Return the rows of each domain; the rows of a batch stand in the order of their domains' codes."""
    return list(values.split(torch.unique_consecutive(code, return_counts=True)[1].tolist()))


def features_by_domain(network: Any, batch: DomainBatch) -> tuple[Any, list[Tensor]]:
    """Return what the network made of the labelled examples, and the features of every domain, the unlabelled ones too."""
    if batch.unlabelled is None or batch.unlabelled_domain is None:
        made = network(batch.inputs)
        return made, parted(made.features, batch.domain)
    n = len(batch.inputs)
    both = network(torch.cat([batch.inputs, batch.unlabelled]))
    code = torch.cat([batch.domain, batch.unlabelled_domain])
    return type(both)(both[0][:n], both.features[:n]), parted(both.features, code)


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
