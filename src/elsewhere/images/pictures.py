"""Pictures from files: decoded once, in parallel, to one size, and kept as bytes."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

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
READING = 2  # raise it when a file becomes other bytes: what was kept on disk no longer counts
_GREY = ("1", "L", "LA", "La", "I", "F")  # and I;16 in every byte order
_WORDS = 65535  # the white of a 16-bit picture
_BITS, _WHITE_IS_ZERO = 258, 262  # tags of a TIFF


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
    those beyond 1 GiB read from there when they are asked for. See ``upright``.

    Raises:
        UserError: a file cannot be read (it is named), its numbers have no known white, or sizes
            differ and no side is given.
    """
    if not paths:
        raise UserError("there are no pictures to read")
    size = len(paths) * 3 * (side or 64) ** 2
    if size < KEPT_FROM:
        return _decode(paths, side)
    key = stamp(paths, side)
    path = cache() / "pictures" / f"{key}.npy"
    with locked(cache() / "pictures" / "lock", int(key[:12], 16)):
        if not path.exists():
            buffer = io.BytesIO()
            np.save(buffer, _decode(paths, side), allow_pickle=False)
            write_whole(path, buffer.getvalue())
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    return in_memory(Lazy(lambda rows: np.asarray(mapped[rows]), mapped.shape[1:], np.arange(len(mapped)), key))


def stamp(paths: Sequence[Path], side: int | None) -> str:
    """Return a key of the bytes that files become: sizes, times, and the way of reading."""
    told = [[str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns] for p in paths]
    return digest([READING, side, told])


