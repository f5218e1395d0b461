"""Limits of a pool, and their relations."""

from __future__ import annotations

from typing import Final

VOLUME_COUNT_MAX: Final = 16384
"""Volumes of all kinds: 100 volumes with 150 copies each."""
TOGETHER_COUNT_MAX: Final = 4096
"""Volumes that are copied, or deleted, in one step."""
TABLE_PAGE_COUNT_MAX: Final = 1 << 24
"""Page numbers of all volumes together: 64 MiB of memory; 64 TiB of thin volumes at 4 KiB tracks."""
DOCUMENT_COUNT_MAX: Final = 16384
DOCUMENT_KEY_BYTES_MAX: Final = 256
DOCUMENT_BYTES_MAX: Final = 1 << 20
DOCUMENT_BYTES_TOTAL_MAX: Final = 64 << 20
SESSION_COUNT_MAX: Final = 4096
SOURCE_COUNT_MAX: Final = 1024
"""Sources (primary controllers) of one session."""
STAGED_RECORD_COUNT_MAX: Final = 1 << 22
"""Staged records of all sessions: 96 MiB of memory. Their tracks are bounded by the pool."""

# A track is counted once per volume, and once while it is staged: 15 bits (one of 16 is HELD) never overflow.
assert VOLUME_COUNT_MAX + 1 < 1 << 15
