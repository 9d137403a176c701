"""Tables of interventions on the command line, explainers of causal results, and studies whose learners are kept to some tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import elsewhere as ew
from elsewhere.assay.plan import plan
from elsewhere.assay.study import from_json, study_of, to_json
from elsewhere.catalogue import options
from elsewhere.causal import worlds
from elsewhere.causal.causal_map import CausalArms, CausalMap
from elsewhere.causal.figures import arms_figure, ellipse, graph_figure, traversals
from elsewhere.causal.questions import Gaussian
from elsewhere.errors import UserError
from elsewhere.explainer import Image
from elsewhere.nn.pairs import Pairs

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def screen(tmp_path: Path) -> Path:
    """A table of a screen: six columns, three single interventions, one combination, and where nothing was done."""
    world = worlds.linear_gaussian_world(3, 6, seed=1, shifts=True)
    rng = np.random.default_rng(0)
    data = world.environments(400, rng)
    names = np.array(["", "heat", "salt", "light"], object)[data.environment]
    frame = pd.DataFrame(data.inputs, columns=[f"gene_{k}" for k in range(6)]).assign(done=names)
    both = pd.DataFrame(world.mix(world.draw([world.targets[0], world.targets[1]], 200, rng)), columns=frame.columns[:6]).assign(done="heat+salt")
    path = tmp_path / "screen.parquet"
    pd.concat([frame, both], ignore_index=True).to_parquet(path)
    return path


def test_a_model_of_a_screen_says_what_two_interventions_do(run: Run, screen: Path, tmp_path: Path) -> None:
    code, out, _ = run("fit", screen, "--intervention", "done", "--out", tmp_path / "model")
    assert code == 0
    assert "fitted linear-interventional on 1,600 examples" in out
    code, out, _ = run("predict", tmp_path / "model", "--do", "heat,salt", "--size", 300, "--out", tmp_path / "p.parquet")
    assert (code, "300 predictions" in out) == (0, True)
    told, seen = pd.read_parquet(tmp_path / "p.parquet"), pd.read_parquet(screen)
    assert set(told.do) == {"heat+salt"}
    assert told.id.tolist() == list(range(300))
    truth, reference = seen[seen.done == "heat+salt"].iloc[:, :6], seen[seen.done == ""].iloc[:, :6]
    near, far = (np.square(x.mean() - truth.mean()).sum() for x in (told[truth.columns], reference))
    assert near < 0.2 * far
    again = run("predict", tmp_path / "model", "--do", "heat+salt", "--size", 300, "--out", tmp_path / "q.parquet")
    assert again[0] == 0
    assert pd.read_parquet(tmp_path / "q.parquet").equals(told)
    assert run("predict", tmp_path / "model", "--do", "heat", "--seed", 5, "--strength", 2.0)[0] == 0


def test_a_model_of_a_screen_finds_latents_of_new_rows(run: Run, screen: Path, tmp_path: Path) -> None:
    run("fit", screen, "--intervention", "done", "--out", tmp_path / "model")
    code, out, _ = run("predict", tmp_path / "model", screen)
    assert code == 0
    assert out.splitlines()[0].split() == ["id", "z1", "z2", "z3"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--do", "heet"], "the model knows no intervention 'heet'; did you mean 'heat'?"),
        (["--do", "heat,heat"], "names an intervention twice"),
        (["--do", "heat", "--size", 0], "--size must be at least 1"),
        ([], "say what is done, --do heat,light"),
        (["screen.parquet", "--do", "heat"], "needs no data"),
    ],
)
def test_questions_that_cannot_be_answered_are_one_line(run: Run, screen: Path, tmp_path: Path, arguments: list[object], told: str) -> None:
    run("fit", screen, "--intervention", "done", "--out", tmp_path / "model")
    code, _, error = run("predict", tmp_path / "model", *arguments)
    assert (code, error.count("\n")) == (2, 1)
    assert told in error


def test_models_of_other_readers_take_no_questions(run: Run, people: Path, tmp_path: Path) -> None:
    run("fit", people, "--predict", "income", "--learner", "logistic-regression", "--out", tmp_path / "model")
    code, _, error = run("predict", tmp_path / "model", people, "--do", "heat")
    assert (code, "takes no --do" in error) == (2, True)
    code, _, error = run("predict", tmp_path / "model")
    assert (code, "a file of the kind" in error) == (2, True)
    assert {"do", "size", "seed", "strength"} <= set(options("readers", "asks"))


def test_a_screen_is_assayed_on_its_combinations(run: Run, screen: Path, tmp_path: Path) -> None:
    code, out, _ = run("assay", screen, "--intervention", "done", "--seeds", 2, "--learner", "linear-interventional", "--learner", "additive-interventions", "--out", tmp_path / "r")
    assert code == 0
    assert "asked: heat+salt" in out
    result = ew.Result(tmp_path / "r")
    assert {"single interventions", "combinations"} <= set(result.scores().domain)
    assert result.scores().query("metric == 'relative_energy'").value.notna().all()
    assert "causal-map" in result.findings()
    assert (tmp_path / "r" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: f[f.done != "heat+salt"], "no row of 'done' has several interventions"),
        (lambda f: f.assign(done=f.done.replace("heat+salt", "heat+steam")), "'steam' is only ever done together"),
        (lambda f: f[f.done != ""], "no row of 'done' is observational"),
        (lambda f: f.assign(gene_0="a"), "column 'gene_0' holds text"),
        (lambda f: f.drop(columns="done"), "has no column 'done'"),
    ],
)
def test_tables_that_cannot_be_assayed_are_one_line(run: Run, screen: Path, tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], told: str) -> None:
    path = tmp_path / "changed.csv"
    change(pd.read_parquet(screen)).to_csv(path, index=False)
    code, _, error = run("assay", path, "--intervention", "done", "--seeds", 1, "--out", tmp_path / "r")
    assert (code, error.count("\n")) == (2, 1)
    assert told in error
    assert not (tmp_path / "r").exists()


def test_a_frame_is_read_from_python(screen: Path, tmp_path: Path) -> None:
    model = ew.fit(pd.read_parquet(screen), "linear-interventional", intervention="done", reader="interventions")
    assert model.predict(do="heat,light", size=4).shape == (4, 8)
    with pytest.raises(UserError, match="these are data already"):
        model.predict(worlds.linear_gaussian_world(2, 2).environments(5, np.random.default_rng(0)), do="heat")


def test_a_model_of_a_task_answers_too(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("fit", "causal/unseen-pairs:n=3,d=5,size=200", "--learner", "linear-interventional", "--out", tmp_path / "m")
    assert (code, "relative_w2 in single interventions" in out) == (0, True)
    assert run("predict", tmp_path / "m", "--do", "env_1,env_2", "--size", 5)[0] == 0
    code, _, error = run("predict", tmp_path / "m", "--do", "env_9")
    assert (code, "no environment 'env_9'" in error) == (2, True)


# --- explainers -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> ew.Result:
    return ew.assay("causal/unseen-pairs", learners=["linear-interventional", "additive-interventions"], seeds=1, out=tmp_path_factory.mktemp("unseen") / "r", n=3, d=5, size=500)


def test_the_map_shows_variables_graph_outcome_strength_and_check(unseen: ew.Result) -> None:
    finding = unseen.explain("causal-map")
    titles = " ".join(finding.figures)
    for word in ("|correlation|", "graph of the latents", "95 % of the observations", "strength", "Third eigenvalue"):
        assert word in titles
    assert "Assumptions" in finding.tables
    assert finding.sentence.startswith("linear-interventional, seed 0: its codes match")
    pairs = finding.tables["Relative error of each question (first seed and task)"]
    assert set(pairs.id) == {"env_1+env_2", "env_1+env_3", "env_2+env_3"}


def test_the_map_takes_a_learner_and_a_question(unseen: ew.Result) -> None:
    assert "env_2+env_3" in " ".join(unseen.explain("causal-map", question="env_2+env_3").figures)
    assert unseen.explain("causal-map", learner="additive-interventions").sentence.startswith("additive-interventions")
    with pytest.raises(UserError, match="did you mean 'linear-interventional'"):
        unseen.explain("causal-map", learner="linear-intervention")
    with pytest.raises(UserError, match="no question 'env_9"):
        unseen.explain("causal-map", question="env_9+env_1")
    assert "no task of this result asks about interventions on pictures" in str(CausalArms().applies(unseen))


def test_explainers_of_causes_do_not_apply_to_tables(tmp_path: Path) -> None:
    result = ew.assay("penguins", learners=["prior"], seeds=1, out=tmp_path / "p")
    assert CausalMap().applies(result) == "no task of this result has causal variables"


def test_three_arms_of_a_small_study(tmp_path: Path) -> None:
    study = study_of(
        """
        seeds = 1
        [[task]]
        name = "balls"
        options = { split = "extrapolation", count = 1, values = 6, resolution = 16 }
        [[task]]
        name = "bench/interventions"
        options = { size = 40, resolution = 16 }
        [task.sweep]
        noise = [0.0, 0.1]
        [[learner]]
        name = "cnn"
        label = "supervised"
        on = ["balls"]
        steps = 3
        batch = 16
        [[learner]]
        name = "read-out"
        label = "supervised + additive"
        on = ["bench/interventions"]
        encoder = { name = "cnn", steps = 3, batch = 16 }
        """
    )
    result = ew.assay(study, out=tmp_path / "r")
    assert len(result.trials()) == 3
    assert len(result.plan()) == 3
    finding = result.explain("causal-arms")
    assert {k[:5] for k in finding.tables} == {"Arm 1", "Arm 2", "Arm 3"}
    assert "supervised + additive" in finding.sentence


def test_learners_are_kept_to_their_tasks_and_stay_so_in_the_folder() -> None:
    text = """
    tasks = ["penguins", "causal/linear"]
    learners = ["ridge-regression"]
    [[learner]]
    name = "prior"
    on = ["penguins"]
    """
    study = study_of(text.replace('learners = ["ridge-regression"]', ""))
    with pytest.raises(UserError, match="did you mean 'penguins'"):
        study_of(text.replace('on = ["penguins"]', 'on = ["penguin"]'))
    with pytest.raises(UserError, match="on of prior is a list"):
        study_of(text.replace('on = ["penguins"]', 'on = "penguins"'))
    assert {t.task.name for t in plan(study)} == {"penguins"}
    assert [n.on for n in from_json(to_json(study)).learners] == [("penguins",)]


def test_a_learner_that_cannot_be_asked_a_question_is_judged_where_it_can(tmp_path: Path) -> None:
    result = ew.assay("causal/unseen-pairs", learners=["ridge-regression"], seeds=1, out=tmp_path / "r", n=3, d=5, size=100)
    assert result.trials().status.tolist() == ["done"]
    scores = result.scores()
    assert scores.query("metric == 'mcc'").value.item() > 0.9
    assert scores.query("domain == 'all pairs'").reason.item() == "RidgeRegression takes Examples, and these data are Interventions"


def test_a_headline_that_is_known_at_home_alone_is_said(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("assay", "causal/nonlinear:n=2,d=4,size=60", "--learner", "principal-components", "--seeds", 1, "--out", tmp_path / "r")
    assert code == 0
    assert "No domain elsewhere was judged by mcc" in out


def test_graphs_are_drawn_with_what_is_right_and_wrong() -> None:
    learnt, truth = np.array([[0, 1.0, -2.0], [0, 0, 0], [0, 0, 0]]), np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]])
    figure = graph_figure(learnt, ["a", "<b>", "c"], truth)
    names = {t.name for t in figure.data if t.name}
    assert names == {"right", "not in the truth", "missed"}
    assert len(figure.layout.annotations) == 3
    assert "&lt;b&gt;" in str(figure.to_json())


def test_an_ellipse_holds_95_percent() -> None:
    g = Gaussian(np.array([1.0, 2.0]), np.array([[2.0, 0.8], [0.8, 1.0]]))
    x, y = ellipse(g, (0, 1), 400)
    rows = g.sample(20_000, np.random.default_rng(0)) - g.mean
    inside = np.einsum("ni,ij,nj->n", rows, np.linalg.inv(g.covariance), rows)
    edge = np.stack([x, y], 1) - g.mean
    radius = np.einsum("ni,ij,nj->n", edge, np.linalg.inv(g.covariance), edge)
    assert np.ptp(radius) < 1e-6
    assert (inside < radius[0]).mean() == pytest.approx(0.95, abs=0.01)


def test_traversals_are_one_picture_with_a_row_a_latent() -> None:
    made = traversals(lambda z: np.tile(z[:, :1, None, None], (1, 1, 8, 8)), np.random.default_rng(0).random((20, 3)), 3)
    assert isinstance(made, Image)
    assert made.alt.startswith("Rows: latents 1 to 3")


def test_arms_can_be_drawn_without_the_first() -> None:
    empty = pd.DataFrame(columns=["learner", "split", "value"])
    told = pd.DataFrame({"learner": ["a"], "domain": ["pairs"], "value": [0.5]})
    figure = arms_figure(empty, told, pd.DataFrame({"noise": [0.0, 0.1], "learner": ["a", "a"], "value": [0.5, 0.6]}))
    assert len(figure.data) == 2


def test_partners_with_a_moved_factor_keep_the_others() -> None:
    grid = np.stack(np.unravel_index(np.arange(24), (4, 6)), 1)
    pairs = Pairs(grid[:20], (4, 6))  # the last row of the grid is cut short
    rows = np.arange(20)
    second = pairs.moved(rows, 1, np.array([4, 5]), np.random.default_rng(0))
    able = grid[rows, 0] < 3
    assert (grid[second][able, 1] >= 4).all()
    assert (grid[second][:, 0] == grid[rows, 0]).all()
    assert (second[~able] == rows[~able]).all()
