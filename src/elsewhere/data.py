"""What learners are trained on and judged by: the ``Data`` protocol and the ready-made ``Examples``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from elsewhere.errors import UserError, did_you_mean
from elsewhere.places import cache

Array = npt.NDArray[Any]
ROLES = ("id", "domain", "group", "unit", "weight")
_OWN = "column:"


@runtime_checkable
class Data(Protocol):
    """Examples in order, perhaps with the labels a prediction is judged by. Rooms write their own.

    Two more methods are optional: ``examples() -> Examples`` lets every learner of ``Examples`` run on the data
    (a node's own features, a clip's summary), ``preview(row)`` gives what a person wants to look at.
    """

    def __len__(self) -> int: ...

    def take(self, rows: Any) -> Self:
        """Return the examples at ``rows`` (integers or a mask), in that order."""
        ...

    def unlabelled(self) -> Self:
        """Return the same examples without the labels judged here."""
        ...

    def column(self, name: str) -> Array:
        """Return one value an example.

        Id, domain, group, unit and weight are roles; a table's own columns stand as ``own(NAME)``.
        """
        ...


@dataclass(frozen=True)
class Examples:
    """The ready-made data: tables, images, features, texts.

    Args:
        inputs: [n, ...] array, memory map, or a DataFrame of raw columns.
        labels: [n] class codes (int, into ``classes``) or values (float); None: not known here.
        columns: one [n] array a name, beside the inputs: roles (id, domain, group, unit, weight),
            what a task makes, and columns of a table as ``own(NAME)``.
        classes: names of the classes; None: the labels are numbers (regression).

    Examples:
        >>> x = Examples(np.eye(3), np.array([0, 1, 0]), {"unit": np.array(["a", "a", "b"])}, classes=("no", "yes"))
        >>> len(x.take([2])), x.column("unit")[2], x.unlabelled().labels is None
        (1, np.str_('b'), True)
    """

    inputs: Any
    labels: Array | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name, values in [("labels", self.labels), *self.columns.items()]:
            if values is not None and len(values) != len(self.inputs):
                raise UserError(f"{name} has {len(values)} entries for {len(self.inputs)} examples")

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: Any) -> Self:
        rows = np.asarray(rows)
        inputs = self.inputs.iloc[rows] if hasattr(self.inputs, "iloc") else self.inputs[rows]
        labels = None if self.labels is None else self.labels[rows]
        return replace(self, inputs=inputs, labels=labels, columns={k: v[rows] for k, v in self.columns.items()})

    def unlabelled(self) -> Self:
        return replace(self, labels=None)

    def column(self, name: str) -> Array:
        if name not in self.columns:
            raise UserError(f"the data have no column {name!r}{did_you_mean(name, self.columns)}")
        return self.columns[name]

    def preview(self, row: int) -> Any:
        return self.inputs.iloc[row].to_dict() if hasattr(self.inputs, "iloc") else self.inputs[row]


class SparseRows:
    """A sparse matrix [n, d] as inputs: rows are taken like an array's, and numpy gets them dense.

    Learners over scikit-learn estimators pass it on as it is; networks make dense the rows of a batch.

    Examples:
        >>> import scipy.sparse as sp
        >>> x = SparseRows(sp.csr_array(np.eye(3)))
        >>> len(x[[2, 0]]), np.asarray(x[[2, 0]]).tolist()
        (2, [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    """

    ndim = 2

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix.tocsr()
        self.shape = tuple(int(s) for s in matrix.shape)
        self.dtype = matrix.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, (int, np.integer)):
            return self.matrix[[rows]].toarray()[0]
        return SparseRows(self.matrix[rows])

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        dense = self.matrix.toarray()
        return dense if dtype is None else dense.astype(dtype)

    def tocsr(self) -> Any:
        return self.matrix


def optional_column(data: Data, name: str) -> Array | None:
    """Return ``data.column(name)``, or None where there is no such column."""
    if isinstance(data, Examples) and name not in data.columns:
        return None
    try:
        return np.asarray(data.column(name))
    except (UserError, KeyError):
        return None


def own(name: str) -> str:
    """Return the key in ``columns`` of the column that a table calls ``name``, never a role's.

    Examples:
        >>> own("weight")
        'column:weight'
    """
    return _OWN + name


def named_column(data: Data, name: str) -> Array | None:
    """Return the column that a table, or a person in Python, calls ``name``; None if there is none.

    A role is no column of that name: with ``--group sex`` there is none called "group".

    Examples:
        >>> columns = {"weight": np.ones(2), own("weight"): np.zeros(2)}
        >>> named_column(Examples(np.zeros((2, 1)), columns=columns), "weight")
        array([0., 0.])
    """
    found = optional_column(data, own(name))
    if found is None and name not in ROLES:
        found = optional_column(data, name)
    return found


def listed(values: Sequence[str], known: Iterable[str]) -> list[str]:
    """Return names given one by one or joined by commas; a known name that holds a comma stays whole.

    Examples:
        >>> listed(["a,b", "Washington, DC"], ["a", "b", "Washington, DC"])
        ['a', 'b', 'Washington, DC']
    """
    names = set(known)
    return [name for value in values for name in ([value] if value in names else [part.strip() for part in value.split(",")])]


def root(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder where named data lie: the argument, else ELSEWHERE_DATA, else a cache folder."""
    chosen = given or os.environ.get("ELSEWHERE_DATA")
    if chosen:
        return Path(chosen).expanduser()
    return cache()


def find(name: str, where_to_get: str, given: str | os.PathLike[str] | None = None) -> Path:
    """Return the path ``name`` under the data root; absent: a ``UserError`` that says where to get it."""
    path = root(given) / name
    if not path.exists():
        raise UserError(f"{name} is not under {root(given)}: {where_to_get}, or say where it lies with --data or ELSEWHERE_DATA")
    return path
