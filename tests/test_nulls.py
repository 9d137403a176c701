"""Whole assays of tables in which nothing differs between domains: nothing may be said to fail, or why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import elsewhere as ew


def alike(rng: np.random.Generator, n: int = 800) -> pd.DataFrame:
    """Four domains of one distribution; the label depends on two of three features."""
    x = rng.normal(size=(n, 3))
    ill = x[:, 0] + 0.5 * x[:, 1] + rng.normal(size=n) > 0
    place = np.array(["Bern", "Genf", "Lyon", "Wien"])[rng.integers(4, size=n)]
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "ill": np.where(ill, "yes", "no"), "place": place})


@pytest.mark.long
@pytest.mark.parametrize("protocol", ["one-to-all", "leave-one-out"])
def test_where_nothing_differs_nothing_is_said_to_fail(tmp_path: Path, protocol: str) -> None:
    """100 tables: "does not hold" and "is better in" in at most 5, a reason for a gap in at most 7.

    The decomposition's bootstrap is a little too narrow at this size; 93 of 100 is what it is held to.
    """
    rng = np.random.default_rng(11)
    counts = {"does not hold": 0, "is better in": 0, "comes from": 0}
    for k in range(100):
        options = {"source": "Bern"} if protocol == "one-to-all" else {"protocol": protocol}
        table = alike(rng)
        result = ew.assay(table, predict="ill", domain="place", learners=["logistic-regression"], seeds=2, out=tmp_path / str(k), **options)
        said = " ".join([*result.summary(), result.explain("shift-decomposition").sentence])
        for words in counts:
            counts[words] += words in said
    assert counts["does not hold"] <= 5, counts
    assert counts["is better in"] <= 5, counts
    assert counts["comes from"] <= 7, counts


def test_where_the_relation_turns_round_it_is_said(tmp_path: Path) -> None:
    """The same table, but in Wien what was healthy is ill: said to fail, and why."""
    table = alike(np.random.default_rng(3))
    there = table.place == "Wien"
    turned = table.ill.map({"yes": "no", "no": "yes"})
    table["ill"] = table.ill.where(~there, turned)
    result = ew.assay(table, predict="ill", domain="place", source="Bern", learners=["logistic-regression"], seeds=3, out=tmp_path / "r")
    said = " ".join(result.summary())
    assert "does not hold in Wien" in said
    assert "always guessing the most frequent class there would get" in said
    assert "In Wien" in result.explain("shift-decomposition").sentence
