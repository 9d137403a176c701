"""Graphs of nodes: what is read, what may not leak, and the learners that know links."""

from __future__ import annotations

import copy
import warnings
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
from elsewhere.data import SparseRows
from elsewhere.errors import UserError
from elsewhere.graphs.cold_brew import ColdBrew
from elsewhere.graphs.contribution import by_degree, feature_contribution_ratio, homophily
from elsewhere.graphs.data import Graph, Nodes
from elsewhere.graphs.distilled import Glnn, GraphMlp, TuneUp, neighbour_contrast
from elsewhere.graphs.generators import homophily_graph, rewired
from elsewhere.graphs.label_propagation import LabelPropagation, propagated
from elsewhere.graphs.learners import Gcn, GraphSage, Sgc, StructuralGcn, mean_of_neighbours, propagation
from elsewhere.graphs.loading import from_frames, from_networkx, from_pyg, graph_of, load_graph, load_text_graph
from elsewhere.graphs.networks import SparseMlp, pair_norm
from elsewhere.graphs.sampling import sampled_neighbours, sampled_part
from elsewhere.graphs.search import CoarseLists, top_similar
from elsewhere.graphs.sparse import Features, Sparse, normalised
from elsewhere.graphs.tasks import isolated_nodes, neighbours_and_value
from elsewhere.learner import Probe
from elsewhere.nn.learners import Mlp
from elsewhere.tables.learners import LogisticRegression
from elsewhere.task import Source

QUIET = ew.Run(progress=False)
QUICK: dict[str, Any] = {"epochs": 20}
LEARNERS = [
    Gcn(**QUICK),
    GraphSage(**QUICK),
    GraphSage(epochs=5, sample=3, batch=32),
    Sgc(**QUICK),
    StructuralGcn(**QUICK, structural="all"),
    LabelPropagation(),
    Glnn(**QUICK),
    GraphMlp(**QUICK),
    TuneUp(**QUICK, tuning_epochs=5),
    ColdBrew(**QUICK, student_epochs=20),
]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return homophily_graph(400, seed=1)


@pytest.fixture(scope="module")
def task(graph: Graph) -> ew.Task:
    return isolated_nodes(graph, seed=0)


def accuracy(learner: Any, task: ew.Task, domain: str, seed: int = 0) -> float:
    fitted = copy.deepcopy(learner)
    nodes = learner.accepts is Nodes
    source = task.source if nodes else Source(task.source.train.examples())
    fitted.fit(source, ew.Run(seed, progress=False))
    data = task.domain(domain).load()
    asked = data.unlabelled() if nodes else data.unlabelled().examples()
    return float((fitted.predict(asked, QUIET).classes() == data.labels).mean())


# --- reading --------------------------------------------------------------------------------------------------------


