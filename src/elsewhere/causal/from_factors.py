"""Pairs, environments and views out of images with known factors: what each method needs, of the same images (spec 05, 6.7)."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from elsewhere.causal.data import CausalData, Environments, Pairs, Views
from elsewhere.causal.multi_view import ContrastiveInversion
from elsewhere.data import Array, Examples
from elsewhere.errors import UserError
from elsewhere.factors.world import FactorImages
from elsewhere.learner import Learner
from elsewhere.nn.pairs import Pairs as Partners
from elsewhere.run import Run
from elsewhere.task import Source


@dataclass
class FromFactors(Learner[FactorImages, Any]):
    """An encoder of this room on images of known factors: what it learns from is drawn from those images, by their factors.

    Pairs differ in some factors; environment m has factor m moved to the upper half of its values; the views of an image are itself and, for each
    factor, another in which that factor alone is drawn anew; for contrastive inversion they are itself and one a small step away. The values of the
    factors decide only which images are put together: the encoder never sees them.

    Args:
        encoder: ``weak-pairs``, ``contrastive-interventional``, ``multi-view``, ``autoencoder`` …
        size: pairs, sets of views, or images of each environment that are drawn.
        walk: rate of the Laplace walk from an image to a near one, for contrastive inversion: steps of ln(size) / walk values of each factor.
        everywhere: also draw from images of other domains, where the task grants them without their labels.

    Examples:
        >>> from elsewhere.causal.scenes import balls_world
        >>> from elsewhere.causal.weak_pairs import WeakPairs
        >>> images = balls_world(1, 4).examples(np.arange(16))
        >>> FromFactors(WeakPairs(latents=2, steps=1, batch=4), size=8).fit(Source(images)).represent(images).shape
        (16, 2)
    """

    inside: ClassVar[tuple[str, ...]] = ("encoder",)

    encoder: Learner[Any, Any]
    size: int = 20_000
    walk: float = 2.0
    everywhere: bool = False

    @property
    def accepts(self) -> type:
        return FactorImages

    @property
    def sees_unlabelled(self) -> bool:
        return self.everywhere

    def fit(self, source: Source[FactorImages], run: Run = Run()) -> Self:
        images = source.train
        for more in source.unlabelled.values() if self.everywhere else ():
            if more.values is None:
                raise UserError("the images that are granted say not which of them differ in what: ask the task for them with granted=pairs")
            images = _joined(images, more)
        self.encoder_ = copy.deepcopy(self.encoder).fit(Source(self.drawn(images, run)), run)
        return self

    def drawn(self, images: FactorImages, run: Run) -> CausalData:
        """Return what the encoder learns from, in the type that it accepts."""
        if images.values is None or images.factors is None:
            raise UserError("pairs, environments and views are drawn by the labels of the factors, and the source has none")
        rng = run.rng("drawn")
        rows = rng.integers(len(images), size=self.size)
        partners = Partners(images.values, images.factors.sizes, [images.factors.names.index(n) for n in images.factors.unordered])
        kind = self.encoder.accepts
        if isinstance(self.encoder, ContrastiveInversion):
            full = tuple(range(len(images.factors)))
            return Views((_at(images, rows), _at(images, partners.walked(rows, self.walk, rng))), (full, full))
        if kind is Pairs:
            return Pairs(_at(images, np.stack([rows, partners.changed(rows, "random", rng)], 1)))
        if kind is Views:
            n = len(images.factors)
            others = [partners.moved(rows, i, np.arange(images.factors.sizes[i]), rng) for i in range(n)]
            content = (tuple(range(n)), *(tuple(k for k in range(n) if k != i) for i in range(n)))
            return Views(tuple(_at(images, r) for r in (rows, *others)), content)
        if kind is Environments:
            return environments_of(images, partners, rows, rng)
        return Environments(images.inputs, np.zeros(len(images), int), ("observational",))

    def represent(self, data: Any, run: Run = Run()) -> Array:
        """Return the codes [n, k] of images."""
        return np.asarray(self.encoder_.represent(Examples(data.inputs), run))


def environments_of(images: FactorImages, partners: Partners, rows: Array, rng: np.random.Generator) -> Environments:
    """Return an observational environment, and for each factor one in which it is moved to the upper half of the values that occur."""
    assert images.values is not None
    n = images.values.shape[1]
    size = len(rows) // (n + 1)
    blocks = [rows[:size]]
    for i in range(n):
        known = np.unique(images.values[:, i])
        blocks.append(partners.moved(rows[(i + 1) * size : (i + 2) * size], i, known[len(known) // 2 :], rng))
    order = np.concatenate(blocks)
    return Environments(_at(images, order), np.repeat(np.arange(n + 1), size))


def _at(images: FactorImages, rows: Array) -> Any:
    return np.asarray(images.inputs[rows.ravel()]).reshape(*rows.shape, *images.inputs.shape[1:])


def _joined(a: FactorImages, b: FactorImages) -> FactorImages:
    assert a.values is not None
    assert b.values is not None
    return replace(a, inputs=np.concatenate([np.asarray(a.inputs), np.asarray(b.inputs)]), labels=None, columns={}, values=np.concatenate([a.values, b.values]))
