"""Variational parts, pairs, the four encoders, and networks with something built in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import chisquare, norm

import elsewhere as ew
from elsewhere.assay.study import make_learner, parse_learner
from elsewhere.checks import check_learner
from elsewhere.data import Examples
from elsewhere.errors import NotOffered, UserError
from elsewhere.factors.task import factor_task
from elsewhere.images.disentanglement import AdaGvae, BetaVae, Pcl, SlowVae
from elsewhere.images.worlds import sprites
from elsewhere.metrics import classification_metrics
from elsewhere.nn import variational as v
from elsewhere.nn.building import build
from elsewhere.nn.geometric import turned
from elsewhere.nn.pairs import Pairs
from elsewhere.task import Domain, Task

QUICK = {"steps": 3, "batch": 8}


def head() -> ew.Learner:
    return make_learner("mlp", {"steps": 3, "width": 8})


def posterior(n: int = 6, d: int = 4, seed: int = 0) -> v.Gaussian:
    generator = torch.Generator().manual_seed(seed)
    return v.Gaussian(*(torch.randn(n, d, generator=generator, dtype=torch.float64) for _ in range(2)))


def test_divergence_is_torchs() -> None:
    q = posterior()
    normal = torch.distributions.Normal(q.mean, (0.5 * q.log_variance).exp())
    wanted = torch.distributions.kl_divergence(normal, torch.distributions.Normal(torch.zeros(()), torch.ones(()))).sum(1)
    assert torch.allclose(v.kl_to_normal(q), wanted, atol=1e-6)


@pytest.mark.parametrize(("m", "sigma", "rate"), [(0.0, 1.0, 6.0), (0.7, 0.3, 6.0), (-2.0, 0.05, 1.0), (1.5, 2.0, 0.5)])
def test_cross_entropy_to_laplace_is_the_integral(m: float, sigma: float, rate: float) -> None:
    def integrand(z: float) -> float:
        return norm.pdf(z, m, sigma) * (-np.log(rate / 2) + rate * abs(z))

    wanted = sum(quad(integrand, a, b, limit=200)[0] for a, b in ((m - 12 * sigma, min(0, m + 12 * sigma)), (max(0, m - 12 * sigma), m + 12 * sigma)) if a < b)
    if m - 12 * sigma > 0 or m + 12 * sigma < 0:
        wanted = quad(integrand, m - 12 * sigma, m + 12 * sigma)[0]
    told = v.laplace_cross_entropy(torch.tensor(m, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64), rate)
    assert told.item() == pytest.approx(wanted, abs=1e-6)


def test_two_equal_pictures_share_every_latent_and_nothing_changes() -> None:
    q = posterior(3)
    pairs = v.Gaussian(q.mean.repeat_interleave(2, 0), q.log_variance.repeat_interleave(2, 0))
    assert v.shared_latents(q, q).all()
    made = v.averaged_pairs(pairs)
    assert torch.allclose(made.mean, pairs.mean)
    assert torch.allclose(made.log_variance, pairs.log_variance)


def test_ada_gvae_averages_what_is_below_half_way() -> None:
    q = posterior(2, 5, seed=3)
    a, b = (torch.distributions.Normal(q.mean[k], (0.5 * q.log_variance[k]).exp()) for k in (0, 1))
    delta = 2 * torch.distributions.kl_divergence(a, b)
    shared = delta <= (delta.max() + delta.min()) / 2
    made = v.averaged_pairs(q)
    assert shared.any()
    assert not shared.all()
    for k in (0, 1):
        assert torch.allclose(made.mean[k], torch.where(shared, q.mean.mean(0), q.mean[k]))
        assert torch.allclose(made.log_variance[k].exp(), torch.where(shared, q.log_variance.exp().mean(0), q.log_variance[k].exp()))


def test_losses_are_their_formulas() -> None:
    q = posterior(4, 3, seed=1)
    x, logits = torch.rand(4, 1, 8, 8, dtype=torch.float64), torch.randn(4, 1, 8, 8, dtype=torch.float64)
    p = torch.sigmoid(logits)
    r = float(-(x * p.log() + (1 - x) * (1 - p).log()).sum() / 4)
    made, s2, m = v.Coded(logits, q), q.log_variance.exp(), q.mean
    kl = (0.5 * (m**2 + s2 - 1 - q.log_variance)).sum(1)
    assert v.beta_vae_loss(made, x, 3.0).item() == pytest.approx(r + 3 * kl.mean().item())
    k = (s2 + m**2 - 1 - q.log_variance).sum(1)  # twice the divergence, of both pictures of a pair
    assert v.ada_gvae_loss(made, x, 1.0).item() == pytest.approx(r + ((k[0] + k[1]) + (k[2] + k[3])).item() / 2)
    entropy = (0.5 * (q.log_variance + np.log(2 * np.pi * np.e))).sum(1).mean()
    normal = (0.5 * (m**2 + s2) + 0.5 * np.log(2 * np.pi)).sum(1).mean()
    sigma = s2.sqrt()
    pairs = [v.laplace_cross_entropy(m[i] - m[j], sigma[i], 6.0).sum() for i, j in ((0, 1), (1, 0), (2, 3), (3, 2))]
    wanted = 2 * r + (normal - entropy) + 10 * (sum(pairs) / 2 - entropy)
    assert v.slow_vae_loss(made, x, 1.0, 10.0, 6.0).item() == pytest.approx(wanted.item())


def test_pcl_scores_true_pairs_against_the_pair_before() -> None:
    torch.manual_seed(0)
    network = v.contrast([1, 32, 32], latent=3)
    with torch.no_grad():
        for p in (network.a, network.b, network.c, network.m):
            p.add_(torch.randn_like(p))
        x = torch.rand(6, 1, 32, 32)
        h = network.encoder(x)[:, :3]
        r = lambda t, s: -(network.a * h[t] + network.b * h[s] + network.c).abs().sum() + (h[t] ** 2).sum() + network.m  # noqa: E731
        wanted = torch.stack([r(1, 0), r(3, 2), r(5, 4), r(1, 4), r(3, 0), r(5, 2)])
        assert torch.allclose(network(x), wanted, atol=1e-5)
    scores = torch.tensor([2.0, -1.0])
    assert v.contrast_loss(scores).item() == pytest.approx((np.log1p(np.exp(-2)) + np.log1p(np.exp(-1))) / 2)


def test_encoder_and_decoder_have_the_reference_shapes() -> None:
    network = v.vae([3, 64, 64])
    shapes = [tuple(p.shape) for n, p in network.named_parameters() if n.endswith("weight")]
    assert shapes[:4] == [(32, 3, 4, 4), (32, 32, 4, 4), (64, 32, 4, 4), (64, 64, 4, 4)]
    assert (256, 64 * 16) in shapes
    assert (20, 256) in shapes
    assert network(torch.zeros(2, 3, 64, 64)).logits.shape == (2, 3, 64, 64)
    small = v.vae([1, 32, 32])
    assert [tuple(p.shape[:2]) for n, p in small.named_parameters() if n.endswith("weight")][:3] == [(32, 1), (64, 32), (64, 64)]
    assert all(float(p.detach().abs().max()) == 0 for n, p in small.named_parameters() if n.endswith("bias"))


# --- pairs ----------------------------------------------------------------------------------------------------------

SIZES = (3, 4, 5)
GRID = np.stack(np.unravel_index(np.arange(60), SIZES), 1)


def naive_changed(values: np.ndarray, row: int, k: int, rng: np.random.Generator, sizes: tuple[int, ...] = SIZES, index: dict | None = None) -> int:
    """One pair at a time, as the reference builds it."""
    index = {tuple(f): i for i, f in enumerate(values.tolist())} if index is None else index
    now, left = list(values[row]), k
    for i in rng.permutation(len(sizes)):
        if not left:
            break
        options = [u for u in range(sizes[i]) if u != now[i] and (*now[:i], u, *now[i + 1 :]) in index]
        if options:
            now[i] = int(rng.choice(options))
            left -= 1
    return index[tuple(now)]


def naive_walk(values: np.ndarray, row: int, rate: float, rng: np.random.Generator, sizes: tuple[int, ...], index: dict) -> int:
    """One Laplace walk at a time: for each factor the available values and their density, as the reference builds them."""
    now = list(values[row])
    for i in range(1, len(sizes)):
        available = np.array([u for u in range(sizes[i]) if (*now[:i], u, *now[i + 1 :]) in index])
        density = np.exp(-np.abs(available - now[i]) * rate / np.log(sizes[i]))
        now[i] = int(rng.choice(available, p=density / density.sum()))
    return index[tuple(now)]


@pytest.mark.parametrize("k", [1, 2])
def test_changed_pairs_have_the_distribution_of_the_naive_ones(k: int) -> None:
    values = GRID[np.random.default_rng(5).permutation(60)[:35]]  # a grid with holes
    pairs, rng, n = Pairs(values, SIZES), np.random.default_rng(0), 20_000
    for row in (0, 7):
        fast = np.bincount(pairs.changed(np.full(n, row), k, rng), minlength=35)
        slow = np.bincount([naive_changed(values, row, k, rng) for _ in range(n // 4)], minlength=35)
        assert set(np.flatnonzero(slow)) <= set(np.flatnonzero(fast))
        kept = fast > 20
        expected = fast[kept] / fast[kept].sum() * slow[kept].sum()
        assert chisquare(slow[kept], expected).pvalue > 1e-3


def test_large_grids_are_searched_and_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from elsewhere.nn import pairs as module

    values = GRID[np.random.default_rng(5).permutation(60)[:35]]
    dense = Pairs(values, SIZES).changed(np.arange(35), 2, np.random.default_rng(1))
    monkeypatch.setattr(module, "DENSE", 0)
    searched = Pairs(values, SIZES)
    assert searched.table is None
    assert (searched.changed(np.arange(35), 2, np.random.default_rng(1)) == dense).all()


def test_random_k_changes_one_to_all_but_one() -> None:
    pairs = Pairs(GRID, SIZES)
    rows = np.arange(60).repeat(50)
    changed = (GRID[pairs.changed(rows, "random", np.random.default_rng(0))] != GRID[rows]).sum(1)
    assert set(changed) == {1, 2}
    assert abs((changed == 1).mean() - 0.5) < 0.03


def test_walks_follow_the_laplace_weights_among_what_exists() -> None:
    values = GRID[(GRID[:, 2] != 3) | (GRID[:, 0] > 0)]
    pairs = Pairs(values, SIZES, unordered=(0,))
    row, n = int(np.flatnonzero((values == [0, 1, 2]).all(1))[0]), 40_000
    drawn = values[pairs.walked(np.full(n, row), 1.0, np.random.default_rng(0))]
    assert (drawn[:, 0] == 0).all()  # what has no order does not walk
    weight = np.exp(-np.abs(np.arange(4) - 1) / np.log(4))
    assert chisquare(np.bincount(drawn[:, 1], minlength=4), n * weight / weight.sum()).pvalue > 1e-3
    exists = np.array([1, 1, 1, 0, 1])
    weight = exists * np.exp(-np.abs(np.arange(5) - 2) / np.log(5))
    counts = np.bincount(drawn[:, 2], minlength=5)
    assert counts[3] == 0
    assert chisquare(counts[exists > 0], (n * weight / weight.sum())[exists > 0]).pvalue > 1e-3


def test_walks_have_the_distribution_of_the_naive_ones() -> None:
    values = GRID[np.random.default_rng(5).permutation(60)[:40]]
    index = {tuple(f): i for i, f in enumerate(values.tolist())}
    pairs, rng, n = Pairs(values, SIZES, unordered=(0,)), np.random.default_rng(0), 20_000
    fast = np.bincount(pairs.walked(np.full(n, 3), 1.0, rng), minlength=40)
    slow = np.bincount([naive_walk(values, 3, 1.0, rng, SIZES, index) for _ in range(n // 4)], minlength=40)
    kept = fast > 20
    assert chisquare(slow[kept], fast[kept] / fast[kept].sum() * slow[kept].sum()).pvalue > 1e-3


def test_an_example_without_partner_is_its_own_and_many_are_an_error() -> None:
    lonely = Pairs(np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2]]), SIZES)
    assert lonely.changed(np.arange(3), 1, np.random.default_rng(0)).tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="3 of 3 examples have no partner"):
        lonely.check()
    with pytest.raises(UserError, match="no partner"):
        AdaGvae(head=None, **QUICK).fit(ew.Source(sprites().examples(np.array([0, 20_000, 46_000]))))


# --- learners -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BetaVae, AdaGvae, SlowVae, Pcl])
def test_encoders_pass_the_check_of_learners(kind: type) -> None:
    task = factor_task(sprites(orientations=1), "random", 0)
    assert check_learner(kind(head=head(), **QUICK), task) == []


def test_an_encoder_is_fitted_once_and_shared_by_its_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits = []
    original = BetaVae.draw
    monkeypatch.setattr(BetaVae, "draw", lambda self, data, run: (fits.append(1), original(self, data, run))[1])
    learners = [BetaVae(head=head(), **QUICK), BetaVae(head=make_learner("ridge-regression", {}), **QUICK), make_learner("probe", {"encoder": BetaVae(head=None, **QUICK), "head": head()})]
    named = [ew.named(f"n{k}", m) for k, m in enumerate(learners)]
    result = ew.assay("sprites:split=random,train_images=100", learners=named, seeds=1, out=tmp_path / "r")
    assert (result.trials().status == "done").all()
    assert len(fits) == 1


def test_encoders_alone_represent_and_predict_nothing() -> None:
    data = sprites().examples(np.arange(0, 46080, 500))
    fitted = BetaVae(head=None, **QUICK).fit(ew.Source(data))
    assert fitted.represent(data).shape == (len(data), 10)
    assert (fitted.represent(data) == fitted.represent(data)).all()  # the mean, never a sample
    with pytest.raises(NotOffered, match="an encoder alone"):
        fitted.predict(data)
    with pytest.raises(UserError, match="even number"):
        Pcl(head=None, steps=1, batch=5).fit(ew.Source(data))


def test_pairs_need_known_factors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it needs FactorImages, and the data are Examples"):
        ew.assay("digits/shifts", learners=["ada-gvae"], seeds=1, out=tmp_path / "r")


def test_a_loss_is_a_plain_torch_loss_in_somebody_elses_loop() -> None:
    torch.manual_seed(0)
    network, x = v.vae([1, 16, 16], latent=2), torch.rand(8, 1, 16, 16)
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = v.ada_gvae_loss(network(x, v.averaged_pairs), x, 1.0)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# --- networks with something built in -------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [32, 64])
def test_quarter_turns_give_the_same_features(side: int) -> None:
    torch.manual_seed(0)
    network = build("rotation-equivariant", shape=[2, side, side], head=False)
    x = torch.rand(3, 2, side, side)
    features = network(x)
    for k in (1, 2, 3):
        assert torch.allclose(network(torch.rot90(x, k, (2, 3))), features, atol=1e-4)
    assert not torch.allclose(network(x.flip(3)), features, atol=1e-3)  # a mirrored picture is another


def test_kernels_turn_with_their_orientations() -> None:
    kernel = torch.randn(2, 3, 4, 4, 4)
    made = turned(kernel).view(2, 4, 3, 4, 4, 4)
    assert torch.equal(made[:, 0], kernel)
    assert torch.equal(made[:, 1], torch.rot90(kernel.roll(1, 2), 1, (3, 4)))


def test_a_spatial_transformer_begins_as_its_encoder() -> None:
    torch.manual_seed(0)
    network = build("spatial-transformer", shape=[1, 32, 32], head=False)
    x = torch.rand(2, 1, 32, 32)
    assert torch.allclose(network(x), network.encoder(x), atol=1e-4)


def test_coordinates_are_seen() -> None:
    torch.manual_seed(0)
    for name in ("coordconv", "coordinate-mlp"):
        network = build(name, shape=[1, 16, 16], head=False)
        x = torch.zeros(2, 1, 16, 16)
        x[0, 0, 2, 3], x[1, 0, 9, 12] = 1, 1
        first, second = network(x)
        assert not torch.allclose(first, second)
    with pytest.raises(UserError, match="turned grid"):
        build("rotation-equivariant", shape=[1, 28, 28])


LEARNERS = ["cnn", "coordconv", "coordinate-mlp", "rotation-equivariant", "spatial-transformer", "mlp", "beta-vae", "ada-gvae", "slow-vae", "pcl"]
BACKBONES = ["torchvision:densenet121", "torchvision:resnet18", "vit"]


@pytest.mark.slow
def test_every_learner_reads_factors_in_one_smoke_trial(tmp_path: Path) -> None:
    plain = [make_learner(name, {"steps": 2, "batch": 8, **({"head": head()} if name in ("beta-vae", "ada-gvae", "slow-vae", "pcl") else {})}) for name in LEARNERS]
    tuned = [make_learner("fine-tune", {"backbone": name, "steps": 1, "batch": 4}) for name in BACKBONES]
    frozen = make_learner("linear-probe", {"backbone": "random-conv", "steps": 2})
    named = [ew.named(f"{k} {type(m).__name__}", m) for k, m in enumerate([*plain, *tuned, frozen])]
    whole = factor_task(sprites(orientations=1), "random", 0)
    small = Task(whole.source, [Domain(d.name, d.load().take(np.arange(40)), d.role) for d in whole.domains], whole.metrics)
    result = ew.assay(ew.named("few", small), learners=named, seeds=1, out=tmp_path / "r")
    assert result.trials().status.tolist() == ["done"] * len(named), set(result.trials().reason)


@pytest.mark.parametrize("name", ["cnn:augment=augmix", "coordconv", "coordinate-mlp", "rotation-equivariant", "spatial-transformer", "fine-tune:backbone=small-cnn,augment=randaugment"])
def test_learners_of_pictures_pass_the_check(name: str) -> None:
    learner = parse_learner(f"{name}{',' if ':' in name else ':'}steps=2,batch=8").learner
    assert check_learner(learner, factor_task(sprites(16, orientations=1), "random", 0, train_images=60)) == []
    rng = np.random.default_rng(0)
    data = Examples(rng.integers(0, 256, (40, 3, 16, 16), dtype=np.uint8), np.arange(40) % 2, {}, ("a", "b"))
    task = Task(ew.Source(data), [Domain("home", data, "home")], classification_metrics())
    assert check_learner(learner, task) == []


def test_several_numbers_an_example_are_learnt_at_once() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 4)).astype(np.float32)
    y = np.stack([x[:, 0], 3 * x[:, 1] + 5], 1)
    data = Examples(x, y)
    for name in ("mlp", "ridge-regression", "nearest-neighbours", "linear-probe", "prior"):
        predicted = make_learner(name, {"steps": 300} if name in ("mlp", "linear-probe") else {}).fit(ew.Source(data)).predict(data)
        assert predicted.mean.shape == (600, 2)
        if name in ("mlp", "ridge-regression", "linear-probe"):
            assert np.square(predicted.mean - y).mean() < 0.3
    assert list(predicted.to_frame().columns) == ["mean_0", "mean_1"]
