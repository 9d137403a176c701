"""Minibatches as tensors: drawn by seed and step alone, cut in pieces, spread over processes, gone through in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from elsewhere.data import Array, Examples, optional_column
from elsewhere.errors import UserError
from elsewhere.processes import fabric_of
from elsewhere.run import Run


class Batch(NamedTuple):
    """A minibatch: inputs [b, ...], labels [b], weights [b] (None: all 1), and the rows [b] it was drawn from."""

    inputs: Tensor
    labels: Tensor
    weight: Tensor | None
    rows: Tensor


def batches(data: Examples, run: Run, size: int, stream: str = "batches") -> Callable[[int], Batch]:
    """Return step -> ``Batch`` of ``size`` examples: epochs without replacement, each in an order of its own, without a short last batch.

    Args:
        data: inputs are numbers [n, ...] (pictures as uint8 become 0..1), labels codes or values; a ``weight`` column is passed on.
        run: its seed draws the orders.
        size: examples a batch.
        stream: of the run's randomness.

    Examples:
        >>> draw = batches(Examples(np.arange(6.0)[:, None], np.arange(6)), Run(0), 4)
        >>> sorted(torch.cat([draw(0).rows, draw(1).rows[:2]]).tolist())
        [0, 1, 2, 3, 4, 5]
    """
    if data.labels is None:
        raise UserError("the data have no labels to train on")
    if size < 1:
        raise UserError(f"a batch needs at least 1 example, not {size}")
    rows = order(len(data), run, size, stream)
    labels = torch.as_tensor(np.asarray(data.labels))
    labels = labels.float() if data.classes is None else labels.long()
    weight = optional_column(data, "weight")
    weights = None if weight is None else torch.as_tensor(np.asarray(weight, np.float32))
    take = taker(data.inputs)

    def draw(step: int) -> Batch:
        at = rows(step)
        return Batch(take(at), labels[at], None if weights is None else weights[at], at)

    return draw


def taker(inputs: Any) -> Callable[[Tensor], Tensor]:
    """Return rows -> float32 inputs of these rows. Bytes stay bytes in memory; what is larger than memory allows stays where it is."""
    if not isinstance(inputs, np.ndarray) or isinstance(inputs, np.memmap) or inputs.size * inputs.itemsize > 4 << 30:
        as_tensor(inputs[:1])  # tables and texts are refused here
        return lambda at: as_tensor(np.asarray(inputs[at.numpy()]))
    whole = torch.from_numpy(inputs) if inputs.dtype == np.uint8 and inputs.flags.writeable else torch.from_numpy(inputs.copy()) if inputs.dtype == np.uint8 else as_tensor(inputs)
    return lambda at: whole[at].float().div_(255) if whole.dtype == torch.uint8 else whole[at]


def order(n: int, run: Run, size: int, stream: str = "batches") -> Callable[[int], Tensor]:
    """Return step -> the ``size`` rows of ``n`` that the step sees; ``stream`` names the randomness that orders them."""
    if n < 1:
        raise UserError("there are no examples to train on")
    kept: dict[int, Tensor] = {}

    def epoch(number: int) -> Tensor:
        if number not in kept:
            while len(kept) > 1:
                kept.pop(min(kept))
            kept[number] = torch.from_numpy(run.rng(f"{stream} {number}").permutation(n))
        return kept[number]

    def rows(step: int) -> Tensor:
        start, end = step * size, (step + 1) * size
        return torch.cat([epoch(e)[max(start - e * n, 0) : end - e * n] for e in range(start // n, (end - 1) // n + 1)])

    return rows


def as_tensor(inputs: Any) -> Tensor:
    """Return inputs as float32: bytes (pictures) divided by 255, other numbers as they are."""
    if hasattr(inputs, "iloc"):
        raise UserError("the inputs are a table of raw columns: fit an Encoder on the source first")
    array = np.asarray(inputs)
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array)).float().div_(255)
    if array.dtype.kind not in "fiub":
        raise UserError(f"inputs of type {array.dtype} are no numbers")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def in_batches(network: Callable[[Tensor], Any], inputs: Any, run: Run, size: int | None = None, output: str | None = "logits") -> Array:
    """Return what a network gives for all inputs, gone through ``size`` at a time without gradients: [n, ...] float32.

    Args:
        network: a module (put on the run's device and into evaluation mode) or a function of one.
        inputs: numbers [n, ...].
        run: device and precision.
        size: examples at a time; default: 64 pictures on a processor (more no longer fit its cache), 1,024 else.
        output: the field to keep of a network that gives several (``logits``, ``mean``, ``features``); None: the output itself.
    """
    fabric = fabric_of(run)
    if isinstance(network, nn.Module):
        network = network.to(fabric.device).eval()
    held = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32) if isinstance(network, nn.Module) else torch.float32
    size = size or (64 if fabric.device.type == "cpu" and np.ndim(inputs) > 2 else 1024)
    found = []
    with torch.no_grad(), fabric.autocast():
        for start in range(0, max(1, len(inputs)), size):
            made = network(fabric.to_device(as_tensor(inputs[start : start + size]).to(held)))
            kept = getattr(made, output) if output is not None and hasattr(made, output) else made
            found.append(kept.float().cpu())
    return torch.cat(found).numpy()


def pieces(batch: Any, count: int) -> Iterator[tuple[Any, float]]:
    """Yield the batch in ``count`` parts, each with its share of the examples."""
    n = size_of(batch)
    if count == 1:
        yield batch, 1.0
        return
    bounds = [n * k // count for k in range(count + 1)]

    def part(a: int, b: int) -> Any:
        return _mapped(batch, lambda t: t[len(t) * a // n : len(t) * b // n] if t.ndim else t)

    yield from ((part(a, b), (b - a) / n) for a, b in pairwise(bounds) if b > a)


def share_of(batch: Any, rank: int, world: int) -> tuple[Any, float]:
    """Return the rows of one process and the factor that makes the mean of the processes' mean losses the batch's own."""
    if world == 1:
        return batch, 1.0
    n = size_of(batch)
    if n < world:
        raise UserError(f"a batch of {n} cannot be shared by {world} processes")
    mine = _mapped(batch, lambda t: t[rank::world] if t.ndim else t)
    return mine, size_of(mine) * world / n


def on_device(batch: Any, device: torch.device) -> Any:
    """Return the batch on a device."""
    return _mapped(batch, lambda t: t.to(device, non_blocking=True))


def size_of(batch: Any) -> int:
    """Return how many examples a batch has: the length of its first tensor."""
    found: list[int] = []
    _mapped(batch, lambda t: found.append(len(t)) or t if t.ndim else t)  # type: ignore[func-returns-value]
    if not found:
        raise UserError("a batch holds no tensor")
    return found[0]


def _mapped(batch: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Apply a function to every tensor of nested tuples, lists, mappings and dataclasses."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_mapped(v, function) for v in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_mapped(v, function) for v in batch)
    if isinstance(batch, Mapping):
        return {k: _mapped(v, function) for k, v in batch.items()}
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return dataclasses.replace(batch, **{f.name: _mapped(getattr(batch, f.name), function) for f in dataclasses.fields(batch) if f.init})
    return batch
