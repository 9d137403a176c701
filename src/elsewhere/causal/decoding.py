"""From latents back to observations: a regression of x on ẑ, fitted on all environments."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from elsewhere.batching import order, taker
from elsewhere.data import Array
from elsewhere.nn.building import build
from elsewhere.nn.learners import seeded
from elsewhere.run import Run
from elsewhere.training import Descent, adam, cosine, train

STEPS, BATCH = 2000, 256


class Decoded(NamedTuple):
    z: Tensor
    x: Tensor


def fit_decoder(z: Array, x: Any, run: Run, steps: int = STEPS) -> tuple[Any, bool]:
    """Return a network from latents z [N, n] to x, and whether what it gives are logits of pixels.

    Vectors (standardised) get a perceptron and squared error, pictures the convolutional decoder and binary cross-entropy.
    """
    shape = [int(s) for s in np.shape(x)[1:]]
    pictures = len(shape) == 3
    codes, take, rows = torch.as_tensor(z, dtype=torch.float32), taker(x), order(len(z), run, min(BATCH, len(z)), "decoder")
    if pictures:
        network = seeded(run, lambda: build("pixels", shape=shape, head=False, latents=z.shape[1]))
    else:
        network = seeded(run, lambda: build("code", shape=[z.shape[1]], head=False, outputs=shape[0], width=128, depth=2))

    def loss(module: Any, batch: Decoded) -> Tensor:
        made = module(batch.z)
        return functional.binary_cross_entropy_with_logits(made, batch.x, reduction="sum") / len(made) if pictures else (made - batch.x).square().sum(1).mean()

    train(Descent(network, loss, adam(2e-3), cosine(steps)), lambda step: Decoded(codes[rows(step)], take(rows(step))), run, steps=steps)
    return network, pictures
