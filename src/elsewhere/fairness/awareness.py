"""How well a representation tells people's group: awareness, layer by layer (Lohaus et al. 2022, figure 2)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd
from torch import nn

from elsewhere.data import Array, Examples
from elsewhere.encoding import Encoder, as_matrix
from elsewhere.errors import NotOffered, UserError
from elsewhere.fairness.rates import groups_of, wilson
from elsewhere.learner import offers
from elsewhere.nn.learners import NetworkLearner
from elsewhere.run import Run

MOST_INPUTS = 4096


def probe(train: Array, train_group: Array, test: Array, test_group: Array) -> dict[str, float]:
    """Return accuracy, balanced accuracy and area under the curve of logistic regression (C = 1) of the group on standardised features, with the accuracy's 95 % interval.

    Ours; the reference trains the last layer on with the network's batch statistics moving.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    mean, deviation = train.mean(0), train.std(0)
    deviation = np.where(deviation > 1e-12, deviation, 1)
    model = LogisticRegression(C=1.0, max_iter=2000).fit((train - mean) / deviation, train_group)
    z = (test - mean) / deviation
    made, p = model.predict(z), model.predict_proba(z)
    right = float((made == test_group).mean())
    low, high = wilson(right, len(test_group))
    auc = roc_auc_score(test_group, p[:, 1]) if p.shape[1] == 2 else roc_auc_score(test_group, p, multi_class="ovr", labels=model.classes_)
    return {"accuracy": right, "low": low, "high": high, "balanced": float(balanced_accuracy_score(test_group, made)), "auc": float(auc)}


def group_awareness(
    model: Any, data: Examples, group: Any = "group", layers: Literal["last", "all"] = "last", test: Examples | None = None, run: Run = Run(progress=False), references: bool = True
) -> pd.DataFrame:
    """Return one row a layer: how well the group can be read off it, with the input and the untrained network as lines to compare with.

    Args:
        model: a fitted learner with ``represent``.
        data: examples to fit the probes on; the other half of them judges, if ``test`` is not given.
        group: column of people compared.
        layers: "last", what the head sees, or "all" layers of its network.
        references: also the input and the same network before training.

    Raises:
        UserError: the group is missing or constant, or the model represents nothing.

    Examples:
        >>> from elsewhere.nn.learners import Mlp
        >>> from elsewhere.task import Source
        >>> rng = np.random.default_rng(0); s = rng.integers(2, size=200); x = rng.normal(size=(200, 3)) + s[:, None]
        >>> data = Examples(x, rng.integers(2, size=200), {"group": s}, classes=("no", "yes"))
        >>> group_awareness(Mlp(steps=5).fit(Source(data)), data).layer.tolist()
        ['what the head sees', 'input', 'what the head sees, untrained']
    """
    if not offers(model, "represent"):
        raise UserError(f"{type(model).__name__} has no representation to probe")
    if test is None:
        order = np.random.default_rng(0).permutation(len(data))
        data, test = data.take(order[: len(order) // 2]), data.take(order[len(order) // 2 :])
    told, asked = groups_of(data, group), groups_of(test, group)
    network = getattr(model, "network_", None)
    names = [n for n, m in network.named_modules() if n and not list(m.children()) and list(m.parameters())][:-1] if layers == "all" and network is not None else []
    rows = []
    for name in names:
        z = _standing(model, name, run)
        rows.append({"layer": name, **probe(z(data), told, z(test), asked)})
    rows.append({"layer": "what the head sees", **probe(_features(model, data, run), told, _features(model, test, run), asked)})
    if references:
        x, v = _inputs(data, data), _inputs(data, test)
        rows.append({"layer": "input", **probe(x, told, v, asked)})
        if (fresh := _untrained(model)) is not None:
            rows.append({"layer": "what the head sees, untrained", **probe(_features(fresh, data, run), told, _features(fresh, test, run), asked)})
    return pd.DataFrame(rows)


def _features(model: Any, data: Examples, run: Run) -> Array:
    try:
        return np.asarray(model.represent(data, run), float)
    except NotOffered as error:
        raise UserError(str(error)) from error


def _standing(model: Any, layer: str, run: Run) -> Any:
    return lambda data: np.asarray(model.represent(data, run, layer), float)


def _inputs(source: Examples, data: Examples) -> Array:
    if hasattr(data.inputs, "iloc"):
        return Encoder().fit(source.inputs).transform(data.inputs)
    return np.asarray(as_matrix(data.inputs), float)[:, :MOST_INPUTS]


def _untrained(model: Any) -> Any:
    """Return a copy whose network has the weights it could have begun with; None where it has no network made by name."""
    import copy

    network = getattr(model, "network_", None)
    if not isinstance(model, NetworkLearner) or not isinstance(network, nn.Module) or not hasattr(network, "built"):
        return None
    import torch

    from elsewhere.nn.building import build

    told = dict(network.built)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = copy.copy(model)
        fresh.network_ = build(told.pop("name"), shape=told.pop("shape"), **told)
    return fresh
