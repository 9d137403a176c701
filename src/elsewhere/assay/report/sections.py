"""What a report says, in order: words first, then tables, then figures. No section where there is nothing to say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from elsewhere.assay import analysis, statistics
from elsewhere.assay.layout import ORDER, interval_text, layout
from elsewhere.assay.report import figures
from elsewhere.assay.report.groups import groups
from elsewhere.assay.report.parts import Section, figure_of, quiet, section, table_of

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

MOST_LEARNERS, MOST_TRIALS_READ = 50, 60
MOST_CORRELATED = 20_000  # trials; above, correlations are asked for from Python


def context(result: Result) -> dict[str, Any]:
    """Return everything the page shows."""
    about = result.about
    sections = [
        s
        for make in (
            _expectations,
            _main_table,
            _pictures,
            _heat_map,
            _severity,
            _order,
            _scatter,
            _calibration,
            groups,
            _curves,
            _findings,
            _ranking,
            _many_sides,
            _predictors,
            _correlations,
            _helps,
            _choosing,
            _measured,
            _failures,
        )
        for s in make(result)
    ]
    return {
        "title": about.get("claim") or _title(result),
        "reference": about.get("reference", ""),
        "notes": result.notes(),
        "summary": [*result.summary(), *(f.sentence for f in result.findings().values())],
        "sections": sections,
        "footer": _footer(result),
    }


def _title(result: Result) -> str:
    names = list(dict.fromkeys(result.trials().get("task_name", pd.Series(dtype=str))))
    return f"Will it hold elsewhere? {', '.join(map(str, names[:3]))}"


def _expectations(result: Result) -> list[Section]:
    verdicts = result.verdicts()
    if not verdicts:
        return []
    frame = pd.DataFrame([{"expectation": text, "state": v.state, "value": v.value, "low": v.low, "high": v.high} for text, v in verdicts])
    holds = int((frame.state == "holds").sum())
    return [section("Expectations", f"{holds} of {len(frame)} hold.", [table_of(frame, "Each expectation, its value and one-sided bounds")])]


@quiet
def _main_table(result: Result) -> list[Section]:
    metric = result.headline
    names = [metric, *(m for m in result.scores().metric.unique() if m != metric and m not in analysis.NOT_MEASURES)]
    shown = [_wide(result, m) for m in names[:10]]
    text = f"Value and 95 % interval; home is held out from the source. The first table, {metric}, is the headline."
    trials = result.trials()
    seen = list(trials[trials.sees_unlabelled].learner.unique()) if "sees_unlabelled" in trials else []
    text += f" Saw unlabelled data of the domains elsewhere: {', '.join(map(str, seen))}." if len(seen) else ""
    return [section("Home and elsewhere", text, shown)]


def _wide(result: Result, metric: str) -> dict[str, Any]:
    table = result.table(metric)
    rows_in_all = len(table)
    order = [n for n in result.ranking().learner if n in table.index] if table.index.nlevels == 1 else list(table.index)
    table = table.loc[order[:MOST_LEARNERS]] if order else table
    domains = list(dict.fromkeys(c[0] for c in table.columns))[:30]
    rows = []
    for key, row in table.iterrows():
        told = dict(zip(table.index.names, key if isinstance(key, tuple) else (key,), strict=True))
        cells_ = [{"text": str(v), "sort": str(v), "number": False} for v in told.values()]
        for d in domains:
            value, low, high = (float(row[(d, k)]) for k in ("value", "low", "high"))
            text = interval_text(value, low, high)
            cells_.append({"text": text, "sort": "" if np.isnan(value) else repr(value), "number": True})
        rows.append(cells_)
    note = f"The {len(table)} best of {rows_in_all:,} rows; all are in the Parquet files of the result." if rows_in_all > len(table) else ""
    return {"caption": metric, "columns": [*map(str, table.index.names), *map(str, domains)], "rows": rows, "note": note}


@quiet
def _heat_map(result: Result) -> list[Section]:
    cells = result.cells()
    plan = layout(cells)
    repeated = plan.rows != ["learner"]
    column = plan.labels + (" ← " + cells.task.astype(str) if repeated else "")
    rank = {n: k for k, n in enumerate(result.ranking().learner)}
    cells = cells.assign(column=column, by=cells.learner.astype(str).map(rank))
    cells = cells[cells.by < MOST_LEARNERS]
    order = plan.columns if not repeated else _by_role(cells)
    columns = list(order)[:60]
    shown = cells[cells.column.isin(columns)].sort_values("by", kind="stable")
    wide = shown.assign(column=pd.Categorical(shown.column, columns, ordered=True))
    return [
        section(
            "Where it holds",
            f"{result.headline} of each learner in each domain, home first.",
            plots=[figure_of("Heat map", figures.heat_map(wide, result.higher_is_better(result.headline)))],
        )
    ]


def _by_role(cells: pd.DataFrame) -> list[str]:
    """Return the columns of cells, home first, then stress, then elsewhere."""
    at = cells.role.astype(str).map(ORDER)
    return list(dict.fromkeys(cells.assign(at=at).sort_values("at", kind="stable").column))


def _pictures(result: Result) -> list[Section]:
    from elsewhere.assay.previews import kept

    sheets = [{**figure_of(name, image), "caption": name} for name, image in kept(result).items()]
    text = "A few examples of each domain, drawn, as the learners get them."
    return [{**section("Examples", text), "pictures": sheets}] if sheets else []


@quiet
def _severity(result: Result) -> list[Section]:
    scores = result.scores()
    if "severity" not in scores or not scores.severity.notna().any():
        return []
    keys = ["task", "domain"]
    told = scores.dropna(subset=["severity"]).astype(dict.fromkeys(keys, str)).drop_duplicates(keys).set_index(keys)
    cells = result.cells().astype(dict.fromkeys(keys, str))
    place = pd.MultiIndex.from_frame(cells[keys])
    known = (cells.role != "home") & place.isin(told.index)
    stressed, place = cells[known], place[known]
    stressed = stressed.assign(severity=told.severity.reindex(place).to_numpy(float))
    other = [c for c in ("shift", "corruption", "stress") if c in told]
    stressed = stressed.assign(kind=told[other[0]].reindex(place).to_numpy() if other else "severity")
    home = cells[cells.role == "home"]
    plots = []
    several = stressed.task.nunique() > 1
    for (task, kind), rows in stressed.groupby(["task", "kind"], observed=True, sort=False):
        name = f"{kind} ({task})" if several else str(kind)
        at_home = home[home.task == task]
        drawn = figures.over_severity(rows, at_home, f"{result.headline}, {name}")
        plots.append(figure_of(f"{result.headline} by severity: {name}", drawn))
    return [section("By severity", "Each learner under each stress; the dotted line of its colour is where it stands at home.", plots=plots[: figures.MOST_PANELS])]


@quiet
def _order(result: Result) -> list[Section]:
    scores = result.scores()
    if "order" not in scores or not scores.order.notna().any():
        return []
    order = scores[scores.role != "home"].dropna(subset=["order"]).groupby("domain", observed=True).order.first()
    cells = result.cells()
    cells = cells[cells.domain.isin(order.index) & (cells.role != "home")]
    cells = cells.assign(order=cells.domain.map(order).astype(float))
    home = result.cells().query("role == 'home'").assign(order=-1.0, domain="home")
    drawn = pd.concat([home, cells])
    several = drawn.task.nunique() > 1
    plots = [figure_of(f"Over time ({task})" if several else "Over time", figures.over_order(rows, result.headline)) for task, rows in drawn.groupby("task", observed=True, sort=False)]
    return [section("Over time", "From home through each later period.", plots=plots[: figures.MOST_PANELS])]


@quiet
def _scatter(result: Result) -> list[Section]:
    metric = result.headline
    points = analysis.points_of_pairs(result.scores(), metric)
    if not points:
        return []
    plots, notes = [], []
    for (task, domain), rows, _ in points[: figures.MOST_PANELS]:
        figure, note = figures.home_against_elsewhere(rows, metric, f"{domain}" + (f" ({task})" if len({k[0] for k, _, _ in points}) > 1 else ""))
        plots.append(figure_of(f"{metric} at home and in {domain}", figure))
        notes += [note] if note else []
    table = result.pairs()
    if (table.kind != "").any() and len(table) > 1:
        plots.insert(0, figure_of("What kind of pair each is", figures.kinds(table)))
    text = "Each point is a trial. On the dotted line it is as good elsewhere as at home."
    if len(points) > figures.MOST_PANELS:
        text += f" The first {figures.MOST_PANELS} of {len(points)} pairs are drawn; the table holds all."
    if (table.trials < analysis.ENOUGH).all():
        text += f" No line is fitted: that takes {analysis.ENOUGH} trials of a pair."
    tables = [table_of(table, "Pairs of task and domain: kind, rank correlation, line")]
    limits = f"What kind of pair it is follows fixed thresholds: {analysis.Thresholds()}." if (table.kind != "").any() else ""
    return [section("Home against elsewhere", " ".join(dict.fromkeys([text, *notes])), tables, plots, limits)]


@quiet
def _calibration(result: Result) -> list[Section]:
    learner = next((n for n in result.ranking().learner if "prior" not in str(n)), None)
    trials = result.trials().query("status == 'done'")
    mine = trials[trials.learner == learner].trial.head(MOST_TRIALS_READ)
    each = result.examples(mine) if len(mine) else pd.DataFrame()
    if "confidence" not in each or "accuracy" not in each:
        return []
    each = _labelled(result, each.dropna(subset=["confidence", "accuracy"]))
    means = {"confidence": ("confidence", "mean"), "right": ("accuracy", "mean"), "examples": ("accuracy", "size")}
    table = each.groupby(["domain", "role"], observed=True, sort=False).agg(**means).reset_index()
    table.insert(4, "too sure by", table.confidence - table.right)
    home = set(table[table.role == "home"].domain)
    worst = table.sort_values("too sure by", ascending=False).domain
    few = [*[d for d in table.domain if d in home][:2], *[d for d in worst if d not in home][:6]]
    text = "Of the predictions made with a confidence of 0.8, are 8 in 10 right? Below the dotted line the model is too sure of itself."
    text += " Drawn: home and the domains where it is too sure by most." if len(table) > len(few) else ""
    plots = [figure_of("Reliability curves", figures.reliability(each[each.domain.isin(few)], str(learner)))]
    return [section("Calibration by domain", text, [table_of(table, f"{learner}: mean confidence and share right")], plots)]


def _labelled(result: Result, each: pd.DataFrame) -> pd.DataFrame:
    """Return values per example with their role, and with a domain's name that keeps roles and tasks apart."""
    keys = ["trial", "domain"]
    where = result.scores()[[*keys, "task", "role"]].astype(str).drop_duplicates(keys)
    joined = each.astype(dict.fromkeys(keys, str)).merge(where, on=keys)
    plan = layout(joined)
    repeated = plan.rows != ["learner"]
    return joined.assign(domain=plan.labels + (" ← " + joined.task if repeated else ""))


