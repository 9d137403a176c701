"""Intervals of scores: closed forms, limit cases, and how often they hold the truth."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, t

from elsewhere.assay import analysis
from elsewhere.assay.intervals import Arms, arms, spread, spread_of_mean, wilson
from elsewhere.assay.judge import summarised
from elsewhere.data import Array, Examples
from elsewhere.metrics.bias import bias_of_absolute_sum, bias_of_least
from elsewhere.metrics.calibration import expected_calibration_error
from elsewhere.metrics.classification import AUROC, BALANCED_ACCURACY
from elsewhere.metrics.groups import WORST_GROUP_ACCURACY, demographic_disparity
from elsewhere.prediction import ClassPrediction
from elsewhere.task import Estimate

SHARE = (0.0, 1.0)


def row(value: Array | Estimate, units: Array | None = None, n: int | None = None) -> pd.DataFrame:
    return pd.DataFrame([score(value, units, n)])


def interval(value: Array | Estimate, units: Array | None = None, n: int | None = None) -> Array:
    return analysis.cells(row(value, units, n), ["learner"])[["low", "high"]].to_numpy()[0]


def score(value: Array | Estimate, units: Array | None = None, n: int | None = None) -> dict[str, object]:
    """One score as the store holds it."""
    judged = summarised(value, n or len(value), units, None, SHARE)  # type: ignore[arg-type]
    told = {k: v for k, v in judged._asdict().items() if k not in ("values", "reason")}
    return {**told, "learner": "a", "seed": 0, "least": 0.0, "most": 1.0}


def inside(table: pd.DataFrame, truth: float) -> float:
    return float(((table.low <= truth + 1e-12) & (truth <= table.high + 1e-12)).mean())


def covered(draw: Callable[[np.random.Generator], dict[str, object]], truth: float, times: int) -> float:
    """How often the interval of a drawn score holds the truth."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame([{**draw(rng), "learner": k} for k in range(times)])
    return inside(analysis.cells(rows, ["learner"]), truth)


# --- exactness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (100, 100), (50, 200)])
def test_wilson_solves_the_score_equation(k: int, n: int) -> None:
    """Its ends p are those with |share - p| = z √(p (1 - p) / n)."""
    z = float(norm.ppf(0.975))
    share = k / n
    low, high = (float(end) for end in wilson(np.array(share), np.array(float(n)), z))
    for end in (low, high):
        distance = z * (end * (1 - end) / n) ** 0.5
        assert abs(share - end) == pytest.approx(distance, abs=1e-12) or end == share


def test_a_hundred_right_of_a_hundred_is_no_certainty() -> None:
    low, high = interval(np.ones(100))
    assert (low, high) == pytest.approx((0.9630, 1.0), abs=1e-4)


def test_a_share_of_independent_answers_has_wilsons_interval() -> None:
    values = np.r_[np.ones(80), np.zeros(20)]
    ends = wilson(np.array(0.8), np.array(100.0), float(norm.ppf(0.975)))
    assert interval(values) == pytest.approx([float(e) for e in ends])


def test_units_that_answer_alike_count_once() -> None:
    """20 units of 5 equal answers are as sure as 20 answers, with Student's t for 19 degrees of freedom."""
    units = np.repeat(np.arange(20), 5)
    values = np.repeat((np.arange(20) % 4 > 0).astype(float), 5)
    sure = spread_of_mean(values, unit=units)
    assert sure.effective == pytest.approx(19)  # p (1 - p) / error², and the error divides by m - 1
    alone = spread_of_mean(np.ones(100), unit=units)
    assert alone.effective == pytest.approx(20)


def test_weights_lower_the_effective_number_as_kish_says() -> None:
    weight = np.r_[np.full(50, 1.0), np.full(50, 3.0)]
    assert spread_of_mean(np.ones(100), weight).effective == pytest.approx(200**2 / (50 + 450))


def test_few_units_that_carry_the_variance_lower_its_degrees_of_freedom() -> None:
    rng = np.random.default_rng(0)
    calm = rng.normal(size=200)
    assert 60 < spread(calm - calm.mean()).freedom <= 199
    wild = np.zeros(200)
    wild[:2] = 10
    assert spread(wild - wild.mean()).freedom < 5
    assert spread(np.array([1.0, -1.0])).freedom == 1


