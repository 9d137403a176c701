"""Cold Brew: a student for nodes that have no neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from elsewhere.batching import order
from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.graphs.data import Graph, Nodes, as_nodes
from elsewhere.graphs.learners import GraphLearner, StructuralGcn
from elsewhere.graphs.search import MANY, CoarseLists, top_similar
from elsewhere.graphs.sparse import Features
from elsewhere.nn.building import build
from elsewhere.nn.learners import seeded
from elsewhere.processes import fabric_of
from elsewhere.run import Run
from elsewhere.task import Source

HELD_OUT = 0.1  # of the bank, to stop the first part by
TEMPERATURES = {"cosine": 0.1, "dot": 1.0}


@dataclass
class ColdBrew(GraphLearner):
    """A graph network with structural embeddings teaches two perceptrons that need a node's own features alone (Zheng et al. 2022).

    1. teacher: X ← σ(S (X W + E) + b), see ``StructuralGcn``; its layers for linked nodes are the *bank*, fixed.
    2. ê = ξ₁(x), by squared error to the bank (equation 3).
    3. ẽ = softmax over the K most similar rows of the bank (equations 4, 5): virtual neighbours; a training node may not choose itself.
    4. ξ₂(x, ẽ, ê) by the labels; ξ₁ and the bank are frozen.

    Args:
        hidden: width of the teacher.
        layers: of the teacher.
        dropout: of the teacher.
        structural: layers of the teacher that have E.
        structural_weight: η.
        structural_penalty: "norm" or "squared".
        structural_init: deviation of E at the start.
        residual: of the teacher: "none" or "initial".
        mixing: of the residual.
        normalisation: of the teacher: "none", "pair" or "batch".
        neighbours: K; 0 leaves the virtual neighbours out.
        similarity: "cosine" or "dot".
        attention: "softmax" of the similarities, or "uniform".
        temperature: of the softmax; None: 0.1 for cosine, 1 for dot.
        bank: "all" layers of the teacher, each divided by its root mean square, or the "last".
        exclude_self: a node of the bank may not be its own neighbour in training.
        include_guess: ξ₂ sees ê too.
        guess_on: ξ₁ learns on all nodes of the "bank", or on the "train" nodes alone.
        student_width: of the perceptrons.
        student_layers: of the perceptrons.
        student_dropout: of the perceptrons.
        input_dropout: share of the features that the perceptrons do not see in a step.
        student_epochs: at most, of each perceptron.
        batch: nodes a step of a perceptron.
        graph_from_degree: nodes with so many links are left to the teacher, where the graph is the one it was trained on; "auto" chooses by
            validation; None: never, as published.

    Examples:
        >>> from elsewhere.graphs.generators import homophily_graph
        >>> from elsewhere.graphs.tasks import isolated_nodes
        >>> task = isolated_nodes(homophily_graph(300))
        >>> brew = ColdBrew(epochs=5, student_epochs=5).fit(task.source)
        >>> brew.predict(np.zeros((2, 64), np.float32)).classes().shape  # features only: a strict cold start
        (2,)
        >>> brew.virtual_neighbours(np.zeros((2, 64), np.float32))[0].shape
        (2, 10)
    """

    hidden: int = 64
    layers: int = 2
    dropout: float = 0.5
    structural: Literal["first", "last", "all", "none"] = "first"
    structural_weight: float = 10.0
    structural_penalty: Literal["norm", "squared"] = "norm"
    structural_init: float = 1.0
    residual: Literal["none", "initial"] = "none"
    mixing: float = 0.1
    normalisation: Literal["none", "pair", "batch"] = "none"
    neighbours: int = 10
    similarity: Literal["cosine", "dot"] = "cosine"
    attention: Literal["softmax", "uniform"] = "softmax"
    temperature: float | None = None
    bank: Literal["all", "last"] = "all"
    exclude_self: bool = True
    include_guess: bool = True
    guess_on: Literal["bank", "train"] = "bank"
    student_width: int = 256
    student_layers: int = 2
    student_dropout: float = 0.2
    input_dropout: float = 0.5
    student_epochs: int = 300
    batch: int = 65_536
    graph_from_degree: int | str | None = None

    @property
    def teacher(self) -> StructuralGcn:
        """The teacher, shared by all students of one setting, source and seed."""
        shared = {k: getattr(self, k) for k in StructuralGcn.__dataclass_fields__}
        return StructuralGcn(**shared)

    def refuses(self, source: Source[Nodes]) -> str | None:
        if isinstance(source.train, Nodes) and not source.train.graph.links.nnz:
            return "the graph has no links at all; use the learner mlp"
        return None

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        self._check()
        if reason := self.refuses(source):
            raise UserError(f"cold-brew cannot be fitted: {reason}")
        data, wanted, features = self.started(source)
        self._learn_guess(data, features, source, run)
        self.student_ = self._fit_student(data, source.validation, features, wanted, run)
        self.degree_ = self._degree(source.validation, run)
        return self

    def _learn_guess(self, data: Nodes, features: Features, source: Source[Nodes], run: Run) -> None:
        """Fit the teacher, take its bank, and teach ξ₁ to guess it."""
        self.graph_ = data.graph.content_key()
        self.teacher_: Any = run.fitted(self.teacher, source)
        self.nodes_, self.bank_ = self._bank(data, run)
        self.guess_ = self._fit_guess(data, features, run)
        self._index()

    def _check(self) -> None:
        for name, known in (("similarity", ("cosine", "dot")), ("attention", ("softmax", "uniform")), ("bank", ("all", "last")), ("guess_on", ("bank", "train"))):
            if getattr(self, name) not in known:
                raise UserError(f"{name} must be {' or '.join(known)}, not {getattr(self, name)!r}")

    def _bank(self, data: Nodes, run: Run) -> tuple[Array, Array]:
        """Return the linked nodes and what the teacher hands over of them, [n, m] float16; a node without links is never in it."""
        linked = np.flatnonzero(data.graph.degree > 0)
        if self.neighbours >= len(linked):
            raise UserError(f"neighbours={self.neighbours} but only {len(linked)} linked nodes remain")
        seen = self.teacher_.passed(data, run)
        blocks = [x.numpy()[linked] for x in (seen if self.bank == "all" else seen[-1:])]
        scaled = [b / max(float(np.sqrt(np.square(b).mean())), 1e-12) for b in blocks]
        return linked, np.concatenate(scaled, 1).astype(np.float16)

    def _perceptron(self, outputs: int, extra: tuple[int, ...] = ()) -> Any:
        return build(
            "sparse-mlp",
            shape=[self.width_],
            head=False,
            outputs=outputs,
            width=self.student_width,
            depth=self.student_layers,
            dropout=self.student_dropout,
            extra=list(extra),
            input_dropout=self.input_dropout,
        )

    def _rows(self, nodes: Array, run: Run, stream: str) -> tuple[Callable[[int], Tensor], int]:
        """Return step -> positions among ``nodes``, and the number of steps."""
        if len(nodes) <= self.batch:
            everything = torch.arange(len(nodes))
            return lambda step: everything, self.student_epochs
        return order(len(nodes), run, self.batch, stream), self.student_epochs * -(-len(nodes) // self.batch)

    def _fit_guess(self, data: Nodes, features: Features, run: Run) -> Any:
        """Fit ξ₁: squared error to the bank; stopped by a tenth of it."""
        bank = torch.from_numpy(self.bank_.astype(np.float32))
        able = np.arange(len(self.nodes_)) if self.guess_on == "bank" else np.flatnonzero(np.isin(self.nodes_, data.ask))
        drawn = run.rng("bank").permutation(able)
        held, taught = np.sort(drawn[: round(HELD_OUT * len(drawn))]), np.sort(drawn[round(HELD_OUT * len(drawn)) :])
        network = seeded(run, lambda: self._perceptron(bank.shape[1]))
        at, wanted = torch.from_numpy(self.nodes_[taught]), bank[torch.from_numpy(taught)]
        rows, steps = self._rows(taught, run, "guess")

        def loss(net: Any, batch: Tensor) -> Tensor:
            made = net(features, at.to(batch.device)[batch])
            return (made - wanted.to(batch.device)[batch]).square().mean()

        def evaluate() -> Mapping[str, float]:
            with torch.no_grad():
                made = network(features, torch.from_numpy(self.nodes_[held])).cpu()
            return {"guess error": float((made - bank[torch.from_numpy(held)]).square().mean())}

        return self.trained(network, loss, rows, evaluate if len(held) else None, run, steps)

    def _fit_student(self, data: Nodes, held: Nodes | None, features: Features, wanted: Tensor, run: Run) -> Any:
        """Fit ξ₂ on what each training node would see without links; stopped by validation nodes treated so."""
        beside = self._beside(features, data.ask, run, fresh=False)
        network = seeded(run, lambda: self._perceptron(self.outputs, tuple(b.shape[1] for b in beside)))
        at = torch.from_numpy(data.ask)
        rows, steps = self._rows(data.ask, run, "student")

        def loss(net: Any, batch: Tensor) -> Tensor:
            made = net(features, at.to(batch.device)[batch], *(b.to(batch.device)[batch] for b in beside))
            return self.loss_of(made, wanted.to(batch.device)[batch])

        evaluate = None
        if held is not None and held.labels is not None:
            seen, ask = self._beside(features, held.ask, run, fresh=False), torch.from_numpy(held.ask)
            labels = torch.as_tensor(held.labels) if self.classes_ is not None else torch.as_tensor((held.labels - self.mean_) / self.deviation_, dtype=torch.float32)

            def evaluate() -> Mapping[str, float]:
                with torch.no_grad():
                    made = network(features, ask, *(b.to(network.bias.device) for b in seen)).cpu()
                return {"validation error": self.error_of(made, labels)}

        return self.trained(network, loss, rows, evaluate, run, steps)

    def _beside(self, features: Features, nodes: Array | None, run: Run, fresh: bool) -> list[Tensor]:
        """Return what ξ₂ sees beside the features of nodes: virtual neighbours and guess, as configured."""
        guess = self._guesses(features, nodes, run)
        own = None
        if not fresh and self.exclude_self and nodes is not None:
            own = np.full(len(guess), -1)
            at = np.searchsorted(self.nodes_, nodes).clip(max=len(self.nodes_) - 1)
            own[self.nodes_[at] == nodes] = at[self.nodes_[at] == nodes]
        parts = []
        if self.neighbours:
            rows, weights = self._attend(guess, own)
            bank = self.bank_.astype(np.float32)
            parts.append(torch.from_numpy(np.concatenate([np.einsum("nk,nkm->nm", w, bank[r]) for r, w in zip(_split(rows), _split(weights), strict=True)] or [bank[:0]])))
        if self.include_guess or not parts:
            parts.append(torch.from_numpy(guess))
        return parts

    def _guesses(self, features: Features, nodes: Array | None, run: Run) -> Array:
        """Return ê for rows of a feature matrix (None: all)."""
        network = self.guess_.to(fabric_of(run).device).eval()
        every = np.arange(features.shape[0]) if nodes is None else nodes
        with torch.no_grad():
            found = [network(features, torch.from_numpy(part)).cpu().numpy() for part in _split(every, 16_384)]
        return np.concatenate(found) if found else np.empty((0, self.bank_.shape[1]), np.float32)

    def _index(self) -> None:
        """Build the coarse lists of a large bank; a small one is searched whole."""
        self.__dict__["_lists"] = CoarseLists(self.bank_, similarity=self.similarity) if len(self.bank_) > MANY else None

    def _attend(self, guess: Array, own: Array | None) -> tuple[Array, Array]:
        """Return rows of the bank [n, K] and their weights."""
        if "_lists" not in self.__dict__:
            self._index()
        lists = self.__dict__["_lists"]
        if lists is not None:
            rows, found = lists.search(guess, self.neighbours + 1)
            own = np.full(len(guess), -1) if own is None else own
            drop = np.where((rows == own[:, None]) & (own[:, None] >= 0), -np.inf, found)
            best = np.argsort(-drop, axis=1, kind="stable")[:, : self.neighbours]
            rows, found = np.take_along_axis(rows, best, 1), np.take_along_axis(drop, best, 1)
        else:
            rows, found = top_similar(guess, self.bank_, self.neighbours, self.similarity, own)
        if self.attention == "uniform":
            return rows, np.full(rows.shape, 1 / self.neighbours, np.float32)
        scaled = found / (self.temperature or TEMPERATURES[self.similarity])
        weight = np.exp(scaled - scaled.max(1, keepdims=True))
        return rows, (weight / weight.sum(1, keepdims=True)).astype(np.float32)

    def _degree(self, held: Nodes | None, run: Run) -> int | None:
        """Return the degree from which nodes are left to the teacher."""
        if self.graph_from_degree is None or isinstance(self.graph_from_degree, int):
            return self.graph_from_degree
        if self.graph_from_degree != "auto":
            raise UserError(f"graph_from_degree must be a number of links, auto or null, not {self.graph_from_degree!r}")
        if held is None or held.labels is None:
            raise UserError("graph_from_degree=auto chooses by validation nodes, and the source has none")
        labels = held.labels if self.classes_ is not None else (held.labels - self.mean_) / self.deviation_
        wanted = torch.as_tensor(labels, dtype=torch.long if self.classes_ is not None else torch.float32)
        own, graph = self._scores(self.features(held.graph), held.ask, run, fresh=False), self.teacher_.scores(held, run)
        degree = held.column("degree")
        errors = {d: self.error_of(torch.from_numpy(np.where((degree >= d)[:, None], graph, own)), wanted) for d in (1, 2, 3, 5, 10, 20, 50, 10**9)}
        return min(errors, key=lambda d: errors[d])

    def _scores(self, features: Features, nodes: Array | None, run: Run, fresh: bool = True) -> Array:
        network = self.student_.to(fabric_of(run).device).eval()
        every = np.arange(features.shape[0]) if nodes is None else nodes
        found = []
        for part in _split(every, 16_384):
            beside = self._beside(features, part, run, fresh)
            with torch.no_grad():
                found.append(network(features, torch.from_numpy(part), *(b.to(network.bias.device) for b in beside)).cpu().numpy())
        return np.concatenate(found) if found else np.empty((0, self.outputs), np.float32)

    def scores(self, nodes: Nodes, run: Run) -> Array:
        known = nodes.graph.content_key() == self.graph_
        # a node of the bank may not look itself up: its row there knows its links
        made = self._scores(self.features(nodes.graph), nodes.ask, run, fresh=not known)
        if self.degree_ is not None and known:
            degree = nodes.column("degree")
            made = np.where((degree >= self.degree_)[:, None], self.teacher_.scores(nodes, run), made)
        return made

    def represent(self, data: Any, run: Run = Run()) -> Array:
        """Return the guessed embeddings ê [n, m]."""
        nodes = as_nodes(data)
        return self._guesses(self.features(nodes.graph), nodes.ask, run)

    def virtual_neighbours(self, data: Any, run: Run = Run()) -> tuple[Array, Array]:
        """Return the nodes of the training graph that stand in for each node's neighbours [n, K], and their weights."""
        if not self.neighbours:
            raise UserError("this model was fitted with neighbours=0: it has no virtual neighbours")
        rows, weights = self._attend(self.represent(data, run), None)
        return self.nodes_[rows], weights


def _split(values: Array, size: int = 4096) -> list[Array]:
    return [values[k : k + size] for k in range(0, len(values), size)]


def embedding_map(learner: ColdBrew, graph: Graph) -> Array:
    """Return the first two principal components of ê for every node [N, 2]."""
    guess = learner.represent(Nodes(graph, np.arange(len(graph))))
    centred = guess - guess.mean(0)
    _, _, v = np.linalg.svd(centred[:: max(1, len(centred) // 5000)], full_matrices=False)
    return centred @ v[:2].T
