"""Neighbourhood prediction: the tree, the levels, the closed form, the rankers, and the theory behind them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

import elsewhere as ew
from elsewhere.checks import check_learner
from elsewhere.errors import UserError
from elsewhere.graphs.data import Graph, Nodes
from elsewhere.graphs.generators import block_model, topic_text_graph
from elsewhere.graphs.label_tree import LabelTree, label_tree, neighbourhood_features
from elsewhere.graphs.levels import Level
from elsewhere.graphs.link_prediction import DeepWalk, LinkPrediction, random_walks
from elsewhere.graphs.loading import graph_of
from elsewhere.graphs.neighborhood_prediction import NeighborhoodPrediction
from elsewhere.graphs.ranker import TreeRanker, ranking_metrics
from elsewhere.graphs.svm import linear_svms
from elsewhere.graphs.tasks import cora_graph, facebook_graph, isolated_nodes
from elsewhere.graphs.text import NodeFeatures, TextFeatures, Tfidf, unit_rows
from elsewhere.learner import Probe
from elsewhere.tables.learners import LogisticRegression
from elsewhere.task import Source

QUIET = ew.Run(progress=False)
QUICK: dict[str, Any] = {"epochs": 1, "least_steps": 5, "dim": 16, "leaf_size": 16, "branching": 4}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return topic_text_graph(400, num_topics=4, words=300, seed=1)


def source(graph: Graph) -> Source[Nodes]:
    return Source(Nodes(graph, np.arange(len(graph)), graph.labels, graph.classes))


# --- the tree -------------------------------------------------------------------------------------------------------


def test_neighbourhood_features_equal_the_dense_product() -> None:
    rng = np.random.default_rng(0)
    y, x = (rng.random((8, 6)) < 0.4).astype(float), rng.random((8, 5))
    length = np.linalg.norm(y, axis=1, keepdims=True)
    z = (y / np.where(length > 0, length, 1)).T @ x
    z = z / np.where(np.linalg.norm(z, axis=1, keepdims=True) > 0, np.linalg.norm(z, axis=1, keepdims=True), 1)
    for form in (x, sp.csr_array(x)):
        made = neighbourhood_features(sp.csr_array(y), form)
        assert np.allclose(made.toarray() if sp.issparse(made) else made, z, atol=1e-6)


def slow_tree(z: np.ndarray, first: np.ndarray, second: np.ndarray, iterations: int = 20) -> np.ndarray:
    """One split of spec 07, 2.4, written out."""
    c, before = z[second] - z[first], None
    for _ in range(iterations):
        order = sorted(range(len(z)), key=lambda i: (np.float32(z[i] @ c), i))
        left = set(order[: len(z) // 2])
        if left == before:
            break
        before = left
        low, high = z[sorted(left)].sum(0), z[[i for i in range(len(z)) if i not in left]].sum(0)
        c = high / np.linalg.norm(high) - low / np.linalg.norm(low)
    return np.array([0 if i in left else 1 for i in range(len(z))])


@pytest.mark.parametrize("seed", range(5))
def test_a_split_equals_the_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = unit_rows(rng.random((37, 9)).astype(np.float32))
    made = label_tree(z, leaf_size=20, seed=seed)
    u, v = np.random.default_rng(seed).random((2, 1))
    first = int(u[0] * 37)
    second = (first + 1 + int(v[0] * 36)) % 37
    assert made.codes.tolist() == slow_tree(z, first, second).tolist()


@given(st.integers(2, 300), st.integers(1, 40), st.integers(0, 3))
def test_leaves_are_balanced_and_everybody_is_in_one(n: int, leaf: int, seed: int) -> None:
    z = np.random.default_rng(seed).random((n, 4)).astype(np.float32)
    tree = label_tree(z, leaf, 4, seed=seed)
    counts = np.bincount(tree.codes, minlength=2**tree.depth)
    assert counts.sum() == n
    assert counts.max() - counts.min() <= tree.depth  # each split differs by at most one
    assert counts.max() <= max(leaf, 1) or leaf >= n
    for level in range(len(tree.levels) - 1):
        assert (tree.parents(level + 1)[tree.clusters(level + 1)] == tree.clusters(level)).all()


def test_levels_are_those_of_the_published_example() -> None:
    assert LabelTree(np.zeros(1, int), 10, 16).levels == [4, 64, 1024]


def test_labels_without_a_positive_are_left_out() -> None:
    z = np.eye(6, dtype=np.float32)
    z[2] = 0
    assert label_tree(z, 2).codes[2] == -1
    with pytest.raises(UserError, match="no label has a positive"):
        label_tree(np.zeros((3, 2)))


def test_the_tree_does_not_depend_on_threads_and_samples_large_levels() -> None:
    z = unit_rows(np.random.default_rng(0).random((2000, 20)).astype(np.float32))
    assert (label_tree(z, 50, seed=3).codes == label_tree(z, 50, seed=3).codes).all()
    sampled = label_tree(z, 50, seed=3, sampled_from=100)
    counts = np.bincount(sampled.codes)
    assert counts.max() - counts.min() <= sampled.depth


def test_targets_count_neighbours_in_clusters() -> None:
    tree = LabelTree(np.array([0, 0, 1, -1]), 1, 2)
    y = sp.csr_array(np.array([[1, 1, 1, 1], [0, 0, 0, 1]]))
    assert tree.targets(y, tree.clusters(0), 2).toarray().tolist() == [[2, 1], [0, 0]]


# --- the theory (spec 07, 2.8) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("within", "distance", "deviation"), [(0.75, 1.0, 1.0), (0.9, 1.0, 2.0), (0.55, 1.0, 1.0)])
def test_neighbours_features_separate_classes_as_the_block_model_says(within: float, distance: float, deviation: float) -> None:
    """Separation raw = Δ/σ, of neighbours' means = Δ (2a - 1) / sqrt((σ² + Δ² a (1 - a)) mean 1/D): within 5 % over 20 draws."""
    raw, aggregated, truth = [], [], []
    for seed in range(20):
        g = block_model(4000, 20, within, distance, deviation, seed=seed)
        keep = g.degree > 0
        x = g.features[:, 0].astype(float)
        mean = np.asarray(g.links @ x) / np.maximum(g.degree, 1)
        for values, told in ((x, raw), (mean, aggregated)):
            a, b = (values[keep & (g.labels == k)] for k in (0, 1))
            told.append((b.mean() - a.mean()) / np.sqrt((a.var() + b.var()) / 2))
        truth.append(distance * (2 * within - 1) / np.sqrt((deviation**2 + distance**2 * within * (1 - within)) * np.mean(1 / g.degree[keep])))
    assert np.mean(raw) == pytest.approx(distance / deviation, rel=0.05)
    assert np.mean(aggregated) == pytest.approx(np.mean(truth), rel=0.05)


