"""Study files and learner strings: what they mean, and that no text breaks them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import elsewhere as ew
from elsewhere.assay.study import from_json, learners_of, parse_learner, read_study, seeds_of, split_options, study_of, to_json
from elsewhere.catalogue import entries
from elsewhere.tables.learners import Boosting, LogisticRegression

FULL = """
claim = "a claim"
reference = "a paper"
seeds = [3, 5]
tasks = ["penguins"]
learners = ["prior", "boosting:max_depth=3,learning_rate=0.2"]

[[task]]
name = "worlds/known-terms"
options = { relation = 0.1 }
[task.sweep]
shift = [0.0, 2.0]

[[learner]]
name = "logistic-regression"
[learner.sweep]
C = [0.1, 1]

[[learner]]
name = "elsewhere.learner.Probe"
label = "probe"
encoder = { name = "logistic-regression", C = 2.0 }
head = { name = "nearest-neighbours" }

[[expect]]
metric = "accuracy"
where = { learner = "boosting" }
at_least = 0.5
"""


def test_a_study_file_says_what_it_means() -> None:
    study = study_of(FULL)
    assert [t.label for t in study.tasks] == ["penguins:source=Adelie", "worlds/known-terms:relation=0.1,shift=0.0", "worlds/known-terms:relation=0.1,shift=2.0"]
    assert [n.label for n in study.learners] == ["prior", "boosting:max_depth=3,learning_rate=0.2", "logistic-regression:C=0.1", "logistic-regression:C=1", "probe"]
    assert study.learners[1].learner == Boosting(max_depth=3, learning_rate=0.2)
    assert study.learners[4].learner.encoder == LogisticRegression(C=2.0)
    assert study.seeds == (3, 5)
    assert study.claim == "a claim"


def test_a_result_folder_makes_the_same_study_again() -> None:
    study = study_of(FULL)
    again = from_json(to_json(study))
    assert [t.key for t in again.tasks] == [t.key for t in study.tasks]
    assert [n.learner for n in again.learners] == [n.learner for n in study.learners]
    assert again.expectations == study.expectations


@pytest.mark.parametrize("name", sorted(entries("studies")))
def test_bundled_studies_are_well_formed(name: str) -> None:
    from elsewhere.assay.api import study_path

    study = read_study(study_path(name))
    assert study.claim
    assert study.expectations or study.claim.endswith("?")  # it claims something, or asks


@given(st.text(max_size=60))
@example("boosting:max_depth=3,")
@example("a:b=c=d")
@example("sklearn.svm.SVC:kernel=linear")
@example("\x00")
@example("..")
@settings(max_examples=300, deadline=None)
def test_no_learner_string_breaks_the_parser(text: str) -> None:
    try:
        parse_learner(text)
    except ew.UserError as error:
        assert "\n" not in str(error)


names = st.sampled_from(sorted(entries("learners")))
fields = st.dictionaries(
    st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.from_regex(r"[a-z0-9.]{1,8}", fullmatch=True)), max_size=4
)


@given(names, fields)
@settings(max_examples=150, deadline=None)
def test_fields_survive_the_grammar(name: str, told: dict[str, object]) -> None:
    text = name + (":" + ",".join(f"{k}={v}" for k, v in told.items()) if told else "")
    found, options = split_options(text)
    assert found == name
    assert list(options) == list(told)
    for key, value in told.items():
        if not isinstance(value, str):
            assert options[key] == value


toml_values = st.recursive(
    st.one_of(st.booleans(), st.integers(-10, 10), st.floats(-10, 10), st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), inner, max_size=3)),
    max_leaves=6,
)
keys = st.sampled_from(["claim", "reference", "seeds", "threads", "tasks", "task", "learners", "learner", "expect", "odd"])


@given(st.dictionaries(keys, toml_values, max_size=5))
@settings(max_examples=300, deadline=None)
def test_no_study_breaks_the_parser(content: dict[str, object]) -> None:
    try:
        study_of(_toml(content))
    except ew.UserError as error:
        assert "\n" not in str(error)


def _toml(content: dict[str, object]) -> str:
    def value(v: object) -> str:
        if isinstance(v, bool):
            return str(v).lower()
        if isinstance(v, str):
            return '"' + v.replace("\\", "\\\\").replace('"', '\\"') + '"'
        if isinstance(v, list):
            return "[" + ", ".join(map(value, v)) + "]"
        if isinstance(v, dict):
            return "{" + ", ".join(f"{k} = {value(x)}" for k, x in v.items()) + "}"
        return repr(v)

    return "\n".join(f"{k} = {value(v)}" for k, v in content.items())


@given(st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_no_bytes_break_the_parser(content: bytes) -> None:
    try:
        study_of(content)
    except ew.UserError as error:
        assert "\n" not in str(error)


def test_seeds_are_a_number_or_a_list() -> None:
    assert seeds_of(3) == (0, 1, 2)
    assert seeds_of([7, 9]) == (7, 9)


def test_labels_tell_learners_apart() -> None:
    from sklearn.linear_model import LogisticRegression as Estimator

    named = learners_of([Boosting(), Boosting(max_depth=2), Estimator(), ew.named("mine", Estimator(C=2))])
    assert [n.label for n in named] == ["boosting", "boosting:max_depth=2", "LogisticRegression", "mine"]


def test_a_trials_identity_is_what_it_computes_and_nothing_else(people: Path, tmp_path: Path) -> None:
    from elsewhere.assay.api import study_from
    from elsewhere.assay.plan import plan

    def key(**more: object) -> str:
        options = {"predict": "income", "domain": "state", "source": ["CA"], **more}
        path = options.pop("path", people)
        return plan(study_from(str(path), [options.pop("learner", "boosting")], [options.pop("seed", 0)], options=options))[0].key

    copy = tmp_path / "elsewhere" / people.name
    copy.parent.mkdir()
    copy.write_bytes(people.read_bytes())
    assert key() == key(path=copy)  # where a file lies does not matter
    assert len({key(), key(seed=1), key(learner="boosting:rounds=50"), key(source=["TX"]), key(group="job")}) == 5
    copy.write_bytes(people.read_bytes() + b"41,clerk,30,CA,1\n")
    assert key() != key(path=copy)


def test_revisions_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from elsewhere.identity import identity

    before = identity(Boosting())
    monkeypatch.setattr(Boosting, "revision", 2)
    assert identity(Boosting()) != before


def test_what_has_no_identity_offers_named() -> None:
    from elsewhere.identity import identity

    with pytest.raises(ew.UserError, match=r"pass named\('a-name', …\)"):
        identity({"f": lambda x: x})


def test_a_name_stands_for_the_learner_inside() -> None:
    made = parse_learner("dropped:base=logistic-regression,fraction=0.1").learner
    assert type(made.base).__name__ == "LogisticRegression"
    with pytest.raises(ew.UserError, match="did you mean 'logistic-regression'"):
        parse_learner("reweighted:base=logistic-regresion")
    with pytest.raises(ew.UserError, match="needs a learner as base, not 3"):
        _ = parse_learner("reweighted:base=3").learner.accepts


# --- options with a closed set of values -----------------------------------------------------------------------------


def closed_fields() -> list[tuple[str, str]]:
    """Return every field of a catalogued learner whose type closes its set of values."""
    from elsewhere.catalogue import get
    from elsewhere.closed import _closed

    return [(name, field) for name in sorted(entries("learners")) for field in _closed(get("learners", name))]


@pytest.mark.parametrize(("name", "field"), [f for f in closed_fields() if f[0] != "module"])
def test_a_learners_closed_field_takes_none_but_its_values(name: str, field: str) -> None:
    from elsewhere.assay.study import construct
    from elsewhere.catalogue import get
    from elsewhere.closed import check_options

    with pytest.raises(ew.UserError, match=f"{field} must be .* not 'no-such-value'"):
        construct(get("learners", name), {field: "no-such-value"}, name)
    default = get("learners", name).__dataclass_fields__[field].default
    check_options(get("learners", name), {field: default})


def test_a_learner_made_in_python_is_checked_before_anything_runs(people: Path, tmp_path: Path) -> None:
    from elsewhere.nn.learners import Mlp

    for learner in (Mlp(schedule="cosin"), ew.Probe(Mlp(schedule="cosin"), LogisticRegression())):  # type: ignore[arg-type]
        with pytest.raises(ew.UserError, match="schedule must be .* not 'cosin'; did you mean 'cosine'"):
            ew.assay("penguins", learners=[learner], seeds=1, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


TABLE = {"predict": "income", "domain": "state"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kind": "regresion"}, "kind must be classification or regression, not 'regresion'; did you mean 'regression'"),
        ({"features": ["age"], "exclude": ["age"]}, "'age' is named in --features and in --exclude"),
    ],
)
def test_a_wrong_option_of_a_table_is_one_line_everywhere(people: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: dict[str, object], told: str) -> None:
    """In Python, on the command line, in a study file, for an assay and for a fit."""
    from elsewhere.cli import main

    given = {**TABLE, **options}
    with pytest.raises(ew.UserError, match=told):
        ew.assay(people, learners=["prior"], out=tmp_path / "r", **given)
    with pytest.raises(ew.UserError, match=told):
        ew.fit(people, "prior", **given)
    flags = [f"--{k}={v if isinstance(v, str) else v[0]}" for k, v in given.items()]  # type: ignore[index]
    (tmp_path / "s.toml").write_text("learners = ['prior']\n[[task]]\nname = 'table'\n" + f"options = {{ path = '{people}', source = 'CA', " + _toml(given).replace("\n", ", ") + " }\n")
    for arguments in (["assay", str(people), *flags, "--out", str(tmp_path / "r")], ["assay", str(tmp_path / "s.toml"), "--out", str(tmp_path / "r")]):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert told in error
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("both", [{"source": "CA", "leave_out": "TX"}, {"source": "CA", "cut": "TX"}, {"leave_out": "CA", "cut": "TX"}])
def test_a_table_has_one_protocol(people: Path, tmp_path: Path, both: dict[str, str]) -> None:
    from elsewhere.assay.plan import plan

    study = "learners = ['prior']\n[[task]]\nname = 'table'\n" + f"options = {{ path = '{people}', " + _toml({**TABLE, **both}).replace("\n", ", ") + " }\n"
    with pytest.raises(ew.UserError, match=" and ".join(both)):
        plan(study_of(study))


def test_a_task_of_pictures_has_one_protocol() -> None:
    import numpy as np

    from elsewhere.images.folders import domains_task

    data = ew.Examples(np.zeros((8, 1, 2, 2)), np.arange(8) % 2, {"domain": np.array(list("aabbccdd"))}, ("x", "y"))
    with pytest.raises(ew.UserError, match="source or leave_out, not both"):
        domains_task(data, source="a", leave_out="b")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[learner]]\nname = 'prior'\non = ['penguin']\n", "kept to the task 'penguin', which the study does not have; did you mean 'penguins'"),
        ("[[learner]]\nname = 'mlp'\nschedule = 'cosin'\n", "schedule must be constant, cosine, stepwise or halving, not 'cosin'; did you mean 'cosine'"),
        ("[[learner]]\nname = 'mlp'\n[learner.sweep]\nschedule = ['cosine', 'cosin']\n", "not 'cosin'"),
        ("learners = ['prior']\n[[task]]\nname = 'causal/transitions'\noptions = { kind = 'plan' }\n", "kind must be mixed or plain, not 'plan'; did you mean 'plain'"),
    ],
)
def test_a_study_names_what_there_is(text: str, told: str) -> None:
    with pytest.raises(ew.UserError, match=told):
        study_of(text if "tasks" in text or "[[task]]" in text else f"tasks = ['penguins']\n{text}")


@pytest.mark.parametrize("name", ["penguins-elsewhere", "accuracy-on-the-line", "known-terms"])
def test_expectations_of_bundled_studies_name_what_there_is(name: str) -> None:
    from elsewhere.assay.api import study_path
    from elsewhere.assay.plan import plan

    assert plan(read_study(study_path(name)))
