"""Tasks on tables: one source, held-out home, every other domain elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from elsewhere.data import Array, Examples, find, own
from elsewhere.errors import UserError, did_you_mean
from elsewhere.metrics import classification_metrics, regression_metrics
from elsewhere.run import Run
from elsewhere.splitting import held_out, home_name
from elsewhere.tables.data import Kind, Prepared, Roles, prepare
from elsewhere.tables.periods import as_periods
from elsewhere.tables.reading import Reading, read_table, reading
from elsewhere.task import Domain, Source, Task, task

FINDINGS = ("shift-decomposition",)
_PREPARED: dict[Any, tuple[Any, Prepared]] = {}


@task("table", files=("path",), revision=2)
def table(
    seed: int = 0,
    path: str | None = None,
    frame: Any = None,
    predict: str = "",
    domain: str = "",
    source: str | None = None,
    leave_out: str | None = None,
    cut: str | None = None,
    period: str | None = None,
    features: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    unit: str | None = None,
    group: str | None = None,
    weight: str | None = None,
    id: str | None = None,
    kind: Kind | None = None,
    carried: Sequence[str] = (),
    trained_on: str | None = None,
    home_share: float = 0.25,
    unlabelled: bool = False,
    as_stored: bool = False,
) -> Task[Examples]:
    """Make the task of one table and one protocol: ``source``, ``leave_out`` or ``cut`` says where to train.

    A part of the source (``home_share``, stratified by domain and label, units never split, redrawn with the seed) is
    held out as home; all other domains are judged whole. Rows are ordered by what they hold (by
    ``id`` where there is one), so that their order in the file changes nothing; ``as_stored``
    keeps that order.
    """
    missing = [name for name, value in (("path", frame if path is None else path), ("predict", predict or None), ("domain", domain or None)) if value is None]
    if missing or source is leave_out is cut is None:
        raise UserError(f"the task 'table' needs {missing[0] if missing else 'source, leave_out or cut'}; in a study file: options = {{ path = …, predict = …, domain = …, source = … }}")
    if len(protocols := [name for name, value in (("source", source), ("leave_out", leave_out), ("cut", cut)) if value is not None]) > 1:
        raise UserError(f"the task 'table' takes one of source, leave_out and cut, not {' and '.join(protocols)}: they say where to train")
    roles = Roles(predict, domain, None if features is None else tuple(features), tuple(exclude), unit, group, weight, id, kind, tuple(carried))
    ready = prepared(path, frame, roles, period, as_stored)
    places = sorted(set(ready.columns["domain"]))
    home = _home(places, source, leave_out, cut)
    return split(ready, places, home, Run(seed), home_share, trained_on, unlabelled, in_order=period is not None)


def prepared(
    path: str | None,
    frame: Any,
    roles: Roles,
    period: str | None,
    as_stored: bool = False,
) -> Prepared:
    """Return the prepared table; the last two are kept, since a study's trials ask for the same."""
    key = (_stamp(path), id(frame), roles, period, as_stored)
    if key not in _PREPARED:
        found = reading(str(path)) if frame is None else Reading(frame)
        raw = found.frame if period is None else as_periods(found.frame, roles.domain, period)
        while len(_PREPARED) >= 2:
            _PREPARED.pop(next(iter(_PREPARED)))
        made = prepare(raw, roles, as_stored)
        notes, said = (*found.notes, *made.notes), (*found.inferred, *made.inferred)
        _PREPARED[key] = (frame, replace(made, notes=notes, inferred=said))
    return _PREPARED[key][1]


def _stamp(path: str | None) -> Any:
    if path is None or not os.path.isfile(path):
        return path
    stat = os.stat(path)
    return os.path.abspath(path), stat.st_mtime_ns, stat.st_size


def _home(places: list[str], source: str | None, leave_out: str | None, cut: str | None) -> list[str]:
    for named in (source, leave_out, cut):
        if named is not None and named not in places:
            raise UserError(f"there is no domain {named!r}{did_you_mean(named, places)}")
    if len(places) < 2:
        raise UserError(f"the table has 1 domain, {places[0]!r}; an assay needs a source and at least 1 other")
    if source is not None:
        return [source]
    if cut is not None:
        if cut == places[0]:
            raise UserError(f"the cut {cut!r} is the first period: nothing lies before it to train on")
        return [p for p in places if p < cut]
    return [p for p in places if p != leave_out]


