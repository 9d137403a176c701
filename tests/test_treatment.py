"""Who is said to be treated by group: nobody by chance, and those who are."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest

from elsewhere.data import Examples
from elsewhere.errors import UserError
from elsewhere.fairness import ParityRegularised, TwoHeads, group_awareness, treatment
from elsewhere.fairness.audit import (
    FEWEST,
    agreement_gained,
    audit,
    band,
    best_threshold,
    logistic_regression,
    observed,
    refitted,
    surrogate_flips,
    thresholds_by_predicted_group,
    with_head,
)
from elsewhere.fairness.faces import faces_lite
from elsewhere.fairness.group_null import SHUFFLES, area, discriminants, shuffled_groups
from elsewhere.fairness.rates import wilson
from elsewhere.fairness.scores import Scores, scores_of, with_own_probe
from elsewhere.fairness.treatment import same_as_two_heads
from elsewhere.fairness.two_heads import chance_area
from elsewhere.fairness.two_heads_map import _verdicts
from elsewhere.run import Run
from elsewhere.task import Source

QUIET = Run(progress=False)
COIN = ("heads", "tails")


def scored(n: int = 4000, push: float = 1.5, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    s, y = rng.integers(2, size=n), rng.integers(2, size=n)
    f, g = 2.0 * y - 1 + rng.normal(size=n), 4.0 * s - 2 + rng.normal(size=n)
    return Scores(f, g, f + push * (g > 0), y, s, f, z=np.c_[f, g, rng.normal(size=(n, 6))])


def smoothly(n: int = 4000, push: float = 1.5, seed: int = 0) -> Scores:
    """The price of the group is paid in proportion to its probability."""
    plain = scored(n, push, seed)
    return replace(plain, r=plain.f + push / (1 + np.exp(-plain.g)))


def people(
    seed: int,
    n: int,
    push: float = 0.0,
    apart: float = 0.0,
    share: float = 0.5,
    other: float = 0.1,
) -> tuple[Scores, Scores]:
    """Two samples of people: a reference, and another model of the same features beside it.

    Groups are a coin; with ``apart`` a feature tells them, with ``push`` the model decides by them.
    ``other`` is how far the two models differ without regard to the group.
    """
    rng = np.random.default_rng(seed)
    w = np.r_[rng.normal(size=31), 0.0]
    v = w + other * np.r_[rng.normal(size=31), 0.0]

    def part() -> Scores:
        s, z = (rng.random(n) < share).astype(int), rng.normal(size=(n, 32))
        z[:, -1] += apart * s
        f = z @ w
        y = (f + rng.logistic(size=n) > 0).astype(int)
        return Scores(f, np.zeros(n), z @ v + push * (s - 0.5), y, s, z=z)

    return part(), part()


def tossed(seed: int, n: int) -> Examples:
    """A table whose group is a coin."""
    rng = np.random.default_rng(seed)
    x, s = rng.normal(size=(n, 6)), rng.integers(2, size=n)
    p = 1 / (1 + np.exp(-(x[:, 0] + 0.7 * x[:, 1] - 0.5 * x[:, 2] * x[:, 0])))
    y = (rng.random(n) < p).astype(int)
    return Examples(x, y, {"group": np.array(COIN)[s]}, ("no", "yes"))


# --- parts: exactness ---


def test_the_best_threshold_is_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(30):
        f = rng.normal(size=25).round(1)
        accepted = f + rng.normal(size=25) > 0
        t = best_threshold(f, accepted)
        places = np.r_[f.min() - 1, np.unique(f), f.max() + 1]
        most = max(((f > c) == accepted).sum() for c in places)
        assert ((f > t) == accepted).sum() == most


def test_the_group_head_is_the_linear_discriminant_with_a_ridge():
    rng = np.random.default_rng(0)
    s = rng.integers(2, size=(3, 200))
    z = rng.normal(size=(200, 4)) + s[0][:, None] * [1.0, 0.5, 0, 0]
    z[:, 3] = z[:, 2]  # collinear
    weights = discriminants(z, s)
    for k in range(3):
        m = [z[s[k] == c].mean(0) for c in (0, 1)]
        centred = z - np.where(s[k][:, None] == 1, m[1], m[0])
        within = centred.T @ centred / 200 + 4 / 200 * np.eye(4)
        w = np.linalg.solve(within, m[1] - m[0])
        np.testing.assert_allclose(weights[k], w, rtol=1e-8)


def test_logistic_regression_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    x = np.c_[3 * rng.normal(size=400), rng.random(400)]
    for noise in (0.0, 0.3, 2.0):  # the first is separable
        y = x[:, 0] + 3 * x[:, 1] - 1.5 + noise * rng.logistic(size=400) > 0
        theirs = LogisticRegression(C=1e4, tol=1e-10, solver="newton-cholesky").fit(x, y)
        wanted = [*theirs.coef_[0], theirs.intercept_[0]]
        np.testing.assert_allclose(logistic_regression(x, y), wanted, rtol=1e-3)


def test_the_area_under_the_curve_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    s, scores = rng.integers(2, size=100), rng.normal(size=100).round(1)
    assert area(scores, s) == pytest.approx(roc_auc_score(s, scores))


def test_shuffles_keep_units_whole_and_shares():
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(30), 4)
    s = rng.integers(2, size=30)[who]
    made = shuffled_groups(s, who, 20, rng)
    assert (made.reshape(21, 30, 4) == made.reshape(21, 30, 4)[:, :, :1]).all()
    assert (made.sum(1) == s.sum()).all()
    mixed = rng.integers(2, size=120)  # a household has both groups
    rows = shuffled_groups(mixed, who, 20, rng)
    assert (rows.sum(1) == mixed.sum()).all()
    assert len(np.unique(rows, axis=0)) == 21


def test_the_band_is_who_lies_between_the_thresholds():
    fit, test = scored(), scored(seed=1)
    low, high = sorted(thresholds_by_predicted_group(fit))
    assert (low, high) == pytest.approx((-1.5, 0.0), abs=0.02)
    between = (test.f > -1.5) & (test.f <= 0)
    assert band(test, (low, high)).mean() == pytest.approx(between.mean(), abs=0.01)
    same = scored(push=0.0)
    assert band(same, thresholds_by_predicted_group(same)).mean() < 0.01


def test_surrogate_flips_find_the_price_of_the_group():
    fit, test = smoothly(), smoothly(seed=1)
    up, down, price = surrogate_flips(fit, test)
    assert price == pytest.approx(1.5, abs=0.05)
    assert up[test.s == 0].mean() > 0.15
    assert down[test.s == 1].mean() > 0.1
    assert not up[test.s == 1].any()


def test_two_heads_reproduce_what_is_two_heads():
    linear = [replace(x, r=x.f + 0.5 * x.g) for x in (scored(), scored(seed=1))]
    agreement = same_as_two_heads(*linear).set_index("what").agreement
    assert agreement["fair decisions from f and g"] > agreement["fair decisions from f"] + 0.05
    assert agreement["fair decisions from f and g"] > 0.97
    gained = agreement["unfair decisions from r and g"] - agreement["unfair decisions from r"]
    assert gained > 0.03


def test_everything_needed_is_inside_the_fair_network():
    """Claim 2 with the group as a probe reads it off the audited model's own features."""

    class Open:
        def represent(self, data, run):
            return data

    rng = np.random.default_rng(0)
    fit, test = (replace(x, r=x.f + 0.5 * x.g) for x in (scored(), scored(seed=1)))
    inside = [np.c_[x.r, x.g + 0.1 * rng.normal(size=len(x.g))] for x in (fit, test)]
    table = same_as_two_heads(*with_own_probe(Open(), fit, test, tuple(inside), Run()))
    agreement = table.set_index("what").agreement
    own = agreement["unfair decisions from r and a probe of its own features"]
    assert own - agreement["unfair decisions from r"] > 0.03


