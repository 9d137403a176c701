"""Tasks on pictures whose causal variables are known: pairs, splits of a grid, interventions (spec 05, 6.6 and 6.7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from typing import Any, Literal

import numpy as np

from elsewhere.causal import worlds
from elsewhere.causal.data import Environments, Pairs
from elsewhere.causal.measures import DCI, MCC, READ_R2, RELATIVE, graph_metrics
from elsewhere.causal.questions import Gaussian, Interventions
from elsewhere.causal.scenes import balls, balls_world, bench, bench_world, pendulum, pendulum_latents
from elsewhere.data import Array
from elsewhere.errors import UserError
from elsewhere.factors.task import CHOICES, factor_task
from elsewhere.factors.world import FactorImages
from elsewhere.run import Run
from elsewhere.task import Domain, Source, Task, task

HELD = 2000


@task("balls/pairs", learners=("weak-pairs", "autoencoder"))
def ball_pairs(seed: int = 0, balls: int = 2, size: int = 10_000, change: int | Literal["random"] = "random", side: int = 32, occlusion: bool = False) -> Task[Any]:
    """Pairs of pictures of balls that share some of their coordinates (spec 05, 6.6)."""
    run = Run(seed)
    data = pairs_of_balls(size + HELD, balls, run.rng("sample"), change, side, occlusion)
    held = data.take(np.arange(size, len(data)))
    return Task(Source(data.take(np.arange(size))), [Domain("held-out pairs", held, "home")], [DCI, MCC])


def pairs_of_balls(size: int, count: int, rng: np.random.Generator, change: str | int = "random", side: int = 32, occlusion: bool = False) -> Pairs:
    """Draw pairs: factors uniform in [-.4, .4], k of them (1 to all but one, or "random") drawn anew in the second."""
    n = 2 * count
    first, second = rng.uniform(-0.4, 0.4, (2, size, n))
    k = rng.integers(1, n, size) if change == "random" else np.full(size, int(change))
    changed = rng.random((size, n)).argsort(1).argsort(1) < k[:, None]
    z = np.stack([first, np.where(changed, second, first)], 1)
    x = balls(z.reshape(-1, n), side, occlusion)
    return Pairs(x.reshape(size, 2, *x.shape[1:]), z)


# --- pictures: splits of a grid of factors -----------------------------------------------------------------------------

STATIC = ("prior", "ridge-regression", "cnn")


@task("balls", choices=CHOICES, learners=STATIC)
def balls_task(seed: int = 0, split: str = "extrapolation", count: int = 2, values: int = 10, resolution: int = 32, granted: str = "nothing", occlusion: bool = False) -> Task[FactorImages]:
    """Pictures of coloured balls on a grid of places, with the four splits of the image benchmark."""
    return _granting(factor_task(balls_world(count, values, resolution, occlusion), split, seed), granted)


@task("bench", choices=CHOICES, learners=STATIC)
def bench_task(seed: int = 0, split: str = "extrapolation", values: int = 6, resolution: int = 32, noise: float = 0.0, granted: str = "nothing") -> Task[FactorImages]:
    """Pictures of a lamp behind two polarisers on a grid of settings, with the four splits of the image benchmark."""
    return _granting(factor_task(bench_world(values, resolution, noise), split, seed), granted)


def _granting(made: Task[FactorImages], granted: str) -> Task[FactorImages]:
    """Return the task that also grants its test images, without labels, but with which of them differ in what (for pairs and views)."""
    if granted not in ("nothing", "pairs"):
        raise UserError(f"granted must be nothing or pairs, not {granted!r}")
    if granted == "nothing":
        return made
    there = made.domain("all").load()
    source = replace(made.source, unlabelled={"all": replace(there, labels=None)}, transductive=True)
    note = "Images of the test part are granted to learners that ask, without their labels; which of them share factors is told, the factors are not."
    return replace(made, source=source, notes=(*made.notes, note))


# --- pictures: interventions ------------------------------------------------------------------------------------------

SCENES: dict[str, tuple[int, Callable[..., Array]]] = {
    "balls": (4, lambda u, size, noise, rng: balls(0.1 * u, size)),
    "bench": (5, lambda u, size, noise, rng: bench(np.c_[0.6 + 0.12 * u[:, :3], 15 * u[:, 3:]], size, noise, rng)),
}
WITHIN = {"balls": 4.0, "bench": 3.3}  # of every variable, by rejection


@lru_cache(maxsize=16)
def scene_world(scene: str, seed: int) -> worlds.InterventionalWorld:
    """Return the linear Gaussian model behind a scene: variables of unit variance, set to ±1.5 with deviation .7 by their interventions."""
    n = SCENES[scene][0]
    rng = np.random.default_rng([seed, 8])
    weights = np.zeros((n, n))
    variance = np.ones(n)
    covariance = np.eye(n)
    for j in range(n):  # unit variances: a cause explains at most 70 %
        parents = np.flatnonzero(rng.random(j) < 0.6)
        if len(parents):
            w = rng.choice([-1, 1], len(parents)) * rng.uniform(0.5, 1.0, len(parents))
            explained = float(w @ covariance[np.ix_(parents, parents)] @ w)
            w *= np.sqrt(0.7 / explained)
            weights[parents, j], variance[j] = w, 0.3
            covariance[j, :j] = covariance[:j, j] = covariance[:j][:, parents] @ w
    targets = tuple(int(k) for k in rng.permutation(n))
    return worlds.InterventionalWorld(weights, variance, lambda z: z, rng.choice([-1, 1], n) * 1.5, 1.0, targets, False, np.full(n, 0.49))


def scene_task(scene: str, seed: int, size: int, side: int, noise: float) -> Task[Any]:
    """Return the interventional task of a scene: trained on single interventions, asked about pairs and doubled strength (spec 05, 6.7, arms 2 and 3)."""
    n, draw = SCENES[scene]
    world, limit = scene_world(scene, seed), WITHIN[scene]
    run = Run(seed)

    def variables(latents: Sequence[int], count: int, rng: np.random.Generator, strength: float = 1.0) -> Array:
        found: list[Array] = []
        while sum(map(len, found)) < count:
            z = world.draw(latents, 2 * count, rng, strength)
            found.append(z[(np.abs(z) <= limit).all(1)])
        return np.concatenate(found)[:count]

    def rows(sets: Sequence[Sequence[int]], count: int, purpose: str, strength: float = 1.0) -> Environments:
        rng = run.rng(purpose)
        z = np.concatenate([variables([world.targets[k - 1] for k in s], count, rng, strength) for s in sets])
        names = world.names if purpose == "sample" else tuple("+".join(world.names[k] for k in s) or world.names[0] for s in sets)
        return Environments(draw(z, side, noise, run.rng(f"noise {purpose}")), np.repeat(np.arange(len(sets)), count), names, z)

    def questions(sets: Sequence[Sequence[int]], strength: float = 1.0) -> Interventions:
        rng = run.rng("truth")
        truth = tuple(Gaussian.of(variables([world.targets[k - 1] for k in s], 20_000, rng, strength)) for s in sets)
        do = tuple(tuple(world.names[k] for k in s) for s in sets)
        return Interventions(do, truth, Gaussian.of(variables((), 20_000, rng)), np.full(len(do), strength), "latents")

    singles, pairs = [(k,) for k in range(1, n + 1)], list(combinations(range(1, n + 1), 2))
    domains: list[Domain[Any]] = [
        Domain("single interventions", questions(singles), "home", {"noise": noise}),
        Domain("pictures at home", rows([(), *singles], 300, "held out"), "home", {"noise": noise}),
        Domain("pairs", questions(pairs), about={"noise": noise}),
        Domain("doubled strength", questions(singles, 2.0), about={"noise": noise}),
        Domain("pictures under pairs", rows(pairs, 200, "pairs"), about={"noise": noise}),
        Domain("pictures under doubled strength", rows(singles, 300, "doubled", 2.0), about={"noise": noise}),
    ]
    return Task(Source(rows([(), *singles], size, "sample")), domains, [READ_R2, RELATIVE, MCC], ("causal-arms",))


@task("balls/interventions", learners=("contrastive-interventional",))
def balls_interventions(seed: int = 0, size: int = 2000, resolution: int = 32) -> Task[Any]:
    """Pictures of balls whose coordinates cause one another; what happens under pairs of interventions?"""
    return scene_task("balls", seed, size, resolution, 0.0)


@task("bench/interventions", learners=("contrastive-interventional",))
def bench_interventions(seed: int = 0, size: int = 2000, resolution: int = 32, noise: float = 0.0) -> Task[Any]:
    """Pictures of an optical bench whose settings cause one another, with sensor noise; what happens under pairs of interventions?"""
    return scene_task("bench", seed, size, resolution, noise)


@task("pendulum", learners=("contrastive-interventional", "autoencoder:latents=4"))
def pendulum_task(seed: int = 0, size: int = 2000, resolution: int = 64) -> Task[Any]:
    """Pictures of a pendulum, a light and its shadow: angle and light cause centre and width of the shadow, and each is set once (spec 05, 7.4)."""
    rng, held = Run(seed).rng("sample"), Run(seed).rng("held out")
    names = ("observational", "angle", "light", "shadow", "width")
    graph = np.zeros((4, 4), int)
    graph[[0, 1, 0], [2, 2, 3]] = 1
    z = np.concatenate([pendulum_latents(size, rng, target) for target in (None, 0, 1, 2, 3)])
    targets = ((), (0,), (1,), (2,), (3,))
    data = Environments(pendulum(z, resolution), np.repeat(np.arange(5), size), names, z, graph, targets, latent_names=names[1:])
    z = pendulum_latents(HELD, held)
    home = Environments(pendulum(z, resolution), np.zeros(HELD, int), names, z, graph, targets, latent_names=names[1:])
    return Task(Source(data), [Domain("held-out pictures", home, "home")], [MCC, READ_R2, *graph_metrics(graph, range(4))])
