"""The figures of a report, as plotly figures on data frames."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.stats import norm

from elsewhere.assay import layout
from elsewhere.assay.analysis import UNIT_METRICS, fit_line
from elsewhere.explainer import plain
from elsewhere.metrics import reliability_curve

PALETTE = ("#4c6ef5", "#e8590c", "#2f9e44", "#ae3ec9", "#f08c00", "#1098ad", "#e64980", "#66a80f", "#868e96", "#7048e8")
MOST_POINTS, MOST_PANELS = 2000, 12


def heat_map(cells: pd.DataFrame, higher_is_better: bool) -> go.Figure:
    """Draw learner × domain, home first; darker is better, the value in every cell."""
    table = layout.wide(cells, "learner", "column", "value")
    wide = table[[c for c in cells.column.cat.categories if c in table]]
    text = [[("" if np.isnan(v) else f"{v:.2f}") for v in row] for row in wide.to_numpy()]
    figure = go.Figure(
        go.Heatmap(
            z=wide.to_numpy().tolist(), x=[plain(c) for c in wide.columns], y=[plain(r) for r in wide.index], text=text if wide.size <= 600 else None,
            texttemplate="%{text}" if wide.size <= 600 else None, colorscale="Viridis", reversescale=not higher_is_better, colorbar={"thickness": 12},
            hovertemplate="%{y}<br>%{x}<br>%{z:.3f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(height=130 + 34 * len(wide), yaxis={"autorange": "reversed", "automargin": True}, xaxis={"automargin": True, "side": "top"}, margin={"t": 50, "l": 20, "b": 20})
    return figure


def home_against_elsewhere(points: pd.DataFrame, metric: str, title: str, seed: int = 0) -> tuple[go.Figure, str]:
    """Draw every trial at (home, elsewhere), with the line if there are enough trials; return a note if points were sampled."""
    note = ""
    probit = metric in UNIT_METRICS
    line = fit_line(points.home.to_numpy(), points.value.to_numpy(), float(points.home_n.mean()), float(points.n.mean()), probit)
    shown = points
    if len(points) > MOST_POINTS:
        shown = points.sample(MOST_POINTS, random_state=seed)
        note = f"{MOST_POINTS:,} of {len(points):,} trials are drawn (a sample with seed {seed}); the line is fitted to all."
    figure = go.Figure()
    x, y = (_axis(shown[c].to_numpy(), n, probit) for c, n in (("home", points.home_n.mean()), ("value", points.n.mean())))
    named = shown.learner.astype(str)
    kinds = list(dict.fromkeys(named))
    for k, name in enumerate(kinds if len(kinds) <= len(PALETTE) else ["trials"]):
        mine = np.ones(len(shown), bool) if len(kinds) > len(PALETTE) else (named == name).to_numpy()
        texts = [f"{plain(n)}, seed {s}: {h:.3f} → {v:.3f}" for n, s, h, v in zip(named[mine], shown.seed[mine], shown.home[mine], shown.value[mine], strict=True)]
        figure.add_scatter(x=x[mine], y=y[mine], mode="markers", name=plain(name), marker={"color": PALETTE[k], "size": 7, "opacity": 0.75}, hovertext=texts, hoverinfo="text")
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    pad = 0.05 * (high - low or 1)
    ends = np.array([low - pad, high + pad])
    figure.add_scatter(x=ends, y=ends, mode="lines", name="as at home", line={"dash": "dot", "color": "#868e96"}, hoverinfo="skip")
    if line is not None:
        figure.add_scatter(x=ends, y=line.intercept + line.slope * ends, mode="lines", name=f"line: slope {line.slope:.2f}, R² {line.r2:.2f}", line={"color": "#e03131"}, hoverinfo="skip")
    ticks = _ticks(low - pad, high + pad) if probit else None
    for axis, word in ((figure.update_xaxes, "at home"), (figure.update_yaxes, "elsewhere")):
        axis(title=f"{metric} {word}", **({} if ticks is None else {"tickvals": norm.ppf(ticks).tolist(), "ticktext": [f"{t:g}" for t in ticks]}))
    figure.update_layout(title={"text": plain(title), "font": {"size": 14}}, height=420, margin={"t": 50})
    return figure, note


def _axis(values: np.ndarray, n: float, probit: bool) -> np.ndarray:
    return np.asarray(norm.ppf(np.clip(values, 0.5 / n, 1 - 0.5 / n))) if probit else np.asarray(values, float)


def _ticks(low: float, high: float) -> np.ndarray:
    every = np.array([0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99])
    return every[(norm.ppf(every) >= low) & (norm.ppf(every) <= high)]


def reliability(examples: pd.DataFrame, learner: str) -> go.Figure:
    """Draw accuracy against confidence in each domain, for one learner: below the diagonal it is too sure."""
    figure = go.Figure()
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="calibrated", line={"dash": "dot", "color": "#868e96"}, hoverinfo="skip")
    for k, (name, rows) in enumerate(examples.groupby("domain", observed=True, sort=False)):
        curve = reliability_curve(rows.confidence.to_numpy(), rows.accuracy.to_numpy())
        texts = [f"{plain(name)}: confidence {c:.2f}, right {a:.2f}, n {n:,}" for c, a, n in zip(curve.confidence, curve.accuracy, curve.n, strict=True)]
        figure.add_scatter(x=curve.confidence, y=curve.accuracy, mode="lines+markers", name=plain(name), line={"color": PALETTE[k % len(PALETTE)]}, hovertext=texts, hoverinfo="text")
    figure.update_xaxes(title="confidence", range=[max(0.0, float(examples.confidence.min()) - 0.05), 1.02])
    figure.update_yaxes(title="share right", range=[0, 1.02])
    figure.update_layout(title={"text": plain(learner), "font": {"size": 14}}, height=400, margin={"t": 50})
    return figure


def over_order(cells: pd.DataFrame, metric: str) -> go.Figure:
    """Draw the metric over ordered domains (periods, severities), one line a learner, intervals as bands."""
    figure = go.Figure()
    for k, (name, rows) in enumerate(cells.groupby("learner", observed=True, sort=False)):
        rows = rows.sort_values("order")
        colour = PALETTE[k % len(PALETTE)]
        error = {"type": "data", "array": (rows.high - rows.value).tolist(), "arrayminus": (rows.value - rows.low).tolist(), "symmetric": False, "color": colour, "thickness": 1}
        figure.add_scatter(x=[plain(d) for d in rows.domain], y=rows.value, error_y=error, mode="lines+markers", name=plain(name), line={"color": colour})
    figure.update_yaxes(title=metric)
    figure.update_layout(height=380, margin={"t": 30})
    return figure


def over_severity(cells: pd.DataFrame, home: pd.DataFrame, metric: str) -> go.Figure:
    """Draw the metric of one stress over its severities, one line a learner, and where each learner stands at home."""
    figure = go.Figure()
    for k, (name, rows) in enumerate(cells.groupby("learner", observed=True, sort=False)):
        rows = rows.sort_values("severity")
        colour = PALETTE[k % len(PALETTE)]
        error = {"type": "data", "array": (rows.high - rows.value).tolist(), "arrayminus": (rows.value - rows.low).tolist(), "symmetric": False, "color": colour, "thickness": 1}
        figure.add_scatter(x=rows.severity.tolist(), y=rows.value, error_y=error, mode="lines+markers", name=plain(name), line={"color": colour})
        for value in home[home.learner == name].value:
            ends = [float(cells.severity.min()), float(cells.severity.max())]
            figure.add_scatter(x=ends, y=[value, value], mode="lines", name=f"{plain(name)} at home", line={"color": colour, "dash": "dot", "width": 1}, showlegend=False, hoverinfo="skip")
    figure.update_xaxes(title="severity", dtick=1)
    figure.update_yaxes(title=plain(metric))
    figure.update_layout(height=340, margin={"t": 30})
    return figure


def curves(history: pd.DataFrame, name: str) -> go.Figure:
    """Draw one logged quantity over steps: the mean over trials of a learner."""
    figure = go.Figure()
    for k, (learner, rows) in enumerate(history.groupby("learner", observed=True, sort=False)):
        mean = rows.groupby("step").value.mean()
        figure.add_scatter(x=mean.index.tolist(), y=mean.to_numpy(), mode="lines", name=plain(learner), line={"color": PALETTE[k % len(PALETTE)]})
    figure.update_xaxes(title="step")
    figure.update_yaxes(title=plain(name))
    figure.update_layout(height=320, margin={"t": 30})
    return figure


def correlation_map(table: pd.DataFrame, rows: str, columns: str) -> go.Figure:
    """Draw rank correlations of measures as a heat map, blue for the same way and red for opposite ways."""
    wide = layout.wide(table, "measure", "with", "rho")
    text = [["" if np.isnan(v) else f"{v:.2f}" for v in row] for row in wide.to_numpy()]
    figure = go.Figure(
        go.Heatmap(
            z=[[None if np.isnan(v) else float(v) for v in row] for row in wide.to_numpy()], x=[plain(c) for c in wide.columns], y=[plain(r) for r in wide.index],
            text=text, texttemplate="%{text}", colorscale="RdBu", zmin=-1, zmax=1, colorbar={"thickness": 12}, hovertemplate="%{y}, %{x}<br>ρ %{z:.2f}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(
        height=150 + 30 * len(wide), yaxis={"autorange": "reversed", "automargin": True, "title": rows}, xaxis={"automargin": True, "side": "top", "title": columns}, margin={"t": 90, "l": 20, "b": 20}
    )
    return figure


def loading_map(table: pd.DataFrame) -> go.Figure:
    """Draw the loadings of each measure on each factor."""
    names = [str(c) for c in table if str(c).startswith("factor ")]
    z = table[names].to_numpy()
    rows = [f"{plain(m)} {w}" for m, w in zip(table.measure, table["where"], strict=True)]
    figure = go.Figure(go.Heatmap(z=z.tolist(), x=names, y=rows, text=[[f"{v:.2f}" for v in row] for row in z], texttemplate="%{text}", colorscale="RdBu", zmin=-1, zmax=1, colorbar={"thickness": 12}))
    figure.update_layout(height=110 + 24 * len(rows), yaxis={"autorange": "reversed", "automargin": True}, xaxis={"side": "top"}, margin={"t": 50, "l": 20, "b": 20})
    return figure


def gains(table: pd.DataFrame, metric: str) -> go.Figure:
    """Draw what each choice gains elsewhere, with its interval: as measured, and at a fixed value at home."""
    figure = go.Figure()
    names = [f"{plain(c)}: {plain(a)} → {plain(b)}" for c, a, b in zip(table.choice, table["from"], table["to"], strict=True)]
    for k, name in enumerate(("gain", "at fixed home")):
        value = table[name]
        error = {"type": "data", "array": (table[f"{name} high"] - value).fillna(0).tolist(), "arrayminus": (value - table[f"{name} low"]).fillna(0).tolist(), "symmetric": False, "color": PALETTE[k]}
        figure.add_scatter(
            x=value.tolist(),
            y=[n + (0.12 - 0.24 * k) for n in range(len(names))],
            error_x=error,
            mode="markers",
            name="elsewhere" if k == 0 else "elsewhere, at a fixed value at home",
            marker={"color": PALETTE[k], "size": 9},
        )
    figure.add_vline(x=0, line={"dash": "dot", "color": "#868e96"})
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, automargin=True, autorange="reversed")
    figure.update_xaxes(title=f"change of {plain(metric)} elsewhere (right is better)")
    figure.update_layout(height=140 + 34 * len(names), margin={"t": 30}, legend={"orientation": "h", "y": 1.15})
    return figure


def regret_bars(table: pd.DataFrame, metric: str) -> go.Figure:
    """Draw what choosing by each criterion costs, with its interval over pairs."""
    error = {"type": "data", "array": (table.high - table.regret).fillna(0).tolist(), "arrayminus": (table.regret - table.low).fillna(0).tolist(), "symmetric": False, "color": "#868e96"}
    known = table.by.isin(["oracle", "other domains"])
    figure = go.Figure(go.Bar(x=table.regret.tolist(), y=[plain(b) for b in table.by], orientation="h", error_x=error, marker_color=[PALETTE[8] if k else PALETTE[0] for k in known]))
    figure.update_xaxes(title=f"regret: best {plain(metric)} elsewhere minus that of the pick")
    figure.update_layout(height=110 + 28 * len(table), yaxis={"autorange": "reversed", "automargin": True}, margin={"t": 20})
    return figure


def kinds(pairs: pd.DataFrame) -> go.Figure:
    """Draw which kind each pair of task and domain is."""
    known = ["line", "loose", "scattered", "flat", "underspecified", "inverse", "chance", "too few"]
    wide = pairs.pivot(index="task", columns="domain", values="kind")
    z = [[None if not isinstance(v, str) else known.index(v) for v in row] for row in wide.to_numpy()]
    colours = ["#2f9e44", "#8ce99a", "#ffe066", "#ffc078", "#ffa8a8", "#e03131", "#868e96", "#dee2e6"]
    scale = [[(k + e) / len(known), c] for k, c in enumerate(colours) for e in (0, 1)]
    text = [[v if isinstance(v, str) else "" for v in row] for row in wide.to_numpy()]
    figure = go.Figure(
        go.Heatmap(
            z=z,
            x=[plain(c) for c in wide.columns],
            y=[plain(r) for r in wide.index],
            text=text,
            texttemplate="%{text}",
            colorscale=scale,
            zmin=-0.5,
            zmax=7.5,
            showscale=False,
            hovertemplate="%{y} → %{x}: %{text}<extra></extra>",
        )
    )
    figure.update_layout(height=120 + 34 * len(wide), yaxis={"autorange": "reversed", "automargin": True}, xaxis={"side": "top", "automargin": True}, margin={"t": 50, "l": 20, "b": 20})
    return figure


def radar_lines(table: pd.DataFrame) -> go.Figure:
    """Draw up to six measures of each learner, all in 0..1 and larger is better: a radar unrolled into lines."""
    figure = go.Figure()
    for k, (name, row) in enumerate(table.head(len(PALETTE)).iterrows()):
        figure.add_scatter(x=[plain(c) for c in table.columns], y=[None if np.isnan(v) else float(v) for v in row], mode="lines+markers", name=plain(name), line={"color": PALETTE[k]})
    figure.update_yaxes(range=[0, 1.02])
    figure.update_layout(height=380, margin={"t": 30})
    return figure
