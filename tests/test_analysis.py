"""Statistics recomputed from simulated tables whose answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, spearmanr

from elsewhere.assay import analysis


def scores_frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    return pd.DataFrame([{"task": "t", "role": "elsewhere", "metric": "accuracy", "error": 0.0, "n": 100, "higher_is_better": True, **r} for r in rows])


def linear_gaussian_study(rng: np.random.Generator, moved: float = 0.0, classifiers: int = 40, n: int = 2000) -> list[np.ndarray]:
    """Correctness [classifiers, n] at home and elsewhere of random linear classifiers through the origin (spec 01, section 6, item 5)."""
    d, shrink, noise = 20, 0.7, 1.3
    mean = np.zeros(d)
    mean[0] = 1.5
    off = rng.normal(size=d)
    off *= moved / np.linalg.norm(off)
    sides = []
    w = rng.normal(size=(classifiers, d))
    w[:, 0] += rng.uniform(0, 8, classifiers)
    for scale, spread, shift in ((1.0, 1.0, 0.0), (shrink, noise, off)):
        y = 2 * rng.integers(0, 2, n) - 1
        x = np.outer(y, mean) * scale + shift + spread * rng.normal(size=(n, d))
        sides.append(((x @ w.T > 0) == (y > 0)[:, None]).T.astype(float))
    return sides


@pytest.mark.slow
def test_the_line_of_the_linear_gaussian_world_is_recovered() -> None:
    """Slope 0.7 / 1.3 within its interval in at least 93 of 100 studies; intercept around 0."""
    rng = np.random.default_rng(0)
    hits, intercepts = 0, []
    for _ in range(100):
        right = linear_gaussian_study(rng)
        resampled = tuple(analysis.resampled_means(r, None, 300, rng) for r in right)
        line = analysis.fit_line(*(r.mean(1) for r in right), 2000, 2000, resampled=resampled)
        assert line is not None
        hits += line.slope_low <= 0.7 / 1.3 <= line.slope_high
        intercepts.append(line.intercept)
    assert hits >= 93
    assert abs(np.mean(intercepts)) < 0.02


def test_a_moved_mean_breaks_the_line() -> None:
    rng = np.random.default_rng(1)
    straight, broken = ([analysis.fit_line(*(r.mean(1) for r in linear_gaussian_study(rng, moved)), 2000, 2000).r2 for _ in range(10)] for moved in (0.0, 4.0))
    assert min(straight) > 0.97
    assert max(broken) < min(straight)


def simulated_pair(kind: str, rng: np.random.Generator, m: int = 40, n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    x = rng.uniform(0.5, 0.95, m)
    truth = {
        "chance": (x, np.full(m, 0.6)),
        "flat": (x, np.full(m, 0.7)),
        "underspecified": (np.full(m, 0.9), rng.uniform(0.4, 0.8, m)),
        "inverse": (x, 1.2 - 0.8 * x + rng.normal(0, 0.03, m)),
        "line": (x, norm.cdf(0.6 * norm.ppf(x) + rng.normal(0, 0.03, m))),
        "loose": (x, np.clip(0.3 + 0.4 * x + rng.normal(0, 0.08, m), 0.05, 0.95)),
        "scattered": (x, rng.uniform(0.4, 0.8, m)),
    }[kind]
    return rng.binomial(n, truth[0]) / n, rng.binomial(n, truth[1]) / n


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["chance", "flat", "underspecified", "inverse", "line", "loose", "scattered"])
def test_kinds_of_pairs_are_told_from_simulation(kind: str) -> None:
    rng = np.random.default_rng(7)
    majority = 0.6 if kind == "chance" else 0.3
    found = [analysis.kind_of_pair(*simulated_pair(kind, rng), 2000, 2000, majority=majority) for _ in range(200)]
    assert found.count(kind) >= 0.9 * len(found), {k: found.count(k) for k in set(found)}


@pytest.mark.slow
def test_chance_is_told_where_trials_share_their_test_units() -> None:
    """200 tables of 40 trials that guess on the same 2,000 examples: their mean is as unsure as one of them."""
    rng = np.random.default_rng(3)
    found = []
    for _ in range(200):
        home = rng.uniform(0.5, 0.95, 40)
        shared = rng.random(2000) < 0.6
        own = rng.random((40, 2000)) < 0.6
        right = np.where(rng.random((40, 2000)) < 0.9, shared, own).astype(float)
        drawn = analysis.resampled_means(right, None, 200, rng)
        error = float(drawn.mean(1).std(ddof=1))
        found.append(analysis.kind_of_pair(home, right.mean(1), 2000, 2000, 0.6, error=error))
    assert found.count("chance") >= 180, {k: found.count(k) for k in set(found)}


def test_chance_is_told_by_the_majority_share() -> None:
    """The rule itself: the mean is not told from the majority share, and the noise of the test set explains the spread."""
    rng = np.random.default_rng(7)
    home, away = simulated_pair("chance", rng)
    calm = 0.6 + (away - 0.6) / 3
    assert analysis.kind_of_pair(home, calm, 2000, 2000, majority=0.6) == "chance"
    assert analysis.kind_of_pair(home, calm, 2000, 2000, majority=0.5) == "flat"
    assert analysis.kind_of_pair(home[:7], calm[:7], 2000, 2000) == "too few"


@pytest.mark.slow
def test_equal_learners_are_called_different_in_at_most_5_percent() -> None:
    """1,000 studies of two equal learners, paired errors over units known."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        rows = []
        unit = rng.normal(0, 0.01, 2)  # the two learners' own luck on the shared test set
        for seed in range(3):
            for k, name in enumerate("ab"):
                rows.append({"learner": name, "seed": seed, "domain": "d", "value": 0.8 + unit[k] + rng.normal(0, 0.02), "error": 0.01})
        ranking = analysis.ranking(scores_frame(rows), True)
        wrong += ranking["rank"].nunique() > 1
    assert wrong <= 50 + 3 * (1000 * 0.05 * 0.95) ** 0.5


