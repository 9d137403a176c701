"""``make evidence``: every bundled study, and what became of its expectations. A study whose data are not here is skipped, and said."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

import elsewhere as ew
from elsewhere import catalogue
from elsewhere.assay import analysis
from elsewhere.assay.api import run_study, study_path
from elsewhere.assay.engine import Progress
from elsewhere.explain.decomposition import TERMS, Decomposition, decompose
from elsewhere.tables.worlds import risk, true_terms


def known_terms(shift: float, seed: int, relation: float = 0.3, home: int = 10_000, away: int = 5_000, resamples: int = 2) -> Decomposition:
    """Draw the known-terms world and decompose it."""
    rng = np.random.default_rng([seed, int(10 * shift), home])
    x, z = rng.normal(size=home), rng.normal(shift, 1, away)
    losses = risk(x, 0) * rng.exponential(size=home), risk(z, relation) * rng.exponential(size=away)
    return decompose(pd.DataFrame({"x": x}), losses[0], pd.DataFrame({"x": z}), losses[1], seed=seed, resamples=resamples)[0]


def simulations() -> None:
    """Print the tables of docs/evidence.md that no bundled study makes."""
    print(f"known terms, 20 seeds: true | found (standard deviation): {', '.join(TERMS)}; overlap true | found")
    for shift in (0, 1, 2, 4):
        found = [known_terms(shift, seed) for seed in range(20)]
        terms, (truth, overlap) = np.array([d.terms for d in found]), true_terms(shift)
        told = "  ".join(f"{t:.4f} | {m:.4f} ({s:.4f})" for t, m, s in zip(truth, terms.mean(0), terms.std(0, ddof=1), strict=True))
        print(f"  m = {shift}: {told}; {overlap:.4f} | {np.mean([d.overlap for d in found]):.4f}")
    truth, _ = true_terms(1.0)
    pairs = [known_terms(1, 500 + seed, home=2_000, away=1_000, resamples=200) for seed in range(200)]
    hits = np.mean([(d.low[1:] <= truth) & (truth <= d.high[1:]) for d in pairs], axis=0)
    print(f"coverage of nominal 95 % intervals, 200 pairs, m = 1: {', '.join(f'{name} {h:.1%}' for name, h in zip(TERMS, hits, strict=True))}")
    same = [known_terms(1, 900 + seed, relation=0.0, home=2_000, away=1_000, resamples=200) for seed in range(400)]
    print(f"false alarms of 'relation changed', 400 pairs, m = 1: {np.mean([not d.low[2] <= 0 <= d.high[2] for d in same]):.1%}")
    lines()


def lines() -> None:
    """Print how often the slope's interval holds the true one, with and without resampled test units."""
    rng = np.random.default_rng(0)
    alone = both = 0
    for _ in range(100):
        mean = np.r_[1.5, np.zeros(19)]
        w = rng.normal(size=(40, 20))
        w[:, 0] += rng.uniform(0, 8, 40)
        right = []
        for scale, spread in ((1.0, 1.0), (0.7, 1.3)):
            y = 2 * rng.integers(0, 2, 2000) - 1
            x = np.outer(y, mean) * scale + spread * rng.normal(size=(2000, 20))
            right.append(((x @ w.T > 0) == (y > 0)[:, None]).T.astype(float))
        home, away = (r.mean(1) for r in right)
        drawn = (analysis.resampled_means(right[0], None, 300, rng), analysis.resampled_means(right[1], None, 300, rng))
        for resampled in (None, drawn):
            line = analysis.fit_line(home, away, 2000, 2000, resampled=resampled)
            hit = line is not None and line.slope_low <= 0.7 / 1.3 <= line.slope_high
            alone, both = alone + (hit and resampled is None), both + (hit and resampled is not None)
    print(f"slope of the linear-Gaussian line within its interval, of 100 studies: trials resampled {alone}, trials and test units {both}")


def lost_node() -> int:
    """Run a study on a Ray cluster of two nodes, take one away in its middle, and compare every score with a local run."""
    try:
        import ray
        from ray.cluster_utils import Cluster
    except ImportError:
        print("a Ray cluster that loses a node: skipped, Ray is not installed")
        return 0
    from elsewhere.assay.cluster import RayExecutor

    folder = Path(tempfile.mkdtemp())
    learners = [f"random-forest:trees={trees}" for trees in (200, 210, 220)]
    here = ew.assay("penguins", learners=learners, seeds=8, out=folder / "here", workers=2)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    executor, lost = RayExecutor(cluster.address), []

    def watch(progress: Progress) -> None:
        if progress.done >= 6 and not lost:
            lost.append(progress.done)
            cluster.remove_node(second, allow_graceful=False)

    there = ew.assay("penguins", learners=learners, seeds=8, out=folder / "there", executor=executor, progress=watch)
    ray.shutdown()
    cluster.shutdown()
    keys = ["trial", "domain", "metric"]
    a, b = (r.scores().astype({"trial": str}).sort_values(keys)[[*keys, "value", "error", "n"]].reset_index(drop=True) for r in (here, there))
    same = a.equals(b) and len(there.trials()) == 24
    told = "the same bits" if same else "NOT THE SAME"
    print(f"a Ray cluster of two nodes lost one after {lost[0] if lost else 'no'} of 24 trials: {len(there.trials())} trials, {len(b):,} scores, {told} as a local run")
    return int(not same or not lost)


def main() -> int:
    worst = lost_node()
    simulations()
    for name, entry in sorted(catalogue.entries("studies").items()):
        print(f"\n{name}: {entry.help}")
        start = time.perf_counter()
        try:
            result = run_study(ew.read_study(study_path(name)), Path("results") / "evidence" / name, workers=2)
        except ew.UserError as error:
            print(f"  skipped: {error}")
            continue
        for _, verdict in result.verdicts():
            print(f"  {verdict.sentence}")
            worst = max(worst, int(verdict.state != "holds"))
        print(f"  {time.perf_counter() - start:.0f} s; {result.report()}")
    return worst


if __name__ == "__main__":
    sys.exit(main())
