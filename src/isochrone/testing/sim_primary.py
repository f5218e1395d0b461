"""A simulated primary controller, and the applications that write to its volumes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from isochrone.capture.actions import CloseLink, SendDurably, SendMessage
from isochrone.capture.activity import Change
from isochrone.capture.links import PrimaryLinks
from isochrone.capture.primary import Primary
from isochrone.capture.settings import CaptureSettings
from isochrone.link.messages import Message
from isochrone.model.records import RecordKind
from isochrone.testing.events import MILLISECOND_NS, Events
from isochrone.testing.network import SimConnection
from isochrone.testing.node import Node
from isochrone.testing.sim_disk import SimDisk
from isochrone.testing.watch import PrimaryWatch


class PrimaryNode(Node):
    """The capture cores of the product on a simulated controller.

    Attributes:
        identity: its controller id.
        connections: open links by number.
        watch: looks at every tick, death and message.
    """

    def __init__(
        self,
        name: str,
        identity: str,
        events: Events,
        rng: Random,
        disk: SimDisk,
        settings: CaptureSettings,
        volume_count: int,
    ) -> None:
        super().__init__(name, events, rng, disk)
        self.volume_count = volume_count
        self.volume_names: list[str] = []
        self.identity = identity
        self.settings = settings
        self.primary: Primary
        self.links: PrimaryLinks
        self.connections: dict[int, SimConnection] = {}
        self.watch: PrimaryWatch | None = None
        self._next_link = 1
        self._is_activating = self._is_trimming = False

    def open_cores(self) -> None:
        """Restore what is captured here."""
        self._is_activating = self._is_trimming = False
        self.primary = Primary(self.pool, self.disk, self.events.now_ns, self.settings, self.events.now_ns())
        self.links = PrimaryLinks(
            self.primary,
            self.identity,
            self.name,
            self.pool.track_size_bytes,
            self._new_identity,
            refuse_volume=lambda _: "",
            is_mover_here=lambda _: False,
        )

    def _new_identity(self) -> str:
        return f"{self.rng.getrandbits(128):032x}"

    def close_cores(self) -> None:
        """Make the marks durable."""
        self.primary.close()

    def died(self) -> None:
        """Every link breaks."""
        if self.watch is not None:
            self.watch.died()
        for connection in list(self.connections.values()):
            connection.cut(f"{self.name} died")
        self.connections.clear()

    def tick_cores(self) -> None:
        """Copy, send, prune; then act."""
        for link, connection in self.connections.items():
            self.links.link_pending_bytes(link, connection.to_mover.pending_bytes)
        self.primary.tick()
        if self.watch is not None:
            self.watch.ticked()
        self.act()
        self._work_on_spill()
        self._trim()

    def _work_on_spill(self) -> None:
        """Run the spill's blocking calls, each after a delay, as a thread would."""
        job = self.primary.next_spill_job()
        if job is None:
            return

        def run() -> None:
            job.run()
            self.primary.spill_job_done(job)
            self.act()
            self._work_on_spill()

        self.after(self.rng.randrange(MILLISECOND_NS // 20, 8 * MILLISECOND_NS), run)

    # Durable marks

    def may_write(self, name: str, runs: list[tuple[int, int, RecordKind]]) -> bool:
        """Whether runs of tracks may be written now; what stands in the way is being seen to."""
        size = self.pool.track_size_bytes
        changes = [Change(track * size, count * size, kind is RecordKind.ZERO) for track, count, kind in runs]
        if self.primary.activities.ask(self.pool.volumes[name], changes):
            return True
        self.guarded(self._activate)()
        return False

    def _activate(self) -> None:
        if not self._is_activating:
            self._is_activating = True
            self.drive(self.primary.activities.activate(), self._activated)

    def _activated(self, _error: str) -> None:
        self._is_activating = False

    def _trim(self) -> None:
        activities = self.primary.activities
        if not self._is_trimming and activities.trim_is_due(self.events.now_ns()):
            self._is_trimming = True
            activities.begin_trim(self.events.now_ns())
            self.flush(self._trim_synced)

    def _trim_synced(self, error: str) -> None:
        self._is_trimming = False
        if not error:
            self.primary.activities.end_trim()

    def act(self) -> None:
        """Carry out what the core wants."""
        for action in self.primary.take_actions():
            match action:
                case SendMessage(link, message):
                    self._send(link, message)
                case SendDurably(link, message):
                    self.flush(self._sender(link, message))
                case CloseLink(link, reason):
                    # What was sent before leaves first.
                    self.after(self.rng.randrange(1, 5_000_000), self._closer(link, reason))

    def _send(self, link: int, message: Message) -> None:
        connection = self.connections.get(link)
        if self.watch is not None:
            self.watch.sending(link, message)
        if connection is not None and connection.is_open:
            connection.to_mover.send(message)

    def _sender(self, link: int, message: Message) -> Callable[[str], None]:
        def send(error: str) -> None:
            if not error:
                self._send(link, message)

        return send

    def _closer(self, link: int, reason: str) -> Callable[[], None]:
        def close() -> None:
            connection = self.connections.get(link)
            if connection is not None:
                connection.cut(reason)

        return close

    # Links

    def accept(self) -> tuple[int, Callable[[Message], None]]:
        """Open a link; returns its number and where the mover's messages go."""
        link = self._next_link
        self._next_link += 1

        def received(message: Message) -> None:
            self.guarded(lambda: self._received(link, message))()

        self.links.link_opened(link)
        return link, received

    def _received(self, link: int, message: Message) -> None:
        if self.watch is not None:
            self.watch.received(link, message)
        self.links.link_received(link, message)
        self.act()

    def link_cut(self, link: int) -> None:
        """The link is gone."""
        self.connections.pop(link, None)
        if self.is_up:
            self.guarded(lambda: self.links.link_lost(link))()