def test_ties_share_a_rank_and_clear_differences_do_not() -> None:
    rng = np.random.default_rng(1)
    rows = [{"learner": name, "seed": seed, "domain": "d", "value": mean + rng.normal(0, 0.005)} for name, mean in (("best", 0.9), ("twin", 0.9), ("worse", 0.7), ("worst", 0.5)) for seed in range(8)]
    ranks = analysis.ranking(scores_frame(rows), True).set_index("learner")["rank"]
    assert ranks["best"] == ranks["twin"] == 1
    assert (ranks["worse"], ranks["worst"]) == (3, 4)
    assert analysis.ranking(scores_frame(rows), False).set_index("learner")["rank"]["worst"] == 1


def test_holm_equals_the_textbook() -> None:
    p = np.array([0.01, 0.02, 0.03, 0.5])
    expected = np.maximum.accumulate(np.minimum(1, np.sort(p) * np.arange(4, 0, -1)))
    assert analysis.holm(p) == pytest.approx(expected)


def test_p_values_are_students_where_only_seeds_spread() -> None:
    from scipy.stats import ttest_1samp

    values = np.array([0.1, 0.3, 0.2, 0.4])
    p = analysis.p_values(np.array([values.mean()]), np.array([values.std(ddof=1)]), np.array([4]), np.array([0.0]))
    assert p[0] == pytest.approx(ttest_1samp(values, 0).pvalue, abs=1e-9)


def test_gaps_are_paired_within_seeds() -> None:
    rows = []
    for seed, luck in enumerate((0.0, 0.1, -0.1)):  # the seed moves home and elsewhere alike
        rows += [
            {"learner": "a", "seed": seed, "domain": "home", "role": "home", "value": 0.8 + luck, "error": 0.01},
            {"learner": "a", "seed": seed, "domain": "there", "value": 0.6 + luck, "error": 0.02},
        ]
    gap = analysis.gaps(scores_frame(rows), True).iloc[0]
    assert gap.gap == pytest.approx(0.2)
    assert gap.high - gap.gap == pytest.approx(norm.ppf(0.975) * np.hypot(0.01, 0.02))


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=5, max_size=40, unique=True))
@settings(max_examples=40, deadline=None)
def test_rank_correlation_is_spearmans(points: list[tuple[float, float]]) -> None:
    x, y = np.array(points).T
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(analysis.rank_correlation(x, y)[0])
    else:
        assert analysis.rank_correlation(x, y)[0] == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_predictors_find_the_measure_that_foretells() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for task in ("t1", "t2", "t3"):
        offset = rng.normal()
        for k in range(20):
            skill = rng.normal()
            key = {"trial": f"{task}-{k}", "task": task, "learner": f"l{k}", "seed": 0}
            rows += [
                {**key, "domain": "home", "role": "home", "metric": "accuracy", "value": skill + offset},
                {**key, "domain": "home", "role": "home", "metric": "nll", "value": rng.normal(), "higher_is_better": False},
                {**key, "domain": "far", "metric": "accuracy", "value": skill + 0.1 * rng.normal() - offset},
            ]
    table = analysis.predictors(scores_frame(rows), "accuracy").set_index("home measure")
    assert table.index[0] == "accuracy"
    assert table.rho["accuracy"] > 0.9  # within pairs; pooled it would be near 0 (Simpson)
    assert abs(table.rho["nll"]) < 0.5
    assert table.pairs["accuracy"] == 3


def test_effective_robustness_is_the_height_above_the_line() -> None:
    line = analysis.Line(0.5, 0.0, 1.0, 0.0, 0.5, 0.5, True, 40)
    home = np.array([0.9])
    assert analysis.effective_robustness(home, np.array([0.8]), line)[0] == pytest.approx(0.8 - norm.cdf(0.5 * norm.ppf(0.9)))


def test_cells_average_tasks_within_a_seed_first() -> None:
    rows = [{"learner": "a", "seed": seed, "task": task, "domain": "home", "role": "home", "value": v, "error": 0.02} for task, v in (("t1", 0.7), ("t2", 0.9)) for seed in (0, 1)]
    cell = analysis.cells(scores_frame(rows), ["learner"]).iloc[0]
    assert cell.value == pytest.approx(0.8)
    assert cell.high - cell.value == pytest.approx(norm.ppf(0.975) * 0.02 / 2**0.5)
    assert analysis.cells(scores_frame(rows), ["learner"], metric="accuracy").high.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("n", [8, 20, 40])
@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_intervals_of_rank_correlations_and_slopes_hold_the_truth(n: int, rho: float) -> None:
    """Normal trials: Spearman's ρ of the population is 6/π asin(r/2); the slope of probits is 0.7."""
    rng = np.random.default_rng(n)
    truth, hits = 6 / np.pi * np.arcsin(rho / 2), np.zeros(2)
    for k in range(300):
        x = rng.normal(size=n)
        y = rho * x + (1 - rho**2) ** 0.5 * rng.normal(size=n)
        _, low, high = analysis.rank_correlation(x, y, resamples=300, seed=k)
        probits = 0.8 + 0.3 * x
        there = norm.cdf(0.7 * probits + rng.normal(0, 0.15, n))
        line = analysis.fit_line(norm.cdf(probits), there, 1e6, 1e6)
        assert line is not None
        hits += [low <= truth <= high, line.slope_low <= 0.7 <= line.slope_high]
    assert (hits / 300 >= 0.89).all(), hits / 300
    assert (hits / 300 <= 0.99).all(), hits / 300
