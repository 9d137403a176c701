"""Tasks of this room: latents to be found, outcomes of interventions nobody tried, pictures whose causal variables are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np

from elsewhere.causal import metrics as m
from elsewhere.causal import worlds
from elsewhere.causal.data import Actions, Environments, Gaussian, Interventions, Pairs, Transitions
from elsewhere.causal.predictions import answers_of, values_of
from elsewhere.causal.scenes import balls, balls_world, bench, bench_world
from elsewhere.data import Array
from elsewhere.errors import Undefined, UserError
from elsewhere.factors.task import CHOICES, factor_task
from elsewhere.factors.world import FactorImages, World
from elsewhere.prediction import ValuePrediction
from elsewhere.run import Run
from elsewhere.task import Domain, Metric, Source, Task, task

HELD = 4000
FINDINGS = ("causal-map",)
LEARNERS = ("linear-interventional", "additive-interventions", "nearest-intervention", "no-change", "conditional-gaussian")


# --- metrics --------------------------------------------------------------------------------------------------------


def relative_error(prediction: Any, data: Any) -> Array:
    """Return W₂² of prediction and truth over that of nothing and truth, for each question."""
    if not isinstance(data, Interventions) or data.outcomes is None:
        raise Undefined("this domain holds observations and asks no question")
    return np.array([m.intervention_prediction_error(p, t, data.reference) for p, t in zip(answers_of(prediction), data.outcomes, strict=True)])


def relative_energy(prediction: Any, data: Any) -> Array:
    """Return the energy distance of prediction and truth over that of nothing and truth, for each question whose truth is known by rows."""
    if not isinstance(data, Interventions) or data.outcomes is None:
        raise Undefined("this domain holds observations and asks no question")
    if any(isinstance(t, Gaussian) for t in data.outcomes):
        raise Undefined("the truth is known by its moments: see relative_w2")
    return np.array([m.intervention_prediction_error(p, t, data.reference, "energy") for p, t in zip(answers_of(prediction), data.outcomes, strict=True)])


def _truth(data: Any) -> Array:
    found = getattr(data, "latents", None)
    if found is None:
        found = getattr(data, "factors", None)
    if found is None:
        raise Undefined("the true latents are not known here")
    z = np.asarray(found, float)
    return z[:, 0] if isinstance(data, Pairs) else z[:, 1] if isinstance(data, Transitions) else z


def mcc(prediction: Any, data: Any) -> Mapping[str, float]:
    """Return the mean correlation coefficient, and Spearman's."""
    z, code = _truth(data), values_of(prediction)
    return {"": m.mean_correlation(z, code), "spearman": m.mean_correlation(z, code, rank=True)}


def dci(prediction: Any, data: Any) -> Mapping[str, float]:
    """Return disentanglement, completeness and informativeness by gradient-boosted trees."""
    z, code = _truth(data), values_of(prediction)
    importance, informativeness = m.importances(z, code)
    return {**m.dci(importance), "informativeness": informativeness}


def read_r2(prediction: Any, data: Any) -> float:
    """Return R² of predicted values of the true variables, mean over variables, by their variance here."""
    if not isinstance(prediction, ValuePrediction):
        raise Undefined("it predicts no true variables: read them out")
    z = _truth(data)
    found = np.asarray(prediction.mean, float)
    if found.shape != z.shape:
        raise UserError(f"predictions have shape {list(found.shape)}; the true variables {list(z.shape)}")
    return float((1 - np.square(found - z).mean(0) / z.var(0)).mean())


def graph_metrics(graph: Array, targets: Sequence[int], held: Environments) -> list[Metric]:
    """Return SHD, F1 of edges and of ancestors of a learner's graph, and R² of its observational latents from x; judged at home alone.

    Args:
        graph: true adjacency.
        targets: for environment 1, 2, … the latent it acts on: a learner's latent m is that one.
        held: where the measure stands in the tables.
    """
    order = np.argsort(np.asarray(targets))

    def found(learner: Any) -> Array:
        if learner.__dict__.get("model_") is None:
            raise Undefined("it finds no graph")
        g = np.asarray(learner.graph)
        return g[np.ix_(order, order)] if len(g) == len(order) else g

    def at_home(score: Callable[[Array, Array], float]) -> Callable[[Any, Any], float]:
        def measure(learner: Any, data: Any) -> float:
            if not isinstance(data, Environments):
                raise Undefined("the graph is judged at home")
            return float(score(graph, found(learner)))

        return measure

    return [
        Metric("shd", at_home(m.structural_hamming_distance), higher_is_better=False, of="learner"),
        Metric("edge_f1", at_home(m.edge_f1), of="learner"),
        Metric("ancestor_f1", at_home(m.ancestor_f1), of="learner"),
    ]


