"""Networks by name, and learners over them: many heads at once equal the loop, frozen stays frozen, contracts hold."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import elsewhere as ew
from elsewhere.identity import identity
from elsewhere.images.learners import Cnn, FineTune
from elsewhere.nn import build, layer_output
from elsewhere.nn.cnn import halvings
from elsewhere.nn.learners import Mlp, Module
from elsewhere.nn.probe import LinearProbe
from elsewhere.run import Run
from elsewhere.splitting import few_shot, held_out


def blobs(n: int = 300, d: int = 12, seed: int = 0, weight: bool = False) -> ew.Examples:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d)).astype(np.float32)
    y = (x[:, 0] + 0.3 * rng.normal(size=n) > 0).astype(int) + (x[:, 1] > 1)
    columns = {"weight": rng.random(n) + 0.1} if weight else {}
    return ew.Examples(x, y, columns, ("a", "b", "c"))


def pictures(n: int = 60, channels: int = 1, side: int = 28) -> ew.Examples:
    rng = np.random.default_rng(0)
    return ew.Examples(rng.random((n, channels, side, side), dtype=np.float32), rng.integers(0, 3, n), classes=("a", "b", "c"))


def task_of(data: ew.Examples) -> ew.Task[Any]:
    return ew.Task(
        ew.Source(data), [ew.Domain("home", data, "home"), ew.Domain("there", data.take(range(0, len(data), 2)))], [ew.Metric("accuracy", lambda p, d: (p.classes() == d.labels).astype(float))]
    )


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "small-cnn", "encoder", "vit", "random-conv"])
@pytest.mark.parametrize("classes", [None, 4])
def test_every_network_gives_logits_or_means_and_its_features(name: str, classes: int | None) -> None:
    made = build(name, shape=[3, 28, 28], classes=classes)
    out = made(torch.rand(5, 3, 28, 28))
    assert out[0].shape == ((5,) if classes is None else (5, 4))
    assert out.features.shape == (5, made.body.width)
    json.dumps(made.built)
    again = build(**made.built)
    again.load_state_dict(made.state_dict())


@pytest.mark.parametrize("side", [5, 28, 32, 33, 64])
def test_the_decoder_gives_back_the_shape_of_the_picture(side: int) -> None:
    encoder, decoder = (build(name, shape=[3, side, side], head=False, **more) for name, more in (("encoder", {}), ("decoder", {"latent": 7})))
    assert encoder(torch.rand(2, 3, side, side)).shape == (2, 256)
    assert decoder(torch.rand(2, 7)).shape == (2, 3, side, side)
    assert halvings(side)[-1] <= 4


def test_the_small_network_is_domainbeds() -> None:
    body = build("small-cnn", shape=[1, 28, 28], head=False)
    shapes = [tuple(m.weight.shape) for m in body.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(64, 1, 3, 3), (128, 64, 3, 3), (128, 128, 3, 3), (128, 128, 3, 3)]
    assert [m.stride[0] for m in body.modules() if isinstance(m, nn.Conv2d)] == [1, 2, 1, 1]


@pytest.mark.parametrize(("name", "more", "said"), [
    ("smal-cnn", {}, "did you mean 'small-cnn'"),
    ("timm:resnet1", {}, "timm has no model"),
    ("torchvision:resnet19", {}, "did you mean"),
    ("torchvision", {}, "no network 'torchvision'"),
    ("small-cnn", {"depth": 3}, "unexpected keyword"),
    ("small-cnn", {"width": 12}, "8 divides"),
    ("vit", {"patch": 5}, "does not divide"),
])  # fmt: skip
def test_a_network_that_cannot_be_built_says_why(name: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ew.UserError, match=said):
        build(name, shape=[1, 28, 28], classes=2, **more)
    with pytest.raises(ew.UserError, match=r"\[channels, height, width\]"):
        build("small-cnn", shape=[7], classes=2)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:mobilenet_v3_small", "timm:resnet10t"])
def test_backbones_take_published_weights_from_a_local_file(name: str, tmp_path: Path) -> None:
    """A file as the hubs publish it: the whole state dict, head and counters and all, perhaps with a prefix."""
    torch.manual_seed(0)
    family, _, inner = name.partition(":")
    if family == "timm":
        import timm

        whole = timm.create_model(inner, num_classes=11)
    else:
        from torchvision import models

        whole = models.get_model(inner, num_classes=11)
    state = {f"module.{k}": v.contiguous() + (0.01 if v.is_floating_point() else 0) for k, v in whole.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    for place in (tmp_path / "model.safetensors", tmp_path):  # a hub's folder holds model.safetensors
        made = build(name, shape=[1, 32, 32], classes=3, weights=str(place))
        first = next(iter(made.body.network.state_dict()))
        assert torch.equal(made.body.network.state_dict()[first], state[f"module.{first}"])
        assert "weights" not in made.built
    assert made.eval()(torch.rand(2, 1, 32, 32)).logits.shape == (2, 3)
    state.pop(f"module.{first}")
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(ew.UserError, match=f"1 of .* weights are missing or have another shape, first {first}"):
        build(name, shape=[1, 32, 32], classes=3, weights=str(tmp_path / "less.safetensors"))


def test_a_hubs_cache_is_used_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = models.ResNet18_Weights.DEFAULT.value.url
    place = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    place.parent.mkdir(parents=True)
    torch.manual_seed(3)
    whole = models.resnet18()
    torch.save(whole.state_dict(), place)
    made = build("torchvision:resnet18", shape=[3, 32, 32], classes=2, weights="default")
    assert torch.equal(made.body.network.conv1.weight, whole.conv1.weight)


@pytest.mark.slow
def test_timms_hub_cache_is_used_without_a_network(tmp_path: Path) -> None:
    """A cache as the hub's client leaves it: refs, a snapshot, a safetensors file."""
    import timm

    torch.manual_seed(0)
    whole = timm.create_model("resnet10t")
    repository = tmp_path / "hub" / "models--timm--resnet10t.c3_in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abc")
    (repository / "snapshots" / "0123abc").mkdir(parents=True)
    save_file(whole.state_dict(), repository / "snapshots" / "0123abc" / "model.safetensors")
    code = "from elsewhere.nn import build; print(float(build('timm:resnet10t', shape=[3, 32, 32], classes=2, weights='default').body.network.conv1[0].weight.detach().sum()))"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(float(whole.conv1[0].weight.detach().sum()))
    environment["HF_HOME"] = str(tmp_path / "empty")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert "cannot be fetched" in done.stderr
    assert "give weights=path.safetensors" in done.stderr


