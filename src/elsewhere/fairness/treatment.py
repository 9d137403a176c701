"""Is a fair network the same as two heads, and whom does it treat differently by group? (Lohaus et al. 2022, abstract; spec 04, 2.6 and 2.7)"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from elsewhere.data import Array, Examples
from elsewhere.errors import NotOffered, UserError
from elsewhere.explainer import Finding
from elsewhere.fairness.baselines import logits_of
from elsewhere.fairness.rates import binary_labels, ddp
from elsewhere.fairness.two_heads import TwoHeads
from elsewhere.learner import offers
from elsewhere.run import Run

RESAMPLES, KNOTS = 1000, 5
LIMITS = (
    "Needs group labels to audit, none to run. Correlational: the band and the surrogate compare decisions at equal scores of the reference, which may use the group itself; "
    "only re-rendered pairs are counterfactual. Not legal advice."
)


@dataclass(frozen=True)
class Scores:
    """What is compared, all [n].

    Args:
        f, g: the reference's label score and group score, logits.
        r: the audited model's score.
        y, s: label and group, 0 or 1.
        u: the unconstrained model's score, where there is one.
        g0: the group as a probe reads it off the audited model's own features, where it has some.
    """

    f: Array
    g: Array
    r: Array
    y: Array
    s: Array
    u: Array | None = None
    g0: Array | None = None


def same_as_two_heads(fit: Scores, test: Scores) -> pd.DataFrame:
    """Return whether two heads reproduce the fair decisions (claim 1), and whether fair scores and the group head give the unfair ones back (claim 2): one row each.

    Logistic regressions fitted on one set of examples and judged on another: 1[r > 0] on f, and on (f, g); y on r, and on (r, g).
    """
    rows = []
    outside: list[tuple[str, tuple[str, ...]]] = [("fair decisions from f", ("f",)), ("fair decisions from f and g", ("f", "g"))]
    for name, columns in outside:
        made = _logistic(fit, columns, fit.r > 0)(test)
        rows.append({"what": name, "agreement": float(((made > 0) == (test.r > 0)).mean()), "accuracy": float(((made > 0) == test.y).mean()), "ddp": ddp(made > 0, test.s)})
    inside: list[tuple[str, tuple[str, ...]]] = [("unfair decisions from r", ("r",)), ("unfair decisions from r and g", ("r", "g"))]
    if fit.g0 is not None and test.g0 is not None:
        inside.append(("unfair decisions from r and a probe of its own features", ("r", "g0")))
    for name, columns in inside:
        made = _logistic(fit, columns, fit.y == 1)(test)
        agreement = float("nan") if test.u is None else float(((made > 0) == (test.u > 0)).mean())
        rows.append({"what": name, "agreement": agreement, "accuracy": float(((made > 0) == test.y).mean()), "ddp": ddp(made > 0, test.s)})
    return pd.DataFrame(rows)


def _logistic(fit: Scores, columns: tuple[str, ...], wanted: Array) -> Any:
    from sklearn.linear_model import LogisticRegression

    x = np.stack([getattr(fit, c) for c in columns], 1)
    if len(set(wanted.tolist())) < 2:
        constant = 1.0 if wanted[0] else -1.0
        return lambda scores: np.full(len(scores.f), constant)
    model = LogisticRegression(C=1e4, max_iter=2000).fit(x, wanted)
    return lambda scores: model.decision_function(np.stack([getattr(scores, c) for c in columns], 1))


def thresholds_by_predicted_group(fit: Scores) -> tuple[float, float]:
    """Return the two thresholds of f, for people predicted to be of the first and of the second group, that best reproduce the audited decisions."""
    found = []
    for k in (0, 1):
        mine = (fit.g > 0) == bool(k)
        f, accepted = fit.f[mine], fit.r[mine] > 0
        if not len(f):
            found.append(0.0)
            continue
        order = np.argsort(f, kind="stable")
        f, accepted = f[order], accepted[order]
        wrong = np.r_[0, np.cumsum(accepted)] + np.r_[np.cumsum((~accepted)[::-1])[::-1], 0]  # below: rejected; above: accepted
        whole = np.r_[True, f[1:] != f[:-1], True]
        at = int(np.flatnonzero(whole)[wrong[whole].argmin()])
        found.append(float(f[0] - 1 if at == 0 else f[-1] + 1 if at == len(f) else (f[at - 1] + f[at]) / 2))
    return found[0], found[1]


def band(scores: Scores, thresholds: tuple[float, float]) -> Array:
    """Return who lies between the two thresholds [n]: same score, decision by predicted group."""
    low, high = sorted(thresholds)
    return np.asarray((scores.f > low) & (scores.f <= high))


def surrogate_flips(fit: Scores, test: Scores) -> tuple[Array, Array, float]:
    """Return whose decision changes up [n], down [n] when σ(g) moves by the groups' difference of means, and b / a, the price of the group in units of f.

    The surrogate a f + b σ(g) + c reproduces the audited decisions; a person of the first group gets the move up, one of the second down.
    """
    from sklearn.linear_model import LogisticRegression

    q, p = _sigmoid(fit.g), _sigmoid(test.g)
    accepted = fit.r > 0
    if len(set(accepted.tolist())) < 2:
        none = np.zeros(len(test.f), bool)
        return none, none, 0.0
    model = LogisticRegression(C=1e4, max_iter=2000).fit(np.c_[fit.f, q], accepted)
    a, b = (float(v) for v in model.coef_[0])
    move = float(q[fit.s == 1].mean() - q[fit.s == 0].mean())
    h = model.decision_function(np.c_[test.f, p])
    moved = h + b * np.where(test.s == 0, move, -move)
    return (h <= 0) & (moved > 0), (h > 0) & (moved <= 0), b / a if a else float("nan")


def depends_on_group(scores: Scores, knots: int = KNOTS) -> tuple[float, int, float]:
    """Return the likelihood ratio, its degrees of freedom and the p-value of H₀: the decision does not depend on the predicted group given f.

    Logistic regressions on a natural cubic spline of f, with and without ŝ and ŝ × f.
    """
    from scipy.stats import chi2
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    accepted, predicted = scores.r > 0, (scores.g > 0).astype(float)
    if len(set(accepted.tolist())) < 2 or len(set(predicted.tolist())) < 2:
        return 0.0, 2, 1.0
    base = natural_spline(scores.f, knots)
    full = np.c_[base, predicted, predicted * (scores.f - scores.f.mean()) / (scores.f.std() or 1)]
    told = []
    for x in (base, full):
        scaled = (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
        model = LogisticRegression(C=1e4, max_iter=5000).fit(scaled, accepted)
        told.append(log_loss(accepted, model.predict_proba(scaled)[:, 1], normalize=False))
    ratio = max(0.0, 2 * (told[0] - told[1]))
    return ratio, 2, float(chi2.sf(ratio, 2))


def natural_spline(x: Array, knots: int = KNOTS) -> Array:
    """Return the natural cubic spline basis [n, knots - 1] of values, knots at quantiles: linear beyond the outer ones (Hastie, Tibshirani & Friedman, 5.4)."""
    at = np.unique(np.quantile(x, np.linspace(0.05, 0.95, knots)))
    if len(at) < 3:
        return x[:, None].astype(float)

    def d(k: int) -> Array:
        return np.asarray((np.maximum(x - at[k], 0) ** 3 - np.maximum(x - at[-1], 0) ** 3) / (at[-1] - at[k]))

    last = d(len(at) - 2)
    return np.stack([x, *(d(k) - last for k in range(len(at) - 2))], 1)


def measures(fit: Scores, test: Scores, flipped: Array | None = None, interval: float = 0.95, seed: int = 0) -> pd.DataFrame:
    """Return band, surrogate flip and (with re-rendered pairs) counterfactual flip as shares of people with bootstrap intervals, by direction and group."""
    thresholds = thresholds_by_predicted_group(fit)
    up, down, price = surrogate_flips(fit, test)
    within = band(test, thresholds)
    rows = [_share("band", within, test, interval, seed), _share("surrogate flip", up | down, test, interval, seed)]
    rows += [_share("surrogate flip, up", up, test, interval, seed), _share("surrogate flip, down", down, test, interval, seed)]
    if flipped is not None:
        rows.append(_share("counterfactual flip", flipped, test, interval, seed))
    frame = pd.DataFrame(rows)
    frame.attrs |= {"thresholds": list(thresholds), "price": price}
    return frame


def _share(name: str, who: Array, scores: Scores, interval: float, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    n, value = len(who), float(who.mean())
    low, high = np.quantile(rng.binomial(n, value, RESAMPLES) / n, [(1 - interval) / 2, (1 + interval) / 2])  # the bootstrap of a share is binomial
    return {
        "measure": name,
        "share": value,
        "share low": float(low),
        "share high": float(high),
        **{f"of group {k}": float(who[scores.s == k].mean()) if (scores.s == k).any() else np.nan for k in (0, 1)},
    }


def scores_of(model: Any, reference: TwoHeads, data: Examples, run: Run = Run(progress=False), unconstrained: Any = None) -> Scores:
    """Return what is compared, of fitted learners and data with labels and group."""
    made = reference.scores(data, run)
    if made.shape[1] != 2:
        raise UserError("the measures of treatment need a reference of two heads: two groups, criterion parity")
    r = logits_of(model.predict(data.unlabelled(), run))
    u = None if unconstrained is None else logits_of(unconstrained.predict(data.unlabelled(), run))
    g = made[:, 1] - (0.5 if reference.group_loss == "raw" else 0.0)  # above 0: predicted to be of the second group
    return Scores(made[:, 0], g, r, binary_labels(data, "treatment"), reference.codes(data), u)


def with_own_probe(model: Any, fit: Scores, test: Scores, data: tuple[Examples, Examples], run: Run) -> tuple[Scores, Scores]:
    """Return the scores with g0 beside: the group as logistic regression reads it off the audited model's own features, fitted on the first data. As they are where it represents nothing."""
    if not offers(model, "represent"):
        return fit, test
    try:
        z, v = (np.asarray(model.represent(d, run), float) for d in data)
    except NotOffered:
        return fit, test
    from sklearn.linear_model import LogisticRegression

    spread = np.where(z.std(0) > 1e-12, z.std(0), 1)
    probe = LogisticRegression(C=1.0, max_iter=2000).fit((z - z.mean(0)) / spread, fit.s)
    return replace(fit, g0=probe.decision_function((z - z.mean(0)) / spread)), replace(test, g0=probe.decision_function((v - z.mean(0)) / spread))


