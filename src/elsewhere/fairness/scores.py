"""Scores of an audited model beside those of a two-headed reference, on the same people."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from elsewhere.data import Array, Examples, optional_column
from elsewhere.errors import NotOffered, UserError
from elsewhere.fairness.baselines import logits_of
from elsewhere.fairness.rates import binary_labels
from elsewhere.fairness.two_heads import TwoHeads
from elsewhere.learner import offers
from elsewhere.run import Run


@dataclass(frozen=True)
class Scores:
    """What an audit compares, for n people.

    Args:
        f, g: the reference's label score and group score [n], logits.
        r: the audited model's score [n].
        y, s: label and group [n], 0 or 1.
        u: the unconstrained model's score [n], where there is one.
        g0: the group as a probe reads it off the audited model's own features [n], if it has any.
        z: the reference's features [n, d], which its heads see.
        unit: which person or writer a row belongs to [n], where rows are not independent.
    """

    f: Array
    g: Array
    r: Array
    y: Array
    s: Array
    u: Array | None = None
    g0: Array | None = None
    z: Array | None = None
    unit: Array | None = None

    def __len__(self) -> int:
        return len(self.f)

    def take(self, rows: Array) -> Scores:
        """Return the scores of some people [k]."""
        given = {c.name: getattr(self, c.name) for c in fields(self)}
        return replace(self, **{k: v[rows] for k, v in given.items() if v is not None})


def scores_of(
    model: Any,
    reference: TwoHeads,
    data: Examples,
    run: Run = Run(progress=False),
    unconstrained: Any = None,
) -> Scores:
    """Return what an audit compares, of fitted learners and data with labels and group.

    Args:
        model: the audited learner.
        reference: a fitted two-headed network, two groups, criterion parity.
        data: examples with labels and group [n].
        run: seed and device.
        unconstrained: a fitted learner trained without regard to the group.

    Raises:
        UserError: the reference has not two heads, or the labels are not binary.
    """
    made = reference.scores(data, run)
    if made.shape[1] != 2:
        needed = "a reference of two heads: two groups, criterion parity"
        raise UserError(f"the measures of treatment need {needed}")
    r = logits_of(model.predict(data.unlabelled(), run))
    u = None if unconstrained is None else logits_of(unconstrained.predict(data.unlabelled(), run))
    # Above 0: predicted to be of the second group.
    g = made[:, 1] - (0.5 if reference.group_loss == "raw" else 0.0)
    y, s = binary_labels(data, "treatment"), reference.codes(data)
    z = np.asarray(reference.represent(data, run), float)
    return Scores(made[:, 0], g, r, y, s, u, z=z, unit=optional_column(data, "unit"))


def with_own_probe(
    model: Any,
    fit: Scores,
    test: Scores,
    data: tuple[Examples, Examples],
    run: Run,
) -> tuple[Scores, Scores]:
    """Return the scores with g0: the group as read off the audited model's own features.

    Logistic regression fitted on the first data; the scores as they are if the model has no
    features.
    """
    if not offers(model, "represent"):
        return fit, test
    try:
        z, v = (np.asarray(model.represent(d, run), float) for d in data)
    except NotOffered:
        return fit, test
    from sklearn.linear_model import LogisticRegression

    mean, spread = z.mean(0), np.where(z.std(0) > 1e-12, z.std(0), 1)
    probe = LogisticRegression(C=1.0, max_iter=2000).fit((z - mean) / spread, fit.s)
    own = [probe.decision_function((part - mean) / spread) for part in (z, v)]
    return replace(fit, g0=own[0]), replace(test, g0=own[1])