def test_weights_that_are_a_pickle_are_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "w.pth")
    with pytest.raises(ew.UserError, match="is a pickle, which is not read; convert it: safetensors"):
        build("torchvision:resnet18", shape=[1, 32, 32], classes=2, weights=str(tmp_path / "w.pth"))
    (tmp_path / "w.safetensors").write_bytes(b"x")
    with pytest.raises(ew.UserError, match="is no safetensors file"):
        build("torchvision:resnet18", shape=[1, 32, 32], classes=2, weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(ew.UserError, match="there are no weights"):
        build("torchvision:resnet18", shape=[1, 32, 32], classes=2, weights=str(tmp_path / "none.safetensors"))


def test_layers_are_found_by_name_and_averaged_over_positions() -> None:
    made = build("small-cnn", shape=[1, 28, 28], classes=2, width=8)
    x = torch.rand(3, 1, 28, 28)
    assert torch.allclose(layer_output(made, "body.layers", x), made(x).features)
    assert layer_output(made, "head", x).shape == (3, 2)
    with pytest.raises(ew.UserError, match=r"no layer 'body.layer'; did you mean 'body.layers'"):
        layer_output(made, "body.layer", x)


# --- learners ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.sampled_from(["probe", "mlp", "regression", "weighted", "few"]))
@settings(max_examples=10, deadline=None)
def test_many_at_once_equal_the_loop(seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    data = [blobs(200 + 50 * k, seed=seed + k, weight=kind == "weighted") for k in range(2)]
    if kind == "regression":
        data = [ew.Examples(d.inputs, 5 + 3 * d.inputs[:, 0].astype(float)) for d in data]
    sources = [ew.Source(d) for d in data]
    kinds: Any = LinearProbe if kind in ("probe", "few") else Mlp
    more: dict[str, Any] = {"width": 8, "depth": 2} if kinds is Mlp else {}
    if kind == "few":
        more["samples"] = 9
    learners, at, runs = [], [], []
    for _ in range(8):
        learners.append(
            kinds(
                steps=int(rng.choice([12, 20])),
                batch=32,
                learning_rate=float(rng.choice([1e-3, 3e-2])),
                weight_decay=float(rng.choice([0, 0.1])),
                schedule=str(rng.choice(["constant", "cosine"])),
                **more,
            )
        )
        at.append(sources[rng.integers(2)])
        runs.append(Run(int(rng.integers(3))))
    many = kinds.fit_many([copy.deepcopy(m) for m in learners], at, runs)
    for m, one, source, run in zip(many, learners, at, runs, strict=True):
        alone = copy.deepcopy(one).fit(source, Run(run.seed))
        a, b = m.predict(data[0]), alone.predict(data[0])
        assert np.abs((a.mean if kind == "regression" else a.logits) - (b.mean if kind == "regression" else b.logits)).max() < 1e-4
        assert run.history
    assert len({type(m) for m in many}) == 1


def test_what_cannot_be_stacked_is_fitted_alone_in_the_same_call() -> None:
    source = ew.Source(blobs())
    mixed = [Mlp(steps=5, width=8), Mlp(steps=5, width=8, clip=1.0), Mlp(steps=5, width=8, dropout=0.2), Mlp(steps=5, width=16)]
    many = Mlp.fit_many([copy.deepcopy(m) for m in mixed], [source] * 4, [Run()] * 4)
    for m, one in zip(many, mixed, strict=True):
        assert np.allclose(m.predict(source.train).logits, one.fit(source).predict(source.train).logits, atol=1e-4)


def test_one_head_that_diverges_does_not_touch_the_others() -> None:
    source = ew.Source(blobs())
    good, bad = Mlp.fit_many([Mlp(steps=8, width=8), Mlp(steps=8, width=8, learning_rate=1e30)], [source] * 2, [Run(), Run()])
    assert isinstance(bad, ew.UserError)
    assert np.allclose(good.predict(source.train).logits, Mlp(steps=8, width=8).fit(source).predict(source.train).logits, atol=1e-4)


def test_a_sweep_that_is_killed_and_resumed_stacks_the_same(tmp_path: Path) -> None:
    learners = [f"linear-probe:steps=20,learning_rate={r}" for r in (0.1, 0.01, 0.003)]
    whole = ew.assay("penguins", learners=learners, seeds=4, out=tmp_path / "a")
    part = ew.assay("penguins", learners=learners, seeds=4, out=tmp_path / "b")
    part.store.remove(part.trials().trial[::3])
    assert ew.Result(tmp_path / "b").missing > 0
    again = ew.assay("penguins", learners=learners, seeds=4, out=tmp_path / "b")
    keys = ["trial", "domain", "metric"]
    a, b = (r.scores().sort_values(keys)[[*keys, "value", "error"]].reset_index(drop=True) for r in (whole, again))
    assert a.equals(b)


@pytest.mark.parametrize("learner", [
    LinearProbe(steps=10), LinearProbe(steps=10, components=4), Mlp(steps=10, width=8), Mlp(steps=10, width=8, patience=2, average=0.9), Mlp(steps=10, schedule="stepwise", accumulate=2),
], ids=lambda m: type(m).__name__)  # fmt: skip
def test_learners_keep_their_contract_on_vectors(learner: Any) -> None:
    assert ew.check_learner(learner, task_of(blobs())) == []
    assert ew.check_learner(learner, task_of(ew.Examples(blobs().inputs, blobs().inputs[:, 0].astype(float)))) == []


@pytest.mark.parametrize("learner", [
    Cnn(steps=3, width=8), LinearProbe(steps=5, backbone="random-conv", components=5), LinearProbe(steps=5, backbone="vit", layer="blocks.layers.1"), Mlp(steps=3, width=8),
    FineTune(steps=2, backbone="small-cnn"), FineTune(steps=2, backbone="torchvision:resnet18", part="head"),
], ids=lambda m: f"{type(m).__name__} {getattr(m, 'backbone', '')}")  # fmt: skip
def test_learners_keep_their_contract_on_pictures(learner: Any) -> None:
    assert ew.check_learner(learner, task_of(pictures())) == []


def test_learners_take_a_table_of_raw_columns(people: Path, tmp_path: Path) -> None:
    result = ew.assay(people, predict="income", domain="state", learners=["mlp:steps=60", "linear-probe:steps=60"], seeds=1, out=tmp_path / "r")
    home = result.scores().query("metric == 'accuracy' and role == 'home'")
    assert (home.value > 0.6).all()


def test_a_torch_module_is_a_learner_and_keeps_its_own_weights() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3))
    before = copy.deepcopy(module.state_dict())
    learner = ew.wrap(module)
    assert isinstance(learner, Module)
    learner.steps, learner.learning_rate = 300, 1e-2
    data = blobs()
    fitted = learner.fit(ew.Source(data))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert (fitted.predict(data).classes() == data.labels).mean() > 0.8
    assert fitted.represent(data).shape == (300, 6)
    assert "not portable" in ew.check_learner(ew.wrap(module), task_of(data))[0]
    built = ew.wrap(build("mlp", shape=[12], classes=3, width=8))
    built.steps = 5
    assert ew.check_learner(built, task_of(data)) == []
    with pytest.raises(ew.UserError, match="a torch module"):
        ew.wrap(object())


