"""Graphs made of what users have: lists of links, files, tables, and objects of other libraries."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from elsewhere.data import Array
from elsewhere.errors import UserError, did_you_mean
from elsewhere.graphs.data import Graph
from elsewhere.graphs.links import ends_of, read_table, read_text
from elsewhere.graphs.sparse import symmetric


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
        >>> g = graph_of([[0, 1], [1, 2]], np.eye(4), [0, 1, 1, -1])
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
    return graph_of(held["edge_index"], features, held.get("y"), texts=lines, classes=classes, columns=columns, masks=masks, nodes=n)


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
    return graph_of(ends_of(links, None), texts=lines, nodes=len(lines), what="texts")


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
    lacking = [v for v in names if "x" not in graph.nodes[v]]
    if features is None and 0 < len(lacking) < len(names):
        count = f"{len(lacking):,} of {len(names):,} nodes"
        raise UserError(f"{count} have no attribute x, first {lacking[0]!r}")
    if features is None and names and not lacking:
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
    frame = nodes if hasattr(nodes, "iloc") else read_table(nodes)
    columns = [str(c) for c in frame.columns]
    name = id or next((c for c in ("id", "node") if c in columns), None)
    for asked in (predict, text, name, unit, *(features or ()), *exclude):
        if asked is not None and asked not in columns:
            raise UserError(f"column {asked!r} is not in the table of nodes{did_you_mean(asked, columns)}")
    names = None
    if name is not None:
        names = (frame if frame is nodes else read_text(nodes))[name].tolist()
    ends = ends_of(links, names, name)
    kept = [c for c in (features if features is not None else columns) if c not in {predict, text, name, unit, *exclude}]
    if names is None:
        _refuse_names(frame, kept, ends)
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


def _refuse_names(frame: Any, columns: Sequence[str], ends: Array) -> None:
    """Refuse links taken for row numbers where a feature looks like the names that they hold."""
    for column in columns if len(ends) else ():
        values = frame[column]
        if values.dtype.kind not in "iu" or not values.is_unique:
            continue
        if not np.array_equal(values, np.arange(len(values))) and np.isin(ends, values).all():
            asked = f"are the ends of links row numbers, or values of column {column!r}"
            way = f"say --id {column}, or leave the column out with --exclude {column}"
            raise UserError(f"{asked}, which has one number per node? {way}")


def numbers_of(frame: Any, columns: Sequence[str], where: str) -> Array:
    """Return columns of numbers as features [n, d]; a column of text is refused by name."""
    from elsewhere.encoding import as_numbers, is_category

    if not columns:
        raise UserError(f"{where} has no column of features; name a text column with --text")
    if odd := [c for c in columns if is_category(frame[c])]:
        raise UserError(f"{where}: column {odd[0]!r} holds text; name it with --text, leave it out with --exclude, or encode it first")
    return np.stack([as_numbers(frame[c]) for c in columns], 1).astype(np.float32)
