"""What the volumes of a copy are called."""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Final

from isochrone.copies.schedule import time_name
from isochrone.model.names import NAME_LENGTH_MAX, check_name
from isochrone.model.volume_kind import IMAGE_MARK, SNAPSHOT_MARK, VolumeKind, check_volume_name

_MARKS: Final = re.compile(f"[{SNAPSHOT_MARK}{IMAGE_MARK}]")


def member_name(source: str, copy: str, *, writable: bool) -> str:
    """Return the name of the volume that copy `copy` makes of `source`. RefusedError when it is too long.

    A snapshot is `SOURCE@COPY`. A writable one is `ROOT-COPY`, where ROOT is `source` without what a copy or an image added.
    """
    if not writable:
        return check_volume_name(f"{source}{SNAPSHOT_MARK}{copy}", VolumeKind.SNAPSHOT)
    root = _MARKS.split(source, maxsplit=1)[0]
    return check_name(f"{root}-{copy}", f"the copy of {source[:80]} would be called {root}-{copy}: its")


def default_name(wall_ns: int, taken: Container[str]) -> str:
    """Return the name of a copy that was given none: the time, and a number behind it where there is one already."""
    name = time_name(wall_ns)
    number = 2
    while name in taken:
        name = f"{time_name(wall_ns)}-{number}"
        number += 1
    assert len(name) <= NAME_LENGTH_MAX
    return name
