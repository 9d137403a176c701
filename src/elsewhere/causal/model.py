"""A causal model: from observations to latents and back, mechanisms between latents, and what happens when something is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elsewhere.causal.metrics import closure
from elsewhere.causal.questions import JOIN, Gaussian
from elsewhere.data import Array
from elsewhere.errors import NotOffered, UserError, did_you_mean


@dataclass
class LinearCodec:
    """z = E (x - center), and x = center + D z; ``residual`` is the covariance of what D z leaves of x.

    Examples:
        >>> codec = LinearCodec(np.array([[1.0, 0.0]]), np.array([[1.0], [0.0]]), np.array([2.0, 0.0]))
        >>> codec.encode(np.array([[5.0, 1.0]])).tolist(), codec.decode(np.array([[3.0]])).tolist()
        ([[3.0]], [[5.0, 0.0]])
    """

    encoder: Array
    decoder: Array
    center: Array
    residual: Array | None = None

    def encode(self, x: Any) -> Array:
        return np.asarray((np.asarray(x, float).reshape(len(x), -1) - self.center) @ self.encoder.T)

    def decode(self, z: Array) -> Array:
        return np.asarray(self.center + np.asarray(z, float) @ self.decoder.T)


@dataclass
class Mechanisms:
    """Linear structural equations z_i = intercept_i + Σ_j weights[j, i] z_j + noise_i of variance ``variance_i``; weights are those of edges j → i.

    Examples:
        >>> Mechanisms(np.array([[0.0, 0.0], [2.0, 0.0]]), np.zeros(2), np.ones(2)).order()  # the second causes the first
        [1, 0]
    """

    weights: Array
    intercept: Array
    variance: Array

    @property
    def graph(self) -> Array:
        """Adjacency [n, n]: [i, j] is True where i → j."""
        return np.asarray(self.weights != 0)

    def order(self) -> list[int]:
        """Return the latents, causes before effects."""
        left, found = set(range(len(self.variance))), list[int]()
        while left:
            free = [i for i in sorted(left) if not any(self.weights[j, i] for j in left)]
            if not free:
                raise UserError("the graph has a cycle: no order puts causes before effects")
            found += free
            left -= set(free)
        return found


@dataclass
class CausalModel:
    """What every method of this room with a graph ends in.

    Args:
        latents: names of the variables.
        environments: names; the first is observational.
        codec: ``encode(x) -> [N, n]`` and ``decode(z) -> [N, d]``.
        mechanisms: between the latents, in the observational environment.
        targets: for each environment the latent that it sets, -1 for none. Latents have mean 0 where nothing is done.
        means, variances: what each environment sets its target to.
        hard: whether an intervention cuts its target from its causes.

    Examples:
        >>> codec = LinearCodec(np.eye(2), np.eye(2), np.zeros(2))
        >>> chain = Mechanisms(np.array([[0.0, 2.0], [0.0, 0.0]]), np.zeros(2), np.ones(2))
        >>> model = CausalModel(("a", "b"), ("observational", "env_1"), codec, chain, np.array([-1, 0]), np.array([0.0, 3.0]), np.array([0.0, 1.0]))
        >>> model.moments("env_1").mean.tolist(), model.moments({"b": 1.0}).mean.tolist()
        ([3.0, 6.0], [0.0, 1.0])
    """

    latents: tuple[str, ...]
    environments: tuple[str, ...]
    codec: Any
    mechanisms: Mechanisms
    targets: Array
    means: Array
    variances: Array
    hard: bool = True

    @property
    def graph(self) -> Array:
        """Adjacency [n, n]: [i, j] is True where i → j; with soft interventions the transitive closure."""
        return self.mechanisms.graph

    def encode(self, x: Any) -> Array:
        """Return the latents [N, n] of observations [N, …]."""
        return np.asarray(self.codec.encode(x))

    def decode(self, z: Array) -> Array:
        """Return observations [N, …] of latents [N, n]."""
        return np.asarray(self.codec.decode(z))

    def do(self, what: Any, size: int = 1000, seed: int = 0, strength: float = 1.0) -> Array:
        """Draw observations [size, …] under interventions, by ancestral sampling with the named latents cut from their causes.

        Args:
            what: a name of an environment, several (done together), or a mapping latent (name or position) -> value | (mean, variance) | name of an environment.
            size: rows.
            seed: of the draw.
            strength: factor of the shift that an environment makes.

        Raises:
            UserError: an unknown latent or environment, two entries on one latent, or a model for which ``do`` is not identified.
        """
        return self.decode(self.do_latents([what], size, seed, [strength])[0])

    def sample(self, size: int = 1000, seed: int = 0) -> Array:
        """Draw observations where nothing is done."""
        return self.do((), size, seed)

    def do_latents(self, queries: Sequence[Any], size: int = 1000, seed: int = 0, strength: Sequence[float] | None = None) -> Array:
        """Draw latents [queries, size, n] of many interventions in one pass; each gets the same noise."""
        cut, mean, variance = self._queries(queries, strength)
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(size, len(self.latents)))
        m = self.mechanisms
        z = np.empty((len(queries), size, len(self.latents)))
        for i in m.order():
            parents = np.flatnonzero(m.weights[:, i])
            natural = m.intercept[i] + (z[..., parents] @ m.weights[parents, i] if len(parents) else 0.0) + np.sqrt(m.variance[i]) * noise[:, i]
            z[..., i] = np.where(cut[:, None, i], mean[:, None, i] + np.sqrt(variance[:, None, i]) * noise[:, i], natural)
        return z

    def latent_moments(self, queries: Sequence[Any], strength: Sequence[float] | None = None) -> tuple[Array, Array]:
        """Return means [queries, n] and covariances [queries, n, n] of the latents in closed form."""
        cut, mean, variance = self._queries(queries, strength)
        m, n = self.mechanisms, len(self.latents)
        weights = np.where(cut[:, None, :], 0.0, m.weights[None])
        total = np.linalg.inv(np.eye(n) - weights)  # z = (c + noise) (I - W)^-1, rows
        center = np.where(cut, mean, m.intercept)
        spread = np.where(cut, variance, m.variance)
        return np.einsum("qi,qij->qj", center, total), np.einsum("qki,qk,qkj->qij", total, spread, total)

    def moments(self, what: Any = (), strength: float = 1.0) -> Gaussian:
        """Return the distribution of observations under interventions in closed form; needs a linear codec."""
        return self.moments_of([what], [strength])[0]

    def moments_of(self, queries: Sequence[Any], strength: Sequence[float] | None = None) -> list[Gaussian]:
        """Return the distributions of many interventions in one pass."""
        if not isinstance(self.codec, LinearCodec):
            raise NotOffered("observations are no linear function of these latents: draw them with do(…)")
        mean, covariance = self.latent_moments(queries, strength)
        d, more = self.codec.decoder, 0.0 if self.codec.residual is None else self.codec.residual
        return [Gaussian(self.codec.center + d @ a, d @ c @ d.T + more) for a, c in zip(mean, covariance, strict=True)]

    def to_networkx(self) -> Any:
        """Return the graph as a ``networkx.DiGraph`` whose edges hold their weight."""
        try:
            import networkx as nx
        except ImportError as error:
            raise UserError("a networkx graph needs networkx: pip install 'elsewhere[graphs]'") from error
        graph = nx.DiGraph()
        graph.add_nodes_from(self.latents)
        for i, j in np.argwhere(self.graph):
            graph.add_edge(self.latents[i], self.latents[j], weight=float(self.mechanisms.weights[i, j]))
        return graph

    def ancestors(self) -> Array:
        """Return who is an ancestor of whom [n, n]."""
        return closure(self.graph)

    def _queries(self, queries: Sequence[Any], strength: Sequence[float] | None) -> tuple[Array, Array, Array]:
        """Return what is cut [q, n] (bool), and means and variances [q, n] that it is set to."""
        n = len(self.latents)
        cut, mean, variance = np.zeros((len(queries), n), bool), np.zeros((len(queries), n)), np.zeros((len(queries), n))
        for q, what in enumerate(queries):
            for i, (m, v) in self._set(what, 1.0 if strength is None else float(strength[q])).items():
                cut[q, i], mean[q, i], variance[q, i] = True, m, v
        return cut, mean, variance

    def _set(self, what: Any, strength: float = 1.0) -> dict[int, tuple[float, float]]:
        """Return for each latent that is set its mean and variance."""
        entries: list[tuple[Any, Any]] = list(what.items()) if isinstance(what, Mapping) else [(None, name) for name in ([what] if isinstance(what, str) else what)]
        found: dict[int, tuple[float, float]] = {}
        for latent, value in entries:
            target, told = self._entry(latent, value, strength)
            if target is None:
                continue
            if target in found:
                raise UserError(f"two interventions set {self.latents[target]!r}; give one")
            found[target] = told
        if found and not self.hard:
            raise UserError(
                "this model was fitted on soft interventions: each latent is identified only together with its ancestors, so setting one is not defined. "
                "Identified are the order and the ancestors (graph); fit with interventions='hard' if the interventions cut their targets from their causes"
            )
        return found

    def _entry(self, latent: Any, value: Any, strength: float) -> tuple[int | None, tuple[float, float]]:
        if isinstance(value, str):
            if value not in self.environments:
                joined = f" (say {tuple(value.split(JOIN))!r} for several)" if JOIN in value else ""
                raise UserError(f"no environment {value!r}{joined}{did_you_mean(value, self.environments)}")
            k = self.environments.index(value)
            target = int(self.targets[k])
            if latent is not None and self._latent(latent) != target:
                raise UserError(f"environment {value!r} sets {self.latents[target] if target >= 0 else 'nothing'}, not {latent!r}")
            if target < 0:
                return None, (0.0, 0.0)
            return target, (strength * float(self.means[k]), float(self.variances[k]))
        mean, variance = value if isinstance(value, (tuple, list)) else (value, 0.0)
        if not variance >= 0:
            raise UserError(f"the variance that {latent!r} is set to must be at least 0, not {variance!r}")
        return self._latent(latent), (float(mean), float(variance))

    def _latent(self, latent: Any) -> int:
        if isinstance(latent, (int, np.integer)) and 0 <= latent < len(self.latents):
            return int(latent)
        if latent not in self.latents:
            raise UserError(f"no latent {latent!r}{did_you_mean(str(latent), self.latents)}")
        return self.latents.index(latent)
