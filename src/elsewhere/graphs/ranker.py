"""A tree of linear rankers: which nodes would this one link to? Beam search from the coarsest clusters to the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from elsewhere.data import Array
from elsewhere.graphs.label_tree import LabelTree
from elsewhere.graphs.svm import linear_svms

PRUNED = 0.1  # weights below are dropped, as the reference does
BLOCK = 4096


@dataclass
class TreeRanker:
    """One linear machine for every cluster and node, each fitted on the instances that reach its parent (spec 07, 2.6).

    Args:
        tree: of the labels.
        beam: clusters kept at each level of a search.
        negatives: "tfn": instances with a positive under the parent; "tfn+man": also those whose search gets there.
        cost: C.
    """

    tree: LabelTree
    beam: int = 10
    negatives: str = "tfn"
    cost: float = 1.0

    def fit(self, x: Any, y: Any) -> TreeRanker:
        """Fit on instances [n, d] and their neighbours Y [n, labels]."""
        labels = np.flatnonzero(self.tree.codes >= 0)
        labels = labels[np.argsort(self.tree.codes[labels], kind="stable")]
        self.labels_ = labels
        sizes = [*self.tree.levels, len(labels)] if self.tree.depth else [len(labels)]
        parents = [self.tree.parents(t) for t in range(len(sizes) - 1)]
        parents.append(self.tree.codes[labels] if self.tree.depth else np.zeros(len(labels), np.int64))
        self.parents_ = parents
        self.weights_: list[list[tuple[Array, Array, Array]]] = []
        x = sp.csr_array(x, dtype=np.float32)
        matched: Any = None
        for t, count in enumerate(sizes):
            target = sp.csr_array(y)[:, labels] if t == len(sizes) - 1 else self.tree.targets(y, self.tree.clusters(t), count)
            target = sp.csc_array(target)
            self.weights_.append([self._machine(x, target, np.flatnonzero(parents[t] == p), p, matched) for p in range(int(parents[t].max()) + 1)])
            if self.negatives == "tfn+man" and t < len(sizes) - 1:
                matched = self._level(x, matched, t)
        return self

    def _machine(self, x: Any, target: Any, children: Array, parent: int, matched: Any) -> tuple[Array, Array, Array]:
        """Return the columns of x that count, and weights with a last row of biases, for the children of a parent."""
        mine = target[:, children]
        rows = np.unique(mine.indices)
        if matched is not None:
            rows = np.union1d(rows, np.unique(sp.csc_array(matched)[:, [parent]].indices))
        if not len(rows):
            return np.empty(0, np.int32), children, np.zeros((1, len(children)), np.float32)
        part = x[rows]
        columns = np.unique(part.indices)
        w, b = linear_svms(part[:, columns], sp.csr_array(mine)[rows], self.cost, tolerance=0.005)
        w[np.abs(w) < PRUNED] = 0
        return columns, children, np.concatenate([w, b[None]])

    def search(self, x: Any, top: int = 20, beam: int | None = None) -> tuple[Array, Array]:
        """Return the ``top`` labels of each instance and their scores [n, top], best first; -1 where the beam holds fewer.

        A path scores Π_levels exp(-max(0, 1 - v)³).
        """
        x = sp.csr_array(x, dtype=np.float32)
        found = []
        for at in range(0, x.shape[0], BLOCK):
            part, scores = x[at : at + BLOCK], None
            for t in range(len(self.parents_)):
                last = t == len(self.parents_) - 1
                scores = self._level(part, scores, t, top if last else beam or self.beam)
            found.append(_rows(scores, top))
        ids = np.concatenate([f[0] for f in found]) if found else np.empty((0, top), np.int64)
        values = np.concatenate([f[1] for f in found]) if found else np.empty((0, top), np.float32)
        return np.where(ids >= 0, self.labels_[np.maximum(ids, 0)], -1), values

    def _level(self, x: Any, scores: Any, t: int, keep: int | None = None) -> Any:
        """Return the best children of the clusters in the beam: CSR [n, children] of path scores."""
        rows, columns, values = [], [], []
        above = None if scores is None else sp.csc_array(scores)
        for parent, (used, children, weight) in enumerate(self.weights_[t]):
            if above is None:
                here, so_far = np.arange(x.shape[0]), np.ones(x.shape[0], np.float32)
            else:
                span = slice(above.indptr[parent], above.indptr[parent + 1])
                here, so_far = above.indices[span], above.data[span]
            if not len(here):
                continue
            logits = (np.asarray(x[here][:, used] @ weight[:-1]) if len(used) else 0.0) + np.tile(weight[-1], (len(here), 1))
            made = so_far[:, None] * np.exp(-(np.maximum(0, 1 - logits) ** 3))
            rows.append(np.repeat(here, len(children)))
            columns.append(np.tile(children, len(here)))
            values.append(np.maximum(made, 1e-30).ravel())
        whole = sp.csr_array((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), shape=(x.shape[0], len(self.parents_[t])))
        return _best(whole, keep or self.beam)


def _best(scores: Any, keep: int) -> Any:
    """Return the ``keep`` largest entries of each row of a CSR."""
    rows = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
    order = np.lexsort((scores.indices, -scores.data, rows))
    position = np.arange(len(order)) - np.repeat(scores.indptr[:-1], np.diff(scores.indptr))
    chosen = order[position < keep]
    return sp.csr_array((scores.data[chosen], (rows[chosen], scores.indices[chosen])), shape=scores.shape)


def _rows(scores: Any, top: int) -> tuple[Array, Array]:
    """Return a CSR of best entries as [n, top], best first."""
    n = scores.shape[0]
    rows = np.repeat(np.arange(n), np.diff(scores.indptr))
    order = np.lexsort((scores.indices, -scores.data, rows))
    position = np.arange(len(order)) - np.repeat(scores.indptr[:-1], np.diff(scores.indptr))
    ids, values = np.full((n, top), -1), np.zeros((n, top), np.float32)
    inside = position < top
    ids[rows[inside], position[inside]] = scores.indices[order][inside]
    values[rows[inside], position[inside]] = scores.data[order][inside]
    return ids, values


def ranking_metrics(ids: Array, truth: Any, at: tuple[int, ...] = (1, 5, 10, 20)) -> dict[str, Array]:
    """Return precision@k and recall@k of each instance, and the reciprocal rank, of suggestions [n, top] against true neighbours Y [n, labels].

    Instances without a true neighbour get NaN.

    Examples:
        >>> told = ranking_metrics(np.array([[2, 0]]), sp.csr_array(np.array([[1, 0, 0]])), (1, 2))
        >>> {k: v.tolist() for k, v in told.items()}
        {'precision@1': [0.0], 'recall@1': [0.0], 'precision@2': [0.5], 'recall@2': [1.0], 'reciprocal_rank': [0.5]}
    """
    truth = sp.csr_array(truth)
    n, labels = truth.shape
    count = np.diff(truth.indptr).astype(float)
    keys = np.repeat(np.arange(n), np.diff(truth.indptr)) * labels + truth.indices
    hit = np.isin(np.arange(n)[:, None] * labels + ids, keys) & (ids >= 0)
    able = np.where(count > 0, count, np.nan)
    told: dict[str, Array] = {}
    for k in at:
        if k > ids.shape[1]:
            continue
        right = hit[:, :k].sum(1)
        told[f"precision@{k}"] = np.where(count > 0, right / k, np.nan)
        told[f"recall@{k}"] = right / able
    rank = np.where(hit.any(1), hit.argmax(1) + 1, np.inf)
    told["reciprocal_rank"] = np.where(count > 0, 1 / rank, np.nan)
    return told
