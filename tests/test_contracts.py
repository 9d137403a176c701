"""Four foreign rooms on the untouched spine: assayed, killed and resumed, explained, reported, saved, loaded, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from toy_rooms.clips import Threshold, clips
from toy_rooms.generator import Harmonic, Stubborn, daily
from toy_rooms.graph import Student, Teacher, communities
from toy_rooms.quick import Quick, Stacked, quick
from toy_rooms.rankings import FactoredScores, Intensity, market

import elsewhere as ew
from elsewhere.task import TaskFunction

ROOMS: dict[str, tuple[TaskFunction, list[Any]]] = {
    "graph": (communities, [Teacher(), Student(neighbours=3), LogisticRegression()]),
    "rankings": (market, [Intensity(), Intensity(intensity=False)]),
    "generator": (daily, [Harmonic(), Harmonic(noise=False)]),
    "clips": (clips, [Threshold(), Threshold(adapts=False)]),
}


@pytest.fixture(params=ROOMS)
def room(request: pytest.FixtureRequest) -> tuple[TaskFunction, list[Any]]:
    return ROOMS[request.param]


def scores_of(result: ew.Result) -> pd.DataFrame:
    keys = ["trial", "domain", "metric"]
    return result.scores()[[*keys, "value", "error", "n", "reason"]].astype({"trial": str, "domain": str, "metric": str}).sort_values(keys).reset_index(drop=True)


def test_a_room_is_assayed(room: tuple[TaskFunction, list[Any]], tmp_path: Path) -> None:
    task, learners = room
    result = ew.assay(task, learners=learners, seeds=2, out=tmp_path / "r")
    assert (result.trials().status == "done").all()
    assert len(result.trials()) == 2 * len(learners)
    assert result.table().notna().any(axis=None)


def test_a_killed_study_is_resumed_to_the_same_bits(room: tuple[TaskFunction, list[Any]], tmp_path: Path) -> None:
    task, learners = room
    whole = ew.assay(task, learners=learners, seeds=2, out=tmp_path / "whole")

    def stop(progress: Any) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ew.assay(task, learners=learners, seeds=2, out=tmp_path / "cut", progress=stop)
    assert len(ew.Result(tmp_path / "cut").trials()) == 2
    resumed = ew.assay(task, learners=learners, seeds=2, out=tmp_path / "cut")
    pd.testing.assert_frame_equal(scores_of(whole), scores_of(resumed), check_exact=True)


def test_a_room_is_explained_and_reported(room: tuple[TaskFunction, list[Any]], tmp_path: Path) -> None:
    task, learners = room
    result = ew.assay(task, learners=learners, seeds=2, out=tmp_path / "r")
    finding = result.explain("toy-hardest")
    assert "hardest" in finding.sentence
    page = result.report().read_text()
    assert finding.sentence in page
    assert str(result.cells().domain.iloc[0]) in page


def test_learners_keep_their_contract(room: tuple[TaskFunction, list[Any]]) -> None:
    task, learners = room
    for learner in learners:
        assert ew.check_learner(ew.wrap(learner), task(0)) == []


def test_models_are_saved_and_loaded(room: tuple[TaskFunction, list[Any]], tmp_path: Path) -> None:
    task, learners = room
    result = ew.assay(task, learners=learners[:1], seeds=1, out=tmp_path / "r")
    trial = result.trials().trial.iloc[0]
    fitted = result.fitted(trial)
    fitted.save(tmp_path / "model")
    loaded = ew.load(tmp_path / "model")
    domain = task(0).domains[-1].load()
    first, second = (m.predict(domain.unlabelled()) for m in (fitted, loaded))
    assert type(first) is type(second)


def test_fifteen_students_share_five_teachers(tmp_path: Path) -> None:
    Teacher.fitted_here = 0
    ew.assay(communities, learners=[Student(neighbours=k) for k in (1, 10, 50)], seeds=5, out=tmp_path / "r")
    assert Teacher.fitted_here == 5


def test_two_processes_share_the_teachers_too(tmp_path: Path) -> None:
    result = ew.assay(communities, learners=[Student(neighbours=k) for k in (1, 10, 50)], seeds=5, out=tmp_path / "r", workers=2)
    assert len(list((tmp_path / "r" / "parts").glob("*/learner.json"))) == 5
    alone = ew.assay(communities, learners=[Student(neighbours=k) for k in (1, 10, 50)], seeds=5, out=tmp_path / "s")
    pd.testing.assert_frame_equal(scores_of(result), scores_of(alone), check_exact=True)


def test_a_learner_of_plain_examples_runs_on_the_nodes_own_features(tmp_path: Path) -> None:
    result = ew.assay(communities, learners=["logistic-regression"], seeds=2, out=tmp_path / "r")
    assert (result.trials().status == "done").all()
    assert result.cells().value.min() > 1 / 3


def test_a_learner_of_nodes_cannot_run_on_tables(tmp_path: Path) -> None:
    with pytest.raises(ew.UserError, match="needs Nodes, and the data are Examples"):
        ew.assay("penguins", learners=[Teacher()], out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_lazy_scores_are_never_made_dense() -> None:
    with pytest.raises(AssertionError, match="dense"):
        np.asarray(FactoredScores(np.zeros((2, 2)), np.zeros((3, 2))))  # and yet the room is assayed


def test_a_metric_family_names_its_members(tmp_path: Path) -> None:
    result = ew.assay(daily, learners=[Harmonic()], seeds=1, out=tmp_path / "r")
    assert {"fid", "fid/over_floor", "downstream"} == set(result.scores().metric)


def test_sampling_follows_the_seed_and_nothing_else(tmp_path: Path) -> None:
    one = ew.assay(daily, learners=[Harmonic()], seeds=[3], out=tmp_path / "a")
    two = ew.assay(daily, learners=[Harmonic(noise=False), Harmonic()], seeds=[1, 3], out=tmp_path / "b")
    wanted = scores_of(one)
    assert wanted.merge(scores_of(two), how="inner").shape == wanted.shape


def test_nan_values_are_not_judged(tmp_path: Path) -> None:
    result = ew.assay(market, learners=[Intensity()], seeds=1, out=tmp_path / "r")
    each = result.examples()
    judged = each.precision.notna().groupby(each.domain, observed=True).sum()
    rows = result.scores().set_index("domain")
    assert (rows.n[judged.index] == judged).all()
    assert judged.sum() < len(each)


def test_unlabelled_data_are_granted_only_where_declared(tmp_path: Path) -> None:
    result = ew.assay(clips, learners=[Threshold(), Threshold(adapts=False)], seeds=1, out=tmp_path / "r")  # each asserts what it got
    assert (result.trials().status == "done").all()
    assert "Saw unlabelled data" in result.report().read_text()
    with pytest.raises(ew.UserError, match="does not grant"):
        ew.assay(TaskFunction("bare", bare_clips), learners=[Threshold()], out=tmp_path / "s")


def bare_clips(seed: int = 0) -> ew.Task[Any]:
    task = clips(seed)
    return ew.Task(ew.Source(task.source.train), task.domains, task.metrics)


def test_adapting_to_each_domain_helps_where_the_light_differs(tmp_path: Path) -> None:
    learners = ["toy-threshold", "toy-threshold:adapts=false"]
    cells = ew.assay(clips, learners=learners, seeds=2, out=tmp_path / "r").cells().set_index(["learner", "domain"]).value
    assert cells[learners[0], "dark"] > cells[learners[1], "dark"] + 0.5


def test_a_learner_that_cannot_be_saved_says_so() -> None:
    assert ew.check_learner(Stubborn(), daily(0)) == ["not portable: it holds an open connection"]


def test_check_learner_finds_broken_promises() -> None:
    class Peeks(Quick):
        def predict(self, data: Any, run: Any = None) -> Any:
            shift = 0.0 if data.labels is None else 1.0
            return ew.ValuePrediction(np.full(len(data), self.mean_ + shift))

    class Drifts(Quick):
        def fit(self, source: Any, run: Any = None) -> Any:
            self.level += 1.0
            return super().fit(source, run)

    class Forgets(Quick):
        def fit(self, source: Any, run: Any = None) -> Any:
            self.mean_ = float(np.random.default_rng().normal())
            return self

    task = quick(0)
    for broken, told in ((Peeks(), "depend on the labels"), (Drifts(), "changed its fields"), (Forgets(), "the same seed")):
        with pytest.raises(AssertionError, match=told):
            ew.check_learner(broken, task)


@pytest.mark.parametrize("name", ["prior", "logistic-regression", "random-forest", "boosting", "nearest-neighbours"])
def test_bundled_learners_keep_their_contract(name: str) -> None:
    from elsewhere.assay.study import parse_learner
    from elsewhere.tables.tasks import penguins

    assert ew.check_learner(parse_learner(name).learner, penguins(0)) == []


@pytest.mark.parametrize("name", ["prior", "ridge-regression", "random-forest", "boosting", "nearest-neighbours", "given:column=prediction"])
def test_bundled_learners_keep_their_contract_on_numbers(name: str) -> None:
    from elsewhere.assay.study import parse_learner
    from elsewhere.tables.worlds import known_terms

    assert ew.check_learner(parse_learner(name).learner, known_terms(0, home=200, elsewhere=100)) == []


def test_random_direction_keeps_its_contract() -> None:
    from elsewhere.tables.worlds import RandomDirection, linear_gaussian

    assert ew.check_learner(RandomDirection(), linear_gaussian(n=100)) == []


def test_fit_many_gets_planned_batches_also_when_resumed(tmp_path: Path) -> None:
    learners = [Stacked(penalty=p) for p in (0.1, 1.0, 10.0)]
    Stacked.passes.clear()
    whole = ew.assay(quick, learners=learners, seeds=3, out=tmp_path / "a")
    assert Stacked.passes == [18]

    result = ew.Result(tmp_path / "a")
    result.store.remove(result.trials().trial.iloc[:4])
    resumed = ew.assay(quick, learners=learners, seeds=3, out=tmp_path / "a")
    assert Stacked.passes == [18, 18]  # the planned batch, not what was missing
    pd.testing.assert_frame_equal(scores_of(whole), scores_of(resumed), check_exact=True)


def test_fit_many_keeps_its_contract() -> None:
    assert ew.check_learner(Stacked(), quick(0)) == []


def test_a_probe_shares_its_encoder_between_heads(tmp_path: Path) -> None:
    Teacher.fitted_here = 0
    heads = [ew.Probe(Teacher(hops=1), ew.wrap(LogisticRegression(C=c))) for c in (0.1, 1.0)]
    named = [ew.named(f"probe-{k}", p) for k, p in enumerate(heads)]
    result = ew.assay(communities, learners=named, seeds=2, out=tmp_path / "r")
    assert (result.trials().status == "done").all()
    assert Teacher.fitted_here == 2
    assert ew.check_learner(heads[0], communities(0)) == []


def test_a_named_task_runs_in_this_process_with_fixed_data(tmp_path: Path) -> None:
    result = ew.assay(ew.named("mine", quick(5)), learners=[Quick()], seeds=2, out=tmp_path / "r", workers=2)
    table = result.trials()
    assert list(table.task.unique()) == ["mine"]
    values = result.scores().query("metric == 'squared_error' and domain == 'home'").value
    assert values.nunique() == 1
    with pytest.raises(ew.UserError, match="named"):
        ew.assay(quick(5), learners=[Quick()], out=tmp_path / "s")


def test_options_of_foreign_readers_reach_them(tmp_path: Path) -> None:
    path = tmp_path / "shop.market"
    path.write_text("anything")
    assert (ew.assay(str(path), seeds=1, out=tmp_path / "r", later=3).trials().status == "done").all()
    with pytest.raises(ew.UserError, match="later must be at least 1"):
        ew.assay(str(path), later=0, out=tmp_path / "s")
    with pytest.raises(ew.UserError, match="no option 'latr'; did you mean 'later'"):
        ew.assay(str(path), latr=0, out=tmp_path / "s")


def test_cached_arrays_are_made_once_and_mapped(tmp_path: Path) -> None:
    made = []

    def make() -> np.ndarray:
        made.append(1)
        return np.arange(5.0)

    run = ew.Run(folder=tmp_path)
    first, second = run.cached("key", make), ew.Run(folder=tmp_path).cached("key", make)
    assert isinstance(first, np.memmap)
    assert (first == second).all()
    assert len(made) == 1


def test_random_streams_are_independent_of_each_other() -> None:
    run = ew.Run(seed=1)
    assert run.rng("init").random() != run.rng("batches").random()
    assert run.rng("init").random() == ew.Run(seed=1).rng("init").random()
    assert run.rng("init").random() != ew.Run(seed=2).rng("init").random()


def test_assay_and_task_are_the_function_and_the_decorator_whatever_was_imported_first() -> None:
    import importlib

    importlib.import_module("elsewhere.assay.engine")
    importlib.import_module("elsewhere.task")
    assert callable(ew.assay)
    assert callable(ew.task)