def test_modules_of_one_shape_and_other_parts_are_two_learners() -> None:
    def identity_of(activation: nn.Module, seed: int = 0) -> Any:
        torch.manual_seed(seed)
        return identity(ew.wrap(nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 2))))

    told = [identity_of(nn.ReLU()), identity_of(nn.Tanh()), identity_of(nn.LeakyReLU(0.1)), identity_of(nn.LeakyReLU(0.2)), identity_of(nn.ReLU(), 1)]
    assert len({json.dumps(t) for t in told}) == 5
    assert identity_of(nn.ReLU()) == told[0]


def test_weights_of_examples_count() -> None:
    x = np.r_[np.zeros((50, 1)), np.zeros((50, 1))].astype(np.float32) + 1
    y = np.repeat([0, 1], 50)
    heavy = ew.Examples(x, y, {"weight": np.repeat([1.0, 3.0], 50)}, ("a", "b"))
    p = LinearProbe(steps=400, batch=100).fit(ew.Source(heavy)).predict(heavy).probabilities()
    assert p[0, 1] == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(("part", "train_mode", "moves"), [("all", False, {"weights", "statistics"}), ("head", False, set()), ("head", True, {"statistics"})])
def test_what_is_frozen_stays_frozen(part: Any, train_mode: bool, moves: set[str]) -> None:
    learner = FineTune(backbone="torchvision:resnet18", part=part, train_mode=train_mode, steps=2, learning_rate=1e-2)
    data = pictures(16)
    fitted = learner.fit(ew.Source(data))
    from elsewhere.nn.learners import seeded

    start = seeded(Run(), lambda: learner.network(data))
    told = set()
    for (name, a), b in zip(start.body.state_dict().items(), fitted.network_.body.state_dict().values(), strict=True):
        if not torch.equal(a, b):
            told.add("statistics" if "running" in name or "num_batches" in name else "weights")
    assert told == moves


