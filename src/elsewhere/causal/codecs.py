"""From observations to latents and back through networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import NotOffered
from elsewhere.run import Run

QUIET = Run(progress=False)


@dataclass
class NetworkCodec:
    """z = (network((x - center) / spread) - shift) / scale; pictures stay in 0..1. Back by ``decoder``, a network of z, if there is one.

    Args:
        network: x -> codes; gives a tensor [n, k].
        decoder: standardised latents -> x, in the scale that ``network`` sees; ``logits`` where it gives those of pixels.
        center, spread: of x, [d]; None for pictures.
        shift, scale: of the codes [k].
        logits: the decoder gives logits of pixels.
    """

    network: Any
    decoder: Any = None
    center: Array | None = None
    spread: Array | None = None
    shift: Array | None = None
    scale: Array | None = None
    logits: bool = False

    def seen(self, x: Any) -> Any:
        """Return observations as the network sees them."""
        return standardised(x, self.center, self.spread)

    def encode(self, x: Any) -> Array:
        from elsewhere.batching import in_batches

        z = in_batches(self.network, self.seen(x), QUIET, output=None).astype(float)
        return z if self.shift is None else (z - self.shift) / self.scale

    def decode(self, z: Array) -> Array:
        from elsewhere.batching import in_batches

        if self.decoder is None:
            raise NotOffered("nothing was fitted that leads from latents back to observations")
        x = in_batches(self.decoder, np.asarray(z, np.float32), QUIET, output=None).astype(float)
        if self.logits:
            return np.asarray(1 / (1 + np.exp(-x)))
        return x if self.center is None else x * self.spread + self.center


def standardised(x: Any, center: Array | None, spread: Array | None) -> Any:
    """Return vectors centred and scaled; pictures (no scales) as they are."""
    return x if center is None else ((np.asarray(x, float) - center) / spread).astype(np.float32)


def scales(x: Any) -> tuple[Array | None, Array | None]:
    """Return mean and deviation of each column of vectors [N, d] (1 where it is constant); None, None for pictures."""
    if np.ndim(x) != 2:
        return None, None
    x = np.asarray(x, float)
    spread = x.std(0)
    return x.mean(0), np.where(spread > 0, spread, 1.0)