def test_links_become_symmetric_and_what_changed_is_said() -> None:
    with pytest.warns(UserWarning, match="1 links pointed one way and were made symmetric; 1 self-loop dropped"):
        made = graph_of([[0, 1], [1, 0], [1, 2], [2, 2]], np.eye(3))
    assert made.links.toarray().tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("links", "more", "message"),
    [
        ([[0, 3001]], {"features": np.zeros((3000, 1))}, "links name node 3001 but there are 3,000 rows of features"),
        ([[0, 1]], {"features": np.zeros((3, 1)), "labels": [0, 1]}, "labels has 2 entries for 3 nodes"),
        ([[0, 1]], {"features": np.array([[0.0], [np.nan], [0.0]])}, "features of 1 nodes are not finite, first row 1"),
        ([[0, 1]], {"texts": ["a"], "nodes": 2}, "1 texts for 2 nodes"),
        ([[0.5, 1]], {"features": np.zeros((3, 1))}, "links must be pairs of whole numbers"),
        ([[0, 1, 2]], {"features": np.zeros((3, 1))}, "expected \\[m, 2\\] or \\[2, m\\]"),
    ],
)
def test_bad_graphs_are_refused_in_one_line(links: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        graph_of(links, **more)


def test_the_same_graph_comes_from_npz_pyg_networkx_and_tables(tmp_path: Path, graph: Graph) -> None:
    pairs = np.stack(sp.triu(graph.links, 1).nonzero(), 1)
    both = np.stack(graph.links.nonzero())
    np.savez(tmp_path / "g.npz", x=graph.features, edge_index=both, y=graph.labels, class_names=np.array(graph.classes), train_index=np.arange(5))
    held = load_graph(tmp_path / "g.npz")
    assert held.masks["train"].sum() == 5
    assert held.classes == graph.classes
    data = pytest.importorskip("torch_geometric.data").Data(x=torch.from_numpy(graph.features), edge_index=torch.from_numpy(both), y=torch.from_numpy(graph.labels))
    drawn = pytest.importorskip("networkx").Graph()
    drawn.add_nodes_from(range(len(graph)))
    drawn.add_edges_from(pairs.tolist())
    frame = pd.DataFrame(graph.features, columns=[f"f{k}" for k in range(64)]).assign(id=[f"n{k}" for k in range(len(graph))], kind=[graph.classes[k] for k in graph.labels])
    ends = pd.DataFrame({"a": [f"n{k}" for k in pairs[:, 0]], "b": [f"n{k}" for k in pairs[:, 1]]})
    made = [held, from_pyg(data), from_networkx(drawn, graph.features), from_frames(frame, ends, predict="kind")]
    for other in made:
        assert (other.links != graph.links).nnz == 0
        assert np.allclose(other.features, graph.features)
    assert made[3].columns["id"][0] == "n0"
    assert (made[3].labels == graph.labels).all()


def test_a_table_of_links_that_names_unknown_nodes_is_refused() -> None:
    nodes = pd.DataFrame({"id": ["a", "b"], "x": [1.0, 2.0]})
    with pytest.raises(UserError, match="links name node 'c', which column 'id' of the nodes does not have"):
        from_frames(nodes, pd.DataFrame({"u": ["a"], "v": ["c"]}))
    with pytest.raises(UserError, match="column 'x' holds text"):
        from_frames(nodes.assign(x=["p", "q"]), pd.DataFrame({"u": ["a"], "v": ["b"]}))


NODES = "id,x,kind\n1,.1,p\n2,.2,q\n07,.3,p\nNA,.4,q\nb,.5,q\n"
RING = [("1", "2"), ("2", "07"), ("07", "NA"), ("NA", "b"), ("b", "1")]


def tables(folder: Path, nodes: str, links: str) -> tuple[str, str]:
    (folder / "nodes.csv").write_text(nodes)
    (folder / "links.csv").write_text(links)
    return str(folder / "nodes.csv"), str(folder / "links.csv")


def written(pairs: list[tuple[str, str]], header: str = "source,target") -> str:
    return "\n".join([header, *(",".join(p) for p in pairs)]) + "\n"


def test_no_link_is_lost_where_names_are_numbers_in_part(tmp_path: Path) -> None:
    made = from_frames(*tables(tmp_path, NODES, written(RING)), predict="kind")
    assert made.links.nnz == 10
    assert made.degree.tolist() == [2] * 5
    # the first 300,000 rows hold numbers alone: a parser that guesses by blocks would cut the column in two
    many = written([("1", "2")] * 300_000 + RING)
    assert from_frames(*tables(tmp_path, NODES, many), predict="kind").links.nnz == 10


def test_one_number_is_one_node_however_it_is_written(tmp_path: Path) -> None:
    nodes = "id,x,kind\n001,.1,p\n002,.2,q\n003,.3,p\n"
    for pairs in ([("1", "2"), ("2", "3")], [("1.0", "2.0"), ("2", "003")]):
        assert from_frames(*tables(tmp_path, nodes, written(pairs)), predict="kind").links.nnz == 4
    long = "id,x,kind\n9007199254740992,.1,p\n9007199254740994,.2,q\n"
    with pytest.raises(UserError, match="links name node '9007199254740993'"):
        from_frames(*tables(tmp_path, long, written([("9007199254740993", "9007199254740994")])), predict="kind")
    frame = pd.DataFrame({"id": [1, 2, 3], "x": [1.0, 2, 3], "kind": list("pqp")})
    assert from_frames(frame, pd.DataFrame({"u": ["1", "2"], "v": [2.0, 3.0]}), predict="kind").links.nnz == 4


@pytest.mark.parametrize(
    ("nodes", "links", "said"),
    [
        (NODES, written([*RING, ("1", "7")]), "links name node '7'.*1 of 12 such ends.* column 'target', row 5"),
        (NODES, written([("1", "zz"), ("zz", "3")]), "links name node 'zz'.*3 of 4 such ends.*called 1, 2, 07"),
        (NODES, written([("1", "2"), ("2", "")]), "links name node ''"),
        (NODES, written(RING[1:], "1,2"), "the first line of links.csv, 1,2, is a link: add a header"),
        (NODES, written([("0", "1", "2")], ",source,target"), "first column of links.csv has no name"),
        (NODES, "source,target\n1,2,9\n", "rows have more fields than the header, which has 2"),
        (NODES + "1,.6,p\n", written(RING), "id column 'id' names 1 nodes twice"),
        ("x,kind\n.1,p\n.2,q\n.3,p\n", written([("0", "1"), ("1", "b")]), "1 of 4 ends are none, first 'b'"),
        ("x,kind\n.1,p\n.2,q\n.3,p\n", written([("1", "2")], "0,1"), "first line of links.csv, 0,1, is a link"),
        ("n,x,kind\n1,.1,p\n2,.2,q\n3,.3,p\n", written([("1", "2")]), "row numbers, or values of column 'n'"),
    ],
)  # fmt: skip
def test_links_that_would_be_lost_or_moved_are_refused(
    tmp_path: Path, nodes: str, links: str, said: str
) -> None:  # fmt: skip
    with pytest.raises(UserError, match=said):
        from_frames(*tables(tmp_path, nodes, links), predict="kind")


def test_links_of_an_npz_are_whole(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", x=np.eye(3), edge_index=np.array([[0.5], [1.0]]), y=np.array([0, 1, 0]))
    with pytest.raises(UserError, match="links must be pairs of whole numbers"):
        load_graph(tmp_path / "g.npz")


def test_an_attribute_that_some_nodes_lack_is_refused() -> None:
    networkx = pytest.importorskip("networkx")
    drawn = networkx.path_graph(3)
    drawn.nodes[1]["x"] = [1.0]
    with pytest.raises(UserError, match="2 of 3 nodes have no attribute x, first 0"):
        from_networkx(drawn)


def test_a_reader_of_graphs_has_the_revision_of_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from elsewhere.graphs import reader

    nodes, links = tables(tmp_path, NODES, written(RING))
    monkeypatch.setattr(reader, "graph_file", replace(reader.graph_file, revision=7))
    assert reader.read(nodes, edges=links, predict="kind").revision == 7


def test_texts_and_nodes_of_two_lengths_are_refused(tmp_path: Path, graph: Graph) -> None:
    (tmp_path / "t.txt").write_text("one\ntwo\n")
    np.savez(tmp_path / "g.npz", edge_index=np.stack(graph.links.nonzero()), y=graph.labels)
    with pytest.raises(UserError, match="2 texts for 400 nodes"):
        load_text_graph(tmp_path / "t.txt", tmp_path / "g.npz")


def test_files_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "g.npz", edge_index=np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(UserError, match="plain arrays"):
        load_graph(tmp_path / "g.npz")


def test_the_published_files_are_read(data: Path) -> None:
    cora = load_graph(data / "citations" / "cora.npz")
    assert (len(cora), cora.features.nnz, cora.links.nnz, cora.degree.max()) == (2708, 49216, 10556, 168)
    assert round(homophily(cora.links, cora.labels), 2) == 0.83
    chameleon = load_graph(data / "wikipedia-pages" / "chameleon.npz")
    code = neighbours_and_value(chameleon, "monthly_traffic")
    assert (np.bincount(code)[code] > 1).sum() == 1259  # the README's count of repeated pages


# --- the task -------------------------------------------------------------------------------------------------------


def test_isolated_nodes_have_no_links_and_counts_are_exact(graph: Graph) -> None:
    task = isolated_nodes(graph, 0.1, seed=3)
    isolated = task.domain("isolated").load()
    assert (isolated.column("degree") == 0).all()
    assert len(isolated) >= 40  # those chosen, and whoever lost the last neighbour with them
    tail, head = task.domain("tail").load(), task.domain("head").load()
    assert tail.column("degree").max() <= head.column("degree").min()
    assert (tail.column("degree") > 0).all()
    assert np.bincount(task.source.train.labels).tolist() == [20] * 4


def test_no_part_of_a_task_shares_labelled_nodes_with_what_is_judged(task: ew.Task) -> None:
    seen = np.r_[task.source.train.ask, task.source.validation.ask]
    for domain in task.domains:
        data = domain.load()
        assert not np.isin(data.ask, seen).any()
        assert data.unlabelled().labels is None
        hidden = data.unlabelled().known
        assert (hidden[data.ask] == -1).all()
        assert (np.flatnonzero(hidden >= 0) == task.source.train.ask).all()


def test_repeated_nodes_never_stand_on_both_sides(graph: Graph) -> None:
    unit = np.arange(len(graph)) // 2
    task = isolated_nodes(replace(graph, columns={"unit": unit}), seed=0)
    seen = unit[np.r_[task.source.train.ask, task.source.validation.ask]]
    assert not any(np.isin(unit[d.load().ask], seen).any() for d in task.domains)


def test_without_a_share_there_is_no_isolated_domain(graph: Graph) -> None:
    linked = replace(graph, links=graph.without_links_of(np.array([], int)).links)
    names = [d.name for d in isolated_nodes(linked, share=0.0).domains]
    assert ("isolated" in names) == bool((graph.degree == 0).any())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: replace(g, labels=None), "has no labels"),
        (lambda g: replace(g, links=sp.csr_array((400, 400), dtype=np.float32)), "no links at all"),
        (lambda g: replace(g, labels=np.zeros(400, int)), "one class only"),
        (lambda g: replace(g, classes=(*g.classes, "never")), "class 'never' has no linked node"),
    ],
)
def test_graphs_that_no_task_can_be_made_of(graph: Graph, change: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        isolated_nodes(change(graph))


def test_nodes_without_features_are_counted(graph: Graph) -> None:
    features = graph.features.copy()
    features[:3] = 0
    with pytest.warns(UserWarning, match="3 nodes have no features"):
        isolated_nodes(replace(graph, features=features))


# --- exactness ------------------------------------------------------------------------------------------------------


def dense_layer(network: Any, graph: Graph) -> torch.Tensor:
    """Spec 06, equation 1, with every matrix dense."""
    a = graph.links.toarray() + np.eye(len(graph))
    d = a.sum(1)
    s = torch.from_numpy((a / np.sqrt(d[:, None] * d[None])).astype(np.float32))
    x = torch.from_numpy(Features(graph.features).matrix)
    for k, (w, b) in enumerate(zip(network.weight, network.bias, strict=True)):
        e = network.structure.get(str(k), 0)
        x = s @ (x @ w.T + e) + b
        if k < len(network.weight) - 1:
            x = x.relu()
    return x


@pytest.mark.parametrize("structural", ["none", "first", "last", "all"])
def test_layers_equal_the_dense_equation_forward_and_backward(graph: Graph, structural: str) -> None:
    learner = StructuralGcn(epochs=1, structural=structural, hidden=8, layers=3).fit(isolated_nodes(graph, 0.0).source, QUIET)
    network = learner.network_.eval()
    made, truth = network(Features(graph.features), propagation(graph)), dense_layer(network, graph)
    assert torch.allclose(made, truth, atol=1e-4)
    weights = torch.randn_like(made)
    gradients = [torch.autograd.grad((x * weights).sum(), list(network.parameters()), retain_graph=True) for x in (made, truth)]
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(*gradients, strict=True))


