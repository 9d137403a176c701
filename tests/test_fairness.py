"""Two heads: frontiers against brute force and linear programming, treatment, learners, and what goes wrong."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

import elsewhere as ew
from elsewhere import catalogue
from elsewhere.checks import check_learner
from elsewhere.data import Examples, named_column, own
from elsewhere.errors import UserError
from elsewhere.fairness import GroupThresholds, MassagedLabels, Merged, ParityRegularised, Reweighed, TwoHeads, disparity_regulariser, group_awareness
from elsewhere.fairness.faces import ELSEWHERE, faces, faces_lite
from elsewhere.fairness.frontier import base_score, best_merges, default_slacks, frontier, group_thresholds
from elsewhere.fairness.rates import cells, ddp, disparity, groups_of, p_ratio, sampling_error
from elsewhere.fairness.regularised import stratified_order
from elsewhere.run import Run
from elsewhere.task import Domain, Source, Task


def crowd(n: int = 300, seed: int = 0, groups: int = 2) -> Examples:
    rng = np.random.default_rng(seed)
    s = rng.integers(groups, size=n)
    y = (rng.random(n) < 0.3 + 0.4 * (s == 1)).astype(int)
    x = np.c_[rng.normal(size=(n, 3)) + y[:, None], rng.normal(size=n) + 1.5 * s]
    return Examples(x, y, {"group": np.array(["f", "m", "x"])[s], "domain": np.full(n, "home")}, ("no", "yes"))


def small_task(seed: int = 0, groups: int = 2) -> Task[Examples]:
    from elsewhere.metrics import classification_metrics

    return Task(
        Source(crowd(300, seed, groups), crowd(150, seed + 100, groups)),
        [Domain("home", crowd(150, seed + 200, groups), "home"), Domain("there", crowd(120, seed + 300, groups))],
        classification_metrics(True, 2),
    )


# --- merging: exactness ---


def brute(f, t, y, sets, slacks, bs):
    """The naive twin: every b, every threshold between neighbours."""
    best = [(-1.0, np.inf)] * len(slacks)
    for b in bs:
        h = f + b * t
        values = np.unique(h)
        for c in [values[0] - 1, *((values[1:] + values[:-1]) / 2), values[-1] + 1]:
            accepted = h > c
            accuracy, apart = (accepted == y).mean(), disparity(accepted, sets)
            for i, slack in enumerate(slacks):
                if apart <= slack + 1e-12 and (accuracy > best[i][0] + 1e-12 or (abs(accuracy - best[i][0]) < 1e-12 and abs(b) < best[i][1])):
                    best[i] = (accuracy, abs(b))
    return best


@pytest.mark.parametrize("criterion", ["parity", "opportunity", "odds"])
@pytest.mark.parametrize("ties", [False, True])
def test_the_sweep_is_brute_force_over_all_thresholds(criterion, ties):
    from elsewhere.fairness.frontier import _Sweep

    rng = np.random.default_rng(1)
    for n in (9, 60, 200):
        y, s = rng.integers(2, size=n), rng.integers(2, size=n)
        f, t = rng.normal(size=n) + y, rng.normal(size=n) + s
        if ties:
            f, t = f.round(), t.round()
        sets = cells(y, s, criterion)
        if any(not m.any() for masks in sets for m in masks):
            continue
        bs, slacks = np.array([-1.5, -0.5, 0.0, 0.25, 1.0]), [0.0, 0.05, 0.2, 1.0]
        ours = _Sweep(f, t, y, sets).best(bs, slacks)
        for k, b in enumerate(bs):
            theirs = [a for a, _ in brute(f, t, y, sets, slacks, [b])]
            np.testing.assert_allclose(ours[k], theirs, atol=1e-12)
        merges = best_merges(f, t, y, s, slacks, criterion)
        for merge, slack in zip(merges, slacks, strict=True):
            accepted = merge.score(f, t) > 0
            assert (accepted == y).mean() == pytest.approx(merge.accuracy)
            assert disparity(accepted, sets) <= slack + 1e-12
        assert all(m.accuracy >= a - 1e-12 for m, a in zip(merges, ours.max(0), strict=True))


def reference_grid(f, g, y, s, slack, points=40, levels=2):
    """The reference's search: a grid of (b, c), refined around the best; chosen on the same examples here."""
    b_low, b_high, c_low, c_high = -15.0, 15.0, -15.0, 15.0
    best = (-1.0, 0.0, 0.0)
    for _ in range(levels):
        bs, cs = np.linspace(b_low, b_high, points), np.linspace(c_low, c_high, points)
        for b, c in product(bs, cs):
            accepted = f + b * g + c > 0
            if abs(ddp(accepted, s)) <= slack and (accuracy := (accepted == y).mean()) > best[0]:
                best = (accuracy, b, c)
        db, dc = (b_high - b_low) / (points - 1), (c_high - c_low) / (points - 1)
        b_low, b_high, c_low, c_high = best[1] - db, best[1] + db, best[2] - dc, best[2] + dc
    return best[0]


