"""Do features or links carry the task, and what do links buy? The feature contribution ratio, and accuracy by degree."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from elsewhere.assay.report.figures import PALETTE
from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.explainer import Explainer, Figure, Finding, plain
from elsewhere.graphs.data import Nodes
from elsewhere.graphs.label_propagation import LabelPropagation
from elsewhere.graphs.learners import Gcn
from elsewhere.learner import as_examples
from elsewhere.run import Run
from elsewhere.task import Source, Task

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from elsewhere.assay.result import Result

NAMES = ("gcn", "mlp", "label-propagation")
LIMITS = (
    "The ratio compares three scores at home; it assumes that spreading labels is no better than the network over the graph, and has no value "
    "where it is. It says what carries the task, not what a better learner would make of it."
)


def feature_contribution_ratio(gnn: float, mlp: float, propagation: float) -> float:
    """Return the share (in %) of the task that features alone carry (Zheng et al. 2022, equation 5).

    With δ_MLP = z_GNN - z_MLP and δ_LP = z_GNN - z_LP: δ_LP / (δ_MLP + δ_LP) where the perceptron is no better than the network, else
    1 + |δ_MLP| / (|δ_MLP| + δ_LP). Below 50 links carry the task, above 50 features do, from 100 on links harm. NaN, with a warning that
    says why, where spreading labels beats the network or all three are equal.

    Examples:
        >>> round(feature_contribution_ratio(86.96, 69.02, 78.18), 2), round(feature_contribution_ratio(31.95, 38.51, 22.85), 2)
        (32.86, 141.89)
    """
    features, links = gnn - mlp, gnn - propagation
    if links < 0:
        warnings.warn(f"no feature contribution ratio: spreading labels ({propagation:.3f}) beats the network over the graph ({gnn:.3f})", UserWarning, stacklevel=2)
        return float("nan")
    if features == 0 and links == 0:
        warnings.warn(f"no feature contribution ratio: network, perceptron and spread labels all score {gnn:.3f}", UserWarning, stacklevel=2)
        return float("nan")
    if features >= 0:
        return 100 * links / (features + links)
    return 100 * (1 + abs(features) / (abs(features) + links))


def homophily(links: Any, labels: Array) -> float:
    """Return β, the mean over labelled nodes with labelled neighbours of the share of those with the same label (Pei et al. 2020).

    Examples:
        >>> import scipy.sparse as sp
        >>> homophily(sp.csr_array(np.array([[0, 1, 1], [1, 0, 0], [1, 0, 0]])), np.array([0, 0, 1]))
        0.5
    """
    rows = np.repeat(np.arange(links.shape[0]), np.diff(links.indptr))
    known = (labels[rows] >= 0) & (labels[links.indices] >= 0)
    rows, columns = rows[known], links.indices[known]
    count = np.bincount(rows, minlength=len(labels))
    same = np.bincount(rows, labels[rows] == labels[columns], minlength=len(labels))
    return float((same[count > 0] / count[count > 0]).mean()) if count.any() else float("nan")


def feature_contribution(task: Task[Nodes], run: Run = Run()) -> Finding:
    """Fit a GCN, a perceptron and label propagation on a task and return the ratio as a finding.

    Examples:
        >>> from elsewhere.graphs.generators import homophily_graph
        >>> from elsewhere.graphs.tasks import isolated_nodes
        >>> feature_contribution(isolated_nodes(homophily_graph(600, homophily=0.9))).sentence.split()[0]
        'Links'
    """
    from elsewhere.nn.learners import Mlp

    home = next((d for d in task.domains if d.role == "home"), task.domains[0]).load()
    scores = []
    learners: list[Any] = [Gcn(), Mlp(), LabelPropagation()]
    for learner in learners:
        wants_nodes = learner.accepts is Nodes
        source: Source[Any] = task.source if wants_nodes else Source(as_examples(task.source.train))
        asked = home.unlabelled() if wants_nodes else as_examples(home.unlabelled())
        scores.append(float((learner.fit(source, run).predict(asked, run).classes() == home.labels).mean()))
    table = pd.DataFrame([{"task": "this", "network": scores[0], "perceptron": scores[1], "spread labels": scores[2], "homophily": _homophily(task)}])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table["ratio"] = feature_contribution_ratio(*scores)
    return _finding(table)


@dataclass
class FeatureContribution(Explainer):
    """Say whether features or links carry the task, before anybody relies on links that new nodes do not have.

    Args:
        network: the learner that uses links.
        perceptron: the learner that uses features alone.
        propagation: the learner that uses links alone.
    """

    cost: ClassVar[Literal["free", "minutes", "long"]] = "free"
    network: str = NAMES[0]
    perceptron: str = NAMES[1]
    propagation: str = NAMES[2]

    def applies(self, result: Result) -> str | None:
        trials = result.trials()
        done = set(trials[trials.status == "done"].learner_name.astype(str))
        missing = [n for n in (self.network, self.perceptron, self.propagation) if n not in done]
        return f"it compares {self.network}, {self.perceptron} and {self.propagation}, and this result lacks {', '.join(missing)}" if missing else None

    def explain(self, result: Result) -> Finding:
        rows = result.scores()
        rows = rows[(rows.metric == "accuracy") & (rows.role == "home")]
        if not len(rows):
            raise UserError("no accuracy at home in this result")
        wide = rows.pivot_table(index=["task", "seed"], columns="learner_name", values="value", observed=True)[[self.network, self.perceptron, self.propagation]].dropna()
        wide.columns = pd.Index(["network", "perceptron", "spread labels"])
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always", UserWarning)
            wide["ratio"] = [feature_contribution_ratio(*v) for v in wide.to_numpy()[:, :3].tolist()]
        table = wide.groupby("task", observed=True, sort=False).agg(["mean", "std"])
        told = pd.DataFrame({"task": table.index.astype(str)})
        for name in ("network", "perceptron", "spread labels", "ratio"):
            told[name] = table[(name, "mean")].to_numpy()
        told["ratio, deviation over seeds"] = table[("ratio", "std")].to_numpy()
        trials = result.trials()
        told.insert(4, "homophily", [_homophily(result.task(str(trials[trials.task == t].trial.iloc[0]))) for t in told.task])
        return _finding(told, "; ".join(dict.fromkeys(str(w.message) for w in heard)))


def _homophily(task: Task[Nodes]) -> float:
    """Return β by every label that the task knows."""
    nodes = [task.source.train, *([task.source.validation] if task.source.validation is not None else []), *(d.load() for d in task.domains)]
    first = nodes[0]
    if not isinstance(first, Nodes):
        return float("nan")
    known = np.full(len(first.graph), -1)
    for n in nodes:
        if isinstance(n, Nodes) and n.known is not None and len(n.known) == len(known):
            known = np.where(n.known >= 0, n.known, known)
    return homophily(first.graph.links, known)


def _finding(table: pd.DataFrame, heard: str = "") -> Finding:
    said = []
    for _, row in table.iterrows():
        where = "" if len(table) == 1 else f" in {row.task}"
        if not np.isfinite(row.ratio):
            said.append(f"No ratio{where}: spread labels ({row['spread labels']:.2f}) reach or beat the network ({row.network:.2f}).")
            continue
        what = "Features carry the task, and links harm" if row.ratio >= 100 else "Features carry most of the task" if row.ratio >= 50 else "Links carry most of the task"
        hope = (
            "expect little from a student of links"
            if row.ratio >= 100
            else "a node without links loses little"
            if row.ratio >= 50
            else "a node without links loses most: distil them into features (cold-brew), or get links"
        )
        said.append(f"{what}{where}: ratio {row.ratio:.0f} % (network {row.network:.2f}, features alone {row.perceptron:.2f}, links alone {row['spread labels']:.2f}); {hope}.")
    return Finding(" ".join(said), {"What carries the task": table}, {"Feature contribution ratio": _bars(table)}, LIMITS + (f" {heard}." if heard else ""))


def _bars(table: pd.DataFrame) -> go.Figure:
    import plotly.graph_objects as go

    figure = go.Figure()
    ratio = [None if not np.isfinite(v) else float(v) for v in table.ratio]
    figure.add_bar(
        y=[plain(t) for t in table.task], x=ratio, orientation="h", marker={"color": PALETTE[0]}, text=["no value" if v is None else f"{v:.0f} %" for v in ratio], textposition="auto", hoverinfo="skip"
    )
    for at, text in ((50, "features carry more"), (100, "links harm")):
        figure.add_shape(type="line", x0=at, x1=at, y0=0, y1=1, yref="paper", line={"dash": "dot", "color": "#868e96"})
        figure.add_annotation(x=at, y=1.02, yref="paper", yanchor="bottom", xanchor="left", text=f"{text} →", showarrow=False, font={"size": 11, "color": "#868e96"})
    figure.update_xaxes(title="feature contribution ratio, %", range=[0, max(120, 1.1 * max([v or 0 for v in ratio], default=0))])
    figure.update_layout(height=140 + 34 * len(table), margin={"t": 40}, showlegend=False)
    return figure


# --- accuracy by degree -----------------------------------------------------------------------------------------------


@dataclass
class Degrees(Explainer):
    """Say how accuracy depends on the number of links, and how many nodes have so many.

    Args:
        map: also draw the embeddings that a fitted cold-brew guesses of every node (fits it again).
    """

    map: bool = False

    def applies(self, result: Result) -> str | None:
        trials = result.trials()
        if not (trials.status == "done").any():
            return "no trial has finished"
        tasks = [result.task(str(t)) for t in trials.drop_duplicates("task").trial]
        nodes = any(isinstance(task.source.train, Nodes) for task in tasks)
        return None if nodes else "the data are no nodes of a graph"

    def explain(self, result: Result) -> Finding:
        each = _each(result)
        if not len(each):
            raise UserError("no accuracy of single nodes was kept in this result")
        table = by_degree(each)
        figures: dict[str, Figure] = {}
        for name, mine in table.groupby("task", sort=False):
            figures[f"Accuracy by number of links ({name})"] = _curves(mine)
        if self.map:
            figures |= _maps(result)
        low = table[table.task == table.task.iloc[0]]
        first, last = low.links.iloc[0], low.links.iloc[-1]
        pairs = [f"{r.learner} {r.accuracy:.2f}" for _, r in low[low.links == first].sort_values("accuracy", ascending=False).iterrows()]
        best = low[low.links == last].sort_values("accuracy", ascending=False).iloc[0]
        sentence = f"With {first} links: {', '.join(pairs)}; with {last}, the best is {best.learner} ({best.accuracy:.2f})."
        if table.task.nunique() > 1:
            sentence = f"In {low.task.iloc[0]}, one of {table.task.nunique()} tasks: {sentence}"
        return Finding(
            sentence,
            {"Accuracy by number of links": table},
            figures,
            "Links are counted in the graph that learners saw: those of isolated nodes are removed. Nodes with the same number of links differ in more than it.",
        )


def _each(result: Result) -> pd.DataFrame:
    """Return one row a trial and node: task, learner, seed, links, accuracy."""
    trials = result.trials().query("status == 'done'")
    frames = []
    made: dict[tuple[str, int], list[tuple[str, Any]]] = {}  # trials of one task and seed share its data
    for _, trial in trials.iterrows():
        rows = result.examples([str(trial.trial)])
        if "accuracy" not in rows:
            continue
        key = (str(trial.task), int(trial.seed))
        if key not in made:
            made[key] = [(d.name, d.load()) for d in result.task(str(trial.trial)).domains]
        for domain, data in made[key]:
            if not isinstance(data, Nodes):
                continue
            mine = rows[rows.domain == domain].sort_values("row")
            frames.append(
                pd.DataFrame({"task": str(trial.task), "learner": str(trial.learner), "seed": trial.seed, "node": data.ask, "links": data.column("degree"), "accuracy": mine.accuracy.to_numpy(float)})
            )
    if not frames:
        return pd.DataFrame()
    return pd.concat(frames, ignore_index=True).drop_duplicates(["task", "learner", "seed", "node"])


def by_degree(each: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy, its standard error and nodes by task, learner and class of degree: 0, 1, 2, 3–4, 5–8, …

    Examples:
        >>> by_degree(pd.DataFrame({"task": "t", "learner": "l", "seed": 0, "node": [1, 2], "links": [3, 4], "accuracy": [0.0, 1.0]})).links.tolist()
        ['3–4']
    """
    bound = np.where(each.links > 0, np.ceil(np.log2(np.maximum(each.links, 1))), -1).astype(int)
    told = (
        each.assign(bound=bound)
        .groupby(["task", "learner", "bound"], sort=False, observed=True)
        .agg(accuracy=("accuracy", "mean"), deviation=("accuracy", "std"), n=("accuracy", "size"), seeds=("seed", "nunique"))
        .reset_index()
    )
    told["error"] = told.deviation.fillna(0) / np.sqrt(told.n)
    told["nodes"] = told.n / told.seeds
    told = told.sort_values(["task", "bound", "learner"], kind="stable")
    told["links"] = [_span(b) for b in told.bound]
    return told[["task", "learner", "links", "accuracy", "error", "nodes"]].reset_index(drop=True)


