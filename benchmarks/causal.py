"""Speed of causal representation: the linear method against two twins, thirty latents, the loss over subsets of views, many interventions. Called by ``benchmarks/run.py``."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from graphs import ratio, seconds

Told = Callable[[str, str, str, bool], None]


def naive_search(score: Any, e: np.ndarray, order: list[int]) -> list[int]:
    """The search of spec 05, A.6 with the likelihood computed anew for every move: O(n⁶) a sweep."""
    n = len(e)
    c = np.einsum("ia,kab,jb->kij", e, score.covariance, e)
    step, count = score.shift @ e.T, score.count

    def likelihood(order: list[int]) -> float:
        unmixed = np.eye(n)
        for at, k in enumerate(order):
            p = order[:at]
            if p:
                unmixed[k, p] = -np.linalg.solve(c[k + 1][np.ix_(p, p)], c[k + 1][p, k])
        z = np.einsum("ia,kab,jb->kij", unmixed, c, unmixed, optimize=True)
        moved = step @ unmixed.T
        b, v = np.zeros((n, n)), np.zeros(n)
        for at, k in enumerate(order):
            p = order[:at]
            w = np.linalg.solve(z[0][np.ix_(p, p)], z[0][p, k]) if p else np.empty(0)
            v[k] = z[0][k, k] - (w @ z[0][p, k] if p else 0)
            b[k, k], b[k, p] = 1, -w
            b[k] /= np.sqrt(v[k])
        total = count[0] * (0.5 * np.trace(b @ z[0] @ b.T) + 0.5 * np.log(v).sum())
        for m in range(1, n + 1):
            keep = np.arange(n) != m - 1
            second = z[m] + np.outer(moved[m], moved[m])
            total += count[m] * (0.5 * np.einsum("ki,ij,kj->", b[keep], second, b[keep]) + 0.5 + 0.5 * np.log(v[keep]).sum() + 0.5 * np.log(z[m][m - 1, m - 1]))
        return float(total)

    best = likelihood(order)
    for _ in range(3):
        improved = False
        for node in list(order):
            rest = [k for k in order if k != node]
            tried = [(likelihood([*rest[:at], node, *rest[at:]]), at) for at in range(n)]
            value, at = min(tried)
            if value < best - 1e-9:
                best, order, improved = value, [*rest[:at], node, *rest[at:]], True
        if not improved:
            break
    return order


def linear_method(told: Told) -> None:
    """A at n = 8 against the reference's rule on the same covariances, against the naive search, and n = 30 from data to graph."""
    from elsewhere.causal import linear
    from elsewhere.causal.linear_interventional import LinearInterventional
    from elsewhere.causal.moments import Moments
    from elsewhere.causal.worlds import linear_gaussian_world
    from elsewhere.task import Source

    torch.set_num_threads(1)
    world = linear_gaussian_world(8, 20, seed=0)
    data = world.environments(10_000, np.random.default_rng(0))
    score = linear.scores(Moments.of(data.inputs, data.environment, 9), 8)
    r, a, b = ratio(lambda: linear.solve(score), lambda: linear.solve(score, "reference"), 3)
    told(f"n = 8, order, unmixing and graph of the same covariances: {1000 * a:.0f} ms, the rule over all orders {1000 * b:.0f} ms", f"{1 / r:.0f} × faster", "≥ 5 ×", r <= 1 / 5)
    e = linear.encoder_rows(score.differences)
    start = linear.start_order(linear.score_evidence(score, e) + linear.change_evidence(score, e))
    ours = linear.likelihood_search(linear.OrderLikelihood(score, e), list(start))
    twin = naive_search(score, e, list(start))
    likelihood = linear.OrderLikelihood(score, e)
    assert abs(likelihood.of(ours) - likelihood.of(twin)) < 1e-6 * abs(likelihood.of(twin))
    r, a, b = ratio(lambda: linear.likelihood_search(linear.OrderLikelihood(score, e), list(start)), lambda: naive_search(score, e, list(start)), 3)
    told(f"… its search over orders: {1000 * a:.0f} ms, with the likelihood anew for every move {1000 * b:.0f} ms", f"{1 / r:.0f} × faster", "measured", True)
    world = linear_gaussian_world(30, 60, seed=0)
    data = world.environments(50_000, np.random.default_rng(0))
    took = seconds(lambda: LinearInterventional().fit(Source(data)))
    told("n = 30, d = 60, N = 50,000 an environment: data to graph, 1 thread", f"{took:.1f} s", "≤ 10 s", took <= 10)


