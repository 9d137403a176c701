"""An expectation: a statement about a result that holds, fails or cannot be told, with its confidence."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from elsewhere.assay.analysis import seed_means
from elsewhere.assay.intervals import Arms, arms, over_seeds, quantile
from elsewhere.assay.paired import paired_error, paired_spread
from elsewhere.errors import UserError, did_you_mean, one_line

if TYPE_CHECKING:
    import pandas as pd

    from elsewhere.assay.result import Result

State = Literal["holds", "fails", "cannot tell"]
OVER = ("mean", "worst", "best")
__all__ = ["Expectation", "Verdict", "half_width", "paired_error", "select"]


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

    def judge(self, values: np.ndarray[Any, Any], error: float | Arms, bound: tuple[float, bool]) -> Verdict:
        """Return the verdict on one value a seed [seeds], a bound (value, at least?), and how sure they are over units.

        ``error`` is a standard error, or the arms of the mean at this expectation's confidence.
        """
        limit, at_least = bound
        signed = values if at_least else -values
        target = limit if at_least else -limit
        mean = float(values.mean())
        if self.in_seeds is not None:
            hits = int((signed >= target).sum())
            possible = hits + max(0, self.in_seeds - len(values))
            state: State = "holds" if hits >= self.in_seeds else "cannot tell" if possible >= self.in_seeds else "fails"
            return Verdict(state, mean, float(values.min()), float(values.max()), f"{self.text}: {state}, in {hits} of {len(values)} seeds ({mean:.3f} on average)")
        sides = error if isinstance(error, Arms) else _normal_arms(error, self.confidence)
        down, up = (_half(values, float(side), self.confidence) for side in sides)
        low, high = mean - down, mean + up
        if not np.isfinite(down + up):
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

    def _values(self, result: Result) -> tuple[np.ndarray[Any, Any], float | Arms]:
        """Return one value a seed, and the arms of their mean over units."""
        if self.statistic is not None:
            from elsewhere.task import resolve

            values = np.atleast_1d(np.asarray(resolve(self.statistic)(result), float))
            return values, 0.0 if len(values) > 1 else float("nan")
        selected = [select(result, self.metric, where, inherited) for where, inherited in self.selections()]
        this, that = selected[0], selected[1] if len(selected) > 1 else None
        if self.gap_at_most is not None and that is not None:
            this, that = that[that.task.isin(this.task.unique())], this
        higher = result.higher_is_better(self.metric)
        a, arms_a = _by_seed(this, self.over, higher, self.confidence)
        if that is None:
            return a.to_numpy(), arms_a
        b, arms_b = _by_seed(that, self.over, higher, self.confidence)
        d = (a - b).dropna()
        if not len(d):
            raise UserError("the two selections share no seed")
        paired = paired_spread(result, self.metric, this, that)
        if paired is None:
            return d.to_numpy(), arms_a.of_difference(arms_b)
        half = quantile(paired.freedom, self.confidence) * paired.error
        return d.to_numpy(), Arms(np.asarray(half), np.asarray(half))


def half_width(values: np.ndarray[Any, Any], error: float, confidence: float, one_sided: bool = False) -> float:
    """Return the half width of the interval of a mean over seeds: seeds by Student's t, units by their standard error, variances added.

    NaN where neither is known. With one seed: units alone.
    """
    level = confidence if one_sided else (1 + confidence) / 2
    return _half(values, float(_normal_arms(error, level).down), level)


def _normal_arms(error: float, level: float) -> Arms:
    half = np.asarray(quantile(np.inf, level) * error)
    return Arms(half, half)


def _half(values: np.ndarray[Any, Any], units: float, level: float) -> float:
    """Return √((t_{k-1} s / √k)² + units²) for values of k seeds; NaN where no spread is known."""
    k = len(values)
    deviation = float(values.std(ddof=1)) if k > 1 else 0.0
    if np.isnan(units) and deviation == 0:
        return float("nan")
    return float(np.hypot(over_seeds(np.asarray(deviation), np.asarray(k), level), np.nan_to_num(units)))


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


def _by_seed(rows: pd.DataFrame, over: str, higher: bool, level: float) -> tuple[pd.Series[float], Arms]:
    """Return one value a seed, and the arms over units of their mean at a one-sided confidence."""
    rows = rows.dropna(subset=["value"])
    if not len(rows):
        raise UserError("the metric has no value there")
    if over == "mean":
        means = seed_means(rows, [], level).set_index("seed")
        return means.value, _root_mean(means.down, means.up)
    how = "min" if (over == "worst") == higher else "max"
    picked = rows.loc[rows.groupby("seed").value.agg(f"idx{how}")].set_index("seed")
    down, up = arms(picked, level)
    return picked.value, _root_mean(np.square(down), np.square(up))


def _root_mean(down: Any, up: Any) -> Arms:
    """Return the arms of a mean over seeds, which share their test sets: the root of the mean square; NaN unknown."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # no seed has a known error
        return Arms(*(np.sqrt(np.nanmean(np.asarray(side, float))) for side in (down, up)))


def _words(where: Mapping[str, Any]) -> str:
    return " of " + ", ".join(f"{v}" if k in ("learner", "domain", "task") else f"{k} {v}" for k, v in where.items()) if where else ""
