"""Corruptions against their definitions, augmentation, and attacks."""

from __future__ import annotations

import colorsys
import io
import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

import elsewhere as ew
from elsewhere.assay.study import make_learner, parse_learner
from elsewhere.data import Examples
from elsewhere.errors import Undefined, UserError
from elsewhere.images.attacks import adversarial, auto_pgd, checkpoints, dlr_loss, robust
from elsewhere.images.corruptions import CORRUPTIONS, Drawn, corrupt, disk, plasma
from elsewhere.nn import augmentation


def pictures(n: int = 3, channels: int = 3, side: int = 32, seed: int = 0) -> np.ndarray:
    """Smooth pictures with some texture, as bytes."""
    rng = np.random.default_rng(seed)
    low = rng.random((n, channels, 6, 6))
    x = ndimage.zoom(low, (1, 1, side / 6, side / 6), order=1) + 0.05 * rng.normal(size=(n, channels, side, side))
    return np.round(255 * np.clip(x, 0, 1)).astype(np.uint8)


@pytest.mark.parametrize("name", list(CORRUPTIONS))
@pytest.mark.parametrize("side", [32, 96])
def test_every_type_is_the_same_in_any_batch_and_worse_with_severity(name: str, side: int) -> None:
    x = pictures(3, side=side)
    away = []
    for severity in range(1, 6):
        made = corrupt(x, name, severity, seed=1)
        assert made.shape == x.shape
        assert made.min() >= 0
        assert made.max() <= 1
        alone = corrupt(x[2:], name, severity, seed=1, index=np.array([2]))[0]
        assert np.abs(made[2] - alone).max() < 1e-5
        away.append(float(np.abs(made - x / 255).mean()))
    assert away[4] > away[0] or name in ("saturate", "elastic", "motion-blur", "fog")  # severities of these are not ordered by distance
    assert len({round(a, 9) for a in away}) >= 4


def test_grey_pictures_work_too() -> None:
    x = pictures(2, channels=1, side=28)
    for name in CORRUPTIONS:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            assert corrupt(x, name, 3).shape == x.shape
        assert bool(heard) == (name == "saturate")


def test_noise_has_its_distribution() -> None:
    x = np.full((40, 1, 32, 32), 0.5, np.float32)
    for severity, sigma in enumerate((0.04, 0.06, 0.08, 0.09, 0.10), 1):
        z = (corrupt(x, "gaussian-noise", severity) - 0.5).ravel()
        assert z.std() == pytest.approx(sigma, rel=0.02)
        assert abs(z.mean()) < 0.002
    for severity, c in enumerate((500, 250, 100, 75, 50), 1):
        z = corrupt(x, "shot-noise", severity).ravel()
        assert z.mean() == pytest.approx(0.5, abs=0.002)
        assert z.var() == pytest.approx(0.5 / c, rel=0.03)
        assert np.allclose(z * c, np.round(z * c), atol=1e-3)
    speckle = corrupt(x, "speckle-noise", 3).ravel()
    assert speckle.std() == pytest.approx(0.5 * 0.12, rel=0.02)
    impulse = corrupt(x, "impulse-noise", 5).ravel()
    assert (impulse == 0).mean() == pytest.approx(0.035, abs=0.003)
    assert (impulse == 1).mean() == pytest.approx(0.035, abs=0.003)


def test_colour_corruptions_are_those_of_hsv() -> None:
    x = pictures(1, side=16)
    flat = (x[0] / 255).reshape(3, -1).T
    brighter, stronger = (corrupt(x, n, 4)[0].reshape(3, -1).T for n in ("brightness", "saturate"))
    for k in range(0, 256, 5):
        h, s, v = colorsys.rgb_to_hsv(*flat[k])
        assert np.allclose(brighter[k], colorsys.hsv_to_rgb(h, s, min(1, v + 0.2)), atol=1e-5)
        assert np.allclose(stronger[k], colorsys.hsv_to_rgb(h, min(1, max(0, 2 * s + 0.1)), v), atol=1e-5)
    flatter = corrupt(x, "contrast", 2)[0]
    mean = (x[0] / 255).mean((1, 2), keepdims=True)
    assert np.allclose(flatter, (x[0] / 255 - mean) * 0.5 + mean, atol=1e-5)


@pytest.mark.parametrize("side", [32, 96])
def test_blurs_are_their_filters(side: int) -> None:
    x = pictures(1, channels=1, side=side)
    plain = x[0, 0] / 255
    sigma = 0.8 if side == 32 else 4
    wanted = ndimage.gaussian_filter(plain, sigma, mode="nearest", truncate=5)
    assert np.abs(corrupt(x, "gaussian-blur", 4)[0, 0] - wanted).max() < 1e-3
    kernel = disk(*((1, 0.2) if side == 32 else (8, 0.5)))
    assert float(kernel.sum()) == pytest.approx(1, abs=0.02)
    wanted = ndimage.correlate(plain, kernel.numpy(), mode="mirror")
    assert np.allclose(corrupt(x, "defocus-blur", 4)[0, 0], np.clip(wanted, 0, 1), atol=1e-5)
    step, count = (0.01, 21) if side == 32 else (0.02, 13)
    total = plain.copy()
    for i in range(count):
        factor = 1 + step * i
        part = math.ceil(side / factor)
        top = (side - part) // 2
        large = ndimage.zoom(plain[top : top + part, top : top + part], max(side, round(part * factor)) / part, order=1)
        start = (large.shape[0] - side) // 2 if side == 32 else 0
        total += large[start : start + side, start : start + side]
    assert np.allclose(corrupt(x, "zoom-blur", 4)[0, 0], total / (count + 1), atol=1e-5)


