"""The dataset derivative as an explainer: which training examples and domains a failure elsewhere is due to, and what removing them gives when the learner is trained again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from elsewhere.assay.analysis import away
from elsewhere.errors import UserError, did_you_mean
from elsewhere.explain import blame_figures as figures
from elsewhere.explain.blame_case import Case, case_of
from elsewhere.explain.concentration import Concentration, corrected
from elsewhere.explain.failing import Place, places
from elsewhere.explainer import Explainer, Figure, Finding
from elsewhere.pictures import contact_sheet, is_picture

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

MOST_DOMAINS = 4
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
        judge: explain this domain only, by the task that judges it; default: those worse than home
            beyond doubt, at most four, or else the worst.
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
        learner = self._learner(result)
        chosen, choice = places(result, learner, self.judge, MOST_DOMAINS)
        cases = self._cases(result, chosen)
        blamed: dict[str, pd.DataFrame] = {}
        tables: dict[str, pd.DataFrame] = {}
        drawn: dict[str, Figure] = {}
        for case in cases:
            table = blamed[case.key] = case.blame()
            about = "" if len(cases) == 1 else f": {case.key}"
            title = f"Which part of the source each domain's error is due to{about}"
            drawn[title] = figures.blame_map(table, case.what)
        for title, some in _by_what(cases, blamed).items():
            tables[title] = pd.concat(some, ignore_index=True)
        held = corrected({name: c for case in cases for name, c in case.concentrations().items()})
        told = []
        for case in cases:
            for name in case.judges:
                table = blamed[case.key].query("judge == @name")
                told.append(self._domain(case, name, table, held[name], tables, drawn))
            about = "" if len(cases) == 1 else f": {case.key}"
            drawn |= self._weights(case, about)
            if (notes := case.labels_in_doubt()) is not None:
                tables[f"Labels in doubt, judged by leaving each example out{about}"] = notes
        said = [LIMITS, choice, *_trials_said(result, learner, chosen)]
        limits = " ".join(s for s in [*said, *(case.said for case in cases)] if s)
        return Finding(f"{learner}: " + " ".join(told), tables, drawn, limits)

    def _cases(self, result: Result, chosen: list[Place]) -> list[Case]:
        """Return one case per trial, in the order of the worst domain of each."""
        by_trial: dict[str, dict[str, str]] = {}
        for place in chosen:
            by_trial.setdefault(place.trial, {})[place.label] = place.domain
        return [case_of(result, trial, names, self.ridge) for trial, names in by_trial.items()]

    def _learner(self, result: Result) -> str:
        done = result.trials().query("status == 'done'").sort_values("seed")
        names = list(dict.fromkeys(done.learner))
        kinds = dict(zip(done.learner, done.learner_name, strict=True))
        if self.learner is not None:
            if self.learner not in names:
                raise UserError(f"no learner {self.learner!r}{did_you_mean(self.learner, names)}")
            return self.learner
        ranked = [str(n) for n in result.ranking().learner] if len(away(result.scores())) else names
        return next((n for n in ranked if kinds.get(n) != "prior"), ranked[0])

    def _domain(
        self,
        case: Case,
        name: str,
        blamed: pd.DataFrame,
        held: Concentration,
        tables: dict[str, Any],
        drawn: dict[str, Figure],
    ) -> str:
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
        tables[f"{name}: how concentrated the harm is"] = held.held
        if len(held.parts):
            tables[f"{name}: domains and groups among the worst examples"] = held.parts
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

    def _weights(self, case: Case, about: str) -> dict[str, Figure]:
        weights = {name: case.derivative.optimise(judge, steps=1, step=0.1) for name, judge in case.judges.items()}
        title = f"Weights after one step for each domain, by {case.what}{about}"
        return {title: figures.weights_by_part(weights, case.part)}


def _by_what(cases: list[Case], blamed: dict[str, pd.DataFrame]) -> dict[str, list[pd.DataFrame]]:
    found: dict[str, list[pd.DataFrame]] = {}
    for case in cases:
        title = f"Blame: {case.what} × domain, as shares of the domain's squared error"
        found.setdefault(title, []).append(blamed[case.key])
    return found


def _trials_said(result: Result, learner: str, chosen: list[Place]) -> list[str]:
    """Say which task explains each domain, and that one seed is looked at, where there are more."""
    done = result.trials().query("status == 'done'")
    mine = done[done.learner == learner]
    said = []
    if mine.task.nunique() > 1:
        told = ", ".join(f"{place.domain} by {place.task}" for place in chosen)
        said.append(f"Each domain is explained by a task that judges it: {told}.")
    if mine.seed.nunique() > 1:
        said.append(f"One of {mine.seed.nunique()} seeds is looked at, the first.")
    return said


def spread(held: Concentration, most: int = 3) -> str:
    """Return the clause on how the harm is spread: named only beyond what chance leaves.

    Examples:
        >>> shares = {"share of the harm": [0.1, 0.65, 1.0], "chance low": [0.1, 0.6, 1.0]}
        >>> shares |= {"chance high": [0.1, 0.68, 1.0], "by chance": [0.1, 0.64, 1.0]}
        >>> table = pd.DataFrame({**shares, "p": [float("nan"), 0.4, float("nan")]})
        >>> names = ["column", "part", "share of the worst", "expected", "p"]
        >>> spread(Concentration(table, pd.DataFrame(columns=names)))
        '; the harm is no more concentrated than chance leaves it (the worst tenth holds 65 %, \
refits on permuted residuals 60 to 68 %)'
    """
    row = held.held.iloc[1]
    tenth = f"the worst tenth of examples holds {_percent(row['share of the harm'])} of the harm"
    told = []
    if held.concentrated:
        told.append(f"{tenth}, where chance leaves {_percent(row['by chance'])}")
    for _, part in held.over_represented().head(most).iterrows():
        share, all_ = _percent(part["share of the worst"]), _percent(part["share of all"])
        worst = f"the worst {part['worst']:.0%} of examples".replace("%", " %")
        told.append(f"{part['column']} {part['part']} is {share} of {worst} and {all_} of all")
    if told:
        return "; " + "; ".join(told)
    band = f"{row['chance low']:.0%} to {row['chance high']:.0%}".replace("%", "", 1)
    share = _percent(row["share of the harm"])
    chance = f"refits on permuted residuals {band.replace('%', ' %')}"
    told_ = f"the worst tenth holds {share}, {chance}"
    return f"; the harm is no more concentrated than chance leaves it ({told_})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def sentence(
    name: str,
    blamed: pd.DataFrame,
    held: Concentration,
    removal: pd.DataFrame,
    buys: pd.DataFrame,
    metric: str,
    what: str,
) -> str:
    """Return one or two sentences that a manager can read."""
    worst = blamed.iloc[int(blamed["blame"].to_numpy().argmax())]
    beyond = worst["blame low"] > 0
    half = (worst["blame high"] - worst["blame low"]) / 2
    if worst["blame"] < CULPRIT or not beyond:
        who = f"In {name} no {what} is to blame for as much as {CULPRIT:.0%} of the squared error (the most: {worst['part']}, {worst['blame']:.1%})"
    else:
        who = f"Of the squared error in {name}, scaling down {what} {worst['part']} helps most (-{worst['blame']:.1%} ± {half:.1%} of it for each unit of weight)"
    label = spread(held)
    column = "trained again" if "trained again" in removal else "ridge"
    better = 1 if metric == "accuracy" else -1
    gains = better * (removal[column] - removal[column].iloc[0])
    best = removal.iloc[int(gains.to_numpy().argmax())]
    told = f"{best[column]:.3f} instead of {removal[column].iloc[0]:.3f}"
    inside = column == "ridge" or better * best[column] <= (better * removal[["at random low", "at random high"]]).max().max()  # of any size: trainings differ by chance alone
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
