"""What a causal learner found, and whether to believe it; and the three arms of "does identification pay elsewhere?"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pandas as pd

from elsewhere.causal import figures as f
from elsewhere.causal.data import Environments, Transitions
from elsewhere.causal.evidence import IDENTIFIED, intervention_errors, new_factor_r2
from elsewhere.causal.metrics import correlations, matched
from elsewhere.causal.predictions import Outcomes, moments
from elsewhere.causal.questions import Interventions
from elsewhere.data import Array
from elsewhere.errors import NotOffered, UserError, did_you_mean
from elsewhere.explainer import Explainer, Figure, Finding

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

LIMITS = (
    "The figures are those of one learner and its first seed, fitted again. A report of assumptions says what was checked on the data; what is untestable stays an assumption: "
    "that each environment acts on one latent of its own, that targets are cut from their causes, that nothing else differs between environments."
)
MEASURES = ("mcc", "relative_w2", "effect_error", "content_r2", "dci")


@dataclass
class CausalMap(Explainer):
    """Show what a causal learner found: codes against true variables, the graph, predictions under an intervention, the checks, traversals.

    Args:
        learner: whose model is shown; default: the first with a graph, else the first that is no baseline.
        question: the combination whose outcome is drawn ("env_1+env_2"); default: the one that changes most.
    """

    cost: ClassVar[Literal["free", "minutes", "long"]] = "minutes"
    learner: str | None = None
    question: str | None = None

    def applies(self, result: Result) -> str | None:
        scores = result.scores()
        if not len(scores):
            return "no trial has finished"
        names = set(scores.metric.astype(str).str.partition("/")[0])
        return None if names & set(MEASURES) else "no task of this result has causal variables"

    def explain(self, result: Result) -> Finding:
        trials = result.trials().query("status == 'done'").sort_values("seed", kind="stable")
        known = list(dict.fromkeys(trials.learner.astype(str)))
        if self.learner is not None and self.learner not in known:
            raise UserError(f"no learner {self.learner!r} in this result{did_you_mean(self.learner, known)}")
        wanted = [self.learner] if self.learner else sorted(known, key=lambda name: _rank(name, trials))
        mine = trials[trials.learner.astype(str) == wanted[0]].iloc[0]
        fitted, task = result.fitted(str(mine.trial)), result.task(str(mine.trial))
        figures: dict[str, Figure] = {}
        tables: dict[str, pd.DataFrame] = {}
        if hasattr(fitted, "report"):
            tables["Assumptions"] = fitted.report()
        said = self._codes(fitted, task, figures)
        said += self._graph(fitted, task, figures)
        said += self._outcome(result, fitted, task, trials, str(mine.seed), figures, tables)
        _strengths(result, figures)
        if hasattr(fitted, "third_"):
            names = fitted.model.environments[1:]
            figures["Third eigenvalue of each environment's change: linear mixing and single targets leave it near 0"] = f.eigenvalue_figure(fitted.third_, fitted.limit_, names)
        failed = [a["assumption"] for a in getattr(fitted, "assumptions_", []) if a["state"] == "failed"]
        said += f" Assumptions that failed: {'; '.join(failed)}." if failed else " No assumption that can be checked failed." if tables.get("Assumptions") is not None else ""
        several = trials[trials.learner.astype(str) == wanted[0]].task.nunique()
        where = f", {mine.task} (one of {several} tasks)" if several > 1 else ""
        return Finding(f"{wanted[0]}{where}, seed {mine.seed}: {said.strip()}", tables, figures, LIMITS)

    def _codes(self, fitted: Any, task: Any, figures: dict[str, Figure]) -> str:
        """Draw codes against true variables where a domain knows them, and traversals of pictures."""
        for domain in task.domains:
            data = domain.load()
            truth = getattr(data, "latents", getattr(data, "factors", None))
            if truth is None or isinstance(data, Interventions):
                continue
            try:
                codes = np.asarray(fitted.represent(data.unlabelled()))
            except (NotOffered, AttributeError, UserError):
                return ""
            z = np.asarray(truth)
            z = z[:, 1] if isinstance(data, Transitions) else z[:, 0] if z.ndim == 3 else z
            if len(codes) != len(z):
                return ""
            strength = correlations(z, codes)
            at = matched(z, codes)
            order = [k for k in at if k >= 0] + [k for k in range(codes.shape[1]) if k not in set(at)]
            named = [f"z{i + 1}" for i in range(z.shape[1])] if getattr(data, "latent_names", None) is None else list(data.latent_names)
            figures["True variables and learnt ones: |correlation|, matched ones first"] = f.mixing_map(strength[:, order], named, [f"ẑ{k + 1}" for k in order])
            self._traversals(fitted, data, codes, figures)
            best = strength[np.arange(len(at)), at][at >= 0].mean() if (at >= 0).any() else 0.0
            extra = "" if codes.shape[1] == z.shape[1] else f" ({codes.shape[1]} codes for {z.shape[1]} variables)"
            return f" its codes match the true variables with a mean correlation of {best:.2f}{extra}."
        return ""

    @staticmethod
    def _traversals(fitted: Any, data: Any, codes: Array, figures: dict[str, Figure]) -> None:
        x = data.inputs[0] if isinstance(data.inputs, tuple) else data.inputs
        if np.ndim(x) < 4:
            return
        try:
            figures["Pictures while one latent after another moves (rows)"] = f.traversals(fitted.decode, codes, min(codes.shape[1], 10))
        except (NotOffered, AttributeError):
            return

    @staticmethod
    def _graph(fitted: Any, task: Any, figures: dict[str, Figure]) -> str:
        model = fitted.__dict__.get("model_")
        if model is None:
            return f" {fitted.no_graph}." if getattr(fitted, "no_graph", "") else ""
        truth = next((g for d in task.domains if isinstance(held := d.load(), Environments) and (g := held.graph) is not None), None)
        targets = getattr(task.source.train, "targets", None)
        if truth is not None and targets is not None and len(targets) == len(truth) + 1 and all(len(t) == 1 for t in targets[1:]):
            at = np.array([t[0] for t in targets[1:]])
            truth = np.asarray(truth)[np.ix_(at, at)]
        else:
            truth = None
        figures["The graph of the latents" + ("; green: right, red: not in the truth, dotted: missed" if truth is not None else "")] = f.graph_figure(model.mechanisms.weights, model.latents, truth)
        return f" it found {int(model.graph.sum())} edges between {len(model.latents)} latents."

    def _outcome(self, result: Result, fitted: Any, task: Any, trials: pd.DataFrame, seed: str, figures: dict[str, Figure], tables: dict[str, pd.DataFrame]) -> str:
        """Draw what is predicted under one combination, beside the truth and the additive rule, and list the errors of all."""
        asked = [(d.name, data) for d in task.domains if isinstance(data := d.load(), Interventions) and data.outcomes is not None and data.of == "x"]
        if not asked:
            return ""
        away = [(n, q) for n, q in asked if max(map(len, q.do)) > 1] or asked
        questions = away[0][1]
        names = [str(v) for v in questions.column("id")]
        if self.question is not None and self.question not in names:
            raise UserError(f"no question {self.question!r}{did_you_mean(self.question, names)}")
        reference = moments(questions.reference)
        far = [float(np.square(moments(o).mean - reference.mean).sum()) for o in questions.outcomes or ()]
        k = names.index(self.question) if self.question is not None else int(np.argmax(far))
        one = questions.take([k])
        made = fitted.predict(one.unlabelled())
        if not isinstance(made, Outcomes) or made.each is None:
            return ""
        truth = moments((one.outcomes or (None,))[0])
        answers = {"nothing is done": reference, "what happens": truth, "this model": made.each[0]}
        others = trials[(trials.learner_name.astype(str) == "additive-interventions") & (trials.seed.astype(str) == seed)]
        if len(others):
            answers["effects added up"] = result.fitted(str(others.trial.iloc[0])).predict(one.unlabelled()).each[0]
        columns = list(one.features or task.source.train.features or [f"x{i + 1}" for i in range(len(reference.mean))])
        figures[f"{names[k]}: 95 % of the observations, predicted and true, in the two columns that move most"] = f.outcome_figure(answers, columns, f.most_changed(reference, truth))
        each = result.examples([str(t) for t in trials[trials.seed.astype(str) == seed].trial])
        if "relative_w2" in each and "id" in each:
            wide = each.merge(trials[["trial", "learner", "task"]].astype(str), on="trial")
            wide = wide[(wide.domain.astype(str) == away[0][0]) & (wide.task == wide.task.iloc[0])]
            tables["Relative error of each question (first seed and task)"] = wide.pivot_table(index="id", columns="learner", values="relative_w2", observed=True).reset_index()
        from elsewhere.causal.metrics import intervention_prediction_error

        error = intervention_prediction_error(made.each[0], truth, reference)
        return f" Under {names[k]} its relative error is {error:.3f} (1: nothing happens, 0: perfect)."


def _rank(name: str, trials: pd.DataFrame) -> int:
    kind = str(trials[trials.learner.astype(str) == name].learner_name.iloc[0])
    order = ("linear-interventional", "contrastive-interventional", "intervention-extrapolation", "binary-interactions", "multi-view", "contrastive-inversion", "weak-pairs")
    return order.index(kind) if kind in order else len(order)


def _strengths(result: Result, figures: dict[str, Figure]) -> None:
    """Draw errors against the strength of an intervention or an action, where the domains have several."""
    scores = result.scores()
    for key, metric, title in (("strength", "relative_w2", "relative W₂²"), ("reach", "effect_error", "error of the mean outcome")):
        if key not in scores:
            continue
        rows = scores[(scores.metric == metric) & scores[key].notna() & scores.value.notna()]
        if rows[key].nunique() > 1:
            told = rows.assign(learner=rows.learner.astype(str)).groupby(["learner", key], sort=False).value.mean().reset_index()
            figures["Error against the strength of what is done, mean over seeds and tasks"] = f.strength_figure(told, key, title)


@dataclass
class CausalArms(Explainer):
    """Say whether identification paid: on static factors, on interventions that nobody tried, and under sensor noise."""

    cost: ClassVar[Literal["free", "minutes", "long"]] = "free"

    def applies(self, result: Result) -> str | None:
        scores = result.scores()
        if not len(scores):
            return "no trial has finished"
        kinds = set(scores.task_name.astype(str))
        return None if kinds & {"balls/interventions", "bench/interventions"} else "no task of this result asks about interventions on pictures"

    def explain(self, result: Result) -> Finding:
        errors = intervention_errors(result)
        clean = errors[errors.noise == 0]
        asked = ["single interventions", "pairs", "doubled strength"]
        pairs = clean[clean.domain.isin(asked)].groupby(["learner", "domain"]).value.mean().reset_index()
        pairs = pairs.assign(at=pairs.domain.map(asked.index)).sort_values("at", kind="stable").drop(columns="at")
        bench = errors[(errors.task_name == "bench/interventions") & (errors.domain == "pairs")]
        noisy = bench.groupby(["learner", "noise"]).value.mean().reset_index()
        static = new_factor_r2(result)
        told: dict[str, pd.DataFrame] = {}
        by_split = pd.DataFrame(columns=["learner", "split", "value"])
        if len(static):
            by_split = static.groupby(["learner", "split"], sort=False).value.mean().reset_index()
            wide = static.groupby(["task_name", "learner", "split"], sort=False).value.mean().unstack("split")
            order = [s for s in ("random", "composition", "interpolation", "extrapolation") if s in wide]
            told["Arm 1: R² by world and split (inter- and extrapolation: of the factor that is new)"] = wide[order].reset_index()
        told["Arm 2: relative W2 under interventions, without noise"] = clean.groupby(["task_name", "learner", "domain"], sort=False).value.mean().unstack("domain").reset_index()
        if noisy.noise.nunique() > 1:
            told["Arm 3: relative W2 of pairs on the bench, by sensor noise"] = noisy.pivot(index="learner", columns="noise", values="value").rename(columns=lambda v: f"noise {v:g}").reset_index()
        picture = f.arms_figure(by_split, pairs, noisy)
        return Finding(_verdict(by_split, pairs), told, {"Three arms": picture}, LIMITS_OF_ARMS)


LIMITS_OF_ARMS = "Small worlds, small encoders, and as many pictures for each learner as fit an evening on two cores. Read-outs see the labels of the training part alone."


def _verdict(static: pd.DataFrame, pairs: pd.DataFrame) -> str:
    said = []
    if len(static):
        there = static[static.split == "extrapolation"].set_index("learner").value
        if len(there):
            said.append(f"On factors beyond their range the supervised network has R² {there.get('supervised', float('nan')):.2f}")
            identified = there[[name for name in there.index if str(name).startswith(IDENTIFIED)]]
            more = f"the best learner that was told which pictures belong together {identified.max():.2f} ({identified.idxmax()})" if len(identified) else "no identified learner was run"
            said[-1] += f", {more}."
    told = pairs[pairs.domain == "pairs"].set_index("learner").value.sort_values()
    if len(told):
        said.append("Under pairs of interventions nobody tried the relative errors are " + ", ".join(f"{name} {value:.2f}" for name, value in told.items()) + " (1: nothing happens).")
    return " ".join(said) or "Nothing has finished that can be compared."
