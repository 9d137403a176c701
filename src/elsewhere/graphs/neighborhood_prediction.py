"""Neighbourhood prediction (GIANT): an encoder of text or features that learns to say which nodes a node links to."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from elsewhere.batching import order
from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.graphs.data import Graph, Nodes, as_nodes
from elsewhere.graphs.label_tree import LabelTree, label_tree, neighbourhood_features
from elsewhere.graphs.levels import Active, EncoderStepper, Level
from elsewhere.graphs.neighbours import NeighbourPrediction
from elsewhere.graphs.node_encoder import ENCODE, NodeEncoder
from elsewhere.graphs.ranker import TreeRanker
from elsewhere.graphs.svm import linear_svms
from elsewhere.graphs.text import NodeFeatures, principal_axes, unit_rows
from elsewhere.nn.learners import seeded
from elsewhere.processes import fabric_of
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.training import train

MOST_MATCHED = 32_768  # clusters of a level that is still trained
HELD_OUT = 0.02  # of the instances, to judge each level by
COMPONENTS = 256


@dataclass
class FittedRanker:
    """A fitted ranker as arrays, so that it can be saved."""

    parents: list[Array]
    labels: Array
    weights: list[list[tuple[Array, Array, Array]]]
    beam: int

    @classmethod
    def of(cls, ranker: TreeRanker) -> FittedRanker:
        return cls(ranker.parents_, ranker.labels_, ranker.weights_, ranker.beam)

    def made(self, tree: LabelTree) -> TreeRanker:
        ranker = TreeRanker(tree, self.beam)
        ranker.parents_, ranker.labels_, ranker.weights_ = self.parents, self.labels, self.weights
        return ranker


@dataclass
class NeighborhoodPrediction(NodeEncoder):
    """Which nodes does this one link to? An extreme classification over clusters of nodes, coarse to fine (Chien et al. 2022).

    Neighbours' features are aggregated (PIFA), nodes put in a balanced tree, and an encoder of a node's own text or features is trained level by
    level on which clusters its neighbours lie in: squared hinge on active clusters, those under true parents and those a search finds. What is
    kept is the encoder: it needs no link. ``solver="ridge"`` does without gradients: ridge regression to one level, in seconds.

    No label of a task is used. Put it before any head: ``Probe(NeighborhoodPrediction(), LogisticRegression())``, or a network over the graph.

    Args:
        solver: "train", or "ridge" in closed form.
        clusters: of the level that "ridge" predicts, a power of two; None: about 1.4 √N.
        branching: of the tree.
        leaf_size: largest leaf; None: 32 below 100,000 nodes, else 100.
        iterations: of each split.
        negatives: "tfn": clusters under true parents; "man": under those found by the level above; "tfn+man": both.
        beam: clusters that a search keeps.
        loss: "squared-hinge", "hinge" or "cross-entropy".
        relevance: positives weigh by how many neighbours lie in the cluster.
        bootstrap: of a level's head: "linear" machines on the embeddings of the level above, "inherit" from the parent, or "random".
        levels: "all" that are trained, or "finest" alone with the same number of steps.
        most_active: cap of active clusters a node; positives always stay.
        rank: also fit a tree of linear rankers, for ``suggest_neighbours``.
        top: neighbours that are suggested.
        tree_on: "neighbours" (PIFA), "features" (of the node itself) or "random", for ablations.

    Examples:
        >>> from elsewhere.graphs.generators import topic_text_graph
        >>> giant = NeighborhoodPrediction(solver="ridge", clusters=16).fit(Source(Nodes(topic_text_graph(300), np.arange(300))))
        >>> giant.encode(["w0001 w0007", "w0300"]).shape
        (2, 16)
    """

    holds: ClassVar[tuple[type, ...]] = (NodeFeatures, LabelTree, FittedRanker)
    solver: Literal["train", "ridge"] = "train"
    clusters: int | None = None
    branching: int = 16
    leaf_size: int | None = None
    iterations: int = 20
    negatives: Literal["tfn", "man", "tfn+man"] = "tfn+man"
    beam: int = 20
    loss: Literal["squared-hinge", "hinge", "cross-entropy"] = "squared-hinge"
    relevance: bool = False
    bootstrap: Literal["linear", "inherit", "random"] = "linear"
    levels: Literal["all", "finest"] = "all"
    most_active: int | None = None
    rank: bool = False
    top: int = 20
    tree_on: Literal["neighbours", "features", "random"] = "neighbours"

    # --- fitting ------------------------------------------------------------------------------------------------------

    def fit(self, source: Source[Nodes], run: Run = Run(), hold_out: Array | Sequence[int] | None = None) -> Self:
        """Fit on the graph of the source; nodes in ``hold_out`` are neither rows nor columns of what is predicted."""
        self._check()
        graph = self.graph_of(source, hold_out)
        self.features_ = NodeFeatures(self.idf).fit(graph)
        x = self.features_.transform(Nodes(graph, np.arange(len(graph))))
        taught = self.taught(graph)
        y = sp.csr_array(graph.links)[taught]
        self.tree_ = self._tree(graph, x, y, taught, run)
        if self.solver == "ridge":
            self._fit_ridge(x, y, taught, run)
        else:
            self._fit_levels(graph, x, y, taught, run)
        self.ranker_ = None
        if self.rank:
            self.ranker_ = FittedRanker.of(TreeRanker(self.tree_, min(self.beam, 10)).fit(self._joined(Nodes(graph, taught), run, x[taught]), y))
        return self

    def _check(self) -> None:
        for name, known in (
            ("solver", ("train", "ridge")),
            ("negatives", ("tfn", "man", "tfn+man")),
            ("loss", ("squared-hinge", "hinge", "cross-entropy")),
            ("bootstrap", ("linear", "inherit", "random")),
            ("levels", ("all", "finest")),
            ("tree_on", ("neighbours", "features", "random")),
        ):
            if getattr(self, name) not in known:
                raise UserError(f"{name} must be {', '.join(known[:-1])} or {known[-1]}, not {getattr(self, name)!r}")

    def _tree(self, graph: Graph, x: Any, y: Any, taught: Array, run: Run) -> LabelTree:
        able = np.bincount(y.indices, minlength=y.shape[1]) > 0
        leaf = self.leaf_size or (32 if len(graph) < 100_000 else 100)
        if able.sum() <= leaf and self.solver == "train":
            warnings.warn(f"{int(able.sum())} nodes fit in one leaf of {leaf}: the tree has one level only", UserWarning, stacklevel=3)
        seed = run.integer("tree")
        if self.tree_on == "neighbours":
            z = neighbourhood_features(y, x[taught])
        elif self.tree_on == "features":
            z = sp.csr_array(unit_rows(sp.csr_array(x)))
        else:
            z = sp.csr_array(np.random.default_rng(seed).normal(size=(len(graph), 8)))
        keep = sp.dia_array((able.astype(np.float32)[None], [0]), shape=(len(able), len(able)))
        z = sp.csr_array(keep @ sp.csr_array(z))
        z.eliminate_zeros()
        if self.solver == "ridge" and self.leaf_size is None:
            leaf = max(1, min(leaf, int(able.sum()) // self._wanted(int(able.sum()))))
        return label_tree(z, leaf, self.branching, self.iterations, seed)

    def _wanted(self, n: int) -> int:
        return self.clusters or 2 ** max(1, round(float(np.log2(1.4 * np.sqrt(n)))))

    def _fit_ridge(self, x: Any, y: Any, taught: Array, run: Run) -> None:
        """Solve: principal components of x to the clusters of one level; the embedding is unit(scores - mean)."""
        count = min(self._wanted(int((self.tree_.codes >= 0).sum())), 2**self.tree_.depth)
        cluster = self.tree_.binary(count)
        target = self.tree_.targets(y, cluster, count)
        target.data[:] = 1
        self.axes_ = principal_axes(x, COMPONENTS, run.integer("components")) if min(x.shape) > COMPONENTS + 1 else np.eye(x.shape[1], dtype=np.float32)
        gram = np.zeros((self.axes_.shape[1] + 1,) * 2)
        cross = np.zeros((self.axes_.shape[1] + 1, count))
        for at in range(0, len(taught), ENCODE):  # streamed: no product over all nodes stands in memory
            p = np.asarray(x[taught[at : at + ENCODE]] @ self.axes_, np.float64)
            p = np.concatenate([p, np.ones((len(p), 1))], 1)
            gram += p.T @ p
            cross += p.T @ target[at : at + ENCODE].toarray()
        penalty = np.diag(np.r_[np.ones(len(gram) - 1), 0.0])
        self.weights_ = np.linalg.solve(gram + penalty, cross).astype(np.float32)
        mean = gram[-1] / gram[-1, -1]
        self.center_ = (mean @ self.weights_).astype(np.float32)

    def _fit_levels(self, graph: Graph, x: Any, y: Any, taught: Array, run: Run) -> None:
        """Train the encoder level by level, coarse to fine."""
        texts = self._tokens(graph)
        self.network_ = seeded(run, self._encoder)
        held = np.zeros(len(taught), bool)
        held[run.rng("held-out").permutation(len(taught))[: round(HELD_OUT * len(taught))]] = True
        bound = max(self.branching, len(graph) // 4)
        sizes = [k for k in self.tree_.levels if k <= min(MOST_MATCHED, bound)] or self.tree_.levels[:1]
        steps = max(self.least_steps, self.epochs * -(-int((~held).sum()) // self.batch))
        chosen = list(range(len(sizes))) if self.levels == "all" else [len(sizes) - 1]
        if self.levels == "finest":
            steps *= len(sizes)
        matched: Any = None
        head: tuple[Array, Array] | None = None
        now: Array | None = None
        self.log_: list[dict[str, Any]] = []
        for t in chosen:
            started = time.monotonic()
            target = self.tree_.targets(y, self.tree_.clusters(t), sizes[t])
            above = self.tree_.targets(y, self.tree_.clusters(t - 1), sizes[t - 1]) if t and self.levels == "all" else None
            level = Level(target, above, matched if self.negatives != "tfn" else None, self.tree_.parents(t), self.negatives)
            head = self._head(level, head, now, run, t)
            head = self._train_level(level, head, self._reader(x, texts, taught, graph), np.flatnonzero(~held), steps, run, t)
            # the last level guides nobody: there only those held out are searched
            shown = np.flatnonzero(held) if t == chosen[-1] and held.any() else np.arange(len(taught))
            now = self._encoded(Nodes(graph, taught[shown]), run, x[taught[shown]], texts)
            matched, told = self._matched(level, head, now, shown, held[shown])
            self.log_.append({"level": t, "clusters": sizes[t], **told, "seconds": round(time.monotonic() - started, 1)})
            run.log((t + 1) * steps, **{f"level {sizes[t]}: {k}": v for k, v in told.items()})

    def _head(self, level: Level, before: tuple[Array, Array] | None, embeddings: Array | None, run: Run, t: int) -> tuple[Array, Array]:
        """Return weights [K, h] and biases [K] that a level begins with."""
        k = level.count
        width = int(self.network_.width)
        if self.bootstrap == "random" or before is None or embeddings is None:
            return (0.02 * run.rng(f"head {t}").normal(size=(k, width))).astype(np.float32), np.zeros(k, np.float32)
        if self.bootstrap == "inherit":
            return before[0][level.parent], before[1][level.parent]
        weight, bias = np.zeros((k, width), np.float32), np.zeros(k, np.float32)
        for p in range(int(level.parent.max()) + 1):
            children = np.flatnonzero(level.parent == p)
            rows = level.active_rows(p)
            if len(rows) and len(children):
                w, b = linear_svms(embeddings[rows], level.target[rows][:, children], 100.0, tolerance=0.01, newton=10)
                weight[children], bias[children] = w.T, b
        return weight, bias

    def _train_level(self, level: Level, head: tuple[Array, Array], read: Callable[[Array], Any], rows: Array, steps: int, run: Run, t: int) -> tuple[Array, Array]:
        linear = nn.Linear(head[0].shape[1], level.count)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(head[0]))
            linear.bias.copy_(torch.from_numpy(head[1]))
        at = order(len(rows), run, min(self.batch, len(rows)), f"level {t}")
        rng = run.rng(f"active {t}")
        device = fabric_of(run).device

        def draw(step: int) -> tuple[Tensor, Any, Any]:
            chosen = rows[at(step).numpy()]
            return torch.from_numpy(chosen), read(chosen), level.batch(chosen, self.most_active, rng)

        stepper = EncoderStepper(self.network_.to(device), linear.to(device), self.batch_loss, self.learning_rate, self.weight_decay, self.clip, steps)
        train(stepper, draw, run, steps=steps)
        return linear.weight.detach().cpu().numpy(), linear.bias.detach().cpu().numpy()

    def batch_loss(self, network: Any, head: Any, batch: Any) -> Tensor:
        """Return the loss of a batch: positions, what the encoder reads, what is active."""
        _, given, active = batch
        return self.level_loss(network(given), head, active)

    def level_loss(self, phi: Tensor, head: nn.Linear, active: Active) -> Tensor:
        """Return the mean over nodes of the mean loss over a node's active clusters (spec 07, equation 2)."""
        score = head(phi) if active.clusters is None else torch.einsum("bh,bah->ba", phi, head.weight[active.clusters]) + head.bias[active.clusters]
        y = torch.where(active.counts > 0, 1.0, -1.0)
        if self.loss == "cross-entropy":
            each = nn.functional.softplus(-y * score)
        else:
            slack = (1 - y * score).clamp(min=0)
            each = slack.square() if self.loss == "squared-hinge" else slack
        if self.relevance:
            each = each * torch.where(active.counts > 0, active.counts, 1.0)
        return ((each * active.mask).sum(1) / active.mask.sum(1).clamp(min=1)).mean()

    def _matched(self, level: Level, head: tuple[Array, Array], embeddings: Array, nodes: Array, held: Array) -> tuple[Any, dict[str, float]]:
        """Return the clusters that a search finds for some of the taught nodes [n, K] CSR, and how well it does on those held out among them."""
        found, first = [], []
        block = max(256, (1 << 25) // level.count)
        for a in range(0, len(nodes), block):
            score = embeddings[a : a + block] @ head[0].T + head[1]
            if level.matched is not None:
                score = np.where(level.matched[nodes[a : a + block]][:, level.parent].toarray() > 0, score, -np.inf)
            keep = min(self.beam, score.shape[1])
            best = np.argpartition(-score, keep - 1, 1)[:, :keep]
            fine = np.isfinite(np.take_along_axis(score, best, 1))
            found.append(sp.csr_array((np.ones(int(fine.sum()), np.float32), (np.repeat(np.arange(len(score)), fine.sum(1)), best[fine])), shape=score.shape))
            first.append(score.argmax(1))
        matched = sp.csr_array(sp.vstack(found))
        rows = np.flatnonzero(held) if held.any() else np.arange(len(nodes))
        truth = level.target[nodes[rows]] > 0
        hit = matched[rows].multiply(truth).sum()
        right = np.asarray(truth[np.arange(len(rows)), np.concatenate(first)[rows]]).ravel()
        return matched, {"precision@1": float(right.mean()), f"recall@{self.beam}": float(hit / max(1, truth.sum())), "active clusters": level.mean_active()}

    # --- using --------------------------------------------------------------------------------------------------------

    def _width(self) -> int:
        return int(self.weights_.shape[1]) if self.solver == "ridge" else super()._width()

    def _encoded(self, nodes: Nodes, run: Run, x: Any = None, texts: list[list[int]] | None = None) -> Array:
        if self.solver != "ridge":
            return super()._encoded(nodes, run, x, texts)
        rows = self.features_.transform(nodes) if x is None else x
        scores = np.asarray(rows @ self.axes_) @ self.weights_[:-1] + self.weights_[-1] - self.center_
        return unit_rows(scores)

    def _joined(self, nodes: Nodes, run: Run, x: Any = None) -> Any:
        """Return [X, unit(φ)] for the rankers."""
        rows = self.features_.transform(nodes) if x is None else x
        return sp.csr_array(sp.hstack([sp.csr_array(rows), sp.csr_array(unit_rows(self._encoded(nodes, run, rows)))]))

    def predict(self, data: Any, run: Run = Run()) -> NeighbourPrediction:
        nodes = as_nodes(data)
        embeddings = self.encode(nodes, run)
        if self.ranker_ is None:
            return NeighbourPrediction(embeddings)
        return NeighbourPrediction(embeddings, *self.suggest_neighbours(nodes, self.top, run))

    def suggest_neighbours(self, data: Any, top: int = 20, run: Run = Run()) -> tuple[Array, Array]:
        """Return the nodes of the training graph that each of these would link to [n, top], and scores; -1 where there are fewer."""
        if self.ranker_ is None:
            raise UserError("this model has no rankers: fit it with rank=True")
        return self.ranker_.made(self.tree_).search(self._joined(as_nodes(data), run), top)

    def describe(self, graph: Graph, level: int = 0, terms: int = 5, examples: int = 3) -> Any:
        """Return a table of a level's clusters: nodes, most typical members, top terms (of texts)."""
        import pandas as pd

        cluster = self.tree_.clusters(level)
        x = sp.csr_array(self.features_.transform(Nodes(graph, np.arange(len(graph)))))
        names = self.features_.text_.terms_ if self.features_.text_ is not None else np.array([f"feature {k}" for k in range(x.shape[1])])
        rows = []
        for k in range(self.tree_.levels[level]):
            members = np.flatnonzero(cluster == k)
            if not len(members):
                continue
            centre = np.asarray(x[members].mean(0)).ravel()
            typical = members[np.argsort(-(x[members] @ centre), kind="stable")[:examples]]
            shown = [graph.texts[i] if graph.texts is not None else str(i) for i in typical.tolist()]
            rows.append({"cluster": k, "nodes": len(members), "typical": " | ".join(shown), "terms": ", ".join(names[np.argsort(-centre, kind="stable")[:terms]])})
        return pd.DataFrame(rows)
