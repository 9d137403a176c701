"""What several tests share."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side: more threads than cores only wait for each other

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from elsewhere.cli import main

settings.register_profile("fixed", derandomize=True, deadline=None)  # seeds are fixed: what passes here passes everywhere
settings.load_profile("fixed")


@pytest.fixture
def data() -> Path:
    """The folder of the published data sets, beside the project; tests that need it skip where it is absent."""
    folder = os.environ.get("ELSEWHERE_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("the published data sets are not here: set ELSEWHERE_DATA")
    return Path(folder)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A small table of people in three states, one of them different."""
    rng = np.random.default_rng(0)
    n = 300
    state = rng.choice(["CA", "NY", "TX"], n)
    age = rng.normal(40, 10, n).round()
    job = rng.choice(["clerk", "nurse", "smith"], n)
    income = (age + 10 * (job == "nurse") + rng.normal(0, 8, n) > np.where(state == "TX", 55, 42)).astype(int)
    frame = pd.DataFrame({"age": age, "job": job, "hours": rng.integers(10, 60, n), "state": state, "income": income})
    path = tmp_path / "people.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Run the command in process, in a folder of its own; return exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ELSEWHERE_DATA", os.environ.get("ELSEWHERE_DATA", ""))  # --data sets it: put it back afterwards

    def command(*arguments: object) -> tuple[int, str, str]:
        code = main([str(a) for a in arguments])
        told = capsys.readouterr()
        return code, told.out, told.err

    return command


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of chromium, with its driver."""
    found = shutil.which("chromium")
    if not found or not shutil.which("chromedriver"):
        pytest.skip("chromium and chromedriver are not installed")
    return found
