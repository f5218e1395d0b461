"""The commit gate: how far a session's committed image may move (promises 1 and 5)."""

from __future__ import annotations

from collections.abc import Iterable


def commit_limit_ns(journal_ns: int, hold_floor_ns: int | None) -> int:
    """Return the newest time that may be committed.

    Without a hold everything hardened is. While a resync holds, the image of the time before it stays in service: what
    came later has gaps until the last marked track's image is hardened.
    """
    return journal_ns if hold_floor_ns is None else min(journal_ns, hold_floor_ns)


def copies_are_hardened(journal_ns: int, copied_through_ns: Iterable[int]) -> bool:
    """Return whether every pair's last image is hardened; 0 stands for a pair whose images are still being read.

    Everything up to J is then one instant again, and the hold may be lifted in one step.
    """
    return all(0 < through_ns <= journal_ns for through_ns in copied_through_ns)
