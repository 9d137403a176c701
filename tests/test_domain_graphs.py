"""Domains that form a graph: the graph, the loss and its limits, the steps, the rivals, and what a user gets wrong."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

import elsewhere as ew
from elsewhere.adapt.dann import Dann
from elsewhere.adapt.domain_graph import DomainGraph, GraphSource, fit_embedding, graph_for
from elsewhere.adapt.domains import DomainBatch, conditioned
from elsewhere.adapt.erm import Erm
from elsewhere.adapt.graph_relational import GraphRelational, PairDiscriminator, alignment_gap, link_logits, relation_loss
from elsewhere.adapt.graph_tasks import breadth_first, dg15, rotated_digits_chain, spiral_domains, spirals, tpt48
from elsewhere.adapt.linear_windows import LinearWindows
from elsewhere.adapt.rivals import Adda, Cdann, Mdd
from elsewhere.checks import check_learner
from elsewhere.data import Examples
from elsewhere.errors import UserError
from elsewhere.task import Source

QUIET = ew.Run(progress=False)
QUICK: dict[str, Any] = {"steps": 10}


@pytest.fixture(scope="module")
def task() -> ew.Task:
    return spirals(seed=0, num_domains=8, num_sources=3)


# --- the graph ------------------------------------------------------------------------------------------------------


def test_graphs_are_made_of_edges_coordinates_and_shapes() -> None:
    triangle = DomainGraph.from_edges("abc", [("a", "b"), ("b", "c"), ("c", "a")])
    assert triangle.complete_graph
    assert (triangle.adjacency == DomainGraph.complete("abc").adjacency).all()
    assert DomainGraph.grid(2, 3).adjacency.sum() == 14
    line = DomainGraph.from_coordinates("abcd", [[0, 0], [1, 0], [2.1, 0], [3.3, 0]], k=1)
    assert (line.adjacency == DomainGraph.chain("abcd").adjacency).all()
    assert DomainGraph.chain("abcd").hops(["a", "d"]).tolist() == [0, 1, 1, 0]
    assert DomainGraph.from_adjacency(np.zeros((2, 2))).hops(["0"]).tolist() == [0, -1]


@pytest.mark.parametrize(
    ("adjacency", "message"),
    [
        ([[0, 1], [0, 0]], "not symmetric: edge NV-CA is 1, CA-NV is 0"),
        ([[0, 1, 0], [1, 0, 0]], r"needs an adjacency \[2, 2\], not \[2, 3\]"),
        ([[0, 2], [2, 0]], r"lie in \[0, 1\], not 2"),
        ([[0, -1], [-1, 0]], r"lie in \[0, 1\], not -1"),
    ],
)
def test_what_is_no_graph_of_domains_is_refused(adjacency: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        DomainGraph.from_adjacency(adjacency, ["NV", "CA"])


def test_a_diagonal_is_dropped_and_said() -> None:
    with pytest.warns(UserWarning, match="link.* themselves"):
        assert DomainGraph.from_adjacency(np.ones((2, 2))).adjacency.tolist() == [[0, 1], [1, 0]]


def test_samples_are_domains_without_repeats_and_walks_follow_links() -> None:
    chain = DomainGraph.chain(30)
    rng = np.random.default_rng(0)
    drawn = [chain.sampled(6, rng) for _ in range(200)]
    assert all(len(set(s.tolist())) == 6 for s in drawn)
    linked = [(np.diff(s) == 1).sum() for s in drawn]
    assert np.mean(np.array(linked) >= 3) > 0.25  # walks: near half of the draws; uniform ones seldom have three links


def test_places_tell_links_and_do_not_depend_on_the_names_of_domains() -> None:
    graph = DomainGraph.from_coordinates(range(12), np.random.default_rng(0).random((12, 2)), k=3)
    start = 0.5 * np.random.default_rng(1).normal(size=(12, 2))
    order = np.random.default_rng(2).permutation(12)
    z, moved = fit_embedding(graph.adjacency, start), fit_embedding(graph.adjacency[np.ix_(order, order)], start[order])
    assert np.allclose(z[order], moved, atol=1e-3)
    scores = z @ z.T
    u, v = np.triu_indices(12, 1)
    linked = graph.adjacency[u, v] > 0
    assert scores[u, v][linked].mean() > scores[u, v][~linked].mean() + 1
    for method in ("graph", "laplacian"):
        made = graph.embedding(method=method)
        assert np.allclose(made.mean(0), 0, atol=1e-9)
        assert np.allclose(made.std(0), 1, atol=1e-6)


def test_a_new_domain_gets_a_place_among_those_it_is_linked_to() -> None:
    graph = DomainGraph.chain(10)
    z = graph.embedding(seed=0)
    new = graph.placed(["4", "5"], z)
    distance = np.linalg.norm(z - new, axis=1)
    assert distance[[4, 5]].mean() < distance[[0, 9]].mean()
    with pytest.raises(UserError, match="links must name domains of the graph"):
        graph.placed(["x"], z)


# --- the loss -------------------------------------------------------------------------------------------------------


def loop_loss(codes: torch.Tensor, adjacency: torch.Tensor, self_pairs: bool = False) -> torch.Tensor:
    """Spec 08, equation 2, pair by pair."""
    halves: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    n, b = codes.shape[:2]
    for u in range(n):
        for v in range(u + 1, n):
            logit = torch.stack([(codes[u, k] * codes[v, k]).sum() for k in range(b)])
            halves[bool(adjacency[u, v] > 0)].append(binary_cross_entropy_with_logits(logit, torch.full((b,), float(adjacency[u, v]))))
        if self_pairs:
            logit = torch.stack([(codes[u, k] * codes[u, (k - 1) % b]).sum() for k in range(b)])
            halves[False].append(binary_cross_entropy_with_logits(logit, torch.zeros(b)))
    if not halves[True] or not halves[False]:
        return n * torch.stack(halves[True] or halves[False]).mean()
    return n / 2 * sum(torch.stack(h).mean() for h in halves.values())


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("self_pairs", [False, True])
def test_the_loss_and_its_gradient_equal_the_loop_over_pairs(soft: bool, self_pairs: bool) -> None:
    torch.manual_seed(0)
    codes = torch.randn(7, 5, 3, requires_grad=True)
    a = np.triu((np.random.default_rng(0).random((7, 7)) < 0.4) * (np.random.default_rng(1).random((7, 7)) if soft else 1.0), 1)
    adjacency = torch.from_numpy((a + a.T).astype(np.float32))
    made, truth = relation_loss(codes, adjacency, self_pairs=self_pairs), loop_loss(codes, adjacency, self_pairs)
    assert made.item() == pytest.approx(truth.item(), rel=1e-6)
    gradients = [torch.autograd.grad(x, codes)[0] for x in (made, truth)]
    assert torch.allclose(*gradients, atol=1e-6)


def test_a_sample_without_links_counts_the_other_half_twice() -> None:
    codes = torch.randn(4, 3, 2)
    adjacency = torch.zeros(4, 4)
    adjacency[0, 1] = adjacency[1, 0] = 1
    sample = torch.tensor([1, 2, 3])
    inner = loop_loss(codes[sample], adjacency[sample][:, sample]) / 3 * 4  # N is that of all domains
    assert relation_loss(codes, adjacency, sample).item() == pytest.approx(inner.item(), rel=1e-6)


def test_nothing_told_is_log_two() -> None:
    adjacency = torch.from_numpy(DomainGraph.chain(6).adjacency)
    assert relation_loss(torch.zeros(6, 3, 2), adjacency).item() == pytest.approx(6 * np.log(2))


# --- theory: limits (spec 08, 2.6 and 6.5) ------------------------------------------------------------------------------


def encoded_by_an_unrestricted_opponent(adjacency: np.ndarray, codes: int, seed: int = 0) -> np.ndarray:
    """Maximise E[H(α(e)ᵀ A α(e'))], what the encoder gets against the best discriminator of any kind, over tables p(e | u)."""
    torch.manual_seed(seed)
    table = (2 * torch.randn(len(adjacency), codes)).requires_grad_()
    a = torch.from_numpy(adjacency).double()
    optimiser = torch.optim.Adam([table], 0.05)
    for _ in range(1500):
        joint = table.double().softmax(1) / len(a)
        mass = joint.sum(0)
        alpha = (joint / mass).T
        p = (alpha @ a @ alpha.T).clamp(1e-9, 1 - 1e-9)
        optimiser.zero_grad()
        (mass @ (p * p.log() + (1 - p) * (1 - p).log()) @ mass).backward()
        optimiser.step()
    return table.detach().softmax(1).numpy()


@pytest.mark.parametrize(
    ("edges", "said"),
    [
        ("a,b\n1,2\n2,3\n", ""),
        ("a,b,weight\n1,2,.5\n2,3,1\n", ""),
        ("a,b\n1,2\n2,\n", "names no domain at one end"),
        ("a,b\n01,02\n02,03\n", "edges name 01, 02, 03, which are no domains .* 1, 2, 3 have no edge"),
        ("a,b\n1,two\ntwo,three\n", "edges name two, three, .* and 2, 3 have no edge"),
        ("a,b\n1,2,.5\n2,3,.5\n", "rows have more fields than the header"),
        ("a,b,w\n1,2,much\n2,3,1\n", "its weight, a number, not 'much'"),
    ],
)
def test_no_edge_of_a_file_is_lost(tmp_path: Path, edges: str, said: str) -> None:
    path = tmp_path / "edges.csv"
    path.write_text(edges)
    source = Source(Examples(np.zeros((3, 1)), np.zeros(3, int), {"domain": np.array(list("123"))}, ("a", "b")))
    if said:
        with pytest.raises(UserError, match=said):
            graph_for(str(path), source, ["1", "2", "3"])
        return
    made = graph_for(str(path), source, ["1", "2", "3"])
    assert made.names == ("1", "2", "3")
    assert (made.adjacency > 0).sum() == 4


def test_a_number_read_as_a_float_is_the_same_domain() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [2.0, 3.0]})  # a column with a gap is read as floats
    assert DomainGraph.from_edges("123", frame).adjacency.sum() == 4


@pytest.mark.parametrize("shape", ["star", "chain", "clique"])
def test_against_an_unrestricted_discriminator_the_gap_closes(shape: str) -> None:
    star = DomainGraph.from_edges(range(5), [(0, k) for k in range(1, 5)])
    graph = {"star": star, "chain": DomainGraph.chain(3), "clique": DomainGraph.complete(4)}[shape]
    p = encoded_by_an_unrestricted_opponent(graph.adjacency, 4)
    assert alignment_gap(p, graph.adjacency) < 0.01
    if shape == "star":  # the centre is the mean of the leaves
        assert np.allclose(p[0], p[1:].mean(0), atol=0.05)
    if shape == "chain":  # the middle is the mean of the ends
        assert np.allclose(p[1], (p[0] + p[2]) / 2, atol=0.05)
    if shape == "clique":  # everybody is alike
        assert np.abs(p - p.mean(0)).max() < 0.05


def test_the_gap_is_never_negative_and_zero_where_all_are_alike() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        graph = DomainGraph.from_coordinates(range(6), rng.random((6, 2)), k=2)
        assert alignment_gap(rng.dirichlet(np.ones(4), 6), graph.adjacency) > -1e-12
        assert abs(alignment_gap(np.tile(rng.dirichlet(np.ones(4)), (6, 1)), graph.adjacency)) < 1e-12


def best_loss(signed: bool, conditional: np.ndarray) -> float:
    """Return the least loss per domain that a table discriminator reaches in a clique whose own pairs count as unlinked."""
    torch.manual_seed(0)
    n, codes = conditional.shape
    table = torch.randn(codes, 4, requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    signs = torch.tensor([1.0, 1.0, -1.0, -1.0]) if signed else None
    rng = np.random.default_rng(0)
    drawn = torch.from_numpy(np.stack([rng.choice(codes, 400, p=row) for row in conditional]))
    adjacency = torch.from_numpy(DomainGraph.complete(n).adjacency)
    optimiser = torch.optim.Adam([table, bias], 0.05)
    for _ in range(300):
        loss = relation_loss(table[drawn], adjacency, signs=signs, bias=bias if signed else None, self_pairs=True)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return loss.item() / n


def test_in_a_clique_a_dot_product_tells_nothing_and_the_signed_form_does() -> None:
    apart = np.eye(4)
    assert best_loss(False, apart) > np.log(2) - 0.01  # no gradient for the encoder: nothing is aligned
    assert best_loss(True, apart) < 0.5 * np.log(2)
    assert best_loss(True, np.full((4, 4), 0.25)) > np.log(2) - 0.05  # and once all are alike it tells nothing


# --- the steps ------------------------------------------------------------------------------------------------------


def steps_of(learner: Any, task: ew.Task) -> tuple[Any, Any]:
    fitted = copy.deepcopy(learner)
    fitted.fit(task.source, QUIET)
    draw, _ = fitted.draw(task.source, QUIET)
    return fitted, draw(3)


def test_the_discriminators_update_is_the_gradient_of_its_own_loss_alone(task: ew.Task) -> None:
    """The public reference steps it by (1 - λ) of that: at λ = 1 not at all (spec 08, 2.5)."""
    from elsewhere.adapt.adversaries import Adversaries
    from elsewhere.adapt.domains import features_by_domain

    fitted, batch = steps_of(GraphRelational(**QUICK, weight=1.0, sample=None), task)

    def sgd(parameters: Any) -> Any:
        return torch.optim.SGD(parameters, 0.1)

    stepper = Adversaries(fitted, fitted.network_, fitted.adversary, sgd, sgd)
    stepper.schedule = stepper.falling = None
    before = [p.detach().clone() for p in fitted.adversary.parameters()]
    _, features = features_by_domain(fitted.network_, batch)
    told = fitted.told(fitted.adversary, None, [f.detach() for f in features], batch)
    gradients = torch.autograd.grad(told, list(fitted.adversary.parameters()))
    for _ in range(2):  # the second step would show what is left over of the first
        weights = [p.detach().clone() for p in fitted.network_.parameters()]
        stepper.step(batch, lambda loss: loss.backward())
        if _ == 0:
            assert all(torch.allclose(p, b - 0.1 * g, atol=1e-6) for p, b, g in zip(fitted.adversary.parameters(), before, gradients, strict=True))
            assert any(not torch.equal(p, w) for p, w in zip(fitted.network_.parameters(), weights, strict=True))
            before = [p.detach().clone() for p in fitted.adversary.parameters()]
            _, features = features_by_domain(fitted.network_, batch)
            gradients = torch.autograd.grad(fitted.told(fitted.adversary, None, [f.detach() for f in features], batch), list(fitted.adversary.parameters()))
    assert all(torch.allclose(p, b - 0.1 * g, atol=1e-6) for p, b, g in zip(fitted.adversary.parameters(), before, gradients, strict=True))


def test_the_network_gets_no_gradient_of_the_discriminators_step(task: ew.Task) -> None:
    fitted, batch = steps_of(GraphRelational(**QUICK, sample=None), task)
    fitted.network_.requires_grad_(True)
    from elsewhere.adapt.domains import features_by_domain

    _, features = features_by_domain(fitted.network_, batch)
    fitted.told(fitted.adversary, None, [f.detach() for f in features], batch).backward()
    assert all(p.grad is None for p in fitted.network_.parameters())


def test_without_weight_it_is_source_only_to_the_bit(task: ew.Task) -> None:
    same = {"conditioning": "graph", "width": 64, "batch": 10, "learning_rate": 3e-4, "schedule": "halving"}
    plain = Erm(**QUICK, **same).fit(replace(task.source, unlabelled={}), QUIET)
    bare = GraphRelational(**QUICK, weight=0.0).fit(task.source, QUIET)
    data = task.domains[-1].load().unlabelled()
    assert (plain.predict(data).logits == bare.predict(data).logits).all()


def test_domains_are_told_in_training_and_asked_for_in_prediction(task: ew.Task) -> None:
    fitted = GraphRelational(**QUICK).fit(task.source, QUIET)
    data = task.domains[-1].load().unlabelled()
    nameless = replace(data, columns={})
    with pytest.raises(UserError, match="told the domain of every row"):
        fitted.predict(nameless)
    assert (fitted.predict(nameless, domain=task.domains[-1].name).logits == fitted.predict(data).logits).all()
    with pytest.raises(UserError, match="domain 'Mars' is not in the domain graph; say predict"):
        fitted.predict(nameless, domain="Mars")
    assert fitted.predict(nameless, links=["0", "1"]).classes().shape == (len(data),)
    other = fitted.predict(nameless, domain="0").logits
    assert not np.allclose(other, fitted.predict(data).logits)


@pytest.mark.parametrize("name", ["graph", "laplacian", "positions"])
def test_places_may_come_from_links_eigenvectors_or_coordinates(name: str, task: ew.Task) -> None:
    assert GraphRelational(**QUICK, conditioning=name).fit(task.source, QUIET).z_.shape == (8, 2)


def test_pictures_carry_their_domain_as_channels() -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 8), dtype=np.uint8)
    made = conditioned(pictures, np.arange(12.0).reshape(6, 2))
    assert made.shape == (6, 3, 8, 8)
    part = made[np.array([2, 4])]
    assert (part[1, 1:] == np.array([8.0, 9.0])[:, None, None]).all()
    assert part[:, 0].max() <= 1