def test_a_sparse_product_has_the_gradient_of_its_transpose() -> None:
    rng = np.random.default_rng(0)
    matrix = sp.random_array((7, 5), density=0.4, format="csr", dtype=np.float32, rng=rng)
    x = torch.randn(5, 3, dtype=torch.float32, requires_grad=True)
    made = Sparse(matrix) @ x
    (gradient,) = torch.autograd.grad(made.square().sum(), x)
    dense = torch.from_numpy(matrix.toarray())
    assert torch.allclose(gradient, 2 * dense.T @ dense @ x, atol=1e-5)


def test_dropout_of_sparse_features_is_that_of_dense_ones() -> None:
    torch.manual_seed(0)
    x = sp.csr_array(np.ones((200, 50), np.float32))
    made = Features(x, unit_sum=False).times(torch.ones(1, 50), dropout=0.5)
    assert abs(made.mean().item() - 50) < 1
    weight = torch.ones(1, 50, requires_grad=True)
    (gradient,) = torch.autograd.grad(Features(x, unit_sum=False).times(weight, dropout=0.5).sum(), weight)
    assert set(np.unique(np.round(gradient.numpy()) % 2).tolist()) == {0.0}  # sums of values that were 0 or doubled


def test_the_student_sees_each_block_as_layer_norm_does() -> None:
    torch.manual_seed(0)
    x = sp.random_array((6, 20), density=0.3, format="csr", dtype=np.float32, rng=np.random.default_rng(1))
    beside = torch.randn(6, 4)
    network = SparseMlp(20, 3, depth=1, extra=[4])
    made = network(Features(x, unit_sum=False), None, beside)
    blocks = [torch.nn.functional.layer_norm(torch.from_numpy(x.toarray()), (20,)), torch.nn.functional.layer_norm(beside, (4,))]
    truth = sum(s * b @ w.T for s, b, w in zip(network.scale, blocks, [network.weight, *network.beside], strict=True)) + network.bias
    assert torch.allclose(made, truth, atol=1e-5)
    assert network.scale[0] ** 2 * 20 == pytest.approx(network.scale[1] ** 2 * 4)


