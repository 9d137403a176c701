"""Why it fails there: explainers that every room may use."""

from __future__ import annotations

from elsewhere.explain.shift_decomposition import ShiftDecomposition

__all__ = ["ShiftDecomposition"]
