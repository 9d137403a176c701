"""Who pays for the move elsewhere: a group is named only beyond the noise of all that are compared."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from elsewhere.assay import people


class Judged:
    """A result of one learner at home and in two domains, with values per example and groups."""

    def __init__(self, groups: int, loss: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        rows = []
        for domain in ("home", "a", "b"):
            group = rng.integers(groups, size=300)
            right = rng.random(300) < 0.85 - loss * ((group == 0) & (domain == "a"))
            told = {"trial": "t", "domain": domain, "row": np.arange(300), "group": group.astype(str)}
            rows.append(pd.DataFrame({**told, "accuracy": right.astype(float)}))
        self.each = pd.concat(rows, ignore_index=True)

    def examples(self) -> pd.DataFrame:
        return self.each

    def scores(self) -> pd.DataFrame:
        rows = [{"trial": "t", "domain": d, "role": "home" if d == "home" else "elsewhere", "metric": "accuracy", "least": 0.0, "most": 1.0} for d in ("home", "a", "b")]
        return pd.DataFrame(rows)

    def trials(self) -> pd.DataFrame:
        return pd.DataFrame([{"trial": "t", "task": "t", "learner": "m", "seed": 0}])

    def higher_is_better(self, metric: str) -> bool:
        return True

    def _once(self, key: object, make):  # type: ignore[no-untyped-def]
        return make()


@pytest.mark.slow
def test_random_groups_are_not_accused() -> None:
    """200 studies of four groups at random, two domains: a group is said to lose most in at most 5 %."""
    said = [people.who_pays(Judged(4, 0.0, seed), "accuracy", "m")[1] for seed in range(200)]  # type: ignore[arg-type]
    assert sum("loses most" in s for s in said) <= 10
    assert all("No group is shown to lose more" in s or "loses most" in s for s in said)


def test_a_group_that_pays_is_named() -> None:
    table, said = people.who_pays(Judged(3, 0.5, 0), "accuracy", "m")  # type: ignore[arg-type]
    assert "In a m loses most in accuracy for 0, beyond noise" in said
    assert table.iloc[0][["domain", "group"]].tolist() == ["a", "0"]


def test_the_loss_of_a_group_has_newcombes_interval() -> None:
    made = Judged(2, 0.3, 1)
    table, _ = people.who_pays(made, "accuracy", "m")  # type: ignore[arg-type]
    row = table[(table.domain == "a") & (table.group == "1")].iloc[0]
    mine = made.each[made.each.group == "1"]
    home, there = (mine[mine.domain == d].accuracy for d in ("home", "a"))
    assert row.value == pytest.approx(home.mean() - there.mean())
    assert row.low < row.value < row.high