def loop_over_subsets(codes: list[torch.Tensor], others: list[torch.Tensor], subsets: list[tuple[int, ...]], places: list[list[list[int]]]) -> torch.Tensor:
    """The loss of spec 05, E, subset after subset, as the reference goes."""
    total = torch.zeros(())
    for views, at in zip(subsets, places, strict=True):
        blocks = [codes[k][:, i] for k, i in zip(views, at, strict=True)]
        against = [others[k][:, i] for k, i in zip(views, at, strict=True)]
        positive = sum((a - b).square().sum(1) for a, b in pairwise(blocks))
        negative = sum((a[:, None] - b[None]).square().sum(2) for a, b in zip(blocks, against, strict=True))
        logits = -torch.cat([negative, positive[:, None]], 1)
        total = total + (positive + torch.logsumexp(logits, 1) - float(np.log(logits.shape[1]))).mean()
    return total


def subsets_of_views(told: Told) -> None:
    """E's loss and gradient over the 11 subsets of four views of five latents, batches of 512, 1 and 2 threads."""
    from elsewhere.causal.multi_view import alignment_and_entropy, shared_blocks

    content = [[k for k in range(6) if k not in left] for left in ((0,), (1,), (2,), (3,))]
    subsets = [v for k in (2, 3, 4) for v in combinations(range(4), k)]
    shared = [sorted(set.intersection(*(set(content[i]) for i in v))) for v in subsets]
    places = [[[content[i].index(z) for z in s] for i in v] for v, s in zip(subsets, shared, strict=True)]
    blocks = shared_blocks(subsets, places, [0, 5, 10, 15])
    for threads in (1, 2):
        torch.set_num_threads(threads)
        codes, others = ([torch.randn(512, 5, requires_grad=True) for _ in range(4)] for _ in range(2))

        def ours(codes: list[torch.Tensor] = codes, others: list[torch.Tensor] = others) -> torch.Tensor:
            return alignment_and_entropy(torch.cat(codes, 1), torch.cat(others, 1), blocks)

        def theirs(codes: list[torch.Tensor] = codes, others: list[torch.Tensor] = others) -> torch.Tensor:
            return loop_over_subsets(codes, others, subsets, places)

        assert torch.allclose(ours(), theirs(), rtol=1e-4)
        r, a, b = ratio(lambda f=ours, c=codes: torch.autograd.grad(f(), c), lambda f=theirs, c=codes: torch.autograd.grad(f(), c), 5)
        told(
            f"loss over 11 subsets of views and its gradient, threads {threads}: {1000 * a:.0f} ms, subset after subset {1000 * b:.0f} ms",
            f"{1 / r:.1f} × faster",
            "≥ 3 ×",
            r <= 1 / 3,
        )


def many_interventions(told: Told) -> None:
    """1,000 do queries in one call against one of as many rows, and against a loop."""
    from elsewhere.causal.model import CausalModel, LinearCodec, Mechanisms

    rng = np.random.default_rng(0)
    n = 8
    weights = np.triu(rng.normal(size=(n, n)), 1)
    names = ("observational", *(f"env_{k}" for k in range(1, n + 1)))
    codec = LinearCodec(np.eye(n), np.eye(n), np.zeros(n))
    model = CausalModel(tuple(f"z{k}" for k in range(n)), names, codec, Mechanisms(weights, np.zeros(n), np.ones(n)), np.r_[-1, np.arange(n)], np.r_[0.0, rng.normal(size=n)], np.ones(n + 1))
    queries = [{int(k): float(v)} for k, v in zip(rng.integers(n, size=1000), rng.normal(size=1000), strict=True)]
    one = (lambda: model.do_latents(queries[:1], 10_000), lambda: model.do_latents(queries, 10))
    r, a, b = ratio(one[1], one[0], 5)
    told(f"1,000 interventions of 10 rows in one call: {1000 * a:.1f} ms; one of 10,000 rows {1000 * b:.1f} ms", f"{r:.1f} ×", "≤ 5 ×", r <= 5)
    r, a, b = ratio(lambda: model.do_latents(queries, 10), lambda: [model.do_latents([q], 10) for q in queries], 3)
    told(f"… against a loop of 1,000 calls ({1000 * b:.0f} ms)", f"{1 / r:.0f} × faster", "measured", True)


def streamed(told: Told) -> None:
    """Moments of 1,000,000 × 100 from a memory map: time and memory."""
    from elsewhere.causal.moments import Moments

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        x = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(1_000_000, 100))
        for start in range(0, len(x), 100_000):
            x[start : start + 100_000] = np.random.default_rng(start).normal(size=(100_000, 100))
        x.flush()
        held = np.load(path, mmap_mode="r")
        environment = np.arange(len(held)) % 11
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start_ = time.perf_counter()
        Moments.of(held, environment, 11)
        took = time.perf_counter() - start_
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    told(f"moments of 11 environments, 1,000,000 × 100 from a memory map; memory grows by {grown:.0f} MiB (pages of the map among them)", f"{took:.1f} s", "measured", True)
