"""Speed of graphs: sparse products, a teacher's epoch, a student's inference, the label tree, encoders, a million nodes, the loss over pairs of domains. Called by ``benchmarks/run.py``."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch

Told = Callable[[str, str, str, bool], None]
HERE = Path(__file__).parent


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def ratio(ours: Callable[[], object], theirs: Callable[[], object], repeats: int = 5) -> tuple[float, float, float]:
    """Return the median ratio of times, ours to theirs, and both medians; interleaved, after one call of each."""
    ours(), theirs()
    both = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    return float(np.median([a / b for a, b in both])), float(np.median([a for a, _ in both])), float(np.median([b for _, b in both]))


def random_links(n: int, m: int, seed: int = 0) -> sp.csr_array:
    from elsewhere.graphs.sparse import symmetric

    return symmetric(np.random.default_rng(seed).integers(n, size=(m, 2)), n)[0]


def aggregation(told: Told) -> None:
    """2 million links × 128 columns, forward and backward, against SciPy's product; and the two other ways."""
    from elsewhere.graphs.sparse import Sparse, normalised

    torch.set_num_threads(1)
    s = normalised(random_links(200_000, 1_000_000))
    ours = Sparse(s, symmetric=True)
    x = torch.randn(200_000, 128, requires_grad=True)
    dense, g = x.detach().numpy(), torch.randn(200_000, 128)
    made = ours @ x
    assert np.allclose(made.detach().numpy(), s @ dense, atol=1e-4)
    for name, ours_, theirs in (
        ("forward", lambda: ours @ x, lambda: s @ dense),
        ("backward", lambda: torch.autograd.grad(made, x, g, retain_graph=True), lambda: s.T @ g.numpy()),
    ):
        r, a, b = ratio(ours_, theirs, 9)
        told(f"product of {s.nnz / 1e6:.1f} M links × 128 {name}, 1 thread: {a:.2f} s, SciPy {b:.2f} s", f"{r:.2f} ×", "≤ 1.1 ×", r <= 1.1)
    coo = s.tocoo()
    rows, columns, values = (torch.from_numpy(np.asarray(v)) for v in (coo.row.astype(np.int64), coo.col.astype(np.int64), coo.data))
    naive = seconds(lambda: torch.zeros(200_000, 128).index_add_(0, rows, x.detach()[columns] * values[:, None]))
    told("… against gather and index_add_", f"{naive / seconds(lambda: ours @ x):.1f} × faster", "≥ 2 ×", naive > 2 * seconds(lambda: ours @ x))


def teacher(told: Told) -> None:
    """A teacher's epoch on 200 k nodes and 2 M links against PyG's GCN on edge_index; the student's inference against the teacher's."""
    from elsewhere.graphs.data import Graph, Nodes
    from elsewhere.graphs.learners import propagation
    from elsewhere.graphs.sparse import Features
    from elsewhere.nn.building import build

    torch.set_num_threads(1)
    n = 200_000
    graph = Graph(random_links(n, 1_000_000), np.random.default_rng(0).normal(size=(n, 128)).astype(np.float32))
    y = torch.randint(0, 10, (n,))
    network = build("graph-convolutions", shape=[128], head=False, outputs=10, width=128, dropout=0.5)
    features, s = Features(graph.features, False), propagation(graph)
    optimiser = torch.optim.Adam(network.parameters(), 0.005)

    def ours() -> None:
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(features, s), y).backward()
        optimiser.step()

    try:
        from torch_geometric.nn import GCN
    except ImportError:
        told("a teacher's epoch against PyG's GCN", "skipped", "≤ 0.5 ×", True)
    else:
        peer = GCN(128, 128, 2, 10, dropout=0.5)
        edges, x = torch.from_numpy(np.stack(graph.links.nonzero())), torch.from_numpy(graph.features)
        theirs_optimiser = torch.optim.Adam(peer.parameters(), 0.005)

        def theirs() -> None:
            theirs_optimiser.zero_grad()
            torch.nn.functional.cross_entropy(peer(x, edges), y).backward()
            theirs_optimiser.step()

        r, a, b = ratio(ours, theirs, 3)
        told(f"a teacher's epoch, 200 k nodes and 2 M links, 1 thread: {a:.1f} s, PyG GCN {b:.1f} s", f"{r:.2f} ×", "≤ 0.5 ×", r <= 0.5)
    student(told, graph, network.eval(), Nodes(graph, np.arange(n)))


