"""What the controllers use, looked at often, and whether it grows without bound."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from isochrone.testing.processes import ControllerProcess

THREADS_MAX: Final = 32
FILES_MAX: Final = 128
"""Open files of one controller: the pool's, a few sockets, and the applications' connections."""
GROWTH_BYTES_MAX: Final = 96 << 20
"""How much more memory of its own a controller may have at rest late in a soak than early in it."""
CALM_LOOKS_MIN: Final = 8
"""Below it nothing is said of growth."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process used at one moment."""

    memory_bytes: int
    threads: int
    files: int


@dataclass(slots=True)
class Vitals:
    """Highest figures seen, and those of each quiet moment in order.

    Attributes:
        lag_ms_max: of C while nothing was said to block.
        highest, calm: by controller.
    """

    lag_ms_max: float = 0.0
    blocked_lag_ms_max: float = 0.0
    highest: dict[str, Usage] = field(default_factory=dict)
    calm: dict[str, list[Usage]] = field(default_factory=dict)

    def look(self, controllers: Iterable[ControllerProcess], report: dict[str, Any]) -> None:
        """Take the figures of a moment."""
        lag_ms = report["consistency"]["lag_ms"] or 0.0
        if report["blocked_on"]:
            self.blocked_lag_ms_max = max(self.blocked_lag_ms_max, lag_ms)
        else:
            self.lag_ms_max = max(self.lag_ms_max, lag_ms)
        for name, usage in _usages(controllers):
            past = self.highest.get(name, usage)
            self.highest[name] = Usage(
                max(past.memory_bytes, usage.memory_bytes),
                max(past.threads, usage.threads),
                max(past.files, usage.files),
            )

    def look_calm(self, controllers: Iterable[ControllerProcess]) -> None:
        """Take the figures of a moment in which everything is well."""
        for name, usage in _usages(controllers):
            self.calm.setdefault(name, []).append(usage)

    def faults(self) -> list[str]:
        """Return what is too much, or grows."""
        found = []
        for name, usage in self.highest.items():
            if usage.threads > THREADS_MAX:
                found.append(f"{name} had {usage.threads} threads, at most {THREADS_MAX} are expected")
            if usage.files > FILES_MAX:
                found.append(f"{name} had {usage.files} files open, at most {FILES_MAX} are expected")
        for name, looks in self.calm.items():
            if len(looks) >= CALM_LOOKS_MIN:
                quarter = len(looks) // 4
                early = max(usage.memory_bytes for usage in looks[quarter : 2 * quarter])
                late = min(usage.memory_bytes for usage in looks[-quarter:])
                if late - early > GROWTH_BYTES_MAX:
                    found.append(f"{name} grew at rest from {early >> 20} to {late >> 20} MiB")
        return found


def _usages(controllers: Iterable[ControllerProcess]) -> Iterable[tuple[str, Usage]]:
    for controller in controllers:
        if controller.is_running:
            with contextlib.suppress(OSError):  # it died in this moment
                yield controller.name, _usage(controller.pid)


def _usage(pid: int) -> Usage:
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    memory_bytes = int(fields.get("RssAnon", "0").split()[0]) * 1024
    return Usage(memory_bytes, int(fields["Threads"]), sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()))
