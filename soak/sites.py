"""Two sites of real controllers in network namespaces, one session between them, and what one may ask of it.

East has one controller or more, west one, whose tracks may lie on a device that fails on command. Applications reach
volumes by unix sockets; only the link crosses the network, so a cut never touches them.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isochrone.nbd.client import connect
from isochrone.testing.processes import (
    POLL_S,
    ControllerProcess,
    ProcessError,
    Settings,
    kill_together,
    wait_until,
)
from soak.vitals import Vitals
from support.faulty_device import FaultyDevice
from support.host_time import HostTimeReader
from support.network import Network, isolated
from support.programs import run

SESSION: Final = "soak"
WEST: Final = "west"
MIB: Final = 1 << 20
COMPARED_PIECE_BYTES: Final = MIB
SETTLE_S_MAX: Final = 120.0
CALM_LAG_MS: Final = 1000.0
BLOCKED_S_MAX: Final = 30.0
"""A trouble must be told by then: a peer's silence is noticed after five seconds, a dial given up after as many."""
RESUME_AFTER_S: Final = 15.0
"""A suspended session that has not begun again by itself by then is resumed by command: its back-off doubles with every
suspension, and a soak suspends it more often than a year of service."""
EXPLAIN_S_MAX: Final = 5.0
"""A session that suspended by itself must say by then what its automatic resume waits for."""
FENCE_S_MAX: Final = 60.0
SCRIBBLES: Final = 50
SCRIBBLE_BYTES: Final = 8192


class SoakError(AssertionError):
    """The session is not in the state that the documentation promises."""


@dataclass(frozen=True, slots=True)
class Place:
    """A replicated volume: its name is the same at both sites."""

    controller: ControllerProcess
    volume: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Settled:
    """How a session came to rest.

    Attributes:
        seconds: until it was DUPLEX, unblocked and near the present again.
        suspensions: reasons of the suspensions seen meanwhile.
        resumed_by_command: it did not begin again by itself.
    """

    seconds: float
    suspensions: tuple[str, ...]
    resumed_by_command: bool


