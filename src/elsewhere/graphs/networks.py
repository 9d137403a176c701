"""Networks over a graph: convolutions with structural embeddings, mean aggregation, and perceptrons over sparse features."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from elsewhere.errors import UserError
from elsewhere.graphs.sparse import Features, Sparse

STRUCTURAL = ("none", "first", "last", "all")


class GraphConvolutions(nn.Module):
    """Layers X ← σ(S (X W + E) + b), with one free row of E for each node in the layers that have it (spec 06, equation 1).

    Args:
        inputs: features of a node.
        outputs: numbers a node gets.
        width: of the hidden layers.
        depth: layers.
        nodes: of the graph, for E.
        structural: which layers have E: "none" (a GCN), "first", "last" or "all".
        structural_init: deviation of E's initial values.
        residual: "none", or "initial": X ← (1 - mixing) X + mixing ReLU(Linear(X⁰)).
        mixing: of the residual.
        normalisation: "none", "pair" or "batch".
        dropout: on the input of each layer.
        aggregation: "gcn"; "mean": GraphSAGE, W₁ x_i + W₂ mean of neighbours; "simple": S^depth X W, no activation (SGC).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int = 64,
        depth: int = 2,
        nodes: int = 0,
        structural: str = "none",
        structural_init: float = 1.0,
        residual: str = "none",
        mixing: float = 0.1,
        normalisation: str = "none",
        dropout: float = 0.5,
        aggregation: str = "gcn",
    ) -> None:
        super().__init__()
        for value, known, name in ((structural, STRUCTURAL, "structural"), (residual, ("none", "initial"), "residual"), (normalisation, ("none", "pair", "batch"), "normalisation")):
            if value not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}, not {value!r}")
        if depth < 1:
            raise UserError(f"layers must be at least 1, not {depth}")
        self.depth, self.residual, self.mixing, self.normalisation, self.dropout, self.aggregation = depth, residual, mixing, normalisation, dropout, aggregation
        sizes = [inputs, *[width] * (depth - 1), outputs] if aggregation != "simple" else [inputs, outputs]
        self.weight = nn.ParameterList([_xavier(b, a) for a, b in itertools.pairwise(sizes)])
        self.own = nn.ParameterList([_xavier(b, a) for a, b in itertools.pairwise(sizes)] if aggregation == "mean" else [])
        self.bias = nn.ParameterList([nn.Parameter(torch.zeros(b)) for b in sizes[1:]])
        chosen = {"none": [], "first": [0], "last": [len(sizes) - 2], "all": list(range(len(sizes) - 1))}[structural]
        self.structure = nn.ParameterDict({str(k): nn.Parameter(structural_init * torch.randn(nodes, sizes[k + 1])) for k in chosen})
        self.first = nn.ParameterList([_xavier(width, inputs), nn.Parameter(torch.zeros(width))] if residual == "initial" and depth > 1 else [])
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for _ in range(depth - 1)] if normalisation == "batch" else [])

    def forward(self, features: Features, s: Sparse) -> Tensor:
        """Return the last layer [N, outputs]."""
        return self.layers(features, s)[-1]

    def layers(self, features: Features, s: Sparse) -> list[Tensor]:
        """Return each layer after aggregation and normalisation, before the activation: [N, width] …, [N, outputs]."""
        drop = self.dropout if self.training else 0.0
        if self.aggregation == "simple":
            out = features.times(self.weight[0], dropout=drop)
            for _ in range(self.depth):
                out = s @ out
            return [out + self.bias[0]]
        start = functional.relu(features.times(self.first[0]) + self.first[1]) if len(self.first) else None
        x: Tensor | None = None
        seen = []
        for k in range(self.depth):
            given = None if x is None else functional.dropout(x, drop) if drop else x
            out = self._layer(k, features, given, s, drop)
            last = k == self.depth - 1
            if not last:
                out = self._normalised(k, out)
            seen.append(out)
            if not last:
                x = functional.relu(out)
                if start is not None:
                    x = (1 - self.mixing) * x + self.mixing * start
        return seen

    def _layer(self, k: int, features: Features, x: Tensor | None, s: Sparse, drop: float) -> Tensor:
        def times(weight: Tensor) -> Tensor:
            return features.times(weight, dropout=drop) if x is None else x @ weight.T

        inner = times(self.weight[k])
        if str(k) in self.structure:
            inner = inner + self.structure[str(k)]
        out = s @ inner + self.bias[k]
        return out + times(self.own[k]) if self.aggregation == "mean" else out

    def _normalised(self, k: int, x: Tensor) -> Tensor:
        if self.normalisation == "batch":
            made: Tensor = self.norms[k](x)
            return made
        return pair_norm(x) if self.normalisation == "pair" else x


