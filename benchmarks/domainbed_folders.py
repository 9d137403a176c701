"""A folder of pictures the way DomainBed's documentation describes, written from that description and importing nothing of it.

A process a trial; pictures are opened, resized and standardised one by one in every epoch; a minibatch of 32 from each source
domain; Adam; the accuracy of both splits (80 % and 20 %) of every domain every so many steps.
``python benchmarks/domainbed_folders.py FOLDER cnn|resnet STEPS EVERY`` prints seconds and the accuracy in the domain left out.
"""

from __future__ import annotations

import json
import sys
import time

START = time.perf_counter()

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler, Subset
from torchvision import models, transforms
from torchvision.datasets import ImageFolder


def network(kind: str) -> tuple[nn.Module, nn.Module]:
    if kind == "resnet":
        body = models.resnet18()
        body.fc = nn.Identity()
        for p in body.parameters():
            p.requires_grad_(False)
        return body.eval(), nn.Linear(512, 3)
    layers: list[nn.Module] = []
    for a, b, stride in ((3, 64, 1), (64, 128, 2), (128, 128, 1), (128, 128, 1)):
        layers += [nn.Conv2d(a, b, 3, stride, padding=1), nn.ReLU(), nn.GroupNorm(8, b)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(128, 3)


def accuracy(model: nn.Module, data: Subset) -> float:
    right = 0
    with torch.no_grad():
        for x, y in DataLoader(data, batch_size=64):
            right += int((model(x).argmax(1) == y).sum())
    return right / len(data)


def main(folder: str, kind: str, steps: int, every: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    seen = transforms.Compose([transforms.Resize(37), transforms.CenterCrop(32), transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    domains = {}
    for place in sorted(Path(folder).iterdir()):
        whole = ImageFolder(str(place), seen)
        order = torch.randperm(len(whole)).tolist()
        cut = len(order) // 5
        domains[place.name] = (Subset(whole, order[cut:]), Subset(whole, order[:cut]))
    left_out = sorted(domains)[0]
    sources = [parts[0] for name, parts in domains.items() if name != left_out]
    loaders = [iter(DataLoader(s, batch_size=32, sampler=RandomSampler(s, replacement=True, num_samples=32 * steps))) for s in sources]
    body, head = network(kind)
    model = nn.Sequential(body, head)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    told = {}
    for step in range(1, steps + 1):
        drawn = [next(loader) for loader in loaders]
        x, y = torch.cat([d[0] for d in drawn]), torch.cat([d[1] for d in drawn])
        loss = functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % every == 0 or step == steps:
            told = {name: [accuracy(model, part) for part in parts] for name, parts in domains.items()}
    print(json.dumps({"seconds": time.perf_counter() - START, "there": told[left_out]}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
