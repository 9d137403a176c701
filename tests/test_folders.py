"""Folders of pictures: domains and classes from paths, protocols, corruptions, models that read new pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import elsewhere as ew
from elsewhere.data import Examples
from elsewhere.errors import UserError
from elsewhere.images import folders, pictures
from elsewhere.images.folders import image_folder, read, scan

Run = Callable[..., tuple[int, str, str]]
COLOURS = {"cat": (200, 60, 40), "dog": (40, 60, 200), "owl": (60, 200, 60)}


def test_domains_may_be_two_folders_deep(tmp_path: Path) -> None:
    for view in ("front", "side"):
        for year in ("2009", "2010"):
            for kind in ("suv", "van"):
                place = tmp_path / view / year / kind
                place.mkdir(parents=True)
                for k in range(12):
                    Image.fromarray(np.full((16, 16, 3), 20 * k, np.uint8)).save(place / f"{k}.png")
    told = read(str(tmp_path), levels=2, side=16, source=["front/2009"], unlabelled=True)
    (function,) = told.expand()
    task = function(0)
    assert sorted(d.name for d in task.domains) == ["front/2009", "front/2010", "side/2009", "side/2010"]
    assert task.domain("side/2010").load().classes == ("suv", "van")
    edges = tmp_path / "edges.csv"
    edges.write_text("a,b\nfront/2009,front/2010\nfront/2009,side/2009\nside/2009,side/2010\nfront/2010,side/2010\n")
    from elsewhere.adapt.graph_relational import GraphRelational

    fitted = GraphRelational(graph=str(edges), steps=2, sample=None).fit(task.source, ew.Run(progress=False))
    assert fitted.adjacency_.sum() == 8
    with pytest.raises(UserError, match="levels must be at least 1"):
        read(str(tmp_path), levels=0)


def photos(folder: Path, domains: tuple[str, ...] = ("art", "photo", "sketch"), each: int = 20, classes: tuple[str, ...] = ("cat", "dog", "owl"), size: tuple[int, int] = (40, 30)) -> Path:
    """Small coloured pictures; sketches are grey and tell the class by brightness."""
    rng = np.random.default_rng(0)
    for d, domain in enumerate(domains):
        for name in classes:
            place = folder / domain / name
            place.mkdir(parents=True)
            for k in range(each):
                x = np.clip(np.array(COLOURS[name]) + rng.normal(0, 30 + 10 * d, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
                picture = Image.fromarray(x)
                (picture.convert("L") if domain == "sketch" else picture).save(place / f"{k}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos")


def test_an_assay_of_a_folder_leaves_out_each_domain(run: Run, folder: Path) -> None:
    code, out, error = run("assay", f"{folder}/", "--side", 16, "--learner", "prior", "--learner", "cnn:steps=30", "--learner", "coral:steps=10,batch=8", "--seeds", 1, "--out", "r")
    assert (code, error) == (0, "")
    assert "180 pictures of 3 classes: cat, dog, owl" in out
    assert "plan: 3 tasks × 3 learners × 1 seeds" in out
    result = ew.Result("r")
    assert set(result.trials().task) == {f"photos:leave_out={d}" for d in ("art", "photo", "sketch")}
    assert result.table("accuracy").loc["cnn:steps=30", ("art", "value")] > 0.8
    assert (Path("r") / "previews.json").exists()


def test_one_source_judged_in_all_others_and_under_corruptions(run: Run, folder: Path) -> None:
    arguments = ("--source", "photo", "--side", 16, "--corruptions", "fog,brightness", "--severities", "1,5", "--learner", "linear-probe:steps=20", "--learner", "prior", "--seeds", 1)
    code, _out, error = run("assay", folder, *arguments, "--out", "r")
    assert (code, error) == (0, "")
    scores = ew.Result("r").scores()
    assert scores.drop_duplicates("domain").set_index("domain").role.astype(str).to_dict() == {
        "photo": "home", "fog 1": "stress", "fog 5": "stress", "brightness 1": "stress", "brightness 5": "stress", "art": "elsewhere", "sketch": "elsewhere",
    }  # fmt: skip
    page = (Path("r") / "report.html").read_text()
    assert "Several sides" in page
    assert "under stress by severity" in page
    assert "fog" in page


def test_splits_are_stratified_disjoint_and_keep_units_whole(folder: Path) -> None:
    lines = ["file,unit"] + [f"{p.relative_to(folder)},{p.parent.parent.name}-{int(p.stem) // 2}-{p.parent.name}" for p in sorted(folder.glob("*/*/*"))]
    (folder / "columns.csv").write_text("\n".join(lines))
    task = image_folder(path=str(folder), leave_out="art", side=16, columns="columns.csv")
    parts = [task.source.train, task.source.validation, task.domains[0].load(), task.domains[1].load()]
    ids = [set(p.columns["id"]) for p in parts]
    units = [set(p.columns["unit"]) for p in parts]
    for i in range(4):
        for j in range(i):
            assert not ids[i] & ids[j]
            assert not units[i] & units[j]
    assert set(task.source.train.columns["domain"]) == {"photo", "sketch"}
    assert np.bincount(parts[0].labels).tolist() == [32, 32, 32]
    assert task.domains[1].name == "art"
    assert len(parts[3]) == 60  # nothing of it serves training: all of it is judged


@pytest.mark.parametrize("protocol", [{"leave_out": "art"}, {"source": "photo"}])
def test_no_picture_of_a_domain_elsewhere_is_wasted(folder: Path, protocol: dict[str, str]) -> None:
    elsewhere = {"art"} if "leave_out" in protocol else {"art", "sketch"}
    task = image_folder(path=str(folder), side=16, **protocol)
    assert {d.name: len(d.load()) for d in task.domains if d.role == "elsewhere"} == dict.fromkeys(elsewhere, 60)
    assert not task.source.unlabelled
    shared = image_folder(path=str(folder), side=16, unlabelled=True, **protocol)
    for name in elsewhere:
        judged, granted = shared.domain(name).load(), shared.source.unlabelled[name]
        assert granted.labels is None
        assert np.bincount(judged.labels).tolist() == [10, 10, 10]  # half of each class
        assert {*judged.columns["id"], *granted.columns["id"]} == set(task.domain(name).load().columns["id"])
        assert not {*judged.columns["id"]} & {*granted.columns["id"]}
    used = [task.source.train, task.source.validation, task.domains[0].load()]
    assert sum(map(len, used)) == 60 * (3 - len(elsewhere))


def test_a_unit_in_two_domains_at_home_is_on_one_side(folder: Path) -> None:
    """One camera took the k-th picture of every domain and class."""
    rows = [f"{p.relative_to(folder)},{p.stem}" for p in sorted(folder.glob("*/*/*"))]
    (folder / "columns.csv").write_text("\n".join(["file,unit", *rows]))
    task = image_folder(path=str(folder), leave_out="art", side=16, columns="columns.csv")
    parts = [task.source.train, task.source.validation, task.domains[0].load()]
    units = [set(p.columns["unit"]) for p in parts]
    assert all(units)
    assert len(set.union(*units)) == sum(map(len, units)) == 20


def test_a_table_of_columns_lies_in_the_folder_and_counts_as_its_content(folder: Path) -> None:
    rows = [f"{p.relative_to(folder)},{p.stem}" for p in sorted(folder.glob("*/*/*"))]
    (folder / "columns.csv").write_text("\n".join(["file,unit", *rows]))
    function = read(str(folder), columns="columns.csv", side=16)
    before = function.key
    (folder / "columns.csv").write_text("\n".join(["file,unit", *reversed(rows)]))
    assert read(str(folder), columns="columns.csv", side=16).key != before


def test_a_picture_replaced_in_this_process_is_read_anew(folder: Path) -> None:
    before = np.asarray(image_folder(path=str(folder), leave_out="art", side=16).domain("art").load().inputs)
    Image.new("RGB", (40, 30), "white").save(folder / "art" / "cat" / "0.png")
    after = np.asarray(image_folder(path=str(folder), leave_out="art", side=16).domain("art").load().inputs)
    assert (before != after).any((1, 2, 3)).sum() == 1


def test_a_reader_has_the_revision_of_its_task(folder: Path) -> None:
    assert read(str(folder), side=16).revision == image_folder.revision == 2


def test_a_model_fitted_on_a_folder_reads_new_pictures(run: Run, folder: Path) -> None:
    code, _, error = run("fit", "image-folder", "--out", "model")
    assert code == 2
    code, out, error = run("fit", f"image-folder:path={folder},leave_out=art,side=16", "--learner", "cnn:steps=60", "--out", "model")
    assert (code, error) == (0, "")
    assert "accuracy in home, held out" in out
    code, out, error = run("predict", "model", folder / "art" / "cat", "--out", "p.csv")
    assert (code, error) == (0, "")
    import pandas as pd

    frame = pd.read_csv("p.csv")
    assert len(frame) == 20
    assert (frame.prediction == "cat").mean() > 0.8
    assert {"probability_dog", "id"} <= set(frame)
    code, _, error = run("predict", "model", "nothing")
    assert code == 2
    assert "there is no file or folder" in error


def test_unlabelled_domains_are_granted_on_demand(folder: Path, tmp_path: Path) -> None:
    result = ew.assay(str(folder), source="photo", side=16, unlabelled=True, learners=["dann:steps=3,batch=4,unlabelled=true"], seeds=1, out=tmp_path / "r")
    assert result.trials().sees_unlabelled.all()
    with pytest.raises(UserError, match="needs unlabelled data of other domains, which this task does not grant"):
        ew.assay(str(folder), source="photo", side=16, learners=["dann:unlabelled=true"], seeds=1, out=tmp_path / "r2")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--source", "phote"], "did you mean 'photo'"),
        (["--protocol", "leave-one"], "no protocol 'leave-one'"),
        (["--source", "art", "--protocol", "leave-one-out"], "--source goes with --protocol one-to-all"),
        (["--corruptions", "fogg"], "did you mean 'fog'"),
        (["--corruptions", "fog", "--severities", "7"], "severity must be 1 to 5, not 7"),
        (["--severities", "high"], "severities are numbers from 1 to 5"),
        (["--classes", "shard"], "classes must be same, shared or any"),
        (["--split", "random"], "go with --factors TABLE"),
        (["--columns", "none.csv"], "cannot read"),
        (["--predict", "x"], "is a folder, and reader 'pictures' has no option 'predict'"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(run: Run, folder: Path, arguments: list[str], said: str) -> None:
    code, _, error = run("assay", folder, *arguments, "--out", "r")
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert not Path("r").exists()


def test_folders_that_are_no_domains_of_classes(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no pictures as <domain>/<class>/<file>" in run("assay", "empty")[2]
    photos(tmp_path / "one", ("art",), 4)
    assert "the task has 1 domain, 'art'" in run("assay", "one")[2]
    bad = photos(tmp_path / "bad", each=12)
    (bad / "art" / "cat" / "0.png").write_bytes(b"no picture")
    code, _, error = run("assay", "bad", "--learner", "prior", "--seeds", 1)
    assert code == 2
    assert "cannot be read as a picture" in error


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        (["art/cat", "photo/cat"], {}, "holds 1 class, 'cat', in 2 domains (art, photo); at least 2 are needed"),
        (["cat/art", "dog/art"], {}, "are domains and classes exchanged, or is a folder missing?"),
        (["cat", "dog"], {}, "no pictures as <domain>/<class>/<file>, but 4 as <folder>/<file>, first cat/0.png"),
        (["a/art/cat", "a/photo/dog"], {}, "--levels 2 reads domains 2 folders deep"),
        (["art/cat", "photo/dog"], {"levels": 2}, "no pictures as <domain, 2 folders deep>/<class>/<file>"),
        (["art/cat", "art/dog", "photo/cat", "photo/dog", "photo"], {}, "8 pictures as <domain>/<class>/<file>, and 2 as"),
        (["art/cat", "photo/dog"], {"classes": "any", "source": ["art"]}, "art has 1 class to train on, 'cat'"),
    ],
)  # fmt: skip
def test_a_tree_of_another_form_says_what_was_found_and_expected(
    tmp_path: Path, files: list[str], options: dict, said: str
) -> None:  # fmt: skip
    for place in files:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        for k in range(12 if "classes" in options else 2):
            Image.new("L", (16, 16), 20 * k).save(tmp_path / place / f"{k}.png")
    with pytest.raises(UserError) as caught:
        next(iter(read(str(tmp_path), side=16, **options).expand()))(0)
    assert said in str(caught.value)


def test_one_class_is_refused_before_anything_runs(run: Run, tmp_path: Path) -> None:
    photos(tmp_path / "photos", classes=("cat",))
    code, _, error = run("assay", "photos", "--learner", "prior", "--out", "r")
    assert code == 2
    assert "photos holds 1 class, 'cat'" in error
    assert error.count("\n") == 1
    assert not Path("r").exists()


def test_what_is_hidden_and_what_lies_beside_the_domains_does_not_count(folder: Path) -> None:
    (folder / ".cache" / "art").mkdir(parents=True)
    for name in ("overview.png", ".cache/art/0.png"):
        Image.new("L", (16, 16)).save(folder / name)
    assert len(scan(folder).paths) == 180


def test_classes_that_differ_are_named_or_shared(run: Run, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", ("art", "photo"), 12)
    for p in (folder / "art" / "owl").iterdir():
        p.unlink()
    code, _, error = run("assay", folder, "--learner", "prior", "--seeds", 1)
    assert code == 2
    assert "art has no owl" in error
    assert "--classes shared" in error
    task = image_folder(path=str(folder), source="photo", side=16, classes="shared")
    assert list(task.source.train.classes) == ["cat", "dog"]
    assert set(task.source.train.labels) == {0, 1}
    assert list(image_folder(path=str(folder), source="photo", side=16, classes="any").source.train.classes) == ["cat", "dog", "owl"]
    assert scan(folder).missing() == {"art": ["owl"]}


def test_pictures_are_resized_by_the_shorter_side_and_cropped_in_the_centre(tmp_path: Path) -> None:
    x = np.zeros((56, 112, 3), np.uint8)
    x[:, :56] = 255
    Image.fromarray(x).save(tmp_path / "wide.png")
    made = pictures.decoded([tmp_path / "wide.png"], 49)[0]  # shorter side to 56, the middle 49 × 49 kept
    assert made.shape == (3, 49, 49)
    assert np.abs(made[0].mean(0)[[0, 23, 26, 48]] - [255, 255, 0, 0]).max() < 40
    assert pictures.decoded([tmp_path / "wide.png"]).shape == (1, 3, 56, 112)


def test_large_sets_are_decoded_once_and_memory_mapped(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pictures, "KEPT_FROM", 0)
    paths = sorted(folder.glob("*/*/*"))
    first = pictures.decoded(paths, 16)
    monkeypatch.setattr(pictures, "_decode", lambda *a: pytest.fail("decoded twice"))
    assert (pictures.decoded(paths, 16) == first).all()
    monkeypatch.setattr("elsewhere.pictures.IN_MEMORY", 0)
    lazy = pictures.decoded(paths, 16)
    assert isinstance(lazy, pictures.Lazy)
    assert (np.asarray(lazy[np.array([3, 0])]) == first[[3, 0]]).all()
    folders._folder.cache_clear()
    result = ew.assay(str(folder), source="photo", side=16, learners=["cnn:steps=30", "linear-probe:steps=20,backbone=random-conv", "erm:steps=5,batch=4"], seeds=1, out=tmp_path / "r")
    assert set(result.trials().status) == {"done"}  # nothing needs them all at once
    folders._folder.cache_clear()


# --- whole sets -------------------------------------------------------------------------------------------------------


def test_a_set_of_torchvision_is_a_source(tmp_path: Path, run: Run) -> None:
    import struct

    raw = tmp_path / "torchvision" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", 120), ("t10k", 60)):
        labels = (np.arange(n) % 10).astype(np.uint8)
        images = rng.integers(0, 60, (n, 28, 28), dtype=np.uint8)
        images[np.arange(n), labels * 2] = 255
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">HBB3I", 0, 8, 3, n, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">HBB1I", 0, 8, 1, n) + labels.tobytes())
    code, out, error = run("assay", "torchvision:name=MNIST,corruptions=fog,severities=3", "--data", tmp_path, "--learner", "linear-probe:steps=200", "--learner", "prior", "--seeds", 1, "--out", "r")
    assert (code, error) == (0, "")
    assert "fog 3" in out
    scores = ew.Result("r").scores().query("metric == 'accuracy' and role == 'home'").set_index("learner").value
    assert scores["linear-probe:steps=200"] > 0.8
    assert "top5_accuracy" in set(ew.Result("r").scores().metric)
    code, _, error = run("assay", "torchvision:name=MNISTT", "--data", tmp_path, "--learner", "prior")
    assert code == 2
    assert "did you mean 'MNIST'" in error
    code, _, error = run("assay", "torchvision:name=CIFAR10", "--data", tmp_path, "--learner", "prior")
    assert code == 2
    assert "cannot be read from" in error


def test_photographs_of_the_hub_are_read(data: Path) -> None:
    from elsewhere.images.sets import cifar10_small

    task = cifar10_small(corruptions="jpeg", severities=1, train_images=500, test_images=50)
    assert len(task.source.train) + len(task.source.validation) == 500
    assert np.bincount(np.r_[task.source.train.labels, task.source.validation.labels]).tolist() == [50] * 10
    assert [d.name for d in task.domains] == ["home", "jpeg 1"]
    from elsewhere.images.sets import parquet_set

    whole = parquet_set(data / "cifar10-small" / "test.parquet")
    assert np.allclose(whole.inputs.mean((0, 2, 3)) / 255, (0.4911, 0.4822, 0.4473), atol=0.02)
    with pytest.raises(UserError, match="cannot be read as pictures"):
        parquet_set(data / "cifar10-small" / "test.parquet", image="picture")


def test_a_set_of_wilds_has_its_official_splits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys
    from types import ModuleType, SimpleNamespace

    rng = np.random.default_rng(0)

    class Subset:
        def __init__(self, n: int, bright: int) -> None:
            self.y_array = np.arange(n) % 2
            self.bright, self.dataset = bright, SimpleNamespace(dataset_name="camelyon17")

        def __len__(self) -> int:
            return len(self.y_array)

        def __getitem__(self, k: int) -> tuple:
            x = np.clip(rng.normal(self.bright + 90 * self.y_array[k], 5, (20, 24, 3)), 0, 255).astype(np.uint8)
            return Image.fromarray(x), self.y_array[k], None

    sizes = {"train": (40, 20), "id_val": (20, 20), "val": (20, 60), "test": (30, 100)}
    held = SimpleNamespace(split_dict=dict.fromkeys(sizes, 0), n_classes=2, get_subset=lambda part: Subset(*sizes[part]))
    fake = ModuleType("wilds")
    fake.get_dataset = lambda dataset, root_dir, download: held  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wilds", fake)
    result = ew.assay("wilds:side=16", learners=["cnn:steps=40,batch=8"], seeds=1, out=tmp_path / "r")
    scores = result.scores().query("metric == 'accuracy'").set_index("domain")
    assert scores.n.to_dict() == {"home": 10, "test": 30}  # id_val is halved: to stop by, to judge by
    assert scores.value["home"] == 1
    monkeypatch.setitem(sys.modules, "wilds", None)
    with pytest.raises(UserError, match="pip install wilds"):
        ew.assay("wilds", learners=["prior"], seeds=1, out=tmp_path / "r2")


def test_handwriting_leaves_a_group_out(data: Path) -> None:
    from elsewhere.images.tasks import handwriting

    task = handwriting(leave_out="pen", path=str(data / "handwriting"))
    assert set(task.source.train.columns["domain"]) == {"employees", "students", "semeion", "optdigits"}
    assert [d.name for d in task.domains] == ["home", "pen"]
    assert set(task.domains[1].load().columns["domain"]) == {"pen"}
    with pytest.raises(UserError, match="did you mean 'pen'"):
        handwriting(leave_out="penn", path=str(data / "handwriting"))


def test_handwriting_judges_all_of_every_other_group(data: Path) -> None:
    from elsewhere.images import data as digits
    from elsewhere.images.tasks import handwriting

    task = handwriting(source="semeion", path=str(data / "handwriting"))
    for domain in task.domains[1:]:
        assert len(domain.load()) == len(digits.handwriting(data / "handwriting", domain.name))
    train, stop, home = task.source.train, task.source.validation, task.domains[0].load()
    assert len(train) + len(stop) + len(home) == 1593


def test_letters_of_torchvision_stand_upright(monkeypatch: pytest.MonkeyPatch) -> None:
    """EMNIST's files hold columns first; torchvision returns them as they are (pytorch/vision, issue 8783)."""
    from types import SimpleNamespace

    from torchvision import datasets

    from elsewhere.images import data as digits
    from elsewhere.images.sets import torchvision_set

    upright = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    held = SimpleNamespace(data=upright.swapaxes(1, 2), targets=np.array([0, 1, 2]), classes=list("012"))
    monkeypatch.setattr(datasets, "EMNIST", type("EMNIST", (), {"__new__": lambda *a, **k: held}))
    assert (torchvision_set("EMNIST", "").inputs[:, 0] == upright).all()
    assert np.allclose(digits.from_torchvision("EMNIST", "").inputs[:, 0], upright / 255)


