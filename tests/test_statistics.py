"""What many trials say together, recomputed from tables whose answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

import elsewhere as ew
from elsewhere.assay import statistics as s
from elsewhere.assay.study import make_learner
from elsewhere.data import Examples
from elsewhere.errors import Undefined, UserError
from elsewhere.metrics.classification import top_accuracy
from elsewhere.metrics.groups import demographic_disparity
from elsewhere.metrics.inferred_groups import INFERRED_DISPARITY, inferred_groups, scale_gradient
from elsewhere.nn.combined import Ensemble, TemperatureScaled, temperature


def table(values: dict[tuple[str, str], dict[str, Any]], metrics: dict[str, bool], options: pd.DataFrame | None = None) -> pd.DataFrame:
    """Scores of trials: (task, domain) -> metric -> one value a trial; domain "home" is home."""
    rows = []
    for (task, domain), of in values.items():
        for metric, column in of.items():
            for k, v in enumerate(column):
                told = {} if options is None else options.iloc[k].to_dict()
                rows.append({
                    "trial": f"{task}-{k}", "task": task, "learner": f"m{k}", "learner_name": "m", "seed": 0, "domain": domain, "role": "home" if domain == "home" else "elsewhere",
                    "metric": metric, "value": float(v), "error": 0.01, "n": 1000, "higher_is_better": metrics[metric], **told,
                })  # fmt: skip
    return pd.DataFrame(rows)


def world(pairs: int = 3, trials: int = 20, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    values = {}
    for p in range(pairs):
        accuracy = rng.uniform(0.6, 0.9, trials)
        values[(f"t{p}", "home")] = {"accuracy": accuracy, "nll": 1 - accuracy + 0.1 * rng.normal(size=trials), "ece": rng.uniform(0, 0.2, trials)}
        values[(f"t{p}", "there")] = {"accuracy": 0.5 * accuracy + 0.1 * p, "nll": 2 - accuracy, "ece": rng.uniform(0, 0.4, trials)}
    return table(values, {"accuracy": True, "nll": False, "ece": False})


def test_correlations_are_within_pairs_with_signs_turned() -> None:
    scores = world()
    told = s.correlations(scores).set_index(["measure", "with"])
    assert told.loc[("accuracy", "accuracy"), "rho"] == pytest.approx(1)
    assert told.loc[("accuracy", "nll"), "rho"] == pytest.approx(1)  # less loss is better: the sign is turned
    by_hand = []
    for p in range(3):
        part = scores[scores.task == f"t{p}"]
        x = part[(part.domain == "home") & (part.metric == "nll")].value.to_numpy()
        y = part[(part.domain == "there") & (part.metric == "accuracy")].value.to_numpy()
        by_hand.append(spearmanr(-x, y).statistic)
    assert told.loc[("nll", "accuracy"), "rho"] == pytest.approx(np.median(by_hand))
    assert told.loc[("nll", "accuracy"), "least"] == pytest.approx(min(by_hand))
    assert told.loc[("nll", "accuracy"), "pairs"] == 3


def test_pooling_pairs_is_marked_because_it_turns_signs() -> None:
    rng = np.random.default_rng(0)
    values = {}
    for p in range(4):  # within each pair better at home is worse there; over pairs both rise
        x = 0.5 + 0.1 * p + 0.05 * rng.random(12)
        values[(f"t{p}", "home")] = {"accuracy": x}
        values[(f"t{p}", "there")] = {"accuracy": 0.1 + 0.2 * p - x / 4 + 0.2}
    told = s.correlations(table(values, {"accuracy": True})).iloc[0]
    assert told.rho == pytest.approx(-1)
    assert told.pooled > 0.5


def test_partial_correlation_is_that_of_the_ranks_residuals() -> None:
    rng = np.random.default_rng(1)
    a, noise = rng.random(40), rng.normal(size=(2, 40))
    values = {("t", "home"): {"accuracy": a, "other": a + 0.3 * noise[0]}, ("t", "there"): {"accuracy": a + 0.3 * noise[0] + 0.1 * noise[1], "other": a}}
    told = s.correlations(table(values, {"accuracy": True, "other": True}), given="accuracy").set_index(["measure", "with"])
    ranks = pd.DataFrame({"z": a, "x": values[("t", "home")]["other"], "y": values[("t", "there")]["accuracy"]}).rank()
    design = np.c_[np.ones(40), ranks.z]
    rest = [ranks[c] - design @ np.linalg.lstsq(design, ranks[c], rcond=None)[0] for c in ("x", "y")]
    assert told.loc[("other", "accuracy"), "rho"] == pytest.approx(np.corrcoef(*rest)[0, 1])
    assert ("accuracy", "accuracy") not in told.index  # nothing is added by itself


def test_factor_analysis_finds_two_planted_factors() -> None:
    rng = np.random.default_rng(0)
    names = {f"m{k}": True for k in range(6)}
    values = {}
    for p in range(4):
        two = rng.normal(size=(2, 60))
        values[(f"t{p}", "home")] = {f"m{k}": two[k // 3] + 0.3 * rng.normal(size=60) + 5 * p for k in range(6)}
        values[(f"t{p}", "there")] = {f"m{k}": two[k // 3] + 0.3 * rng.normal(size=60) - p for k in range(6)}
    told = s.factor_loadings(table(values, names))
    loadings = told.filter(like="factor ").abs().to_numpy()
    assert loadings.shape == (12, 2)
    group = told.measure.str[1:].astype(int).to_numpy() // 3
    main = loadings.argmax(1)
    assert all(len(set(main[group == g])) == 1 for g in (0, 1))
    assert loadings.max(1).min() > 0.8
    assert loadings.min(1).max() < 0.3
    assert s.parallel_analysis(rng.normal(size=(500, 6))) == 1  # noise alone: never more than one


def choices_table(gain: float = 0.05, robust: float = 0.0) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    options = pd.DataFrame([(a, b) for b in range(12) for a in ("none", "crop")], columns=["augment", "width"])
    values = {}
    for p in range(4):
        base = np.repeat(rng.uniform(0.55, 0.85, 12), 2)
        crop = (options.augment == "crop").to_numpy()
        home = base + gain * crop
        values[(f"t{p}", "home")] = {"accuracy": home}
        values[(f"t{p}", "there")] = {"accuracy": 0.8 * home - 0.05 * p + robust * crop + 0.001 * rng.normal(size=24)}
    return table(values, {"accuracy": True}, options)


def test_what_helps_is_the_paired_difference() -> None:
    told = s.helps(choices_table(), "augment", "accuracy").iloc[0]
    assert (told["from"], told["to"]) == ("none", "crop")
    assert told.gain == pytest.approx(0.04, abs=0.002)
    assert told["gain low"] < 0.04 < told["gain high"]
    assert abs(told["at fixed home"]) < 0.01  # a better model, not a more robust one
    told = s.helps(choices_table(gain=0.0, robust=0.06), "augment", "accuracy").iloc[0]
    assert told.gain == pytest.approx(0.06, abs=0.002)
    assert told["at fixed home"] > 0.04
    with pytest.raises(UserError, match="did you mean 'augment'"):
        s.helps(choices_table(), "augmnet", "accuracy")


def test_shares_of_variance_are_type_two_sums_of_squares() -> None:
    scores = choices_table(gain=0.1)
    told = s.variance_shares(scores, "accuracy").set_index("choice").share
    points = scores[scores.domain == "there"]
    y = points.value.to_numpy()

    def rest(columns: list[str]) -> float:
        x = pd.get_dummies(points[columns].astype(str), drop_first=True).to_numpy(float)
        x = np.c_[np.ones(len(x)), x]
        return float(np.square(y - x @ np.linalg.lstsq(x, y, rcond=None)[0]).sum())

    total = float(np.square(y - y.mean()).sum())
    full = rest(["task", "augment", "width"])
    assert told["augment"] == pytest.approx((rest(["task", "width"]) - full) / total)
    assert told["pair"] == pytest.approx((rest(["augment", "width"]) - full) / total)
    assert told["rest"] == pytest.approx(full / total)


def test_regret_of_every_criterion_by_hand() -> None:
    values = {
        ("t", "home"): {"accuracy": [0.9, 0.8, 0.7], "nll": [0.5, 0.2, 0.3]},
        ("t", "a"): {"accuracy": [0.3, 0.6, 0.5], "nll": [1, 1, 1]},
        ("t", "b"): {"accuracy": [0.2, 0.3, 0.7], "nll": [1, 1, 1]},
    }
    scores = table(values, {"accuracy": True, "nll": False})
    told = s.regrets(scores, "accuracy").set_index("by").regret
    assert "oracle" not in told  # on the examples that it chose by it would cost nothing, whatever it chose
    assert told["accuracy at home"] == pytest.approx(((0.6 - 0.3) + (0.7 - 0.2)) / 2)
    assert told["nll at home"] == pytest.approx((0 + (0.7 - 0.3)) / 2)
    assert told["other domains"] == pytest.approx(((0.6 - 0.5) + (0.7 - 0.3)) / 2)
    assert told["at random"] == pytest.approx(((0.6 - 1.4 / 3) + (0.7 - 0.4)) / 2)
    one, other = pd.Series([0.4, 0.6, 0.5], ["t-0", "t-1", "t-2"]), pd.Series([0.3, 0.5, 0.6], ["t-0", "t-1", "t-2"])
    halved = s.regrets(scores, "accuracy", lambda trials, domain: (one, other)).set_index("by").regret
    assert halved["oracle"] == pytest.approx(((0.6 - 0.5) + (0.6 - 0.5)) / 2)
    picked = s.chosen(scores, "accuracy", "nll")
    assert picked.learner.tolist() == ["m1", "m1"]
    assert picked.regret.tolist() == pytest.approx([0.0, 0.4])
    with pytest.raises(UserError, match="no measure 'nil'"):
        s.chosen(scores, "accuracy", "nil")


def test_other_domains_choose_for_one_that_is_left_out() -> None:
    """Each task leaves out one domain: a configuration is chosen by how it does on the others when they were left out."""
    away = {"a": [0.3, 0.6, 0.5], "b": [0.2, 0.3, 0.7], "c": [0.8, 0.1, 0.4]}
    values = {}
    for name, there in away.items():
        values[(f"t:leave_out={name}", "home")] = {"accuracy": [0.9, 0.8, 0.7]}
        values[(f"t:leave_out={name}", name)] = {"accuracy": there}
    told = s.regrets(table(values, {"accuracy": True}), "accuracy").set_index("by")
    by_hand = []
    for name, there in away.items():
        others = np.mean([v for k, v in away.items() if k != name], axis=0)
        by_hand.append(max(there) - there[int(np.argmax(others))])
    assert told.regret["other domains"] == pytest.approx(np.mean(by_hand))
    assert told.pairs["other domains"] == 3


def test_trials_that_tie_share_the_choice() -> None:
    values = {("t", "home"): {"accuracy": [0.9, 0.9, 0.7]}, ("t", "a"): {"accuracy": [0.3, 0.6, 0.5]}}
    for order in ([0, 1, 2], [1, 0, 2]):
        turned = {k: {m: [v[i] for i in order] for m, v in of.items()} for k, of in values.items()}
        told = s.regrets(table(turned, {"accuracy": True}), "accuracy").set_index("by").regret
        assert told["accuracy at home"] == pytest.approx(0.15)


def test_too_few_trials_are_told() -> None:
    scores = world(trials=5)
    for function in (s.correlations, s.factor_loadings):
        with pytest.raises(UserError, match="at least 8 trials"):
            function(scores)


def test_sides_of_a_learner_lie_in_nought_to_one(tmp_path: Path) -> None:
    result = ew.assay("digits/shifts:severities=3", learners=["prior", "linear-probe:steps=40", "mlp:steps=40"], seeds=1, out=tmp_path / "r")
    sides = s.radar(result.scores())
    assert list(sides.columns) == ["accuracy at home", "accuracy under stress", "1 - calibration error", "1 - disparity"]
    assert ((sides >= 0) & (sides <= 1)).all(axis=None)
    stress = s.corruption_table(result.scores(), "accuracy").set_index("learner")
    rows = result.scores().query("metric == 'accuracy' and role == 'stress' and learner == 'prior'")
    assert stress.loc["prior", "all"] == pytest.approx(rows.value.mean())


def test_a_sweep_tells_what_helps_and_how_to_choose(tmp_path: Path) -> None:
    learners = [f"mlp:steps=60,samples={n},width={w}" for n in (2, 5, 20) for w in (8, 16, 32)]
    result = ew.assay("penguins", learners=[*learners, "prior"], seeds=2, out=tmp_path / "r")
    assert set(result.choices()) == {"samples", "width"}
    assert result.helps("samples")[["from", "to"]].to_numpy().tolist() == [["2", "5"], ["2", "20"]]  # a prior, which has none, is in nobody's way
    assert result.helps("samples").gain.max() > 0
    assert set(result.shares().choice) >= {"samples", "width", "pair"}
    told = result.regrets().set_index("by").regret
    assert 0 <= told["oracle"] < told["at random"]
    assert len(result.choose("nll"))
    page = result.report().read_text()
    for title in ("What helps", "Choosing", "What goes with what", "How many things are measured"):
        assert title in page
    assert any("samples" in line and "elsewhere" in line for line in result.summary())


# --- groups that nobody named -----------------------------------------------------------------------------------------


def random_predictions(n: int = 400, k: int = 4, seed: int = 0, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return scale * rng.normal(size=(n, k)), rng.integers(0, k, n)


def test_the_scale_gradient_is_the_derivative() -> None:
    z, y = random_predictions(50)
    from scipy.special import log_softmax

    h = 1e-6
    loss = lambda f: -log_softmax(f * z, axis=1)[np.arange(50), y]  # noqa: E731
    assert np.allclose(scale_gradient(z, y), (loss(1 + h) - loss(1 - h)) / (2 * h), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_closed_form_beats_every_other_split_and_the_search(seed: int) -> None:
    z, y = random_predictions(12, seed=seed)
    g = scale_gradient(z, y)

    def objective(w: np.ndarray) -> float:
        return 0.5 * ((w * g).mean() ** 2 + ((1 - w) * g).mean() ** 2)

    best = max(objective(np.array([(k >> i) & 1 for i in range(12)], float)) for k in range(2**12))
    assert objective(inferred_groups(z, y).astype(float)) == pytest.approx(best)
    z, y = random_predictions(200, seed=seed)
    searched = inferred_groups(z, y, solver="adam", steps=3000, seed=seed)
    clear = np.abs(scale_gradient(z, y)) > 0.5
    exact = inferred_groups(z, y)
    agree = (searched == exact)[clear].mean()
    assert max(agree, 1 - agree) > 0.95  # the same split, perhaps with the names exchanged


def test_disparity_of_inferred_groups() -> None:
    z, y = random_predictions(300)
    told = INFERRED_DISPARITY.fn(ew.ClassPrediction(logits=z), Examples(z, y, classes=tuple("abcd")))
    assert told.value == pytest.approx(demographic_disparity(z.argmax(1), inferred_groups(z, y)).value)
    sure = np.full((5, 2), [9.0, -9.0])
    one = INFERRED_DISPARITY.fn(ew.ClassPrediction(logits=sure), Examples(sure, np.zeros(5, int), classes=("a", "b")))
    assert one.value == 0
    with pytest.raises(Undefined):
        INFERRED_DISPARITY.fn(ew.ClassPrediction(logits=sure[:1]), Examples(sure[:1], np.zeros(1, int), classes=("a", "b")))


def test_top_k_counts_labels_among_the_best() -> None:
    z, y = random_predictions(200, k=12)
    order = np.argsort(-z, axis=1)[:, :5]
    wanted = np.array([label in row for label, row in zip(y, order, strict=True)])
    prediction, data = ew.ClassPrediction(logits=z), Examples(z, y, classes=tuple("abcdefghijkl"))
    assert (top_accuracy(prediction, data, 5) == wanted).all()
    with pytest.raises(Undefined, match="4 classes"):
        top_accuracy(ew.ClassPrediction(logits=z[:, :4]), Examples(z, y % 4, classes=tuple("abcd")), 5)


# --- learners around learners -----------------------------------------------------------------------------------------


def test_temperature_is_found_and_changes_no_class() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 3))
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    y = np.array([rng.choice(3, p=row) for row in p])
    assert temperature(5 * z, y) == pytest.approx(5, rel=0.1)
    x = Examples(z.astype(np.float32), y, classes=("a", "b", "c"))
    base = make_learner("mlp", {"steps": 60})
    plain, scaled = base.fit(ew.Source(x)), TemperatureScaled(base).fit(ew.Source(x, validation=x))
    assert (plain.predict(x).classes() == scaled.predict(x).classes()).all()
    assert scaled.temperature_ > 0


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    rng = np.random.default_rng(0)
    x = Examples(rng.normal(size=(60, 3)).astype(np.float32), np.arange(60) % 2, classes=("a", "b"))
    fitted = Ensemble(make_learner("mlp", {"steps": 5}), members=3).fit(ew.Source(x))
    members = [m.predict(x).probabilities() for m in fitted.members_]
    assert not np.allclose(members[0], members[1])
    assert np.allclose(fitted.predict(x).probabilities(), np.mean(members, axis=0))
    with pytest.raises(UserError, match="at least 1 member"):
        Ensemble(make_learner("mlp", {}), members=0).fit(ew.Source(x))


def test_learners_around_learners_pass_the_check() -> None:
    from elsewhere.checks import check_learner
    from elsewhere.tables.tasks import penguins

    for made in (TemperatureScaled(make_learner("mlp", {"steps": 5})), Ensemble(make_learner("mlp", {"steps": 5}), members=2)):
        assert check_learner(made, penguins(0)) == []


def test_a_domain_with_few_examples_is_of_no_kind() -> None:
    from elsewhere.assay.analysis import pairs

    scores = world(pairs=1)
    assert pairs(scores, "accuracy").kind.tolist() == ["line"]
    few = scores.assign(n=np.where(scores.domain == "there", 29, scores.n))
    assert pairs(few, "accuracy").kind.tolist() == ["too few"]
    assert pairs(few, "accuracy").rho.notna().all()  # its numbers are shown
