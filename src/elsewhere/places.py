"""Folders on any disk: a path, or a URL of any file system that fsspec knows (``s3://``, ``gs://``, ``memory://`` …)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from elsewhere.errors import UserError, one_line


def place(given: str | os.PathLike[str] | Any) -> Path:
    """Return a path with ``pathlib``'s interface: a plain one for local paths and ``file://``, a ``UPath`` for other URLs.

    Raises:
        UserError: no file system of that kind, or its driver is not installed.

    Examples:
        >>> place("file:///tmp/mine"), is_local(place("memory://mine"))
        (PosixPath('/tmp/mine'), False)
    """
    if isinstance(given, Path) or not isinstance(given, (str, os.PathLike)):
        return cast("Path", given)
    text = os.fspath(given)
    if "://" not in text:
        return Path(text)
    if text.startswith(("file://", "local://")):
        return Path("/" + text.partition("://")[2].lstrip("/"))
    from upath import UPath

    try:
        made: Any = UPath(text)
        _ = made.fs
    except (ImportError, ValueError) as error:
        raise UserError(f"cannot use {text}: {one_line(error)}") from error
    return cast("Path", made)


def is_local(path: Any) -> bool:
    """Whether a place is a local path, with locks and renames; a remote one has whole puts alone."""
    return isinstance(path, Path)


def listing(folder: Any) -> dict[str, int]:
    """Return name -> size of the files in a folder, looked up anew; empty where there is none."""
    if is_local(folder):
        try:
            return {e.name: e.stat().st_size for e in os.scandir(folder) if e.is_file()}
        except FileNotFoundError:
            return {}
    folder.fs.invalidate_cache()
    try:
        found = folder.fs.ls(folder.path, detail=True)
    except FileNotFoundError:
        return {}
    return {entry["name"].rstrip("/").rpartition("/")[2]: int(entry["size"] or 0) for entry in found if entry["type"] == "file"}


def contents(folder: Any, names: Collection[str]) -> dict[str, bytes]:
    """Return the contents of files of a remote folder, fetched together; those that are gone are left out."""
    if not names:
        return {}
    found = folder.fs.cat([(folder / name).path for name in names], on_error="omit")
    return {path.rpartition("/")[2]: content for path, content in found.items()}


def cache() -> Path:
    """Return the folder of this user's caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elsewhere"


def scratch(folder: Any) -> Path:
    """Return the local folder for what trials of a result share and cannot keep remotely: caches, parts, checkpoints."""
    if is_local(folder):
        return cast("Path", folder)
    return cache() / "scratch" / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