@quiet
def _curves(result: Result) -> list[Section]:
    if len(result.trials()) > 1000 or not len(history := result.history()):
        return []
    history = history.merge(result.trials()[["trial", "learner"]], on="trial")
    names = list(dict.fromkeys(history.name))[:6]
    return [section("Training", "Means over the trials of a learner.", plots=[figure_of(n, figures.curves(history[history.name == n], n)) for n in names])]


def _findings(result: Result) -> list[Section]:
    sections = []
    for name, finding in result.findings().items():
        tables = [table_of(frame, title) for title, frame in finding.tables.items()]
        sections.append(section(f"Why: {name}", "", tables, [{**figure_of(t, f), "caption": t} for t, f in finding.figures.items()], finding.limits))
    return sections


@quiet
def _ranking(result: Result) -> list[Section]:
    text = "Learners that share a rank cannot be told apart (paired differences over the same tasks, domains and seeds; Holm-corrected)."
    return [section("Ranking elsewhere", text, [table_of(result.ranking(), f"By mean {result.headline} elsewhere")])]


@quiet
def _predictors(result: Result) -> list[Section]:
    table = result.predictors()
    if not len(table):
        return []
    text = "Rank correlation of each measure at home with the headline elsewhere, within each pair; signs turned so that larger is better."
    return [section("What foretells elsewhere", text, [table_of(table, "Median over pairs, its interval, and range")])]