def _span(bound: int) -> str:
    if bound < 0:
        return "0"
    low, high = (1, 1) if bound == 0 else (2 ** (bound - 1) + 1, 2**bound)
    return str(high) if low == high else f"{low}–{high}"


def _curves(table: pd.DataFrame) -> go.Figure:
    import plotly.graph_objects as go

    order = list(dict.fromkeys(table.links))
    figure = go.Figure()
    counts = table.groupby("links", sort=False).nodes.mean().reindex(order)
    share = counts / counts.sum()
    figure.add_bar(x=order, y=share.tolist(), yaxis="y2", name="share of judged nodes", marker={"color": "#dee2e6"}, hovertext=[f"{v:,.0f} nodes" for v in counts], hoverinfo="text")
    for k, (name, mine) in enumerate(table.groupby("learner", sort=False)):
        told = mine.set_index("links").reindex(order)
        bars = {"type": "data", "array": told.error.fillna(0).tolist(), "thickness": 1}
        texts = [f"{plain(name)}, {s} links: {v:.3f}" for s, v in zip(order, told.accuracy, strict=True)]
        figure.add_scatter(x=order, y=told.accuracy.tolist(), error_y=bars, mode="lines+markers", name=plain(name), line={"color": PALETTE[k % len(PALETTE)]}, hovertext=texts, hoverinfo="text")
    figure.update_xaxes(title="links of a node (doubling classes)", type="category")
    figure.update_layout(
        height=420,
        margin={"t": 40},
        yaxis={"title": "accuracy", "overlaying": "y2", "range": [0, 1.02], "dtick": 0.2},
        yaxis2={"side": "right", "title": "share of judged nodes", "range": [0, max(0.6, 1.5 * float(share.max()))], "showgrid": False},
        legend={"orientation": "h", "y": 1.12},
    )
    return figure


