"""Where in a graph of domains it holds: the graph coloured by the metric, the metric by hops, encodings by domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from elsewhere.adapt.domain_graph import DomainGraph, GraphSource
from elsewhere.assay import analysis
from elsewhere.assay.report.figures import PALETTE
from elsewhere.data import Array
from elsewhere.errors import UserError, did_you_mean
from elsewhere.explainer import Explainer, Finding, plain

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from elsewhere.assay.result import Result

LIMITS = "Hops count links to the nearest domain with labels. What a graph says of nearness is whoever drew it; a method that lives by it fails with a wrong one."


@dataclass
class DomainMap(Explainer):
    """Say which domains of a graph it holds in, and how the metric falls with the distance to labels.

    Args:
        learner: whose metric colours the graph; default: the best.
        encodings: also draw the learner's encodings by domain (fits it again).
    """

    learner: str | None = None
    encodings: bool = False

    def applies(self, result: Result) -> str | None:
        trials = result.trials()
        if not (trials.status == "done").any():
            return "no trial has finished"
        return None if self._tasks(result) else "no task of this result has a graph of domains"

    @staticmethod
    def _tasks(result: Result) -> dict[str, Any]:
        trials = result.trials().query("status == 'done'").sort_values("seed")
        firsts = {str(name): str(mine.trial.iloc[0]) for name, mine in trials.groupby("task", sort=False, observed=True)}
        made = {name: result.task(key) for name, key in firsts.items()}
        return {name: t for name, t in made.items() if isinstance(t.source, GraphSource) and t.source.graph is not None}

    def explain(self, result: Result) -> Finding:
        rows = result.scores()
        rows = rows[(rows.metric == result.headline) & (rows.role != "home")]
        known = [str(n) for n in result.ranking().learner]
        if self.learner is not None and self.learner not in known:
            raise UserError(f"no learner {self.learner!r} in this result{did_you_mean(self.learner, known)}")
        best = self.learner or known[0]
        said, tables, figures = [], {}, {}
        for name, task in self._tasks(result).items():
            mine = rows[rows.task.astype(str) == name].assign(hops=lambda f: f.hops.astype(int))
            table = analysis.cells(mine, ["learner", "hops"], metric=result.headline)
            tables[f"{result.headline} by hops from labels ({name})"] = table
            there = table[table.learner.astype(str) == best].sort_values("hops")
            steps = ", ".join(f"{r.value:.2f} at {r.hops} hop{'s' * (r.hops > 1)}" for _, r in there.iterrows())
            said.append(f"{best} in {name}: {result.headline} {steps}.")
            figures[f"{result.headline} by hops from labels ({name})"] = by_hops(table, result.headline)
            value = mine[mine.learner.astype(str) == best].groupby("domain", observed=True).value.mean()
            sources = sorted({str(d) for d in np.unique(task.source.train.column("domain"))})
            figures[f"Domains by {result.headline} ({name}, {best}); ringed: with labels"] = draw_graph(task.source.graph, {str(k): float(v) for k, v in value.items()}, sources, result.headline)
            if self.encodings:
                figures[f"Encodings by domain ({name}, {best})"] = _encodings(result, name, best, task)
        return Finding(" ".join(said), tables, figures, LIMITS)


def by_hops(table: pd.DataFrame, metric: str) -> go.Figure:
    """Draw a metric against the number of hops, a line a learner, with intervals over seeds."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for k, (name, mine) in enumerate(table.groupby("learner", sort=False, observed=True)):
        mine = mine.sort_values("hops")
        bars = {"type": "data", "array": (mine.high - mine.value).fillna(0).tolist(), "arrayminus": (mine.value - mine.low).fillna(0).tolist(), "symmetric": False, "thickness": 1}
        texts = [f"{plain(name)}, {h} hops: {v:.3f}" for h, v in zip(mine.hops, mine.value, strict=True)]
        figure.add_scatter(
            x=mine.hops.tolist(), y=mine.value.tolist(), error_y=bars, mode="lines+markers", name=plain(name), line={"color": PALETTE[k % len(PALETTE)]}, hovertext=texts, hoverinfo="text"
        )
    figure.update_xaxes(title="links to the nearest domain with labels", dtick=1)
    figure.update_yaxes(title=plain(metric))
    figure.update_layout(height=400, margin={"t": 30})
    return figure


