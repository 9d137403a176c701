"""Tasks of this room: latents to be found, outcomes of interventions nobody tried, pictures whose causal variables are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from elsewhere.causal import metrics as m
from elsewhere.causal import worlds
from elsewhere.causal.data import Actions, Environments
from elsewhere.causal.loading import TUNNEL_GET, light_tunnel
from elsewhere.causal.measures import ENERGY, MCC, RELATIVE, check_metrics, graph_metrics, true_latents
from elsewhere.causal.predictions import values_of
from elsewhere.causal.questions import Interventions
from elsewhere.data import find
from elsewhere.errors import Undefined, UserError
from elsewhere.run import Run
from elsewhere.task import Domain, Metric, Source, Task, task

HELD = 4000
TUNNEL_HELD = 0.1  # of the light tunnel's rows in which nothing was done
FINDINGS = ("causal-map",)
LEARNERS = ("linear-interventional", "additive-interventions", "nearest-intervention", "no-change", "conditional-gaussian")


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
    return Task(source, domains, [RELATIVE, MCC, *graph_metrics(world.graph, world.targets)], FINDINGS)


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
    return Task(Source(data), [Domain("held-out rows", held, "home")], [MCC, *graph_metrics(world.graph, world.targets), *check_metrics()], FINDINGS)


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
    return Task(source, domains, [MCC, RELATIVE, ENERGY, *graph_metrics(world.graph, world.targets), floor])


def _floor(data: Any) -> float:
    """Return R² of the latents by least squares on x: how nearly linear the mixing is."""
    if not isinstance(data, Environments) or data.latents is None:
        raise Undefined("judged where the latents are known")
    return m.linear_r2(data.inputs, data.latents)


@task("light-tunnel", revision=2, files=("path",), learners=("linear-interventional", "contrastive-interventional", "principal-components"), reader="interventions")
def light_tunnel_task(seed: int = 0, path: str | None = None, images: bool = False) -> Task[Any]:
    """The light tunnel of the Causal Chamber project, five known variables, by its sensors or its pictures (data root, or path)."""
    data = light_tunnel(path or find("lt_crl_benchmark_v1", TUNNEL_GET), images)
    drawn = Run(seed).rng("held out").random(len(data)) < TUNNEL_HELD
    held = drawn & (np.asarray(data.environment) == 0)  # rows with interventions all train
    domains = [Domain("held-out rows", data.take(held), "home")]
    return Task(Source(data.take(~held)), domains, [MCC], FINDINGS)


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
    error = Metric("effect_error", lambda p, data: np.abs(np.asarray(p.mean, float) - data.labels), False, range=(0, np.inf))
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
    linear = Metric("linear_r2", lambda prediction, asked: m.linear_r2(values_of(prediction)[:, :n], true_latents(asked)))
    return Task(Source(data.take(np.arange(HELD, len(data)))), [Domain("held-out views", held, "home")], [linear, MCC])


@task("causal/transitions", learners=("binary-interactions", "principal-components:latents=8"))
def steps(seed: int = 0, n: int = 4, size: int = 20_000, layers: int = 3, kind: Literal["mixed", "plain"] = "mixed") -> Task[Any]:
    """A system that actions touch now and then, one variable at a time: which are its variables? (spec 05, 6.6)"""
    data = worlds.transitions(size + HELD, n, seed, layers, kind=kind)
    matrix = Metric("r2", lambda prediction, asked: m.assigned_r2(true_latents(asked), values_of(prediction)))
    return Task(Source(data.take(np.arange(size))), [Domain("held-out steps", data.take(np.arange(size, size + HELD)), "home")], [MCC, matrix])