def test_pictures_and_tables_of_any_room_are_adapted_along_a_graph(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images, y = rng.integers(0, 256, (120, 1, 12, 12), dtype=np.uint8), np.arange(120) % 2
    place = np.repeat(["2019", "2020", "2021"], 40)
    whole = Examples(images, y, {"domain": place}, ("a", "b"))
    parts = {n: whole.take(place == n) for n in ("2019", "2020", "2021")}
    source = Source(parts["2019"], None, {n: parts[n].unlabelled() for n in ("2020", "2021")})
    fitted = GraphRelational(**QUICK, graph="chain", sample=None).fit(source, QUIET)
    assert fitted.predict(parts["2021"].unlabelled()).classes().shape == (40,)
    assert (fitted.adjacency_ == DomainGraph.chain(3).adjacency).all()
    (tmp_path / "edges.csv").write_text("a,b\n2019,2021\n2021,2020\n")
    told = GraphRelational(**QUICK, graph=str(tmp_path / "edges.csv"), sample=None).fit(source, QUIET)
    assert told.adjacency_.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    fitted.save(tmp_path / "m")
    again = GraphRelational.load(tmp_path / "m")
    assert (again.predict(parts["2020"].unlabelled()).logits == fitted.predict(parts["2020"].unlabelled()).logits).all()


LEARNERS = [
    GraphRelational(**QUICK),
    GraphRelational(**QUICK, signed=True, self_pairs="unlinked", sample=None),
    Dann(**QUICK, unlabelled=True, conditioning="graph"),
    Cdann(**QUICK, conditioning="graph"),
    Adda(**QUICK),
    Mdd(**QUICK, conditioning="laplacian"),
    Erm(**QUICK, conditioning="graph"),
]


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda m: type(m).__name__)
def test_every_learner_keeps_the_contract(learner: Any, task: ew.Task) -> None:
    assert check_learner(learner, task) == []
    assert learner.sees_unlabelled == (not isinstance(learner, Erm))