def pair_norm(x: Tensor) -> Tensor:
    """Subtract column means and divide by the root of the mean squared row norm (Zhao & Akoglu 2020).

    Examples:
        >>> round(pair_norm(torch.tensor([[1.0, 0.0], [0.0, 3.0]])).square().sum(1).mean().item(), 4)
        1.0
    """
    centred = x - x.mean(0)
    made: Tensor = centred / (1e-6 + centred.square().sum(1).mean()).sqrt()
    return made


class SparseMlp(nn.Module):
    """(Linear, LayerNorm, GELU, Dropout) × (depth - 1), then Linear, on features beside other vectors; sparse features stay sparse.

    With ``extra`` widths the inputs are [features, extra…], each normalised as LayerNorm does and divided by the root of its width; the
    affine part is the next layer's.

    Args:
        inputs: features.
        outputs: numbers out.
        width: of the hidden layers.
        depth: layers.
        dropout: after each hidden layer.
        extra: widths of the vectors beside the features.
        input_dropout: share of the features left out in training.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 256, depth: int = 2, dropout: float = 0.2, extra: Sequence[int] = (), input_dropout: float = 0.0) -> None:
        super().__init__()
        self.input_dropout = input_dropout
        out = width if depth > 1 else outputs
        fan = inputs + sum(extra)
        self.normalised = bool(extra)
        widths = [inputs, *extra]
        self.scale = [math.sqrt(fan / (len(widths) * w)) for w in widths]  # all blocks have one norm: a thousand words do not drown ten numbers
        self.weight = _uniform(out, inputs, fan)
        self.beside = nn.ParameterList([_uniform(out, e, fan) for e in extra])
        self.bias = nn.Parameter(torch.zeros(out))
        rest: list[nn.Module] = []
        for k in range(depth - 1):
            rest += [nn.LayerNorm(width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, outputs if k == depth - 2 else width)]
        self.rest = nn.Sequential(*rest)

    def forward(self, features: Features, rows: Tensor | None, *beside: Tensor) -> Tensor:
        """Return [n, outputs] for rows of a feature matrix and the vectors beside them [n, …]."""
        out = features.times(self.weight, rows, self.input_dropout if self.training else 0.0)
        if self.normalised:  # LayerNorm(x) Wᵀ = (x Wᵀ - mean · W 1) / deviation, so that x stays sparse
            mean, deviation = features.moments(rows, self.weight.device)
            out = (out - mean * self.weight.sum(1)) / deviation * self.scale[0]
            for weight, x, scale in zip(self.beside, beside, self.scale[1:], strict=True):
                out = out + scale * (functional.layer_norm(x, x.shape[1:]) @ weight.T)
        made: Tensor = self.rest(out + self.bias)
        return made


def _xavier(out: int, into: int) -> nn.Parameter:
    weight = torch.empty(out, into)
    nn.init.xavier_uniform_(weight)
    return nn.Parameter(weight)


def _uniform(out: int, into: int, fan: int) -> nn.Parameter:
    bound = 1 / math.sqrt(max(1, fan))
    return nn.Parameter(torch.empty(out, into).uniform_(-bound, bound))


def graph_convolutions(shape: Sequence[int], outputs: int = 2, **options: Any) -> GraphConvolutions:
    """Build layers over a graph for features of a shape [d]."""
    return GraphConvolutions(int(shape[0]), outputs, **options)


def sparse_mlp(shape: Sequence[int], outputs: int = 2, **options: Any) -> SparseMlp:
    """Build a perceptron over sparse features of a shape [d]."""
    return SparseMlp(int(shape[0]), outputs, **options)


class EmbeddingMlp(nn.Module):
    """Linear, GELU, LayerNorm, Dropout, Linear to an embedding, and a linear classifier on it (Graph-MLP)."""

    def __init__(self, inputs: int, outputs: int, width: int = 256, dropout: float = 0.6) -> None:
        super().__init__()
        self.body = SparseMlp(inputs, width, width, 2, dropout)
        self.head = nn.Linear(width, outputs)

    def embedded(self, features: Features, rows: Tensor | None) -> Tensor:
        """Return embeddings [n, width]."""
        made: Tensor = self.body(features, rows)
        return made

    def forward(self, features: Features, rows: Tensor | None) -> Tensor:
        """Return [n, outputs]."""
        made: Tensor = self.head(self.embedded(features, rows))
        return made


def embedding_mlp(shape: Sequence[int], outputs: int = 2, **options: Any) -> EmbeddingMlp:
    """Build the network of Graph-MLP for features of a shape [d]."""
    return EmbeddingMlp(int(shape[0]), outputs, **options)
