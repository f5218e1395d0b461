"""Waiting for a session to reach a state, with a bar per pair while it copies."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final, Self

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from isochrone.cli.client import Client, path_of
from isochrone.cli.output import error_console, is_terminal
from isochrone.model.errors import ConflictError, RefusedError, UnavailableError
from isochrone.model.states import PairState, SessionState
from isochrone.report.models import LinkState, PairReport, SessionReport
from isochrone.report.times import duration_text

POLL_INTERVAL_S: Final = 0.2
BARS_MAX: Final = 16
"""With more pairs than this, one bar stands for all of them."""


class Outcome(StrEnum):
    """What one look at a session says about the wait."""

    REACHED = "reached"
    UNDER_WAY = "under way"
    IMPOSSIBLE = "impossible"


def look(session: SessionReport, goal: str) -> Outcome:
    """Return whether `session` has reached `goal`, or never will by itself.

    `goal` is "duplex", "suspended" or "ended"; RefusedError otherwise.
    """
    if goal == "ended":
        return Outcome.REACHED if session.state is SessionState.ENDED else Outcome.UNDER_WAY
    if session.state in (SessionState.ENDED, SessionState.RECOVERY):
        return Outcome.IMPOSSIBLE
    if goal == "suspended":
        return Outcome.REACHED if session.state is SessionState.SUSPENDED else Outcome.UNDER_WAY
    if goal == "duplex":
        if session.state is SessionState.SUSPENDED or _refusals(session):
            return Outcome.IMPOSSIBLE
        reached = all(pair.state is PairState.DUPLEX for pair in session.pairs)
        return Outcome.REACHED if reached else Outcome.UNDER_WAY
    raise RefusedError(f"a session cannot be waited on for {goal!r}: write duplex, suspended or ended")


def wait_for(client: Client, name: str, goal: str, timeout_s: float | None) -> SessionReport:
    """Poll session `name` until it reaches `goal`, drawing progress on standard error.

    Raises:
        ConflictError: it went into a state from which the goal cannot be reached by itself.
        UnavailableError: `timeout_s` passed, or the controller does not answer.
    """
    path = path_of("sessions", name, what="session")
    return _poll(lambda: SessionReport.model_validate(client.get(path)), goal, timeout_s, lambda: False)


def wait_for_recovery(client: Client, name: str, timeout_s: float | None) -> SessionReport:
    """Poll session `name` until its recovery ends it; ConflictError when the recovery was given up."""
    path = path_of("sessions", name, what="session")
    latest: list[SessionReport] = []

    def fetch() -> SessionReport:
        latest[:] = [SessionReport.model_validate(client.get(path))]
        return latest[0]

    def given_up() -> bool:
        running = latest[0].state in (SessionState.ACTIVE, SessionState.SUSPENDED)
        return running and latest[0].pending_command is None

    return _poll(fetch, "ended", timeout_s, given_up)


def _poll(
    fetch: Callable[[], SessionReport], goal: str, timeout_s: float | None, given_up: Callable[[], bool]
) -> SessionReport:
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    with _Bars() as bars:
        while True:
            session = fetch()
            bars.draw(session)
            outcome = look(session, goal)
            if outcome is Outcome.REACHED:
                return session
            if outcome is Outcome.IMPOSSIBLE or given_up():
                raise ConflictError(
                    f"session {session.name} is {session.state} and will not become {goal} by itself: "
                    f"{_why(session)}"
                )
            if deadline_s is not None and time.monotonic() >= deadline_s:
                raise UnavailableError(
                    f"session {session.name} is not {goal} after {timeout_s:g} s and goes on; "
                    f"it waits for: {session.blocked_on or session.pending_command or 'its copy to complete'}"
                )
            time.sleep(POLL_INTERVAL_S)


def _refusals(session: SessionReport) -> list[str]:
    """Return what somebody has said no to, and will again until a person acts."""
    pairs = [f"pair {pair.secondary_volume}: {pair.reason}" for pair in session.pairs if pair.refused]
    sources = [
        f"primary {source.name}: {source.last_error}"
        for source in session.sources
        if source.link_state is LinkState.REFUSED
    ]
    return pairs + sources


def _why(session: SessionReport) -> str:
    refusals = "; ".join(_refusals(session))
    return session.suspended_reason or refusals or session.blocked_on or "see isochrone session show"


class _Bars:
    """The progress of a session's pairs."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.percentage:>5.1f} %", markup=False),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            console=error_console(),
            transient=True,
            disable=not is_terminal(sys.stderr),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def draw(self, session: SessionReport) -> None:
        """Show where every pair stands."""
        if session.pending_command is not None or session.state is SessionState.RECOVERY:
            self._bar(session.name, 0, session.pending_command or session.state.value)
        elif len(session.pairs) > BARS_MAX:
            done = sum(_percent(pair) for pair in session.pairs) / len(session.pairs)
            duplex = sum(pair.state is PairState.DUPLEX for pair in session.pairs)
            self._bar(session.name, done, f"{duplex} of {len(session.pairs)} DUPLEX")
        else:
            for pair in session.pairs:
                self._bar(pair.secondary_volume, _percent(pair), _note(pair, session))

    def _bar(self, name: str, percent: float, note: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(Text(name).plain, total=100, note=note)
        self._progress.update(self._tasks[name], completed=percent, note=note)


def _percent(pair: PairReport) -> float:
    return pair.copied_percent or 0.0


def _note(pair: PairReport, session: SessionReport) -> str:
    if session.blocked_on is not None:
        return f"{pair.state}, blocked on {session.blocked_on}"
    if pair.estimate_s is not None:
        return f"{pair.state}, {duration_text(pair.estimate_s)} left"
    return pair.state.value
