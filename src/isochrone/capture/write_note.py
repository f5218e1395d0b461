"""When an application last wrote to one volume of one session: what tells, after a split, who wrote since.

A note is 16 bytes of a change map's header page, in shared memory: it survives a kill as marks do. Between two ticks only
the first write touches it (one byte: "written since the time that stands here"); the tick then puts a time that no
acknowledged write exceeds. So a note is never too early, and too late by a tick; when a kill came in between, by as long
as the controller was away.
"""

from __future__ import annotations

import struct
from typing import Final

NOTE_OFFSET: Final = 64
"""Place of the note in the header page of a change map."""
NOTE_SIZE_BYTES: Final = 16
_TIME: Final = struct.Struct("<Q")
_DIRTY: Final = 8


class WriteNote:
    """The note of one change map.

    Args:
        view: its NOTE_SIZE_BYTES bytes in shared memory.
    """

    __slots__ = ("_view",)

    def __init__(self, view: memoryview) -> None:
        self._view = view

    @property
    def last_write_ns(self) -> int:
        """Time of the last write, 0 when there was none; exact once settled."""
        return int(_TIME.unpack_from(self._view)[0])

    @property
    def is_dirty(self) -> bool:
        """Whether something was written since the time was settled."""
        return bool(self._view[_DIRTY])

    def begin(self) -> None:
        """A write comes; the time follows."""
        self._view[_DIRTY] = 1

    def settle(self, now_ns: int) -> None:
        """Everything written so far has a time <= now_ns."""
        _TIME.pack_into(self._view, 0, now_ns)
        self._view[_DIRTY] = 0

    def release(self) -> None:
        """Let go of the shared memory."""
        self._view.release()
