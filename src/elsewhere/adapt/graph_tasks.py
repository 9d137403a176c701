"""Tasks whose domains are the vertices of a graph: rotating pairs of blobs, temperatures of states, turned digits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from elsewhere.adapt.domain_graph import DomainGraph, GraphSource
from elsewhere.data import Array, Examples, find
from elsewhere.errors import UserError
from elsewhere.metrics import classification_metrics
from elsewhere.metrics.regression import R2
from elsewhere.run import Run
from elsewhere.task import Domain, Metric, Task, task

VDI = "it is in the repository github.com/Wang-ML-Lab/VDI; convert its pickles to an .npz with the keys that docs/systems/graph-relational-adaptation.md lists"
LEARNERS = ("erm", "dann:unlabelled=true", "graph-relational")
FINDINGS = ("domain-graph",)


def graph_task(
    x: Array, y: Array, place: Array, graph: DomainGraph, sources: Sequence[str], seed: int, home_share: float, classes: Sequence[str] | None, metrics: Sequence[Metric], ceiling: bool = False
) -> Task[Examples]:
    """Return the task that trains on the domains in ``sources`` and is judged in every other, whose inputs it may see unlabelled.

    Args:
        x: [n, …] inputs.
        y: [n] labels.
        place: [n] names of the domains.
        graph: of all domains.
        sources: names of those with labels.
        seed: of what is held out.
        home_share: of each source's examples, held out and judged as home; 0: none.
        classes: names; None: numbers.
        metrics: of the task.
        ceiling: train on half of the labels of every domain and judge on the other half.
    """
    whole = Examples(x, y, {"domain": place.astype(str)}, classes)
    here = np.isin(whole.columns["domain"], list(sources))
    home = np.zeros(len(x), bool)
    rng = Run(seed).rng("home")
    for name in sources:
        mine = np.flatnonzero(whole.columns["domain"] == name)
        home[rng.permutation(mine)[: round(home_share * len(mine))]] = True
    train = whole.take(here & ~home)
    judged = np.ones(len(x), bool)
    if ceiling:
        judged[rng.permutation(len(x))[: len(x) // 2]] = False
        train = whole.take(~judged | (here & ~home))
    hops = dict(zip(graph.names, graph.hops(list(sources)).tolist(), strict=True))
    others = [n for n in graph.names if n not in set(sources) and (whole.columns["domain"] == n).any()]
    there = {n: whole.take((whole.columns["domain"] == n) & judged) for n in others}
    domains = [Domain("home", whole.take(home), "home", {"hops": 0})] if home.any() else []
    domains += [Domain(n, data, about={"hops": hops[n]}) for n, data in there.items()]
    unlabelled = {} if ceiling else {n: d.unlabelled() for n, d in there.items()}
    return Task(GraphSource(train, None, unlabelled, transductive=True, graph=graph), domains, metrics, FINDINGS)


@lru_cache(maxsize=1)
def _dg15(path: str) -> tuple[Array, Array, Array, Array, Array, Array]:
    with np.load(path, allow_pickle=False) as file:
        return file["x"], file["y"], file["domain"], file["adjacency"], file["source_domains"], file["angle"]


@task("domain-graph/dg15", learners=LEARNERS)
def dg15(seed: int = 0, home_share: float = 0.1, permuted: int = 0, ceiling: bool = False) -> Task[Examples]:
    """DG-15: 15 domains on half a turn, 6 with labels; inputs are standardised over all domains together, as published.

    Args:
        seed: of the home part; the points are the published ones.
        home_share: of each source, held out to be judged; 0 trains on all, as published.
        permuted: exchange the vertices of the graph at random by this seed: what must break a method that lives by it; 0: not.
        ceiling: train on half of the labels of every domain instead and judge on the other half: what labels everywhere would give.
    """
    x, y, place, adjacency, sources, angle = _dg15(str(find("domain-graphs/dg15.npz", VDI)))
    graph = DomainGraph.from_adjacency(adjacency, positions=np.stack([np.cos(angle), np.sin(angle)], 1))
    if permuted:
        graph = graph.permuted(permuted)
    return graph_task(standardised(x), y.astype(np.int64), place, graph, [str(s) for s in sources], seed, home_share, ("0", "1"), classification_metrics(False, 2), ceiling)


def standardised(x: Array) -> Array:
    """Return columns of mean 0 and deviation 1."""
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32)


@task("domain-graph/dg60", learners=LEARNERS)
def dg60(seed: int = 0, home_share: float = 0.1, permuted: int = 0) -> Task[Examples]:
    """DG-60: 60 domains on a full turn, 6 with labels, drawn anew with each seed by the published generator."""
    return spirals(seed, 60, 6, 2 * np.pi, 6 / (2 * np.pi), 0.2, home_share=home_share, permuted=permuted)


@task("domain-graph/spirals", learners=LEARNERS)
def spiral_task(seed: int = 0, num_domains: int = 15, num_sources: int = 6, turn: float = np.pi, radius_growth: float = 0.61, edge_cutoff: float = 0.2, home_share: float = 0.1) -> Task[Examples]:
    """Generated domains on a turn; after half of it the classes have exchanged places, so nothing that is blind to the domain can work there."""
    return spirals(seed, num_domains, num_sources, turn, radius_growth, edge_cutoff, home_share=home_share)


def spirals(
    seed: int = 0,
    num_domains: int = 15,
    num_sources: int = 6,
    turn: float = np.pi,
    radius_growth: float = 0.61,
    edge_cutoff: float = 0.2,
    examples_per_class: int = 50,
    home_share: float = 0.1,
    permuted: int = 0,
) -> Task[Examples]:
    """Return the task of ``spiral_domains``; the sources are found breadth first from the smallest angle."""
    x, y, place, graph, angle = spiral_domains(num_domains, turn, radius_growth, edge_cutoff, examples_per_class, seed)
    sources = breadth_first(graph, int(np.argmin(angle)), num_sources)
    if permuted:
        graph = graph.permuted(permuted)
    return graph_task(standardised(x), y, place, graph, [graph.names[k] for k in sources], seed, home_share, ("0", "1"), classification_metrics(False, 2))


def spiral_domains(
    num_domains: int = 15, turn: float = np.pi, radius_growth: float = 0.61, edge_cutoff: float = 0.2, examples_per_class: int = 50, seed: int = 0
) -> tuple[Array, Array, Array, DomainGraph, Array]:
    """Draw domains at angles of a turn: class 0 around m_u = (1 + growth · angle)(cos, sin), class 1 around -m_u, links by nearness (spec 08, section 7).

    Returns:
        x [n, 2], y [n], the domain of each [n], the graph, and the hidden angles [num_domains].
    """
    rng = np.random.default_rng(seed)
    for _ in range(1000):
        angle = rng.uniform(0, turn, num_domains)
        near = np.cos(angle[:, None] - angle[None])
        link = np.triu((rng.random(near.shape) < near) & (near >= edge_cutoff), 1)
        graph = DomainGraph.from_adjacency((link | link.T).astype(np.float32), positions=np.stack([np.cos(angle), np.sin(angle)], 1))
        if (graph.hops([graph.names[0]]) >= 0).all():
            break
    else:
        raise UserError(f"no connected graph of {num_domains} domains was drawn in 1,000 trials; raise num_domains or lower edge_cutoff")
    centre = ((1 + radius_growth * angle) * np.stack([np.cos(angle), np.sin(angle)])).T
    n = examples_per_class
    sign = np.tile(np.repeat([1.0, -1.0], n), num_domains)
    x = sign[:, None] * np.repeat(centre, 2 * n, axis=0) + _within_radius(len(sign), rng)
    return x.astype(np.float32), (sign < 0).astype(np.int64), np.repeat(np.arange(num_domains), 2 * n), graph, angle


def _within_radius(n: int, rng: np.random.Generator) -> Array:
    """Return n standard normal points of the plane within radius 1."""
    found = np.empty((0, 2))
    while len(found) < n:
        drawn = rng.normal(size=(4 * n, 2))
        found = np.concatenate([found, drawn[np.square(drawn).sum(1) <= 1]])
    return found[:n]


def breadth_first(graph: DomainGraph, start: int, count: int) -> list[int]:
    """Return the first ``count`` vertices found breadth first."""
    found, k = [start], 0
    while len(found) < count and k < len(found):
        found += [int(j) for j in np.flatnonzero(graph.adjacency[found[k]] > 0) if j not in found]
        k += 1
    return found[:count]


@task("domain-graph/tpt48", choices={"direction": ["east-to-west", "north-to-south"]}, learners=("linear-windows", "linear-windows:january=true", *LEARNERS))
def tpt48(seed: int = 0, direction: str = "east-to-west") -> Task[Examples]:
    """Monthly temperatures of 48 states: six months foretell the next six; half of the states have labels.

    Source windows begin in every month (133 a state), windows elsewhere in January (12 a state). One mean and deviation over the source's
    months and the input months elsewhere. The metric is the sum over six months of squared standardised errors; domains are states, and
    ``hops`` the number of borders to the nearest source state.
    """
    path = find("domain-graphs/tpt48.npz", VDI)
    with np.load(path, allow_pickle=False) as file:
        held = {k: file[k] for k in file.files}
    key = {"east-to-west": "east", "north-to-south": "north"}.get(direction)
    if key is None:
        raise UserError(f"direction must be east-to-west or north-to-south, not {direction!r}")
    names = [str(s) for s in held["state"]]
    positions = np.stack([held["longitude_scaled"], held["latitude_scaled"]], 1).astype(float)
    return temperature_task(held["temperature"], DomainGraph.from_adjacency(held["adjacency"], names, positions), held[key])


def temperature_task(temperature: Array, graph: DomainGraph, labelled: Array) -> Task[Examples]:
    """Return the task of monthly temperatures [states, months] with labels in the states of a mask."""
    starts = np.arange(temperature.shape[1] - 11)
    yearly = starts[::12]

    def windows(s: int, at: Array) -> Array:
        return temperature[s][at[:, None] + np.arange(12)]

    here, there = np.flatnonzero(labelled), np.flatnonzero(~labelled)
    seen = np.concatenate([temperature[here].ravel(), np.concatenate([windows(int(s), yearly)[:, :6].ravel() for s in there])])
    mean, deviation = float(seen.mean()), float(seen.std())

    def examples(which: Array, at: Array) -> Examples:
        all_of = (np.concatenate([windows(int(s), at) for s in which]) - mean) / deviation
        columns = {"domain": np.repeat([graph.names[s] for s in which], len(at)), "start": np.tile(at, len(which)) % 12}
        return Examples(all_of[:, :6].astype(np.float32), all_of[:, 6:].astype(np.float32), columns)

    hops = graph.hops([graph.names[s] for s in here])
    domains = [Domain(graph.names[s], examples(np.array([s]), yearly), about={"hops": int(min(hops[s], 3))}) for s in there]
    source = GraphSource(examples(here, starts), None, {d.name: d.load().unlabelled() for d in domains}, transductive=True, graph=graph)
    summed = Metric("squared_error_sum", lambda p, d: np.square(p.mean - d.labels).sum(1), False, range=(0, np.inf))
    notes = ["A linear row stands in this table on purpose: least squares on windows that begin in January beats every published number of this set (spec 08, section 5)."]
    return Task(source, domains, [summed, R2], FINDINGS, notes)


@task("domain-graph/rotated-digits", learners=LEARNERS)
def rotated_digits_chain(seed: int = 0, num_domains: int = 6, step: float = 18.0, num_sources: int = 2, home_share: float = 0.1) -> Task[Examples]:
    """scikit-learn's digits, each domain turned by ``step`` degrees more than the last; the first ones have labels."""
    from scipy.ndimage import rotate
    from sklearn.datasets import load_digits

    if not 1 <= num_sources < num_domains:
        raise UserError(f"num_sources must lie between 1 and {num_domains - 1}, not {num_sources}")
    images, y = load_digits(return_X_y=True)
    order = Run(seed).rng("domains").permutation(len(images))
    parts = np.array_split(order, num_domains)
    turned = [rotate(images[p].reshape(-1, 8, 8), step * k, axes=(1, 2), reshape=False, order=1) for k, p in enumerate(parts)]
    x = np.clip(np.concatenate(turned), 0, 16).reshape(-1, 64).astype(np.float32) / 16
    place = np.repeat(np.arange(num_domains), [len(p) for p in parts])
    names = [str(k) for k in range(num_sources)]
    labels = y[np.concatenate(parts)].astype(np.int64)
    return graph_task(x, labels, place, DomainGraph.chain(num_domains), names, seed, home_share, tuple(str(k) for k in range(10)), classification_metrics(False, 10))