@pytest.mark.parametrize("learner", [GraphRelational(**QUICK), Cdann(**QUICK, conditioning="graph"), Adda(**QUICK), Mdd(**QUICK)], ids=lambda m: type(m).__name__)
def test_several_numbers_are_learnt_too(learner: Any) -> None:
    rng = np.random.default_rng(0)
    graph = DomainGraph.chain(4)
    x = rng.normal(size=(80, 3)).astype(np.float32)
    whole = Examples(x, (x @ rng.normal(size=(3, 2))).astype(np.float32), {"domain": np.repeat([str(k) for k in range(4)], 20)})
    here = np.isin(whole.columns["domain"], ["0", "1"])
    there = {n: whole.take(whole.columns["domain"] == n).unlabelled() for n in ("2", "3")}
    fitted = learner.fit(GraphSource(whole.take(here), None, there, graph=graph), QUIET)
    assert fitted.predict(there["3"]).mean.shape == (20, 2)


def rival_losses() -> tuple[Any, Any, list[torch.Tensor], DomainBatch]:
    torch.manual_seed(0)
    features = [torch.randn(5, 4) for _ in range(3)]
    batch = DomainBatch(torch.empty(10, 4), torch.zeros(10, dtype=torch.long), None, torch.arange(2).repeat_interleave(5))
    head = torch.nn.Linear(4, 2)
    network = type("N", (), {"head": staticmethod(head)})()
    return network, head, features, batch


