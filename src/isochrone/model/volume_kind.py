"""What a volume of a pool is, and what it may be called."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

from isochrone.model.errors import RefusedError
from isochrone.model.names import check_name

SNAPSHOT_MARK: Final = "@"
"""Between the name of a volume and that of a snapshot of it; never in a name that people choose."""
IMAGE_MARK: Final = "~"
"""Between the name of a secondary and that of a test image of it; never in a name that people choose."""
VOLUME_NAME_LENGTH_MAX: Final = 255


class VolumeKind(IntEnum):
    """What a volume is for. Numbers are on disk: they never change meaning.

    ========  ==========================================  ==============  ========
    kind      what it is                                  named           written
    ========  ==========================================  ==============  ========
    VOLUME    made empty by a person                      NAME            yes
    SNAPSHOT  point-in-time copy, read-only               SOURCE@NAME     no
    COPY      point-in-time copy, a volume of its own     NAME            yes
    IMAGE     test image of a session's secondary         SECONDARY~NAME  yes
    BASE      where a session's history begins; hidden    anything        no
    ========  ==========================================  ==============  ========
    """

    VOLUME = 0
    SNAPSHOT = 1
    COPY = 2
    IMAGE = 3
    BASE = 4

    @property
    def is_writable(self) -> bool:
        """Whether applications may write it."""
        return self not in {VolumeKind.SNAPSHOT, VolumeKind.BASE}

    @property
    def is_hidden(self) -> bool:
        """Whether it is known by its number only."""
        return self is VolumeKind.BASE


_ANY_MARK: Final = re.compile(f"[{SNAPSHOT_MARK}{IMAGE_MARK}]")
_MARKS: Final = {VolumeKind.SNAPSHOT: SNAPSHOT_MARK, VolumeKind.IMAGE: IMAGE_MARK}


def check_volume_name(name: str, kind: VolumeKind) -> str:
    """Return `name` if a volume of `kind` can have it, else raise RefusedError. Hidden ones are not looked at.

    A snapshot is SOURCE@NAME, an image SOURCE~NAME, where SOURCE is any volume's name, also a copy's; all others are
    plain names (`check_name`). At most VOLUME_NAME_LENGTH_MAX characters.
    """
    if kind.is_hidden:
        return name
    if len(name) > VOLUME_NAME_LENGTH_MAX:
        raise RefusedError(
            f"volume name {name[:80]!r}... is too long: at most {VOLUME_NAME_LENGTH_MAX} characters; copies of copies "
            "carry the names of all they were made from: choose shorter ones",
            what="volume",
        )
    mark = _MARKS.get(kind)
    if mark is None:
        return check_name(name, "volume")
    source, found, own = name.rpartition(mark)
    if not found:
        raise RefusedError(f"{kind.name} {name[:80]!r} is not named SOURCE{mark}NAME", what="volume")
    check_name(own, kind.name.lower())
    for part in source.replace(IMAGE_MARK, SNAPSHOT_MARK).split(SNAPSHOT_MARK):
        check_name(part, "volume")
    return name


def check_any_volume_name(name: str) -> str:
    """Return `name` if some volume can have it, whatever its kind, else raise RefusedError. For requests that name one."""
    if len(name) > VOLUME_NAME_LENGTH_MAX:
        raise RefusedError(
            f"volume name {name[:80]!r}... is too long: at most {VOLUME_NAME_LENGTH_MAX} characters",
            what="volume",
        )
    for part in _ANY_MARK.split(name):
        check_name(part, "volume")
    return name
