"""Why it fails there: explainers that every room may use."""

from __future__ import annotations

from elsewhere.explain.dataset_derivative import DatasetDerivative
from elsewhere.explain.shift_decomposition import ShiftDecomposition

__all__ = ["DatasetDerivative", "ShiftDecomposition"]
