"""Causal variables behind observations, their graph, and what happens when something is done."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_NAMES = {
    "Environments": "data", "Interventions": "questions", "Actions": "data", "Pairs": "data", "Views": "data", "Transitions": "data", "Gaussian": "questions",
    "CausalModel": "model", "LinearCodec": "model", "Mechanisms": "model", "Moments": "moments",
    "LinearInterventional": "linear_interventional", "ContrastiveInterventional": "contrastive_interventional", "InterventionExtrapolation": "intervention_extrapolation",
    "WeakPairs": "weak_pairs", "Autoencoder": "weak_pairs", "MultiView": "multi_view", "ContrastiveInversion": "multi_view", "BinaryInteractions": "binary_interactions",
    "IdentifiableVae": "identifiable_vae", "PrincipalComponents": "baselines", "IndependentComponents": "baselines", "AdditiveInterventions": "baselines",
    "NearestIntervention": "baselines", "NoChange": "baselines", "ConditionalGaussian": "baselines", "FromFactors": "from_factors", "ReadOut": "read_out",
    "mean_correlation": "metrics", "dci": "metrics", "block_r2": "metrics", "structural_hamming_distance": "metrics", "edge_f1": "metrics", "ancestor_f1": "metrics",
    "intervention_prediction_error": "metrics", "energy_distance": "metrics", "wasserstein": "metrics", "light_tunnel": "loading",
}  # fmt: skip
__all__ = list(_NAMES)

if TYPE_CHECKING:
    from elsewhere.causal.baselines import AdditiveInterventions as AdditiveInterventions
    from elsewhere.causal.contrastive_interventional import ContrastiveInterventional as ContrastiveInterventional
    from elsewhere.causal.data import Environments as Environments
    from elsewhere.causal.linear_interventional import LinearInterventional as LinearInterventional
    from elsewhere.causal.metrics import intervention_prediction_error as intervention_prediction_error
    from elsewhere.causal.model import CausalModel as CausalModel
    from elsewhere.causal.questions import Interventions as Interventions


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'elsewhere.causal' has no attribute {name!r}")
    value = getattr(import_module(f"elsewhere.causal.{_NAMES[name]}"), name)
    globals()[name] = value
    return value