def test_the_search_is_nowhere_worse_than_the_references_grid():
    data = crowd(400, 3)
    rng = np.random.default_rng(0)
    s = (groups_of(data) == "m").astype(int)
    f, g = data.labels * 1.5 + rng.normal(size=400), 2.0 * s - 1 + rng.normal(size=400)
    for slack in (0.01, 0.1):
        (merge,) = best_merges(f, g, data.labels, s, [slack], width=15.0)
        assert merge.accuracy >= reference_grid(f, g, data.labels, s, slack) - 1e-12


def test_two_merged_heads_with_one_randomised_tie_are_the_linear_programme():
    """max E[d (2η - 1)] subject to |DDP| ≤ δ over all rules d: the family 1[η - ½ + b (q - p) > 0] reaches it (spec 04, 2.5)."""
    from scipy.optimize import linprog

    rng = np.random.default_rng(0)
    for _ in range(20):
        n = 40
        eta, q, mass = rng.random(n), rng.random(n), rng.dirichlet(np.ones(n))
        p = mass @ q
        gain, pull = mass * (2 * eta - 1), mass * (q - p) / (p * (1 - p))
        delta = 0.3 * abs(pull @ (eta > 0.5))
        truth = -linprog(-gain, A_ub=np.stack([pull, -pull]), b_ub=[delta, delta], bounds=[(0, 1)] * n, method="highs").fun
        best = -np.inf
        start = pull @ (eta > 0.5)
        if abs(start) <= delta:
            best = gain @ (eta > 0.5)
        else:
            for i in range(n):  # the tie lies at one person: b makes the score 0 there
                b = (0.5 - eta[i]) / (q[i] - p)
                d = (eta - 0.5 + b * (q - p) > 1e-12).astype(float)
                d[i] = 0
                wanted = np.sign(start) * delta
                share = (wanted - pull @ d) / pull[i]
                if -1e-12 <= share <= 1 + 1e-12:
                    d[i] = np.clip(share, 0, 1)
                    best = max(best, gain @ d)
        assert best == pytest.approx(truth, abs=1e-9)


def test_thresholds_by_true_group_are_merging_with_a_head_that_knows():
    """If q is 0 or 1, b moves one group's threshold: the best pair of thresholds."""
    rng = np.random.default_rng(0)
    n = 120
    s, y = rng.integers(2, size=n), rng.integers(2, size=n)
    eta = np.clip(0.5 + 0.3 * (y - 0.5) + 0.2 * (s - 0.5) + 0.2 * rng.normal(size=n), 0.01, 0.99)
    (merge,) = best_merges(eta, s.astype(float), y, s, [0.02])
    best = 0.0
    grids = [np.r_[-1, np.sort(eta[s == k]), 2] for k in (0, 1)]
    for a, b in product(*grids):
        accepted = eta > np.where(s == 1, b, a)
        if abs(ddp(accepted, s)) <= 0.02 + 1e-12:
            best = max(best, (accepted == y).mean())
    assert merge.accuracy >= best - 1 / n


def test_several_groups_and_criteria_keep_their_slack():
    data = crowd(600, 1, groups=3)
    codes = np.searchsorted(["f", "m", "x"], groups_of(data))
    rng = np.random.default_rng(0)
    f = 1 / (1 + np.exp(-(2 * data.labels - 1 + rng.normal(size=600))))
    t = np.eye(3)[codes][:, 1:] + 0.3 * rng.normal(size=(600, 2))
    free = disparity(f > 0.5, cells(data.labels, codes, "parity"))
    for slack, merge in zip((0.02, 0.1), best_merges(f, t, data.labels, codes, [0.02, 0.1]), strict=True):
        accepted = merge.score(f, t) > 0
        assert disparity(accepted, cells(data.labels, codes, "parity")) <= slack + 1e-9 < free
        assert len(merge.b) == 2


def test_slacks_are_21_from_a_thousandth_up():
    slacks = default_slacks(0.22)
    assert (len(slacks), slacks[0]) == (21, 0.001)
    assert slacks[-1] < 0.22


def test_thresholds_by_group_are_the_greedy_algorithm():
    """The naive twin: one person at a time, whoever gains most."""
    rng = np.random.default_rng(0)
    for ratio in (1.0, 0.8):
        s = rng.integers(2, size=200)
        z = rng.normal(size=200) + 0.8 * s
        sigma = 1 / (1 + np.exp(-z))
        accepted = z > 0
        a = int(accepted[s == 1].mean() > accepted[s == 0].mean())
        while ratio * accepted[s == a].mean() - accepted[s != a].mean() >= 0:
            gains = np.full(200, -np.inf)
            down, up = (s == a) & accepted, (s != a) & ~accepted
            gains[down] = ratio / ((s == a).sum() * (2 * sigma[down] - 1))
            gains[up] = 1 / ((s != a).sum() * (1 - 2 * sigma[up]))
            accepted[gains.argmax()] ^= True
        t0, t1 = group_thresholds(z, s, ratio)
        np.testing.assert_array_equal(z > np.where(s == 1, t1, t0), accepted)
    assert group_thresholds(np.array([1.0, -1.0, 1.0, -1.0]), np.array([0, 0, 1, 1]), 0.5) == (0.0, 0.0)  # the ratio holds already