def test_the_arms_of_a_difference_are_newcombes() -> None:
    """His example: 56 of 70 minus 48 of 80 is .20 [.0524, .3339] (Newcombe 1998, table II, method 10)."""
    both = []
    for k, n in ((56, 70), (48, 80)):
        found = arms(row(np.r_[np.ones(k), np.zeros(n - k)]), 0.975)
        both.append(Arms(found.down, found.up))
    d = both[0].of_difference(both[1])
    assert (0.2 - d.down[0], 0.2 + d.up[0]) == pytest.approx((0.0524, 0.3339), abs=1e-4)


def test_over_seeds_the_spread_is_added_to_wilsons_arm() -> None:
    rows = pd.concat([row(np.r_[np.ones(k), np.zeros(100 - k)]).assign(seed=k) for k in (88, 90, 95)])
    cell = analysis.cells(rows, ["learner"]).iloc[0]
    values = np.array([0.88, 0.90, 0.95])
    low, _ = wilson(values, np.full(3, 100.0), float(norm.ppf(0.975)))
    seeds = t.ppf(0.975, 2) * values.std(ddof=1) / 3**0.5
    expected = np.hypot(seeds, np.sqrt(np.mean((values - low) ** 2)))
    assert cell.value - cell.low == pytest.approx(expected)


def test_a_value_that_never_varies_has_no_known_error() -> None:
    """Squared errors that are all 0 say nothing about the next one: no interval, not one of width 0."""
    for within in ((0.0, np.inf), (-np.inf, np.inf)):
        judged = summarised(np.zeros(50), 50, within=within)
        assert judged.value == 0
        assert np.isnan(judged.error)
    rows = pd.DataFrame([{"learner": "a", "seed": s, "value": 0.0, "error": np.nan, "n": 50} for s in (0, 1, 2)])
    assert np.isnan(analysis.cells(rows, ["learner"]).low.iloc[0])


def test_a_perfect_area_under_the_curve_is_no_certainty() -> None:
    labels = np.r_[np.zeros(30, int), np.ones(20, int)]
    prediction = ClassPrediction(logits=np.c_[np.zeros(50), np.where(labels == 1, 1.0, -1.0)])
    data = Examples(np.zeros((50, 1)), labels, {}, ("a", "b"))
    for metric in (AUROC, BALANCED_ACCURACY):
        low, high = interval(metric.fn(prediction, data), n=50)
        assert high == 1
        assert 0.8 < low < 0.95


def test_intervals_stay_within_the_range_of_the_metric() -> None:
    rows = pd.DataFrame([{"learner": "a", "seed": 0, "value": 0.98, "error": 0.05, "n": 50, "least": 0.0, "most": 1.0}])
    assert analysis.cells(rows, ["learner"]).high.iloc[0] == 1
    open_ended = analysis.cells(rows.assign(least=-np.inf, most=np.inf), ["learner"])
    assert open_ended.high.iloc[0] > 1


def test_tasks_that_judge_one_domain_share_its_examples() -> None:
    """Four trainings judged on one test set are no more sure of it than one; on four test sets they are."""
    told = {"learner": "a", "seed": 0, "value": 0.8, "error": 0.02, "n": 400, "role": "elsewhere"}
    shared = pd.DataFrame([{**told, "task": f"t{k}", "domain": "d"} for k in range(4)])
    apart = pd.DataFrame([{**told, "task": f"t{k}", "domain": f"d{k}"} for k in range(4)])
    half = float(norm.ppf(0.975)) * 0.02
    assert analysis.cells(shared, ["learner"]).high.iloc[0] - 0.8 == pytest.approx(half)
    assert analysis.cells(apart, ["learner"]).high.iloc[0] - 0.8 == pytest.approx(half / 2)


def test_medians_over_few_pairs_are_not_known() -> None:
    assert np.isnan(analysis.over_pairs(np.array([1.0, 2.0, 3.0, 4.0]), "median")).all()
    assert analysis.over_pairs(np.array([5.0, 1.0, 2.0, 4.0, 3.0]), "median") == (1, 5)
    values = np.array([0.1, 0.3, 0.2])
    half = t.ppf(0.975, 2) * values.std(ddof=1) / 3**0.5
    assert analysis.over_pairs(values) == pytest.approx((0.2 - half, 0.2 + half))


