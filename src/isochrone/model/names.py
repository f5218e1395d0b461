"""Names that people give to volumes, sessions and controllers."""

from __future__ import annotations

import re
from typing import Final

from isochrone.model.errors import RefusedError

NAME_LENGTH_MAX: Final = 64
NAME_PATTERN: Final = rf"^[A-Za-z0-9]([A-Za-z0-9._-]{{0,{NAME_LENGTH_MAX - 2}}}[A-Za-z0-9])?$"
_NAME: Final = re.compile(NAME_PATTERN)


def check_name(name: str, what: str) -> str:
    """Return `name` if it can name a `what` ("volume", "session", ...), else raise RefusedError.

    Letters, digits, `.`, `_` and `-`, at most NAME_LENGTH_MAX characters, a letter or digit at both ends: safe in a
    path, an NBD export name, a URL and a shell word.
    """
    if _NAME.fullmatch(name):
        return name
    raise RefusedError(
        f"{what} name {name[:80]!r} is not usable: use 1 to {NAME_LENGTH_MAX} letters, digits, '.', '_' or '-', "
        "with a letter or digit at both ends",
        what=what,
    )
