"""Parts of a graph that fit into memory: a few neighbours of each node, a few layers deep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from elsewhere.data import Array
from elsewhere.graphs.data import Graph


def sampled_neighbours(links: sp.csr_array, nodes: Array, size: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return pairs (position in ``nodes``, neighbour): at most ``size`` neighbours of each node, without replacement, all nodes at once.

    Examples:
        >>> links = sp.csr_array(np.array([[0, 1, 1], [1, 0, 0], [1, 0, 0]]))
        >>> [v.tolist() for v in sampled_neighbours(links, np.array([0, 1]), 5, np.random.default_rng(0))]
        [[0, 0, 1], [1, 2, 0]]
    """
    degree = links.indptr[nodes + 1] - links.indptr[nodes]
    rows = np.repeat(np.arange(len(nodes)), degree)
    first = np.repeat(np.r_[0, np.cumsum(degree)[:-1]], degree)
    columns = links.indices[np.repeat(links.indptr[nodes], degree) + np.arange(len(rows)) - first]
    if len(degree) and degree.max() <= size:
        return rows, columns
    order = np.argsort(rows + rng.random(len(rows)))  # by row, at random within it
    kept = np.sort(order[np.arange(len(rows)) - first < size])
    return rows[kept], columns[kept]


def sampled_part(graph: Graph, seeds: Array, sizes: Sequence[int], rng: np.random.Generator) -> tuple[Array, sp.csr_array]:
    """Return the nodes of a sampled neighbourhood, ``seeds`` first, and its links [n, n], those of a row being the neighbours drawn for it.

    Args:
        graph: with features and links.
        seeds: nodes whose outputs are wanted.
        sizes: neighbours drawn for each node, a number a layer.
        rng: of the draws.
    """
    found = np.asarray(seeds)
    at = np.full(len(graph), -1)
    at[found] = np.arange(len(found))
    front, rows, columns = found, [], []
    for size in sizes:
        mine, other = sampled_neighbours(graph.links, front, size, rng)
        new = np.unique(other[at[other] < 0])
        at[new] = len(found) + np.arange(len(new))
        rows.append(at[front[mine]])
        columns.append(at[other])
        found, front = np.concatenate([found, new]), new
    i, j = (np.concatenate(v) if v else np.empty(0, np.int64) for v in (rows, columns))
    return found, sp.csr_array((np.ones(len(i), np.float32), (i, j)), shape=(len(found), len(found)))
