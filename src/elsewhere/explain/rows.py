"""Features and labels in blocks: from arrays, memory maps, Parquet row groups or a loader, read as often as asked."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from elsewhere.data import Array
from elsewhere.errors import UserError


@dataclass
class Rows:
    """Features [n, d] that are read block by block, with a constant column added last if ``intercept``.

    Args:
        given: an array or memory map [n, d], the path of an ``.npy`` or Parquet file, or anything that can be iterated again and again
            and yields arrays or tensors [b, d] (of a tuple the first is taken).
        block: rows at a time.
        intercept: add a column of ones.

    Examples:
        >>> [tuple(z.shape) for _, z in Rows(np.zeros((5, 2)), block=2).blocks(torch.float64)]
        [(2, 3), (2, 3), (1, 3)]
    """

    given: Any
    block: int = 8192
    intercept: bool = True
    device: str = "cpu"

    def __post_init__(self) -> None:
        if isinstance(self.given, (str, os.PathLike)) and Path(self.given).suffix == ".npy":
            self.given = np.load(self.given, mmap_mode="r", allow_pickle=False)
        if isinstance(self.given, Tensor):
            self.given = self.given.detach().cpu().numpy()
        if hasattr(self.given, "to_numpy"):
            self.given = self.given.to_numpy(float)
        if isinstance(self.given, list) and self.given and np.ndim(self.given[0]) <= 1:
            self.given = np.asarray(self.given, float)
        if getattr(self.given, "ndim", 2) != 2:
            raise UserError(f"features have shape {tuple(self.given.shape)}; expected [n, d]: flatten them, or represent them by a learner")

    @property
    def columns(self) -> int:
        """Columns, the constant one included."""
        if hasattr(self.given, "shape"):
            return int(self.given.shape[1]) + self.intercept
        return int(next(self._pieces()).shape[1]) + self.intercept

    def blocks(self, dtype: Any) -> Iterator[tuple[slice, Tensor]]:
        """Yield the rows' place and the features [b, d] of each block."""
        at = 0
        for piece in self._pieces():
            z = torch.from_numpy(np.array(piece, np.float32 if dtype == torch.float32 else np.float64)).to(self.device)  # a copy: memory maps are not writable
            if self.intercept:
                z = torch.cat([z, z.new_ones(len(z), 1)], 1)
            yield slice(at, at + len(z)), z
            at += len(z)

    def at(self, rows: Array) -> Tensor:
        """Return the features of some rows [m, d] in float64."""
        if hasattr(self.given, "shape"):
            z = torch.from_numpy(np.array(self.given[np.asarray(rows)], np.float64)).to(self.device)
            return torch.cat([z, z.new_ones(len(z), 1)], 1) if self.intercept else z
        wanted = np.asarray(rows)
        order = np.argsort(wanted, kind="stable")
        found = []
        for place, z in self.blocks(torch.float64):
            mine = wanted[order][(wanted[order] >= place.start) & (wanted[order] < place.stop)] - place.start
            found.append(z[torch.from_numpy(mine)])
        out = torch.cat(found)
        made = torch.empty_like(out)
        made[torch.from_numpy(order)] = out
        return made

    def _pieces(self) -> Iterator[Array]:
        if hasattr(self.given, "shape"):
            for start in range(0, int(self.given.shape[0]), self.block):
                yield np.asarray(self.given[start : start + self.block])
                self._let_go()
        elif isinstance(self.given, (str, os.PathLike)):
            yield from self._row_groups(Path(self.given))
        else:
            for piece in self.given:
                first = piece[0] if isinstance(piece, (tuple, list)) else piece
                yield first.detach().cpu().numpy() if isinstance(first, Tensor) else np.asarray(first)

    def _let_go(self) -> None:
        """Give back the pages of a read-only memory map that were read: they stay in the system's cache, and count no longer as this process's memory."""
        mapped: Any = getattr(self.given, "_mmap", None)
        if isinstance(self.given, np.memmap) and self.given.mode == "r" and hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)

    def _row_groups(self, path: Path) -> Iterator[Array]:
        import pyarrow.parquet as pq

        if path.suffix not in (".parquet", ".pq"):
            raise UserError(f"{path} is neither .npy nor .parquet")
        if not path.exists():
            raise UserError(f"there is no file {path}")
        for batch in pq.ParquetFile(path).iter_batches(self.block):
            yield np.stack([np.asarray(column.to_numpy(zero_copy_only=False), float) for column in batch.columns], 1)


@dataclass(frozen=True)
class Targets:
    """What features are regressed on: class codes, read as one-hot rows, or numbers [n, outputs].

    Examples:
        >>> Targets.of(["b", "a", "b"]).part(slice(0, 2), torch.float64).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
        >>> Targets.of([0.5, 1.0]).classes is None
        True
    """

    values: Array
    classes: Array | None

    @classmethod
    def of(cls, labels: Any, classes: Any = None) -> Targets:
        """Read class ids or names [n], one-hot rows or numbers [n, outputs], or numbers [n]; ``classes`` fixes the order."""
        y = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        if y.ndim == 2 or (y.dtype.kind == "f" and classes is None):
            y = y.astype(float).reshape(len(y), -1)
            if bad := int((~np.isfinite(y)).any(1).sum()):
                raise UserError(f"{bad} of {len(y)} labels are not finite, the first at row {int((~np.isfinite(y)).any(1).argmax())}")
            return cls(y, None)
        if classes is None:
            known, codes = np.unique(y, return_inverse=True)
            return cls(codes, known)
        order = np.asarray(classes)
        at = {v: k for k, v in enumerate(order.tolist())}
        if unknown := sorted({v for v in y.tolist() if v not in at}, key=str):
            raise UserError(f"label {unknown[0]!r} is not among the classes that were fitted: {', '.join(map(str, order[:8]))}")
        return cls(np.array([at[v] for v in y.tolist()], int), order)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def outputs(self) -> int:
        return len(self.classes) if self.classes is not None else int(self.values.shape[1])

    @property
    def codes(self) -> Array | None:
        """Class codes [n], also of one-hot rows; None for numbers."""
        if self.classes is not None:
            return self.values
        one_hot = self.outputs > 1 and bool((((self.values == 0) | (self.values == 1)).all()) and (self.values.sum(1) == 1).all())
        return self.values.argmax(1) if one_hot else None

    def part(self, rows: Any, dtype: Any, device: str = "cpu") -> Tensor:
        """Return the wanted outputs [b, outputs] of some rows."""
        chosen = torch.from_numpy(np.ascontiguousarray(self.values[rows])).to(device)
        if self.classes is None:
            return chosen.to(dtype)
        return torch.nn.functional.one_hot(chosen.long(), len(self.classes)).to(dtype)
