"""Tables: types, roles, splits, protocols, time, models one already has, weights, groups, what is said aloud."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

import elsewhere as ew
from elsewhere.assay.judge import judge
from elsewhere.assay.study import learners_of
from elsewhere.encoding import Encoder
from elsewhere.run import Run
from elsewhere.tables import reading as reading_file
from elsewhere.tables.data import Roles, infer_kind, prepare
from elsewhere.tables.order import canonical_order
from elsewhere.tables.periods import as_periods
from elsewhere.tables.reader import read
from elsewhere.tables.reading import read_table
from elsewhere.tables.tasks import held_out, penguins, read_heart, table


def test_types_are_inferred_and_odd_columns_said() -> None:
    n = 200
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "number": rng.normal(size=n), "flag": rng.integers(0, 2, n).astype(bool), "kind": rng.choice(["a", "b"], n), "name": [f"person {i}" for i in range(n)],
            "never": np.nan, "wide": np.where(rng.random(n) < 0.1, np.inf, 1.0), "place": rng.choice(["x", "y"], n), "y": rng.integers(0, 2, n),
        }
    )  # fmt: skip
    ready = prepare(frame, Roles("y", "place"))
    assert list(ready.inputs) == ["number", "flag", "kind", "wide"]
    assert ready.classes == ("0", "1")
    told = " ".join(ready.notes)
    assert "name looks like an identifier (200 different texts)" in told
    assert "never is missing in every row" in told
    assert "infinite values of wide count as missing" in told
    assert ready.types.set_index("feature").type.to_dict() == {"number": "number", "flag": "truth value", "kind": "category (2)", "wide": "number"}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "b"], "classification"), ([True, False], "classification"), ([0, 1], "classification"), ([1.0, 2.0], "classification"),
        ([0.5, 1.5], "regression"), (list(range(11)), "regression"),
    ],
)  # fmt: skip
def test_classification_and_regression_are_told_apart(values: list[object], kind: str) -> None:
    assert infer_kind(pd.Series(values)) == kind


def test_the_kind_can_be_overridden(people: Path) -> None:
    task = read(str(people), predict="hours", domain="state", kind="classification").bind(leave_out="TX")(0)
    assert task.source.train.classes is not None
    assert read(str(people), predict="income", domain="state", kind="regression").bind(leave_out="TX")(0).source.train.classes is None


def test_a_comparison_is_a_label_and_its_column_no_feature(people: Path) -> None:
    task = read(str(people), predict="hours > 30", domain="state").bind(leave_out="TX")(0)
    frame = pd.read_csv(people)
    assert task.source.train.classes == ("no", "yes")
    assert "hours" not in task.source.train.inputs
    there = task.domain("TX").load()
    assert (there.labels == (frame.hours[there.column("id")] > 30)).all()
    assert sorted(there.column("id")) == np.flatnonzero(frame.state == "TX").tolist()


def test_rows_without_label_or_domain_are_dropped_counted_and_named(people: Path) -> None:
    frame = pd.read_csv(people)
    frame.loc[:4, "income"] = np.nan
    frame.loc[5:7, "state"] = None
    ready = prepare(frame, Roles("income", "state"))
    assert len(ready.labels) == 292
    assert ready.notes[:2] == ("5 of 300 rows have no income and were dropped.", "3 of 300 rows have no state and were dropped.")


@given(st.integers(0, 1000), st.floats(0.1, 0.5))
@settings(max_examples=25, deadline=None)
def test_home_is_stratified_by_domain_and_label(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    n = 400
    data = ew.Examples(np.zeros((n, 1)), rng.integers(0, 3, n), {"domain": rng.choice(["a", "b"], n).astype(object)}, ("x", "y", "z"))
    test = held_out(data, share, np.random.default_rng(seed))
    for place in "ab":
        for label in range(3):
            stratum = (data.columns["domain"] == place) & (data.labels == label)
            assert abs(test[stratum].sum() - share * stratum.sum()) <= 2


@given(st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_units_are_never_split(seed: int) -> None:
    rng = np.random.default_rng(seed)
    unit = rng.integers(0, 60, 300)
    data = ew.Examples(np.zeros((300, 1)), rng.normal(size=300), {"domain": np.full(300, "a", object), "unit": unit})
    test = held_out(data, 0.25, np.random.default_rng(seed))
    assert not set(unit[test]) & set(unit[~test])
    assert 5 <= len(set(unit[test])) <= 25


def test_the_home_part_is_redrawn_with_the_seed_and_only_with_it() -> None:
    first, again, other = (set(penguins(s).domains[0].load().column("id")) for s in (0, 0, 1))
    assert first == again != other


def test_leaving_one_domain_out_is_the_default(people: Path, tmp_path: Path) -> None:
    result = ew.assay(str(people), predict="income", domain="state", learners=["prior"], seeds=1, out=tmp_path / "r")
    assert sorted(result.scores().query("role == 'elsewhere'").domain.unique()) == ["CA", "NY", "TX"]
    assert result.trials().task.nunique() == 3


def test_one_source_to_all_trains_in_it_alone(people: Path) -> None:
    function = read(str(people), predict="income", domain="state", source=["TX"])
    (task,) = [f(0) for f in function.expand()]
    assert set(task.source.train.column("domain")) == {"TX"}
    assert [(d.name, d.role) for d in task.domains] == [("TX", "home"), ("CA", "elsewhere"), ("NY", "elsewhere")]
    assert len(list(read(str(people), predict="income", domain="state", protocol="one-to-all").expand())) == 3


def test_above_ten_domains_both_commands_are_named_with_their_times(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=600), "place": [f"p{i % 12}" for i in range(600)], "y": rng.integers(0, 2, 600)})
    frame.to_csv(tmp_path / "many.csv", index=False)
    with pytest.raises(ew.UserError, match=r"12 domains .* --protocol leave-one-out' .*about .*--source p\d+' .*about"):
        read(str(tmp_path / "many.csv"), predict="y", domain="place")
    assert len(list(read(str(tmp_path / "many.csv"), predict="y", domain="place", protocol="leave-one-out").expand())) == 12


def admissions() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    when = pd.date_range("2015-01-01", "2019-12-31", periods=500)
    x = rng.normal(size=500)
    drift = (when.year - 2015).to_numpy()
    return pd.DataFrame({"admitted": when.strftime("%Y-%m-%d"), "x": x, "ill": (x * (2 - drift) + rng.normal(size=500) > 0).astype(int)})


def test_time_is_a_domain(tmp_path: Path) -> None:
    path = tmp_path / "admissions.csv"
    admissions().to_csv(path, index=False)
    result = ew.assay(str(path), predict="ill", domain="admitted", period="year", learners=["logistic-regression"], seeds=2, out=tmp_path / "r")
    cells = result.cells().set_index("domain")
    assert list(cells.index) == ["home", "2018", "2019"]  # the first 60 % of five years train
    assert cells.value["home"] > cells.value["2019"] + 0.2
    assert sorted(result.scores().order.dropna().unique()) == [1, 2]
    assert "Over time" in result.report().read_text()


def test_the_cut_can_be_named(tmp_path: Path) -> None:
    task = next(read(admissions(), predict="ill", domain="admitted", period="year", cut="2016").expand())(0)
    assert [d.name for d in task.domains] == ["2015", "2016", "2017", "2018", "2019"]


@pytest.mark.parametrize(
    ("period", "expected"),
    [("year", "2020"), ("quarter", "2020-Q2"), ("month", "2020-05"), ("week", "2020-W19"), ("day", "2020-05-04")],
)
def test_dates_become_periods_whose_names_sort_by_time(period: str, expected: str) -> None:
    frame = pd.DataFrame({"when": pd.to_datetime(["2020-05-04", None, "2021-12-31", "2019-01-09"])})
    names = as_periods(frame, "when", period)["when"]
    assert names[0] == expected
    assert names[1] is None or pd.isna(names[1])
    assert names[3] < names[0] < names[2]


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=30), st.sampled_from(["0.5", "1", "5", "100"]))
@settings(max_examples=50, deadline=None)
def test_number_periods_sort_as_numbers_do(values: list[float], width: str) -> None:
    names = as_periods(pd.DataFrame({"v": values}), "v", width)["v"].tolist()
    order = np.argsort(values, kind="stable")
    assert [names[i] for i in order] == sorted(names)


def test_a_model_one_already_has_is_judged_without_training(people: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(people)
    frame["risk"] = 1 / (1 + np.exp(-(frame.age - 42) / 5))
    result = ew.assay(frame, predict="income", domain="state", source=["CA"], learners=["given:column=risk", "logistic-regression"], seeds=2, out=tmp_path / "r")
    there = frame[frame.state == "TX"]
    expected = ((there.risk > 0.5) == (there.income == 1)).mean()
    cells = result.cells().set_index(["learner", "domain"]).value
    assert cells["given:column=risk", "TX"] == pytest.approx(expected)
    task = result.task(result.trials().trial.iloc[0])
    assert "risk" not in task.source.train.inputs
    assert any("Home may contain rows that the given model was trained on" in n for n in result.notes())


def test_rows_a_given_model_was_trained_on_are_not_judged(people: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(people)
    frame["guess"] = frame.income.astype(str)
    frame["used"] = np.arange(300) % 2 == 0
    result = ew.assay(frame, predict="income", domain="state", source=["CA"], learners=["given:column=guess,trained_on=used"], seeds=1, out=tmp_path / "r")
    task = result.task(result.trials().trial.iloc[0])
    for domain in task.domains:
        assert not frame.used[domain.load().column("id")].any()
    assert not any("Home may contain" in n for n in result.notes())
    assert result.cells().value.min() == 1.0


def test_given_scores_and_values_are_read_as_said(people: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(people)
    frame["score"] = frame.age - 42
    with_scale = ew.assay(frame, predict="income", domain="state", source=["CA"], learners=["given:column=score,scale=score"], seeds=1, out=tmp_path / "a")
    assert (with_scale.trials().status == "done").all()
    without = ew.assay(frame, predict="income", domain="state", source=["CA"], learners=["given:column=score"], seeds=1, out=tmp_path / "b")
    assert "no probability; say given:column=…,scale=score" in without.trials().reason[0]
    values = ew.assay(frame, predict="hours", domain="state", source=["CA"], learners=["given:column=age"], seeds=1, out=tmp_path / "c")
    there = frame[frame.state == "TX"]
    assert values.cells("mae").set_index("domain").value["TX"] == pytest.approx((there.age - there.hours).abs().mean())


def test_weights_are_used_by_metrics_and_learners_and_who_ignores_them_is_named(people: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(people)
    frame["w"] = np.where(frame.income == 1, 5.0, 1.0)
    names = ["logistic-regression", "nearest-neighbours", "prior"]
    result = ew.assay(frame, predict="income", domain="state", source=["CA"], weight="w", learners=names, seeds=1, out=tmp_path / "r")
    assert any("Weights are ignored by NearestNeighbours" in n for n in result.notes())
    task = result.task(result.trials().trial.iloc[0])
    assert "w" not in task.source.train.inputs
    train = task.source.train
    prior = result.fitted(result.trials().query("learner == 'prior'").trial.iloc[0]).estimator_.class_prior_[1]
    assert prior == pytest.approx(np.average(train.labels, weights=train.column("weight")))
    there = frame[frame.state == "TX"]
    assert result.cells("majority_share").set_index("domain").value["TX"].iloc[0] == pytest.approx(there.w[there.income == 1].sum() / there.w.sum())


def test_groups_have_tables_of_their_own(people: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(people)
    result = ew.assay(frame, predict="income", domain="state", group="job", source=["CA"], learners=["logistic-regression"], seeds=2, out=tmp_path / "r")
    table = result.by_group()
    assert set(table.group) == {"clerk", "nurse", "smith"}
    each = result.examples()
    mine = each[(each.domain == "TX") & (each.group == "nurse")].accuracy.mean()
    assert table.query("domain == 'TX' and group == 'nurse'").value.iloc[0] == pytest.approx(mine)
    assert {"worst_group_accuracy", "equalised_odds", "demographic_disparity"} <= set(result.scores().metric)
    assert "Groups" in result.report().read_text()


def test_unseen_categories_and_classes_elsewhere_are_handled(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 240
    place = np.repeat(["a", "b"], n // 2)
    frame = pd.DataFrame({"x": rng.normal(size=n), "kind": np.where(place == "a", "old", "new"), "place": place, "y": rng.choice(["p", "q"], n)})
    frame.loc[frame.index[-20:], "y"] = "r"
    names = ["prior", "logistic-regression", "random-forest", "boosting", "nearest-neighbours"]
    result = ew.assay(frame, predict="y", domain="place", source=["a"], learners=names, seeds=1, out=tmp_path / "r")
    assert (result.trials().status == "done").all()
    assert any("Class r never occurs in the source; in b no learner can get it right" in n for n in result.notes())


def test_what_is_odd_is_said_at_the_top(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 300
    place = np.repeat(["a", "b", "c"], n // 3)
    level = rng.normal(200, 20, n)
    level[place == "b"] = 0
    level[:3] = 0
    frame = pd.DataFrame({"level": level, "vessels": np.where(place == "c", np.nan, rng.integers(0, 3, n)), "x": rng.normal(size=n), "place": place})
    frame["y"] = np.where(place == "c", "ill", rng.choice(["ill", "well"], n))
    notes = prepare(frame, Roles("y", "place")).notes
    assert "vessels was never measured in c." in notes
    assert "level is 0 in every row of b: it was never measured there?" in notes
    assert any("level is 0 in some rows" in s and "3 in a" in s for s in notes)
    assert any(s.startswith("c has only one class, ill") for s in notes)


def test_ordinary_columns_raise_no_remark() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"count": rng.poisson(2, 300), "age": rng.integers(18, 99, 300), "place": rng.choice(["a", "b"], 300), "y": rng.integers(0, 2, 300)})
    assert prepare(frame, Roles("y", "place")).notes == ()


def test_switzerland_in_words(data: Path, tmp_path: Path) -> None:
    """Spec 01, section 6, item 9: below the majority share, and the column that was never measured there."""
    result = ew.assay("heart-hospitals", learners=["logistic-regression"], seeds=3, out=tmp_path / "r")
    page = " ".join([*result.notes(), *result.summary()])
    assert "cholesterol is 0 in every row of switzerland" in page
    assert "does not hold in switzerland" in page
    assert "always guessing the most frequent class there would get 0.93" in page


def test_the_four_published_files_give_the_same_table(data: Path, tmp_path: Path) -> None:
    joined = read_heart(data / "heart-hospitals")
    for file, name in {"cleveland": "cleveland", "hungarian": "hungarian", "switzerland": "switzerland", "va": "long-beach"}.items():
        rows = joined[joined.hospital == name].drop(columns="hospital")
        rows.to_csv(tmp_path / f"processed.{file}.data", header=False, index=False, na_rep="?")
    pd.testing.assert_frame_equal(read_heart(tmp_path)[joined.columns], joined, check_dtype=False)


def test_an_estimator_in_python_or_by_import_path(people: Path, tmp_path: Path) -> None:
    learners = [LogisticRegression(C=0.1), "sklearn.svm.SVC:C=2", SVC(kernel="linear")]
    result = ew.assay(str(people), predict="income", domain="state", source=["CA"], learners=learners, seeds=1, out=tmp_path / "r")
    assert (result.trials().status == "done").all()
    assert result.scores().query("metric == 'nll'").reason.iloc[-1] in ("", "the learner gives classes, no probabilities")
    reopened = ew.Result(tmp_path / "r")
    assert reopened.fitted(reopened.trials().trial.iloc[0]) is not None


def test_a_result_opened_later_says_when_the_file_has_changed(people: Path, tmp_path: Path) -> None:
    ew.assay(str(people), predict="income", domain="state", source=["CA"], learners=["prior"], seeds=1, out=tmp_path / "r")
    people.write_text(people.read_text().replace("clerk", "baker"))
    later = ew.Result(tmp_path / "r")
    with pytest.raises(ew.UserError, match="have changed since the study ran"):
        later.fitted(later.trials().trial.iloc[0])


def test_parquet_tsv_gzip_and_semicolons_are_read_alike(people: Path, tmp_path: Path) -> None:
    frame = read_table(people)
    frame.to_parquet(tmp_path / "p.parquet")
    frame.to_csv(tmp_path / "p.tsv", sep="\t", index=False)
    frame.to_csv(tmp_path / "p.csv.gz", index=False)
    frame.to_csv(tmp_path / "s.csv", sep=";", index=False)
    for name in ("p.parquet", "p.tsv", "p.csv.gz", "s.csv"):
        pd.testing.assert_frame_equal(read_table(tmp_path / name), frame, check_dtype=False)


def test_a_million_rows_are_split_quickly_enough_to_be_forgotten() -> None:
    n = 1_000_000
    rng = np.random.default_rng(0)
    data = ew.Examples(np.zeros((n, 1)), rng.integers(0, 2, n), {"domain": rng.choice(["a", "b"], n).astype(object), "unit": rng.integers(0, n // 2, n)}, ("x", "y"))
    assert held_out(data, 0.25, rng).mean() == pytest.approx(0.25, abs=0.01)


def test_unlabelled_halves_are_granted_and_not_judged(people: Path) -> None:
    task = next(read(str(people), predict="income", domain="state", source=["CA"], unlabelled=True).expand())(0)
    assert set(task.source.unlabelled) == {"NY", "TX"}
    seen, judged = task.source.unlabelled["TX"], task.domain("TX").load()
    assert seen.labels is None
    assert not set(seen.column("id")) & set(judged.column("id"))


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_an_encoder_gives_the_same_columns_whatever_comes(seed: int) -> None:
    rng = np.random.default_rng(seed)

    def frame(n: int, letters: str) -> pd.DataFrame:
        x = rng.normal(size=n)
        x[rng.random(n) < 0.2] = np.nan
        return pd.DataFrame({"x": x, "k": [None if rng.random() < 0.1 else c for c in rng.choice(list(letters), n)]})

    for encoder in (Encoder(), Encoder(squares=True), Encoder(codes=True), Encoder(scale=False)):
        encoder.fit(frame(30, "abc"))
        out = encoder.transform(frame(20, "bcxyz"))
        assert out.shape == (20, len(encoder.names_))
        assert encoder.codes or np.isfinite(out).all()


def test_fitting_standardises_by_the_source_alone() -> None:
    frame = pd.DataFrame({"x": [0.0, 2.0, 4.0]})
    encoder = Encoder().fit(frame)
    assert encoder.transform(frame)[:, 0] == pytest.approx((np.array([0, 2, 4]) - 2) / np.std([0, 2, 4]))
    assert encoder.transform(pd.DataFrame({"x": [2.0]}))[0, 0] == 0


# --- names, orders and duplicates change no score ---

RESERVED = (
    *("weight", "unit", "group", "id", "domain", "label", "home", "value", "trial", "metric"),
    *("row", "prediction", "confidence", "accuracy", "role", "column:weight", "task", "learner"),
)
ROLE_COLUMNS = ("x1", "x2", "kind", "place", "y", "w", "who", "sex", "risk", "used")
LEARNERS = (
    *("prior", "logistic-regression", "nearest-neighbours"),
    *("random-forest:trees=5", "boosting:rounds=5"),
)


def crowd(n: int = 160) -> pd.DataFrame:
    """A table with every role: weights, a group, several rows a person, a model's risk."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(n, 2)).round(4)
    return pd.DataFrame(
        {
            "x1": x[:, 0],
            "x2": np.where(rng.random(n) < 0.1, np.nan, x[:, 1]),
            "kind": rng.choice(["a", "b", "c"], n),
            "place": rng.choice(["here", "there", "far"], n, p=[0.5, 0.25, 0.25]),
            "y": np.where(x[:, 0] + rng.normal(size=n) > 0, "yes", "no"),
            "w": rng.uniform(0.5, 2, n).round(3),
            "who": [f"p{k}" for k in rng.integers(0, n // 2, n)],
            "sex": rng.choice(["f", "m"], n),
            "risk": rng.uniform(0, 1, n).round(4),
            "used": rng.random(n) < 0.2,
        }
    )


def crowd_task(frame: pd.DataFrame, names: dict[str, str] | None = None, **options: object) -> ew.Task:
    called = {c: c for c in ROLE_COLUMNS} | (names or {})
    function = read(
        frame,
        predict=called["y"],
        domain=called["place"],
        weight=called["w"],
        unit=called["who"],
        group=called["sex"],
        carried=[called["risk"], called["used"]],
        trained_on=called["used"],
        **{"source": ["here"], **options},
    )
    return next(function.expand())(0)


def crowd_scores(
    frame: pd.DataFrame,
    names: dict[str, str] | None = None,
    learners: tuple[str, ...] = LEARNERS,
) -> pd.DataFrame:
    """Return the scores of learners on a table whose columns have other names."""
    risk, used = ((names or {}).get(c, c) for c in ("risk", "used"))
    task = crowd_task(frame, names)
    parts = []
    for named in learners_of([f"given:column={risk},trained_on={used}", *learners]):
        scores = judge(task, named.learner.fit(task.source), Run())["scores"].to_pandas()
        parts.append(scores.assign(learner=named.name))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def crowd_expected() -> pd.DataFrame:
    return crowd_scores(crowd())


@pytest.mark.parametrize("turn", range(len(RESERVED)))
def test_reserved_words_as_names_change_no_score(turn: int, crowd_expected: pd.DataFrame) -> None:
    """Over all turns every column is called every reserved word."""
    names = dict(zip(ROLE_COLUMNS, np.roll(RESERVED, turn).tolist(), strict=False))
    found = crowd_scores(crowd().rename(columns=names), names)
    pd.testing.assert_frame_equal(found, crowd_expected)


def test_names_may_be_exchanged() -> None:
    """The group is called weight, the weights unit, the unit group, the prediction domain."""
    names = {"sex": "weight", "w": "unit", "who": "group", "risk": "domain", "place": "risk", "used": "id"}
    frame = crowd()
    found = crowd_scores(frame.rename(columns=names), names)
    pd.testing.assert_frame_equal(found, crowd_scores(frame))


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_changes_no_score(seed: int, crowd_expected: pd.DataFrame) -> None:
    turned = crowd().sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(crowd_scores(turned), crowd_expected)


def split_of(frame: pd.DataFrame, names: dict[str, str] | None = None, **options: object) -> list[object]:
    """Return which rows (by the index of ``frame``) train and are judged where, and their labels."""
    task = crowd_task(frame, names, **options)
    parts = [("train", task.source.train), *((d.name, d.load()) for d in task.domains)]
    return [(name, frame.index[x.column("id")].tolist(), x.labels.tolist()) for name, x in parts]


@given(st.integers(0, 10_000), st.permutations(ROLE_COLUMNS))
@settings(max_examples=15, deadline=None)
def test_orders_names_and_duplicates_change_neither_split_nor_labels(seed: int, order: list[str]) -> None:
    frame = crowd()
    turned = frame.sample(frac=1, random_state=seed)[order]
    turned.insert(seed % 10, "again", turned[order[seed % 10]])
    names = dict(zip(ROLE_COLUMNS, np.roll(RESERVED, seed), strict=False))
    found = split_of(turned.rename(columns=names), names, exclude=["again"])
    assert found == split_of(frame)


def test_the_order_of_columns_changes_no_score_of_learners_that_draw_nothing() -> None:
    frame = crowd()
    learners = ("prior", "logistic-regression", "nearest-neighbours", "boosting:rounds=20")
    turned = frame[list(reversed(ROLE_COLUMNS))]
    expected, found = (crowd_scores(f, learners=learners) for f in (frame, turned))
    pd.testing.assert_frame_equal(found, expected, rtol=1e-6, atol=1e-6)


def test_the_order_of_columns_changes_no_score_of_ridge_regression() -> None:
    frame = crowd().drop(columns=["used", "who"])
    found = []
    for f in (frame, frame[frame.columns[::-1]]):
        task = next(read(f, predict="risk", domain="place", source=["here"]).expand())(0)
        fitted = learners_of(["ridge-regression"])[0].learner.fit(task.source)
        found.append(judge(task, fitted, Run())["scores"].to_pandas())
    pd.testing.assert_frame_equal(*found, rtol=1e-6, atol=1e-6)


def test_a_duplicate_column_changes_no_score_of_learners_that_weigh_no_features() -> None:
    frame, learners = crowd(), ("prior", "boosting:rounds=20")
    doubled = frame.assign(again=frame.x1)
    found, expected = (crowd_scores(f, learners=learners) for f in (doubled, frame))
    pd.testing.assert_frame_equal(found, expected)


def test_choosing_features_does_not_change_the_split() -> None:
    assert split_of(crowd(), features=["x1"]) == split_of(crowd()) == split_of(crowd(), exclude=["x1"])


def test_with_an_id_the_split_does_not_change_when_columns_come_or_cells_are_mended() -> None:
    frame = crowd().assign(key=[f"k{k}" for k in range(160)])
    mended = frame.assign(new=range(160), x1=frame.x1 + 1)
    rows = [[sorted(x.column("id")) for x in (t.source.train, t.domains[0].load())]
            for t in (crowd_task(f, id="key") for f in (frame, mended))]  # fmt: skip
    assert rows[0] == rows[1]


def test_rows_that_differ_only_in_exchanged_dummies_keep_their_places() -> None:
    """Columns with the same values in another order: the keys of their rows tell them apart."""
    frame = pd.DataFrame({"f": [1, 0, 1, 0, 1, 0], "m": [0, 1, 0, 1, 0, 1], "z": [1, 1, 2, 2, 3, 4]})
    turned = frame.iloc[::-1][["m", "z", "f"]]
    one, two = (f.iloc[canonical_order(f)][["f", "m", "z"]].to_numpy() for f in (frame, turned))
    assert one.tolist() == two.tolist()


@pytest.mark.parametrize("left_out", ["here", "far"])
def test_a_domain_called_home_is_a_domain_like_any_other(left_out: str) -> None:
    called = {"here": "here", "there": "there", "far": "home"}
    frame = crowd()
    renamed = frame.assign(place=frame.place.map(called))
    a = table(0, frame=frame, predict="y", domain="place", leave_out=left_out)
    b = table(0, frame=renamed, predict="y", domain="place", leave_out=called[left_out])
    assert [d.name for d in a.domains] == ["home", left_out]
    assert [d.name for d in b.domains] == ["held-out home", called[left_out]]
    assert [len(d.load()) for d in a.domains] == [len(d.load()) for d in b.domains]


# --- text files: cells are counted, decimal commas are numbers ---


def written(tmp_path: Path, rows: list[list[str]], separator: str = ",") -> Path:
    path = tmp_path / "cells.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows(rows)
    return path


CELLS = st.text(st.sampled_from(list('ab ,;\n"1')), max_size=6)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=2, max_size=20), st.data())
@settings(max_examples=25, deadline=None)
def test_a_cell_too_many_or_too_few_is_told_with_its_row(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    data: st.DataObject,
) -> None:
    """Whatever the cells hold: separators, quotes, line ends."""
    tmp_path = tmp_path_factory.mktemp("cells")
    # A first cell of text keeps every row from being blank and every file from being all missing.
    table_ = [["a", "b", "c"], *(["x" + r[0], *r[1:]] for r in rows)]
    assert len(read_table(written(tmp_path, table_))) == len(rows)
    row = data.draw(st.integers(1, len(rows)))
    more = data.draw(st.booleans())
    broken = [*table_[:row], [*table_[row], "y"] if more else table_[row][:2], *table_[row + 1 :]]
    told = rf"row {row} \(line \d+\) has {4 if more else 2} cells and the header names 3 columns"
    with pytest.raises(ew.UserError, match=told):
        read_table(written(tmp_path, broken))