def touched(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """Return a mark that changes with any file below a folder: count, bytes, last change."""
    place = Path(path)
    stats = [p.stat() for p in (place.rglob("*") if place.is_dir() else [place]) if p.exists()]
    last = max((s.st_ctime_ns for s in stats), default=0)
    return len(stats), sum(s.st_size for s in stats), last


def _decode(paths: Sequence[Path], side: int | None) -> Array:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = list(pool.map(lambda p: _one(p, side), paths))
    _one_white(paths, [r.white for r in found])
    return stacked([r.pixels for r in found])


def _one_white(paths: Sequence[Path], whites: Sequence[float | None]) -> None:
    """Refuse a set in which floats of one file end at 1 and those of another at 255.

    Each is plausible by itself; together one of them would be 255 times too bright or too dark.
    """
    first = {white: path for path, white in zip(paths, whites, strict=True) if white is not None}
    if len(first) > 1:
        raise UserError(
            f"{first[1.0]} holds floats up to 1 and {first[255.0]} floats up to 255: "
            "write all pictures with one range"
        )  # fmt: skip


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


class _Read(NamedTuple):
    """A picture as bytes, and what the white of its floats was taken to be (None: no floats)."""

    pixels: Array
    white: float | None


def _one(path: Path, side: int | None) -> _Read:
    from PIL import Image, UnidentifiedImageError

    try:
        # by handle: given a path, Pillow maps an uncompressed TIFF and scrambles one that is turned
        with path.open("rb") as file, Image.open(file) as opened:
            white = _white_of(np.asarray(opened), str(path)) if opened.mode == "F" else None
            return _Read(as_array(opened, side, str(path)), white)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read as a picture: {one_line(error, 80)}") from error


def as_array(opened: Any, side: int | None = None, name: str = "a picture") -> Array:
    """Return an opened PIL picture as bytes, grey [height, width] or coloured [height, width, 3].

    Args:
        opened: of any mode; see ``upright``.
        side: resize and crop to it; None: as it is.
        name: of the file, for errors.
    """
    picture = upright(opened, name)
    return np.asarray(picture if side is None else cropped(picture, side))


def upright(opened: Any, name: str = "a picture") -> Any:
    """Return a PIL picture as a viewer shows it on white paper, of mode L or RGB with 8 bits.

    The orientation that a camera noted (EXIF) is applied. Transparent pixels show white. Of several
    frames or pages the first counts. Whole numbers of 16 bits are divided by 257; floats in 0..1
    are multiplied by 255, floats in 0..255 are rounded.

    Args:
        opened: a PIL picture of any mode.
        name: of the file, for errors.

    Raises:
        UserError: the numbers have no known white (negative, NaN, above 65535, floats above 255,
            32-bit whole numbers that may have 8 or 16 bits), or the colours cannot be converted.

    Examples:
        >>> from PIL import Image
        >>> np.asarray(upright(Image.fromarray(np.array([[0, 65535]], np.uint16)))).tolist()
        [[0, 255]]
        >>> np.asarray(upright(Image.new("RGBA", (1, 1), (0, 0, 0, 0)))).tolist()
        [[[255, 255, 255]]]
    """
    from PIL import ImageOps

    opened.load()  # a TIFF turns itself when it is loaded
    picture = ImageOps.exif_transpose(opened)
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return _from_numbers(picture, opened, name)
    grey = picture.mode in _GREY
    try:
        if picture.has_transparency_data:
            picture = _on_white(picture)
        return picture.convert("L" if grey else "RGB")
    except ValueError as error:
        kind = f"has colours of mode {picture.mode}"
        raise UserError(f"{name} {kind}, which cannot be converted: save it as RGB") from error


def _on_white(picture: Any) -> Any:
    from PIL import Image

    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _from_numbers(picture: Any, opened: Any, name: str) -> Any:
    """Return a picture of 16- or 32-bit numbers as one of bytes."""
    from PIL import Image

    values = np.asarray(picture)
    tags = getattr(opened, "tag_v2", {})
    if picture.mode == "F":
        white = _white_of(values, name) or 255.0
    elif tags.get(_BITS, (16,))[0] == 12:
        white = 4095.0
    else:
        white = float(_WORDS)
        _check_words(values, name, sixteen=picture.mode != "I" or opened.format in ("PNG", "PPM"))
    scaled = np.round(np.asarray(values, np.float64) * (255 / white))
    scaled = 255 - scaled if tags.get(_WHITE_IS_ZERO) == 0 else scaled
    if isinstance(transparent := opened.info.get("transparency"), int):
        scaled[values == transparent] = 255
    return Image.fromarray(scaled.astype(np.uint8))


def _check_words(values: Array, name: str, sixteen: bool) -> None:
    """Refuse whole numbers outside 0..65535, and 32-bit ones whose white may be 255 or 65535."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _WORDS:
        raise UserError(
            f"{name} holds whole numbers from {low} to {high}; expected 0 to 65535: "
            "scale them and save 8-bit or 16-bit pictures"
        )  # fmt: skip
    if not sixteen and 0 < high <= 255:
        raise UserError(
            f"{name} holds 32-bit whole numbers up to {high}: is white 255 or 65535? "
            "Save it as an 8-bit or 16-bit picture"
        )  # fmt: skip


def _white_of(values: Array, name: str) -> float | None:
    """Return the white of floats, 1 or 255; None where all are 0.

    Raises:
        UserError: NaN or infinite values, negative ones, or values above 255.
    """
    if not np.isfinite(values).all():
        raise UserError(f"{name} holds NaN or infinite values: a picture has none")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255:
        raise UserError(
            f"{name} holds floats from {low:g} to {high:g}; expected 0 to 1, or 0 to 255"
        )  # fmt: skip
    return None if high == 0 else 1.0 if high <= 1 else 255.0


def bytes_of(values: Array, name: str) -> Array:
    """Return pictures of bytes, of floats in 0..1 or in 0..255 as bytes; ``name`` is for errors."""
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind != "f":
        raise UserError(f"{name} holds pictures of {values.dtype}; expected bytes or floats")
    white = _white_of(values, name) or 255.0
    return np.round(values * (255 / white)).astype(np.uint8)


def cropped(picture: Any, side: int) -> Any:
    """Return a PIL picture with its shorter side resized to side / 0.875 and the centre cropped to side × side."""
    from PIL import Image

    wide, high = picture.size
    factor = round(side / CROP) / min(wide, high)
    wide, high = max(side, round(wide * factor)), max(side, round(high * factor))
    left, top = (wide - side) // 2, (high - side) // 2
    return picture.resize((wide, high), Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))
