"""One graph, some of its nodes, and how both are made of what users have."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from elsewhere.data import Array, Examples, SparseRows
from elsewhere.errors import UserError, did_you_mean
from elsewhere.graphs.sparse import degrees, symmetric
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


def graph_of(
    links: Any,
    features: Any = None,
    labels: Any = None,
    *,
    texts: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    columns: Mapping[str, Array] | None = None,
    masks: Mapping[str, Array] | None = None,
    nodes: int | None = None,
    what: str = "features",
) -> Graph:
    """Return a graph of a list of links [m, 2] (or [2, m], or an [N, N] matrix), whichever way they point.

    Links become symmetric, repeats and self-loops are dropped, and what was changed is said in one warning.

    Raises:
        UserError: a link names a node that is not there, or lengths differ.

    Examples:
        >>> g = graph_of([[0, 1], [1, 2], [2, 1]], np.eye(4), [0, 1, 1, -1])
        >>> len(g), g.degree.tolist(), g.classes
        (4, [1, 2, 1, 0], ('0', '1'))
    """
    known = [len(v) for v in (texts, labels) if v is not None] if features is None else [features.shape[0]]
    n = nodes if nodes is not None else known[0] if known else None
    if sp.issparse(links):
        pairs = np.stack(links.nonzero(), 1)
        n = links.shape[0] if n is None else n
    else:
        pairs = np.asarray(links)
        pairs = np.empty((0, 2), np.int64) if pairs.size == 0 else pairs
        if pairs.ndim != 2 or 2 not in pairs.shape:
            raise UserError(f"links have shape {list(pairs.shape)}; expected [m, 2] or [2, m]")
        pairs = pairs if pairs.shape[1] == 2 else pairs.T
    if pairs.dtype.kind not in "iu":
        if pairs.dtype.kind != "f" or not (pairs == np.round(pairs)).all():
            raise UserError("links must be pairs of whole numbers, the rows of the nodes; name nodes by an id column to link ids")
        pairs = pairs.astype(np.int64)
    n = int(pairs.max()) + 1 if n is None else int(n)
    if pairs.size and (pairs.max() >= n or pairs.min() < 0):
        worst = int(pairs.max() if pairs.max() >= n else pairs.min())
        raise UserError(f"links name node {worst} but there are {n:,} rows of {what}")
    made, told = symmetric(pairs, n)
    if told:
        warnings.warn(told, UserWarning, stacklevel=2)
    if features is not None and not sp.issparse(features):
        features = np.asarray(features)
    elif features is not None:
        features = sp.csr_array(features)
    codes, names = _labels(labels, classes, n)
    return Graph(made, features, codes, names, texts, dict(columns or {}), dict(masks or {}))


def _labels(labels: Any, classes: Sequence[str] | None, n: int) -> tuple[Array | None, tuple[str, ...] | None]:
    if labels is None:
        return None, None
    values = np.asarray(labels)
    if len(values) != n:
        raise UserError(f"labels has {len(values):,} entries for {n:,} nodes")
    if values.dtype.kind == "f":
        return values.astype(float), None
    if values.dtype.kind in "OUS":
        names = tuple(sorted({str(v) for v in values.tolist() if v is not None and v == v}))
        code = {name: k for k, name in enumerate(names)}
        return np.array([code.get(str(v), -1) for v in values.tolist()]), names
    count = int(values.max()) + 1
    names = tuple(str(c) for c in (classes if classes is not None else range(count)))
    if count > len(names):
        raise UserError(f"labels go up to {count - 1} and there are {len(names)} names of classes")
    return values.astype(np.int64), names


def load_graph(path: str | os.PathLike[str], texts: str | os.PathLike[str] | None = None) -> Graph:
    """Return the graph in an ``.npz`` file: x_indptr, x_indices, x_shape (and x_data) or x; edge_index [2, m]; y; masks or indices of a split.

    Args:
        path: of the file; arrays only, nothing is unpickled.
        texts: a UTF-8 file (``.gz`` too) with the text of node i on line i.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {k: file[k] for k in file.files}
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} as an .npz of plain arrays: {error}") from error
    if "edge_index" not in held:
        raise UserError(f"{path} has no edge_index [2, m]; it has: {', '.join(held) or 'nothing'}")
    features: Any = None
    if {"x_indptr", "x_indices", "x_shape"} <= set(held):
        values = held.get("x_data", np.ones(len(held["x_indices"]), np.float32))
        features = sp.csr_array((values.astype(np.float32), held["x_indices"].astype(np.int32), held["x_indptr"]), shape=tuple(int(s) for s in held["x_shape"]))
    elif "x" in held:
        features = held["x"]
    lines = read_lines(texts) if texts is not None else None
    n = features.shape[0] if features is not None else len(lines) if lines is not None else len(held["y"]) if "y" in held else None
    classes = tuple(held["class_names"].tolist()) if "class_names" in held else None
    masks: dict[str, Array] = {}
    for name in ("train", "validation", "test"):
        for key in (f"{name}_index", f"{name}_mask"):
            if key in held and n is not None:
                masks[name] = held[key] if held[key].dtype == bool else np.isin(np.arange(n), held[key])
    plain = {"x_indptr", "x_indices", "x_shape", "x_data", "x", "edge_index", "y", "class_names"} | {f"{m}_{k}" for m in ("train", "validation", "test") for k in ("index", "mask")}
    columns = {k: v for k, v in held.items() if k not in plain and v.ndim == 1 and len(v) == n}
    return graph_of(held["edge_index"].astype(np.int64), features, held.get("y"), texts=lines, classes=classes, columns=columns, masks=masks, nodes=n)