def test_motion_blur_adds_shifted_copies() -> None:
    x = pictures(2, channels=1)
    key = Drawn("0 motion-blur 4", np.arange(2))
    degrees = (-45 + 90 * key.uniform("angle", 1)[:, 0]).numpy()
    made = corrupt(x, "motion-blur", 4)
    width = 17
    weight = np.exp(-(np.arange(width) ** 2) / (2 * 2**2))
    weight /= weight.sum()
    for n in range(2):
        out = np.zeros((32, 32))
        for i in range(width):
            dy, dx = -math.ceil(i * math.sin(math.radians(degrees[n])) - 0.5), -math.ceil(i * math.cos(math.radians(degrees[n])) - 0.5)
            rows, columns = np.clip(np.arange(32) - dy, 0, 31), np.clip(np.arange(32) - dx, 0, 31)
            out += weight[i] * (x[n, 0] / 255)[rows][:, columns]
        assert np.allclose(made[n, 0], out, atol=1e-5)


def test_pixelate_and_jpeg_are_pils() -> None:
    x = pictures(1)
    picture = Image.fromarray(x[0].transpose(1, 2, 0))
    for severity, share in enumerate((0.95, 0.9, 0.85, 0.75, 0.65), 1):
        low = picture.resize((int(32 * share), int(32 * share)), Image.Resampling.BOX)
        wanted = np.asarray(low.resize((32, 32), Image.Resampling.BOX)).transpose(2, 0, 1) / 255
        assert np.abs(corrupt(x, "pixelate", severity)[0] - wanted).max() < 1.6 / 255
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=50)
    assert np.allclose(corrupt(x, "jpeg", 4)[0], np.asarray(Image.open(buffer)).transpose(2, 0, 1) / 255, atol=1e-6)


def test_fog_follows_its_formula_and_plasma_roughens() -> None:
    x = pictures(2)
    clouds = plasma(32, 2.0, Drawn("0 fog 4", np.arange(2))).numpy()
    assert clouds.min() == 0
    assert clouds.max() == pytest.approx(1)
    plain, most = x / 255, (x / 255).max((1, 2, 3), keepdims=True)
    assert np.allclose(corrupt(x, "fog", 4), (plain + clouds[:, None]) * most / (most + 1.0), atol=1e-5)
    rough = [float(np.abs(np.diff(plasma(64, d, Drawn("a", np.arange(20))).numpy(), axis=1)).mean()) for d in (3.0, 1.5)]
    assert rough[1] > 2 * rough[0]


def test_elastic_moves_no_pixel_where_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    from elsewhere.images import corruptions

    x = torch.rand(2, 1, 32, 32)
    assert torch.allclose(corruptions.elastic(x, (0.0, 0.0, 0.0), Drawn("a", np.arange(2)), True), x, atol=1e-5)
    assert torch.allclose(corruptions.elastic(x, 1e-9, Drawn("a", np.arange(2)), False), x, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((pictures(1), "fogg", 3), "did you mean 'fog'"),
        ((pictures(1), "fog", 6), "severity must be 1 to 5, not 6"),
        ((pictures(1), "fog", 0), "severity must be 1 to 5, not 0"),
        ((pictures(1).astype(float), "fog", 3), r"reach from \d+ to 255: pass bytes"),
        ((pictures(1)[0], "fog", 3), "pictures have shape"),
        ((np.zeros((1, 1, 6, 6), np.uint8), "snow", 3), "needs pictures of at least 8 × 8"),
    ],
)
def test_what_cannot_be_corrupted(arguments: tuple, said: str) -> None:
    with pytest.raises(UserError, match=said):
        corrupt(*arguments)


# --- augmentation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["none", "flip", "crop", "colour", "randaugment", "augmix"])
@pytest.mark.parametrize("channels", [1, 3])
def test_augmented_pictures_stay_pictures_and_depend_on_the_generator_alone(how: str, channels: int) -> None:
    x = torch.from_numpy(pictures(8, channels, 24)).float() / 255
    torch.manual_seed(3)
    first = augmentation.augmented(x, how)
    torch.manual_seed(3)
    again = augmentation.augmented(x, how)
    assert torch.equal(first, again)
    assert first.shape == x.shape
    assert float(first.min()) >= 0
    assert float(first.max()) <= 1
    assert torch.equal(first, x) == (how == "none")