def test_the_line_of_a_wrong_row_counts_the_lines_within_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,"x\ny"\n2,z\n3,Smith, J\n')
    with pytest.raises(ew.UserError, match=r"row 3 \(line 5\) has 3 cells .* between quotes"):
        read_table(path)


@pytest.mark.parametrize(
    "text",
    [
        'a,b\n1, "x, y"\n',  # a quote after a space
        "a,b\n\n1,2\n   \n3,4\n\n",  # blank lines
        "a,b\r1,2\r3,4\r",  # line ends of old
        "\n\na,b\n1,2\n",
        'a,"b\nc"\n1,2\n',
        '"a;b",c\n1,2\n',
        "a,b\n1,2",
        'a,b\n5" pipe,2\n',
    ],
)
def test_files_that_are_odd_and_right_are_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, newline="")
    assert read_table(path).shape[1] == 2


def test_a_cell_larger_than_a_block_is_counted_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"a,b\n{'x' * (reading_file._BLOCK + 1)},1\ny,2\n")
    assert read_table(path).b.tolist() == [1, 2]


def test_row_names_that_the_header_does_not_know_are_told(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("age,state\n1,30,CA\n2,40,NY\n")
    with pytest.raises(ew.UserError, match="every row has 3 cells .* row names .* index=False"):
        read_table(path)


def test_row_names_without_a_name_are_left_out(people: Path, tmp_path: Path) -> None:
    frame = read_table(people)
    frame.to_csv(tmp_path / "indexed.csv")
    ready = prepare(read_table(tmp_path / "indexed.csv"), Roles("income", "state"))
    assert list(ready.inputs) == [c for c in frame if c not in ("income", "state")]
    assert any("row names, left out" in note for note in ready.notes)


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_decimal_commas_are_numbers_and_are_said(tmp_path: Path, separator: str) -> None:
    rows = [["x", "y", "z"], ["87,0", "1.234,5", "a"], ["-3", "12", "b"], ["", "2.000.000,25", "c"]]
    found = reading_file.reading(written(tmp_path, rows, separator))
    assert found.frame.x.tolist()[:2] == [87.0, -3.0]
    assert np.isnan(found.frame.x[2])
    assert found.frame.y.tolist() == [1234.5, 12.0, 2000000.25]
    assert "decimal commas: x, y (read as numbers)" in found.inferred
    assert found.notes == ("Read with a decimal comma: x, y.",)


@pytest.mark.parametrize(
    ("separator", "values", "note"),
    [
        (";", ["1,5", "n.v."], "x stays text: 1 of 2 values are numbers with a decimal comma"),
        (",", ["1,234", "2,345"], "x stays text: the comma of '1,234' may be a decimal comma or"),
        (",", ["1,2", "1,2,3"], "x stays text: 1 of 2 values"),
        (",", ["1.5", "2", "unknown"], "x stays text: 2 of 3 values are numbers, and others"),
    ],
)
def test_what_may_be_no_numbers_stays_text_and_is_said(
    tmp_path: Path,
    separator: str,
    values: list[str],
    note: str,
) -> None:
    rows = [["x", "y"], *([v, "a"] for v in values)]
    found = reading_file.reading(written(tmp_path, rows, separator))
    assert found.frame.x.tolist() == values
    assert len(found.notes) == 1
    assert note in found.notes[0]


@pytest.mark.parametrize(("separator", "first"), [(";", 1.234), (",", 0.125)])
def test_three_decimals_may_be_decimals(tmp_path: Path, separator: str, first: float) -> None:
    """After a semicolon the comma is the decimal's; no number of thousands begins with 0."""
    text = f"{first:.3f}".replace(".", ",")
    rows = [["x", "y"], [text, "a"], ["2,345", "b"]]
    assert read_table(written(tmp_path, rows, separator)).x.tolist() == [first, 2.345]


def test_points_beside_decimal_commas_are_doubted(tmp_path: Path) -> None:
    rows = [["x", "y"], ["1,5", "1.234"], ["2,5", "12.500"]]
    notes = reading_file.reading(written(tmp_path, rows, ";")).notes
    assert "Column y was read with decimal points although" in notes[1]


def test_a_target_with_decimal_commas_is_a_number(people: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(people)
    path = tmp_path / "german.csv"
    frame.assign(hours=frame.hours + 0.5).to_csv(path, sep=";", decimal=",", index=False)
    function = read(str(path), predict="hours", domain="state")
    assert "label hours: a number (regression)" in function.summary
    assert "decimal commas: " in function.summary
    assert "note: Read with a decimal comma: " in function.summary


# --- the plan says what was inferred ---


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "label income: 2 classes: 0, 1 (whole numbers, at most 10 of them, count as classes; --kind regression predicts the number)"),
        ({"kind": "classification"}, "label income: 2 classes: 0, 1\n"),
        ({"kind": "regression"}, "label income: a number (regression)\n"),
        ({"predict": "hours"}, "label hours: a number (regression); --kind classification"),
        ({"predict": "job"}, "label job: 3 classes: clerk, nurse, smith\n"),
        ({"source": ["CA"]}, "protocol: trained in CA, judged in all others\n"),
        ({"protocol": "one-to-all"}, "protocol: trained in CA, NY, TX, each in turn, judged in"),
        ({"unit": "job", "home_share": 0.4}, "home: 40% of the source is held out, anew for every seed (units of job stay whole"),
        ({"predict": "age > 40"}, "label age > 40: 2 classes: no, yes\n"),
    ],
)  # fmt: skip
def test_the_plan_says_what_was_inferred(people: Path, options: dict[str, str], told: str) -> None:
    given_ = {"predict": "income", "domain": "state", **options}
    assert told in read(str(people), **given_).summary