def load_text_graph(texts: str | os.PathLike[str], links: str | os.PathLike[str]) -> Graph:
    """Return a graph of texts: a UTF-8 file with one node a line, and links as ``.npz`` (edge_index), ``.csv`` or ``.parquet`` (two columns of line numbers).

    The words of the features in an ``.npz`` are left away: the texts are what nodes have.
    """
    lines = read_lines(texts)
    if os.fspath(links).endswith(".npz"):
        held = load_graph(links)
        if len(held) != len(lines):
            raise UserError(f"{len(lines):,} texts for {len(held):,} nodes")
        return replace(held, features=None, texts=lines)
    frame = read_table(links)
    return graph_of(frame.iloc[:, :2].to_numpy(), texts=lines, nodes=len(lines), what="texts")


def read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Return the lines of a UTF-8 text file, ``.gz`` too."""
    import gzip

    try:
        opens: Any = gzip.open if os.fspath(path).endswith(".gz") else open
        with opens(path, "rt", encoding="utf-8") as file:
            return [line.rstrip("\r\n") for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} as lines of UTF-8 text: {error}") from error


def from_pyg(data: Any) -> Graph:
    """Return the graph of a PyTorch Geometric ``Data`` (x, edge_index, y, train_mask, val_mask, test_mask).

    ``edge_index`` is read whether the object holds more or not; directed links become symmetric.
    """

    def array(name: str) -> Array | None:
        value = getattr(data, name, None)
        return None if value is None else np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)

    edges = array("edge_index")
    if edges is None:
        raise UserError(f"{type(data).__name__} has no edge_index; convert an adjacency with torch_geometric.utils.to_edge_index first")
    x, y = array("x"), array("y")
    if y is not None and y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y is not None and y.ndim > 1:
        raise UserError(f"y has shape {list(y.shape)}; one label a node is expected")
    masks: dict[str, Array] = {}
    for ours, theirs in (("train", "train_mask"), ("validation", "val_mask"), ("test", "test_mask")):
        mask = array(theirs)
        if mask is not None:
            masks[ours] = np.asarray(mask if mask.ndim == 1 else mask[:, 0], bool)
    n = int(data.num_nodes) if getattr(data, "num_nodes", None) is not None else None
    return graph_of(edges, x, y, masks=masks, nodes=n)


def from_networkx(graph: Any, features: Any = None, labels: str | None = None) -> Graph:
    """Return the graph of a networkx graph; nodes in its order, their names as ``id``.

    Args:
        graph: directed or not.
        features: [N, d]; None: the numeric node attribute ``x``.
        labels: the node attribute to predict.
    """
    names = list(graph.nodes)
    at = {name: k for k, name in enumerate(names)}
    pairs = np.array([(at[u], at[v]) for u, v in graph.edges()], np.int64).reshape(-1, 2)
    if features is None and names and "x" in graph.nodes[names[0]]:
        features = np.stack([np.asarray(graph.nodes[v]["x"], np.float32) for v in names])
    told = None if labels is None else np.array([graph.nodes[v].get(labels) for v in names], object)
    return graph_of(pairs, features, told, columns={"id": np.array([str(v) for v in names])}, nodes=len(names))


def from_frames(
    nodes: Any,
    links: Any,
    *,
    predict: str | None = None,
    text: str | None = None,
    id: str | None = None,
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    unit: str | None = None,
) -> Graph:
    """Return the graph of two tables: one row a node; and links, two columns of ids (or of row numbers where nodes have no id).

    Args:
        nodes: a DataFrame or a path; numeric columns are features.
        links: a DataFrame or a path; its first two columns.
        predict: the column to predict; empty cells are unknown.
        text: a column of raw text instead of features.
        id: the column that names a node; default: ``id`` or ``node`` if there is one.
        features: only these columns are features.
        exclude: these columns are not.
        unit: column of what is never split.
    """
    frame, pairs = (read_table(t) if not hasattr(t, "iloc") else t for t in (nodes, links))
    columns = [str(c) for c in frame.columns]
    name = id or next((c for c in ("id", "node") if c in columns), None)
    for asked in (predict, text, name, unit, *(features or ()), *exclude):
        if asked is not None and asked not in columns:
            raise UserError(f"column {asked!r} is not in the table of nodes{did_you_mean(asked, columns)}")
    if pairs.shape[1] < 2:
        raise UserError(f"the table of links has {pairs.shape[1]} columns; the first two name the nodes of a link")
    ends = pairs.iloc[:, :2]
    if name is not None:
        at = {v: k for k, v in enumerate(frame[name].tolist())}
        if len(at) < len(frame):
            raise UserError(f"id column {name!r} names {len(frame) - len(at):,} nodes twice")
        absent = [v for column in ends for v in ends[column].tolist() if v not in at]
        if absent:
            raise UserError(f"links name node {absent[0]!r}, which column {name!r} of the nodes does not have ({len(absent):,} such ends)")
        ends = np.stack([ends[column].map(at).to_numpy() for column in ends], 1) if len(ends) else np.empty((0, 2), np.int64)
    else:
        ends = ends.to_numpy()
    kept = [c for c in (features if features is not None else columns) if c not in {predict, text, name, unit, *exclude}]
    told = {"id": frame[name].to_numpy()} if name is not None else {}
    if unit is not None:
        told["unit"] = frame[unit].to_numpy()
    labels = None if predict is None else frame[predict].to_numpy()
    if predict is not None and frame[predict].dtype.kind in "iu":
        labels = frame[predict].to_numpy()
        if len(np.unique(labels)) <= 50:
            labels = np.array([str(v) for v in labels], object)
    elif predict is not None and frame[predict].dtype.kind not in "f":
        labels = np.array([None if v is None or v != v else str(v) for v in np.asarray(labels, object)], object)
    encoded = None if text is not None else numbers_of(frame, kept, "the table of nodes")
    texts = None if text is None else ["" if v is None or v != v else str(v) for v in frame[text].tolist()]
    return graph_of(ends, encoded, labels, texts=texts, columns=told, nodes=len(frame))


def numbers_of(frame: Any, columns: Sequence[str], where: str) -> Array:
    """Return columns of numbers as features [n, d]; a column of text is refused by name."""
    from elsewhere.encoding import as_numbers, is_category

    if not columns:
        raise UserError(f"{where} has no column of features; name a text column with --text")
    if odd := [c for c in columns if is_category(frame[c])]:
        raise UserError(f"{where}: column {odd[0]!r} holds text; name it with --text, leave it out with --exclude, or encode it first")
    return np.stack([as_numbers(frame[c]) for c in columns], 1).astype(np.float32)


def read_table(path: Any) -> Any:
    """Return a CSV, TSV or Parquet file as a DataFrame."""
    import pandas as pd

    text = os.fspath(path)
    try:
        if text.endswith((".parquet", ".pq")):
            return pd.read_parquet(path)
        return pd.read_csv(path, sep="\t" if text.endswith((".tsv", ".tsv.gz")) else ",")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
