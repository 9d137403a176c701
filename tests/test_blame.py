"""Which domain the dataset derivative explains, its warnings, and when harm is concentrated."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import elsewhere as ew
from elsewhere.data import Examples
from elsewhere.errors import UserError
from elsewhere.explain import DatasetDerivative, concentration
from elsewhere.explain.concentration import concentrations, corrected, held_by_worst
from elsewhere.explain.overlap import shared_examples

# --- which domain is explained, by which trial ---


@pytest.fixture(scope="module")
def four_states(tmp_path_factory):
    """Four states, each left out in turn; the relation is turned round in AK, the third name."""
    rng = np.random.default_rng(0)
    state = np.repeat(["ME", "CA", "AK", "TX"], 150)
    x = rng.normal(size=(600, 3)).round(3)
    sign = np.where(state == "AK", -1, 1)
    label = np.where(sign * x[:, 0] + 0.3 * rng.normal(size=600) > 0, "yes", "no")
    frame = pd.DataFrame(x, columns=["a", "b", "c"]).assign(state=state, label=label)
    out = tmp_path_factory.mktemp("r") / "states"
    given = {"predict": "label", "domain": "state", "seeds": 1, "out": out}
    return ew.assay(frame, learners=["prior", "logistic-regression"], **given)


QUICK = {"shares": [0.1], "controls": 1, "rerun": False, "shown": 3}


@pytest.mark.parametrize("judge", [None, "AK"])
def test_the_domain_that_fails_is_explained_by_the_task_that_left_it_out(four_states, judge):
    gaps = four_states.gaps().query("role == 'elsewhere' and learner == 'logistic-regression'")
    assert gaps[gaps.low > 0].domain.tolist() == ["AK"]
    finding = four_states.explain("dataset-derivative", judge=judge, **QUICK)
    assert "In AK" in finding.sentence or "in AK" in finding.sentence
    blamed = next(t for title, t in finding.tables.items() if title.startswith("Blame"))
    assert set(blamed["judge"]) == {"AK"}
    assert set(blamed["part"]) == {"ME", "CA", "TX"}  # it was not trained on
    assert "explained by a task that judges it" in finding.limits


def test_each_domain_that_is_asked_for_is_found_in_the_task_that_judges_it(four_states):
    for name in ("ME", "TX"):
        finding = four_states.explain("dataset-derivative", judge=name, **QUICK)
        blamed = next(t for title, t in finding.tables.items() if title.startswith("Blame"))
        assert set(blamed["part"]) == {"ME", "CA", "AK", "TX"} - {name}


def test_a_domain_that_no_task_judges_is_answered_with_those_there_are(four_states):
    with pytest.raises(UserError, match="no domain 'AL'") as told:
        four_states.explain("dataset-derivative", judge="AL", **QUICK)
    assert "AK" in str(told.value)


def test_where_none_fails_beyond_doubt_the_finding_says_so(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(300, 2)).round(3)
    label = np.where(x[:, 0] + rng.normal(size=300) > 0, "yes", "no")
    frame = pd.DataFrame(x, columns=["a", "b"]).assign(place=np.repeat(["p", "q", "r"], 100))
    given = {"predict": "label", "domain": "place", "seeds": 1, "out": tmp_path / "r"}
    result = ew.assay(frame.assign(label=label), learners=["logistic-regression"], **given)
    gaps = result.gaps().query("role == 'elsewhere'")
    assert not (gaps.low > 0).any()
    finding = result.explain("dataset-derivative", **QUICK)
    assert "No domain is worse than home beyond doubt" in finding.limits
    assert str(gaps.sort_values("gap").domain.iloc[-1]) in finding.sentence


# --- examples that judge and are trained on ---


def zeros_and_ones(n: int, seed: int):
    rng = np.random.default_rng(seed)
    return (rng.random((n, 6)) < 0.5).astype(float), rng.integers(2, size=n)


def test_a_table_of_zeros_and_ones_never_trained_on_is_not_accused():
    x, y = zeros_and_ones(800, 0)
    v, u = zeros_and_ones(352, 1)
    d = DatasetDerivative(ridge=1.0).fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        d.gradient((v, u))


def test_the_same_features_with_other_labels_are_other_examples():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 5)), rng.integers(2, size=60)
    d = DatasetDerivative(ridge=1.0).fit(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        d.gradient((x[:20], 1 - y[:20]))


def test_a_judge_that_is_trained_on_is_told_once():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), rng.integers(2, size=60)
    d = DatasetDerivative(ridge=1.0).fit(x, y)
    judge = (np.r_[x[:20], x[:10] + 9], np.r_[y[:20], y[:10]])
    with pytest.warns(UserWarning, match="20 of the judge's 30 examples are training") as heard:
        [d.gradient(judge) for _ in range(3)]
    assert len(heard) == 1


def test_ids_tell_examples_apart_whatever_their_rows_and_start_anew_in_each_domain():
    x, y = zeros_and_ones(50, 0)
    ids, place = np.arange(50).astype(str), np.repeat(["a", "b"], 25)
    data = Examples(x, y, {"id": ids, "domain": place}, ("no", "yes"))
    assert shared_examples(data.take(np.arange(30)), data.take(np.arange(30, 50))) == 0
    assert shared_examples(data.take(np.arange(30)), data.take(np.arange(20, 50))) == 10
    other = Examples(x, y, {"id": ids, "domain": np.full(50, "c")}, ("no", "yes"))
    assert shared_examples(data, other) == 0
    assert shared_examples(Examples(x, y), data) is None


def test_the_explainer_of_a_table_of_few_values_warns_of_nothing(tmp_path):
    x, y = zeros_and_ones(600, 0)
    frame = pd.DataFrame(x.astype(int), columns=list("abcdef"))
    frame = frame.assign(state=np.repeat(["ME", "CA", "AK"], 200), label=np.where(y, "yes", "no"))
    given = {"predict": "label", "domain": "state", "seeds": 1, "out": tmp_path / "r"}
    result = ew.assay(frame, learners=["ridge-readout:ridge=1"], **given)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        finding = result.explain("dataset-derivative", judge="AK", **QUICK)
    assert not [w for w in heard if "training examples" in str(w.message)]
    assert "trained on too" not in finding.limits


# --- concentration ---


def test_the_worst_tenth_of_a_gaussian_holds_44_percent_of_the_harm():
    """∫_{z > 1.2816} z φ(z) dz / ∫_{z > 0} z φ(z) dz = φ(1.2816) / φ(0)."""
    held = held_by_worst(np.random.default_rng(0).normal(size=200_000))
    assert held["share of the harm"].iloc[1] == pytest.approx(0.44, abs=0.005)


def test_a_refit_on_residuals_that_stay_holds_what_the_gradient_holds(monkeypatch):
    rng = np.random.default_rng(0)
    x, alpha = rng.normal(size=(80, 4)), rng.uniform(0.5, 2, 80)
    y = (x[:, 0] + rng.normal(size=80) > 0).astype(int)
    d, judge = DatasetDerivative(ridge=0.7).fit(x, y, alpha), (x[:30] + 0.5, y[:30])
    monkeypatch.setattr(concentration, "REFITS", 1)
    monkeypatch.setattr(concentration, "_permuting", lambda d, _: lambda rng: d.outputs())
    found = concentration._refits(d, x, {"new": judge})["new"][0]
    np.testing.assert_allclose(found, held_by_worst(d.gradient(judge))["share of the harm"])


def test_what_features_do_not_explain_is_a_left_out_refit(monkeypatch):
    monkeypatch.setattr(concentration, "RIDGES", np.array([0.05]))
    rng = np.random.default_rng(0)
    x, t = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    found = concentration.beyond_features(x, t)
    z = np.c_[concentration._expanded(x), np.ones(40)]
    penalty = 0.05 * 40 * np.diag([*np.ones(z.shape[1] - 1), 0])
    for i in (0, 17, 39):
        kept = np.delete(np.arange(40), i)
        w = np.linalg.solve(z[kept].T @ z[kept] + penalty, z[kept].T @ t[kept])
        np.testing.assert_allclose(found[i], t[i] - z[i] @ w, atol=1e-8)


def test_copies_within_a_unit_are_one_observation():
    product = np.random.default_rng(0).normal(size=(50, 3))
    copied, unit = np.repeat(product, 7, 0), np.repeat(np.arange(50), 7)
    found = concentration._score(copied, unit)
    np.testing.assert_allclose(found, concentration._score(product, None))
    assert (np.abs(concentration._score(copied, None)) > 2 * np.abs(found)).all()


def world(seed: int, kind: str, n: int, planted: float = 0.0, moved: float = 1.0):
    """Seven domains with other cases and one relation; a planted share of all labels is wrong.

    Wrong ones are of the domain "0": what is positive is called negative, or 4 is taken off.
    """
    rng = np.random.default_rng(seed)
    place = rng.integers(7, size=n)
    means = rng.normal(0, 0.4, (8, 6))
    x = rng.normal(size=(n, 6)) + means[place]
    v = rng.normal(size=(1000, 6)) + moved * means[-1]
    if kind == "zeros and ones":
        x, v = (x > 0).astype(float), (v > 0).astype(float)
    signal, there = (_relation(z, kind) for z in (x, v))
    if kind == "numbers":
        y, u = signal + rng.normal(size=n), there + rng.normal(size=1000)
        wrong = rng.permutation(np.flatnonzero(place == 0))[: round(planted * n)]
        y[wrong] -= 4
    else:
        y, u = (rng.random(len(s)) < 1 / (1 + np.exp(-4 * s)) for s in (signal, there))
        y, u = y.astype(int), u.astype(int)
        wrong = rng.permutation(np.flatnonzero((place == 0) & (y == 1)))[: round(planted * n)]
        y[wrong] = 0
    columns = {"domain": place.astype(str), "group": rng.integers(2, size=n).astype(str)}
    d = DatasetDerivative(ridge=1.0).fit(x, y)
    return corrected(concentrations(d, x, {"new": (v, u)}, columns))["new"]


def _relation(x, kind):
    if kind == "curved":
        return x[:, 0] + x[:, 1] * x[:, 2] - 0.5 * x[:, 3] ** 2 + 0.5
    return x @ np.array([1, 1, 0.5, 0.5, 0, 0]) - (1.5 if kind == "zeros and ones" else 0)


KINDS = ("classes", "zeros and ones", "curved", "numbers")


def marked(*slow: str, long: tuple[str, ...]):
    """One kind runs among the slow tests, the others among the long ones: 20 to 60 s each."""
    first = [pytest.param(kind, marks=pytest.mark.long) for kind in slow]
    return [*first, *(pytest.param(k, marks=pytest.mark.long) for k in long)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_clean_tables_name_nobody(kind, monkeypatch):
    monkeypatch.setattr(concentration, "REFITS", 20)
    found = [world(seed, kind, 700) for seed in range(2)]
    assert not any(c.concentrated or len(c.over_represented()) for c in found)


def test_wrong_labels_of_one_domain_are_named(monkeypatch):
    monkeypatch.setattr(concentration, "REFITS", 20)
    named = world(0, "classes", 4000, planted=0.02, moved=0).over_represented()
    assert named["part"].tolist() == ["0"]
    row = named.iloc[0]
    assert row["share of the worst"] > 2 * row["share of all"]


@pytest.mark.parametrize("kind", marked("zeros and ones", long=("classes", "curved", "numbers")))
def test_nothing_planted_names_nothing_in_19_of_20_tables(kind, monkeypatch):
    monkeypatch.setattr(concentration, "REFITS", 29)
    found = [world(seed, kind, 800) for seed in range(100)]
    assert np.mean([c.concentrated or len(c.over_represented()) > 0 for c in found]) <= 0.05


@pytest.mark.parametrize("kind", marked("classes", long=("numbers",)))
def test_two_percent_wrong_labels_of_one_domain_are_named_nearly_always(kind, monkeypatch):
    monkeypatch.setattr(concentration, "REFITS", 5)
    found = [world(s, kind, 4000, planted=0.02, moved=0).over_represented() for s in range(20)]
    assert np.mean(["0" in set(named["part"]) for named in found]) >= 0.9


@pytest.mark.long
@pytest.mark.parametrize("n", [50, 200])
def test_intervals_of_blame_hold_the_truth(n: int) -> None:
    """One fitted source, 100 judges of n cases drawn anew: the blame of a judge of 100,000, scaled to n, lies inside."""
    rng = np.random.default_rng(0)

    def draw(n: int, first: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(size=(n, 5))
        return x, (first * x[:, 0] + 0.5 * x[:, 1] + rng.normal(size=n) > 0).astype(int)

    x, y = draw(600)
    domain = np.array(["a", "b", "c"])[rng.integers(3, size=600)]
    y[(domain == "c") & (rng.random(600) < 0.3)] ^= 1
    fitted = DatasetDerivative(ridge=1.0).fit(x, y)

    def blamed(n: int) -> pd.DataFrame:
        return fitted.blame({"there": draw(n, 0.5)}, domain=domain).set_index("domain")

    truth = blamed(100_000).blame * n / 100_000
    tables = [blamed(n) for _ in range(100)]
    inside = sum((t["blame low"] <= truth) & (truth <= t["blame high"]) for t in tables)
    assert (inside >= 89).all(), inside
    assert (inside <= 99).all(), inside
