"""The trained methods of the causal room: their losses against formulas, what they find, what they refuse, and their parts in somebody else's loop."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import elsewhere as ew
from elsewhere.assay.study import make_learner
from elsewhere.causal import metrics as m
from elsewhere.causal import scene_tasks, tasks, worlds
from elsewhere.causal.binary_interactions import BinaryInteractions, Step, interaction_loss, log_normal, temperature
from elsewhere.causal.contrastive_interventional import ContrastiveInterventional, Told, contrastive_loss, odds_loss
from elsewhere.causal.data import Actions, Environments, Pairs, Transitions, Views
from elsewhere.causal.from_factors import FromFactors
from elsewhere.causal.interaction_network import Autoregressive, Grouped, InteractionNetwork, OrthogonalLu, interactions
from elsewhere.causal.intervention_extrapolation import InterventionExtrapolation, moment_restriction
from elsewhere.causal.linear_interventional import LinearInterventional
from elsewhere.causal.multi_view import ContrastiveInversion, MultiView, alignment_and_entropy, shared_blocks
from elsewhere.causal.networks import InterventionalOdds, acyclicity, autoencoder, code
from elsewhere.causal.questions import Gaussian, Interventions
from elsewhere.causal.read_out import ReadOut
from elsewhere.causal.scenes import balls_world, bench_world
from elsewhere.causal.score_matching import sliced_loss
from elsewhere.causal.weak_pairs import Autoencoder, WeakPairs
from elsewhere.checks import check_learner
from elsewhere.data import Examples
from elsewhere.errors import NotOffered, UserError
from elsewhere.learner import Probe
from elsewhere.nn import variational as v
from elsewhere.nn.building import build
from elsewhere.task import Domain, Metric, Source, Task

# --- contrastive interventional (B) ---------------------------------------------------------------------------------


def odds_network(n: int = 3, soft: bool = False) -> InterventionalOdds:
    torch.manual_seed(0)
    network = InterventionalOdds(nn.Identity(), n, soft)
    with torch.no_grad():
        for p in network.parameters():
            p.normal_()
    return network


def test_log_odds_are_those_of_two_linear_gaussian_models() -> None:
    """With the true parameters the network's logit is ln p_0 / p_m of the specification's structural model."""
    weights = np.array([[0, 0.8, -0.5], [0, 0, 0.7], [0, 0, 0]])
    variance, shift, spread, target = np.array([1.2, 0.7, 0.9]), 1.5, 0.6, 2
    network = InterventionalOdds(nn.Identity(), 3)
    with torch.no_grad():
        network.edges.copy_(torch.tensor(weights.T))
        network.scale.copy_(torch.tensor(1 / np.sqrt(2 * variance)))
        network.curve.fill_(1 / math.sqrt(2 * spread))
        network.slope.fill_(-shift / spread)
        network.bias.fill_(0.5 * math.log(spread / variance[target]) + shift**2 / (2 * spread))
    z = np.random.default_rng(0).normal(size=(20, 3))
    rest = z[:, target] - z @ weights[:, target]
    log_0 = -0.5 * np.log(2 * np.pi * variance[target]) - rest**2 / (2 * variance[target])
    log_m = -0.5 * np.log(2 * np.pi * spread) - (z[:, target] - shift) ** 2 / (2 * spread)
    made = network.odds(torch.tensor(z, dtype=torch.float32), torch.full((20,), target))
    assert np.allclose(made.detach().numpy(), log_0 - log_m, atol=1e-5)


def test_contrastive_loss_is_its_terms_and_the_diagonal_never_counts() -> None:
    network = odds_network()
    batch = Told(torch.randn(6, 3), torch.arange(6) % 3, torch.randn(6, 3), torch.arange(6) % 3)
    cross, zero = odds_loss(network, batch)
    logits = [network.odds(x, k) for x, k in ((batch.observational, batch.told_from), (batch.interventional, batch.environment))]
    wanted = nn.functional.cross_entropy(torch.stack([logits[0], torch.zeros(6)], 1), torch.zeros(6, dtype=torch.long)) + nn.functional.cross_entropy(
        torch.stack([logits[1], torch.zeros(6)], 1), torch.ones(6, dtype=torch.long)
    )
    assert cross.item() == pytest.approx(wanted.item(), rel=1e-5)
    a = network.edges.detach().clone()
    a.fill_diagonal_(0)
    full = contrastive_loss(network, batch, 0.3, 0.2, 0.1)
    told = cross + 0.3 * zero.mean(0).square().sum() + 0.2 * a.abs().sum() + 0.1 * (torch.trace(torch.matrix_exp(a * a)) - 3)
    assert full.item() == pytest.approx(told.item(), rel=1e-5)
    with torch.no_grad():
        network.edges.fill_diagonal_(9.0)
    assert contrastive_loss(network, batch, 0.3, 0.2, 0.1).item() == pytest.approx(full.item(), rel=1e-6)


def test_acyclicity_is_0_without_cycles_and_positive_with() -> None:
    a = torch.tensor([[0.0, 2.0], [0.0, 0.0]])
    assert acyclicity(a).item() == pytest.approx(0, abs=1e-6)
    assert acyclicity(a + a.T).item() > 1


def test_soft_odds_without_kept_causes_are_hard_odds() -> None:
    hard, soft = odds_network(), odds_network(soft=True)
    with torch.no_grad():
        soft.kept.zero_()
        for name, p in hard.named_parameters():
            soft.get_parameter(name).copy_(p)
    z, k = torch.randn(5, 3), torch.arange(5) % 3
    assert torch.allclose(hard.odds(z, k), soft.odds(z, k))


def test_a_soft_model_refuses_do_and_still_samples() -> None:
    data = worlds.nonlinear_world(3, d=5).environments(100, np.random.default_rng(0))
    model = ContrastiveInterventional(interventions="soft", width=8, epochs=2, batch=32).fit(Source(data))
    assert (model.graph == m.closure(model.graph)).all()
    assert model.sample(4).shape == (4, 5)
    assert model.predict(Interventions((("env_1",),))).each is None
    with pytest.raises(UserError, match="soft interventions"):
        model.do("env_1")


@pytest.mark.slow
def test_behind_a_perceptron_the_contrastive_method_beats_the_linear_one() -> None:
    world = worlds.nonlinear_world(3, 1.5, 10, 64, 2, seed=0)
    data = world.environments(3000, np.random.default_rng(0))
    z = world.draw((), 3000, np.random.default_rng(1))
    x = world.mix(z)
    ours = ContrastiveInterventional(width=128, epochs=80).fit(Source(data))
    assert m.mean_correlation(z, ours.encode(x)) > m.mean_correlation(z, LinearInterventional().fit(Source(data)).encode(x))
    at = np.argsort(world.targets)
    assert m.structural_hamming_distance(world.graph, ours.graph[np.ix_(at, at)]) <= 1
    truth = world.mix(world.draw([world.targets[0], world.targets[1]], 3000, np.random.default_rng(2)))
    assert m.intervention_prediction_error(ours.do(("env_1", "env_2"), 3000), truth, data.of(0)) < 0.3
    assert (ours.report().state != "failed").all()
    assert ours.learnt_edges().shape == (3, 3)


# --- pairs (D) ------------------------------------------------------------------------------------------------------


def posterior(n: int = 8, d: int = 5) -> v.Gaussian:
    generator = torch.Generator().manual_seed(3)
    return v.Gaussian(*(torch.randn(n, d, generator=generator) for _ in range(2)))


def test_pair_loss_is_the_mean_of_both_pictures_with_shared_latents_averaged() -> None:
    network, x = autoencoder([4], 3, width=8, depth=1), torch.randn(6, 4)
    learner = WeakPairs(latents=3, beta=2.0)
    torch.manual_seed(1)
    made = network(x, v.averaged_pairs)
    wanted = 0.5 * (made.logits - x).square().sum() / 6 + 2.0 * v.kl_to_normal(made.posterior).mean()
    torch.manual_seed(1)
    assert learner.loss(network, x).item() == pytest.approx(wanted.item(), rel=1e-6)


def test_product_average_is_that_of_the_normal_densities() -> None:
    q = posterior(2, 4)
    made = v.averaged_pairs(q, product=True, changed=1)
    v1, v2 = q.log_variance.exp()
    product = 1 / (1 / v1 + 1 / v2)  # variance of the product; the reference doubles it
    center = product * (q.mean[0] / v1 + q.mean[1] / v2)
    shared = v.shared_latents(v.Gaussian(q.mean[:1], q.log_variance[:1]), v.Gaussian(q.mean[1:], q.log_variance[1:]), 1)[0]
    assert shared.sum() == 3
    assert torch.allclose(made.log_variance.exp()[0][shared], (2 * product)[shared], rtol=1e-5)
    assert torch.allclose(made.mean[0][shared], center[shared], rtol=1e-4)
    assert torch.allclose(made.mean[1][~shared], q.mean[1][~shared])


def test_changes_are_twice_the_divergence() -> None:
    q = posterior(2, 4)
    a, b = (torch.distributions.Normal(q.mean[k], (0.5 * q.log_variance[k]).exp()) for k in (0, 1))
    told = v.changes(v.Gaussian(q.mean[:1], q.log_variance[:1]), v.Gaussian(q.mean[1:], q.log_variance[1:]))
    assert torch.allclose(told[0], 2 * torch.distributions.kl_divergence(a, b), atol=1e-4)


def test_a_plain_autoencoder_draws_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(200, 3)) @ np.random.default_rng(1).normal(size=(3, 6))
    model = Autoencoder(latents=3, beta=0.0, steps=1500, learning_rate=3e-3).fit(Source(Environments(x, np.zeros(200, int))))
    assert np.square(model.decode(model.encode(x)) - x).mean() < 0.1 * x.var()


def test_pairs_that_differ_in_nothing_are_warned_of() -> None:
    x = np.repeat(np.random.default_rng(0).normal(size=(40, 1, 4)), 2, axis=1)
    with pytest.warns(UserWarning, match="differ in all or in none"):
        model = WeakPairs(latents=2, steps=3, batch=8).fit(Source(Pairs(x.astype(np.float32))))
    assert model.report().state.iloc[0] == "failed"


def test_pairs_refuse_odd_batches_and_impossible_counts() -> None:
    data = Pairs(np.zeros((4, 2, 3), np.float32))
    with pytest.raises(UserError, match="even number"):
        WeakPairs(batch=5).fit(Source(data))
    with pytest.raises(UserError, match="between 1 and 9"):
        WeakPairs(changes=10).fit(Source(data))


# --- views (E) ------------------------------------------------------------------------------------------------------


def views_loss(codes: list[Tensor], others: list[Tensor], subsets: list[tuple[int, ...]], places: list[list[list[int]]], p: float, temperature: float) -> Tensor:
    """The loss of spec 05 E, written out with a loop over subsets and views: the naive twin."""
    total = torch.zeros(())
    for views, at in zip(subsets, places, strict=True):
        blocks = [codes[k][:, i] for k, i in zip(views, at, strict=True)]
        against = [others[k][:, i] for k, i in zip(views, at, strict=True)]
        positive = sum((a - b).abs().pow(p).sum(1) for a, b in pairwise(blocks))
        negative = sum((a[:, None] - b[None]).abs().pow(p).sum(2) for a, b in zip(blocks, against, strict=True))
        logits = -torch.cat([negative, positive[:, None]], 1) / temperature
        total = total + (positive / temperature + torch.logsumexp(logits, 1) - math.log(logits.shape[1])).mean()
    return total


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_one_pass_over_all_subsets_is_the_loop(p: float) -> None:
    torch.manual_seed(0)
    sizes = [3, 4, 2, 3]
    codes, others = ([torch.randn(n, k, requires_grad=True) for k in sizes] for n in (7, 5))
    subsets = [v for k in (2, 3, 4) for v in combinations(range(4), k)]
    places = [[list(np.random.default_rng([k, i]).permutation(sizes[i])[:2]) for i in v] for k, v in enumerate(subsets)]
    blocks = shared_blocks(subsets, places, np.r_[0, np.cumsum(sizes)[:-1]].tolist())
    ours = alignment_and_entropy(torch.cat(codes, 1), torch.cat(others, 1), blocks, p, 0.7)
    twin = views_loss(codes, others, subsets, places, p, 0.7)
    assert ours.item() == pytest.approx(twin.item(), rel=1e-5)
    for a, b in zip(torch.autograd.grad(ours, codes, retain_graph=True), torch.autograd.grad(twin, codes), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_an_example_is_no_negative_of_its_own() -> None:
    torch.manual_seed(0)
    codes = torch.randn(6, 2)
    blocks = shared_blocks([(0, 1)], [[[0], [0]]], [0, 1])
    wanted = []
    for i in range(6):
        positive = (codes[i, 0] - codes[i, 1]).square()
        logits = [-(codes[i] - codes[j]).square().sum() for j in range(6) if j != i] + [-positive]
        wanted.append(positive + torch.logsumexp(torch.stack(logits), 0) - math.log(6))
    assert alignment_and_entropy(codes, codes, blocks, same=True).item() == pytest.approx(torch.stack(wanted).mean().item(), rel=1e-5)


def test_shared_block_is_found_and_style_is_not() -> None:
    data = worlds.partial_views(4000, ((0, 1), (1, 2)), seed=0, layers=2)
    model = MultiView(batch=256, steps=400, learning_rate=2e-3, width=20, depth=2).fit(Source(data))
    block = model.blocks(data)[(0, 1)]
    assert m.block_r2(block, data.latents[:, [1]]) > 0.9
    assert m.block_r2(block, data.latents[:, [0, 2]]) < 0.2


@pytest.mark.parametrize("selection", ["concat", "learned"])
def test_other_selections_train_and_give_blocks(selection: str) -> None:
    data = worlds.partial_views(300, ((0, 1, 2), (1, 2, 3), (0, 2, 3)), seed=0, layers=1)
    model = MultiView(selection=selection, batch=64, steps=5, width=4, depth=1).fit(Source(data))  # type: ignore[arg-type]
    assert model.blocks(data)[(0, 1)].shape == (300, 2)
    assert model.blocks(data)[(0, 1, 2)].shape == (300, 1)


def test_a_second_fit_uses_the_blocks_of_the_second_data() -> None:
    model = MultiView(batch=16, steps=2, width=4, depth=1).fit(Source(worlds.partial_views(60, ((0, 1), (1, 2)), layers=1)))
    data = worlds.partial_views(60, ((0, 1, 2), (1, 2, 3)), layers=1)
    again = model.fit(Source(data))
    fresh = MultiView(batch=16, steps=2, width=4, depth=1).fit(Source(data))
    assert np.array_equal(again.represent(data), fresh.represent(data))


def test_views_that_share_nothing_are_named() -> None:
    data = Views((np.zeros((9, 2)), np.zeros((9, 2)), np.zeros((9, 2))), ((0, 1), (1, 2), (2, 3)))
    with pytest.raises(UserError, match="views 0 and 2 share no latent"):
        MultiView(steps=1).fit(Source(data))
    with pytest.raises(UserError, match="of one shape"):
        MultiView(steps=1, shared_encoder=True).fit(Source(Views((np.zeros((9, 2)), np.zeros((9, 3))), ((0, 1), (1, 2)))))


@pytest.mark.slow
def test_contrastive_inversion_undoes_a_mixing_up_to_a_linear_map() -> None:
    data = worlds.box_pairs(4000, 2, seed=0, layers=2)
    model = ContrastiveInversion(batch=256, steps=800, learning_rate=2e-3, width=20, depth=1, temperature=0.005).fit(Source(data))
    z = model.encode(data.inputs[0])
    assert m.linear_r2(z, data.latents) > 0.9


# --- actions (C) ----------------------------------------------------------------------------------------------------


def test_moment_restriction_is_the_double_sum() -> None:
    rng = np.random.default_rng(0)
    a, phi = rng.normal(size=(12, 2)), rng.normal(size=(12, 3))
    design = np.c_[np.ones(12), a]
    r = phi - design @ np.linalg.lstsq(design, phi, rcond=None)[0]
    apart = np.linalg.norm(a[:, None] - a[None], axis=2)
    width = np.sort((apart**2)[apart > 0])[(132 - 1) // 2]
    wanted = sum(np.exp(-(apart[i, j] ** 2) / (2 * width)) * r[i] @ r[j] for i in range(12) for j in range(12)) / 144
    assert moment_restriction(torch.tensor(phi), torch.tensor(a)).item() == pytest.approx(wanted, rel=1e-4)


def test_codes_that_are_linear_in_the_action_pay_nothing() -> None:
    a = torch.randn(50, 2, dtype=torch.float64)
    linear = a @ torch.randn(2, 3, dtype=torch.float64) + 1
    assert moment_restriction(linear, a).item() == pytest.approx(0, abs=1e-8)
    assert moment_restriction(linear.square(), a).item() > 1e-3


def test_strong_actions_are_foretold_where_latents_are_known_up_to_an_affine_map() -> None:
    world = worlds.action_world(seed=0, oracle=True)
    data = world.draw(5000, np.random.default_rng(0))
    asked = 1.5 * np.array([[1.0, 0.3], [-0.5, 1.0], [0.2, -1.0]])
    truth = world.effect(asked)
    options = {"encoder": "identity", "regression": "kernel"}
    ours = InterventionExtrapolation(**options).fit(Source(data))
    bare = InterventionExtrapolation(**options, control=False).fit(Source(data))
    error = np.abs(ours.effect(asked).mean - truth).mean()
    assert error < 0.3
    assert error < 0.5 * np.abs(bare.effect(asked).mean - truth).mean()
    assert (ours.effect(asked).extrapolation_fraction < 0.5).all()


def test_actions_far_beyond_are_warned_of() -> None:
    data = worlds.action_world(seed=0, oracle=True).draw(1000, np.random.default_rng(0))
    model = InterventionExtrapolation(encoder="identity", regression="kernel").fit(Source(data))
    with pytest.warns(UserWarning, match="100% of the latents.*extrapolation_fraction"):
        told = model.effect(np.array([[60.0, 60.0]]))
    assert told.extrapolation_fraction[0] == 1
    with pytest.raises(NotOffered, match="ask effect"):
        model.do({"z1": 1.0})


def test_actions_that_say_too_little_are_refused_or_warned_of() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 3)), rng.normal(size=60)
    two = np.repeat(np.eye(2), 30, axis=0)
    with pytest.raises(UserError, match="2 distinct actions of 2 dimensions"):
        InterventionExtrapolation(encoder="identity", latents=2).fit(Source(Actions(x, two, y)))
    with pytest.raises(UserError, match="cannot move 3 latents"):
        InterventionExtrapolation(encoder="identity").fit(Source(Actions(x, rng.normal(size=(60, 2)), y)))
    levels = rng.integers(0, 3, (60, 2)).astype(float)
    with pytest.warns(UserWarning, match="3 levels, fewer than 5"):
        model = InterventionExtrapolation(encoder="identity", regression="kernel").fit(Source(Actions(x[:, :2], levels, y)))
    assert model.report().state.iloc[0] == "untestable"


def test_learnt_codes_are_linear_in_the_action() -> None:
    data = worlds.action_world(seed=0, d=5).draw(1500, np.random.default_rng(0))
    model = InterventionExtrapolation(epochs=150, width=32, batch=256, learning_rate=3e-3).fit(Source(data))
    assert model.predict(Actions(None, np.array([[0.5, 0.5]]))).mean.shape == (1,)
    assert model.predict(data.unlabelled()).mean.shape == (1500,)
    assert m.linear_r2(model.encode(data.inputs), data.latents) > 0.8


# --- transitions (F) ------------------------------------------------------------------------------------------------


def test_grouped_layers_are_one_layer_a_group() -> None:
    layer, x = Grouped(3, 4, 2), torch.randn(5, 3, 4)
    wanted = torch.stack([x[:, g] @ layer.weight[g] + layer.bias[g] for g in range(3)], 1)
    assert torch.allclose(layer(x), wanted, atol=1e-6)


@pytest.mark.parametrize("make", [lambda: Autoregressive(3, 4, False), lambda: Autoregressive(3, 4, True), lambda: OrthogonalLu(3)])
def test_flows_know_their_determinants(make: object) -> None:
    torch.manual_seed(0)
    block = make()  # type: ignore[operator]
    with torch.no_grad():
        for p in block.parameters():
            p.add_(0.3 * torch.randn_like(p))
    z = torch.randn(4, 3)
    _, log_det = block(z)
    for k in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda x: block(x[None])[0][0], z[k])
        assert log_det[k].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-4)


def test_an_autoregressive_block_looks_only_back() -> None:
    torch.manual_seed(0)
    block = Autoregressive(4, 8, False)
    with torch.no_grad():
        block.second.weight.normal_()
    jacobian = torch.autograd.functional.jacobian(lambda x: block(x[None])[0][0], torch.randn(4))
    assert torch.allclose(jacobian.triu(1), torch.zeros(4, 4))
    assert jacobian.tril(-1).abs().max() > 1e-3


def test_orthogonal_maps_start_orthogonal() -> None:
    made, log_det = OrthogonalLu(5)(torch.eye(5))
    assert torch.allclose(made @ made.T, torch.eye(5), atol=1e-5)
    assert torch.allclose(log_det, torch.zeros(5), atol=1e-5)


def test_interaction_loss_is_its_terms() -> None:
    torch.manual_seed(0)
    network: InteractionNetwork = interactions([4], 3, 2, hidden=4, width=8)
    batch = Step(torch.randn(5, 4), torch.randn(5, 4), torch.rand(5, 2), torch.tensor(2.0))
    torch.manual_seed(7)
    ours = interaction_loss(network, batch)
    torch.manual_seed(7)
    q = network.posterior(torch.cat([batch.before, batch.after]))
    z = q.sample()
    f, log_det = network.flowed(z)
    told = network.prior(f[:5], batch.action, 2.0)
    normal = torch.distributions.Normal
    density = normal(q.mean[5:], (0.5 * q.log_variance[5:]).exp()).log_prob(z[5:]).sum(1) - log_det[5:]
    prior = normal(told.mean, told.log_deviation.clamp(-5, 3).exp()).log_prob(f[5:]).sum(1)
    a = told.interaction.detach()
    wanted = ((network.decoder(z[5:]) - batch.after).square().sum(1) + density - prior + 0.004 * (1 + a.sign()).square().sum(1) + 4e-5 * a.square().mean(1)).mean()
    assert ours.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_rare_term_pushes_positive_logits_down_and_leaves_negative_ones() -> None:
    a = torch.tensor([2.0, -2.0], requires_grad=True)
    (grad,) = torch.autograd.grad((1 + a.sign() + a - a.detach()).square().sum(), a)
    assert grad.tolist() == [4.0, 0.0]


def test_the_touch_of_an_action_starts_without_effect() -> None:
    network = interactions([4], 3, 2, hidden=4, width=8)
    z = torch.randn(6, 3)
    told = [network.prior(z, torch.rand(6, 2), 1.0) for _ in range(2)]
    assert torch.equal(told[0].mean, told[1].mean)
    assert not torch.equal(told[0].interaction, told[1].interaction)


def test_temperature_has_the_reference_breakpoints() -> None:
    assert [temperature(k, 100_000) for k in (0, 50_000, 100_000)] == [1.0, 2.5, 5.0]


def test_pictures_of_steps_are_encoded_by_convolutions() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (9, 3, 16, 16), dtype=np.uint8)
    data = Transitions.from_sequence(frames, np.random.default_rng(1).random((8, 2)))
    model = BinaryInteractions(latents=3, hidden=4, channels=4, epochs=1, batch=4).fit(Source(data))
    assert model.represent(data).shape == (8, 3)
    assert model.touched(data).shape == (8, 3)


def test_log_normal_is_torchs() -> None:
    q, z = posterior(3, 2), torch.randn(3, 2)
    wanted = torch.distributions.Normal(q.mean, (0.5 * q.log_variance).exp()).log_prob(z).sum(1)
    assert torch.allclose(log_normal(z, q), wanted, atol=1e-5)


# --- scores ---------------------------------------------------------------------------------------------------------


def test_sliced_score_matching_is_least_at_the_true_score() -> None:
    torch.manual_seed(0)
    x = torch.randn(20_000, 2)

    class Linear(nn.Module):
        def __init__(self, slope: float) -> None:
            super().__init__()
            self.slope = slope

        def forward(self, z: Tensor) -> Tensor:
            return -self.slope * z

    values = []
    for slope in (0.7, 1.0, 1.3):
        torch.manual_seed(1)
        values.append(sliced_loss(Linear(slope), x).item())
    assert values[1] == min(values)
    assert values[1] == pytest.approx(-1.0, abs=0.05)  # -½ tr I for a standard normal of two dimensions


# --- encoders on known factors, read-outs ---------------------------------------------------------------------------


def test_pairs_views_and_environments_share_and_change_what_they_say() -> None:
    world = balls_world(1, 6)
    images = world.examples(np.arange(36))
    index = {bytes(np.asarray(x)): k for k, x in enumerate(images.inputs)}

    def values(x: np.ndarray) -> np.ndarray:
        return images.values[[index[bytes(p)] for p in x]]

    pairs = FromFactors(WeakPairs(), size=50).drawn(images, ew.Run(0))
    changed = (values(pairs.inputs[:, 0]) != values(pairs.inputs[:, 1])).sum(1)
    assert set(changed) == {1}
    views = FromFactors(MultiView(), size=50).drawn(images, ew.Run(0))
    anchor, first = values(views.inputs[0]), values(views.inputs[1])
    assert views.content == ((0, 1), (1,), (0,))
    assert (anchor[:, 1] == first[:, 1]).all()
    made = FromFactors(ContrastiveInterventional(), size=60).drawn(images, ew.Run(0))
    assert made.environment.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    moved = values(made.inputs)
    assert moved[20:40, 0].min() >= 3
    assert moved[40:, 1].min() >= 3


def test_images_of_the_test_part_are_granted_without_labels_and_only_to_who_asks() -> None:
    task = scene_tasks.balls_task(0, split="extrapolation", count=1, values=6, granted="pairs")
    there = task.source.unlabelled["all"]
    assert there.labels is None
    learner = FromFactors(WeakPairs(latents=2, steps=2, batch=8), size=20, everywhere=True)
    assert learner.sees_unlabelled
    assert not FromFactors(WeakPairs()).sees_unlabelled
    learner.fit(task.source)
    hidden = replace(task.source, unlabelled={"all": there.unlabelled()})
    with pytest.raises(UserError, match="granted=pairs"):
        learner.fit(hidden)
    with pytest.raises(UserError, match="nothing or pairs"):
        scene_tasks.balls_task(0, split="random", granted="all")


def scene() -> Task:
    return scene_tasks.balls_interventions(0, size=60)


def test_read_outs_answer_questions_about_the_true_variables() -> None:
    task = scene()
    asked = task.domain("pairs").load().unlabelled()
    told = make_learner("cnn", {"steps": 5, "batch": 16})
    for rule in ("additive", "causal"):
        made = ReadOut(told, rule=rule).fit(task.source).predict(asked)  # type: ignore[arg-type]
        assert len(made.each) == 6
        assert isinstance(made.each[0], Gaussian)
        assert made.each[0].mean.shape == (4,)
    with pytest.raises(UserError, match="head=ridge-regression"):
        ReadOut(Autoencoder(latents=2, steps=1)).fit(task.source)


def test_boosting_reads_several_variables() -> None:
    x = np.random.default_rng(0).normal(size=(200, 2))
    learner = make_learner("boosting", {"rounds": 20}).fit(Source(Examples(x, x[:, ::-1].astype(np.float32))))
    assert learner.predict(Examples(x)).mean.shape == (200, 2)
    assert m.linear_r2(learner.predict(Examples(x)).mean, x[:, ::-1]) > 0.7


def test_grids_of_scenes_have_the_four_splits() -> None:
    for world in (balls_world(1, 6), bench_world(4)):
        assert world.examples(np.array([0, 1])).inputs.dtype == np.uint8
    assert {t.options["split"] for t in scene_tasks.bench_task.expand()} == {"random", "composition", "interpolation", "extrapolation"}


def test_the_pendulum_is_a_task_with_its_graph() -> None:
    task = scene_tasks.pendulum_task(0, size=20, resolution=32)
    model = ContrastiveInterventional(width=8, epochs=1, batch=16, decoded=False).fit(task.source)
    assert model.model.environments == ("observational", "angle", "light", "shadow", "width")
    scores = {metric.name: metric.fn(model, task.domains[0].load()) for metric in task.metrics if metric.of == "learner"}
    assert 0 <= scores["shd"] <= 6


# --- the contracts --------------------------------------------------------------------------------------------------

SMALL: dict[str, tuple[str, dict[str, object]]] = {
    "linear-interventional": ("linear", {}),
    "contrastive-interventional": ("linear", {"width": 8, "epochs": 1, "batch": 64}),
    "principal-components": ("linear", {}),
    "independent-components": ("linear", {}),
    "autoencoder": ("linear", {"latents": 2, "steps": 3, "width": 8}),
    "identifiable-vae": ("linear", {"width": 8, "depth": 1, "epochs": 1}),
    "additive-interventions": ("unseen", {}),
    "nearest-intervention": ("unseen", {}),
    "no-change": ("unseen", {}),
    "conditional-gaussian": ("unseen", {"steps": 5, "width": 8}),
    "intervention-extrapolation": ("actions", {"epochs": 1, "width": 8, "batch": 64}),
    "weak-pairs": ("pairs", {"latents": 3, "steps": 2, "batch": 4}),
    "multi-view": ("views", {"steps": 2, "batch": 16, "width": 4, "depth": 1}),
    "contrastive-inversion": ("box", {"steps": 2, "batch": 16, "width": 4, "depth": 1}),
    "binary-interactions": ("steps", {"latents": 3, "hidden": 4, "width": 8, "epochs": 1, "batch": 64}),
}


def small_task(kind: str) -> Task:
    made: Task = {
        "linear": lambda: tasks.linear_task(0, n=3, d=5, size=200, shifts=True),
        "unseen": lambda: tasks.unseen_pairs(0, n=3, d=5, size=100),
        "actions": lambda: tasks.actions(0, size=200),
        "pairs": lambda: _small_pairs(),
        "views": lambda: tasks.views(0, size=100, layers=1),
        "box": lambda: tasks.box(0, n=2, size=100),
        "steps": lambda: tasks.steps(0, n=2, size=200),
    }[kind]()
    return made


def _small_pairs() -> Task:
    data = scene_tasks.pairs_of_balls(12, 1, np.random.default_rng(0), side=16)
    return Task(Source(data), [Domain("there", data.take(np.arange(6)))], [Metric("n", lambda p, d: float(len(p)))])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_learner_of_the_room_passes_the_check(name: str) -> None:
    kind, options = SMALL[name]
    assert check_learner(make_learner(name, options), small_task(kind)) == []


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_learners_of_learners_pass_the_check() -> None:
    world = balls_world(1, 5)
    images = world.examples(np.arange(25))
    task = Task(Source(images), [Domain("there", images)], [Metric("n", lambda p, d: float(len(p)))])
    encoder = FromFactors(make_learner("weak-pairs", {"latents": 2, "steps": 2, "batch": 4}), size=10)  # type: ignore[arg-type]
    assert check_learner(Probe(encoder, make_learner("ridge-regression", {})), task) == []
    head = make_learner("ridge-regression", {})
    assert check_learner(ReadOut(make_learner("autoencoder", {"latents": 2, "steps": 2}), head), scene()) == []


def test_a_supervised_learner_of_examples_runs_on_every_data_type() -> None:
    for kind in ("linear", "views", "steps"):
        task = small_task(kind)
        assert make_learner("ridge-regression", {}).fit(Source(task.source.train.examples())).predict(task.domains[0].load().examples()).mean.ndim == 2


@pytest.mark.parametrize("name", ["principal-components", "autoencoder"])
def test_unmixing_runs_on_every_data_type(name: str) -> None:
    options = {"latents": 2} if name == "principal-components" else {"latents": 2, "steps": 2, "width": 8}
    for kind in ("linear", "views", "steps", "pairs"):
        task = small_task(kind)
        fitted = make_learner(name, options).fit(task.source)
        assert fitted.represent(task.domains[0].load()).shape == (len(task.domains[0].load()), 2)


def test_catalogued_names_make_learners() -> None:
    for name in SMALL:
        assert make_learner(name, {}) is not None
    assert build("interventional-odds", shape=[1, 16, 16], head=False, latents=2, architecture="keypoints")(torch.zeros(2, 1, 16, 16)).shape == (2, 2)


# --- as parts of somebody else's loop -------------------------------------------------------------------------------


def test_losses_and_networks_work_in_a_plain_pytorch_loop() -> None:
    torch.manual_seed(0)
    data = worlds.nonlinear_world(2, d=4).environments(300, np.random.default_rng(0))
    x, env = torch.tensor(data.inputs, dtype=torch.float32), torch.tensor(data.environment)
    network = InterventionalOdds(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)), 2)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    batch = Told(x[env == 0], torch.arange(300) % 2, x[env > 0][:300], env[env > 0][:300] - 1)
    first = last = 0.0
    for step in range(40):
        loss = contrastive_loss(network, batch, 0.1, 1e-4, 1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        first, last = (loss.item(), last) if step == 0 else (first, loss.item())
    assert last < first
    views = [code([3], 2, width=8)(torch.randn(6, 3)) for _ in range(2)]
    alignment_and_entropy(torch.cat(views, 1), torch.cat(views, 1), shared_blocks([(0, 1)], [[[0], [0]]], [0, 2])).backward()


def test_latents_are_features_in_a_scikit_learn_pipeline() -> None:
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    world = worlds.linear_gaussian_world(3, 6, shifts=True)
    data = world.environments(500, np.random.default_rng(0))
    model = LinearInterventional().fit(Source(data))
    pipeline = make_pipeline(FunctionTransformer(model.encode), Ridge()).fit(data.inputs, data.latents[:, 0])
    assert pipeline.score(data.inputs, data.latents[:, 0]) > 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_codes_are_those_of_the_processor() -> None:
    data = worlds.nonlinear_world(2, d=4).environments(300, np.random.default_rng(0))
    there = ContrastiveInterventional(width=16, epochs=5, decoded=False).fit(Source(data), ew.Run(device="cuda"))
    here = ContrastiveInterventional(width=16, epochs=5, decoded=False).fit(Source(data), ew.Run(device="cpu"))
    assert np.abs(np.corrcoef(there.encode(data.inputs).T, here.encode(data.inputs).T)[:2, 2:]).max(1).min() > 0.9


def test_saved_models_answer_the_same(tmp_path: Path) -> None:
    data = worlds.nonlinear_world(2, d=4).environments(60, np.random.default_rng(0))
    model = ContrastiveInterventional(width=8, epochs=1, batch=32).fit(Source(data))
    model.save(tmp_path / "m")
    loaded = ew.load(tmp_path / "m")
    assert np.allclose(loaded.do("env_1", 5), model.do("env_1", 5))
    asked = Interventions((("env_1", "env_2"),), size=4)
    assert loaded.predict(asked).to_frame().equals(model.predict(asked).to_frame())