# --- rates ---


def test_rates_are_fairlearns():
    metrics = pytest.importorskip("fairlearn.metrics")
    rng = np.random.default_rng(0)
    y, s, d = rng.integers(2, size=300), rng.integers(2, size=300), rng.integers(2, size=300)
    assert abs(ddp(d, s)) == pytest.approx(metrics.demographic_parity_difference(y, d, sensitive_features=s))
    assert p_ratio(d, s) == pytest.approx(metrics.demographic_parity_ratio(y, d, sensitive_features=s))
    assert disparity(d == 1, cells(y, s, "odds")) == pytest.approx(metrics.equalized_odds_difference(y, d, sensitive_features=s))
    frame = metrics.MetricFrame(metrics={"rate": metrics.selection_rate}, y_true=y, y_pred=d, sensitive_features=s)
    assert frame.by_group["rate"].tolist() == pytest.approx([d[s == 0].mean(), d[s == 1].mean()])


def test_the_sampling_error_is_that_of_simulations():
    rng = np.random.default_rng(0)
    s = np.repeat([0, 1], [120, 60])
    draws = [ddp(rng.random(180) < 0.4, s) for _ in range(4000)]
    accepted = np.zeros(180)
    accepted[:72] = 1
    assert sampling_error(rng.permutation(accepted), s) == pytest.approx(np.std(draws), rel=0.05)


def test_groups_are_names_arrays_and_intersections():
    frame = pd.DataFrame({"age": [1.0, 2.0, 3.0], "sex": ["f", "m", "f"]})
    data = Examples(frame, np.array([0, 1, 0]), {"group": np.array(["a", "b", "b"])}, ("n", "y"))
    assert groups_of(data, "sex").tolist() == ["f", "m", "f"]  # of the table itself
    assert groups_of(data, ["group", "sex"]).tolist() == ["a, f", "b, m", "b, f"]
    assert groups_of(data, np.array([1.0, 0.0, 1.0])).tolist() == ["1", "0", "1"]
    index = pd.MultiIndex.from_arrays([["a", "b", "b"], ["f", "m", "f"]])
    assert groups_of(data, index).tolist() == ["a, f", "b, m", "b, f"]


# --- the regulariser and training ---


def test_the_regulariser_is_its_formula_and_differentiable():
    torch.manual_seed(0)
    f, s = torch.randn(50, dtype=torch.float64, requires_grad=True), torch.randint(0, 2, (50,))
    p = torch.sigmoid(f)
    apart = p[s == 1].mean() - p[s == 0].mean()
    assert disparity_regulariser(f, s).item() == pytest.approx(apart.item() ** 2)
    assert disparity_regulariser(f, s, "absolute").item() == pytest.approx(abs(apart.item()))
    assert torch.autograd.gradcheck(lambda z: disparity_regulariser(z, s), f)
    alone = disparity_regulariser(f, torch.zeros(50))
    assert alone.item() == 0
    (gradient,) = torch.autograd.grad(alone, f)
    assert (gradient == 0).all()
    y = torch.arange(50) % 3 == 0
    conditioned = disparity_regulariser(f, s, condition=y)
    assert conditioned.item() == pytest.approx(((p[y & (s == 1)].mean() - p[y & (s == 0)].mean()) ** 2).item())


def test_the_regulariser_works_in_somebody_elses_loop():
    data = crowd(400)
    x, y, s = torch.tensor(data.inputs).float(), torch.tensor(data.labels).float(), torch.tensor(groups_of(data) == "m").long()
    apart = []
    for penalty in (0.0, 20.0):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)
        optimiser = torch.optim.Adam(model.parameters(), 0.05)
        for _ in range(300):
            optimiser.zero_grad()
            f = model(x)[:, 0]
            (torch.nn.functional.binary_cross_entropy_with_logits(f, y) + penalty * disparity_regulariser(f, s)).backward()
            optimiser.step()
        apart.append(abs(ddp((model(x)[:, 0] > 0).numpy(), s.numpy())))
    assert apart[1] < 0.5 * apart[0]