# --- levels ---------------------------------------------------------------------------------------------------------


def level(negatives: str = "tfn+man") -> Level:
    rng = np.random.default_rng(0)
    target = sp.csr_array((rng.random((20, 12)) < 0.2) * rng.integers(1, 4, (20, 12)).astype(float))
    above = sp.csr_array(target.toarray().reshape(20, 4, 3).sum(2))
    matched = sp.csr_array((rng.random((20, 4)) < 0.4).astype(float))
    return Level(target, above, matched if negatives != "tfn" else None, np.arange(12) // 3, negatives)


@pytest.mark.parametrize("negatives", ["tfn", "man", "tfn+man"])
def test_active_clusters_are_those_under_true_and_found_parents(negatives: str) -> None:
    one = level(negatives)
    active = one.batch(np.arange(20), None, np.random.default_rng(0))
    reach = np.zeros((20, 4))
    if negatives != "man":
        reach += one.above.toarray()
    if negatives != "tfn":
        reach += one.matched.toarray()
    truth = np.maximum(np.repeat(reach > 0, 3, 1), one.target.toarray() > 0)
    assert (active.mask.numpy() == truth).all()
    assert (active.counts.numpy() == one.target.toarray()).all()


def test_gathered_clusters_give_the_loss_of_masked_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = NeighborhoodPrediction()
    phi, head = torch.randn(20, 8), torch.nn.Linear(8, 12)
    one = level()
    losses = [learner.level_loss(phi, head, one.batch(np.arange(20), None, np.random.default_rng(0)))]
    monkeypatch.setattr("elsewhere.graphs.levels.DENSE_LEVEL", 1)
    gathered = one.batch(np.arange(20), None, np.random.default_rng(0))
    assert gathered.clusters is not None
    losses.append(learner.level_loss(phi, head, gathered))
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)