def test_adda_tells_sources_from_the_others_and_the_network_takes_their_side() -> None:
    _, _, features, batch = rival_losses()
    learner = Adda(weight=0.7)
    learner.domains_ = 3
    opponent = learner.opponent(4)
    d = [opponent(f).logits[:, 0].sigmoid() for f in features]
    told = -torch.log(torch.cat(d[:2])).mean() - torch.log(1 - d[2]).mean()
    assert learner.told(opponent, None, features, batch).item() == pytest.approx(told.item(), rel=1e-5)
    assert learner.against(opponent, None, features, batch).item() == pytest.approx(-0.7 * torch.log(d[2]).mean().item(), rel=1e-5)


def test_mdd_agrees_at_home_and_disagrees_elsewhere() -> None:
    network, head, features, batch = rival_losses()
    learner = Mdd()
    learner.domains_, learner.classes_, learner.network_, learner.label_mean_ = 3, 2, network, 0.0
    opponent = learner.opponent(4)

    def p(x: torch.Tensor) -> torch.Tensor:
        return opponent(x).logits.softmax(1).gather(1, head(x).argmax(1)[:, None])[:, 0]

    here = torch.cat(features[:2])
    truth = (-torch.log(p(here)).mean() - torch.log(1 - p(features[2])).mean()) / 2
    assert learner.told(opponent, None, features, batch).item() == pytest.approx(truth.item(), rel=1e-5)


