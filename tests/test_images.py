"""Shifts against their definitions, digits in one form, the original files' formats, the two tasks."""

from __future__ import annotations

import bz2
import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import elsewhere as ew
from elsewhere.images import data as digits
from elsewhere.images.counter import normal, uniform
from elsewhere.images.shifts import SHIFTS, blur, contrast, invert, rotate, shift, thicken, translate
from elsewhere.images.tasks import digits_shifts, handwriting


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand(6, 2, 28, 28, generator=torch.Generator().manual_seed(0))


# --- shifts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIFTS)
def test_at_severity_0_nothing_happens(name: str, x: torch.Tensor) -> None:
    assert np.array_equal(shift(x.numpy(), name, 0), x.numpy())


@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_a_picture_is_shifted_alike_in_any_batch(name: str, severity: int, x: torch.Tensor) -> None:
    images = x.numpy()
    whole = shift(images, name, severity, seed=3)
    part = shift(images[[4, 1]], name, severity, seed=3, index=np.array([4, 1]))
    assert np.allclose(whole[[4, 1]], part, atol=1e-6)
    assert 0 <= whole.min() <= whole.max() <= 1
    drawn = name in ("rotated", "shifted", "noisy") or (name == "inverted" and severity < 5)
    assert drawn == any(not np.array_equal(whole, shift(images, name, severity, seed=s)) for s in range(4, 8))


def test_a_quarter_turn_exchanges_pixels_and_four_give_the_picture_back(x: torch.Tensor) -> None:
    assert torch.allclose(rotate(x, 90.0), torch.rot90(x, 1, (2, 3)), atol=1e-6)
    assert torch.allclose(rotate(rotate(rotate(rotate(x, 90.0), 90.0), 90.0), 90.0), x, atol=1e-5)
    assert torch.equal(rotate(x, 0.0), x)
    wide = torch.rand(1, 1, 8, 12)
    assert torch.allclose(rotate(wide, 180.0), wide.flip(2, 3), atol=1e-6)


def test_each_picture_has_its_own_angle(x: torch.Tensor) -> None:
    angles = torch.tensor([0.0, 90, 180, 270, -90, 360])
    turned = rotate(x, angles)
    for k, quarter in enumerate((0, 1, 2, 3, 3, 0)):
        assert torch.allclose(turned[k], torch.rot90(x[k], quarter, (1, 2)), atol=1e-5)


@given(st.integers(-9, 9), st.integers(-9, 9))
@settings(max_examples=25, deadline=None)
def test_whole_pixels_move_exactly(down: int, right: int) -> None:
    x = torch.rand(2, 1, 9, 9)
    expected = torch.zeros_like(x)
    for r in range(9):
        for c in range(9):
            if 0 <= r - down < 9 and 0 <= c - right < 9:
                expected[:, :, r, c] = x[:, :, r - down, c - right]
    assert torch.equal(translate(x, down, right), expected)


def test_a_blur_is_the_gaussian_sum_and_keeps_what_is_flat() -> None:
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 1
    sigma = 1.5
    at = np.arange(-20, 21)
    weight = np.exp(-(at**2) / (2 * sigma**2)) * (np.abs(at) <= 6)
    weight /= weight.sum()
    assert np.allclose(blur(point, sigma)[0, 0].numpy(), np.outer(weight, weight), atol=1e-6)
    assert torch.allclose(blur(torch.full((1, 1, 9, 9), 0.3), 2.0), torch.tensor(0.3))


def test_inverting_twice_gives_the_picture_back(x: torch.Tensor) -> None:
    assert torch.allclose(invert(invert(x)), x)
    assert np.allclose(shift(x.numpy(), "inverted", 5), 1 - x.numpy())
    many = np.zeros((4000, 1, 4, 4), np.float32)
    for severity, share in enumerate(SHIFTS["inverted"].amounts, 1):
        assert shift(many, "inverted", severity)[:, 0, 0, 0].mean() == pytest.approx(share, abs=0.03)


def test_contrast_keeps_the_mean_and_scales_the_deviation(x: torch.Tensor) -> None:
    flat = contrast(x, 0.3)
    assert torch.allclose(flat.mean((2, 3)), x.mean((2, 3)), atol=1e-6)
    assert torch.allclose(flat.std((2, 3)), 0.3 * x.std((2, 3)), atol=1e-6)


