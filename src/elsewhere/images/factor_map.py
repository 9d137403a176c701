"""Which factor values fail: error over the grid of factors, where training data was and where not (spec 14, 2.5)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from elsewhere.assay.report.figures import PALETTE
from elsewhere.data import Array
from elsewhere.errors import UserError, did_you_mean
from elsewhere.explainer import Explainer, Figure, Finding, plain
from elsewhere.factors.world import FactorImages

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from elsewhere.assay.result import Result

MOST_MAPS = 3
LIMITS = (
    "Maps and lines are those of one learner and its first seed; R² is measured by the variance over the whole grid, so that splits share one scale. "
    "In a map the other factors have values that were seen in training."
)


@dataclass
class FactorMap(Explainer):
    """Say which factor values fail, whether one new factor spoils the others, and what predictions are pulled to.

    Args:
        learner: whose errors are mapped; default: the best that is no prior.
        split: which split is mapped; default: the one with the lowest R².
    """

    learner: str | None = None
    split: str | None = None

    def applies(self, result: Result) -> str | None:
        scores = result.scores()
        if not len(scores):
            return "no trial has finished"
        if not scores.metric.astype(str).str.startswith("error/").any():
            return "no task of this result has known factors"
        return None

    def explain(self, result: Result) -> Finding:
        scores = factor_scores(result)
        learner = _chosen(self.learner, _by_rank(result), "learner")
        kinds = scores[(scores.learner == learner) & (scores.domain == "all") & (scores.factor == "")].groupby("split").value.mean().sort_values()
        kind = _chosen(self.split, list(kinds.index), "split")
        modular = modularity(scores)
        told = {"R² by factor": by_factor(scores), **({"One factor new: that factor and the others": modular} if len(modular) else {})}
        if len(pulled := pull(scores)):
            told["Pull to the known range (extrapolation)"] = pulled
        figures: dict[str, Figure] = {"R² by split": by_split(scores), "R² at home and where it is new, by factor": home_and_new(scores, learner)}
        figures |= self._maps(result, learner, kind)
        return Finding(_sentence(scores, learner, kind, modular, pulled), told, figures, LIMITS)

    def _maps(self, result: Result, learner: str, kind: str) -> dict[str, Figure]:
        trials = result.trials()
        options = result.scores()[["trial", "split"]].drop_duplicates("trial")
        mine = trials.merge(options, on="trial").query("learner == @learner and split == @kind and status == 'done'").sort_values("seed")
        trial = str(mine.trial.iloc[0])
        task, each = result.task(trial), result.examples([trial])
        train: FactorImages = task.source.train
        factors, seen_values = train.factors, train.values
        assert factors is not None
        assert seen_values is not None
        frames = []
        for domain in task.domains:
            data = domain.load()
            errors = each[each.domain == domain.name].sort_values("row")[[f"error/{n}" for n in factors.names]].to_numpy()
            frames.append((domain.name, data.values, errors))
        seen = np.concatenate([values for name, values, _ in frames if name in ("home", "all")])
        errors = np.concatenate([e for name, _, e in frames if name in ("home", "all")])
        free = [i for i, n in enumerate(factors.names) if n not in factors.kept and factors.sizes[i] > 1]
        pairs = sorted(combinations(free, 2), key=lambda p: -factors.sizes[p[0]] * factors.sizes[p[1]])[:MOST_MAPS]
        found: dict[str, Figure] = {}
        for i, j in pairs:
            names = (factors.names[i], factors.names[j])
            others = np.stack([np.isin(seen[:, k], seen_values[:, k]) for k in range(len(factors)) if k not in (i, j)], 1).all(1)
            grid = error_grid(seen[others][:, [i, j]], np.abs(errors[others]).mean(1), (factors.sizes[i], factors.sizes[j]))
            known = np.zeros(grid.shape, bool)
            known[seen_values[:, i], seen_values[:, j]] = True
            found[f"Error of {learner} over {names[0]} and {names[1]} ({kind}); outlined: seen in training"] = error_map(grid, known, names)
        for name, values, wrong in frames:
            if name.startswith("only "):
                i = factors.names.index(name.removeprefix("only ").removesuffix(" new"))
                home = next((v, e) for n, v, e in frames if n == "home")
                together = np.concatenate([home[0][:, i], values[:, i]]), np.concatenate([home[1][:, i], wrong[:, i]])
                found[f"Predicted and true {factors.names[i]} ({learner}, {kind})"] = predicted_and_true(*together, factors.sizes[i], np.unique(seen_values[:, i]), factors.names[i])
        return found


def factor_scores(result: Result) -> pd.DataFrame:
    """Return r2 and pull rows with columns measure, factor ("": the mean), split and new."""
    rows = result.scores()
    name = rows.metric.astype(str)
    rows = rows[name.str.startswith(("r2", "pull/"))]
    parts = rows.metric.astype(str).str.partition("/")
    rows = rows.assign(measure=parts[0], factor=parts[2], split=rows.split.astype(str), learner=rows.learner.astype(str), domain=rows.domain.astype(str))
    return rows if "new" in rows else rows.assign(new=None)


def by_factor(scores: pd.DataFrame) -> pd.DataFrame:
    """Return one row a learner, split and domain: R² of each factor and their mean, over seeds."""
    rows = scores[scores.measure == "r2"]
    wide = rows.assign(factor=rows.factor.replace("", "mean")).pivot_table(index=["learner", "split", "domain"], columns="factor", values="value", sort=False, observed=True)
    last = [c for c in ("ordered", "mean") if c in wide]
    return wide[[*(c for c in wide if c not in last), *last]].reset_index()


def modularity(scores: pd.DataFrame) -> pd.DataFrame:
    """Return, for images where one factor alone is new, R² of that factor and the mean of the others, beside those at home."""
    r2 = scores[(scores.measure == "r2") & ~scores.factor.isin(["", "ordered"])]
    there = r2[r2.new.notna()]
    if not len(there):
        return pd.DataFrame()
    home = r2[r2.domain == "home"].groupby(["learner", "split", "seed", "factor"]).value.mean().rename("home").reset_index()
    joined = there.merge(home, on=["learner", "split", "seed", "factor"])
    mine = joined.factor == joined.new
    keys = ["learner", "split", "new"]
    own = joined[mine].groupby(keys).agg(**{"new factor": ("value", "mean"), "new factor at home": ("home", "mean")})
    rest = joined[~mine].groupby(keys).agg(**{"other factors": ("value", "mean"), "other factors at home": ("home", "mean")})
    return own.join(rest).reset_index()


def pull(scores: pd.DataFrame) -> pd.DataFrame:
    """Return how predictions of an extrapolated factor are pulled to the known range, over seeds."""
    rows = scores[(scores.measure == "pull") & scores.new.notna() & scores.value.notna()]
    if not len(rows):
        return pd.DataFrame()
    return (
        rows.pivot_table(index=["learner", "new"], columns="factor", values="value", sort=False)
        .reset_index()
        .rename(columns={"share": "within the known range", "regression": "regressed to the training mean"})
    )


def error_grid(values: Array, error: Array, sizes: tuple[int, int]) -> Array:
    """Return the mean error [size, size] over the values of two factors; NaN where no example lies.

    Examples:
        >>> error_grid(np.array([[0, 0], [0, 0], [1, 1]]), np.array([1.0, 3.0, 5.0]), (2, 2)).tolist()
        [[2.0, nan], [nan, 5.0]]
    """
    at = values[:, 0] * sizes[1] + values[:, 1]
    count = np.bincount(at, minlength=sizes[0] * sizes[1])
    total = np.bincount(at, error, minlength=sizes[0] * sizes[1])
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan).reshape(sizes)


def outline(known: Array) -> tuple[list[float | None], list[float | None]]:
    """Return x and y of the line segments between known cells [rows, columns] and others, each followed by None."""
    x: list[float | None] = []
    y: list[float | None] = []
    wide = np.pad(known, 1)
    for i, j in np.argwhere(wide[:-1, 1:-1] != wide[1:, 1:-1]):
        x, y = [*x, j - 0.5, j + 0.5, None], [*y, i - 0.5, i - 0.5, None]
    for i, j in np.argwhere(wide[1:-1, :-1] != wide[1:-1, 1:]):
        x, y = [*x, j - 0.5, j - 0.5, None], [*y, i - 0.5, i + 0.5, None]
    return x, y


def error_map(grid: Array, known: Array, names: tuple[str, str]) -> go.Figure:
    """Draw mean absolute error over two factors, the pairs of values seen in training outlined."""
    import plotly.graph_objects as go

    z = [[None if np.isnan(v) else float(v) for v in row] for row in grid]
    hover = f"{plain(names[1])} %{{x}}, {plain(names[0])} %{{y}}: %{{z:.3f}}<extra></extra>"
    figure = go.Figure(go.Heatmap(z=z, colorscale="Inferno", colorbar={"thickness": 12, "title": {"text": "error"}}, hovertemplate=hover))
    x, y = outline(known)
    figure.add_scatter(x=x, y=y, mode="lines", line={"color": "#69db7c", "width": 4}, name="seen in training", hoverinfo="skip")
    figure.update_xaxes(title=plain(names[1]), dtick=max(1, grid.shape[1] // 8), showgrid=False, zeroline=False)
    figure.update_yaxes(title=plain(names[0]), dtick=max(1, grid.shape[0] // 8), showgrid=False, zeroline=False)
    figure.update_layout(height=400, margin={"t": 40}, legend={"orientation": "h", "y": 1.1}, showlegend=True)
    return figure


def predicted_and_true(values: Array, error: Array, size: int, known: Array, name: str) -> go.Figure:
    """Draw the mean prediction for each true value with the middle 80 %, the values seen in training shaded."""
    import plotly.graph_objects as go

    figure = go.Figure()
    truth = values / (size - 1)
    for v in known:
        figure.add_shape(type="rect", x0=(v - 0.5) / (size - 1), x1=(v + 0.5) / (size - 1), y0=0, y1=1, yref="paper", fillcolor="#4c6ef5", opacity=0.15, line={"width": 0}, layer="below")
    frame = pd.DataFrame({"truth": truth, "predicted": truth + error}).groupby("truth").predicted.quantile(np.array([0.1, 0.5, 0.9])).unstack()
    x = frame.index.to_list()
    bars = {"type": "data", "array": (frame[0.9] - frame[0.5]).tolist(), "arrayminus": (frame[0.5] - frame[0.1]).tolist(), "symmetric": False, "color": "#e8590c"}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="as it is", line={"dash": "dot", "color": "#868e96"}, hoverinfo="skip")
    figure.add_scatter(x=x, y=frame[0.5].tolist(), error_y=bars, mode="lines+markers", name="predicted: median and middle 80 %", line={"color": "#e8590c"})
    figure.update_xaxes(title=f"true {plain(name)}; shaded: seen in training")
    figure.update_yaxes(title="predicted")
    figure.update_layout(height=340, margin={"t": 40}, legend={"orientation": "h", "y": 1.12})
    return figure


def by_split(scores: pd.DataFrame) -> go.Figure:
    """Draw R² on the whole test part by split, one mark a learner, with the interval over seeds."""
    import plotly.graph_objects as go

    from elsewhere.assay.analysis import cells

    rows = scores[(scores.domain == "all") & (scores.measure == "r2") & (scores.factor == "")]
    told = cells(rows, ["learner", "split"])
    order = [k for k in ("random", "composition", "interpolation", "extrapolation") if k in set(told.split)]
    figure = go.Figure()
    for k, (name, mine) in enumerate(told.groupby("learner", sort=False)):
        mine = mine.set_index("split").reindex(order)
        shift = (k - (told.learner.nunique() - 1) / 2) * 0.08
        bars = {"type": "data", "array": (mine.high - mine.value).fillna(0).tolist(), "arrayminus": (mine.value - mine.low).fillna(0).tolist(), "symmetric": False, "thickness": 1}
        dots = {"size": 9, "color": PALETTE[k % len(PALETTE)]}
        texts = [f"{plain(name)}, {s}: {v:.3f}" for s, v in zip(order, mine.value, strict=True)]
        figure.add_scatter(
            x=[p + shift for p in range(len(order))],
            y=mine.value.tolist(),
            error_y=bars,
            mode="markers",
            name=plain(name),
            marker=dots,
            hovertext=texts,
            hoverinfo="text",
        )
    figure.update_xaxes(tickvals=list(range(len(order))), ticktext=order)
    figure.update_yaxes(title="mean R² over factors")
    figure.update_layout(height=380, margin={"t": 30})
    return figure


def home_and_new(scores: pd.DataFrame, learner: str) -> go.Figure:
    """Draw each factor at (R² at home, R² on the test part), one colour a split."""
    import plotly.graph_objects as go

    rows = scores[(scores.measure == "r2") & ~scores.factor.isin(["", "ordered"]) & (scores.learner == learner) & scores.domain.isin(["home", "all"])]
    wide = rows.pivot_table(index=["split", "factor"], columns="domain", values="value").reset_index()
    figure = go.Figure()
    for k, (kind, mine) in enumerate(wide.groupby("split", sort=False)):
        hover = [f"{plain(f)}, {plain(kind)}: {a:.2f} → {b:.2f}" for f, a, b in zip(mine.factor, mine.home, mine["all"], strict=True)]
        dots = {"size": 9, "color": PALETTE[k % len(PALETTE)]}
        named = [plain(f) if b < a - 0.25 else "" for f, a, b in zip(mine.factor, mine.home, mine["all"], strict=True)]
        figure.add_scatter(
            x=mine.home,
            y=mine["all"],
            text=named,
            mode="markers+text",
            textposition="middle left",
            hovertext=hover,
            hoverinfo="text",
            name=plain(kind),
            marker=dots,
        )
    low, high = float(wide.home.min()), float(wide.home.max())
    figure.add_scatter(x=[low, high], y=[low, high], mode="lines", name="as at home", line={"dash": "dot", "color": "#868e96"}, hoverinfo="skip")
    figure.update_xaxes(title="R² at home")
    figure.update_yaxes(title="R² on the test part")
    figure.update_layout(height=420, margin={"t": 40}, title={"text": plain(learner), "font": {"size": 14}})
    return figure


def _by_rank(result: Result) -> list[str]:
    names = [str(n) for n in result.ranking().learner]
    return [n for n in names if "prior" not in n] or names


def _chosen(given: str | None, known: list[str], what: str) -> str:
    if given is not None and given not in known:
        raise UserError(f"no {what} {given!r} in this result{did_you_mean(given, known)}")
    return given if given is not None else known[0]


def _most_lost(loss: pd.Series[float], at_home: dict[str, float], there: dict[str, float]) -> str:
    """Name the factor that loses most, where what it loses shows in two places."""
    worst = str(loss.index[0])
    before, after = f"{at_home[worst]:.2f}", f"{there[worst]:.2f}"
    if before == after or not loss.iloc[0] > 0:
        return "no factor loses."
    return f"{worst} loses most ({before} → {after})."


def _sentence(scores: pd.DataFrame, learner: str, kind: str, modular: pd.DataFrame, pulled: pd.DataFrame) -> str:
    mine = scores[(scores.learner == learner) & (scores.split == kind) & (scores.measure == "r2") & ~scores.factor.isin(["ordered"])]
    value = mine[mine.domain.isin(["home", "all"])].groupby(["factor", "domain"]).value.mean().unstack()
    loss = (value["home"] - value["all"]).drop("", errors="ignore").sort_values(ascending=False)
    at_home, there = ({str(k): float(v) for k, v in value[d].items()} for d in ("home", "all"))
    said = f"Under {kind}, {learner} reads the factors with R² {at_home['']:.2f} at home and {there['']:.2f} on the test part; "
    said += _most_lost(loss, at_home, there)
    if len(modular) and len(m := modular[(modular.learner == learner) & (modular.split == kind)]):
        own, rest = [(m[f"{w} at home"].mean(), m[w].mean()) for w in ("new factor", "other factors")]
        said += f" Where one factor alone is new, it falls from R² {own[0]:.2f} to {own[1]:.2f} and the others from {rest[0]:.2f} to {rest[1]:.2f}."
    if kind == "extrapolation" and len(pulled) and len(p := pulled[pulled.learner == learner]):
        share = p["within the known range"].mean()
        said += f" {share:.0%} of the predictions of a new value lie within the known range."
    return said