def draw_graph(graph: DomainGraph, value: dict[str, float], sources: list[str], metric: str) -> go.Figure:
    """Draw the graph, its vertices coloured by a value, those with labels ringed."""
    import plotly.graph_objects as go

    at = positions(graph)
    x, y = [], []
    for u, v in np.argwhere(np.triu(graph.adjacency) > 0):
        x += [float(at[u, 0]), float(at[v, 0]), None]
        y += [float(at[u, 1]), float(at[v, 1]), None]
    figure = go.Figure()
    figure.add_scatter(x=x, y=y, mode="lines", line={"color": "#ced4da", "width": 1}, hoverinfo="skip", showlegend=False)
    ringed = [k for k, n in enumerate(graph.names) if n in set(sources)]
    judged = [k for k, n in enumerate(graph.names) if n in value]
    marks = {"size": 17, "color": "#f8f9fa", "line": {"color": "#212529", "width": 2.5}}
    font = {"size": 10}
    figure.add_scatter(
        x=at[ringed, 0].tolist(),
        y=at[ringed, 1].tolist(),
        mode="markers+text",
        textposition="top center",
        text=[plain(graph.names[k]) for k in ringed],
        textfont=font,
        marker=marks,
        hoverinfo="text",
        name="with labels",
    )
    colours = [value[graph.names[k]] for k in judged]
    hover = [f"{plain(graph.names[k])}: {value[graph.names[k]]:.3f}" for k in judged]
    dots = {"size": 17, "color": colours, "colorscale": "RdYlBu", "colorbar": {"thickness": 12, "title": {"text": plain(metric)}}, "line": {"color": "#868e96", "width": 1}}
    figure.add_scatter(
        x=at[judged, 0].tolist(),
        y=at[judged, 1].tolist(),
        mode="markers+text",
        textposition="top center",
        text=[plain(graph.names[k]) for k in judged],
        textfont=font,
        marker=dots,
        hovertext=hover,
        hoverinfo="text",
        name="without",
    )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.update_layout(height=460, margin={"t": 40, "l": 10, "r": 10, "b": 10}, legend={"orientation": "h", "y": 1.08})
    return figure


def positions(graph: DomainGraph) -> Array:
    """Return where to draw the vertices [N, 2]: as told, else by the first eigenvectors of the normalised Laplacian."""
    if graph.positions is not None:
        return np.asarray(graph.positions, float)
    degree = np.maximum(graph.adjacency.sum(1), 1e-9)
    normal = np.eye(len(graph)) - graph.adjacency / np.sqrt(degree[:, None] * degree[None])
    return np.asarray(np.linalg.eigh(normal)[1][:, 1:3])


def _encodings(result: Result, name: str, learner: str, task: Any) -> go.Figure:
    """Draw the first two principal components of the encodings, a colour a domain (at most ten)."""
    import plotly.graph_objects as go

    from elsewhere.assay.plan import fit_for

    trials = result.trials().query("status == 'done'").sort_values("seed")
    key = str(trials[(trials.task.astype(str) == name) & (trials.learner.astype(str) == learner)].trial.iloc[0])
    fitted = result.fitted(key)
    places = [(d.name, d.load()) for d in task.domains][:10]
    codes = [np.asarray(fitted.represent(fit_for(fitted, data.unlabelled()))) for _, data in places]
    every = np.concatenate(codes)
    axes = np.linalg.svd(every - every.mean(0), full_matrices=False)[2][:2].T
    figure = go.Figure()
    for k, ((domain, data), code) in enumerate(zip(places, codes, strict=True)):
        at = (code - every.mean(0)) @ axes
        shapes = ["circle" if v == 0 else "cross" for v in np.asarray(data.labels).tolist()] if data.classes is not None and len(data.classes) == 2 else "circle"
        marks = {"size": 6, "color": PALETTE[k % len(PALETTE)], "symbol": shapes, "opacity": 0.7}
        figure.add_scatter(x=at[:, 0].tolist(), y=at[:, 1].tolist(), mode="markers", name=plain(domain), marker=marks, hoverinfo="name")
    figure.update_xaxes(title="first principal component of the encodings")
    figure.update_yaxes(title="second")
    figure.update_layout(height=440, margin={"t": 30})
    return figure
