"""The dataset derivative as an explainer: which training examples and domains a failure elsewhere is due to, and what removing them gives when the learner is trained again."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from elsewhere.assay.analysis import away
from elsewhere.data import Array, Examples, optional_column
from elsewhere.encoding import Encoder, as_matrix
from elsewhere.errors import NotOffered, UserError, did_you_mean
from elsewhere.explain import blame_figures as figures
from elsewhere.explain.dataset_derivative import DatasetDerivative
from elsewhere.explainer import Explainer, Figure, Finding
from elsewhere.learner import as_examples, offers
from elsewhere.pictures import contact_sheet, is_picture
from elsewhere.run import Run
from elsewhere.task import Source

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

MOST_TRAINED, MOST_JUDGED, MOST_DOMAINS, MOST_PARTS, MOST_EXTENDED = 50_000, 4_000, 4, 12, 3_000
CULPRIT = 0.01  # a blame below this share of the judge's loss names no culprit, however significant
LIMITS = (
    "Exact for ridge regression on what the learner represents, and local to it; not the truth about a network that is trained again, which is why removal is re-run. "
    "Examples are chosen on half of a domain's labels and judged on the other half. A derivative by leave-one-out finds uniformly wrong labels and misses systematic ones: those need a clean judge, "
    "and for uniform noise the plain leave-one-out residual beside it is the better detector. Exact duplicates share their blame."
)


@dataclass
class DatasetBlame(Explainer):
    """Say which training examples, and which source domains, the error in each domain elsewhere is due to (fits the learner again without the worst).

    Args:
        learner: whose failure is explained; default: the best elsewhere.
        judge: explain this domain only; default: the worst few.
        shown: most harmful and most helpful examples to show.
        shares: of the source that are removed, the worst first.
        rerun: whether the learner is trained again without them.
        controls: random removals of the same size.
        ridge: of the regression on what the learner represents.
    """

    learner: str | None = None
    judge: str | None = None
    shown: int = 20
    shares: Sequence[float] = (0.01, 0.05, 0.1, 0.2)
    rerun: bool = True
    controls: int = 3
    ridge: float | Literal["loo"] = "loo"
    cost: ClassVar[Literal["free", "minutes", "long"]] = "minutes"

    def applies(self, result: Result) -> str | None:
        done = result.trials().query("status == 'done'")
        if not len(done):
            return "no trial has finished"
        if not set(result.scores().metric) & {"accuracy", "squared_error"}:
            return "it needs labels that are classes or numbers"
        return None

    def explain(self, result: Result) -> Finding:
        case = _case(result, self._trial(result), self.judge, self.ridge)
        table = case.blame()
        tables: dict[str, pd.DataFrame] = {f"Blame: {case.what} × domain, as shares of the domain's squared error": table}
        drawn: dict[str, Figure] = {"Which part of the source each domain's error is due to": figures.blame_map(table, case.what)}
        told = []
        for name in case.judges:
            told.append(self._domain(case, name, table[table["judge"] == name], tables, drawn))
        drawn |= self._weights(case)
        if (notes := case.labels_in_doubt()) is not None:
            tables["Labels in doubt, judged by leaving each example out"] = notes
        said = " " + case.said if case.said else ""
        return Finding(f"{case.learner}: " + " ".join(told), tables, drawn, LIMITS + said)

    def _trial(self, result: Result) -> str:
        done = result.trials().query("status == 'done'").sort_values("seed")
        names = list(dict.fromkeys(done.learner))
        kinds = dict(zip(done.learner, done.learner_name, strict=True))
        if self.learner is not None:
            if self.learner not in names:
                raise UserError(f"no learner {self.learner!r}{did_you_mean(self.learner, names)}")
            return str(done[done.learner == self.learner].trial.iloc[0])
        ranked = [str(n) for n in result.ranking().learner] if len(away(result.scores())) else names
        chosen = next((n for n in ranked if kinds.get(n) != "prior"), ranked[0])
        return str(done[done.learner == chosen].trial.iloc[0])

    def _domain(self, case: _Case, name: str, blamed: pd.DataFrame, tables: dict[str, Any], drawn: dict[str, Figure]) -> str:
        g = np.asarray(case.derivative.gradient(case.judges[name]))
        examples = case.examples(g, name, self.shown)
        tables[f"{name}: examples that hurt and help most"] = examples
        if is_picture(case.train):
            for word, order in (("hurt", np.argsort(-g, kind="stable")), ("help", np.argsort(g, kind="stable"))):
                shown = [np.asarray(case.train.preview(int(k))) for k in order[: self.shown]]
                labels = ", ".join(case.label(int(k)) for k in order[: self.shown])
                drawn[f"{name}: the {len(shown)} examples that {word} most, labelled {labels}"] = contact_sheet(
                    shown, f"training examples that {word} {name} most: {labels}", max(2, 48 // shown[0].shape[-2])
                )
        drawn[f"{name}: derivative of its error by each example's weight"] = figures.histogram(g, case.doubtful(), case.whole[name])
        held = concentration(g)
        tables[f"{name}: how concentrated the harm is"] = held
        removal = case.removal(name, g, self.shares, self.rerun, self.controls)
        tables[f"{name}: {case.metric} on the other half of its examples without the worst"] = removal
        drawn[f"{name}: {case.metric} without the worst examples"] = figures.removal_curve(removal, case.metric)
        buys, rounds = case.what_labels_buy(name)
        tables[f"{name}: what its labels buy ({case.metric} of ridge regression on the other half)"] = buys
        if rounds is not None and len(rounds):
            drawn[f"{name}: its labelled half extended from the source"] = figures.extension_curve(rounds)
        if (groups := case.groups(name)) is not None:
            tables[f"{name}: which training group each group's error is due to"] = groups
        return sentence(name, blamed, held, removal, buys, case.metric, case.what)

    def _weights(self, case: _Case) -> dict[str, Figure]:
        weights = {name: case.derivative.optimise(judge, steps=1, step=0.1) for name, judge in case.judges.items()}
        return {f"Weights after one step for each domain, by {case.what}": figures.weights_by_part(weights, case.part)}


@dataclass
class _Case:
    """One fitted learner, its source, and the domains that judge: half of each chooses examples, the other half judges what that gave."""

    learner: str
    fitted: Any
    unfitted: Any
    source: Source[Any]
    train: Examples
    features: Array
    derivative: DatasetDerivative
    judges: dict[str, tuple[Array, Array]]
    held: dict[str, tuple[Array, Examples]]
    chosen: dict[str, Examples]
    whole: dict[str, float]
    part: Array
    what: str
    metric: str
    run: Run
    said: str = ""

    def blame(self) -> pd.DataFrame:
        """Return part × domain: what scaling the part down or leaving it out would do, exactly, as shares of the domain's squared error."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            table = self.derivative.blame(self.judges, domain=self.part)
        whole = table["judge"].map(self.whole)
        for column in ("blame", "blame low", "blame high"):
            table[column] = table[column] / whole
        return table.drop(columns=["share", "removal"]).rename(columns={"domain": "part", "removal share": "left out"})

    def label(self, row: int) -> str:
        codes = np.asarray(self.train.labels)
        return str(self.train.classes[int(codes[row])]) if self.train.classes is not None else f"{codes[row]:.3g}"

    def doubtful(self) -> Array:
        """Return which examples are labelled otherwise than the others predict for them [n]; for numbers, the twentieth with the largest residual."""
        loo = self.derivative.leave_one_out()
        if self.train.classes is None:
            size = np.abs(loo.residuals).sum(1)
            return np.asarray(size >= np.nanquantile(size, 0.95))
        return np.asarray(loo.predictions.argmax(1) != np.asarray(self.train.labels))

    def labels_in_doubt(self, most: int = 50) -> pd.DataFrame | None:
        if self.train.classes is None:
            return None
        frame = self.derivative.suspects(fraction=1.0, by="leave_one_out").head(most)
        names = np.asarray(self.train.classes, dtype=object)
        kept = frame[["row", "label", "predicted", "residual", "margin", "derivative"]]
        return kept.assign(label=names[kept["label"].to_numpy(int)], predicted=names[kept["predicted"].to_numpy(int)])

    def examples(self, g: Array, name: str, shown: int) -> pd.DataFrame:
        """Return the most harmful and most helpful examples with label, what the others predict, the best label for this domain and its gain; columns of a table beside."""
        order = np.argsort(-g, kind="stable")
        rows = np.r_[order[:shown], order[-shown:]] if len(order) > 2 * shown else order
        frame = pd.DataFrame({"example": rows, "derivative": g[rows] / self.whole[name], "label": [self.label(int(k)) for k in rows]})
        if (ids := optional_column(self.train, "id")) is not None:
            frame["example"] = [str(v) for v in ids[rows].tolist()]
        loo = self.derivative.leave_one_out().predictions[rows]
        if self.train.classes is not None:
            best = self.derivative.relabel(self.judges[name]).sort_values("row").iloc[rows]
            names = np.asarray(self.train.classes, dtype=object)
            frame["others predict"] = names[loo.argmax(1)]
            frame["best label here"] = names[best["suggested"].to_numpy(int)]
            frame["gain of it"] = best["gain"].to_numpy() / self.whole[name]
        else:
            frame["others predict"] = loo[:, 0]
        if self.what not in frame:
            frame.insert(1, self.what, self.part[rows])
        if hasattr(self.train.inputs, "iloc"):
            raw = self.train.inputs.iloc[rows, :8].reset_index(drop=True)
            frame = pd.concat([frame, raw.rename(columns={c: f"{c} " for c in raw if c in frame})], axis=1)
        return frame

    def removal(self, name: str, g: Array, shares: Sequence[float], rerun: bool, controls: int) -> pd.DataFrame:
        """Return the metric on the half that chose nothing, without the worst examples: by ridge regression (exact), by the learner trained again, and at random."""
        rng, order, rows = np.random.default_rng(0), np.argsort(-g, kind="stable"), []
        for share in (0.0, *shares):
            count = round(share * len(g))
            told = {"removed": share, "examples": count, "ridge": self._by_ridge(name, order[:count])}
            if rerun:
                told["trained again"] = self._trained(name, order[:count])
                draws = [rng.permutation(len(g))[:count] for _ in range(controls if count else 0)]
                random = [self._trained(name, drawn) for drawn in draws]
                told |= {"at random": float(np.mean(random)) if random else told["trained again"]}
                told |= {"at random low": min(random, default=told["trained again"]), "at random high": max(random, default=told["trained again"])}
            rows.append(told)
        return pd.DataFrame(rows)

    def _by_ridge(self, name: str, rows: Array) -> float:
        v, data = self.held[name]
        w = self.derivative.solution_.without(rows).numpy() if len(rows) else self.derivative.solution_.coefficients.numpy()
        return self._score(np.c_[v, np.ones(len(v))] @ w, data)

    def _score(self, made: Array, data: Examples) -> float:
        labels = np.asarray(data.labels)
        return float((made.argmax(1) == labels).mean()) if data.classes is not None else float(np.sqrt(np.square(made.reshape(len(labels), -1) - labels.reshape(len(labels), -1)).sum(1).mean()))

    def _trained(self, name: str, rows: Array) -> float:
        kept = np.ones(len(self.train), bool)
        kept[rows] = False
        fitted = copy.deepcopy(self.unfitted).fit(replace(self.source, train=self.source.train.take(kept)), self.run)
        prediction = fitted.predict(self.held[name][1].unlabelled(), self.run)
        data = self.held[name][1]
        return float((prediction.classes() == data.labels).mean()) if data.classes is not None else self._score(prediction.mean, data)

    def what_labels_buy(self, name: str) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """Return what the labels of this domain's half buy, by ridge regression judged on the other half: as a judge, alone, and as a core that the source extends."""
        d, (v, u) = self.derivative, self.judges[name]
        there, data = self.held[name]
        constant = np.bincount(u, minlength=len(self.train.classes)) if self.train.classes is not None else np.atleast_1d(np.mean(u, axis=0))
        rows = [("nothing: always its most frequent label" if self.train.classes is not None else "nothing: always its mean", len(v), np.tile(constant.astype(float), (len(there), 1)))]
        rows.append(("the source as it is", len(self.train), d.decision_function(there)))
        weights = d.optimise((v, u))
        rows.append((f"the source reweighted for it (step {d.step_:g})", len(self.train), d.reweighted(weights).decision_function(there)))
        good = np.flatnonzero(np.asarray(d.gradient((v, u))) < 0)
        if len(good):
            rows.append(("the source without what hurts it", len(good), d.remove(np.setdiff1d(np.arange(len(self.train)), good)).decision_function(there)))
        classes = None if self.train.classes is None else list(range(len(self.train.classes)))
        core = DatasetDerivative(ridge="loo").fit(v, u, classes=classes)
        rows.append(("its own labelled half alone", len(v), core.decision_function(there)))
        rounds = None
        if len(self.train) <= MOST_EXTENDED:
            found = core.extend(self.features, _labels(self.train), batch=0.05)
            x, y = np.r_[v, self.features[found.order]], np.r_[u, _labels(self.train)[found.order]]
            rows.append(("its half, extended from the source", len(x), DatasetDerivative(ridge=core.ridge_).fit(x, y, classes=classes).decision_function(there)))
            rounds = found.rounds
        return pd.DataFrame([{"trained on": what, "examples": n, self.metric: self._score(made, data)} for what, n, made in rows]), rounds

    def groups(self, name: str) -> pd.DataFrame | None:
        """Return training group × judged group: which share of the judged group's error scaling the training group adds (positive) or spares.

        Beside it the same of the gap between groups, and how it moves the difference of the groups' mean outputs.
        """
        mine, theirs = optional_column(self.train, "group"), optional_column(self.chosen[name], "group")
        if mine is None or theirs is None or len(set(theirs.tolist())) < 2:
            return None
        import torch

        v, u = self.judges[name]
        masks = {str(k): torch.as_tensor(theirs.astype(str) == str(k)) for k in sorted(set(theirs.tolist()), key=str)}

        def error_of(mask: Any) -> Any:
            return lambda p, y: (p - y).square().sum(1)[mask].mean()

        errors = {k: self.derivative.judged((v, u), error_of(mask)) for k, mask in masks.items()}
        worst, best = max(errors, key=errors.__getitem__), min(errors, key=errors.__getitem__)
        g = {k: np.asarray(self.derivative.gradient((v, u), error_of(mask))) for k, mask in masks.items()}
        gap = errors[worst] - errors[best]
        parity = {}
        if len(masks) == 2 and self.train.classes is not None and len(self.train.classes) == 2:
            first, second = masks.values()
            parity["difference of mean outputs (parity)"] = np.asarray(self.derivative.gradient((v, u), lambda p, y: p[second, 1].mean() - p[first, 1].mean()))
        rows = []
        for group in sorted(set(mine.astype(str).tolist())):
            at = mine.astype(str) == group
            told = {f"error of {k}": float(g[k][at].sum()) / errors[k] for k in masks}
            told[f"gap {worst} - {best}"] = float((g[worst] - g[best])[at].sum()) / gap if gap else np.nan
            rows.append({"trained on": group, "examples": int(at.sum()), **told, **{name: float(v[at].sum()) for name, v in parity.items()}})
        return pd.DataFrame(rows)


