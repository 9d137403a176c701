"""The training loop: resumed equals unbroken, parts equal wholes, two processes equal one, adversaries, what is not finite."""

from __future__ import annotations

import copy
import dataclasses
import math
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import elsewhere as ew
from elsewhere import training
from elsewhere.batching import batches, order, pieces, share_of
from elsewhere.nn import build
from elsewhere.run import Run
from elsewhere.saving import from_bytes, to_bytes
from elsewhere.training import Backward, Descent, WeightAverage, adam, cosine, sgd, stepwise, train


class Broken(Exception):
    pass


@pytest.fixture
def pictures() -> ew.Examples:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 1, 12, 12)).astype(np.float32)
    return ew.Examples(x, (x.mean((1, 2, 3)) > 0).astype(int), classes=("dark", "light"))


def network(data: ew.Examples, dropout: bool = False) -> nn.Module:
    torch.manual_seed(1)
    return build("mlp", like=data, width=16, dropout=0.3) if dropout else build("small-cnn", like=data, width=8)


def cross_entropy(module: Any, batch: Any) -> Tensor:
    return functional.cross_entropy(module(batch.inputs).logits, batch.labels)


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def largest_difference(a: nn.Module, b: nn.Module) -> float:
    return max(float((p - q).abs().max()) for p, q in zip(weights(a), weights(b), strict=True))


def descent(data: ew.Examples, dropout: bool = True, **more: Any) -> Descent:
    return Descent(network(data, dropout), cross_entropy, adam(1e-2, 0.1), cosine(20, warm_up=3), **more)


@pytest.mark.parametrize("stop", [1, 7, 19])
@pytest.mark.parametrize("average", [None, 0.9, 1.0])
def test_a_resumed_training_ends_with_the_same_bits(pictures: ew.Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int, average: float | None) -> None:
    held = pictures.take(range(50))

    def go(run: Run, breaks: int | None = None) -> tuple[nn.Module, Any]:
        stepper = descent(pictures, clip=0.5, average=average)
        draw = batches(pictures, run, 32)

        def broken(step: int) -> Any:
            if step == breaks:
                raise Broken
            return draw(step)

        def validation() -> float:
            with torch.no_grad():
                return float(functional.cross_entropy(stepper.module(torch.from_numpy(held.inputs)).logits, torch.from_numpy(held.labels)))

        history = train(stepper, broken, run, steps=20, evaluate=validation, every=4, patience=3)
        return stepper.module, history

    whole, history = go(Run(3))
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Broken):
        go(Run(3, folder=tmp_path, trial="t"), breaks=stop)
    resumed, again = go(Run(3, folder=tmp_path, trial="t"))
    assert all(torch.equal(p, q) for p, q in zip(weights(whole), weights(resumed), strict=True))
    assert again.points == history.points
    assert again.best == history.best


