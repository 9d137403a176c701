"""Two heads as an explainer: who pays, whether a network treats people by their group inside, and what an explicit two-headed one would give."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from elsewhere.assay.people import FEWEST, by_group, who_pays
from elsewhere.data import Examples, optional_column
from elsewhere.errors import UserError, did_you_mean
from elsewhere.explainer import Explainer, Figure, Finding
from elsewhere.fairness import figures
from elsewhere.fairness.audit import Audit, audit
from elsewhere.fairness.awareness import group_awareness
from elsewhere.fairness.baselines import logits_of
from elsewhere.fairness.rates import binary_labels, ddp, groups_of, p_ratio, sampling_error
from elsewhere.fairness.regularised import ParityRegularised
from elsewhere.fairness.scores import scores_of, with_own_probe
from elsewhere.fairness.treatment import LIMITS, flips, in_words, named, same_as_two_heads, tested
from elsewhere.fairness.two_heads import TwoHeads
from elsewhere.learner import as_examples, offers
from elsewhere.run import Run
from elsewhere.task import Task

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

MOST_LEARNERS, MOST_DOMAINS, MOST_PROBED = 6, 4, 10_000
FAIR = ("two-heads", "merged", "group-thresholds", "massaged", "reweighed", "fairlearn", "parity-regularised")
SAYS = "Cells of fewer than {0} people say too little. By chance alone the acceptance rates here differ by ± {1:.3f} (95 %)."


@dataclass
class TwoHeadsMap(Explainer):
    """Say whose accuracy the move elsewhere costs, how much each learner decides by group, and what an explicit two-headed network would give (fits networks again).

    Args:
        group: column of people compared; two groups.
        layers: "last" or "all" layers are probed for the group.
        slacks: points of the frontier.
        learner: audit this one only.
    """

    group: str = "group"
    layers: Literal["last", "all"] = "last"
    slacks: int = 21
    learner: str | None = None
    cost: ClassVar[Literal["free", "minutes", "long"]] = "minutes"

    def applies(self, result: Result) -> str | None:
        done = result.trials().query("status == 'done'")
        if not len(done):
            return "no trial has finished"
        scores = result.scores()
        if "accuracy" not in set(scores.metric):
            return "the labels are no classes"
        if self.group == "group" and "worst_group_accuracy" not in set(scores.metric):
            return "the task has no group column: name one with --group, or two-heads:group=NAME"
        return None

    def explain(self, result: Result) -> Finding:
        done = result.trials().query("status == 'done'").sort_values("seed")
        first = done[(done.seed == done.seed.min()) & (done.task == done.task.iloc[0])]
        task = result.task(str(first.trial.iloc[0]))
        home = _home(task, self.group)
        names = tuple(sorted(set(groups_of(home, self.group).tolist())))
        if len(names) != 2:
            raise UserError(f"two-heads compares two groups, and {self.group!r} has {len(names)}: {', '.join(names[:6])}")
        binary_labels(home, "two-heads")
        models, reference, unconstrained, said = self._models(result, first, task)
        tables, drawn = self._people(result, home), dict[str, Figure]()
        told = [who_pays(result, "accuracy", n)[1] for n in list(models)[:1] if tables]
        validation, judged = _halves(task, home)
        curve = self._frontiers(task, models, reference, validation, judged, tables, drawn)
        told += self._audit(models, reference, unconstrained, (validation, judged), tables, drawn)
        self._awareness(models, validation, judged, tables, drawn)
        others = [n for n, m in models.items() if not isinstance(m, TwoHeads)]
        told.append(_compare(tables["Every learner, at home and elsewhere"], curve, others))
        error = sampling_error(np.concatenate([[1.0, 0.0]] * (len(judged) // 2 + 1))[: len(judged)], reference.codes(judged))
        said += _which_task(done, first)
        limits = " ".join([LIMITS, SAYS.format(FEWEST, 1.96 * error), *said, *self._direct(judged)])
        return Finding(" ".join(t for t in told if t), tables, drawn, limits)

    def _direct(self, data: Examples) -> list[str]:
        """Say which feature is the group itself: by its values where the role is asked for, not by its name."""
        if not hasattr(data.inputs, "iloc"):
            return []
        groups = groups_of(data, self.group)
        same = [str(c) for c in data.inputs if (data.inputs[c].astype(str).to_numpy() == groups).all()]
        return [f"{same[0]} is itself a feature here: treatment is direct."] if same else []

    def _models(self, result: Result, first: pd.DataFrame, task: Task[Any]) -> tuple[dict[str, Any], TwoHeads, Any, list[str]]:
        """Return the audited learners by label, a two-headed reference and an unconstrained model, fitted where the result has none."""
        names = list(first.learner)
        if self.learner is not None and self.learner not in names:
            raise UserError(f"no learner {self.learner!r}{did_you_mean(self.learner, names)}")
        ranked = _fairest_first(result, first)
        kinds = dict(zip(first.learner, first.learner_name, strict=True))
        keys = dict(zip(first.learner, first.trial, strict=True))
        shown = [n for n in ranked if kinds[n] != "prior" and (self.learner is None or n == self.learner)][:MOST_LEARNERS]
        fitted = {n: result.fitted(str(keys[n])) for n in shown}
        said, reference, unconstrained = [], None, None
        for n in ranked:
            model = fitted.get(n) or (result.fitted(str(keys[n])) if kinds[n] in ("two-heads", "parity-regularised") else None)
            if isinstance(model, TwoHeads) and model.criterion == "parity" and len(model.groups_) == 2:
                reference = reference or model
            free = kinds[n] not in (*FAIR, "prior") or (isinstance(model, ParityRegularised) and not model.penalty)
            if free and model is not None:
                unconstrained = unconstrained or model
        run = Run(seed=int(first.seed.iloc[0]), progress=False)
        if reference is None:
            reference = TwoHeads(group=self.group).fit(task.source, run)
            said.append("The two-headed network was fitted for this page with its defaults; add two-heads to the study to tune it.")
        if unconstrained is None:
            unconstrained = ParityRegularised(group=self.group, penalty=0.0).fit(task.source, run)
            said.append("The unconstrained network was fitted for this page.")
        return fitted, reference, unconstrained, said

    def _people(self, result: Result, home: Examples) -> dict[str, pd.DataFrame]:
        """Return group × domain tables of the kept values; none where another column than the task's group is asked for."""
        kept = optional_column(home, "group")
        if kept is None or (groups_of(home, self.group) != kept.astype(str)).any():
            return {}
        tables = {}
        for metric, words in (("accuracy", "Accuracy"), ("acceptance", "Acceptance"), ("calibration", "Calibration (accuracy minus confidence)")):
            cells = by_group(result, metric)
            if len(cells):
                tables[f"{words} of each group in each domain"] = cells.drop(columns=["role", "seeds"]).assign(enough=cells["n"] >= FEWEST)
        return tables

    def _frontiers(self, task: Task[Any], models: dict[str, Any], reference: TwoHeads, validation: Examples, judged: Examples, tables: dict[str, Any], drawn: dict[str, Figure]) -> pd.DataFrame:
        """Measure every learner at home and elsewhere and draw each place's frontier; return the frontier at home."""
        run, rows = Run(progress=False), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            chosen = reference.frontier(validation, self.slacks, run=run)
        first = pd.concat([chosen, reference.along(chosen, judged, run)], axis=1)
        tables["The frontier: most accurate merge at each slack, chosen on the validation part"] = first
        places = {"home": judged, **{d.name: _asked(d.load(), self.group) for d in [d for d in task.domains if d.role != "home"][:MOST_DOMAINS]}}
        for place, data in places.items():
            codes, labels = reference.codes(data), binary_labels(data, "two-heads")
            points = []
            for name, model in models.items():
                accepted = (logits_of(model.predict(data, run)) > 0).astype(float)
                right = float((accepted == labels).mean())
                points.append(
                    {
                        "learner": name,
                        "ddp": ddp(accepted, codes),
                        "ddp_error": sampling_error(accepted, codes),
                        "accuracy": right,
                        "accuracy_error": (right * (1 - right) / len(labels)) ** 0.5,
                        "p_ratio": p_ratio(accepted, codes),
                    }
                )
            table = first if place == "home" else pd.concat([chosen, reference.along(chosen, data, run)], axis=1)
            known = table.dropna(subset=["c"]) if "c" in table else table.iloc[:0]
            curve = known.rename(columns={"ddp": "chosen ddp", "accuracy": "chosen accuracy"}).rename(columns={"test ddp": "ddp", "test accuracy": "accuracy"})
            marks = [{"what": "labels", "ddp": ddp(labels, codes), "accuracy": np.nan}, {"what": "constant", "ddp": 0.0, "accuracy": max(labels.mean(), 1 - labels.mean())}]
            frame = pd.DataFrame(points)
            drawn[f"{place}: accuracy against the difference of acceptance rates"] = figures.frontiers(frame, curve, pd.DataFrame(marks))
            rows.append(frame.assign(place=place))
        joined = pd.concat(rows, ignore_index=True)
        tables["Every learner, at home and elsewhere"] = joined[["place", "learner", "accuracy", "accuracy_error", "ddp", "ddp_error", "p_ratio"]]
        return first

    def _audit(
        self,
        models: dict[str, Any],
        reference: TwoHeads,
        unconstrained: Any,
        parts: tuple[Examples, Examples],
        tables: dict[str, pd.DataFrame],
        drawn: dict[str, Figure],
    ) -> list[str]:
        """Audit each learner that is not the reference; return sentences, at most two."""
        run, names = Run(progress=False), (reference.groups_[0], reference.groups_[1])
        rows: dict[str, list[pd.DataFrame]] = {"measures": [], "same": [], "tests": []}
        found: dict[str, tuple[Audit, str]] = {}
        for name, model in models.items():
            if model is reference:
                continue
            fit, test = (scores_of(model, reference, d, run, unconstrained) for d in parts)
            fit, test = with_own_probe(model, fit, test, parts, run)
            made = audit(fit, test, names, flips(model, parts[1], test, run))
            same = same_as_two_heads(fit, test)
            rows["measures"].append(named(made.table, names).assign(learner=name))
            rows["same"].append(same.assign(learner=name))
            rows["tests"].append(pd.DataFrame([tested(made, test)]).assign(learner=name))
            drawn[f"{name}: decisions by label score and group score"] = _map(made, names, name)
            found[name] = made, in_words(name, made, same)
        titles = {"measures": "Decisions that depend on the group", "same": "Is it two heads?"}
        titles["tests"] = "Does the decision depend on the predicted group?"
        for key, title in titles.items() if found else ():
            frame = pd.concat(rows[key], ignore_index=True)
            tables[title] = frame[["learner", *(c for c in frame if c != "learner")]]
        return _verdicts(found)

    def _awareness(self, models: dict[str, Any], validation: Examples, judged: Examples, tables: dict[str, Any], drawn: dict[str, Figure]) -> None:
        fit, test = (d.take(np.sort(np.random.default_rng(0).permutation(len(d))[:MOST_PROBED])) for d in (validation, judged))
        rows: list[pd.DataFrame] = []
        told = groups_of(test, self.group)
        majority = float(np.unique(told, return_counts=True)[1].max() / len(told))
        for name, model in models.items():
            if offers(model, "represent") and hasattr(model, "network_"):
                rows.append(group_awareness(model, fit, self.group, self.layers, test, references=not rows).assign(learner=name))
        if rows:
            table = pd.concat(rows, ignore_index=True).assign(majority=majority)
            tables["How well the group is read off each learner"] = table[["learner", "layer", "accuracy", "low", "high", "balanced", "auc"]]
            drawn["How well the group is read off each learner"] = figures.awareness_bars(table)
            last = table[table["layer"] == "what the head sees"].set_index("learner")
            home = tables["Every learner, at home and elsewhere"].query("place == 'home'").set_index("learner")
            drawn["How well the group is read off, against the difference of acceptance rates"] = figures.awareness_against_difference(last.join(home[["ddp", "ddp_error"]]).reset_index(), majority)


