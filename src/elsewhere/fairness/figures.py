"""The figures of two heads: frontiers, awareness, the map of decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from elsewhere.assay.report.figures import PALETTE
from elsewhere.data import Array
from elsewhere.explainer import plain

if TYPE_CHECKING:
    import plotly.graph_objects as go

GREY, MOST_POINTS = "#868e96", 1500


def frontiers(points: pd.DataFrame, curve: pd.DataFrame, references: pd.DataFrame) -> go.Figure:
    """Draw accuracy against the difference of acceptance rates: learners as points, the merged two heads as a line, label and constant as marks.

    Args:
        points: learner, ddp, accuracy, their errors.
        curve: ddp and accuracy along the frontier, in the order of slacks.
        references: what, ddp, accuracy.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    if len(curve):
        figure.add_scatter(x=curve["ddp"].tolist(), y=curve["accuracy"].tolist(), mode="lines+markers", name="two heads merged, by slack", line={"color": PALETTE[1]}, marker={"size": 5})
    for k, row in enumerate(points.to_dict("records")):
        figure.add_scatter(
            x=[row["ddp"]], y=[row["accuracy"]], mode="markers", name=plain(row["learner"]), marker={"size": 11, "color": PALETTE[(k + 2) % len(PALETTE)], "symbol": "diamond"},
            error_x={"type": "data", "array": [1.96 * row["ddp_error"]], "thickness": 1}, error_y={"type": "data", "array": [1.96 * row["accuracy_error"]], "thickness": 1},
        )  # fmt: skip
    for row in references.to_dict("records"):
        if np.isfinite(row["accuracy"]):
            figure.add_scatter(x=[row["ddp"]], y=[row["accuracy"]], mode="markers", name=plain(row["what"]), marker={"size": 10, "color": GREY, "symbol": "x"})
        else:
            figure.add_vline(x=row["ddp"], line={"color": GREY, "dash": "dot"}, annotation={"text": plain(row["what"]), "font": {"size": 11}})
    figure.add_vline(x=0, line={"color": "#ced4da"})
    figure.update_xaxes(title="difference of acceptance rates (DDP)")
    figure.update_yaxes(title="accuracy")
    figure.update_layout(height=430, margin={"t": 30}, legend={"font": {"size": 11}})
    return figure


def awareness_bars(table: pd.DataFrame) -> go.Figure:
    """Draw how well the group is read off each layer: one colour a learner, intervals, and the majority's share as a line."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for k, (name, mine) in enumerate(table.groupby("learner", sort=False, observed=True)):
        errors = {"type": "data", "array": (mine["high"] - mine["accuracy"]).tolist(), "thickness": 1.2}
        figure.add_bar(x=mine["layer"].tolist(), y=mine["accuracy"].tolist(), name=plain(name), marker={"color": PALETTE[k % len(PALETTE)]}, error_y=errors)
    figure.add_hline(y=float(table["majority"].iloc[0]), line={"color": GREY, "dash": "dot"}, annotation={"text": "always the larger group", "font": {"size": 11}}, annotation_position="top left")
    low = min(float(table["low"].min()), float(table["majority"].iloc[0]))
    figure.update_yaxes(title="accuracy of telling the group", range=[max(0.0, low - 0.1), 1])
    figure.update_layout(height=360, margin={"t": 30}, barmode="group", showlegend=True, legend={"orientation": "h", "y": 1.16})
    return figure


def awareness_against_difference(table: pd.DataFrame, majority: float) -> go.Figure:
    """Draw accuracy of telling the group off what the head sees against the difference of acceptance rates, one point a learner (Lohaus et al., figure 2)."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for k, row in enumerate(table.to_dict("records")):
        figure.add_scatter(
            x=[row["ddp"]], y=[row["accuracy"]], mode="markers", name=plain(row["learner"]), marker={"size": 11, "color": PALETTE[k % len(PALETTE)]},
            error_x={"type": "data", "array": [1.96 * row["ddp_error"]], "thickness": 1}, error_y={"type": "data", "array": [row["high"] - row["accuracy"]], "thickness": 1},
        )  # fmt: skip
    figure.add_hline(y=majority, line={"color": GREY, "dash": "dot"}, annotation={"text": "always the larger group", "font": {"size": 11}}, annotation_position="top left")
    figure.add_vline(x=0, line={"color": "#ced4da"})
    figure.update_xaxes(title="difference of acceptance rates (DDP)")
    figure.update_yaxes(title="accuracy of telling the group")
    figure.update_layout(height=380, margin={"t": 30}, showlegend=True, legend={"font": {"size": 11}})
    return figure


def decision_map(
    f: Array,
    g: Array,
    accepted: Array,
    thresholds: tuple[float, float] | None,
    names: tuple[str, str],
    learner: str,
) -> go.Figure:
    """Draw label score against group score, coloured by a model's decision.

    With thresholds of the two predicted groups also these and the band between them; None where
    nothing is said of them.
    """
    import plotly.graph_objects as go

    shown = np.sort(np.random.default_rng(0).permutation(len(f))[:MOST_POINTS])
    figure = go.Figure()
    reach = [float(g[shown].min()) - 0.2, float(g[shown].max()) + 0.2]
    for value, word, colour in ((True, "accepted", PALETTE[2]), (False, "rejected", PALETTE[0])):
        mine = shown[accepted[shown] == value]
        figure.add_scatter(x=f[mine].tolist(), y=g[mine].tolist(), mode="markers", name=f"{word} by {plain(learner)}", marker={"size": 5, "color": colour, "opacity": 0.55}, hoverinfo="skip")
    if thresholds is not None:
        _band(figure, thresholds, reach, names)
    figure.add_hline(y=0, line={"color": "#ced4da"})
    figure.update_xaxes(title="label score f of the two-headed network")
    figure.update_yaxes(title=f"group score g (above 0: predicted {plain(names[1])})", range=reach)
    figure.update_layout(height=460, margin={"t": 30}, legend={"orientation": "h", "y": 1.14})
    return figure


def _band(
    figure: go.Figure,
    thresholds: tuple[float, float],
    reach: list[float],
    names: tuple[str, str],
) -> None:
    """Draw both thresholds and shade the band between them."""
    low, high = sorted(thresholds)
    shade = {"fillcolor": "rgba(232,89,12,0.15)", "line": {"width": 0}, "layer": "below"}
    figure.add_shape(type="rect", x0=low, x1=high, y0=reach[0], y1=reach[1], **shade)
    for k, y in enumerate(([reach[0], 0.0], [0.0, reach[1]])):
        line = {"color": PALETTE[1 + 2 * k], "width": 3}
        x, told = [thresholds[k]] * 2, f"threshold if predicted {plain(names[k])}"
        figure.add_scatter(x=x, y=y, mode="lines", name=told, line=line)