def test_pair_norm_centres_and_scales() -> None:
    x = pair_norm(torch.randn(50, 8) * 3 + 2)
    assert x.mean(0).abs().max() < 1e-5
    assert x.square().sum(1).mean().item() == pytest.approx(1, abs=1e-4)


@given(st.integers(1, 6), st.sampled_from(["cosine", "dot"]), st.integers(2, 40))
def test_the_search_in_tiles_equals_the_whole_product(k: int, similarity: str, tile: int) -> None:
    rng = np.random.default_rng(k)
    bank, queries = rng.normal(size=(50, 6)).astype(np.float32), rng.normal(size=(17, 6)).astype(np.float32)
    own = rng.integers(-1, 50, 17)
    rows, values = top_similar(queries, bank, k, similarity, own, block=5, tile=tile)
    unit = (lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)) if similarity == "cosine" else (lambda x: x)
    whole = unit(queries) @ unit(bank).T
    whole[np.flatnonzero(own >= 0), own[own >= 0]] = -np.inf
    assert np.allclose(np.sort(values, 1), np.sort(whole, 1)[:, -k:], atol=1e-5)
    assert not (rows == own[:, None]).any()


def test_coarse_lists_find_most_of_what_the_exact_search_finds() -> None:
    rng = np.random.default_rng(0)
    bank = (rng.normal(size=(30, 16))[rng.integers(30, size=3000)] + 0.3 * rng.normal(size=(3000, 16))).astype(np.float32)
    exact = top_similar(bank[:200], bank, 10)[0]
    recall = [np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, CoarseLists(bank, lists=50, probes=p).search(bank[:200], 10)[0], strict=True)]) for p in (1, 8, 50)]
    assert recall[0] < recall[1]
    assert recall[1] > 0.95
    assert recall[2] == 1.0


def test_too_many_virtual_neighbours_are_refused(task: ew.Task) -> None:
    linked = int((task.source.train.graph.degree > 0).sum())
    with pytest.raises(UserError, match=f"neighbours=5000 but only {linked} linked nodes remain"):
        ColdBrew(neighbours=5000, epochs=1).fit(task.source, QUIET)


