"""Spec 18, section 6: the truth world, pure cases, refusals, real tables; and the fast forms against their slow twins."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

import elsewhere as ew
from elsewhere.explain import ShiftDecomposition
from elsewhere.explain.decomposition import (
    Decomposition,
    decompose,
    importance_weighted,
    terms_with,
)
from elsewhere.explain.domain_classifier import cases, fit_logistic, log_ratio, most_predictive
from elsewhere.explain.drift import column_drift
from elsewhere.explain.risky_region import risky_regions
from elsewhere.explain.shift_decomposition import sentence, sentences
from elsewhere.tables.worlds import known_terms, risk, true_terms

PUBLISHED = {0: ([0, 0.15, 0], 1.0), 1: ([0.0150, 0.1968, 0.2207], 0.7959), 2: ([0.1184, 0.2425, 0.7188], 0.4496), 4: ([0.6631, 0.2905, 2.5456], 0.0686)}


def world(seed: int, shift: float, relation: float = 0.3, home: int = 10_000, away: int = 5_000) -> tuple[Any, ...]:
    rng = np.random.default_rng([seed, int(shift * 10), home])
    x, z = rng.normal(size=home), rng.normal(shift, 1, away)
    loss, there = risk(x, 0) * rng.exponential(size=home), risk(z, relation) * rng.exponential(size=away)
    return pd.DataFrame({"x": x}), loss, pd.DataFrame({"x": z}), there


@pytest.mark.parametrize("shift", PUBLISHED)
def test_quadrature_gives_the_table_of_the_specification(shift: int) -> None:
    terms, overlap = true_terms(shift)
    assert terms == pytest.approx(PUBLISHED[shift][0], abs=1.01e-4)
    assert overlap == pytest.approx(PUBLISHED[shift][1], abs=1e-4)


@pytest.mark.parametrize("shift", PUBLISHED)
def test_the_terms_of_the_truth_world_are_found(shift: int) -> None:
    """Mean over 20 seeds within 3 standard errors of the truth; the sum of the terms is the gap to 1e-12."""
    found = [decompose(*world(seed, shift), resamples=2, seed=seed)[0] for seed in range(20)]
    terms = np.array([d.terms for d in found])
    truth, overlap = true_terms(shift)
    assert (np.abs(terms.mean(0) - truth) <= 3 * terms.std(0, ddof=1) / 20**0.5).all(), (terms.mean(0), truth)
    assert np.mean([d.overlap for d in found]) == pytest.approx(overlap, abs=0.005)
    assert all(abs(d.terms.sum() - d.gap) < 1e-12 for d in found)


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    """200 pairs at m = 1: nominal 95 % covers in 90 to 99 %, for each term and the overlap."""
    truth, overlap = true_terms(1.0)
    hits = np.zeros(4)
    for seed in range(200):
        d = decompose(*world(seed, 1.0, home=2_000, away=1_000), seed=seed)[0]
        low, high = np.r_[d.low[1:], d.shared_interval[0]], np.r_[d.high[1:], d.shared_interval[1]]
        hits += (low <= np.r_[truth, overlap]) & (np.r_[truth, overlap] <= high)
    assert ((hits >= 180) & (hits <= 198)).all(), hits


@pytest.mark.slow
def test_a_relation_that_did_not_change_is_rarely_called_changed() -> None:
    """R_Q = R_P, other x: "relation changed" has an interval without 0 in at most 7 % of 200 simulations."""
    alarms = 0
    for seed in range(200):
        d = decompose(*world(1000 + seed, 1.0, relation=0.0, home=2_000, away=1_000), seed=seed)[0]
        alarms += not d.low[2] <= 0 <= d.high[2]
    assert alarms <= 14, alarms


def test_pure_cases_are_recognised() -> None:
    assert decompose(*world(0, 0))[0].verdict() == "relation changed"
    assert decompose(*world(0, 0, relation=0.0))[0].verdict() == "no gap worth explaining"
    moved = decompose(*world(0, 1, relation=0.0))[0]
    assert moved.verdict() in ("harder cases", "cases unseen at home")
    assert moved.low[2] <= 0 <= moved.high[2]
    x, loss, z, there = world(0, 0)
    apart = decompose(x, loss, z + 20, there)[0]
    assert apart.verdict() == "cannot tell"
    assert "do not overlap" in apart.refused
    assert apart.apart.keys() == {"x"}


def test_overlap_is_judged_before_size() -> None:
    x, loss, z, there = world(0, 0)
    assert "do not overlap" in decompose(x[:40], loss[:40], z[:10] + 20, there[:10])[0].refused
    assert "too few cases: 40 at home, 10 there" in decompose(x[:40], loss[:40], z[:10], there[:10])[0].refused


def test_newtons_method_equals_scikit_learns_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 4)), rng.integers(0, 2, 300)
    counts = rng.integers(0, 4, (5, 300)).astype(float)
    found = fit_logistic(np.c_[x, np.ones(300)], y, counts, C=1.0)
    for b, weight in zip(found, counts, strict=True):
        twin = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x, y, sample_weight=weight)
        assert b == pytest.approx(np.r_[twin.coef_[0], twin.intercept_], abs=1e-5)


def test_newtons_method_survives_domains_that_are_apart() -> None:
    x = np.r_[np.linspace(-2, -1, 50), np.linspace(1, 2, 50)]
    b = fit_logistic(np.c_[x, np.ones(100)], np.r_[np.zeros(50), np.ones(50)], np.ones((1, 100)))
    assert np.isfinite(b).all()


def test_many_resamples_equal_the_loop() -> None:
    x, loss, z, there = world(0, 1, home=200, away=100)
    c = cases(x, z, "logistic", 5, np.random.default_rng(0))
    ratio, _ = log_ratio(c)
    counts = np.random.default_rng(1).integers(0, 3, (50, 300)).astype(float)
    fast = terms_with(ratio, c.there, [loss[:, None], there[:, None]], [np.ones(200), np.ones(100)], counts)[:, :, 0]
    w_p, w_q = expit(ratio[0][:200]), expit(-ratio[0][200:])
    for row, n in zip(fast, counts, strict=True):
        n_p, n_q = n[:200], n[200:]
        slow = [np.average(loss, weights=n_p), np.average(loss, weights=n_p * w_p), np.average(there, weights=n_q * w_q), np.average(there, weights=n_q)]
        assert row == pytest.approx(slow, abs=1e-12)


def test_refitted_resamples_equal_refitting_one_by_one() -> None:
    x, _, z, _ = world(0, 1, home=200, away=100)
    c = cases(x, z, "logistic", 3, np.random.default_rng(0))
    _, start = log_ratio(c)
    counts = np.random.default_rng(1).integers(0, 3, (4, 300)).astype(float)
    together = log_ratio(c, counts, start)[0]
    for k in range(4):
        assert together[k] == pytest.approx(log_ratio(c, counts[k : k + 1])[0][0], abs=1e-4)


def test_units_are_never_split_between_folds() -> None:
    x, _, z, _ = world(0, 1, home=200, away=100)
    unit = np.repeat(np.arange(50), 4)
    c = cases(x, z, "logistic", 5, np.random.default_rng(0), unit, np.arange(100) // 2)
    assert pd.Series(c.fold).groupby(c.unit).nunique().max() == 1
    assert not set(c.unit[c.there == 0]) & set(c.unit[c.there == 1])


def test_units_widen_the_intervals() -> None:
    rng = np.random.default_rng(0)
    x = pd.DataFrame({"x": np.repeat(rng.normal(size=100), 10)})
    z = pd.DataFrame({"x": np.repeat(rng.normal(size=100), 10)})
    loss, there = np.repeat(rng.exponential(size=100), 10), np.repeat(rng.exponential(size=100), 10)
    unit = np.repeat(np.arange(100), 10)
    alone, together = decompose(x, loss, z, there)[0], decompose(x, loss, z, there, home_unit=unit, elsewhere_unit=unit)[0]
    assert together.high[0] - together.low[0] > 2 * (alone.high[0] - alone.low[0])


def test_survey_weights_equal_repetition() -> None:
    x, loss, z, there = world(0, 1, home=150, away=80)
    c = cases(x, z, "logistic", 5, np.random.default_rng(0))
    ratio, _ = log_ratio(c)
    u = [np.random.default_rng(1).integers(1, 4, n).astype(float) for n in (150, 80)]
    losses = [loss[:, None], there[:, None]]
    weighted = terms_with(ratio, c.there, losses, u, np.ones((1, 230)))
    repeated = terms_with(ratio, c.there, losses, [np.ones(150), np.ones(80)], np.concatenate(u)[None])
    assert weighted == pytest.approx(repeated)


def test_many_models_share_one_classifier() -> None:
    x, loss, z, there = world(0, 1, home=500, away=300)
    both = decompose(x, np.c_[loss, 2 * loss], z, np.c_[there, 2 * there], resamples=20)
    alone = decompose(x, loss, z, there, resamples=20)[0]
    assert both[0].levels == pytest.approx(alone.levels)
    assert both[1].levels == pytest.approx(2 * alone.levels)


def test_boosting_finds_the_terms_too() -> None:
    d = decompose(*world(0, 1), classifier="boosting", resamples=20)[0]
    truth, _ = true_terms(1.0)
    assert d.terms == pytest.approx(truth, abs=0.05)
    assert not d.refitted


def test_a_planted_risky_region_is_found_by_its_rule() -> None:
    rng = np.random.default_rng(0)
    x, z = (pd.DataFrame({"age": rng.uniform(20, 80, n), "smoker": rng.integers(0, 2, n), "job": rng.choice(["clerk", "nurse"], n)}) for n in (3000, 3000))
    worse = (z.age > 60) & (z.smoker == 1)
    loss, there = rng.binomial(1, 0.2, 3000).astype(float), rng.binomial(1, np.where(worse, 0.8, 0.2)).astype(float)
    c = cases(x, z, "logistic", 5, np.random.default_rng(0))
    table = risky_regions(x, loss, z, there, log_ratio(c)[0][0])
    top = table.iloc[0]
    assert "smoker = 1" in top.region
    assert "age > " in top.region
    assert top.low <= 0.6 <= top.high or abs(top.change - 0.6) < 0.1
    assert 0.05 <= top.share < 0.25
    assert table.low.is_monotonic_decreasing


def wide(
    seed: int,
    shift: float,
    relation: float,
    home: int,
    away: int,
    columns: int,
) -> tuple[Any, ...]:
    """Draw the known-terms world in the first of several columns."""
    rng = np.random.default_rng(seed)
    x, z = rng.normal(size=(home, columns)), rng.normal(size=(away, columns))
    z[:, 0] += shift
    loss = risk(x[:, 0], 0) * rng.exponential(size=home)
    there = risk(z[:, 0], relation) * rng.exponential(size=away)
    return pd.DataFrame(x).add_prefix("x"), loss, pd.DataFrame(z).add_prefix("x"), there


def test_more_columns_than_the_cases_can_compare_are_refused_with_the_reason() -> None:
    """240 and 70 rows x 60 columns: the overlap is .7 from home and 1.3 from there, true is 1."""
    for seed in range(5):
        d = decompose(*wide(seed, 0.0, 0.0, 240, 70, 60))[0]
        told = "240 cases at home and 70 there are too few to compare 120 numbers per case"
        assert told in d.refused
        assert abs(d.overlap - d.overlap_there) > 0.35
        assert d.shared > 0.9
        assert d.verdict() == "cannot tell"
    assert not decompose(*wide(0, 0.0, 0.0, 240, 70, 5), resamples=5)[0].refused


@pytest.mark.long
def test_terms_of_equal_domains_lie_in_their_intervals() -> None:
    """240 and 70 rows x 10 columns, P = Q: each interval holds the truth in at least 93 of 100."""
    truth = np.array([0.0, 0.0, 0.0, 1.0])
    hits = np.zeros(4)
    for seed in range(100):
        d = decompose(*wide(seed, 0.0, 0.0, 240, 70, 10), seed=seed, resamples=100)[0]
        low, high = np.r_[d.low[1:], d.shared_interval[0]], np.r_[d.high[1:], d.shared_interval[1]]
        hits += (low <= truth) & (truth <= high)
    assert (hits >= 93).all(), hits


@pytest.mark.long
def test_the_penalty_that_predicts_best_would_accuse_the_relation() -> None:
    """Why the terms keep the weakest penalty: 1,000 and 500 rows x 60 columns, other cases and the
    same relation. The penalty of least held-out loss hides a part of the shift, which then looks
    like a changed relation."""
    relation: dict[str, list[float]] = {"weakest": [], "most predictive": []}
    for seed in range(6):
        x, loss, z, there = wide(seed, 1.0, 0.0, 1000, 500, 60)
        c = cases(x, z, "logistic", 5, np.random.default_rng(0))
        ratio, start = log_ratio(c)
        best = most_predictive(c, ratio[0], start)
        assert best.strength < c.strength
        for name, r in (("weakest", ratio), ("most predictive", log_ratio(best)[0])):
            losses, ones = [loss[:, None], there[:, None]], [np.ones(1000), np.ones(500)]
            levels = terms_with(r, c.there, losses, ones, np.ones((1, 1500)))[0, :, 0]
            relation[name].append(levels[2] - levels[1])
    assert abs(np.mean(relation["weakest"])) < 0.02
    assert np.mean(relation["most predictive"]) > 0.03


def test_a_well_determined_classifier_tries_no_other_penalty() -> None:
    x, _, z, _ = world(0, 1, home=1000, away=1000)
    c = cases(x, z, "logistic", 5, np.random.default_rng(0))
    ratio, start = log_ratio(c)
    assert most_predictive(c, ratio[0], start) is c


def test_few_and_many_resamples_are_fitted_alike() -> None:
    """The Hessian in blocks of rows equals the one from all products of two columns."""
    rng = np.random.default_rng(0)
    design, y = np.c_[rng.normal(size=(9000, 3)), np.ones(9000)], rng.integers(0, 2, 9000)
    counts = rng.integers(0, 4, (8, 9000)).astype(float)
    together = fit_logistic(design, y, counts)
    for k in range(8):
        assert fit_logistic(design, y, counts[k : k + 1])[0] == pytest.approx(together[k], abs=1e-9)


def test_the_refusal_of_an_identifier_says_to_drop_it() -> None:
    x, loss, z, there = world(0, 0, home=300, away=200)
    frames = [f.assign(patient=np.arange(len(f)) + first) for f, first in ((x, 1000), (z, 1300))]
    d = decompose(frames[0], loss, frames[1], there)[0]
    told = sentence(SimpleNamespace(domain="Ulm", many_tasks=False), d, 0.01)
    assert d.drop == d.identifiers == ("patient",)
    assert d.auc_without < 0.6
    assert "Drop `patient` with --exclude patient" in told
    assert "never seen" not in told
    assert not decompose(x, loss, z, there, resamples=5)[0].drop


def test_a_column_that_alone_tells_the_domains_apart_is_named_to_be_dropped() -> None:
    x, loss, z, there = world(0, 0, home=300, away=200)
    d = decompose(x.assign(site=0.25), loss, z.assign(site=0.5), there)[0]
    assert (d.drop, d.identifiers) == (("site",), ())
    assert "Drop `site`" in sentence(SimpleNamespace(domain="Ulm", many_tasks=False), d, 0.01)
    apart = decompose(x, loss, z + 20, there)[0]
    told = sentence(SimpleNamespace(domain="Ulm", many_tasks=False), apart, 0.01)
    assert "cases never seen at home: reweighting cannot help" in told


def test_many_refusals_share_a_sentence_only_with_the_same_advice() -> None:
    x, loss, z, there = world(0, 0, home=300, away=200)
    apart = decompose(x, loss, z + 20, there)[0]
    site = decompose(x.assign(s=0), loss, z.assign(s=1), there)[0]
    found = [(SimpleNamespace(domain=f"A{k}", many_tasks=False), apart, "") for k in range(4)]
    told = sentences([*found, (SimpleNamespace(domain="B", many_tasks=False), site, "")], 0.01)
    assert len(told) == 2
    assert told[0].startswith("In A0, A1, A2 and A3 the reason cannot be told")
    assert "Drop `s`" in told[1]


@pytest.mark.parametrize(
    ("gap", "says"),
    [
        ((0.05, -0.1, 0.2), "no gap is shown"),
        ((0.001, -0.004, 0.006), "there is no gap worth explaining"),
        ((0.005, 0.001, 0.012), "too small to explain"),
    ],
)
def test_only_a_small_gap_is_called_no_gap(gap: tuple[float, float, float], says: str) -> None:
    d = decomposition([gap, (0.0, -0.1, 0.1), (gap[0], -0.1, 0.1), (0.0, -0.1, 0.1)])
    assert says in sentence(SimpleNamespace(domain="Ulm", many_tasks=False), d, 0.01)


def test_a_term_is_named_only_with_its_interval() -> None:
    d = decomposition([(0.3, 0.2, 0.4), (0.05, -0.01, 0.1), (0.2, 0.1, 0.3), (0.05, -0.02, 0.2)])
    told = sentence(SimpleNamespace(domain="Ulm", many_tasks=False), d, 0.01)
    assert "0.20 [0.10, 0.30] of the rise of 0.30" in told
    assert "Besides: no sign of harder cases, no sign of cases unseen at home." in told
    unsure = decomposition([(0.3, 0.2, 0.4), (0.1, -0.1, 0.3), (0.1, -0.1, 0.3), (0.1, -0.1, 0.3)])
    told = sentence(SimpleNamespace(domain="Ulm", many_tasks=False), unsure, 0.01)
    assert "no single reason is beyond doubt: harder cases +0.10 [-0.10, 0.30]" in told


def decomposition(values: list[tuple[float, float, float]]) -> Decomposition:
    """Return a decomposition with (value, low, high) of the gap and each term."""
    terms, low, high = (np.array([v[k] for v in values]) for k in range(3))
    levels = 0.2 + np.r_[0, np.cumsum(terms[1:])]
    return Decomposition(levels, low, high, 0.9, 0.9, 0.7, (100.0, 100.0), "", {}, True)


def planted(seed: int, effect: float, home: int = 600, away: int = 600) -> tuple[Any, ...]:
    """Draw P = Q with errors more frequent by ``effect`` elsewhere where b > 0.5 and c = 1."""
    rng = np.random.default_rng(seed)
    sides = [{"b": rng.normal(size=n), "c": rng.integers(0, 2, n)} for n in (home, away)]
    x, z = map(pd.DataFrame, sides)
    there = rng.binomial(1, 0.2 + 0.2 * (z.b > 0) + effect * ((z.b > 0.5) & (z.c == 1)))
    loss = rng.binomial(1, 0.2 + 0.2 * (x.b > 0))
    return x, loss.astype(float), z, there.astype(float), np.zeros(home + away)


@pytest.mark.long
def test_regions_that_do_not_differ_become_one() -> None:
    """Nothing changed: in at least 95 of 100 tables one region remains."""
    tables = [risky_regions(*planted(seed, 0.0)) for seed in range(100)]
    assert sum(table.region.tolist() == ["everywhere"] for table in tables) >= 95


@pytest.mark.long
def test_regions_cover_the_true_change() -> None:
    """A planted region: 90 to 99 % of intervals hold the true change, also in the first row."""
    every, first = [], []
    z = planted(1000, 0.0, away=100_000)[2]
    for seed in range(100):
        table = risky_regions(*planted(seed, 0.4))
        true = [0.4 * ((z.b > 0.5) & (z.c == 1))[inside(z, rule)].mean() for rule in table.region]
        held = ((table.low <= true) & (true <= table.high)).tolist()
        every, first = every + held, first + held[:1]
        assert table.low.is_monotonic_decreasing
    assert 0.90 <= np.mean(every) <= 0.99
    assert 0.90 <= np.mean(first) <= 0.99


def inside(frame: pd.DataFrame, rule: str) -> Any:
    """Return which rows a rule in words holds."""
    kept = np.ones(len(frame), bool)
    for part in rule.split(" and ") if rule != "everywhere" else []:
        name, sign, value = part.split()
        bound = float(value)
        meant = {">": frame[name] > bound, "≤": frame[name] <= bound, "=": frame[name] == bound}
        kept &= meant[sign].to_numpy()
    return kept


def test_regions_resample_units_not_rows() -> None:
    """Ten copies of each case: as one unit each, nothing differs; as rows, noise does."""
    x, loss, z, there, ratio = planted(0, 0.0, 200, 200)
    copies = [np.repeat(v, 10, axis=0) for v in (x, loss, z, there, ratio)]
    frames = [pd.DataFrame(copies[k], columns=x.columns) for k in (0, 2)]
    given = (frames[0], copies[1], frames[1], copies[3], copies[4])
    by_unit = risky_regions(*given, units=np.repeat(np.arange(400), 10))
    by_row = risky_regions(*given)
    assert by_unit.region.tolist() == ["everywhere"]
    assert len(by_row) > 1
    assert (by_unit.high - by_unit.low)[0] > 0.2


def test_large_tables_hold_the_classifier_fixed_and_say_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(40_000, 25))).add_prefix("x")
    d = decompose(frame[:20_000], rng.exponential(size=20_000), frame[20_000:], rng.exponential(size=20_000))[0]
    assert not d.refitted
    assert decompose(frame[:200], rng.exponential(size=200), frame[200:400], rng.exponential(size=200), resamples=5)[0].refitted
    world = ew.assay("worlds/known-terms", seeds=1, out=tmp_path / "r")
    assert "the fit of the domain classifier" in world.explain("shift-decomposition").limits
    assert "classifier fixed" in world.explain("shift-decomposition", classifier="boosting").limits


def test_importance_weighting_gives_two_terms_that_sum_to_the_gap() -> None:
    x, loss, z, there = world(0, 1)
    c = cases(x, z, "logistic", 5, np.random.default_rng(0))
    terms = importance_weighted(log_ratio(c)[0][0], c.there, loss, there)
    assert sum(terms) == pytest.approx(there.mean() - loss.mean())


def test_drift_names_the_columns_that_differ() -> None:
    rng = np.random.default_rng(0)
    home = pd.DataFrame({"same": rng.normal(size=500), "moved": rng.normal(size=500), "kind": rng.choice(["a", "b"], 500)})
    away = pd.DataFrame({"same": rng.normal(size=500), "moved": rng.normal(2, 1, 500), "kind": rng.choice(["a", "c"], 500)})
    table = column_drift(home, away).set_index("column")
    assert table.auc["moved"] > 0.85 > 0.6 > table.auc["same"]
    assert table.distance["kind"] == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"features": ["y"]}, "no feature 'y'"),
        ({"exclude": ["x"]}, "no feature is left"),
        ({"features": ["state"], "forbidden": ["state"]}, "would leak"),
    ],
)
def test_bad_features_are_one_clear_line(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ew.UserError, match=told):
        decompose(*world(0, 1, home=100, away=100), **options)


def test_losses_must_fit_the_cases() -> None:
    x, loss, z, there = world(0, 1, home=100, away=100)
    with pytest.raises(ew.UserError, match="99 losses for 100 cases"):
        decompose(x, loss[:-1], z, there)
    with pytest.raises(ew.UserError, match="not finite"):
        decompose(x, np.where(np.arange(100) == 3, np.nan, loss), z, there)


def test_a_constant_loss_leaves_no_gap() -> None:
    x, _, z, _ = world(0, 1, home=100, away=100)
    assert decompose(x, np.ones(100), z, np.ones(100))[0].verdict() == "no gap worth explaining"


def test_missing_values_are_imputed_with_an_indicator() -> None:
    x, loss, z, there = world(0, 0, home=400, away=400)
    x.loc[:199, "x"] = np.nan
    d = decompose(x, loss, z, there)[0]
    assert 0.6 < d.auc < 0.98


def test_the_bundled_world_is_decomposed_by_the_explainer(tmp_path: Path) -> None:
    result = ew.assay(known_terms, seeds=2, out=tmp_path / "r")
    row = result.explain("shift-decomposition").tables["Terms"].iloc[0]
    truth, _ = true_terms(1.0)
    for name, value in zip(("harder cases", "relation changed", "cases unseen at home"), truth, strict=True):
        assert row[name] == pytest.approx(value, abs=0.04)


def test_penguins_are_refused(tmp_path: Path) -> None:
    finding = ew.assay("penguins", learners=["logistic-regression"], seeds=5, out=tmp_path / "r").explain("shift-decomposition")
    table = finding.tables["Terms"].set_index("domain")
    assert set(table.answer) == {"cannot tell"}
    assert table.auc["Gentoo"] == pytest.approx(1.0, abs=1e-3)
    assert table.auc["Chinstrap"] == pytest.approx(0.999, abs=5e-3)
    assert table["relation changed"].isna().all()
    assert "cases never seen at home" in finding.sentence


def test_seeds_are_joined_by_id(tmp_path: Path) -> None:
    """The home sample is the union of the seeds' test parts; the losses of one penguin are averaged."""
    from elsewhere.explain.shift_decomposition import _learners, _pairs

    result = ew.assay("penguins", learners=["logistic-regression"], seeds=5, out=tmp_path / "r")
    pair = _pairs(result, "accuracy", _learners(result)[0])[0]
    homes = [result.task(t).domains[0].load() for t in result.trials().trial]
    assert len(pair.home_x) == len({i for d in homes for i in d.column("id")})
    each = result.examples().query("domain == 'Adelie'").groupby("id").accuracy.mean()
    assert sorted(pair.home_loss[:, 0]) == pytest.approx(sorted(1 - each))