def _labels(data: Examples) -> Array:
    labels = np.asarray(data.labels)
    return labels if data.classes is not None else labels.astype(float)


def _case(result: Result, trial: str, domain: str | None, ridge: float | Literal["loo"]) -> _Case:
    fitted, task, planned = result.fitted(trial), result.task(trial), result.trial(trial)
    said = []
    train = as_examples(task.source.train)
    if train is None or train.labels is None:
        raise UserError("these data are no examples with labels: there is nothing to derive by")
    source = task.source
    if len(train) > MOST_TRAINED:
        rows = np.sort(np.random.default_rng(0).permutation(len(train))[:MOST_TRAINED])
        train, source = train.take(rows), replace(source, train=source.train.take(rows))
        said.append(f"A sample of {MOST_TRAINED:,} training examples is looked at.")
    run = Run(seed=planned.seed, progress=False)
    seen = _features(fitted, task.source, run)
    parts, what = _parts(train)
    x = seen(source.train)
    derivative = DatasetDerivative(ridge=ridge).fit(x, _labels(train), optional_column(train, "weight"), parts, None if train.classes is None else list(range(len(train.classes))))
    judges, held, chosen, whole = {}, {}, {}, {}
    for name in _domains(result, planned.label, task, domain):
        data = task.domain(name).load()
        rng = np.random.default_rng(0)
        order = rng.permutation(len(data))[:MOST_JUDGED]
        half = len(order) // 2
        if half < 5:
            raise UserError(f"{name} has {len(data)} examples: too few to choose by one half and judge by the other")
        v, judged = seen(data), as_examples(data)
        assert judged is not None
        judges[name] = (v[order[:half]], _labels(judged)[order[:half]])
        held[name], chosen[name] = (v[order[half:]], judged.take(order[half:])), judged.take(order[:half])
        whole[name] = derivative.judged(judges[name])
    metric = "accuracy" if train.classes is not None else "RMSE"
    return _Case(planned.label, fitted, planned.learner, source, train, x, derivative, judges, held, chosen, whole, parts, what, metric, run, " ".join(said))