def split(
    ready: Prepared,
    places: list[str],
    home: list[str],
    run: Run,
    home_share: float = 0.25,
    trained_on: str | None = None,
    unlabelled: bool = False,
    in_order: bool = False,
) -> Task[Examples]:
    """Return the task that trains in ``home`` and is judged on its held-out part and in every other place."""
    if not 0 < home_share < 1:
        raise UserError(f"the home share must lie between 0 and 1, not {home_share}")
    place = ready.columns["domain"]
    data = Examples(ready.inputs, ready.labels, ready.columns, ready.classes)
    inside = np.flatnonzero(np.isin(place, home))
    spoilt = _spoilt(ready, trained_on)
    test = held_out(data.take(inside), home_share, run.rng("split")) & ~spoilt[inside]
    if not test.any() or test.all():
        units = f" of {len(set(ready.columns['unit'][inside]))} units" if "unit" in ready.columns else ""
        raise UserError(f"{', '.join(home)} has {len(inside)} rows{units}, too few to hold out {home_share:.0%} of them")
    train = data.take(inside[~test])
    domains = [Domain(home_name(home, places), data.take(inside[test]), "home")]
    granted = {}
    others = [p for p in places if p not in home]
    for order, name in enumerate(others):
        rows = np.flatnonzero((place == name) & ~spoilt)
        if not len(rows):
            raise UserError(f"no row of {name!r} is left to judge: {trained_on!r} marks all of them as training rows")
        if unlabelled:
            judged = held_out(data.take(rows), 0.5, run.rng(f"unlabelled {name}"))
            granted[name] = data.take(rows[~judged]).unlabelled()
            rows = rows[judged]
        domains.append(Domain(name, data.take(rows), "elsewhere", {"order": order + 1} if in_order else {}))
    metrics = classification_metrics("group" in ready.columns, len(ready.classes)) if ready.classes else regression_metrics()
    return Task(Source(train, unlabelled=granted), domains, metrics, FINDINGS, (*ready.notes, *_unseen_classes(train, data, others)))


def _spoilt(ready: Prepared, trained_on: str | None) -> Array:
    if trained_on is None:
        return np.zeros(len(ready.labels), bool)
    values = ready.columns[own(trained_on)]
    known = {"true", "1", "yes", "false", "0", "no"}
    text = np.array([str(v).lower().removesuffix(".0") for v in values.tolist()])
    if odd := set(text) - known:
        raise UserError(f"column {trained_on!r} says {sorted(odd)[0]!r}; expected true or false: was the row trained on?")
    return np.isin(text, ["true", "1", "yes"])


def _unseen_classes(train: Examples, data: Examples, others: list[str]) -> list[str]:
    if data.classes is None or train.labels is None:
        return []
    unseen = sorted(set(range(len(data.classes))) - set(np.unique(train.labels).tolist()))
    labels, place = np.asarray(data.labels), data.columns["domain"]
    said = []
    for k in unseen:
        where = [p for p in others if (labels[place == p] == k).any()]
        if where:
            said.append(f"Class {data.classes[k]} never occurs in the source; in {', '.join(where)} no learner can get it right.")
    return said


def penguins_path() -> str:
    """Return the path of the Palmer penguins (A. Horst, A. Hill, K. Gorman; CC0), which ship with the package."""
    return str(files("elsewhere.tables").joinpath("penguins.csv"))


MEASUREMENTS = ("bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g")


@task("penguins", choices={"source": ["Adelie"]}, learners=("prior", "logistic-regression", "random-forest"))
def penguins(seed: int = 0, source: str = "Adelie", features: Sequence[str] = MEASUREMENTS) -> Task[Examples]:
    """Female or male, learnt on one species and asked of the others."""
    roles = {"predict": "sex", "domain": "species", "features": tuple(features)}
    return table(seed, path=penguins_path(), source=source, **roles, as_stored=True)


HEART_COLUMNS = (
    *("age", "sex", "chest_pain", "resting_pressure", "cholesterol", "fasting_sugar", "resting_ecg"),
    *("max_heart_rate", "exercise_angina", "st_depression", "st_slope", "vessels", "thalassemia", "disease"),
)
HOSPITALS = {"cleveland": "cleveland", "hungarian": "hungarian", "switzerland": "switzerland", "va": "long-beach"}


