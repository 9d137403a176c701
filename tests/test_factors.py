"""Worlds of known factors: splits, renderers, loaders, metrics, and the explainer."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import elsewhere as ew
from elsewhere.data import Examples
from elsewhere.errors import UserError
from elsewhere.factors.grid import SPLITS, Factors, Split, held_out_values, split
from elsewhere.factors.metrics import grid_r2, pull_to_known
from elsewhere.factors.task import factor_task
from elsewhere.factors.world import World
from elsewhere.images import factor_tasks, pictures, rooms, sprites, worlds
from elsewhere.images.factor_map import FactorMap, error_grid, outline
from elsewhere.images.learners import Cnn
from elsewhere.images.worlds import CELEBGLOW, DSPRITES, MPI3D, SHAPES3D
from elsewhere.task import TaskFunction, standard_error

MINI = Factors(("shape", "scale", "orientation", "x", "y"), (3, 6, 10, 16, 16), ("shape",))
SIZES = [  # spec 14, 2.2: train and test of inter- and extrapolation, of composition, and c_i
    (DSPRITES, 0.2, None, (240_000, 497_280), (192_312, 544_968), [0, 0, 4, 3, 3]),
    (SHAPES3D, 0.15, None, (147_456, 332_544), (153_408, 326_592), [1, 1, 1, 0, 0, 1]),
    (MPI3D, 0.1, None, (311_040, 725_760), (287_712, 749_088), [0, 0, 0, 0, 0, 6, 6]),
    (CELEBGLOW, 0.3, 0.2, (64_000, 152_000), (91_000, 125_000), [0, 1, 1, 1]),
    (MINI, 0.2, None, (13_824, 32_256), (9_630, 36_450), [0, 0, 1, 1, 1]),
]  # fmt: skip


@pytest.mark.parametrize(("factors", "fraction", "share", "ends", "composed", "low"), SIZES)
def test_splits_have_the_published_sizes(factors: Factors, fraction: float, share: float | None, ends: tuple[int, int], composed: tuple[int, int], low: list[int]) -> None:
    for kind in ("interpolation", "extrapolation"):
        made = split(factors, kind, fraction)
        assert (len(made.train), len(made.test)) == ends
    made = split(factors, "composition", fraction, composition_share=share)
    assert (len(made.train), len(made.test)) == composed
    assert [len(made.low.get(n, ())) for n in factors.names] == low
    drawn = split(factors, "random", fraction)
    assert len(drawn.test) == int(factors.count * (ends[1] / factors.count))
    assert len(drawn.train) + len(drawn.test) == factors.count


def test_published_held_out_values_and_one_factor_sets() -> None:
    held = held_out_values(DSPRITES, "interpolation", 0.2)
    assert held["scale"].tolist() == [1, 4]
    assert held["orientation"].tolist() == [2, 7, 12, 17, 22, 27, 32, 37]
    assert held["x"].tolist() == [2, 7, 11, 15, 20, 24, 29]
    assert held_out_values(SHAPES3D, "interpolation", 0.15)["azimuth"].tolist() == [2, 7, 12]
    assert held_out_values(MPI3D, "interpolation", 0.1)["x"].tolist() == [5, 15, 24, 34]
    assert held_out_values(CELEBGLOW, "extrapolation", 0.3)["age"].tolist() == [4, 5]
    alone = split(DSPRITES, "extrapolation", 0.2).one_factor
    assert {k: len(v) for k, v in alone.items()} == {"scale": 120_000, "orientation": 60_000, "x": 67_200, "y": 67_200}


TOY = Factors(("kind", "a", "b", "c", "side"), (2, 3, 4, 3, 2), ("kind", "side"))
BY_HAND = {  # which values of a, b, c are held out with a fraction of 1/4: one of each
    "extrapolation": ({2}, {3}, {2}),
    "interpolation": ({1}, {1}, {1}),  # b keeps round(0), round(1.5) = 2, round(3): halves go to even
}


@pytest.mark.parametrize("kind", list(BY_HAND))
def test_a_toy_table_is_split_as_by_hand(kind: str) -> None:
    a, b, c = BY_HAND[kind]
    everything = list(itertools.product(range(2), range(3), range(4), range(3), range(2)))
    out = [(f[1] in a, f[2] in b, f[3] in c) for f in everything]
    made = split(TOY, kind, 0.25)
    assert made.test.tolist() == [k for k, o in enumerate(out) if any(o)]
    assert made.train.tolist() == [k for k, o in enumerate(out) if not any(o)]
    assert made.one_factor["b"].tolist() == [k for k, o in enumerate(out) if o == (False, True, False)]


def test_the_toy_composition_is_defined_by_what_is_trained() -> None:
    made = split(TOY, "composition", 0.1)  # q = 1 - (1 - .9³)^(1/3) = .353: one value of each
    everything = list(itertools.product(range(2), range(3), range(4), range(3), range(2)))
    assert made.train.tolist() == [k for k, f in enumerate(everything) if 0 in (f[1], f[2], f[3])]


def test_the_toy_random_split_is_the_seeded_shuffle() -> None:
    made = split(TOY, "random", 0.25)
    share = len(split(TOY, "extrapolation", 0.25).test) / 144
    mask = np.zeros(144, bool)
    mask[: int(144 * share)] = True
    np.random.RandomState(0).shuffle(mask)
    assert made.test.tolist() == np.flatnonzero(mask).tolist()


@given(st.lists(st.integers(2, 9), min_size=2, max_size=4), st.floats(0.05, 0.6))
@settings(max_examples=60, deadline=None)
def test_interpolation_keeps_both_ends_and_composition_every_value(sizes: list[int], fraction: float) -> None:
    factors = Factors(tuple(f"f{k}" for k in range(len(sizes))), tuple(sizes))
    try:
        between = split(factors, "interpolation", fraction)
    except UserError:
        between = None
    if between is not None:
        values = factors.values(between.train)
        for k, n in enumerate(sizes):
            if n - int(np.ceil(n * fraction)) > 1:
                assert {0, n - 1} <= set(values[:, k])
    try:
        composed = split(factors, "composition", fraction)
    except UserError:
        return
    if len(composed.low) > 1:
        values = factors.values(composed.train)
        assert all(set(values[:, k]) == set(range(n)) for k, n in enumerate(sizes))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_rows_and_values_are_inverse_with_the_last_factor_fastest(sizes: list[int], seed: int) -> None:
    factors = Factors(tuple(f"f{k}" for k in range(len(sizes))), tuple(sizes))
    rows = np.random.default_rng(seed).integers(factors.count, size=20)
    values = factors.values(rows)
    by_hand = sum(values[:, i] * int(np.prod(sizes[i + 1 :])) for i in range(len(sizes)))
    assert (by_hand == rows).all()
    assert (factors.rows(values) == rows).all()


def test_impossible_splits_say_what_to_do() -> None:
    with pytest.raises(UserError, match=r"composition with fraction 0.6 keeps no value of any factor \(sizes 3, 4, 2\): lower fraction to 0.16 or less"):
        split(Factors(("a", "b", "c"), (3, 4, 2)), "composition", 0.6)
    split(Factors(("a", "b", "c"), (3, 4, 2)), "composition", 0.16)  # what the message says works
    with pytest.raises(UserError, match="kept factors are a, b"):
        split(Factors(("a", "b"), (3, 4), ("a", "b")), "extrapolation", 0.2)
    with pytest.raises(UserError, match="leaves no training image"):
        split(Factors(("a", "b"), (2, 2)), "extrapolation", 0.9)
    for fraction in (0.0, 1.0, -0.2):
        with pytest.raises(UserError, match="fraction must lie between 0 and 1"):
            split(MINI, "random", fraction)
    with pytest.raises(UserError, match="did you mean 'shape'"):
        Factors(("shape", "x"), (2, 2), ("shap",))
    with pytest.raises(UserError, match="did you mean 'extrapolation'"):
        split(MINI, "extrapolate", 0.2)
    assert "extrapolation downwards" in split(Factors(("a", "b"), (5, 4), ("b",)), "composition", 0.3).notes[0]


# --- renderers ------------------------------------------------------------------------------------------------------


def test_sprites_are_the_real_frames(data: Path) -> None:
    held = np.load(data / "dsprites-frames" / "frames.npz")
    real = np.unpackbits(held["images"], axis=1).reshape(-1, 64, 64) > 0
    drawn = sprites.draw(held["shape"], 0.5 + held["scale"] / 10, 2 * np.pi * held["orientation"] / 39, held["x"] / 31, held["y"] / 31)[:, 0] > 0
    overlap = (real & drawn).sum((1, 2)) / (real | drawn).sum((1, 2))
    for shape, mean, least in ((0, 0.999, 0.98), (1, 0.995, 0.98), (2, 0.98, 0.94)):
        mine = overlap[held["shape"] == shape]
        assert mine.mean() >= mean
        assert mine.min() >= least


def naive_sprite(shape: int, scale: float, angle: float, x: float, y: float, side: int, sub: int) -> np.ndarray:
    """One sprite on the full frame, in float64, as spec 14 (7.2) writes it."""
    n = side * sub
    at = (np.arange(n) + 0.5) * 64 / n
    dx, dy = (at[None] - (16 + 32 * x)) / scale, (at[:, None] - (16 + 32 * y)) / scale
    u, v = np.cos(angle) * dx - np.sin(angle) * dy, np.sin(angle) * dx + np.cos(angle) * dy
    if shape == 0:
        inside = np.maximum(np.abs(u), np.abs(v)) <= 9.6
    elif shape == 1:
        inside = (u / 12.75) ** 2 + (v / 7.25) ** 2 <= 1
    else:
        radius = np.sqrt(u**2 + v**2)
        phi = np.arccos(np.clip(v / np.maximum(radius, 1e-12), -1, 1))
        inside = radius <= sum(h * np.cos(k * phi) for k, h in enumerate(sprites.HEART))
    return inside.reshape(side, sub, side, sub).mean((1, 3))


@pytest.mark.parametrize(("side", "sub"), [(64, 1), (32, 2), (16, 4)])
def test_sprites_equal_their_definition(side: int, sub: int) -> None:
    rng = np.random.default_rng(0)
    n = 60
    shape, scale, angle, x, y = rng.integers(0, 3, n), rng.uniform(0.5, 1, n), rng.uniform(0, 7, n), rng.random(n), rng.random(n)
    drawn = sprites.draw(shape, scale, angle, x, y, side)[:, 0] / 255
    by_hand = np.stack([naive_sprite(*p, side, sub) for p in zip(shape, scale, angle, x, y, strict=True)])
    off = np.abs(drawn - by_hand) > 0.5 / 255 + 1e-6  # single precision moves a sub-pixel of an edge now and then
    assert off.mean() < 2e-4


CHECKS = {  # spec 14, 7.3: pixels at (row, column) and the sum of all bytes at 64 × 64
    (0, 3, 6, 3, 1, 7): [(57, 177, 27), (57, 177, 27), (27, 88, 180), (16, 54, 109), (215, 32, 32), 1_113_925],
    (5, 8, 2, 7, 0, 14): [(126, 23, 152), (147, 27, 177), (147, 177, 27), (147, 177, 27), (32, 215, 215), 1_598_961],
    (1, 4, 7, 0, 2, 0): [(27, 177, 87), (13, 89, 44), (62, 29, 195), (107, 71, 16), (215, 142, 32), 1_346_436],
    (9, 0, 5, 5, 3, 10): [(152, 23, 23), (177, 27, 27), (29, 191, 191), (215, 32, 142), (215, 32, 142), 1_364_358],
}


@pytest.mark.slow
def test_rooms_have_the_check_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rooms.geometry.cache_clear()
    drawn = rooms.draw(np.array(list(CHECKS))).astype(int)
    for picture, wanted in zip(drawn, CHECKS.values(), strict=True):
        for (row, column), colour in zip(((4, 4), (4, 60), (32, 32), (40, 24), (60, 32)), wanted[:-1], strict=True):
            assert np.abs(picture[:, row, column] - colour).max() <= 1
        assert abs(picture.sum() - wanted[-1]) < 1e-4 * wanted[-1]
    rooms.geometry.cache_clear()
    assert (rooms.draw(np.array(list(CHECKS))) == drawn).all()  # from the cache


def test_rooms_of_one_geometry_differ_in_colour_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.rand(480, 3, 16)
    maps /= maps.sum(1, keepdim=True)
    monkeypatch.setattr(rooms, "geometry", lambda resolution: maps)
    values = np.array([[0, 1, 2, 3, 1, 7], [4, 4, 4, 3, 1, 7]])
    drawn = rooms.draw(values, 4)
    grey = drawn[1].reshape(3, -1)
    assert (np.ptp(grey, axis=1) <= 1).all()  # one hue everywhere, shades that sum to 1


# --- worlds and tasks -----------------------------------------------------------------------------------------------


def test_lazy_pictures_are_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    from elsewhere.identity import content_key

    world = worlds.sprites()
    rows = np.array([5, 40_000, 17])
    eager = world.images(rows)
    monkeypatch.setattr("elsewhere.pictures.IN_MEMORY", 0)
    lazy = world.images(rows)
    assert isinstance(lazy, pictures.Lazy)
    assert (np.asarray(lazy) == eager).all()
    assert (np.asarray(lazy[np.array([2, 0])]) == eager[[2, 0]]).all()
    assert content_key(lazy) == content_key(world.images(rows)) != content_key(world.images(rows[:2]))
    fitted = Cnn(steps=2, batch=4).fit(ew.Source(world.examples(np.arange(0, 46080, 5000))))  # trained and judged without being held in memory
    assert fitted.predict(world.examples(rows).unlabelled()).mean.shape == (3, 5)


def test_a_factor_task_holds_out_home_and_judges_each_new_factor() -> None:
    task = factor_tasks.sprites(split="extrapolation", train_images=500)
    assert [d.name for d in task.domains] == ["home", "all", "only scale new", "only orientation new", "only x new", "only y new"]
    assert len(task.source.train) == 500
    made = split(MINI, "extrapolation", 0.2)
    train, home = (set(d.columns["id"]) for d in (task.source.train, task.domains[0].load()))
    assert train | home <= set(made.train.tolist())
    assert not train & home
    new = task.domains[3].load()
    assert set(new.values[:, 2]) == {8, 9}
    assert new.values[:, 1].max() < 4
    assert new.unlabelled().values is None
    assert new.unlabelled().labels is None


def test_r2_is_measured_by_the_whole_grid() -> None:
    targets = MINI.targets(MINI.values(np.arange(MINI.count)))
    variance = targets.astype(float).var(0)
    perfect = grid_r2(np.zeros_like(targets), variance, MINI.names)
    assert {v.value for v in perfect.values()} == {1.0}
    mean = grid_r2(targets.mean(0) - targets.astype(float), variance, MINI.names, MINI.kept)
    assert all(abs(v.value) < 1e-6 for v in mean.values())
    assert set(mean) == {*MINI.names, "", "ordered"}
    part = targets[:1000].astype(float)  # a constant guess is not 0 on a part of the grid
    assert abs(grid_r2(part.mean(0) - part, variance, MINI.names)[""].value) > 0.1
    rng = np.random.default_rng(0)
    error = rng.normal(size=(400, 5))
    told = grid_r2(error, variance, MINI.names)
    drawn = [grid_r2(error[rng.integers(400, size=400)], variance, MINI.names)[""].value for _ in range(2000)]
    assert np.std(drawn) == pytest.approx(standard_error(told[""].influence), rel=0.1)


def test_pull_of_known_predictors() -> None:
    truth, train = np.repeat([0.8, 1.0], 50), np.linspace(0, 0.6, 4)
    exact = pull_to_known(truth, truth, train, 6)
    assert exact["slope"].value == pytest.approx(1)
    assert exact["share"].mean() == 0
    assert np.allclose(exact["regression"], 0)
    clamped = pull_to_known(np.full(100, 0.6), truth, train, 6)
    assert clamped["slope"].value == pytest.approx(0)
    assert clamped["share"].mean() == 1
    mean = pull_to_known(np.full(100, train.mean()), truth, train, 6)
    assert np.allclose(mean["regression"], 1)
    assert "slope" not in pull_to_known(np.ones(5), np.ones(5), train, 6)


def test_a_factor_with_one_value_is_left_out_of_the_mean() -> None:
    told = grid_r2(np.ones((4, 2)), np.array([0.0, 1.0]), ("one", "many"))
    assert set(told) == {"many", ""}
    assert told[""].value == 0


# --- published files ------------------------------------------------------------------------------------------------

TINY = Factors(("shape", "scale", "orientation", "x", "y"), (3, 2, 4, 2, 2), ("shape",))


def test_dsprites_file_is_read_and_its_pickle_never(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "DSPRITES", TINY)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 2, (TINY.count, 64, 64)).astype(np.uint8)
    path = tmp_path / "dsprites.npz"
    np.savez(path, imgs=images, latents_classes=np.zeros((TINY.count, 6)), metadata=np.array({"a": object}, dtype=object))
    world = worlds.dsprites(path)
    assert (world.images(np.array([3, 1]))[:, 0] == images[[3, 1]] * 255).all()
    few = worlds.dsprites(path, orientations=2)
    assert few.factors.sizes == (3, 2, 2, 2, 2)
    last = few.images(np.array([few.factors.rows(np.array([[2, 1, 1, 1, 0]]))[0]]))
    assert (last[0, 0] == images[TINY.rows(np.array([[2, 1, 1, 1, 0]]))[0]] * 255).all()
    task = factor_tasks.dsprites(split="random", path=str(path), fraction=0.5)
    assert len(task.domains[1].load()) > 0
    cut = tmp_path / "cut.npz"
    cut.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match="cannot be read"):
        worlds.dsprites(cut)
    np.savez(tmp_path / "other.npz", imgs=images[:5])
    with pytest.raises(UserError, match="expected"):
        worlds.dsprites(tmp_path / "other.npz")
    with pytest.raises(UserError, match="there is no file"):
        worlds.dsprites(tmp_path / "none.npz")


def test_mpi3d_and_celebglow_are_memory_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "MPI3D", Factors(("colour", "x"), (3, 4)))
    monkeypatch.setattr(worlds, "CELEBGLOW", Factors(("person", "age"), (4, 3), ("person",)))
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "mpi3d.npz", images=images)
    world = worlds.mpi3d(tmp_path / "mpi3d.npz")
    assert (world.draw(np.array([7])) == images[[7]].transpose(0, 3, 1, 2)).all()
    assert (tmp_path / "mpi3d.unpacked.npy").exists()
    np.save(tmp_path / "celeb.npy", images.reshape(4, 3, 8, 8, 3))
    assert (worlds.celebglow(tmp_path / "celeb.npy").draw(np.array([2, 2])) == images[[2, 2]].transpose(0, 3, 1, 2)).all()
    assert worlds.celebglow(tmp_path / "celeb.npy").composition_share == 0.2


def test_shapes3d_is_read_by_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    h5py = pytest.importorskip("h5py")
    monkeypatch.setattr(worlds, "SHAPES3D", Factors(("hue", "type"), (3, 2), ("type",)))
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3)).astype(np.uint8)
    with h5py.File(tmp_path / "3dshapes.h5", "w") as file:
        file["images"] = images
    drawn = worlds.shapes3d(tmp_path / "3dshapes.h5").draw(np.array([5, 0, 5, 2]))
    assert (drawn == images[[5, 0, 5, 2]].transpose(0, 3, 1, 2)).all()
    (tmp_path / "bad.h5").write_bytes(b"nothing")
    with pytest.raises(UserError, match="no Shapes3D file"):
        worlds.shapes3d(tmp_path / "bad.h5")


def test_arrays_that_are_no_bytes_are_refused_or_scaled(tmp_path: Path) -> None:
    np.save(tmp_path / "celeb.npy", np.zeros((worlds.CELEBGLOW.count, 1, 1, 3), np.float16))
    with pytest.raises(UserError, match="holds images of float16; expected bytes"):
        worlds.celebglow(tmp_path / "celeb.npy")
    for top in (1.0, 255.0):
        np.savez(tmp_path / "dsprites_random_train_images.npz", arr_0=np.full((2, 1, 4, 4), top, np.float32))
        np.savez(tmp_path / "dsprites_random_train_labels.npz", arr_0=np.zeros((2, len(worlds.DSPRITES)), int))
        assert np.asarray(worlds.published_split(tmp_path, "dsprites", "random", "train").inputs).min() == 255


def test_another_picture_or_table_is_another_world(tmp_path: Path) -> None:
    from elsewhere.images.factor_tasks import factor_table

    (tmp_path / "photos").mkdir()
    folder = photos_with_factors(tmp_path / "photos")
    name = worlds.factor_table(folder, categorical=("kind",)).name
    first = next(folder.rglob("*.png"))
    Image.new("L", Image.open(first).size, 9).save(first)
    assert worlds.factor_table(folder, categorical=("kind",)).name != name
    outside = shutil.move(folder / "factors.csv", tmp_path / "outside.csv")
    function = factor_table.bind(folder=str(folder), table=str(outside))
    before = function.key
    with Path(outside).open("a") as file:
        file.write("\n")
    assert function.bind().key != before


def test_published_splits_are_checked_against_the_grid(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2, 3, 4], [2, 5, 39, 31, 31]])
    np.savez(tmp_path / "dsprites_random_train_images.npz", np.zeros((2, 1, 64, 64), np.float32))
    np.savez(tmp_path / "dsprites_random_train_labels.npz", labels)
    found = worlds.published_split(tmp_path, "dsprites", "random", "train")
    assert np.allclose(found.labels[1], 1)
    np.savez(tmp_path / "dsprites_random_train_labels.npz", labels + 1)
    with pytest.raises(UserError, match="'shape' has 3 values, and a label is 3"):
        worlds.published_split(tmp_path, "dsprites", "random", "train")


# --- a user's own table ---------------------------------------------------------------------------------------------


def photos_with_factors(folder: Path, skip: int = 7) -> Path:

    rng = np.random.default_rng(0)
    lines = ["file,size,place,kind"]
    for k, (size, place, kind) in enumerate(itertools.product((1, 2.5, 10), (0, 1, 2, 3), ("a", "b"))):
        if k == skip:
            continue
        Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / f"{k}.png")
        lines.append(f"{k}.png,{size},{place},{kind}")
    (folder / "factors.csv").write_text("\n".join(lines))
    return folder


def test_a_table_of_factors_is_ranked_and_may_have_holes(tmp_path: Path) -> None:
    world = worlds.factor_table(photos_with_factors(tmp_path), categorical=("kind",))
    assert world.factors.names == ("size", "place", "kind")
    assert world.factors.sizes == (3, 4, 2)
    assert world.factors.kept == ("kind",)
    assert len(world) == 23
    made = split(world.factors, "extrapolation", 0.25, world.labels)
    values = world.labels[made.train]  # type: ignore[index]
    assert values[:, 0].max() == 1
    assert values[:, 1].max() == 2


def test_an_assay_of_a_folder_with_factors(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    photos_with_factors(tmp_path / "pictures")
    code, out, error = run("assay", "pictures", "--factors", "factors.csv", "--categorical", "kind", "--split", "extrapolation", "--side", "16", "--learner", "prior", "--seeds", 1, "--out", "r")
    assert (code, error) == (0, "")
    assert "only place new" in out
    assert "Under extrapolation" in out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("3.png", "33.png"), "files of .* are missing"),
        (lambda t: t.replace(",2.5,", ",large,"), "'size' has values that are no numbers"),
        (lambda t: t + "\n1.png,1", "has 2 fields"),
        (lambda t: t.replace("file,", "path,"), "needs a header file,factor1"),
        (lambda t: "file,size", "needs a header"),
    ],
)
def test_tables_of_factors_that_do_not_fit(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    photos_with_factors(tmp_path)
    table = tmp_path / "factors.csv"
    table.write_text(change(table.read_text()))
    with pytest.raises(UserError, match=said):
        worlds.factor_table(tmp_path, categorical=("kind",))


def test_more_about_tables_of_factors(tmp_path: Path) -> None:

    photos_with_factors(tmp_path)
    table = tmp_path / "factors.csv"
    text = table.read_text()
    table.write_text(text + "\n" + text.splitlines()[1])
    assert "1 rows of factors.csv repeat" in worlds.factor_table(tmp_path, categorical=("kind",)).notes[0]
    table.write_text(text)
    with pytest.raises(UserError, match="did you mean 'place'"):
        worlds.factor_table(tmp_path, kept=("plaec",), categorical=("kind",))
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(tmp_path / "1.png")
    with pytest.raises(UserError, match="different sizes"):
        worlds.factor_table(tmp_path, categorical=("kind",))
    assert worlds.factor_table(tmp_path, categorical=("kind",), side=12).shape == (1, 12, 12)


# --- the explainer --------------------------------------------------------------------------------------------------


def test_the_outline_runs_around_what_is_known() -> None:
    known = np.zeros((3, 3), bool)
    known[:2, :2] = True
    x, y = outline(known)
    points = {(a, b) for a, b in zip(x, y, strict=True) if a is not None}
    assert points == {(-0.5, -0.5), (0.5, -0.5), (1.5, -0.5), (-0.5, 0.5), (1.5, 0.5), (-0.5, 1.5), (0.5, 1.5), (1.5, 1.5)}
    assert np.isnan(error_grid(np.array([[0, 0]]), np.array([1.0]), (2, 2))).sum() == 3


def test_the_factor_map_finds_planted_failures(tmp_path: Path) -> None:
    world = toy_world()
    task = TaskFunction("toy", lambda seed=0, split="extrapolation": factor_task(world, split, seed), {"split": ["random", "extrapolation"]}, here=True)
    result = ew.assay(task, learners=[ew.named("clamped", Clamped())], seeds=2, out=tmp_path / "r")
    finding = result.explain("factors")
    assert "Under extrapolation" in finding.sentence
    assert "x loses most" in finding.sentence
    modular = finding.tables["One factor new: that factor and the others"].set_index("new")
    assert modular.loc["x", "new factor"] == pytest.approx(1 - (1 + 4) / 2 / ((64 - 1) / 12))
    assert modular.loc["x", "other factors"] > 0.99
    pulled = finding.tables["Pull to the known range (extrapolation)"].set_index("new")
    assert pulled.loc["x", "within the known range"] == 1
    assert pulled.loc["y", "within the known range"] == 0
    assert any("over x and y" in title for title in finding.figures)
    assert any("Predicted and true x" in title for title in finding.figures)
    with pytest.raises(UserError, match="no split"):
        result.explain(FactorMap(split="sideways"))


@dataclass
class Clamped(ew.Learner[Examples, ew.ValuePrediction]):
    """Reads every factor right, but no x above the largest it was trained on."""

    def fit(self, source: ew.Source[Examples], run: ew.Run = ew.Run()) -> Clamped:
        self.most_ = float(np.asarray(source.train.labels)[:, 0].max())
        return self

    def predict(self, data: Examples, run: ew.Run = ew.Run()) -> ew.ValuePrediction:
        flat = np.asarray(data.inputs).reshape(len(data), -1)
        values = np.stack([flat[:, 0] / 7, flat[:, 6] / 7, flat[:, 12] / 2], 1)
        values[:, 0] = np.minimum(values[:, 0], self.most_)
        return ew.ValuePrediction(values)


@dataclass
class Broken(Clamped):
    """Gives three rows that are no numbers."""

    def predict(self, data: Examples, run: ew.Run = ew.Run()) -> ew.ValuePrediction:
        values = super().predict(data, run).mean
        values[:3] = np.nan
        return ew.ValuePrediction(values)


def test_predictions_that_are_no_numbers_fail_their_trial_and_the_study_goes_on(tmp_path: Path) -> None:
    task = ew.named("toy", factor_task(toy_world(), "random", 0))
    learners = [ew.named("broken", Broken()), ew.named("fine", Clamped())]
    trials = ew.assay(task, learners=learners, seeds=1, out=tmp_path / "r").trials().set_index("learner")
    assert trials.status.to_dict() == {"broken": "failed", "fine": "done"}
    assert "3 of" in trials.reason["broken"]
    assert "not finite" in trials.reason["broken"]


def test_predictions_of_the_wrong_shape_say_both_shapes(tmp_path: Path) -> None:
    from elsewhere.factors.metrics import factor_metrics

    world = toy_world()
    data, made = world.examples(np.arange(20)), split(world.factors, "random", 0.25)
    metric = factor_metrics(world.factors, made, data.labels, data.labels)[0]
    with pytest.raises(UserError, match=r"predictions have shape \[20\]; the labels have \[20, 3\]"):
        metric.fn(ew.ValuePrediction(np.zeros(20)), data)


def test_the_factor_map_does_not_apply_to_other_tasks(tmp_path: Path) -> None:
    result = ew.assay("penguins", learners=["prior"], seeds=1, out=tmp_path / "r")
    with pytest.raises(UserError, match="no task of this result has known factors"):
        result.explain("factors")


def toy_world() -> World:
    """Pictures that simply hold their labels as grey levels."""
    factors = Factors(("x", "y", "z"), (8, 8, 3), ("z",))

    def draw(rows: np.ndarray) -> np.ndarray:
        return np.repeat(factors.values(rows).astype(np.uint8), 6, axis=1)[:, :16].reshape(-1, 1, 4, 4)

    return World("toy", factors, (1, 4, 4), draw, 0.25)


def test_the_splits_are_all_offered() -> None:
    assert SPLITS == ("random", "composition", "interpolation", "extrapolation")
    assert isinstance(split(MINI, "random", 0.2), Split)
    assert [t.label for t in factor_tasks.sprites.expand()] == [f"sprites:split={k}" for k in SPLITS]


def test_a_fitted_model_names_the_factors_it_reads(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    import pandas as pd

    (tmp_path / "new").mkdir()
    for k, row in enumerate((5, 40_000)):
        Image.fromarray(worlds.sprites().images(np.array([row]))[0, 0]).save(tmp_path / "new" / f"{k}.png")
    code, out, error = run("fit", "sprites:split=random,train_images=200", "--learner", "cnn:steps=5", "--out", "model")
    assert (code, error) == (0, "")
    assert "r2 in home, held out" in out
    code, _, error = run("predict", "model", "new", "--out", "p.csv")
    assert (code, error) == (0, "")
    assert list(pd.read_csv("p.csv").columns) == ["id", "shape", "scale", "orientation", "x", "y"]