@pytest.mark.parametrize(("loss", "relevance"), [("squared-hinge", False), ("squared-hinge", True), ("hinge", False), ("cross-entropy", False)])
def test_the_loss_of_a_level_equals_the_double_loop(loss: str, relevance: bool) -> None:
    phi, head, one = torch.randn(20, 8), torch.nn.Linear(8, 12), level()
    active = one.batch(np.arange(20), None, np.random.default_rng(0))
    scores = head(phi).detach().numpy()
    told = []
    for i in range(20):
        parts = []
        for k in np.flatnonzero(active.mask[i].numpy()):
            count = one.target.toarray()[i, k]
            y = 1 if count > 0 else -1
            slack = max(0.0, 1 - y * scores[i, k])
            value = {"squared-hinge": slack**2, "hinge": slack, "cross-entropy": np.log1p(np.exp(-y * scores[i, k]))}[loss]
            parts.append(value * (count if relevance and count > 0 else 1))
        told.append(np.mean(parts) if parts else 0.0)
    assert NeighborhoodPrediction(loss=loss, relevance=relevance).level_loss(phi, head, active).item() == pytest.approx(np.mean(told), rel=1e-4)


@pytest.mark.parametrize("dense", [True, False])
def test_a_cap_of_active_clusters_never_drops_a_positive(dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not dense:
        monkeypatch.setattr("elsewhere.graphs.levels.DENSE_LEVEL", 1)
    one = level()
    active = one.batch(np.arange(20), 4, np.random.default_rng(0))
    positives = (one.target.toarray() > 0).sum(1)
    assert ((active.counts > 0).sum(1).numpy() == positives).all()
    assert (active.mask.sum(1).numpy() <= np.maximum(4, positives)).all()


def test_machines_equal_those_of_scikit_learn() -> None:
    from sklearn.svm import LinearSVC

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 6)), (rng.random((80, 3)) < 0.3).astype(int)
    for form in (x, sp.csr_array(x)):
        w, b = linear_svms(form, sp.csr_array(y), 2.0, tolerance=1e-6, newton=50, conjugate=100)
        for k in range(3):
            theirs = LinearSVC(C=2.0, loss="squared_hinge", tol=1e-8, max_iter=100_000).fit(x, y[:, k])
            assert np.allclose(w[:, k], theirs.coef_[0], atol=2e-3)
            assert b[k] == pytest.approx(theirs.intercept_[0], abs=2e-3)


# --- ranking --------------------------------------------------------------------------------------------------------