RELATIVE = Metric("relative_w2", relative_error, higher_is_better=False)
ENERGY = Metric("relative_energy", relative_energy, higher_is_better=False)
MCC, DCI, READ_R2 = Metric("mcc", mcc), Metric("dci", dci), Metric("r2", read_r2)


# --- interventions that nobody tried ----------------------------------------------------------------------------------


def asked(world: worlds.InterventionalWorld, sets: Sequence[Sequence[int]], strength: float = 1.0) -> Interventions:
    """Return the questions of sets of environments with their exact answers in x."""
    at = [[world.targets[k - 1] for k in s] for s in sets]
    do = tuple(tuple(world.names[k] for k in s) for s in sets)
    return Interventions(do, tuple(world.observed(s, strength) for s in at), world.observed(()), np.full(len(do), strength))


@task("causal/unseen-pairs", learners=LEARNERS, reader="interventions")
def unseen_pairs(seed: int = 0, n: int = 5, d: int = 10, size: int = 2000, density: float = 0.5) -> Task[Any]:
    """Trained where nothing or one thing was done; asked what happens when two are done together, or one twice as strongly (spec 05, 6.2)."""
    if n < 2:
        raise UserError(f"pairs of interventions need at least 2 latents, not {n}")
    world = worlds.linear_gaussian_world(n, d, density, seed, shifts=True)
    source = Source(world.environments(size, Run(seed).rng("sample")))
    held = _held(world, seed)
    joined = [p for p in world.pairs() if world.joined(p)]
    others = [p for p in world.pairs() if not world.joined(p)]
    singles = [(k,) for k in range(1, n + 1)]
    domains: list[Domain[Any]] = [
        Domain("single interventions", asked(world, singles), "home", {"strength": 1.0}),
        Domain("held-out rows", held, "home"),
        Domain("all pairs", asked(world, world.pairs())),
    ]
    for name, pairs in (("pairs joined by an edge", joined), ("other pairs", others)):
        if pairs:
            domains.append(Domain(name, asked(world, pairs), about={"joined": name != "other pairs"}))
    for name, strength in (("half the strength", 0.5), ("doubled strength", 2.0), ("tripled strength", 3.0)):
        domains.append(Domain(name, asked(world, singles, strength), about={"strength": strength}))
    return Task(source, domains, [RELATIVE, MCC, *graph_metrics(world.graph, world.targets, held)], FINDINGS)


def _held(world: worlds.InterventionalWorld, seed: int) -> Environments:
    z = world.draw((), HELD, Run(seed).rng("held out"))
    return Environments(world.mix(z), np.zeros(HELD, int), world.names, z, world.graph)


@task("causal/linear", learners=("linear-interventional", "principal-components", "independent-components"), reader="interventions")
def linear_task(seed: int = 0, n: int = 5, d: int = 10, size: int = 10_000, shifts: bool = False, soft: bool = False, density: float = 0.5, break_with: str = "nothing") -> Task[Any]:
    """Latents behind a linear mixing, one intervention on each: variance × 5, or a shift and variance × 2 (spec 05, 6.1).

    ``break_with`` breaks an assumption: "pairs" (each environment acts on two latents), "tanh" or "square" (a nonlinear mixing).
    """
    world = worlds.linear_gaussian_world(n, d, density, seed, soft, shifts)
    data, held = broken(world, size, seed, break_with)
    return Task(Source(data), [Domain("held-out rows", held, "home")], [MCC, *graph_metrics(world.graph, world.targets, held), *check_metrics()], FINDINGS)


