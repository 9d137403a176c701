"""Who pays: how groups of people fare, how fair networks treat them, and what an explicit two-headed network would give."""

from __future__ import annotations

from elsewhere.fairness.awareness import group_awareness
from elsewhere.fairness.baselines import GroupThresholds, MassagedLabels, Reweighed
from elsewhere.fairness.classifier import FairClassifier
from elsewhere.fairness.regularised import ParityRegularised, disparity_regulariser
from elsewhere.fairness.through_fairlearn import FairlearnLearner
from elsewhere.fairness.treatment import treatment
from elsewhere.fairness.two_heads import Merged, TwoHeads

__all__ = ["FairClassifier", "FairlearnLearner", "GroupThresholds", "MassagedLabels", "Merged", "ParityRegularised", "Reweighed", "TwoHeads", "disparity_regulariser", "group_awareness", "treatment"]
