"""Learners over one graph: what they share, GCN, GraphSAGE, SGC and the teacher of Cold Brew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn import functional

from elsewhere.batching import order
from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.graphs.data import Graph, Nodes, as_nodes
from elsewhere.graphs.sampling import sampled_part
from elsewhere.graphs.sparse import Features, Sparse, normalised
from elsewhere.learner import Learner
from elsewhere.nn.building import build
from elsewhere.nn.learners import label_scales, seeded
from elsewhere.optimisers import adam
from elsewhere.prediction import ClassPrediction, ValuePrediction
from elsewhere.processes import fabric_of
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.training import Descent, train

Prediction = ClassPrediction | ValuePrediction
EVERY = 5  # epochs between two looks at the validation nodes


class _Trained(Learner[Nodes, Prediction]):
    """What fitting gives."""

    network_: Any


@dataclass
class GraphLearner(_Trained):
    """What learners over a graph share: labels, features, stopping by validation nodes.

    Args:
        epochs: at most; each is one step over all labelled nodes.
        learning_rate: of Adam.
        weight_decay: L2, added to the gradient.
        patience: epochs without a better validation score; the best weights are kept. A source without validation nodes trains all epochs.
        unit_rows: scale rows of non-negative features to sum 1.
    """

    epochs: int = 500
    learning_rate: float = 0.005
    weight_decay: float = 5e-4
    patience: int = 50
    unit_rows: bool = True

    @property
    def accepts(self) -> type:
        return Nodes

    def predict(self, data: Any, run: Run = Run()) -> Prediction:
        nodes = as_nodes(data)
        return self.prediction(self.scores(nodes, run))

    def scores(self, nodes: Nodes, run: Run) -> Array:
        """Return logits or standardised values of the asked nodes [n, outputs]."""
        raise NotImplementedError(f"{type(self).__name__} has no scores")

    def prediction(self, scores: Array) -> Prediction:
        """Return scores as a prediction of classes or numbers."""
        if self.classes_ is not None:
            return ClassPrediction(logits=scores)
        return ValuePrediction(scores[:, 0].astype(float) * self.deviation_ + self.mean_)

    def started(self, source: Source[Nodes]) -> tuple[Nodes, Tensor, Features]:
        """Return the nodes to train on, what is to be fitted for each, and the graph's features."""
        vars(self).pop("width_", None)
        data = as_nodes(source.train)
        wanted = self.begin(data)
        features = self.features(data.graph)
        self.width_ = features.shape[1]
        return data, wanted, features

    def begin(self, data: Nodes) -> Tensor:
        """Read labels: return what is to be fitted for each asked node, class codes or standardised numbers."""
        labels = data.labels
        if labels is None:
            raise UserError("the source has no labels to fit" if data.known is None else "some of the nodes to train on have no label")
        self.classes_ = None if data.classes is None else len(data.classes)
        self.mean_: Any
        self.mean_, self.deviation_ = (0.0, 1.0) if self.classes_ is not None else label_scales(labels.astype(float))
        if data.classes is None:
            return torch.as_tensor((labels - self.mean_) / self.deviation_, dtype=torch.float32)
        present = np.unique(labels)
        if len(data.classes) < 2:
            raise UserError("the labels have one class only")
        if absent := [data.classes[k] for k in range(len(data.classes)) if k not in present]:
            raise UserError(f"class {absent[0]!r} is absent from the training nodes ({len(absent)} of {len(data.classes)} are)")
        return torch.as_tensor(labels, dtype=torch.long)

    @property
    def outputs(self) -> int:
        return self.classes_ or 1

    def loss_of(self, scores: Tensor, wanted: Tensor) -> Tensor:
        """Return cross-entropy, or squared error of numbers."""
        return functional.cross_entropy(scores, wanted) if self.classes_ is not None else (scores[:, 0] - wanted).square().mean()

    def error_of(self, scores: Tensor, wanted: Tensor) -> float:
        """Return what validation minimises: the share of wrong classes (ties by the loss), or squared error."""
        if self.classes_ is None:
            return float((scores[:, 0] - wanted).square().mean())
        return float((scores.argmax(1) != wanted).float().mean()) + 1e-4 * float(functional.cross_entropy(scores, wanted))

    def features(self, graph: Graph) -> Features:
        """Return a graph's features as networks use them; those of the last graphs are kept with it."""
        if graph.features is None:
            raise UserError(f"{type(self).__name__} needs features, and these nodes have texts alone: put an encoder before it (probe, neighborhood-prediction)")
        width = getattr(self, "width_", None)
        if width is not None and width != graph.features.shape[1]:
            raise UserError(f"the nodes have {graph.features.shape[1]} features; this model was fitted on {width}")
        return kept(graph, f"features {self.unit_rows}", lambda: Features(graph.features, self.unit_rows))

    def trained(self, network: nn.Module, loss: Callable[[Any, Tensor], Tensor], rows: Callable[[int], Tensor], evaluate: Callable[[], Mapping[str, float]] | None, run: Run, steps: int) -> nn.Module:
        """Train a network by Adam with stopping by ``evaluate``, and return it."""
        train(
            Descent(network, loss, adam(self.learning_rate, self.weight_decay, coupled=True)),
            rows,
            run,
            steps=steps,
            evaluate=evaluate,
            every=EVERY,
            patience=None if evaluate is None else max(1, self.patience // EVERY),
        )
        return network


def kept(graph: Graph, name: str, make: Callable[[], Any]) -> Any:
    """Return what was computed for a graph once; it lives as long as the graph."""
    store = graph.__dict__.setdefault("_computed", {})
    if name not in store:
        store[name] = make()
    return store[name]


def mean_of_neighbours(links: Any) -> Sparse:
    """Return the matrix that takes the mean over each row's neighbours; a row without any gives 0."""
    a = sp.csr_array(links, dtype=np.float32, copy=True)
    count = np.diff(a.indptr)
    a.data = a.data / np.repeat(np.maximum(count, 1), count).astype(np.float32)
    return Sparse(a)


def propagation(graph: Graph, aggregation: str = "gcn") -> Sparse:
    """Return what a layer multiplies by: S of a GCN, or the mean over neighbours."""

    def make() -> Sparse:
        if aggregation != "mean":
            return Sparse(normalised(graph.links), symmetric=True)
        return mean_of_neighbours(graph.links)

    return kept(graph, f"propagation {aggregation == 'mean'}", make)


@dataclass
class Gcn(GraphLearner):
    """A graph convolutional network, X ← ReLU(S X W + b) (Kipf & Welling 2017), trained on all labelled nodes at once.

    Args:
        hidden: width of the hidden layers.
        layers: how many, the last one included.
        dropout: on the input of each layer.
        residual: "none" or "initial".
        mixing: of the initial residual.
        normalisation: "none", "pair" or "batch".

    Examples:
        >>> from elsewhere.graphs.generators import homophily_graph
        >>> from elsewhere.graphs.tasks import isolated_nodes
        >>> task = isolated_nodes(homophily_graph(300))
        >>> Gcn(epochs=5).fit(task.source).predict(task.domains[0].load().unlabelled()).classes().shape == (len(task.domains[0].load()),)
        True
    """

    hidden: int = 64
    layers: int = 2
    dropout: float = 0.5
    residual: Literal["none", "initial"] = "none"
    mixing: float = 0.1
    normalisation: Literal["none", "pair", "batch"] = "none"

    @property
    def aggregation(self) -> str:
        return "gcn"

    def network(self, data: Nodes) -> Any:
        """Return the network to train."""
        width = int(data.graph.features.shape[1])
        return build(
            "graph-convolutions",
            shape=[width],
            head=False,
            outputs=self.outputs,
            width=self.hidden,
            depth=self.layers,
            residual=self.residual,
            mixing=self.mixing,
            normalisation=self.normalisation,
            dropout=self.dropout,
            aggregation=self.aggregation,
            **self.structure(data),
        )

    def structure(self, data: Nodes) -> dict[str, Any]:
        """Return what the network has beside weights: nothing in a GCN."""
        return {}

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        data, wanted, features = self.started(source)
        s = propagation(data.graph, self.aggregation)
        self.network_ = seeded(run, lambda: self.network(data))
        ask = torch.from_numpy(data.ask)

        def loss(network: Any, rows: Tensor) -> Tensor:
            made = network(features, s)[rows]
            return self.loss_of(made, wanted.to(made.device)) + self.penalty(network)

        self.trained(self.network_, loss, lambda step: ask, self.evaluation(source.validation, features, s), run, self.epochs)
        return self

    def penalty(self, network: Any) -> Tensor | float:
        """Return what is added to the loss of the labels."""
        return 0.0

    def evaluation(self, held: Nodes | None, features: Features, s: Sparse) -> Callable[[], Mapping[str, float]] | None:
        """Return what judges the network on validation nodes, or None without any."""
        if held is None or held.labels is None:
            return None
        ask, labels = torch.from_numpy(held.ask), held.labels
        wanted = torch.as_tensor(labels) if self.classes_ is not None else torch.as_tensor((labels - self.mean_) / self.deviation_, dtype=torch.float32)

        def evaluate() -> Mapping[str, float]:
            with torch.no_grad():
                made = self.network_(features, s)[ask].cpu()
            return {"validation error": self.error_of(made, wanted), **self.told()}

        return evaluate

    def told(self) -> Mapping[str, float]:
        """Return what is logged beside the validation error."""
        return {}

    def passed(self, nodes: Nodes, run: Run) -> list[Tensor]:
        """Return every layer of the fitted network for all nodes of a graph."""
        network = self.network_.to(fabric_of(run).device).eval()
        with torch.no_grad():
            found: list[Tensor] = [x.cpu() for x in network.layers(self.features(nodes.graph), propagation(nodes.graph, self.aggregation))]
        return found

    def scores(self, nodes: Nodes, run: Run) -> Array:
        return self.passed(nodes, run)[-1].numpy()[nodes.ask]

    def represent(self, data: Any, run: Run = Run()) -> Array:
        """Return the last hidden layer after its activation, or the only layer: [n, d]."""
        nodes = as_nodes(data)
        seen = self.passed(nodes, run)
        found = functional.relu(seen[-2]) if len(seen) > 1 else seen[-1]
        return found.numpy()[nodes.ask]


@dataclass
class GraphSage(Gcn):
    """GraphSAGE with the mean of neighbours: W₁ x_i + W₂ mean_j x_j (Hamilton et al. 2017), over the whole graph or, where that is too large, over sampled parts.

    Args:
        sample: neighbours drawn for each node and layer in training; 0: all, over the whole graph.
        batch: labelled nodes a step, where neighbours are sampled.
    """

    sample: int = 0
    batch: int = 1024

    @property
    def aggregation(self) -> str:
        return "mean"

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        if not self.sample:
            return super().fit(source, run)
        data, wanted, features = self.started(source)
        self.network_ = seeded(run, lambda: self.network(data))
        size = min(self.batch, len(data))
        at = order(len(data), run, size, "seeds")
        parts: list[Any] = []

        def draw(step: int) -> Tensor:
            rows = at(step)
            nodes, links = sampled_part(data.graph, data.ask[rows.numpy()], [self.sample] * self.layers, run.rng(f"neighbours {step}"))
            parts[:] = [Features(features.matrix[nodes], False), mean_of_neighbours(links)]
            return rows

        def loss(network: Any, rows: Tensor) -> Tensor:
            made = network(*parts)[: len(rows)]
            return self.loss_of(made, wanted[rows.cpu()].to(made.device)) + self.penalty(network)

        whole = propagation(data.graph, self.aggregation)
        self.trained(self.network_, loss, draw, self.evaluation(source.validation, features, whole), run, self.epochs * -(-len(data) // size))
        return self


@dataclass
class Sgc(Gcn):
    """Simple graph convolution: S^layers X W + b, no activation between (Wu et al. 2019)."""

    @property
    def aggregation(self) -> str:
        return "simple"


@dataclass
class StructuralGcn(Gcn):
    """The teacher of Cold Brew: a GCN whose layers own a free row for each node, X ← σ(S (X W + E) + b) (Zheng et al. 2022, equation 2).

    loss = cross-entropy + structural_weight · Σ_l ‖E_l‖ over labelled nodes. E keeps deep networks from over-smoothing. It belongs to
    the nodes it was trained on: another graph is refused.

    Args:
        structural: which layers have E: "first", "last", "all" or "none" (a plain GCN).
        structural_weight: η; 32 (Cora), 0.5 (Citeseer, Pubmed) in the published settings.
        structural_penalty: "norm", as published settings of η mean it, or "squared", as the paper writes it.
        structural_init: deviation of E's initial values.
    """

    structural: Literal["first", "last", "all", "none"] = "first"
    structural_weight: float = 10.0
    structural_penalty: Literal["norm", "squared"] = "norm"
    structural_init: float = 1.0

    def structure(self, data: Nodes) -> dict[str, Any]:
        if self.structural_penalty not in ("norm", "squared"):
            raise UserError(f"structural_penalty must be norm or squared, not {self.structural_penalty!r}")
        self.nodes_ = len(data.graph)
        return {"nodes": len(data.graph), "structural": self.structural, "structural_init": self.structural_init}

    def penalty(self, network: Any) -> Tensor | float:
        parts = [e for name, e in network.named_parameters() if "structure" in name]
        norms = [e.norm() if self.structural_penalty == "norm" else e.square().sum() for e in parts]
        return self.structural_weight * torch.stack(norms).sum() if norms else 0.0

    def told(self) -> Mapping[str, float]:
        return {f"norm of E, layer {name}": float(e.detach().norm()) for name, e in self.network_.structure.items()}

    def passed(self, nodes: Nodes, run: Run) -> list[Tensor]:
        if self.structural != "none" and len(nodes.graph) != self.nodes_:
            raise UserError(f"the structural embeddings belong to the {self.nodes_:,} nodes of the graph they were trained on; this one has {len(nodes.graph):,}")
        return super().passed(nodes, run)
