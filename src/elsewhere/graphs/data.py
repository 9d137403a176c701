"""One graph, some of its nodes, and how both are made of what users have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from elsewhere.data import Array, Examples, SparseRows
from elsewhere.errors import UserError, did_you_mean
from elsewhere.graphs.sparse import degrees
from elsewhere.identity import content_key

DENSE = 1 << 26  # numbers of a feature matrix that are made dense for learners of plain examples
Labels = Array


@dataclass(frozen=True)
class Graph:
    """Nodes with features or texts, and the links among them.

    Args:
        links: [N, N] symmetric CSR of ones, without self-loops and repeats; ``graph_of`` makes it of a list of links.
        features: [N, d] array or CSR; None where nodes have texts alone.
        labels: [N] class codes, -1 where unknown; or numbers, NaN where unknown (``classes`` None).
        classes: names of the classes.
        texts: one a node.
        columns: one [N] array a name: id, unit, …
        masks: train, validation, test as [N] masks, where the data come with a split.
    """

    links: Any
    features: Any = None
    labels: Labels | None = None
    classes: Sequence[str] | None = None
    texts: Sequence[str] | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)
    masks: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = self.links.shape[0]
        if self.features is not None and self.features.shape[0] != n:
            raise UserError(f"the graph has {n:,} nodes and {self.features.shape[0]:,} rows of features")
        if self.texts is not None and len(self.texts) != n:
            raise UserError(f"{len(self.texts):,} texts for {n:,} nodes")
        for name, values in [("labels", self.labels), *self.columns.items(), *self.masks.items()]:
            if values is not None and len(values) != n:
                raise UserError(f"{name} has {len(values):,} entries for {n:,} nodes")
        if self.features is not None:
            values = self.features.data if sp.issparse(self.features) else self.features
            if np.asarray(values).dtype.kind == "f" and not np.isfinite(values).all():
                rows = np.flatnonzero(~np.isfinite(np.asarray(sp.csr_array(self.features).sum(1) if sp.issparse(self.features) else np.sum(values, axis=1))))
                raise UserError(f"the features of {len(rows):,} nodes are not finite, first row {rows[0]}")

    def __len__(self) -> int:
        return int(self.links.shape[0])

    @cached_property
    def degree(self) -> Array:
        """Links of each node [N]."""
        return degrees(self.links)

    @cached_property
    def _key(self) -> str:
        texts = None if self.texts is None else np.array(list(self.texts), object)
        return content_key([self.links, self.features, texts, self.labels, self.classes, dict(self.columns), dict(self.masks)])

    def content_key(self) -> str:
        """A key of everything it holds, computed once."""
        return self._key

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_computed"}  # products kept for this process

    def without_labels(self) -> Graph:
        return self if self.labels is None and not self.masks else replace(self, labels=None, masks={})

    def with_features(self, features: Any) -> Graph:
        """Return the graph with other features of its nodes."""
        return replace(self, features=features)

    def without_links_of(self, nodes: Array) -> Graph:
        """Return the graph in which these nodes have no links."""
        keep = np.ones(len(self), np.float32)
        keep[nodes] = 0
        scale = sp.dia_array((keep[None], [0]), shape=self.links.shape)
        links = sp.csr_array(scale @ self.links @ scale)
        links.eliminate_zeros()
        return replace(self, links=links)


@dataclass(frozen=True)
class Nodes:
    """Some nodes of one graph: the examples of this room.

    Args:
        graph: with every node; its own labels are dropped, so that nothing can leak from there.
        ask: [n] the nodes asked about.
        known: [N] labels known here, -1 (numbers: NaN) where hidden; None: none.
        classes: names of the classes; None: numbers.
        columns: [n] beside the asked nodes.
    """

    graph: Graph
    ask: Array
    known: Labels | None = None
    classes: Sequence[str] | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "graph", self.graph.without_labels())
        if self.known is not None and len(self.known) != len(self.graph):
            raise UserError(f"labels has {len(self.known):,} entries for {len(self.graph):,} nodes")

    def __len__(self) -> int:
        return len(self.ask)

    def take(self, rows: Any) -> Self:
        rows = np.asarray(rows)
        return replace(self, ask=self.ask[rows], columns={k: v[rows] for k, v in self.columns.items()})

    def unlabelled(self) -> Self:
        """Return the same nodes, their labels hidden; labels of other nodes stay known."""
        return replace(self, known=self.hidden())

    def hidden(self) -> Labels | None:
        """Return what is known [N] without the labels of the asked nodes."""
        if self.known is None:
            return None
        known = self.known.copy()
        known[self.ask] = np.nan if known.dtype.kind == "f" else -1
        return known

    @property
    def labels(self) -> Array | None:
        """Labels of the asked nodes [n]; None where one of them is unknown."""
        if self.known is None:
            return None
        found = self.known[self.ask]
        unknown = np.isnan(found) if found.dtype.kind == "f" else found < 0
        return None if unknown.any() else found

    def column(self, name: str) -> Array:
        if name in self.columns:
            return self.columns[name]
        if name == "degree":
            return self.graph.degree[self.ask]
        if name in self.graph.columns:
            return np.asarray(self.graph.columns[name])[self.ask]
        if name == "id":
            return self.ask
        raise UserError(f"the nodes have no column {name!r}{did_you_mean(name, [*self.columns, *self.graph.columns, 'degree', 'id'])}")

    def examples(self) -> Examples:
        """Return the asked nodes' own features, for learners that know no graph."""
        columns = {name: self.column(name) for name in dict.fromkeys([*self.graph.columns, *self.columns, "degree"])}
        return Examples(self.rows(self.ask), self.labels, columns, self.classes)

    def rows(self, nodes: Array) -> Any:
        """Return features of nodes: dense where they fit, else ``SparseRows``; texts where there are no features."""
        if self.graph.features is None:
            texts = self.texts
            return np.array([texts[int(k)] for k in nodes], object)
        x = self.graph.features[nodes]
        if not sp.issparse(x):
            return np.asarray(x, np.float32)
        x = sp.csr_array(x).astype(np.float32)
        return x.toarray() if x.shape[0] * x.shape[1] <= DENSE else SparseRows(x)

    @property
    def texts(self) -> Sequence[str]:
        """Texts of all nodes of the graph."""
        if self.graph.texts is None:
            raise UserError("the nodes have neither features nor texts")
        return self.graph.texts

    def represented_by(self, represent: Callable[[Any], Array]) -> Self:
        """Return the same nodes of a graph whose features are a representation of every node."""
        everything = replace(self, ask=np.arange(len(self.graph)), known=None, columns={})
        return replace(self, graph=replace(self.graph, features=np.asarray(represent(everything)), texts=None))

    def preview(self, row: int) -> Any:
        node = int(self.ask[row])
        told: dict[str, Any] = {"node": node, "links": int(self.graph.degree[node])}
        if self.graph.texts is not None:
            told["text"] = self.graph.texts[node]
        return {**told, **{k: v[node] for k, v in self.graph.columns.items()}}


def as_nodes(data: Any) -> Nodes:
    """Return nodes: as they are, or features [n, d] (array, CSR, ``Examples``) or texts as nodes without any link."""
    if isinstance(data, Nodes):
        return data
    inputs = data.inputs if isinstance(data, Examples) else data
    if isinstance(inputs, (list, tuple)) or (isinstance(inputs, np.ndarray) and inputs.dtype.kind in "OUS"):
        return nodes_without_links(texts=[str(t) for t in inputs])
    return nodes_without_links(inputs.tocsr() if hasattr(inputs, "tocsr") else np.asarray(inputs, np.float32))


def nodes_without_links(features: Any = None, texts: Sequence[str] | None = None, columns: Mapping[str, Array] | None = None) -> Nodes:
    """Return new nodes that are linked to nothing: what a strict cold start asks about."""
    n = len(texts) if texts is not None else int(features.shape[0])
    return Nodes(Graph(sp.csr_array((n, n), dtype=np.float32), features, texts=texts, columns=columns or {}), np.arange(n))
