"""What a learner makes of examples, as features for the dataset derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from elsewhere.data import Array
from elsewhere.encoding import Encoder, as_matrix
from elsewhere.errors import NotOffered, UserError
from elsewhere.learner import as_examples, offers
from elsewhere.run import Run
from elsewhere.task import Source
from elsewhere.wrapping import EstimatorLearner


def representing(fitted: Any, source: Source[Any], run: Run = Run(progress=False)) -> Callable[[Any], Array]:
    """Return data -> features [n, d]: what a fitted learner represents.

    Learners over scikit-learn, whose codes may be no features, and those that represent nothing get a table encoded by the source, or the inputs.

    Examples:
        >>> from elsewhere.data import Examples
        >>> from elsewhere.nn.learners import Mlp
        >>> source = Source(Examples(np.eye(4), np.arange(4) % 2, classes=("a", "b")))
        >>> representing(Mlp(steps=2, width=8).fit(source), source)(source.train).shape
        (4, 8)
    """
    plain = as_examples(source.train)
    table = plain is not None and hasattr(plain.inputs, "iloc")
    if offers(fitted, "represent") and not isinstance(fitted, EstimatorLearner):
        try:
            fitted.represent(source.train.take(np.arange(min(2, len(source.train)))), run)
            return lambda data: np.asarray(fitted.represent(data, run), float)
        except NotOffered:
            pass
    if plain is None:
        raise UserError("these data have no inputs that are numbers, and the learner represents nothing")
    if table:
        encoder = Encoder().fit(plain.inputs)
        return lambda data: encoder.transform(_inputs(data))
    return lambda data: np.asarray(as_matrix(_inputs(data)), float)


def _inputs(data: Any) -> Any:
    found = as_examples(data)
    assert found is not None
    return found.inputs
