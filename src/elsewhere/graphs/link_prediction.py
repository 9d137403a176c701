"""Link prediction with the same encoder: the foil of neighbourhood prediction; and DeepWalk, which knows links alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, logsigmoid, softplus

from elsewhere.batching import order
from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.graphs.data import Nodes, as_nodes
from elsewhere.graphs.levels import EncoderStepper
from elsewhere.graphs.node_encoder import NodeEncoder
from elsewhere.graphs.text import NodeFeatures
from elsewhere.learner import Learner
from elsewhere.nn.learners import seeded
from elsewhere.processes import fabric_of
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.training import Descent, adam, train


@dataclass
class LinkPrediction(NodeEncoder):
    """The same encoder taught by single links: binary cross-entropy of φ_i · φ_j on links against as many sampled non-links.

    Args:
        epochs: over nodes; nine are the budget of neighbourhood prediction with three levels.
    """

    epochs: int = 9
    least_steps: int = 300

    def fit(self, source: Source[Nodes], run: Run = Run(), hold_out: Array | Sequence[int] | None = None) -> Self:
        graph = self.graph_of(source, hold_out)
        self.features_ = NodeFeatures(self.idf).fit(graph)
        every = np.arange(len(graph))
        x = self.features_.transform(Nodes(graph, every))
        taught = self.taught(graph)
        self.network_ = seeded(run, self._encoder)
        read = self._reader(x, self._tokens(graph), every, graph)
        steps = max(self.least_steps, self.epochs * -(-len(taught) // self.batch))
        at = order(len(taught), run, min(self.batch, len(taught)), "links")
        links = graph.links

        def draw(step: int) -> Any:
            rng = run.rng(f"pairs {step}")
            mine = taught[at(step).numpy()]
            near = links.indices[links.indptr[mine] + np.floor(rng.random(len(mine)) * graph.degree[mine]).astype(np.int64)]
            far = taught[rng.integers(len(taught), size=len(mine))]
            return read(np.concatenate([mine, near, far]))

        def loss(network: Any, head: Any, given: Any) -> Tensor:
            mine, near, far = network(given).chunk(3)
            return head(softplus(-(mine * near).sum(1)).mean() + softplus((mine * far).sum(1)).mean()) / 2

        device = fabric_of(run).device
        train(EncoderStepper(self.network_.to(device), nn.Identity(), loss, self.learning_rate, self.weight_decay, self.clip, steps), draw, run, steps=steps)
        return self


@dataclass
class DeepWalk(Learner[Nodes, Any]):
    """Skip-gram with negative samples on random walks (Perozzi et al. 2014; node2vec with p = q = 1). Nodes without links get zeros: it has nothing to say of them.

    Args:
        dim: of the embedding.
        length: nodes of a walk.
        window: steps to either side that count as near.
        walks: from each node.
        negatives: sampled nodes for each pair.
        batch: walks a step.
        learning_rate: of Adam.
    """

    dim: int = 128
    length: int = 20
    window: int = 5
    walks: int = 10
    negatives: int = 5
    batch: int = 256
    learning_rate: float = 0.01

    @property
    def accepts(self) -> type:
        return Nodes

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        graph = as_nodes(source.train).graph
        linked = np.flatnonzero(graph.degree > 0)
        if not len(linked):
            raise UserError("the graph has no links: there is nowhere to walk")
        self.nodes_ = len(graph)
        tables = seeded(run, lambda: _Tables(len(graph), self.dim))
        at = order(len(linked), run, min(self.batch, len(linked)), "walks")
        steps = self.walks * -(-len(linked) // self.batch)

        def draw(step: int) -> tuple[Tensor, Tensor]:
            rng = run.rng(f"walk {step}")
            walks = random_walks(graph.links, linked[at(step).numpy()], self.length, rng)
            away = linked[rng.integers(len(linked), size=(*walks.shape, self.negatives))]
            return torch.from_numpy(walks), torch.from_numpy(away)

        def loss(module: Any, batch: tuple[Tensor, Tensor]) -> Tensor:
            walks, away = batch
            mine, other, far = module(walks, away)
            scores = mine @ other.transpose(1, 2)
            gap = (torch.arange(self.length)[:, None] - torch.arange(self.length)[None]).abs()
            near = ((gap > 0) & (gap <= self.window)).to(scores)
            positive = (logsigmoid(scores) * near).sum() / near.sum() / len(walks)
            negative = logsigmoid(-(far @ mine[..., None])[..., 0]).mean() * self.negatives
            return -(positive + negative)

        train(Descent(tables, loss, adam(self.learning_rate)), draw, run, steps=steps)
        self.table_ = tables.near.detach().cpu().numpy().copy()
        self.table_[graph.degree == 0] = 0
        return self

    def represent(self, data: Any, run: Run = Run()) -> Array:
        nodes = as_nodes(data)
        if len(nodes.graph) != self.nodes_:
            raise UserError(f"deepwalk knows the {self.nodes_:,} nodes it walked among; this graph has {len(nodes.graph):,}")
        found: Array = self.table_[nodes.ask]
        return found


class _Tables(nn.Module):
    """Two vectors a node: as a centre, and as what is near."""

    def __init__(self, n: int, dim: int) -> None:
        super().__init__()
        self.near, self.context = nn.Parameter(torch.randn(n, dim) / dim), nn.Parameter(torch.zeros(n, dim))

    def forward(self, walks: Tensor, away: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return embedding(walks, self.near), embedding(walks, self.context), embedding(away, self.context)


def random_walks(links: Any, start: Array, length: int, rng: np.random.Generator) -> Array:
    """Return walks [n, length] along links, all nodes at once; every start needs a link.

    Examples:
        >>> import scipy.sparse as sp
        >>> random_walks(sp.csr_array(np.array([[0, 1], [1, 0]])), np.array([0]), 4, np.random.default_rng(0)).tolist()
        [[0, 1, 0, 1]]
    """
    walk = np.empty((len(start), length), np.int64)
    walk[:, 0] = start
    degree = np.diff(links.indptr)
    for k in range(1, length):
        here = walk[:, k - 1]
        walk[:, k] = links.indices[links.indptr[here] + np.floor(rng.random(len(here)) * degree[here]).astype(np.int64)]
    return walk
