"""The command: exit codes, what it prints, what it keeps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from elsewhere import catalogue

Run = Callable[..., tuple[int, str, str]]


def test_an_assay_tells_types_plan_summary_table_and_report(run: Run, people: Path) -> None:
    code, out, err = run("assay", people, "--predict", "income", "--domain", "state", "--seeds", "2")
    assert code == 0, err
    for part in (
        "300 rows in 3 domains: ",
        "label income: 2 classes: 0, 1 (whole numbers, at most 10 of them, count as classes; ",
        "--kind regression predicts the number)",
        "separator: comma; encoding: UTF-8",
        "protocol: each of the 3 domains is left out in turn (--protocol, --source)",
        "home: 25% of the source is held out, anew for every seed",
        "learners: prior, logistic-regression, boosting; seeds: 0, 1",
        "age",
        "number",
        "category (3)",
        "plan: 3 tasks × 3 learners × 2 seeds = 18 trials",
        "accuracy",
        "logistic-regression",
        "boosting",
        "report: results/people-",
    ):
        assert part in out, part
    (folder,) = Path("results").iterdir()
    assert (folder / "report.html").exists()


def test_the_same_command_again_runs_nothing(run: Run) -> None:
    run("assay", "toy/quick", "--learner", "toy-quick", "--out", "kept")
    before = {p: p.stat().st_mtime_ns for p in Path("kept/trials").iterdir()}
    code, _, _ = run("assay", "toy/quick", "--learner", "toy-quick", "--out", "kept")
    assert code == 0
    assert {p: p.stat().st_mtime_ns for p in Path("kept/trials").iterdir()} == before


STUDY = 'tasks = ["toy/quick"]\nlearners = ["toy-quick"]\nseeds = 3\n[[expect]]\nmetric = "squared_error"\nwhere = {{ domain = "away" }}\n{}\n'


@pytest.mark.parametrize(
    ("bound", "strict", "lenient"),
    [("at_most = 100", 0, 0), ("at_most = 0.001", 1, 1), ("at_most = 6.5", 1, 0)],
    ids=["holds", "fails", "cannot tell"],
)
def test_expectations_make_the_exit_code(run: Run, bound: str, strict: int, lenient: int) -> None:
    Path("study.toml").write_text(STUDY.format(bound))
    code, out, _ = run("assay", "study.toml", "--out", "kept")
    assert code == strict, out
    assert "expectation: squared_error of away" in out
    assert run("assay", "study.toml", "--out", "kept", "--lenient")[0] == lenient


def test_a_failed_trial_is_named_and_makes_exit_code_1(run: Run) -> None:
    arguments = ["assay", "toy/quick", "--learner", "toy-quick", "--learner", "toy-quick:fails=true", "--seeds", "1", "--out", "kept"]
    code, out, _ = run(*arguments)
    assert code == 1
    assert "2 trials of toy-quick:fails=true failed: RuntimeError: asked to fail." in out
    assert run(*arguments, "--lenient")[0] == 0
    assert run("assay", "toy/quick", "--learner", "toy-quick:fails=true", "--seeds", "1", "--out", "none", "--lenient")[0] == 1


def test_ctrl_c_keeps_what_is_finished_and_ends_with_130(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "elsewhere", "assay", "toy/quick", "--learner", "toy-quick:sleep=0.4", "--seeds", "200", "--out", "kept"]
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background commands are born deaf to it
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listening)
    deadline = time.time() + 60
    while time.time() < deadline and len(list((tmp_path / "kept" / "trials").glob("*.parquet")) if (tmp_path / "kept" / "trials").exists() else []) < 2:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "what is finished is kept in kept" in err
    assert "Traceback" not in err
    assert len(list((tmp_path / "kept" / "trials").glob("*.parquet"))) >= 2


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_list_says_what_there_is(run: Run, kind: str) -> None:
    code, out, _ = run("list", kind)
    assert code == 0
    assert all(name in out for name in catalogue.entries(kind))
    told = json.loads(run("list", kind, "--json")[1])
    assert {t["name"] for t in told} == set(catalogue.entries(kind))


@pytest.mark.parametrize("kind", catalogue.KINDS)
def test_everything_in_the_catalogue_is_there(kind: str) -> None:
    for name in catalogue.entries(kind):
        if kind == "studies":
            from elsewhere.assay.api import study_path

            assert study_path(name).exists()
        else:
            assert catalogue.get(kind, name) is not None


def test_explain_without_a_name_says_what_applies_and_runs_the_free_ones(run: Run) -> None:
    run("assay", "penguins", "--learner", "logistic-regression", "--seeds", "2", "--out", "kept")
    code, out, _ = run("explain", "kept")
    assert code == 0
    assert "shift-decomposition (free)" in out
    assert "the reason cannot be told" in out
    code, out, _ = run("explain", "kept", "--with", "shift-decomposition", "--features", "body_mass_g,bill_depth_mm", "--exclude", "bill_depth_mm")
    assert code == 0, out
    assert "body_mass_g" in out


def test_report_writes_the_page_and_the_tables(run: Run) -> None:
    run("assay", "penguins", "--learner", "prior", "--seeds", "1", "--out", "kept", "--no-report")
    assert not Path("kept/report.html").exists()
    code, _, _ = run("report", "kept", "--out", "page.html", "--csv", "tables")
    assert code == 0
    assert Path("page.html").exists()
    assert {p.name for p in Path("tables").iterdir()} == {"cells.csv", "gaps.csv", "ranking.csv", "pairs.csv", "trials.csv"}


@pytest.mark.parametrize("command", [[], ["assay"], ["explain"], ["report"], ["list"]])
def test_help_has_examples(run: Run, command: list[str]) -> None:
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert "Usage" in out
    assert not command or "Example" in out


def test_help_imports_neither_torch_nor_pandas() -> None:
    heavy = "{'torch', 'pandas', 'numpy', 'sklearn', 'plotly'}"
    code = f"import sys; from elsewhere.cli import main; main(['--help']); main(['list', 'learners']); sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, env={**os.environ}).returncode == 0


def test_the_command_stands_in_the_report(run: Run) -> None:
    run("assay", "toy/quick", "--learner", "toy-quick", "--seeds", "1", "--out", "kept")
    assert "elsewhere" in json.loads(Path("kept/study.json").read_text())["command"]


def test_a_study_may_be_run_again_beside_its_own_result(run: Run) -> None:
    assert run("assay", "penguins", "--learner", "prior", "--seeds", "1", "--out", "penguins")[0] == 0
    code, _, err = run("assay", "penguins", "--learner", "prior", "--seeds", "1", "--out", "penguins")
    assert (code, err) == (0, "")