@pytest.mark.parametrize("layer", [None, "network.layer3"])
def test_frozen_features_of_a_picture_do_not_depend_on_its_batch(layer: str | None) -> None:
    probe = LinearProbe(backbone="torchvision:resnet18", layer=layer, steps=1).fit(ew.Source(pictures(24)))
    whole, one = probe.represent(pictures(24)), probe.represent(pictures(24).take([5]))
    assert np.abs(whole[5] - one[0]).max() < 1e-3 * np.abs(whole).max()  # rounding; batch statistics would move them by tenths
    assert len(whole[0]) == (512 if layer is None else 256)


def test_frozen_features_are_computed_once_per_backbone_and_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from elsewhere.nn import probe

    calls = []
    original = probe.in_batches
    monkeypatch.setattr(probe, "in_batches", lambda network, x, run, **more: (calls.append(len(x)), original(network, x, run, **more))[1])
    task = task_of(pictures())
    learners = [f"linear-probe:backbone=random-conv,steps=5,learning_rate={r}" for r in (0.1, 0.01, 0.001)]
    result = ew.assay(ew.named("mine", task), learners=learners, seeds=2, out=tmp_path / "r")
    assert (result.trials().status == "done").all()
    assert sorted(calls) == [30, 60]  # home is the source here; the other domain is half of it