def test_label_propagation_equals_the_loop() -> None:
    rng = np.random.default_rng(0)
    s = rng.random((6, 6))
    known = np.array([0, -1, 1, -1, -1, 2])
    start = np.zeros((6, 3))
    start[[0, 2, 5], [0, 1, 2]] = 1
    found = start
    for _ in range(7):
        found = np.clip(0.3 * s @ found + 0.7 * start, 0, 1)
    assert np.allclose(propagated(known, 3, s, 0.3, 7), found)


def test_contrast_equals_the_double_loop() -> None:
    rng = np.random.default_rng(0)
    z, g = rng.normal(size=(5, 3)), np.triu((rng.random((5, 5)) < 0.6).astype(float), 1)
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    told = []
    for i in range(5):
        e = {j: np.exp(unit[i] @ unit[j] / 0.5) for j in range(5) if j != i}
        near = sum(g[i, j] * e[j] for j in e)
        if near > 0:
            told.append(-np.log(near / sum(e.values())))
    assert neighbour_contrast(torch.from_numpy(z), torch.from_numpy(g), 0.5).item() == pytest.approx(np.mean(told), abs=1e-6)


@pytest.mark.parametrize(
    ("gnn", "mlp", "lp", "ratio"),
    [
        (86.96, 69.02, 78.18, 32.86),
        (72.44, 56.59, 45.00, 63.39),
        (75.96, 73.51, 67.8, 76.91),
        (71.54, 54.89, 68.26, 16.45),
        (68.51, 58.65, 41.01, 73.61),
        (31.95, 38.51, 22.85, 141.91),
        (59.79, 37.93, 29.69, 57.93),
        (61.08, 83.33, 52.08, 171.2),
    ],
)
def test_the_ratio_has_the_published_values(gnn: float, mlp: float, lp: float, ratio: float) -> None:
    assert feature_contribution_ratio(gnn, mlp, lp) == pytest.approx(ratio, abs=0.03)


def test_the_ratio_has_no_value_where_its_formula_has_none() -> None:
    with pytest.warns(UserWarning, match="beats the network"):
        assert np.isnan(feature_contribution_ratio(0.5, 0.4, 0.6))
    with pytest.warns(UserWarning, match="all score"):
        assert np.isnan(feature_contribution_ratio(0.5, 0.5, 0.5))


def test_degrees_are_classed_by_doubling() -> None:
    each = pd.DataFrame({"task": "t", "learner": "l", "seed": 0, "node": range(6), "links": [0, 1, 2, 3, 4, 5], "accuracy": 1.0})
    assert by_degree(each).links.tolist() == ["0", "1", "2", "3–4", "5–8"]
    assert by_degree(each).nodes.tolist() == [1, 1, 1, 2, 1]


# --- learners -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda m: type(m).__name__)
def test_every_learner_keeps_the_contract(learner: Any, task: ew.Task) -> None:
    assert check_learner(learner, task) == []


@pytest.mark.parametrize("learner", [ColdBrew(**QUICK, student_epochs=20), Glnn(**QUICK), Gcn(**QUICK)], ids=lambda m: type(m).__name__)
def test_links_of_isolated_nodes_change_nothing(learner: Any, graph: Graph) -> None:
    """Spec 06, section 10: whatever links the isolated nodes had, every prediction is the same to the bit."""
    alone = isolated_nodes(graph, seed=0).domain("isolated").load().ask
    rng = np.random.default_rng(5)
    kept = sp.triu(graph.without_links_of(alone).links, 1).tocoo()
    partner = rng.permutation(alone)
    pairs = np.concatenate([np.stack([kept.row, kept.col], 1), np.stack([alone, partner], 1)[alone != partner]])
    other = replace(graph, links=graph_of(pairs, nodes=len(graph)).links)
    answers = []
    for held in (graph, other):
        pruned = held.without_links_of(alone).without_labels()
        base = isolated_nodes(graph, seed=0)
        moved = {k: None if v is None else replace(v, graph=pruned) for k, v in (("train", base.source.train), ("validation", base.source.validation))}
        fitted = copy.deepcopy(learner).fit(replace(base.source, **moved), QUIET)
        answers.append([fitted.predict(replace(d.load(), graph=pruned).unlabelled(), QUIET).logits for d in base.domains])
    assert all((a == b).all() for a, b in zip(*answers, strict=True))


def test_the_bank_never_holds_a_node_without_links(task: ew.Task) -> None:
    brew = ColdBrew(**QUICK, student_epochs=5).fit(task.source, QUIET)
    assert not np.isin(task.domain("isolated").load().ask, brew.nodes_).any()
    nodes, weights = brew.virtual_neighbours(task.domain("isolated").load(), QUIET)
    assert nodes.shape == weights.shape == (len(task.domain("isolated").load()), 10)
    assert np.allclose(weights.sum(1), 1, atol=1e-5)
    assert np.isin(nodes, brew.nodes_).all()


