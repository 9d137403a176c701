"""Speed of the dataset derivative and of two heads: against refits, pyDVL, the reference's grid, MetricFrame, ExponentiatedGradient. Called by ``benchmarks/run.py``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

Told = Callable[[str, str, str, bool], None]
HERE = Path(__file__).parent


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def problem(n: int, d: int, m: int, classes: int = 10) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    labels, judged = rng.integers(classes, size=n), rng.integers(classes, size=m)
    x, v = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    x[:, :classes] += 2 * np.eye(classes)[labels]
    v[:, :classes] += 2 * np.eye(classes)[judged]
    w = rng.normal(size=d) / 10
    return {"x": x, "y": x @ w + rng.normal(size=n), "v": v, "u": v @ w, "labels": labels, "judged": judged}


def removal(told: Told) -> None:
    """Exact removal values and the leave-one-out gradient against n refits of scikit-learn's Ridge, 2,000 × 512."""
    from sklearn.linear_model import Ridge

    from elsewhere.explain import DatasetDerivative

    p = problem(2000, 512, 200)
    every = np.arange(2000)

    def refits(count: int) -> np.ndarray:
        whole = np.square(Ridge(alpha=1.0).fit(p["x"], p["y"]).predict(p["v"]) - p["u"]).sum()
        return np.array([np.square(Ridge(alpha=1.0).fit(p["x"][every != i], p["y"][every != i]).predict(p["v"]) - p["u"]).sum() - whole for i in range(count)])

    def ours() -> np.ndarray:
        return DatasetDerivative(ridge=1.0).fit(p["x"], p["y"]).removal_effect((p["v"], p["u"]))

    assert np.allclose(ours()[:20], refits(20), atol=1e-8)
    count = 100  # of the 2,000 refits: the others take as long
    both = [(seconds(ours), seconds(lambda: refits(count)) * 2000 / count) for _ in range(3)]
    r = float(np.median([b / a for a, b in both]))
    told(f"removal values, 2,000 × 512: {np.median([a for a, _ in both]):.2f} s, 2,000 refits (from {count}) {np.median([b for _, b in both]):.0f} s", f"{r:.0f} ×", "≥ 100 ×", r >= 100)
    gradient = float(np.median([b / seconds(lambda: DatasetDerivative(ridge=1.0).fit(p["x"], p["labels"]).gradient()) for _, b in both]))
    told("leave-one-out gradient, 10 classes, against as many refits", f"{gradient:.0f} ×", "≥ 100 ×", gradient >= 100)


def pydvl(told: Told) -> None:
    """Against pyDVL's LOOValuation and KNNShapleyValuation, in an environment of its own, one after the other in turns."""
    from elsewhere.explain import DatasetDerivative
    from elsewhere.explain.data_values import knn_shapley

    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "elsewhere" / "pydvl"
    if not (home / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True)
        subprocess.run([home / "bin" / "python", "-m", "pip", "install", "-q", "-r", HERE / "pydvl-requirements.txt"], check=True)
    p = problem(1000, 512, 200)
    ratios: dict[str, list[float]] = {"loo": [], "knn": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for key, array in p.items():
            np.save(folder / f"{key}.npy", array)
        for _ in range(3):
            start = time.perf_counter()
            loo = DatasetDerivative(ridge=1.0).fit(p["x"], p["y"]).removal_effect((p["v"], p["u"]))
            middle = time.perf_counter()
            knn = knn_shapley(p["x"], p["labels"], (p["v"], p["judged"]))
            end = time.perf_counter()
            subprocess.run([home / "bin" / "python", HERE / "pydvl_values.py", folder, "1"], check=True, capture_output=True)
            theirs = json.loads((folder / "seconds.json").read_text())
            assert np.allclose(loo, np.load(folder / "pydvl-loo.npy"), atol=1e-9)
            assert np.allclose(knn, np.load(folder / "pydvl-knn.npy"), atol=1e-12)
            ratios["loo"].append(theirs["loo"][0] / (middle - start))
            ratios["knn"].append(theirs["knn"][0] / (end - middle))
    r = {k: float(np.median(v)) for k, v in ratios.items()}
    told("removal values against pyDVL's LOOValuation, 1,000 × 512, 200 judge; equal to 1e-9", f"{r['loo']:.0f} ×", "≥ 50 ×", r["loo"] >= 50)
    told("k-NN Shapley against pyDVL's; equal to 1e-12", f"{r['knn']:.1f} ×", "≥ 3 ×", r["knn"] >= 3)


def streaming(told: Told) -> None:
    """100,000 × 512 from a memory map against the same in memory; then a million rows."""
    from elsewhere.explain import DatasetDerivative

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "z.npy"
        n = 1_000_000 if "--quick" not in sys.argv else 100_000
        z = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n, 512))
        rng = np.random.default_rng(0)
        labels = rng.integers(10, size=n)
        for start in range(0, n, 50_000):
            part = rng.standard_normal((50_000, 512), dtype=np.float32)
            part[:, :10] += np.eye(10, dtype=np.float32)[labels[start : start + 50_000]]
            z[start : start + 50_000] = part
        z.flush()
        del z
        mapped = np.load(path, mmap_mode="r")
        here, y = np.array(mapped[:100_000]), labels[:100_000]
        memory, stream = (lambda: DatasetDerivative(ridge=1.0).fit(here, y).gradient()), (lambda: DatasetDerivative(ridge=1.0).fit(mapped[:100_000], y).gradient())
        assert np.allclose(memory(), stream())
        both = [(seconds(stream), seconds(memory)) for _ in range(3)]
        r = float(np.median([a / b for a, b in both]))
        told(f"100,000 × 512 from a memory map, {np.median([a for a, _ in both]):.1f} s, against memory", f"{r:.2f} ×", "≤ 1.3 ×", r <= 1.3)
        here = np.empty(0)
        code = (
            "import time, numpy as np\nfrom elsewhere.explain import DatasetDerivative\n"
            f"y = np.random.default_rng(0).integers(10, size={n})\nstart = time.perf_counter()\n"
            f"g = DatasetDerivative(ridge=1.0).fit({str(path)!r}, y).gradient()\n"
            "status = dict(line.split(':') for line in open('/proc/self/status'))\n"  # ru_maxrss would be the parent's, which a child inherits
            "print(time.perf_counter() - start, float(status['VmHWM'].split()[0]) / 2**20)"
        )
        out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
        took, held = float(out[0]), float(out[1])
        told(f"leave-one-out gradient, {n:,} × 512 from a memory map, peak {held:.2f} GiB", f"{took:.0f} s", "< 90 s, 2 GiB", took < 90 and held < 2)


