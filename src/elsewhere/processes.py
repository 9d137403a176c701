"""Where a training runs: its device and processes, its randomness, its interruptions. Lightning Fabric is known here alone."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from elsewhere.errors import UserError
from elsewhere.run import Run

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def fabric_of(run: Run) -> Fabric:
    """Return the Fabric of a run: one device, or every process that torchrun started."""
    processes = int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1
    return _fabric(run.device, run.precision, run.strategy, processes)


@lru_cache(maxsize=8)
def _fabric(device: str, precision: str, strategy: str, processes: int) -> Fabric:
    from lightning_fabric import Fabric

    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps"):
        raise UserError(f"device must be auto, cpu, cuda, cuda:N or mps, not {device!r}")
    told: dict[str, Any] = {"accelerator": kind, "precision": precision, "devices": [int(index)] if index else 1}
    if processes > 1:
        local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
        told |= {"devices": local, "num_nodes": max(1, processes // local), "strategy": "ddp" if strategy == "auto" else strategy}
    try:
        made = Fabric(**told)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"cannot train on device {device!r} with precision {precision!r}: {error}") from error
    made.launch()
    return made


def seed_step(base: int, step: int, device: torch.device) -> None:
    """Seed torch's randomness for one step, on the processor and on the device alone.

    (``torch.manual_seed`` queues a call with its traceback for every kind of device that has not been used yet: each step would
    cost and keep more.)
    """
    seed = (base + step * 0x9E3779B1) % 2**63
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def leave() -> None:
    """Wait for the other processes of a training and part from them; nothing where there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        _fabric.cache_clear()


@contextmanager
def forked(fabric: Any) -> Iterator[None]:
    """Leave torch's global randomness as it was found."""
    with torch.random.fork_rng(devices=[fabric.device.index or 0] if fabric.device.type == "cuda" else []):
        yield


@contextmanager
def asked_to_stop() -> Iterator[list[int]]:
    """Turn the first Ctrl-C into an entry of a list, so that the step is finished and kept; the second acts at once."""
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
