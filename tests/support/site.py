"""Real controllers for a test, cleaned up and their logs judged at its end."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isochrone.testing.processes import ControllerProcess, Settings, kill_together, wait_until
from support.host_time import HostTimeReader
from support.logs import unexpected_lines

SESSION_S_MAX: Final = 60.0
LOG_LINES_SHOWN: Final = 60
"""Of each controller, in the report of a test that fails."""
_SCRATCH: Final = Path("/dev/shm")
"""Memory, where there is some: a killed process loses nothing there either, and it is quick."""
_SCRATCH_FREE_BYTES_MIN: Final = 4 << 30


class Site:
    """The controllers of one test, all on one host time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime_dir = folder / "run"
        self._controllers: list[ControllerProcess] = []
        self._expected: list[str] = []

    def controllers(self, *names: str) -> list[ControllerProcess]:
        """Return running controllers that came up side by side."""
        made = [self._make(name) for name in names]
        for controller in made:
            controller.launch()
        for controller in made:
            controller.wait_ready()
        return made

    def controller(
        self, name: str, *, pool_size: str = "1GiB", settings: Settings | None = None
    ) -> ControllerProcess:
        """Return a running controller `name` with an empty pool."""
        controller = self._make(name, pool_size=pool_size, settings=settings)
        controller.start()
        return controller

    def expect_log(self, pattern: str) -> None:
        """Allow log lines that match a regular expression; any other WARN or ERROR fails the test."""
        self._expected.append(pattern)

    def host_time(self) -> HostTimeReader:
        """Return the host time of these controllers; one of them must have been started."""
        return HostTimeReader(self.runtime_dir)

    def finish(self) -> None:
        """Kill what still runs, print the ends of the logs, fail on lines in them that were not expected."""
        kill_together(self._controllers)
        for controller in self._controllers:
            print(controller.tail(LOG_LINES_SHOWN))
        bad = {
            controller.name: lines
            for controller in self._controllers
            if (lines := unexpected_lines(controller.log_lines(), self._expected))
        }
        said = "\n".join(f"{name}: {line}" for name, lines in bad.items() for line in lines[:20])
        assert not bad, f"log lines that the test did not expect:\n{said}"

    def _make(
        self, name: str, *, pool_size: str = "1GiB", settings: Settings | None = None
    ) -> ControllerProcess:
        controller = ControllerProcess(
            self.folder / name,
            name,
            runtime_dir=self.runtime_dir,
            pool_size=pool_size,
            settings=settings,
        )
        self._controllers.append(controller)
        return controller


@contextlib.contextmanager
def running_site() -> Iterator[Site]:
    """A site in a folder with a short name (socket paths are limited), removed at the end."""
    base = _SCRATCH if _SCRATCH.is_dir() and _has_room(_SCRATCH) else None
    folder = Path(tempfile.mkdtemp(prefix="iso-", dir=base))
    site = Site(folder)
    try:
        yield site
    finally:
        try:
            site.finish()
        finally:
            shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class Replica:
    """A running session from the `primaries` to `secondary`; every pair has one name at both ends."""

    session: str
    primaries: tuple[ControllerProcess, ...]
    secondary: ControllerProcess

    def report(self) -> dict[str, Any]:
        """Return the session as its mover sees it."""
        report: dict[str, Any] = self.secondary.get(f"/v1/sessions/{self.session}")
        return report

    def wait_duplex(self) -> None:
        """Return when every pair is DUPLEX."""
        wait_until(self._is_duplex, f"session {self.session} is DUPLEX", deadline_s=SESSION_S_MAX)

    def lose_primaries(self) -> None:
        """SIGKILL all primaries at once."""
        kill_together(self.primaries)

    def recover(self, *, drain: bool = False) -> int:
        """Recover the session at the secondary; return the recovered time, host time in ns.

        Args:
            drain: a planned switchover: the primaries must be there.
        """
        path = f"/v1/sessions/{self.session}"
        self.secondary.post(f"{path}/recover", {"drain": drain})
        wait_until(
            lambda: self.report()["state"] == "ENDED", "the session is ENDED", deadline_s=SESSION_S_MAX
        )
        recovered_ns = self.report()["recovered"]["time_ns"]
        assert isinstance(recovered_ns, int)
        return recovered_ns

    def _is_duplex(self) -> bool:
        return all(pair["state"] == "DUPLEX" for pair in self.report()["pairs"])


def replicate(
    session: str,
    volumes: list[tuple[ControllerProcess, str]],
    secondary: ControllerProcess,
    **settings: object,
) -> Replica:
    """Create a session whose secondaries have their primaries' names; return when it is DUPLEX.

    Args:
        settings: of the session, as in the request that creates it.
    """
    primaries = tuple({controller.name: controller for controller, _ in volumes}.values())
    pairs = [
        {"primary": controller.name, "primary_volume": volume, "secondary_volume": volume}
        for controller, volume in volumes
    ]
    addresses = [{"name": primary.name, "address": primary.link_address} for primary in primaries]
    secondary.post("/v1/sessions", {"name": session, "primaries": addresses, "pairs": pairs, **settings})
    replica = Replica(session, primaries, secondary)
    replica.wait_duplex()
    return replica


def _has_room(folder: Path) -> bool:
    return shutil.disk_usage(folder).free >= _SCRATCH_FREE_BYTES_MIN
