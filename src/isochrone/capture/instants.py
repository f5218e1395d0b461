"""Named instants of one stream: told to the mover ahead of the promise that covers them, kept until they are hardened there.

An instant is a stamp like that of a write: what was acknowledged before it was named is earlier, what comes after is later.
It rests on the stream alone: a stream that ends before the instant is hardened has lost it, as it has lost the writes
around it, and whoever named it is told.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from isochrone.link.messages import NamedInstant
from isochrone.model.errors import BusyError
from isochrone.model.instants import check_instant_text

INSTANTS_WAITING_MAX: Final = 64
"""Of one session at one primary; more are refused until the mover has hardened some."""


class InstantState(StrEnum):
    """What became of a named instant.

    ::

        WAITING --J passes its time--> HARDENED
           +--the stream ends before--> LOST
    """

    WAITING = "WAITING"
    HARDENED = "HARDENED"
    """The mover has it durably, with every write up to it."""
    LOST = "LOST"
    """Writes around it are only marked now: no image of it can be made."""


class Instant:
    """One named instant, for whoever waits for it.

    Attributes:
        time_ns: host time.
        state: moves only away from WAITING.
    """

    __slots__ = ("is_told", "state", "text", "time_ns")

    def __init__(self, time_ns: int, text: str) -> None:
        self.time_ns = time_ns
        self.text = text
        self.state = InstantState.WAITING
        self.is_told = False


class Instants:
    """Those of one stream that are not hardened yet, in the order of their times.

    Args:
        stamp: draws the time of a new one.
        send: sends to the mover on the link that is open, ahead of everything that is promised later.
    """

    def __init__(self, stamp: Callable[[], int], send: Callable[[NamedInstant], None]) -> None:
        self._stamp = stamp
        self._send = send
        self._waiting: list[Instant] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def name(self, text: str, *, is_linked: bool) -> Instant:
        """Name the present. With `is_linked` the mover can be told at once, else it is when it has connected.

        Raises RefusedError for a text that no message carries, BusyError when too many wait.
        """
        check_instant_text(text)
        if len(self._waiting) >= INSTANTS_WAITING_MAX:
            raise BusyError(
                f"{INSTANTS_WAITING_MAX} named instants wait to be hardened at the mover: try again when its link is up"
            )
        instant = Instant(self._stamp(), text)
        self._waiting.append(instant)
        if is_linked:
            self.tell()
        return instant

    def forget_link(self) -> None:
        """On a new link all of them are to be told again."""
        for instant in self._waiting:
            instant.is_told = False

    def tell(self) -> None:
        """Tell the mover those that it has not been told on this link."""
        for instant in self._waiting:
            if not instant.is_told:
                instant.is_told = True
                self._send(NamedInstant(instant.time_ns, instant.text))

    def hardened(self, hardened_ns: int) -> None:
        """J has reached `hardened_ns`."""
        self._end([i for i in self._waiting if i.time_ns <= hardened_ns], InstantState.HARDENED)

    def lose(self, after_ns: int = 0) -> None:
        """The stream ends, or was cut at `after_ns`: nothing later will be promised."""
        self._end([i for i in self._waiting if i.time_ns > after_ns], InstantState.LOST)

    def _end(self, ended: list[Instant], state: InstantState) -> None:
        for instant in ended:
            instant.state = state
            self._waiting.remove(instant)
