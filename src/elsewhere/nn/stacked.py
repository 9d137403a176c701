"""Many linear heads or small perceptrons trained as one: stacked parameters, one batched product a layer and step.

Heads of one source and seed see the same batches, so that the first layer is one product; sources of the same width are
stacked beside each other. Each head's arithmetic is that of its own training, so results equal the loop's to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from elsewhere.batching import as_tensor, order
from elsewhere.data import Examples
from elsewhere.errors import UserError
from elsewhere.nn.learners import NetworkLearner, seeded, stackable
from elsewhere.run import Run
from elsewhere.training import Backward, train

MOST_NUMBERS = 1 << 26  # parameters of one stack


@dataclass
class _Job:
    """One learner prepared: its own data, its initial network."""

    learner: NetworkLearner
    data: Examples
    run: Run
    network: Any

    @property
    def shape(self) -> tuple[Any, ...]:
        layers = tuple(tuple(p.shape) for p in self.network.parameters())
        m = self.learner
        return (type(m), layers, self.learner.classes_, m.batch, m.steps, m.schedule)


def fit_stacked(learners: Sequence[Any], sources: Sequence[Any], runs: Sequence[Run]) -> list[Any]:
    """Fit aligned lists; return each fitted, or in its place the ``UserError`` that its own fit would have raised."""
    found: list[Any] = [None] * len(learners)
    jobs: dict[int, _Job] = {}
    kept: dict[Any, tuple[Examples, dict[str, Any]]] = {}
    for k, (learner, source, run) in enumerate(zip(learners, sources, runs, strict=True)):
        try:
            if not stackable(learner) or np.ndim(source.train.labels) > 1:
                found[k] = learner.fit(source, run)
                continue
            data = _prepared(learner, source, run, kept)
            jobs[k] = _Job(learner, data, run, seeded(run, lambda learner=learner, data=data: learner.network(data)))
        except UserError as error:
            found[k] = error
    stacks: dict[Any, list[int]] = {}
    for k, job in jobs.items():
        stacks.setdefault(job.shape, []).append(k)
    for members in stacks.values():
        for together in _grids(members, jobs):
            _fit(together, jobs, found)
    return found


def _prepared(learner: Any, source: Any, run: Run, kept: dict[Any, tuple[Examples, dict[str, Any]]]) -> Examples:
    """Prepare the source once for all that prepare it alike; they share one copy of the data."""
    key = (type(learner), id(source.train), run.seed, learner.preparation)
    if key not in kept:
        data = learner.prepared(source, run)[0]
        kept[key] = (data, {k: v for k, v in vars(learner).items() if k.endswith("_")})
    data, learnt = kept[key]
    vars(learner).update(learnt)
    return data


def _grids(members: list[int], jobs: Mapping[int, _Job]) -> list[list[list[int]]]:
    """Return stacks of groups × heads: groups share data and seed; those with the same number of heads are stacked."""
    groups: dict[Any, list[int]] = {}
    for k in members:
        job = jobs[k]
        groups.setdefault((id(job.data), job.run.seed), []).append(k)
    size = sum(p.numel() for p in jobs[members[0]].network.parameters())
    room = max(1, MOST_NUMBERS // max(1, size))
    cut = [g[i : i + room] for g in groups.values() for i in range(0, len(g), room)]
    rows: dict[tuple[int, bool], list[list[int]]] = {}
    for g in cut:
        rows.setdefault((len(g), "weight" in jobs[g[0]].data.columns), []).append(g)
    most = {heads: max(1, room // heads) for heads, _ in rows}
    return [same[i : i + most[heads]] for (heads, _), same in rows.items() for i in range(0, len(same), most[heads])]


def _fit(grid: list[list[int]], jobs: Mapping[int, _Job], found: list[Any]) -> None:
    first = jobs[grid[0][0]]
    stack = _Stack([[jobs[k].network for k in group] for group in grid])
    stepper = _Stepper(stack, [[jobs[k].learner for k in group] for group in grid], first.learner)
    run = Run(first.run.seed, first.run.device, first.run.precision, first.run.threads, progress=first.run.progress)
    train(stepper, _draw([jobs[g[0]] for g in grid], first.learner), run, steps=first.learner.steps)
    losses = torch.stack([c for _, c in stepper.curves])  # [points, groups, heads]
    for g, group in enumerate(grid):
        for h, k in enumerate(group):
            found[k] = _taken(jobs[k], stack, g, h, [s for s, _ in stepper.curves], losses[:, g, h].tolist())


def _taken(job: _Job, stack: _Stack, g: int, h: int, steps: list[int], losses: list[float]) -> Any:
    """Return a head's learner with its weights and curve, or its error where the loss left the numbers."""
    for step, loss in zip(steps, losses, strict=True):
        if not math.isfinite(loss):
            who = f" of trial {job.run.trial}" if job.run.trial else ""
            return UserError(f"loss is {loss} at step {step} of {job.learner.steps}{who}: try a lower learning_rate, or clip=1.0 (precision {job.run.precision})")
        job.run.log(step, loss=loss)
    stack.unstack(job.network, g, h)
    job.learner.network_ = job.network.eval()
    return job.learner


