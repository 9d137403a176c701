"""Doubts about the data of a task: planted ones are named once, clean data raise none, and names, order and types do not matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import elsewhere as ew
from elsewhere.assay.doubts import Doubt, doubts, sentences
from elsewhere.assay.fingerprints import Columns, copied_rows, spread_by
from elsewhere.assay.plan import check
from elsewhere.assay.tells import class_auc, r2
from elsewhere.cli import main
from elsewhere.metrics import classification_metrics, regression_metrics

PLACES = ("north", "south", "west")


def table(
    seed: int = 0,
    n: int = 900,
    regression: bool = False,
    change: Callable[..., pd.DataFrame] | None = None,
) -> ew.Examples:
    """Return clean data: correlated numbers, a count and a category; 60 patients of each place."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=n)
    frame = pd.DataFrame(rng.normal(size=(n, 4)) + hidden[:, None], columns=["age", "height", "dose", "pulse"])
    frame["visits"] = rng.poisson(3, n)
    frame["ward"] = rng.choice(["a", "b", "c"], n)
    place = rng.choice(PLACES, n)
    unit = np.array([f"{p} {k}" for p, k in zip(place, rng.integers(60, size=n), strict=True)], object)
    score = hidden + rng.normal(size=n)
    labels: Any = score if regression else (score > 0).astype(int)
    if change is not None:
        frame = change(frame, labels, place)
    return ew.Examples(
        frame,
        labels,
        {"domain": place.astype(object), "unit": unit},
        None if regression else ("no", "yes"),
    )


def split(data: ew.Examples, held_out: Any = None) -> ew.Task:
    """Return the task that trains in the north and is judged on its held-out patients and in the other places."""
    place, unit = data.columns["domain"], data.columns["unit"]
    inside = place == "north"
    if held_out is None:
        held_out = np.isin(unit, sorted(set(unit[inside]))[::4])
    metrics = regression_metrics() if data.classes is None else classification_metrics(classes=2)
    home = ew.Domain("north", data.take(inside & held_out), "home")
    others = [ew.Domain(p, data.take(place == p)) for p in PLACES[1:]]
    return ew.Task(ew.Source(data.take(inside & ~held_out)), [home, *others], metrics)


def kinds(task: ew.Task) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for doubt in doubts(task):
        found.setdefault(doubt.kind, []).append(doubt.about)
    return found


@pytest.mark.parametrize("regression", [False, True])
def test_clean_data_raise_no_doubt(regression: bool) -> None:
    assert doubts(split(table(regression=regression))) == []


# --- units ------------------------------------------------------------------------------------------------------------


def test_rows_of_known_units_are_counted_in_each_place() -> None:
    data = table()
    unit = data.columns["unit"].copy()
    there = np.flatnonzero(data.columns["domain"] == "south")[:7]
    task = split(data)
    unit[there] = task.source.train.columns["unit"][0]
    task = split(replace(data, columns={**data.columns, "unit": unit}))
    south = int((data.columns["domain"] == "south").sum())
    assert doubts(task) == [Doubt("unit", "south", 7, south)]
    assert sentences(doubts(task, "patient"))[0].startswith(f"7 of {south} rows of south share a `patient` with training rows")


def test_a_split_by_rows_shares_units_with_home() -> None:
    data = table()
    by_row = np.random.default_rng(1).random(len(data)) < 0.25
    task = split(data, by_row)
    trained = set(task.source.train.columns["unit"])
    home = task.domains[0].load()
    expected = sum(u in trained for u in home.columns["unit"])
    assert doubts(task) == [Doubt("unit", "north", expected, len(home))]


def test_units_that_home_alone_shares_are_another_doubt() -> None:
    data = table()
    unit = data.columns["unit"].copy()
    unit[np.flatnonzero(data.columns["domain"] == "west")[:3]] = split(data).domains[0].load().columns["unit"][0]
    assert kinds(split(replace(data, columns={**data.columns, "unit": unit}))) == {"unit at home": ["west"]}


