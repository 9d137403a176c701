"""Killed, shared, damaged, full, unwritable: what is finished stays, and the scores are the same bits."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from toy_rooms.quick import Quick, quick

import elsewhere as ew
from elsewhere.assay import store as store_module
from elsewhere.assay.store import KINDS, Store

SCRIPT = """
import sys
from toy_rooms.quick import Quick, quick
import elsewhere as ew
assay = ew.assay  # imports what it needs
print("up", flush=True)
assay(quick, learners=[ew.named(f"l{{k}}", Quick(level=k / 10, sleep={sleep})) for k in range(6)], seeds=5, out=sys.argv[1], workers={workers})
"""


def learners(sleep: float = 0.0) -> list[Any]:
    return [ew.named(f"l{k}", Quick(level=k / 10, sleep=sleep)) for k in range(6)]


def start(folder: Path, sleep: float = 0.0, workers: int = 1) -> subprocess.Popen[bytes]:
    code = SCRIPT.format(sleep=sleep, workers=workers)
    return subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def scores_of(folder: Path) -> pd.DataFrame:
    keys = ["trial", "domain", "metric"]
    frame = ew.Result(folder).scores()[[*keys, "learner", "seed", "value", "error", "n"]]
    return frame.astype(dict.fromkeys((*keys, "learner"), str)).sort_values(keys).reset_index(drop=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The scores of the study of 60 trials that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "r"
    result = ew.assay(quick, learners=learners(), seeds=5, out=folder)
    assert len(result.trials()) == 60
    return scores_of(folder)


def assert_same_scores(folder: Path, whole: pd.DataFrame) -> None:
    """The same bits; trials that differ in how long they sleep have other keys."""
    keys = ["domain", "metric", "learner", "seed", "value", "error", "n"]
    mine, theirs = (f[keys].sort_values(keys).reset_index(drop=True) for f in (scores_of(folder), whole))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


@pytest.mark.slow
def test_twenty_kills_and_resumes_end_with_the_same_bits(whole: pd.DataFrame, tmp_path: Path) -> None:
    """SIGKILL at 20 random instants of a study of 60 trials; what was done is never done again."""
    drawn = random.Random(0)
    folder = tmp_path / "r"
    done = 0
    for _ in range(20):
        process = start(folder, sleep=0.04)
        assert process.stdout is not None
        process.stdout.readline()  # it is up: however busy the machine is, the instants below lie in the study
        time.sleep(drawn.uniform(0.0, 1.0))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (folder / "study.json").exists():
            now = len(ew.Result(folder).trials())
            assert now >= done
            done = now
    assert done > 5
    assert start(folder, sleep=0.04).wait() == 0
    assert_same_scores(folder, whole)


@pytest.mark.slow
def test_two_commands_on_one_folder_run_each_trial_once(whole: pd.DataFrame, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    both = [start(folder, sleep=0.02), start(folder, sleep=0.02)]
    assert [p.wait() for p in both] == [0, 0]
    records = Store(folder).records()
    assert records.num_rows == len(set(records["trial"].to_pylist())) == 60
    assert_same_scores(folder, whole)


@pytest.mark.slow
def test_a_claim_whose_owner_was_killed_is_taken_over(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    slow = start(folder, sleep=30)
    deadline = time.time() + 60
    while not (folder / "claims").exists() and time.time() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(slow.pid, signal.SIGKILL)
    slow.wait()
    code = SCRIPT.format(sleep=30, workers=1).replace("sleep=30", "sleep=0")
    assert subprocess.run([sys.executable, "-c", code, str(folder)], timeout=120).returncode == 0
    assert len(ew.Result(folder).trials()) == 60


def test_a_held_claim_is_waited_for_not_run_twice(tmp_path: Path) -> None:
    """Another process holds the first trial for a while: this one runs the rest and comes back to it."""
    result = ew.assay(quick, learners=learners()[:1], seeds=1, out=tmp_path / "plan")
    offset = int(result.about["planned"][0][:12], 16)
    folder = tmp_path / "r"
    folder.mkdir()
    code = f"import fcntl, time; f = open({str(folder / 'claims')!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX, 1, {offset}); print('held', flush=True); time.sleep(1.5)"
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    (folder / "study.json").write_text((tmp_path / "plan" / "study.json").read_text())
    seen: list[int] = []
    ew.assay(quick, learners=learners()[:1], seeds=1, out=folder, progress=lambda p: seen.append(p.done))
    assert holder.wait() == 0
    assert len(ew.Result(folder).trials()) == 2


def test_one_worker_and_two_give_the_same_bits(whole: pd.DataFrame, tmp_path: Path) -> None:
    ew.assay(quick, learners=learners(), seeds=5, out=tmp_path / "r", workers=2)
    pd.testing.assert_frame_equal(scores_of(tmp_path / "r"), whole, check_exact=True)


def test_one_worker_and_two_give_the_same_bits_for_scikit_learn(tmp_path: Path) -> None:
    names = ["logistic-regression", "boosting", "random-forest:trees=10"]
    one, two = (ew.assay("penguins", learners=names, seeds=2, out=tmp_path / str(k), workers=k) for k in (1, 2))
    pd.testing.assert_frame_equal(scores_of(one.folder), scores_of(two.folder), check_exact=True)


def test_any_executor_will_do(whole: pd.DataFrame, tmp_path: Path) -> None:
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        ew.assay("toy/quick", learners=["toy-quick"], seeds=1, out=tmp_path / "r", executor=pool)
    assert (ew.Result(tmp_path / "r").trials().status == "done").all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_file_costs_its_own_trial_only(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    before = len(ew.assay(quick, learners=learners(), seeds=1, out=folder).trials())
    expected = scores_of(folder)
    path = sorted((folder / kind).glob("*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-20])
    damaged = ew.Result(folder)
    assert len(damaged.trials()) == before - 1
    assert len(damaged.store.damaged) == 1
    assert "damaged" in damaged.store.damaged[0]
    assert damaged.report().exists()
    again = ew.assay(quick, learners=learners(), seeds=1, out=folder)
    assert len(again.trials()) == before
    pd.testing.assert_frame_equal(scores_of(folder), expected, check_exact=True)


@pytest.mark.parametrize("kind", ["scores", "trials"])
def test_a_damaged_segment_is_told_and_run_again(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    ew.assay(quick, learners=learners(), seeds=1, out=folder)
    expected = scores_of(folder)
    Store(folder).compact()
    assert not list((folder / "trials").glob("*.parquet"))
    pd.testing.assert_frame_equal(scores_of(folder), expected, check_exact=True)
    segment = next((folder / "segments" / kind).glob("*.parquet"))
    segment.write_bytes(segment.read_bytes()[:100])
    damaged = ew.Result(folder)
    assert len(damaged.trials()) == 0
    assert "damaged" in damaged.store.damaged[0]
    ew.assay(quick, learners=learners(), seeds=1, out=folder)
    pd.testing.assert_frame_equal(scores_of(folder), expected, check_exact=True)


def test_compaction_killed_half_way_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "r"
    ew.assay(quick, learners=learners(), seeds=1, out=folder)
    expected = scores_of(folder)
    store = Store(folder)
    real = Store.put

    def dies_at_the_commit(self: Store, path: Path, content: bytes) -> None:
        if path.parent.name == "trials":
            raise KeyboardInterrupt
        real(self, path, content)

    monkeypatch.setattr(Store, "put", dies_at_the_commit)
    with pytest.raises(KeyboardInterrupt):
        store.compact()
    monkeypatch.setattr(Store, "put", real)
    pd.testing.assert_frame_equal(scores_of(folder), expected, check_exact=True)
    Store(folder).compact()
    pd.testing.assert_frame_equal(scores_of(folder), expected, check_exact=True)


def test_a_full_disk_is_one_clear_line_and_keeps_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "r"
    real = store_module.write_whole
    written = []

    def full(path: Path, content: bytes) -> None:
        if len(written) >= 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        real(path, content)

    monkeypatch.setattr(store_module, "write_whole", full)
    with pytest.raises(ew.UserError, match="No space left on device; what is finished is kept"):
        ew.assay(quick, learners=learners(), seeds=1, out=folder)
    monkeypatch.setattr(store_module, "write_whole", real)
    kept = len(ew.Result(folder).trials())
    assert kept >= 2
    assert len(ew.assay(quick, learners=learners(), seeds=1, out=folder).trials()) == 12


def test_a_small_disk_that_fills_up(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with pytest.raises(ew.UserError, match="No space left on device"):
            ew.assay(quick, learners=learners(), seeds=5, out=place / "r")
        assert not list((place / "r").rglob("*.part"))
        assert ew.Result(place / "r").store.damaged == []
    finally:
        subprocess.run(["umount", str(place)], check=False)


def test_a_file_where_the_folder_should_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ew.UserError, match="choose another --out"):
        ew.assay(quick, learners=learners()[:1], seeds=1, out=tmp_path / "taken")
    with pytest.raises(ew.UserError, match="cannot write"):
        ew.assay(quick, learners=learners()[:1], seeds=1, out=tmp_path / "taken" / "r")


def test_a_failed_trial_is_a_row_with_its_reason_until_retry(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    result = ew.assay(quick, learners=["toy-quick", "toy-quick:fails=true"], seeds=2, out=folder)
    failed = result.trials().query("status == 'failed'")
    assert len(failed) == 4
    assert set(failed.reason) == {"RuntimeError: asked to fail"}
    assert "4 trials of toy-quick:fails=true failed: RuntimeError: asked to fail." in result.summary()
    seen: list[int] = []
    ew.assay(quick, learners=["toy-quick", "toy-quick:fails=true"], seeds=2, out=folder, progress=lambda p: seen.append(1))
    assert not seen
    ew.assay(quick, learners=["toy-quick", "toy-quick:fails=true"], seeds=2, out=folder, retry=True, progress=lambda p: seen.append(1))
    assert len(seen) == 4


@pytest.mark.slow
def test_a_trial_that_kills_its_process_fails_alone(tmp_path: Path) -> None:
    result = ew.assay(quick, learners=["toy-quick", "toy-quick:dies=true"], seeds=2, out=tmp_path / "r", workers=2)
    table = result.trials().set_index("learner")
    assert (table.status["toy-quick"] == "done").all()
    assert (table.status["toy-quick:dies=true"] == "failed").all()
    assert "the process that ran it died" in table.reason["toy-quick:dies=true"].iloc[0]


def test_more_seeds_run_only_what_is_missing(tmp_path: Path) -> None:
    seen: list[int] = []
    ew.assay(quick, learners=["toy-quick"], seeds=2, out=tmp_path / "r", progress=lambda p: seen.append(1))
    ew.assay(quick, learners=["toy-quick"], seeds=3, out=tmp_path / "r", progress=lambda p: seen.append(1))
    assert len(seen) == 6


def test_another_study_does_not_enter_a_folder(tmp_path: Path) -> None:
    ew.assay(quick, learners=["toy-quick"], seeds=1, out=tmp_path / "r")
    with pytest.raises(ew.UserError, match="holds another study"):
        ew.assay("penguins", learners=["prior"], seeds=1, out=tmp_path / "r")


def test_progress_tells_what_is_done_and_what_is_left(tmp_path: Path) -> None:
    told: list[str] = []
    ew.assay(quick, learners=["toy-quick"], seeds=2, out=tmp_path / "r", progress=lambda p: told.append(str(p)))
    assert told[-1].startswith("4 of 4 trials")
    assert "left" in told[0]
