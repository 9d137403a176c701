"""One fitted learner, its source and the domains that judge: what the dataset derivative's explainer asks of them."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from elsewhere.data import Array, Examples, optional_column
from elsewhere.errors import UserError
from elsewhere.explain.concentration import Concentration, concentrations
from elsewhere.explain.dataset_derivative import DatasetDerivative, LeaveOneOut
from elsewhere.explain.overlap import shared_examples
from elsewhere.explain.represented import representing
from elsewhere.learner import as_examples
from elsewhere.run import Run
from elsewhere.task import Source

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

MOST_TRAINED, MOST_JUDGED, MOST_PARTS, MOST_EXTENDED = 50_000, 4_000, 12, 3_000


@dataclass
class Case:
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
    trained: dict[bytes, Any] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> str:
        """The domains that judge, as one name."""
        return ", ".join(self.judges)

    @cached_property
    def left_out(self) -> LeaveOneOut:
        """What the others say of each example, whatever the domain that judges."""
        return self.derivative.leave_one_out()

    def blame(self) -> pd.DataFrame:
        """Return part × domain: what scaling the part down or leaving it out would do, exactly, as shares of the domain's squared error."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            table = self.derivative.blame(self.judges, domain=self.part)
        whole = table["judge"].map(self.whole)
        for column in ("blame", "blame low", "blame high"):
            table[column] = table[column] / whole
        return table.drop(columns=["share", "removal"]).rename(columns={"domain": "part", "removal share": "left out"})

    def concentrations(self) -> dict[str, Concentration]:
        """Return how concentrated the harm to each domain is, and whose examples it is."""
        named = {name: optional_column(self.train, name) for name in ("domain", "group")}
        columns = {name: values for name, values in named.items() if values is not None}
        unit = optional_column(self.train, "unit")
        return concentrations(self.derivative, self.features, self.judges, columns, unit)

    def label(self, row: int) -> str:
        codes = np.asarray(self.train.labels)
        return str(self.train.classes[int(codes[row])]) if self.train.classes is not None else f"{codes[row]:.3g}"

    def doubtful(self) -> Array:
        """Return which examples are labelled otherwise than the others predict for them [n]; for numbers, the twentieth with the largest residual."""
        loo = self.left_out
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
        loo = self.left_out.predictions[rows]
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
                told["trained again"] = self._trained(name, order[:count], shared=not count)
                draws = [rng.permutation(len(g))[:count] for _ in range(controls if count else 0)]
                random = [self._trained(name, drawn, shared=True) for drawn in draws]
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

    def _trained(self, name: str, rows: Array, shared: bool) -> float:
        data = self.held[name][1]
        prediction = self._without(rows, shared).predict(data.unlabelled(), self.run)
        return float((prediction.classes() == data.labels).mean()) if data.classes is not None else self._score(prediction.mean, data)

    def _without(self, rows: Array, shared: bool) -> Any:
        """Return the learner trained again without these examples. ``shared`` ones, the random removals, are the same for every domain that judges: trained once and kept."""
        key = np.sort(rows).tobytes()
        if key in self.trained:
            return self.trained[key]
        kept = np.ones(len(self.train), bool)
        kept[rows] = False
        fitted = copy.deepcopy(self.unfitted).fit(replace(self.source, train=self.source.train.take(kept)), self.run)
        if shared:
            self.trained[key] = fitted
        return fitted

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


def case_of(
    result: Result,
    trial: str,
    domains: Mapping[str, str],
    ridge: float | Literal["loo"],
) -> Case:
    """Return the case of one trial and the domains of its task that judge.

    Args:
        domains: names in the task by the label that tables show.

    Raises:
        UserError: the data have no labels, or a domain is too small to halve.
    """
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
    seen = representing(fitted, task.source, run)
    parts, what = _parts(train)
    x = seen(source.train)
    derivative = DatasetDerivative(ridge=ridge).fit(x, _labels(train), optional_column(train, "weight"), parts, None if train.classes is None else list(range(len(train.classes))))
    judges, held, chosen, whole = {}, {}, {}, {}
    for name, domain in domains.items():
        data = task.domain(domain).load()
        first, second = _halves(data)
        if min(len(first), len(second)) < 5:
            raise UserError(f"{name} has {len(data)} examples: too few to choose by one half and judge by the other")
        v, judged = seen(data), as_examples(data)
        assert judged is not None
        judges[name] = (v[first], _labels(judged)[first])
        held[name], chosen[name] = (v[second], judged.take(second)), judged.take(first)
        said += _overlap(derivative, train, chosen[name], judges[name], name)
        whole[name] = derivative.judged(judges[name])
    metric = "accuracy" if train.classes is not None else "RMSE"
    return Case(planned.label, fitted, planned.learner, source, train, x, derivative, judges, held, chosen, whole, parts, what, metric, run, " ".join(said))


def _overlap(
    derivative: DatasetDerivative,
    train: Examples,
    data: Examples,
    judge: tuple[Array, Array],
    name: str,
) -> list[str]:
    """Say which examples of a judge were trained on, where ids tell; else rows are compared."""
    shared = shared_examples(train, data)
    if shared is not None:
        derivative.compared(judge)
    return [f"{shared} of {len(data)} examples of {name} are trained on too."] if shared else []


def _halves(data: Any) -> tuple[Array, Array]:
    """Return two halves of at most MOST_JUDGED examples together; a unit (a patient, a writer) is in one of them alone."""
    rng = np.random.default_rng(0)
    order = rng.permutation(len(data))[:MOST_JUDGED]
    units = optional_column(data, "unit")
    if units is None:
        return order[: len(order) // 2], order[len(order) // 2 :]
    names = rng.permutation(np.unique(units[order]))
    first = np.isin(units[order], names[: len(names) // 2])
    return order[first], order[~first]


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
