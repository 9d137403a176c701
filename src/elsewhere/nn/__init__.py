"""Networks that more than one room uses: plain ``torch.nn`` modules, made by name with JSON arguments."""

from __future__ import annotations

from elsewhere.nn.building import Classifier, Outputs, Regressor, Values, build, classifier, regressor
from elsewhere.nn.layers import layer_output

__all__ = ["Classifier", "Outputs", "Regressor", "Values", "build", "classifier", "layer_output", "regressor"]
