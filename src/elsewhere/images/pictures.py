"""Pictures from files: decoded once, in parallel, to one size, and kept as bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from elsewhere.data import Array
from elsewhere.errors import UserError, one_line
from elsewhere.identity import digest
from elsewhere.pictures import Lazy, in_memory
from elsewhere.places import cache
from elsewhere.run import locked, write_whole

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
KEPT_FROM = 64 << 20  # bytes from which decoded pictures are kept on disk
CROP = 0.875  # the share of a resized picture that a centre crop keeps (spec 01, 2.2)


def picture_files(path: str | os.PathLike[str]) -> tuple[list[str], list[Path]]:
    """Return names and paths of a picture, or of every picture below a folder in order of name."""
    place = Path(path)
    if not place.exists():
        raise UserError(f"there is no file or folder {path}")
    files = sorted(p for p in place.rglob("*") if p.suffix.lower() in ENDINGS) if place.is_dir() else [place]
    if not files:
        raise UserError(f"{path} holds no pictures ({', '.join(ENDINGS)})")
    return [str(f.relative_to(place)) if place.is_dir() else f.name for f in files], files


def decoded(paths: Sequence[Path], side: int | None = None) -> Any:
    """Return pictures as uint8 [n, channels, height, width], decoded in threads.

    With ``side`` the shorter side is resized to side / 0.875 and the centre is cropped; without it all must have one size.
    Grey pictures keep one channel where all are grey. Large sets are decoded once and memory-mapped from the user's cache,
    those beyond 1 GiB read from there when they are asked for.

    Raises:
        UserError: a file cannot be read (it is named), or sizes differ and no side is given.
    """
    if not paths:
        raise UserError("there are no pictures to read")
    size = len(paths) * 3 * (side or 64) ** 2
    if size < KEPT_FROM:
        return _decode(paths, side)
    key = digest([side, [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in paths]])
    path = cache() / "pictures" / f"{key}.npy"
    with locked(cache() / "pictures" / "lock", int(key[:12], 16)):
        if not path.exists():
            buffer = io.BytesIO()
            np.save(buffer, _decode(paths, side), allow_pickle=False)
            write_whole(path, buffer.getvalue())
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return in_memory(Lazy(lambda rows: np.asarray(mapped[rows]), mapped.shape[1:], np.arange(len(mapped)), key))


def _decode(paths: Sequence[Path], side: int | None) -> Array:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return stacked(list(pool.map(lambda p: _one(p, side), paths)))


def stacked(found: Sequence[Array]) -> Array:
    """Return pictures [height, width] or [height, width, 3] as one array, channels first; all grey ones keep one channel."""
    sizes = {p.shape[:2] for p in found}
    if len(sizes) > 1:
        first, other = sorted(sizes)[:2]
        raise UserError(f"pictures have different sizes ({first[0]} × {first[1]} and {other[0]} × {other[1]} among them): say side=64, or another")
    if all(p.ndim == 2 for p in found):
        return np.stack(found)[:, None]
    coloured = [np.repeat(p[..., None], 3, axis=2) if p.ndim == 2 else p for p in found]
    return np.ascontiguousarray(np.stack(coloured).transpose(0, 3, 1, 2))


def _one(path: Path, side: int | None) -> Array:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            return as_array(opened, side)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture: {one_line(error, 80)}") from error


def as_array(opened: Any, side: int | None = None) -> Array:
    """Return an opened PIL picture as bytes, grey [height, width] or coloured [height, width, 3]."""
    picture = opened.convert("L" if opened.mode in ("1", "L", "I;16", "I", "F", "LA") else "RGB")
    return np.asarray(picture if side is None else cropped(picture, side))


def cropped(picture: Any, side: int) -> Any:
    """Return a PIL picture with its shorter side resized to side / 0.875 and the centre cropped to side × side."""
    from PIL import Image

    wide, high = picture.size
    factor = round(side / CROP) / min(wide, high)
    wide, high = max(side, round(wide * factor)), max(side, round(high * factor))
    left, top = (wide - side) // 2, (high - side) // 2
    return picture.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))
