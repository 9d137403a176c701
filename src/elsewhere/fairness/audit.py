"""Does a model decide by predicted group? Band, flips, and a permutation test of both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.fairness.group_null import SHUFFLES, GroupHeads, group_heads
from elsewhere.fairness.rates import wilson
from elsewhere.fairness.scores import Scores
from elsewhere.task import standard_error

Verdict = Literal["decides by group", "no sign", "cannot tell"]
ALPHA = 0.05
RESAMPLES = 200
FEWEST = 20  # people predicted to be of a group; fewer get no threshold of their own
NOTABLE = 0.05  # of people; "no sign" is said only where a larger share is excluded
MOST = 20_000  # people of each part; more are drawn at random, for time
MEASURES = ("band", "surrogate flip", "surrogate flip, up", "surrogate flip, down")


@dataclass(frozen=True)
class Measured:
    """What one group head makes of a model's decisions.

    Args:
        gain: agreement with the decisions by two thresholds of f minus that by one.
        who: for each of ``MEASURES``, to whom it applies [4, m].
        thresholds: of people predicted to be of the first and of the second group; NaN: too few.
        predicted: smallest number of people predicted to be of each group, of the two parts.
        price: b / a of the surrogate a f + b σ(g) + c, the price of the group in units of f.
    """

    gain: float
    who: Array
    thresholds: tuple[float, float]
    predicted: tuple[int, int]
    price: float


@dataclass(frozen=True)
class Audit:
    """What the audit of a model found.

    Args:
        verdict: whether it decides by predicted group, with level ``ALPHA``.
        why: the reason, a clause.
        table: measure, share, its mean over shuffled groups, the difference, its interval,
            and the share of each group.
        test: agreement gained, its p-value, area under the curve and its null, price.
        thresholds: of the predicted groups; NaN: too few people.
        scores: the judged people, with the group head that was fitted again as g.
    """

    verdict: Verdict
    why: str
    table: pd.DataFrame
    test: dict[str, Any]
    thresholds: tuple[float, float]
    scores: Scores

    def sentence(self, name: str) -> str:
        """Return the verdict in words, without a full stop."""
        if self.verdict == "decides by group":
            return f"{name} decides by predicted group{self.why}"
        if self.verdict == "no sign":
            return f"{name} shows no sign that it decides by group ({self.why})"
        return f"whether {name} decides by group: cannot tell, {self.why}"


def audit(
    fit: Scores,
    test: Scores,
    names: tuple[str, str],
    flipped: Array | None = None,
    seed: int = 0,
) -> Audit:
    """Return whether a model decides by predicted group, tested against shuffled groups.

    The group head is fitted again on the reference's frozen features, for the groups as they are
    and for 200 shuffles of them. p = (1 + #{A of a shuffle ≥ A}) / 201, with A the agreement that
    thresholds by predicted group gain. "Decides by group" needs p < .05 and an area under the
    curve above the 95 % point of its shuffles. It needs a large effect: heads of shuffled groups
    reproduce whatever else the model and the reference differ in. A share of people is named only
    where its interval, which holds the chance of the shuffles too, lies above theirs.

    Args:
        fit: scores of the people to fit heads and thresholds on; none of them trained on.
        test: scores of the people to judge.
        names: of the two groups.
        flipped: whose decision changes with the other group's cue [m], where known.
        seed: of shuffles and resampling.

    Returns:
        Verdict, measures and test.
    """
    fit = fit.take(_drawn(len(fit), seed))
    fit = fit.take(np.argsort(fit.f, kind="stable"))  # sorting it again, 400 times, is then cheap
    rows = _drawn(len(test), seed)
    test, flipped = test.take(rows), None if flipped is None else flipped[rows]
    heads = refitted(fit, test, SHUFFLES, seed)
    found = [measured(*with_head(fit, test, heads, k)) for k in range(len(heads))]
    real, areas = found[0], heads.areas()
    gains = np.array([m.gain for m in found])
    few = min(real.predicted) < FEWEST
    p = float("nan") if few else (1 + int((gains[1:] >= gains[0]).sum())) / len(heads)
    bar = float(np.quantile(areas[1:], 1 - ALPHA))
    asked = with_head(fit, test, heads, 0)
    shares = np.array([m.who.mean(1) for m in found])
    table = _table(asked, shares, real, flipped, seed)
    told = {"agreement gained": real.gain, "p": p, "area under the curve": float(areas[0])}
    told |= {"95 % of shuffles below": bar, "price of the group (b / a)": real.price}
    verdict, why = _verdict(real, told, table, names, len(test))
    return Audit(verdict, why, table, told, real.thresholds, asked[1])


def refitted(fit: Scores, test: Scores, shuffles: int, seed: int = 0) -> GroupHeads:
    """Return group heads on the reference's features, for the groups as they are and shuffled."""
    if fit.z is None or test.z is None:
        raise UserError("an audit needs the reference's features: scores_of gives them")
    return group_heads((fit.z, test.z), (fit.s, test.s), (fit.unit, test.unit), shuffles, seed)


def with_head(fit: Scores, test: Scores, heads: GroupHeads, k: int) -> tuple[Scores, Scores]:
    """Return the scores with group and group score of head ``k``."""
    g, v = heads.scores(k)
    return replace(fit, g=g, s=heads.s_fit[k]), replace(test, g=v, s=heads.s_test[k])


def observed(fit: Scores, test: Scores) -> Measured:
    """Return band and flips by a group head fitted again on ``fit``; no test of them."""
    return measured(*with_head(fit, test, refitted(fit, test, 0), 0))


def measured(fit: Scores, test: Scores) -> Measured:
    """Return agreement gained, band and surrogate flips by the group score g.

    Thresholds and surrogate are fitted on ``fit`` and judged on ``test``.
    """
    up, down, price = surrogate_flips(fit, test)
    gain, pair = agreement_gained(fit, test)
    who = np.stack([band(test, pair), up | down, up, down])
    return Measured(gain, who, pair, predicted(fit, test), price)


def predicted(fit: Scores, test: Scores) -> tuple[int, int]:
    """Return how many people are predicted to be of each group, in the part that has fewer."""
    second = [int((part.g > 0).sum()) for part in (fit, test)]
    first = [len(part) - k for part, k in zip((fit, test), second, strict=True)]
    return min(first), min(second)


def agreement_gained(fit: Scores, test: Scores) -> tuple[float, tuple[float, float]]:
    """Return the statistic A of the test, and the thresholds of the two predicted groups.

    A = agreement of the audited decisions with the best thresholds of f by predicted group, minus
    that with the best threshold for all; fitted on ``fit``, judged on ``test``. 0, and thresholds
    NaN, where too few are predicted to be of a group.
    """
    if min(predicted(fit, test)) < FEWEST:
        return 0.0, (float("nan"), float("nan"))
    pair, one = thresholds_by_predicted_group(fit), best_threshold(fit.f, fit.r > 0)
    two, accepted = np.where(test.g > 0, pair[1], pair[0]), test.r > 0
    gain = ((test.f > two) == accepted).mean() - ((test.f > one) == accepted).mean()
    return float(gain), pair


def best_threshold(f: Array, accepted: Array) -> float:
    """Return the threshold of f [n] that best reproduces decisions [n]: f above it, accepted.

    Half-way between neighbours; beyond the outermost score where all are decided alike.

    Examples:
        >>> best_threshold(np.array([0.0, 1.0, 2.0]), np.array([False, True, True]))
        0.5
    """
    order = np.argsort(f, kind="stable")
    f, accepted = f[order], accepted[order]
    below, above = np.cumsum(accepted), np.cumsum((~accepted)[::-1])[::-1]
    wrong = np.concatenate([[0], below]) + np.concatenate([above, [0]])
    whole = np.concatenate([[True], f[1:] != f[:-1], [True]])  # ties are never split
    at = int(np.flatnonzero(whole)[wrong[whole].argmin()])
    if at in (0, len(f)):
        return float(f[0] - 1 if at == 0 else f[-1] + 1)
    return float((f[at - 1] + f[at]) / 2)


def thresholds_by_predicted_group(fit: Scores) -> tuple[float, float]:
    """Return the two thresholds of f that best reproduce the audited decisions.

    For people predicted to be of the first and of the second group; NaN for a group that fewer
    than ``FEWEST`` are predicted to be of: a threshold of nobody would invent a band.
    """
    found = []
    for mine in (fit.g <= 0, fit.g > 0):
        enough = int(mine.sum()) >= FEWEST
        found.append(best_threshold(fit.f[mine], fit.r[mine] > 0) if enough else float("nan"))
    return found[0], found[1]


def band(scores: Scores, thresholds: tuple[float, float]) -> Array:
    """Return who lies between the two thresholds [n]: same score, decision by predicted group."""
    low, high = sorted(thresholds)
    return np.asarray((scores.f > low) & (scores.f <= high))


def surrogate_flips(fit: Scores, test: Scores) -> tuple[Array, Array, float]:
    """Return whose decision changes when σ(g) moves by the groups' difference of means.

    The surrogate a f + b σ(g) + c is a logistic regression of the audited decisions. A person of
    the first group gets the move up, one of the second group down.

    Returns:
        Who is accepted then [m], who is rejected then [m], and b / a, the price of the group in
        units of f.
    """
    q, p = _sigmoid(fit.g), _sigmoid(test.g)
    accepted = fit.r > 0
    none = np.zeros(len(test), bool)
    if accepted.all() or not accepted.any() or len(set(fit.s.tolist())) < 2:
        return none, none, 0.0
    a, b, c = logistic_regression(np.column_stack([fit.f, q]), accepted).tolist()
    move = float(q[fit.s == 1].mean() - q[fit.s == 0].mean())
    h = a * test.f + b * p + c
    moved = h + b * np.where(test.s == 0, move, -move)
    return (h <= 0) & (moved > 0), (h > 0) & (moved <= 0), b / a if a else float("nan")


def logistic_regression(x: Array, y: Array, strength: float = 1e4, steps: int = 100) -> Array:
    """Return coefficients and intercept [k + 1] of logistic regression, by damped Newton steps.

    Minimises Σ log(1 + exp(-±h)) + |w|² / (2 C), h = x w + c, as scikit-learn does. An audit fits
    400 of them, and this is an order of magnitude faster for a few columns.

    Args:
        x: columns [n, k].
        y: what is wanted [n], bool.
        strength: C.
        steps: at most.

    Examples:
        >>> x = np.array([[-1.0], [-0.5], [0.5], [1.0]])
        >>> w, c = logistic_regression(x, np.array([False, True, False, True]))
        >>> bool(w > 0), abs(round(float(c), 6))
        (True, 0.0)
    """
    x, y = np.column_stack([x, np.ones(len(x))]), y.astype(float)
    shrink = np.r_[np.full(x.shape[1] - 1, 1 / strength), 1e-12]
    w = np.zeros(x.shape[1])

    def loss(w: Array) -> float:
        h = x @ w
        return float((np.logaddexp(0, h) - y * h).sum() + (shrink * w * w).sum() / 2)

    value = loss(w)
    for _ in range(steps):
        p = _sigmoid(x @ w)
        slope = x.T @ (p - y) + shrink * w
        step = np.linalg.solve((x.T * (p * (1 - p))) @ x + np.diag(shrink), slope)
        size = 1.0
        while (lower := loss(w - size * step)) > value and size > 1e-6:
            size /= 2
        if not value - lower > 1e-9 * (1 + value):
            break
        w, value = w - size * step, lower
    return w


def _table(
    asked: tuple[Scores, Scores],
    shares: Array,
    real: Measured,
    flipped: Array | None,
    seed: int,
) -> pd.DataFrame:
    """Return one row per measure; ``shares`` are those of each head [1 + shuffles, 4]."""
    test, rows = asked[1], []
    drawn = _resampled(*asked, seed)
    for j, name in enumerate(MEASURES):
        null, share = shares[1:, j], float(shares[0, j])
        # Both what these people and what chance in the head allow: 0 is inside the interval
        # unless the share lies outside the shuffles.
        apart = (drawn[:, j] - drawn[:, j].mean() + share)[:, None] - null
        low, high = np.quantile(apart, [ALPHA / 2, 1 - ALPHA / 2])
        rows.append(_row(name, real.who[j], test.s, float(null.mean()), (low, high)))
    if flipped is not None:
        interval = wilson(float(flipped.mean()), _effective(flipped, test.unit))
        rows.append(_row("counterfactual flip", flipped, test.s, 0.0, interval))
    return pd.DataFrame(rows)


def _row(
    name: str,
    who: Array,
    s: Array,
    null: float,
    interval: tuple[float, float],
) -> dict[str, Any]:
    share = float(who.mean())
    told = {"measure": name, "share": share, "shuffled groups": null, "beyond": share - null}
    told |= {"beyond low": float(interval[0]), "beyond high": float(interval[1])}
    each = {f"of group {k}": who[s == k] for k in (0, 1)}
    return {**told, **{k: float(v.mean()) if len(v) else np.nan for k, v in each.items()}}


def _resampled(fit: Scores, test: Scores, seed: int) -> Array:
    """Return the measures on resampled units of both parts [resamples, 4], heads as they are."""
    rng = np.random.default_rng([seed, 1])
    parts = [(replace(part, z=None, g0=None, u=None), _members(part)) for part in (fit, test)]
    made = []
    for _ in range(RESAMPLES):
        drawn = [part.take(np.sort(_resample(members, rng))) for part, members in parts]
        made.append(measured(drawn[0], drawn[1]).who.mean(1))
    return np.array(made)


def _members(scores: Scores) -> list[Array] | int:
    """Return the rows of each unit, or the number of rows where each stands for itself."""
    if scores.unit is None:
        return len(scores)
    codes = np.unique(scores.unit, return_inverse=True)[1]
    return np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])


