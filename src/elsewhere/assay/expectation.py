"""An expectation: a statement about a result that holds, fails or cannot be told, with its confidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from elsewhere.errors import UserError, did_you_mean, one_line

if TYPE_CHECKING:
    import pandas as pd

    from elsewhere.assay.result import Result

State = Literal["holds", "fails", "cannot tell"]
OVER = ("mean", "worst", "best")


class Verdict(msgspec.Struct, frozen=True):
    """What became of an expectation: its state, the value and its one-sided bounds, and a sentence."""

    state: State
    value: float
    low: float
    high: float
    sentence: str


class Expectation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """metric in ``where`` (minus the same in ``minus``) is at least or at most a bound, one-sided at its confidence.

    Args:
        metric: as in the scores.
        where: task, learner, domain, role, any option of task or learner, any key of a domain's ``about``.
        minus: a second selection; what it does not set it takes from ``where``.
        over: how domains and tasks of a selection are joined within a seed: mean, worst or best.
        at_least, at_most: the bound.
        confidence: of the one-sided statement.
        in_seeds: instead of a confidence: it must hold in so many seeds.
        beats, by: sugar: minus another learner, better by at least ``by`` (in the metric's own direction).
        gap_at_most: sugar: home minus this selection, in the metric's direction, is at most so much.
        statistic: ``module:function`` of the result instead of a metric; returns a number, or one a seed.
        label: what it is called in tables.
    """

    metric: str = ""
    where: dict[str, Any] = {}
    minus: dict[str, Any] | None = None
    over: str = "mean"
    at_least: float | None = None
    at_most: float | None = None
    confidence: float = 0.95
    in_seeds: int | None = None
    beats: str | None = None
    by: float = 0.0
    gap_at_most: float | None = None
    statistic: str | None = None
    label: str = ""

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Expectation:
        """Return the expectation that a table of a study file describes."""
        if unknown := sorted(set(item) - set(cls.__struct_fields__)):
            raise UserError(f"an expectation has no key {unknown[0]!r}{did_you_mean(unknown[0], cls.__struct_fields__)}")
        try:
            made = msgspec.convert(dict(item), cls)
        except msgspec.ValidationError as error:
            raise UserError(f"expectation: {one_line(error)}") from error
        made.check_itself()
        return made

    def check_itself(self) -> None:
        """Refuse what contradicts itself whatever the study.

        Raises:
            UserError: no bound or several, neither metric nor statistic, a statistic that is not there …
        """
        bounds = [self.at_least is not None, self.at_most is not None, self.beats is not None, self.gap_at_most is not None]
        if sum(bounds) != 1:
            raise UserError("an expectation needs exactly one of at_least, at_most, beats, gap_at_most")
        if bool(self.metric) == bool(self.statistic):
            raise UserError("an expectation needs a metric or a statistic, not both")
        if self.statistic is not None and ":" not in self.statistic:
            raise UserError(f"statistic {self.statistic!r} is not module:function")
        if self.over not in OVER:
            raise UserError(f"over must be mean, worst or best, not {self.over!r}")
        if not 0.5 <= self.confidence < 1:
            raise UserError(f"confidence must be at least 0.5 and below 1, not {self.confidence}")
        if self.in_seeds is not None and self.in_seeds < 1:
            raise UserError(f"in_seeds must be at least 1, not {self.in_seeds}")
        if self.minus is not None and (self.beats or self.gap_at_most is not None):
            raise UserError("minus cannot be joined with beats or gap_at_most")

    @property
    def text(self) -> str:
        """The expectation in words."""
        if self.label:
            return self.label
        what = self.statistic or self.metric
        where = _words(self.where)
        if self.beats is not None:
            return f"{what}{where} beats {self.beats} by {self.by:g}"
        if self.gap_at_most is not None:
            return f"{what}{where} falls below home by at most {self.gap_at_most:g}"
        minus = f" minus that{_words(self.minus)}" if self.minus is not None else ""
        bound = f"at least {self.at_least:g}" if self.at_least is not None else f"at most {self.at_most:g}"
        return f"{what}{where}{minus} is {bound}"

    def check(self, result: Result) -> Verdict:
        """Return whether it holds in a result."""
        try:
            values, error = self._values(result)
        except UserError as problem:
            return Verdict("cannot tell", float("nan"), float("nan"), float("nan"), f"{self.text}: cannot tell, {problem}")
        return self.judge(values, error, self._bound(result))

    def judge(self, values: np.ndarray[Any, Any], error: float, bound: tuple[float, bool]) -> Verdict:
        """Return the verdict on one value a seed [seeds], a standard error over units and a bound (value, at least?)."""
        limit, at_least = bound
        signed = values if at_least else -values
        target = limit if at_least else -limit
        mean = float(values.mean())
        if self.in_seeds is not None:
            hits = int((signed >= target).sum())
            possible = hits + max(0, self.in_seeds - len(values))
            state: State = "holds" if hits >= self.in_seeds else "cannot tell" if possible >= self.in_seeds else "fails"
            return Verdict(state, mean, float(values.min()), float(values.max()), f"{self.text}: {state}, in {hits} of {len(values)} seeds ({mean:.3f} on average)")
        half = half_width(values, error, self.confidence, one_sided=True)
        low, high = mean - half, mean + half
        if not np.isfinite(half):
            why = "one seed and no error over units" if len(values) < 2 else "no spread is known"
            return Verdict("cannot tell", mean, float("nan"), float("nan"), f"{self.text}: cannot tell, {mean:.3f} but {why}")
        worst, best = (low, high) if at_least else (-high, -low)
        state = "holds" if worst >= target else "fails" if best < target else "cannot tell"
        return Verdict(state, mean, low, high, f"{self.text}: {state}, {mean:.3f} [{low:.3f}, {high:.3f}] at {self.confidence:.0%} on each side")

    def selections(self) -> list[tuple[dict[str, Any], frozenset[str]]]:
        """Return what is selected, and what it is compared with, each with the keys it only inherits; none for a statistic."""
        if self.statistic is not None:
            return []
        other: dict[str, Any] | None = None
        kept = self.where
        if self.beats is not None:
            other = {"learner": self.beats}
        elif self.gap_at_most is not None:
            kept = {k: v for k, v in self.where.items() if k not in ("domain", "role")}
            other = {"role": "home"}
        elif self.minus is not None:
            other = self.minus
        first: list[tuple[dict[str, Any], frozenset[str]]] = [(dict(self.where), frozenset())]
        return first if other is None else [*first, ({**kept, **other}, frozenset(kept) - frozenset(other))]

    def _bound(self, result: Result) -> tuple[float, bool]:
        higher = result.higher_is_better(self.metric) if self.metric else True
        if self.beats is not None:
            return (self.by, True) if higher else (-self.by, False)
        if self.gap_at_most is not None:
            return (self.gap_at_most, False) if higher else (-self.gap_at_most, True)
        return (self.at_least, True) if self.at_least is not None else (float(self.at_most or 0.0), False)

    def _values(self, result: Result) -> tuple[np.ndarray[Any, Any], float]:
        if self.statistic is not None:
            from elsewhere.task import resolve

            return np.atleast_1d(np.asarray(resolve(self.statistic)(result), float)), 0.0
        selected = [select(result, self.metric, where, inherited) for where, inherited in self.selections()]
        this, that = selected[0], selected[1] if len(selected) > 1 else None
        if self.gap_at_most is not None and that is not None:
            this, that = that[that.task.isin(this.task.unique())], this
        higher = result.higher_is_better(self.metric)
        a, spread_a = _by_seed(this, self.over, higher)
        if that is None:
            return a.to_numpy(), spread_a
        b, spread_b = _by_seed(that, self.over, higher)
        d = (a - b).dropna()
        if not len(d):
            raise UserError("the two selections share no seed")
        paired = paired_error(result, self.metric, this, that)
        return d.to_numpy(), paired if paired is not None else float(np.hypot(spread_a, spread_b))


def half_width(values: np.ndarray[Any, Any], error: float, confidence: float, one_sided: bool = False) -> float:
    """Return the half width of the interval of a mean over seeds: seeds by Student's t, units by their standard error, variances added.

    NaN where neither is known. With one seed: units alone.
    """
    from scipy.stats import norm, t

    level = confidence if one_sided else (1 + confidence) / 2
    units = 0.0 if np.isnan(error) else float(norm.ppf(level)) * error
    k = len(values)
    if k < 2:
        return units if units > 0 else float("nan")
    seeds = float(t.ppf(level, k - 1)) * float(values.std(ddof=1)) / k**0.5
    return float(np.hypot(seeds, units))


def select(result: Result, metric: str, where: Mapping[str, Any], inherited: set[str] | frozenset[str] = frozenset()) -> pd.DataFrame:
    """Return the score rows of a metric that a ``where`` selects; inherited keys that its trials do not have are ignored.

    Raises:
        UserError: nothing is selected, with the first key that left nothing.
    """
    scores = result.scores()
    rows = scores[scores.metric == metric]
    if not len(rows):
        raise UserError(f"no score of metric {metric!r}{did_you_mean(metric, scores.metric.unique())}")
    return filtered(rows, where, inherited)


def filtered(rows: pd.DataFrame, where: Mapping[str, Any], inherited: set[str] | frozenset[str] = frozenset()) -> pd.DataFrame:
    """Return the rows that a ``where`` selects; inherited keys that none of them has are ignored.

    Raises:
        UserError: nothing is selected, with the first key that left nothing.
    """
    for key, wanted in sorted(where.items(), key=lambda kv: kv[0] in inherited):
        hit = _matches(rows, key, wanted)
        if hit is None and key in inherited:
            continue
        if hit is None:
            raise UserError(f"no trial has {key!r}{_nearest(key, rows.columns)}")
        if not hit.any():
            known = list(map(str, rows[key].dropna().unique()))
            hint = _nearest(wanted, known) or f"; there are: {', '.join(known[:8])}"
            raise UserError(f"nothing has {key} = {wanted!r}{hint}")
        rows = rows[hit]
    return rows


def _nearest(wanted: Any, known: Iterable[str]) -> str:
    """Return "; did you mean …?", or nothing where no name is near."""
    hint = did_you_mean(str(wanted), known)
    return hint if hint.startswith("; did") else ""


def _matches(rows: pd.DataFrame, key: str, wanted: Any) -> pd.Series[bool] | None:
    names = [c for c in (("learner", "learner_name") if key == "learner" else ("task", "task_name") if key == "task" else (key,)) if c in rows]
    if not names or rows[names].isna().all(axis=None):
        return None
    values = wanted if isinstance(wanted, list) else [wanted]
    text = {str(v) for v in values}
    hit = rows[names[0]].isin(values) | rows[names[0]].astype(str).isin(text)
    for other in names[1:]:  # the name of a kind stands for all of its kind, unless one is called just so
        hit |= rows[other].isin([v for v in values if not (rows[names[0]].astype(str) == str(v)).any()])
    return hit


def _by_seed(rows: pd.DataFrame, over: str, higher: bool) -> tuple[pd.Series[float], float]:
    """Return one value a seed, and the standard error over units of their mean."""
    rows = rows.dropna(subset=["value"])
    if not len(rows):
        raise UserError("the metric has no value there")
    how = "mean" if over == "mean" else "min" if (over == "worst") == higher else "max"
    values = rows.groupby("seed").value.agg(how)
    if over == "mean":
        n = rows.groupby("seed").size()
        square = rows.assign(s=rows.error**2).groupby("seed").s.sum(min_count=1)
        errors = np.sqrt(square) / n
    else:
        picked = rows.groupby("seed").value.agg("idxmin" if how == "min" else "idxmax")
        errors = rows.loc[picked].set_index("seed").error
    return values, float(np.sqrt((errors**2).mean()))


def paired_error(result: Result, metric: str, this: pd.DataFrame, that: pd.DataFrame) -> float | None:
    """Return the standard error over units of a difference of two learners on the very same examples, or None where that is not so."""
    from elsewhere.task import standard_error

    keys = ["task", "seed", "domain"]
    joined = this.merge(that, on=keys, suffixes=("", "_other"))
    if not len(joined) or len(joined) != len(this) or len(joined) != len(that) or (joined.trial == joined.trial_other).any() or len(joined) > 500:
        return None
    each = result.examples([*joined.trial, *joined.trial_other])
    if metric not in each:
        return None
    by = dict(tuple(each.groupby(["trial", "domain"], observed=True)))
    squares: dict[Any, list[float]] = {}
    for row in joined.itertuples():
        a, b = by.get((row.trial, row.domain)), by.get((row.trial_other, row.domain))
        if a is None or b is None or len(a) != len(b):
            return None
        d = a[metric].to_numpy() - b[metric].to_numpy()
        ok = ~np.isnan(d)
        w = a.weight.to_numpy()[ok] if "weight" in a and a.weight.notna().all() else np.ones(ok.sum())
        influence = w / w.mean() * (d[ok] - np.average(d[ok], weights=w))
        squares.setdefault(row.seed, []).append(standard_error(influence, a.unit.to_numpy()[ok] if "unit" in a and a.unit.notna().all() else None) ** 2)
    return float(np.sqrt(np.mean([np.sum(v) / len(v) ** 2 for v in squares.values()])))


def _words(where: Mapping[str, Any]) -> str:
    return " of " + ", ".join(f"{v}" if k in ("learner", "domain", "task") else f"{k} {v}" for k, v in where.items()) if where else ""
