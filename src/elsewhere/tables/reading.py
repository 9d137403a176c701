"""One table file in: its separator, the cells of its rows, dates and decimal commas."""

from __future__ import annotations

import csv
import gzip
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow

from elsewhere.data import Array
from elsewhere.encoding import is_category
from elsewhere.errors import UserError, one_line

_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
_ISO_DATE = re.compile(r"^\d{4}-\d{2}(-\d{2})?([ T].*)?$")
_COMMA_NUMBER = r"^\s*[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?([eE][+-]?\d+)?\s*$"
_POINT_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_MAYBE_THOUSANDS = r"^\s*[+-]?[1-9]\d{0,2},\d{3}\s*$"
_BLOCK = 1 << 24  # bytes that pyarrow looks at at once: no record may be longer
_SAMPLED = 100


@dataclass(frozen=True)
class Reading:
    """A table, and how its file was understood.

    Args:
        frame: the table.
        inferred: what was inferred and is said before anything runs.
        notes: sentences that a reader of the results must know too.
    """

    frame: pd.DataFrame
    inferred: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the table in a CSV, TSV (also .gz) or Parquet file; see ``reading``."""
    return reading(path).frame


def reading(path: str | os.PathLike[str]) -> Reading:
    """Read a CSV, TSV (also .gz) or Parquet file, and say what was inferred.

    Text columns of ISO dates become dates. In text files, columns whose every value is written
    with a decimal comma become numbers.

    Args:
        path: the file.

    Raises:
        UserError: no such file, a folder, empty, not UTF-8, two columns of one name, a row with
            more or fewer cells than the header, or damaged.
    """
    place = Path(path)
    if place.is_dir():
        raise UserError(f"{path} is a folder; a table is one CSV or Parquet file")
    if not place.exists():
        raise UserError(f"there is no file {path}")
    try:
        read = _parquet if place.suffix in (".parquet", ".pq") else _text
        found = read(place)
    except UserError:
        raise
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path} is empty") from error
    except UnicodeDecodeError as error:
        hint = "convert it: iconv -f latin1 -t utf8"
        raise UserError(f"{path} is not UTF-8 text (byte {error.start}); {hint}") from error
    except (OSError, ValueError, pd.errors.ParserError, EOFError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {one_line(error, 200)}") from error
    columns, rows = len(found.frame.columns), len(found.frame)
    if not columns or not rows:
        raise UserError(f"{path} is empty: {columns} columns and {rows} rows")
    return _with_dates(found)


# --- text files ---


def _text(place: Path) -> Reading:
    separator, header, marked = _header(place)
    _no_duplicates(header, place)
    if header:
        _check_rows(place, separator, len(header))
    frame = pd.read_csv(
        place,
        sep=separator,
        encoding="utf-8-sig",
        low_memory=False,
        skipinitialspace=True,
        index_col=False,
    )
    encoding = "UTF-8 with a byte-order mark" if marked else "UTF-8"
    said = f"separator: {_SEPARATORS[separator]}; encoding: {encoding}"
    return _with_decimal_commas(Reading(frame, (said,)), separator)


def _opened(place: Path) -> TextIO:
    opener: Any = gzip.open if place.suffix == ".gz" else open
    return cast(TextIO, opener(place, "rt", encoding="utf-8-sig", newline=""))


def _header(place: Path) -> tuple[str, list[str], bool]:
    """Return the separator, the header's cells, and whether the file begins with a mark."""
    with _opened(place) as file:
        lines = [file.readline()]
        while lines[-1] and not lines[-1].strip():
            lines.append(file.readline())
    if "\0" in lines[-1]:
        raise UserError(f"{place} is not a text table (it holds zero bytes)")
    # Cells, not characters, are counted: a quoted name may hold another separator.
    most = max(_SEPARATORS, key=lambda s: len(next(_rows([lines[-1]], s), [])))
    separator = "\t" if ".tsv" in place.suffixes else most
    with _opened(place) as file:
        header = next((row for row in _rows(file, separator) if _cells(row)), [])
    raw: Any = gzip.open if place.suffix == ".gz" else open
    with raw(place, "rb") as bytes_:
        return separator, header, bytes_.read(3) == b"\xef\xbb\xbf"


