"""Latents that several views share (spec 05, E); with two full views contrastive inversion (Zimmermann et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from elsewhere.batching import as_tensor, order
from elsewhere.causal.codecs import scales, standardised
from elsewhere.causal.data import Views
from elsewhere.causal.learning import CausalLearner, assumed
from elsewhere.causal.predictions import Latents
from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.nn.building import build
from elsewhere.nn.learners import seeded
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.training import Descent, adam, train

Selection = Literal["known", "concat", "learned"]


class Shared(NamedTuple):
    """For each subset of views: where in the codes of all views, side by side, the shared block of each of its views lies.

    left, right: [subsets, L] positions of consecutive views, mask_pairs [subsets, L]; all: [subsets, W] of every view, mask [subsets, W].
    """

    left: Tensor
    right: Tensor
    mask_pairs: Tensor
    every: Tensor
    mask: Tensor


def shared_blocks(subsets: Sequence[Sequence[int]], places: Sequence[Sequence[Sequence[int]]], offsets: Sequence[int]) -> Shared:
    """Return the gather indices of all subsets at once.

    Args:
        subsets: views of each.
        places: for each subset and view of it, the positions of the shared block in that view's code.
        offsets: where each view's code begins among all.
    """
    blocks = [[[offsets[k] + i for i in at] for k, at in zip(views, each, strict=True)] for views, each in zip(subsets, places, strict=True)]
    left = [[i for a in b[:-1] for i in a] for b in blocks]
    right = [[i for a in b[1:] for i in a] for b in blocks]
    every = [[i for a in b for i in a] for b in blocks]

    def padded(rows: list[list[int]]) -> tuple[Tensor, Tensor]:
        wide = max(map(len, rows))
        index = torch.tensor([row + [0] * (wide - len(row)) for row in rows])
        return index, torch.tensor([[1.0] * len(row) + [0.0] * (wide - len(row)) for row in rows])

    (a, mask_pairs), (b, _), (c, mask) = padded(left), padded(right), padded(every)
    return Shared(a, b, mask_pairs, c, mask)


def alignment_and_entropy(codes: Tensor, negatives: Tensor, blocks: Shared, p: float = 2.0, temperature: float = 1.0, same: bool = False) -> Tensor:
    """Return Σ_V mean_i [pos_i/τ + ln mean_j exp(-[neg_i·, pos_i]/τ)] over all subsets V in one batched pass (Yao et al. 2024, spec 05 E).

    pos_i = Σ over consecutive views k, l of V of ‖φ_k(x_i)_ι - φ_l(x_i)_ι‖_p^p and neg_ij = Σ_{k ∈ V} ‖φ_k(x_i)_ι - φ_k(x'_j)_ι‖_p^p.

    Args:
        codes: [b, all codes] of all views side by side.
        negatives: [b', all codes] of other examples.
        blocks: of the subsets.
        p: of the norm.
        temperature: τ.
        same: the negatives are the batch itself: an example is no negative of its own.
    """
    positive = (_distance(codes[:, blocks.left] - codes[:, blocks.right], p) * blocks.mask_pairs).sum(2).T  # [V, b]
    a, b = ((c[:, blocks.every] * blocks.mask).transpose(0, 1) for c in (codes, negatives))  # [V, b, W]
    apart = a.square().sum(2)[:, :, None] + b.square().sum(2)[:, None, :] - 2 * torch.bmm(a, b.transpose(1, 2)) if p == 2 else torch.cdist(a, b, p).pow(p)
    logits = -torch.cat([apart, positive[:, :, None]], 2) / temperature
    count = logits.shape[2]
    if same:
        own = torch.eye(len(codes), dtype=torch.bool, device=codes.device)
        logits = torch.cat([logits[..., :-1].masked_fill(own, -torch.inf), logits[..., -1:]], 2)
        count -= 1
    return (positive / temperature + torch.logsumexp(logits, 2) - float(np.log(count))).mean(1).sum()


def _distance(difference: Tensor, p: float) -> Tensor:
    return difference.square() if p == 2 else difference.abs().pow(p)


class Both(NamedTuple):
    """A batch of views, and one of other examples that stand against it."""

    views: tuple[Tensor, ...]
    others: tuple[Tensor, ...]


@dataclass
class MultiView(CausalLearner[Views]):
    """Find the blocks of latents that subsets of views share (Yao et al. 2024).

    Assumes that shared latents are exactly shared and that each view is smooth and invertible in what it sees. Every set of two views or more
    identifies the block that all of them share, up to an invertible map of it.

    Args:
        selection: where in a view's code the shared block of a subset lies: "known" (a code has one number a latent that the view sees),
            "concat" (one slot a subset), or "learned" (the largest of the batch's mean code, by a Gumbel mask with straight-through gradients).
        subsets: "all" sets of two views or more, "pairs", or "anchor": the first view with each other one.
        shared_encoder: one encoder for all views (pictures of one scene).
        p: of the norm.
        temperature: τ.
        bound: codes pass a sigmoid and lie in a learnt box (contrastive inversion).
        within: negatives are the other examples of the batch instead of another batch.
        width, depth: of the perceptrons.
        architecture: of pictures: "auto" or "keypoints".
        count: shared latents that are assumed in every subset, instead of those that the data say.
        batch, steps, learning_rate: of Adam.

    Examples:
        >>> from elsewhere.causal.worlds import partial_views
        >>> data = partial_views(64, ((0, 1), (1, 2)))
        >>> MultiView(steps=2, batch=16, width=4, depth=1).fit(Source(data)).blocks(data)[(0, 1)].shape
        (64, 1)
    """

    no_graph: ClassVar[str] = "views identify blocks of latents and no graph: what an intervention does cannot be said"

    selection: Selection = "known"
    subsets: Literal["all", "pairs", "anchor"] = "all"
    shared_encoder: bool = False
    p: float = 2.0
    temperature: float = 1.0
    bound: bool = False
    within: bool = False
    width: int = 50
    depth: int = 4
    architecture: Literal["auto", "keypoints"] = "auto"
    count: int | None = None
    batch: int = 4096
    steps: int = 100_001
    learning_rate: float = 1e-4

    @property
    def accepts(self) -> type:
        return Views

    def refuses(self, source: Source[Any]) -> str | None:
        try:
            self._plan(source.train)
        except UserError as error:
            return str(error)
        return None

    def fit(self, source: Source[Views], run: Run = Run()) -> Self:
        data = source.train
        vars(self).pop("_blocks", None)
        self.subsets_, self.places_, self.outputs_ = self._plan(data)
        self.scales_ = [scales(x) for x in data.inputs]
        seen = [as_tensor(standardised(x, *s)) for x, s in zip(data.inputs, self.scales_, strict=True)]
        shapes = [[int(k) for k in x.shape[1:]] for x in seen]
        if self.shared_encoder and len({tuple(s) for s in shapes}) > 1:
            raise UserError(f"one encoder for all views needs views of one shape; these have {', '.join(map(str, shapes))}")
        options: dict[str, Any] = {"shared": self.shared_encoder, "width": self.width, "depth": self.depth, "bound": self.bound, "architecture": self.architecture}
        self.network_ = seeded(run, lambda: build("view-encoders", shape=shapes[0], head=False, shapes=shapes, outputs=list(self.outputs_), **options))
        rows, others = order(len(data), run, self.batch), order(len(data), run, self.batch, "negatives")

        def draw(step: int) -> Both:
            at = rows(step)
            there = at[:0] if self.within else others(step)
            return Both(tuple(x[at] for x in seen), tuple(x[there] for x in seen))

        train(Descent(self.network_, self.loss, adam(self.learning_rate)), draw, run, steps=self.steps)
        self.model_ = None
        self.assumptions_ = [
            assumed("views share latents exactly", "untestable", "noise of its own in a view's latents breaks it"),
            assumed("every two views share a latent", "checked", "; ".join(f"{v}: {len(data.shared(v)) if self.count is None else self.count}" for v in self.subsets_[:8])),
            assumed("views are smooth and invertible", "untestable"),
        ]
        return self

    def loss(self, network: Any, batch: Both) -> Tensor:
        """Return the alignment and entropy of all subsets."""
        codes = torch.cat(network(batch.views), 1)
        negatives = codes if self.within else torch.cat(network(batch.others), 1)
        if self.selection == "learned":
            codes, negatives, blocks = self._learned(codes, negatives)
        else:
            blocks = self._blocks
        blocks = Shared(*(t.to(codes.device) for t in blocks))
        return alignment_and_entropy(codes, negatives, blocks, self.p, self.temperature, self.within)

    def represent(self, data: Any, run: Run = Run()) -> Array:
        """Return the codes of all views side by side [N, Σ code sizes]; of plain observations that of the (shared) first encoder."""
        if not isinstance(data, Views):
            return self.encode(data.inputs if hasattr(data, "inputs") else data)
        return np.concatenate([self.encode(x, k) for k, x in enumerate(data.inputs)], axis=1)

    def encode(self, x: Any, view: int = 0) -> Array:
        """Return the code of one view [N, c]."""
        from elsewhere.batching import in_batches

        return in_batches(_OneView(self.network_, view), standardised(x, *self.scales_[view]), Run(progress=False), output=None).astype(float)

    def predict(self, data: Any, run: Run = Run()) -> Any:
        return Latents(self.represent(data, run))

    def blocks(self, data: Views) -> dict[tuple[int, ...], Array]:
        """Return for each subset of views its shared block [N, c], the mean over its views."""
        codes = [self.encode(x, k) for k, x in enumerate(data.inputs)]
        return {tuple(v): np.mean([codes[k][:, list(at)] for k, at in zip(v, places, strict=True)], axis=0) for v, places in zip(self.subsets_, self.places_, strict=True)}

    @cached_property
    def _blocks(self) -> Shared:
        return shared_blocks(self.subsets_, self.places_, np.r_[0, np.cumsum(self.outputs_)[:-1]].tolist())

    def _plan(self, data: Views) -> tuple[list[list[int]], list[list[list[int]]], list[int]]:
        """Return the subsets of views, the positions of their shared blocks in each view's code, and the sizes of the codes."""
        k = len(data.inputs)
        sizes = range(2, k + 1) if self.subsets == "all" else (2,)
        subsets = [list(v) for m in sizes for v in combinations(range(k), m) if self.subsets != "anchor" or v[0] == 0]
        shared = {tuple(v): data.shared(v) for v in subsets}
        for two in combinations(range(k), 2):
            if two in shared and not shared[two]:
                raise UserError(f"views {two[0]} and {two[1]} share no latent: there is nothing to align them by; leave one away, or say subsets='anchor'")
        subsets = [v for v in subsets if shared[tuple(v)]]
        count = {tuple(v): self.count or len(shared[tuple(v)]) for v in subsets}
        if self.selection == "concat":
            offsets = [0] * k
            places = []
            for v in subsets:
                places.append([list(range(offsets[i], offsets[i] + count[tuple(v)])) for i in v])
                for i in v:
                    offsets[i] += count[tuple(v)]
            return subsets, places, offsets
        if self.shared_encoder and self.selection == "known":  # one code for all views: a number for each latent that any of them sees
            everything = sorted(set().union(*map(set, data.content)))
            return subsets, [[[everything.index(latent) for latent in shared[tuple(v)]] for _ in v] for v in subsets], [len(everything)] * k
        sizes_ = [len(s) for s in data.content]
        if (few := [v for v in subsets if count[tuple(v)] > min(sizes_[i] for i in v)]) and self.count is not None:
            raise UserError(f"count={self.count} is more than the latents that the views {few[0]} see")
        if self.count is not None:
            return subsets, [[list(range(self.count)) for _ in v] for v in subsets], sizes_
        places = [[[data.content[i].index(latent) for latent in shared[tuple(v)]] for i in v] for v in subsets]
        return subsets, places, sizes_

    def _learned(self, codes: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor, Shared]:
        """Choose the shared block of each subset and view: the top c of the batch-mean code with Gumbel noise, gradients straight through."""
        offsets = np.r_[0, np.cumsum(self.outputs_)]
        places, gates = [], []
        for v, given in zip(self.subsets_, self.places_, strict=True):
            mine = []
            for k, at in zip(v, given, strict=True):
                mean = codes[:, offsets[k] : offsets[k + 1]].mean(0)
                noise = -torch.log(-torch.log(torch.rand_like(mean).clamp(1e-9, 1 - 1e-9))) if torch.is_grad_enabled() else 0.0
                soft = torch.softmax(mean + noise, 0)
                top = soft.topk(len(at)).indices.sort().values
                mine.append(top.tolist())
                gates.append(1 + soft[top] - soft[top].detach())
            places.append(mine)
        self.places_ = places
        blocks = shared_blocks(self.subsets_, places, offsets[:-1].tolist())
        gate = torch.nn.utils.rnn.pad_sequence(
            [torch.cat(gates[i : i + len(v)]) for i, v in zip(np.r_[0, np.cumsum([len(v) for v in self.subsets_])[:-1]], self.subsets_, strict=True)], batch_first=True
        )
        return codes, negatives, blocks._replace(mask=blocks.mask.to(gate.device) * gate)


class _OneView(torch.nn.Module):
    def __init__(self, network: Any, view: int) -> None:
        super().__init__()
        self.network, self.view = network, view

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network.code(self.view, x)
        return out


@dataclass
class ContrastiveInversion(MultiView):
    """Undo a mixing by telling near pairs from far ones (Zimmermann et al. 2021): two full views, the second drawn near the first.

    Positive z̃ ~ p(z̃ | z) ∝ exp(-‖z̃ - z‖_p^p / σ) in a box, p matched. p ≠ 2 identifies each latent element-wise, p = 2 up to a rotation. p = 1 on
    consecutive frames is the temporal method. (The reference's negatives hold the anchor itself; here it is left out.)

    Examples:
        >>> from elsewhere.causal.worlds import box_pairs
        >>> data = box_pairs(40, 2, layers=1)
        >>> ContrastiveInversion(steps=2, batch=16, width=4, depth=1).fit(Source(data)).encode(data.inputs[0]).shape
        (40, 2)
    """

    shared_encoder: bool = True
    bound: bool = True
    within: bool = True
    batch: int = 6144
    steps: int = 300_000
