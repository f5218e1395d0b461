"""What people may call an instant."""

from __future__ import annotations

from typing import Final

from isochrone.model.errors import RefusedError

INSTANT_TEXT_LENGTH_MAX: Final = 200
"""Characters of the name of an instant."""


def check_instant_text(text: str) -> str:
    """Return `text` if it can be the name of an instant, else raise RefusedError: one line that people can read."""
    if 0 < len(text) <= INSTANT_TEXT_LENGTH_MAX and text.isprintable() and text.strip():
        return text
    raise RefusedError(
        f"the name of an instant is one line of 1 to {INSTANT_TEXT_LENGTH_MAX} printable characters: write another"
    )
