"""The figures of the dataset derivative."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from elsewhere.assay.report.figures import PALETTE
from elsewhere.data import Array
from elsewhere.explainer import plain

if TYPE_CHECKING:
    import plotly.graph_objects as go

GREY = "#868e96"


def blame_map(table: pd.DataFrame, what: str) -> go.Figure:
    """Draw part × judged domain: blame with its interval in the cell, and the exact effect of leaving the part out below."""
    import plotly.graph_objects as go

    parts, judges = list(dict.fromkeys(table["part"])), list(dict.fromkeys(table["judge"]))
    rows = table.set_index(["part", "judge"])
    z = [[float(rows.loc[(p, j), "blame"]) for j in judges] for p in parts]
    text = []
    for p in parts:
        line = []
        for j in judges:
            r = rows.loc[(p, j)]
            line.append(f"{r['blame']:+.1%} [{r['blame low']:+.1%}, {r['blame high']:+.1%}]<br>left out: {r['left out']:+.1%}")
        text.append(line)
    most = max(1e-9, max(abs(v) for line in z for v in line))
    figure = go.Figure(
        go.Heatmap(
            z=z, x=[plain(j) for j in judges], y=[plain(p) for p in parts], text=text, texttemplate="%{text}", colorscale="RdBu", reversescale=True, zmin=-most, zmax=most,
            colorbar={"thickness": 12, "tickformat": "+.0%", "title": {"text": "blame"}}, hovertemplate="%{y} → %{x}<br>%{text}<extra></extra>",
        )
    )  # fmt: skip
    figure.update_layout(
        height=140 + 52 * len(parts),
        yaxis={"autorange": "reversed", "title": f"{what} in the source", "automargin": True, "type": "category"},
        xaxis={"side": "top", "automargin": True, "type": "category"},
        margin={"t": 60, "b": 20},
    )
    return figure


def histogram(g: Array, doubtful: Array, whole: float) -> go.Figure:
    """Draw how the derivative (as a share of the domain's loss) is spread, of examples whose label the others doubt and of the rest."""
    import plotly.graph_objects as go

    value = g / whole
    low, high = (float(v) for v in np.quantile(value, [0.002, 0.998]))
    width = (high - low) / 60 or 1e-9
    edges = np.arange(low, high + 2 * width, width)
    figure = go.Figure()
    for mask, name, colour in ((~doubtful, "label as the others predict", PALETTE[0]), (doubtful, "label in doubt", PALETTE[1])):
        counts, _ = np.histogram(np.clip(value[mask], low, high), edges)
        figure.add_bar(x=(edges[:-1] + width / 2).tolist(), y=counts.tolist(), width=width, name=f"{name} ({int(mask.sum()):,})", marker={"color": colour, "opacity": 0.75})
    figure.add_vline(x=0, line={"color": GREY, "dash": "dot"})
    figure.update_xaxes(title="derivative by the example's weight, as a share of the domain's squared error (right of 0: harmful)", tickformat=".2%")
    figure.update_yaxes(title="examples", type="log")
    figure.update_layout(height=340, barmode="stack", margin={"t": 30}, legend={"orientation": "h", "y": 1.12})
    return figure


def removal_curve(table: pd.DataFrame, metric: str) -> go.Figure:
    """Draw the metric against the share removed: by ridge regression, trained again, and the band of random removals."""
    import plotly.graph_objects as go

    figure, x = go.Figure(), table["removed"].tolist()
    if "at random" in table:
        band = [*table["at random high"], *table["at random low"][::-1]]
        figure.add_scatter(x=[*x, *x[::-1]], y=band, mode="lines", fill="toself", fillcolor="rgba(134,142,150,0.25)", line={"width": 0}, name="removed at random", hoverinfo="skip")
        figure.add_scatter(x=x, y=table["trained again"].tolist(), mode="lines+markers", name="worst removed, trained again", line={"color": PALETTE[1]})
    figure.add_scatter(x=x, y=table["ridge"].tolist(), mode="lines+markers", name="worst removed, ridge regression (exact)", line={"color": PALETTE[0], "dash": "dash"})
    figure.update_xaxes(title="share of the source removed", tickformat=".0%")
    figure.update_yaxes(title=metric)
    figure.update_layout(height=340, margin={"t": 30}, legend={"orientation": "h", "y": 1.14})
    return figure


def extension_curve(rounds: pd.DataFrame) -> go.Figure:
    """Draw the leave-one-out error of the core against how many examples of the source were added."""
    import plotly.graph_objects as go

    figure = go.Figure(go.Scatter(x=rounds["added"].tolist(), y=rounds["error of core"].tolist(), mode="lines+markers", line={"color": PALETTE[2]}, showlegend=False))
    figure.update_xaxes(title="examples of the source added, the most helpful first")
    figure.update_yaxes(title="leave-one-out squared error of the core")
    figure.update_layout(height=320, margin={"t": 30})
    return figure


def weights_by_part(weights: Mapping[str, Array], part: Array) -> go.Figure:
    """Draw how the mean weight of each part of the source changes, one colour a judged domain."""
    import plotly.graph_objects as go

    names = list(dict.fromkeys(part.tolist()))
    figure = go.Figure()
    for k, (judge, alpha) in enumerate(weights.items()):
        means = [float(alpha[part == p].mean()) - 1 for p in names]
        figure.add_bar(x=[plain(p) for p in names], y=means, name=f"for {plain(judge)}", marker={"color": PALETTE[k % len(PALETTE)]})
    figure.add_hline(y=0, line={"color": GREY, "dash": "dot"})
    figure.update_yaxes(title="change of the mean weight, from 1")
    figure.update_layout(height=320, barmode="group", margin={"t": 30}, showlegend=True, legend={"orientation": "h", "y": 1.14})
    return figure