def test_strokes_grow_by_whole_pixels_and_mix_between() -> None:
    line = torch.zeros(1, 1, 9, 9)
    line[..., 4] = 1.0
    assert thicken(line, 1)[0, 0, 4].tolist() == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert thicken(line, 1.5)[0, 0, 4].tolist() == [0, 0, 0.5, 1, 1, 1, 0.5, 0, 0]
    assert torch.equal(thicken(thicken(line, 1), -1)[..., 1:-1, 1:-1], line[..., 1:-1, 1:-1])
    assert torch.equal(thicken(line, 0), line)


def test_noise_has_its_deviation_and_is_uncorrelated() -> None:
    grey = np.full((400, 1, 28, 28), 0.5, np.float32)
    z = (shift(grey, "noisy", 1, seed=0) - 0.5) / SHIFTS["noisy"].amounts[0]
    assert z.mean() == pytest.approx(0, abs=0.01)
    assert z.std() == pytest.approx(1, abs=0.01)
    flat = z.reshape(400, -1)
    assert abs(np.corrcoef(flat[:, 0], flat[:, 1])[0, 1]) < 0.15
    assert abs(np.corrcoef(flat[0], flat[1])[0, 1]) < 0.12


def test_numbers_by_counter_are_uniform_and_normal() -> None:
    from scipy.stats import kstest

    u = uniform("key", np.arange(2000), 20)
    assert kstest(u.ravel(), "uniform").pvalue > 0.01
    assert kstest(normal("key", np.arange(2000), 5).ravel(), "norm").pvalue > 0.01
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.07
    assert not np.array_equal(u, uniform("other", np.arange(2000), 20))


@pytest.mark.parametrize(("images", "name", "severity", "said"), [
    (np.zeros((1, 1, 8, 8)), "rotatd", 1, "did you mean 'rotated'"),
    (np.zeros((1, 1, 8, 8)), "rotated", 6, "severity must be 0 to 5"),
    (np.full((1, 1, 8, 8), 255.0), "rotated", 1, "values in 0..1; these reach from 255 to 255: divide them, or pass bytes"),
    (np.zeros((8, 8)), "rotated", 1, r"\[n, channels, height, width\]"),
])  # fmt: skip
def test_what_cannot_be_shifted_is_told_in_one_line(images: Any, name: str, severity: int, said: str) -> None:
    with pytest.raises(ew.UserError, match=said):
        shift(images, name, severity)


# --- digits in one form ------------------------------------------------------------------------------------------------


def test_digits_of_28_pixels_stay_as_they_are_and_others_are_centred() -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (3, 28, 28)).astype(np.uint8)
    assert np.allclose(digits.one_form(raw)[:, 0], raw / 255)
    small = np.zeros((1, 8, 8), np.float32)
    small[0, 1:3, 5:7] = 1
    made = digits.one_form(small)[0, 0]
    at = np.arange(28)
    mass = made.sum()
    assert abs((made.sum(1) @ at) / mass - 13.5) <= 0.5
    assert abs((made.sum(0) @ at) / mass - 13.5) <= 0.5
    assert made.shape == (28, 28)


def test_scaling_is_bilinear_with_half_pixel_centres() -> None:
    image = np.random.default_rng(0).random((1, 8, 8)).astype(np.float32)
    at = np.clip((np.arange(20) + 0.5) * 8 / 20 - 0.5, 0, 7)
    low = np.floor(at).astype(int)
    high, part = np.minimum(low + 1, 7), at - low
    rows = image[0][low] * (1 - part)[:, None] + image[0][high] * part[:, None]
    by_hand = rows[:, low] * (1 - part) + rows[:, high] * part
    made = digits.one_form(image)[0, 0]
    place = [(r, c) for r in range(9) for c in range(9) if np.allclose(made[r : r + 20, c : c + 20], by_hand, atol=1e-5)]
    assert len(place) == 1


def test_a_pen_stroke_is_drawn_by_its_distance() -> None:
    points = np.array([[[0, 50], [100, 50], *([[100, 50]] * 6)]])
    made = digits.drawn(points)[0, 0]
    rows = np.flatnonzero(made.sum(1))
    column = made[:, 14]
    middle = int(np.argmax(column))
    assert column[middle] == pytest.approx(1.0)
    assert column[middle + 1] == pytest.approx(0.6)
    assert len(rows) == 3
    assert made[middle].sum() == pytest.approx(21 + 2 * 0.6, abs=1e-4)


