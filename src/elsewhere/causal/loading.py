"""Environments out of data frames, files, and the light tunnel of the Causal Chamber project."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from elsewhere.causal.data import OBSERVATIONAL, Environments
from elsewhere.causal.questions import JOIN
from elsewhere.data import Array
from elsewhere.errors import UserError, did_you_mean, one_line

E = TypeVar("E", bound=Environments)
ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".pq")
TUNNEL = ("red", "green", "blue", "pol_1", "pol_2")
TUNNEL_GET = "get lt_crl_benchmark_v1 (CC BY 4.0) from the Causal Chamber project's page and unpack it"


def read_table(path: str | os.PathLike[str]) -> Any:
    """Return a CSV, TSV or Parquet file as a data frame; a text column keeps "" apart from missing."""
    import pandas as pd

    text = os.fspath(path)
    try:
        if text.endswith((".parquet", ".pq")):
            return pd.read_parquet(text)
        return pd.read_csv(text, sep="\t" if ".tsv" in Path(text).name else ",")
    except FileNotFoundError as error:
        raise UserError(f"there is no file {text}") from error
    except Exception as error:  # pandas and pyarrow have kinds of their own for damaged files
        raise UserError(f"{text} cannot be read: {one_line(error, 120)}") from error


def named_interventions(values: Sequence[Any]) -> Array:
    """Return for each row what was done: names in order, joined by "+"; "" where nothing was.

    Examples:
        >>> named_interventions(["b + a", None, "observational", float("nan"), "a"]).tolist()
        ['a+b', '', '', '', 'a']
    """

    def one(value: Any) -> str:
        if value is None or value != value or str(value).strip().lower() in ("", OBSERVATIONAL, "none", "control"):
            return ""
        return JOIN.join(sorted(part.strip() for part in str(value).split(JOIN) if part.strip()))

    kinds = {v: one(v) for v in dict.fromkeys(v for v in values if v is None or v == v)}
    return np.array([kinds[v] if v is None or v == v else "" for v in values], object)


def features_of(frame: Any, intervention: str, features: Sequence[str] | None, exclude: Sequence[str]) -> list[str]:
    """Return the columns that are x, or raise where one is missing or holds text."""
    from pandas.api import types

    columns = [str(c) for c in frame.columns]
    for name in (intervention, *(features or ()), *exclude):
        if name not in columns:
            raise UserError(f"the table has no column {name!r}{did_you_mean(name, columns)}")
    wanted = [c for c in (features if features is not None else columns) if c != intervention and c not in exclude]
    if not wanted:
        raise UserError(f"beside {intervention!r} the table has no column to learn from")
    for name in wanted:
        if not (types.is_numeric_dtype(frame[name]) or types.is_bool_dtype(frame[name])):
            raise UserError(f"column {name!r} holds text, first {str(frame[name].iloc[0])[:40]!r}: observations are numbers; leave it out with --exclude {name}")
    return wanted


def from_frame(kind: type[E], frame: Any, intervention: str, features: Sequence[str] | None = None, exclude: Sequence[str] = ()) -> E:
    """Return ``kind`` of a data frame; see ``Environments.from_frame``. Rows in which several things were done are left out: they are for asking."""
    columns = features_of(frame, intervention, features, exclude)
    done = named_interventions(frame[intervention].tolist())
    single = np.array([JOIN not in d for d in done])
    return _environments(kind, frame[single], done[single], columns, intervention)


def _environments(kind: type[E], frame: Any, done: Array, columns: list[str], intervention: str) -> E:
    names = sorted(set(done) - {""})
    if not (done == "").any():
        raise UserError(f"no row of {intervention!r} is observational (empty, or {OBSERVATIONAL!r}): every intervention is compared with where nothing was done; there are: {', '.join(names[:12])}")
    codes = np.searchsorted(names, done.astype(str)) + 1 if names else np.zeros(len(done), int)
    codes = np.where(done == "", 0, codes)
    return kind(frame[columns].to_numpy(dtype=float, na_value=np.nan), codes, (OBSERVATIONAL, *names), features=tuple(columns))


def light_tunnel(folder: str | os.PathLike[str], images: bool = True, experiments: str = "buchholz_1") -> Environments:
    """Return the light tunnel of ``lt_crl_benchmark_v1`` (Gamella et al. 2025) as environments with their five true variables.

    Args:
        folder: with one folder an experiment (``buchholz_1_obs``, ``_red``, ``_green``, ``_blue``, ``_pol_1``, ``_pol_2``), in it a CSV with the columns
            red, green, blue, pol_1, pol_2, image_file and sensors, and ``images_64/``.
        images: x are the pictures [N, 3, 64, 64]; else the sensors, every other number of the CSV.
        experiments: how the folders' names begin.

    Raises:
        UserError: a folder, a column or a picture is missing; it is named.
    """
    import pandas as pd

    place = Path(folder)
    if not place.is_dir():
        raise UserError(f"there is no folder {place}: {TUNNEL_GET}")
    names = ("obs", *TUNNEL)
    frames = []
    for name in names:
        inner = place / f"{experiments}_{name}"
        found = sorted(inner.glob("*.csv"))
        if not found:
            raise UserError(f"{inner} holds no CSV: {TUNNEL_GET}")
        frame = pd.read_csv(found[0])
        if missing := [c for c in (*TUNNEL, *(("image_file",) if images else ())) if c not in frame]:
            raise UserError(f"{found[0]} lacks the column {missing[0]!r}; it has: {', '.join(map(str, frame.columns[:12]))}")
        frames.append(frame.assign(**{"folder": str(inner)}))
    table = pd.concat(frames, ignore_index=True)
    codes = np.repeat(np.arange(len(names)), [len(f) for f in frames])
    z = table[list(TUNNEL)].to_numpy(float)
    targets = ((), *((k,) for k in range(len(TUNNEL))))
    if images:
        x: Any = _tunnel_pictures(table)
        return Environments(x, codes, (OBSERVATIONAL, *TUNNEL), z, None, targets, latent_names=TUNNEL)
    sensors = [c for c in table.select_dtypes("number") if c not in TUNNEL and table[c].nunique() > 1]
    return Environments(table[sensors].to_numpy(float), codes, (OBSERVATIONAL, *TUNNEL), z, None, targets, tuple(map(str, sensors)), TUNNEL)


def _tunnel_pictures(table: Any) -> Array:
    from PIL import Image

    found = []
    for folder, file in zip(table.folder, table.image_file, strict=True):
        path = Path(folder) / "images_64" / str(file)
        try:
            with Image.open(path) as opened:
                found.append(np.asarray(opened.convert("RGB")).transpose(2, 0, 1))
        except OSError as error:
            raise UserError(f"{path} cannot be read as a picture: {one_line(error, 80)}") from error
    return np.stack(found)