@pytest.mark.parametrize("form", [str, float, lambda u: np.int64(u)])
def test_units_are_the_same_whatever_their_type(form: Any) -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 1, 2, 2)), np.arange(60) % 2
    train, there = (ew.Examples(x, y, {"unit": np.arange(60) + k}, ("a", "b")) for k in (0, 50))
    there = replace(there, columns={"unit": np.array([form(u) for u in there.columns["unit"]], object)})
    task = ew.Task(ew.Source(train), [ew.Domain("there", there)], classification_metrics(classes=2))
    assert doubts(task) == [Doubt("unit", "there", 10, 60)]  # pictures: units alone are looked at


def test_a_missing_unit_is_nobodys() -> None:
    data = ew.Examples(
        np.zeros((4, 1, 2, 2)),
        np.array([0, 1, 0, 1]),
        {"unit": np.array(["a", None, np.nan, "b"], object)},
        ("a", "b"),
    )
    other = replace(data, columns={"unit": np.array([None, np.nan, "c", "d"], object)})
    assert doubts(ew.Task(ew.Source(data), [ew.Domain("there", other)], classification_metrics(classes=2))) == []


def test_places_that_are_made_when_asked_for_are_loaded_only_if_a_check_applies() -> None:
    def never() -> ew.Examples:
        raise AssertionError("loaded")

    pictures = ew.Examples(np.zeros((4, 1, 2, 2)), np.array([0, 1, 0, 1]), {}, ("a", "b"))
    assert doubts(ew.Task(ew.Source(pictures), [ew.Domain("there", never)], classification_metrics(classes=2))) == []
    known = replace(pictures, columns={"unit": np.arange(4)})
    task = ew.Task(
        ew.Source(known),
        [ew.Domain("there", lambda: known), ew.Domain("blurred", never, "stress")],
        classification_metrics(classes=2),
    )
    assert kinds(task) == {"unit": ["there"]}


# --- copies -----------------------------------------------------------------------------------------------------------


def with_copies(data: ew.Examples, count: int, place: str = "south") -> ew.Task:
    """Return the task with training rows in the place of the first rows of a domain, ids and units their own."""
    task = split(data)
    train = task.source.train
    domains = []
    for domain in task.domains:
        there = domain.load()
        if domain.name == place:
            rows = pd.concat([train.inputs.iloc[:count], there.inputs.iloc[count:]], ignore_index=True)
            there = replace(
                there,
                inputs=rows,
                labels=np.concatenate([train.labels[:count], there.labels[count:]]),
            )
        domains.append(replace(domain, data=there))
    return replace(task, domains=domains)


@pytest.mark.parametrize("place", ["north", "south"])
@pytest.mark.parametrize("regression", [False, True])
def test_copied_rows_are_counted(place: str, regression: bool) -> None:
    found = doubts(with_copies(table(regression=regression), 12, place))
    assert [(d.kind, d.about, d.count) for d in found] == [("copies", place, 12)]


def test_the_same_features_with_another_label_are_no_copy() -> None:
    task = with_copies(table(), 12)
    domains = [replace(d, data=replace(d.load(), labels=1 - d.load().labels)) if d.name == "south" else d for d in task.domains]
    assert kinds(replace(task, domains=domains)) == {}


@pytest.mark.parametrize("d", [3, 8, 14, 20])
def test_rows_that_agree_by_chance_are_no_copies(d: int) -> None:
    """Truth values only: most rows of a place occur in training, or hundreds, or a few."""
    rng = np.random.default_rng(d)
    x = (rng.normal(size=(3000, 1)) + rng.normal(size=(3000, d)) > 0).astype(int)
    y = (rng.random(3000) < 0.5).astype(int)
    parts = [ew.Examples(x[rows], y[rows], classes=("a", "b")) for rows in np.split(np.arange(3000), 3)]
    table_ = Columns.of(parts)
    assert table_ is not None
    same = np.isin(table_.rows[1], table_.rows[0]).sum()
    assert same > 0 or d == 20
    assert copied_rows(table_) == [0, 0]