def _domains(result: Result, learner: str, task: Any, asked: str | None) -> list[str]:
    """Return the domains elsewhere where the learner is worst; home where a task has no other."""
    if asked is not None:
        return [task.domain(asked).name]
    scores = result.scores()
    mine = scores[(scores.learner == learner) & (scores.metric == result.headline)]
    there = away(mine) if len(away(mine)) else mine
    means = there.groupby("domain", observed=True, sort=False)["value"].mean()
    names = [str(n) for n in means.sort_values(ascending=result.higher_is_better(result.headline), kind="stable").index]
    return [n for n in names if n in {d.name for d in task.domains}][:MOST_DOMAINS]


def _features(fitted: Any, source: Source[Any], run: Run) -> Any:
    """Return what gives [n, d] of data: what the learner represents, else a table encoded by the source, else the inputs."""
    if offers(fitted, "represent"):
        try:
            fitted.represent(source.train.take(np.arange(2)), run)
            return lambda data: np.asarray(fitted.represent(data, run), float)
        except NotOffered:
            pass
    plain = as_examples(source.train)
    assert plain is not None
    if hasattr(plain.inputs, "iloc"):
        encoder = Encoder().fit(plain.inputs)
        return lambda data: encoder.transform(data.inputs)
    return lambda data: np.asarray(as_matrix(data.inputs))


