"""Pictures of what shifts do."""

from __future__ import annotations

import numpy as np

from elsewhere.data import Array
from elsewhere.explainer import Image
from elsewhere.images.shifts import SHIFTS, shift
from elsewhere.pictures import contact_sheet


def shifts_sheet(image: Array, seed: int = 0, zoom: int = 2) -> Image:
    """Return one picture [channels, height, width] under every shift (rows) at severities 0 to 5 (columns).

    Examples:
        >>> shifts_sheet(np.zeros((1, 28, 28), np.float32)).alt[:19]
        'Rows: rotated, shif'
    """
    rows = [np.concatenate([np.pad(shift(image[None], name, s, seed)[0], ((0, 0), (0, 1), (0, 1))) for s in range(6)], axis=2) for name in SHIFTS]
    return contact_sheet([np.concatenate(rows, axis=1)], f"Rows: {', '.join(SHIFTS)}; columns: severity 0 to 5", zoom)
