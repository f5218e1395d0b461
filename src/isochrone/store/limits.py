"""Limits of a pool, and their relations."""

from __future__ import annotations

from typing import Final

VOLUME_COUNT_MAX: Final = 16384
"""Volumes of all kinds: 100 volumes with 150 copies each."""
TOGETHER_COUNT_MAX: Final = 4096
"""Volumes that are copied, or deleted, in one step."""
TABLE_PAGE_COUNT_MAX: Final = 1 << 26
"""Page numbers of all volumes together: 256 TiB of thin volumes at 4 KiB tracks. They take memory (4 bytes each, 256 MiB at
the most) where volumes are mapped."""
DOCUMENT_COUNT_MAX: Final = 16384
DOCUMENT_KEY_BYTES_MAX: Final = 256
DOCUMENT_BYTES_MAX: Final = 1 << 20
DOCUMENT_BYTES_TOTAL_MAX: Final = 64 << 20
SESSION_COUNT_MAX: Final = 4096
SOURCE_COUNT_MAX: Final = 1024
"""Sources (primary controllers) of one session."""
STAGED_RECORD_COUNT_MAX: Final = 1 << 22
"""Staged records of all sessions: 96 MiB of memory. Their tracks are bounded by the pool."""

EXTENT_COUNT_MAX: Final = 16384
"""Ranges copied onto a volume in one step: 192 KiB of the log."""
ESTABLISH_ENTRY_COUNT_MAX: Final = 1 << 24
"""Tracks whose pointers are copied one by one in one step (whole table pages are not): 64 GiB at 4 KiB tracks."""
REFERENCE_COUNT_MAX: Final = (1 << 15) - 1
"""References to one track or table page: 15 bits of its count, the last one is HELD."""
STAGED_REFERENCE_COUNT: Final = 2
"""References to a track beside those of volumes: while it is staged, and while a history keeps it."""

# Each volume refers to a track once, unless parts were copied more than once; the sum over all is checked then.
assert VOLUME_COUNT_MAX + STAGED_REFERENCE_COUNT <= REFERENCE_COUNT_MAX
