"""What the demonstration shows while it runs: a live picture on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Final, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

LINE_INTERVAL_S: Final = 1.0
"""Between two lines where there is no terminal."""
HISTORY_LENGTH: Final = 60
_BARS: Final = "▁▂▃▄▅▆▇█"


class LiveView:
    """Shows the session and the workload; call `update` as often as there is news."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=10, transient=False)
        self._lags_ms: list[float] = []
        self._line_due = 0.0
        self._write_count = 0
        self._writes_per_s = 0.0
        self._counted_at = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def update(self, session: dict[str, Any], write_count: int) -> None:
        """Show a session's report and how many writes the application had acknowledged."""
        self._count(write_count)
        lag_ms = session["consistency"]["lag_ms"]
        if lag_ms is not None:
            self._lags_ms = [*self._lags_ms[1 - HISTORY_LENGTH :], lag_ms]
        if self._console.is_terminal:
            self._live.update(self._picture(session))
        elif time.monotonic() >= self._line_due:
            self._line_due = time.monotonic() + LINE_INTERVAL_S
            self._console.print(self._line(session))

    def _count(self, write_count: int) -> None:
        now = time.monotonic()
        if now - self._counted_at >= LINE_INTERVAL_S:
            self._writes_per_s = (write_count - self._write_count) / (now - self._counted_at)
            self._counted_at, self._write_count = now, write_count

    def _picture(self, session: dict[str, Any]) -> Table:
        picture = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
        picture.add_column(style="bold")
        picture.add_column()
        picture.add_row("session", f"{session['state']}, {self._writes_per_s:,.0f} dependent writes/s")
        for pair in session["pairs"]:
            picture.add_row(f"{pair['source']}:{pair['primary_volume']}", _pair_text(pair))
        for label, time_name in (("received", "form"), ("durable", "journal"), ("committed", "consistency")):
            picture.add_row(label, f"{_lag_text(session[time_name])} behind now")
        picture.add_row("lag", _sparkline(self._lags_ms))
        return picture

    def _line(self, session: dict[str, Any]) -> str:
        pairs = ", ".join(f"{pair['primary_volume']} {_pair_text(pair)}" for pair in session["pairs"])
        lag = _lag_text(session["consistency"])
        return f"  {session['state']}: {pairs}; lag {lag}; {self._writes_per_s:,.0f} dependent writes/s"


def _pair_text(pair: dict[str, Any]) -> str:
    percent = pair["copied_percent"]
    if pair["state"] == "COPY" and percent is not None:
        return f"COPY {percent:.0f} %"
    return str(pair["state"])


def _lag_text(point: dict[str, Any]) -> str:
    return "not measured yet" if point["lag_ms"] is None else f"{point['lag_ms']:.1f} ms"


def _sparkline(values: list[float]) -> str:
    if not values:
        return ""
    highest = max(values)
    bars = "".join(
        _BARS[int(value / highest * (len(_BARS) - 1))] if highest else _BARS[0] for value in values
    )
    return f"{bars} up to {highest:.0f} ms"