def test_heart_hospitals_as_published(data: Path) -> None:
    """Spec 18, section 6, item 3: refused with all columns; with five, the relation changed most in Switzerland."""
    frame = pd.read_csv(data / "heart-hospitals" / "heart.csv")
    label, place = (frame.pop("disease") > 0).to_numpy(), frame.pop("hospital")
    filled = frame.fillna(frame.median())
    home = np.flatnonzero(place == "cleveland")
    few = ["age", "sex", "chest_pain", "max_heart_rate", "exercise_angina"]
    for target, term in (("hungarian", 0.076), ("switzerland", 0.468), ("long-beach", 0.186)):
        there = np.flatnonzero(place == target)
        found = []
        for seed in range(10):
            order = np.random.default_rng(seed).permutation(home)
            train, test = order[: len(home) // 2], order[len(home) // 2 :]
            scale = filled.iloc[train].mean(), filled.iloc[train].std()
            model = LogisticRegression(max_iter=1000).fit((filled.iloc[train] - scale[0]) / scale[1], label[train])
            loss, away = ((model.predict((filled.iloc[r] - scale[0]) / scale[1]) != label[r]).astype(float) for r in (test, there))
            assert decompose(frame.iloc[test], loss, frame.iloc[there], away, resamples=2)[0].auc >= 0.99
            found.append(decompose(filled.iloc[test], loss, filled.iloc[there], away, features=few, resamples=2, seed=seed)[0])
        relation = np.array([d.terms[1] for d in found])
        assert not found[0].refused
        assert abs(relation.mean() - term) < 2 * max(relation.std(ddof=1), 0.06), (target, relation.mean())


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="measured: Kentucky -.033 and called a changed relation, Illinois AUC .520; the five other states as published")
def test_wages_leave_no_gap_worth_explaining(data: Path, tmp_path: Path) -> None:
    """Spec 18, section 6, item 5, with boosting, California to six states: gaps within .025, AUC .54 to .61, no story."""
    result = ew.assay("acs-wages", learners=["boosting"], seeds=1, out=tmp_path / "r")
    table = result.explain(ShiftDecomposition(classifier="boosting")).tables["Terms"]
    assert len(table) == 6
    assert (table.gap.abs() <= 0.025).all()
    assert table.auc.between(0.535, 0.615).all()
    assert (table.answer == "no gap worth explaining").all()