def test_a_column_that_is_there_twice_makes_chance_no_copy() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 1)).round(1)
    y = (rng.random(600) < 0.1).astype(int)
    parts = [ew.Examples(np.hstack([x, 3 - 2 * x])[rows], y[rows], classes=("a", "b")) for rows in (slice(0, 300), slice(300, 600))]
    made = Columns.of(parts)
    assert made is not None
    assert np.isin(made.rows[1], made.rows[0]).any()
    assert copied_rows(made) == [0]


def test_fingerprints_are_equal_just_where_rows_are() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (400, 4))
    made = Columns.of([ew.Examples(x, np.zeros(400))])
    assert made is not None
    rows = pd.DataFrame(x).groupby([0, 1, 2, 3]).ngroup()
    assert pd.Series(made.rows[0]).groupby(rows).nunique().eq(1).all()
    assert len(set(made.rows[0].tolist())) == rows.nunique()


# --- columns that tell too much -----------------------------------------------------------------------------------------

LEAKS: dict[str, Callable[..., Any]] = {
    "a copy": lambda y, rng: 2.0 * y + 1,
    "falling": lambda y, rng: np.exp(-y / np.std(y)),
    "noisy": lambda y, rng: y + 0.01 * np.std(y) * rng.normal(size=len(y)),
}


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("regression", [False, True])
def test_a_column_that_gives_the_label_is_named(leak: str, regression: bool) -> None:
    def change(frame: pd.DataFrame, labels: Any, place: Any) -> pd.DataFrame:
        return frame.assign(refund=LEAKS[leak](labels, np.random.default_rng(1)))

    assert kinds(split(table(regression=regression, change=change))) == {"label": ["refund"]}


def test_a_text_and_a_missing_value_can_give_the_label() -> None:
    def change(frame: pd.DataFrame, labels: Any, place: Any) -> pd.DataFrame:
        reason = pd.Series(np.random.default_rng(1).choice(["late", "wrong"], len(frame))).where(labels > 0, None)
        return frame.assign(decision=np.where(labels > 0, "granted", "refused"), reason=reason)

    assert kinds(split(table(change=change))) == {"label": ["decision", "reason"]}
    said = sentences(doubts(split(table(change=change))))
    assert said == ["decision (AUC 1.000) and reason (AUC 1.000) alone give the label in the source, each by itself: are they known before the label is? If not, exclude them."]


@pytest.mark.parametrize("form", ["codes", "numbers apart", "text", "row number"])
def test_a_column_that_is_the_domain_in_disguise_is_named(form: str) -> None:
    def change(frame: pd.DataFrame, labels: Any, place: Any) -> pd.DataFrame:
        code = np.array([PLACES.index(p) for p in place])
        made = {
            "codes": code,
            "numbers apart": 10.0 * code + np.random.default_rng(1).normal(size=len(code)),
            "text": np.array(["uno", "due", "tre"])[code],
            "row number": code.argsort(kind="stable").argsort(),
        }
        return frame.assign(site=made[form])

    assert kinds(split(table(change=change))) == {"domain": ["site"]}


def test_a_number_that_is_different_in_every_row_tells_no_domain() -> None:
    x = np.random.default_rng(0).permutation(600).astype(float)
    assert abs(class_auc(x, np.arange(600) % 3) - 0.5) < 0.1
    assert r2(x, np.random.default_rng(1).normal(size=600)) < 0.1


def test_what_is_missing_in_one_place_is_left_to_the_sentence_that_says_so() -> None:
    def change(frame: pd.DataFrame, labels: Any, place: Any) -> pd.DataFrame:
        return frame.assign(pulse=frame.pulse.where(place != "west"))

    assert kinds(split(table(change=change))) == {}


def test_the_auc_is_that_of_scikit_learn_for_a_monotone_column() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    x = y + rng.normal(size=500)
    assert class_auc(x, y) >= roc_auc_score(y, x) - 1e-12  # bins may do better, by chance a little
    assert class_auc(x, y) < roc_auc_score(y, x) + 0.01


def test_few_rows_tell_nothing() -> None:
    x = np.arange(38.0)
    assert np.isnan(class_auc(x, (x >= 19).astype(int)))
    assert np.isnan(r2(x[:30], x[:30]))