def _parts(train: Examples) -> tuple[Array, str]:
    """Return the part of the source each example is of: its domain where there are several, else its group, else its label."""
    for name in ("domain", "group"):
        values = optional_column(train, name)
        if values is not None and len(set(values.tolist())) > 1:
            return _few(values.astype(str)), name
    if train.classes is not None:
        return np.asarray(train.classes, dtype=object)[np.asarray(train.labels)].astype(str), "label"
    cuts = np.quantile(np.asarray(train.labels, float).reshape(len(train), -1)[:, 0], [0.25, 0.5, 0.75])
    return np.array(["lowest quarter", "second quarter", "third quarter", "highest quarter"])[np.searchsorted(cuts, np.asarray(train.labels, float).reshape(len(train), -1)[:, 0])], "label"


def _few(values: Array) -> Array:
    names, counts = np.unique(values, return_counts=True)
    if len(names) <= MOST_PARTS:
        return values
    kept = set(names[np.argsort(-counts)][: MOST_PARTS - 1].tolist())
    return np.array([v if v in kept else "others" for v in values.tolist()])


def concentration(g: Array) -> pd.DataFrame:
    """Return which share of the total harm (positive derivative) the worst 1, 10 and 50 % of all examples hold.

    Examples:
        >>> concentration(np.r_[np.full(99, 0.01), 0.01 * 99])["share of the harm"].round(2).tolist()
        [0.5, 0.55, 0.75]
    """
    harm = np.sort(np.maximum(g, 0))[::-1]
    total = harm.sum() or 1.0
    counts = [max(1, round(share * len(g))) for share in (0.01, 0.1, 0.5)]
    return pd.DataFrame({"worst": ["1 %", "10 %", "50 %"], "examples": counts, "share of the harm": [float(harm[:k].sum() / total) for k in counts]})


