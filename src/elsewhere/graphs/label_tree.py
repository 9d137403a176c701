"""The label tree: neighbours' features aggregated, and labels split in balanced halves again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.graphs.text import unit_rows

MOST_NUMBERS = 1 << 25  # of the directions of a group of clusters that are split together
SAMPLED_FROM = 200_000  # labels from which upper levels are split on a share of their members


def neighbourhood_features(targets: Any, x: Any) -> Any:
    """Return PIFA, Z = unit rows of Ŷᵀ X with Ŷ the targets in rows of length 1 (spec 07, equation 1): [labels, d].

    Args:
        targets: Y [instances, labels] of ones.
        x: instance features [instances, d], CSR or dense.

    Examples:
        >>> y = sp.csr_array(np.array([[1.0, 1.0], [0.0, 1.0]]))
        >>> np.round(neighbourhood_features(y, np.eye(2)).astype(float), 3).tolist()
        [[1.0, 0.0], [0.577, 0.816]]
    """
    z = unit_rows(targets).T.tocsr() @ (sp.csr_array(x) if sp.issparse(x) else x)
    return unit_rows(z)


@dataclass
class LabelTree:
    """A balanced tree over labels: binary splits, grouped to a branching factor.

    Args:
        codes: [labels] leaf cluster of each label in tree order, -1 of labels that are not in the tree.
        depth: binary splits, so that there are 2^depth leaf clusters.
        branching: of the grouped levels.
    """

    codes: Array
    depth: int
    branching: int = 16

    @property
    def levels(self) -> list[int]:
        """Clusters of each level, coarse to fine, the labels themselves left out.

        Examples:
            >>> LabelTree(np.zeros(1, int), 10, 16).levels
            [4, 64, 1024]
        """
        sizes = [2**self.depth]
        while sizes[0] > self.branching:
            sizes.insert(0, -(-sizes[0] // self.branching))
        return sizes

    def clusters(self, level: int) -> Array:
        """Return the cluster of each label at a level (0 the coarsest) [labels], -1 outside."""
        finer = len(self.levels) - 1 - level
        return np.where(self.codes >= 0, self.codes // self.branching**finer, -1)

    def binary(self, clusters: int) -> Array:
        """Return the cluster of each label when the binary tree is cut where it has so many clusters (a power of two)."""
        steps = self.depth - (int(clusters).bit_length() - 1)
        if steps < 0 or clusters != 1 << (self.depth - steps):
            raise UserError(f"the tree has 2^{self.depth} leaves and no level of {clusters} clusters")
        return np.where(self.codes >= 0, self.codes >> steps, -1)

    def parents(self, level: int) -> Array:
        """Return the parent, one level up, of each cluster of a level [clusters]; of the coarsest level the root, 0."""
        count = self.levels[level]
        return np.arange(count) // self.branching if level else np.zeros(count, np.int64)

    def targets(self, y: Any, clusters: Array, count: int) -> Any:
        """Return Y C: how many neighbours of each instance lie in each cluster [instances, count]."""
        y = sp.csr_array(y)
        inside = clusters[y.indices] >= 0
        rows = np.repeat(np.arange(y.shape[0]), np.diff(y.indptr))[inside]
        made = sp.csr_array((np.ones(len(rows), np.float32), (rows, clusters[y.indices][inside])), shape=(y.shape[0], count))
        made.sum_duplicates()
        return made


def label_tree(z: Any, leaf_size: int = 100, branching: int = 16, iterations: int = 20, seed: int = 0, sampled_from: int = SAMPLED_FROM) -> LabelTree:
    """Return the tree of label features [labels, d], rows of length 1; rows of zeros are left out of it (spec 07, 2.4).

    Each cluster is split by spherical balanced 2-means: two members at random give a direction, members are sorted by (score, index), the
    lower half goes left, the direction becomes unit(sum right) - unit(sum left), at most ``iterations`` times or until nobody moves. All
    clusters of a level are split in the same passes over the data.

    Args:
        z: CSR or dense.
        leaf_size: largest number of labels of a leaf.
        branching: of the grouped levels.
        iterations: of each split.
        seed: of the first directions and of what is sampled.
        sampled_from: labels from which the upper levels find their directions on a share of the members, rising from a tenth.

    Examples:
        >>> tree = label_tree(np.eye(8), leaf_size=2, branching=2)
        >>> np.bincount(tree.codes).tolist(), tree.levels
        ([2, 2, 2, 2], [2, 4])
    """
    z = sp.csr_array(z, dtype=np.float32)
    able = np.flatnonzero(np.diff(z.indptr) > 0)
    if not len(able):
        raise UserError("no label has a positive example: there is nothing to build a tree of")
    depth = max(1, int(np.ceil(np.log2(len(able) / leaf_size)))) if len(able) > leaf_size else 0
    rng = np.random.default_rng(seed)
    members, bounds = able, np.array([0, len(able)])
    for level in range(depth):
        share = 1.0 if len(able) < sampled_from else _share(level, depth)
        members, bounds = _split(z, members, bounds, iterations, share, rng)
    codes = np.full(z.shape[0], -1)
    codes[members] = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    return LabelTree(codes, depth, branching)


def _share(level: int, depth: int) -> float:
    """Return the share of members that find the direction: a tenth in the first 40 % of the levels, rising to all."""
    at = level / max(1, depth - 1)
    return 0.1 if at <= 0.4 else 0.1 + 0.9 * (at - 0.4) / 0.6


def _split(z: Any, members: Array, bounds: Array, iterations: int, share: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Split every cluster in two: return members in the new order, and the bounds of twice as many clusters."""
    sizes = np.diff(bounds)
    u, v = rng.random((2, len(sizes)))
    first = np.floor(u * sizes).astype(np.int64)
    second = (first + 1 + np.floor(v * np.maximum(sizes - 1, 0)).astype(np.int64)) % np.maximum(sizes, 1)
    seed = int(rng.integers(2**31))
    step = max(1, MOST_NUMBERS // z.shape[1])
    left = np.zeros(len(members), bool)
    for a in range(0, len(sizes), step):
        b = min(a + step, len(sizes))
        part = slice(bounds[a], bounds[b])
        left[part] = _halves(z[members[part]], sizes[a:b], first[a:b], second[a:b], iterations, share, np.random.default_rng([seed, a]))
    half = sizes // 2
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    order = np.argsort(2 * cluster + ~left, kind="stable")
    grown = np.empty(2 * len(sizes) + 1, np.int64)
    grown[0::2], grown[1::2] = bounds, bounds[:-1] + half
    return members[order], grown


def _halves(rows: Any, sizes: Array, first: Array, second: Array, iterations: int, share: float, rng: np.random.Generator) -> Array:
    """Return which rows, ordered by cluster, go left."""
    starts = np.r_[0, np.cumsum(sizes)]
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    directions = np.zeros((len(sizes), rows.shape[1]), np.float32)
    for at, sign in ((second, 1.0), (first, -1.0)):
        chosen = rows[starts[:-1] + at] if len(rows.indptr) > 1 else rows
        directions[np.repeat(np.arange(len(sizes)), np.diff(chosen.indptr)), chosen.indices] += np.float32(sign) * chosen.data
    if share < 1.0:
        kept = np.sort(np.flatnonzero(rng.random(len(cluster)) < share))
        few = np.bincount(cluster[kept], minlength=len(sizes))
        if (few >= 2).all():
            directions, _ = _converged(rows[kept], few, directions, iterations)
            return _lower(_scores(rows, sizes, directions), sizes)
    return _converged(rows, sizes, directions, iterations)[1]


def _converged(rows: Any, sizes: Array, directions: Array, iterations: int) -> tuple[Array, Array]:
    """Return directions and the left halves after the last iteration; clusters that have come to rest drop out of the passes."""
    left = np.zeros(rows.shape[0], bool)
    active = np.arange(len(sizes))
    starts = np.r_[0, np.cumsum(sizes)]
    here, matrix = np.arange(rows.shape[0]), _blocks(rows, sizes)
    mine, c = sizes, directions
    total = (matrix.T @ np.ones(matrix.shape[0], np.float32)).reshape(len(mine), -1)
    for k in range(iterations):
        low = _lower(matrix @ c.ravel(), mine)
        moved = np.add.reduceat(low != left[here], np.r_[0, np.cumsum(mine)[:-1]]) > 0 if k else np.ones(len(mine), bool)
        left[here] = low
        right = (matrix.T @ (~low).astype(np.float32)).reshape(len(mine), -1)
        c = unit_rows(right) - unit_rows(total - right)
        directions[active] = c
        if not moved.any():
            break
        if moved.mean() < 0.6 and k < iterations - 1:
            active, mine, c, total = active[moved], mine[moved], c[moved], total[moved]
            here = np.concatenate([np.arange(starts[a], starts[a + 1]) for a in active])
            matrix = _blocks(rows[here], mine)
    return directions, left


def _blocks(rows: Any, sizes: Array) -> Any:
    """Return rows as a matrix whose columns are those of their cluster's own block, so that one product serves all clusters."""
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    wide = rows.shape[1] * len(sizes)
    kind = np.int64 if wide > np.iinfo(np.int32).max else np.int32
    columns = rows.indices.astype(kind) + np.repeat(cluster.astype(kind) * rows.shape[1], np.diff(rows.indptr))
    return sp.csr_array((rows.data, columns, rows.indptr.astype(kind)), shape=(rows.shape[0], wide))


def _scores(rows: Any, sizes: Array, directions: Array) -> Array:
    return np.asarray(_blocks(rows, sizes) @ directions.ravel())


def _lower(score: Array, sizes: Array) -> Array:
    """Return which rows are in the lower half of their cluster by (score, index)."""
    cluster = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((score, cluster))
    position = np.arange(len(score)) - np.repeat(np.r_[0, np.cumsum(sizes)[:-1]], sizes)
    low = np.empty(len(score), bool)
    low[order] = position < np.repeat(sizes // 2, sizes)
    return low
