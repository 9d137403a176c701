"""Worlds whose causal variables are known: linear and nonlinear mixing, views, actions, transitions (spec 05, 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, pairwise
from typing import Literal

import numpy as np

from elsewhere.causal.data import OBSERVATIONAL, Actions, Environments, Transitions, Views
from elsewhere.causal.questions import Gaussian
from elsewhere.data import Array
from elsewhere.errors import UserError

CANDIDATES = 10_000  # matrices whose condition numbers say what a good one is


@dataclass(frozen=True)
class InterventionalWorld:
    """A linear structural model of latents, a mixing, and one intervention on each latent, numbered at random.

    Args:
        weights: [n, n], [j, i] of edge j → i.
        variance: [n] of the noises.
        mix: latents [N, n] -> observations [N, d].
        shift: [n] mean that the intervention on a latent sets.
        factor: of the noise variance under it.
        targets: for environment 1, 2, … the latent that it acts on.
        soft: the intervention halves the incoming weights instead of cutting them.
        set_variance: [n] variance under the intervention, in the place of ``factor``.
        matrix: [d, n] of a linear mixing.
    """

    weights: Array
    variance: Array
    mix: Callable[[Array], Array] = field(repr=False)
    shift: Array
    factor: float
    targets: tuple[int, ...]
    soft: bool = False
    set_variance: Array | None = None
    matrix: Array | None = None

    @property
    def n(self) -> int:
        return len(self.variance)

    @property
    def graph(self) -> Array:
        """Adjacency [n, n] of the true graph, in the order of the true latents."""
        return np.asarray(self.weights != 0)

    @property
    def names(self) -> tuple[str, ...]:
        return (OBSERVATIONAL, *(f"env_{k + 1}" for k in range(len(self.targets))))

    def moments(self, latents: Sequence[int], strength: float = 1.0) -> Gaussian:
        """Return the distribution of the latents if the interventions on some of them are done together."""
        weights, mean, variance = self._set(latents, strength)
        total = np.linalg.inv(np.eye(self.n) - weights)
        return Gaussian(mean @ total, total.T @ np.diag(variance) @ total)

    def observed(self, latents: Sequence[int], strength: float = 1.0) -> Gaussian:
        """Return the distribution of the observations; of a linear mixing."""
        if self.matrix is None:
            raise UserError("the observations of a nonlinear mixing are not normal: draw them")
        z = self.moments(latents, strength)
        return Gaussian(self.matrix @ z.mean, self.matrix @ z.covariance @ self.matrix.T)

    def draw(self, latents: Sequence[int], size: int, rng: np.random.Generator, strength: float = 1.0) -> Array:
        """Draw latents [size, n] under interventions on some of them."""
        weights, mean, variance = self._set(latents, strength)
        noise = mean + rng.normal(size=(size, self.n)) * np.sqrt(variance)
        return np.asarray(noise @ np.linalg.inv(np.eye(self.n) - weights))

    def environments(self, size: int, rng: np.random.Generator, interventional: int | None = None, acted: Sequence[Sequence[int]] | None = None) -> Environments:
        """Draw the observational environment and one for each target.

        Args:
            size: observations of each.
            rng: of the draw.
            interventional: observations of each environment in which something is done; default ``size``.
            acted: for each environment the latents acted on, in the place of its one target.
        """
        sets = [(), *([(t,) for t in self.targets] if acted is None else acted)]
        sizes = [size, *[interventional or size] * (len(sets) - 1)]
        z = np.concatenate([self.draw(s, k, rng) for s, k in zip(sets, sizes, strict=True)])
        codes = np.repeat(np.arange(len(sets)), sizes)
        return Environments(self.mix(z), codes, self.names[: len(sets)], z, self.graph, tuple(tuple(s) for s in sets))

    def pairs(self) -> list[tuple[int, int]]:
        """Return every pair of environments."""
        return list(combinations(range(1, len(self.targets) + 1), 2))

    def joined(self, environments: Sequence[int]) -> bool:
        """Return whether an edge joins two of the latents that these environments act on."""
        at = [self.targets[k - 1] for k in environments]
        return bool(any(self.graph[i, j] for i in at for j in at))

    def _set(self, latents: Sequence[int], strength: float) -> tuple[Array, Array, Array]:
        at = list(latents)
        weights, mean, variance = self.weights.copy(), np.zeros(self.n), self.variance.copy()
        weights[:, at] *= 0.5 if self.soft else 0.0
        mean[at] = strength * self.shift[at]
        variance[at] = variance[at] * self.factor if self.set_variance is None else self.set_variance[at]
        return weights, mean, variance


def linear_gaussian_world(n: int = 5, d: int = 10, density: float = 0.5, seed: int = 0, soft: bool = False, shifts: bool = False, factor: float | None = None) -> InterventionalWorld:
    """Return a linear Gaussian model with a linear mixing (spec 05, 7.1).

    Edges of a random order with probability ``density``, weights ±U[.5, 1.5], noise variances U[.5, 1.5]. Interventions multiply the noise
    variance by 5, or with ``shifts`` by 2 and move the mean by ±U[2, 4]; environments are numbered at random. The mixing is a random d × n
    orthonormal matrix times U[-.5, .5] n × n, redrawn until its singular values differ by at most 10, columns scaled to a largest entry of 1
    (n > 10: the identity plus .3 N(0, 1) / √n).

    Args:
        n, d: latents and observed columns.
        density: of the graph.
        seed: of all of it.
        soft: interventions halve the incoming weights instead of cutting them.
        shifts: interventions move the mean.
        factor: of the noise variance; default 5, with shifts 2.

    Examples:
        >>> world = linear_gaussian_world(3, 4, seed=1)
        >>> world.environments(10, np.random.default_rng(0)).inputs.shape
        (40, 4)
    """
    if n < 1 or d < n:
        raise UserError(f"a world needs at least one latent and as many observed columns; got {n} latents and {d} columns")
    rng = np.random.default_rng([seed, 1])
    weights = np.triu(rng.choice([-1, 1], (n, n)) * rng.uniform(0.5, 1.5, (n, n)) * (rng.random((n, n)) < density), 1)
    variance = rng.uniform(0.5, 1.5, n)
    shift = rng.choice([-1, 1], n) * rng.uniform(2, 4, n) if shifts else np.zeros(n)
    matrix = mixing_matrix(n, d, rng)
    targets = tuple(int(k) for k in rng.permutation(n))
    factor = factor if factor is not None else 2.0 if shifts else 5.0
    return InterventionalWorld(weights, variance, lambda z: z @ matrix.T, shift, factor, targets, soft, None, matrix)


def mixing_matrix(n: int, d: int, rng: np.random.Generator) -> Array:
    """Return a random mixing [d, n] that is not nearly singular, columns scaled to a largest entry of 1."""
    q, r = np.linalg.qr(rng.normal(size=(d, n)))
    q = q * np.sign(np.diag(r))
    if n > 10:
        inner = np.eye(n) + 0.3 * rng.normal(size=(n, n)) / np.sqrt(n)
    else:
        while True:
            inner = rng.uniform(-0.5, 0.5, (n, n))
            values = np.linalg.svd(inner, compute_uv=False)
            if values[-1] / values[0] >= 0.1:
                break
    matrix = q @ inner
    return np.asarray(matrix / np.abs(matrix).max(0))


def nonlinear_world(n: int = 4, degree: float = 2.0, d: int = 20, hidden: int = 64, layers: int = 2, seed: int = 0) -> InterventionalWorld:
    """Return a linear Gaussian model behind an untrained perceptron (spec 05, 7.2): LeakyReLU .2, torch's default initialisation.

    Args:
        n: latents.
        degree: expected number of neighbours of a latent.
        d: observed columns.
        hidden, layers: of the mixing; more hidden layers are less linear.
        seed: of all of it.

    Examples:
        >>> nonlinear_world(3, d=5).environments(10, np.random.default_rng(0)).inputs.shape
        (40, 5)
    """
    rng = np.random.default_rng([seed, 2])
    density = min(1.0, degree / max(1, n - 1))
    weights = np.triu(rng.choice([-1, 1], (n, n)) * rng.uniform(0.25, 1.0, (n, n)) * (rng.random((n, n)) < density), 1)
    variance = rng.uniform(1, 2, n)
    shift, spread = rng.choice([-1, 1], n) * rng.uniform(1, 2, n), rng.uniform(1, 2, n)
    targets = tuple(int(k) for k in rng.permutation(n))
    return InterventionalWorld(weights, variance, random_perceptron(n, d, hidden, layers, rng), shift, 1.0, targets, False, spread)


def random_perceptron(n: int, d: int, hidden: int, layers: int, rng: np.random.Generator) -> Callable[[Array], Array]:
    """Return an untrained perceptron n → hidden (``layers`` times) → d with LeakyReLU .2, weights and biases U(±1/√fan-in)."""
    sizes = [n, *[hidden] * layers, d]
    parts = [(rng.uniform(-1, 1, (a, b)) / np.sqrt(a), rng.uniform(-1, 1, b) / np.sqrt(a)) for a, b in pairwise(sizes)]

    def mix(z: Array) -> Array:
        x = np.asarray(z, float)
        for k, (w, b) in enumerate(parts):
            x = x @ w + b
            x = np.where(x > 0, x, 0.2 * x) if k < len(parts) - 1 else x
        return x

    return mix


def invertible_mlp(n: int, layers: int = 3, rng: np.random.Generator | None = None) -> Callable[[Array], Array]:
    """Return an invertible perceptron n → n (spec 05, 7.3): well-conditioned matrices with unit columns, LeakyReLU .2 between them.

    Examples:
        >>> g = invertible_mlp(2, rng=np.random.default_rng(0))
        >>> g(np.zeros((3, 2))).shape
        (3, 2)
    """
    rng = rng or np.random.default_rng(0)
    least = _good_condition(n)
    matrices: list[Array] = []
    while len(matrices) < layers:
        w = rng.uniform(-1, 1, (n, n))
        w /= np.linalg.norm(w, axis=0)
        if np.linalg.cond(w) <= least:
            matrices.append(w)

    def mix(z: Array) -> Array:
        x = np.asarray(z, float)
        for k, w in enumerate(matrices):
            x = x @ w
            x = np.where(x > 0, x, 0.2 * x) if k < layers - 1 else x
        return x

    return mix


@lru_cache(maxsize=32)
def _good_condition(n: int) -> float:
    w = np.random.default_rng(0).uniform(-1, 1, (CANDIDATES, n, n))
    return float(np.quantile(np.linalg.cond(w / np.linalg.norm(w, axis=1, keepdims=True)), 0.25))


# --- views ----------------------------------------------------------------------------------------------------------


def partial_views(size: int, content: Sequence[Sequence[int]] = ((0, 1, 2), (1, 2, 3), (0, 2, 3)), seed: int = 0, dependence: float = 0.0, layers: int = 3) -> Views:
    """Return views of normal latents through an invertible perceptron each (Yao et al. 2024).

    Args:
        size: examples.
        content: the latents that each view sees.
        seed: of mixings and examples.
        dependence: correlation of every two latents.
        layers: of each mixing.

    Examples:
        >>> [x.shape for x in partial_views(10, ((0, 1), (1, 2)), layers=1).inputs]
        [(10, 2), (10, 2)]
    """
    n = max(max(s) for s in content) + 1
    rng = np.random.default_rng([seed, 3])
    mixes = [invertible_mlp(len(s), layers, rng) for s in content]
    z = rng.normal(size=(size, n)) @ np.linalg.cholesky((1 - dependence) * np.eye(n) + dependence).T
    inputs = tuple(mix(z[:, list(s)]).astype(np.float32) for mix, s in zip(mixes, content, strict=True))
    return Views(inputs, tuple(tuple(s) for s in content), z)


def box_pairs(size: int, n: int = 10, seed: int = 0, deviation: float = 0.05, p: int = 2, layers: int = 3) -> Views:
    """Return two full views of latents in a box, the second near the first (Zimmermann et al. 2021).

    z is uniform in [0, 1]ⁿ, z̃ normal (p = 2) or Laplace (p = 1) about it with this deviation, truncated to the box; both pass one invertible perceptron.

    Examples:
        >>> box_pairs(10, 3, layers=1).inputs[1].shape
        (10, 3)
    """
    rng = np.random.default_rng([seed, 4])
    mix = invertible_mlp(n, layers, rng)
    z = rng.random((size, n))
    near = _in_box(z, deviation, p, rng)
    full = tuple(range(n))
    return Views((mix(z).astype(np.float32), mix(near).astype(np.float32)), (full, full), z)


def _in_box(z: Array, deviation: float, p: int, rng: np.random.Generator) -> Array:
    out, left = z.copy(), np.ones(z.shape, bool)
    while left.any():
        k = int(left.sum())
        step = rng.normal(0, deviation, k) if p == 2 else rng.laplace(0, deviation / np.sqrt(2), k)
        tried = z[left] + step
        ok = (tried >= 0) & (tried <= 1)
        at = np.flatnonzero(left.ravel())[ok]
        out.ravel()[at] = tried[ok]
        left.ravel()[at] = False
    return out


# --- actions --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ActionWorld:
    """z = M a + v, x = g(z), y = ℓ(z) + u, where v and u are confounded and neither depends on a (spec 05, C).

    ℓ(z) = Σ_i sin(z_i) + z_i / 2, u = c · v + noise.
    """

    m: Array
    confounding: Array
    mix: Callable[[Array], Array] = field(repr=False)

    def draw(self, size: int, rng: np.random.Generator, reach: float = 1.0) -> Actions:
        """Draw observations under actions uniform in [-reach, reach]^k."""
        a = rng.uniform(-reach, reach, (size, self.m.shape[1]))
        v = rng.normal(size=(size, len(self.m)))
        z = a @ self.m.T + v
        y = outcome(z) + v @ self.confounding + 0.1 * rng.normal(size=size)
        return Actions(self.mix(z), a, y, z)

    def effect(self, action: Array, size: int = 200_000, seed: int = 0) -> Array:
        """Return E[y given do(a)] for actions [q, k]: the mean over v of ℓ(M a + v); the mean of u is 0."""
        v = np.random.default_rng([seed, 9]).normal(size=(size, len(self.m)))
        return np.array([outcome(self.m @ a + v).mean() for a in np.atleast_2d(action)])


def outcome(z: Array) -> Array:
    """Return ℓ(z) = Σ_i (sin z_i + z_i / 2)."""
    return np.asarray((np.sin(z) + z / 2).sum(1))


def action_world(n: int = 2, k: int = 2, d: int = 10, layers: int = 2, seed: int = 0, oracle: bool = False) -> ActionWorld:
    """Return a world of actions; ``oracle`` observes an affine map of the latents instead of a perceptron of them.

    Examples:
        >>> action_world().draw(10, np.random.default_rng(0)).inputs.shape
        (10, 10)
    """
    if k < n:
        raise UserError(f"actions of {k} dimensions cannot move {n} latents in every direction")
    rng = np.random.default_rng([seed, 5])
    m = np.zeros((n, k))
    while np.linalg.matrix_rank(m) < n or np.linalg.cond(m) > 4:
        m = rng.normal(size=(n, k))
        m *= 0.75 / np.linalg.norm(m, axis=1, keepdims=True)  # outcomes of actions between 1.25 and 2 then spread by 1.2 to 1.6, as in the specification
    a, b = rng.normal(size=(n, n)) + 2 * np.eye(n), rng.normal(size=n)
    mix: Callable[[Array], Array] = (lambda z: z @ a.T + b) if oracle else random_perceptron(n, d, 32, layers, rng)
    return ActionWorld(m, rng.choice([-1, 1], n) * rng.uniform(1, 2, n), mix)


# --- transitions ----------------------------------------------------------------------------------------------------


def transitions(size: int, n: int = 4, seed: int = 0, layers: int = 3, density: float = 0.4, kind: Literal["mixed", "plain"] = "mixed") -> Transitions:
    """Return a sequence in which an action in the unit square touches at most one variable, which then is drawn anew (spec 05, 7.5).

    z_{t+1,i} = .8 z_{t,i} + .2 tanh(Σ_{j ∈ pa} z_{t,j}) + N(0, .1²), or N(0, 1) if the action lies in cell i of a Voronoi diagram of 2n random
    points, of which n are idle.

    Args:
        size: steps.
        n: variables.
        seed: of all of it.
        layers: of the invertible perceptron that is observed.
        density: of the graph of parents.
        kind: "mixed" observations, or the variables themselves ("plain").

    Examples:
        >>> transitions(20, 3, layers=1).action.shape
        (20, 2)
    """
    rng = np.random.default_rng([seed, 6])
    parents = np.triu(rng.random((n, n)) < density, 1)
    points = rng.random((2 * n, 2))
    action = rng.random((size, 2))
    cell = np.square(action[:, None] - points).sum(2).argmin(1)
    fresh, noise = rng.normal(size=(size, n)), 0.1 * rng.normal(size=(size, n))
    z = np.empty((size + 1, n))
    z[0] = rng.normal(size=n)
    for t in range(size):
        z[t + 1] = 0.8 * z[t] + 0.2 * np.tanh(z[t] @ parents) + noise[t]
        if cell[t] < n:
            z[t + 1, cell[t]] = fresh[t, cell[t]]
    x = invertible_mlp(n, layers, rng)(z) if kind == "mixed" else z
    return Transitions.from_sequence(x.astype(np.float32), action, z)