def test_the_bias_of_absolute_sums_is_the_folded_normals() -> None:
    rng = np.random.default_rng(0)
    draws = np.abs(rng.normal(size=(200_000, 3)) * 0.5).sum(1).mean()
    assert bias_of_absolute_sum(np.zeros(3), np.full(3, 0.5)) == pytest.approx(draws, rel=0.01)
    assert bias_of_absolute_sum(np.array([5.0]), np.array([0.1])) == pytest.approx(0, abs=1e-6)
    assert bias_of_least(np.array([0.8]), np.array([0.05])) == 0
    assert bias_of_least(np.full(4, 0.8), np.full(4, 0.05)) == pytest.approx(-1.03 * 0.05, rel=0.1)


# --- how often the truth lies inside ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 100, 1000])
@pytest.mark.parametrize("p", [0.6, 0.9, 0.97, 0.99])
def test_intervals_of_shares_hold_the_truth(p: float, n: int) -> None:
    found = covered(lambda rng: score((rng.random(n) < p).astype(float)), p, 1000)
    assert found >= 0.9
    assert found <= 0.99 or n * (1 - p) < 3  # few errors: shares of n answers lie apart


@pytest.mark.long
@pytest.mark.parametrize("p", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("alike", [0.0, 0.2, 0.5])
@pytest.mark.parametrize(("m", "size"), [(10, 20), (30, 5), (100, 20)])
def test_intervals_of_shares_hold_the_truth_with_units(m: int, size: int, alike: float, p: float) -> None:
    """Answers of a unit go together as a beta-binomial's with this correlation."""
    units = np.repeat(np.arange(m), size)

    def draw(rng: np.random.Generator) -> dict[str, object]:
        chance = rng.beta(p * (1 - alike) / alike, (1 - p) * (1 - alike) / alike, m) if alike else np.full(m, p)
        return score((rng.random(m * size) < np.repeat(chance, size)).astype(float), units)

    found = covered(draw, p, 600)
    assert found >= 0.9
    assert found <= 0.995


@pytest.mark.long
@pytest.mark.parametrize("seeds", [3, 10])
@pytest.mark.parametrize("p", [0.8, 0.99])
def test_gaps_hold_the_truth_over_seeds_that_share_test_sets(p: float, seeds: int) -> None:
    """Home and elsewhere are equal; a training moves each by its own luck, a test set both by its own."""
    rng = np.random.default_rng(0)
    rows = []
    for study in range(300):
        luck = rng.normal(0, 0.1, (seeds, 2))
        hard = {"home": rng.normal(size=300), "there": rng.normal(size=500)}
        for seed in range(seeds):
            for k, (domain, noise) in enumerate(hard.items()):
                right = (noise < norm.ppf(p) * 1.005 + luck[seed, k]).astype(float)
                role = "home" if k == 0 else "elsewhere"
                told = {"task": "t", "seed": seed, "domain": domain, "role": role, "learner": study}
                rows.append({**score(right), **told})
    found = inside(analysis.gaps(pd.DataFrame(rows), True), 0.0)
    assert 0.9 <= found <= 0.995


@pytest.mark.long
@pytest.mark.parametrize("n", [50, 200, 1000])
@pytest.mark.parametrize("sharp", [0.5, 1.0, 2.0])
def test_intervals_of_calibration_errors_hold_the_truth(sharp: float, n: int) -> None:
    """Of a calibrated model too (sharp = 1), whose error is 0 and never measured as 0."""

    def truth_of(confidence: Array) -> Array:
        return np.asarray(1 / (1 + np.exp(-sharp * np.log(confidence / (1 - confidence)))))

    many = 0.5 + 0.49 * np.random.default_rng(1).beta(4, 2, 1_000_000)
    which = np.minimum((10 * many).astype(int), 9)
    truth = float(np.abs(np.bincount(which, truth_of(many) - many, 10)).sum() / len(many))

    def draw(rng: np.random.Generator) -> dict[str, object]:
        confidence = 0.5 + 0.49 * rng.beta(4, 2, n)
        right = (rng.random(n) < truth_of(confidence)).astype(float)
        return score(expected_calibration_error(confidence, right), n=n)

    found = covered(draw, truth, 500)
    assert found >= 0.9


@pytest.mark.long
@pytest.mark.parametrize("n", [60, 400])
@pytest.mark.parametrize("apart", [0.0, 1.0, 2.5])
def test_intervals_of_areas_hold_the_truth(apart: float, n: int) -> None:
    truth = float(norm.cdf(apart / 2**0.5))

    def draw(rng: np.random.Generator) -> dict[str, object]:
        labels = (np.arange(n) % 3 == 0).astype(int)
        logit = rng.normal(size=n) + apart * labels
        prediction = ClassPrediction(logits=np.c_[np.zeros(n), logit])
        data = Examples(np.zeros((n, 1)), labels, {}, ("a", "b"))
        return score(AUROC.fn(prediction, data), n=n)

    assert 0.9 <= covered(draw, truth, 500) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("worst", [0.8, 0.65])
def test_intervals_of_the_worst_group_hold_the_truth(worst: float) -> None:
    """Also where all groups are equal, and the least of four is below them by chance."""
    rates = np.array([worst, 0.8, 0.8, 0.8])

    def draw(rng: np.random.Generator) -> dict[str, object]:
        group = np.arange(400) % 4
        right = rng.random(400) < rates[group]
        prediction = ClassPrediction(labels=right.astype(int))
        data = Examples(np.zeros((400, 1)), np.ones(400, int), {"group": group}, ("a", "b"))
        return score(WORST_GROUP_ACCURACY.fn(prediction, data), n=400)

    assert 0.9 <= covered(draw, worst, 500) <= 0.995


@pytest.mark.slow
@pytest.mark.parametrize("apart", [0.0, 0.1, 0.3])
def test_intervals_of_disparities_hold_the_truth(apart: float) -> None:
    """Two groups accepted at .5 ± apart / 2, the third of people in one: D = Σ (n_e / n) |rate - rate_e|."""
    share = np.array([2 / 3, 1 / 3])
    rate = np.array([0.5 - apart / 2, 0.5 + apart / 2])
    truth = float(share @ np.abs(share @ rate - rate))

    def draw(rng: np.random.Generator) -> dict[str, object]:
        group = rng.choice(2, 600, p=share)
        accepted = (rng.random(600) < rate[group]).astype(int)
        return score(demographic_disparity(accepted, group), n=600)

    assert 0.9 <= covered(draw, truth, 500) <= 0.995


@pytest.mark.slow
@pytest.mark.parametrize("k", [5, 6, 8, 20])
def test_intervals_over_pairs_hold_the_truth(k: int) -> None:
    for name in ("mean", "median"):
        ends = [analysis.over_pairs(v, name) for v in np.random.default_rng(0).normal(size=(2000, k))]  # type: ignore[arg-type]
        assert 0.92 <= inside(pd.DataFrame(ends, columns=["low", "high"]), 0.0) <= 0.985, name


@pytest.mark.parametrize(
    ("domains", "seeds"),
    [
        pytest.param(3, 3, marks=pytest.mark.long),
        pytest.param(3, 1, marks=pytest.mark.long),
        pytest.param(30, 3, marks=pytest.mark.long),
        pytest.param(8, 10, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("luck", ["of every training and domain", "of every training", "of one domain", "none"])
def test_nothing_differs_and_nothing_is_said_to_fail(domains: int, seeds: int, luck: str) -> None:
    """200 studies of domains equal to home, one learner: any is called worse or better in at most 5 %."""
    if seeds == 1 and luck != "none":
        pytest.skip("the luck of one training cannot be seen")
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(200):
        rows = []
        for seed in range(seeds):
            own = {"of every training and domain": rng.normal(size=domains + 1), "none": np.zeros(domains + 1)}
            own["of every training"] = np.r_[rng.normal(), np.zeros(domains)]
            own["of one domain"] = np.r_[np.zeros(domains), 2 * rng.normal()]
            for k in range(domains + 1):
                p = float(np.clip(0.85 + 0.03 * own[luck][k], 0, 1))
                right = np.zeros(300)
                right[: rng.binomial(300, p)] = 1
                role = "home" if k == 0 else "elsewhere"
                told = {"task": "t", "seed": seed, "domain": f"d{k}", "role": role}
                rows.append({**score(right), **told})
        wrong += bool(analysis.sure_gaps(pd.DataFrame(rows), True).sure.any())
    assert wrong <= 10


def test_a_large_gap_is_sure_with_three_seeds_and_thirty_domains() -> None:
    """Student's t of 2 degrees of freedom, corrected for 30, would ask for 31 standard errors."""
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(3):
        for k in range(31):
            right = np.zeros(300)
            right[: rng.binomial(300, 0.6 if k == 7 else 0.85)] = 1
            told = {"task": "t", "seed": seed, "domain": f"d{k}", "role": "home" if k == 0 else "elsewhere"}
            rows.append({**score(right), **told})
    table = analysis.sure_gaps(pd.DataFrame(rows), True)
    assert table.domain[table.sure].tolist() == ["d7"]