def test_a_wide_beam_ranks_as_scoring_every_path_does() -> None:
    rng = np.random.default_rng(0)
    x, y = sp.csr_array(rng.random((60, 10)).astype(np.float32)), sp.csr_array((rng.random((60, 24)) < 0.15).astype(np.float32))
    tree = label_tree(neighbourhood_features(y, x), 3, 2)
    ranker = TreeRanker(tree).fit(x, y)
    ids, values = ranker.search(x, top=5, beam=100)
    truth = np.ones((60, 1))
    for t, parents in enumerate(ranker.parents_):
        scores = np.zeros((60, len(parents)))
        for used, children, weight in ranker.weights_[t]:
            scores[:, children] = x[:, used] @ weight[:-1] + weight[-1]
        truth = truth[:, parents] * np.exp(-(np.maximum(0, 1 - scores) ** 3))
    assert np.allclose(values, -np.sort(-truth, 1)[:, :5], rtol=1e-4)
    assert (ids >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(("load", "recall"), [(cora_graph, 0.335), (facebook_graph, 0.421)])
def test_rankers_recall_as_the_published_library_does(data: Path, load: Any, recall: float) -> None:
    """Spec 07, section 5: a tenth of the nodes held out with all their links; recall@20 within .02 of the reference's tree model."""
    graph = load()
    n = len(graph)
    held = np.sort(np.random.default_rng(0).permutation(n)[: round(0.1 * n)])
    rest = np.setdiff1d(np.arange(n), held)
    x = NodeFeatures().fit(graph).transform(Nodes(graph, np.arange(n)))
    y = graph.links[rest][:, rest]
    ranker = TreeRanker(label_tree(neighbourhood_features(y, x[rest]), 32)).fit(x[rest], y)
    told = ranking_metrics(ranker.search(x[held])[0], graph.links[held][:, rest])
    assert np.nanmean(told["recall@20"]) == pytest.approx(recall, abs=0.02)


# --- the encoder ----------------------------------------------------------------------------------------------------


ENCODERS = [
    NeighborhoodPrediction(**QUICK),
    NeighborhoodPrediction(**QUICK, encoder="linear", bootstrap="inherit", negatives="tfn"),
    NeighborhoodPrediction(**QUICK, rank=True, bootstrap="random", levels="finest", most_active=8),
    NeighborhoodPrediction(solver="ridge", clusters=16, rank=True),
    LinkPrediction(epochs=1, least_steps=5, dim=16),
    Tfidf(8),
]


def probed(encoder: Any) -> Probe:
    return Probe(encoder, LogisticRegression())


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: f"{type(e).__name__}-{getattr(e, 'solver', '')}-{getattr(e, 'levels', '')}-{getattr(e, 'encoder', '')}")
def test_every_encoder_keeps_the_contract_before_a_head(encoder: Any, graph: Graph) -> None:
    assert check_learner(probed(encoder), isolated_nodes(graph, labels_per_class=10, seed=0)) == []


def test_dense_features_are_encoded_too() -> None:
    g = block_model(300, 8)
    made = NeighborhoodPrediction(**QUICK, encoder="features").fit(source(g), QUIET)
    assert made.encode(np.zeros((2, 16), np.float32)).shape == (2, 16)


def test_the_closed_form_equals_ridge_regression(graph: Graph) -> None:
    from sklearn.linear_model import Ridge

    made = NeighborhoodPrediction(solver="ridge", clusters=8).fit(source(graph), QUIET)
    taught = made.taught(graph)
    x = made.features_.transform(Nodes(graph, taught)) @ made.axes_
    target = made.tree_.targets(sp.csr_array(graph.links)[taught], made.tree_.binary(8), 8).toarray() > 0
    theirs = Ridge(alpha=1.0).fit(np.asarray(x, float), target.astype(float)).predict(np.asarray(x, float))
    ours = made.encode(Nodes(graph, taught))
    assert np.allclose(ours, unit_rows(theirs - theirs.mean(0)), atol=1e-3)


