"""Why it fails there: explainers that every room may use. Names are imported when they are asked for: one explainer does not pay for the libraries of another."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elsewhere.explain.dataset_derivative import DatasetDerivative as DatasetDerivative
    from elsewhere.explain.shift_decomposition import ShiftDecomposition as ShiftDecomposition

_NAMES = {"DatasetDerivative": "elsewhere.explain.dataset_derivative", "ShiftDecomposition": "elsewhere.explain.shift_decomposition"}
__all__ = ["DatasetDerivative", "ShiftDecomposition"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_NAMES[name]), name)
    globals()[name] = value
    return value
