"""Cold Brew for links: which nodes will a node without links link to?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.graphs.cold_brew import ColdBrew
from elsewhere.graphs.data import Graph, Nodes, as_nodes
from elsewhere.graphs.learners import StructuralGcn, propagation
from elsewhere.graphs.neighbours import NeighbourPrediction
from elsewhere.graphs.search import top_similar
from elsewhere.graphs.sparse import Features
from elsewhere.nn.learners import seeded
from elsewhere.run import Run
from elsewhere.task import Source


def sampled_links(graph: Graph, rows: Array, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return, for each of some linked nodes, one of its neighbours and one linked node drawn at random."""
    near = graph.links.indices[graph.links.indptr[rows] + np.floor(rng.random(len(rows)) * graph.degree[rows]).astype(np.int64)]
    linked = np.flatnonzero(graph.degree > 0)
    far = linked[rng.integers(len(linked), size=len(rows))]
    return torch.from_numpy(near.astype(np.int64)), torch.from_numpy(far)


def link_loss(mine: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """Return the binary cross-entropy of scores ⟨x_i, x_j⟩ on links and as many sampled non-links."""
    return (softplus(-(mine * near).sum(1)).mean() + softplus((mine * far).sum(1)).mean()) / 2


@dataclass
class LinkGcn(StructuralGcn):
    """A graph network (with structural embeddings) whose embeddings' products score links: binary cross-entropy on links against sampled non-links.

    It suggests neighbours by the same products; a node without links has only its features there.

    Args:
        epochs: steps over all linked nodes; no validation stops it.
        top: neighbours that are suggested.
    """

    epochs: int = 200
    top: int = 1000

    @property
    def outputs(self) -> int:
        return self.hidden

    def begin(self, data: Nodes) -> Tensor:
        """Links are learnt: no label is read."""
        self.classes_ = None
        return torch.empty(0)

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        if not as_nodes(source.train).graph.links.nnz:
            raise UserError("the graph has no links to learn from")
        data, _, features = self.started(source)
        s = propagation(data.graph)
        self.network_ = seeded(run, lambda: self.network(data))
        linked = np.flatnonzero(data.graph.degree > 0)
        rows = torch.from_numpy(linked)

        def draw(step: int) -> Any:
            return (rows, *sampled_links(data.graph, linked, run.rng(f"links {step}")))

        def loss(network: Any, batch: Any) -> Tensor:
            made = network(features, s)
            return link_loss(*(made[part] for part in batch)) + self.penalty(network)

        self.trained(self.network_, loss, draw, None, run, self.epochs)
        self.linked_ = linked
        self.targets_ = self.passed(data, run)[-1].numpy()[linked].astype(np.float16)
        return self

    def predict(self, data: Any, run: Run = Run()) -> Any:
        return suggested(self.scores(as_nodes(data), run), self.targets_, self.linked_, self.top)


def suggested(made: Array, targets: Array, nodes: Array, top: int) -> NeighbourPrediction:
    """Return embeddings and the nodes whose targets have the largest products with them."""
    rows, scores = top_similar(made, targets, min(top, len(targets)), "dot")
    return NeighbourPrediction(made, nodes[rows], scores)


@dataclass
class ColdLinks(ColdBrew):
    """Cold Brew whose teacher and student score links: ξ₂(x, ẽ, ê) · x_j for the teacher's embeddings x_j of known nodes (Zheng et al. 2022, table 4).

    Args:
        epochs: of the teacher.
        top: neighbours that are suggested.
    """

    epochs: int = 200
    top: int = 1000

    @property
    def teacher(self) -> StructuralGcn:
        return LinkGcn(**{k: getattr(self, k) for k in StructuralGcn.__dataclass_fields__})

    @property
    def outputs(self) -> int:
        return self.hidden

    def begin(self, data: Nodes) -> Tensor:
        """Links are learnt: no label is read."""
        self.classes_ = None
        return torch.empty(0)

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        self._check()
        if reason := self.refuses(source):
            raise UserError(f"cold-links cannot be fitted: {reason}")
        data, _, features = self.started(source)
        self._learn_guess(data, features, source, run)
        self.student_ = self._fit_scores(data, features, run)
        return self

    def _fit_scores(self, data: Nodes, features: Features, run: Run) -> Any:
        """Fit ξ₂ on what each linked node would see without its links, against the teacher's embeddings."""
        targets = torch.zeros(len(data.graph), self.hidden)
        targets[torch.from_numpy(self.nodes_)] = torch.from_numpy(self.teacher_.targets_.astype(np.float32))
        beside = self._beside(features, self.nodes_, run, fresh=False)
        network = seeded(run, lambda: self._perceptron(self.outputs, tuple(b.shape[1] for b in beside)))
        at = torch.from_numpy(self.nodes_)
        rows, steps = self._rows(self.nodes_, run, "student")

        def draw(step: int) -> Any:
            batch = rows(step)
            return (batch, *sampled_links(data.graph, self.nodes_[batch.numpy()], run.rng(f"student links {step}")))

        def loss(net: Any, batch: Any) -> Tensor:
            mine, near, far = batch
            made = net(features, at.to(mine.device)[mine], *(b.to(mine.device)[mine] for b in beside))
            known = targets.to(mine.device)
            return link_loss(made, known[near], known[far])

        return self.trained(network, loss, draw, None, run, steps)

    def predict(self, data: Any, run: Run = Run()) -> Any:
        nodes = as_nodes(data)
        known = nodes.graph.content_key() == self.graph_
        made = self._scores(self.features(nodes.graph), nodes.ask, run, fresh=not known)
        return suggested(made, self.teacher_.targets_, self.nodes_, self.top)
