"""Pictures of causal models: what codes hold, the graph, predictions under interventions, the check of eigenvalues, traversals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from elsewhere.assay.report.figures import PALETTE
from elsewhere.causal.predictions import moments
from elsewhere.causal.questions import Gaussian
from elsewhere.data import Array
from elsewhere.explainer import Image, plain
from elsewhere.pictures import contact_sheet

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

GREY = "#868e96"
SYMBOLS = ("circle", "diamond", "square")
INSIDE = 2.4477  # √ of the 95 % quantile of χ²_2: an ellipse of two normal columns


def mixing_map(strength: Array, latents: Sequence[str], codes: Sequence[str]) -> go.Figure:
    """Draw |correlation| of true latents (rows) with codes (columns): one bright cell a row and column is what identification means."""
    import plotly.graph_objects as go

    hover = "%{y} and %{x}: %{z:.2f}<extra></extra>"
    text = [[f"{v:.2f}" for v in row] for row in strength] if strength.size <= 150 else None
    figure = go.Figure(
        go.Heatmap(
            z=strength.tolist(),
            x=[plain(c) for c in codes],
            y=[plain(z) for z in latents],
            zmin=0,
            zmax=1,
            colorscale="Blues",
            text=text,
            texttemplate="%{text}" if text else None,
            hovertemplate=hover,
            colorbar={"thickness": 12, "title": {"text": "|corr|"}},
        )
    )
    figure.update_yaxes(autorange="reversed", title="true")
    figure.update_xaxes(title="learnt")
    figure.update_layout(height=120 + 34 * max(4, len(latents)), margin={"t": 30})
    return figure


def graph_figure(weights: Array, names: Sequence[str], truth: Array | None = None) -> go.Figure:
    """Draw a graph on a circle, causes before effects clockwise; edges carry their weight, and where the truth is known their colour says whether they are right."""
    import plotly.graph_objects as go

    n = len(names)
    turn = np.pi / 2 - 2 * np.pi * np.arange(n) / n
    x, y = np.cos(turn), np.sin(turn)
    figure = go.Figure()
    learnt = np.asarray(weights) != 0
    known = learnt if truth is None else np.asarray(truth) != 0
    kinds = {"right": (learnt & known, "#2b8a3e", "solid"), "not in the truth": (learnt & ~known, "#e03131", "solid"), "missed": (~learnt & known, GREY, "dot")}
    largest = float(np.abs(weights).max()) or 1.0
    notes: list[dict[str, Any]] = []
    for kind, (which, colour, dash) in kinds.items():
        for k, (i, j) in enumerate(np.argwhere(which)):
            w = float(weights[i, j])
            start, end = _between((x[i], y[i]), (x[j], y[j]), 0.13)
            notes.append(_arrow(start, end, colour if truth is not None else "#4c6ef5", 1 + 3 * abs(w) / largest, dash))
            middle = _beside(start, end)
            figure.add_scatter(
                x=[middle[0]],
                y=[middle[1]],
                mode="text",
                text=[f"{w:.2f}" if w else ""],
                textfont={"size": 11, "color": colour if truth is not None else "#364fc7"},
                name=kind,
                legendgroup=kind,
                showlegend=False,
                hovertext=[f"{plain(names[i])} → {plain(names[j])}: {w:.2f}" + (f" ({kind})" if truth is not None else "")],
                hoverinfo="text",
            )
            if k == 0 and truth is not None:
                figure.add_scatter(x=[None], y=[None], mode="lines", line={"color": colour, "dash": dash, "width": 3}, name=kind, legendgroup=kind)
    marker = {"size": 38, "color": "#e7f5ff", "line": {"color": "#1c7ed6", "width": 2}}
    figure.add_scatter(x=x, y=y, mode="markers+text", text=[plain(v) for v in names], marker=marker, hoverinfo="text", showlegend=False)
    figure.update_layout(annotations=notes, height=440, margin={"t": 30}, plot_bgcolor="rgba(0,0,0,0)")
    figure.update_xaxes(visible=False, range=[-1.4, 1.4])
    figure.update_yaxes(visible=False, range=[-1.3, 1.3], scaleanchor="x")
    return figure


def _between(a: tuple[float, float], b: tuple[float, float], gap: float) -> tuple[tuple[float, float], tuple[float, float]]:
    step = np.array(b) - np.array(a)
    unit = step / np.linalg.norm(step)
    start, end = np.array(a) + gap * unit, np.array(b) - gap * unit
    return (float(start[0]), float(start[1])), (float(end[0]), float(end[1]))


def _beside(start: tuple[float, float], end: tuple[float, float]) -> tuple[float, float]:
    """Return where the weight of an edge is written: a little beside it, nearer to its start."""
    step = np.array(end) - np.array(start)
    across = np.array([-step[1], step[0]]) / np.linalg.norm(step)
    at = np.array(start) + 0.4 * step + 0.09 * across
    return float(at[0]), float(at[1])


def _arrow(start: tuple[float, float], end: tuple[float, float], colour: str, width: float, dash: str) -> dict[str, Any]:
    place = {"x": end[0], "y": end[1], "ax": start[0], "ay": start[1], "xref": "x", "yref": "y", "axref": "x", "ayref": "y"}
    return {**place, "showarrow": True, "arrowhead": 2, "arrowsize": 1.1, "arrowwidth": width, "arrowcolor": colour, "text": "", "opacity": 0.45 if dash == "dot" else 0.85}


def outcome_figure(answers: Mapping[str, Any], features: Sequence[str], columns: tuple[int, int]) -> go.Figure:
    """Draw 95 % ellipses of distributions in two observed columns: where nothing is done, the truth, and each prediction.

    Args:
        answers: name -> ``Gaussian`` or rows; the first is the observational one, the second the truth.
        features: names of all columns.
        columns: the two to draw.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    styles = [{"color": GREY, "dash": "dot", "width": 2}, {"color": "#212529", "width": 4}]
    for k, (name, one) in enumerate(answers.items()):
        x, y = ellipse(moments(one), columns)
        line = styles[k] if k < 2 else {"color": PALETTE[(k - 2) % len(PALETTE)], "width": 2}
        figure.add_scatter(x=x.tolist(), y=y.tolist(), mode="lines", line=line, name=plain(name), hoverinfo="name")
    figure.update_xaxes(title=plain(features[columns[0]]))
    figure.update_yaxes(title=plain(features[columns[1]]))
    figure.update_layout(height=420, margin={"t": 30})
    return figure


