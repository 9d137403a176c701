"""What is measured in the tasks of this room: latents, graphs, outcomes, read-outs, and whether a learner doubts its assumptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from elsewhere.causal import metrics as m
from elsewhere.causal.data import Environments, Pairs, Transitions
from elsewhere.causal.predictions import answers_of, values_of
from elsewhere.causal.questions import Gaussian, Interventions
from elsewhere.data import Array
from elsewhere.errors import Undefined, UserError
from elsewhere.prediction import ValuePrediction
from elsewhere.task import Metric


def relative_error(prediction: Any, data: Any) -> Array:
    """Return W₂² of prediction and truth over that of nothing and truth, for each question."""
    if not isinstance(data, Interventions) or data.outcomes is None:
        raise Undefined("this domain holds observations and asks no question")
    return np.array([m.intervention_prediction_error(p, t, data.reference) for p, t in zip(answers_of(prediction), data.outcomes, strict=True)])


def relative_energy(prediction: Any, data: Any) -> Array:
    """Return the energy distance of prediction and truth over that of nothing and truth, for each question whose truth is known by rows."""
    if not isinstance(data, Interventions) or data.outcomes is None:
        raise Undefined("this domain holds observations and asks no question")
    if any(isinstance(t, Gaussian) for t in data.outcomes):
        raise Undefined("the truth is known by its moments: see relative_w2")
    return np.array([m.intervention_prediction_error(p, t, data.reference, "energy") for p, t in zip(answers_of(prediction), data.outcomes, strict=True)])


def true_latents(data: Any) -> Array:
    """Return the true latents [N, n] of data that hold them; of a pair those of the first, of a step those after it."""
    found = getattr(data, "latents", None)
    if found is None:
        found = getattr(data, "factors", None)
    if found is None:
        raise Undefined("the true latents are not known here")
    z = np.asarray(found, float)
    return z[:, 0] if isinstance(data, Pairs) else z[:, 1] if isinstance(data, Transitions) else z


def mcc(prediction: Any, data: Any) -> Mapping[str, float]:
    """Return the mean correlation coefficient, and Spearman's."""
    z, code = true_latents(data), values_of(prediction)
    return {"": m.mean_correlation(z, code), "spearman": m.mean_correlation(z, code, rank=True)}


def dci(prediction: Any, data: Any) -> Mapping[str, float]:
    """Return disentanglement (also the metric itself), completeness and informativeness by gradient-boosted trees."""
    z, code = true_latents(data), values_of(prediction)
    importance, informativeness = m.importances(z, code)
    told = m.dci(importance)
    return {"": told["disentanglement"], **told, "informativeness": informativeness}


def read_r2(prediction: Any, data: Any) -> float:
    """Return R² of predicted values of the true variables, mean over variables, by their variance here."""
    if not isinstance(prediction, ValuePrediction):
        raise Undefined("it predicts no true variables: read them out")
    z = true_latents(data)
    found = np.asarray(prediction.mean, float)
    if found.shape != z.shape:
        raise UserError(f"predictions have shape {list(found.shape)}; the true variables {list(z.shape)}")
    return float((1 - np.square(found - z).mean(0) / z.var(0)).mean())


def graph_metrics(graph: Array, targets: Sequence[int]) -> list[Metric]:
    """Return SHD, F1 of edges and F1 of ancestors of a learner's graph, judged where observations are.

    Args:
        graph: true adjacency.
        targets: for environment 1, 2, … the latent it acts on: a learner's latent m is that one.
    """
    order = np.argsort(np.asarray(targets))

    def found(learner: Any) -> Array:
        if learner.__dict__.get("model_") is None:
            raise Undefined("it finds no graph")
        g = np.asarray(learner.graph)
        return g[np.ix_(order, order)] if len(g) == len(order) else g

    def at_home(score: Callable[[Array, Array], float]) -> Callable[[Any, Any], float]:
        def measure(learner: Any, data: Any) -> float:
            if not isinstance(data, Environments):
                raise Undefined("the graph is judged at home")
            return float(score(graph, found(learner)))

        return measure

    return [
        Metric("shd", at_home(m.structural_hamming_distance), False, "learner", (0, np.inf)),
        Metric("edge_f1", at_home(m.edge_f1), of="learner", range=(0, 1)),
        Metric("ancestor_f1", at_home(m.ancestor_f1), of="learner", range=(0, 1)),
    ]


RELATIVE = Metric("relative_w2", relative_error, False, range=(0, np.inf))
ENERGY = Metric("relative_energy", relative_energy, False, range=(0, np.inf))
MCC = Metric("mcc", mcc, range=(0, 1))
DCI = Metric("dci", dci, range=(0, 1))
READ_R2 = Metric("r2", read_r2, range=(-np.inf, 1))


def check_metrics() -> list[Metric]:
    """Return whether a learner doubted its own assumptions, and by how much: the median third eigenvalue over its limit."""

    def doubted(learner: Any, data: Any) -> float:
        if not hasattr(learner, "third_"):
            raise Undefined("it checks no eigenvalues")
        return float(np.median(learner.third_) > learner.limit_)

    def third(learner: Any, data: Any) -> float:
        if not hasattr(learner, "third_"):
            raise Undefined("it checks no eigenvalues")
        return float(np.median(learner.third_) / learner.limit_)

    return [Metric("doubted", doubted, higher_is_better=False, of="learner"), Metric("third_eigenvalue", third, higher_is_better=False, of="learner")]
