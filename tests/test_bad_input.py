"""Malformed tables, studies and command lines: exit code 2, one line that says what was given and what to do, nothing written."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from elsewhere import Learner

Run = Callable[..., tuple[int, str, str]]
BASE = ["--predict", "income", "--domain", "state"]


def assert_told(run: Run, told: str, *arguments: object) -> None:
    """Exit code 2, one line on standard error holding ``told``, no traceback, no result written."""
    code, out, err = run(*arguments)
    assert code == 2, (code, out, err)
    lines = [line for line in err.splitlines() if line]
    assert len(lines) == 1, err
    assert lines[0].startswith("error: "), err
    assert told.lower() in lines[0].lower(), lines[0]
    assert "Traceback" not in out + err
    assert not Path("results").exists()
    assert not Path("out").exists()


# --- command lines over a good table ---------------------------------------------------------------------------------

COMMANDS: list[tuple[str, list[str]]] = [
    ("did you mean 'income'", ["--predict", "incme", "--domain", "state"]),
    ("did you mean 'state'", ["--predict", "income", "--domain", "stat"]),
    ("--predict", ["--domain", "state"]),
    ("--domain", ["--predict", "income"]),
    ("both predict and domain", ["--predict", "state", "--domain", "state"]),
    ("no domain 'TY'; there are: CA, NY, TX", [*BASE, "--source", "TY"]),
    ("no domain ''", [*BASE, "--source", ""]),
    ("no protocol 'leave-one'", [*BASE, "--protocol", "leave-one"]),
    ("one-to-all", [*BASE, "--source", "TX", "--protocol", "leave-one-out"]),
    ("past-to-future", [*BASE, "--cut", "TX", "--protocol", "one-to-all"]),
    ("no period 'zz'", [*BASE, "--cut", "zz"]),
    ("first period", [*BASE, "--cut", "CA"]),
    ("no dates", [*BASE, "--period", "year"]),
    ("holds text", [*BASE, "--period", "5"]),
    ("none of year", [*BASE, "--period", "decade"]),
    ("width > 0", [*BASE, "--period", "-3"]),
    ("width > 0", [*BASE, "--period", "0"]),
    ("width > 0", [*BASE, "--period", "inf"]),
    ("leak", [*BASE, "--features", "income,age"]),
    ("leak", [*BASE, "--features", "state"]),
    ("feature column 'ag'", [*BASE, "--features", "ag"]),
    ("named twice", [*BASE, "--features", "age,age"]),
    ("excluded column 'agee'", [*BASE, "--exclude", "agee"]),
    ("no feature is left", [*BASE, "--exclude", "age,job,hours"]),
    ("unit column 'family'", [*BASE, "--unit", "family"]),
    ("both predict and unit", [*BASE, "--unit", "income"]),
    ("group column 'sex'", [*BASE, "--group", "sex"]),
    ("weight column 'w'", [*BASE, "--weight", "w"]),
    ("holds text", [*BASE, "--weight", "job"]),
    ("both domain and weight", [*BASE, "--weight", "state"]),
    ("names some rows twice", [*BASE, "--id", "age"]),
    ("id column 'key'", [*BASE, "--id", "key"]),
    ("classification or regression", [*BASE, "--kind", "ranking"]),
    ("text; it cannot be a number", ["--predict", "job", "--domain", "state", "--kind", "regression"]),
    ("cannot compare", ["--predict", "age > old", "--domain", "state"]),
    ("predict column 'agee'", ["--predict", "agee > 3", "--domain", "state"]),
    ("in every row", ["--predict", "age > 1000", "--domain", "state"]),
    ("between 0 and 1", [*BASE, "--home-share", "0"]),
    ("between 0 and 1", [*BASE, "--home-share", "1.5"]),
    ("between 0 and 1", [*BASE, "--home-share", "nan"]),
    ("seeds must be", [*BASE, "--seeds", "0"]),
    ("seeds must be", [*BASE, "--seeds", "-3"]),
    ("int", [*BASE, "--seeds", "many"]),
    ("int", [*BASE, "--seeds", "1.5"]),
    ("workers must be", [*BASE, "--workers", "0"]),
    ("workers must be", [*BASE, "--workers", "-1"]),
    ("number", [*BASE, "--home-share", "half"]),
    ("no learner 'bosting'; did you mean 'boosting'", [*BASE, "--learner", "bosting"]),
    ("no field 'max_dept'; did you mean 'max_depth'", [*BASE, "--learner", "boosting:max_dept=3"]),
    ("max_depth cannot be 'deep'", [*BASE, "--learner", "boosting:max_depth=deep"]),
    ("expected field=value", [*BASE, "--learner", "boosting:max_depth"]),
    ("expected field=value", [*BASE, "--learner", "boosting:=3"]),
    ("expected field=value", [*BASE, "--learner", "boosting:max depth=3"]),
    ("twice", [*BASE, "--learner", "boosting:rounds=3,rounds=4"]),
    ("expected NAME", [*BASE, "--learner", ""]),
    ("expected NAME", [*BASE, "--learner", ":a=1"]),
    ("two learners are called 'prior'", [*BASE, "--learner", "prior", "--learner", "prior"]),
    ("cannot import", [*BASE, "--learner", "sklearn.svm.SVM"]),
    ("cannot import", [*BASE, "--learner", "no.such.module"]),
    ("expected a learner", [*BASE, "--learner", "collections.OrderedDict"]),
    ("no class", [*BASE, "--learner", "os.getcwd"]),
    ("unexpected keyword", [*BASE, "--learner", "sklearn.svm.SVC:strength=3"]),
    ("C cannot be", [*BASE, "--learner", "logistic-regression:C=strong"]),
    ("needs column", [*BASE, "--learner", "given"]),
    ("prediction column 'risk'", [*BASE, "--learner", "given:column=risk"]),
    ("prediction column 'used'", [*BASE, "--learner", "given:column=age,trained_on=used"]),
    ("cannot be the given prediction", [*BASE, "--learner", "given:column=income"]),
    ("scale must be auto, class", [*BASE, "--learner", "given:column=age,scale=odds"]),
    ("expected true or false", [*BASE, "--learner", "given:column=age,trained_on=job"]),
    ("leave it out of --features", [*BASE, "--features", "age,hours", "--learner", "given:column=age"]),
    ("two columns say what was trained on", [*BASE, "--learner", "given:column=age,trained_on=job", "--learner", "given:column=age,trained_on=hours"]),
    ("needs encoder", [*BASE, "--learner", "elsewhere.learner.Probe"]),
    ("no reader 'tabel'; did you mean 'table'", [*BASE, "--reader", "tabel"]),
    ("no such option", [*BASE, "--sources", "TX"]),
    ("no such option", [*BASE, "--target", "x"]),
    ("argument", [*BASE, "another.csv"]),
    ("requires", [*BASE, "--out"]),
    ("is no folder", [*BASE, "--data", "nowhere"]),
    ("needs unlabelled", [*BASE, "--learner", "test_bad_input.Greedy"]),
    ("needs Nodes", [*BASE, "--learner", "toy-teacher"]),
]


@pytest.mark.parametrize(("told", "arguments"), COMMANDS, ids=lambda v: " ".join(v)[:60] if isinstance(v, list) else v)
def test_a_wrong_command_line(run: Run, people: Path, told: str, arguments: list[str]) -> None:
    assert_told(run, told, "assay", people, *arguments)


@dataclass
class Greedy(Learner[Any, Any]):
    """A learner that wants what tables do not grant by default."""

    sees_unlabelled = True


# --- malformed tables ------------------------------------------------------------------------------------------------


def table(**columns: Any) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    base = {"age": rng.normal(40, 9, 60), "state": ["CA", "NY", "TX"] * 20, "income": rng.integers(0, 2, 60)}
    return pd.DataFrame({**base, **columns})


TABLES: list[tuple[str, Any, list[str]]] = [
    ("empty", "", BASE),
    ("empty", "age,state,income\n", BASE),
    ("empty", "\n", BASE),
    ("is empty", "age\n", ["--predict", "age", "--domain", "age"]),
    ("zero bytes", b"\x00\x01\x02,\x00\n1,2\n", BASE),
    ("not UTF-8", "age,state,income\n1,Cádiz,0\n".encode("latin1"), BASE),
    ("not UTF-8", "name\n".encode("utf-16"), BASE),
    ("2 columns called 'age'", "age,age,state,income\n1,2,CA,0\n3,4,NY,1\n", BASE),
    ("row 2 (line 3) has 4 cells", "age,state,income\n1,CA,0\n2,NY,1,7\n3,TX,0\n", BASE),
    ("row 3 (line 4) has 2 cells", "age,state,income\n1,CA,0\n2,NY,1\n3,TX\n", BASE),
    ("row 1 (line 2) has 4 cells", "name,state,income\nSmith, J,CA,0\nLi,NY,1\n", BASE),
    ("row names", "age,state,income\nr1,1,CA,0\nr2,2,NY,1\n", BASE),
    ("1 domain", table(state="CA"), BASE),
    ("no row has both", table(state=None), BASE),
    ("no row has both", table(income=np.nan), BASE),
    ("no row has both", table(income=np.inf), BASE),
    ("in every row", table(income=1), BASE),
    ("in every row", table(income=[1] * 59 + [np.nan]), BASE),
    ("no feature is left", table(age=np.nan), BASE),
    ("no feature is left", table()[["state", "income"]], BASE),
    ("no feature is left", table(age=[f"person {i}" for i in range(60)]), BASE),
    ("no classes", pd.concat([table()] * 40).assign(income=[f"v{i}" for i in range(2400)]), BASE),
    ("text; it cannot be a number", table(income=["yes", "no"] * 30), [*BASE, "--kind", "regression"]),
    ("different values in 60 rows", table(state=np.arange(60)), BASE),
    ("different values in 60 rows", table(state=np.random.default_rng(0).normal(size=60)), BASE),
    ("numbers ≥ 0", table(w=-1.0), [*BASE, "--weight", "w"]),
    ("numbers ≥ 0", table(w=[np.nan] + [1.0] * 59), [*BASE, "--weight", "w"]),
    ("numbers ≥ 0", table(w=[np.inf] + [1.0] * 59), [*BASE, "--weight", "w"]),
    ("numbers ≥ 0", table(w=0), [*BASE, "--weight", "w"]),
    ("have no unit", table(u=[None] + ["a"] * 59), [*BASE, "--unit", "u"]),
    ("have no group", table(g=[None] + ["a"] * 59), [*BASE, "--group", "g"]),
    ("too few to hold out", table(state=["CA"] * 1 + ["NY"] * 30 + ["TX"] * 29), [*BASE, "--source", "CA"]),
    ("too few to hold out", table(u=["one"] * 60), [*BASE, "--unit", "u"]),
    ("all of them as training rows", table(p=0.5, used=[s == "TX" for s in ["CA", "NY", "TX"] * 20]), [*BASE, "--learner", "given:column=p,trained_on=used"]),
    ("goes down to", table(state=np.linspace(-5, 5, 60)), [*BASE, "--period", "2"]),
    ("holds dates", table(state=pd.date_range("2020-01-01", periods=60)), [*BASE, "--period", "2"]),
    ("numbers, not dates", table(state=np.arange(60) % 12), [*BASE, "--period", "month"]),
    ("numbers, not dates", table(state=np.arange(60) % 12), [*BASE, "--period", "year"]),
    ("1 domain", table(state="2020-05-01"), [*BASE, "--period", "year"]),
    ("domains are many", table(state=[f"s{i % 15}" for i in range(60)]), BASE),
]


@pytest.mark.parametrize(("told", "content", "arguments"), TABLES, ids=[f"{k}-{t[0]}" for k, t in enumerate(TABLES)])
def test_a_malformed_table(run: Run, told: str, content: Any, arguments: list[str]) -> None:
    path = Path("people.csv")
    if isinstance(content, pd.DataFrame):
        content.to_csv(path, index=False)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_told(run, told, "assay", path, *arguments)


def test_files_that_are_not_what_they_say(run: Run) -> None:
    Path("cut.parquet").write_bytes(b"PAR1 and then nothing")
    Path("cut.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n" * 100)[:20])
    Path("not.csv.gz").write_bytes(b"plain text")
    Path("empty.parquet").write_bytes(b"")
    Path("folder.csv").mkdir()
    Path("photo.jpg").write_bytes(b"\xff\xd8")
    Path("photos").mkdir()
    for told, path in (
        ("cannot read cut.parquet", "cut.parquet"),
        ("cannot read cut.csv.gz", "cut.csv.gz"),
        ("cannot read not.csv.gz", "not.csv.gz"),
        ("cannot read empty.parquet", "empty.parquet"),
        ("is a folder", "folder.csv"),
        ("no reader takes the file photo.jpg", "photo.jpg"),
        ("photos is a folder", "photos"),
        ("there is no file missing.csv", "missing.csv"),
        ("is a folder", "."),
    ):
        assert_told(run, told, "assay", path, *BASE)


def test_nested_columns_are_named(run: Run) -> None:
    frame = table().assign(history=[[1, 2]] * 60)
    frame.to_parquet("people.parquet")
    assert_told(run, "column 'history' holds", "assay", "people.parquet", *BASE)


# --- malformed studies -----------------------------------------------------------------------------------------------

STUDIES: list[tuple[str, str]] = [
    ("at least one task", ""),
    ("at least one task", "seeds = 3"),
    ("at least one task and one learner", 'tasks = ["toy/quick"]'),
    ("unknown key 'task_s'; did you mean 'tasks'", 'task_s = ["penguins"]'),
    ("unknown key", 'learner_s = ["prior"]\ntasks = ["penguins"]'),
    ("Expected `array`", 'tasks = "penguins"'),
    ("Expected `str`", "tasks = [3]"),
    ("no task 'pengins'; did you mean 'penguins'", 'tasks = ["pengins"]'),
    ("no option 'sorce'; did you mean 'source'", 'tasks = ["penguins:sorce=Adelie"]'),
    ("no domain 'Emperor'", 'tasks = ["penguins:source=Emperor"]'),
    ("cannot import", 'tasks = ["no.module:thing"]'),
    ("no task function", 'tasks = ["os:getcwd"]'),
    ("no learner 'priot'", 'tasks = ["penguins"]\nlearners = ["priot"]'),
    ("seeds must be", 'tasks = ["penguins"]\nseeds = 0'),
    ("seeds must be", 'tasks = ["penguins"]\nseeds = -1'),
    ("seeds must be", 'tasks = ["penguins"]\nseeds = []'),
    ("seeds must be", 'tasks = ["penguins"]\nseeds = [1, 1]'),
    ("seeds must be", 'tasks = ["penguins"]\nseeds = [-1]'),
    ("Expected", 'tasks = ["penguins"]\nseeds = "three"'),
    ("Expected", 'tasks = ["penguins"]\nseeds = 1.5'),
    ("threads must be", 'tasks = ["penguins"]\nthreads = 0'),
    ("two tasks are called", 'tasks = ["penguins", "penguins"]'),
    ("two learners are called", 'tasks = ["penguins"]\nlearners = ["prior", "prior"]'),
    ("needs a name", 'tasks = ["penguins"]\n[[learner]]\nC = 3'),
    ("are texts", 'tasks = ["penguins"]\n[[learner]]\nname = 3'),
    ("no field 'K'", 'tasks = ["penguins"]\n[[learner]]\nname = "logistic-regression"\nK = 3'),
    ("C cannot be", 'tasks = ["penguins"]\n[[learner]]\nname = "logistic-regression"\nC = "x"'),
    ("needs lists", 'tasks = ["penguins"]\n[[learner]]\nname = "logistic-regression"\nsweep = 3'),
    ("needs lists", 'tasks = ["penguins"]\n[[learner]]\nname = "logistic-regression"\n[learner.sweep]\nC = 3'),
    ("needs lists", 'tasks = ["penguins"]\n[[learner]]\nname = "logistic-regression"\n[learner.sweep]\nC = []'),
    ("missing required field `name`", '[[task]]\noptions = {source = "Adelie"}'),
    ("unknown key", '[[task]]\nname = "penguins"\nsource = "Adelie"'),
    ("Expected", '[[task]]\nname = "penguins"\n[task.sweep]\nsource = "Adelie"'),
    ("exactly one of", 'tasks = ["penguins"]\n[[expect]]\nmetric = "accuracy"'),
    ("did you mean 'at_least'", 'tasks = ["penguins"]\n[[expect]]\nmetric = "accuracy"\nat_lest = 1'),
    ("a metric or a statistic", 'tasks = ["penguins"]\n[[expect]]\nat_least = 1'),
    ("confidence", 'tasks = ["penguins"]\n[[expect]]\nmetric = "a"\nat_least = 1\nconfidence = 2'),
    ("over must be", 'tasks = ["penguins"]\n[[expect]]\nmetric = "a"\nat_least = 1\nover = "sum"'),
    ("expectation", 'tasks = ["penguins"]\n[[expect]]\nmetric = 3\nat_least = 1'),
    ("study.toml", "tasks = ["),
    ("study.toml", "= 3"),
    ("study.toml", "tasks = ['penguins']\ntasks = ['penguins']"),
    ("study.toml", "\x00"),
]


@pytest.mark.parametrize(("told", "text"), STUDIES, ids=[f"{k}-{t[0][:30]}" for k, t in enumerate(STUDIES)])
def test_a_malformed_study(run: Run, told: str, text: str) -> None:
    Path("study.toml").write_text(text)
    assert_told(run, told, "assay", "study.toml", "--out", "out")


def test_more_command_lines(run: Run, people: Path) -> None:
    Path("study.toml").write_text('tasks = ["penguins"]\nlearners = ["prior"]')
    Path("other").mkdir()
    Path("other/file").write_text("x")
    for told, arguments in (
        ("a study takes no predict", ["assay", "study.toml", "--predict", "sex"]),
        ("cannot read missing.toml", ["assay", "missing.toml"]),
        ("is no file, study or task; did you mean 'penguins'", ["assay", "pengins"]),
        ("no option 'predict'", ["assay", "penguins", "--predict", "sex"]),
        ("no such command", ["asay", "penguins"]),
        ("missing argument", ["assay"]),
        ("missing argument", ["explain"]),
        ("missing argument", ["report"]),
        ("missing argument", ["list"]),
        ("no kind 'learnerz'", ["list", "learnerz"]),
        ("holds no study", ["report", "other"]),
        ("holds no study", ["explain", "nowhere"]),
        ("is not empty and holds no study", ["assay", "penguins", "--out", "other"]),
        ("download", ["assay", "heart-hospitals", "--data", "other"]),
        ("other is a folder, and reader", ["assay", "other", *BASE]),
    ):
        assert_told(run, told, *arguments)


def test_explaining_wrongly(run: Run) -> None:
    code, _, _ = run("assay", "toy/quick", "--learner", "toy-quick", "--seeds", "1", "--out", "kept")
    assert code == 0
    for told, arguments in (
        ("no explainer 'shift'", ["--with", "shift"]),
        ("no feature 'zz'", ["--with", "shift-decomposition", "--features", "zz"]),
        ("no field 'fold'; did you mean 'folds'", ["--with", "shift-decomposition:fold=3"]),
        ("folds cannot be", ["--with", "shift-decomposition:folds=many"]),
        ("no metric 'los'", ["--with", "shift-decomposition", "--loss", "los"]),
        ("classifier must be logistic or boosting", ["--with", "shift-decomposition", "--classifier", "forest"]),
        ("keeps no value per example", ["--with", "shift-decomposition", "--loss", "always"]),
    ):
        assert_told(run, told, "explain", "kept", *arguments)


def test_broken_result_folders(run: Run) -> None:
    Path("kept").mkdir()
    Path("kept/study.json").write_text("{")
    assert_told(run, "cannot be read", "report", "kept")


def test_there_are_at_least_150_of_them() -> None:
    assert len(COMMANDS) + len(TABLES) + len(STUDIES) + 9 + 1 + 15 + 7 + 1 >= 150