def ellipse(g: Gaussian, columns: tuple[int, int], points: int = 60) -> tuple[Array, Array]:
    """Return the 95 % ellipse of two columns of a normal distribution as a closed line."""
    at = list(columns)
    values, vectors = np.linalg.eigh(np.asarray(g.covariance)[np.ix_(at, at)])
    turn = np.linspace(0, 2 * np.pi, points)
    line = np.asarray(g.mean)[at][:, None] + INSIDE * vectors @ (np.sqrt(np.clip(values, 0, None))[:, None] * np.stack([np.cos(turn), np.sin(turn)]))
    return line[0], line[1]


def most_changed(reference: Gaussian, truth: Gaussian) -> tuple[int, int]:
    """Return the two columns whose mean moves most, in deviations where nothing is done."""
    moved = np.abs(truth.mean - reference.mean) / np.sqrt(np.clip(np.diag(reference.covariance), 1e-12, None))
    first, second = np.argsort(-moved)[:2] if len(moved) > 1 else (0, 0)
    return int(first), int(second)


def strength_figure(told: pd.DataFrame, strength: str, title: str) -> go.Figure:
    """Draw a mean error of each learner against the strength of what is done; columns learner, value, and the strength."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for k, (name, mine) in enumerate(told.groupby("learner", sort=False)):
        mine = mine.sort_values(strength)
        figure.add_scatter(x=mine[strength].tolist(), y=mine.value.tolist(), mode="lines+markers", name=plain(name), line={"color": PALETTE[k % len(PALETTE)]})
    figure.update_xaxes(title="times as strong as in training")
    figure.update_yaxes(title=title, rangemode="tozero")
    figure.update_layout(height=380, margin={"t": 30})
    return figure


def eigenvalue_figure(third: Array, limit: float, environments: Sequence[str]) -> go.Figure:
    """Draw the third eigenvalue of each environment's change, with the limit of their median."""
    import plotly.graph_objects as go

    colours = ["#e03131" if v > limit else "#4c6ef5" for v in third]
    figure = go.Figure(go.Bar(x=[plain(e) for e in environments], y=np.asarray(third).tolist(), marker={"color": colours}, hovertemplate="%{x}: %{y:.3f}<extra></extra>"))
    figure.add_hline(y=limit, line={"dash": "dash", "color": GREY}, annotation_text="limit of the median")
    figure.update_yaxes(title="third |eigenvalue| of the change", rangemode="tozero")
    figure.update_layout(height=340, margin={"t": 30})
    return figure


