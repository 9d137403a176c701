"""Expectations against simulated studies with known truth; the words they understand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import elsewhere as ew
from elsewhere.assay.expectation import Expectation, half_width, paired_error, select


def judged(expectation: Expectation, values: np.ndarray, error: float) -> str:
    return expectation.judge(values, error, (float(expectation.at_least or 0.0), True)).state


@pytest.mark.parametrize(("seeds", "between", "within"), [(3, 0.02, 0.01), (3, 0.0, 0.02), (5, 0.02, 0.02), (10, 0.03, 0.005), (1, 0.0, 0.02), (3, 0.03, 0.0)])
def test_false_alarms_stay_at_most_at_the_stated_level(seeds: int, between: float, within: float) -> None:
    """Truth exactly at the bound, 1,000 studies: neither "holds" nor "fails" more often than 5 % (and its binomial error)."""
    rng = np.random.default_rng(seeds)
    expectation = Expectation(metric="m", at_least=0.8)
    states = []
    for _ in range(1000):
        values = 0.8 + rng.normal(0, between, seeds) + rng.normal(0, within)  # the test units are the same for every seed
        states.append(judged(expectation, values, within))
    for state in ("holds", "fails"):
        assert states.count(state) <= 50 + 3 * (1000 * 0.05 * 0.95) ** 0.5, (state, states.count(state))


def test_power_is_as_stated() -> None:
    """Five seeds of deviation 0.02, units 0.01, truth 0.05 above the bound: "holds" in at least 9 of 10 studies."""
    rng = np.random.default_rng(0)
    expectation = Expectation(metric="m", at_least=0.75)
    states = [judged(expectation, 0.8 + rng.normal(0, 0.02, 5) + rng.normal(0, 0.01), 0.01) for _ in range(1000)]
    assert states.count("holds") >= 900
    assert states.count("fails") == 0


def test_one_seed_and_no_error_cannot_be_told() -> None:
    assert judged(Expectation(metric="m", at_least=0.5), np.array([0.9]), float("nan")) == "cannot tell"


def test_half_width_is_students_t_for_seeds_and_normal_for_units() -> None:
    from scipy.stats import norm, t

    values = np.array([1.0, 2.0, 4.0])
    assert half_width(values, float("nan"), 0.95) == pytest.approx(t.ppf(0.975, 2) * values.std(ddof=1) / 3**0.5)
    assert half_width(values[:1], 0.5, 0.95) == pytest.approx(norm.ppf(0.975) * 0.5)
    assert half_width(values, 0.5, 0.9, one_sided=True) == pytest.approx(np.hypot(t.ppf(0.9, 2) * values.std(ddof=1) / 3**0.5, norm.ppf(0.9) * 0.5))


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> ew.Result:
    learners = ["toy-stacked:penalty=1", "toy-stacked:penalty=1000", "toy-quick"]
    return ew.assay("toy/quick", learners=learners, seeds=5, out=tmp_path_factory.mktemp("study") / "r")


def check(result: ew.Result, **item: Any) -> Any:
    return Expectation.of({"metric": "squared_error", **item}).check(result)


def test_beats_and_minus_say_the_same(result: ew.Result) -> None:
    sugar = check(result, where={"learner": "toy-stacked", "penalty": 1, "domain": "away"}, beats="toy-quick", by=0.1)
    plain = check(result, where={"learner": "toy-stacked", "penalty": 1, "domain": "away"}, minus={"learner": "toy-quick"}, at_most=-0.1)
    assert sugar.state == plain.state == "holds"
    assert (sugar.value, sugar.low, sugar.high) == (plain.value, plain.low, plain.high)


def test_a_gap_is_home_minus_elsewhere_in_the_metrics_direction(result: ew.Result) -> None:
    verdict = check(result, where={"learner": "toy-quick", "domain": "away", "slope": 2}, gap_at_most=0.5)
    cells = result.cells("squared_error").query("learner == 'toy-quick' and task == 'toy/quick:slope=2.0'").set_index("domain").value
    assert verdict.value == pytest.approx(cells["home"] - cells["away"])
    assert verdict.state != "holds"
    assert check(result, where={"learner": "toy-quick", "domain": "away", "slope": 2}, gap_at_most=50).state == "holds"


def test_a_label_selects_one_learner_and_a_name_all_of_its_kind(result: ew.Result) -> None:
    assert select(result, "squared_error", {"learner": "toy-stacked"}).learner.nunique() == 2
    assert select(result, "squared_error", {"learner": "toy-stacked:penalty=1"}).learner.nunique() == 1


def test_a_learner_called_just_like_its_kind_is_meant_alone(tmp_path: Path) -> None:
    learners = ["random-forest", "random-forest:trees=3"]
    both = ew.assay("penguins", learners=learners, seeds=1, out=tmp_path / "both")
    assert set(select(both, "accuracy", {"learner": "random-forest"}).learner) == {"random-forest"}
    few = ew.assay("penguins", learners=learners[1:], seeds=1, out=tmp_path / "few")
    assert set(select(few, "accuracy", {"learner": "random-forest"}).learner) == {"random-forest:trees=3"}


def test_worst_and_best_follow_the_metrics_direction(result: ew.Result) -> None:
    where = {"learner": "toy-quick", "domain": "away"}
    worst, best = (check(result, where=where, over=o, at_most=100, in_seeds=5).value for o in ("worst", "best"))
    assert worst > best


def test_in_seeds_counts_seeds(result: ew.Result) -> None:
    bound = float(select(result, "squared_error", {"learner": "toy-quick", "domain": "home", "slope": 1}).value.median())
    where = {"learner": "toy-quick", "domain": "home", "slope": 1}
    assert check(result, where=where, at_most=bound, in_seeds=3).state == "holds"
    assert check(result, where=where, at_most=bound, in_seeds=4).state == "fails"
    assert check(result, where=where, at_most=1000, in_seeds=7).state == "cannot tell"


def test_what_selects_nothing_cannot_be_told_and_says_what_there_is(result: ew.Result) -> None:
    verdict = check(result, where={"domain": "moon"}, at_most=1)
    assert verdict.state == "cannot tell"
    assert "there are: home, away" in verdict.sentence
    assert "did you mean 'squared_error'" in Expectation.of({"metric": "squared_eror", "at_most": 1}).check(result).sentence


def test_the_paired_error_is_that_of_the_differences(result: ew.Result) -> None:
    rows = result.scores().query("metric == 'squared_error' and domain == 'away' and task == 'toy/quick:slope=1.0' and seed == 0")
    a, b = rows[rows.learner == "toy-stacked:penalty=1"], rows[rows.learner == "toy-quick"]
    each = result.examples()
    one, two = (each[(each.trial == r.trial.iloc[0]) & (each.domain == "away")] for r in (a, b))
    by_unit = (one.squared_error.to_numpy() - two.squared_error.to_numpy()).reshape(-1, 2).sum(1)
    centred = by_unit - by_unit.mean()
    expected = np.sqrt(len(by_unit) / (len(by_unit) - 1) * np.square(centred).sum()) / 40
    assert paired_error(result, "squared_error", a, b) == pytest.approx(expected)


def test_a_statistic_of_the_result_can_be_expected(result: ew.Result) -> None:
    assert Expectation.of({"statistic": "test_expectation:always_two", "at_least": 1, "in_seeds": 1}).check(result).state == "holds"


def always_two(result: ew.Result) -> float:
    CALLS.append(result)
    return 2.0


CALLS: list[ew.Result] = []


def test_a_statistic_is_computed_once_for_terminal_report_and_exit_code(tmp_path: Path) -> None:
    expect = [{"statistic": "test_expectation:always_two", "at_least": 1, "in_seeds": 1}]
    result = ew.assay("toy/quick", learners=["toy-quick"], seeds=1, out=tmp_path / "r", expect=expect)
    CALLS.clear()
    result.verdicts(), result.report(), result.check()
    assert len(CALLS) == 1


def test_check_raises_and_names_what_failed(tmp_path: Path) -> None:
    expect = [{"metric": "squared_error", "where": {"domain": "away"}, "at_most": 0.001}]
    result = ew.assay("toy/quick", learners=["toy-quick"], seeds=3, out=tmp_path / "r", expect=expect)
    with pytest.raises(ew.ExpectationFailed, match="squared_error of away is at most 0.001: fails"):
        result.check()


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"metric": "a"}, "exactly one of"),
        ({"metric": "a", "at_least": 1, "at_most": 2}, "exactly one of"),
        ({"at_least": 1}, "a metric or a statistic"),
        ({"metric": "a", "at_lest": 1}, "did you mean 'at_least'"),
        ({"metric": "a", "at_least": "x"}, "Expected"),
        ({"metric": "a", "at_least": 1, "confidence": 1.0}, "confidence"),
        ({"metric": "a", "at_least": 1, "over": "median"}, "mean, worst or best"),
        ({"metric": "a", "beats": "b", "minus": {}}, "minus cannot"),
        ({"metric": "a", "at_least": 1, "in_seeds": 0}, "in_seeds"),
        ({"statistic": "nothing", "at_least": 1}, "module:function"),
    ],
)
def test_a_malformed_expectation_is_one_clear_line(item: dict[str, Any], told: str) -> None:
    with pytest.raises(ew.UserError, match=told):
        Expectation.of(item)


def test_scores_hold_what_expectations_select_by(result: ew.Result) -> None:
    frame = result.scores()
    assert {"penalty", "slope", "role", "learner_name", "task_name"} <= set(frame)
    assert isinstance(frame, pd.DataFrame)


# --- names are checked before anything runs -----------------------------------------------------------------------------


def planned(**item: Any) -> None:
    from elsewhere.assay.api import study_from
    from elsewhere.assay.plan import plan

    plan(study_from("toy/quick", ["toy-stacked:penalty=1", "toy-stacked:penalty=1000", "toy-quick"], 5, [{"metric": "squared_error", "at_most": 9, **item}]))


@pytest.mark.parametrize(
    ("item", "told"),
    [
        ({"metric": "squared_eror"}, "no task measures 'squared_eror'; did you mean 'squared_error'"),
        ({"metric": "squared"}, "no task measures 'squared'"),
        ({"where": {"learner": "toy-quik"}}, "nothing has learner = 'toy-quik'; did you mean 'toy-quick'"),
        ({"where": {"domain": "awy"}}, "nothing has domain = 'awy'; did you mean 'away'"),
        ({"where": {"task": "toy/quik"}}, "nothing has task = 'toy/quik'"),
        ({"where": {"role": "elswhere"}}, "nothing has role = 'elswhere'; did you mean 'elsewhere'"),
        ({"where": {"penalti": 1}}, "no trial has 'penalti'; did you mean 'penalty'"),
        ({"where": {"penalty": 2}}, "nothing has penalty = 2; there are: 1"),
        ({"where": {"learner": "toy-quick", "penalty": 1}}, "no trial has 'penalty'"),
        ({"where": {"domain": ["away", "hom"]}}, "nothing has domain = 'hom'; did you mean 'home'"),
        ({"where": {"seed": 7}}, "nothing has seed = 7; there are: 0, 1, 2, 3, 4"),
        ({"minus": {"learner": "toy-quik"}}, "did you mean 'toy-quick'"),
        ({"at_most": None, "beats": "toy-quik"}, "did you mean 'toy-quick'"),
        ({"metric": "", "statistic": "test_expectation:always_tree"}, "cannot import 'test_expectation:always_tree'"),
    ],
)
def test_what_an_expectation_names_must_be_there(item: dict[str, Any], told: str) -> None:
    with pytest.raises(ew.UserError, match=told):
        planned(**{k: v for k, v in {"at_most": 9, **item}.items() if v is not None} | ({"at_most": None} if "at_most" in item else {}))


@pytest.mark.parametrize(
    "item",
    [
        {"metric": "squared_error/worst"},  # families say their suffixes while they measure
        {"where": {"learner": "toy-stacked"}},
        {"where": {"learner": "toy-stacked:penalty=1", "domain": "away", "slope": 2}},
        {"where": {"learner": "toy-stacked", "penalty": 1000}},
        {"where": {"task": "toy/quick"}, "minus": {"task": "toy/quick:slope=1.0"}},
        {"where": {"domain": ["home", "away"], "seed": 4}},
        {"where": {"penalty": 1}, "minus": {"learner": "toy-quick"}},
        {"where": {"domain": "away"}, "at_most": None, "gap_at_most": 0.1},
        {"metric": "", "statistic": "test_expectation:always_two"},
    ],
)
def test_what_is_there_may_be_named(item: dict[str, Any]) -> None:
    planned(**item)


def test_names_of_tasks_that_the_plan_does_not_make_are_not_refused() -> None:
    """Of many tasks of one name the first 12 are made: a domain that only a later one has may be named, a learner must still exist."""
    from elsewhere.assay.api import study_from
    from elsewhere.assay.plan import plan

    @ew.task("many", choices={"k": list(range(14))})
    def many(seed: int = 0, k: int = 0) -> ew.Task:
        x = ew.Examples(np.arange(8.0)[:, None], np.arange(8.0))
        return ew.Task(ew.Source(x), [ew.Domain("home", x, "home"), ew.Domain(f"place {k}", x)], ew.metrics.regression_metrics())

    item = {"metric": "squared_error", "where": {"domain": "place 13", "k": 13}, "at_most": 1}
    assert plan(study_from(many, ["prior"], 1, [item]))
    with pytest.raises(ew.UserError, match="did you mean 'prior'"):
        plan(study_from(many, ["prior"], 1, [{**item, "where": {"learner": "priol"}}]))


def test_nothing_runs_where_a_name_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from elsewhere.cli import main

    study = 'tasks = ["toy/quick"]\nlearners = ["toy-quick"]\nseeds = 1\n[[expect]]\nmetric = "squared_eror"\nat_most = 1\n'
    (tmp_path / "s.toml").write_text(study)
    assert main(["assay", str(tmp_path / "s.toml"), "--out", str(tmp_path / "r")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "did you mean 'squared_error'" in said.err
    assert not (tmp_path / "r").exists()


def test_an_expectation_made_in_python_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(ew.UserError, match="over must be mean, worst or best"):
        ew.assay("toy/quick", learners=["toy-quick"], seeds=1, out=tmp_path / "r", expect=[Expectation(metric="squared_error", over="median", at_most=1)])
    assert not (tmp_path / "r").exists()