def test_a_finished_training_is_not_done_again_when_the_next_one_of_its_run_breaks(pictures: ew.Examples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    seen = []

    def go(run: Run, breaks: bool) -> nn.Module:
        first, second = descent(pictures), descent(pictures)
        draw = batches(pictures, run, 32)
        train(first, lambda step: (seen.append(step), draw(step))[1], run, steps=5)
        if breaks:
            raise Broken
        train(second, draw, run, steps=5)
        return first.module

    with pytest.raises(Broken):
        go(Run(folder=tmp_path, trial="t"), True)
    run = Run(folder=tmp_path, trial="t")
    module = go(run, False)
    assert seen == [0, 1, 2, 3, 4]
    assert largest_difference(module, go(Run(), False)) == 0
    run.forget()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_ctrl_c_finishes_the_step_and_keeps_it(pictures: ew.Examples, tmp_path: Path) -> None:
    seen: list[int] = []
    draw = batches(pictures, Run(), 32)

    def interrupted(step: int) -> Any:
        seen.append(step)
        if step == 11 and len(seen) == 12:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(step)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(descent(pictures), interrupted, Run(folder=tmp_path, trial="t"), steps=20)
    assert signal.getsignal(signal.SIGINT) is before
    stepper, whole = descent(pictures), descent(pictures)
    train(stepper, interrupted, Run(folder=tmp_path, trial="t"), steps=20)
    assert seen == list(range(20))
    train(whole, draw, Run(), steps=20)
    assert largest_difference(stepper.module, whole.module) == 0


@pytest.mark.parametrize("damage", ["cut", "half"])
def test_a_checkpoint_that_does_not_fit_leaves_nothing_behind(pictures: ew.Examples, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "checkpoints" / "t-0.safetensors"
    path.parent.mkdir()
    other = {k: v + 1 for k, v in descent(pictures).module.state_dict().items()}
    path.write_bytes(b"cut" if damage == "cut" else to_bytes({"parts": {"module": other}}))  # "half": weights, and no optimiser
    found, fresh = descent(pictures), descent(pictures)
    train(found, batches(pictures, Run(), 32), Run(folder=tmp_path, trial="t"), steps=3)
    train(fresh, batches(pictures, Run(), 32), Run(), steps=3)
    assert largest_difference(found.module, fresh.module) == 0


def test_a_trial_that_fails_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    result = ew.assay("penguins", learners=["mlp:steps=9,learning_rate=1e30,clip=1.0", "mlp:steps=9,clip=1.0"], seeds=1, out=tmp_path / "r")
    result.fitted(result.trials().query("status == 'done'").trial.iloc[0])
    assert sorted(result.trials().status) == ["done", "failed"]
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_batch_may_be_a_frozen_dataclass(pictures: ew.Examples) -> None:
    @dataclasses.dataclass(frozen=True)
    class Pair:
        first: Tensor
        second: Tensor
        share: Tensor

    module = nn.Linear(1, 1)
    pair = Pair(torch.ones(6, 1), torch.zeros(6, 1), torch.tensor(0.5))
    stepper = Descent(module, lambda m, b: (b.share * m(b.first) - m(b.second)).square().mean(), sgd(0.1), accumulate=2)
    assert train(stepper, lambda step: pair, steps=2).steps == 2


def test_a_batch_in_parts_gives_the_same_step(pictures: ew.Examples) -> None:
    found = []
    for parts in (1, 4):
        stepper = Descent(network(pictures), cross_entropy, sgd(0.1), accumulate=parts)
        train(stepper, batches(pictures, Run(), 30), Run(), steps=5)
        found.append(stepper.module)
    assert largest_difference(*found) < 1e-6


def test_the_mean_of_all_weights_is_their_mean() -> None:
    module, average = nn.Linear(2, 1), WeightAverage(1.0)
    seen = []
    for k in range(5):
        with torch.no_grad():
            module.weight.fill_(float(k**2))
        average.update(module)
        seen.append(float(k**2))
    average.swap(module)
    assert module.weight[0, 0].item() == pytest.approx(np.mean(seen))


def test_an_exponential_average_is_the_bias_corrected_sum() -> None:
    module, average, decay = nn.Linear(1, 1), WeightAverage(0.7), 0.7
    values = [1.0, 4.0, -2.0, 3.0]
    for v in values:
        with torch.no_grad():
            module.weight.fill_(v)
        average.update(module)
    share = np.array([decay ** (len(values) - 1 - k) for k in range(len(values))])
    average.swap(module)
    assert module.weight[0, 0].item() == pytest.approx(float((share * values).sum() / share.sum()), abs=1e-6)


def test_the_kept_weights_are_the_averaged_ones(pictures: ew.Examples) -> None:
    stepper = descent(pictures, average=1.0)
    seen: list[Tensor] = []
    draw = batches(pictures, Run(), 32)

    def watched(step: int) -> Any:
        if step:
            seen.append(weights(stepper.module)[0])
        return draw(step)

    train(stepper, watched, Run(), steps=6)
    plain = descent(pictures)
    train(plain, draw, Run(), steps=6)
    assert torch.allclose(weights(stepper.module)[0], torch.stack([*seen, weights(plain.module)[0]]).mean(0), atol=1e-6)


def test_schedules_follow_their_formulas() -> None:
    steps = 40
    for make, formula in (
        (cosine(steps), lambda k: 0.5 * (1 + math.cos(math.pi * k / steps))),
        (cosine(steps, warm_up=10), lambda k: (k + 1) / 10 if k < 10 else 0.5 * (1 + math.cos(math.pi * (k - 10) / 30))),
        (stepwise(steps), lambda k: 0.1 ** sum(k >= round(a * steps) for a in (0.3, 0.6, 0.9))),
    ):
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
        schedule = make(optimizer)
        for k in range(steps):
            assert optimizer.param_groups[0]["lr"] == pytest.approx(2.0 * formula(k))
            optimizer.step()
            schedule.step()


def test_a_gradient_is_clipped_to_its_norm() -> None:
    module = nn.Linear(1, 1, bias=False)
    start = float(module.weight.detach())
    train(Descent(module, lambda m, x: 1000 * m(x).mean(), sgd(1.0, momentum=0.0), clip=0.25), lambda step: torch.ones(4, 1), Run(), steps=1)
    assert float(module.weight.detach()) == pytest.approx(start - 0.25, abs=1e-5)


def test_early_stopping_keeps_the_best_weights() -> None:
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0.0)
    losses = iter([3.0, 2.0, 1.0, 5.0, 5.0, 0.0])
    history = train(Descent(module, lambda m, x: -m(x).mean(), sgd(1.0, momentum=0.0)), lambda step: torch.ones(1, 1), Run(), steps=60, evaluate=lambda: next(losses), every=10, patience=2)
    assert history.stopped
    assert (history.best, history.steps) == (30, 50)
    assert float(module.weight.detach()) == 30.0  # one a step: the weights of step 30


def test_a_loss_that_is_not_finite_stops_with_step_and_advice() -> None:
    def loss(module: Any, batch: Tensor) -> Tensor:
        return module(batch).mean() * (float("nan") if float(batch[0]) == 4 else 1)

    with pytest.raises(ew.UserError, match=r"loss is nan at step 5 of 9 of trial abc: try a lower learning_rate, or clip"):
        train(Descent(nn.Linear(1, 1), loss, sgd(0.1)), lambda step: torch.full((1, 1), float(step)), Run(trial="abc"), steps=9)


def test_a_diverged_trial_fails_and_its_study_goes_on(tmp_path: Path) -> None:
    learners = ["mlp:steps=20,learning_rate=1e30", "mlp:steps=20", "mlp:steps=20,learning_rate=1e30,clip=1.0,average=0.5"]
    result = ew.assay("penguins", learners=learners, seeds=1, out=tmp_path / "r")
    told = result.trials().set_index("learner")
    assert told.status.to_dict() == {learners[0]: "failed", learners[1]: "done", learners[2]: "failed"}
    assert "try a lower learning_rate" in told.reason[learners[0]]
    assert told.index[0] is not None
    assert f"of trial {told.trial[learners[0]]}" in told.reason[learners[0]]


def test_curves_reach_the_result(tmp_path: Path) -> None:
    result = ew.assay("penguins", learners=["mlp:steps=10", "mlp:steps=10,patience=3"], seeds=1, out=tmp_path / "r")
    history = result.history().merge(result.trials()[["trial", "learner"]], on="trial")
    assert set(history[history.learner == "mlp:steps=10"].name) == {"loss"}
    assert set(history[history.learner != "mlp:steps=10"].name) == {"loss", "validation loss"}
    assert history.step.max() == 10


def test_long_work_says_how_long_is_left(pictures: ew.Examples, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(0, 1000, 0.4))
    monkeypatch.setattr(training.time, "monotonic", lambda: float(next(clock)))
    said: list[str] = []
    train(descent(pictures), batches(pictures, Run(), 32), Run(progress=said.append), steps=20)
    assert any("of 20, loss" in line and "left" in line for line in said)


def test_training_leaves_torchs_randomness_alone(pictures: ew.Examples) -> None:
    stepper = descent(pictures)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(stepper, batches(pictures, Run(), 32), Run(), steps=2)
    assert torch.equal(torch.rand(3), expected)


class Gan:
    """A small generator and its critic: two optimisers, three backward passes a step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))
        self.critic = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 1))
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), 2e-3, betas=(0.5, 0.9))
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), 2e-3, betas=(0.5, 0.9))

    def parts(self) -> Mapping[str, Any]:
        return {name: getattr(self, name) for name in ("generator", "critic", "generator_optimizer", "critic_optimizer")}

    def step(self, batch: Tensor, backward: Backward) -> Mapping[str, Tensor]:
        made = self.generator(torch.randn(len(batch), 2))
        self.critic_optimizer.zero_grad()
        critic = functional.softplus(-self.critic(batch)).mean() + functional.softplus(self.critic(made.detach())).mean()
        backward(critic)
        self.critic_optimizer.step()
        self.generator_optimizer.zero_grad()
        generator = functional.softplus(-self.critic(made)).mean()
        backward(generator)
        self.generator_optimizer.step()
        return {"critic": critic.detach(), "generator": generator.detach()}


def test_a_gan_learns_where_its_data_lie_and_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def real(step: int) -> Tensor:
        return 3 + 0.5 * torch.randn(64, 1, generator=torch.Generator().manual_seed(step))

    whole = Gan()
    history = train(whole, real, Run(), steps=400)
    assert {name for _, name, _ in history.points} == {"critic", "generator"}
    assert abs(whole.generator(torch.randn(500, 2)).mean().item() - 3) < 0.7
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)

    def broken(step: int) -> Tensor:
        if step == 150:
            raise Broken
        return real(step)

    with pytest.raises(Broken):
        train(Gan(), broken, Run(folder=tmp_path, trial="gan"), steps=400)
    resumed = Gan()
    train(resumed, real, Run(folder=tmp_path, trial="gan"), steps=400)
    assert largest_difference(whole.generator, resumed.generator) == 0
    assert largest_difference(whole.critic, resumed.critic) == 0


class Reverse(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return -gradient


def test_a_gradient_reversal_net_forgets_the_domain_and_keeps_the_label() -> None:
    rng = np.random.default_rng(0)
    label, domain = rng.integers(0, 2, 2000), rng.integers(0, 2, 2000)
    x = torch.from_numpy(np.c_[2 * label - 1, 2 * domain - 1, np.zeros(2000)] + 0.5 * rng.normal(size=(2000, 3))).float()
    y, place = torch.from_numpy(label), torch.from_numpy(domain)

    class Adversarial(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(3, 2)
            self.label, self.domain = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            z = self.body(x)
            return self.label(z), self.domain(Reverse.apply(z))

    def loss(weight: float) -> Any:
        def of(network: Any, batch: Any) -> Tensor:
            label, domain = network(batch["x"])
            return functional.cross_entropy(label, batch["y"]) + weight * functional.cross_entropy(domain, batch["d"])

        return of

    rows = order(2000, Run(), 128)
    told = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        net = Adversarial()
        train(Descent(net, loss(weight), adam(1e-2)), lambda step: {"x": x[rows(step)], "y": y[rows(step)], "d": place[rows(step)]}, Run(), steps=400)
        with torch.no_grad():
            z = net.body(x).numpy()
            right = float((net(x)[0].argmax(1) == y).float().mean())
        from sklearn.linear_model import LogisticRegression

        told[weight] = (right, LogisticRegression().fit(z[:1000], domain[:1000]).score(z[1000:], domain[1000:]))
    assert min(told[0.0][0], told[1.0][0]) > 0.93
    assert told[0.0][1] > 0.8
    assert told[1.0][1] < 0.65


@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_every_epoch_sees_every_row_once(n: int, size: int, seed: int) -> None:
    rows = order(n, Run(seed), size)
    stream = torch.cat([rows(step) for step in range(3 * n // size + 1)])
    for epoch in range(len(stream) // n):
        assert sorted(stream[epoch * n : (epoch + 1) * n].tolist()) == list(range(n))


def test_a_batch_depends_on_seed_and_step_alone(pictures: ew.Examples) -> None:
    first, second = batches(pictures, Run(4), 48), batches(pictures, Run(4), 48)
    for step in (9, 2, 9, 40):
        assert torch.equal(first(step).rows, second(step).rows)
    assert not torch.equal(first(0).rows, batches(pictures, Run(5), 48)(0).rows)


@given(st.integers(2, 50), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_pieces_and_shares_hold_every_example_once(n: int, count: int) -> None:
    batch = (torch.arange(n), {"also": torch.arange(n) * 2})
    parts = list(pieces(batch, count))
    assert torch.cat([p[0] for p, _ in parts]).tolist() == list(range(n))
    assert sum(share for _, share in parts) == pytest.approx(1)
    world = min(count, n)
    shares = [share_of(batch, rank, world) for rank in range(world)]
    assert sorted(torch.cat([s[0] for s, _ in shares]).tolist()) == list(range(n))
    means = [float(s[0].float().mean()) * factor for s, factor in shares]
    assert np.mean(means) == pytest.approx((n - 1) / 2)


def test_states_survive_as_bytes() -> None:
    state = {"a": torch.arange(6.0).view(2, 3), 3: [1, None, float("inf"), torch.tensor(2)], "b": {"half": torch.ones(2, dtype=torch.bfloat16), "yes": torch.tensor([True])}}
    back = from_bytes(to_bytes(state))
    assert torch.equal(back["a"], state["a"])
    assert back[3][:3] == [1, None, float("inf")]
    assert back[3][3].ndim == 0
    assert back["b"]["half"].dtype == torch.bfloat16
    assert back["b"]["yes"].dtype == torch.bool
    with pytest.raises(ValueError):
        from_bytes(to_bytes(state)[:40])


@pytest.mark.slow
def test_two_processes_equal_one_with_the_same_batches(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    rng = np.random.default_rng(0)
    age = rng.integers(20, 70, 300)
    np.savetxt(table, np.c_[age, rng.normal(size=300), age + 8 * rng.normal(size=300) > 45], delimiter=",", header="age,other,income", comments="", fmt="%.4f")
    told = ["fit", str(table), "--predict", "income", "--learner", "mlp:steps=60,batch=33"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "elsewhere", *told, "--out", tmp_path / "one"], check=True, env=environment, capture_output=True, timeout=200)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "elsewhere"]
    done = subprocess.run([*launcher, *told, "--out", str(tmp_path / "two")], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fitted mlp") == 1
    one, two = ew.load(tmp_path / "one").network_, ew.load(tmp_path / "two").network_
    assert largest_difference(one, build(**one.built)) > 0
    assert largest_difference(one, two) < 1e-5
    assert not list(tmp_path.glob(".*fit"))


@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "bf16-true", "64-true"])
def test_every_precision_trains_and_predicts(pictures: ew.Examples, precision: str) -> None:
    from elsewhere.nn.learners import Mlp

    run = Run(precision=precision)
    fitted = Mlp(steps=60, width=16, learning_rate=1e-2).fit(ew.Source(pictures), run)
    plain = Mlp(steps=60, width=16, learning_rate=1e-2).fit(ew.Source(pictures))
    assert np.abs(fitted.predict(pictures, run).probabilities() - plain.predict(pictures).probabilities()).mean() < 0.05


@pytest.mark.parametrize("told", [{"device": "cuda:77"}, {"precision": "7"}, {"device": "tpu"}])
def test_a_device_or_precision_that_is_not_there_is_told_in_one_line(pictures: ew.Examples, told: dict[str, str]) -> None:
    with pytest.raises(ew.UserError, match=r"cannot train on device|device must be"):
        train(descent(pictures), batches(pictures, Run(), 8), Run(**told), steps=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_cpu_gives(pictures: ew.Examples) -> None:
    from elsewhere.nn.learners import Mlp

    here, there = (Mlp(steps=50, width=16).fit(ew.Source(copy.deepcopy(pictures)), Run(device=d)) for d in ("cpu", "cuda"))
    assert np.allclose(here.predict(pictures).probabilities(), there.predict(pictures).probabilities(), atol=1e-3)
