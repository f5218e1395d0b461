"""Sizes: the track, and text with units (`64MiB`, `2g`) to bytes and back."""

from __future__ import annotations

import re
from typing import Final

from isochrone.model.errors import RefusedError

TRACK_SIZE_DEFAULT_BYTES: Final = 4096
TRACK_SIZE_MIN_BYTES: Final = 4096
TRACK_SIZE_MAX_BYTES: Final = 65536
TRACKS_PER_VOLUME_MAX: Final = 1 << 32
"""Track numbers travel as unsigned 32-bit integers: 16 TiB a volume at 4 KiB tracks."""

_UNITS: Final = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", re.IGNORECASE)


def parse_size(text: str | int) -> int:
    """Return the bytes that `text` means: `4096`, `64KiB`, `1.5g`. Units are binary. Raises RefusedError."""
    if isinstance(text, int):
        return text
    match = _SIZE.fullmatch(text)
    if match is None:
        raise RefusedError(f"{text!r} is not a size: write for example 4096, 512MiB, 10GiB or 1TiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def format_size(size_bytes: float) -> str:
    """Return `size_bytes` for people: `512 B`, `1.5 GiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
