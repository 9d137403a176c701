"""A result's folder: one small Parquet file per kind and trial, the trial's record last, compacted into segments."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from elsewhere.errors import UserError, one_line
from elsewhere.places import contents, is_local, listing, place
from elsewhere.run import locked, write_whole

KINDS = ("scores", "examples", "history", "trials")  # the record is written last: it is the commit
COMPACT_AT = 1000
_TEXT = ["trial", "domain", "role", "about", "metric", "reason", "name", "task", "learner", "status"]


class Store:
    """Trials in a folder, local or on any fsspec store. A trial is there whole or not at all; a damaged file costs its own trials.

    On a store without locks (an object store) one put of the record is the commit, a trial done twice is the same trial,
    and loose files stay loose: they are listed and fetched together instead of compacted.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = place(folder)
        self.local = is_local(self.folder)
        self.damaged: list[str] = []
        self._segments: dict[str, tuple[tuple[int, int], frozenset[str]]] = {}

    def put(self, path: Path, content: bytes) -> None:
        """The one write function: a file whole or not at all.

        Raises:
            UserError: the disk is full or the folder cannot be written.
        """
        try:
            write_whole(path, content)
        except Exception as error:
            if self.local and not isinstance(error, OSError):
                raise  # remote drivers raise kinds of their own
            raise UserError(f"cannot write {path}: {getattr(error, 'strerror', None) or one_line(error)}; what is finished is kept: mend that and give the same command again") from error

    def write(self, record: Mapping[str, Any], tables: Mapping[str, pa.Table]) -> None:
        """Write one trial: its tables, then its record."""
        key = record["trial"]
        sizes = {}
        for kind, table in tables.items():
            if table.num_rows:
                content = _bytes(table)
                self.put(self._loose(kind, key), content)
                sizes[kind] = len(content)
        row = {**record, "sizes": json.dumps(sizes)}
        self.put(self._loose("trials", key), _bytes(pa.Table.from_pylist([row])))

    def has(self, key: str) -> bool:
        """Whether a trial is finished, looked up anew."""
        return (self._loose("trials", key).exists() and self._record(key) is not None) or any(key in keys for keys in self._segment_keys().values())

    def records(self) -> pa.Table:
        """Return the records of all finished trials, each once."""
        segments = self._segment_tables("trials")
        inside: set[str] = set()
        for table in segments:
            inside.update(table["trial"].to_pylist())
        if not self.local:
            return _concat(list(self._remote_records().values()))
        loose = [t for k in self._loose_keys() if k not in inside and (t := self._record(k)) is not None]
        return _concat([*segments, *loose])

    def read(self, kind: str, keys: Collection[str] | None = None) -> pa.Table:
        """Return one kind of table for these trials (all if None), with a column ``trial``."""
        wanted = None if keys is None else set(keys)
        if not self.local:
            return self._remote_read(kind, wanted)
        found = []
        inside: set[str] = set()
        for name, members in self._segment_keys().items():
            inside |= members
            path = self._segment(kind, name)
            if path.exists() and (wanted is None or wanted & members):
                table = self._readable(path, wanted)
                found += [table] if table is not None else []
        for key in self._loose_keys():
            if key not in inside and (wanted is None or key in wanted) and self._record(key) is not None:
                path = self._loose(kind, key)
                table = self._readable(path, None) if path.exists() else None
                found += [_with_trial(table, key)] if table is not None else []
        return _concat(found)

    def remove(self, keys: Iterable[str]) -> None:
        """Forget trials, so that they run again. Those in segments are taken out of their segments."""
        gone = set(keys)
        if not gone:
            return
        with locked(self.folder / "locks", 0):
            for name, members in self._segment_keys().items():
                if members & gone:
                    self._rewrite(name, members - gone)
            for key in gone:
                for kind in reversed(KINDS):
                    self._loose(kind, key).unlink(missing_ok=True)

    def compact(self, at_least: int = 1) -> None:
        """Move finished loose trials into one segment, if there are ``at_least`` so many."""
        if not self.local or sum(1 for _ in self._loose_keys()) < at_least:
            return
        with locked(self.folder / "locks", 0, wait=False) as mine:
            if not mine:
                return
            inside: set[str] = set().union(*self._segment_keys().values())
            whole = {k: t for k in self._loose_keys() if k not in inside and (t := self._record(k)) is not None}
            if len(whole) >= at_least:
                self._write_segment(whole)
                inside = {*inside, *whole}
            for key in inside.intersection(self._loose_keys()):
                for kind in reversed(KINDS):
                    self._loose(kind, key).unlink(missing_ok=True)

    def _remote_records(self) -> dict[str, pa.Table]:
        """Return the records of whole trials on a remote store: one listing a kind, one fetch of all records."""
        sizes = {kind: listing(self.folder / kind) for kind in KINDS}
        found = {}
        for name, content in contents(self.folder / "trials", list(sizes["trials"])).items():
            table = self._parsed(content, f"{self.folder / 'trials' / name}")
            if table is None:
                continue
            short = [k for k, size in json.loads(table["sizes"][0].as_py()).items() if sizes[k].get(name) != size]
            if short:
                self._say(f"{self.folder / short[0] / name} is damaged or not there yet: the trial counts as not run")
                continue
            found[name[:-8]] = table
        return found

    def _remote_read(self, kind: str, wanted: set[str] | None) -> pa.Table:
        keys = [k for k in self._remote_records() if wanted is None or k in wanted]
        there = listing(self.folder / kind)
        found = contents(self.folder / kind, [f"{k}.parquet" for k in keys if f"{k}.parquet" in there])
        tables = [(name[:-8], self._parsed(content, name)) for name, content in sorted(found.items())]
        return _concat([_with_trial(t, key) for key, t in tables if t is not None])

    def _parsed(self, content: bytes, name: str) -> pa.Table | None:
        try:
            return pq.read_table(io.BytesIO(content))
        except (OSError, pa.ArrowInvalid, ValueError) as error:
            self._say(f"{name} is damaged ({one_line(error, 80)}): the trial counts as not run")
            return None

    def _write_segment(self, whole: Mapping[str, pa.Table]) -> None:
        """Write trials, given their records, as one segment; the segment of records is the commit."""
        name = f"{max([int(n) for n in self._segment_keys()] or [0]) + 1:06d}"
        sizes = {}
        for kind in KINDS[:-1]:
            tables = [_with_trial(t, k) for k in whole if (path := self._loose(kind, k)).exists() and (t := self._readable(path, None)) is not None]
            if tables:
                content = _bytes(_concat(tables))
                self.put(self._segment(kind, name), content)
                sizes[kind] = len(content)
        records = _concat(list(whole.values()))
        self.put(self._segment("trials", name), _bytes(records.replace_schema_metadata({"sizes": json.dumps(sizes)})))

    def _rewrite(self, name: str, keep: frozenset[str] | set[str]) -> None:
        """Write the trials that stay back as loose ones, then drop the segment."""
        records = pq.read_table(self._segment("trials", name)).to_pylist()
        tables = {kind: self._readable(self._segment(kind, name), None) for kind in KINDS[:-1] if self._segment(kind, name).exists()}
        for record in records:
            if record["trial"] in keep:
                mine = {kind: t.filter(pc.equal(t["trial"].cast(pa.string()), record["trial"])) for kind, t in tables.items() if t is not None}
                self.write({k: v for k, v in record.items() if k != "sizes"}, mine)
        for kind in reversed(KINDS):
            self._segment(kind, name).unlink(missing_ok=True)
        self._segments.pop(name, None)

    def _segment_keys(self) -> dict[str, frozenset[str]]:
        """Return the trials of each whole segment; only segments that changed are read."""
        folder = self.folder / "segments" / "trials"
        now: dict[str, frozenset[str]] = {}
        if not self.local:
            return now
        for path in sorted(folder.glob("*.parquet")) if folder.exists() else []:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if self._segments.get(path.stem, (None,))[0] != stamp:
                keys = self._whole_segment(path)
                self._segments[path.stem] = (stamp, keys)
            now[path.stem] = self._segments[path.stem][1]
        return {name: keys for name, keys in now.items() if keys}

    def _whole_segment(self, path: Path) -> frozenset[str]:
        try:
            table = pq.read_table(path, columns=["trial"])
            sizes = json.loads((table.schema.metadata or {}).get(b"sizes", b"{}"))
        except (OSError, pa.ArrowInvalid, ValueError) as error:
            return self._lost(path, error)
        for kind, size in sizes.items():
            part = self._segment(kind, path.stem)
            if not part.exists() or part.stat().st_size != size:
                return self._lost(part, f"expected {size} bytes")
        return frozenset(table["trial"].to_pylist())

    def _lost(self, path: Path, error: Any) -> frozenset[str]:
        self._say(f"{path} is damaged ({one_line(error, 80)}): its trials count as not run")
        return frozenset()

    def _segment_tables(self, kind: str) -> list[pa.Table]:
        return [t for name in self._segment_keys() if (t := self._readable(self._segment(kind, name), None)) is not None]

    def _record(self, key: str) -> pa.Table | None:
        """Return a loose trial's record, or None where it or one of its files is damaged."""
        path = self._loose("trials", key)
        table = self._readable(path, None) if self.local else self._parsed(path.read_bytes(), str(path))
        if table is None:
            return None
        for kind, size in json.loads(table["sizes"][0].as_py()).items():
            part = self._loose(kind, key)
            if not part.exists() or part.stat().st_size != size:
                if path.exists():
                    self._say(f"{part} is damaged (expected {size} bytes): the trial counts as not run")
                return None
        return table

    def _readable(self, path: Path, wanted: set[str] | None) -> pa.Table | None:
        try:
            with pq.ParquetFile(path) as file:  # a data set reader takes ten times as long to open
                table = file.read()
            return table if wanted is None else table.filter(pc.is_in(table["trial"].cast(pa.string()), pa.array(sorted(wanted), pa.string())))
        except FileNotFoundError:
            return None  # compacted away meanwhile
        except (OSError, pa.ArrowInvalid, ValueError) as error:
            self._say(f"{path} is damaged ({one_line(error, 80)}): the trial counts as not run")
            return None

    def _say(self, text: str) -> None:
        if text not in self.damaged:
            self.damaged.append(text)

    def _loose(self, kind: str, key: str) -> Path:
        return self.folder / kind / f"{key}.parquet"

    def _segment(self, kind: str, name: str) -> Path:
        return self.folder / "segments" / kind / f"{name}.parquet"

    def _loose_keys(self) -> list[str]:
        try:
            return sorted(e.name[:-8] for e in os.scandir(self.folder / "trials") if e.name.endswith(".parquet") and not e.name.startswith("."))
        except FileNotFoundError:
            return []


def _bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    if table.num_rows > 1000:
        pq.write_table(table, buffer, compression="zstd")
    else:  # what a trial writes: small, and written while everything waits
        pq.write_table(table, buffer, compression="none", write_statistics=False, use_dictionary=False)
    return buffer.getvalue()


def _with_trial(table: pa.Table, key: str) -> pa.Table:
    if "trial" in table.column_names:
        return table
    return table.add_column(0, "trial", pa.DictionaryArray.from_arrays(pa.nulls(table.num_rows, pa.int32()).fill_null(0), pa.array([key])))


def _concat(tables: list[pa.Table]) -> pa.Table:
    if not tables:
        return pa.table({"trial": pa.array([], pa.string())})
    if len(tables) == 1:
        return _plain(tables[0])
    return pa.concat_tables([_plain(t) for t in tables], promote_options="permissive").unify_dictionaries()


def _plain(table: pa.Table) -> pa.Table:
    """Give every text column one type, so that tables written at different times join."""
    target = pa.dictionary(pa.int32(), pa.string())
    for position, field in enumerate(table.schema):
        if field.name in _TEXT and field.type != target:
            text = table[field.name].cast(pa.string())
            table = table.set_column(position, field.name, text.dictionary_encode())
    return table