def test_the_plan_says_which_periods_train(tmp_path: Path) -> None:
    path = tmp_path / "admissions.csv"
    admissions().to_csv(path, index=False)
    summary = read(str(path), predict="ill", domain="admitted", period="year").summary
    assert "dates: admitted" in summary
    assert "trained on the periods before 2018, judged in each later one (the first 60% of" in summary


def test_columns_left_out_are_told_in_the_plan() -> None:
    frame = crowd().assign(name=[f"n{k}" for k in range(160)], never=np.nan)
    summary = read(frame, predict="y", domain="place").summary
    assert "note: Column name looks like an identifier" in summary
    assert "note: Column never is missing in every row and was left out." in summary


@pytest.mark.parametrize(
    ("dates", "period", "expected"),
    [
        (["31/3/2024", "1/4/2024"], "month", ["2024-03", "2024-04"]),
        (["3/31/2024", "4/1/2024"], "month", ["2024-03", "2024-04"]),
        (["1.4.2024", "3.4.2025"], "year", ["2024", "2025"]),
    ],
)
def test_days_and_months_are_told_apart(dates: list[str], period: str, expected: list[str]) -> None:
    assert as_periods(pd.DataFrame({"d": dates}), "d", period)["d"].tolist() == expected


@pytest.mark.parametrize(
    ("dates", "told"),
    [(["3/4/2024", "5/6/2024"], "which number is the month"), (["31/3/2024", "3/31/2024"], "others")],
)
def test_dates_that_may_be_read_in_two_ways_are_refused(dates: list[str], told: str) -> None:
    with pytest.raises(ew.UserError, match=told):
        as_periods(pd.DataFrame({"d": dates}), "d", "month")