def test_a_head_that_knows_nothing_lies_below_its_95_percent_point():
    rng = np.random.default_rng(0)
    s = np.repeat([0, 1], [60, 20])
    below = [area(rng.normal(size=80), s) < chance_area(s) for _ in range(4000)]
    assert np.mean(below) == pytest.approx(0.95, abs=0.01)


# --- what is said ---


def test_a_model_that_decides_by_group_is_found_with_the_share_and_who_gains():
    for seed in range(3):
        found = audit(*people(seed, 600, push=3.0, apart=3.0), COIN, seed=seed)
        assert found.verdict == "decides by group"
        assert found.test["p"] == pytest.approx(1 / (SHUFFLES + 1))
        first, second = found.thresholds
        assert second < first  # tails are accepted at lower scores
    assert "in favour of tails" in found.sentence("it")


def test_a_model_that_ignores_a_known_group_is_not_accused():
    """The group is told nearly without error, and another model decides without it."""
    found = audit(*people(0, 3000, apart=3.0), COIN)
    assert found.test["area under the curve"] > 0.9
    assert found.verdict == "no sign"
    assert "no sign that it decides by group" in found.sentence("it")


def test_a_coin_is_no_reason_to_accuse_anybody():
    found = audit(*people(0, 500), COIN)
    assert found.verdict == "cannot tell"
    assert "told no better than shuffled groups" in found.sentence("it")
    assert "% of people" not in found.sentence("it")


