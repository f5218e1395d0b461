"""When to stop: the first SIGTERM or SIGINT asks for a clean stop, the second for a quick one, a third kills."""

from __future__ import annotations

import asyncio
import signal
from typing import Final

import structlog

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)

_log = structlog.get_logger(__name__)


class StopRequests:
    """The stop signals of the process, while its event loop runs.

    Attributes:
        stop: set by the first signal.
        hurry: set by the second.
    """

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            self._loop.add_signal_handler(number, self._received, number)

    def _received(self, number: signal.Signals) -> None:
        if not self.stop.is_set():
            _log.info("stopping", signal=number.name)
            self.stop.set()
            return
        _log.info("stopping without waiting for clients", signal=number.name)
        self.hurry.set()
        for each in STOP_SIGNALS:
            self._loop.remove_signal_handler(each)