def _resample(members: list[Array] | int, rng: np.random.Generator) -> Array:
    if isinstance(members, int):
        return rng.integers(members, size=members)
    return np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])


def _effective(who: Array, unit: Array | None) -> float:
    """Return the number of independent people that a share of ``who`` is as good as."""
    if unit is None:
        return float(len(who))
    if who.all() or not who.any():
        return float(len(np.unique(unit)))
    apart = who - who.mean()
    return float(len(who) * min(1.0, (standard_error(apart) / standard_error(apart, unit)) ** 2))


def _verdict(
    real: Measured,
    told: dict[str, Any],
    table: pd.DataFrame,
    names: tuple[str, str],
    n: int,
) -> tuple[Verdict, str]:
    shown, p, area = table.iloc[0], told["p"], told["area under the curve"]
    if min(real.predicted) < FEWEST:
        k = int(np.argmin(real.predicted))
        count = f"only {real.predicted[k]} people are" if real.predicted[k] else "nobody is"
        return "cannot tell", f"{count} predicted to be {names[k]}: too few for a threshold"
    bar = told["95 % of shuffles below"]
    if not area > bar:
        beside = f"area under the curve {area:.2f}; 95 % of shuffles lie below {bar:.2f}"
        return "cannot tell", f"the group is told no better than shuffled groups are ({beside})"
    if p < ALPHA and real.gain > 0:
        gained = f"thresholds by it reproduce {real.gain:.1%} more of its decisions, p = {p:.3f}"
        gains = names[int(real.thresholds[1] < real.thresholds[0])]
        return "decides by group", f"{_people(shown, gains)}; {gained}"
    most = f"beyond shuffled groups at most {max(0.0, shown['beyond high']):.1%} of people"
    if shown["beyond high"] < NOTABLE:
        return "no sign", f"p = {p:.2f}; {most}"
    return "cannot tell", f"{n} people are too few (p = {p:.2f}; {most})"


def _people(shown: pd.Series, gains: str) -> str:
    """Return for how many people, where their share lies beyond what shuffled groups give."""
    interval = f"[{shown['beyond low']:.1%}, {shown['beyond high']:.1%}]"
    if not shown["beyond low"] > 0:
        return f", of how many people cannot be told ({interval} beyond shuffled groups)"
    beyond = f"{shown['beyond']:.1%} {interval} more than with shuffled groups"
    return f" for {shown['share']:.1%} of people, in favour of {gains}: {beyond}"


def _drawn(n: int, seed: int) -> Array:
    """Return rows to look at: all, or ``MOST`` of them."""
    return np.sort(np.random.default_rng([seed, 2]).permutation(n)[:MOST])


def _sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(z, -60, 60))))