class Sites:
    """The controllers of both sites and their session.

    Attributes:
        session_settings: of the next session that is created.

    Args:
        folder: in memory, with a short path.
        primaries: names of east's controllers, hosts of `network`, as is WEST.
        device: where west's tracks lie; in its pool's folder when None.
        settings: by controller, sections of a settings file.
        session_settings: as in the request that creates a session.
    """

    def __init__(
        self,
        folder: Path,
        network: Network,
        primaries: Sequence[str],
        *,
        pool_size_bytes: int,
        device: FaultyDevice | None = None,
        settings: Mapping[str, Settings] | None = None,
        session_settings: Mapping[str, object] | None = None,
    ) -> None:
        self.folder = folder
        self.network = network
        self.device = device
        self.places: list[Place] = []
        self.vitals = Vitals()
        self.session_settings = dict(session_settings or {})
        self._pool_size_bytes = pool_size_bytes
        self._copies = 0
        self._host_time: HostTimeReader | None = None
        self.east = tuple(self._make(name, (settings or {}).get(name, {})) for name in primaries)
        # To preallocate through FUSE is a call for every block.
        west_pool = {"tracks_path": str(device.path), "preallocate": False} if device else {}
        self.west = self._make(WEST, {"pool": west_pool})
        self._quarantined: list[ControllerProcess] = []

    def _make(self, name: str, settings: Settings) -> ControllerProcess:
        link = self.network.link_address(name)
        return ControllerProcess(
            self.folder / name,
            name,
            runtime_dir=self.folder / "run",
            pool_size=str(self._pool_size_bytes),
            settings={**settings, "link": {"listen": [link]}},
            link_address=link,
            command_prefix=self.network.command_prefix(name),
        )

    @property
    def controllers(self) -> tuple[ControllerProcess, ...]:
        """All of both sites."""
        return (*self.east, self.west)

    @property
    def logs(self) -> dict[str, list[str]]:
        """Log lines of every controller there ever was, by name."""
        return {
            str(controller.folder.name): controller.log_lines()
            for controller in (*self.controllers, *self._quarantined)
        }

    def start(self) -> None:
        """Start every controller."""
        for controller in self.controllers:
            controller.launch()
        for controller in self.controllers:
            controller.wait_ready()

    def kill(self) -> None:
        """Kill whatever runs."""
        kill_together([*self.controllers, *self._quarantined])

    def create_volume(self, controller: ControllerProcess, volume: str, size_bytes: int) -> Place:
        """Create a volume at a primary; it takes part in the next session."""
        controller.create_volume(volume, size_bytes)
        place = Place(controller, volume, size_bytes)
        self.places.append(place)
        return place

    def host_time_ns(self) -> int:
        """Return the present in host time; a controller must have been started."""
        if self._host_time is None:
            self._host_time = HostTimeReader(self.folder / "run")
        return self._host_time.now_ns()

    # The session

    def create_session(self) -> Settled:
        """Begin a session over all volumes; return when it is DUPLEX."""
        primaries = [{"name": c.name, "address": c.link_address} for c in self.east]
        pairs = [
            {"primary": p.controller.name, "primary_volume": p.volume, "secondary_volume": p.volume}
            for p in self.places
        ]
        request = {"name": SESSION, "primaries": primaries, "pairs": pairs, **self.session_settings}
        self.west.post("/v1/sessions", request)
        return self.settle()

    def report(self) -> dict[str, Any]:
        """Return the session as its mover reports it, and note the vitals of all controllers."""
        report: dict[str, Any] = self.west.get(f"/v1/sessions/{SESSION}")
        self.vitals.look(self.controllers, report)
        return report

    def suspend(self, reason: str, *, drain: bool = False) -> None:
        """Suspend by command: at once, or with everything that is acknowledged now."""
        self.west.post(f"/v1/sessions/{SESSION}/suspend", {"reason": reason, "drain": drain})

    def resume(self) -> None:
        """Resume by command."""
        self.west.post(f"/v1/sessions/{SESSION}/resume", {})

    def pass_time(self, seconds: float) -> None:
        """Let `seconds` go by, with an eye on the session if west answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._try_report()
            time.sleep(min(0.2, max(0.0, end - time.monotonic())))

    def settle(self, deadline_s: float = SETTLE_S_MAX) -> Settled:
        """Wait until every pair is DUPLEX, nothing blocks and C is near the present; resume if need be.

        Raises SoakError with what the session said last when it does not come to that.
        """
        began_s = time.monotonic()
        suspended_s: float | None = None
        suspensions: list[str] = []
        resumed = False
        while True:
            report = self._try_report()
            now_s = time.monotonic()
            if report and is_calm(report):
                return Settled(now_s - began_s, tuple(suspensions), resumed)
            if report and report["state"] == "SUSPENDED":
                suspended_s = suspended_s or now_s
                reason = str(report["suspended_reason"])
                if reason not in suspensions:
                    suspensions.append(reason)
                if now_s - suspended_s > EXPLAIN_S_MAX and not report["auto_resume"]:
                    raise SoakError(f"suspended, and not said what its resume waits for: {describe(report)}")
                if now_s - suspended_s > RESUME_AFTER_S:
                    self._resume_if_suspended()
                    resumed, suspended_s = True, None
            if now_s - began_s > deadline_s:
                raise SoakError(f"the session has not settled after {deadline_s:g} s: {describe(report)}")
            time.sleep(POLL_S)

    def wait_resync(self, deadline_s: float = SETTLE_S_MAX) -> None:
        """Wait until every link is up and the session ACTIVE, whatever is still to be copied; resume if need be."""
        end = time.monotonic() + deadline_s
        resume_at_s = time.monotonic() + RESUME_AFTER_S
        while True:
            report = self._try_report()
            now_s = time.monotonic()
            is_up = report is not None and all(source["link_state"] == "UP" for source in report["sources"])
            if report and is_up and report["state"] == "ACTIVE":
                return
            if is_up and now_s > resume_at_s:
                self._resume_if_suspended()
            if now_s > end:
                raise SoakError(f"the session has not begun again after {deadline_s:g} s: {describe(report)}")
            time.sleep(POLL_S)

    def _resume_if_suspended(self) -> None:
        with contextlib.suppress(ProcessError):  # it went on by itself in this moment
            self.resume()

    def wait_told(self, is_told: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait until the session says what is true; SoakError when it does not in time."""
        end = time.monotonic() + BLOCKED_S_MAX
        while True:
            report = self._try_report()
            if report and is_told(report):
                return report
            if time.monotonic() > end:
                raise SoakError(f"the session does not say that {what}: {describe(report)}")
            time.sleep(POLL_S)

    def _try_report(self) -> dict[str, Any] | None:
        if not self.west.is_running:
            return None
        try:
            return self.report()
        except ProcessError:
            return None

    def wait_committed(self, time_ns: int) -> None:
        """Return when the committed image has reached a host time."""

        def has_reached() -> bool:
            reached = self.report()["consistency"]["time_ns"]
            return reached is not None and reached >= time_ns

        wait_until(has_reached, f"C reaches {time_ns}", deadline_s=SETTLE_S_MAX)

    # Site loss

    def recover(self, controller: ControllerProcess | None = None) -> int:
        """Recover at west, or at a copy of it; return the recovered time, host time in ns."""
        controller = controller or self.west
        path = f"/v1/sessions/{SESSION}"
        controller.post(f"{path}/recover", {})
        wait_until(
            lambda: controller.get(path)["state"] == "ENDED", "the session is ENDED", deadline_s=SETTLE_S_MAX
        )
        recovered_ns: int = controller.get(path)["recovered"]["time_ns"]
        return recovered_ns

    def rebuild(self) -> Settled:
        """After a recovery, east is started again and replicated as from the beginning; its volumes are the truth."""
        self._start_fenced_east()
        for controller in (self.west, *self.east):
            controller.delete(f"/v1/sessions/{SESSION}")
        for place in self.places:
            self.west.delete(f"/v1/volumes/{place.volume}")
        return self.create_session()

    def give_back(self) -> Settled:
        """After a recovery, east is started again and replicated as before; what west wrote since is given up."""
        self._start_fenced_east()
        self.west.post(f"/v1/sessions/{SESSION}/resync", {"discard": "secondary"})
        return self.settle()

    def _start_fenced_east(self) -> None:
        for controller in self.east:
            controller.launch()
        for controller in self.east:
            controller.wait_ready()
        wait_until(self._is_fenced, "east is fenced", deadline_s=FENCE_S_MAX)

    def _is_fenced(self) -> bool:
        return all(
            capture["state"] == "ENDED"
            for controller in self.east
            for capture in controller.get("/v1/captures")
        )

    # Copies of west

    @contextlib.contextmanager
    def recovered_copy(self) -> Iterator[tuple[ControllerProcess, int]]:
        """SIGKILL west, copy its pool, start west again, and recover the copy.

        It reaches nobody: were it to meet west's primaries, they would be fenced.

        Yields:
            The controller that serves the copy, and the time it was recovered to.
        """
        self._copies += 1
        name = f"copy-{self._copies}"
        pool = self.folder / name / "pool"
        self.west.kill()
        pool.parent.mkdir()
        run("cp", "--recursive", "--sparse=always", self.folder / WEST / "pool", pool)
        binds = []
        if self.device:
            tracks = pool.parent / "tracks"
            run("cp", "--sparse=always", self.device.backing, tracks)
            binds.append((tracks, self.device.path))
        self.west.start()
        copy = ControllerProcess(
            self.folder / name,
            WEST,
            runtime_dir=self.folder / "run",
            pool_size=str(self._pool_size_bytes),
            command_prefix=isolated(binds=binds),
        )
        self._quarantined.append(copy)
        try:
            copy.start()
            yield copy, self.recover(copy)
        finally:
            copy.kill()
            shutil.rmtree(pool)
            (pool.parent / "tracks").unlink(missing_ok=True)

    # Images

    def image(self, controller: ControllerProcess, place: Place) -> bytes:
        """Return what `controller` serves of a volume."""
        with connect(controller.nbd_socket, place.volume) as client:
            return b"".join(
                client.read(offset, min(COMPARED_PIECE_BYTES, place.size_bytes - offset))
                for offset in range(0, place.size_bytes, COMPARED_PIECE_BYTES)
            )

    def scribble(self, draw: random.Random) -> int:
        """Overwrite some blocks of every volume at west, which is in service; return how many."""
        for place in self.places:
            with connect(self.west.nbd_socket, place.volume) as client:
                for _ in range(SCRIBBLES):
                    offset = draw.randrange(place.size_bytes // SCRIBBLE_BYTES) * SCRIBBLE_BYTES
                    client.write(offset, draw.randbytes(SCRIBBLE_BYTES))
        return SCRIBBLES * len(self.places)

    def compare(self) -> int:
        """Compare both sites byte for byte, nobody writing; return the bytes that were equal. Raises SoakError."""
        self.wait_committed(self.host_time_ns())
        for place in self.places:
            if self.image(place.controller, place) != self.image(self.west, place):
                raise SoakError(f"volume {place.volume} is not the same at both sites, and nobody writes")
        return sum(place.size_bytes for place in self.places)


def is_calm(report: dict[str, Any]) -> bool:
    """Whether everything is as in good times."""
    lag_ms = report["consistency"]["lag_ms"]
    duplex = all(pair["state"] == "DUPLEX" for pair in report["pairs"])
    return duplex and not report["blocked_on"] and lag_ms is not None and lag_ms < CALM_LAG_MS


def describe(report: dict[str, Any] | None) -> str:
    """Return what matters of a report, in a line."""
    if report is None:
        return "west does not answer"
    pairs = ", ".join(f"{pair['secondary_volume']} {pair['state']}" for pair in report["pairs"])
    return f"{report['state']}, blocked on {report['blocked_on']!r}, lag of C {report['consistency']['lag_ms']} ms, {pairs}"


def freeze(controller: ControllerProcess) -> None:
    """SIGSTOP: the process is silent, its connections stay up."""
    os.kill(controller.pid, signal.SIGSTOP)


def thaw(controller: ControllerProcess) -> None:
    """SIGCONT."""
    os.kill(controller.pid, signal.SIGCONT)