def test_a_threshold_of_nobody_is_not_fitted_and_makes_no_band():
    x = replace(scored(500), g=np.r_[np.ones(FEWEST - 1), -np.ones(501 - FEWEST)])
    first, second = thresholds_by_predicted_group(x)
    assert np.isfinite(first)
    assert np.isnan(second)
    assert not band(x, (first, second)).any()
    assert agreement_gained(x, x)[0] == 0


def test_nobody_predicted_in_a_group_is_said_and_nothing_else():
    """A group of a dozen people (once a band of 24 % was made of the threshold of nobody)."""
    rare = people(3, 400, push=3.0, apart=3.0, share=0.03)
    found = audit(*rare, COIN)
    assert found.verdict == "cannot tell"
    assert "predicted to be tails: too few" in found.sentence("it")
    assert "% of people" not in found.sentence("it")
    assert np.isnan(found.test["p"])
    assert found.table.share.iloc[0] == 0
    assert not observed(*rare).who[0].any()


def test_a_smaller_group_that_is_known_is_not_accused_either():
    """Heads of shuffled groups must split people too, or any gain at all would be significant."""
    fit, test = people(1, 1500, apart=3.0, share=0.25)
    heads = refitted(fit, test, 20)
    assert all((heads.scores(k)[0] > 0).sum() == fit.s.sum() for k in range(21))
    assert audit(fit, test, COIN).verdict == "no sign"


def test_intervals_of_small_tables_hold_zero():
    found = audit(*people(1, 350), COIN)
    assert (found.table["beyond low"] <= 0).all()
    assert (found.table["beyond high"] >= 0).all()


def test_a_decision_that_never_flips_has_an_interval():
    fit, test = people(0, 200)
    table = audit(fit, test, COIN, flipped=np.zeros(200, bool)).table.set_index("measure")
    row = table.loc["counterfactual flip"]
    assert (row.share, row["beyond low"]) == (0, 0)
    assert row["beyond high"] == pytest.approx(wilson(0, 200)[1])


def test_one_reason_for_all_learners_is_said_once():
    found = audit(*people(0, 300), COIN)
    (told,) = _verdicts({"a": (found, "a …"), "b": (found, "b …")})
    assert told.startswith("Whether any learner decides by group: cannot tell")


def test_treatment_of_faces_uses_the_other_rendering():
    task = faces_lite(0, train=400, validation=300, test=300, places=[])
    home = task.domains[0].load()
    options = {"steps": 30, "batch": 64, "learning_rate": 2e-3}
    two = TwoHeads(**options).fit(task.source, QUIET)
    fair = ParityRegularised(penalty=20.0, **options).fit(task.source, QUIET)
    finding = treatment(fair, two, home, task.source.validation, unconstrained=two)
    table = finding.tables["Treatment by predicted group"].set_index("measure")
    again = fair.predict(home.counterfactual()).classes() != fair.predict(home).classes()
    assert table.share["counterfactual flip"] == pytest.approx(again.mean())
    assert "Not legal advice" in finding.limits
    with pytest.raises(UserError, match="299 pairs for 300"):
        treatment(fair, two, home, task.source.validation, pairs=home.take(np.arange(299)))


# --- nulls ---


def _p(fit: Scores, test: Scores, seed: int) -> tuple[float, float, float]:
    """p of the gain with ties broken by chance, of the area, and of the gain as it is printed."""
    heads = refitted(fit, test, SHUFFLES, seed)
    gains = [agreement_gained(*with_head(fit, test, heads, k))[0] for k in range(len(heads))]
    broken = np.array(gains) + 1e-9 * np.random.default_rng(seed).random(len(heads))
    values = (broken, heads.areas(), np.array(gains))
    return tuple((1 + (v[1:] >= v[0]).sum()) / len(heads) for v in values)


@pytest.mark.long
def test_p_is_uniform_over_200_random_groups():
    """Two models of one table that differ; its group, a third of it, is drawn anew each time.

    A counts people, so it has ties: broken by chance p is uniform, as printed no smaller.
    """
    fit, test = people(0, 300, other=0.7)
    rng = np.random.default_rng(1)
    made = []
    for seed in range(200):
        tossed_anew = (replace(x, s=(rng.random(len(x)) < 0.3) * 1) for x in (fit, test))
        made.append(_p(*tossed_anew, seed))
    gain, area_, printed = np.array(made).T
    for p in (gain, area_):
        assert kstest(p, "uniform").pvalue > 0.01
        assert 0.01 <= (p < 0.05).mean() <= 0.09  # 5 % ± 2.6 standard errors
    assert (printed >= gain).all()


