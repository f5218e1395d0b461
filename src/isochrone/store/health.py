"""Whether a pool may still be written, and the one door for calls that make things durable.

A failed `fdatasync` means that nothing is known of what was written since the last good one, and a second
call would succeed without having stored it. So the first failure, wherever it happens, ends writing for good:
`Health` keeps the reason, and every later attempt is refused before it reaches the device. The next process
would not know, so the failure is also noted where that one finds it. Calls that were
handed to a thread and calls made inline take turns on a file, so that none can miss the failure of another.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock

from isochrone.model.errors import PoolReadOnlyError
from isochrone.store.disk import File


class Health:
    """Why a pool no longer takes writes; `reason` is None while it does."""

    __slots__ = ("_locks", "_note_failure", "reason")

    def __init__(self, note_failure: Callable[[], None]) -> None:
        """`note_failure` notes for the next process that a datasync failed; it is called in any thread."""
        self.reason: str | None = None
        self._note_failure = note_failure
        self._locks: dict[int, Lock] = {}

    def check(self) -> None:
        """Raise PoolReadOnlyError when the pool no longer takes writes."""
        if self.reason is not None:
            raise PoolReadOnlyError(
                f"the pool is read-only: {self.reason}; repair the device below, then restart the controller",
                reason=self.reason,
            )

    def fail(self, doing: str, error: BaseException) -> None:
        """Stop writing because `doing` failed with `error`. The first reason stays."""
        if self.reason is None:
            self.reason = f"{doing} failed: {error}"

    def run(self, doing: str, call: Callable[[], None]) -> None:
        """Run a `call` that stores something; its failure ends writing.

        Raises:
            PoolReadOnlyError: writing has ended before; `call` was not made.
            OSError: what `call` raised.
        """
        self.check()
        try:
            call()
        except Exception as error:
            self.fail(doing, error)
            raise

    def datasync(self, file: File, doing: str) -> None:
        """Make a file durable, one call at a time per file: the kernel tells of a failure only once.

        Raises:
            PoolReadOnlyError: writing has ended before; the file was not touched.
            OSError: what the file raised.
        """
        with self._locks.setdefault(id(file), Lock()):
            self.make_durable(doing, file.datasync)

    def make_durable(self, doing: str, call: Callable[[], None]) -> None:
        """Make a `call` that makes something durable, once; its failure is noted before anybody hears of it.

        Raises as `run` does.
        """
        self.run(doing, partial(self._noting_failure, call))

    def _noting_failure(self, call: Callable[[], None]) -> None:
        try:
            call()
        except OSError:
            self._note_failure()
            raise