def test_operations_are_pils() -> None:
    from PIL import ImageOps

    x = pictures(1)
    picture = Image.fromarray(x[0].transpose(1, 2, 0))
    t = torch.from_numpy(x).float() / 255

    def same(made: torch.Tensor, wanted: Image.Image, levels: float) -> None:
        assert np.abs(255 * made[0].numpy() - np.asarray(wanted).transpose(2, 0, 1).astype(float)).max() <= levels

    half = torch.full((1,), 0.5)
    same(augmentation.equalize(t, half), ImageOps.equalize(picture), 1.5)
    same(augmentation.autocontrast(t, half), ImageOps.autocontrast(picture), 1.5)
    same(augmentation.posterize(t, half), ImageOps.posterize(picture, 2), 0.01)
    same(augmentation.solarize(t, half), ImageOps.solarize(picture, 128), 0.01)
    grey = augmentation.darker_flatter_greyer(torch.full((4, 3, 4, 4), 0.5))
    assert torch.allclose(grey, torch.full_like(grey, 0.15), atol=1e-6)  # darker by .3; a flat grey stays so


def test_augmentation_reaches_the_network_in_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from elsewhere.images import learners

    seen = []
    monkeypatch.setattr(learners, "augmented", lambda x, how: (seen.append(how), x)[1])
    data = Examples(pictures(20), np.arange(20) % 2, classes=("a", "b"))
    fitted = make_learner("cnn", {"steps": 3, "batch": 4, "augment": "crop", "patience": 2}).fit(ew.Source(data))
    assert seen == ["crop"] * 3
    fitted.predict(data)
    assert len(seen) == 3
    frozen = make_learner("fine-tune", {"backbone": "small-cnn", "part": "head", "steps": 2, "batch": 4, "patience": 2, "augment": "flip"})
    assert frozen.fit(ew.Source(data)).predict(data).classes().shape == (20,)
    with pytest.raises(UserError, match="augment must be"):
        make_learner("cnn", {"augment": "cropp"})


# --- attacks --------------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5).flatten(1) @ self.weight.T


def margins(model: Linear, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The least ℓ∞ radius at which a linear classifier changes its class: min over others of margin / |w_y - w_k|_1."""
    z = model(x)
    gaps = []
    for k in range(3):
        d = (model.weight[y] - model.weight[k]).abs().sum(1)
        gaps.append(torch.where(y == k, torch.inf, (z.gather(1, y[:, None])[:, 0] - z[:, k]) / d.clamp(min=1e-9)))
    return torch.stack(gaps).amin(0)


def test_auto_pgd_finds_what_a_linear_classifier_gives_away() -> None:
    torch.manual_seed(0)
    model, x = Linear(), 0.4 + 0.2 * torch.rand(200, 1, 4, 4)  # far from 0 and 1: the ball is not clipped
    y = model(x).argmax(1)
    radius = float(margins(model, x, y).median())
    exact = margins(model, x, y)
    stands = auto_pgd(model, x, y, radius, steps=50)
    certain = (exact < 0.98 * radius) | (exact > radius)
    assert (stands[certain] == (exact > radius)[certain]).float().mean() > 0.99
    assert (stands | (exact <= radius * 1.0001)).all()  # nothing falls that cannot
    held = robust(model, x, y, [255 * radius, 0.0, 2550.0], 10)
    assert held[1].mean() == 1
    assert held[0].mean() == pytest.approx(0.5, abs=0.05)
    assert held[2].mean() <= held[0].mean()


def test_the_dlr_loss_ignores_the_scale_of_logits() -> None:
    z, y = torch.randn(20, 5), torch.randint(5, (20,))
    assert torch.allclose(dlr_loss(z, y), dlr_loss(7 * z, y), atol=1e-4)
    assert ((dlr_loss(z, y) > 0) == (z.argmax(1) != y)).all()


def test_checkpoints_are_those_of_the_paper() -> None:
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]


def test_adversarial_accuracy_is_a_metric_of_networks() -> None:
    data = Examples(pictures(30), np.arange(30) % 3, classes=("a", "b", "c"))
    metric = adversarial(radii=(0.5, 50.0), steps=5, most=20)
    for name in ("cnn:steps=30", "mlp:steps=30", "linear-probe:steps=30,backbone=random-conv,components=4"):
        fitted = parse_learner(name).learner
        told = metric.fn(fitted.fit(ew.Source(data)), data)
        assert set(told) == {"", "0.5", "50"}
        assert np.isnan(told[""]).sum() == 10
        right = (fitted.predict(data).classes() == data.labels)[:20]
        assert (told["0.5"][:20] <= right).all()
        assert np.nansum(told["50"]) <= np.nansum(told["0.5"])
    with pytest.raises(Undefined, match="only networks"):
        metric.fn(make_learner("prior", {}).fit(ew.Source(data)), data)
    two = Examples(pictures(20), np.arange(20) % 2, classes=("a", "b"))  # no third logit: cross-entropy
    assert set(metric.fn(make_learner("cnn", {"steps": 3}).fit(ew.Source(two)), two)) == {"", "0.5", "50"}