@quiet
def _correlations(result: Result) -> list[Section]:
    if len(result.trials()) > MOST_CORRELATED:
        return []
    table, there = result.correlations(), result.correlations("there", "there")
    beyond = result.correlations(given=result.headline)
    beyond = beyond[beyond["with"] == result.headline].drop(columns=["with", "pooled"])
    plots = [
        figure_of("Measures at home against measures elsewhere", figures.correlation_map(table, "at home", "elsewhere")),
        figure_of("Measures elsewhere against each other", figures.correlation_map(there, "elsewhere", "elsewhere")),
    ]
    diagonal = table[table.measure == table["with"]].drop(columns=["with"]).rename(columns={"measure": "does it stay?"})
    text = "Rank correlations within each pair of domains, the median over pairs; signs turned so that larger is better. On the diagonal: does what is measured at home hold elsewhere?"
    tables = [
        table_of(diagonal, "Each measure at home with itself elsewhere (pooled: over all trials, which mixes pairs)"),
        table_of(beyond, f"What each measure at home adds to {result.headline} at home in foretelling it elsewhere (partial rank correlation)"),
    ]
    return [section("What goes with what", text, tables, plots)]


@quiet
def _measured(result: Result) -> list[Section]:
    if len(result.trials()) > MOST_CORRELATED:
        return []
    table = result.loadings()
    count = sum(str(c).startswith("factor ") for c in table)
    text = f"The measures vary together in {count} way{'s' * (count > 1)}, by a factor analysis of their ranks within each pair (as many factors as shuffled columns do not give)."
    return [section("How many things are measured", text, [table_of(table, "Loadings")], [figure_of("Factor loadings", figures.loading_map(table))])]