def _idx(path: Path, array: np.ndarray, kind: int) -> None:
    head = struct.pack(">HBB", 0, kind, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    content = head + array.astype({8: ">u1", 12: ">i4"}[kind]).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    """The original files' formats, a few rows each."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 28, 28))
    labels = np.zeros((80, 8), int)
    labels[:, 0], labels[:, 1], labels[:, 2] = np.arange(80) % 10, np.where(np.arange(80) < 30, 0, 4), np.arange(80) // 3
    _idx(tmp_path / "t10k-images-idx3-ubyte.gz", images, 8)
    _idx(tmp_path / "qmnist-test-labels-idx2-int", labels, 12)
    with (tmp_path / "semeion.data").open("w") as file:
        for k in range(40):
            file.write(" ".join(f"{v:.4f}" for v in rng.integers(0, 2, 256)) + " " + " ".join(str(int(c == k % 10)) for c in range(10)) + " \n")
    for end, n in (("tra", 30), ("tes", 12)):
        rows = np.c_[rng.integers(0, 101, (n, 16)), np.arange(n) % 10]
        np.savetxt(tmp_path / f"pendigits.{end}", rows, fmt="%3d", delimiter=",")
    return tmp_path


def test_the_original_files_are_read(originals: Path) -> None:
    sizes = {name: len(digits.handwriting(originals, name)) for name in digits.WRITERS}
    assert sizes == {"employees": 30, "students": 30, "semeion": 40, "pen": 42, "optdigits": 1797}
    students = digits.handwriting(originals, "students")
    assert students.column("unit").tolist() == (np.arange(30, 60) // 3).tolist()
    assert students.labels is not None
    assert students.labels.tolist() == (np.arange(30, 60) % 10).tolist()
    task = handwriting(0, path=str(originals), source="employees")
    assert [d.name for d in task.domains] == ["employees", "students", "semeion", "pen", "optdigits"]


def test_the_projects_files_hold_what_the_readme_says(data: Path) -> None:
    sizes = {name: len(digits.handwriting(data / "handwriting", name)) for name in digits.WRITERS}
    assert sizes == {"employees": 4999, "students": 5001, "semeion": 1593, "pen": 10992, "optdigits": 1797}
    writers = {name: len(set(digits.handwriting(data / "handwriting", name).column("unit"))) for name in ("employees", "students")}
    assert writers == {"employees": 48, "students": 249}


def test_writers_are_on_one_side_of_a_split_only(data: Path) -> None:
    task = handwriting(1, source="students")
    assert task.source.validation is not None
    home = set(task.domains[0].load().column("unit"))
    train, stop = (set(d.column("unit")) for d in (task.source.train, task.source.validation))
    assert not home & (train | stop)
    assert not train & stop


def test_torchvisions_files_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with bz2.open(tmp_path / "usps.t.bz2", "wt") as file:
        for k in range(20):
            file.write(f"{k % 10 + 1} " + " ".join(f"{j + 1}:{v:.4f}" for j, v in enumerate(rng.uniform(-1, 1, 256))) + "\n")
    usps = digits.from_torchvision("USPS", tmp_path, train=False)
    assert usps.inputs.shape == (20, 1, 28, 28)
    assert usps.labels is not None
    assert usps.labels.tolist() == [k % 10 for k in range(20)]
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = rng.integers(0, 256, (12, 28, 28))
    for part, n in (("t10k", 12), ("train", 12)):
        _idx(raw / f"{part}-images-idx3-ubyte", images[:n], 8)
        _idx(raw / f"{part}-labels-idx1-ubyte", np.arange(n) % 10, 8)
    assert np.allclose(digits.from_torchvision("MNIST", tmp_path, train=False).inputs[:, 0], images / 255)
    with pytest.raises(ew.UserError, match="torchvision has no data set 'USP'; did you mean 'USPS'"):
        digits.from_torchvision("USP", tmp_path)
    with pytest.raises(ew.UserError, match="torchvision's QMNIST cannot be read"):
        digits.from_torchvision("QMNIST", tmp_path)


@pytest.mark.parametrize(("spoil", "said"), [
    (lambda p: (p / "semeion.data").unlink(), r"neither semeion.npz nor semeion.data: download"),
    (lambda p: (p / "semeion.data").write_text("1 2 x\n"), "cannot be read"),
    (lambda p: (p / "semeion.data").write_text("1 2 3\n"), "has 3 columns; expected 256 pixels and 10 classes"),
    (lambda p: (p / "semeion.npz").write_bytes(b"x"), "cannot be read"),
])  # fmt: skip
def test_files_that_are_missing_or_damaged_are_named(originals: Path, spoil: Any, said: str) -> None:
    spoil(originals)
    with pytest.raises(ew.UserError, match=said):
        digits.handwriting(originals, "semeion")
    (originals / "t10k-images-idx3-ubyte.gz").write_bytes(b"xx")
    with pytest.raises(ew.UserError, match="t10k-images"):
        digits.handwriting(originals, "students")


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_the_same_held_out_digits_stand_in_every_stress_domain() -> None:
    task = digits_shifts(3)
    home = task.domains[0].load()
    assert len(task.domains) == 1 + 7 * 5
    assert {d.role for d in task.domains[1:]} == {"stress"}
    for domain in task.domains[1::9]:
        data = domain.load()
        assert np.array_equal(data.labels, home.labels)
        assert np.array_equal(data.inputs, domain.load().inputs)
        assert np.array_equal(data.inputs, shift(home.inputs, domain.about["shift"], domain.about["severity"], 3, home.column("id")))
    assert not set(home.column("id")) & set(task.source.train.column("id"))
    assert not np.array_equal(home.column("id"), digits_shifts(4).domains[0].load().column("id"))
    with pytest.raises(ew.UserError, match="did you mean 'rotated'"):
        digits_shifts(0, shifts=["rotate"])


def test_one_value_stands_for_a_list_of_one(run: Any) -> None:
    assert [d.name for d in digits_shifts(0, severities=3, shifts="noisy").domains] == ["home", "noisy 3"]
    code, _, error = run("assay", "digits/shifts:severities=9")
    assert code == 2
    assert "severity must be 1 to 5, not 9" in error


def test_a_result_with_stress_alone_is_told_and_drawn(tmp_path: Path) -> None:
    task = digits_shifts.bind(severities=[1, 5], shifts=["rotated", "noisy"])
    result = ew.assay(task, learners=["prior", "linear-probe:steps=100"], seeds=2, out=tmp_path / "r")
    said = " ".join(result.summary())
    assert "linear-probe:steps=100" in said
    assert "rotated 5" in said
    assert len(result.pairs()) == 4
    page = result.report().read_text()
    for title in ("Examples", "By severity", "Calibration by domain", "Training"):
        assert f">{title}</h2>" in page
    assert page.count("<figcaption>") == 5
    assert "accuracy by severity: rotated" in page


def test_a_report_shows_pictures_without_making_the_task_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = ew.assay(digits_shifts.bind(severities=[5], shifts=["noisy"]), learners=["prior"], seeds=1, out=tmp_path / "r")
    monkeypatch.setattr(ew.Result, "task", lambda *_: pytest.fail("the report ran a task"))
    assert "noisy 5</figcaption>" in ew.Result(result.folder).report().read_text()
    (result.folder / "previews.json").write_text("[1]")
    assert "<figcaption>" not in ew.Result(result.folder).report().read_text()


def test_pictures_are_read_from_a_folder(tmp_path: Path) -> None:
    for name, side in (("b.png", 8), ("a.png", 40), ("c/d.png", 28)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((side, side), 7, np.uint8)).convert("RGB").save(tmp_path / name)
    names, images = digits.read_pictures(tmp_path)
    assert names == ["a.png", "b.png", "c/d.png"]
    assert images.shape == (3, 28, 28)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(ew.UserError, match=r"bad.png cannot be read as a picture"):
        digits.read_pictures(tmp_path)
    with pytest.raises(ew.UserError, match="holds no pictures"):
        digits.read_pictures(Path(__file__).parent / "toy_rooms")
    with pytest.raises(ew.UserError, match="there is no file or folder"):
        digits.read_pictures(tmp_path / "none")