# --- what must not matter -------------------------------------------------------------------------------------------------


def planted() -> ew.Examples:
    def change(frame: pd.DataFrame, labels: Any, place: Any) -> pd.DataFrame:
        return frame.assign(refund=3 * labels, site=[PLACES.index(p) for p in place])

    return table(change=change)


def facts(task: ew.Task, names: dict[str, str] | None = None) -> list[tuple[Any, ...]]:
    back = {new: old for old, new in (names or {}).items()}
    return sorted((d.kind, back.get(d.about, d.about), d.count, d.of, round(d.value, 3)) for d in doubts(task))


def test_names_order_and_types_of_columns_do_not_matter() -> None:
    data = planted()
    known = facts(with_copies(data, 9))
    assert {k for k, *_ in known} == {"copies", "label", "domain"}
    names = {
        "refund": "weight",
        "site": "unit",
        "age": "domain",
        "dose": "id",
        "pulse": "group",
        "ward": "label",
    }
    for inputs in (
        data.inputs.rename(columns=names),
        data.inputs[data.inputs.columns[::-1]],
        data.inputs.assign(
            visits=data.inputs.visits.astype(float),
            site=data.inputs.site.astype("int8"),
            ward=data.inputs.ward.astype("category"),
        ),
    ):
        assert facts(with_copies(replace(data, inputs=inputs), 9), names) == known


def test_the_order_of_rows_does_not_matter() -> None:
    task = with_copies(planted(), 9)
    rng = np.random.default_rng(3)

    def shuffled(data: ew.Examples) -> ew.Examples:
        return data.take(rng.permutation(len(data)))

    again = replace(
        task,
        source=ew.Source(shuffled(task.source.train)),
        domains=[replace(d, data=shuffled(d.load())) for d in task.domains],
    )
    assert facts(again) == facts(task)


def test_a_sample_is_drawn_by_content() -> None:
    prints = np.random.default_rng(0).integers(0, 1 << 62, 1000).astype(np.uint64)
    order = np.random.default_rng(1).permutation(1000)
    assert (prints[order][spread_by(prints[order], 100)] == prints[spread_by(prints, 100)]).all()


@pytest.mark.parametrize("inputs", ["sparse", "objects", "none"])
def test_what_is_no_table_is_passed_over(inputs: str) -> None:
    import scipy.sparse as sp

    made: Any = {
        "sparse": ew.data.SparseRows(sp.csr_array(np.eye(40))),
        "objects": pd.DataFrame({"x": [[k] for k in range(40)]}),
        "none": pd.DataFrame(index=range(40)),
    }[inputs]
    data = ew.Examples(made, np.arange(40) % 2, classes=("a", "b"))
    assert doubts(ew.Task(ew.Source(data), [ew.Domain("there", data)], classification_metrics(classes=2))) == []


# --- where they are said ----------------------------------------------------------------------------------------------


def test_one_sentence_for_all_tasks_of_a_study() -> None:
    data = planted()

    @ew.task("made", choices={"shuffle": [0, 1, 2]})
    def made(seed: int = 0, shuffle: int = 0) -> ew.Task:
        return split(data, np.random.default_rng(shuffle).random(len(data)) < 0.25)

    from elsewhere.assay.api import study_from

    told = check(study_from(made, ["prior"], 1))
    assert len(told) == 3
    assert told[0].count(" of north") == 1