def _fairest_first(result: Result, first: pd.DataFrame) -> list[str]:
    """Return the learners: one that does not look at groups, then those whose acceptance rates at home lie closest, for nobody reads about twenty."""
    scores = result.scores()
    apart = scores[(scores.metric == "ddp") & (scores.role == "home")].groupby("learner", observed=True)["value"].mean().abs()
    names = sorted((str(n) for n in first.learner), key=lambda n: float(apart.get(n, np.inf)))
    kinds = dict(zip(first.learner, first.learner_name, strict=True))
    options = {str(row.learner): result.trial(str(row.trial)).learner for row in first.itertuples()}
    free = [n for n in names if kinds[n] not in (*FAIR, "prior") or not getattr(options[n], "penalty", 1.0)]
    return [*free[-1:], *(n for n in names if n not in free[-1:])]


def _which_task(done: pd.DataFrame, first: pd.DataFrame) -> list[str]:
    """Say which of several tasks is audited."""
    tasks = done.task.nunique()
    name, seed = first.task.iloc[0], first.seed.iloc[0]
    return [f"Of {tasks} tasks, {name} is audited, on seed {seed}."] if tasks > 1 else []


def _home(task: Task[Any], group: str) -> Examples:
    domain = next((d for d in task.domains if d.role == "home"), task.domains[0])
    return _asked(domain.load(), group)