def test_stratified_batches_keep_the_shares_and_each_example_once():
    codes = np.random.default_rng(0).permutation(np.repeat([0, 1], [90, 30]))
    rows = stratified_order(codes, Run(), 24)
    epoch = torch.cat([rows(k) for k in range(5)])
    assert sorted(epoch.tolist()) == list(range(120))
    assert all(abs(int(codes[rows(k)].sum()) - 6) <= 1 for k in range(5))
    assert rows(0).tolist() != rows(5).tolist()


def test_a_batch_without_one_group_is_told():
    data = crowd(60)
    rare = replace(data, columns={**data.columns, "group": np.where(np.arange(60) < 2, "x", "y")})
    with pytest.warns(UserWarning, match="batches lacked a group"):
        ParityRegularised(penalty=1.0, steps=40, batch=4, stratified=False).fit(Source(rare, rare))


@pytest.mark.parametrize("options", [{"penalty": 5.0}, {"penalty": 5.0, "kind": "absolute", "criterion": "odds"}, {"schedule": "plateau", "best_epoch": True}])
def test_regularised_networks_keep_the_contract(options):
    assert check_learner(ParityRegularised(steps=6, batch=64, **options), small_task()) == []


@pytest.mark.parametrize(
    "options",
    [{}, {"slack": 0.05}, {"slack": 0.05, "space": "logit", "group_loss": "raw"}, {"slack": 0.1, "criterion": "opportunity", "group_loss": "cross_entropy"}, {"slack": 0.2, "criterion": "odds"}],
)
def test_two_heads_keep_the_contract(options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert check_learner(TwoHeads(steps=6, batch=64, **options), small_task()) == []


def test_two_heads_of_three_groups():
    fitted = TwoHeads(steps=60, batch=64, slack=0.1).fit(small_task(groups=3).source)
    data = crowd(150, 100, 3)
    codes = np.searchsorted(["f", "m", "x"], groups_of(data))
    assert disparity(fitted.predict(data).classes() == 1, cells(data.labels, codes, "parity")) <= 0.1 + 1e-9
    table = fitted.frontier(data, slacks=3)
    assert {"b m", "b x"} <= set(table)


def test_the_merged_network_is_one_head_and_decides_alike():
    source = small_task().source
    fitted = TwoHeads(steps=100, batch=64, space="logit").fit(source)
    one = fitted.merged(0.05, source.validation)
    data = crowd(100, 9)
    f, g = fitted.scores(data).T
    np.testing.assert_allclose(one.scores(data)[:, 0], f + one.b_ * g + one.c_, atol=1e-4)
    assert one.network_.head.out_features == 1
    codes = (groups_of(source.validation) == "m").astype(int)
    assert abs(ddp(one.predict(source.validation).classes(), codes)) <= 0.05 + 1e-9
    without = replace(data, columns={})  # no group needed
    np.testing.assert_array_equal(one.predict(without).classes(), one.predict(data).classes())


def test_the_merged_network_leaves_as_safetensors_and_traced(tmp_path):
    source = small_task().source
    learner = Merged(TwoHeads(steps=20, batch=64), slack=0.1)
    assert check_learner(learner, small_task()) == []
    fitted = learner.fit(source)
    x = torch.randn(5, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(fitted.network_, x, strict=False)
        traced.save(str(tmp_path / "one.pt"))
        again = torch.jit.load(str(tmp_path / "one.pt"))
    torch.testing.assert_close(again(x)[0], fitted.network_(x).mean)


@pytest.mark.parametrize("learner", [GroupThresholds, MassagedLabels, Reweighed])
def test_baselines_keep_the_contract(learner):
    from elsewhere.tables.learners import LogisticRegression

    assert check_learner(learner(LogisticRegression()), small_task()) == []


def test_thresholds_of_a_predicted_group_need_none():
    from elsewhere.tables.learners import LogisticRegression

    data = crowd(200, 4)
    fitted = GroupThresholds(LogisticRegression(), predicted=True).fit(small_task().source)
    assert fitted.predict(replace(data, columns={})).classes().shape == (200,)
    with pytest.raises(UserError, match="no group column"):
        GroupThresholds(LogisticRegression()).fit(small_task().source).predict(replace(data, columns={}))


def test_a_network_without_penalty_needs_no_group_and_may_predict_the_group():
    data = crowd(200)
    free = ParityRegularised(penalty=0.0, steps=10)
    assert free.fit(Source(replace(data, columns={}))).predict(replace(data, columns={})).classes().shape == (200,)
    GroupThresholds(free, predicted=True).fit(small_task().source)


def test_massaging_makes_the_labels_fair():
    from elsewhere.tables.learners import LogisticRegression

    data = crowd(400)
    codes = (groups_of(data) == "m").astype(int)
    fitted = MassagedLabels(LogisticRegression()).fit(Source(data))
    changed = fitted.changed_
    n0, n1 = (codes == 0).sum(), (codes == 1).sum()
    assert changed == int(np.ceil(n0 * n1 * abs(ddp(data.labels, codes)) / 400 - 1e-9))


@pytest.mark.parametrize("method", ["threshold-optimizer", "exponentiated-gradient", "grid-search", "adversarial", "correlation-remover"])
def test_fairlearns_mitigators_keep_the_contract_and_help(method):
    pytest.importorskip("fairlearn")
    from elsewhere.fairness import FairlearnLearner

    learner = FairlearnLearner(method=method, rounds=20, epochs=3, batch=64)
    assert check_learner(learner, small_task()) == []
    if method == "adversarial":
        return  # one strength does not fit all data: no promise
    big = Source(crowd(3000))
    data = crowd(2000, 7)
    codes = (groups_of(data) == "m").astype(int)
    from elsewhere.tables.learners import LogisticRegression

    plain = abs(ddp(LogisticRegression().fit(big).predict(data).classes(), codes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fair = abs(ddp(learner.fit(big).predict(data).classes(), codes))
    assert fair < 0.5 * plain


def test_the_threshold_optimizer_decides_as_fairlearn_expects_it():
    pytest.importorskip("fairlearn")
    from fairlearn.postprocessing import ThresholdOptimizer
    from sklearn.linear_model import LogisticRegression as Plain

    from elsewhere.fairness import FairlearnLearner

    train, data = crowd(1000), crowd(500, 7)
    fitted = FairlearnLearner(method="threshold-optimizer").fit(Source(train))
    base = Plain(C=1.0, max_iter=1000).fit(train.inputs, train.labels)
    theirs = ThresholdOptimizer(estimator=base, prefit=True, predict_method="decision_function").fit(train.inputs, train.labels, sensitive_features=groups_of(train))
    p = theirs._pmf_predict(data.inputs, sensitive_features=groups_of(data))[:, 1]
    np.testing.assert_array_equal(fitted.predict(data).classes(), (p > 0.5).astype(int))


# --- awareness ---


def test_awareness_reads_the_group_where_it_is():
    rng = np.random.default_rng(0)
    s = rng.integers(2, size=800)
    data = Examples(np.c_[rng.normal(size=(800, 3)), s + 0.1 * rng.normal(size=800)], rng.integers(2, size=800), {"group": s}, ("n", "y"))
    fitted = catalogue.get("learners", "mlp")(steps=5).fit(Source(data))
    table = group_awareness(fitted, data, layers="all")
    assert len(table) >= 4
    assert table.set_index("layer").accuracy["input"] > 0.97
    shuffled = replace(data, columns={"group": rng.permutation(s)})
    assert group_awareness(fitted, shuffled, references=False).accuracy.iloc[0] < 0.6


# --- faces ---


def test_faces_are_as_specified():
    x = faces(4000, 0)
    s = (x.column("group") == "long").astype(int)
    assert x.labels[s == 1].mean() == pytest.approx(0.35, abs=0.03)
    assert x.labels[s == 0].mean() == pytest.approx(0.65, abs=0.03)
    assert (x.column("cue") == s).mean() == pytest.approx(0.95, abs=0.01)
    assert x.inputs.min() >= 0
    assert x.inputs.max() <= 1
    other = x.counterfactual()
    changed = np.abs(other.inputs - x.inputs).mean(0)[0]
    assert changed[4:10, [2, 3, 12, 13]].mean() > 10 * changed[6:10, 7:9].mean()  # the hair's sides, not the middle of the face
    np.testing.assert_array_equal(faces(3, 5).inputs, faces(3, 5).inputs)
    assert faces(3, side=32).inputs.shape == (3, 1, 32, 32)


def test_places_change_what_they_say():
    task = faces_lite(0, train=50, validation=50, test=2000)
    found = {d.name: d.load() for d in task.domains}
    assert set(found) == {"home", *ELSEWHERE}
    agree = {k: (d.column("cue") == (d.column("group") == "long")).mean() for k, d in found.items()}
    assert agree["weaker cue"] == pytest.approx(0.7, abs=0.04)
    assert agree["cue turned round"] == pytest.approx(0.05, abs=0.03)
    assert found["dark backgrounds"].inputs.mean() < found["home"].inputs.mean() - 0.05
    assert np.abs(np.diff(found["blurred"].inputs, axis=3)).mean() < 0.8 * np.abs(np.diff(found["home"].inputs, axis=3)).mean()


# --- what goes wrong ---


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: replace(d, columns={}), "no group column 'group'"),
        (lambda d: replace(d, columns={"group": np.full(300, "f")}), "is 'f' in every row"),
        (lambda d: replace(d, columns={"group": np.where(np.arange(300) < 3, None, "f").astype(object)}), "missing in 3 of 300 rows"),
        (lambda d: replace(d, labels=np.arange(300) % 5, classes=tuple("abcde")), "has 5 values; .* needs two"),
        (lambda d: replace(d, labels=np.arange(300.0), classes=None), "the label is a number"),
        (lambda d: replace(d, columns={"group": np.where(d.labels == 1, "a", "b")}), "is the label itself"),
    ],
)
def test_bad_people_are_told_in_one_line(change, words):
    for learner in (TwoHeads(steps=2), ParityRegularised(steps=2, penalty=1.0)):
        source = Source(change(crowd()))
        import re

        assert re.search(words, str(learner.refuses(source)))
        with pytest.raises(UserError, match=words):
            learner.fit(source)


def test_bad_options_are_told_in_one_line():
    source = small_task().source
    for learner, words in (
        (TwoHeads(space="odds"), "space must be"),
        (TwoHeads(criterion="fair"), "criterion must be"),
        (TwoHeads(group_weight=2.0), "group_weight"),
        (ParityRegularised(kind="cubed"), "kind squared"),
        (Merged("mlp"), "needs base"),
    ):
        assert words in learner.refuses(source)
    with pytest.raises(UserError, match="ratio must lie"):
        group_thresholds(np.zeros(4), np.array([0, 0, 1, 1]), 2.0)
    with pytest.raises(UserError, match="kind must be"):
        disparity_regulariser(torch.zeros(2), torch.tensor([0, 1]), "cubed")


def test_frontiers_say_what_they_cannot():
    rng = np.random.default_rng(0)
    y, s = rng.integers(2, size=60), rng.integers(2, size=60)
    with pytest.raises(UserError, match="no member"):
        frontier(rng.normal(size=60), np.zeros(60), y, np.where(np.arange(60) < 60, 1, 0))
    with pytest.warns(UserWarning, match="finer than the disparity can be told"):
        frontier(rng.normal(size=60), rng.normal(size=60), y, s)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        constant = frontier(np.zeros(60), np.zeros(60), y, s, slacks=[0.1])
    assert constant.accuracy.iloc[0] == pytest.approx(max(y.mean(), 1 - y.mean()))
    assert "constant" in constant.reason.iloc[0]
    with pytest.raises(UserError, match="at least 0"):
        frontier(rng.normal(size=60), rng.normal(size=60), y, s, slacks=[-0.1])


def test_a_group_nobody_can_tell_is_told():
    rng = np.random.default_rng(0)
    data = Examples(rng.normal(size=(9000, 2)), rng.integers(2, size=9000), {"group": rng.integers(2, size=9000)}, ("n", "y"))
    with pytest.warns(UserWarning, match="merging cannot help"):
        TwoHeads(steps=5).fit(Source(data))


def test_scores_without_end_are_clipped():
    assert base_score(np.array([np.inf, -np.inf]), "logit").tolist() == [25.0, -25.0]
    assert base_score(np.array([np.inf]), "probability")[0] < 1


def test_a_group_in_prediction_that_the_source_lacks_is_told():
    from elsewhere.tables.learners import LogisticRegression

    fitted = GroupThresholds(LogisticRegression()).fit(small_task().source)
    with pytest.raises(UserError, match="group 'x' is not in the source"):
        fitted.predict(crowd(50, 3, groups=3))


# --- assays, groups and the explainer ---


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    made = ew.named("small-faces", _small_faces)
    options = "steps=60,batch=64,learning_rate=0.002"
    learners = ["prior", f"parity-regularised:penalty=0,{options}", f"parity-regularised:penalty=20,{options}", f"two-heads:{options}"]
    return ew.assay(made, learners=learners, seeds=1, out=tmp_path_factory.mktemp("r") / "faces")


def _small_faces(seed: int = 0):
    return faces_lite.make(seed, 600, 400, 400, places=["cue turned round"])


def test_groups_are_in_every_assay(result):
    table = result.by_group("acceptance")
    assert set(table.group) == {"bob", "long"}
    each = result.examples()
    mine = each[(each.domain == "home") & (each.group == "long")]
    row = result.by_group().query("domain == 'home' and group == 'long'").iloc[0]
    assert row.low <= row.value <= row.high
    assert row.n == len(mine) / 4
    assert {"ddp", "acceptance", "average_precision"} <= set(result.scores().metric)
    label = next(n for n in table.learner if "penalty=20" in n)
    rates = table[(table.learner == label) & (table.domain == "home")].set_index("group").value
    scores = result.scores().query("metric == 'ddp' and domain == 'home' and learner == @label").value.iloc[0]
    assert scores == pytest.approx(rates["long"] - rates["bob"])
    page = result.report().read_text()
    assert "DDP" in page
    assert "loses most in accuracy" in page or "No group is shown to lose more" in page


def test_the_explainer_says_who_pays_and_what_two_heads_give(result):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        finding = result.explain("two-heads", slacks=5)
    assert "counterfactual flip" in finding.tables["Decisions that depend on the group"].measure.tolist()
    assert any("accuracy against the difference" in t for t in finding.figures)
    assert any("decisions by label score" in t for t in finding.figures)
    assert "How well the group is read off each learner" in finding.figures
    assert "two explicit heads have accuracy" in finding.sentence
    assert "Not legal advice" in finding.limits
    with pytest.raises(UserError, match="no group column 'sex'"):
        result.explain("two-heads:group=sex")


def _crowd_task(seed: int = 0):
    return small_task(seed)


def test_the_explainer_fits_what_the_study_lacks(tmp_path):
    result = ew.assay(ew.named("crowd", _crowd_task), learners=["logistic-regression"], seeds=1, out=tmp_path / "r")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        finding = result.explain("two-heads", slacks=3)
    assert "was fitted for this page" in finding.limits
    assert "loses" in finding.sentence


def test_explainers_without_groups_say_so(tmp_path):
    result = ew.assay("penguins", learners=["prior"], seeds=1, out=tmp_path / "r")
    with pytest.raises(UserError, match="no group column"):
        result.explain("two-heads")


def test_a_column_that_is_called_group_is_not_the_group_of_the_task():
    from elsewhere.fairness.rates import groups_of, read_beside

    frame = pd.DataFrame({"group": ["a", "b", "a"]})
    columns = {"group": np.array(["f", "m", "m"]), own("group"): np.array(["x", "x", "y"])}
    both = Examples(frame, np.array([0, 1, 0]), columns, ("no", "yes"))
    assert groups_of(both).tolist() == ["f", "m", "m"]
    assert groups_of(both, "column:group").tolist() == ["x", "x", "y"]
    assert read_beside("column:group") == TwoHeads(group="column:group").reads == ("group",)
    without = Examples(frame, np.array([0, 1, 0]), classes=("no", "yes"))
    assert groups_of(without, "column:group").tolist() == ["a", "b", "a"]
    with pytest.raises(UserError, match="no group column"):
        groups_of(without)


def test_adult_is_as_specified(data):
    from elsewhere.tables.tasks import adult

    task = adult(0)
    assert [len(task.source.train), len(task.source.validation), len(task.domains[0].load())] == [20_000, 6_000, 6_561]
    assert not {"sex", "race", "native-country", "education", "fnlwgt"} & set(task.source.train.inputs)
    train = task.source.train
    assert named_column(train, "sex").tolist() == train.column("group").tolist()
    assert set(adult(0, domain="workclass").source.train.column("domain")) == {"Private"}


def test_celeba_is_read_from_its_own_files(tmp_path):
    from PIL import Image

    from elsewhere.images.people import celeba

    rng = np.random.default_rng(0)
    (tmp_path / "img_align_celeba").mkdir()
    lines, parts = ["60", "Male Smiling Young"], []
    for k in range(60):
        name = f"{k:06d}.jpg"
        Image.fromarray(rng.integers(255, size=(30, 24, 3), dtype=np.uint8)).save(tmp_path / "img_align_celeba" / name)
        lines.append(f"{name} {' '.join(str(v) for v in rng.choice([-1, 1], 3))}")
        parts.append(f"{name} {k % 3}")
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(lines))
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(parts))
    task = celeba(0, path=str(tmp_path), side=16, domain="Young")
    assert task.source.train.inputs.shape[1:] == (3, 16, 16)
    assert {d.name for d in task.domains} == {"home", "not Young"}
    assert set(task.source.train.column("group")) == {"Male", "not Male"}
    assert len(task.source.train) + len(task.source.validation) + sum(len(d.load()) for d in task.domains) <= 60
    with pytest.raises(UserError, match="did you mean 'Smiling'"):
        celeba(0, path=str(tmp_path), predict="Smilin")
    (tmp_path / "list_eval_partition.txt").unlink()
    from elsewhere.images import people as module

    module._celeba.cache_clear()
    with pytest.raises(UserError, match="lacks list_eval_partition.txt"):
        celeba(0, path=str(tmp_path))


