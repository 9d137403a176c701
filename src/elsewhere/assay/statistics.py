"""What many trials say together: what foretells what, how many things are measured, what helps, and what choosing costs (spec 01, 2.6.3 to 2.6.7).

Trials of different pairs of domains are never pooled in a correlation (Simpson's paradox): within each pair first, then over pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from elsewhere.assay.analysis import BOUNDED, ENOUGH, NOT_MEASURES, UNIT_METRICS, away, effective_robustness, fit_line, over_pairs, points_of_pairs
from elsewhere.assay.layout import wide
from elsewhere.data import Array
from elsewhere.errors import UserError, did_you_mean

MOST_MEASURES = 20
NOT_CHOICES = (
    *("trial", "task", "task_name", "learner", "learner_name", "seed", "domain", "role", "metric"),
    *("value", "error", "n", "reason", "higher_is_better"),
    *("freedom", "effective", "bias", "least", "most"),
)


def measures(scores: pd.DataFrame) -> list[str]:
    """Return the metrics that measure something, members of families left out, the headline first."""
    names = [str(m) for m in scores.metric.unique()]
    return [m for m in names if m not in NOT_MEASURES and "/" not in m][:MOST_MEASURES]


def pair_tables(scores: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Return (task, domain) -> one row a trial: columns (home | there, metric), signs turned so that larger is better.

    Pairs with fewer than 8 trials are left out.
    """
    rows = scores[scores.metric.isin(measures(scores))]
    rows = rows.assign(value=np.where(rows.higher_is_better, 1.0, -1.0) * rows.value, metric=rows.metric.astype(str), trial=rows.trial.astype(str))
    home = rows[rows.role == "home"].groupby(["trial", "metric"], observed=True).value.mean().unstack()
    found = {}
    for (task, domain), part in away(rows).groupby(["task", "domain"], observed=True, sort=False):
        there = part.groupby(["trial", "metric"], observed=True).value.mean().unstack()
        if len(there) >= ENOUGH:
            found[(str(task), str(domain))] = pd.concat({"home": home.reindex(there.index), "there": there}, axis=1)
    return found


def correlations(scores: pd.DataFrame, rows: str = "home", columns: str = "there", given: str | None = None) -> pd.DataFrame:
    """Return how each measure at ``rows`` goes with each at ``columns``: Spearman's ρ within each pair, median, interval and range over pairs.

    Args:
        scores: of a result.
        rows, columns: "home" or "there" (elsewhere).
        given: partial rank correlation, given this measure at home: what is added beyond it.

    Returns:
        One row a pair of measures: measure, with, rho, low, high, least, most, pairs, and ``pooled`` ρ over all trials, which mixes pairs.
    """
    pairs = pair_tables(scores)
    if not pairs:
        raise UserError(f"correlations take at least {ENOUGH} trials of one task; there are fewer")
    names = measures(scores)
    found = np.stack([_matrix(p, rows, columns, names, given) for p in pairs.values()])  # [pairs, measures, measures]
    pooled = _matrix(pd.concat(list(pairs.values()), ignore_index=True), rows, columns, names, given)
    told = []
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            rho = found[:, i, j][~np.isnan(found[:, i, j])]
            if not len(rho):
                continue
            low, high = over_pairs(rho, "median")
            told.append({"measure": a, "with": b, "rho": float(np.median(rho)), "low": low, "high": high, "least": rho.min(), "most": rho.max(), "pairs": len(rho), "pooled": pooled[i, j]})
    return pd.DataFrame(told, columns=["measure", "with", "rho", "low", "high", "least", "most", "pairs", "pooled"])


def _matrix(table: pd.DataFrame, rows: str, columns: str, names: Sequence[str], given: str | None) -> Array:
    """Return Spearman's ρ of each measure at ``rows`` with each at ``columns``; partial, given a measure at home, if one is named."""
    whole = table.corr(method="spearman", min_periods=4)

    def of(a: list[tuple[str, str]], b: list[tuple[str, str]]) -> Array:
        return whole.reindex(index=pd.MultiIndex.from_tuples(a), columns=pd.MultiIndex.from_tuples(b)).to_numpy(float)

    a, b = [(rows, n) for n in names], [(columns, n) for n in names]
    r = of(a, b)
    if given is None:
        return r
    z = [("home", given)]
    to_a, to_b = of(a, z), of(z, b)
    with np.errstate(invalid="ignore", divide="ignore"):
        partial = (r - to_a * to_b) / np.sqrt((1 - to_a**2) * (1 - to_b**2))
    return np.where((np.abs(to_a) > 1 - 1e-9) | (np.abs(to_b) > 1 - 1e-9), np.nan, partial)