def test_cdann_sees_the_classes_that_are_predicted() -> None:
    network, head, features, batch = rival_losses()
    learner = Cdann()
    learner.domains_, learner.classes_, learner.network_, learner.label_mean_ = 3, 2, network, 0.0
    opponent = learner.opponent(4)
    before = learner.told(opponent, None, features, batch)
    with torch.no_grad():
        head.bias += torch.tensor([3.0, -3.0])
    assert learner.told(opponent, None, features, batch).item() != pytest.approx(before.item(), rel=1e-6)
    learner.told(opponent, None, features, batch).backward()
    assert head.weight.grad is None  # the scores are fixed


# --- bad input (spec 08, section 10) --------------------------------------------------------------------------------


def bare(names: str = "abc", unlabelled: tuple[str, ...] = ("d",)) -> Source:
    x = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    data = Examples(x, np.arange(30) % 2, {"domain": np.repeat(list(names), 30 // len(names))}, ("no", "yes"))
    return Source(data, None, {n: Examples(x, None, {"domain": np.repeat(n, 30)}) for n in unlabelled})


@pytest.mark.parametrize(
    ("learner", "source", "message"),
    [
        (GraphRelational(graph="chain"), bare(unlabelled=()), "needs unlabelled data"),
        (GraphRelational(), bare(), "no graph of the domains"),
        (GraphRelational(graph="complete"), bare(), "signed=true and self_pairs=unlinked"),
        (GraphRelational(graph=DomainGraph.from_adjacency(np.zeros((4, 4)), "abcd")), bare(), "no linked pair; use erm"),
        (GraphRelational(graph=DomainGraph.chain("abc")), bare(), "domains d of the data are not in the domain graph, whose domains are a, b, c"),
        (GraphRelational(graph="absent.csv"), bare(), "cannot read absent.csv"),
        (GraphRelational(graph="chain", pairing="sorted"), bare(), "pairing must be independent or same-rows"),
        (GraphRelational(graph="chain", conditioning="names"), bare(), "conditioning must be graph, laplacian, positions or none"),
        (Adda(), bare(unlabelled=()), "needs unlabelled data"),
    ],
)
def test_what_cannot_be_adapted_is_refused_in_one_line(learner: Any, source: Source, message: str) -> None:
    with pytest.raises(UserError, match=message):
        learner.fit(source, QUIET)


def test_a_class_that_no_source_has_is_named() -> None:
    source = bare()
    short = replace(source, train=replace(source.train, classes=("no", "yes", "maybe")))
    with pytest.raises(UserError, match="class 'maybe' is missing in all sources"):
        GraphRelational(graph="chain").fit(short, QUIET)


def test_domains_that_nothing_ties_to_labels_are_named() -> None:
    graph = DomainGraph.from_edges("abcd", [("a", "b"), ("b", "c")])
    with pytest.warns(UserWarning, match="no link leads from a source to d"):
        GraphRelational(**QUICK, graph=graph).fit(bare(), QUIET)


def test_a_domain_without_examples_only_shapes_the_places() -> None:
    fitted = GraphRelational(**QUICK, graph=DomainGraph.chain("abcde")).fit(bare(), QUIET)
    assert fitted.z_.shape == (5, 2)
    assert fitted.adjacency_.shape == (4, 4)


def test_one_source_is_enough_and_small_domains_are_drawn_again() -> None:
    source = bare("a", ("b", "c"))
    small = replace(source, unlabelled={"b": source.unlabelled["b"].take(np.arange(3)), "c": source.unlabelled["c"]})
    assert GraphRelational(**QUICK, graph="chain").fit(small, QUIET).adjacency_.shape == (3, 3)


def test_a_discriminator_that_does_not_move_is_said() -> None:
    with pytest.warns(UserWarning, match="has not moved"):
        GraphRelational(steps=100, graph="chain", discriminator_rate=0.0, learning_rate=0.0).fit(bare(), QUIET)


def test_a_signed_discriminator_needs_an_even_number() -> None:
    with pytest.raises(UserError, match="even number"):
        PairDiscriminator(torch.nn.Identity(), 3, True)
    codes = torch.randn(3, 2, 2)
    signed = link_logits(codes, torch.tensor([1.0, -1.0]), torch.tensor(0.5))
    assert signed[0, 1, 1].item() == pytest.approx((codes[0, 1, 0] * codes[1, 1, 0] - codes[0, 1, 1] * codes[1, 1, 1] + 0.5).item(), abs=1e-6)


# --- tasks ----------------------------------------------------------------------------------------------------------


def test_spirals_turn_their_classes_around() -> None:
    x, y, place, graph, angle = spiral_domains(40, 2 * np.pi, 0.5, seed=0)
    assert (graph.hops(["0"]) >= 0).all()
    centre = np.stack([x[(place == k) & (y == 0)].mean(0) for k in range(40)])
    assert np.cos(np.arctan2(centre[:, 1], centre[:, 0]) - angle).min() > 0.95
    cosine = np.cos(angle[:, None] - angle[None])
    assert cosine[graph.adjacency > 0].min() >= 0.2
    assert breadth_first(DomainGraph.chain(6), 2, 4) == [2, 1, 3, 0]


def test_dg15_is_the_published_file(data: Path) -> None:
    task = dg15(home_share=0.0)
    assert (len(task.source.train), len(task.domains)) == (600, 9)
    assert task.source.graph.adjacency.sum() == 112
    assert task.source.transductive
    assert not (dg15(permuted=1).source.graph.adjacency == task.source.graph.adjacency).all()
    ceiling = dg15(ceiling=True)
    assert not ceiling.source.unlabelled
    assert len(np.unique(ceiling.source.train.column("domain"))) == 15


def test_dg15_lists_the_classes_of_every_domain_in_one_order(data: Path) -> None:
    """Why pairing the same rows of all domains tells labels: the finding of docs/systems/graph-relational-adaptation.md."""
    with np.load(data / "domain-graphs" / "dg15.npz") as file:
        orders = [file["y"][file["domain"] == k].tolist() for k in range(15)]
    assert all(order == orders[0] for order in orders)


@pytest.mark.parametrize(("direction", "every", "january", "levels"), [("east-to-west", 0.79, 0.28, [8, 7, 9]), ("north-to-south", 3.66, 0.23, [10, 6, 8])])
def test_temperatures_have_the_published_protocol_and_linear_rows(data: Path, direction: str, every: float, january: float, levels: list[int]) -> None:
    task = tpt48(direction=direction)
    assert len(task.source.train) == 24 * 133
    assert [len(d.load()) for d in task.domains] == [12] * 24
    assert np.bincount([d.about["hops"] for d in task.domains])[1:].tolist() == levels
    for learner, truth in ((LinearWindows(), every), (LinearWindows(january=True), january)):
        fitted = learner.fit(task.source)
        found = np.mean([task.metrics[0].fn(fitted.predict(d.load().unlabelled()), d.load()).mean() for d in task.domains])
        assert found == pytest.approx(truth, abs=0.01)


def test_digits_turn_along_a_chain() -> None:
    task = rotated_digits_chain(num_domains=4)
    assert [d.about["hops"] for d in task.domains if d.role != "home"] == [1, 2]
    with pytest.raises(UserError, match="num_sources must lie between"):
        rotated_digits_chain(num_domains=2, num_sources=2)


@pytest.mark.slow
def test_the_graph_carries_labels_further_than_a_blind_alignment(data: Path) -> None:
    task = dg15(home_share=0.0)

    def accuracy(learner: Any) -> float:
        fitted = learner.fit(task.source, QUIET)
        return float(np.mean([(fitted.predict(d.load().unlabelled()).classes() == d.load().labels).mean() for d in task.domains]))

    same = {"conditioning": "graph", "width": 64, "batch": 10, "learning_rate": 3e-4, "schedule": "halving", "steps": 2000}
    assert accuracy(GraphRelational()) > accuracy(Erm(**same)) + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("shuffled", [False, True])
def test_pairing_the_same_rows_tells_labels_where_a_file_is_sorted_and_only_there(data: Path, shuffled: bool) -> None:
    task = dg15(home_share=0.0)
    source = task.source
    if shuffled:
        rng = np.random.default_rng(0)
        place = source.train.column("domain")
        rows = np.concatenate([rng.permutation(np.flatnonzero(place == d)) for d in np.unique(place)])
        source = replace(source, train=source.train.take(rows), unlabelled={n: d.take(rng.permutation(len(d))) for n, d in source.unlabelled.items()})
    fitted = GraphRelational(pairing="same-rows").fit(source, QUIET)
    accuracy = np.mean([(fitted.predict(d.load().unlabelled()).classes() == d.load().labels).mean() for d in task.domains])
    assert (accuracy > 0.95) is not shuffled
    assert shuffled is False or accuracy < 0.85


def test_a_graph_of_domains_is_assayed_and_mapped(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = ew.assay("domain-graph/spirals", learners=["erm:steps=20", "graph-relational:steps=20"], seeds=2, out=tmp_path / "r", num_domains=8, num_sources=3)
    assert result.trials().set_index("learner").sees_unlabelled.groupby(level=0).first().to_dict() == {"erm:steps=20": False, "graph-relational:steps=20": True}
    finding = result.explain("domain-graph")
    assert len(finding.figures) == 2
    assert "hop" in finding.sentence
    assert "ringed" in result.report().read_text()


def test_a_result_without_a_home_domain_is_told_too(tmp_path: Path) -> None:
    result = ew.assay("domain-graph/spirals", learners=["prior", "erm:steps=5", "erm:steps=6"], seeds=1, out=tmp_path / "r", num_domains=8, num_sources=3, home_share=0.0)
    assert result.summary()
    assert result.report().exists()