def test_fairface_is_read_from_its_own_files(tmp_path):
    from PIL import Image

    from elsewhere.images.people import fairface

    rng = np.random.default_rng(0)
    for part, n in (("train", 80), ("val", 30)):
        (tmp_path / part).mkdir()
        rows = []
        for k in range(n):
            Image.fromarray(rng.integers(255, size=(24, 24, 3), dtype=np.uint8)).save(tmp_path / part / f"{k}.jpg")
            rows.append(
                {
                    "file": f"{part}/{k}.jpg",
                    "age": rng.choice(["10-19", "30-39", "more than 70"]),
                    "gender": rng.choice(["Male", "Female"]),
                    "race": rng.choice(["White", "Black", "Indian"]),
                    "service_test": True,
                }
            )
        pd.DataFrame(rows).to_csv(tmp_path / f"fairface_label_{part}.csv", index=False)
    task = fairface(0, path=str(tmp_path), side=16)
    assert len(task.domains[0].load()) == pytest.approx(24, abs=2)
    assert len(task.source.validation) == 30
    away = fairface(0, path=str(tmp_path), side=16, domain="Indian", group="race")
    lists = [pd.read_csv(tmp_path / f"fairface_label_{part}.csv") for part in ("train", "val")]
    everyone = pd.concat(lists).query("race == 'Indian'").file
    assert set(away.domain("Indian").load().columns["id"]) == set(everyone)  # both published parts
    assert away.domains[1].name == "Indian"
    assert set(away.source.train.column("group")) == {"White", "other"}
    with pytest.raises(UserError, match="below must be one of"):
        fairface(0, path=str(tmp_path), below=25)