def student(told: Told, graph: object, network: torch.nn.Module, nodes: object) -> None:
    """Nodes a second of a student with 20,000 rows in its bank, against the teacher over its layers."""
    from elsewhere.graphs.cold_brew import ColdBrew
    from elsewhere.graphs.learners import propagation
    from elsewhere.graphs.sparse import Features
    from elsewhere.nn.learners import seeded
    from elsewhere.run import Run

    run = Run(progress=False)
    brew = ColdBrew(hidden=128)
    brew.width_, brew.classes_ = 128, 10
    rng = np.random.default_rng(0)
    brew.bank_, brew.nodes_ = rng.normal(size=(20_000, 64)).astype(np.float16), np.arange(20_000)
    brew.guess_ = seeded(run, lambda: brew._perceptron(64))
    brew.student_ = seeded(run, lambda: brew._perceptron(10, (64, 64)))
    features, s = Features(graph.features, False), propagation(graph)  # type: ignore[attr-defined]

    def teachers() -> None:
        with torch.no_grad():
            network(features, s)

    some = np.arange(20_000)
    ours = 20_000 / seconds(lambda: brew._scores(features, some, run))
    theirs = len(nodes) / min(seconds(teachers) for _ in range(3))  # type: ignore[arg-type]
    told(f"a student's inference, nodes a second: {ours:,.0f}, the teacher's over all nodes {theirs:,.0f}", f"{ours / theirs:.2f} ×", "≥ 10 ×", ours >= 10 * theirs)
    one = seconds(lambda: brew._scores(features, some[:1], run))
    told(
        f"… for one new node: {1000 * one:.1f} ms, where the teacher passes over the graph in {1000 * seconds(teachers):,.0f} ms",
        f"{seconds(teachers) / one:,.0f} ×",
        "≥ 10 ×",
        seconds(teachers) >= 10 * one,
    )


def sampling(told: Told) -> None:
    """Neighbourhoods of 1,024 nodes, ten neighbours a node, two layers deep, in a graph of 2 M links."""
    from elsewhere.graphs.data import Graph
    from elsewhere.graphs.sampling import sampled_part

    graph = Graph(random_links(200_000, 1_000_000), np.zeros((200_000, 1), np.float32))
    rng = np.random.default_rng(0)
    took = float(np.median([seconds(lambda: sampled_part(graph, rng.permutation(200_000)[:1024], [10, 10], rng)) for _ in range(15)]))
    told("a sampled neighbourhood of 1,024 nodes, 2 layers of 10", f"{1000 * took:.0f} ms", "≤ 20 ms", took <= 0.02)


def search(told: Told) -> None:
    """The most similar of 1,000,000 rows: time and memory of tiles, and what coarse lists lose and gain."""
    from elsewhere.graphs.search import CoarseLists, top_similar

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    bank = (rng.normal(size=(1000, 32))[rng.integers(1000, size=1_000_000)] + 0.5 * rng.normal(size=(1_000_000, 32))).astype(np.float32)
    queries = bank[rng.integers(1_000_000, size=1024)]
    small = seconds(lambda: top_similar(queries, bank[:20_000, :], 10))
    told("10 of 20,000 rows for 1,024 queries, 1 thread", f"{small:.2f} s", "≤ 0.3 s", small <= 0.3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    exact = top_similar(queries, bank, 10)[0]
    took = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    told(f"10 of 1,000,000 rows for 1,024 queries: {took:.1f} s; memory grows by (whole product: 3,900 MiB)", f"{grown:,.0f} MiB", "≤ 1,000 MiB", grown <= 1000)
    lists = CoarseLists(bank, probes=32)
    fast = seconds(lambda: lists.search(queries, 10))
    recall = float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, lists.search(queries, 10)[0], strict=True)]))
    told(f"coarse lists, 32 of 1,000 probed: {took / fast:.0f} × faster, recall of the exact ten", f"{recall:.3f}", "≥ 0.9", recall >= 0.9)


def tree(told: Told) -> None:
    """The label tree of 20,223 pages against a recursive bisecting k-means of scikit-learn; PIFA; encoders' texts a second."""
    from elsewhere.data import root
    from elsewhere.graphs.label_tree import label_tree, neighbourhood_features
    from elsewhere.graphs.text import unit_rows

    torch.set_num_threads(1)
    if not (root() / "facebook-pages").is_dir():
        told("the label tree of Facebook pages", "skipped: no data", "≤ 1.0 s", True)
        return
    from elsewhere.graphs.tasks import facebook_graph

    g = facebook_graph()
    x = unit_rows(g.features)
    rest = np.sort(np.random.default_rng(0).permutation(len(g))[:20_223])
    links = g.links[rest][:, rest]
    took = min(seconds(lambda: neighbourhood_features(links, x[rest])) for _ in range(3))
    z = neighbourhood_features(links, x[rest])
    told(f"PIFA of 20,223 pages ({z.nnz / 1e6:.1f} M numbers)", f"{took:.2f} s", "≤ 0.2 s", took <= 0.2)
    ours = float(np.median([seconds(lambda: label_tree(z, 32)) for _ in range(5)]))
    told("the label tree (1,024 leaves), 1 thread", f"{ours:.2f} s", "≤ 1.0 s", ours <= 1.0)
    from sklearn.cluster import BisectingKMeans

    whole = sp.csr_matrix(z)
    whole.indices, whole.indptr = whole.indices.astype(np.int32), whole.indptr.astype(np.int32)
    theirs = seconds(lambda: BisectingKMeans(1024, random_state=0, max_iter=20).fit(whole))
    told(f"… against scikit-learn's BisectingKMeans on the same matrix: {theirs:.1f} s", f"{theirs / ours:.1f} ×", "≥ 20 ×", theirs >= 20 * ours)


