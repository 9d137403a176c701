"""Pictures as arrays: what is one, and several side by side as a PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from elsewhere.data import Array
from elsewhere.explainer import Image


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
