"""The reader of graphs: a file or an object in, a task function or a source out; and new nodes for a fitted model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from elsewhere.errors import UserError
from elsewhere.graphs.data import Graph, Nodes, nodes_without_links
from elsewhere.graphs.links import read_table
from elsewhere.graphs.loading import from_frames, from_networkx, from_pyg, load_graph, load_text_graph, numbers_of, read_lines
from elsewhere.graphs.tasks import LEARNERS, check_graph, isolated_nodes
from elsewhere.task import Source, Task, TaskFunction, task


@task("graph", files=("path", "edges", "texts"), learners=LEARNERS, reader="graph")
def graph_file(
    seed: int = 0,
    path: str | None = None,
    edges: str | None = None,
    texts: str | None = None,
    predict: str | None = None,
    text: str | None = None,
    id: str | None = None,
    unit: str | None = None,
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    share: float = 0.1,
    labels_per_class: int | None = None,
    labelled: float = 0.5,
    graph: Graph | None = None,
) -> Task[Nodes]:
    """A graph of one's own, for study files: path (.npz, or a table of nodes with edges), predict, share, labels_per_class."""
    if graph is not None:
        return isolated_nodes(graph, share, labels_per_class, labelled, seed=seed)
    return isolated_nodes(_own(path, edges, texts, predict, text, id, unit, features, tuple(exclude)), share, labels_per_class, labelled, seed=seed)


def _own(path: str | None, edges: str | None, texts: str | None, predict: str | None, text: str | None, id: str | None, unit: str | None, features: Any, exclude: Sequence[str]) -> Graph:
    if path is None:
        raise UserError("graph needs path=FILE: an .npz, or a table of nodes with edges=FILE")
    if os.fspath(path).endswith(".npz"):
        if edges is not None:
            raise UserError(f"{path} holds its own links; leave --edges away")
        return load_graph(path, texts)
    if os.fspath(path).endswith((".txt", ".txt.gz")):
        if edges is None:
            raise UserError(f"{path} holds texts; say --edges FILE for their links")
        return load_text_graph(path, edges)
    if edges is None:
        raise UserError(f"{path} is a table of nodes; say --edges FILE for their links")
    return from_frames(path, edges, predict=predict, text=text, id=id, features=features, exclude=exclude, unit=unit)


def read(
    what: Any,
    edges: str | None = None,
    texts: str | None = None,
    predict: str | None = None,
    text: str | None = None,
    id: str | None = None,
    unit: str | None = None,
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    share: float = 0.1,
    labels_per_class: int | None = None,
    labelled: float = 0.5,
) -> TaskFunction:
    """Return the task function of a graph: an .npz, a table of nodes with ``edges``, a ``Graph``, a PyG ``Data`` or a networkx graph."""
    told = {"share": share, "labels_per_class": labels_per_class, "labelled": labelled}
    told = {k: v for k, v in told.items() if v != {"share": 0.1, "labels_per_class": None, "labelled": 0.5}[k]}
    graph = as_graph(what, predict)
    if graph is not None:
        check_graph(graph)
        options = {"graph": graph, **told}
        return replace(graph_file, files=(), options=options, summary=summary(graph))
    files = {
        "path": os.fspath(what),
        "edges": edges,
        "texts": texts,
        "predict": predict,
        "text": text,
        "id": id,
        "unit": unit,
        "features": None if features is None else list(features),
        "exclude": list(exclude),
    }
    kept = {k: v for k, v in files.items() if v not in (None, [])}
    graph = _own(files["path"], edges, texts, predict, text, id, unit, features, tuple(exclude))
    check_graph(graph)
    name = Path(files["path"]).name.split(".")[0] or "graph"
    return replace(graph_file, name=name, options={**kept, **told}, summary=summary(graph))


def as_graph(what: Any, predict: str | None = None) -> Graph | None:
    """Return the graph of an object: a ``Graph``, a PyG ``Data`` or a networkx graph; None for a path."""
    if isinstance(what, Graph):
        return what
    if hasattr(what, "edge_index"):
        return from_pyg(what)
    if hasattr(what, "nodes") and hasattr(what, "edges"):
        return from_networkx(what, labels=predict)
    return None


