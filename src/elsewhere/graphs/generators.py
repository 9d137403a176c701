"""Graphs whose shift is known: classes with links among them, topics with words, and the contextual block model."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.graphs.data import Graph
from elsewhere.graphs.sparse import symmetric


def homophily_graph(
    num_nodes: int = 2000,
    num_classes: int = 4,
    mean_degree: float = 8,
    homophily: float = 0.8,
    feature_signal: float = 1.0,
    num_features: int = 64,
    power: float = 2.5,
    seed: int = 0,
) -> Graph:
    """Draw a graph of classes: x ~ N(feature_signal · e_class, I), links within a class with probability ``homophily``.

    Each link has one end drawn by propensity w ~ Pareto(power - 1) (mean 1, at most 50) and the other in proportion to w
    among its own class or among all others (spec 06, section 7). ``feature_signal`` moves what features carry,
    ``homophily`` what links carry: 1 / num_classes is none.

    Examples:
        >>> g = homophily_graph(200, seed=1)
        >>> g.features.shape, len(g.classes)
        ((200, 64), 4)
    """
    if num_features < num_classes:
        raise UserError(f"num_features={num_features} is too few for {num_classes} orthonormal class means")
    rng = np.random.default_rng(seed)
    y = rng.integers(num_classes, size=num_nodes)
    basis = np.linalg.qr(rng.normal(size=(num_features, num_classes)))[0].T
    x = rng.normal(size=(num_nodes, num_features)) + feature_signal * basis[y]
    pairs = _links(y, propensities(num_nodes, power, rng), round(num_nodes * mean_degree / 2), homophily, rng)
    return Graph(symmetric(pairs, num_nodes)[0], x.astype(np.float32), y, tuple(f"class {k}" for k in range(num_classes)))


def propensities(n: int, power: float, rng: np.random.Generator, most: float = 50.0) -> Array:
    """Return Pareto(power - 1) propensities [n] scaled to mean 1 and cut at ``most``."""
    w = 1 + rng.pareto(power - 1, n)
    return np.minimum(w / w.mean(), most)


def _links(y: Array, w: Array, m: int, homophily: float, rng: np.random.Generator) -> Array:
    """Draw m pairs: the other end of the same class with probability ``homophily``, else of another; all at once."""
    order = np.argsort(y, kind="stable")
    total = np.cumsum(w[order])
    bounds = np.searchsorted(y[order], np.arange(y.max() + 2))
    below = np.r_[0.0, total][bounds]  # mass before each class
    first = order[np.searchsorted(total, rng.random(m) * total[-1], side="right").clip(max=len(y) - 1)]
    c = y[first]
    same = rng.random(m) < homophily
    low, high = below[c], below[c + 1]
    u = rng.random(m)
    outside = u * (total[-1] - (high - low))
    at = np.where(same, low + u * (high - low), np.where(outside < low, outside, outside + (high - low)))
    other = order[np.searchsorted(total, at, side="right").clip(max=len(y) - 1)]
    return np.stack([first, other], 1)


def topic_text_graph(
    num_nodes: int = 2000,
    num_topics: int = 16,
    subtopics: int = 4,
    words: int = 4000,
    length: int = 8,
    link_homophily: float = 0.8,
    mean_degree: float = 10,
    text_noise: float = 0.5,
    seed: int = 0,
    texts: bool = True,
) -> Graph:
    """Draw nodes with short texts of a topic and a subtopic, linked mostly within them (spec 07, section 7).

    Args:
        num_nodes: N.
        num_topics: classes to predict.
        subtopics: of each topic; 70 % of the links that keep to their kind keep to the subtopic, 30 % to the topic.
        words: in the vocabulary, written as w0001.
        length: words of a text.
        link_homophily: share of links that keep to their kind; 1 / num_topics is none.
        mean_degree: 2 · links / N before repeats are dropped.
        text_noise: share of words from a background of Zipf(1.1); at 1 texts tell nothing.
        seed: of everything.
        texts: False gives counts of words as a CSR of features instead, for very many nodes.
    """
    rng = np.random.default_rng(seed)
    sub = rng.integers(num_topics * subtopics, size=num_nodes)
    topic = sub // subtopics
    background = 1.0 / np.arange(1, words + 1) ** 1.1
    per_topic = rng.dirichlet(np.full(words, 0.05), num_topics)
    per_sub = 0.5 * np.repeat(per_topic, subtopics, 0) + 0.5 * rng.dirichlet(np.full(words, 0.02), num_topics * subtopics)
    drawn = np.searchsorted(np.cumsum(background) / background.sum(), rng.random((num_nodes, length))).clip(max=words - 1)
    own = rng.random((num_nodes, length)) >= text_noise
    cumulative = np.cumsum(per_sub, 1)
    order = np.argsort(sub, kind="stable")
    for k, members in enumerate(np.split(order, np.searchsorted(sub[order], np.arange(1, num_topics * subtopics)))):
        at = np.searchsorted(cumulative[k] / cumulative[k, -1], rng.random((len(members), length))).clip(max=words - 1)
        drawn[members] = np.where(own[members], at, drawn[members])
    m = round(num_nodes * mean_degree / 2)
    w = propensities(num_nodes, 2.5, rng)
    pairs = np.concatenate([_links(sub, w, round(0.7 * m), link_homophily, rng), _links(topic, w, m - round(0.7 * m), link_homophily, rng)])
    links = symmetric(pairs, num_nodes)[0]
    classes = tuple(f"topic {k}" for k in range(num_topics))
    if texts:
        name = np.array([f"w{k:04d}" for k in range(words)])
        return Graph(links, None, topic, classes, [" ".join(row) for row in name[drawn].tolist()])
    counts = sp.csr_array((np.ones(drawn.size, np.float32), drawn.ravel().astype(np.int32), np.arange(0, drawn.size + 1, length)), shape=(num_nodes, words))
    counts.sum_duplicates()
    return Graph(links, counts, topic, classes)


def block_model(num_nodes: int = 4000, mean_degree: float = 20, within: float = 0.75, distance: float = 1.0, deviation: float = 1.0, num_features: int = 16, seed: int = 0) -> Graph:
    """Draw the contextual stochastic block model: two equal classes, x ~ N(m_class, deviation² I), |m_1 - m_0| = ``distance``.

    ``within`` is a = p / (p + q), the share of a node's links that stay in its class (Deshpande et al. 2018).
    """
    rng = np.random.default_rng(seed)
    y = np.arange(num_nodes) % 2
    x = deviation * rng.normal(size=(num_nodes, num_features))
    x[:, 0] += distance * (y - 0.5)
    p, q = (2 * mean_degree * share / num_nodes for share in (within, 1 - within))
    pairs = [_bernoulli(np.flatnonzero(y == a), np.flatnonzero(y == b), p if a == b else q, rng) for a, b in ((0, 0), (0, 1), (1, 1))]
    return Graph(symmetric(np.concatenate(pairs), num_nodes)[0], x.astype(np.float32), y, ("0", "1"))


def _bernoulli(rows: Array, columns: Array, p: float, rng: np.random.Generator) -> Array:
    """Return pairs, each drawn with probability p; of one set with itself each pair once."""
    hit = rng.random((len(rows), len(columns))) < p
    if rows is columns or np.array_equal(rows, columns):
        hit = np.triu(hit, 1)
    i, j = np.nonzero(hit)
    return np.stack([rows[i], columns[j]], 1)


def rewired(graph: Graph, seed: int = 0) -> Graph:
    """Return the graph with its links rewired at random, degrees kept (the configuration model; loops and repeats are dropped).

    Examples:
        >>> g = homophily_graph(300, seed=0)
        >>> abs(int(rewired(g).degree.sum()) / int(g.degree.sum()) - 1) < 0.1
        True
    """
    rng = np.random.default_rng(seed)
    upper: Any = sp.triu(graph.links, 1).tocoo()
    ends = rng.permutation(np.r_[upper.row, upper.col])
    pairs = ends.reshape(2, -1).T
    return Graph(symmetric(pairs, len(graph))[0], graph.features, graph.labels, graph.classes, graph.texts, graph.columns, graph.masks)
