"""Tables by domain keep home and elsewhere, and every task, apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import elsewhere as ew
from elsewhere.assay import layout
from elsewhere.assay.export import write_csv


def two_slopes(n: int = 240, seed: int = 0) -> pd.DataFrame:
    """Two domains, in each of which y = slope · x with another slope."""
    rng = np.random.default_rng(seed)
    wine = np.array(["red", "white"])[np.arange(n) % 2]
    x = rng.normal(size=n)
    y = np.where(wine == "red", 2.0, -1.0) * x + 0.3 * rng.normal(size=n)
    return pd.DataFrame({"x": x, "y": y, "wine": wine})


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ew.Result:
    out = tmp_path_factory.mktemp("slopes") / "r"
    options = {"predict": "y", "domain": "wine"}
    return ew.assay(two_slopes(), learners=["ridge-regression", "prior"], seeds=2, out=out, **options)


def by_hand(result: ew.Result) -> dict[tuple[str, str, str], float]:
    """(learner, task, role) -> the mean over seeds of the root mean squared error, from the values per example."""
    each = result.examples().merge(result.trials()[["trial", "task", "learner", "seed"]], on="trial")
    scores = result.scores().drop_duplicates(["trial", "domain"])[["trial", "domain", "role"]]
    each = each.astype({"domain": str}).merge(scores.astype(str), on=["trial", "domain"])
    seeds = each.groupby(["learner", "task", "role", "seed"], observed=True).squared_error.mean() ** 0.5
    return seeds.groupby(["learner", "task", "role"], observed=True).mean().to_dict()


def test_a_table_of_two_domains_keeps_home_and_elsewhere_apart(result: ew.Result) -> None:
    truth = by_hand(result)
    table = result.table()
    assert len(truth) == 2 * 2 * 2
    assert table.shape == (2, 4 * 3)
    for (learner, task, role), value in truth.items():
        left_out = task.split("leave_out=")[1]
        column = left_out if role == "elsewhere" else f"home (leave_out={left_out})"
        assert table.loc[learner, (column, "value")] == pytest.approx(value)
    ridge = {key[1:]: v for key, v in truth.items() if key[0] == "ridge-regression"}
    assert min(v for (_, role), v in ridge.items() if role == "elsewhere") > 2
    assert max(v for (_, role), v in ridge.items() if role == "home") < 0.5


def test_what_is_shown_of_it_holds_the_same_numbers(result: ew.Result, tmp_path: Path) -> None:
    truth = {f"{v:.3f}" for v in by_hand(result).values()}
    for text in (repr(result), result._repr_html_(), result.report(tmp_path / "r.html").read_text()):
        assert all(value in text for value in truth)
    assert not any(value in result._repr_html_() for value in mixed(result))
    cells = pd.read_csv(next(p for p in write_csv(result, tmp_path) if p.name == "cells.csv"))
    assert {f"{v:.3f}" for v in cells.value} == truth
    assert not cells.duplicated(["task", "learner", "domain", "role"]).any()


def mixed(result: ew.Result) -> set[str]:
    """What a mean of home and elsewhere would show."""
    cells = result.cells().astype({"domain": str, "learner": str})
    return {f"{v:.3f}" for v in cells.groupby(["learner", "domain"]).value.mean()}


def test_the_heat_map_shows_each_role_in_a_column_of_its_own(result: ew.Result) -> None:
    from elsewhere.assay.report.sections import _heat_map

    (drawn,) = _heat_map(result)
    trace = drawn["figures"][0]["json"]["data"][0]
    assert trace["x"] == ["home (leave_out=red)", "red", "home (leave_out=white)", "white"]  # in the order of the study
    shown = {f"{float(v):.3f}" for line in trace["z"] for v in line}
    assert shown == {f"{v:.3f}" for v in by_hand(result).values()}


def cells(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["task", "domain", "role"]).assign(learner="a", value=range(len(rows)))


def test_one_task_is_learner_by_domain_home_first() -> None:
    plan = layout.layout(cells([("t", "far", "elsewhere"), ("t", "noise 1", "stress"), ("t", "lab", "home")]))
    assert plan.rows == ["learner"]
    assert plan.columns == ["lab", "noise 1", "far"]


def test_tasks_that_judge_the_same_domains_are_rows() -> None:
    rows = [(f"t:source={a}", b, "home" if a == b else "elsewhere") for a in "xyz" for b in "xyz"]
    plan = layout.layout(cells(rows))
    assert plan.rows == ["task", "learner"]
    assert plan.columns[0] == "home"
    assert sorted(plan.columns) == ["home", "x", "y", "z"]


def test_a_domain_called_home_is_not_taken_for_home() -> None:
    rows = [("t:a=1", "home", "elsewhere"), ("t:a=1", "x", "home"), ("t:a=2", "home", "elsewhere"), ("t:a=2", "y", "home")]
    plan = layout.layout(cells(rows))
    assert plan.labels.tolist() == ["home (elsewhere)", "home (home)", "home (elsewhere)", "home (home)"]


def test_two_rows_for_one_cell_are_an_error() -> None:
    twice = pd.DataFrame({"learner": ["a", "a"], "domain": ["d", "d"], "value": [0.6, 1.2]})
    with pytest.raises(ValueError, match="two rows for one cell of a table: learner a, domain d"):
        layout.wide(twice, "learner", "domain", "value")
    assert layout.wide(twice.assign(domain=["d", "e"]), "learner", "domain", "value").loc["a", "e"] == 1.2
