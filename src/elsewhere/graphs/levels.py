"""One level of the label tree in training: what is active for a node, and the steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from elsewhere.data import Array
from elsewhere.optimisers import adam

DENSE_LEVEL = 8192  # clusters up to which all are scored and masked; above, those that count are gathered


class Active(NamedTuple):
    """What counts in a batch: mask and counts of neighbours [b, K], or [b, a] with the clusters that the columns stand for."""

    mask: Tensor
    counts: Tensor
    clusters: Tensor | None = None


class Level:
    """One level of the tree: targets, and which clusters are active for a node."""

    def __init__(self, target: Any, above: Any, matched: Any, parent: Array, negatives: str) -> None:
        self.target, self.above, self.matched, self.parent, self.negatives = sp.csr_array(target), above, matched, parent, negatives
        self.count = int(target.shape[1])
        self.reach = self._reach()
        self._by_parent = None if self.reach is None else sp.csc_array(self.reach)

    def _reach(self) -> Any:
        """Return the parents that each node's active clusters lie under [n, K above], None for all."""
        if self.above is None:
            return None
        parts = [self.above] if self.negatives != "man" or self.matched is None else []
        parts += [self.matched] if self.matched is not None and self.negatives != "tfn" else []
        total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        made = sp.csr_array(total, copy=True)
        made.data[:] = 1
        return made

    def active_rows(self, parent: int) -> Array:
        """Return the nodes for which the children of a parent are active."""
        if self._by_parent is None:
            return np.arange(self.target.shape[0])
        found: Array = self._by_parent.indices[self._by_parent.indptr[parent] : self._by_parent.indptr[parent + 1]]
        return found

    def mean_active(self) -> float:
        if self.reach is None:
            return float(self.count)
        children = np.bincount(self.parent, minlength=self.reach.shape[1])
        return float((self.reach @ children.astype(np.float32)).mean())

    def batch(self, rows: Array, most: int | None, rng: np.random.Generator) -> Active:
        """Return the active clusters of some nodes."""
        count = self.target[rows]
        if self.count <= DENSE_LEVEL:
            dense = count.toarray()
            mask = np.ones_like(dense) if self.reach is None else self.reach[rows].toarray()[:, self.parent]
            mask = np.maximum(mask, dense > 0)
            if most is not None:
                mask = _capped(mask, dense, most, rng)
            return Active(torch.from_numpy(mask.astype(np.float32)), torch.from_numpy(dense.astype(np.float32)))
        assert self.reach is not None
        wide = self.reach[rows]
        branching = int(np.bincount(self.parent).max())
        # children of a parent stand side by side in tree order
        lists = [np.concatenate([wide.indices[wide.indptr[i] : wide.indptr[i + 1], None] * branching + np.arange(branching)]).ravel() for i in range(len(rows))]
        lists = [np.union1d(a[a < self.count], count.indices[count.indptr[i] : count.indptr[i + 1]]) for i, a in enumerate(lists)]
        if most is not None:
            lists = [_some(a, count.indices[count.indptr[i] : count.indptr[i + 1]], most, rng) for i, a in enumerate(lists)]
        width = max(len(a) for a in lists)
        index = np.zeros((len(rows), width), np.int64)
        mask = np.zeros((len(rows), width), np.float32)
        found = np.zeros((len(rows), width), np.float32)
        for i, a in enumerate(lists):
            index[i, : len(a)], mask[i, : len(a)] = a, 1
            mine = slice(count.indptr[i], count.indptr[i + 1])
            found[i, np.searchsorted(a, count.indices[mine])] = count.data[mine]
        return Active(torch.from_numpy(mask), torch.from_numpy(found), torch.from_numpy(index))


def _capped(mask: Array, count: Array, most: int, rng: np.random.Generator) -> Array:
    """Return the mask with at most ``most`` clusters a row: negatives drawn at random, positives always."""
    key = np.where(count > 0, 2.0, np.where(mask > 0, rng.random(mask.shape), -1.0))
    order_ = np.argsort(-key, 1, kind="stable")
    position = np.empty_like(order_)
    np.put_along_axis(position, order_, np.broadcast_to(np.arange(mask.shape[1]), mask.shape).copy(), 1)
    return np.where((position < most) | (count > 0), mask, 0)


def _some(active: Array, positive: Array, most: int, rng: np.random.Generator) -> Array:
    negative = np.setdiff1d(active, positive)
    room = max(0, most - len(positive))
    return np.union1d(positive, negative if len(negative) <= room else rng.permutation(negative)[:room])


class EncoderStepper:
    """AdamW with a rate that falls to 0, the gradients of encoder and head clipped apart; a large table of terms has sparse steps."""

    def __init__(self, network: Any, head: nn.Module, loss: Any, learning_rate: float, weight_decay: float, clip: float, steps: int) -> None:
        self.network, self.head, self.loss, self.clip = network, head, loss, clip
        table = [network.table] if getattr(network, "sparse", False) else []
        rest = [p for m in (network, head) for p in m.parameters() if not any(p is t for t in table)]
        decayed = [p for p in rest if p.ndim > 1]
        plain = [p for p in rest if p.ndim <= 1]
        rate, decay = learning_rate, weight_decay
        self.optimiser = adam(rate, 0.0)([{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}])
        self.sparse = torch.optim.SparseAdam(table, rate) if table else None
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: max(0.0, 1 - step / steps)) for o in (self.optimiser, self.sparse) if o is not None]

    def parts(self) -> Mapping[str, Any]:
        named = {"network": self.network, "head": self.head, "optimiser": self.optimiser, "sparse": self.sparse, "schedule": self.schedules[0]}
        return {k: v for k, v in named.items() if v is not None}

    def step(self, batch: Any, backward: Any) -> Mapping[str, Any]:
        loss = self.loss(self.network, self.head, batch)
        self.optimiser.zero_grad()
        if self.sparse is not None:
            self.sparse.zero_grad()
        backward(loss)
        if self.clip:
            for module in (self.network, self.head):
                torch.nn.utils.clip_grad_norm_([p for p in module.parameters() if p.grad is not None and not p.grad.is_sparse], self.clip)
        self.optimiser.step()
        if self.sparse is not None:
            self.sparse.step()
        for schedule in self.schedules:
            schedule.step()
        return {"loss": loss.detach()}
