"""The commit gate: how far a session's committed image may move (promises 1 and 5)."""

from __future__ import annotations

from collections.abc import Iterable


def commit_limit_ns(
    journal_ns: int, hold_floor_ns: int | None, suspend_at_ns: int = 0, waiting_ns: int | None = None
) -> int:
    """Return the newest time that may be committed.

    Without a reason to hold everything hardened is. While a resync holds, the image of the time before it stays in
    service: what came later has gaps until the last marked track's image is hardened. While a suspension is pending
    (`suspend_at_ns`, 0 when none is), nothing past its time is committed, so that the image stops exactly there. And no
    image reaches `waiting_ns`, the time of the oldest record that the device has not taken yet (S6): J does not either,
    but here it is looked at once more.
    """
    limit_ns = journal_ns if hold_floor_ns is None else min(journal_ns, hold_floor_ns)
    limit_ns = min(limit_ns, suspend_at_ns) if suspend_at_ns else limit_ns
    return limit_ns if waiting_ns is None else min(limit_ns, waiting_ns - 1)


def copies_are_hardened(limit_ns: int, copied_through_ns: Iterable[int]) -> bool:
    """Return whether every pair's last image may be committed; 0 stands for a pair whose images are still being read.

    `limit_ns` is the commit limit as it would be without the hold. Everything up to it is then one instant again, and the
    hold may be lifted in one step. (An image that is hardened but later than the limit would be missing there.)
    """
    return all(0 < through_ns <= limit_ns for through_ns in copied_through_ns)