def factor_loadings(scores: pd.DataFrame, resamples: int = 200, seed: int = 0) -> pd.DataFrame:
    """Return how many things the measures measure: loadings of a maximum-likelihood factor analysis, varimax rotated.

    Columns are rank-normalised within each pair, which also takes out its mean. The number of factors is that of
    eigenvalues above the 95th percentile of shuffled columns' (parallel analysis; Horn 1965).

    Returns:
        One row a measure and side (home, there): loadings ``factor 1`` …, and the share of its variance they explain.
    """
    from scipy.stats import norm
    from sklearn.decomposition import FactorAnalysis

    pairs = pair_tables(scores)
    if not pairs:
        raise UserError(f"factor analysis takes at least {ENOUGH} trials of one task; there are fewer")
    normal = [pd.DataFrame(norm.ppf((p.rank() - 0.5) / p.notna().sum()), p.index, p.columns) for p in pairs.values()]
    table = pd.concat(normal, ignore_index=True).dropna(axis=1, thresh=ENOUGH).dropna()
    table = table.loc[:, table.std() > 1e-9]
    if len(table) < 3 * max(1, table.shape[1] // 4) or table.shape[1] < 3:
        raise UserError(f"factor analysis needs at least 3 measures and more trials; there are {table.shape[1]} and {len(table)}")
    x = ((table - table.mean()) / table.std()).to_numpy()
    count = parallel_analysis(x, resamples, seed)
    fitted = FactorAnalysis(count, rotation="varimax" if count > 1 else None).fit(x)
    loadings = fitted.components_.T * np.sign(fitted.components_.sum(1) + 1e-12)
    frame = pd.DataFrame(loadings, columns=[f"factor {k + 1}" for k in range(count)])
    frame.insert(0, "where", table.columns.get_level_values(0).astype(str))
    frame.insert(0, "measure", table.columns.get_level_values(1).astype(str))
    return frame.assign(explained=np.square(loadings).sum(1))


def parallel_analysis(x: Array, resamples: int = 200, seed: int = 0) -> int:
    """Return how many eigenvalues of the correlation matrix of [n, d] exceed those of columns shuffled apart; at least 1."""
    rng = np.random.default_rng(seed)
    real = np.linalg.eigvalsh(np.corrcoef(x.T))[::-1]
    shuffled = np.array([np.linalg.eigvalsh(np.corrcoef(rng.permuted(x, axis=0).T))[::-1] for _ in range(resamples)])
    above = real > np.quantile(shuffled, 0.95, axis=0)
    return max(1, int(np.argmin(above)) if not above.all() else len(real))


# --- what helps -----------------------------------------------------------------------------------------------------


def choices(scores: pd.DataFrame) -> list[str]:
    """Return the fields of learners that have several values within a task and kind of learner: what trials can be compared on."""
    known = [c for c in scores.columns if c not in NOT_CHOICES]
    first = scores.drop_duplicates("trial")
    return [c for c in known if _as_level(first[c]).nunique() > 1 and _levels(first, c).max() > 1]


def _levels(rows: pd.DataFrame, choice: str) -> pd.Series[Any]:
    """Return how many values a field has in each task and kind of learner."""
    return rows.assign(shown=_as_level(rows[choice])).groupby(["task", "learner_name"], observed=True).shown.nunique()


def helps(scores: pd.DataFrame, choice: str, metric: str) -> pd.DataFrame:
    """Return what each level of a choice gains elsewhere over the first: paired with trials that agree in all else, mean over pairs of domains.

    ``gain`` is the difference of the metric elsewhere, in its own direction; ``at fixed home`` the difference of effective robustness, which
    tells a more robust model from a better one (accuracies with 8 trials of a pair). Intervals are Student's over pairs of domains (over pairs of trials, where there is one).
    """
    known = choices(scores)
    if choice not in known:
        raise UserError(f"no choice {choice!r} with several values{did_you_mean(choice, known)}")
    points = _points(scores, metric)
    several = _levels(points, choice)
    points = points[pd.MultiIndex.from_frame(points[["task", "learner_name"]].astype(str)).isin([(str(a), str(b)) for a, b in several[several > 1].index])]
    others = ["task", "domain", "seed", "learner_name", *(c for c in known if c != choice)]
    points = points.assign(**{c: _as_level(points[c]) for c in (*others, choice)})
    levels = _ordered(points[choice].unique())
    sign = 1.0 if bool(points.higher_is_better.iloc[0]) else -1.0
    rows = []
    paired = points.pivot_table(index=others, columns=choice, values=["value", "robust"], aggfunc="mean", dropna=True)
    for level in levels[1:]:
        told: dict[str, Any] = {"choice": choice, "from": levels[0], "to": level}
        for name, column in (("gain", "value"), ("at fixed home", "robust")):
            if (column, level) not in paired or (column, levels[0]) not in paired:
                continue
            d = sign * (paired[(column, level)] - paired[(column, levels[0])]).dropna()
            if not len(d):
                continue
            by_pair = d.groupby(["task", "domain"]).mean().to_numpy()
            each = by_pair if len(by_pair) > 1 else d.to_numpy()
            low, high = over_pairs(each)
            told |= {name: float(by_pair.mean()), f"{name} low": low, f"{name} high": high, "trials": len(d), "pairs": len(by_pair)}
        rows.append(told)
    columns = ["choice", "from", "to", "gain", "gain low", "gain high", "at fixed home", "at fixed home low", "at fixed home high", "trials", "pairs"]
    return pd.DataFrame(rows).reindex(columns=columns).dropna(subset=["gain"]).reset_index(drop=True)


def variance_shares(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the share of the variance of a metric elsewhere that each choice explains: type-II sums of squares of main effects, with the pair of domains as a block."""
    points = _points(scores, metric)
    names = ["learner_name", *choices(scores)]
    blocks = {"pair": _dummies(points.task.astype(str) + "\0" + points.domain.astype(str))} | {n: _dummies(_as_level(points[n])) for n in names}
    blocks = {k: v for k, v in blocks.items() if k == "pair" or v.shape[1]}
    y = points.value.to_numpy(float)
    total = float(np.square(y - y.mean()).sum())
    if len(blocks) < 2 or total <= 0:
        return pd.DataFrame(columns=["choice", "share"])
    full = _residual(list(blocks.values()), y)
    rows = [{"choice": name, "share": max(0.0, _residual([v for k, v in blocks.items() if k != name], y) - full) / total} for name in blocks]
    return pd.DataFrame([*rows, {"choice": "rest", "share": full / total}]).sort_values("share", ascending=False).reset_index(drop=True)


def _residual(blocks: Sequence[Array], y: Array) -> float:
    x = np.concatenate([np.ones((len(y), 1)), *blocks], axis=1)
    beta = np.linalg.lstsq(x, y, rcond=None)[0]
    return float(np.square(y - x @ beta).sum())


def _dummies(values: pd.Series[Any]) -> Array:
    codes = pd.Categorical(values).codes
    return np.eye(int(codes.max()) + 1)[codes][:, 1:]


def _as_level(values: pd.Series[Any]) -> pd.Series[Any]:
    told = values.astype(object).where(values.notna(), "none")
    return told.map(lambda v: f"{v:g}" if isinstance(v, float) else str(v)).astype(str)


def _ordered(levels: Any) -> list[str]:
    def key(level: str) -> tuple[int, float, str]:
        try:
            return 1, float(level), level
        except ValueError:
            return (0 if level in ("none", "False", "nan") else 2), 0.0, level

    return sorted((str(v) for v in levels), key=key)


def _points(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return one row a trial and domain elsewhere: its value, the value at home, and effective robustness where a line can be fitted."""
    found = []
    for _, part, _ in points_of_pairs(scores, metric):
        home, there = part.home.to_numpy(), part.value.to_numpy()
        line = fit_line(home, there, float(part.home_n.mean()), float(part.n.mean()), metric in UNIT_METRICS)
        found.append(part.assign(robust=np.nan if line is None else effective_robustness(home, there, line)))
    if not found:
        raise UserError("no pair of home and elsewhere: no task of this result judges at home")
    return pd.concat(found, ignore_index=True)


# --- choosing -------------------------------------------------------------------------------------------------------


Halves = Callable[[Sequence[str], str], "tuple[pd.Series[float], pd.Series[float]] | None"]


def regrets(scores: pd.DataFrame, metric: str, halves: Halves = lambda trials, domain: None) -> pd.DataFrame:
    """Return what choosing the trial by each measure at home costs: best value elsewhere minus that of the pick, mean over pairs of domains and seeds.

    Beside the measures at home: ``other domains``, the configuration that is best on the other
    domains, each judged by a training that did not see it (leave-one-domain-out selection, as in
    DomainBed); ``oracle``, the best on one half of the units there, judged on the other half;
    ``stress``, the best mean over stress domains; ``at random``, the mean trial. Trials that tie
    share the choice.

    Args:
        scores: of a result.
        metric: that is judged elsewhere.
        halves: (trials, domain) -> the value of each trial on the two halves of the domain's units,
            where they are known; without them there is no oracle, which would judge by what it chose.
    """
    points = _points(scores, metric)
    sign = 1.0 if bool(points.higher_is_better.iloc[0]) else -1.0
    points = points.assign(score=sign * points.value, trial=points.trial.astype(str))
    rows: list[dict[str, Any]] = []
    for (task, seed), part in points.groupby(["task", "seed"], observed=True):
        table = wide(part, "trial", "domain", "score")
        criteria = _criteria(scores[scores.trial.isin(table.index)], metric, table)
        others = points[(points.seed == seed) & _family(points, task)]
        for domain in table:
            there = table[domain].dropna()
            if len(there) < 2:
                continue
            criteria["other domains"] = _other_domains(part, others, str(domain))
            told = {"at random": float(there.max() - there.mean())}
            told |= {name: regret for name, by in criteria.items() if (regret := _regret(there, by)) is not None}
            if (split := halves(list(there.index), str(domain))) is not None:
                told["oracle"] = _split_regret(sign * split[0], sign * split[1])
            rows += [{"by": by, "regret": regret, "pair": (task, domain)} for by, regret in told.items()]
    return _summed_regrets(pd.DataFrame(rows, columns=["by", "regret", "pair"]))


def _summed_regrets(frame: pd.DataFrame) -> pd.DataFrame:
    told = []
    for by, part in frame.groupby("by", sort=False):
        each = part.groupby("pair").regret.mean().to_numpy()
        low, high = over_pairs(each)
        ends = {"low": max(low, 0.0) if low == low else low, "high": high}
        told.append({"by": str(by), "regret": float(each.mean()), **ends, "worst": float(each.max()), "pairs": len(each)})
    table = pd.DataFrame(told, columns=["by", "regret", "low", "high", "worst", "pairs"])
    return table.sort_values("regret", kind="stable").reset_index(drop=True)


def _regret(there: pd.Series[Any], by: pd.Series[Any] | None) -> float | None:
    """Return the best value minus that of the trial with the largest criterion, the mean where several tie; None where it is not known of all."""
    value = None if by is None else by.reindex(there.index).dropna()
    if value is None or len(value) < len(there):
        return None
    return float(there.max() - there[value >= value.max()].mean())


def _split_regret(one: pd.Series[Any], other: pd.Series[Any]) -> float:
    """Return what choosing on one half costs on the other, mean of both ways round."""
    costs = [_regret(judged, by) for by, judged in ((one, other), (other, one))]
    return float(np.mean([c for c in costs if c is not None]))


def _family(points: pd.DataFrame, task: Any) -> pd.Series[bool]:
    """Return which points belong to tasks of the same family."""
    if "task_name" not in points:
        return pd.Series(True, points.index)
    return points.task_name == points.task_name[points.task == task].iloc[0]


def _other_domains(part: pd.DataFrame, family: pd.DataFrame, domain: str) -> pd.Series[Any] | None:
    """Return how good each trial's configuration is on domains other than this one.

    Those that its own task judges elsewhere; where there are none (one domain left out a task), those
    that the same configuration was judged on when they were the ones left out.
    """
    own = part[part.domain.astype(str) != domain]
    if len(own):
        means: pd.Series[Any] = own.groupby("trial").score.mean()
        return means
    beyond = family[family.domain.astype(str) != domain]
    if not len(beyond):
        return None
    by_learner = beyond.groupby("learner", observed=True).score.mean()
    return part.set_index("trial").learner.astype(str).map(by_learner)


def _criteria(scores: pd.DataFrame, metric: str, there: pd.DataFrame) -> dict[str, pd.Series[Any] | None]:
    """Return name -> the value of each trial that is to be largest."""
    rows = scores.assign(value=np.where(scores.higher_is_better, 1.0, -1.0) * scores.value, trial=scores.trial.astype(str))
    found: dict[str, pd.Series[Any] | None] = {}
    home = rows[rows.role == "home"]
    for name in measures(scores):
        values = home[home.metric == name].groupby("trial", observed=True).value.mean()
        if len(values) and values.notna().all():
            found[f"{name} at home"] = values
    stress = rows[(rows.role == "stress") & (rows.metric == metric)].groupby("trial", observed=True).value.mean()
    if len(stress) and (rows.role == "elsewhere").any():
        found[f"{metric} under stress"] = stress
    return found


def chosen(scores: pd.DataFrame, metric: str, by: str) -> pd.DataFrame:
    """Return, for each task, seed and domain elsewhere, the trial picked by a measure at home, its value there and its regret."""
    points = _points(scores, metric)
    sign = 1.0 if bool(points.higher_is_better.iloc[0]) else -1.0
    rows = scores[(scores.metric == by) & (scores.role == "home")]
    if not len(rows):
        raise UserError(f"no measure {by!r} at home{did_you_mean(by, measures(scores))}")
    value = (np.where(rows.higher_is_better, 1.0, -1.0) * rows.value).groupby(rows.trial.astype(str)).mean()
    points = points.assign(by=points.trial.astype(str).map(value)).dropna(subset=["by"])
    best = points.loc[points.groupby(["task", "seed", "domain"], observed=True).by.idxmax()]
    top = points.assign(score=sign * points.value).groupby(["task", "seed", "domain"], observed=True).score.max().rename("top").reset_index()
    joined = best.merge(top, on=["task", "seed", "domain"])
    return joined.assign(regret=joined.top - sign * joined.value)[["task", "seed", "domain", "learner", "value", "regret"]].reset_index(drop=True)


def corruption_table(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return each learner's metric under stress, mean over types for each severity and over all (spec 01, 2.3.5)."""
    rows = scores[(scores.metric == metric) & (scores.role == "stress")]
    if not len(rows) or "severity" not in rows:
        return pd.DataFrame()
    by = ["learner", "severity"]
    table = rows.groupby(by, observed=True).value.mean().unstack()
    table.columns = [f"severity {int(c)}" for c in table.columns]
    return table.assign(all=rows.groupby("learner", observed=True).value.mean()).sort_values("all", ascending=False).reset_index()


def radar(scores: pd.DataFrame, metric: str = "accuracy") -> pd.DataFrame:
    """Return for each learner up to six measures in 0..1, larger is better: accuracy at home, elsewhere, under stress, 1 - calibration error, 1 - disparity at home, adversarial accuracy."""
    rows = scores.assign(learner=scores.learner.astype(str))

    def mean(name: str, role: str) -> pd.Series[Any]:
        part = rows[(rows.metric == name) & (rows.role == role)]
        return part.groupby("learner").value.mean()

    told = {f"{metric} at home": mean(metric, "home"), f"{metric} elsewhere": mean(metric, "elsewhere"), f"{metric} under stress": mean(metric, "stress")}
    told |= {"1 - calibration error": 1 - mean("ece", "home"), "1 - disparity": 1 - mean("inferred_disparity", "home"), "adversarial accuracy": mean("adversarial", "home")}
    frame = pd.DataFrame({k: v for k, v in told.items() if len(v.dropna())})
    return frame.clip(0, 1) if metric in BOUNDED else pd.DataFrame()