def sentence(name: str, blamed: pd.DataFrame, held: pd.DataFrame, removal: pd.DataFrame, buys: pd.DataFrame, metric: str, what: str) -> str:
    """Return one or two sentences that a manager can read."""
    worst = blamed.iloc[int(blamed["blame"].to_numpy().argmax())]
    beyond = worst["blame low"] > 0
    half = (worst["blame high"] - worst["blame low"]) / 2
    if worst["blame"] < CULPRIT or not beyond:
        who = f"In {name} no {what} is to blame for as much as {CULPRIT:.0%} of the squared error (the most: {worst['part']}, {worst['blame']:.1%})"
    else:
        who = f"Of the squared error in {name}, scaling down {what} {worst['part']} helps most (-{worst['blame']:.1%} ± {half:.1%} of it for each unit of weight)"
    spread = held["share of the harm"].iloc[1]
    label = "; the harm is spread over many examples, so it is no matter of single labels" if spread < 0.5 else f"; the worst tenth of examples holds {spread:.0%} of the harm"
    column = "trained again" if "trained again" in removal else "ridge"
    better = 1 if metric == "accuracy" else -1
    gains = better * (removal[column] - removal[column].iloc[0])
    best = removal.iloc[int(gains.to_numpy().argmax())]
    told = f"{best[column]:.3f} instead of {removal[column].iloc[0]:.3f}"
    inside = column == "ridge" or best["at random low"] <= best[column] <= best["at random high"]
    if best["examples"] == 0 or gains.max() <= 0:
        gave = f"Removing the worst examples does not help there when {'re-run' if column == 'trained again' else 'refitted'}."
    else:
        gave = f"Removing the {int(best['examples'])} worst gives {metric} {told} when {'trained again' if column == 'trained again' else 'refitted'}"
        gave += ", which random removal gives as well." if inside and column == "trained again" else "."
        never = float(buys[metric].iloc[0])
        if better * (best[column] - never) <= 0.005:
            gave += f" But always answering {'the most frequent label' if metric == 'accuracy' else 'the mean'} there gives {never:.3f}."
    scores = buys.set_index("trained on")[metric]
    alone, source = scores["its own labelled half alone"], scores["the source as it is"]
    count = int(buys.examples[buys["trained on"] == "its own labelled half alone"].iloc[0])
    advice = f" Its own {count} labels alone reach {alone:.3f} (the source: {source:.3f}): label a few there first"
    extended = scores.get("its half, extended from the source")
    if extended is not None:
        advice += f", then extend from the source ({extended:.3f})" if better * (extended - alone) > 0 else f"; extending them from the source adds nothing ({extended:.3f})"
    advice += "."
    return f"{who}{label}. {gave}{advice if better * (alone - source) > 0 else ''}"