def _draw(leads: Sequence[_Job], like: NetworkLearner) -> Any:
    """Return step -> inputs [b, groups, d], labels and weights [b, groups]."""
    rows = [order(len(j.data), j.run, like.batch) for j in leads]
    inputs = [as_tensor(j.data.inputs).flatten(1) for j in leads]
    labels = [_labels(j) for j in leads]
    weight = [_weight(j) for j in leads]

    def draw(step: int) -> tuple[Tensor, Tensor, Tensor | None]:
        at = [r(step) for r in rows]
        weights = None if weight[0] is None else torch.stack([w[a] for w, a in zip(weight, at, strict=True) if w is not None], 1)
        x = torch.stack([x[a] for x, a in zip(inputs, at, strict=True)], 1)
        return x, torch.stack([y[a] for y, a in zip(labels, at, strict=True)], 1), weights

    return draw


def _labels(job: _Job) -> Tensor:
    y = torch.as_tensor(np.asarray(job.data.labels))
    return y.long() if job.learner.classes_ is not None else (y.float() - job.learner.label_mean_) / job.learner.label_deviation_


def _weight(job: _Job) -> Tensor | None:
    weight = job.data.columns.get("weight")
    return None if weight is None else torch.as_tensor(np.asarray(weight, np.float32) / job.learner.weight_mean_)


