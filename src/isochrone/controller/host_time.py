"""Host time: the one clock that stamps writes, the same for every controller of a host.

A wall clock that is stepped, or two controllers that read two clocks, would stamp write B before the write A
it
depends on, and a cut between the two would keep B without A. Host time is therefore::

    host time = CLOCK_MONOTONIC + offset

where the offset is agreed on once per boot: the first controller that needs it writes a file into the host's
runtime folder (`host_time_file`), named by the kernel's boot id; all others read it. CLOCK_MONOTONIC is one
clock for all processes of a host, is never stepped, and continues through a kill of any of them.

**Never again a time that was given out.** Within a boot that holds by itself. After a boot the offset is made
anew from the wall clock, which may have been set back meanwhile. So each pool carries a *stamp mark*: no
stamp later than it has been given out. It is moved ahead in reserves and made durable long before a reserve
is used up, never per write. After a boot a controller starts to stamp only when host time has passed the
mark; it waits for that a bounded time, and refuses to start beyond it. A clean stop sets the mark to the last
time, so that nothing waits after it.

The limit of it: when the pool's device completes no sync for the RENEW_AHEAD_NS that are left, stamps run
past the durable mark (a log line says so). They would be given out twice only if the machine then lost power
*and* came back with a clock that is behind. Holding writes instead would turn a slow device into an outage.

**Several hosts.** Their host times agree as well as their wall clocks did when each offset was made. With a
clock error configured, a controller compares host time with the wall clock and refuses to start when they
differ by more.

This module decides; it reads no clock and no file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from isochrone.model.errors import ConflictError, DamagedError, RefusedError

FORMAT_VERSION: Final = 1
SECOND_NS: Final = 1_000_000_000
RESERVE_NS: Final = 30 * SECOND_NS
"""How far ahead of host time a new stamp mark is set."""
RENEW_AHEAD_NS: Final = 20 * SECOND_NS
"""The mark is renewed when less than this is left of the reserve."""
START_WAIT_NS_MAX: Final = 60 * SECOND_NS
"""Longest wait at start for host time to pass the mark: more than RESERVE_NS, which a quick reboot costs."""
HOST_TIME_NS_MAX: Final = 1 << 62
"""Year 2116; a later time is a damaged file."""
CONTENT_BYTES_MAX: Final = 1024

assert RENEW_AHEAD_NS < RESERVE_NS < START_WAIT_NS_MAX


@dataclass(frozen=True, slots=True)
class HostTime:
    """The agreement of one boot: `host time = monotonic time + offset_ns`."""

    boot_id: str
    offset_ns: int

    def encode(self) -> bytes:
        """Return the content of the agreement's file."""
        values = {"version": FORMAT_VERSION, "boot_id": self.boot_id, "offset_ns": self.offset_ns}
        return (json.dumps(values) + "\n").encode()


@dataclass(frozen=True, slots=True)
class StampMark:
    """No stamp later than `through_ns` has been given out by this pool, under any host time.

    Attributes:
        host_time: the agreement in force when the mark was set.
    """

    host_time: HostTime
    through_ns: int

    def encode(self) -> bytes:
        """Return the pool document of the mark."""
        values = {
            "version": FORMAT_VERSION,
            "boot_id": self.host_time.boot_id,
            "offset_ns": self.host_time.offset_ns,
            "through_ns": self.through_ns,
        }
        return json.dumps(values).encode()


def propose_host_time(boot_id: str, monotonic_ns: int, wall_ns: int) -> HostTime:
    """Return the agreement that the first controller of a boot offers: host time starts at wall time."""
    return HostTime(boot_id, wall_ns - monotonic_ns)


def decode_host_time(content: bytes, *, boot_id: str, monotonic_ns: int, path: str) -> HostTime:
    """Return the agreement in `content`; RefusedError with the cure when it cannot be one of this boot."""
    values = _decode(content)
    offset_ns = values.get("offset_ns")
    if (
        values.get("version") != FORMAT_VERSION
        or values.get("boot_id") != boot_id
        or not isinstance(offset_ns, int)
        or isinstance(offset_ns, bool)
        or not 0 < offset_ns + monotonic_ns < HOST_TIME_NS_MAX
    ):
        raise RefusedError(
            f"{path} does not hold the host time of this boot; stop all controllers of this host, remove the "
            "file, and start them again",
            path=path,
        )
    return HostTime(boot_id, offset_ns)