def test_few_shots_are_nested_and_the_same_for_every_learner() -> None:
    data = ew.Examples(np.arange(400), np.arange(400) % 4, classes=tuple("abcd"))
    ten, hundred = few_shot(data, 10, Run(1)), few_shot(data, 100, Run(1))
    assert set(ten.inputs) < set(hundred.inputs)
    assert np.bincount(ten.labels).tolist() == [10] * 4
    assert np.bincount(few_shot(data, 1000, Run(1)).labels).tolist() == [100] * 4
    assert set(few_shot(data, 10, Run(2)).inputs) != set(ten.inputs)
    assert few_shot(data, 2, Run(), "stored").inputs.tolist() == list(range(8))
    with pytest.raises(ew.UserError, match="samples must be at least 1"):
        few_shot(data, 0, Run())


@given(st.integers(20, 200), st.floats(0.1, 0.5), st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_a_held_out_part_never_splits_a_unit(n: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    unit = rng.integers(0, max(2, n // 4), n)
    data = ew.Examples(np.arange(n), rng.integers(0, 2, n), {"unit": unit}, ("a", "b"))
    out = held_out(data, share, rng)
    assert not set(unit[out]) & set(unit[~out])


def test_a_learner_can_be_fitted_again_on_other_shapes() -> None:
    learner = Mlp(steps=3, width=8).fit(ew.Source(blobs(d=12)))
    assert learner.fit(ew.Source(blobs(d=5))).predict(blobs(d=5)).logits.shape == (300, 3)


def test_a_model_asked_about_other_shapes_says_so() -> None:
    fitted = Cnn(steps=1, width=8).fit(ew.Source(pictures()))
    with pytest.raises(ew.UserError, match=r"inputs have shape \[1, 14, 14\]; this model was fitted on \[1, 28, 28\]"):
        fitted.predict(pictures(4, side=14))
    probe = LinearProbe(steps=1).fit(ew.Source(blobs()))
    with pytest.raises(ew.UserError, match="fitted on"):
        probe.predict(blobs(d=5))


@pytest.mark.parametrize(("learner", "said"), [
    (Mlp(steps=0), "steps must be at least 1"),
    (Mlp(batch=0), "at least 1 example"),
    (Mlp(accumulate=0), "accumulate must be at least 1"),
    (Mlp(average=2.0), r"average must lie in \(0, 1\]"),
    (LinearProbe(components=99), "components must lie between 1 and 12"),
    (LinearProbe(backbone="random-cnv"), "did you mean 'random-conv'"),
    (FineTune(train_mode=True, backbone="mlp"), "train_mode is for part='head'"),
])  # fmt: skip
def test_a_field_that_cannot_be_is_told_in_one_line(learner: Any, said: str) -> None:
    with pytest.raises(ew.UserError, match=said):
        learner.fit(ew.Source(blobs()))
    with pytest.raises(ew.UserError, match="no labels"):
        Mlp(steps=1).fit(ew.Source(blobs().unlabelled()))
    with pytest.raises(ew.UserError, match="device must be"):
        Mlp(steps=1).fit(ew.Source(blobs()), Run(device="tpu"))
