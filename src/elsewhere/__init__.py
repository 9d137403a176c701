"""Learn representations that hold where you have no data.

Examples:
    >>> import elsewhere as ew
    >>> sorted(name for name in ew.__all__ if name.islower())[:4]
    ['assay', 'check_learner', 'fit', 'learners']
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "assay": "elsewhere.assay.api:assay",
    "fit": "elsewhere.model:fit",
    "Model": "elsewhere.model:Model",
    "Result": "elsewhere.assay.result:Result",
    "Study": "elsewhere.assay.study:Study",
    "Expectation": "elsewhere.assay.expectation:Expectation",
    "read_study": "elsewhere.assay.study:read_study",
    "Data": "elsewhere.data:Data",
    "Examples": "elsewhere.data:Examples",
    "Encoder": "elsewhere.encoding:Encoder",
    "ClassPrediction": "elsewhere.prediction:ClassPrediction",
    "ValuePrediction": "elsewhere.prediction:ValuePrediction",
    "Source": "elsewhere.task:Source",
    "Domain": "elsewhere.task:Domain",
    "Metric": "elsewhere.task:Metric",
    "Estimate": "elsewhere.task:Estimate",
    "Task": "elsewhere.task:Task",
    "task": "elsewhere.task:task",
    "Learner": "elsewhere.learner:Learner",
    "Probe": "elsewhere.learner:Probe",
    "offers": "elsewhere.learner:offers",
    "wrap": "elsewhere.wrapping:wrap",
    "named": "elsewhere.identity:named",
    "load": "elsewhere.saving:load",
    "Run": "elsewhere.run:Run",
    "Explainer": "elsewhere.explainer:Explainer",
    "Finding": "elsewhere.explainer:Finding",
    "Image": "elsewhere.explainer:Image",
    "check_learner": "elsewhere.checks:check_learner",
    "UserError": "elsewhere.errors:UserError",
    "Undefined": "elsewhere.errors:Undefined",
    "NotOffered": "elsewhere.errors:NotOffered",
    "ExpectationFailed": "elsewhere.errors:ExpectationFailed",
}
__all__ = ["learners", *_NAMES]

if TYPE_CHECKING:
    from elsewhere.assay.api import assay as assay
    from elsewhere.assay.expectation import Expectation as Expectation
    from elsewhere.assay.result import Result as Result
    from elsewhere.assay.study import Study as Study
    from elsewhere.assay.study import read_study as read_study
    from elsewhere.checks import check_learner as check_learner
    from elsewhere.data import Data as Data
    from elsewhere.data import Examples as Examples
    from elsewhere.encoding import Encoder as Encoder
    from elsewhere.errors import ExpectationFailed as ExpectationFailed
    from elsewhere.errors import NotOffered as NotOffered
    from elsewhere.errors import Undefined as Undefined
    from elsewhere.errors import UserError as UserError
    from elsewhere.explainer import Explainer as Explainer
    from elsewhere.explainer import Finding as Finding
    from elsewhere.explainer import Image as Image
    from elsewhere.identity import named as named
    from elsewhere.learner import Learner as Learner
    from elsewhere.learner import Probe as Probe
    from elsewhere.learner import offers as offers
    from elsewhere.model import Model as Model
    from elsewhere.model import fit as fit
    from elsewhere.prediction import ClassPrediction as ClassPrediction
    from elsewhere.prediction import ValuePrediction as ValuePrediction
    from elsewhere.run import Run as Run
    from elsewhere.saving import load as load
    from elsewhere.task import Domain as Domain
    from elsewhere.task import Estimate as Estimate
    from elsewhere.task import Metric as Metric
    from elsewhere.task import Source as Source
    from elsewhere.task import Task as Task
    from elsewhere.task import task as task
    from elsewhere.wrapping import wrap as wrap


def learners() -> list[str]:
    """Return the names of all catalogued learners."""
    from elsewhere import catalogue

    return sorted(catalogue.entries("learners"))


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'elsewhere' has no attribute {name!r}")
    module, _, attribute = _NAMES[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


class _Package(ModuleType):
    """``elsewhere.assay`` and ``elsewhere.task`` are the function and the decorator, whichever submodule was imported before."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _NAMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
