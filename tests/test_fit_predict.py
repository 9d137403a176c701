"""``elsewhere fit`` and ``predict``: a whole table, a task, a fresh process, and what a user gets wrong."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import elsewhere as ew
from elsewhere.tables.fitting import source as table_source

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("learner", ["mlp:steps=40", "boosting", "logistic-regression", "linear-probe:steps=40"])
def test_a_model_fitted_on_a_table_predicts_in_a_fresh_process(people: Path, run: Command, tmp_path: Path, learner: str) -> None:
    code, out, _ = run("fit", people, "--predict", "income", "--learner", learner, "--out", "model")
    assert code == 0
    assert "300 examples" in out
    frame = pd.read_csv(people)
    frame.drop(columns="income").to_csv(tmp_path / "new.csv", index=False)
    done = subprocess.run([sys.executable, "-m", "elsewhere", "predict", "model", "new.csv", "--out", "p.parquet"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = pd.read_parquet(tmp_path / "p.parquet")
    assert list(told.columns) == ["id", "prediction", "probability_0", "probability_1"]
    assert np.allclose(told.probability_0 + told.probability_1, 1)
    assert (told.prediction.astype(int) == frame.income).mean() > 0.75
    here = ew.Model.load(tmp_path / "model").predict(frame)
    assert np.allclose(here.probability_1, told.probability_1)


def test_a_table_is_fitted_on_all_its_rows_unless_source_restricts_it(people: Path) -> None:
    whole, reads, _ = table_source(str(people), predict="income")
    assert len(whole.train) == 300
    assert [c["name"] for c in reads["columns"]] == ["age", "job", "hours", "state"]
    split, reads, _ = table_source(str(people), predict="income", domain="state", source=["CA", "TX"])
    assert set(split.train.column("domain")) == {"CA", "TX"}
    assert [c["name"] for c in reads["columns"]] == ["age", "job", "hours"]
    with pytest.raises(ew.UserError, match="there is no domain 'TZ'; there are: CA, NY, TX"):
        table_source(str(people), predict="income", domain="state", source=["TZ"])
    with pytest.raises(ew.UserError, match="--source needs --domain"):
        table_source(str(people), predict="income", source=["TX"])
    with pytest.raises(ew.UserError, match="--protocol is for assays"):
        table_source(str(people), predict="income", protocol="leave-one-out")
    with pytest.raises(ew.UserError, match="--predict COLUMN"):
        table_source(str(people))


def test_numbers_are_predicted_and_ids_come_along(people: Path, run: Command, tmp_path: Path) -> None:
    frame = pd.read_csv(people).assign(name=[f"n{k}" for k in range(300)])
    frame.to_csv(tmp_path / "named.csv", index=False)
    assert run("fit", "named.csv", "--predict", "hours", "--id", "name", "--out", "model")[0] == 0
    frame.drop(columns="hours").iloc[::-1].to_csv(tmp_path / "new.csv", index=False)
    assert run("predict", "model", "new.csv", "--out", "p.csv")[0] == 0
    told = pd.read_csv(tmp_path / "p.csv")
    assert list(told.columns) == ["id", "prediction"]
    assert told.id.tolist() == [f"n{k}" for k in range(299, -1, -1)]


def test_a_task_is_fitted_and_names_the_reader_of_new_data(run: Command, tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    code, out, _ = run("fit", "digits/shifts", "--learner", "linear-probe:steps=300", "--out", "model")
    assert code == 0
    assert "accuracy in home, held out: 0.9" in out
    raw = load_digits()
    for k in range(12):
        (tmp_path / "pictures").mkdir(exist_ok=True)
        Image.fromarray((raw.images[k] * 15.9).astype(np.uint8)).save(tmp_path / "pictures" / f"{k:02d}.png")
    assert run("predict", "model", "pictures", "--out", "p.parquet")[0] == 0
    told = pd.read_parquet(tmp_path / "p.parquet")
    assert told.id.tolist() == [f"{k:02d}.png" for k in range(12)]
    assert (told.prediction.astype(int).to_numpy() == raw.target[:12]).mean() > 0.8
    assert len([c for c in told if c.startswith("probability_")]) == 10
    Image.fromarray((255 - raw.images[0] * 15.9).astype(np.uint8)).save(tmp_path / "paper.png")
    code, out, error = run("predict", "model", "paper.png")
    assert code == 0
    assert error.startswith("warning: 1 of 1 pictures are light at the border")


@pytest.mark.parametrize(("change", "said"), [
    (lambda f: f.drop(columns=["job", "hours"]), "new.csv lacks 2 of the model's 4 input columns: job, hours; it has: age, state"),
    (lambda f: f.assign(age="old"), "column 'age' held numbers when the model was fitted and holds text now, first 'old'"),
    (lambda f: f.iloc[:0], "new.csv is empty"),
])  # fmt: skip
def test_a_table_of_another_form_is_told_with_its_columns(people: Path, run: Command, tmp_path: Path, change: Any, said: str) -> None:
    assert run("fit", people, "--predict", "income", "--learner", "mlp:steps=5", "--out", "model")[0] == 0
    change(pd.read_csv(people).drop(columns="income")).to_csv(tmp_path / "new.csv", index=False)
    code, out, error = run("predict", "model", "new.csv", "--out", "p.parquet")
    assert (code, out) == (2, "")
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "p.parquet").exists()


@pytest.mark.parametrize(("arguments", "said"), [
    (["fit", "people.csv", "--out", "m"], "--predict COLUMN"),
    (["fit", "people.csv", "--predict", "income", "--learner", "mpl", "--out", "m"], "did you mean 'mlp'"),
    (["fit", "people.csv", "--predict", "income", "--learner", "mlp:stepss=3", "--out", "m"], "did you mean 'steps'"),
    (["fit", "people.csv", "--predict", "income", "--learner", "given:column=hours", "--out", "m"], "nothing to fit"),
    (["fit", "people.csv", "--predict", "income", "--out", "full"], "full exists and holds no model"),
    (["fit", "people.csv", "--predict", "income", "--device", "tpu", "--learner", "mlp", "--out", "m"], "device must be"),
    (["fit", "digits/shift", "--out", "m"], "did you mean 'digits/shifts'"),
    (["fit", "people.csv", "--predict", "income"], "--out"),
    (["predict", "none", "people.csv"], "holds no saved learner"),
    (["predict", "none", "people.csv", "--out", "p.xls"], "must end in .parquet"),
])  # fmt: skip
def test_what_a_user_gets_wrong_is_one_line_and_nothing_is_written(people: Path, run: Command, tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    code, _, error = run(*arguments)
    assert code == 2
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "m").exists()
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_a_model_of_another_class_is_not_made_by_its_name(people: Path, run: Command, tmp_path: Path) -> None:
    assert run("fit", people, "--predict", "income", "--learner", "mlp:steps=5", "--out", "model")[0] == 0
    path = tmp_path / "model" / "learner.json"
    content = json.loads(path.read_text())
    content["fitted"]["network_"]["network"]["name"] = "os:system"
    path.write_text(json.dumps(content))
    code, _, error = run("predict", "model", people)
    assert code == 2
    assert "no network 'os:system'" in error
    content["fitted"]["network_"]["network"] |= {"name": "mlp", "width": 3}
    path.write_text(json.dumps(content))
    assert "weights that do not fit the network" in run("predict", "model", people)[2]
    (tmp_path / "model" / "model.json").write_text('{"reader": "posix:system"}')
    content["fitted"]["network_"]["network"]["width"] = 128
    path.write_text(json.dumps(content))
    assert "no reader 'posix:system'" in run("predict", "model", people)[2]


def test_a_training_that_was_cut_off_goes_on_when_the_command_is_given_again(people: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from elsewhere import training

    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    whole = ew.fit(people, "mlp:steps=30", predict="income", out=tmp_path / "whole")
    original, seen = training.Descent.step, []

    def broken(self: Any, batch: Any, backward: Any) -> Any:
        seen.append(1)
        if len(seen) == 20:
            raise KeyboardInterrupt
        return original(self, batch, backward)

    monkeypatch.setattr(training.Descent, "step", broken)
    with pytest.raises(KeyboardInterrupt):
        ew.fit(people, "mlp:steps=30", predict="income", out=tmp_path / "model")
    assert list(tmp_path.glob(".model.fit/checkpoints/*.safetensors"))
    model = ew.fit(people, "mlp:steps=30", predict="income", out=tmp_path / "model")
    assert len(seen) == 20 + 11
    assert model.predict(people).equals(whole.predict(people))
    assert not (tmp_path / ".model.fit").exists()


def test_fit_takes_a_source_and_predict_takes_examples() -> None:
    x = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    data = ew.Examples(x, (x[:, 0] > 0).astype(int), {"id": np.array([f"r{k}" for k in range(80)])}, ("no", "yes"))
    told = ew.fit(ew.Source(data), "logistic-regression").predict(data)
    assert told.id[3] == "r3"
    assert set(told.prediction) == {"no", "yes"}
    with pytest.raises(ew.UserError, match="does not know how to read files"):
        ew.fit(ew.Source(data), "logistic-regression").predict("new.csv")


def test_a_model_adapts_to_new_data_as_its_trials_did() -> None:
    @dataclasses.dataclass
    class Centred(ew.Learner[ew.Examples, ew.ValuePrediction]):
        """Predicts the distance from the mean of the domain it was adapted to."""

        sees_unlabelled = True  # type: ignore[assignment]

        def fit(self, source: Any, run: ew.Run = ew.Run()) -> Any:
            self.mean_ = 0.0
            return self

        def adapt(self, data: Any, run: ew.Run = ew.Run()) -> Any:
            other = Centred()
            other.mean_ = float(data.inputs.mean())
            return other

        def predict(self, data: Any, run: ew.Run = ew.Run()) -> ew.ValuePrediction:
            return ew.ValuePrediction(data.inputs[:, 0] - self.mean_)

    data = ew.Examples(np.array([[1.0], [3.0]]), np.array([0.0, 1.0]))
    model = ew.fit(ew.Source(data, unlabelled={"there": data.unlabelled()}), ew.named("centred", Centred()))
    assert model.predict(data).prediction.tolist() == [-1.0, 1.0]


def test_fitting_without_a_network_imports_no_torch() -> None:
    code = "import sys, elsewhere as ew; ew.fit('penguins', 'logistic-regression'); import elsewhere.assay.api; print('torch' in sys.modules, 'plotly' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.stdout.split() == ["False", "False"], done.stdout + done.stderr
