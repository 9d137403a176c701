"""What encoders of nodes share: they are trained on a graph and read a node's own text or features alone."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import nn

from elsewhere.closed import OneOf
from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.graphs.data import Graph, Nodes, as_nodes
from elsewhere.graphs.encoders import as_bag, described, padded
from elsewhere.graphs.neighbours import NeighbourPrediction
from elsewhere.graphs.text import NodeFeatures
from elsewhere.learner import Learner
from elsewhere.nn.building import build
from elsewhere.processes import fabric_of
from elsewhere.run import Run
from elsewhere.task import Source

ENCODE = 8192  # nodes encoded at a time


class _Trained(Learner[Nodes, NeighbourPrediction]):
    """What fitting gives."""

    network_: Any
    features_: NodeFeatures


@dataclass
class NodeEncoder(_Trained):
    """An encoder of nodes' own text or features; a subclass trains ``network_`` by ``fit``.

    Args:
        encoder: "mlp" or "linear" on sparse text or words, "features" on dense features, "transformer:NAME" (a folder or a hub's name).
        dim: of the embedding (a Transformer has its own).
        epochs: of each training.
        least_steps: of each training, where the epochs of a small graph are fewer.
        batch: nodes a step.
        learning_rate: falls linearly to 0.
        weight_decay: decoupled; not on biases and norms.
        clip: largest norm of the gradient, of encoder and head apart.
        max_degree: nodes with so many links teach nothing (and are still encoded).
        idf: weigh words of features by rarity.
    """

    holds: ClassVar[tuple[type, ...]] = (NodeFeatures,)
    encoder: Annotated[str, OneOf("mlp", "linear", "features", "transformer:")] = "mlp"
    dim: int = 128
    epochs: int = 3
    least_steps: int = 100
    batch: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 1.0
    max_degree: int = 1000
    idf: bool = True

    @property
    def accepts(self) -> type:
        return Nodes

    @property
    def files(self) -> Mapping[str, str]:
        name = self.encoder.removeprefix("transformer:")
        local = name != self.encoder and os.path.isdir(name)  # else a name on the hub
        return {"encoder": name} if local else {}

    def refuses(self, source: Source[Nodes]) -> str | None:
        if isinstance(source.train, Nodes) and not source.train.graph.links.nnz:
            return "the graph has no links: there is no neighbourhood to predict"
        return None

    def graph_of(self, source: Source[Nodes], hold_out: Array | Sequence[int] | None) -> Graph:
        """Return the graph to learn from, checked, without the links of nodes held out."""
        if self.encoder not in ("mlp", "linear", "features") and not self.encoder.startswith("transformer:"):
            raise UserError(f"encoder must be mlp, linear, features or transformer:NAME, not {self.encoder!r}")
        if reason := self.refuses(source):
            raise UserError(reason)
        graph = as_nodes(source.train).graph
        if hold_out is not None:
            graph = graph.without_links_of(np.asarray(hold_out))
        _warn_of_texts(graph)
        return graph

    def taught(self, graph: Graph) -> Array:
        """Return the nodes that teach: with a link, and with fewer than ``max_degree``."""
        degree = graph.degree
        taught = np.flatnonzero((degree > 0) & (degree < self.max_degree))
        if not len(taught):
            parts = ", ".join(f"{q:.0%}: {np.quantile(degree, q):.0f}" for q in (0, 0.25, 0.5, 0.75, 1))
            raise UserError(f"every node has {self.max_degree} links or more, or none (degrees {parts}): raise max_degree")
        return taught

    def _encoder(self) -> nn.Module:
        if self.encoder.startswith("transformer:"):
            name = self.encoder.partition(":")[2]
            config, tokenizer = described(name)
            made: nn.Module = build("text-encoder", shape=[1], head=False, config=config, tokenizer=tokenizer, weights=name)
            return made
        sparse = self.encoder in ("mlp", "linear")
        options: dict[str, Any] = {"deep": self.encoder == "mlp"} if sparse else {}
        found: nn.Module = build("bag-encoder" if sparse else "feature-encoder", shape=[self.features_.width_], head=False, width=self.dim, **options)
        return found

    def _tokens(self, graph: Graph) -> list[list[int]] | None:
        if not self.encoder.startswith("transformer:"):
            return None
        if graph.texts is None:
            raise UserError("a Transformer reads texts, and these nodes have features alone")
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(described(self.encoder.partition(":")[2])[1])
        tokenizer.enable_truncation(128)
        return [e.ids or [0] for e in tokenizer.encode_batch(list(graph.texts))]  # once, for all levels

    def _reader(self, x: Any, texts: list[list[int]] | None, taught: Array, graph: Graph) -> Callable[[Array], Any]:
        """Return positions among the taught nodes -> what the encoder reads."""
        if texts is not None:
            return lambda at: padded([texts[taught[k]] for k in at.tolist()])
        rows = x[taught]
        return (lambda at: as_bag(rows[at])) if self.encoder in ("mlp", "linear") else (lambda at: torch.from_numpy(_dense(rows[at])))

    def encode(self, data: Any, run: Run = Run(), batch_size: int = ENCODE, show_progress_bar: bool = False) -> Array:
        """Return embeddings [n, dim] float32 of texts, features, or nodes never seen, ``batch_size`` at a time.

        An empty text is encoded as a bag of nothing.
        """
        nodes = as_nodes(data)
        parts = []
        for at in range(0, len(nodes), batch_size):
            parts.append(self._encoded(nodes.take(np.arange(at, min(at + batch_size, len(nodes)))), run))
            if show_progress_bar:
                run.say(f"encoded {min(at + batch_size, len(nodes)):,} of {len(nodes):,}")
        if show_progress_bar:
            run.say("")
        return np.concatenate(parts) if parts else np.empty((0, self._width()), np.float32)

    def _width(self) -> int:
        return int(self.network_.width)

    def represent(self, data: Any, run: Run = Run()) -> Array:
        return self.encode(data, run)

    def _encoded(self, nodes: Nodes, run: Run, x: Any = None, texts: list[list[int]] | None = None) -> Array:
        """Return embeddings; ``x`` are the nodes' rows and ``texts`` the graph's tokens, where they are known already."""
        network = self.network_.to(fabric_of(run).device).eval()
        device = fabric_of(run).device
        if self.encoder.startswith("transformer:"):
            return self._encoded_texts(network, nodes, texts, device)
        rows = self.features_.transform(nodes) if x is None else x
        found = []
        with torch.no_grad():
            for a in range(0, rows.shape[0], ENCODE):
                part = rows[a : a + ENCODE]
                given: Any = type(b := as_bag(part))(*(v.to(device) for v in b)) if self.encoder != "features" else torch.from_numpy(_dense(part)).to(device)
                found.append(network(given).cpu().numpy())
        return np.concatenate(found) if found else np.empty((0, self._width()), np.float32)

    def _encoded_texts(self, network: Any, nodes: Nodes, tokens: list[list[int]] | None, device: Any) -> Array:
        """Encode texts sorted by length, so that short ones wait for no long one."""
        told = [tokens[k] for k in nodes.ask.tolist()] if tokens is not None else network.tokens([nodes.texts[k] for k in nodes.ask.tolist()])
        by_length = np.argsort([len(t) for t in told], kind="stable")
        found = np.empty((len(told), int(network.width)), np.float32)
        with torch.no_grad():
            for a in range(0, len(told), 64):
                part = by_length[a : a + 64]
                ids, mask = padded([told[k] for k in part])
                found[part] = network((ids.to(device), mask.to(device))).cpu().numpy()
        return found

    def predict(self, data: Any, run: Run = Run()) -> NeighbourPrediction:
        return NeighbourPrediction(self.encode(data, run))

    def as_transformer(self) -> Any:
        """Return the fitted encoder as a scikit-learn transformer, for pipelines on texts or features."""
        return EncoderTransformer(self)


def _transformer_base() -> tuple[type, ...]:
    from sklearn.base import BaseEstimator, TransformerMixin

    return (TransformerMixin, BaseEstimator)


class EncoderTransformer(*_transformer_base()):  # type: ignore[misc]
    """A fitted encoder in a scikit-learn pipeline: ``fit`` does nothing, ``transform`` encodes."""

    def __init__(self, encoder: Any) -> None:
        self.encoder = encoder

    def fit(self, x: Any, y: Any = None) -> Self:
        return self

    def transform(self, x: Any) -> Array:
        found: Array = self.encoder.encode(x)
        return found


def _dense(x: Any) -> Array:
    return np.asarray(x.toarray() if sp.issparse(x) else x, np.float32)


def _warn_of_texts(graph: Graph) -> None:
    if graph.texts is None:
        return
    empty = sum(not t.strip() for t in graph.texts)
    twice = len(graph.texts) - len(set(graph.texts))
    if empty:
        warnings.warn(f"{empty:,} of {len(graph):,} texts are empty", UserWarning, stacklevel=3)
    if twice > 0.1 * len(graph):
        warnings.warn(f"{twice:,} of {len(graph):,} texts repeat another: their neighbourhoods disagree", UserWarning, stacklevel=3)