def test_links_of_nodes_held_out_change_nothing(graph: Graph) -> None:
    """Spec 07, section 10: neither rows nor columns."""
    held = np.arange(0, 400, 7)
    pairs = np.stack(sp.triu(graph.links, 1).nonzero(), 1)
    inside = np.isin(pairs, held).any(1)
    drawn = np.random.default_rng(3).integers(400, size=(200, 2))
    drawn = drawn[np.isin(drawn, held).any(1) & (drawn[:, 0] != drawn[:, 1])]
    other = replace(graph, links=graph_of(np.concatenate([pairs[~inside], drawn]), nodes=400).links)
    for learner in (NeighborhoodPrediction(**QUICK), NeighborhoodPrediction(solver="ridge", clusters=16)):
        made = [copy.deepcopy(learner).fit(source(g), QUIET, hold_out=held).encode(["w0001 w0002", *graph.texts[:20]]) for g in (graph, other)]
        assert (made[0] == made[1]).all()


def test_predicting_neighbourhoods_serves_nodes_without_links() -> None:
    graph = topic_text_graph(1500, num_topics=8, words=3000, length=6, text_noise=0.5, seed=0)
    task = isolated_nodes(graph, labels_per_class=10, seed=0)
    told = {}
    for name, encoder in (("tfidf", Tfidf()), ("ridge", NeighborhoodPrediction(solver="ridge"))):
        fitted = probed(encoder).fit(task.source, QUIET)
        data = task.domain("isolated").load()
        told[name] = (fitted.predict(data.unlabelled(), QUIET).classes() == data.labels).mean()
    assert told["ridge"] > told["tfidf"] + 0.05


@pytest.mark.slow
def test_texts_of_noise_teach_nothing() -> None:
    task = isolated_nodes(topic_text_graph(1500, num_topics=4, text_noise=1.0, seed=0), labels_per_class=20, seed=0)
    fitted = probed(NeighborhoodPrediction(solver="ridge")).fit(task.source, QUIET)
    data = task.domain("isolated").load()
    assert (fitted.predict(data.unlabelled(), QUIET).classes() == data.labels).mean() == pytest.approx(0.25, abs=0.11)


def test_neighbours_are_suggested_and_found(graph: Graph) -> None:
    made = NeighborhoodPrediction(solver="ridge", rank=True).fit(source(graph), QUIET)
    ids, scores = made.suggest_neighbours(list(graph.texts[:50]), top=5)
    assert ids.shape == (50, 5)
    assert (np.diff(scores, axis=1) <= 1e-6).all()
    assert (ranking_metrics(ids, graph.links[:50], (5,))["recall@5"]).mean() > 0.2
    with pytest.raises(UserError, match="rank=True"):
        NeighborhoodPrediction(solver="ridge").fit(source(graph), QUIET).suggest_neighbours(["w0001"])


def test_the_table_of_clusters_names_texts_and_terms(graph: Graph) -> None:
    made = NeighborhoodPrediction(solver="ridge", clusters=16).fit(source(graph), QUIET)
    table = made.describe(graph, 0)
    assert table.nodes.sum() == (made.tree_.codes >= 0).sum()
    assert table.terms.str.contains("w0").all()


def test_it_stands_in_a_pipeline_of_scikit_learn(graph: Graph) -> None:
    from sklearn.linear_model import LogisticRegression as Theirs
    from sklearn.pipeline import make_pipeline

    made = NeighborhoodPrediction(solver="ridge").fit(source(graph), QUIET)
    pipeline = make_pipeline(made.as_transformer(), Theirs()).fit(list(graph.texts), graph.labels)
    assert pipeline.score(list(graph.texts), graph.labels) > 0.5


