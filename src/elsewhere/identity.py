"""What makes two things the same thing: canonical JSON of learners and tasks, content keys of data."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from elsewhere.errors import UserError


@dataclass(frozen=True)
class Named:
    """A thing whose identity is a name that its user answers for; see ``named``."""

    name: str
    thing: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.thing(*args, **kwargs)


def named(name: str, thing: Any) -> Named:
    """Give a name to something that has no identity of its own: a function, a Task object, an odd object.

    Two things of one name count as the same: rename it when it changes.

    Examples:
        >>> named("mine", print).name
        'mine'
    """
    if not name or not isinstance(name, str):
        raise UserError(f"named(name, thing) needs a name, not {name!r}")
    return Named(name, thing)


def reference(thing: type | Any) -> str:
    """Return ``module:qualified name`` of a class or function."""
    return f"{thing.__module__}:{thing.__qualname__}"


def identity(thing: Any) -> Any:
    """Return the canonical JSON value that tells one learner or option from another.

    Dataclasses: class, revision and fields, recursively. Estimators: class and ``get_params``. Torch modules: classes
    and settings of their parts, and hash of weights. Data frames and arrays: their content. ``named`` things: the name.
    A field that names a file or a folder (``Learner.files``) stands for its content.

    Raises:
        UserError: the thing has no identity that survives a restart, or a file it names is gone.
    """
    if thing is None or isinstance(thing, (str, bool, int)):
        return thing
    if isinstance(thing, float):
        return thing if np.isfinite(thing) else repr(thing)
    if isinstance(thing, np.generic):
        return identity(thing.item())
    if isinstance(thing, Named):
        return {"named": thing.name}
    if isinstance(thing, Mapping):
        return {str(k): identity(v) for k, v in sorted(thing.items(), key=lambda kv: str(kv[0]))}
    if isinstance(thing, (list, tuple)):
        return [identity(v) for v in thing]
    if isinstance(thing, type):
        return {"class": reference(thing)}
    if hasattr(thing, "content_key") and not isinstance(thing, type):
        return {"content": thing.content_key()}
    if dataclasses.is_dataclass(thing):
        revision = getattr(type(thing), "revision", 1)
        return {"is": reference(type(thing)), "revision": revision, **_fields(thing)}
    if hasattr(thing, "get_params"):
        return {"is": reference(type(thing)), **identity(thing.get_params(deep=False))}
    if hasattr(thing, "state_dict") and hasattr(thing, "named_modules"):
        parts = [[name, reference(type(m)), m.extra_repr()] for name, m in thing.named_modules()]
        return {"is": reference(type(thing)), "parts": digest(parts), "weights": content_key(dict(thing.state_dict()))}
    if isinstance(thing, (np.ndarray, os.PathLike)) or hasattr(thing, "iloc"):
        return {"content": content_key(thing)}
    raise UserError(f"{_short(thing)} has no identity that survives a restart; pass named('a-name', …) instead")


def _fields(thing: Any) -> dict[str, Any]:
    names = [f.name for f in dataclasses.fields(thing) if f.init]
    files = {k: _content_of(thing, k, path) for k, path in named_files(thing).items()}
    return {k: files[k] if k in files else identity(getattr(thing, k)) for k in names}


def named_files(thing: Any) -> Mapping[str, str | os.PathLike[str]]:
    """Return field -> path for the fields of a dataclass that name a file or a folder.

    Only the thing itself is asked, not what its fields hold; see ``Learner.files``.
    """
    if any(f.name == "files" for f in dataclasses.fields(thing)):
        return {}  # a field of that name is an ordinary value
    files = getattr(thing, "files", None)
    return files if isinstance(files, Mapping) else {}


def _content_of(thing: Any, field: str, path: str | os.PathLike[str]) -> dict[str, str]:
    if not os.path.exists(path):
        where = f"{field} of {type(thing).__name__}"
        raise UserError(f"{where}: there is no file or folder {os.fspath(path)}")
    return {"file": file_key(os.fspath(path))}


def digest(value: Any) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def content_key(thing: Any) -> str:
    """Return a key of the content of data: arrays, frames, paths, dataclasses and containers of them.

    Examples:
        >>> content_key(np.arange(3)) == content_key(np.arange(3)), content_key(np.arange(3)) == content_key(np.arange(3.0))
        (True, False)
    """
    state = hashlib.sha256()
    _feed(state, thing)
    return state.hexdigest()[:16]


def _feed(state: Any, thing: Any) -> None:
    state.update(type(thing).__name__.encode() + b"\0")
    if isinstance(thing, np.ndarray):
        _feed_array(state, thing)
    elif hasattr(thing, "iloc"):
        _feed_frame(state, thing)
    elif hasattr(thing, "content_key"):  # a lazy reader says its own
        state.update(thing.content_key().encode())
    elif isinstance(thing, os.PathLike):
        state.update(file_key(os.fspath(thing)).encode())
    elif isinstance(thing, Mapping):
        for k in sorted(thing, key=str):
            _feed(state, str(k))
            _feed(state, thing[k])
    elif isinstance(thing, (list, tuple)):
        for v in thing:
            _feed(state, v)
    elif hasattr(thing, "numpy") and hasattr(thing, "detach"):
        _feed_array(state, thing.detach().cpu().numpy())
    elif hasattr(thing, "tocsr"):
        csr = thing.tocsr()
        for part in (csr.indptr, csr.indices, csr.data):
            _feed_array(state, part)
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for f in dataclasses.fields(thing):
            _feed(state, f.name)
            _feed(state, getattr(thing, f.name))
    elif isinstance(thing, bytes):
        state.update(thing)
    else:
        state.update(json.dumps(identity(thing), sort_keys=True).encode())


def _feed_array(state: Any, array: np.ndarray[Any, Any]) -> None:
    state.update(f"{array.dtype.str}{array.shape}".encode())
    if array.dtype.hasobject:
        state.update("\0".join(f"{type(v).__name__}:{v}" for v in array.ravel().tolist()).encode())
    else:
        state.update(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")


def _feed_frame(state: Any, frame: Any) -> None:
    import pandas as pd

    columns = frame.to_frame() if isinstance(frame, pd.Series) else frame
    for position, name in enumerate(columns.columns):
        column = columns.iloc[:, position]
        state.update(f"{name}:{column.dtype}".encode())
        state.update(np.ascontiguousarray(pd.util.hash_pandas_object(column, index=False).to_numpy()).data)


def file_key(path: str) -> str:
    """Return a key of a file's content, or of every file below a folder."""
    place = Path(path)
    if place.is_dir():
        return digest([[str(p.relative_to(place)), file_key(str(p))] for p in sorted(place.rglob("*")) if p.is_file()])
    try:
        stat = place.stat()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    # the time of the last change of the inode tells copies that keep the time of their original
    return _file_key(str(place.absolute()), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size)


@lru_cache(maxsize=1 << 16)  # a folder of pictures is asked for once per task
def _file_key(path: str, modified: int, changed: int, size: int) -> str:
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()[:16]


def _short(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) < 80 else text[:77] + "…"
