"""The shift decomposition as an explainer: from a result's kept losses to a sentence, tables and a waterfall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from elsewhere.assay.analysis import away
from elsewhere.data import Array, optional_column
from elsewhere.errors import NotOffered, UserError, did_you_mean
from elsewhere.explain.decomposition import APART_AUC, TERMS, Decomposition, decompose, features_of
from elsewhere.explain.domain_classifier import Classifier, codes
from elsewhere.explain.risky_region import risky_regions
from elsewhere.explainer import Explainer, Finding, plain
from elsewhere.learner import as_examples, offers

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from elsewhere.assay.result import Result

MOST_PAIRS, MOST_LEARNERS, MOST_FIGURES = 12, 6, 6
REGIONS = "Risky regions: how the loss of cases that both have changed, by the lower bound"
LIMITS = (
    "The identity holds for the features used: a changed relation may be a feature that nobody measured. Intervals hold the sampling of test examples{refit}; the trained models are taken as they are."
)


@dataclass
class ShiftDecomposition(Explainer):
    """Split the loss between home and each domain elsewhere into harder cases, a changed relation and cases never seen.

    Args:
        classifier: "logistic" or "boosting": what tells the domains apart.
        features, exclude: the columns to decompose on.
        folds: of the cross-fitting.
        resamples: for the intervals.
        loss: a per-example metric to use as the loss; default: the error of classes, the squared error of values.
        least: gaps smaller than this are not explained.
    """

    classifier: Classifier = "logistic"
    features: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    folds: int = 5
    resamples: int = 200
    loss: str | None = None
    least: float = 0.01
    revision: ClassVar[int] = 2
    cost: ClassVar[Literal["free", "minutes", "long"]] = "free"

    def applies(self, result: Result) -> str | None:
        scores = result.scores()
        if not len(scores):
            return "no trial has finished"
        if "home" not in set(scores.role) or not len(away(scores)):
            return "it needs a home domain and one elsewhere"
        names = set(scores.metric)
        if self.loss is None and not names & {"accuracy", "squared_error"}:
            return "no metric gives one number an example that could be a loss; name one with loss="
        return None

    def explain(self, result: Result) -> Finding:
        if self.classifier not in ("logistic", "boosting"):
            raise UserError(f"classifier must be logistic or boosting, not {self.classifier!r}")
        learners, said = _learners(result)
        table, regions, done = [], [], []
        for pair in _pairs(result, self._loss_name(result), learners):
            found = [replace(d, compared=pair.compared) for d in self._decompose(pair)]
            done.append((pair, found))
            table += [_row(pair, name, d, self.least) for name, d in zip(pair.learners, found, strict=True)]
            regions += self._regions(pair, found, learners[0])
        first = [(p, d) for p, found in done for name, d in zip(p.learners, found, strict=True) if name == learners[0]]
        told = sentences([(p, d, self._chosen(p)) for p, d in first], self.least)
        figures = {f"{p.domain}: where the loss of {learners[0]} came from": waterfall(p, d) for p, d in first[:MOST_FIGURES]}
        tables = {"Terms": pd.DataFrame(table)}
        if regions:
            tables[REGIONS] = pd.concat(regions, ignore_index=True)
        refitted = all(d.refitted or d.refused for _, found in done for d in found)
        refit = " and the fit of the domain classifier" if refitted else ", with the domain classifier fixed (boosting, or a large table), so they are a little too narrow"
        limits = LIMITS.format(refit=refit) + (" " + said if said else "") + f" Features: {self._used(done[0][0])}." if done else said
        return Finding(" ".join(told), tables, figures, limits)

    def _used(self, pair: _Pair) -> str:
        """Return what the decomposition is on, for the limits."""
        if self.features is None and not self.exclude:
            return pair.what
        return ", ".join(map(str, features_of(pair.home_x, pair.home_x, self.features, self.exclude)[0].columns))

    def _loss_name(self, result: Result) -> str:
        names = list(result.scores().metric.unique())
        if self.loss is not None and self.loss not in names:
            raise UserError(f"no metric {self.loss!r}{did_you_mean(self.loss, names)}")
        return self.loss or ("accuracy" if "accuracy" in names else "squared_error")

    def _chosen(self, pair: _Pair) -> str:
        if self.features is None and not self.exclude:
            return ""
        names = list(features_of(pair.home_x, pair.home_x, self.features, self.exclude)[0].columns)
        return "cases alike in " + ", ".join(names[:4]) + (", …" if len(names) > 4 else "")

    def _decompose(self, pair: _Pair) -> list[Decomposition]:
        return decompose(
            pair.home_x,
            pair.home_loss,
            pair.away_x,
            pair.away_loss,
            classifier=self.classifier,
            features=self.features,
            exclude=self.exclude,
            folds=self.folds,
            resamples=self.resamples,
            home_weight=pair.home_weight,
            elsewhere_weight=pair.away_weight,
            home_unit=pair.home_unit,
            elsewhere_unit=pair.away_unit,
        )

    def _regions(self, pair: _Pair, found: list[Decomposition], learner: str) -> list[pd.DataFrame]:
        """Look for risky regions where the terms mean something, for the learner that is written about."""
        if learner not in pair.learners or found[0].refused:
            return []
        m = pair.learners.index(learner)
        home, away = features_of(pair.home_x, pair.away_x, self.features, self.exclude)
        losses = pair.home_loss[:, m], pair.away_loss[:, m]
        table = risky_regions(
            home,
            losses[0],
            away,
            losses[1],
            found[m].log_ratio,
            units=pair.units,
            weights=pair.weights,
        )
        table.insert(0, "domain", pair.domain)
        table.insert(1, "learner", learner)
        return [table] if len(table) else []


@dataclass(frozen=True)
class _Pair:
    """One home and one domain elsewhere: features and the losses [n, learners] of the learners judged in both."""

    task: str
    domain: str
    learners: list[str]
    home_x: pd.DataFrame
    away_x: pd.DataFrame
    home_loss: Array
    away_loss: Array
    home_weight: Array | None
    away_weight: Array | None
    home_unit: Array | None
    away_unit: Array | None
    what: str
    many_tasks: bool
    compared: int = 1  # domains elsewhere of all tasks, of which the worst are explained

    @property
    def units(self) -> Array | None:
        """Units of the cases at home, then of those elsewhere; None where no side has any."""
        if self.home_unit is None and self.away_unit is None:
            return None
        sides = ((self.home_unit, len(self.home_x)), (self.away_unit, len(self.away_x)))
        home, away = (codes(unit, n) for unit, n in sides)
        return np.concatenate([home, -1 - away])

    @property
    def weights(self) -> Array | None:
        """Survey weights of the cases at home, then of those elsewhere; None if not given."""
        if self.home_weight is None and self.away_weight is None:
            return None
        sides = ((self.home_weight, len(self.home_x)), (self.away_weight, len(self.away_x)))
        return np.concatenate([np.ones(n) if weight is None else weight for weight, n in sides])


def _learners(result: Result) -> tuple[list[str], str]:
    """Return the learners to explain, best elsewhere first; constant ones (prior) last."""
    ranked = [str(n) for n in result.ranking().learner]
    kinds = dict(zip(result.trials().learner, result.trials().learner_name, strict=True))
    order = [n for n in ranked if kinds.get(n) != "prior"] + [n for n in ranked if kinds.get(n) == "prior"]
    said = "" if len(order) <= MOST_LEARNERS else f"Only the {MOST_LEARNERS} learners that are best elsewhere are explained."
    return order[:MOST_LEARNERS], said


def _pairs(result: Result, loss: str, learners: list[str]) -> list[_Pair]:
    trials = result.trials().query("status == 'done'")
    trials = trials[trials.learner.isin(learners)]
    scores = result.scores()
    judged = away(scores[(scores.learner == learners[0]) & (scores.metric == result.headline)])
    sign = 1 if result.higher_is_better(result.headline) else -1
    order = (sign * judged.groupby(["task", "domain"], observed=True, sort=False).value.mean()).sort_values(kind="stable")
    wanted = set(order.index[:MOST_PAIRS])
    each = result.examples(trials.trial)
    if loss not in each:
        raise UserError(f"metric {loss!r} keeps no value per example")
    direction = result.higher_is_better(loss)
    pairs = []
    repeated = order.index.get_level_values("domain").value_counts()
    for task, domain in [k for k in order.index if k in wanted]:
        mine = trials[trials.task == task]
        found = _pair(result, str(task), str(domain), mine, each, loss, direction, [n for n in learners if n in set(mine.learner)], repeated[domain] > 1)
        pairs.append(replace(found, compared=len(order)))
    return pairs


def _pair(result: Result, task: str, domain: str, trials: pd.DataFrame, each: pd.DataFrame, loss: str, higher: bool, learners: list[str], many: bool) -> _Pair:
    """Gather the union of the seeds' test examples on both sides; an example judged in several seeds has its mean loss.

    Cases that a learner represents come from one seed: two fits have two spaces.
    """
    sides = {}
    trials = trials.sort_values("learner", key=lambda names: names.astype(str).map({n: k for k, n in enumerate(learners)}), kind="stable")
    if not _is_table(result, trials):
        trials = trials[trials.seed == trials.seed.min()]
    what = ""
    for side in ("home", "away"):
        frames, rows = [], []
        for seed, of_seed in trials.groupby("seed"):
            made = result.task(of_seed.trial.iloc[0])
            chosen = [d for d in made.domains if (d.role == "home" if side == "home" else d.name == domain)]
            for d in chosen:
                data = d.load()
                x, what = _features(result, of_seed, data)
                frames.append(_with_columns(x, data, str(seed)))
                mine = each[(each.domain == d.name) & each.trial.isin(of_seed.trial)]
                wide = mine.pivot(index="row", columns="trial", values=loss)
                names = dict(zip(of_seed.trial, of_seed.learner, strict=True))
                rows.append(wide.rename(columns=names).reset_index(drop=True))
        x = pd.concat(frames, ignore_index=True)
        values = pd.concat(rows, ignore_index=True)
        key = x.pop("\0id")
        values.index, x.index = pd.Index(key), pd.Index(key)
        first = ~x.index.duplicated()
        mean = values.groupby(level=0, sort=False).mean()
        sides[side] = (x[first].reset_index(drop=True), mean.loc[x.index[first]])
    (home_x, home_loss), (away_x, away_loss) = sides["home"], sides["away"]
    kept = [n for n in learners if n in home_loss and n in away_loss]
    home_lost, away_lost = (1 - v[kept].to_numpy() if higher else v[kept].to_numpy() for v in (home_loss, away_loss))
    aside = [{k: (x.pop(f"\0{k}").to_numpy() if f"\0{k}" in x else None) for k in ("weight", "unit")} for x in (home_x, away_x)]
    here, there = aside
    return _Pair(task, domain, kept, home_x, away_x, home_lost, away_lost, here["weight"], there["weight"], here["unit"], there["unit"], what, many)


def _with_columns(x: pd.DataFrame, data: Any, seed: str) -> pd.DataFrame:
    """Add id, weight and unit under names no column has; without an id column, examples of two seeds are two examples."""
    ids = optional_column(data, "id")
    told: dict[str, Any] = {"\0id": [f"{seed} {k}" for k in range(len(x))] if ids is None else ids.astype(str)}
    for name in ("weight", "unit"):
        if (values := optional_column(data, name)) is not None:
            told[f"\0{name}"] = values
    return x.assign(**told)


def _is_table(result: Result, trials: pd.DataFrame) -> bool:
    plain_data = as_examples(result.task(trials.trial.iloc[0]).source.train)
    return plain_data is not None and hasattr(plain_data.inputs, "iloc")


def _features(result: Result, trials: pd.DataFrame, data: Any) -> tuple[pd.DataFrame, str]:
    """Return the raw columns of a table, else a representation of at most 64 numbers, and what they are called."""
    plain_data = as_examples(data)
    if plain_data is not None and hasattr(plain_data.inputs, "iloc"):
        return plain_data.inputs.reset_index(drop=True), "the table's columns"
    for trial in trials.itertuples():
        fitted = result.fitted(str(trial.trial))
        if offers(fitted, "represent"):
            try:
                z = np.asarray(fitted.represent(data), float)
            except NotOffered:
                continue
            return _principal(result, str(trial.trial), fitted, z), f"what {trial.learner} represents"
    if plain_data is not None:
        z = np.asarray(plain_data.inputs, float)
        return pd.DataFrame(z.reshape(len(z), -1)).add_prefix("input "), "the inputs"
    raise UserError("these data have no columns, and no learner represents them: nothing to decompose on")


def _principal(result: Result, trial: str, fitted: Any, z: Array, most: int = 64) -> pd.DataFrame:
    if z.shape[1] > most:
        source = np.asarray(fitted.represent(result.task(trial).source.train), float)
        _, _, axes = np.linalg.svd(source - source.mean(0), full_matrices=False)
        z = (z - source.mean(0)) @ axes[:most].T
    return pd.DataFrame(z).add_prefix("feature ")


def _row(pair: _Pair, learner: str, d: Decomposition, least: float) -> dict[str, Any]:
    row: dict[str, Any] = {"task": pair.task, "domain": pair.domain, "learner": learner, "answer": d.verdict(least), "loss at home": d.levels[0], "loss there": d.levels[3]}
    for k, name in enumerate(("gap", *TERMS)):
        value = d.gap if k == 0 else float(d.terms[k - 1])
        hidden = k > 0 and bool(d.refused)
        row |= {name: np.nan if hidden else value, f"{name} low": np.nan if hidden else d.low[k], f"{name} high": np.nan if hidden else d.high[k]}
    told = "; ".join(f"{name} (AUC {auc:.2f})" for name, auc in d.apart.items())
    low, high = d.shared_interval
    row |= {"shared": d.shared, "shared low": low, "shared high": high}
    row |= {"to drop": ", ".join(d.drop), "auc without": d.auc_without}
    return {**row, "overlap": d.overlap, "overlap from there": d.overlap_there, "auc": d.auc, "cases at home": d.effective[0], "cases there": d.effective[1], "refused": d.refused, "apart by": told}


NEVER_SEEN = """\
These are cases never seen at home: reweighting cannot help, measuring there can (or decompose on \
other columns with --features or --exclude)."""
ALIKE = "cases that look like those at home"
ADVICE = {
    "harder cases": """\