def values(told: Told) -> None:
    """Seconds and area under the curve of every way to value examples, on digits with uniformly wrong and with systematically wrong labels."""
    from sklearn.metrics import roc_auc_score

    from elsewhere.explain.data_values import every_value
    from elsewhere.explain.digit_tasks import noisy
    from elsewhere.explain.ridge_readout import RidgeReadout
    from elsewhere.run import Run
    from elsewhere.task import Source

    rows: dict[str, list[float]] = {}
    for kind, noise in (("uniform", 0.2), ("pair", 0.4)):
        for seed in range(3):
            task = noisy(seed, kind=kind, noise=noise, clean=200)
            train, clean = task.source.train, task.source.validation
            model = RidgeReadout(ridge=10.0, random=512).fit(Source(train), Run(seed))
            x, v = model.represent(train), model.represent(clean)
            for name, make in every_value(x, train.labels, (v, clean.labels), 10.0).items():
                start = time.perf_counter()
                found = make()
                rows.setdefault(name, []).extend([roc_auc_score(train.column("wrong"), -found), time.perf_counter() - start])
    for name, told_ in rows.items():
        uniform, pair = np.mean(told_[0:6:2]), np.mean(told_[6:12:2])
        told(f"{name}: AUC uniform {uniform:.3f}, pair {pair:.3f}", f"{np.mean(told_[1::2]):.2f} s", "", True)


# --- two heads ---


def merging(told: Told) -> None:
    """The frontier of 21 slacks against the reference's grid at n = 20,000."""
    from elsewhere.fairness.frontier import default_slacks, frontier

    rng = np.random.default_rng(0)
    n = 20_000
    s, y = rng.integers(2, size=n), np.zeros(n, int)
    y[:] = rng.random(n) < np.where(s == 1, 0.35, 0.65)
    f, g = 3 * (y - 0.5) + rng.normal(size=n), 4 * (s - 0.5) + rng.normal(size=n)
    slacks = default_slacks(abs((f > 0)[s == 1].mean() - (f > 0)[s == 0].mean()))
    one = s == 1

    def grid(slack: float, points: int, levels: int) -> float:
        low, high, best = np.array([-15.0, -15.0]), np.array([15.0, 15.0]), (-1.0, 0.0, 0.0)
        for _ in range(levels):
            for b in np.linspace(low[0], high[0], points):
                h = f + b * g
                for c in np.linspace(low[1], high[1], points):
                    accepted = h + c > 0
                    if abs(accepted[one].mean() - accepted[~one].mean()) <= slack and (a := (accepted == y).mean()) > best[0]:
                        best = (a, b, c)
            step = (high - low) / (points - 1)
            low, high = np.array(best[1:]) - step, np.array(best[1:]) + step
        return best[0]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table = frontier(f, g, y, s, slacks, width=15.0)
        ours = float(np.median([seconds(lambda: frontier(f, g, y, s, slacks, width=15.0)) for _ in range(3)]))
    small = 40  # of the grid's 200 points a side, and one slack of 21: the rest takes as long
    start = time.perf_counter()
    worse = sum(grid(slack, small, 5) > a + 1e-12 for slack, a in zip(slacks[::7], table.accuracy[::7], strict=True))
    theirs = (time.perf_counter() - start) / len(slacks[::7]) * len(slacks) * (200 / small) ** 2
    told(
        f"frontier of 21 slacks, n = 20,000: {ours:.1f} s; the grid (from {small} × {small}) {theirs:,.0f} s; nowhere below it: {worse == 0}",
        f"{theirs / ours:,.0f} ×",
        "≥ 20 ×",
        theirs / ours >= 20 and worse == 0,
    )


