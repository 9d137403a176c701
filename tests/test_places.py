"""Results on any file system: the same scores, one put is the commit, and a Ray cluster of one node."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest

import elsewhere as ew
from elsewhere.assay.store import Store
from elsewhere.places import is_local, listing, place

KEYS = ["learner", "seed", "domain", "metric"]


def scores(result: ew.Result) -> pd.DataFrame:
    return result.scores().sort_values(KEYS)[[*KEYS, "value", "error", "n"]].astype(dict.fromkeys(KEYS, str)).reset_index(drop=True)


@pytest.fixture
def memory() -> Any:
    fsspec.filesystem("memory").store.clear()
    return "memory://results/mine"


def test_a_store_in_memory_holds_what_a_folder_holds(memory: str, tmp_path: Path) -> None:
    here = ew.assay("penguins", seeds=2, out=tmp_path / "r")
    there = ew.assay("penguins", seeds=2, out=memory)
    assert scores(here).equals(scores(there))
    assert here.table().equals(there.table())
    assert len(here.examples()) == len(there.examples())
    filed = ew.assay("penguins", seeds=2, out=f"file://{tmp_path}/filed")
    assert scores(filed).equals(scores(here))
    assert (tmp_path / "filed" / "study.json").exists()


def test_a_remote_study_grows_is_explained_and_reported_in_place(memory: str) -> None:
    ew.assay("penguins", seeds=1, out=memory)
    result = ew.assay("penguins", seeds=2, out=memory)
    assert len(result.trials()) == 6
    result.explain("shift-decomposition")
    result.report()
    again = ew.Result(memory)
    assert set(again.findings()) == {"shift-decomposition"}
    assert b"Will it hold elsewhere?" in fsspec.filesystem("memory").cat("/results/mine/report.html")


def test_without_its_record_a_trial_has_not_run(memory: str) -> None:
    result = ew.assay("penguins", seeds=2, out=memory)
    before = scores(result)
    files = fsspec.filesystem("memory")
    first, second, third = sorted(files.ls("/results/mine/trials", detail=False))[:3]
    files.rm(first)  # cut off before the commit
    files.pipe(second, b"damaged")
    files.pipe(third.replace("/trials/", "/scores/"), b"cut")
    again = ew.Result(memory)
    assert again.missing == 3
    assert any("damaged" in line for line in again.store.damaged)
    assert scores(ew.assay("penguins", seeds=2, out=memory)).equals(before)


def test_the_record_is_the_last_thing_that_is_put(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    original = Store.put
    monkeypatch.setattr(Store, "put", lambda self, path, content: (written.append(path.parent.name), original(self, path, content))[1])
    ew.assay("penguins", learners=["prior"], seeds=1, out=memory)
    assert written[-1] == "trials"
    assert written.count("trials") == 1


def test_a_failed_trial_is_retried_on_a_remote_store(memory: str) -> None:
    learners = ["mlp:steps=5,learning_rate=1e30", "prior"]
    result = ew.assay("penguins", learners=learners, seeds=1, out=memory)
    assert sorted(result.trials().status) == ["done", "failed"]
    again = ew.assay("penguins", learners=learners, seeds=1, out=memory, retry=True)
    assert sorted(again.trials().status) == ["done", "failed"]


def test_a_store_that_cannot_be_used_is_told_before_anything_runs(memory: str, run: Any) -> None:
    with pytest.raises(ew.UserError, match="lives in this process alone"):
        ew.assay("penguins", out=memory, workers=2)
    with pytest.raises(ew.UserError, match="cannot use nope://x"):
        ew.assay("penguins", out="nope://x")
    code, _, error = run("assay", "penguins", "--out", "nope://bucket/mine")
    assert code == 2
    assert error.count("\n") == 1
    with pytest.raises(ew.UserError, match="holds no study"):
        ew.Result("memory://results/none")


def test_several_machines_share_one_store(tmp_path: Path) -> None:
    """Two commands on one folder without locks (as on an object store) end with each trial once."""
    pytest.importorskip("fsspec")
    alone = ew.assay("penguins", seeds=3, out=tmp_path / "alone")
    out = "memory://results/shared"
    fsspec.filesystem("memory").store.clear()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: ew.assay("penguins", seeds=3, out=out), range(2)))
    shared = ew.Result(out)
    assert len(shared.trials()) == 9
    assert not shared.trials().trial.duplicated().any()
    assert scores(shared).equals(scores(alone))


def test_places_are_paths_or_urls(tmp_path: Path) -> None:
    assert place(tmp_path) == tmp_path
    assert place(f"file://{tmp_path}") == tmp_path
    assert is_local(place("a/b"))
    assert not is_local(place("memory://a/b"))
    (tmp_path / "f").write_bytes(b"123")
    assert listing(tmp_path) == {"f": 3}
    assert listing(tmp_path / "none") == listing(place("memory://none/at/all")) == {}


@pytest.fixture(scope="module")
def ray_starts() -> None:
    """Ray on this machine; where it does not come up within 90 seconds (no shared memory, no sockets) its tests skip."""
    pytest.importorskip("ray")
    code = "import ray; ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False); ray.shutdown()"
    try:
        subprocess.run([sys.executable, "-c", code], timeout=90, check=True, capture_output=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError) as error:
        pytest.skip(f"Ray does not start on this machine: {type(error).__name__}")


@pytest.mark.slow
@pytest.mark.usefixtures("ray_starts")
def test_a_ray_cluster_of_one_node_gives_the_same_scores(tmp_path: Path, run: Any) -> None:
    here = ew.assay("penguins", seeds=2, out=tmp_path / "here")
    command = [sys.executable, "-m", "elsewhere", "assay", "penguins", "--seeds", "2", "--engine", "ray", "--out", str(tmp_path / "there")]
    done = subprocess.run(command, timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Pick" in done.stdout or "No learner" in done.stdout
    assert scores(ew.Result(tmp_path / "there")).equals(scores(here))


def test_a_cluster_that_is_not_there_is_told_at_once(run: Any) -> None:
    pytest.importorskip("ray")
    code, _, error = run("assay", "penguins", "--engine", "ray", "--address", "127.0.0.1:1", "--out", "none")
    assert code == 2
    assert "no Ray cluster answers" in error
    assert run("assay", "penguins", "--engine", "rays")[0] == 2
    assert "--address is for --engine ray" in run("assay", "penguins", "--address", "auto")[2]