comes from more of the hard cases that home has too: train more on them, or reweight.""",
    "relation changed": """\
comes from {alike} but turn out differently: new labels or new columns are needed, reweighting by \
these columns does not help.""",
    "cases unseen at home": "comes from cases that hardly exist at home: collect data there.",
}


def sentences(found: Sequence[tuple[Any, Decomposition, str]], least: float, most: int = 3) -> list[str]:
    """Return one sentence per pair; more than ``most`` of which the same is to be said share one."""
    alike: dict[tuple[str, str], list[tuple[Any, Decomposition]]] = {}
    for pair, d, chosen in found:
        alike.setdefault(_same(d, least, chosen), []).append((pair, d))
    told = []
    for pair, d, chosen in found:
        key = _same(d, least, chosen)
        if not key[0] or len(alike[key]) <= most:
            told.append(sentence(pair, d, least, chosen))
        elif pair is alike[key][0][0]:
            told.append(_TOGETHER[key[0]](alike[key], key[1]))
    return told


def _same(d: Decomposition, least: float, chosen: str) -> tuple[str, str]:
    """Return what pairs must have in common to share a sentence: what is found, and what to do about it."""
    answer = d.verdict(least)
    if answer == "cannot tell" and d.auc >= APART_AUC and not chosen:
        return "apart", _lesson(d)
    if answer == "no gap worth explaining" and not d.shows_gap:
        return "no gap", ""
    if answer in TERMS:
        return "term", ADVICE[answer].format(alike=chosen or ALIKE) + _advice(d, chosen)
    return "", ""


def _apart_together(pairs: Sequence[tuple[Any, Decomposition]], lesson: str) -> str:
    told = "the reason cannot be told: the features tell them apart from home (AUC at least 0.98)"
    return f"In {_listed([_name(p) for p, _ in pairs])} {told}. {lesson}"


def _no_gap_together(pairs: Sequence[tuple[Any, Decomposition]], _: str) -> str:
    gaps = sorted(d.gap for _, d in pairs)
    names, ends = _listed([_name(p) for p, _ in pairs]), f"{gaps[0]:+.3f} to {gaps[-1]:+.3f}"
    among = pairs[0][1].compared
    return f"In {names} no gap is shown beyond doubt among {among} domains, so there is none to explain (differences {ends})."


def _term_together(pairs: Sequence[tuple[Any, Decomposition]], advice: str) -> str:
    def part(pair: Any, d: Decomposition) -> str:
        k = TERMS.index(d.verdict(0.0))
        return f"{_name(pair)} ({_with_interval(d, k, '+.2f')} of {d.gap:+.2f})"

    return f"In {_listed([part(p, d) for p, d in pairs])} what changed {advice}"


_TOGETHER = {"apart": _apart_together, "no gap": _no_gap_together, "term": _term_together}


def _name(pair: Any) -> str:
    return pair.domain + (f" ({pair.task})" if pair.many_tasks else "")


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def sentence(pair: Any, d: Decomposition, least: float, chosen: str = "") -> str:
    """Return one sentence that a manager can read."""
    where = f"In {_name(pair)}"
    answer = d.verdict(least)
    change = f"loss {d.levels[0]:.2f} → {d.levels[3]:.2f}"
    if answer == "cannot tell":
        reason = f"{d.refused}{_apart(d)}.{_advice(d, chosen)}"
        return f"{where} ({change}) the reason cannot be told: {reason}"
    if answer == "no gap worth explaining":
        return f"{where} {_no_gap(d, change, least)}"
    if answer not in TERMS:
        told = ", ".join(f"{name} {_with_interval(d, k, '+.2f')}" for k, name in enumerate(TERMS))
        return f"{where} ({change}) no single reason is beyond doubt: {told}.{_advice(d, chosen)}"
    k = TERMS.index(answer)
    move, sign = ("rise", 1) if d.gap > 0 else ("fall", -1)
    advice = ADVICE[answer].format(alike=chosen or ALIKE)
    part = f"{_with_interval(d, k, '.2f', sign)} of the {move} of {abs(d.gap):.2f} ({change})"
    return f"{where} {part} {advice}{_others(d, k)}{_advice(d, chosen)}"


def _no_gap(d: Decomposition, change: str, least: float) -> str:
    """Say that a gap is small only where its whole interval is; else that none is shown."""
    told = f"({change}, difference {d.gap:+.3f} [{d.low[0]:.3f}, {d.high[0]:.3f}])"
    if -least <= d.low[0] and d.high[0] <= least:
        return f"there is no gap worth explaining {told}."
    if d.low[0] <= 0 <= d.high[0]:
        return f"no gap is shown, so there is none to explain {told}."
    if not d.shows_gap:
        return f"no gap is shown beyond doubt among {d.compared} domains, so there is none to explain {told}."
    return f"the gap is too small to explain, below {least:g} {told}."


def _with_interval(d: Decomposition, k: int, style: str, sign: int = 1) -> str:
    low, high = sorted((sign * float(d.low[k + 1]), sign * float(d.high[k + 1])))
    return f"{sign * float(d.terms[k]):{style}} [{low:.2f}, {high:.2f}]"


def _others(d: Decomposition, answer: int) -> str:
    """Name the other terms, with their intervals, as far as they are beyond doubt."""
    others = [k for k in range(3) if k != answer]
    sure = [k for k in others if not d.low[k + 1] <= 0 <= d.high[k + 1]]
    told = [f"{TERMS[k]} {_with_interval(d, k, '+.2f')}" for k in sure]
    nouns = ("harder cases", "a changed relation", "cases unseen at home")
    told += [f"no sign of {nouns[k]}" for k in others if k not in sure]
    return f" Besides: {', '.join(told)}."


def _apart(d: Decomposition) -> str:
    names = [f"`{n}`" for n in d.apart]
    tell = "tell" if len(names) > 1 else "tells"
    return f"; {', '.join(names)} alone {tell} them apart" if names else ""


def _advice(d: Decomposition, chosen: str) -> str:
    told = _lesson(d) if (d.auc >= APART_AUC and not chosen) or d.drop else ""
    return f" {told}" if told else ""


def _lesson(d: Decomposition) -> str:
    """Return what to do about domains that are apart: drop columns, by name, or measure there."""
    mended = d.auc < APART_AUC or d.auc_without < APART_AUC
    told = [_drop(d)] if d.drop else []
    return " ".join(told if told and mended else [*told, NEVER_SEEN])


def _drop(d: Decomposition) -> str:
    """Say which columns to drop, and what is left out of the comparison by it."""
    reasons = [f"`{n}` numbers or names the rows" for n in d.identifiers]
    reasons += [f"AUC {d.auc_without:.2f} without"] if d.auc_without < APART_AUC else []
    why = f" ({'; '.join(reasons)})" if reasons else ""
    names = ", ".join(f"`{n}`" for n in d.drop)
    told = f"Drop {names} with --exclude {','.join(d.drop)}{why}"
    features = [f"`{n}`" for n in d.drop if n not in d.identifiers]
    if not features:
        return told + "."
    matter = f"as far as {', '.join(features)} should count, these are cases never seen at home"
    return f"{told} to compare the rest; {matter}."


def waterfall(pair: Any, d: Decomposition) -> go.Figure:
    """Draw home error, three steps and error there as stacked bars with whiskers; refused ones greyed with the reason."""
    import plotly.graph_objects as go

    names = ["home", *TERMS, "there"]
    levels, terms = d.levels, d.terms
    base = [0.0, *(min(levels[k], levels[k + 1]) for k in range(3)), 0.0]
    height = [levels[0], *np.abs(terms), levels[3]]
    grey = "#9aa0a6"
    colours = [grey] * 5 if d.refused else ["#4c6ef5", *("#e8590c" if v > 0 else "#2f9e44" for v in terms), "#4c6ef5"]
    if d.refused:
        names, base, height, colours = [names[0], names[-1]], [0.0, 0.0], [levels[0], levels[3]], [grey, grey]
    texts = [f"{v:.3f}" for v in height] if d.refused else [f"{levels[0]:.3f}", *(f"{v:+.3f}" for v in terms), f"{levels[3]:.3f}"]
    figure = go.Figure()
    figure.add_bar(x=names, y=base, marker_color="rgba(0,0,0,0)", hoverinfo="skip", showlegend=False)
    figure.add_bar(x=names, y=height, marker_color=colours, showlegend=False, hovertext=texts, hoverinfo="text")
    if not d.refused:
        top = [float(levels[k + 1]) for k in range(3)]
        up, down = [float(d.high[k + 1] - terms[k]) for k in range(3)], [float(terms[k] - d.low[k + 1]) for k in range(3)]
        figure.add_scatter(
            x=list(TERMS), y=top, mode="markers", marker={"size": 1, "color": "#888"}, showlegend=False, hoverinfo="skip",
            error_y={"type": "data", "array": up, "arrayminus": down, "symmetric": False, "color": "#888", "thickness": 1.5},
        )  # fmt: skip
    for name, y, text in zip(names, np.add(base, height), texts, strict=True):
        figure.add_annotation(x=name, y=float(y), text=text, showarrow=False, yshift=12, xshift=0 if name in ("home", "there") else 26)
    title = f"{plain(pair.domain)}: {plain(d.refused)}" if d.refused else f"{plain(pair.domain)}: overlap {d.overlap:.2f}"
    figure.update_layout(barmode="stack", title={"text": title, "font": {"size": 14}}, yaxis_title="loss", height=340, margin={"t": 50, "b": 40})
    return figure
