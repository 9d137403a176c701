"""Is a fair network the same as two heads, and whom does it treat differently by group?

After the abstract of Lohaus et al., NeurIPS 2022.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from elsewhere.data import Array, Examples
from elsewhere.errors import UserError
from elsewhere.explainer import Finding
from elsewhere.fairness.audit import Audit, audit
from elsewhere.fairness.baselines import logits_of
from elsewhere.fairness.rates import ddp
from elsewhere.fairness.scores import Scores, scores_of, with_own_probe
from elsewhere.fairness.two_heads import TwoHeads
from elsewhere.run import Run

LIMITS = (
    "Needs group labels to audit, none to run. Correlational: the band and the surrogate compare decisions at equal scores of the reference, which may use the group itself; "
    "only re-rendered pairs are counterfactual. Not legal advice."
)


def same_as_two_heads(fit: Scores, test: Scores) -> pd.DataFrame:
    """Return whether two heads reproduce the fair decisions (claim 1), and whether fair scores and the group head give the unfair ones back (claim 2): one row each.

    Logistic regressions fitted on one set of examples and judged on another: 1[r > 0] on f, and on (f, g); y on r, and on (r, g).
    """
    rows = []
    outside: list[tuple[str, tuple[str, ...]]] = [("fair decisions from f", ("f",)), ("fair decisions from f and g", ("f", "g"))]
    for name, columns in outside:
        made = _logistic(fit, columns, fit.r > 0)(test)
        rows.append({"what": name, "agreement": float(((made > 0) == (test.r > 0)).mean()), "accuracy": float(((made > 0) == test.y).mean()), "ddp": ddp(made > 0, test.s)})
    inside: list[tuple[str, tuple[str, ...]]] = [("unfair decisions from r", ("r",)), ("unfair decisions from r and g", ("r", "g"))]
    if fit.g0 is not None and test.g0 is not None:
        inside.append(("unfair decisions from r and a probe of its own features", ("r", "g0")))
    for name, columns in inside:
        made = _logistic(fit, columns, fit.y == 1)(test)
        agreement = float("nan") if test.u is None else float(((made > 0) == (test.u > 0)).mean())
        rows.append({"what": name, "agreement": agreement, "accuracy": float(((made > 0) == test.y).mean()), "ddp": ddp(made > 0, test.s)})
    return pd.DataFrame(rows)


def _logistic(fit: Scores, columns: tuple[str, ...], wanted: Array) -> Any:
    from sklearn.linear_model import LogisticRegression

    x = np.stack([getattr(fit, c) for c in columns], 1)
    if len(set(wanted.tolist())) < 2:
        constant = 1.0 if wanted[0] else -1.0
        return lambda scores: np.full(len(scores.f), constant)
    model = LogisticRegression(C=1e4, max_iter=2000).fit(x, wanted)
    return lambda scores: model.decision_function(np.stack([getattr(scores, c) for c in columns], 1))


def treatment(
    model: Any,
    reference: TwoHeads,
    data: Examples,
    validation: Examples | None = None,
    pairs: Examples | None = None,
    unconstrained: Any = None,
    run: Run = Run(progress=False),
) -> Finding:
    """Say whether a model decides by predicted group, and how far two heads reproduce it.

    Args:
        model: any fitted learner with scores.
        reference: a fitted two-headed network, whose f is the score and whose features tell the
            group. ``data`` and ``validation`` must not be what it was trained on.
        data: examples with labels and group, to report on.
        validation: to fit thresholds and surrogates on; half of ``data`` if not given.
        pairs: the same examples as ``data`` with the other group's cue; default: what
            ``data.counterfactual()`` gives, if it has that.
        unconstrained: a fitted learner trained without regard to the group.
        run: seed and device.

    Returns:
        A finding whose sentence is a verdict: decides by predicted group, no sign of it, or
        cannot tell.

    Raises:
        UserError: there is not one pair for each example, or the reference has not two heads.
    """
    if validation is None:
        order = np.random.default_rng(0).permutation(len(data))
        rest = order[len(order) // 2 :]
        validation, data = data.take(order[: len(order) // 2]), data.take(rest)
        pairs = None if pairs is None else pairs.take(rest)
    names = (str(reference.groups_[0]), str(reference.groups_[-1]))
    fit, test = (scores_of(model, reference, d, run, unconstrained) for d in (validation, data))
    fit, test = with_own_probe(model, fit, test, (validation, data), run)
    flipped = flips(model, data, test, run, pairs)
    found = audit(fit, test, names, flipped)
    same = same_as_two_heads(fit, test)
    told = in_words("the model", found, same)
    tables = {
        "Treatment by predicted group": named(found.table, names),
        "Is it two heads?": same,
        "Does the decision depend on the predicted group?": pd.DataFrame([tested(found, test)]),
    }
    return Finding(f"{told[0].upper()}{told[1:]}", tables, {}, LIMITS)


def flips(
    model: Any,
    data: Examples,
    test: Scores,
    run: Run,
    pairs: Examples | None = None,
) -> Array | None:
    """Return whose decision changes with the other group's cue [m]; None if nothing renders it."""
    if pairs is None and hasattr(data, "counterfactual"):
        pairs = data.counterfactual()
    if pairs is None:
        return None
    if len(pairs) != len(data):
        wanted = "give each example's other rendering, in order"
        raise UserError(f"there are {len(pairs)} pairs for {len(data)} examples: {wanted}")
    return np.asarray((logits_of(model.predict(pairs.unlabelled(), run)) > 0) != (test.r > 0))


def in_words(name: str, found: Audit, same: pd.DataFrame) -> str:
    """Return the verdict on a model and what stands beside it, as one sentence."""
    told, truth = found.sentence(name), found.table[found.table.measure == "counterfactual flip"]
    if len(truth):
        row = truth.iloc[0]
        told += f"; drawn again with the other group's cue, {row['share']:.1%} "
        told += f"[{row['beyond low']:.1%}, {row['beyond high']:.1%}] of its decisions change"
    f, both = same["agreement"].iloc[0], same["agreement"].iloc[1]
    return f"{told}; two heads reproduce {both:.1%} of its decisions, the label head alone {f:.1%}."


def named(table: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """Return the measures with the groups' names in the headings."""
    return table.rename(columns={f"of group {k}": f"of {names[k]}" for k in (0, 1)})


def tested(found: Audit, test: Scores) -> dict[str, Any]:
    """Return the row of the test: verdict, gain, p, area under the curve, both disparities."""
    told = {"verdict": found.verdict, **found.test}
    told |= {"ddp of f": ddp(test.f > 0, test.s)}
    return {**told, "ddp of the model": ddp(test.r > 0, test.s)}