def broken(world: worlds.InterventionalWorld, size: int, seed: int, break_with: str = "nothing") -> tuple[Environments, Environments]:
    """Return environments and held-out rows of a world, with an assumption broken."""
    if break_with not in (kinds := ("nothing", "pairs", "tanh", "square")):
        raise UserError(f"break_with must be one of {', '.join(kinds)}, not {break_with!r}")
    n = world.n
    acted = [(t, (t + 2) % n) for t in world.targets] if break_with == "pairs" else None
    data, held = world.environments(size, Run(seed).rng("sample"), acted=acted), _held(world, seed)
    if break_with in ("tanh", "square"):
        spread = data.inputs.std(0)
        bend = np.tanh if break_with == "tanh" else lambda x: x + 0.3 * x**2
        data, held = (replace(v, inputs=bend(v.inputs / spread)) for v in (data, held))
    return data, held


def check_metrics() -> list[Metric]:
    """Return whether a learner doubted its own assumptions, and by how much: the median third eigenvalue over its limit."""

    def doubted(learner: Any, data: Any) -> float:
        if not hasattr(learner, "third_"):
            raise Undefined("it checks no eigenvalues")
        return float(np.median(learner.third_) > learner.limit_)

    def third(learner: Any, data: Any) -> float:
        if not hasattr(learner, "third_"):
            raise Undefined("it checks no eigenvalues")
        return float(np.median(learner.third_) / learner.limit_)

    return [Metric("doubted", doubted, higher_is_better=False, of="learner"), Metric("third_eigenvalue", third, higher_is_better=False, of="learner")]


@task("causal/nonlinear", learners=("linear-interventional", "contrastive-interventional", "principal-components"), reader="interventions")
def nonlinear_task(seed: int = 0, n: int = 4, degree: float = 2.0, d: int = 20, size: int = 5000, hidden: int = 64, layers: int = 2) -> Task[Any]:
    """Latents behind an untrained perceptron, one intervention on each; and what happens under pairs of them, by energy distance (spec 05, 6.5)."""
    world = worlds.nonlinear_world(n, degree, d, hidden, layers, seed)
    source, held = Source(world.environments(size, Run(seed).rng("sample"))), _held(world, seed)
    rng = Run(seed).rng("pairs")

    def rows(sets: Sequence[Sequence[int]]) -> Interventions:
        drawn = tuple(world.mix(world.draw([world.targets[k - 1] for k in s], 2000, rng)) for s in sets)
        return Interventions(tuple(tuple(world.names[k] for k in s) for s in sets), drawn, world.mix(world.draw((), 2000, rng)))

    pairs = rows(world.pairs())
    floor = Metric("linear_floor", lambda learner, data: _floor(data), of="learner")
    domains: list[Domain[Any]] = [Domain("held-out rows", held, "home"), Domain("pairs", pairs)]
    return Task(source, domains, [MCC, RELATIVE, ENERGY, *graph_metrics(world.graph, world.targets, held), floor])


def _floor(data: Any) -> float:
    """Return R² of the latents by least squares on x: how nearly linear the mixing is."""
    if not isinstance(data, Environments) or data.latents is None:
        raise Undefined("judged where the latents are known")
    return m.linear_r2(data.inputs, data.latents)


# --- actions, views, transitions --------------------------------------------------------------------------------------


@task("causal/actions", learners=("intervention-extrapolation", "ridge-regression", "mlp"))
def actions(seed: int = 0, n: int = 2, k: int = 2, d: int = 10, size: int = 10_000, oracle: bool = False, layers: int = 2) -> Task[Any]:
    """Trained on actions in [-1, 1]; asked for the mean outcome of stronger ones (spec 05, 6.4)."""
    world = worlds.action_world(n, k, d, layers, seed, oracle)
    rng = Run(seed).rng("sample")

    def there(reach: float) -> Actions:
        a = rng.uniform(-1, 1, (64, k))
        a = reach * a / np.abs(a).max(1, keepdims=True) if reach > 1 else a
        return Actions(None, a, world.effect(a))

    domains: list[Domain[Any]] = [Domain("as strong", there(1.0), "home", {"reach": 1.0})]
    domains += [Domain(f"{reach:g} times as strong", there(reach), about={"reach": reach}) for reach in (1.25, 1.5, 2.0)]
    error = Metric("effect_error", lambda p, data: np.abs(np.asarray(p.mean, float) - data.labels), higher_is_better=False)
    outside = Metric("outside", lambda p, data: _outside(p), higher_is_better=False)
    return Task(Source(world.draw(size, rng)), domains, [error, outside])