# --- names of metrics, options and fields ---


def test_a_metric_or_an_axis_cannot_hide_a_column_of_a_result() -> None:
    data = ew.Examples(np.zeros((4, 1)), np.array([0, 1, 0, 1]), classes=("a", "b"))

    def of(*metrics: str, **about: int) -> ew.Task:
        right = [ew.Metric(name, lambda p, d: np.ones(len(d))) for name in metrics]
        return ew.Task(ew.Source(data), [ew.Domain("there", data, about=about)], right)

    for word in ("weight", "unit", "group", "id", "domain", "trial", "row"):
        with pytest.raises(ew.UserError, match=f"a metric cannot be called '{word}'"):
            of("accuracy", word)
    with pytest.raises(ew.UserError, match="two metrics of this task are called 'a'"):
        of("a", "a")
    with pytest.raises(ew.UserError, match="about cannot hold 'value'"):
        of("accuracy", value=3)
    assert of("accuracy", severity=3)


def test_families_of_metrics_cannot_give_one_name_twice() -> None:
    data = ew.Examples(np.zeros((4, 1)), np.array([0, 1, 0, 1]), classes=("a", "b"))
    metrics = [ew.Metric("m", lambda p, d: {"x": 1.0}), ew.Metric("m/x", lambda p, d: 2.0)]
    task = ew.Task(ew.Source(data), [ew.Domain("there", data)], metrics)
    fitted = learners_of(["prior"])[0].learner.fit(task.source)
    with pytest.raises(ew.UserError, match="two metrics give a value called 'm/x'"):
        judge(task, fitted, Run())