def decode_mark(content: bytes) -> StampMark:
    """Return the stamp mark in a pool document. Raises DamagedError."""
    values = _decode(content)
    match values:
        case {
            "version": int(version),
            "boot_id": str(boot_id),
            "offset_ns": int(offset_ns),
            "through_ns": int(through_ns),
        } if version == FORMAT_VERSION and 0 <= through_ns < HOST_TIME_NS_MAX:
            return StampMark(HostTime(boot_id, offset_ns), through_ns)
    raise DamagedError("the pool's stamp mark is not readable; run `isochrone pool check`")


def start_wait_ns(mark: StampMark | None, host_time: HostTime, now_ns: int, *, path: str) -> int:
    """Return how long a pool with `mark` must wait before its first stamp; 0 in the boot that set the mark.

    Raises:
        ConflictError: longer than START_WAIT_NS_MAX. `path` names the agreement's file in the cure.
    """
    if mark is None or mark.host_time == host_time or now_ns > mark.through_ns:
        return 0
    wait_ns = mark.through_ns - now_ns + 1
    if wait_ns > START_WAIT_NS_MAX:
        raise ConflictError(
            f"host time is {format_time(now_ns)}, but this pool has stamped writes up to "
            f"{format_time(mark.through_ns)}: the clock was set back. Set the clock, stop all controllers "
            f"of this host, remove {path}, and start them again",
            now_ns=now_ns,
            through_ns=mark.through_ns,
        )
    return wait_ns


def check_clock_error(now_ns: int, wall_ns: int, clock_error_ns: int, *, path: str) -> None:
    """Refuse host time that differs from the wall clock by more than a configured clock error (0: any).

    Raises:
        ConflictError: the hosts' times would not be comparable.
    """
    difference_ns = abs(now_ns - wall_ns)
    if clock_error_ns and difference_ns > clock_error_ns:
        raise ConflictError(
            f"host time differs from the wall clock by {difference_ns / 1e6:.1f} ms, more than "
            f"controller.clock_error_ms = {clock_error_ns / 1e6:g}: the clock was set after the first "
            f"controller started. Stop every controller of this host, remove {path}, and start them again",
            difference_ns=difference_ns,
        )


class StampReserve:
    """When to move the stamp mark ahead, and to what. Times are host time in nanoseconds."""

    def __init__(self, host_time: HostTime) -> None:
        self._host_time = host_time
        self.durable_through_ns = 0
        """The durable mark; 0 before the first."""

    def is_due(self, now_ns: int) -> bool:
        """True when a new mark is to be made durable."""
        return self.durable_through_ns - now_ns < RENEW_AHEAD_NS

    def is_used_up(self, now_ns: int) -> bool:
        """True when stamps run past the durable mark: the device has not completed a sync in time."""
        return now_ns > self.durable_through_ns

    def next_mark(self, now_ns: int) -> StampMark:
        """Return the mark to make durable now."""
        return StampMark(self._host_time, now_ns + RESERVE_NS)

    def final_mark(self, now_ns: int) -> StampMark:
        """Return the mark of a clean stop: the caller stamps nothing after `now_ns`."""
        return StampMark(self._host_time, now_ns)

    def set_durable(self, mark: StampMark) -> None:
        """`mark` is durable now."""
        self.durable_through_ns = mark.through_ns


def format_time(time_ns: int) -> str:
    """Return host time for people: `2031-05-04 12:00:00.250 UTC`."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d} UTC"


def _decode(content: bytes) -> dict[str, object]:
    """Return the JSON object in `content`, {} when it is none."""
    if len(content) > CONTENT_BYTES_MAX:
        return {}
    try:
        values = json.loads(content)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
