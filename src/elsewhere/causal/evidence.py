"""Statistics that the bundled studies of this room expect something of: one number a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from elsewhere.data import Array

if TYPE_CHECKING:
    from elsewhere.assay.result import Result

IDENTIFIED = ("pairs", "views", "environments", "neighbours")  # how labels of learners begin that are told which images belong together
SUPERVISED = "supervised"


def new_factor_r2(result: Result) -> pd.DataFrame:
    """Return seed, task, split, learner and R² of each factor on images where it alone is new (extrapolation, interpolation), mean over factors; on the whole test part else."""
    rows = result.scores()
    rows = rows[rows.metric.astype(str).str.startswith("r2") & rows.task_name.isin(["balls", "bench"])]
    rows = rows.assign(factor=rows.metric.astype(str).str.removeprefix("r2").str.removeprefix("/"), split=rows.split.astype(str))
    alone = rows[rows.new.notna() & (rows.factor == rows.new)] if "new" in rows else rows.iloc[:0]
    whole = rows[(rows.factor == "") & (rows.domain == "all") & rows.split.isin(["random", "composition"])]
    told = pd.concat([alone, whole])
    keys = ["seed", "task_name", "split", "learner"]
    return told.astype({"learner": str, "task_name": str}).groupby(keys, observed=True).value.mean().reset_index()


def _best_gain(result: Result, learners: tuple[str, ...], against: str) -> Array:
    """Return, for each seed, the largest gain of the mean over worlds of R² of extrapolated factors, of learners whose labels begin so over another."""
    told = new_factor_r2(result).query("split == 'extrapolation'").groupby(["seed", "learner"]).value.mean().unstack()
    mine = [c for c in told if str(c).startswith(learners) and c != against]
    return (told[mine].max(axis=1) - told[against]).to_numpy()


def identified_beat_supervised(result: Result) -> Array:
    """Arm 1: the best identified learner minus the supervised network, R² of factors that are extrapolated."""
    return _best_gain(result, IDENTIFIED, SUPERVISED)


def everywhere_beats_supervised(result: Result) -> Array:
    """Way 1: identified learners that saw unlabelled images from there, with a linear read-out, minus the supervised network."""
    return _best_gain(result, ("pairs everywhere", "views everywhere"), SUPERVISED)


def everywhere_beats_plain_images(result: Result) -> Array:
    """Way 1, its control: the same minus an autoencoder that saw the same images, but not which belong together."""
    return _best_gain(result, ("pairs everywhere", "views everywhere"), "autoencoder everywhere")


def places_beat_supervised(result: Result) -> Array:
    """Way 2: identified learners whose encoder gives places, minus the supervised network."""
    return _best_gain(result, ("pairs by places", "views by places"), SUPERVISED)


def places_beat_supervised_places(result: Result) -> Array:
    """Way 2, its control: the same minus the supervised network with that encoder."""
    return _best_gain(result, ("pairs by places", "views by places"), "supervised by places")


def neighbours_beat_supervised(result: Result) -> Array:
    """Way 3: a code from near pairs everywhere, with a linear read-out, minus the supervised network."""
    return _best_gain(result, ("neighbours everywhere",), SUPERVISED)


def neighbours_beat_home_neighbours(result: Result) -> Array:
    """Way 3, its control: the same minus near pairs of the training part alone, with the encoder of places."""
    return _best_gain(result, ("neighbours everywhere by places",), "home neighbours by places")


def intervention_errors(result: Result) -> pd.DataFrame:
    """Return seed, world (scene and noise), learner, domain and relative W₂² of interventional tasks."""
    rows = result.scores()
    rows = rows[(rows.metric == "relative_w2") & rows.value.notna()]
    noise = rows.noise.fillna(0.0).astype(float) if "noise" in rows else 0.0
    told = rows.assign(noise=noise, task_name=rows.task_name.astype(str), learner=rows.learner.astype(str), domain=rows.domain.astype(str))
    return told.groupby(["seed", "task_name", "noise", "learner", "domain"]).value.mean().reset_index()


def _pair_gain(result: Result, of: str, over: str, noise: float | None = None) -> Array:
    told = intervention_errors(result).query("domain == 'pairs'")
    told = told[told.noise == (0.0 if noise is None else noise)]
    if noise is not None:
        told = told[told.task_name == "bench/interventions"]
    wide = told.groupby(["seed", "learner"]).value.mean().unstack()
    return (wide[over] - wide[of]).to_numpy()


def environments_beat_additive(result: Result) -> Array:
    """Arm 2: how much lower the relative W₂² of pairs is for the contrastive causal model than for the supervised read-out with the additive rule, mean over worlds without noise."""
    return _pair_gain(result, "environments + causal", "supervised + additive")


def graph_beats_additive(result: Result) -> Array:
    """Arm 2: the same for a causal model of the supervised read-out: what a graph buys where labels are there."""
    return _pair_gain(result, "supervised + causal", "supervised + additive")


def gain_in_noise(result: Result) -> Array:
    """Arm 3: the gain of arm 2 on the bench with sensor noise .2."""
    return _pair_gain(result, "environments + causal", "supervised + additive", 0.2)


def learnt_over_direct(result: Result) -> Array:
    """Return, for each seed, the effect error at 1.5 times the strength over that of a network that regresses the outcome on the action."""
    rows = result.scores()
    rows = rows[(rows.metric == "effect_error") & (rows.reach == 1.5)]
    wide = rows.assign(name=rows.learner.astype(str)).pivot_table(index="seed", columns="name", values="value")
    return (wide["intervention-extrapolation"] / wide["network on actions"]).to_numpy()


def pairs_won(result: Result) -> Array:
    """Return, for each seed, 1 where the causal model predicts all pairs better than the additive rule in every task, else 0."""
    rows = result.scores()
    rows = rows[(rows.metric == "relative_w2") & (rows.domain == "all pairs")]
    wide = rows.assign(name=rows.learner_name.astype(str)).pivot_table(index=["seed", "task"], columns="name", values="value", observed=True)
    return (wide["linear-interventional"] < wide["additive-interventions"]).groupby("seed").min().astype(float).to_numpy()