def test_census_files_are_read_as_folktables_reads_them(tmp_path):
    from elsewhere.tables.tasks import acs_income

    rng = np.random.default_rng(0)
    for state in ("06", "22"):
        n = 200
        codes = {name: rng.integers(1, 6, n) for name in ("MAR", "OCCP", "POBP", "RELP")} | {"SEX": rng.integers(1, 3, n), "RAC1P": rng.integers(1, 10, n)}
        numbers = {"AGEP": rng.integers(10, 80, n), "SCHL": rng.integers(1, 24, n), "WKHP": rng.integers(0, 60, n), "PINCP": rng.integers(0, 120_000, n), "PWGTP": rng.integers(0, 50, n)}
        frame = pd.DataFrame({**numbers, **codes, "COW": rng.choice([1.0, 2.0, np.nan], n)})
        frame.to_csv(tmp_path / f"psam_p{state}.csv", index=False)
    task = acs_income(0, path=str(tmp_path))
    assert [d.name for d in task.domains] == ["06", "22"]
    assert set(task.source.train.inputs) == {"AGEP", "SCHL", "WKHP", "COW", "MAR", "OCCP", "POBP", "RELP"}
    assert (task.source.train.inputs.AGEP > 16).all()
    assert set(task.source.train.column("group")) == {"1", "2"}
    with pytest.raises(UserError, match="holds no psam_pXX.csv"):
        acs_income(0, path=str(tmp_path / "none"))


