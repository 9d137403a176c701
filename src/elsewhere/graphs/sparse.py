"""Sparse matrices as this room uses them: symmetric links, normalised adjacencies, and products that reuse their symmetry."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from elsewhere.data import Array


def symmetric(pairs: Array, n: int) -> tuple[Any, str]:
    """Return the symmetric CSR [n, n] of ones of links [m, 2], and a sentence on what was added and dropped ("" if nothing).

    Examples:
        >>> links, told = symmetric(np.array([[0, 1], [1, 0], [1, 1]]), 2)
        >>> links.toarray().tolist(), told
        ([[0.0, 1.0], [1.0, 0.0]], '1 self-loop dropped')
    """
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    loops = pairs[:, 0] == pairs[:, 1]
    given = pairs[~loops]
    directed = np.unique(given[:, 0] * n + given[:, 1])
    both = np.union1d(directed, (directed % n) * n + directed // n)
    made = sp.csr_array((np.ones(len(both), np.float32), (both // n, both % n)), shape=(n, n))
    added = len(both) - len(directed)
    # a list that names each link once is undirected as it stands; only a mixture is worth a word
    mixed = added and added != len(directed)
    said = [f"{added:,} links pointed one way and were made symmetric"] if mixed else []
    if loops.any():
        said.append(f"{int(loops.sum()):,} self-loop{'s' * int(loops.sum() > 1)} dropped")
    return made, "; ".join(said)


def degrees(links: Any) -> Array:
    """Return how many links each node has [N]."""
    return np.diff(links.indptr)


def normalised(links: Any, loops: bool = True) -> Any:
    """Return S = D^-1/2 (A + I) D^-1/2 as CSR float32, D the degrees of A + I (Kipf & Welling 2017)."""
    a = sp.csr_array(links, dtype=np.float32)
    if loops:
        a = sp.csr_array(a + sp.eye_array(a.shape[0], dtype=np.float32, format="csr"))
    d = np.asarray(a.sum(1)).ravel()
    scale = np.zeros_like(d)
    scale[d > 0] = d[d > 0] ** -0.5
    a.data = a.data * np.repeat(scale, np.diff(a.indptr)) * scale[a.indices]
    return a


def as_torch(matrix: Any) -> Tensor:
    """Return a scipy CSR as a torch CSR, sharing its values."""
    matrix = sp.csr_array(matrix)
    parts = (torch.from_numpy(matrix.indptr.astype(np.int64)), torch.from_numpy(matrix.indices.astype(np.int64)), torch.from_numpy(np.asarray(matrix.data, np.float32)))
    return _csr(*parts, matrix.shape)


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: Any) -> Tensor:
    with torch.sparse.check_sparse_tensor_invariants(False), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch says once that sparse tensors are new
        made: Tensor = torch.sparse_csr_tensor(rows, columns, values, size=shape)
    return made


class _Product(torch.autograd.Function):
    """M X, whose backward is Mᵀ G with a transpose that was made once."""

    @staticmethod
    def forward(ctx: Any, matrix: Any, transposed: Any, x: Tensor) -> Tensor:
        ctx.transposed = transposed
        return _times(matrix, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        return None, None, _times(ctx.transposed, gradient.contiguous())


def _times(matrix: Any, x: Tensor) -> Tensor:
    made: Tensor = torch.from_numpy(matrix @ x.numpy()) if sp.issparse(matrix) else matrix @ x
    return made


class Sparse:
    """A fixed sparse matrix for products with gradients by the dense side: ``matrix @ x``.

    Args:
        matrix: scipy CSR [n, m].
        symmetric: it is its own transpose, so that backward reuses it.

    Examples:
        >>> s = Sparse(sp.csr_array(np.array([[0.0, 2.0], [2.0, 1.0]], np.float32)), symmetric=True)
        >>> (s @ torch.eye(2)).tolist()
        [[0.0, 2.0], [2.0, 1.0]]
    """

    def __init__(self, matrix: Any, symmetric: bool = False) -> None:
        self.matrix = sp.csr_array(matrix)
        self.symmetric = symmetric
        self._placed: dict[str, tuple[Any, Any]] = {}
        self._places: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(int(s) for s in self.matrix.shape)  # type: ignore[return-value]

    def on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the matrix and its transpose on a device."""
        key = str(device)
        if key not in self._placed:
            forward = as_torch(self.matrix).to(device)
            self._placed[key] = (forward, forward if self.symmetric else as_torch(self.matrix.T.tocsr()).to(device))
        return self._placed[key]

    def __matmul__(self, x: Tensor) -> Tensor:
        # on one thread SciPy's product is a little faster than torch's
        alone = x.device.type == "cpu" and torch.get_num_threads() == 1 and x.dtype == torch.float32
        product: Tensor = _Product.apply(*(self._plain() if alone else self.on(x.device)), x)
        return product

    def _plain(self) -> tuple[Any, Any]:
        if "plain" not in self._placed:
            self._placed["plain"] = (self.matrix, self.matrix if self.symmetric else self.matrix.T.tocsr())
        return self._placed["plain"]

    def dropped(self, share: float, device: torch.device) -> _Dropped:
        """Return the matrix with a random share of its values left out and the rest scaled up, as dropout does."""
        forward, transposed = self.on(device)
        if self._places is None:
            places = sp.csr_array((np.arange(self.matrix.nnz), self.matrix.indices, self.matrix.indptr), shape=self.matrix.shape)
            self._places = torch.from_numpy(places.T.tocsr().data.astype(np.int64))
        values = torch.nn.functional.dropout(forward.values(), share)
        places = self._places.to(device)
        return _Dropped(_with_values(forward, values), _with_values(transposed, values[places]))