def test_features_are_named_one_by_one_or_by_commas(people: Path, tmp_path: Path) -> None:
    result = ew.assay(str(people), predict="income", domain="state", source=["CA"], learners=["logistic-regression"], seeds=3, out=tmp_path / "r")
    commas, listed = (result.explain("shift-decomposition", features=f) for f in (["age,job"], ["age", "job"]))
    assert commas.tables["Terms"].equals(listed.tables["Terms"])
    assert "cases alike in age, job" in commas.sentence
    assert any("Risky regions" in title for title in commas.tables)


def test_the_explainer_says_why_it_does_not_apply(tmp_path: Path) -> None:
    result = ew.assay("toy/daily", learners=["toy-harmonic"], seeds=1, out=tmp_path / "r")
    with pytest.raises(ew.UserError, match="no metric gives one number an example"):
        result.explain("shift-decomposition")
    with pytest.raises(ew.UserError, match="classifier must be logistic or boosting|cannot be 'forest'"):
        ew.assay("toy/quick", learners=["toy-quick"], seeds=1, out=tmp_path / "s").explain("shift-decomposition", classifier="forest")


def fabricated(gap: float, half: float, compared: int = 1) -> Decomposition:
    """A decomposition of a gap that is all changed relation, with intervals of one half width."""
    levels = np.array([0.1, 0.1, 0.1 + gap, 0.1 + gap])
    middle = np.array([gap, 0.0, gap, 0.0])
    return Decomposition(levels, middle - half, middle + half, 0.9, 0.9, 0.6, (500.0, 500.0), "", {}, True, compared=compared)


