"""Texts and words as sparse features: TF-IDF of words, pairs of words and letters in threes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.graphs.data import Graph, Nodes, as_nodes
from elsewhere.learner import Learner
from elsewhere.run import Run
from elsewhere.task import Source

_WORD = re.compile(r"\w+")
BLOCK = 50_000  # texts turned into rows at a time


@dataclass
class TextFeatures:
    """TF-IDF of three blocks side by side, rows of length 1 (spec 07, 2.2).

    Args:
        words: most frequent words that are kept.
        pairs: most frequent pairs of neighbouring words.
        letters: most frequent runs of three letters within words (a blank before and after a word); as terms they begin with ~.
        max_share: terms in more than this share of the texts are dropped.
        least: terms in fewer texts are dropped.

    Examples:
        >>> f = TextFeatures(max_share=1.0, least=1).fit(["red fish", "blue fish"])
        >>> f.transform(["red bird"]).shape[0], f.terms_[:3].tolist()
        (1, ['blue', 'fish', 'red'])
    """

    words: int = 1_000_000
    pairs: int = 3_000_000
    letters: int = 200_000
    max_share: float = 0.98
    least: int = 2

    def fit(self, texts: Sequence[str]) -> Self:
        """Choose terms and weigh them: idf = log((1 + n) / (1 + df)) + 1."""
        found: list[tuple[str, int]] = []
        for grams, most in ((_words, self.words), (_pairs, self.pairs), (_letters, self.letters)):
            count: Counter[str] = Counter()
            if most:
                for text in texts:
                    count.update(set(grams(text)))
            able = [(t, c) for t, c in count.items() if self.least <= c <= self.max_share * len(texts)]
            found += sorted(sorted(able, key=lambda tc: (-tc[1], tc[0]))[:most])
        if not found:
            raise UserError("no word, pair of words or run of letters is in more than one text and in not nearly all")
        self.terms_ = np.array([t for t, _ in found])
        self.idf_ = np.log((1 + len(texts)) / (1 + np.array([c for _, c in found]))).astype(np.float32) + 1
        self.__dict__.pop("_index", None)
        return self

    @property
    def width(self) -> int:
        return len(self.terms_)

    def transform(self, texts: Sequence[str]) -> Any:
        """Return TF-IDF rows [n, terms] as CSR float32; a text of unknown terms gives a row of zeros."""
        if "_index" not in self.__dict__:
            self.__dict__["_index"] = {t: k for k, t in enumerate(self.terms_.tolist())}
        get: Callable[[str], int | None] = self.__dict__["_index"].get
        parts = [self._rows(texts[at : at + BLOCK], get) for at in range(0, len(texts), BLOCK)]
        return sp.csr_array(sp.vstack(parts)) if parts else sp.csr_array((0, self.width), dtype=np.float32)

    def _rows(self, texts: Sequence[str], get: Callable[[str], int | None]) -> Any:
        rows = [[k for g in chain(_words(t), _pairs(t), _letters(t)) if (k := get(g)) is not None] for t in texts]
        ends = np.cumsum([0, *(len(r) for r in rows)])
        indices = np.fromiter(chain.from_iterable(rows), np.int32, ends[-1])
        made = sp.csr_array((self.idf_[indices], indices, ends), shape=(len(texts), self.width))
        made.sum_duplicates()
        return unit_rows(made)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _pairs(text: str) -> list[str]:
    return [f"{a} {b}" for a, b in pairwise(_words(text))]


def _letters(text: str) -> list[str]:
    """Return runs of three letters, marked so that none is taken for a word."""
    return ["~" + w[k : k + 3] for word in _words(text) for w in (f" {word} ",) for k in range(len(w) - 2)]


def unit_rows(x: Any) -> Any:
    """Return rows of length 1, dense or CSR; rows of zeros stay."""
    if not sp.issparse(x):
        length = np.linalg.norm(x, axis=1, keepdims=True)
        return (x / np.where(length > 0, length, 1)).astype(np.float32)
    x = sp.csr_array(x, dtype=np.float32)
    length = np.sqrt(np.asarray(x.multiply(x).sum(1)).ravel())
    return sp.csr_array((x.data / np.repeat(np.where(length > 0, length, 1), np.diff(x.indptr)).astype(np.float32), x.indices, x.indptr), shape=x.shape)


@dataclass
class NodeFeatures:
    """What an encoder reads of a node: TF-IDF of its text, or of nodes without texts their features; rows of length 1.

    Args:
        idf: weigh sparse features by their rarity, as words are.
        letters: of ``TextFeatures``.
        words: of ``TextFeatures``.
        pairs: of ``TextFeatures``.
    """

    holds: ClassVar[tuple[type, ...]] = (TextFeatures,)
    idf: bool = True
    words: int = 1_000_000
    pairs: int = 3_000_000
    letters: int = 200_000

    def fit(self, graph: Graph) -> Self:
        self.text_ = None if graph.texts is None else TextFeatures(self.words, self.pairs, self.letters).fit(graph.texts)
        self.idf_ = None
        if self.text_ is None and self.idf and sp.issparse(graph.features):
            count = np.bincount(graph.features.indices, minlength=graph.features.shape[1])
            self.idf_ = np.log((1 + len(graph)) / (1 + count)).astype(np.float32) + 1
        self.width_ = self.text_.width if self.text_ is not None else int(graph.features.shape[1])
        return self

    def transform(self, nodes: Nodes) -> Any:
        """Return the rows of the asked nodes, CSR or dense."""
        if self.text_ is not None:
            texts = nodes.texts
            return self.text_.transform([texts[k] for k in nodes.ask.tolist()])
        if nodes.graph.features is None:
            raise UserError("this model was fitted on features, and these nodes have texts alone")
        if nodes.graph.features.shape[1] != self.width_:
            raise UserError(f"the nodes have {nodes.graph.features.shape[1]} features; this model was fitted on {self.width_}")
        x = nodes.graph.features[nodes.ask]
        if self.idf_ is not None and sp.issparse(x):
            x = sp.csr_array(x, dtype=np.float32)
            x = sp.csr_array((x.data * self.idf_[x.indices], x.indices, x.indptr), shape=x.shape)
        return unit_rows(x)


@dataclass
class Tfidf(Learner[Nodes, Any]):
    """TF-IDF of nodes' texts or words as a representation: the plain one that others are compared with. For ``probe``.

    Args:
        components: keep so many directions of a singular value decomposition; None: all terms.
    """

    holds: ClassVar[tuple[type, ...]] = (NodeFeatures,)
    components: int | None = None

    @property
    def accepts(self) -> type:
        return Nodes

    def fit(self, source: Source[Nodes], run: Run = Run()) -> Self:
        graph = as_nodes(source.train).graph
        self.features_ = NodeFeatures().fit(graph)
        self.axes_ = None
        if self.components is not None:
            self.axes_ = principal_axes(self.features_.transform(Nodes(graph, np.arange(len(graph)))), self.components, run.integer("components"))
        return self

    def represent(self, data: Any, run: Run = Run()) -> Array:
        from elsewhere.data import SparseRows
        from elsewhere.graphs.data import DENSE

        x = self.features_.transform(as_nodes(data))
        if self.axes_ is not None:
            return np.asarray(x @ self.axes_)
        if not sp.issparse(x):
            return np.asarray(x)
        found: Any = x.toarray() if x.shape[0] * x.shape[1] <= DENSE else SparseRows(x)
        return found


def with_features(graph: Graph, components: int = 256, seed: int = 0) -> Graph:
    """Return a graph of texts with features too, for learners that read none: principal components of TF-IDF; other graphs as they are."""
    if graph.features is not None or graph.texts is None:
        return graph
    x = NodeFeatures().fit(graph).transform(Nodes(graph, np.arange(len(graph))))
    axes = principal_axes(x, components, seed)
    return graph.with_features(np.asarray(x @ axes, np.float32))


def principal_axes(x: Any, count: int, seed: int, most: int = 100_000) -> Array:
    """Return the first right singular vectors [d, count] of rows, found on at most ``most`` of them."""
    from sklearn.utils.extmath import randomized_svd

    if x.shape[0] > most:
        x = x[np.sort(np.random.default_rng(seed).permutation(x.shape[0])[:most])]
    count = min(count, min(x.shape) - 1)
    _, _, axes = randomized_svd(sp.csr_matrix(x) if sp.issparse(x) else x, count, n_iter=3, random_state=seed)
    return np.ascontiguousarray(axes.T.astype(np.float32))