class _Stack(nn.Module):
    """Groups × heads of perceptrons: first layer [G, H·out, in], later ones [G·H, out, in]."""

    def __init__(self, networks: Sequence[Sequence[nn.Module]]) -> None:
        super().__init__()
        self.groups, self.heads = len(networks), len(networks[0])
        layers = [[_linears(n) for n in group] for group in networks]
        depth = len(layers[0][0])
        self.weight, self.bias = nn.ParameterList(), nn.ParameterList()
        for k in range(depth):
            w = torch.stack([torch.stack([head[k].weight.detach() for head in group]) for group in layers])  # [G, H, out, in]
            b = torch.stack([torch.stack([head[k].bias.detach() for head in group]) for group in layers])
            self.weight.append(nn.Parameter(w.flatten(1, 2) if k == 0 else w.flatten(0, 1)))
            self.bias.append(nn.Parameter((b.flatten(1, 2)[:, None] if k == 0 else b.flatten(0, 1)[:, None]).contiguous()))

    def forward(self, x: Tensor) -> Tensor:
        """[b, G, d] -> [b, G, H, out]."""
        b = len(x)
        z = torch.baddbmm(self.bias[0], x.transpose(0, 1), self.weight[0].transpose(1, 2))  # [G, b, H·out]
        if len(self.weight) == 1:
            return z.view(self.groups, b, self.heads, -1).transpose(0, 1)
        z = z.view(self.groups, b, self.heads, -1).transpose(1, 2).flatten(0, 1)  # [G·H, b, out]
        for weight, bias in zip(list(self.weight)[1:], list(self.bias)[1:], strict=True):
            z = torch.baddbmm(bias, z.relu(), weight.transpose(1, 2))
        return z.view(self.groups, self.heads, b, -1).permute(2, 0, 1, 3)

    @torch.no_grad()
    def unstack(self, network: nn.Module, g: int, h: int) -> None:
        """Write one head's weights into its own network."""
        for k, linear in enumerate(_linears(network)):
            out = linear.out_features
            if k == 0:
                linear.weight.copy_(self.weight[0][g, h * out : (h + 1) * out])
                linear.bias.copy_(self.bias[0][g, 0, h * out : (h + 1) * out])
            else:
                linear.weight.copy_(self.weight[k][g * self.heads + h])
                linear.bias.copy_(self.bias[k][g * self.heads + h, 0])

    def spread(self, values: Tensor) -> dict[Tensor, Tensor]:
        """Return for each parameter the values [G, H] of its heads, in a shape that broadcasts over it."""
        told: dict[Tensor, Tensor] = {}
        for k, (w, b) in enumerate(zip(self.weight, self.bias, strict=True)):
            if k == 0:
                wide = values.repeat_interleave(w.shape[1] // self.heads, dim=1)  # [G, H·out]
                told[w], told[b] = wide[:, :, None], wide[:, None, :]
            else:
                told[w] = told[b] = values.flatten()[:, None, None]
        return told


def _linears(network: nn.Module) -> list[nn.Linear]:
    return [m for m in network.modules() if isinstance(m, nn.Linear)]


class _Stepper:
    """One step of all heads: the sum of their mean losses, so that each has the gradient of its own."""

    def __init__(self, module: _Stack, learners: Sequence[Sequence[NetworkLearner]], like: NetworkLearner) -> None:
        self.module, self.classification = module, like.classes_ is not None
        self.optimiser = StackedAdamW(module, *(torch.tensor([[getattr(m, name) for m in g] for g in learners]) for name in ("learning_rate", "weight_decay")))
        make = like.scheduler()
        self.schedule = None if make is None else make(self.optimiser)
        self.curves: list[tuple[int, Tensor]] = []
        self.done, self.every, self.steps = 0, max(1, like.steps // 200), like.steps

    def parts(self) -> Mapping[str, Any]:
        named = {"module": self.module, "optimiser": self.optimiser, "schedule": self.schedule}
        return {k: v for k, v in named.items() if v is not None}

    def step(self, batch: Any, backward: Backward) -> Mapping[str, Any]:
        x, labels, weight = batch
        self.optimiser.zero_grad()
        made = self.module(x)
        wide = labels[:, :, None].expand(made.shape[:3])
        each = _cross_entropy(made, wide) if self.classification else (made[..., 0] - wide).square()
        mean = (each if weight is None else each * weight[:, :, None]).mean(0)  # [G, H]
        backward(mean.sum())
        self.optimiser.step()
        if self.schedule is not None:
            self.schedule.step()
        self.done += 1
        if self.done % self.every == 0 or self.done == self.steps:
            self.curves.append((self.done, mean.detach().cpu()))
        return {}


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """[b, G, H, classes] and [b, G, H] -> [b, G, H]."""
    return functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), reduction="none").view(labels.shape)


class StackedAdamW(Optimizer):
    """AdamW with a learning rate and a decay for each head of a stack.

    The fused kernel moves a buffer of zeros by its step of rate 1; rate and decay of each head are applied to that.
    ``lr`` of its one parameter group multiplies all rates, so that schedules work as with any optimiser.
    """

    def __init__(self, stack: Any, rates: Tensor, decays: Tensor) -> None:
        self.moves = [nn.Parameter(torch.zeros_like(p)) for p in stack.parameters()]
        self.inner = torch.optim.AdamW(self.moves, lr=1.0, weight_decay=0.0, fused=True)
        super().__init__(list(stack.parameters()), {"lr": 1.0})
        told_rates, told_decays = stack.spread(rates), stack.spread(rates * decays)
        self.rates, self.decays = ([told[p] for p in stack.parameters()] for told in (told_rates, told_decays))
        self.decayed = bool((decays != 0).any())

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        factor = self.param_groups[0]["lr"]
        parameters = self.param_groups[0]["params"]
        for k, p in enumerate(parameters):
            if self.moves[k].device != p.device:
                self.moves[k].data = self.moves[k].data.to(p.device)
                self.rates[k], self.decays[k] = self.rates[k].to(p.device), self.decays[k].to(p.device)
            self.moves[k].grad = p.grad
        self.inner.step()
        for p, move, rate, decay in zip(parameters, self.moves, self.rates, self.decays, strict=True):
            if self.decayed:
                p.mul_(1 - factor * decay)
            p.addcmul_(move, rate, value=factor)
            move.zero_()
