"""What an encoder of neighbourhoods learnt: recall by level, sizes of clusters, and a map of the embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from elsewhere.assay.report.figures import PALETTE
from elsewhere.explainer import Explainer, Finding, plain
from elsewhere.graphs.data import Graph, Nodes
from elsewhere.graphs.neighborhood_prediction import NeighborhoodPrediction

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from elsewhere.assay.result import Result

SHOWN = 4000  # nodes on a map
LIMITS = "Recall is that of clusters on nodes held out of the encoder's training, not of single neighbours. The map keeps two directions of many."


@dataclass
class NeighbourhoodMap(Explainer):
    """Say how well clusters of neighbours are foretold at each level, and draw what the encoder makes of the nodes (fits one model of each task again)."""

    cost: ClassVar[Literal["free", "minutes", "long"]] = "minutes"

    def applies(self, result: Result) -> str | None:
        return None if self._trials(result) else "no learner of this result predicts neighbourhoods"

    @staticmethod
    def _trials(result: Result) -> dict[tuple[str, str], str]:
        """Return (task, learner) -> the first finished trial of an encoder."""
        found: dict[tuple[str, str], str] = {}
        done = result.trials().query("status == 'done'").sort_values("seed")
        for _, row in done.iterrows():
            if isinstance(_encoder(result.trial(str(row.trial)).learner), NeighborhoodPrediction):
                found.setdefault((str(row.task), str(row.learner)), str(row.trial))
        return found

    def explain(self, result: Result) -> Finding:
        said, tables, figures = [], {}, {}
        for (task, learner), key in self._trials(result).items():
            fitted = result.fitted(key)
            encoder = _encoder(fitted, fitted=True)
            graph = result.task(key).source.train.graph
            title = f"({task}, {learner})"
            tables[f"Clusters of the coarsest level {title}"] = encoder.describe(graph, 0)
            figures[f"Sizes of clusters {title}"] = sizes(encoder)
            figures[f"Embeddings by cluster of the coarsest level {title}"] = embedding_map(encoder, graph)
            if encoder.solver == "train":
                levels = pd.DataFrame(encoder.log_)
                tables[f"Levels {title}"] = levels
                figures[f"Recall by level {title}"] = by_level(levels)
                last = levels.iloc[-1]
                recall = next(str(c) for c in levels if str(c).startswith("recall"))
                first, found = f"{last['precision@1']:.0%}", f"{last[recall]:.0%}"
                beam = recall.partition("@")[2]
                said.append(f"{learner} in {task}: of {last.clusters:,.0f} clusters it names first one that holds a neighbour in {first}, and finds {found} of them among {beam}.")
            else:
                said.append(f"{learner} in {task}: one level of {encoder.weights_.shape[1]} clusters, in closed form.")
        return Finding(" ".join(said), tables, figures, LIMITS)


def _encoder(learner: Any, fitted: bool = False) -> Any:
    """Return the encoder within a probe, or the learner itself."""
    inner = getattr(learner, "encoder_" if fitted else "encoder", None)
    return learner if inner is None or isinstance(inner, str) else inner


def by_level(levels: pd.DataFrame) -> go.Figure:
    """Draw precision@1 and recall of each level's clusters."""
    import plotly.graph_objects as go

    figure = go.Figure()
    names = [f"{int(k):,} clusters" for k in levels.clusters]
    for k, column in enumerate(str(c) for c in levels if str(c).startswith(("precision", "recall"))):
        figure.add_bar(x=names, y=levels[column].tolist(), name=column, marker={"color": PALETTE[k]}, text=[f"{v:.2f}" for v in levels[column]], textposition="auto")
    figure.update_yaxes(title="on nodes held out", range=[0, 1.05])
    figure.update_layout(height=360, margin={"t": 30}, barmode="group", legend={"orientation": "h", "y": 1.12})
    return figure


def sizes(encoder: NeighborhoodPrediction) -> go.Figure:
    """Draw how many nodes the leaves of the tree hold, and how many each coarsest cluster."""
    import plotly.graph_objects as go

    leaf = np.bincount(encoder.tree_.codes[encoder.tree_.codes >= 0])
    coarse = encoder.tree_.clusters(0)
    told = np.bincount(coarse[coarse >= 0])
    counts = np.bincount(leaf)
    at = np.flatnonzero(counts)
    figure = go.Figure()
    figure.add_bar(x=at.tolist(), y=counts[at].tolist(), name=f"{len(leaf):,} leaves", marker={"color": PALETTE[0]})
    figure.update_xaxes(title=f"nodes of a leaf (the {len(told)} coarsest clusters hold {told.min():,} to {told.max():,})", dtick=max(1, int(np.ptp(at)) // 8 or 1))
    figure.update_yaxes(title="leaves")
    figure.update_layout(height=320, margin={"t": 30})
    return figure


def embedding_map(encoder: NeighborhoodPrediction, graph: Graph) -> go.Figure:
    """Draw two principal components of the embeddings, a colour a coarsest cluster; nodes outside the tree have no colour."""
    import plotly.graph_objects as go

    at = np.sort(np.random.default_rng(0).permutation(len(graph))[:SHOWN])
    z = encoder.encode(Nodes(graph, at))
    centred = z - z.mean(0)
    places = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    cluster = encoder.tree_.clusters(0)[at]
    figure = go.Figure()
    for k in np.unique(cluster):
        mine = cluster == k
        colour = "#ced4da" if k < 0 else PALETTE[int(k) % len(PALETTE)]
        name = "without links" if k < 0 else f"cluster {k}"
        figure.add_scatter(x=places[mine, 0].tolist(), y=places[mine, 1].tolist(), mode="markers", name=plain(name), marker={"size": 4, "color": colour, "opacity": 0.7}, hoverinfo="name")
    figure.update_xaxes(title="first principal component of the embeddings")
    figure.update_yaxes(title="second")
    figure.update_layout(height=420, margin={"t": 30})
    return figure
