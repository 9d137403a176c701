"""Which domains are alike: a graph whose vertices are the domains, and a place for each of them in the plane."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.nn.functional import softplus

from elsewhere.data import Array, Examples
from elsewhere.errors import UserError
from elsewhere.task import Source


@dataclass(frozen=True)
class DomainGraph:
    """A graph of domains: names, and a symmetric adjacency in [0, 1] without loops.

    Args:
        names: of the domains.
        adjacency: [N, N]; values between 0 and 1 are soft links.
        positions: [N, 2] where to draw them; None: by the graph.

    Raises:
        UserError: the adjacency is not square, not symmetric or not within [0, 1].

    Examples:
        >>> DomainGraph.chain(["a", "b", "c"]).hops(["a"]).tolist()
        [0, 1, 2]
    """

    names: tuple[str, ...]
    adjacency: Array
    positions: Array | None = None

    def __post_init__(self) -> None:
        a = np.asarray(self.adjacency, np.float32)
        names = tuple(str(n) for n in self.names)
        if a.ndim != 2 or a.shape[0] != a.shape[1] or len(names) != len(a):
            raise UserError(f"a graph of {len(names)} domains needs an adjacency [{len(names)}, {len(names)}], not {list(a.shape)}")
        if len(set(names)) < len(names):
            raise UserError("two domains of the graph have one name")
        if not (a == a.T).all():
            i, j = np.argwhere(a != a.T)[0]
            raise UserError(f"the domain graph is not symmetric: edge {names[i]}-{names[j]} is {a[i, j]:g}, {names[j]}-{names[i]} is {a[j, i]:g}")
        if not ((a >= 0) & (a <= 1)).all():
            raise UserError(f"links of a domain graph lie in [0, 1], not {a[(a < 0) | (a > 1)][0]:g}")
        if np.diag(a).any():
            warnings.warn("the domain graph links domains with themselves; those links are dropped", UserWarning, stacklevel=3)
            a = a - np.diag(np.diag(a))
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "adjacency", a)

    @classmethod
    def from_adjacency(cls, adjacency: Any, names: Sequence[Any] | None = None, positions: Array | None = None) -> DomainGraph:
        """Return the graph of a matrix; without names domains are called 0, 1, …."""
        a = np.asarray(adjacency, np.float32)
        return cls(tuple(str(n) for n in (names if names is not None else range(len(a)))), a, positions)

    @classmethod
    def from_edges(cls, names: Sequence[Any], edges: Any) -> DomainGraph:
        """Return the graph of a list of pairs of names, or of a CSV or DataFrame whose first two columns are such (a third: weights)."""
        rows = _rows(edges)
        known = {str(n): k for k, n in enumerate(names)}
        a = np.zeros((len(known), len(known)), np.float32)
        for u, v, *rest in rows:
            for end in (u, v):
                if str(end) not in known:
                    raise UserError(f"an edge names domain {str(end)!r}; the domains are {', '.join(list(known)[:12])}")
            a[known[str(u)], known[str(v)]] = a[known[str(v)], known[str(u)]] = float(rest[0]) if rest else 1.0
        return cls(tuple(known), a)

    @classmethod
    def from_coordinates(cls, names: Sequence[Any], coordinates: Any, k: int = 4) -> DomainGraph:
        """Return the graph that links each domain to the ``k`` nearest, either way."""
        x = np.asarray(coordinates, float)
        distance = np.square(x[:, None] - x[None]).sum(-1) + np.diag(np.full(len(x), np.inf))
        near = np.argsort(distance, 1, kind="stable")[:, : min(k, len(x) - 1)]
        a = np.zeros((len(x), len(x)), np.float32)
        a[np.arange(len(x))[:, None], near] = 1
        return cls(tuple(str(n) for n in names), np.maximum(a, a.T), x[:, :2] if x.shape[1] >= 2 else None)

    @classmethod
    def chain(cls, names: Sequence[Any] | int) -> DomainGraph:
        """Return domains linked one to the next."""
        told = [str(n) for n in (range(names) if isinstance(names, int) else names)]
        return cls(tuple(told), np.eye(len(told), k=1, dtype=np.float32) + np.eye(len(told), k=-1, dtype=np.float32))

    @classmethod
    def grid(cls, rows: int, columns: int) -> DomainGraph:
        """Return a grid; domains are called "row/column"."""
        at = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2)
        a = (np.abs(at[:, None] - at[None]).sum(-1) == 1).astype(np.float32)
        return cls(tuple(f"{i}/{j}" for i, j in at.tolist()), a, at[:, ::-1] * [1.0, -1.0])

    @classmethod
    def complete(cls, names: Sequence[Any] | int) -> DomainGraph:
        """Return domains that are all linked."""
        told = [str(n) for n in (range(names) if isinstance(names, int) else names)]
        return cls(tuple(told), 1 - np.eye(len(told), dtype=np.float32))

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def at(self) -> Mapping[str, int]:
        """Name -> vertex."""
        return {n: k for k, n in enumerate(self.names)}

    def hops(self, start: Sequence[str]) -> Array:
        """Return the number of links from each domain to the nearest of ``start`` [N]; -1 where none leads there."""
        found = np.full(len(self), -1)
        front = np.isin(self.names, list(start))
        step = 0
        while front.any():
            found[front] = step
            front = (self.adjacency[front] > 0).any(0) & (found < 0)
            step += 1
        return found

    @property
    def complete_graph(self) -> bool:
        return len(self) > 1 and bool((self.adjacency + np.eye(len(self)) > 0).all())

    def permuted(self, seed: int) -> DomainGraph:
        """Return the same graph with its vertices exchanged at random: what must break whatever the graph is the reason of."""
        order = np.random.default_rng(seed).permutation(len(self))
        return DomainGraph(self.names, self.adjacency[np.ix_(order, order)], self.positions)

    def sampled(self, count: int, rng: np.random.Generator) -> Array:
        """Return ``count`` vertices of the graph; see ``sampled``."""
        return sampled(self.adjacency, count, rng)

    def embedding(self, size: int = 2, method: str = "graph", seed: int = 0) -> Array:
        """Return a place z for each domain [N, size], standardised over domains.

        "graph": mean BCE(sigmoid(z_u · z_v), A_uv) over pairs, linked and unlinked pairs half each, by Adam (spec 08, equation 1);
        "laplacian": the first non-trivial eigenvectors; "positions": where the graph is drawn.
        """
        if method == "positions":
            if self.positions is None:
                raise UserError("this domain graph has no positions to embed by; use graph or laplacian")
            return _standardised(np.asarray(self.positions, np.float64))
        if method == "laplacian":
            laplacian = np.diag(self.adjacency.sum(1)) - self.adjacency
            return _standardised(np.linalg.eigh(laplacian.astype(np.float64))[1][:, 1 : size + 1])
        if method != "graph":
            raise UserError(f"conditioning must be graph, laplacian, positions or none, not {method!r}")
        start = 0.5 * np.random.default_rng(seed).normal(size=(len(self), size))
        return _standardised(fit_embedding(self.adjacency, start))

    def placed(self, links: Sequence[str], z: Array, steps: int = 500) -> Array:
        """Return the place [size] of a new domain with these links, all others kept where they are."""
        unknown = [n for n in links if n not in self.at]
        if unknown or not len(links):
            raise UserError(f"links must name domains of the graph ({', '.join(self.names[:8])}{' …' if len(self) > 8 else ''}), not {', '.join(unknown) or 'nothing'}")
        target = torch.from_numpy(np.isin(self.names, list(links)).astype(np.float32))
        others = torch.from_numpy(z.astype(np.float32))
        new = others[target > 0].mean(0).clone().requires_grad_()
        optimiser = torch.optim.Adam([new], 0.05)
        weight = torch.where(target > 0, 1 / target.sum(), 1 / (1 - target).sum().clamp(min=1))
        for _ in range(steps):
            optimiser.zero_grad()
            s = others @ new
            (weight * (softplus(s) - target * s)).sum().backward()
            optimiser.step()
        return new.detach().numpy().astype(np.float64)


def sampled(adjacency: Array, count: int, rng: np.random.Generator) -> Array:
    """Return ``count`` vertices: half the time uniform, else walks along links without return, begun anew where stuck (spec 08, 2.4)."""
    n = len(adjacency)
    if rng.random() < 0.5:
        return np.sort(rng.permutation(n)[:count])
    free = np.ones(n, bool)
    here = -1
    found: list[int] = []
    while len(found) < min(count, n):
        near = np.flatnonzero((adjacency[here] > 0) & free) if here >= 0 else np.empty(0, int)
        pool = near if len(near) else np.flatnonzero(free)
        here = int(pool[rng.integers(len(pool))])
        free[here] = False
        found.append(here)
    return np.sort(np.array(found))


def fit_embedding(adjacency: Array, start: Array, steps: int = 500, rate: float = 0.05) -> Array:
    """Return z [N, size] after full-batch Adam from ``start`` on the class-balanced link loss."""
    n = len(adjacency)
    u, v = np.triu_indices(n, 1)
    target = torch.from_numpy(adjacency[u, v].astype(np.float64))
    linked = target > 0
    weight = torch.where(linked, 0.5 / linked.sum().clamp(min=1), 0.5 / (~linked).sum().clamp(min=1))
    z = torch.from_numpy(start.copy()).requires_grad_()
    optimiser = torch.optim.Adam([z], rate)
    for _ in range(steps):
        optimiser.zero_grad()
        s = (z[u] * z[v]).sum(1)
        (weight * (softplus(s) - target * s)).sum().backward()
        optimiser.step()
    return z.detach().numpy()


def _standardised(z: Array) -> Array:
    deviation = z.std(0)
    return (z - z.mean(0)) / np.where(deviation > 0, deviation, 1)


def _rows(edges: Any) -> list[Any]:
    if isinstance(edges, (str, os.PathLike)):
        import pandas as pd

        try:
            frame = pd.read_csv(edges, dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {edges}: {error}") from error
        if not isinstance(frame.index, pd.RangeIndex):  # first fields became names of rows
            header = ", ".join(frame.columns)
            raise UserError(f"{edges}: rows have more fields than the header ({header})")
        edges = frame
    if hasattr(edges, "iloc"):
        edges = edges.iloc[:, :3].itertuples(index=False)
    return [(_end(u), _end(v), *(_weight(w) for w in rest[:1])) for u, v, *rest in edges]


def _end(value: Any) -> str:
    """Return the name of a domain at the end of an edge: 7, 7.0 and "7" are one."""
    if value is None or value != value or not str(value).strip():
        raise UserError("an edge of the domain graph names no domain at one end")
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _weight(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        what = "the third column of an edge is its weight, a number"
        raise UserError(f"{what}, not {value!r}") from error


@dataclass(frozen=True)
class GraphSource(Source[Examples]):
    """A source whose domains are the vertices of a graph.

    Args:
        graph: of all domains, those of the source and the unlabelled ones; the ``domain`` column of the data names them.
    """

    graph: DomainGraph | None = None


WORDS = ("chain", "complete")  # graphs of domains that need no file


def edges_file(given: Any) -> dict[str, str]:
    """Return ``{"graph": path}`` where a learner's field ``graph`` names a CSV of edges."""
    told = isinstance(given, (str, os.PathLike)) and given not in WORDS
    return {"graph": os.fspath(given)} if told else {}


