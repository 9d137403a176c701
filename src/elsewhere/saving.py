"""Learners in folders: JSON, safetensors, Parquet, skops with an allow-list, sub-folders. Loading executes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from elsewhere.errors import NotOffered, UserError, one_line
from elsewhere.identity import Named, reference
from elsewhere.learner import Learner
from elsewhere.run import write_whole

_OWN = ("elsewhere.encoding:Encoder", "elsewhere.learner:Probe", "elsewhere.wrapping:Estimator")  # spine classes that models may hold


def save(learner: Learner[Any, Any], folder: str | os.PathLike[str], beside: Mapping[str, bytes] | None = None) -> None:
    """Write a learner to a folder, and files beside it, whole or not at all.

    Raises:
        NotOffered: something in it has no portable form (the reason says what).
    """
    place = Path(folder)
    aside = place.with_name(f".{place.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        _write(learner, aside)
        for name, content in {**learner.beside(), **(beside or {})}.items():
            (aside / name).write_bytes(content)
        shutil.rmtree(place, ignore_errors=True)
        os.replace(aside, place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def load(folder: str | os.PathLike[str], trust: Sequence[type] = ()) -> Any:
    """Return the learner in a folder. Only catalogued classes and those in ``trust`` are made, never by name alone.

    Raises:
        UserError: no model lies there, it is damaged, or it names a class that is not trusted.
    """
    return _read(Path(folder), {reference(t): t for t in trust})


def to_bytes(state: Any) -> bytes:
    """Return nested mappings, lists, numbers and tensors (a ``state_dict``) as the bytes of one safetensors file."""
    from safetensors.numpy import save

    arrays: dict[str, np.ndarray[Any, Any]] = {}
    packed = _packed("state", state, Path(), arrays)
    return save({k: np.asarray(v, order="C") for k, v in arrays.items()}, metadata={"state": json.dumps(packed)})


def from_bytes(content: bytes) -> Any:
    """Return what ``to_bytes`` was given; ``ValueError`` where the bytes are damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return _unpacked(json.loads(header["__metadata__"]["state"]), Path(), arrays, {}, ())
    except (SafetensorError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"no state can be read: {one_line(error)}") from error


def _write(thing: Any, folder: Path) -> None:
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    fields = {f.name: _packed(f"field.{f.name}", getattr(thing, f.name), folder, arrays) for f in dataclasses.fields(thing) if f.init}
    made = {k: v for k, v in vars(thing).items() if k.endswith("_") and k not in fields}
    fitted = {k: _packed(k, v, folder, arrays) for k, v in made.items()}
    if arrays:
        from safetensors.numpy import save as as_bytes

        (folder / "arrays.safetensors").write_bytes(as_bytes({k: np.asarray(v, order="C") for k, v in arrays.items()}))
    content = {"is": reference(type(thing)), "revision": getattr(type(thing), "revision", 1), "fields": fields, "fitted": fitted}
    write_whole(folder / "learner.json", json.dumps(content, indent=1).encode())


