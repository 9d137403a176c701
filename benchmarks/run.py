"""``make bench``: ratios and times in one run, peak memory beside. ``make bench ROOM=store`` runs one part."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import causal
import graphs
import networks
import numpy as np
import pandas as pd
import pictures
import pyarrow as pa
import values

ROWS: list[tuple[str, str, str, str]] = []


def told(what: str, measured: str, wanted: str, holds: bool) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ROWS.append((what, measured, wanted, "holds" if holds else "DOES NOT HOLD"))
    print(f"{what:<70} {measured:>16}   {wanted:<14} {ROWS[-1][3]:<14} peak {peak:,.0f} MiB", flush=True)


def timed(function: Callable[[], object], repeats: int = 1) -> float:
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def startup() -> None:
    """The command answers at once."""
    for arguments in (["--help"], ["list", "learners"]):
        seconds = timed(lambda a=arguments: subprocess.run([sys.executable, "-m", "elsewhere", *a], capture_output=True, check=True), 5)
        told(f"elsewhere {' '.join(arguments)}", f"{seconds:.3f} s", "< 0.4 s", seconds < 0.4)


def engine() -> None:
    """What the engine adds to a trial that takes no time."""
    from toy_rooms.quick import Quick, quick

    import elsewhere as ew

    folder = Path(tempfile.mkdtemp())
    learners = [ew.named(f"l{k}", Quick(level=float(k))) for k in range(10)]
    ew.assay(quick, learners=learners[:1], seeds=1, out=folder / "warm")
    seconds = timed(lambda: ew.assay(quick.bind(slope=1.0), learners=learners, seeds=100, out=folder / "r"))
    told("engine overhead over 1,000 trivial trials", f"{seconds:.2f} ms a trial", "≤ 10 ms", seconds <= 10)
    shutil.rmtree(folder)


def synthetic_store(folder: Path, trials: int = 31_000, domains: int = 20, metrics: int = 8) -> None:
    """Write the store of a study of 31,000 trials: 5 million rows, compacted."""
    from elsewhere.assay.store import Store, _bytes

    rng = np.random.default_rng(0)
    tasks, seeds = 36, 1
    names = ["accuracy", "nll", "ece", "brier", "auroc", "balanced_accuracy", "overconfidence", "majority_share"][:metrics]
    keys = np.array([f"{k:016x}" for k in range(trials)])
    task, learner = np.arange(trials) % tasks, np.arange(trials) // tasks
    store = Store(folder)
    about = json.dumps({"notes": [], "findings": [], "headline": "accuracy"})
    records = {
        "trial": keys, "task": [f"task {t}" for t in task], "task_name": ["synthetic"] * trials, "learner": [f"learner {k}" for k in learner], "name": [f"kind {k % 9}" for k in learner],
        "seed": np.zeros(trials, int), "options": [json.dumps({"rate": float(k % 2), "kind": str(k % 5)}) for k in learner], "sees_unlabelled": [False] * trials, "about_task": [about] * trials,
        "memory": [1.0] * trials, "threads": [1] * trials, "versions": ["{}"] * trials, "status": ["done"] * trials, "reason": [""] * trials, "seconds": [1.0] * trials, "sizes": ["{}"] * trials,
    }  # fmt: skip
    per = domains * metrics
    skill = rng.normal(0.7, 0.1, trials)
    chunk = 1000
    for number, first in enumerate(range(0, trials, chunk), 1):
        mine = np.arange(first, min(first + chunk, trials))
        n = len(mine)
        value = np.clip(skill[mine][:, None, None] - 0.01 * np.arange(domains)[None, :, None] + rng.normal(0, 0.03, (n, domains, metrics)), 0.01, 0.99)
        table = pa.table(
            {
                "trial": pa.DictionaryArray.from_arrays(np.repeat(np.arange(n, dtype=np.int32), per), pa.array(keys[mine])),
                "domain": pa.DictionaryArray.from_arrays(np.tile(np.repeat(np.arange(domains, dtype=np.int32), metrics), n), pa.array([f"domain {d}" for d in range(domains)])),
                "role": pa.DictionaryArray.from_arrays(np.tile(np.repeat((np.arange(domains) > 0).astype(np.int32), metrics), n), pa.array(["home", "elsewhere"])),
                "about": pa.DictionaryArray.from_arrays(np.zeros(n * per, np.int32), pa.array(["{}"])),
                "metric": pa.DictionaryArray.from_arrays(np.tile(np.arange(metrics, dtype=np.int32), n * domains), pa.array(names)),
                "higher_is_better": np.tile(np.array([m not in ("nll", "ece", "brier", "overconfidence") for m in names]), n * domains),
                "value": value.ravel(), "error": np.full(n * per, 0.01), "n": np.full(n * per, 1000), "reason": pa.DictionaryArray.from_arrays(np.zeros(n * per, np.int32), pa.array([""])),
            }
        )  # fmt: skip
        store.put(store._segment("scores", f"{number:06d}"), _bytes(table))
        part = pa.table({k: pa.array(np.asarray(v, dtype=object)[mine].tolist()) for k, v in records.items()})
        store.put(store._segment("trials", f"{number:06d}"), _bytes(part.replace_schema_metadata({"sizes": "{}"})))
    study = {"claim": "", "reference": "", "seeds": list(range(seeds)), "threads": 1, "notes": [], "tasks": [], "learners": [], "expect": [], "planned": keys.tolist(), "command": "synthetic"}
    (folder / "study.json").write_text(json.dumps(study))


def store() -> None:
    """31,000 trials × 20 domains × 8 metrics."""
    from elsewhere.assay.result import Result

    folder = Path(tempfile.mkdtemp())
    synthetic_store(folder)
    result = Result(folder)
    seconds = timed(lambda: result.table())
    told(f"tabulate {len(result.scores()):,} rows", f"{seconds:.2f} s", "< 5 s", seconds < 5)
    fresh = Result(folder)
    seconds = timed(lambda: fresh.report())
    size = (folder / "report.html").stat().st_size / 1e6
    told("report of 31,000 trials", f"{seconds:.1f} s", "< 30 s", seconds < 30)
    told("its size", f"{size:.1f} MB", "< 8 MB", size < 8)
    if shutil.which("chromium") and shutil.which("chromedriver"):
        seconds = opening(folder / "report.html")
        told("its opening in Chromium, until the page is loaded", f"{seconds:.2f} s", "< 2 s", seconds < 2)
    shutil.rmtree(folder)


def opening(path: Path) -> float:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.get("about:blank")
    seconds = timed(lambda: driver.get(path.as_uri()))
    driver.quit()
    return seconds


def decomposition() -> None:
    """1,000 resamples with the classifier fixed, against the loop; and a million rows with boosting."""
    from scipy.special import expit

    from elsewhere.explain.decomposition import decompose, terms_with

    rng = np.random.default_rng(0)
    n = 3000
    ratio, there = rng.normal(size=(1, n)), (np.arange(n) >= 2000).astype(int)
    loss = rng.exponential(size=n)
    counts = rng.multinomial(2000, np.full(2000, 1 / 2000), 1000)
    counts = np.c_[counts, rng.multinomial(1000, np.full(1000, 1 / 1000), 1000)].astype(float)
    for models in (1, 3):  # a report explains several learners on the same cases
        many = np.stack([loss * (k + 1) for k in range(models)], axis=1)
        losses, ones = [many[:2000], many[2000:]], [np.ones(2000), np.ones(1000)]

        def loop(many: np.ndarray = many) -> np.ndarray:
            out = []
            for c in counts:
                rows = np.repeat(np.arange(n), c.astype(int))
                p, q = rows[there[rows] == 0], rows[there[rows] == 1]
                w, v = expit(ratio[0][p]), expit(-ratio[0][q])
                out.append([many[p].mean(0), w @ many[p] / w.sum(), v @ many[q] / v.sum(), many[q].mean(0)])
            return np.array(out)

        slow, fast, ratios = np.empty(0), np.empty(0), []
        for _ in range(5):  # interleaved
            start = time.perf_counter()
            slow = loop()
            middle = time.perf_counter()
            fast = terms_with(ratio, there, losses, ones, counts)
            ratios.append((middle - start) / (time.perf_counter() - middle))
        assert np.allclose(slow, fast)
        told(f"1,000 resamples, classifier fixed, {models} model{'s' * (models > 1)}, against the loop", f"{np.median(ratios):.0f} ×", "≥ 50 ×", bool(np.median(ratios) >= 50))
    size = 500_000 if "--quick" not in sys.argv else 5_000
    home, away = (pd.DataFrame(rng.normal(m, 1, (size, 50))).add_prefix("x") for m in (0.0, 0.05))
    seconds = timed(lambda: decompose(home, rng.exponential(size=size), away, rng.exponential(size=size), classifier="boosting", resamples=50))
    told("decomposition of 1,000,000 × 50 with boosting", f"{seconds:.0f} s", "< 120 s", seconds < 120)


PARTS: dict[str, Callable[[], None]] = {"startup": startup, "engine": engine, "store": store, "explain": decomposition}
PARTS |= {name: partial(part, told) for name, part in (("heads", networks.heads), ("sweep", networks.sweep), ("cnn", networks.cnn), ("loop", networks.loop))}
PARTS |= {name: partial(getattr(pictures, name), told) for name in ("worlds", "corruptions", "groups", "probes", "trial", "seeds", "folders")}
PARTS |= {name: partial(getattr(graphs, name), told) for name in ("aggregation", "teacher", "sampling", "search", "tree", "texts", "million", "relations")}
PARTS |= {name: partial(getattr(values, name), told) for name in ("removal", "pydvl", "streaming", "values", "merging", "heads_cost", "group_tables", "parity_time")}
PARTS |= {name: partial(getattr(causal, name), told) for name in ("linear_method", "subsets_of_views", "many_interventions", "streamed")}


def main(room: str = "") -> None:
    if room and room not in PARTS:
        sys.exit(f"no benchmark {room!r}; there are: {', '.join(PARTS)}")
    for name, part in PARTS.items():
        if not room or room == name:
            part()


if __name__ == "__main__":
    main(*sys.argv[1:2])