def test_new_nodes_are_predicted_by_features_alone_and_in_any_form(task: ew.Task) -> None:
    brew = ColdBrew(**QUICK, student_epochs=5).fit(task.source, QUIET)
    x = task.source.train.graph.features[:7]
    made = [brew.predict(v, QUIET).logits for v in (x, sp.csr_array(x), ew.Examples(x))]
    assert np.allclose(made[0], made[1], atol=1e-5)
    assert np.allclose(made[0], made[2], atol=1e-5)
    with pytest.raises(UserError, match="the nodes have 3 features; this model was fitted on 64"):
        brew.predict(np.zeros((2, 3), np.float32), QUIET)


def test_the_teacher_serves_nodes_above_a_degree(task: ew.Task) -> None:
    brew = ColdBrew(**QUICK, student_epochs=5, graph_from_degree=3).fit(task.source, QUIET)
    data = task.domain("linked").load()
    many = data.column("degree") >= 3
    logits = brew.predict(data.unlabelled(), QUIET).logits
    teacher = brew.teacher_.predict(data.unlabelled(), QUIET).logits
    assert np.allclose(logits[many], teacher[many])
    assert not np.allclose(logits[~many], teacher[~many])
    chosen = ColdBrew(**QUICK, student_epochs=5, graph_from_degree="auto").fit(task.source, QUIET).degree_
    assert chosen in (1, 2, 3, 5, 10, 20, 50, 10**9)


def test_students_of_one_setting_share_their_teacher(task: ew.Task) -> None:
    made = [ColdBrew(**QUICK, student_epochs=2, neighbours=k).fit(task.source, ew.Run(11, progress=False)) for k in (1, 3)]
    assert made[0].teacher_ is made[1].teacher_


def test_structural_embeddings_belong_to_their_graph(task: ew.Task) -> None:
    fitted = StructuralGcn(epochs=2).fit(task.source, QUIET)
    with pytest.raises(UserError, match="belong to the 400 nodes"):
        fitted.predict(np.zeros((3, 64), np.float32), QUIET)


def test_numbers_are_learnt_too(graph: Graph) -> None:
    rng = np.random.default_rng(0)
    values = graph.features @ rng.normal(size=64) + 5
    task = isolated_nodes(replace(graph, labels=values.astype(float), classes=None), seed=0)
    data = task.domain("linked").load()
    for learner in (Gcn(epochs=100, unit_rows=False), ColdBrew(epochs=50, student_epochs=100, unit_rows=False)):
        made = learner.fit(task.source, QUIET).predict(data.unlabelled(), QUIET).mean
        assert np.square(made - data.labels).mean() < np.square(data.labels - data.labels.mean()).mean()


def test_a_class_without_training_nodes_is_named(graph: Graph) -> None:
    nodes = Nodes(graph, np.flatnonzero(graph.labels != 2), graph.labels, graph.classes)
    with pytest.raises(UserError, match="class 'class 2' is absent from the training nodes"):
        Gcn(epochs=1).fit(Source(nodes), QUIET)


@pytest.mark.slow
def test_features_without_signal_teach_no_student() -> None:
    task = isolated_nodes(homophily_graph(2000, feature_signal=0.0, seed=0), seed=0)
    assert accuracy(ColdBrew(), task, "isolated") == pytest.approx(0.25, abs=0.09)  # 200 nodes, four classes: three standard errors


@pytest.mark.slow
def test_links_without_homophily_do_not_help_the_teacher() -> None:
    gains = [accuracy(Gcn(), t, "linked") - accuracy(Mlp(), t, "linked") for seed in range(3) for t in [isolated_nodes(homophily_graph(2000, homophily=0.25, seed=seed), seed=seed)]]
    assert np.mean(gains) < 0.02


@pytest.mark.slow
def test_links_with_homophily_do_help_the_teacher_and_its_student() -> None:
    task = isolated_nodes(homophily_graph(2000, homophily=0.9, seed=0), seed=0)
    assert accuracy(Gcn(), task, "linked") > accuracy(Mlp(), task, "linked") + 0.1
    assert accuracy(ColdBrew(), task, "isolated") > accuracy(Mlp(), task, "isolated")


def test_rewiring_keeps_degrees_and_loses_homophily(graph: Graph) -> None:
    other = rewired(graph, 0)
    assert np.corrcoef(other.degree, graph.degree)[0, 1] > 0.98
    assert homophily(other.links, graph.labels) < 0.4 < homophily(graph.links, graph.labels)


# --- with the spine and with others' code ---------------------------------------------------------------------------


def test_a_sampled_part_with_every_neighbour_gives_the_seeds_what_the_whole_graph_gives(graph: Graph) -> None:
    network = GraphSage(epochs=1).fit(isolated_nodes(graph, 0.0).source, QUIET).network_.eval()
    whole = network(Features(graph.features), propagation(graph, "mean"))
    seeds = np.array([3, 17, 200, 5])
    nodes, links = sampled_part(graph, seeds, [1000, 1000], np.random.default_rng(0))
    made = network(Features(Features(graph.features).matrix[nodes], False), mean_of_neighbours(links))
    assert torch.allclose(made[:4], whole[torch.from_numpy(seeds)], atol=1e-5)


