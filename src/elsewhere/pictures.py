"""Pictures as arrays: what is one, those drawn or read when they are asked for, and several side by side as a PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from elsewhere.data import Array
from elsewhere.explainer import Image
from elsewhere.identity import digest

IN_MEMORY = 1 << 30  # bytes of pictures that are held at once
BLOCK = 1024


class Lazy:
    """Pictures read when they are asked for: a lazy [n, channels, height, width] of bytes.

    Args:
        read: rows -> uint8 [n, channels, height, width].
        shape: [channels, height, width] of one.
        rows: which pictures these are.
        key: what they are of; two readers of one key and the same rows hold the same pictures.

    Examples:
        >>> lazy = Lazy(lambda rows: rows.astype(np.uint8).reshape(-1, 1, 1, 1), (1, 1, 1), np.arange(5), "numbers")
        >>> np.asarray(lazy[np.array([4, 2])]).ravel().tolist(), lazy.shape
        ([4, 2], (5, 1, 1, 1))
    """

    def __init__(self, read: Callable[[Array], Array], shape: Sequence[int], rows: Array, key: str) -> None:
        self.read, self.rows, self.key = read, np.asarray(rows), key
        self.shape, self.dtype, self.ndim = (len(self.rows), *shape), np.dtype(np.uint8), 4

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, (int, np.integer)):
            return self.read(np.atleast_1d(self.rows[at]))[0]
        return Lazy(self.read, self.shape[1:], self.rows[at], self.key)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        out = np.empty(self.shape, np.uint8)
        for start in range(0, len(self), BLOCK):
            out[start : start + BLOCK] = self.read(self.rows[start : start + BLOCK])
        return out if dtype is None else out.astype(dtype)

    def content_key(self) -> str:
        """Say what these are, so that nothing has to be read to tell them apart."""
        return digest([self.key, list(self.shape), digest(self.rows.tolist())])


def in_memory(lazy: Lazy) -> Any:
    """Return pictures as an array where they are few, else as they are."""
    return np.asarray(lazy) if math.prod(lazy.shape) <= IN_MEMORY else lazy


def is_picture(data: Any) -> bool:
    """Whether previews of the data are pictures: [channels, height, width] with 1 or 3 channels, or bytes [height, width]."""
    if not len(data) or not hasattr(data, "preview"):
        return False
    first = data.preview(0)
    if not isinstance(first, np.ndarray) or first.dtype.kind not in "fu" or min(first.shape[-2:], default=0) < 4:
        return False
    return (first.ndim == 3 and first.shape[0] in (1, 3)) or (first.ndim == 2 and first.dtype == np.uint8)


def contact_sheet(pictures: Sequence[Array], alt: str, zoom: int = 2) -> Image:
    """Return pictures [channels, height, width] or [height, width] in 0..1 (or bytes) side by side as one PNG; small ones are enlarged."""
    from PIL import Image as Picture

    drawn = [_as_rgb(p) for p in pictures]
    height = max(p.shape[0] for p in drawn)
    sheet = np.concatenate([np.pad(p, ((0, height - p.shape[0]), (1, 1), (0, 0))) for p in drawn], axis=1)
    factor = zoom if height < 250 else 1
    buffer = io.BytesIO()
    Picture.fromarray(sheet).resize((sheet.shape[1] * factor, height * factor), Picture.Resampling.NEAREST).save(buffer, "PNG", optimize=True)
    return Image(buffer.getvalue(), alt)


def _as_rgb(picture: Array) -> Array:
    x = np.asarray(picture)
    x = x[None] if x.ndim == 2 else x
    x = x if x.dtype == np.uint8 else np.round(255 * np.clip(x, 0, 1)).astype(np.uint8)
    x = np.repeat(x, 3, axis=0) if x.shape[0] == 1 else x[:3]
    return np.ascontiguousarray(x.transpose(1, 2, 0))
