"""Speed of training: many heads, a sweep, one convolutional trial, the loop itself. Called by ``benchmarks/run.py``."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

Told = Callable[[str, str, str, bool], None]
HERE = Path(__file__).parent


def heads(told: Told) -> None:
    """200 linear heads on 10,000 × 512 features: one pass against the loop, and against a plain PyTorch loop."""
    from elsewhere.data import Examples
    from elsewhere.nn.probe import LinearProbe
    from elsewhere.run import Run
    from elsewhere.task import Source

    rng = np.random.default_rng(0)
    x = rng.normal(size=(10_000, 512)).astype(np.float32)
    y = (x @ rng.normal(size=(512, 10)) + 5 * rng.normal(size=(10_000, 10))).argmax(1)
    source = Source(Examples(x, y, classes=tuple("0123456789")))
    grid = [LinearProbe(learning_rate=float(rate), weight_decay=float(decay), steps=158, batch=128) for rate in np.geomspace(1e-4, 1e-1, 10) for decay in np.geomspace(1e-4, 1e-1, 4)]
    learners, runs = [copy.deepcopy(g) for g in grid for _ in range(5)], [Run(seed, progress=False) for _ in grid for seed in range(5)]
    LinearProbe.fit_many([copy.deepcopy(grid[0])], [source], [runs[0]])
    some = list(range(0, 200, 10))  # the loop over a tenth of them, times ten
    for threads in (1, 2):
        torch.set_num_threads(threads)
        ratios, plain = [], []
        for _ in range(3):  # interleaved
            start = time.perf_counter()
            many = LinearProbe.fit_many(copy.deepcopy(learners), [source] * 200, runs)
            middle = time.perf_counter()
            one = [copy.deepcopy(learners[k]).fit(source, runs[k]) for k in some]
            end = time.perf_counter()
            for k in some:
                _plain_head(x, y, learners[k], runs[k].seed)
            ratios.append(10 * (end - middle) / (middle - start))
            plain.append(10 * (time.perf_counter() - end) / (middle - start))
        worst = max(float(np.abs(many[k].predict(source.train).logits - o.predict(source.train).logits).max()) for k, o in zip(some, one, strict=True))
        assert worst < 1e-3, worst
        told(f"200 linear heads on 10,000 × 512, fit_many against the loop, {threads} threads", f"{np.median(ratios):.1f} ×", "≥ 10 ×", bool(np.median(ratios) >= 10))
        told(f"the same against a plain PyTorch index loop, {threads} threads", f"{np.median(plain):.1f} ×", "≥ 10 ×", bool(np.median(plain) >= 10))
    torch.set_num_threads(2)


def _plain_head(x: np.ndarray, y: np.ndarray, like: object, seed: int) -> None:
    torch.manual_seed(seed)
    features, labels = torch.from_numpy((x - x.mean(0)) / x.std()), torch.from_numpy(y)
    head = nn.Linear(512, 10)
    optimizer = torch.optim.AdamW(head.parameters(), like.learning_rate, weight_decay=like.weight_decay)  # type: ignore[attr-defined]
    for _ in range(158):
        rows = torch.randint(len(x), (128,))
        loss = functional.cross_entropy(head(features[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def sweep(told: Told) -> None:
    """A linear-probe sweep of 24 trials, from data to scores: ours against a frozen backbone inside each trial's training loop."""
    import elsewhere as ew
    from elsewhere.images.tasks import digits_shifts
    from elsewhere.nn import build

    function = digits_shifts.bind(severities=(1, 3, 5), shifts=("rotated", "noisy"))
    grid = [(rate, decay) for rate in (1e-3, 3e-3, 1e-2, 3e-2) for decay in (0.0, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)]
    learners = [f"linear-probe:backbone=random-conv,learning_rate={r},weight_decay={d}" for r, d in grid]
    torch.set_num_threads(1)
    function(0)
    start = time.perf_counter()
    result = ew.assay(function, learners=learners, seeds=1, out=Path(tempfile.mkdtemp()) / "r")
    ours = time.perf_counter() - start
    assert len(result.trials()) == 24
    start = time.perf_counter()
    few = grid[::6]
    for rate, decay in few:
        task = function(0)
        torch.manual_seed(0)
        body = build("random-conv", shape=[1, 28, 28], head=False).eval()
        head = nn.Linear(body.width, 10)
        optimizer = torch.optim.AdamW(head.parameters(), rate, weight_decay=decay)
        train = TensorDataset(torch.from_numpy(task.source.train.inputs), torch.from_numpy(task.source.train.labels))
        step = 0
        while step < 500:
            for x, y in DataLoader(train, batch_size=64, shuffle=True, drop_last=True):
                with torch.no_grad():
                    z = body(x)
                loss = functional.cross_entropy(head(z), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                if step == 500:
                    break
        for domain in task.domains:
            data = domain.load()
            with torch.no_grad():
                for x, _ in DataLoader(TensorDataset(torch.from_numpy(data.inputs), torch.from_numpy(data.labels)), batch_size=64):
                    head(body(x)).softmax(1)
    naive = (time.perf_counter() - start) * len(grid) / len(few)
    torch.set_num_threads(2)
    told("24-trial linear-probe sweep, data to scores, against a frozen backbone in each loop", f"{naive / ours:.1f} ×", "≥ 10 ×", naive / ours >= 10)


def _domainbed(steps: int, every: int, reach: float) -> tuple[float, dict]:
    start = time.perf_counter()
    out = subprocess.run([sys.executable, str(HERE / "domainbed_way.py"), str(steps), str(every), str(reach)], capture_output=True, text=True, check=True)
    return time.perf_counter() - start, json.loads(out.stdout)


EQUAL = """
import json, sys, time
sys.path.insert(0, {here!r})
import numpy as np
import torch
from torch.nn import functional
import domainbed_way as other
from elsewhere.batching import batches, in_batches
from elsewhere.data import Examples
from elsewhere.nn import build
from elsewhere.run import Run
from elsewhere.training import Descent, adam, train
parts = {{name: [Examples(t.tensors[0].numpy(), t.tensors[1].numpy(), classes=tuple("0123456789")) for t in both] for name, both in other.splits().items()}}
source, run, spent, told = parts["source"][0], Run(0, progress=False), 0.0, {{}}
network = build("small-cnn", like=source, width=64)
def evaluate():
    global spent
    start = time.perf_counter()
    told.update({{f"{{n}} {{p}}": float(np.mean(in_batches(network, d.inputs, run).argmax(1) == d.labels)) for n, both in parts.items() for p, d in zip(("in", "out"), both)}})
    spent += time.perf_counter() - start
    return 1 - told["source out"]
loss = lambda network, batch: functional.cross_entropy(network(batch.inputs).logits, batch.labels)
train(Descent(network, loss, adam(1e-3)), batches(source, run, 64), run, steps={steps}, evaluate=evaluate, every={every})
print(json.dumps({{"evaluating": spent, "accuracy": told}}))
"""

DEFAULTS = """
import json
import numpy as np
from elsewhere.images.learners import Cnn
from elsewhere.images.tasks import digits_shifts
from elsewhere.run import Run
from domainbed_way import STRESSES
task = digits_shifts(0, **STRESSES)
fitted = Cnn().fit(task.source, Run(0, progress=False))
told = {d.name: float(np.mean(fitted.predict(d.load().unlabelled()).classes() == d.load().labels)) for d in task.domains}
print(json.dumps(told))
"""


def _ours(code: str) -> tuple[float, dict]:
    start = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=HERE)
    return time.perf_counter() - start, json.loads(out.stdout)