def _with_values(matrix: Tensor, values: Tensor) -> Tensor:
    return _csr(matrix.crow_indices(), matrix.col_indices(), values, matrix.shape)


class _Dropped:
    """A sparse matrix with some values left out, for one product."""

    def __init__(self, forward: Tensor, transposed: Tensor) -> None:
        self.forward, self.transposed = forward, transposed

    def __matmul__(self, x: Tensor) -> Tensor:
        product: Tensor = _Product.apply(self.forward, self.transposed, x)
        return product


class Features:
    """A feature matrix [N, d], dense or sparse, as networks use it: rows of it times a weight.

    Args:
        matrix: array or CSR.
        unit_sum: scale each row to sum 1, as the published settings do; rows of zeros stay.
    """

    def __init__(self, matrix: Any, unit_sum: bool = True) -> None:
        if sp.issparse(matrix):
            x = sp.csr_array(matrix, dtype=np.float32)
            if unit_sum and (not len(x.data) or x.data.min() >= 0):
                total = np.asarray(x.sum(1)).ravel()
                x = sp.csr_array((x.data / np.repeat(np.where(total > 0, total, 1), np.diff(x.indptr)).astype(np.float32), x.indices, x.indptr), shape=x.shape)
            self.matrix: Any = x
        else:
            x = np.asarray(matrix, np.float32)
            if unit_sum and x.size and x.min() >= 0:
                total = x.sum(1, keepdims=True)
                x = x / np.where(total > 0, total, 1)
            self.matrix = x
        self._kept: dict[Any, Any] = {}

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(int(s) for s in self.matrix.shape)  # type: ignore[return-value]

    def times(self, weight: Tensor, rows: Tensor | None = None, dropout: float = 0.0) -> Tensor:
        """Return X[rows] weightᵀ for a weight [out, d]: [n, out]; gradients flow to the weight. ``dropout`` leaves out a share of X."""
        x = self.rows(rows, weight.device)
        if isinstance(x, Tensor):
            return (torch.nn.functional.dropout(x, dropout) if dropout else x) @ weight.T
        return (x.dropped(dropout, weight.device) if dropout else x) @ weight.T.contiguous()

    def moments(self, rows: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of each row [n, 1], as LayerNorm takes them."""
        x = self.matrix if rows is None else self.matrix[rows.cpu().numpy()]
        d = x.shape[1]
        if sp.issparse(x):
            mean = np.asarray(x.sum(1)).ravel() / d
            second = np.asarray(x.multiply(x).sum(1)).ravel() / d
        else:
            mean, second = x.mean(1), np.square(x).mean(1)
        deviation = np.sqrt(np.maximum(second - mean**2, 0) + 1e-5)
        return tuple(torch.from_numpy(np.asarray(v, np.float32))[:, None].to(device) for v in (mean, deviation))

    def rows(self, rows: Tensor | None, device: torch.device) -> Any:
        """Return X[rows] on a device: a tensor, or a ``Sparse``; the last two sets of rows are kept."""
        key = (None if rows is None else (len(rows), hash(rows.cpu().numpy().tobytes())), str(device))
        if key not in self._kept:
            while len(self._kept) > 3:
                self._kept.pop(next(iter(self._kept)))
            x = self.matrix if rows is None else self.matrix[rows.cpu().numpy()]
            self._kept[key] = Sparse(x) if sp.issparse(x) else torch.from_numpy(np.ascontiguousarray(x)).to(device)
        return self._kept[key]