@dataclass
class Shifted(ew.Learner):
    """A learner whose field is called like a column of scores."""

    value: int = 0
    severity: int = 9

    def fit(self, source: ew.Source, run: Run = Run()) -> Shifted:
        return self

    def predict(self, data: ew.Examples, run: Run = Run()) -> ew.ClassPrediction:
        return ew.ClassPrediction(labels=np.full(len(data), self.value))


def test_a_field_called_like_a_column_of_scores_is_a_choice_of_its_own(tmp_path: Path) -> None:
    data = ew.Examples(np.zeros((20, 1)), np.arange(20) % 2, classes=("a", "b"))
    right = ew.Metric("accuracy", lambda p, d: (p.classes() == d.labels).astype(float))
    domains = [ew.Domain("home", data, "home"), ew.Domain("there", data, about={"severity": 3})]
    task = ew.named("toy", ew.Task(ew.Source(data), domains, [right]))
    learners = [Shifted(value=0), Shifted(value=1)]
    scores = ew.assay(task, learners=learners, seeds=1, out=tmp_path / "r").scores()
    assert set(scores["option value"]) == {0, 1}
    assert set(scores["value"]) == {0.5}
    assert set(scores.query("domain == 'there'").severity) == {3}
    assert set(scores["option severity"]) == {9}