@quiet
def _helps(result: Result) -> list[Section]:
    names = result.choices()
    if not names or len(result.trials()) > MOST_CORRELATED:
        return []
    found = pd.concat([result.helps(name) for name in names[:8]], ignore_index=True)
    if not len(found):
        return []
    text = "Differences between trials that agree in all else, within each pair of domains; the second value is the difference at a fixed value at home "
    text += "(effective robustness): a better model, or a more robust one?"
    tables = [table_of(found, "Paired differences elsewhere"), table_of(result.shares(), "Share of the variance elsewhere that each choice explains (main effects, type II)")]
    return [section("What helps", text, tables, [figure_of("What helps", figures.gains(found, result.headline))])]


@quiet
def _choosing(result: Result) -> list[Section]:
    if result.trials().learner.nunique() < 2 or len(result.trials()) > MOST_CORRELATED:
        return []
    table = result.regrets()
    text = "Which trial would be picked by what is known at home, and how far it lies below the best there. Grey bars need labels from elsewhere."
    return [section("Choosing", text, [table_of(table, "Regret by criterion, mean over pairs of domains")], [figure_of("Regret", figures.regret_bars(table, result.headline))])]


@quiet
def _many_sides(result: Result) -> list[Section]:
    metric = result.headline
    table = statistics.radar(result.scores(), metric)
    stress = statistics.corruption_table(result.scores(), metric)
    if table.shape[1] < 3 and not len(stress):
        return []
    order = [n for n in result.ranking().learner.astype(str) if n in table.index]
    plots = [figure_of("Several sides of each learner", figures.radar_lines(table.loc[order]))] if table.shape[1] >= 3 else []
    tables = [table_of(stress, f"{metric} under stress by severity, mean over types")] if len(stress) else []
    return [section("Several sides", "Each in 0 to 1, larger is better.", tables, plots)]


def _failures(result: Result) -> list[Section]:
    trials = result.trials()
    failed = trials[trials.status == "failed"] if len(trials) else trials
    sections = []
    if len(failed):
        sections.append(section("Failed trials", f"{len(failed)} of {len(trials)}.", [table_of(failed[["task", "learner", "seed", "reason"]], "Failed trials and their reasons")]))
    if told := [*result.warnings(), *result.store.damaged]:
        sections.append(section("Warnings", "What libraries and the store warned of.", [table_of(pd.DataFrame({"warning": told}), "Warnings")]))
    return sections


def _footer(result: Result) -> dict[str, Any]:
    trials = result.trials()
    versions = sorted(set(trials.versions)) if "versions" in trials else []
    seconds = float(trials.seconds.sum()) if "seconds" in trials else 0.0
    told = {
        "command": result.about.get("command") or "(called from Python)",
        "trials": f"{len(trials):,} of {len(result.about['planned']):,}, {seconds:,.0f} s of computing",
        "seeds": ", ".join(map(str, result.about["seeds"])),
        "versions": "; ".join(", ".join(f"{k} {v}" for k, v in json.loads(text).items()) for text in versions[:3]),
        "threads": ", ".join(map(str, sorted(set(trials.threads)))) if "threads" in trials else "",
        "device": ", ".join(sorted(set(trials.device.dropna()))) if "device" in trials else "",
        "hash": result.key,
    }
    return {k: v for k, v in told.items() if v}