def test_neighbours_are_drawn_without_replacement_and_at_random(graph: Graph) -> None:
    rng = np.random.default_rng(0)
    rows, columns = sampled_neighbours(graph.links, np.arange(400), 3, rng)
    assert np.bincount(rows, minlength=400).tolist() == np.minimum(graph.degree, 3).tolist()
    assert len(set(zip(rows.tolist(), columns.tolist(), strict=True))) == len(rows)
    hub = int(graph.degree.argmax())
    drawn = np.concatenate([sampled_neighbours(graph.links, np.array([hub]), 3, rng)[1] for _ in range(2000)])
    share = np.bincount(drawn, minlength=400)[graph.links.indices[graph.links.indptr[hub] : graph.links.indptr[hub + 1]]] / 2000
    assert np.allclose(share, 3 / graph.degree[hub], atol=5 * np.sqrt(3 / graph.degree[hub] / 2000))


def test_a_network_over_the_graph_runs_on_an_encoders_features(task: ew.Task) -> None:
    fitted = Probe(Gcn(epochs=20), Sgc(epochs=20)).fit(task.source, QUIET)
    assert fitted.predict(task.domain("isolated").load().unlabelled(), QUIET).classes().shape == (len(task.domain("isolated").load()),)


def test_sparse_features_reach_plain_learners(graph: Graph) -> None:
    thin = replace(graph, features=sp.csr_array(np.where(graph.features > 1, 1.0, 0.0).astype(np.float32)))
    task = isolated_nodes(thin, seed=0)
    x = SparseRows(sp.csr_array(thin.features)[task.source.train.ask])
    rows = ew.Examples(x, task.source.train.labels, {}, thin.classes)
    fitted = LogisticRegression().fit(Source(rows), QUIET)
    dense = LogisticRegression().fit(Source(replace(rows, inputs=np.asarray(x))), QUIET)
    assert (fitted.predict(rows.unlabelled()).classes() == dense.predict(replace(rows, inputs=np.asarray(x)).unlabelled()).classes()).all()


def test_parts_work_in_somebody_elses_loop(graph: Graph) -> None:
    """The network is a plain module: a loop of one's own trains it."""
    from elsewhere.nn.building import build

    network = build("graph-convolutions", shape=[64], head=False, outputs=4, width=16, nodes=len(graph), structural="first")
    features, s, y = Features(graph.features), Sparse(normalised(graph.links), symmetric=True), torch.from_numpy(graph.labels)
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(40):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(features, s), y)
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.8


def test_a_graph_is_assayed_in_one_line(tmp_path: Path, graph: Graph, run: Any) -> None:
    np.savez(tmp_path / "mine.npz", x=graph.features, edge_index=np.stack(graph.links.nonzero()), y=graph.labels, class_names=np.array(graph.classes))
    code, out, err = run(
        "assay",
        tmp_path / "mine.npz",
        "--seeds",
        1,
        "--learner",
        "mlp:steps=50",
        "--learner",
        "label-propagation",
        "--learner",
        "gcn:epochs=20",
        "--learner",
        "cold-brew:epochs=20,student_epochs=20",
        "--out",
        tmp_path / "r",
    )
    assert code == 0, err
    assert "400 nodes with 64 features" in out
    assert "isolated" in out
    assert "ratio" in out
    page = (tmp_path / "r" / "report.html").read_text()
    assert "What carries the task" in page
    assert "Accuracy by number of links" in page


def test_a_graph_is_fitted_and_new_nodes_predicted(tmp_path: Path, graph: Graph, run: Any) -> None:
    frame = pd.DataFrame(graph.features, columns=[f"f{k}" for k in range(64)]).assign(id=np.arange(len(graph)), kind=[graph.classes[k] for k in graph.labels])
    frame.to_parquet(tmp_path / "nodes.parquet")
    pairs = np.stack(sp.triu(graph.links, 1).nonzero(), 1)
    pd.DataFrame(pairs, columns=["u", "v"]).to_parquet(tmp_path / "edges.parquet")
    code, _, err = run("fit", tmp_path / "nodes.parquet", "--edges", tmp_path / "edges.parquet", "--predict", "kind", "--learner", "cold-brew:epochs=10,student_epochs=10", "--out", tmp_path / "m")
    assert code == 0, err
    frame.head(5).drop(columns="kind").to_parquet(tmp_path / "new.parquet")
    code, _, err = run("predict", tmp_path / "m", tmp_path / "new.parquet", "--out", tmp_path / "p.csv")
    assert code == 0, err
    assert set(pd.read_csv(tmp_path / "p.csv").prediction) <= set(graph.classes)
    frame.head(5).drop(columns=["kind", "f3"]).to_parquet(tmp_path / "less.parquet")
    code, _, err = run("predict", tmp_path / "m", tmp_path / "less.parquet")
    assert code == 2
    assert "lacks 1 of the model's 64 input columns: f3" in err