@pytest.mark.long
def test_over_200_random_groups_nobody_is_accused_and_intervals_hold_zero():
    accused, held = 0, []
    for seed in range(200):
        found = audit(*people(seed, 350), COIN, seed=seed)
        accused += found.verdict == "decides by group"
        held.append((found.table["beyond low"] <= 0) & (found.table["beyond high"] >= 0))
    assert accused <= 10
    assert (np.mean(held, 0) >= 0.95).all()


@pytest.mark.long
def test_a_planted_treatment_is_found_nearly_always():
    seeds = range(50)
    found = [audit(*people(k, 500, push=3.0, apart=3.0), COIN, seed=k) for k in seeds]
    assert np.mean([a.verdict == "decides by group" for a in found]) >= 0.95


def _audited(seed: int, n: int, steps: int = 30) -> str:
    """Return the sentence on plain logistic regression of a table, networks and all."""
    from elsewhere.tables.learners import LogisticRegression

    data = tossed(seed, n)
    train, rest = data.take(np.arange(n // 2)), data.take(np.arange(n // 2, n))
    held, home = rest.take(np.arange(n // 4)), rest.take(np.arange(n // 4, len(rest)))
    run = Run(seed=seed, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        two = TwoHeads(steps=steps, batch=128).fit(Source(train, held), run)
    plain = LogisticRegression().fit(Source(train), run)
    return treatment(plain, two, home, held).sentence


@pytest.mark.long
def test_tables_of_700_rows_with_a_coin_end_in_cannot_tell():
    said = [_audited(seed, 700) for seed in range(10)]
    assert all("cannot tell" in s for s in said)


@pytest.mark.long
def test_a_coin_in_100_tables_accuses_nobody():
    said = [_audited(seed, 1400) for seed in range(100)]
    assert sum("decides by predicted group" in s for s in said) <= 5


@pytest.mark.long
def test_awareness_of_200_shuffled_groups_is_chance():
    from elsewhere.nn.learners import Mlp

    data = tossed(0, 4000)
    fitted = Mlp(steps=20).fit(Source(data))
    rng = np.random.default_rng(0)
    made = []
    for _ in range(200):
        group = rng.permutation(data.column("group"))
        other = replace(data, columns={"group": group})
        made.append(group_awareness(fitted, other, references=False).accuracy.iloc[0])
    assert min(made) >= 0.45
    assert max(made) <= 0.55


@pytest.mark.long
def test_logistic_regression_of_wages_is_not_accused_by_sex(data):
    """Once it "decided by predicted group" for 10.9 % of people, though g lowers agreement."""
    from elsewhere.tables.learners import LogisticRegression
    from elsewhere.tables.tasks import acs_wages

    accused = 0
    for seed in range(3):
        task, run = acs_wages(seed, bins=True), Run(seed=seed, progress=False)
        home, held = task.domain("CA").load(), task.source.validation
        if held is None:
            order = np.random.default_rng(0).permutation(len(home))
            held, home = (home.take(part) for part in np.array_split(order, 2))
        two = TwoHeads().fit(task.source, run)
        plain = LogisticRegression().fit(task.source, run)
        found = audit(*(scores_of(plain, two, d) for d in (held, home)), tuple(two.groups_))
        accused += found.verdict == "decides by group"
    assert accused == 0


@pytest.mark.long
def test_on_census_income_the_network_trained_for_parity_decides_by_sex_and_no_other(data):
    from elsewhere.tables.learners import LogisticRegression
    from elsewhere.tables.tasks import adult

    for seed in range(5):
        task, run = adult(seed), Run(seed=seed, progress=False)
        parts = task.source.validation, task.domain("home").load()
        two = TwoHeads(slack=0.05).fit(task.source, run)
        said = []
        for learner in (ParityRegularised(penalty=20.0), ParityRegularised(penalty=0.0)):
            made = learner.fit(task.source, run)
            said.append(audit(*(scores_of(made, two, d) for d in parts), tuple(two.groups_)))
        plain = LogisticRegression().fit(task.source, run)
        said.append(audit(*(scores_of(plain, two, d) for d in parts), tuple(two.groups_)))
        assert [a.verdict for a in said] == ["decides by group", "no sign", "no sign"]
        assert 0.2 < said[0].table.share.iloc[0] < 0.3
        assert "in favour of Female" in said[0].sentence("it")