def test_a_transformer_is_an_encoder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    graph = topic_text_graph(80, num_topics=2, words=60, seed=0)
    words = sorted({w for t in graph.texts for w in t.split()})
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, **{w: k + 1 for k, w in enumerate(words)}}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]").save_pretrained(tmp_path / "t")
    config = transformers.BertConfig(vocab_size=len(words) + 1, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    transformers.BertModel(config).save_pretrained(tmp_path / "t")
    learner = NeighborhoodPrediction(encoder=f"transformer:{tmp_path / 't'}", epochs=1, least_steps=2, leaf_size=16, branching=4, batch=16)
    fitted = learner.fit(source(graph), QUIET)
    made = fitted.encode(["w0001 w0002", "", "w0003"])
    assert made.shape == (3, 16)
    fitted.save(tmp_path / "m")
    assert json.loads((tmp_path / "m" / "learner.json").read_text())
    for file in (tmp_path / "t").iterdir():
        file.unlink()  # the model must not need what it began with
    assert np.allclose(NeighborhoodPrediction.load(tmp_path / "m").encode(["w0001 w0002", "", "w0003"]), made, atol=1e-6)


def test_walks_follow_links(graph: Graph) -> None:
    start = np.flatnonzero(graph.degree > 0)[:50]
    walks = random_walks(graph.links, start, 6, np.random.default_rng(0))
    dense = graph.links.toarray()
    assert (dense[walks[:, :-1], walks[:, 1:]] == 1).all()


def test_deepwalk_says_nothing_of_nodes_without_links(graph: Graph) -> None:
    task = isolated_nodes(graph, labels_per_class=10, seed=0)
    assert check_learner(probed(DeepWalk(dim=8, walks=1)), task) == []
    made = DeepWalk(dim=8, walks=1).fit(task.source, QUIET)
    assert not made.represent(task.domain("isolated").load()).any()
    assert made.represent(task.domain("linked").load()).any()


def test_links_are_scored_by_products_of_embeddings() -> None:
    from elsewhere.graphs.cold_links import link_loss

    mine, near, far = (torch.randn(6, 3) for _ in range(3))
    truth = -(torch.log(torch.sigmoid((mine * near).sum(1))).mean() + torch.log(1 - torch.sigmoid((mine * far).sum(1))).mean()) / 2
    assert link_loss(mine, near, far).item() == pytest.approx(truth.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["link-gcn:epochs=5,top=50", "cold-links:epochs=5,student_epochs=5,top=50", "neighborhood-prediction:solver=ridge,clusters=16,rank=true"])
def test_learners_that_suggest_neighbours_are_judged_by_their_ranks(name: str) -> None:
    from elsewhere.assay.study import learners_of
    from elsewhere.graphs.generators import homophily_graph
    from elsewhere.graphs.neighbours import Linked, neighbour_metrics

    g = homophily_graph(300, seed=0)
    alone = np.arange(0, 300, 10)
    pruned = g.without_links_of(alone).without_labels()
    truth = sp.csr_array(g.links[alone])
    judged = ew.Task(Source(Nodes(pruned, np.setdiff1d(np.arange(300), alone))), [ew.Domain("isolated", Linked(pruned, alone, truth=truth))], neighbour_metrics())
    (named,) = learners_of([name])
    assert check_learner(named.learner, judged) == []
    fitted = named.learner.fit(judged.source, QUIET)
    made = fitted.predict(judged.domains[0].load().unlabelled(), QUIET)
    assert 0 <= np.nanmean(judged.metrics[0].fn(made, judged.domains[0].load())) <= 1


# --- bad input ------------------------------------------------------------------------------------------------------


def test_empty_and_repeated_texts_are_counted(graph: Graph) -> None:
    with pytest.warns(UserWarning, match="2 of 400 texts are empty"):
        NeighborhoodPrediction(solver="ridge", clusters=8).fit(source(replace(graph, texts=["", "", *graph.texts[2:]])), QUIET)
    with pytest.warns(UserWarning, match="texts repeat another"):
        NeighborhoodPrediction(solver="ridge", clusters=8).fit(source(replace(graph, texts=[*graph.texts[:200], *graph.texts[:200]])), QUIET)


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (NeighborhoodPrediction(max_degree=1), r"every node has 1 links or more, or none \(degrees 0%: "),
        (NeighborhoodPrediction(solver="tree"), "solver must be train or ridge"),
        (NeighborhoodPrediction(encoder="bert"), "encoder must be mlp, linear, features or transformer:NAME"),
    ],
)
def test_bad_settings_are_refused_in_one_line(learner: Any, message: str, graph: Graph) -> None:
    with pytest.raises(UserError, match=message):
        learner.fit(source(graph), QUIET)


