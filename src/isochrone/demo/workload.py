"""The application of the demonstration: one chain of dependent writes over volumes of several controllers."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Sequence
from typing import Protocol

from isochrone.demo.chain import ChainLayout, make_block

NS_PER_MS = 1_000_000


class BlockWriter(Protocol):
    """What the chain needs of a volume; raises OSError or an error of model.errors once its server is gone."""

    def write(self, offset: int, data: bytes) -> None:
        """Return when the write is acknowledged."""


class ChainWriter(threading.Thread):
    """Writes 1, 2, 3, ... to `volumes`, each after the one before was acknowledged, until a volume is gone.

    Attributes:
        issued: the newest write that was sent.
        acknowledged: the newest write that was acknowledged; `issued - 1 <= acknowledged <= issued`.
    """

    def __init__(self, volumes: Sequence[BlockWriter], layout: ChainLayout) -> None:
        super().__init__(name="chain writer", daemon=True)
        self.issued = 0
        self.acknowledged = 0
        self.end: BaseException | None = None
        """What ended it; None while it runs."""
        self._volumes = volumes
        self._layout = layout
        self._acknowledged_ns = array("q")

    def run(self) -> None:
        """Write until a write fails; the thread's main function."""
        try:
            while True:
                number = self.issued + 1
                volume, offset = self._layout.place(number)
                block = make_block(number)
                self.issued = number
                self._volumes[volume].write(offset, block)
                self._acknowledged_ns.append(time.monotonic_ns())
                self.acknowledged = number
        except Exception as error:
            self.end = error

    def lost_ms(self, newest: int) -> float:
        """Return the milliseconds of acknowledged writes beyond `newest`: from its acknowledgement to the last."""
        if newest >= self.acknowledged or not self.acknowledged:
            return 0.0
        since = self._acknowledged_ns[max(0, newest - 1)]
        return (self._acknowledged_ns[self.acknowledged - 1] - since) / NS_PER_MS
