"""Sentences about holding elsewhere: constants, paradoxes, results of earlier versions, findings of earlier code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import elsewhere as ew
from elsewhere.assay import analysis, findings, summary
from elsewhere.explain import ShiftDecomposition


def turned(n: int = 300) -> pd.DataFrame:
    """Two domains in which y depends on x in opposite ways."""
    rng = np.random.default_rng(0)
    place = np.array(["red", "white"])[np.arange(n) % 2]
    x = rng.normal(size=n)
    y = np.where(place == "red", 2.0, -2.0) * x + 0.3 * rng.normal(size=n)
    return pd.DataFrame({"x": x, "y": y, "place": place})


def test_a_regression_is_compared_with_the_mean_of_the_source(tmp_path: Path) -> None:
    out = tmp_path / "r"
    result = ew.assay(turned(), predict="y", domain="place", source="red", learners=["ridge-regression"], seeds=3, out=out)
    said = " ".join(result.summary())
    assert "It does not hold in white" in said
    assert "always guessing the mean label of the source would get" in said
    assert "which is better beyond doubt" in said
    cell = result.cells("constant_baseline").query("domain == 'white'").value.iloc[0]
    each, there = [], turned().query("place == 'white'").y.to_numpy()
    for trial in result.trials().trial:
        each.append(np.sqrt(np.mean((there - result.task(trial).source.train.labels.mean()) ** 2)))
    assert cell == pytest.approx(np.mean(each))
    assert "constant_baseline" not in result.report().read_text()


def test_a_learner_that_is_a_constant_is_not_compared_with_itself(tmp_path: Path) -> None:
    out = tmp_path / "r"
    result = ew.assay(turned(), predict="y", domain="place", source="red", learners=["prior"], seeds=2, out=out)
    assert "always guessing" not in " ".join(result.summary())


class Correlated:
    """A result whose correlations are known."""

    def __init__(self, rho: float, pooled: float, pairs: int = 6) -> None:
        row = {"measure": "accuracy", "with": "accuracy", "rho": rho, "pooled": pooled, "pairs": pairs}
        self.table = pd.DataFrame([row])

    def correlations(self) -> pd.DataFrame:
        return self.table


@pytest.mark.parametrize(
    ("rho", "pooled", "says"),
    [(0.8, -0.4, "goes with better"), (-0.6, 0.5, "goes with worse"), (0.8, 0.4, ""), (0.8, -0.02, "")],
)
def test_pooled_trials_that_say_the_opposite_are_told(rho: float, pooled: float, says: str) -> None:
    told: Any = summary._simpson(Correlated(rho, pooled), "accuracy")  # type: ignore[arg-type]
    assert bool(told) == bool(says)
    assert says in " ".join(told)
    assert not told or "Simpson" in told[0]


def test_scores_of_earlier_versions_are_read_beside_new_ones() -> None:
    """They hold no degrees of freedom, effective numbers or ranges: their intervals are what they were."""
    old = {"learner": "a", "seed": 0, "value": 0.98, "error": 0.02, "n": 100}
    alone = analysis.cells(pd.DataFrame([old]), ["learner"], metric="accuracy").iloc[0]
    assert (alone.low, alone.high) == (pytest.approx(0.98 - 1.959964 * 0.02), 1.0)
    new = {**old, "learner": "b", "freedom": np.inf, "effective": 100.0, "bias": 0.0, "least": 0.0, "most": 1.0}
    both = analysis.cells(pd.DataFrame([old, new]), ["learner"]).set_index("learner")
    assert both.low["a"] == pytest.approx(alone.low)
    assert both.low["b"] == pytest.approx(0.93, abs=0.005)
    assert both.high.max() == 1


def test_a_finding_of_earlier_code_gives_way_to_the_new_one(tmp_path: Path) -> None:
    result = ew.assay(turned(), predict="y", domain="place", source="red", learners=["ridge-regression"], seeds=1, out=tmp_path / "r")
    result.explain("shift-decomposition")
    (path,) = (result.folder / "findings").glob("*.json")
    content = json.loads(path.read_text())
    content["fields"]["revision"] = ShiftDecomposition.revision - 1
    content["sentence"] = "what the old code said"
    path.rename(path.with_name("0123456789abcdef.json")).write_text(json.dumps(content))
    findings.standing(result)
    assert [f.sentence for f in result.findings().values()] != ["what the old code said"]
    assert len(list((result.folder / "findings").glob("*.json"))) == 1
