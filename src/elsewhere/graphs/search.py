"""The rows of a bank most similar to queries: exact in tiles, or through coarse lists where there are millions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elsewhere.data import Array
from elsewhere.errors import UserError

MANY = 1_000_000  # rows above which lists are searched
BLOCK, TILE = 1024, 65_536


def top_similar(queries: Array, bank: Array, k: int, similarity: str = "cosine", exclude: Array | None = None, block: int = BLOCK, tile: int = TILE) -> tuple[Array, Array]:
    """Return the ``k`` rows of a bank most similar to each query, and the similarities: [n, k] each, best first (spec 06, equation 4).

    The products are formed a block of queries and a tile of the bank at a time, with a running best k: memory is block × tile.

    Args:
        queries: [n, m].
        bank: [N, m].
        k: at most N (less one with ``exclude``).
        similarity: "cosine" or "dot".
        exclude: [n] a row of the bank that a query may not choose, -1 for none.
        block: queries at a time.
        tile: rows of the bank at a time.

    Examples:
        >>> top_similar(np.array([[1.0, 0.1]]), np.eye(2), 1)[0].tolist()
        [[0]]
    """
    if similarity not in ("cosine", "dot"):
        raise UserError(f"similarity must be cosine or dot, not {similarity!r}")
    allowed = len(bank) - (exclude is not None and bool((np.asarray(exclude) >= 0).any()))
    if not 0 < k <= allowed:
        raise UserError(f"neighbours={k} but only {allowed} linked nodes remain")
    keys = _unit(_float(bank), similarity)
    found = [_best(_unit(_float(queries[at : at + block]), similarity), keys, k, None if exclude is None else np.asarray(exclude[at : at + block]), tile) for at in range(0, len(queries), block)]
    if not found:
        return np.empty((0, k), np.int64), np.empty((0, k), np.float32)
    return np.concatenate([f[0] for f in found]), np.concatenate([f[1] for f in found])


def _best(q: Tensor, keys: Tensor, k: int, exclude: Array | None, tile: int) -> tuple[Array, Array]:
    values, rows = q.new_full((len(q), 0), 0.0), torch.empty((len(q), 0), dtype=torch.long)
    for start in range(0, len(keys), tile):
        part = q @ keys[start : start + tile].T
        if exclude is not None:
            mine = np.flatnonzero((exclude >= start) & (exclude < start + part.shape[1]))
            part[mine, exclude[mine] - start] = -torch.inf
        v, r = part.topk(min(k, part.shape[1]), 1)
        values, rows = torch.cat([values, v], 1), torch.cat([rows, r + start], 1)
        if values.shape[1] > k:
            values, chosen = values.topk(k, 1)
            rows = rows.gather(1, chosen)
    return rows.numpy(), values.numpy()


def _float(x: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32))


def _unit(x: Tensor, similarity: str) -> Tensor:
    return functional.normalize(x, dim=1) if similarity == "cosine" else x


@dataclass
class CoarseLists:
    """An approximate search: rows are filed under the nearest of ``lists`` centres, a query looks into its ``probes`` nearest lists.

    Args:
        bank: [N, m].
        lists: centres; None: √N.
        probes: lists a query looks into.
        similarity: "cosine" or "dot" (centres are found on the rows as they are compared).
        iterations: of k-means, on at most 64 rows a list.
        seed: of the centres' start.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=(500, 8))
        >>> CoarseLists(x, lists=8, probes=8).search(x[:3], 1)[0].ravel().tolist()
        [0, 1, 2]
    """

    bank: Array
    lists: int | None = None
    probes: int = 16
    similarity: str = "cosine"
    iterations: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        self.keys = _unit(_float(self.bank), self.similarity)
        n = len(self.keys)
        count = min(n, self.lists or max(1, round(n**0.5)))
        rng = np.random.default_rng(self.seed)
        sample = self.keys[torch.from_numpy(np.sort(rng.permutation(n)[: 64 * count]))]
        centres = sample[torch.from_numpy(rng.permutation(len(sample))[:count])].clone()
        for _ in range(self.iterations):
            nearest = self._nearest(sample, centres, 1)[:, 0]
            total = torch.zeros_like(centres).index_add_(0, nearest, sample)
            size = torch.bincount(nearest, minlength=count)
            centres = torch.where(size[:, None] > 0, total / size.clamp(min=1)[:, None], centres)
        self.centres = centres
        filed = self._nearest(self.keys, centres, 1)[:, 0]
        self.order = torch.argsort(filed, stable=True)
        self.bounds = torch.searchsorted(filed[self.order], torch.arange(count + 1))

    def search(self, queries: Array, k: int) -> tuple[Array, Array]:
        """Return rows and similarities [n, k]; rows are -1 where the probed lists hold fewer than k."""
        q = _unit(_float(queries), self.similarity)
        probed = self._nearest(q, self.centres, min(self.probes, len(self.centres)))
        values = torch.full((len(q), k), -torch.inf)
        rows = torch.full((len(q), k), -1)
        for c in probed.unique().tolist():
            asking = torch.nonzero((probed == c).any(1))[:, 0]
            members = self.order[self.bounds[c] : self.bounds[c + 1]]
            if not len(members):
                continue
            part = q[asking] @ self.keys[members].T
            v, r = part.topk(min(k, len(members)), 1)
            both, at = torch.cat([values[asking], v], 1).topk(k, 1)
            rows[asking] = torch.cat([rows[asking], members[r]], 1).gather(1, at)
            values[asking] = both
        return rows.numpy(), values.numpy()

    @staticmethod
    def _nearest(x: Tensor, centres: Tensor, k: int) -> Tensor:
        half = 0.5 * centres.square().sum(1)
        return torch.cat([(part @ centres.T - half).topk(k, 1).indices for part in x.split(8192)])
