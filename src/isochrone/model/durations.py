"""Lengths of time as people write them: `90s`, `30m`, `24h`, `7d`."""

from __future__ import annotations

import re
from typing import Final

from isochrone.model.errors import RefusedError

_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhdw]?)\s*")


def parse_duration_s(text: str) -> float:
    """Return the seconds that `text` means: `90`, `90s`, `1.5h`, `7d`, `2w`. Raises RefusedError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise RefusedError(f"{text[:80]!r} is not a length of time: write for example 90s, 30m, 24h or 7d")
    return float(match[1]) * _UNITS_S[match[2]]