def _maps(result: Result) -> dict[str, Figure]:
    """Draw ê of the first cold-brew of each task in two principal components."""
    import plotly.graph_objects as go

    from elsewhere.graphs.cold_brew import ColdBrew, embedding_map

    found: dict[str, Figure] = {}
    trials = result.trials().query("status == 'done'").sort_values("seed")
    for name, mine in trials[trials.learner_name.astype(str) == "cold-brew"].groupby("task", sort=False, observed=True):
        key = str(mine.trial.iloc[0])
        learner, task = result.fitted(key), result.task(key)
        assert isinstance(learner, ColdBrew)
        graph = task.source.train.graph
        places = embedding_map(learner, graph)
        figure = go.Figure()
        alone = graph.degree == 0
        rng = np.random.default_rng(0)
        for told, members, color, size in (("linked", ~alone, "#adb5bd", 4), ("isolated", alone, PALETTE[1], 6)):
            at = rng.permutation(np.flatnonzero(members))[:3000]
            figure.add_scatter(x=places[at, 0].tolist(), y=places[at, 1].tolist(), mode="markers", name=told, marker={"size": size, "color": color, "opacity": 0.7}, hoverinfo="skip")
        figure.update_xaxes(title="first principal component of ê")
        figure.update_yaxes(title="second")
        figure.update_layout(height=420, margin={"t": 40}, legend={"orientation": "h", "y": 1.1})
        found[f"Guessed embeddings ({name}, {mine.learner.iloc[0]})"] = figure
    return found
