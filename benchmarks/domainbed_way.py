"""One trial done the way DomainBed's documentation describes, written from that description and importing nothing of it.

A process a trial; a DataLoader of float pictures drawn with replacement; Adam; every 300 steps the accuracy of both
splits (80 % and 20 %) of every domain. ``python benchmarks/domainbed_way.py STEPS EVERY REACH`` prints seconds, the step
reached and the accuracies as JSON; REACH > 0 stops at the first evaluation where the held-out split of the source reaches it.
"""

from __future__ import annotations

import json
import sys
import time

START = time.perf_counter()

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from elsewhere.images.tasks import digits_shifts

STRESSES = {"severities": (2, 4), "shifts": ("rotated", "shifted")}


def network() -> nn.Module:
    layers: list[nn.Module] = []
    for a, b, stride in ((1, 64, 1), (64, 128, 2), (128, 128, 1), (128, 128, 1)):
        layers += [nn.Conv2d(a, b, 3, stride, padding=1), nn.ReLU(), nn.GroupNorm(8, b)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def splits() -> dict[str, list[TensorDataset]]:
    """Return for every domain its 80 % and its 20 %."""
    task = digits_shifts(0, **STRESSES)
    parts = {"source": task.source.train} | {d.name: d.load() for d in task.domains if d.role != "home"}
    found = {}
    for name, data in parts.items():
        order = np.random.default_rng(0).permutation(len(data))
        cut = len(order) // 5
        found[name] = [TensorDataset(torch.from_numpy(data.inputs[rows]), torch.from_numpy(data.labels[rows])) for rows in (order[cut:], order[:cut])]
    return found


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    model.eval()
    right = 0
    with torch.no_grad():
        for x, y in DataLoader(data, batch_size=64):
            right += int((model(x).argmax(1) == y).sum())
    model.train()
    return right / len(data)


def main(steps: int, every: int, reach: float) -> None:
    torch.manual_seed(0)
    domains, model = splits(), network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    source = domains["source"][0]
    loader = iter(DataLoader(source, batch_size=64, sampler=RandomSampler(source, replacement=True, num_samples=64 * steps), drop_last=True))
    evaluating, told, step = 0.0, {}, 0
    for step in range(1, steps + 1):
        x, y = next(loader)
        loss = functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % every == 0 or step == steps:
            start = time.perf_counter()
            told = {f"{name} {part}": accuracy(model, data) for name, both in domains.items() for part, data in zip(("in", "out"), both, strict=True)}
            evaluating += time.perf_counter() - start
            if 0 < reach <= told["source out"]:
                break
    print(json.dumps({"seconds": time.perf_counter() - START, "evaluating": evaluating, "step": step, "accuracy": told}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