def test_the_command_says_each_doubt_once_and_so_does_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    place, ill = rng.choice(["a", "b"], 400), rng.integers(0, 2, 400)
    frame = pd.DataFrame(
        {
            "place": place,
            "ill": ill,
            "x": rng.normal(size=400),
            "bill": 5 * ill + rng.normal(size=400) / 9,
            "patient": rng.integers(80, size=400),
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    asked = f"assay {tmp_path / 't.csv'} --predict ill --domain place --unit patient --learner prior --seeds 1 --out {tmp_path / 'r'}"
    assert main(asked.split()) == 0
    said = capsys.readouterr().out
    assert said.count("share a `patient` with training rows") == 1
    assert said.count("bill (AUC 1.000) alone gives the label") == 1
    assert said.index("alone gives the label") < said.index("plan:")
    notes = ew.Result(tmp_path / "r").notes()
    assert [sum(word in n for n in notes) for word in ("share a `patient`", "alone gives the label")] == [1, 1]
    assert (tmp_path / "r" / "report.html").read_text().count("alone gives the label") == 1


# --- false alarms -------------------------------------------------------------------------------------------------------

CLEAN: dict[str, Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]] = {
    "normal": lambda x, rng: x,
    "truth values": lambda x, rng: (x > rng.normal(size=x.shape[1])).astype(int),
    "two truth values": lambda x, rng: (x.iloc[:, :2] > 0).astype(int),
    "whole numbers": lambda x, rng: (x * rng.uniform(1, 4)).round().astype(int),
    "indicators of categories": lambda x, rng: pd.get_dummies(pd.DataFrame({k: rng.choice(list("abcde"), len(x)) for k in range(rng.integers(1, 4))}).astype(str)),
    "rare flags": lambda x, rng: pd.DataFrame(rng.random((len(x), 20)) < rng.uniform(0.002, 0.05, 20)),
    "categories and numbers": lambda x, rng: x.assign(**{c: rng.choice(list("abcdefgh"), len(x)) for c in x.columns[: x.shape[1] // 2]}),
    "rounded": lambda x, rng: x.round(int(rng.integers(0, 3))),
    "columns twice": lambda x, rng: pd.concat([x.round(1), x.round(1).add_suffix("b"), (2 * x.round(1) + 1).add_suffix("c")], axis=1),
    "skewed": lambda x, rng: np.exp(3 * x),
    "one column": lambda x, rng: x.iloc[:, :1].round(1),
    "missing values": lambda x, rng: x.mask(rng.random(x.shape) < 0.3),
    "mostly zero": lambda x, rng: x.where(rng.random(x.shape) < 0.2, 0.0).round(1),
}


def clean_task(kind: str, seed: int) -> ew.Task:
    """Return a task of 60 to 3,000 rows in two or three places that differ in nothing."""
    rng = np.random.default_rng([seed, list(CLEAN).index(kind)])
    n, d = int(np.exp(rng.uniform(np.log(60), np.log(3000)))), int(rng.integers(2, 13))
    hidden = rng.normal(size=(n, 3))
    x = pd.DataFrame(hidden @ rng.normal(size=(3, d)) * rng.uniform() + rng.normal(size=(n, d))).add_prefix("x")
    score = hidden @ rng.normal(size=3) * rng.uniform(0, 2) + rng.normal(size=n)
    cuts: Any = [None, [rng.normal()], [-1, 0, 1]][seed % 3]
    labels, classes = (score, None) if cuts is None else (np.digitize(score, cuts), tuple("abcd"[: len(cuts) + 1]))
    place = rng.choice(PLACES[: int(rng.integers(2, 4))], n)
    data = ew.Examples(CLEAN[kind](x, rng), labels, {"domain": place.astype(object)}, classes)
    home = rng.random(n) < 0.25
    parts = [ew.Domain("north", data.take((place == "north") & home), "home")]
    parts += [ew.Domain(p, data.take(place == p)) for p in PLACES[1:] if (place == p).any()]
    metrics = regression_metrics() if classes is None else classification_metrics(classes=len(classes))
    return ew.Task(ew.Source(data.take((place == "north") & ~home)), parts, metrics)


@pytest.mark.slow
def test_false_alarms_are_rare() -> None:
    """13 kinds of clean tables, 20 of each: no kind of doubt in more than 5 %, and in no more than 5 % of any kind of table."""
    alarms = {kind: [{d.kind for d in doubts(clean_task(kind, seed))} for seed in range(20)] for kind in CLEAN}
    every = [found for tables in alarms.values() for found in tables]
    for doubt in ("copies", "label", "domain"):
        assert sum(doubt in found for found in every) <= 0.05 * len(every)
    assert {kind: sum(map(bool, tables)) for kind, tables in alarms.items() if sum(map(bool, tables)) > 1} == {}