def test_a_gap_counts_only_beyond_the_noise_of_all_domains_looked_at() -> None:
    alone, among = fabricated(0.2, 0.15), fabricated(0.2, 0.15, compared=49)
    assert alone.verdict() == "relation changed"
    assert among.verdict() == "no gap worth explaining"
    assert fabricated(0.4, 0.15, compared=49).verdict() == "relation changed"
    told = sentence(SimpleNamespace(domain="Ulm", many_tasks=False), among, 0.01)
    assert "no gap is shown beyond doubt among 49 domains" in told


def test_many_domains_of_which_the_same_is_said_share_a_sentence() -> None:
    pairs = [SimpleNamespace(domain=f"s{k}", many_tasks=False) for k in range(9)]
    found = [(p, fabricated(0.05 + 0.01 * k, 0.2, 50), "") for k, p in enumerate(pairs[:5])]
    found += [(p, fabricated(0.5, 0.1, 50), "") for p in pairs[5:]]
    quiet, changed = sentences(found, 0.01)
    assert quiet.startswith("In s0, s1, s2, s3 and s4 no gap is shown beyond doubt among 50 domains")
    assert "differences +0.050 to +0.090" in quiet
    assert changed.startswith("In s5 (+0.50 [0.40, 0.60] of +0.50), s6 (")
    assert changed.count("new labels or new columns are needed") == 1
    assert len(sentences(found[:3], 0.01)) == 3