def heads_cost(told: Told) -> None:
    """A step of two heads against the plain network's, interleaved."""
    import torch

    from elsewhere.fairness import ParityRegularised, TwoHeads
    from elsewhere.fairness.faces import faces_lite
    from elsewhere.run import Run

    torch.set_num_threads(1)
    task = faces_lite(0, train=4000, validation=200, test=200, places=[])
    run, options = Run(progress=False), {"steps": 60, "batch": 256, "learning_rate": 2e-3, "best_epoch": False, "stratified": False}
    both = []
    for _ in range(5):
        plain = seconds(lambda: ParityRegularised(penalty=0.0, **options).fit(task.source, run))
        both.append(seconds(lambda: TwoHeads(**options).fit(task.source, run)) / plain)
    r = float(np.median(both))
    told("training two heads against one, faces-lite", f"{r:.3f} ×", "≤ 1.05 ×", r <= 1.05)


def group_tables(told: Told) -> None:
    """Accuracy with intervals by group and domain: closed form from kept values, against fairlearn's MetricFrame with 1,000 resamples."""
    from fairlearn.metrics import MetricFrame
    from sklearn.metrics import accuracy_score

    from elsewhere.task import standard_error

    rng = np.random.default_rng(0)
    n = 20_000
    place, group, y = rng.integers(4, size=n), rng.integers(2, size=n), rng.integers(2, size=n)
    made = np.where(rng.random(n) < 0.75 + 0.05 * group, y, 1 - y)

    def ours() -> np.ndarray:
        right, out = (made == y).astype(float), []
        for p in range(4):
            for g in range(2):
                v = right[(place == p) & (group == g)]
                half = 1.96 * standard_error(v - v.mean())
                out.append([v.mean() - half, v.mean() + half])
        return np.array(out)

    def theirs(resamples: int) -> np.ndarray:
        frame = MetricFrame(metrics=accuracy_score, y_true=y, y_pred=made, sensitive_features=group, control_features=place, n_boot=resamples, ci_quantiles=[0.025, 0.975], random_state=0)
        low, high = (np.asarray(f, float).ravel() for f in frame.by_group_ci)
        return np.stack([low, high], 1)

    slow = seconds(lambda: theirs(50)) * 20
    fast = float(np.median([seconds(ours) for _ in range(5)]))
    a, b = ours(), theirs(200)
    close = float(np.abs(np.diff(a, axis=1) / np.diff(b, axis=1) - 1).max())
    told(
        f"intervals by group × domain, 20,000 people: {fast * 1e3:.1f} ms, MetricFrame (1,000 resamples, from 50) {slow:.0f} s; widths within {close:.0%}",
        f"{slow / fast:,.0f} ×",
        "≥ 10 ×",
        slow / fast >= 10 and close < 0.2,
    )


def parity_time(told: Told) -> None:
    """Time to |DDP| ≤ 0.02 on adult: two heads with their whole frontier against ExponentiatedGradient over logistic regression."""
    from elsewhere.fairness import FairlearnLearner, TwoHeads
    from elsewhere.fairness.rates import ddp
    from elsewhere.run import Run
    from elsewhere.tables.tasks import adult

    task, run = adult(0), Run(progress=False)
    home = task.domains[0].load()
    found = []
    for learner in (TwoHeads(slack=0.01), FairlearnLearner(epsilon=0.01)):
        start = time.perf_counter()
        fitted = learner.fit(task.source, run)
        extra = "" if not isinstance(fitted, TwoHeads) else f", with 21 slacks {time.perf_counter() - start + seconds(lambda f=fitted: f.frontier(task.source.validation, run=run)):.0f} s"
        took = time.perf_counter() - start
        codes = (home.column("group") == "Male").astype(int)
        made = fitted.predict(home, run).classes()
        found.append((took, abs(ddp(made, codes)), (made == home.labels).mean(), extra))
    (a, da, ra, extra), (b, db, rb, _) = found
    told(f"adult to |DDP| ≤ 0.02: two heads {a:.0f} s ({da:.3f}, accuracy {ra:.3f}{extra}); ExponentiatedGradient {b:.0f} s ({db:.3f}, {rb:.3f})", f"{b / a:.1f} ×", "", da <= 0.02)
