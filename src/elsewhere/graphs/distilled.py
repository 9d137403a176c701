"""What Cold Brew is compared with: perceptrons taught by a graph network or by the links, and a network tuned on fewer links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn import functional

from elsewhere.batching import order
from elsewhere.data import Array
from elsewhere.graphs.data import Nodes, as_nodes
from elsewhere.graphs.learners import Gcn, GraphLearner, kept
from elsewhere.graphs.sparse import Features, Sparse, normalised
from elsewhere.nn.building import build
from elsewhere.nn.learners import seeded
from elsewhere.processes import fabric_of
from elsewhere.run import Run
from elsewhere.task import Source


@dataclass
class FeatureLearner(GraphLearner):
    """A perceptron over nodes' own features whose training may use the graph; it predicts without links.

    Args:
        width: of the hidden layers.
        layers: of the perceptron.
        dropout: after each hidden layer.
    """

    width: int = 256
    layers: int = 2
    dropout: float = 0.5

    def perceptron(self, outputs: int, inputs: int) -> Any:
        return build("sparse-mlp", shape=[inputs], head=False, outputs=outputs, width=self.width, depth=self.layers, dropout=self.dropout)

    def scores(self, nodes: Nodes, run: Run) -> Array:
        network = self.network_.to(fabric_of(run).device).eval()
        with torch.no_grad():
            found: Array = network(self.features(nodes.graph), torch.from_numpy(nodes.ask)).cpu().numpy()
        return found[:, : self.outputs]

    def judged(self, held: Nodes | None, features: Features, network: Any) -> Any:
        """Return what judges a network on validation nodes, or None."""
        if held is None or held.labels is None:
            return None
        labels = held.labels if self.classes_ is not None else (held.labels - self.mean_) / self.deviation_
        wanted = torch.as_tensor(labels, dtype=torch.long if self.classes_ is not None else torch.float32)

        def evaluate() -> dict[str, float]:
            with torch.no_grad():
                made = network(features, torch.from_numpy(held.ask)).cpu()[:, : self.outputs]
            return {"validation error": self.error_of(made, wanted)}

        return evaluate


@dataclass
class Glnn(FeatureLearner):
    """A perceptron taught by a GCN: λ CE on labels + (1 - λ) KL(teacher ‖ student) over linked nodes (Zhang et al. 2022).

    Args:
        label_weight: λ; 0 is its usual setting.
        hidden: width of the teacher.
    """

    label_weight: float = 0.0
    hidden: int = 64

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        data, wanted, features = self.started(source)
        teacher = run.fitted(Gcn(self.epochs, self.learning_rate, self.weight_decay, self.patience, self.unit_rows, self.hidden), source)
        able = np.union1d(np.flatnonzero(data.graph.degree > 0), data.ask)
        told = torch.from_numpy(teacher.passed(data, run)[-1].numpy()[able])
        self.network_ = seeded(run, lambda: self.perceptron(self.outputs, self.width_))
        at, position = torch.from_numpy(able), torch.from_numpy(np.searchsorted(able, data.ask))

        def loss(network: Any, rows: Tensor) -> Tensor:
            made = network(features, rows)
            return self.label_weight * self.loss_of(made[position], wanted.to(made.device)) + (1 - self.label_weight) * self.divergence(made, told.to(made.device))

        self.trained(self.network_, loss, lambda step: at, self.judged(source.validation, features, self.network_), run, self.epochs)
        return self

    def divergence(self, made: Tensor, told: Tensor) -> Tensor:
        """Return KL(teacher ‖ student), or the squared difference of numbers."""
        if self.classes_ is None:
            return (made - told).square().mean()
        return functional.kl_div(made.log_softmax(1), told.log_softmax(1), log_target=True, reduction="batchmean")


@dataclass
class GraphMlp(FeatureLearner):
    """A perceptron whose embeddings of near nodes are pulled together: CE + contrast · NContrast (Hu et al. 2021).

    NContrast_i = -log Σ_{j≠i} g_ij exp(cos(z_i, z_j)/t) / Σ_{k≠i} exp(cos(z_i, z_k)/t), g = S^hops within the batch; rows without a positive count for nothing.

    Args:
        contrast: weight; published grid 0, 1, 10, 100.
        temperature: t; published grid .5, 1, 2.
        hops: r; published 2, 3, 4.
        batch: nodes of a contrast; of all linked nodes.
    """

    dropout: float = 0.6
    contrast: float = 10.0
    temperature: float = 1.0
    hops: int = 2
    batch: int = 2000

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        data, wanted, features = self.started(source)
        self.network_ = seeded(run, lambda: build("embedding-mlp", shape=[self.width_], head=False, outputs=self.outputs, width=self.width, dropout=self.dropout))
        able = np.flatnonzero(data.graph.degree > 0)
        power = kept(data.graph, f"power {self.hops}", lambda: _power(normalised(data.graph.links), self.hops))
        size = min(self.batch, len(able))
        rows = order(len(able), run, size, "contrast")
        ask = torch.from_numpy(data.ask)

        def draw(step: int) -> tuple[Tensor, Tensor]:
            at = np.sort(able[rows(step).numpy()])
            return torch.from_numpy(at), torch.from_numpy(power[at][:, at].toarray())

        def loss(network: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
            at, near = batch
            made = network(features, ask.to(at.device))
            return self.loss_of(made, wanted.to(at.device)) + self.contrast * neighbour_contrast(network.embedded(features, at), near, self.temperature)

        self.trained(self.network_, loss, draw, self.judged(source.validation, features, self.network_), run, self.epochs)
        return self


def neighbour_contrast(z: Tensor, near: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the mean NContrast of embeddings [b, d] with closeness g [b, b].

    Examples:
        >>> z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> g = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
        >>> round(neighbour_contrast(z, g).item(), 4)  # -log(e / (e + 1)), the third row has no positive
        0.3133
    """
    cosine = functional.normalize(z, dim=1)
    others = (cosine @ cosine.T / temperature).exp() * (1 - torch.eye(len(z), device=z.device))
    positive = (others * near).sum(1)
    able = positive > 0
    if not able.any():
        return z.sum() * 0
    return -(positive[able] / others.sum(1)[able]).log().mean()