def _rows(lines: Any, separator: str) -> Iterator[list[str]]:
    # The same dialect as pandas is given: quotes may follow the spaces after a separator.
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


def _cells(row: Sequence[str]) -> int:
    """Return how many cells a row has; 0 for a blank line, which pandas skips."""
    return 0 if len(row) == 0 or (len(row) == 1 and not row[0].strip()) else len(row)


def _check_rows(place: Path, separator: str, expected: int) -> None:
    """Refuse a file in which a row has more or fewer cells than the header.

    pandas cuts long rows and fills short ones without a word. pyarrow counts cells in native
    code, about 20 times as fast as pandas reads them. Where it objects, csv looks again: it
    knows quotes after spaces, which pyarrow does not, and the number of the line.
    """
    if _counted_alike(place, separator):
        return
    csv.field_size_limit(2**31 - 1)
    with _opened(place) as file:
        rows = _counts(file, separator)
        head = list(itertools.islice(rows, _SAMPLED))
        named = bool(head) and all(count == expected + 1 for _, _, count in head)
        for number, line, count in itertools.chain(head, rows):
            if count != expected + named:
                raise UserError(_wrong_row(place, number, line, count, expected, separator))
    if named:
        raise UserError(_row_names(place, expected))


def _counts(file: TextIO, separator: str) -> Iterator[tuple[int, int, int]]:
    """Yield number, last line and cells of each row below the header."""
    rows: Any = _rows(file, separator)
    found = ((rows.line_num, count) for row in rows if (count := _cells(row)))
    next(found, None)
    yield from ((number, line, count) for number, (line, count) in enumerate(found, 1))


def _counted_alike(place: Path, separator: str) -> bool:
    """Return whether pyarrow finds as many cells in every row as in the first."""
    alike = True

    def wrong(row: Any) -> str:
        nonlocal alike
        alike = False
        return "error"

    with _opened(place) as file:
        if re.search(re.escape(separator) + ' +"', file.read(1 << 16)):
            return False  # pyarrow takes a quote after a space for a letter
    try:
        stream = arrow.open_csv(
            pa.input_stream(str(place), compression="gzip" if place.suffix == ".gz" else None),
            arrow.ReadOptions(use_threads=False, block_size=_BLOCK),
            arrow.ParseOptions(
                delimiter=separator,
                newlines_in_values=True,
                invalid_row_handler=wrong,
            ),
            # No column is wanted, and one must be named: the cells are counted, not converted.
            arrow.ConvertOptions(include_columns=["\0"], include_missing_columns=True),
        )
        for _ in stream:
            pass
    except pa.ArrowInvalid:
        return False
    return alike


def _wrong_row(
    place: Path,
    number: int,
    line: int,
    count: int,
    expected: int,
    separator: str,
) -> str:
    long = f"put a text that holds a {_SEPARATORS[separator]} between quotes"
    short = "leave the cells of missing values empty, and keep their separators"
    hint = long if count > expected else short
    told = f"row {number:,} (line {line:,}) has {count} cells"
    return f"{place}: {told} and the header names {expected} columns; {hint}"


def _row_names(place: Path, expected: int) -> str:
    told = f"every row has {expected + 1} cells and the header names {expected} columns"
    guess = "the first cells look like row names written by R or pandas"
    other = "write the file without it (R: row.names = FALSE; pandas: index=False)"
    return f"{place}: {told}: {guess}; name that column in the header, or {other}"


# --- decimal commas ---


