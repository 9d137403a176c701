"""Causal representation: the linear method against twins and limits, models, metrics, worlds, data."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

import elsewhere as ew
from elsewhere.causal import Environments, Interventions, LinearInterventional, intervention_prediction_error, linear, worlds
from elsewhere.causal import metrics as m
from elsewhere.causal import scenes as s
from elsewhere.causal.baselines import AdditiveInterventions, NearestIntervention, NoChange, PrincipalComponents, additive
from elsewhere.causal.data import Actions, Pairs, Transitions, Views
from elsewhere.causal.loading import light_tunnel
from elsewhere.causal.model import CausalModel, LinearCodec, Mechanisms
from elsewhere.causal.moments import Moments
from elsewhere.causal.questions import Gaussian
from elsewhere.causal.tasks import broken, light_tunnel_task, linear_task, unseen_pairs
from elsewhere.data import Examples
from elsewhere.errors import NotOffered, Undefined, UserError
from elsewhere.task import Source


def world_scores(n: int = 4, d: int = 7, size: int = 3000, seed: int = 0, shifts: bool = True) -> tuple[worlds.InterventionalWorld, Environments, linear.Scores]:
    world = worlds.linear_gaussian_world(n, d, seed=seed, shifts=shifts)
    data = world.environments(size, np.random.default_rng(seed))
    return world, data, linear.scores(Moments.of(data.inputs, data.environment, n + 1), n)


def exact_moments(world: worlds.InterventionalWorld, count: int = 10**9) -> Moments:
    """The moments of a world in population: what infinitely many observations have."""
    each = [world.observed(())] + [world.observed([t]) for t in world.targets]
    return Moments(np.full(len(each), count), np.stack([g.mean for g in each]), np.stack([g.covariance for g in each]))


# --- the linear method ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_from_exact_moments_encoder_graph_and_weights_are_exact(seed: int) -> None:
    world = worlds.linear_gaussian_world(5, 8, seed=seed, shifts=seed % 2 == 0)
    found = linear.solve(linear.scores(exact_moments(world), 5))
    effect = found.encoder @ world.matrix  # learnt latents from true ones: a scaled permutation
    at = np.argsort(world.targets)
    assert np.abs(effect[at] - np.diag(np.diag(effect[at]))).max() < 1e-4
    spread = np.sqrt(np.diag(world.moments(()).covariance))
    partial = np.abs(world.weights * spread[:, None] / spread)
    strong = partial > 0.25  # weaker edges may lie below the least partial correlation that is kept
    learnt = found.mechanisms.weights[np.ix_(at, at)]
    assert ((np.abs(learnt) > 0) >= strong).all()
    assert not (learnt != 0)[~world.graph].any()


def test_one_latent_and_one_edge_are_closed_forms() -> None:
    world = worlds.linear_gaussian_world(2, 2, density=1.0, seed=3, shifts=True)
    found = linear.solve(linear.scores(exact_moments(world), 2))
    child = int(np.flatnonzero(np.asarray(world.targets) == 1)[0])
    parent = 1 - child
    spread = np.sqrt(np.diag(world.moments(()).covariance))
    wanted = abs(world.weights[0, 1]) * spread[0] / spread[1]
    assert abs(found.mechanisms.weights[parent, child]) == pytest.approx(wanted, rel=1e-4)
    assert found.mechanisms.weights[child, parent] == 0


def negative_log_likelihood(score: linear.Scores, e: np.ndarray, order: list[int]) -> float:
    """The formula of the specification, written out (spec 05, A.6): the naive twin."""
    n = len(e)
    unmixed = np.zeros_like(e)
    c = np.einsum("ia,kab,jb->kij", e, score.covariance, e)
    for at, k in enumerate(order):
        p = order[:at]
        u = np.linalg.solve(c[k + 1][np.ix_(p, p)], c[k + 1][p, k]) if p else np.empty(0)
        unmixed[k] = e[k] - u @ e[p]
    z = np.einsum("ia,kab,jb->kij", unmixed, score.covariance, unmixed)
    step = score.shift @ unmixed.T
    b, v = np.zeros((n, n)), np.zeros(n)
    for at, k in enumerate(order):
        p = order[:at]
        w = np.linalg.solve(z[0][np.ix_(p, p)], z[0][p, k]) if p else np.empty(0)
        v[k] = z[0][k, k] - (w @ z[0][p, k] if p else 0)
        b[k, k], b[k, p] = 1, -w
        b[k] /= np.sqrt(v[k])
    total = score.count[0] * (0.5 * np.trace(b @ z[0] @ b.T) + 0.5 * np.log(v).sum())
    for env in range(1, n + 1):
        own, rest = env - 1, [k for k in range(n) if k != env - 1]
        second = z[env] + np.outer(step[env], step[env])
        total += score.count[env] * (sum(0.5 * b[k] @ second @ b[k] for k in rest) + 0.5 + 0.5 * np.log(v[rest]).sum() + 0.5 * np.log(z[env][own, own]))
    return float(total)


@pytest.mark.parametrize("seed", range(3))
def test_likelihood_of_an_order_is_the_written_out_formula(seed: int) -> None:
    _, _, score = world_scores(seed=seed)
    e = linear.encoder_rows(score.differences)
    ours = linear.OrderLikelihood(score, e)
    orders = [list(o) for o in permutations(range(4))]
    differences = [ours.of(o) - negative_log_likelihood(score, e, o) for o in orders]
    assert np.ptp(differences) < 1e-6 * abs(ours.of(orders[0]))


@pytest.mark.parametrize("seed", range(6))
def test_best_move_is_the_best_of_all_places(seed: int) -> None:
    _, _, score = world_scores(5, 8, 500, seed)
    ours = linear.OrderLikelihood(score, linear.encoder_rows(score.differences))
    order = [int(k) for k in np.random.default_rng(seed).permutation(5)]
    for node in range(5):
        rest = [k for k in order if k != node]
        places = [ours.of([*rest[:at], node, *rest[at:]]) for at in range(5)]
        gain, moved = ours.best_move(order, node)
        assert ours.of(order) + gain == pytest.approx(min(places), rel=1e-10)
        assert ours.of(moved) == pytest.approx(min(places), rel=1e-10)


def test_search_finds_the_best_of_all_orders_where_there_are_few() -> None:
    hits = 0
    for seed in range(8):
        _, _, score = world_scores(4, 6, 500, seed)
        e = linear.encoder_rows(score.differences)
        ours = linear.OrderLikelihood(score, e)
        best = min(ours.of(list(o)) for o in permutations(range(4)))
        start = linear.start_order(linear.score_evidence(score, e) + linear.change_evidence(score, e))
        hits += ours.of(linear.likelihood_search(ours, start)) <= best + 1e-6 * abs(best)
    assert hits >= 7


def test_numbering_of_environments_only_renames_latents() -> None:
    world, data, _ = world_scores(4, 7, 3000, 1)
    turn = np.array([0, 3, 1, 4, 2])  # old environment -> new one
    other = replace(data, environment=turn[data.environment])
    a, b = (LinearInterventional().fit(Source(d)) for d in (data, other))
    place = turn[1:] - 1
    assert np.allclose(a.model.codec.encoder, b.model.codec.encoder[place], atol=1e-8)
    assert np.allclose(a.mechanisms.weights, b.mechanisms.weights[np.ix_(place, place)], atol=1e-8)
    assert world.n == 4


@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100))
@settings(max_examples=10)
def test_turning_moving_and_scaling_x_changes_no_latent(seed: int, scale: float) -> None:
    _, data, _ = world_scores(3, 5, 2000, 2)
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    moved = replace(data, inputs=scale * data.inputs @ turn.T + rng.normal(size=5))
    z, w = (LinearInterventional().fit(Source(d)).encode(d.inputs) for d in (data, moved))
    assert np.allclose(np.abs(z), np.abs(w), atol=1e-5)


def test_moments_of_parts_add_up_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, e = rng.normal(size=(101, 3)) + 5, rng.integers(0, 2, 101)
    whole = Moments.of(x, e, 2)
    assert np.allclose(whole.mean[1], x[e == 1].mean(0))
    assert np.allclose(whole.covariance[1], np.cov(x[e == 1].T, bias=True))
    monkeypatch.setattr("elsewhere.causal.moments.BLOCK", 7)
    assert np.allclose(Moments.of(x, e, 2).covariance, whole.covariance)


def test_score_and_change_tests_keep_their_level_where_nothing_precedes() -> None:
    hits, asked = 0, 0
    for seed in range(20):
        world = worlds.linear_gaussian_world(4, 6, density=0.0, seed=seed)
        data = world.environments(2000, np.random.default_rng(seed))
        score = linear.scores(Moments.of(data.inputs, data.environment, 5), 4)
        e = linear.encoder_rows(score.differences)
        for evidence in (linear.score_evidence(score, e), linear.change_evidence(score, e)):
            hits, asked = hits + int((evidence > 0).sum()), asked + 1
    assert hits <= 2  # 40 families at a level of .001 each, inflated


def test_soft_interventions_leave_ancestors_alone() -> None:
    world = worlds.linear_gaussian_world(4, 6, seed=4, soft=True, density=0.7)
    found = linear.solve(linear.scores(exact_moments(world), 4), hard=False)
    at = np.argsort(world.targets)
    learnt = found.mechanisms.graph[np.ix_(at, at)]
    assert not (learnt & ~m.closure(world.graph)).any()
    effect = found.encoder @ world.matrix
    upstream = m.closure(world.graph) | np.eye(4, dtype=bool)
    assert np.abs(effect[at][~upstream.T]).max() < 1e-5 * np.abs(effect).max()


def test_soft_models_sample_what_is_observed_where_nothing_is_done() -> None:
    world = worlds.linear_gaussian_world(3, 5, seed=4, soft=True, density=1.0)
    data = world.environments(20_000, np.random.default_rng(0))
    model = LinearInterventional(interventions="soft").fit(Source(data))
    told, seen = model.model.moments().covariance, Gaussian.of(data.of(0)).covariance
    assert np.abs(told - seen).max() < 0.1 * np.abs(seen).max()


def test_mean_shifts_help_and_the_reference_rule_is_worse() -> None:
    def mcc(**options: object) -> float:
        found = []
        for seed in range(6):
            world = worlds.linear_gaussian_world(5, 10, seed=seed, shifts="shifts" in options)
            data = world.environments(1000, np.random.default_rng(seed))
            z = world.draw((), 2000, np.random.default_rng(9))
            found.append(m.mean_correlation(z, LinearInterventional(**options).fit(Source(data)).encode(world.mix(z))))  # type: ignore[arg-type]
        return float(np.mean(found))

    assert mcc(shifts=True) > mcc(shifts=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert mcc() > mcc(rule="reference") + 0.05


def test_scores_by_a_network_find_latents_that_are_normal_too() -> None:
    world = worlds.linear_gaussian_world(3, 3, seed=0, shifts=True)
    data = world.environments(1500, np.random.default_rng(0))
    model = LinearInterventional(scores="network").fit(Source(data))
    z = world.draw((), 2000, np.random.default_rng(1))
    assert m.mean_correlation(z, model.encode(world.mix(z))) > 0.9


@pytest.mark.parametrize("kind", ["pairs", "tanh"])
def test_the_check_speaks_where_an_assumption_is_broken(kind: str) -> None:
    world = worlds.linear_gaussian_world(5, 10, seed=1)
    data, _ = broken(world, 10_000, 1, kind)
    with pytest.warns(UserWarning, match="doubtful"):
        model = LinearInterventional().fit(Source(data))
    assert model.report().state.iloc[0] == "failed"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fine = LinearInterventional().fit(Source(broken(world, 10_000, 1)[0]))
    assert fine.report().state.iloc[0] == "checked"


def test_more_columns_than_rows_are_shrunk_with_a_warning() -> None:
    world = worlds.linear_gaussian_world(3, 400, seed=0, shifts=True)
    data = world.environments(60, np.random.default_rng(0))
    with pytest.warns(UserWarning, match="shrunk"):
        model = LinearInterventional().fit(Source(data))
    z = world.draw((), 500, np.random.default_rng(1))
    assert m.mean_correlation(z, model.encode(world.mix(z))) > 0.7


def test_pictures_of_sensors_are_flattened() -> None:
    world = worlds.linear_gaussian_world(2, 12, seed=0, shifts=True)
    data = world.environments(500, np.random.default_rng(0))
    flat = LinearInterventional().fit(Source(data)).encode(data.inputs)
    tall = replace(data, inputs=data.inputs.reshape(-1, 1, 3, 4))
    assert np.allclose(LinearInterventional().fit(Source(tall)).encode(tall.inputs), flat)


# --- models ---------------------------------------------------------------------------------------------------------


def chain(variance: float = 1.0) -> CausalModel:
    """a → b → c with weights 2 and -1."""
    weights = np.array([[0, 2.0, 0], [0, 0, -1.0], [0, 0, 0]])
    return CausalModel(
        ("a", "b", "c"), ("observational", "up", "down"), LinearCodec(np.eye(3), np.eye(3), np.zeros(3)), Mechanisms(weights, np.zeros(3), np.full(3, variance)),
        np.array([-1, 0, 1]), np.array([0.0, 3.0, -2.0]), np.array([0.0, 0.5, 0.1]),
    )  # fmt: skip


def test_do_cuts_the_latent_from_its_causes_and_leaves_the_rest() -> None:
    both = chain().moments(("up", "down"))
    assert np.allclose(both.mean, [3, -2, 2])
    assert np.allclose(np.diag(both.covariance), [0.5, 0.1, 1.1])
    assert both.covariance[0, 1] == 0
    assert np.allclose(chain().moments("up", strength=2.0).mean, [6, 12, -12])


def test_samples_have_the_closed_form_moments() -> None:
    for what in ((), "up", ("up", "down"), {"b": 1.0}, {"c": (0.5, 2.0), "a": "up"}):
        drawn, wanted = chain().do(what, 200_000, 1), chain().moments(what)
        assert np.allclose(drawn.mean(0), wanted.mean, atol=0.05)
        assert np.allclose(np.cov(drawn.T), wanted.covariance, atol=0.1)


def test_many_queries_are_each_query_alone() -> None:
    queries = [(), "up", ("up", "down"), {"c": 1.5}]
    many = chain().do_latents(queries, 50, 3)
    for k, query in enumerate(queries):
        assert np.allclose(many[k], chain().do_latents([query], 50, 3)[0])
    means, covariances = chain().latent_moments(queries)
    for k, query in enumerate(queries):
        assert np.allclose(means[k], chain().moments(query).mean)
        assert np.allclose(covariances[k], chain().moments(query).covariance)


def test_same_seed_same_sample() -> None:
    assert np.array_equal(chain().do("up", 10, 4), chain().do("up", 10, 4))
    assert not np.array_equal(chain().do("up", 10, 4), chain().do("up", 10, 5))
    assert np.array_equal(chain().sample(10, 4), chain().do((), 10, 4))


def test_decode_undoes_encode_in_the_span_of_the_latents() -> None:
    world, data, _ = world_scores()
    model = LinearInterventional().fit(Source(data))
    assert np.allclose(model.decode(model.encode(data.inputs)), data.inputs, atol=1e-6)
    assert world.matrix is not None


def test_graphs_come_as_networkx_and_as_files(tmp_path: Path) -> None:
    _, data, _ = world_scores()
    model = LinearInterventional().fit(Source(data))
    graph = model.to_networkx()
    assert {(a, b) for a, b in graph.edges} == {(f"z{i + 1}", f"z{j + 1}") for i, j in np.argwhere(model.graph)}
    model.save(tmp_path / "model")
    told = json.loads((tmp_path / "model" / "graph.json").read_text())
    assert len(told["edges"]) == model.graph.sum()
    assert pd.read_csv(tmp_path / "model" / "graph.csv", index_col=0).to_numpy() == pytest.approx(model.mechanisms.weights)
    assert json.loads((tmp_path / "model" / "report.json").read_text())[0]["state"] == "checked"
    loaded = ew.load(tmp_path / "model")
    assert np.array_equal(loaded.do(("env_1", "env_2"), 5), model.do(("env_1", "env_2"), 5))


def test_noise_beside_the_latents_is_kept_as_a_residual() -> None:
    world, data, _ = world_scores(3, 8, 4000)
    noisy = replace(data, inputs=data.inputs + 0.3 * np.random.default_rng(1).normal(size=data.inputs.shape))
    model = LinearInterventional().fit(Source(noisy))
    truth = Gaussian.of(noisy.of(0))
    assert np.allclose(np.diag(model.model.moments().covariance), np.diag(truth.covariance), rtol=0.15)
    assert world.n == 3


# --- predictions of what nobody tried -------------------------------------------------------------------------------


def test_pairs_are_predicted_where_adding_up_is_not() -> None:
    causal, summed = [], []
    for seed in range(4):
        task = unseen_pairs(seed)
        asked = task.domain("all pairs").load()
        for learner, kept in ((LinearInterventional(), causal), (AdditiveInterventions(), summed)):
            made = learner.fit(task.source).predict(asked.unlabelled())
            kept.append(np.mean([intervention_prediction_error(p, t, asked.reference) for p, t in zip(made.each, asked.outcomes, strict=True)]))
    assert np.mean(causal) < 0.06
    assert np.mean(summed) > 3 * np.mean(causal)


def test_additive_rule_is_exact_where_no_edge_joins() -> None:
    world = worlds.linear_gaussian_world(3, 5, density=0.0, seed=0, shifts=True)
    single = [world.observed(())] + [world.observed([t]) for t in world.targets]
    told, truth = additive(single, (1, 3)), world.observed([world.targets[0], world.targets[2]])
    assert np.allclose(told.mean, truth.mean)
    assert np.allclose(told.covariance, truth.covariance)


def test_rules_say_what_their_names_say() -> None:
    _, data, _ = world_scores()
    asked = Interventions((("env_1", "env_2"), ("env_3",)))
    assert np.allclose(NoChange().fit(Source(data)).predict(asked).each[0].mean, data.of(0).mean(0))
    near = NearestIntervention().fit(Source(data)).predict(asked)
    assert any(np.allclose(near.each[0].mean, data.of(k).mean(0)) for k in (1, 2))
    assert np.allclose(near.each[1].mean, data.of(3).mean(0))


def test_answers_come_as_a_frame_with_one_block_of_rows_a_question() -> None:
    _, data, _ = world_scores()
    asked = Interventions((("env_1", "env_2"), ()), size=7, features=tuple("abcdefg"))
    frame = LinearInterventional().fit(Source(data)).predict(asked).to_frame()
    assert frame.columns.tolist() == ["do", *"abcdefg"]
    assert frame.do.value_counts().to_dict() == {"env_1+env_2": 7, "observational": 7}


# --- metrics --------------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_mcc_forgets_order_scale_and_sign(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(60, 4))
    turned = z[:, rng.permutation(4)] * rng.uniform(0.1, 9, 4) * rng.choice([-1, 1], 4) + rng.normal(size=4)
    assert m.mean_correlation(z, turned) == pytest.approx(1.0)
    assert m.mean_correlation(z, np.exp(turned / np.abs(turned).max()), rank=True) == pytest.approx(1.0)


def test_mcc_is_rectangular_and_scored_on_the_other_half() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 2))
    assert m.mean_correlation(z, np.c_[rng.normal(size=(200, 3)), z]) == pytest.approx(1.0)
    assert m.mean_correlation(z, z[:, :1]) == pytest.approx(0.5)
    noise = rng.normal(size=(40, 30))  # many codes match by chance on the half that assigns them
    both = m.correlations(z[:40], noise).max(1).mean()
    assert m.mean_correlation(z[:40], noise) < both
    with pytest.raises(UserError, match="row by row"):
        m.mean_correlation(z, z[:5])


def test_mcc_of_independent_codes_is_that_of_a_brute_force_assignment() -> None:
    rng = np.random.default_rng(1)
    z, code = rng.normal(size=(50, 3)), rng.normal(size=(50, 3))
    first, second = np.abs(np.corrcoef(z[:25].T, code[:25].T))[:3, 3:], np.abs(np.corrcoef(z[25:].T, code[25:].T))[:3, 3:]
    best = max(permutations(range(3)), key=lambda p: sum(first[i, p[i]] for i in range(3)))
    assert m.mean_correlation(z, code) == pytest.approx(np.mean([second[i, best[i]] for i in range(3)]))


def test_dci_of_known_importances() -> None:
    assert m.dci(np.eye(4)[[2, 0, 3, 1]])["disentanglement"] == pytest.approx(1.0)
    assert m.dci(np.ones((4, 4)))["completeness"] == pytest.approx(0.0, abs=1e-9)
    half = m.dci(np.array([[1.0, 1.0], [0.0, 0.0]]))
    assert half["disentanglement"] == pytest.approx(0.0, abs=1e-9)
    assert half["completeness"] == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("kind", ["trees", "lasso"])
def test_importances_name_the_code_that_holds_the_factor(kind: str) -> None:
    z = np.random.default_rng(0).normal(size=(800, 2))
    code = np.c_[z[:, 1], np.random.default_rng(1).normal(size=800), z[:, 0]]
    found, informativeness = m.importances(z, code, kind)
    assert found.argmax(0).tolist() == [2, 0]
    assert informativeness > 0.9


def test_graph_distances() -> None:
    a = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    assert m.structural_hamming_distance(a, a) == 0
    assert m.structural_hamming_distance(a, a.T) == 2
    assert m.edge_f1(a, np.zeros((3, 3))) == 0
    assert m.edge_f1(np.zeros((3, 3)), np.zeros((3, 3))) == 1
    assert m.ancestor_f1(a, m.closure(a)) == 1
    with pytest.raises(Undefined, match="3 latents"):
        m.structural_hamming_distance(a, np.zeros((2, 2)))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=15)
def test_wasserstein_is_the_formula_with_matrix_roots(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (Gaussian(rng.normal(size=3), (r := rng.normal(size=(3, 3))) @ r.T + 0.1 * np.eye(3)) for _ in range(2))
    root = np.real(sqrtm(a.covariance))
    wanted = np.square(a.mean - b.mean).sum() + np.trace(a.covariance + b.covariance - 2 * np.real(sqrtm(root @ b.covariance @ root)))
    assert m.wasserstein(a, b) == pytest.approx(wanted, rel=1e-6, abs=1e-8)
    assert m.wasserstein(a, b) == pytest.approx(m.wasserstein(b, a), rel=1e-8, abs=1e-10)


def test_energy_distance_is_the_double_sum_and_0_for_one_distribution() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 2)), rng.normal(2, 1, size=(7, 2))

    def mean(x: np.ndarray, y: np.ndarray, same: bool) -> float:
        d = [np.linalg.norm(p - q) for i, p in enumerate(x) for j, q in enumerate(y) if not (same and i == j)]
        return float(np.mean(d))

    assert m.energy_distance(a, b) == pytest.approx(2 * mean(a, b, False) - mean(a, a, True) - mean(b, b, True))
    assert abs(m.energy_distance(rng.normal(size=(1000, 2)), rng.normal(size=(1000, 2)))) < 0.02


def test_prediction_error_is_0_for_the_truth_and_1_for_nothing() -> None:
    home, there = Gaussian(np.zeros(2), np.eye(2)), Gaussian(np.ones(2), 2 * np.eye(2))
    assert intervention_prediction_error(there, there, home) == pytest.approx(0, abs=1e-12)
    assert intervention_prediction_error(home, there, home) == pytest.approx(1)
    rows = there.sample(2000, np.random.default_rng(0))
    assert intervention_prediction_error(rows, rows, home.sample(2000, np.random.default_rng(1)), "energy") < 0.01
    with pytest.raises(Undefined, match="nothing happens"):
        intervention_prediction_error(home, home, home)


def test_assigned_r2_of_plain_and_mixed_codes() -> None:
    z = np.random.default_rng(0).uniform(size=(3000, 2))
    plain = m.assigned_r2(z, np.c_[z[:, 1] ** 3, z[:, 0]])
    assert plain["diagonal"] > 0.95
    assert plain["off_diagonal"] < 0.05
    assert m.assigned_r2(z, np.c_[z[:, 0] + z[:, 1], z[:, 0] - z[:, 1]])["diagonal"] < 0.7


# --- worlds ---------------------------------------------------------------------------------------------------------


def test_worlds_draw_what_their_moments_say() -> None:
    world = worlds.linear_gaussian_world(4, 6, seed=2, shifts=True)
    for latents in ([], [1], [0, 3]):
        z, wanted = world.draw(latents, 200_000, np.random.default_rng(0)), world.moments(latents)
        assert np.allclose(z.mean(0), wanted.mean, atol=0.05)
        assert np.allclose(np.cov(z.T), wanted.covariance, rtol=0.05, atol=0.1)


def test_mixings_are_well_conditioned_and_scaled() -> None:
    for n, d in ((5, 10), (12, 20)):
        g = worlds.mixing_matrix(n, d, np.random.default_rng(0))
        assert np.allclose(np.abs(g).max(0), 1)
        assert np.linalg.matrix_rank(g) == n


def test_invertible_perceptrons_can_be_undone() -> None:
    g = worlds.invertible_mlp(3, rng=np.random.default_rng(0))
    z = np.random.default_rng(1).normal(size=(200, 3))
    x = g(z)
    jacobian = np.stack([(g(z[:5] + 1e-6 * e) - g(z[:5] - 1e-6 * e)) / 2e-6 for e in np.eye(3)], 2)
    assert np.abs(np.linalg.det(jacobian)).min() > 1e-3
    assert len(np.unique(x.round(9), axis=0)) == 200


def test_box_pairs_stay_in_the_box_and_near() -> None:
    data = worlds.box_pairs(500, 3, deviation=0.05)
    assert (data.latents >= 0).all()
    assert (data.latents <= 1).all()
    assert data.content == ((0, 1, 2), (0, 1, 2))


def test_actions_touch_what_their_cell_says() -> None:
    data = worlds.transitions(4000, 3, seed=0, kind="plain")
    jump = np.abs(data.latents[:, 1] - 0.8 * data.latents[:, 0]) > 0.7  # more than its own dynamics can do
    assert 0.2 < jump.any(1).mean() < 0.6
    assert (jump.sum(1) <= 1).mean() > 0.97


def test_effects_of_actions_are_the_integral() -> None:
    from scipy.integrate import dblquad
    from scipy.stats import norm

    world = worlds.action_world(seed=1)
    a = np.array([0.7, -0.4])
    mean = world.m @ a

    def density(v2: float, v1: float) -> float:
        return float(worlds.outcome((mean + np.array([v1, v2]))[None])[0] * norm.pdf(v1) * norm.pdf(v2))

    wanted = dblquad(density, -7, 7, -7, 7, epsabs=1e-6)[0]
    assert world.effect(a)[0] == pytest.approx(wanted, abs=0.02)


# --- scenes ---------------------------------------------------------------------------------------------------------


def test_balls_have_the_formula_at_pixel_centres() -> None:
    z = np.array([[0.1, -0.2, -0.3, 0.25]])
    picture = s.balls(z, 16)[0]
    i, j = 6, 9
    distance = np.hypot((j + 0.5) / 16 - 0.6, (i + 0.5) / 16 - 0.3)
    assert picture[0, i, j] == round(255 / (1 + np.exp(-(0.08 - distance) / 0.02)))
    assert picture[2].max() == 0


def test_later_balls_cover_earlier_ones() -> None:
    apart, over = s.balls(np.array([[0.3, 0.3, -0.3, -0.3]]), 32, True)[0], s.balls(np.zeros((1, 4)), 32, True)[0]
    assert apart[0].max() > 240
    assert over[0].max() < 130  # the green one covers the red one


def test_bench_goes_dark_where_polarisers_are_crossed() -> None:
    open_, crossed = s.bench(np.array([[1.0, 1, 1, 10, 10], [1.0, 1, 1, 45, -45]]))
    assert open_[:, 16, 16].tolist() == [255, 255, 255]
    assert crossed[:, 16, 16].tolist() == [0, 0, 0]
    noisy = s.bench(np.array([[0.5, 0.5, 0.5, 0, 0]]), noise=0.1)
    assert 10 < noisy.astype(float)[0, 0, 12:20, 12:20].std() < 50


def test_shadow_lies_where_the_ray_of_the_light_meets_the_ground() -> None:
    angle, light = np.array([0.3, -0.2]), np.array([0.4, 0.6])
    x, y = s.bob(angle)
    centre, width = s.shadow(angle, light)
    assert np.allclose((centre - light) / 1.0, (x - light) / (1 - y))
    assert (width > 0.05).all()
    z = s.pendulum_latents(50, np.random.default_rng(0), target=2)
    assert z[:, 2].min() >= 0.9
    assert s.pendulum(z[:3]).shape == (3, 1, 64, 64)
    assert s.pendulum(z[:1])[0, 0, 30:34].max() >= 0


def test_scenes_refuse_the_wrong_number_of_variables() -> None:
    for draw, width in ((s.balls, 3), (s.bench, 4), (s.pendulum, 2)):
        with pytest.raises(UserError, match="got shape"):
            draw(np.zeros((2, width)))


# --- data -----------------------------------------------------------------------------------------------------------


def test_environments_of_a_frame() -> None:
    frame = pd.DataFrame({"g1": [1.0, 2, 3, 4, 5], "g2": [0.0, 1, 0, 1, 0], "done": ["b", None, "", "a+b", "a"]})
    data = Environments.from_frame(frame, "done")
    assert data.names == ("observational", "a", "b")
    assert data.environment.tolist() == [2, 0, 0, 1]  # the combination is for asking, not for training
    assert data.features == ("g1", "g2")
    assert data.unlabelled().column("environment").tolist() == ["b", "observational", "observational", "a"]


def test_every_data_type_takes_rows_and_hides_the_truth() -> None:
    z = np.arange(12.0).reshape(6, 2)
    both = np.stack([z, z + 1], 1)
    held = [
        Environments(z, np.array([0, 0, 1, 1, 2, 2]), latents=z),
        Actions(z, z, z[:, 0], z),
        Pairs(both, both),
        Views((z, z), ((0, 1), (0, 1)), z),
        Transitions(both, z, both),
    ]
    for data in held:
        assert isinstance(data, ew.Data)
        assert len(data.take([4, 1])) == 2
        hidden = data.unlabelled()
        assert getattr(hidden, "latents", None) is None
        assert getattr(hidden, "factors", None) is None
        assert isinstance(data.examples(), Examples)
    asked = Interventions((("a",), ("a", "b")), (z, z), z)
    assert asked.take([1]).do == (("a", "b"),)
    assert asked.unlabelled().outcomes is None


def test_light_tunnel_is_read_from_its_folders(tmp_path: Path) -> None:
    from PIL import Image

    for name in ("obs", "red", "green", "blue", "pol_1", "pol_2"):
        inner = tmp_path / f"buchholz_1_{name}"
        (inner / "images_64").mkdir(parents=True)
        rows = pd.DataFrame({k: np.arange(3.0) for k in ("red", "green", "blue", "pol_1", "pol_2")}).assign(image_file=[f"{k}.png" for k in range(3)], current=np.arange(3) * 2.0, fixed=1.0)
        rows.to_csv(inner / "data.csv", index=False)
        for k in range(3):
            Image.fromarray(np.full((64, 64, 3), k, np.uint8)).save(inner / "images_64" / f"{k}.png")
    data = light_tunnel(tmp_path)
    assert data.inputs.shape == (18, 3, 64, 64)
    assert data.names == ("observational", "red", "green", "blue", "pol_1", "pol_2")
    assert data.latents.shape == (18, 5)
    sensors = light_tunnel(tmp_path, images=False)
    assert sensors.features == ("current",)
    task = light_tunnel_task(0, path=str(tmp_path), images=True)
    assert task.source.train.names == data.names
    home = task.domains[0].load()
    assert set(home.environment) <= {0}
    assert len(home) + len(task.source.train) == 18  # what is not judged trains
    with pytest.raises(UserError, match="Causal Chamber"):
        light_tunnel_task(0, path=str(tmp_path / "nowhere"))
    (tmp_path / "buchholz_1_red" / "images_64" / "1.png").unlink()
    with pytest.raises(UserError, match=r"1\.png cannot be read"):
        light_tunnel(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        light_tunnel(tmp_path / "nowhere")


# --- bad input ------------------------------------------------------------------------------------------------------


def fit(data: Environments, **options: object) -> LinearInterventional:
    return LinearInterventional(**options).fit(Source(data))  # type: ignore[arg-type]


def test_environments_and_latents_must_fit_together() -> None:
    _, data, _ = world_scores(4, 7, 100)
    with pytest.raises(UserError, match=r"4 interventional environments for 5 latents, fewer.*there are: observational 100, env_1 100"):
        fit(data, latents=5)
    with pytest.raises(UserError, match="for 3 latents, more than one each: merge environments"):
        fit(data, latents=3)
    with pytest.raises(UserError, match="no row is observational"):
        fit(data.take(data.environment > 0))
    with pytest.raises(UserError, match="'env_1' is there twice"):
        fit(replace(data, names=("observational", "env_1", "env_1", "a", "b")))
    few = np.r_[np.flatnonzero(data.environment < 4), np.flatnonzero(data.environment == 4)[:12]]
    with pytest.raises(UserError, match="'env_4' has 12 observations, fewer than 10 a latent"):
        fit(data.take(few))


def test_columns_that_are_no_observations_are_named() -> None:
    _, data, _ = world_scores(3, 5, 200)
    x = data.inputs.copy()
    x[205, 2] = np.nan
    with pytest.raises(UserError, match=r"feature 'x3' has 1 missing .* in environment 'env_1', first in its row 5"):
        fit(replace(data, inputs=x))
    x = data.inputs.copy()
    x[:, 1] = 7
    with pytest.raises(UserError, match="feature 'x2' is constant"):
        fit(replace(data, inputs=x))
    low = data.inputs.copy()
    low[data.environment == 2] = np.outer(low[data.environment == 2][:, 0], np.arange(1, 6))
    with pytest.raises(UserError, match="x has rank 1 in environment 'env_2' but latents=3"):
        fit(replace(data, inputs=low))
    with pytest.raises(UserError, match="fewer than the 3 latents"):
        fit(replace(data, inputs=data.inputs[:, :2]))


def test_an_environment_in_which_nothing_happens_is_named() -> None:
    world, data, _ = world_scores(3, 5, 500)
    x = data.inputs.copy()
    x[data.environment == 2] = world.mix(world.draw((), 500, np.random.default_rng(77)))
    with pytest.raises(UserError, match="'env_2' looks observational"):
        fit(replace(data, inputs=x))


def test_do_refuses_what_it_does_not_know() -> None:
    with pytest.raises(UserError, match="no environment 'upp'; did you mean 'up'"):
        chain().do("upp")
    with pytest.raises(UserError, match="no latent 'd'"):
        chain().do({"d": 1.0})
    with pytest.raises(UserError, match="two interventions set 'a'"):
        chain().do({"a": 1.0, 0: 2.0})
    with pytest.raises(UserError, match="sets a, not .b."):
        chain().do({"b": "up"})
    with pytest.raises(UserError, match="say .*'up', 'down'"):
        chain().do("up+down")
    with pytest.raises(UserError, match="at least 0"):
        chain().do({"a": (1.0, -1.0)})
    soft = replace(chain(), hard=False)
    with pytest.raises(UserError, match="soft interventions.*ancestors"):
        soft.do("up")
    assert soft.sample(3).shape == (3, 3)


def test_learners_without_a_graph_say_so() -> None:
    _, data, _ = world_scores(3, 5, 200)
    model = PrincipalComponents().fit(Source(data))
    with pytest.raises(NotOffered, match="finds no graph"):
        model.do("env_1")
    assert model.predict(Interventions((("env_1",),))).each is None


def test_the_reference_rule_refuses_many_latents() -> None:
    with pytest.raises(UserError, match="10 have 10!"):
        fit(world_scores(10, 12, 200)[1], rule="reference")


def test_wrong_data_are_told_with_the_type_that_is_needed() -> None:
    task = linear_task(0, n=3, d=5, size=200)
    with pytest.raises(UserError, match="it needs Pairs, and the data are Environments"):
        ew.assay(ew.named("toy", task), learners=["weak-pairs"], seeds=1, out="unused")
    with pytest.raises(UserError, match="codes 0 to"):
        Environments(np.zeros((2, 2)), np.array([0, 5]), ("observational", "a"))
    with pytest.raises(UserError, match=r"expected \[pairs, 2"):
        Pairs(np.zeros((4, 3, 2)))
    with pytest.raises(UserError, match="views of the same"):
        Views((np.zeros((3, 1)), np.zeros((2, 1))), ((0,), (0,)))
    with pytest.raises(UserError, match="the frame before"):
        Transitions(np.zeros((4, 3)), np.zeros((4, 1)))
    with pytest.raises(UserError, match="steps between them"):
        Transitions.from_sequence(np.zeros((4, 2)), np.zeros((4, 1)))


def test_truth_of_another_width_is_said_in_the_report() -> None:
    _, data, _ = world_scores(3, 5, 500)
    wide = replace(data, latents=np.c_[data.latents, data.latents[:, 0]])
    told = LinearInterventional().fit(Source(wide)).report()
    assert "4 true latents against 3" in told.detail.iloc[-1]