def traversals(decode: Any, codes: Array, latents: int, steps: int = 7, alt: str = "") -> Image:
    """Return pictures decoded while one latent after another (rows) goes from the 5 % to the 95 % quantile of codes, the others at the median of the first example."""
    rows = []
    for i in range(latents):
        z = np.tile(codes[0], (steps, 1))
        z[:, i] = np.quantile(codes[:, i], np.linspace(0.05, 0.95, steps))
        rows.append(np.concatenate([np.pad(p, ((0, 0), (1, 1), (1, 1)), constant_values=0.5) for p in np.clip(decode(z), 0, 1)], axis=2))
    return contact_sheet([np.concatenate(rows, axis=1)], alt or f"Rows: latents 1 to {latents}; columns: from low to high", 2)


def arms_figure(static: pd.DataFrame, pairs: pd.DataFrame, noisy: pd.DataFrame) -> go.Figure:
    """Draw the three arms side by side: R² of factors by split, error under interventions, gain against sensor noise.

    Args:
        static: learner, split, value; may be empty.
        pairs: learner, domain, value.
        noisy: noise, learner, value: the error of pairs on the bench.
    """
    from plotly.subplots import make_subplots

    titles = ("1. Static factors: R² (new factors)", "2. Interventions: relative W₂²", "3. Pairs against sensor noise")
    figure = make_subplots(rows=1, cols=3, subplot_titles=titles, horizontal_spacing=0.07)
    order = [s for s in ("random", "composition", "interpolation", "extrapolation") if s in set(static.split)] if len(static) else []
    names = list(dict.fromkeys([*(static.learner if len(static) else []), *pairs.learner, *noisy.learner]))
    colour = {name: PALETTE[k % len(PALETTE)] for k, name in enumerate(names)}
    symbol = {name: SYMBOLS[k // len(PALETTE) % len(SYMBOLS)] for k, name in enumerate(names)}
    shown: set[str] = set()

    def add(name: str, x: Any, y: Any, column: int, mode: str) -> None:
        line = {"color": colour[name]}
        marker = {"size": 9, "color": colour[name], "symbol": symbol[name]}
        figure.add_scatter(x=x, y=y, mode=mode, name=plain(name), legendgroup=name, showlegend=name not in shown, line=line, marker=marker, row=1, col=column, hovertemplate="%{y:.3f}")
        shown.add(name)

    for name, mine in static.groupby("learner", sort=False) if len(static) else []:
        mine = mine.set_index("split").reindex(order)
        add(str(name), order, mine.value.tolist(), 1, "lines+markers")
    for name, mine in pairs.groupby("learner", sort=False):
        add(str(name), mine.domain.tolist(), mine.value.tolist(), 2, "markers")
    for name, mine in noisy.groupby("learner", sort=False):
        mine = mine.sort_values("noise")
        add(str(name), mine.noise.tolist(), mine.value.tolist(), 3, "lines+markers")
    figure.update_xaxes(title="deviation of the noise", row=1, col=3)
    figure.update_yaxes(range=[-1.5, 1.05], row=1, col=1)
    for column, told in ((2, pairs), (3, noisy)):
        highest = float(told.value.max()) if len(told) else 1.0
        figure.update_yaxes(range=[-0.04 * highest, 1.08 * highest], row=1, col=column)  # marks at 0 stay whole
    figure.update_layout(height=460, margin={"t": 50}, legend={"orientation": "h", "y": -0.25})
    return figure