def test_a_table_stays_a_table_until_its_edges_are_named(people: Path, run: Any) -> None:
    code, _, err = run("assay", people)
    assert code == 2
    assert "--predict" in err
    code, _, err = run("assay", people, "--edges", people.with_name("absent.csv"))
    assert code == 2
    assert "absent.csv" in err


def test_objects_of_other_libraries_are_assayed(tmp_path: Path, graph: Graph) -> None:
    data = pytest.importorskip("torch_geometric.data").Data(x=torch.from_numpy(graph.features), edge_index=torch.from_numpy(np.stack(graph.links.nonzero())), y=torch.from_numpy(graph.labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = ew.assay(data, learners=["gcn:epochs=5"], seeds=1, out=tmp_path / "r")
        again = ew.assay(graph, learners=["gcn:epochs=5"], seeds=1, out=tmp_path / "s")
    assert (result.trials().status == "done").all()
    assert np.allclose(sorted(result.scores().query("metric == 'accuracy'").value), sorted(again.scores().query("metric == 'accuracy'").value))


def test_every_task_of_a_graph_is_found_again_by_its_name() -> None:
    """A result that is opened later, and a worker in another process, make the task again."""
    from elsewhere import catalogue
    from elsewhere.identity import reference
    from elsewhere.task import resolve

    for name, entry in catalogue.entries("tasks").items():
        function = catalogue.get("tasks", name)
        assert function.name == name, entry.target
        assert resolve(reference(function.make)) is function, entry.target


def test_an_encoder_without_a_head_is_told_so_and_npz_files_hold_their_links(tmp_path: Path, graph: Graph, run: Any) -> None:
    np.savez(tmp_path / "g.npz", x=graph.features, edge_index=np.stack(graph.links.nonzero()), y=graph.labels)
    code, _, err = run("assay", tmp_path / "g.npz", "--edges", "x.csv")
    assert code == 2
    assert "holds its own links" in err
    result = ew.assay(str(tmp_path / "g.npz"), learners=["neighborhood-prediction:solver=ridge,clusters=8,encoder=features", "gcn:epochs=2"], seeds=1, out=tmp_path / "r")
    assert (result.trials().status == "done").all()
    rows = result.scores().query("metric == 'accuracy' and learner_name == 'neighborhood-prediction'")
    assert rows.value.isna().all()
    assert rows.reason.str.contains("put a head on it").all()


def test_sets_of_ogb_and_of_pyg_are_read_by_their_own_packages(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    from elsewhere.graphs.tasks import ogb, pyg

    held = {"edge_index": np.stack(sp.triu(graph.links, 1).nonzero()), "node_feat": graph.features, "num_nodes": len(graph)}
    labels = graph.labels.astype(float)[:, None].copy()
    labels[:3] = np.nan
    package, module = types.ModuleType("ogb"), types.ModuleType("ogb.nodeproppred")
    module.NodePropPredDataset = lambda name, root: [(held, labels)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ogb", package)
    monkeypatch.setitem(sys.modules, "ogb.nodeproppred", module)
    task = ogb(0, name="ogbn-mine", path="nowhere")
    assert not any(np.isin([0, 1, 2], d.load().ask).any() for d in task.domains)  # unknown labels are never judged
    assert (task.source.train.graph.links != graph.without_links_of(np.setdiff1d(np.arange(400), np.flatnonzero(task.source.train.graph.degree))).links).nnz == 0
    sets = pytest.importorskip("torch_geometric.datasets")
    data = pytest.importorskip("torch_geometric.data").Data(x=torch.from_numpy(graph.features), edge_index=torch.from_numpy(held["edge_index"]), y=torch.from_numpy(graph.labels))
    monkeypatch.setattr(sets, "Planetoid", lambda where, subset: [data])
    assert pyg(0, path="nowhere").domain("isolated").load().column("degree").max() == 0
    with pytest.raises(UserError, match="has no 'Planetoide'; did you mean 'Planetoid'"):
        pyg(0, name="Planetoide")


def test_named_graphs_are_made(data: Path) -> None:
    from elsewhere.graphs.tasks import chameleon, facebook_pages, neighbours, topics, twitch_users

    six = twitch_users(0, source="ENGB")
    assert [d.name for d in six.domains] == ["ENGB", "DE", "ES", "FR", "PTBR", "RU"]
    fitted = Gcn(epochs=2).fit(six.source, QUIET)
    assert fitted.predict(six.domain("PTBR").load().unlabelled(), QUIET).classes().shape == (1912,)
    repeated = chameleon(0)
    seen = repeated.source.train.column("unit")
    assert not np.isin(repeated.domain("linked").load().column("unit"), seen).any()
    cold = facebook_pages(0, cold="random", rewire=True)
    assert len(cold.domain("isolated").load()) >= 2200
    with pytest.raises(UserError, match="cold must be lowest-degree or random"):
        facebook_pages(0, cold="coldest")
    new = neighbours(0).domains[0].load()
    assert new.truth.shape == (len(new), 2708)
    assert new.unlabelled().truth is None
    assert not new.truth[:, new.ask].nnz
    assert topics(0, num_nodes=300, labels_per_class=2).source.train.classes is not None