@task("heart-hospitals", choices={"source": ["cleveland"]}, files=("path",), learners=("prior", "logistic-regression", "boosting"))
def heart_hospitals(seed: int = 0, source: str = "cleveland", path: str | None = None, features: Sequence[str] | None = None, home_share: float = 0.25) -> Task[Examples]:
    """Heart disease (more than 50 % narrowing), trained in one hospital. Detrano et al. 1989, UCI, CC BY 4.0."""
    frame = read_heart(path or find("heart-hospitals", "download 'Heart Disease' from the UCI repository into that folder"))
    return table(seed, frame=frame, predict="disease > 0", domain="hospital", source=source, features=features, home_share=home_share, as_stored=True)


_FRAMES: dict[str, pd.DataFrame] = {}


def read_heart(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read ``heart.csv``, or the four files that UCI publishes, ``processed.{cleveland,hungarian,switzerland,va}.data``."""
    place = Path(path)
    key = str(place.resolve())
    if key not in _FRAMES:
        joined = place / "heart.csv" if place.is_dir() else place
        if joined.is_file():
            _FRAMES[key] = read_table(joined)
        else:
            _FRAMES[key] = pd.concat([_published(place, file, name) for file, name in HOSPITALS.items()], ignore_index=True)
    return _FRAMES[key]


def _published(folder: Path, file: str, hospital: str) -> pd.DataFrame:
    path = folder / f"processed.{file}.data"
    if not path.exists():
        raise UserError(f"{folder} has neither heart.csv nor {path.name}; download 'Heart Disease' from the UCI repository")
    frame = pd.read_csv(path, names=list(HEART_COLUMNS), na_values="?")
    return frame.assign(hospital=hospital)


ADULT_DROPPED = ("fnlwgt", "race", "native-country", "education")


@task("adult", files=("path",), learners=("prior", "logistic-regression", "parity-regularised:penalty=20", "two-heads:slack=0.02"))
def adult(seed: int = 0, path: str | None = None, domain: str | None = None, source: str | None = None, train: int = 20_000, validation: int = 6_000) -> Task[Examples]:
    """Yearly income above 50,000 dollars in the US census of 1994, sex as the group, race and country left out (R. Kohavi and B. Becker, UCI, CC BY 4.0).

    Without ``domain`` all is home: 20,000 rows to train on, 6,000 for validation, the rest judged. With one ("workclass", "occupation") trained in ``source`` and judged elsewhere.
    """
    place = Path(path or find("adult", "download 'Adult' from the UCI repository into that folder"))
    frame = _adult(str(place / "adult.csv.gz" if place.is_dir() else place))
    if domain is not None:
        if domain not in frame:
            raise UserError(f"there is no column {domain!r} to take domains from{did_you_mean(domain, frame.columns)}")
        chosen = source or str(frame[domain].value_counts().index[0])
        return table(seed, frame=_keep(frame, (str(place), domain)), predict="income-per-year", domain=domain, source=chosen, group="sex", as_stored=True)
    ready = prepared(None, _keep(frame.assign(everywhere="home"), (str(place), "")), Roles("income-per-year", "everywhere", group="sex"), None, as_stored=True)
    if not 0 < train + validation < len(ready.labels):
        raise UserError(f"{train} rows to train on and {validation} for validation leave none of {len(ready.labels)} to judge")
    whole = Examples(ready.inputs, ready.labels, ready.columns, ready.classes)
    order = np.random.default_rng(seed).permutation(len(whole))
    parts = [whole.take(rows) for rows in np.split(order, [train, train + validation])]
    return Task(Source(parts[0], parts[1]), [Domain("home", parts[2], "home")], classification_metrics(True, 2), FINDINGS, ready.notes)


def _adult(path: str) -> pd.DataFrame:
    if path not in _FRAMES:
        raw = read_table(path).drop(columns=list(ADULT_DROPPED))
        for name in ("capital-gain", "capital-loss"):
            raw[name] = np.log1p(raw[name])
        _FRAMES[path] = raw.replace("?", None)
    return _FRAMES[path]


ACS_NUMBERS, ACS_CODES = ("AGEP", "SCHL", "WKHP"), ("COW", "MAR", "OCCP", "POBP", "RELP")


@task("acs-income", files=("path",), learners=("prior", "logistic-regression", "boosting"))
def acs_income(seed: int = 0, source: str | None = None, path: str | None = None, group: str = "SEX") -> Task[Examples]:
    """Income above 50,000 dollars of people over 16 who work, from the Census Bureau's own files (ACSIncome of Ding et al. 2021).

    Args:
        source: the code of the state to train in; default: the first file's.
        path: a folder of ``psam_pXX.csv``, one a state.
        group: SEX or RAC1P; neither is a feature.
    """
    place = Path(path or find("acs-income", "put psam_pXX.csv of the American Community Survey into that folder"))
    frame = read_acs_income(place)
    if group not in ("SEX", "RAC1P"):
        raise UserError(f"group must be SEX or RAC1P, not {group!r}")
    chosen = source or str(frame["state"].iloc[0])
    return table(seed, frame=_keep(frame, (str(place), "acs-income")), predict="PINCP > 50000", domain="state", source=chosen, group=group, features=(*ACS_NUMBERS, *ACS_CODES), as_stored=True)


def read_acs_income(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read ``psam_pXX.csv`` files and keep people over 16 with PINCP > 100, WKHP > 0 and PWGTP ≥ 1; codes become text, the state is the file's.

    Raises:
        UserError: no such file, or one lacks a column.
    """
    files = sorted(Path(path).glob("psam_p*.csv")) if Path(path).is_dir() else [Path(path)]
    if not files or not files[0].exists():
        raise UserError(f"{path} holds no psam_pXX.csv")
    key = "|".join(str(f.resolve()) for f in files)
    if key not in _FRAMES:
        _FRAMES[key] = pd.concat([_one_state(f) for f in files], ignore_index=True)
    return _FRAMES[key]


def _one_state(file: Path) -> pd.DataFrame:
    frame = read_table(file)
    if missing := [c for c in (*ACS_NUMBERS, *ACS_CODES, "SEX", "RAC1P", "PINCP", "PWGTP") if c not in frame]:
        raise UserError(f"{file} has no column {missing[0]!r}: is it a person file of the American Community Survey?")
    kept = frame[(frame.AGEP > 16) & (frame.PINCP > 100) & (frame.WKHP > 0) & (frame.PWGTP >= 1)]
    codes = {c: kept[c].map(lambda v: None if pd.isna(v) else str(int(v))) for c in (*ACS_CODES, "SEX", "RAC1P")}
    return kept[[*ACS_NUMBERS, "PINCP"]].assign(**codes, state=file.stem.removeprefix("psam_p"))


NON_WAGE = ("interest", "public_assistance", "retirement", "ssi", "social_security", "other")


@task("acs-wages", choices={"source": ["CA"]}, files=("path",), learners=("prior", "logistic-regression", "boosting"))
def acs_wages(seed: int = 0, source: str = "CA", path: str | None = None, states: Sequence[str] = ("FL", "IL", "MD", "AR", "KY", "CO"), bins: bool = False) -> Task[Examples]:
    """Wages above 35,000 dollars of people aged 18 to 64, from age, marital status and which other incomes they have (US Census Bureau).

    ``bins``: age in ten categories of five years. ``states``: those judged; none given by name: all others.
    """
    place = Path(path or find("acs-wages", "it is the American Community Survey sample of the microweight package"))
    frame = _acs(str(place / "acs_wages.parquet" if place.is_dir() else place))
    named = [str(s) for s in frame.state.unique() if s != source] if not len(states) else list(states)
    frame = frame[frame.state.isin([source, *named])]
    if bins:
        frame = frame.assign(age=((frame.age - 18) // 5).map(lambda k: f"{18 + 5 * k} to {22 + 5 * k}"))
    return table(seed, frame=_keep(frame, (str(place), source, *named, str(bins))), predict="income_wage > 35000", domain="state", source=source, group="sex", as_stored=True)


def _acs(path: str) -> pd.DataFrame:
    if path not in _FRAMES:
        raw = read_table(path)
        raw = raw[raw.age.between(18, 64)]
        _FRAMES[path] = raw[["state", "sex", "age", "marital", "income_wage"]].assign(**{f"has_{k}": raw[f"income_{k}"] != 0 for k in NON_WAGE})
    return _FRAMES[path]


def _keep(frame: pd.DataFrame, key: tuple[str, ...]) -> pd.DataFrame:
    """Return one and the same object for one selection, so that it is prepared once."""
    return _FRAMES.setdefault("|".join(key), frame)