def _packed(name: str, value: Any, folder: Path, arrays: dict[str, Any]) -> Any:
    """Return the JSON that stands for a value, having written what JSON cannot hold beside it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return {"scalar": str(value.dtype), "value": value.item()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        arrays[name] = value
        return {"array": name}
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUS":
        return {"strings": [_packed(name, v, folder, arrays) for v in value.tolist()], "dtype": value.dtype.str}
    if hasattr(value, "built") and hasattr(value, "state_dict"):
        weights = {k: _packed(f"{name}/{k}", v, folder, arrays) for k, v in value.state_dict().items()}
        return {"network": value.built, "weights": weights}
    if type(value).__module__.startswith("torch") and hasattr(value, "detach"):
        arrays[name], dtype = _as_array(value)
        return {"tensor": name, "dtype": dtype}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_packed(f"{name}.{i}", v, folder, arrays) for i, v in enumerate(value)]}
    if isinstance(value, Mapping) and all(isinstance(k, (str, int, bool)) for k in value):
        return {"mapping": [[k, _packed(f"{name}.{i}", v, folder, arrays)] for i, (k, v) in enumerate(value.items())]}
    if isinstance(value, Named):
        raise NotOffered(f"{name} holds named({value.name!r}, …), which lives only in this process")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        (folder / name).mkdir()
        _write(value, folder / name)
        return {"folder": name}
    if hasattr(value, "iloc"):
        value.to_parquet(folder / f"{name}.parquet")
        return {"frame": f"{name}.parquet"}
    if hasattr(value, "get_params"):
        import skops.io

        skops.io.dump(value, folder / f"{name}.skops")
        return {"estimator": f"{name}.skops"}
    raise NotOffered(f"{name} is a {reference(type(value))}, which has no portable form; write save and load for this learner")


def _read(folder: Path, trust: Mapping[str, type]) -> Any:
    try:
        content = json.loads((folder / "learner.json").read_text())
        name, fields, fitted = content["is"], content["fields"], content["fitted"]
        revision = content["revision"]
    except FileNotFoundError as error:
        raise UserError(f"{folder} holds no saved learner (no learner.json)") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'learner.json'} is damaged: {one_line(error)}") from error
    kind = _class(name, trust)
    if getattr(kind, "revision", 1) != revision:
        raise UserError(f"{folder} was saved by revision {revision} of {name}; this version has revision {getattr(kind, 'revision', 1)}: fit it again")
    trust = {**trust, **{reference(t): t for t in getattr(kind, "holds", ())}}
    arrays = _arrays(folder / "arrays.safetensors")
    allowed = (*getattr(kind, "trusted", ()), *trust)
    thing = kind.__new__(kind)
    for key, packed in {**fields, **fitted}.items():
        object.__setattr__(thing, key, _unpacked(packed, folder, arrays, trust, allowed))
    return thing


def _arrays(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {one_line(error)}") from error


def _unpacked(packed: Any, folder: Path, arrays: Mapping[str, Any], trust: Mapping[str, type], allowed: Sequence[str]) -> Any:
    if not isinstance(packed, dict):
        return packed

    def inner(v: Any) -> Any:
        return _unpacked(v, folder, arrays, trust, allowed)

    (tag, value), *_ = packed.items()
    match tag:
        case "scalar":
            return np.dtype(value).type(packed["value"])
        case "array":
            return arrays[value]
        case "tensor":
            import torch

            return torch.from_numpy(arrays[value].copy()).to(getattr(torch, packed["dtype"]))
        case "network":
            return _network(value, {k: inner(v) for k, v in packed["weights"].items()}, folder)
        case "strings":
            return np.array([inner(v) for v in value], dtype=packed["dtype"])
        case "list" | "tuple":
            items = [inner(v) for v in value]
            return items if tag == "list" else tuple(items)
        case "mapping":
            return {k: inner(v) for k, v in value}
        case "folder":
            return _read(_inside(folder, value), trust)
        case "frame":
            import pandas as pd

            return pd.read_parquet(_inside(folder, value))
        case "estimator":
            return _estimator(_inside(folder, value), allowed)
    raise UserError(f"{folder} holds an entry of unknown kind {tag!r}")


def _as_array(tensor: Any) -> tuple[np.ndarray[Any, Any], str]:
    """Return a tensor as an array and the name of its type; bfloat16, which numpy lacks, as float32."""
    import torch

    held = tensor.detach().cpu()
    return (held.float() if held.dtype == torch.bfloat16 else held).numpy(), str(held.dtype).removeprefix("torch.")


def _network(built: Mapping[str, Any], weights: Mapping[str, Any], folder: Path) -> Any:
    """Build a catalogued network from its JSON arguments and fill it with the saved weights."""
    from elsewhere.nn import build

    try:
        network = build(**built)
        network.load_state_dict(weights)
    except (TypeError, RuntimeError) as error:
        raise UserError(f"{folder} holds weights that do not fit the network {built.get('name')!r}: {one_line(error, 120)}") from error
    return network.eval()


def _estimator(path: Path, allowed: Sequence[str]) -> Any:
    import skops.io

    try:
        content = path.read_bytes()
        wanted = skops.io.get_untrusted_types(data=content)
        dotted = {a.replace(":", ".") for a in allowed}
        if refused := sorted(set(wanted) - dotted):
            raise UserError(f"{path} holds {refused[0]}, which this learner is not known to use; load it with trust=[…] only if you made it")
        return skops.io.loads(content, trusted=wanted)
    except UserError:
        raise
    except Exception as error:  # skops raises many kinds on damaged files
        raise UserError(f"{path} is damaged: {one_line(error)}") from error


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if Path(name).name != name or path.is_symlink():
        raise UserError(f"{folder} names {name!r}, which is not a file of its own")
    return path


def _class(name: str, trust: Mapping[str, type]) -> Any:
    from elsewhere import catalogue
    from elsewhere.task import resolve

    if name in trust:
        return trust[name]
    if name in _OWN or name in {e.target for e in catalogue.entries("learners").values()}:
        return resolve(name)
    raise UserError(f"the model names the class {name}, which is not in the catalogue; load it with {name.split(':')[-1]}.load(folder) or trust=[…]")
