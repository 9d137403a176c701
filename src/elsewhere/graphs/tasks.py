"""Tasks over one graph: head, tail and isolated nodes as domains; other countries; and the reader of a graph of one's own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.sparse as sp

from elsewhere.data import Array, find, root
from elsewhere.errors import UserError, did_you_mean
from elsewhere.graphs.data import Graph, Nodes
from elsewhere.graphs.generators import homophily_graph, rewired, topic_text_graph
from elsewhere.graphs.learners import kept
from elsewhere.graphs.loading import from_pyg, load_graph, load_text_graph
from elsewhere.graphs.neighbours import Linked, neighbour_metrics
from elsewhere.graphs.text import with_features
from elsewhere.metrics import classification_metrics, regression_metrics
from elsewhere.metrics.classification import AUROC
from elsewhere.run import Run
from elsewhere.task import Domain, Metric, Source, Task, task

LEARNERS = ("mlp", "label-propagation", "gcn", "cold-brew")
FINDINGS = ("feature-contribution", "degrees")
MUSAE = "download it from github.com/benedekrozemberczki/MUSAE and convert it with elsewhere.graphs.data.graph_of"
PLANETOID = "torch_geometric.datasets.Planetoid has it (task pyg:name=Planetoid), or github.com/kimiyoung/planetoid"


def isolated_nodes(
    graph: Graph,
    share: float = 0.1,
    labels_per_class: int | None = 20,
    labelled: float = 0.5,
    validation: int = 500,
    seed: int = 0,
    metrics: Sequence[Metric] | None = None,
) -> Task[Nodes]:
    """Return the task of spec 06: train on labelled linked nodes, judge linked, head, tail and isolated ones.

    *isolated* are the ``share`` of nodes with the lowest degree, all their links removed; *tail* the same share with the lowest
    degrees above zero of what remains, *head* with the highest. Ties in degree are broken by the seed and counts are exact.
    Nodes of one ``unit`` (repeated pages, say) never stand on both sides. Nodes outside the labelled part are judged.

    Args:
        graph: with labels.
        share: of nodes made isolated (0: none), and of head and tail.
        labels_per_class: labelled nodes of each class; None: ``labelled`` of the linked nodes.
        labelled: a share, where ``labels_per_class`` is None (regression: always).
        validation: nodes to stop and to choose by; at most a quarter of the linked ones.
        seed: of every draw.
        metrics: of the task; default: those of classes or numbers.

    Raises:
        UserError: the graph has no labels or no links, one class, or a class has no labelled node.
    """
    check_graph(graph)
    if not 0 <= share < 0.5:
        raise UserError(f"the share of isolated nodes must lie in [0, .5), not {share}")
    run = Run(seed)
    n, labels = len(graph), np.asarray(graph.labels)
    has = ~np.isnan(labels) if labels.dtype.kind == "f" else labels >= 0
    count = round(share * n)
    tie = run.rng("ties").random(n)
    order = np.lexsort((tie, graph.degree))
    alone = np.zeros(n, bool)
    alone[order[:count]] = True
    graph = _read_by_all(graph)
    pruned = (graph.without_links_of(np.flatnonzero(alone)) if count else graph).without_labels()
    degree = pruned.degree
    alone |= degree == 0  # whoever lost the last neighbour is isolated too
    order = np.lexsort((tie, degree))
    linked = order[~alone[order]]
    tail, head = linked[: count or round(0.1 * n)], linked[::-1][: count or round(0.1 * n)]
    train = _labelled(graph, labels, np.flatnonzero(has & ~alone), labels_per_class, labelled, run)
    rest = np.setdiff1d(np.flatnonzero(has & ~alone), train)
    rest = _apart(graph, rest, train)
    stop = np.sort(run.rng("validation").permutation(rest)[: min(validation, len(rest) // 4)])
    test = _apart(graph, np.setdiff1d(np.flatnonzero(has), np.r_[train, stop]), np.r_[train, stop])

    def nodes(ask: Array, extra: Array | None = None) -> Nodes:
        seen = np.union1d(train, ask) if extra is None else extra
        hidden = np.nan if labels.dtype.kind == "f" else -1
        return Nodes(pruned, ask, np.where(np.isin(np.arange(n), seen), labels, hidden), graph.classes)

    def place(name: str, members: Array, role: Any = "elsewhere") -> Domain[Nodes] | None:
        ask = np.intersect1d(test, members)
        return Domain(name, nodes(ask), role, {"degree": float(np.median(degree[ask]))}) if len(ask) else None

    domains = [place("linked", np.flatnonzero(~alone), "home"), place("head", head), place("tail", tail), place("isolated", np.flatnonzero(alone))]
    return Task(
        Source(nodes(train, train), nodes(stop) if len(stop) else None, transductive=True),
        [d for d in domains if d is not None],
        metrics or (classification_metrics(False, len(graph.classes)) if graph.classes is not None else regression_metrics()),
        FINDINGS if graph.classes is not None else (),
    )


def _read_by_all(graph: Graph) -> Graph:
    """Return the graph with features for learners that read no text; made once for a graph."""
    made: Graph = kept(graph, "with features", lambda: with_features(graph)) if graph.features is None else graph
    return made


def check_graph(graph: Graph) -> None:
    """Refuse a graph that no task can be made of."""
    if graph.labels is None:
        raise UserError("the graph has no labels; name the column to predict (--predict), or y in an .npz")
    if not graph.links.nnz:
        raise UserError("the graph has no links at all: a network over it equals one over the features; use the learner mlp on a table")
    if graph.classes is not None and len(np.unique(graph.labels[graph.labels >= 0])) < 2:
        raise UserError("the labels have one class only")
    if graph.features is None and graph.texts is None:
        raise UserError("the graph has neither features nor texts")
    if graph.features is not None:
        empty = np.asarray(abs(graph.features).sum(1)).ravel() == 0
        if empty.any():
            warnings.warn(f"{int(empty.sum()):,} nodes have no features at all", UserWarning, stacklevel=3)


def _labelled(graph: Graph, labels: Array, able: Array, per_class: int | None, share: float, run: Run) -> Array:
    """Return the nodes whose labels are given, sorted; of one unit at most one where units are repeated."""
    able = run.rng("labelled").permutation(able)
    if per_class is None or graph.classes is None:
        return np.sort(able[: max(1, round(share * len(able)))])
    taken = []
    for k, name in enumerate(graph.classes):
        mine = able[labels[able] == k]
        if not len(mine):
            raise UserError(f"class {name!r} has no linked node with a label to train on")
        taken.append(mine[:per_class])
    return np.sort(np.concatenate(taken))


def _apart(graph: Graph, nodes: Array, others: Array) -> Array:
    """Return the nodes that share no unit with others."""
    if "unit" not in graph.columns:
        return nodes
    unit = np.asarray(graph.columns["unit"])
    return nodes[~np.isin(unit[nodes], unit[others])]


def neighbours_and_value(graph: Graph, value: str) -> Array:
    """Return a code [N] that is equal where nodes share their set of neighbours and a column: repeated pages."""
    links = graph.links
    keys = [(links.indices[links.indptr[i] : links.indptr[i + 1]].tobytes(), v) for i, v in enumerate(np.asarray(graph.columns[value]).tolist())]
    code: dict[Any, int] = {}
    return np.array([code.setdefault(k, len(code)) for k in keys])


@lru_cache(maxsize=4)
def _loaded(path: str, texts: str | None, unit: str | None) -> Graph:
    graph = load_graph(path, texts)
    if unit is not None:
        graph = Graph(graph.links, graph.features, graph.labels, graph.classes, graph.texts, {**graph.columns, "unit": neighbours_and_value(graph, unit)}, graph.masks)
    return graph


def cora_graph() -> Graph:
    """Return Cora: 2,708 papers, their words and citations, 7 topics (data root)."""
    return _loaded(str(find("citations/cora.npz", PLANETOID)), None, None)


def wikipedia_graph(name: str) -> Graph:
    """Return chameleon or squirrel: pages, their nouns and links, traffic in fifths; repeated pages share a unit (data root)."""
    return _loaded(str(find(f"wikipedia-pages/{name}.npz", MUSAE)), None, "monthly_traffic")


def facebook_graph(view: str = "words") -> Graph:
    """Return 22,470 Facebook pages: description words (view "words") or raw names (view "names"), four kinds (data root)."""
    if view not in ("words", "names"):
        raise UserError(f"view must be words or names, not {view!r}")
    links = find("facebook-pages/facebook.npz", MUSAE)
    if view == "words":
        return _loaded(str(links), None, None)
    return _names(str(find("facebook-pages/facebook-names.txt.gz", MUSAE)), str(links))


@lru_cache(maxsize=1)
def _names(texts: str, links: str) -> Graph:
    return load_text_graph(texts, links)


@task("citations/cora", learners=LEARNERS)
def cora(seed: int = 0, share: float = 0.1, labels_per_class: int = 20, labelled: float = 0.5, validation: int = 500) -> Task[Nodes]:
    """Papers and citations: head, tail and isolated nodes as domains. Options as for ``isolated_nodes``; labels_per_class=0 labels the share ``labelled``."""
    return isolated_nodes(cora_graph(), share, labels_per_class or None, labelled, validation, seed)


@task("wikipedia/chameleon", learners=LEARNERS)
def chameleon(seed: int = 0, share: float = 0.1, labels_per_class: int = 20, labelled: float = 0.5, validation: int = 500) -> Task[Nodes]:
    """Wikipedia pages on chameleons (repeated pages stay together): head, tail and isolated nodes as domains. Options as for ``isolated_nodes``; labels_per_class=0 labels the share ``labelled``."""
    return isolated_nodes(wikipedia_graph("chameleon"), share, labels_per_class or None, labelled, validation, seed)


@task("wikipedia/squirrel", learners=LEARNERS)
def squirrel(seed: int = 0, share: float = 0.1, labels_per_class: int = 20, labelled: float = 0.5, validation: int = 500) -> Task[Nodes]:
    """Wikipedia pages on squirrels (repeated pages stay together): head, tail and isolated nodes as domains. Options as for ``isolated_nodes``; labels_per_class=0 labels the share ``labelled``."""
    return isolated_nodes(wikipedia_graph("squirrel"), share, labels_per_class or None, labelled, validation, seed)


@task("facebook-pages", learners=LEARNERS)
def facebook_pages(
    seed: int = 0, view: str = "words", share: float = 0.1, labels_per_class: int | None = 20, labelled: float = 0.5, validation: int = 500, rewire: bool = False, cold: str = "lowest-degree"
) -> Task[Nodes]:
    """Facebook pages by kind; ``cold="random"`` isolates a random share as spec 07 does; ``rewire`` draws the links anew, degrees kept."""
    return text_task(facebook_graph(view), seed, share, labels_per_class, labelled, validation, rewire, cold)


@task("graphs/homophily", learners=LEARNERS)
def homophily(
    seed: int = 0, num_nodes: int = 2000, num_classes: int = 4, mean_degree: float = 8, homophily: float = 0.8, feature_signal: float = 1.0, share: float = 0.1, labels_per_class: int = 20
) -> Task[Nodes]:
    """A generated graph whose homophily and signal of features are set; drawn anew with each seed."""
    return isolated_nodes(homophily_graph(num_nodes, num_classes, mean_degree, homophily, feature_signal, seed=seed), share, labels_per_class, seed=seed)


@task("graphs/topics", learners=LEARNERS)
def topics(
    seed: int = 0, num_nodes: int = 2000, num_topics: int = 16, link_homophily: float = 0.8, text_noise: float = 0.5, mean_degree: float = 10, share: float = 0.1, labels_per_class: int = 20
) -> Task[Nodes]:
    """Generated nodes with counts of words of a topic, linked within topics and subtopics."""
    made = topic_text_graph(num_nodes, num_topics, link_homophily=link_homophily, text_noise=text_noise, mean_degree=mean_degree, seed=seed, texts=False)
    return isolated_nodes(made, share, labels_per_class, seed=seed)


@task("graphs/cora-cold", learners=LEARNERS)
def cora_cold(seed: int = 0, share: float = 0.1, labels_per_class: int | None = 20, labelled: float = 0.5, validation: int = 500, rewire: bool = False) -> Task[Nodes]:
    """Cora with a random tenth of the papers isolated, as spec 07 does; ``rewire`` draws the links anew, degrees kept."""
    return text_task(cora_graph(), seed, share, labels_per_class, labelled, validation, rewire, "random")


def text_task(graph: Graph, seed: int, share: float, labels_per_class: int | None, labelled: float, validation: int, rewire: bool, cold: str) -> Task[Nodes]:
    """Return the task with isolated nodes of the lowest degree, or drawn at random; perhaps with rewired links."""
    if rewire:
        graph = rewired(graph, seed)
    if cold == "lowest-degree":
        return isolated_nodes(graph, share, labels_per_class or None, labelled, validation, seed)
    if cold != "random":
        raise UserError(f"cold must be lowest-degree or random, not {cold!r}")
    alone = np.sort(Run(seed).rng("isolated").permutation(len(graph))[: round(share * len(graph))])
    return isolated_nodes(graph.without_links_of(alone), 0.0, labels_per_class or None, labelled, validation, seed)


@task("graphs/neighbours", choices={"of": ["citations/cora", "facebook-pages"]}, learners=("neighborhood-prediction:solver=ridge,rank=true",))
def neighbours(seed: int = 0, of: str = "citations/cora", share: float = 0.1) -> Task[Nodes]:
    """Which nodes will a node without links come to link to? A random share of the nodes loses all links, which are to be foretold."""
    graphs = {"citations/cora": cora_graph, "facebook-pages": facebook_graph}
    if of not in graphs:
        raise UserError(f"there is no graph {of!r}{did_you_mean(of, graphs)}")
    graph = graphs[of]()
    alone = np.sort(Run(seed).rng("isolated").permutation(len(graph))[: round(share * len(graph))])
    pruned = graph.without_links_of(alone).without_labels()
    rest = np.setdiff1d(np.arange(len(graph)), alone)
    columns = np.ones(len(graph), np.float32)
    columns[alone] = 0  # a link among held-out nodes cannot be foretold: neither end is known
    truth = sp.csr_array(graph.links[alone] @ sp.dia_array((columns[None], [0]), shape=graph.links.shape))
    truth.eliminate_zeros()
    return Task(Source(Nodes(pruned, rest)), [Domain("isolated", Linked(pruned, alone, truth=truth))], neighbour_metrics())


COUNTRIES = ("DE", "ENGB", "ES", "FR", "PTBR", "RU")


@task("twitch-users", choices={"source": COUNTRIES}, learners=("mlp", "gcn", "cold-brew"))
def twitch_users(seed: int = 0, source: str = "DE", home_share: float = 0.2) -> Task[Nodes]:
    """Streamers of six countries, one graph each: trained in one, judged in all, by the area under the ROC curve."""
    if source not in COUNTRIES:
        raise UserError(f"there is no country {source!r}{did_you_mean(source, COUNTRIES)}")
    graphs = {c: _loaded(str(find(f"twitch-users/{c}.npz", MUSAE)), None, None) for c in COUNTRIES}
    home = graphs[source]
    drawn = Run(seed).rng("home").permutation(len(home))
    held = round(home_share * len(home))
    test, stop, train = np.sort(drawn[:held]), np.sort(drawn[held : held + held // 2]), np.sort(drawn[held + held // 2 :])
    names = ("no", "yes")

    def nodes(graph: Graph, ask: Array) -> Nodes:
        return Nodes(graph, ask, np.where(np.isin(np.arange(len(graph)), np.union1d(ask, train) if graph is home else ask), np.asarray(graph.labels), -1), names)

    domains = [Domain(source, nodes(home, test), "home"), *(Domain(c, nodes(g, np.arange(len(g)))) for c, g in graphs.items() if c != source)]
    metrics = [AUROC, *(m for m in classification_metrics(False, 2) if m is not AUROC)]
    return Task(Source(nodes(home, train), nodes(home, stop)), domains, metrics)


@task("ogb", learners=LEARNERS)
def ogb(seed: int = 0, name: str = "ogbn-arxiv", path: str | None = None, share: float = 0.1, labels_per_class: int | None = None, labelled: float = 0.5) -> Task[Nodes]:
    """A graph of the Open Graph Benchmark by its own package (``pip install ogb``), downloaded to the data root."""
    try:
        from ogb.nodeproppred import NodePropPredDataset
    except ImportError as error:
        raise UserError("graphs of OGB are read by its own package: pip install ogb") from error
    held, labels = NodePropPredDataset(name=name, root=str(path or root() / "ogb"))[0]
    return isolated_nodes(graph_of_ogb(held, labels), share, labels_per_class, labelled, seed=seed)


def graph_of_ogb(held: Mapping[str, Any], labels: Array) -> Graph:
    """Return the graph of what OGB's library-agnostic loader gives: edge_index, node_feat, num_nodes; labels [N, 1]."""
    from elsewhere.graphs.loading import graph_of

    y = np.asarray(labels).reshape(len(labels), -1)
    if y.shape[1] != 1:
        raise UserError(f"this OGB set has {y.shape[1]} labels a node; one is expected")
    y = np.where(np.isnan(y[:, 0].astype(float)), -1, y[:, 0]).astype(np.int64)
    return graph_of(held["edge_index"], held["node_feat"], y, nodes=int(held["num_nodes"]))


@task("pyg", learners=LEARNERS)
def pyg(seed: int = 0, name: str = "Planetoid", subset: str | None = "PubMed", path: str | None = None, share: float = 0.1, labels_per_class: int | None = 20, labelled: float = 0.5) -> Task[Nodes]:
    """A set of ``torch_geometric.datasets`` with one graph (Planetoid, Actor, WikipediaNetwork …), downloaded to the data root."""
    try:
        import torch_geometric.datasets as sets
    except ImportError as error:
        raise UserError("these sets need PyTorch Geometric: pip install 'elsewhere[graphs]'") from error
    if not hasattr(sets, name):
        raise UserError(f"torch_geometric.datasets has no {name!r}{did_you_mean(name, sets.__all__)}")
    where = str(path or root() / "pyg" / name)
    held = getattr(sets, name)(where, subset) if subset else getattr(sets, name)(where)
    return isolated_nodes(from_pyg(held[0]), share, labels_per_class, labelled, seed=seed)