def _asked(data: Any, group: str) -> Examples:
    found = as_examples(data)
    if found is None:
        raise UserError("two-heads needs examples with inputs, labels and a group")
    groups_of(found, group)
    return found


def _halves(task: Task[Any], home: Examples) -> tuple[Examples, Examples]:
    """Return what merges are chosen on and what they are judged on: the source's validation part and home, else two halves of home."""
    if task.source.validation is not None:
        found = as_examples(task.source.validation)
        assert found is not None
        return found, home
    order = np.random.default_rng(0).permutation(len(home))
    return home.take(order[: len(order) // 2]), home.take(order[len(order) // 2 :])


def _map(found: Audit, names: tuple[str, str], learner: str) -> Figure:
    """Draw the decisions, with thresholds and band only where the verdict rests on them."""
    shown = found.thresholds if found.verdict == "decides by group" else None
    x = found.scores
    return figures.decision_map(x.f, x.g, x.r > 0, shown, names, learner)


def _verdicts(found: dict[str, tuple[Audit, str]]) -> list[str]:
    """Return two sentences, learners that decide by group first; one if one reason is all's."""
    made = [a for a, _ in found.values()]
    if len(made) > 1 and {a.verdict for a in made} == {"cannot tell"}:
        reasons = {a.why for a in made}
        if len(reasons) == 1:
            return [f"Whether any learner decides by group: cannot tell, {reasons.pop()}."]
    decides = [a.verdict == "decides by group" for a in made]
    beyond = [float(a.table["beyond"].iloc[0]) for a in made]
    order = np.lexsort((-np.array(beyond), ~np.array(decides, bool)))
    told = [f"{words[0].upper()}{words[1:]}" for _, words in found.values()]
    return [told[k] for k in order[:2]]


def _compare(points: pd.DataFrame, curve: pd.DataFrame, others: list[str]) -> str:
    """Return what the two-headed network gives at the smallest disparity that another learner reached at home."""
    home = points[(points["place"] == "home") & points["learner"].isin(others)]
    known = curve.dropna(subset=["c"]) if "c" in curve else curve.iloc[:0]
    if not len(home) or not len(known):
        return ""
    fairest = home.iloc[int(home["ddp"].abs().to_numpy().argmin())]
    near = known.iloc[int((known["test ddp"].abs() - abs(fairest["ddp"])).abs().to_numpy().argmin())]
    return f"At a difference of {near['test ddp']:+.3f} two explicit heads have accuracy {near['test accuracy']:.3f}; {fairest['learner']}, at {fairest['ddp']:+.3f}, {fairest['accuracy']:.3f}."