def test_groups_of_regressions_are_compared_too(people, tmp_path):
    result = ew.assay(people, predict="age", domain="state", source="CA", group="job", learners=["ridge-regression"], seeds=1, out=tmp_path / "r")
    assert set(result.by_group("squared_error").group) == {"clerk", "nurse", "smith"}
    assert "No group is shown to lose more" in result.report().read_text()  # jobs are drawn at random


def test_learners_are_scikit_learn_classifiers():
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from elsewhere.fairness import FairClassifier

    data = crowd(600)
    s = groups_of(data)
    model = FairClassifier(TwoHeads(steps=150, batch=64, slack=0.03))
    names = np.array(["no", "yes"])[data.labels]
    fitted = clone(model).fit(pd.DataFrame(data.inputs, columns=list("abcd")), names, sensitive_features=pd.Series(s))
    made = fitted.predict(pd.DataFrame(data.inputs, columns=list("abcd")))
    assert set(made) <= {"no", "yes"}
    assert fitted.score(pd.DataFrame(data.inputs, columns=list("abcd")), names) > 0.6
    with pytest.raises(UserError, match="sensitive_features"):
        model.fit(data.inputs, data.labels)
    free = make_pipeline(StandardScaler(), FairClassifier(ParityRegularised(penalty=0.0, steps=60, batch=64)))
    assert cross_val_score(free, data.inputs, data.labels, cv=3).mean() > 0.65