def test_a_graph_without_links_is_refused_while_planning(graph: Graph) -> None:
    bare = replace(graph, links=sp.csr_array((400, 400), dtype=np.float32))
    assert "no links" in str(NeighborhoodPrediction().refuses(source(bare)))
    with pytest.raises(UserError, match="no links"):
        NeighborhoodPrediction().fit(source(bare), QUIET)


def test_few_nodes_give_one_level_and_that_is_said() -> None:
    with pytest.warns(UserWarning, match="one level only"):
        NeighborhoodPrediction(epochs=1, least_steps=1, dim=4).fit(source(topic_text_graph(30, num_topics=2, words=40)), QUIET)


def test_terms_are_weighed_as_scikit_learn_weighs_them() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["red fish swims", "blue fish", "red bird sings", "a bird"]
    ours = TextFeatures(pairs=0, letters=0, max_share=1.0, least=1).fit(texts)
    theirs = TfidfVectorizer(token_pattern=r"\w+", vocabulary=ours.terms_.tolist()).fit(texts).transform(texts)
    assert np.allclose(ours.transform(texts).toarray(), theirs.toarray(), atol=1e-6)
    letters = TextFeatures(words=0, pairs=0, max_share=1.0, least=1).fit(texts)
    known = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3)).fit(texts)
    assert {t[1:] for t in letters.terms_} == set(known.get_feature_names_out())


# --- the command ----------------------------------------------------------------------------------------------------


def test_an_encoder_is_fitted_on_files_and_encodes_new_texts(tmp_path: Path, graph: Graph, run: Any) -> None:
    pd.DataFrame({"id": np.arange(400), "title": list(graph.texts)}).to_parquet(tmp_path / "nodes.parquet")
    pd.DataFrame(np.stack(sp.triu(graph.links, 1).nonzero(), 1), columns=["a", "b"]).to_csv(tmp_path / "edges.csv", index=False)
    code, out, err = run(
        "fit", tmp_path / "nodes.parquet", "--edges", tmp_path / "edges.csv", "--text", "title", "--learner", "neighborhood-prediction:solver=ridge,clusters=16", "--out", tmp_path / "encoder"
    )
    assert code == 0, err
    assert "400 examples" in out
    pd.DataFrame({"id": [7, 8], "title": ["w0001 w0002", ""]}).to_parquet(tmp_path / "new.parquet")
    code, _, err = run("predict", tmp_path / "encoder", tmp_path / "new.parquet", "--out", tmp_path / "e.parquet")
    assert code == 0, err
    frame = pd.read_parquet(tmp_path / "e.parquet")
    assert frame.shape == (2, 17)
    assert frame.id.tolist() == [7, 8]
    pd.DataFrame({"name": ["x"]}).to_parquet(tmp_path / "wrong.parquet")
    code, _, err = run("predict", tmp_path / "encoder", tmp_path / "wrong.parquet")
    assert code == 2
    assert "lacks the model's text column 'title'" in err


def test_a_graph_of_texts_is_assayed_and_what_the_encoder_learnt_is_drawn(tmp_path: Path, graph: Graph) -> None:
    learners = ["mlp:steps=20", "gcn:epochs=5", probed(NeighborhoodPrediction(solver="ridge", clusters=16))]
    result = ew.assay(graph, learners=learners, seeds=1, out=tmp_path / "r")
    assert (result.trials().status == "done").all(), result.trials().reason.tolist()
    finding = result.explain("neighbourhoods")
    assert "one level of 16 clusters" in finding.sentence
    assert len(finding.figures) == 2
    trained = ew.assay(graph, learners=[probed(NeighborhoodPrediction(**QUICK))], seeds=1, out=tmp_path / "t").explain("neighbourhoods")
    assert len(trained.figures) == 3
    assert any(title.startswith("Levels") for title in trained.tables)