def _power(s: Any, hops: int) -> Any:
    found = s
    for _ in range(hops - 1):
        found = sp.csr_array(found @ s)
    return found


@dataclass
class TuneUp(Gcn):
    """A GCN that is then tuned on nodes with most of their links dropped, by labels and its own pseudo-labels (in the way of Hu et al. 2022).

    Args:
        tuning_epochs: of the second stage.
        least: smallest share of a node's links that is dropped; the largest is all.
    """

    tuning_epochs: int = 100
    least: float = 0.5

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        super().fit(source, run)
        data = as_nodes(source.train)
        features = self.features(data.graph)
        pseudo = torch.from_numpy(self.passed(data, run)[-1].numpy())
        wanted = pseudo.argmax(1) if self.classes_ is not None else pseudo[:, 0]
        wanted[torch.from_numpy(data.ask)] = self.begin(data).to(wanted.dtype)
        able = torch.from_numpy(np.union1d(np.flatnonzero(data.graph.degree > 0), data.ask))
        rng = run.rng("dropped links")
        fewer: list[Any] = []

        def draw(step: int) -> Tensor:
            fewer[:] = [_fewer(data.graph.links, self.least, rng)]
            return able

        def loss(network: Any, rows: Tensor) -> Tensor:
            return self.loss_of(network(features, fewer[0])[rows], wanted.to(rows.device)[rows])

        self.trained(self.network_, loss, draw, None, run, self.tuning_epochs)
        return self


def _fewer(links: Any, least: float, rng: np.random.Generator) -> Sparse:
    """Return S in which each node keeps a random share of at most 1 - least of its links."""
    share = (1 - least) * rng.random(links.shape[0])
    stays = rng.random(links.nnz) < np.repeat(share, np.diff(links.indptr))
    rows = np.repeat(np.arange(links.shape[0]), np.diff(links.indptr))[stays]
    return Sparse(normalised(sp.csr_array((np.ones(len(rows), np.float32), (rows, links.indices[stays])), shape=links.shape)))