def test_people_without_a_group_may_be_dropped_or_stand_alone():
    data = crowd(300)
    told = np.where(np.arange(300) < 40, None, groups_of(data)).astype(object)
    holed = replace(data, columns={"group": told})
    assert "missing in 40 of 300" in TwoHeads(steps=2).refuses(Source(holed))
    assert TwoHeads(steps=5, missing="drop").fit(Source(holed)).groups_ == ["f", "m"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert TwoHeads(steps=5, missing="own group").fit(Source(holed)).groups_ == ["f", "m", "missing"]


def test_a_frozen_body_keeps_its_weights_and_pictures_are_augmented():
    task = faces_lite(0, train=100, validation=60, test=60, places=[])
    frozen, moved = (ParityRegularised(steps=10, batch=32, frozen=f).fit(task.source, Run(progress=False)).network_ for f in (True, False))
    torch.manual_seed(0)
    same = [torch.equal(a, b) for a, b in zip(frozen.body.parameters(), moved.body.parameters(), strict=True)]
    assert not any(same)
    assert all(not p.requires_grad for p in frozen.body.parameters())
    plain_, flipped = (ParityRegularised(steps=3, batch=32, augment=a).fit(task.source, Run(progress=False)).scores(task.domains[0].load()) for a in ("none", "crop"))
    assert np.abs(plain_ - flipped).max() > 1e-4
