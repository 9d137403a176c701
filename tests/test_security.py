"""Names cannot script the report, leave the folder or become formulas; loading a model runs nothing."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.preprocessing import FunctionTransformer

import elsewhere as ew
from elsewhere.assay.export import harmless, write_csv
from elsewhere.assay.report import safe_json
from elsewhere.tables.learners import LogisticRegression, RandomForest
from elsewhere.tables.tasks import penguins
from elsewhere.wrapping import Estimator

HOSTILE = ["<script>window.pwned=1</script>", '"><img src=x onerror=window.pwned=1>', "../../../escape", "=cmd|' /C calc'!A0", "a\nb", "</script><b>", "&lt;", "'; --", "\u2028x"]


def hostile_table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 60 * len(HOSTILE)
    return pd.DataFrame(
        {"</td><script>x</script>": rng.normal(size=n), "kind": rng.choice(HOSTILE, n), "place": np.repeat(HOSTILE, 60), "y": rng.choice(["<i>yes</i>", "no"], n), "g": rng.choice(HOSTILE[:2], n)}
    )


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> ew.Result:
    folder = tmp_path_factory.mktemp("hostile") / "inside" / "r"
    learners = [ew.named(name, LogisticRegression()) for name in HOSTILE[:2]]
    result = ew.assay(hostile_table(), predict="y", domain="place", group="g", source=[HOSTILE[0]], learners=learners, seeds=4, out=folder)
    result.explain("shift-decomposition")
    result.report()
    return result


def test_no_name_becomes_markup_in_the_report(hostile: ew.Result) -> None:
    page = (hostile.folder / "report.html").read_text()
    body = page[page.index("<body>") : page.index("<footer>")]
    assert "<script>window.pwned" not in body
    assert "onerror=window" not in body.replace("&gt;&lt;img src=x onerror=window", "").replace("\\u003e\\u003cimg src=x onerror=window", "").replace(
        "&amp;gt;&amp;lt;img src=x onerror=window", ""
    ).replace("\\u0026gt;\\u0026lt;img src=x onerror=window", "")
    assert "&lt;script&gt;window.pwned" in body


def test_nothing_leaves_the_folder(hostile: ew.Result) -> None:
    above = hostile.folder.parent.parent
    assert {p.name for p in above.iterdir()} == {"inside"}
    assert {p.name for p in (above / "inside").iterdir()} == {"r"}


def test_csv_files_hold_no_formulas(hostile: ew.Result, tmp_path: Path) -> None:
    for path in write_csv(hostile, tmp_path):
        frame = pd.read_csv(path, dtype=str)
        for column in frame.columns:
            texts = frame[column].dropna()
            numbers = pd.to_numeric(texts, errors="coerce").notna()
            assert not texts[~numbers].str.match(r"^[=+\-@\t\r]").any(), (path, column)
    assert harmless(pd.DataFrame({"=a": ["+1", "@x", "fine", "-2+3"]})).iloc[:, 0].tolist() == ["'+1", "'@x", "fine", "'-2+3"]


def test_figures_travel_as_json_that_cannot_end_their_script() -> None:
    text = safe_json({"x": "</script><script>alert(1)</script>\u2028&"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text)["x"].startswith("</script>")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    Estimator(__import__("sklearn.linear_model").linear_model.LogisticRegression()).fit(penguins(0).source).save(tmp_path / "model")
    return tmp_path / "model"


class Evil:
    """What a hostile file would run."""

    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def test_a_pickle_in_a_model_folder_is_never_read(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("estimator_.skops", "arrays.safetensors", "learner.json"):
        folder = tmp_path / f"with-{name}"
        folder.mkdir()
        for file in model.iterdir():
            (folder / file.name).write_bytes(file.read_bytes()) if file.is_file() else os.symlink(file, folder / file.name)
        (folder / name).write_bytes(pickle.dumps(Evil()))
        with pytest.raises(ew.UserError):
            ew.load(folder)
    assert not (tmp_path / "pwned").exists()


def test_types_beyond_the_allow_list_are_refused_by_name(model: Path) -> None:
    skops.io.dump(FunctionTransformer(os.system), model / "estimator_.skops")
    with pytest.raises(ew.UserError, match="holds .*system, which this learner is not known to use"):
        ew.load(model)


def test_allow_lists_are_fixed_per_learner(tmp_path: Path) -> None:
    RandomForest(trees=3).fit(penguins(0).source).save(tmp_path / "forest")
    assert len(ew.load(tmp_path / "forest").predict(penguins(0).domains[0].load().unlabelled())) > 0
    content = json.loads((tmp_path / "forest" / "learner.json").read_text())
    content["is"] = "elsewhere.tables.learners:LogisticRegression"
    content["revision"] = 1
    (tmp_path / "forest" / "learner.json").write_text(json.dumps(content))
    with pytest.raises(ew.UserError, match="Tree, which this learner is not known to use"):
        ew.load(tmp_path / "forest")


@pytest.mark.parametrize("name", ["os:system", "builtins:eval", "subprocess:Popen", "test_security:Mine", "elsewhere.run:Run"])
def test_classes_are_never_made_by_name_alone(model: Path, name: str) -> None:
    content = json.loads((model / "learner.json").read_text())
    (model / "learner.json").write_text(json.dumps({**content, "is": name}))
    with pytest.raises(ew.UserError, match="not in the catalogue"):
        ew.load(model)


class Mine(LogisticRegression):
    """A user's own learner."""


def test_ones_own_learners_load_by_their_class_or_by_trust(tmp_path: Path) -> None:
    task = penguins(0)
    fitted = Mine().fit(task.source)
    fitted.save(tmp_path / "mine")
    data = task.domains[0].load().unlabelled()
    for loaded in (Mine.load(tmp_path / "mine"), ew.load(tmp_path / "mine", trust=[Mine])):
        assert (loaded.predict(data).classes() == fitted.predict(data).classes()).all()
    with pytest.raises(ew.UserError, match=r"load it with Mine.load\(folder\) or trust="):
        ew.load(tmp_path / "mine")


@pytest.mark.parametrize("path", ["../secret.skops", "/etc/passwd", "a/b.skops"])
def test_a_model_cannot_point_outside_its_folder(model: Path, path: str) -> None:
    content = json.loads((model / "learner.json").read_text())
    content["fitted"]["estimator_"] = {"estimator": path}
    (model / "learner.json").write_text(json.dumps(content))
    with pytest.raises(ew.UserError, match="not a file of its own"):
        ew.load(model)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"is": 3}', '{"is": "x", "fields": {}, "fitted": {}}'])
def test_a_damaged_model_is_one_clear_line(model: Path, damage: str) -> None:
    (model / "learner.json").write_text(damage)
    with pytest.raises(ew.UserError) as told:
        ew.load(model)
    assert "\n" not in str(told.value)


def test_a_model_of_another_revision_says_so(model: Path) -> None:
    content = json.loads((model / "learner.json").read_text())
    (model / "learner.json").write_text(json.dumps({**content, "revision": 99}))
    with pytest.raises(ew.UserError, match="saved by revision 99"):
        ew.load(model)


def test_an_empty_folder_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(ew.UserError, match="holds no saved learner"):
        ew.load(tmp_path)