def _outside(prediction: Any) -> float:
    found = getattr(prediction, "extrapolation_fraction", None)
    if found is None:
        raise Undefined("it does not say how far it reaches beyond what it saw")
    return float(np.mean(found))


@task("causal/views", learners=("multi-view", "principal-components:latents=9"))
def views(seed: int = 0, size: int = 20_000, dependence: float = 0.0, layers: int = 3) -> Task[Any]:
    """Three views of four latents, three seen by each: which block do they share? (spec 05, 6.6)"""
    data = worlds.partial_views(size + HELD, seed=seed, dependence=dependence, layers=layers)
    order = Run(seed).rng("sample").permutation(len(data))
    held = data.take(order[:HELD])

    def block(content: bool) -> Callable[[Any, Any], float]:
        def measure(learner: Any, asked: Any) -> float:
            if not hasattr(learner, "blocks"):
                raise Undefined("it finds no blocks")
            found = []
            for v, code in learner.blocks(asked.unlabelled()).items():
                inside = list(asked.shared(v))
                wanted = inside if content else [k for k in range(asked.latents.shape[1]) if k not in inside]
                found.append(m.block_r2(code, asked.latents[:, wanted]))
            return float(np.mean(found))

        return measure

    metrics = [Metric("content_r2", block(True), of="learner"), Metric("style_r2", block(False), higher_is_better=False, of="learner"), MCC]
    return Task(Source(data.take(order[HELD:])), [Domain("held-out views", held, "home")], metrics)


@task("causal/box", learners=("contrastive-inversion",))
def box(seed: int = 0, n: int = 4, size: int = 20_000, deviation: float = 0.05, p: int = 2) -> Task[Any]:
    """Two full views of latents in a box, the second near the first (Zimmermann et al. 2021)."""
    data = worlds.box_pairs(size + HELD, n, seed, deviation, p)
    held = data.take(np.arange(HELD))
    linear = Metric("linear_r2", lambda prediction, asked: m.linear_r2(values_of(prediction)[:, :n], _truth(asked)))
    return Task(Source(data.take(np.arange(HELD, len(data)))), [Domain("held-out views", held, "home")], [linear, MCC])


@task("causal/transitions", learners=("binary-interactions", "principal-components:latents=8"))
def steps(seed: int = 0, n: int = 4, size: int = 20_000, layers: int = 3, kind: str = "mixed") -> Task[Any]:
    """A system that actions touch now and then, one variable at a time: which are its variables? (spec 05, 6.6)"""
    data = worlds.transitions(size + HELD, n, seed, layers, kind=kind)  # type: ignore[arg-type]
    matrix = Metric("r2", lambda prediction, asked: m.assigned_r2(_truth(asked), values_of(prediction)))
    return Task(Source(data.take(np.arange(size))), [Domain("held-out steps", data.take(np.arange(size, size + HELD)), "home")], [MCC, matrix])


@task("balls/pairs", learners=("weak-pairs", "autoencoder"))
def ball_pairs(seed: int = 0, balls: int = 2, size: int = 10_000, change: str = "random", side: int = 32, occlusion: bool = False) -> Task[Any]:
    """Pairs of pictures of balls that share some of their coordinates (spec 05, 6.6)."""
    run = Run(seed)
    data = pairs_of_balls(size + HELD // 2, balls, run.rng("sample"), change, side, occlusion)
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
    return _granting(factor_task(balls_world(count, values, resolution, occlusion), split, seed), balls_world(count, values, resolution, occlusion), granted, seed)


@task("bench", choices=CHOICES, learners=STATIC)
def bench_task(seed: int = 0, split: str = "extrapolation", values: int = 6, resolution: int = 32, noise: float = 0.0, granted: str = "nothing") -> Task[FactorImages]:
    """Pictures of a lamp behind two polarisers on a grid of settings, with the four splits of the image benchmark."""
    return _granting(factor_task(bench_world(values, resolution, noise), split, seed), bench_world(values, resolution, noise), granted, seed)


def _granting(made: Task[FactorImages], world: World, granted: str, seed: int) -> Task[FactorImages]:
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