def graph_for(given: Any, source: Source[Examples], names: Sequence[str]) -> DomainGraph:
    """Return the graph to use: what a learner was given ("chain", "complete", a CSV of edges, a ``DomainGraph``), else the source's own.

    Raises:
        UserError: there is none, or the data name domains that it lacks.
    """
    if given is None:
        graph = getattr(source, "graph", None)
        if graph is None:
            raise UserError("there is no graph of the domains: say graph=chain, graph=complete or graph=EDGES.csv (two columns of domain names)")
    elif isinstance(given, DomainGraph):
        graph = given
    elif isinstance(given, str) and given in WORDS:
        graph = getattr(DomainGraph, given)(_in_order(names))
    else:
        told = _rows(given)
        every = dict.fromkeys([*_in_order(names), *(str(end) for row in told for end in row[:2])])
        graph = DomainGraph.from_edges(list(every), told)
        _check_edges(graph, names)
    if absent := [n for n in names if n not in graph.at]:
        raise UserError(f"domains {', '.join(absent[:8])} of the data are not in the domain graph, whose domains are {', '.join(graph.names[:12])}{' …' if len(graph) > 12 else ''}")
    return graph


def _check_edges(graph: DomainGraph, names: Sequence[str]) -> None:
    """Refuse edges that name other domains while some of the data's have none: 1 and 01, say."""
    strange = [n for n in graph.names if n not in set(names)]
    alone = [n for n in names if not graph.adjacency[graph.at[n]].any()]
    if strange and alone:
        named = f"edges name {_shown(strange)}, which are no domains of the data"
        raise UserError(f"{named}, and {_shown(alone)} have no edge: do the names agree?")


def _shown(names: Sequence[str], count: int = 5) -> str:
    return ", ".join(names[:count]) + (" …" if len(names) > count else "")


def _in_order(names: Sequence[str]) -> list[str]:
    """Return names as numbers count, if they are numbers."""
    try:
        return sorted(names, key=float)
    except ValueError:
        return sorted(names)
