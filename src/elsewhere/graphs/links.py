"""The ends of links in a table: names of nodes or numbers of rows, matched without losing any."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError, one_line


def read_text(path: str | os.PathLike[str]) -> Any:
    """Return a CSV, TSV or Parquet file as a DataFrame whose cells are text as written.

    A node called ``NA`` or ``007`` keeps its name, and a column of numbers and names is not cut in
    two by a parser that guesses types block by block.
    """
    return read_table(path, dtype=str, keep_default_na=False)


def read_table(path: Any, **options: Any) -> Any:
    """Return a CSV, TSV or Parquet file as a DataFrame; ``options`` are pandas', for text files.

    Raises:
        UserError: it cannot be read, or its rows have more fields than its header.
    """
    import pandas as pd

    text = os.fspath(path)
    try:
        if text.endswith((".parquet", ".pq")):
            return pd.read_parquet(path)
        sep = "\t" if text.endswith((".tsv", ".tsv.gz")) else ","
        frame = pd.read_csv(path, sep=sep, low_memory=False, **options)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {one_line(error, 120)}") from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas took the first fields for names of rows
        count = frame.shape[1]
        raise UserError(f"{path}: rows have more fields than the header, which has {count}")
    return frame


def name_of(value: Any) -> str:
    """Return the name that a cell gives a node: 7, 7.0 and "7" are one; a missing cell is "".

    Examples:
        >>> [name_of(v) for v in (7, 7.0, " 7 ", "007", float("nan"), None)]
        ['7', '7', '7', '007', '', '']
    """
    if value is None or value != value:
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def ends_of(table: Any, names: Sequence[Any] | None, column: str | None = None) -> Array:
    """Return the rows [m, 2] of the nodes that the first two columns of a table of links name.

    Args:
        table: a DataFrame, or the path of one.
        names: [N] of the nodes; None: the links hold row numbers.
        column: of the nodes' names, for errors.

    Raises:
        UserError: an end names no node (how many, which, in which row), a name stands twice, the
            table has no header, or its first column is a row index.
    """
    read = not hasattr(table, "iloc")
    frame = read_text(table) if read else table
    where = Path(os.fspath(table)).name if read else "the table of links"
    if frame.shape[1] < 2:
        count = frame.shape[1]
        said = f"the table of links has {count} columns"
        raise UserError(f"{said}; the first two name the nodes of a link")
    at = None if names is None else _places(names, column)
    header = [str(c) for c in frame.columns]
    if read:
        _check_header(where, header, at)
    ends = [[name_of(v) for v in frame.iloc[:, k].tolist()] for k in (0, 1)]
    return _numbered(ends, header) if at is None else _found(ends, header, at, column)


def _places(names: Sequence[Any], column: str | None) -> dict[str, int]:
    """Return name -> row."""
    told = [name_of(v) for v in names]
    at = {name: k for k, name in enumerate(told)}
    if "" in at:
        raise UserError(f"id column {column!r} names no node in row {at['']}")
    if len(at) < len(told):
        raise UserError(f"id column {column!r} names {len(told) - len(at):,} nodes twice")
    return at


def _check_header(where: str, header: Sequence[str], at: Mapping[str, int] | None) -> None:
    first = [name_of(h) for h in header[:2]]
    if len(header) > 2 and (not first[0] or first[0].startswith("Unnamed:")):
        said = f"the first column of {where} has no name"
        raise UserError(f"{said}: is it a row index? Write the links without it")
    if all(_whole(h) is not None if at is None else h in at for h in first):
        said = f"the first line of {where}, {','.join(first)}, is a link"
        raise UserError(f"{said}: add a header, source,target")


def _number(text: str) -> Decimal | None:
    """Return the number that a text is, exactly (ids may exceed 2^53), or None."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _whole(text: str) -> int | None:
    number = _number(text)
    return int(number) if number is not None and number == number.to_integral_value() else None


def _numbered(ends: Sequence[Sequence[str]], header: Sequence[str]) -> Array:
    rows = [[_whole(v) for v in side] for side in ends]
    odd = [(k, row) for k in (0, 1) for row, v in enumerate(rows[k]) if v is None]
    if odd:
        k, row = odd[0]
        raise UserError(
            "links must be pairs of whole numbers, the rows of the nodes; "
            f"{len(odd):,} of {2 * len(rows[0]):,} ends are none, first {ends[k][row]!r} "
            f"in column {header[k]!r}, row {row}; name nodes by an id column to link ids"
        )  # fmt: skip
    return np.array(rows, np.int64).reshape(2, -1).T


def _found(
    ends: Sequence[Sequence[str]],
    header: Sequence[str],
    at: Mapping[str, int],
    column: str | None,
) -> Array:
    known: Mapping[Any, int] = at
    wanted: Sequence[Sequence[Any]] = ends
    if (numbers := _by_number(at)) is not None:
        known, wanted = numbers, [[_number(v) for v in side] for side in ends]
    absent = [(k, row) for k in (0, 1) for row, v in enumerate(wanted[k]) if v not in known]
    if absent:
        k, row = absent[0]
        name, lacking = ends[k][row], f"which column {column!r} of the nodes does not have"
        count = f"{len(absent):,} of {2 * len(ends[0]):,} such ends"
        names = ", ".join(list(at)[:5]) + (" …" if len(at) > 5 else "")
        where = f"first in column {header[k]!r}, row {row}"
        said = f"links name node {name!r}, {lacking} ({count}, {where})"
        raise UserError(f"{said}; nodes are called {names}")
    return np.array([[known[v] for v in side] for side in wanted], np.int64).reshape(2, -1).T


def _by_number(at: Mapping[str, int]) -> dict[Decimal, int] | None:
    """Return number -> row where all names are different numbers: 007, 7 and 7.0 are one."""
    numbers = {number: k for name, k in at.items() if (number := _number(name)) is not None}
    return numbers if len(numbers) == len(at) else None