def _with_decimal_commas(found: Reading, separator: str) -> Reading:
    """Return the table with columns that are numbers written with a decimal comma as numbers."""
    frame, notes, changed = found.frame, [], {}
    for name in frame.columns:
        if is_category(frame[name]):
            texts = pa.array(frame[name], pa.string(), from_pandas=True).drop_null()
            numbers, note = _as_comma_numbers(str(name), texts, separator)
            if numbers:
                changed[name] = _parsed(frame[name])
            notes += [note] if note else []
    if not changed:
        return Reading(frame, found.inferred, tuple(notes))
    doubtful = [str(n) for n in frame.columns if n not in changed and _thousandths(frame[n])]
    said = f"decimal commas: {', '.join(map(str, changed))} (read as numbers)"
    notes.insert(0, f"Read with a decimal comma: {', '.join(map(str, changed))}.")
    other = "although other columns have decimal commas"
    risk = "if its points part thousands, every value is too small by 1,000"
    notes += [f"Column {n} was read with decimal points {other}: {risk}." for n in doubtful]
    return Reading(frame.assign(**changed), (*found.inferred, said), tuple(notes))


def _as_comma_numbers(name: str, texts: Any, separator: str) -> tuple[bool, str]:
    """Return whether a column's texts are numbers with a decimal comma, and what to say if not."""
    if not len(texts):
        return False, ""
    number = _matches(texts, _COMMA_NUMBER)
    comma = number & _matches(texts, ",")
    if comma.any() and number.all():
        # 1,234 may be thousands where the comma does not have another office
        if separator != ";" and _matches(texts, _MAYBE_THOUSANDS)[comma].all():
            odd = texts[int(np.argmax(comma))].as_py()
            told = f"the comma of {odd!r} may be a decimal comma or part thousands"
            return False, f"Column {name} stays text: {told}; write its numbers without commas."
        return True, ""
    plain = _matches(texts, _POINT_NUMBER) if not comma.any() else comma | number
    if comma.any() or 2 * plain.sum() >= len(texts):
        odd = one_line(texts[int(np.argmin(plain))].as_py(), 30)
        what = "numbers with a decimal comma" if comma.any() else "numbers"
        told = f"{int(plain.sum()):,} of {len(texts):,} values are {what}, and others are not"
        return False, f"Column {name} stays text: {told}, such as {odd!r}."
    return False, ""


def _matches(texts: Any, pattern: str) -> Array:
    found = pc.match_substring_regex(texts, pattern)
    return np.asarray(found.to_numpy(zero_copy_only=False), bool)


def _parsed(values: pd.Series[Any]) -> pd.Series[Any]:
    text = values.str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    return pd.to_numeric(text)


def _thousandths(values: pd.Series[Any]) -> bool:
    """Return whether numbers have at most three decimals and some three: thousands, perhaps."""
    if not pd.api.types.is_float_dtype(values):
        return False
    x = values.dropna().to_numpy(float) * 1000
    x = x[np.isfinite(x)]
    whole = np.abs(x - np.round(x)) < 1e-6 * np.maximum(1, np.abs(x))
    return bool(len(x) and whole.all() and (np.round(x) % 10 != 0).any())


# --- Parquet, names, dates ---


def _parquet(place: Path) -> Reading:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(place)
    _no_duplicates(file.schema_arrow.names, place)
    frame = file.read().to_pandas(ignore_metadata=True)
    for name in frame.columns:
        if isinstance(frame[name].dtype, pd.CategoricalDtype):
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return Reading(frame)


def _no_duplicates(names: Sequence[str], place: Path) -> None:
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if twice:
        count = list(names).count(twice[0])
        raise UserError(f"{place} has {count} columns called {twice[0]!r}; rename all but one")


def _with_dates(found: Reading) -> Reading:
    """Return the table with text columns that hold ISO dates alone as dates."""
    frame, dates = found.frame, {}
    for name in frame.columns:
        if is_category(frame[name]) and _looks_like_dates(known := frame[name].dropna()):
            parsed = pd.to_datetime(frame[name], errors="coerce", format="ISO8601")
            if parsed.notna().sum() == len(known):
                dates[name] = parsed
    if not dates:
        return found
    said = f"dates: {', '.join(map(str, dates))}"
    return Reading(frame.assign(**dates), (*found.inferred, said), found.notes)


def _looks_like_dates(known: pd.Series[Any]) -> bool:
    sample = known.head(_SAMPLED).map(lambda v: isinstance(v, str) and bool(_ISO_DATE.match(v)))
    return bool(len(sample) and sample.all())