def test_few_cases_of_large_loss_widen_the_intervals() -> None:
    from elsewhere.explain.small_samples import widening

    rng = np.random.default_rng(0)
    there = np.r_[np.zeros(70), np.ones(70)]
    calm, wild = rng.normal(size=(70, 1)), rng.exponential(size=(70, 1)) ** 3
    ones = [np.ones(70)] * 2
    plain = widening(np.zeros(140), there, [calm, calm], ones, (None, None), 0.95)
    assert plain.shape == (4, 1)
    assert (plain >= 1).all()
    assert plain.max() < 1.05
    skewed = widening(np.zeros(140), there, [calm, wild], ones, (None, None), 0.95)
    assert skewed[0, 0] > 1.1  # the gap and the relation are carried by few cases there
    assert skewed[1, 0] == pytest.approx(plain[1, 0])  # harder cases are measured at home alone
    pairs = np.arange(70) // 2
    assert widening(np.zeros(140), there, [calm, calm], ones, (pairs, pairs), 0.95)[0, 0] > plain[0, 0]


@pytest.mark.long
def test_intervals_hold_the_terms_of_few_skewed_cases() -> None:
    """240 and 70 cases, five columns, m = 1: each of the three terms in at least 90 of 100 intervals."""
    rng = np.random.default_rng(0)
    truth, _ = true_terms(1.0)
    hits = np.zeros(3)
    for seed in range(100):
        x, z = rng.normal(size=(240, 5)), rng.normal(size=(70, 5))
        z[:, 0] += 1
        losses = risk(x[:, 0], 0) * rng.exponential(size=240), risk(z[:, 0], 0.3) * rng.exponential(size=70)
        d = decompose(pd.DataFrame(x), losses[0], pd.DataFrame(z), losses[1], seed=seed)[0]
        hits += (d.low[1:] <= truth) & (truth <= d.high[1:])
    assert (hits >= 90).all(), hits
