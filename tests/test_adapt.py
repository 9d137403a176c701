"""Methods over several domains: each against a closed form, where it must win, and where it must not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import elsewhere as ew
from elsewhere.adapt.coral import Coral, moment_distance
from elsewhere.adapt.dann import Dann
from elsewhere.adapt.domains import DomainLearner, domain_batches
from elsewhere.adapt.erm import Erm
from elsewhere.adapt.group_dro import DomainWeights, GroupDro
from elsewhere.adapt.irm import Irm
from elsewhere.adapt.mixup import Mixup
from elsewhere.adapt.mmd import WIDTHS, Mmd, kernel_distance
from elsewhere.adapt.swad import Swad, Valley
from elsewhere.adapt.vrex import VRex
from elsewhere.checks import check_learner
from elsewhere.data import Examples
from elsewhere.errors import UserError
from elsewhere.metrics import classification_metrics
from elsewhere.task import Domain, Source, Task

ALL = [Erm, Coral, Mmd, Irm, VRex, GroupDro, Mixup, Dann, Swad]
QUIET = ew.Run(progress=False)


def accuracy(learner: Any, source: Source, data: Examples, seed: int = 0) -> float:
    fitted = learner.fit(source, ew.Run(seed, progress=False))
    return float((fitted.predict(data.unlabelled()).classes() == data.labels).mean())


def two_domains(make: Callable[[np.random.Generator, Any], tuple], settings: list, n: int = 1500, seed: int = 0) -> Source:
    rng = np.random.default_rng(seed)
    parts = [make(rng, s) for s in settings]
    columns = {"domain": np.repeat([f"d{k}" for k in range(len(parts))], [len(y) for _, y in parts])}
    return Source(Examples(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]), columns, ("no", "yes")))


def coloured(rng: np.random.Generator, flip: float, n: int = 2000) -> tuple:
    """A shape that is right in 75 %, a colour that is wrong in a share that changes with the domain (Arjovsky et al. 2019)."""
    y = rng.integers(0, 2, n)
    shape, colour = np.where(rng.random(n) < 0.25, 1 - y, y), np.where(rng.random(n) < flip, 1 - y, y)
    return (np.c_[2 * shape - 1, 2 * colour - 1] + 0.1 * rng.normal(size=(n, 2))).astype(np.float32), y


def examples(x: np.ndarray, y: np.ndarray) -> Examples:
    return Examples(x, y, {}, ("no", "yes"))


@pytest.mark.parametrize("learner", [Irm(warm_up=100, steps=600, batch=256), VRex(weight=1000.0, warm_up=100, steps=600, batch=256)], ids=["irm", "vrex"])
def test_invariance_wins_where_a_relation_changes_and_loses_where_it_stays(learner: Any) -> None:
    source = two_domains(coloured, [0.2, 0.1])
    plain = Erm(steps=600, batch=256)
    reversed_, same = (examples(*coloured(np.random.default_rng(9), flip)) for flip in (0.9, 0.15))
    assert accuracy(plain, source, reversed_) < 0.2
    assert accuracy(learner, source, reversed_) > 0.65
    assert accuracy(learner, source, same) < accuracy(plain, source, same) - 0.03


def moved(rng: np.random.Generator, shift: float, n: int = 1500, share: float = 0.5, spread: float = 0.5) -> tuple:
    """A strong feature whose mean (or spread) changes with the domain, and a weaker one that stays."""
    y = (rng.random(n) < share).astype(int)
    x = np.c_[1.2 * (2 * y - 1) + shift, 2 * y - 1] + rng.normal(size=(n, 2)) * [spread, 0.9]
    return x.astype(np.float32), y


ALIGNED = {
    "coral": (lambda: Coral(weight=10.0, width=8, unlabelled=True, steps=600, batch=128), {"shift": 0.0, "spread": 4.0}),  # equal means: what differs is a covariance
    "mmd": (lambda: Mmd(unlabelled=True, steps=400), {"shift": 3.0}),
    "dann": (lambda: Dann(unlabelled=True, steps=400), {"shift": 3.0}),
}


@pytest.mark.parametrize("name", list(ALIGNED))
def test_alignment_wins_where_a_feature_changes_and_not_where_classes_are_rarer(name: str) -> None:
    make, change = ALIGNED[name]
    source = two_domains(moved, [0.0])
    there = examples(*moved(np.random.default_rng(5), **change))
    granted = replace(source, unlabelled={"there": there.unlabelled()})
    plain = Erm(steps=400, width=make().width)
    assert accuracy(make(), granted, there) > accuracy(plain, source, there) + 0.05
    rare = examples(*moved(np.random.default_rng(6), 0.0, share=0.05))  # nothing changed but the share of the classes: aligning is wrong
    granted = replace(source, unlabelled={"there": rare.unlabelled()})
    assert accuracy(make(), granted, rare) <= accuracy(plain, source, rare) + 0.005


def lopsided(rng: np.random.Generator, sign: float, n: int = 1500) -> tuple:
    """Two domains that disagree on one feature; which of them is many decides the mean risk."""
    y = rng.integers(0, 2, n)
    x = np.c_[sign * (2 * y - 1) * 1.5, 0.7 * (2 * y - 1)] + rng.normal(size=(n, 2))
    return x.astype(np.float32), y


def test_group_dro_lifts_the_worst_domain_and_not_the_mean() -> None:
    source = two_domains(lambda rng, s: lopsided(rng, s), [1.0, 1.0, -0.6])
    worst, best = (examples(*lopsided(np.random.default_rng(7), s)) for s in (-0.6, 1.0))
    plain, robust = Erm(steps=500, backbone="mlp"), GroupDro(rate=0.1, steps=500, backbone="mlp")
    assert accuracy(robust, source, worst) > accuracy(plain, source, worst) + 0.02
    assert accuracy(robust, source, best) < accuracy(plain, source, best)


def noisy(rng: np.random.Generator, shift: float, n: int = 60) -> tuple:
    y = rng.integers(0, 2, n)
    x = rng.normal(size=(n, 30)).astype(np.float32)
    x[:, 0] += 1.2 * (2 * y - 1) + shift
    return x, y


def loss_of(learner: Any, source: Source, data: Examples, seed: int) -> float:
    p = learner.fit(source, ew.Run(seed, progress=False)).predict(data.unlabelled()).log_probabilities()
    return float(-p[np.arange(len(p)), data.labels].mean())


@pytest.mark.parametrize("make", [lambda **o: Mixup(alpha=1.0, **o), lambda **o: Swad(**o)], ids=["mixup", "swad"])
def test_smoothing_wins_on_few_noisy_examples(make: Callable[..., Any]) -> None:
    there = examples(*noisy(np.random.default_rng(3), 0.1, 3000))
    gains = []
    for seed in range(3):
        few = two_domains(noisy, [0.0, 0.3], seed=seed)
        plain = loss_of(Erm(steps=300, schedule="constant"), few, there, seed)
        gains.append(plain - loss_of(make(steps=300, schedule="constant"), few, there, seed))
    assert min(gains) > 0.02


def between(rng: np.random.Generator, shift: float, n: int = 800) -> tuple:
    """Half way between two examples of one class lies the other class: mixing them teaches what is wrong."""
    y = rng.integers(0, 2, n)
    x = np.where(y == 1, 0.0, 2.0 * rng.choice([-1, 1], n)) + shift + 0.2 * rng.normal(size=n)
    return np.c_[x, rng.normal(size=n)].astype(np.float32), y


def test_mixup_does_not_win_where_classes_lie_between_each_other_nor_swad_on_many_examples() -> None:
    source, there = two_domains(between, [0.0, 0.1]), examples(*between(np.random.default_rng(4), 0.05))
    assert loss_of(Mixup(alpha=1.0, steps=300), source, there, 0) > loss_of(Erm(steps=300), source, there, 0) + 0.05
    many, there = two_domains(lambda rng, s: noisy(rng, s, 3000), [0.0, 0.3]), examples(*noisy(np.random.default_rng(3), 0.1, 3000))
    assert abs(accuracy(Swad(steps=400), many, there) - accuracy(Erm(steps=400), many, there)) < 0.01


# --- closed forms ---------------------------------------------------------------------------------------------------


def test_distances_are_their_definitions() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(7, 3)), rng.normal(size=(9, 3)) + 1
    wanted = np.square(a.mean(0) - b.mean(0)).mean() + np.square(np.cov(a.T) - np.cov(b.T)).mean()
    assert moment_distance(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(wanted)
    k = lambda x, y: sum(math.exp(-w * float(np.square(x - y).sum())) for w in WIDTHS)  # noqa: E731
    wanted = np.mean([k(x, y) for x in a for y in a]) + np.mean([k(x, y) for x in b for y in b]) - 2 * np.mean([k(x, y) for x in a for y in b])
    assert kernel_distance(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(wanted)


def test_the_irm_penalty_is_a_product_of_two_slopes() -> None:
    source = two_domains(coloured, [0.2, 0.1])
    learner = Irm(steps=1)
    learner.fit(source, QUIET)
    draw, _ = domain_batches(learner.prepared(source, QUIET)[0], [], QUIET, 16)
    learner.fit(source, QUIET)
    batch = draw(0)
    _, penalty = learner.both(learner.network_, batch)
    z, h = learner.network_(batch.inputs).logits.detach().double(), 1e-5

    def slope(rows: torch.Tensor) -> float:
        ends = [torch.nn.functional.cross_entropy(s * z[rows], batch.labels[rows]) for s in (1 + h, 1 - h)]
        return float((ends[0] - ends[1]) / (2 * h))

    wanted = np.mean([slope(rows[0::2]) * slope(rows[1::2]) for rows in (torch.arange(16), torch.arange(16, 32))])
    assert penalty.item() == pytest.approx(wanted, rel=1e-3, abs=1e-7)


def test_vrex_takes_the_population_variance() -> None:
    source = two_domains(coloured, [0.2, 0.1, 0.4])
    learner = VRex(steps=1).fit(source, QUIET)
    draw, _ = domain_batches(learner.prepared(source, QUIET)[0], [], QUIET, 16)
    learner = VRex(steps=1).fit(source, QUIET)
    batch = draw(0)
    mean, variance = learner.both(learner.network_, batch)
    each = torch.nn.functional.cross_entropy(learner.network_(batch.inputs).logits, batch.labels, reduction="none").view(3, 16).mean(1).detach().numpy()
    assert mean.item() == pytest.approx(each.mean(), rel=1e-5)
    assert variance.item() == pytest.approx(each.var(), rel=1e-4)


def test_domain_weights_multiply_up() -> None:
    weights = DomainWeights(0.5)
    for losses in ([1.0, 0.0], [0.2, 0.6], [3.0, 1.0]):
        q = weights.update(torch.tensor(losses))
    total = np.exp(0.5 * np.array([4.2, 1.6]))
    assert np.allclose(q.numpy(), total / total.sum())
    again = DomainWeights(0.5)
    again.load_state_dict(weights.state_dict())
    assert torch.equal(again.q, weights.q)


@pytest.mark.parametrize("learner", [Coral(weight=0.0), Mmd(weight=0.0), VRex(weight=0.0, warm_up=0), GroupDro(rate=0.0), Irm(weight=0.0, warm_up=0)], ids=lambda m: type(m).__name__)
def test_without_its_penalty_each_is_erm(learner: Any) -> None:
    source = two_domains(coloured, [0.2, 0.1])
    learner.steps, learner.batch = 30, 16
    plain = Erm(steps=30, batch=16).fit(source, QUIET)
    other = learner.fit(source, QUIET)
    for a, b in zip(plain.network_.parameters(), other.network_.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_mixup_of_one_kind_with_itself_changes_nothing() -> None:
    source = two_domains(coloured, [0.2])
    learner = Mixup(steps=1)
    learner.classes_, learner.weight_mean_ = 2, 1.0
    draw, _ = domain_batches(source.train, [], QUIET, 8)
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 2)
    assert learner.objective(network, draw(0)).item() == pytest.approx(torch.nn.functional.cross_entropy(network(draw(0).inputs), draw(0).labels).item(), rel=1e-5)


def test_the_penalty_is_annealed_and_the_optimiser_begins_anew() -> None:
    source = two_domains(coloured, [0.2, 0.1])
    learner = VRex(steps=5, warm_up=3, weight=7.0)
    learner.prepared(source, QUIET)
    learner.network_ = learner.network(source.train)
    stepper = learner.stepper(lambda p: torch.optim.Adam(p, 1e-3))
    draw, _ = domain_batches(source.train, [], QUIET, 8)
    counts = []
    for step in range(5):
        stepper.step(draw(step), lambda loss, **_: loss.backward())
        counts.append(int(next(iter(stepper.optimiser_.state.values()))["step"]))
    assert counts == [1, 2, 3, 1, 2]
    both = (torch.tensor(1.0), torch.tensor(1.0))
    assert stepper._joined(both).item() == 8.0
    stepper.count.value = 0
    assert stepper._joined(both).item() == 2.0


def test_a_valley_without_an_end_reaches_to_the_last_stretch_and_without_a_start_is_the_last() -> None:
    def told(losses: list[float]) -> float:
        valley = Valley(3, 2, 1.3)
        for w, loss in enumerate(losses):
            valley.add(({"w": torch.tensor(2.0 * w)}, 2), loss)
        again = Valley(3, 2, 1.3)
        again.load_state_dict(valley.state_dict())
        assert again.average()["w"].item() == valley.average()["w"].item()
        return valley.average()["w"].item()

    assert told([5, 1, 1.1, 1.2, 1.1]) == pytest.approx(np.mean([1, 2, 3, 4]))
    assert told([5, 4, 3, 2]) == 3.0


# --- as learners ----------------------------------------------------------------------------------------------------


def small_task(unlabelled: bool = False) -> Task:
    source = two_domains(coloured, [0.2, 0.1])
    there = examples(*coloured(np.random.default_rng(1), 0.5, 200))
    home = examples(*coloured(np.random.default_rng(2), 0.15, 200))
    granted = replace(source, unlabelled={"there": there.unlabelled()} if unlabelled else {})
    return Task(granted, [Domain("home", home, "home"), Domain("there", there)], classification_metrics())


@pytest.mark.parametrize("kind", ALL, ids=lambda k: k.__name__)
def test_every_method_passes_the_check_of_learners(kind: type[DomainLearner]) -> None:
    assert check_learner(kind(steps=4, batch=8), small_task()) == []


@pytest.mark.parametrize("kind", [Coral, Mmd, Dann], ids=lambda k: k.__name__)
def test_unlabelled_domains_are_seen_only_where_asked_for_and_it_is_told(kind: Any, tmp_path: Path) -> None:
    assert not kind().sees_unlabelled
    assert kind(unlabelled=True).sees_unlabelled
    result = ew.assay(ew.named("t", small_task(True)), learners=[ew.named("plain", kind(steps=3, batch=8)), ew.named("adapted", kind(steps=3, batch=8, unlabelled=True))], seeds=1, out=tmp_path / "r")
    assert result.trials().set_index("learner").sees_unlabelled.to_dict() == {"plain": False, "adapted": True}


def test_tables_and_pictures_alike(people: Path, tmp_path: Path) -> None:
    result = ew.assay(
        people, predict="income", domain="state", learners=[f"{n}:steps=3" for n in ("coral", "irm", "group-dro", "mixup", "swad", "vrex", "mmd", "dann", "erm")], seeds=1, out=tmp_path / "r"
    )
    assert set(result.trials().status) == {"done"}
    rng = np.random.default_rng(0)
    data = Examples(rng.integers(0, 256, (40, 1, 16, 16), dtype=np.uint8), np.arange(40) % 2, {"domain": np.repeat(["a", "b"], 20)}, ("x", "y"))
    for kind in ALL:
        assert kind(steps=2, batch=4, width=8).fit(Source(data), QUIET).represent(data).shape == (40, 16)


def test_numbers_are_learnt_too() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)).astype(np.float32)
    data = Examples(x, (2 * x[:, 0] + 1).astype(np.float32), {"domain": np.repeat(["a", "b"], 100)})
    for kind in (Erm, Irm, VRex, GroupDro, Mixup, Coral, Dann):
        assert kind(steps=3, batch=8).fit(Source(data), QUIET).predict(data).mean.shape == (200,)


def test_one_domain_is_told_while_planning(people: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="irm:steps=3 cannot run on .*: Irm needs a source of at least 2 domains .a leave-one-out task has one.; this one has 1"):
        ew.assay(people, predict="income", domain="state", source="CA", learners=["irm:steps=3"], seeds=1, out=tmp_path / "r")
    with pytest.raises(UserError, match="or unlabelled=true where the task grants"):
        Coral(steps=1).fit(two_domains(coloured, [0.2]))
    with pytest.raises(UserError, match="leave accumulate away"):
        Erm(steps=1, accumulate=2).fit(two_domains(coloured, [0.2]))
    for kind in (Swad, Dann):
        with pytest.raises(UserError, match="leave average away"):
            kind(steps=1, average=0.9).fit(two_domains(coloured, [0.2, 0.1]))
    assert Dann(steps=2, batch=4, clip=0.1).fit(two_domains(coloured, [0.2, 0.1]), QUIET).network_ is not None
    with pytest.raises(UserError, match="leave patience away"):
        Swad(steps=1, patience=2).fit(two_domains(coloured, [0.2]))


@pytest.mark.parametrize("kind", [Irm, GroupDro, Dann, Swad], ids=lambda k: k.__name__)
def test_a_training_that_was_cut_off_ends_with_the_same_weights(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from elsewhere import training

    source = two_domains(coloured, [0.2, 0.1])
    learner = kind(steps=24, batch=8, **({"warm_up": 10} if kind is Irm else {"evaluations": 6} if kind is Swad else {}))
    whole = kind(**{f: getattr(learner, f) for f in learner.__dataclass_fields__}).fit(source, ew.Run(1, progress=False))
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    run = ew.Run(1, folder=tmp_path, trial="t", progress=False)
    calls = {"n": 0}
    original = torch.Tensor.backward

    def breaking(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        calls["n"] += 1
        if calls["n"] == 30 if kind is Dann else calls["n"] == 17:
            raise RuntimeError("pulled the plug")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", breaking)
    with pytest.raises(RuntimeError):
        learner.fit(source, run)
    monkeypatch.setattr(torch.Tensor, "backward", original)
    again = kind(**{f: getattr(learner, f) for f in learner.__dataclass_fields__}).fit(source, replace(run, history=[], stages=[]))
    for a, b in zip(whole.network_.parameters(), again.network_.parameters(), strict=True):
        assert torch.equal(a, b)