def test_a_set_that_is_judged_in_part_says_so() -> None:
    from elsewhere.images.sets import _corrupted

    whole = Examples(np.zeros((40, 1, 16, 16), np.uint8), np.arange(40) % 2, {}, ("a", "b"))
    notes = _corrupted(whole, whole, 0, (), (), None, 20, False).notes
    assert notes == ["20 of 40 pictures are judged (test_images), drawn by the seed."]
    assert not _corrupted(whole, whole, 0, (), (), None, 40, False).notes


# --- what the bytes of a file become -----------------------------------------------------------------------------------

GREY = np.array([[0, 17, 128], [200, 254, 255]], np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
CLEAR = np.array([[0, 255, 255], [255, 255, 255]], np.uint8)  # the first pixel is transparent
ON_WHITE = np.array([[255, 17, 128], [200, 254, 255]], np.uint8)


def with_alpha(base: np.ndarray, mode: str) -> Image.Image:
    made = Image.fromarray(base).convert(mode)
    made.putalpha(Image.fromarray(CLEAR))
    return made


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by a quarter, clockwise
    return exif


WORDS = GREY.astype(np.uint16) * 257
MODES = {
    "bits": (Image.fromarray(GREY > 127), "PNG", {}, np.where(GREY > 127, 255, 0)),
    "bits of a tiff": (Image.fromarray(GREY > 127), "TIFF", {}, np.where(GREY > 127, 255, 0)),
    "grey": (Image.fromarray(GREY), "PNG", {}, GREY),
    "grey, white is zero": (Image.fromarray(GREY), "TIFF", {"tiffinfo": {262: 0}}, GREY),
    "16-bit png": (Image.fromarray(WORDS), "PNG", {}, GREY),
    "16-bit tiff": (Image.fromarray(WORDS), "TIFF", {}, GREY),
    "16-bit, white is zero": (Image.fromarray(WORDS), "TIFF", {"tiffinfo": {262: 0}}, 255 - GREY),
    "16-bit with a transparent value": (Image.fromarray(WORDS), "PNG", {"transparency": 0}, ON_WHITE),
    "32-bit numbers of 16 bits": (Image.fromarray(WORDS.astype(np.int32)), "TIFF", {}, GREY),
    "floats up to 1": (Image.fromarray((GREY / 255).astype(np.float32)), "TIFF", {}, GREY),
    "floats up to 255": (Image.fromarray(GREY.astype(np.float32)), "TIFF", {}, GREY),
    "black floats": (Image.fromarray(np.zeros((2, 3), np.float32)), "TIFF", {}, 0 * GREY),
    "colour": (Image.fromarray(COLOUR), "PNG", {}, COLOUR),
    "palette": (Image.fromarray(COLOUR).quantize(256), "PNG", {}, COLOUR),
    "gif": (Image.fromarray(COLOUR).quantize(256), "GIF", {}, COLOUR),
    "inks": (Image.fromarray(COLOUR).convert("CMYK"), "TIFF", {}, COLOUR),
    "grey with alpha": (with_alpha(GREY, "LA"), "PNG", {}, ON_WHITE),
    "grey with a transparent value": (Image.fromarray(GREY), "PNG", {"transparency": 0}, ON_WHITE),
    "colour with alpha": (with_alpha(GREY, "RGBA"), "PNG", {}, np.stack([ON_WHITE] * 3, -1)),
    "webp with alpha": (with_alpha(GREY, "RGBA"), "WEBP", {"lossless": True}, np.stack([ON_WHITE] * 3, -1)),
    "palette with alpha": (Image.fromarray(GREY).convert("P"), "PNG", {"transparency": 0}, np.stack([ON_WHITE] * 3, -1)),
    "turned png": (Image.fromarray(GREY), "PNG", {"exif": turned()}, np.rot90(GREY, -1)),
    "turned tiff": (Image.fromarray(GREY), "TIFF", {"exif": turned()}, np.rot90(GREY, -1)),
    "turned 16-bit png": (Image.fromarray(WORDS), "PNG", {"exif": turned()}, np.rot90(GREY, -1)),
    "first frame": (
        Image.fromarray(COLOUR).quantize(256),
        "GIF",
        {"save_all": True, "append_images": [Image.new("RGB", (3, 2))]},
        COLOUR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODES)
def test_every_mode_becomes_the_bytes_that_a_viewer_shows(tmp_path: Path, kind: str) -> None:
    picture, form, options, expected = MODES[kind]
    path = tmp_path / f"one.{form.lower()}"
    picture.save(path, form, **options)
    made = pictures.decoded([path])[0]
    made = made[0] if len(made) == 1 else made.transpose(1, 2, 0)
    assert made.dtype == np.uint8
    assert made.tolist() == np.asarray(expected).tolist()
    from elsewhere.images.data import read_pictures

    grey = np.asarray(Image.fromarray(np.asarray(expected, np.uint8)).convert("L"))
    assert read_pictures(path)[1][0].tolist() == grey.tolist()  # the readers of digits see the same


@pytest.mark.parametrize(("most", "value"), [(65535, 65535), (1023, 1023), (65535, 200)])
def test_a_pgm_says_what_its_white_is(tmp_path: Path, most: int, value: int) -> None:
    words = np.array([0, value], ">u2").tobytes()
    (tmp_path / "one.pgm").write_bytes(f"P5 2 1 {most}\n".encode() + words)
    made = pictures.decoded([tmp_path / "one.pgm"])
    assert made.ravel().tolist() == [0, round(255 * value / most)]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([[0.5, np.nan]], np.float32), "holds NaN or infinite values"),
        (np.array([[-1.0, 0.5]], np.float32), "holds floats from -1 to 0.5; expected 0 to 1, or 0 to 255"),
        (np.array([[0.0, 4095.0]], np.float32), "holds floats from 0 to 4095"),
        (np.array([[0, 70000]], np.int32), "holds whole numbers from 0 to 70000; expected 0 to 65535"),
        (np.array([[-5, 10]], np.int32), "holds whole numbers from -5 to 10"),
        (np.array([[0, 255]], np.int32), "holds 32-bit whole numbers up to 255: is white 255 or 65535?"),
    ],
)
def test_numbers_whose_white_is_unknown_are_refused(tmp_path: Path, values: np.ndarray, said: str) -> None:
    Image.fromarray(values).save(tmp_path / "odd.tif")
    with pytest.raises(UserError) as caught:
        pictures.decoded([tmp_path / "odd.tif"])
    assert said in str(caught.value)
    assert str(tmp_path / "odd.tif") in str(caught.value)


def test_floats_of_one_set_have_one_white(tmp_path: Path) -> None:
    for name, top in (("a", 0.8), ("b", 200.0), ("dark", 0.0)):
        Image.fromarray(np.array([[0.0, top]], np.float32)).save(tmp_path / f"{name}.tif")
    a, b, dark = (tmp_path / f"{n}.tif" for n in ("a", "b", "dark"))
    assert pictures.decoded([a, dark]).max() == 204
    assert pictures.decoded([dark, b]).max() == 200
    with pytest.raises(UserError, match=r"a\.tif holds floats up to 1 and .*b\.tif floats up to 255"):
        pictures.decoded([a, b])


def test_arrays_of_floats_become_bytes_by_their_range() -> None:
    assert pictures.bytes_of(np.array([0.0, 1.0]), "x").tolist() == [0, 255]
    assert pictures.bytes_of(np.array([0.0, 200.0]), "x").tolist() == [0, 200]
    with pytest.raises(UserError, match="x holds pictures of int64"):
        pictures.bytes_of(np.array([0, 1]), "x")