def cnn(told: Told) -> None:
    """One small-CNN trial end to end against DomainBed's way: everything equal, and time to the same accuracy with our defaults."""
    steps, every = 60, 20
    ratios = []
    for _ in range(2):  # interleaved
        theirs, there = _domainbed(steps, every, 0.0)
        ours, here = _ours(EQUAL.format(here=str(HERE), steps=steps, every=every))
        ratios.append(theirs / ours)
    print(f"  {steps} steps: theirs {theirs:.1f} s of which evaluating {there['evaluating']:.1f}; ours {ours:.1f} s of which evaluating {here['evaluating']:.1f}")
    told("one CNN trial, same network, steps and evaluations, against DomainBed's way", f"{np.mean(ratios):.2f} ×", "≥ 1 ± .03 ×", bool(np.mean(ratios) >= 0.97))
    reach = 0.96
    theirs, there = _domainbed(5001, 300, reach)
    ours, here = _ours(DEFAULTS)
    print(f"  theirs {theirs:.0f} s to {there['accuracy']['source out']:.3f} at step {there['step']}; ours {ours:.0f} s to {here['home']:.3f}")
    told(f"time to {reach:.0%} of held-out digits, our defaults", f"{theirs / ours:.1f} ×", "≥ 3 ×", bool(theirs / ours >= 3 and here["home"] >= reach))


def loop(told: Told) -> None:
    """The training loop's own cost at 5 × 64 pictures a step, against a bare PyTorch loop."""
    from elsewhere.batching import batches
    from elsewhere.data import Examples
    from elsewhere.nn import build
    from elsewhere.run import Run
    from elsewhere.training import Descent, adam, train

    rng = np.random.default_rng(0)
    data = Examples(rng.random((2000, 1, 28, 28), dtype=np.float32), rng.integers(0, 10, 2000), classes=tuple("0123456789"))
    run, steps = Run(0, progress=False), 60
    images, labels = torch.from_numpy(data.inputs), torch.from_numpy(data.labels)

    def loss(network: nn.Module, batch: object) -> torch.Tensor:
        return functional.cross_entropy(network(batch.inputs).logits, batch.labels)  # type: ignore[attr-defined]

    def ours() -> None:
        train(Descent(build("small-cnn", like=data, width=16, stride=2), loss, adam(1e-3)), batches(data, run, 320), run, steps=steps)

    def bare() -> None:
        network = build("small-cnn", like=data, width=16, stride=2)
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.0, fused=True)
        order = torch.randperm(2000)
        for step in range(steps):
            rows = order[torch.arange(step * 320, (step + 1) * 320) % 2000]
            value = functional.cross_entropy(network(images[rows]).logits, labels[rows])
            optimizer.zero_grad()
            value.backward()
            optimizer.step()

    ours(), bare()
    ratios = []
    for k in range(7):  # interleaved, the order exchanged
        times = {}
        for function in (ours, bare) if k % 2 else (bare, ours):
            start = time.perf_counter()
            function()
            times[function.__name__] = time.perf_counter() - start
        ratios.append(times["ours"] / times["bare"])
    told("training loop against a bare PyTorch loop, 5 × 64 pictures a step", f"{np.median(ratios) - 1:+.1%}", "≤ +5 %", bool(np.median(ratios) <= 1.05))
