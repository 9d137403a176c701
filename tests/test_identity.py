"""What tells one learner from another: files that a field names count by their content, and old keys stay."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

import elsewhere as ew
from elsewhere import catalogue
from elsewhere.adapt.coral import Coral
from elsewhere.data import Examples
from elsewhere.graphs.neighborhood_prediction import NeighborhoodPrediction
from elsewhere.identity import identity, reference
from elsewhere.images.learners import FineTune
from elsewhere.learner import Learner, Probe
from elsewhere.nn.probe import LinearProbe
from elsewhere.prediction import ClassPrediction
from elsewhere.run import Run
from elsewhere.tables.learners import LogisticRegression
from elsewhere.task import Source

Command = Callable[..., tuple[int, str, str]]


@dataclass
class FromFile(Learner[Examples, ClassPrediction]):
    """Says the class whose number stands in a file."""

    start: str = "nothing"

    @property
    def files(self) -> Mapping[str, str]:
        return {} if self.start == "nothing" else {"start": self.start}

    def fit(self, source: Source[Examples], run: Run = Run()) -> Self:
        self.says_ = int(Path(self.start).read_text()) if self.files else 0
        self.count_ = len(source.train.classes or ())
        return self

    def predict(self, data: Examples, run: Run = Run()) -> ClassPrediction:
        return ClassPrediction(np.tile(np.log(0.1 + np.eye(self.count_)[self.says_]), (len(data), 1)))


def as_it_was(thing: Any) -> Any:
    """The canonical form of a dataclass without any file, as it has always been."""
    fields = {f.name: getattr(thing, f.name) for f in dataclasses.fields(thing) if f.init}
    told = {k: as_it_was(v) if isinstance(v, Learner) else identity(v) for k, v in fields.items()}
    return {"is": reference(type(thing)), "revision": type(thing).revision, **told}


def catalogued() -> list[Any]:
    kinds = [catalogue.get("learners", name) for name in catalogue.entries("learners")]
    return [k() for k in kinds if dataclasses.is_dataclass(k) and not any(map(needed, dataclasses.fields(k)))]


def needed(field: Any) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def test_keys_of_learners_without_files_stay_as_they_were() -> None:
    learners = [*catalogued(), Probe(LinearProbe(weights="default"), LogisticRegression())]
    learners += [Coral(graph="chain"), FineTune(weights="default"), FromFile()]
    assert len(learners) > 40
    for learner in learners:
        assert identity(learner) == as_it_was(learner)


def test_words_and_names_on_a_hub_stay_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chain").write_text("a file that has a word's name")
    for learner in (
        Coral(graph="chain"),
        LinearProbe(weights="default"),
        NeighborhoodPrediction(encoder="transformer:bert-base-uncased"),
        LinearProbe(backbone="timm:resnet18"),
    ):
        assert identity(learner) == as_it_was(learner)


def wrapped(path: str) -> list[Any]:
    """Learners that name a file, by themselves and within others."""
    probe = LinearProbe(backbone="torchvision:resnet18", weights=path)
    return [probe, FineTune(weights=path), Coral(graph=path), FromFile(path), Probe(probe, LogisticRegression())]


@pytest.mark.parametrize("k", range(5))
def test_content_and_not_path_tells_learners_apart(tmp_path: Path, k: int) -> None:
    path = tmp_path / "weights"
    path.write_bytes(b"one")
    before = identity(wrapped(str(path))[k])
    shutil.copy(path, tmp_path / "copy")
    assert identity(wrapped(str(tmp_path / "copy"))[k]) == before
    path.write_bytes(b"two")
    assert identity(wrapped(str(path))[k]) != before
    path.unlink()
    with pytest.raises(ew.UserError, match=f"there is no file or folder {path}"):
        identity(wrapped(str(path))[k])


def test_a_folder_counts_by_the_names_and_contents_of_its_files(tmp_path: Path) -> None:
    def key(name: str, files: dict[str, str]) -> Any:
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file).write_text(content)
        return identity(NeighborhoodPrediction(encoder=f"transformer:{tmp_path / name}"))["encoder"]

    first = key("a", {"config.json": "1", "model": "2"})
    assert key("b", {"config.json": "1", "model": "2"}) == first
    assert key("c", {"config.json": "1", "model": "3"}) != first
    assert key("d", {"config.json": "1", "weights": "2"}) != first


def test_another_checkpoint_at_the_same_path_is_run_anew(tmp_path: Path) -> None:
    path, out = tmp_path / "start.txt", tmp_path / "r"

    def accuracy(content: str) -> float:
        path.write_text(content)
        result = ew.assay("penguins", learners=[FromFile(str(path))], seeds=1, out=out)
        return float(result.scores().query("metric == 'accuracy' and role == 'home'").value.iloc[0])

    first, again, other = accuracy("0"), accuracy("0"), accuracy("1")
    assert first == again
    assert other == pytest.approx(1 - first)
    told = json.loads((out / "study.json").read_text())["learners"][0]["learner"]["fields"]
    assert told == {"start": str(path.resolve())}


def test_a_missing_file_is_refused_before_anything_runs(run: Command) -> None:
    learner = "linear-probe:backbone=torchvision:resnet18,weights=none.safetensors"
    code, _, error = run("assay", "digits/shifts", "--learner", learner, "--out", "r")
    assert code == 2
    assert "weights of LinearProbe: there is no file or folder none.safetensors" in error
    assert error.count("\n") == 1
    assert not Path("r").exists()


def test_a_result_is_read_when_the_file_is_gone(tmp_path: Path) -> None:
    path, out = tmp_path / "start.txt", tmp_path / "r"
    path.write_text("1")
    ew.assay("penguins", learners=[FromFile(str(path)), "prior"], seeds=1, out=out)
    path.unlink()
    result = ew.Result(out)
    assert len(result.trials()) == 2
    assert result.table().notna().any(axis=None)
    assert result.report().exists()
    trials = result.trials().set_index(result.trials().learner.astype(str)).trial
    assert result.fitted(trials["prior"]) is not None
    with pytest.raises(ew.UserError, match="cannot be made again"):
        result.fitted(trials.drop("prior").iloc[0])


def test_a_model_outlives_the_weights_it_was_made_from(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from elsewhere.nn import build

    torch.manual_seed(3)
    name = "torchvision:mobilenet_v3_small"
    made = build(name, shape=[3, 32, 32], head=False)
    place = tmp_path / "weights.safetensors"
    save_file({k: v.clone() for k, v in made.network.state_dict().items()}, place)
    x = np.random.default_rng(0).integers(0, 256, (20, 3, 32, 32), dtype=np.uint8)
    data = Examples(x, np.arange(20) % 2, classes=("a", "b"))
    probe = LinearProbe(backbone=name, weights=str(place), steps=3).fit(Source(data), Run(progress=False))
    expected = probe.predict(data).probabilities()
    probe.save(tmp_path / "model")
    place.unlink()
    loaded = LinearProbe.load(tmp_path / "model")
    assert np.array_equal(loaded.predict(data).probabilities(), expected)