def treatment(model: Any, reference: TwoHeads, data: Examples, validation: Examples | None = None, pairs: Examples | None = None, unconstrained: Any = None, run: Run = Run(progress=False)) -> Finding:
    """Return how far a model decides by group: whether two heads reproduce it, the band, the flips, the test, and who gains.

    Args:
        model: any fitted learner with scores.
        reference: a fitted two-headed network, whose f is the score and g the group.
        data: examples with labels and group, to report on.
        validation: to fit thresholds and surrogates on; half of ``data`` if not given.
        pairs: the same examples as ``data`` with the other group's cue; default: what ``data.counterfactual()`` gives, if it has that.
        unconstrained: a fitted learner trained without regard to the group.
    """
    if validation is None:
        order = np.random.default_rng(0).permutation(len(data))
        validation, rest = data.take(order[: len(order) // 2]), order[len(order) // 2 :]
        data = data.take(rest)
        pairs = None if pairs is None else pairs.take(rest)
    if pairs is None and hasattr(data, "counterfactual"):
        pairs = data.counterfactual()
    if pairs is not None and len(pairs) != len(data):
        raise UserError(f"there are {len(pairs)} pairs for {len(data)} examples: give each example's other rendering, in order")
    fit, test = (scores_of(model, reference, d, run, unconstrained) for d in (validation, data))
    fit, test = with_own_probe(model, fit, test, (validation, data), run)
    flipped = None if pairs is None else (logits_of(model.predict(pairs.unlabelled(), run)) > 0) != (test.r > 0)
    table = measures(fit, test, flipped)
    ratio, freedom, p = depends_on_group(test)
    names = reference.groups_
    first, second = table.attrs["thresholds"]
    gains = names[1] if second < first else names[0]
    same = same_as_two_heads(fit, test)
    truth = table[table.measure == "counterfactual flip"]
    shown = table.iloc[0]
    told = f"Between the thresholds of the two predicted groups lie {shown['share']:.1%} [{shown['share low']:.1%}, {shown['share high']:.1%}] of people: "
    told += f"at the same score those predicted to be {gains} are accepted"
    told += f" (the decision depends on the predicted group given the score: p {'< 0.001' if p < 0.001 else f'= {p:.3f}'})."
    if len(truth):
        told += f" Drawn again with the other group's cue, {truth.iloc[0]['share']:.1%} of decisions change."
    agree = same.agreement.iloc[:2].tolist()
    told += f" Two heads reproduce {agree[1]:.1%} of its decisions, the label head alone {agree[0]:.1%}."
    test_table = pd.DataFrame(
        {
            "likelihood ratio": [ratio],
            "degrees of freedom": [freedom],
            "p": [p],
            "price of the group (b / a)": [table.attrs["price"]],
            "ddp of f": [ddp(test.f > 0, test.s)],
            "ddp of the model": [ddp(test.r > 0, test.s)],
        }
    )
    plain = table.rename(columns={f"of group {k}": f"of {names[k]}" for k in (0, 1)})
    return Finding(told, {"Treatment by predicted group": plain, "Is it two heads?": same, "Does the decision depend on the group given the score?": test_table}, {}, LIMITS)


def _sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -60, 60))))