def texts(told: Told) -> None:
    """Short texts a second through the perceptron encoder, on 2 threads."""
    from elsewhere.graphs.data import Nodes
    from elsewhere.graphs.generators import topic_text_graph
    from elsewhere.graphs.neighborhood_prediction import NeighborhoodPrediction
    from elsewhere.run import Run
    from elsewhere.task import Source

    torch.set_num_threads(2)
    g = topic_text_graph(20_000, length=4, seed=0)
    giant = NeighborhoodPrediction(epochs=1, least_steps=1).fit(Source(Nodes(g, np.arange(len(g)))), Run(progress=False))
    many = list(g.texts or []) * 2
    rate = max(len(many) / seconds(lambda: giant.encode(many)) for _ in range(3))
    torch.set_num_threads(1)
    told("texts of four words a second through the encoder", f"{rate:,.0f}", "≥ 20,000", rate >= 20_000)


MILLION = """
import resource, time, numpy as np
from elsewhere.graphs.data import Nodes
from elsewhere.graphs.generators import topic_text_graph
from elsewhere.graphs.neighborhood_prediction import NeighborhoodPrediction
from elsewhere.run import Run
from elsewhere.task import Source
start = time.perf_counter()
g = topic_text_graph({n}, texts=False, seed=0)
drawn = time.perf_counter()
giant = NeighborhoodPrediction(**{options}).fit(Source(Nodes(g, np.arange(len(g)))), Run(progress=False))
fitted = time.perf_counter()
z = giant.encode(Nodes(g, np.arange(100_000)))
print(drawn - start, fitted - drawn, time.perf_counter() - fitted, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2)
"""


def million(told: Told) -> None:
    """A million nodes in a process of its own: the closed form, and one epoch a level of training; peak memory."""
    n = 1_000_000 if "--quick" not in sys.argv else 20_000
    for name, options in (("closed form", {"solver": "ridge"}), ("trained, 100 steps a level", {"epochs": 0, "least_steps": 100, "bootstrap": "inherit"})):
        found = subprocess.run([sys.executable, "-W", "ignore", "-c", MILLION.format(n=n, options=options)], capture_output=True, text=True, check=False, cwd=tempfile.gettempdir())
        if found.returncode:
            told(f"{n:,} nodes, {name}", found.stderr.strip().splitlines()[-1][:60], "≤ 8 GiB", False)
            continue
        drawn, fitted, encoded, peak = map(float, found.stdout.split())
        told(f"{n:,} nodes, {name}: drawn in {drawn:.0f} s, fitted in {fitted:.0f} s, 100,000 encoded in {encoded:.1f} s; peak", f"{peak:.1f} GiB", "≤ 8 GiB", peak <= 8)


def relations(told: Told) -> None:
    """The discriminator's loss over all pairs of 48 domains against the loop over pairs; a run of the DG-15 study."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from elsewhere.adapt.domain_graph import DomainGraph
    from elsewhere.adapt.graph_relational import GraphRelational, relation_loss
    from elsewhere.adapt.graph_tasks import spirals
    from elsewhere.run import Run

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    adjacency = torch.from_numpy(DomainGraph.from_coordinates(range(48), rng.random((48, 2))).adjacency)
    codes = torch.randn(48, 16, 2, requires_grad=True)

    def loop() -> torch.Tensor:
        halves: dict[bool, list[torch.Tensor]] = {True: [], False: []}
        for u in range(48):
            for v in range(u + 1, 48):
                logit = (codes[u] * codes[v]).sum(1)
                halves[bool(adjacency[u, v] > 0)].append(torch.nn.functional.binary_cross_entropy_with_logits(logit, adjacency[u, v].expand(16)))
        return 24 * sum(torch.stack(h).mean() for h in halves.values())

    assert torch.allclose(loop(), relation_loss(codes, adjacency), rtol=1e-5)
    r, a, b = ratio(lambda: relation_loss(codes, adjacency).backward(), lambda: loop().backward(), 3)
    told(f"loss over the pairs of 48 domains and its gradient: {1000 * a:.1f} ms, the double loop {1000 * b:.0f} ms", f"{1 / r:.0f} ×", "≥ 20 ×", r <= 1 / 20)
    task = spirals(seed=0)
    took = seconds(lambda: GraphRelational().fit(task.source, Run(progress=False)))
    told("2,000 steps (200 epochs) on 15 domains, 1 thread", f"{took:.1f} s", "≤ 10 s", took <= 10)