def summary(graph: Graph) -> str:
    """Return what was read, to be shown before anything runs."""
    degree = graph.degree
    kind = "no labels" if graph.labels is None else f"label: {', '.join(graph.classes[:8])}{' …' if len(graph.classes) > 8 else ''}" if graph.classes else "label: a number (regression)"
    what = "texts" if graph.features is None else f"{graph.features.shape[1]:,} features"
    said = f"{len(graph):,} nodes with {what}, {graph.links.nnz // 2:,} links; {kind}"
    return f"{said}\ndegree: median {np.median(degree):.0f}, greatest {degree.max():,}; {np.mean(degree == 0):.1%} have no link, {np.mean(degree == 1):.1%} one"


def source(
    what: Any,
    edges: str | None = None,
    texts: str | None = None,
    predict: str | None = None,
    text: str | None = None,
    id: str | None = None,
    unit: str | None = None,
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    **others: Any,
) -> tuple[Source[Nodes], dict[str, Any], str]:
    """Return every node of a graph as a source to fit on, what a model must remember to read new nodes, and a default learner."""
    if others:
        raise UserError(f"--{next(iter(others)).replace('_', '-')} is for assays: a fit uses every node")
    graph = as_graph(what, predict)
    if graph is None:
        graph = _own(os.fspath(what), edges, texts, predict, text, id, unit, features, tuple(exclude))
    if not graph.links.nnz:
        raise UserError("the graph has no links at all: there is no neighbourhood to learn from")
    reads: dict[str, Any] = {"text": text, "id": id}
    if graph.features is not None:
        reads["width"] = int(graph.features.shape[1])
    if not isinstance(what, (Graph,)) and as_graph(what, predict) is None and not os.fspath(what).endswith((".npz", ".txt", ".txt.gz")) and text is None:
        reads["columns"] = _columns(os.fspath(what), predict, id, unit, features, exclude)
    if graph.labels is None:
        return Source(Nodes(graph, np.arange(len(graph)))), reads, "neighborhood-prediction"
    known = np.flatnonzero(~np.isnan(graph.labels) if graph.labels.dtype.kind == "f" else graph.labels >= 0)
    return Source(Nodes(graph, known, graph.labels, graph.classes)), reads, "cold-brew"


def _columns(path: str, predict: str | None, id: str | None, unit: str | None, features: Any, exclude: Sequence[str]) -> list[str]:
    names = [str(c) for c in read_table(path).columns]
    drop = {predict, unit, id or next((c for c in ("id", "node") if c in names), None), *exclude}
    return [c for c in (features if features is not None else names) if c not in drop]


def new_nodes(what: Any, remembered: Mapping[str, Any]) -> Nodes:
    """Return new nodes without links, as a fitted model reads them: a table, lines of text, or an .npz.

    Raises:
        UserError: columns that the model was fitted on are missing, or the number of features differs.
    """
    if not hasattr(what, "iloc"):
        text = os.fspath(what)
        if text.endswith((".txt", ".txt.gz")):
            return nodes_without_links(texts=read_lines(what))
        if text.endswith(".npz"):
            held = load_graph(what)
            return Nodes(held, np.arange(len(held)))
    frame = what if hasattr(what, "iloc") else read_table(what)
    names = [str(c) for c in frame.columns]
    id = remembered.get("id") or next((c for c in ("id", "node") if c in names), None)
    ids = {"id": frame[id].to_numpy()} if id in names else {}
    if remembered.get("text"):
        column = remembered["text"]
        if column not in names:
            raise UserError(f"{what} lacks the model's text column {column!r}; it has: {', '.join(names[:12])}")
        return nodes_without_links(texts=["" if v is None or v != v else str(v) for v in frame[column].tolist()], columns=ids)
    wanted = remembered.get("columns") or [c for c in names if c != id]
    if missing := [c for c in wanted if c not in names]:
        raise UserError(f"{what} lacks {len(missing)} of the model's {len(wanted)} input columns: {', '.join(missing[:8])}; it has: {', '.join(names[:12])}")
    x = numbers_of(frame, wanted, str(what) if isinstance(what, (str, os.PathLike)) else "the table")
    if remembered.get("width") not in (None, x.shape[1]):
        raise UserError(f"{what} has {x.shape[1]} features; the model was fitted on {remembered['width']}")
    return nodes_without_links(x, columns=ids)
