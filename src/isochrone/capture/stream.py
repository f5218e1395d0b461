"""One session at its primary: the volumes it captures, what is held for it, and what is sent to its mover."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from isochrone.capture.actions import Action, SendMessage
from isochrone.capture.backlog import Backlog
from isochrone.capture.captured_volume import CapturedVolume, copy_order
from isochrone.capture.comparing import Comparing, Suspects
from isochrone.capture.copy_pacer import CopyPacer
from isochrone.capture.cut import cut_batch, cut_batches
from isochrone.capture.delays import DelayTotals
from isochrone.capture.document import CaptureDocument, CaptureState
from isochrone.capture.instants import Instant, Instants
from isochrone.capture.pruning import Pruner
from isochrone.capture.selection import NEVER_NS, select_records
from isochrone.capture.settings import CaptureSettings
from isochrone.capture.side_file import SideFile
from isochrone.capture.stamper import Stamper
from isochrone.link.messages import (
    PROGRESS_VOLUMES_MAX,
    Ack,
    CaptureReport,
    Compared,
    CopyProgress,
    Message,
    RecordSet,
    StreamCut,
    Suspended,
    VolumeCopy,
    VolumeInfo,
)
from isochrone.model.errors import ConflictError
from isochrone.model.records import MIXED_VOLUMES, RecordBatch

COPY_STEPS_PER_TICK_MAX: Final = 4
"""Steps of the copier between two looks at application writes; queries of a comparison, likewise."""


class SessionStream:
    """The stream of one session from one primary. One owner, no I/O: calls change it, `actions` collects what to send.

    Attributes:
        incarnation: name of the unbroken stream in progress, "" when there is none.
        configure_number: of the newest Configure on this link.
        suspend_at_ns: when the stream is to end, 0 for never.
        cut_ns: the time at which it was cut, 0 while it is not: everything up to it is sent and held, later writes are
            only marked. See capture.cut.
        hardened_ns: the session's J as last acknowledged by the mover.
        link: number of the link to the mover, None when there is none.
        report_told, report_told_ns, report_looked_ns: the CaptureReport that the mover on this link has, when it was sent,
            and when the last look was taken whether to send another.
        delay_totals: what holding acknowledgements for it has cost the application.
        instants: named here and not hardened yet.
    """

    def __init__(
        self,
        document: CaptureDocument,
        side_file: SideFile,
        stamper: Stamper,
        settings: CaptureSettings,
        track_size_bytes: int,
        actions: list[Action],
    ) -> None:
        self.document = document
        self.backlog = Backlog(side_file)
        self.pruner = Pruner(self.backlog, stamper, settings, track_size_bytes)
        self.volumes: dict[int, CapturedVolume] = {}
        self.delay_totals = DelayTotals()
        self.instants = Instants(stamper.stamp, self.send)
        self.report_told: CaptureReport | None = None
        self.report_told_ns = 0
        self.report_looked_ns = 0
        self.incarnation = ""
        self.suspend_at_ns = 0
        self.configure_number = 0
        self.cut_ns = 0
        self._began_ns = 0
        self._unlinked_ns = 0
        self.hardened_ns = 0
        self.consistency_ns = 0
        self.link: int | None = None
        self.link_pending_bytes = 0
        self.sent_bytes = 0
        self.sent_through_ns = 0
        self._configured = False
        self._window_bytes = 0
        self._sequence = 0
        self._heartbeat_ns = 0
        self._progress_ns = 0
        self._progress_told: dict[int, VolumeCopy] = {}
        self._copy_pacer = CopyPacer()
        self._stamper = stamper
        self._comparing = Comparing(track_size_bytes)
        self._side_file = side_file
        self._settings = settings
        self._track_size_bytes = track_size_bytes
        self._actions = actions

    # State

    @property
    def state(self) -> CaptureState:
        """See CaptureState."""
        if self.document.ended:
            return CaptureState.ENDED
        if self.document.serving:
            return CaptureState.SERVING
        if self.document.suspended:
            return CaptureState.SUSPENDED
        return CaptureState.STREAMING if self.incarnation else CaptureState.MARKING

    @property
    def last_write_ns(self) -> int:
        """Time of the last application write to any of its volumes, 0 when there was none (see WriteNote)."""
        return max((c.change_map.note.last_write_ns for c in self.volumes.values()), default=0)

    @property
    def surely_kept_ns(self) -> int:
        """Everything up to here is hardened, and in any image that a recovery can go back to (see pruning)."""
        return min(self.hardened_ns, self.consistency_ns)

    @property
    def is_capturing(self) -> bool:
        """Whether writes that come now go into the stream."""
        return bool(self.incarnation) and not self.cut_ns

    @property
    def is_configured(self) -> bool:
        """Whether the mover on the link knows the volumes."""
        return self.link is not None and self._configured

    @property
    def is_copying(self) -> bool:
        """Whether images remain to be read of some volume."""
        return any(captured.copier for captured in self.volumes.values())

    def begin_incarnation(self, incarnation: str) -> None:
        """Begin a new unbroken stream: what was captured before is dropped, marked tracks are copied."""
        self.backlog.clear()
        self.instants.lose()
        self.incarnation = incarnation
        self._comparing.begin(incarnation)
        self._began_ns = self._stamper.promise()
        # A suspension that was pending earlier: the mover says so again if it still is.
        self.suspend_at_ns = 0
        self.cut_ns = 0
        for captured in self.volumes.values():
            if captured.suspended_ns:
                captured.stop_copy()
            else:
                self.start_copy(captured)
        self._progress_told.clear()

    def start_copy(self, captured: CapturedVolume) -> None:
        """Copy what is marked of one volume, within the present incarnation."""
        captured.start_copy(self._track_size_bytes, self._stamper.promise(), self.document.policy.compare)

    def end_incarnation(self) -> None:
        """Stop capturing; the marks are a superset of what the secondary lacks."""
        self.backlog.clear()
        self.instants.lose()
        self.incarnation = ""
        # Nothing is left that could be cut; the mover says so again if it still wants it.
        self.suspend_at_ns = 0
        self.cut_ns = 0
        for captured in self.volumes.values():
            captured.stop_copy()

    # Link

    def attach(self, link: int, received_through_ns: int) -> None:
        """The mover is on `link` now and has everything through `received_through_ns` of this incarnation.

        Nothing is sent before `configured`.
        """
        self.link = link
        self.backlog.rewind(received_through_ns)
        self.sent_through_ns = received_through_ns
        self.link_pending_bytes = 0
        self.backlog.ahead_bytes = 0
        self._configured = False
        self._window_bytes = 0
        self._sequence = 0
        self.sent_bytes = 0
        self._comparing.lost()
        self.instants.forget_link()
        self._progress_told.clear()
        self.configure_number = 0

    def detach(self) -> None:
        """The link is gone."""
        self.link = None
        self._unlinked_ns = self._stamper.promise()
        self._configured = False
        self.report_told = None
        self.backlog.ahead_bytes = 0
        self._comparing.lost()

    def configured(self) -> None:
        """The mover knows the volumes' numbers: record sets may flow."""
        self._configured = True
        self.backlog.ahead_bytes = self._settings.read_ahead_bytes
        self._progress_told.clear()

    def send(self, message: Message) -> None:
        """Send `message` if there is a link."""
        if self.link is not None:
            self._actions.append(SendMessage(self.link, message))

    def acknowledged(self, ack: Ack) -> None:
        """The mover has hardened through `ack.hardened_ns` and takes `ack.window_bytes` in all on this link."""
        self._window_bytes = max(self._window_bytes, ack.window_bytes)
        self.consistency_ns = max(self.consistency_ns, ack.consistency_ns)
        if ack.hardened_ns > self.hardened_ns:
            self.hardened_ns = ack.hardened_ns
            self.backlog.drop_hardened(ack.hardened_ns)
            if self.instants:
                self.instants.hardened(ack.hardened_ns)

    def told_suspended(self) -> None:
        """Tell the mover that nothing later than what was sent will come."""
        self.send(Suspended(self.document.reason, self.sent_through_ns, self.document.cause))

    @property
    def link_is_overdue(self) -> bool:
        """Whether a stream in progress has been without a link for longer than the session's time-out."""
        timeout_ns = self.document.policy.link_timeout_ns
        if not timeout_ns or self.link is not None or not self.is_capturing:
            return False
        return self._stamper.promise() - max(self._unlinked_ns, self._began_ns) > timeout_ns

    def name_instant(self, text: str) -> Instant:
        """Name the present, for images of exactly what has been written by now; called between batches.

        Raises ConflictError when nothing is captured now: no image of this moment will ever be made. RefusedError or
        BusyError: see Instants.
        """
        if not self.is_capturing:
            name, reason = self.document.session_name, self.document.reason
            state = (
                "cut, to be suspended" if self.cut_ns else f"{self.state}: {reason}" if reason else self.state
            )
            raise ConflictError(
                f"the stream of session {name!r} is {state}. What is written now is only marked, so no image of this "
                "moment can be made: try again when the session is ACTIVE and its pairs are DUPLEX",
                session=name,
            )
        return self.instants.name(text, is_linked=self.is_configured)

    # Volumes suspended by themselves

    def suspend_due_volumes(self) -> bool:
        """Suspend the volumes whose time has come; returns whether there were any. Called between batches.

        The mover is to hear of it before it hears a promise past that time: until then their pairs are DUPLEX.
        """
        asked = [c for c in self.volumes.values() if c.suspend_at_ns and not c.suspended_ns]
        if not asked or self.cut_ns:
            return False
        now_ns = self._stamper.promise()
        due = [captured for captured in asked if captured.suspend_at_ns <= now_ns]
        for captured in due:
            captured.suspend(max(captured.suspend_at_ns, self.sent_through_ns), now_ns)
        return bool(due)

    def tell_suspended_volumes(self) -> None:
        """Tell the mover which volumes are suspended by themselves; also while the session is."""
        if self.link is None or not self._configured:
            return
        suspended = [captured.progress() for captured in self.volumes.values() if captured.suspended_ns]
        for start in range(0, len(suspended), PROGRESS_VOLUMES_MAX):
            self.send(CopyProgress(suspended[start : start + PROGRESS_VOLUMES_MAX]))

    def resume_volume(self, captured: CapturedVolume) -> None:
        """Copy what was marked since the volume was suspended, with the session's next resume if its stream has ended."""
        captured.suspended_ns = 0
        captured.captured_from_ns = self._stamper.promise()
        if self.is_capturing:
            self.start_copy(captured)
        else:
            captured.stop_copy()  # the stream was cut, or is suspended: what the copy before it reached says nothing now

    # Cut

    def cut_if_due(self) -> bool:
        """End the stream if the time for it has come; returns whether it did. Called between batches."""
        asked_ns = self.suspend_at_ns
        if not self.is_capturing or asked_ns <= self._began_ns or self._stamper.promise() < asked_ns:
            return False
        # What was sent and promised already cannot be taken back; the mover's gate leaves it out of the image.
        self.cut_ns = max(asked_ns, self.sent_through_ns)
        self.instants.lose(after_ns=self.cut_ns)
        for captured in self.volumes.values():
            captured.cut(self.cut_ns)
        if self._configured:
            self.tell_cut()
        return True

    def tell_cut(self) -> None:
        """Tell the mover that the stream was cut, if it was."""
        if self.cut_ns:
            self.send(StreamCut(self.cut_ns))

    def _promise(self) -> int:
        """Return a time that everything captured or still to be captured for the mover exceeds, if nothing is unsent."""
        if self.cut_ns:
            return self.cut_ns
        through_ns = self._stamper.promise()
        return min(through_ns, self.suspend_at_ns) if self.suspend_at_ns > self._began_ns else through_ns

    # Work, called between application batches

    def copy(
        self, now_ns: int, enter: Callable[[SessionStream, RecordBatch], None], *, beside_writes: bool
    ) -> bool:
        """Put the next images into the stream, as far as policy and the copier's share of the side file allow.

        `enter` puts a batch into this session's stream; `beside_writes` says that applications write. Returns whether
        the copy of a volume has ended: its writes take another way from here on.
        """
        if not (self.is_capturing and self._configured):
            return False
        settings = self._settings
        steps, step_tracks = COPY_STEPS_PER_TICK_MAX, settings.copy_step_tracks_max
        if beside_writes:
            steps, step_tracks = 1, settings.copy_step_tracks_beside_writes_max
        for _ in range(steps):
            captured = self._next_to_copy()
            if captured is None or (copier := captured.copier) is None:
                break
            room_tracks = self._copy_room_tracks(now_ns, beside_writes=beside_writes)
            if room_tracks == 0:
                break
            batch = copier.step(self._stamper.stamp(), min(room_tracks, step_tracks))
            if batch is not None:
                self._copy_pacer.entered(now_ns, batch.size_bytes)
                enter(self, batch)
        copying = [captured for captured in self.volumes.values() if captured.copier]
        for captured in copying:
            batch = captured.copier.reread(self._stamper.stamp()) if captured.copier else None
            if batch is not None:
                enter(self, batch)
        suspects = [
            Suspects(captured.copier, captured.volume.number, captured.copy_began_ns)
            for captured in sorted(copying, key=copy_order)
            if captured.copier and captured.copy_began_ns <= self.sent_through_ns
        ]
        for query in self._comparing.queries(suspects, self._stamper.stamp, steps, step_tracks):
            self.send(query)
        done = [captured for captured in copying if captured.copier and captured.copier.remaining == 0]
        for captured in done:
            captured.end_copy(self._stamper.promise())
        return bool(done)

    def compared(self, answer: Compared) -> None:
        """The mover has compared. Raises ProtocolError when it answers what was not asked."""
        self._comparing.answered(answer)

    def _copy_room_tracks(self, now_ns: int, *, beside_writes: bool) -> int:
        """Return how many images may be added now."""
        settings, policy = self._settings, self.document.policy
        paced_bytes = self._copy_pacer.room_bytes(
            now_ns,
            rate_bytes_max=policy.copy_rate_bytes_max,
            share=policy.copy_share_percent / 100,
            unhardened_bytes=self.backlog.image_bytes,
            beside_writes=beside_writes,
        )
        room_bytes = min(
            settings.copy_share_bytes - self.backlog.image_bytes,
            settings.copy_stop_bytes - self._side_file.memory_bytes,
        )
        if room_bytes < self._track_size_bytes:
            return 0
        if paced_bytes is not None:
            room_bytes = min(room_bytes, paced_bytes)
        # The pacer counts in bytes: any room is room for one track, which it is then owed.
        return max(room_bytes // self._track_size_bytes, 1 if room_bytes else 0)

    def _next_to_copy(self) -> CapturedVolume | None:
        """Highest priority, then smallest remaining first: pairs become DUPLEX early, no big one holds back the small."""
        waiting = [c for c in self.volumes.values() if c.copier and c.copier.has_images]
        return min(waiting, key=copy_order, default=None)

    def send_records(self, now_ns: int) -> None:
        """Send what is captured as far as the window and the link take it, else a heartbeat when one is due."""
        if self.link is None or not self._configured or not self.incarnation:
            return
        while (
            self.backlog.unsent_bytes
            and self.sent_bytes < self._window_bytes
            and self.link_pending_bytes < self._settings.link_pending_bytes_max
        ):
            batches = self.backlog.take_unsent(self._settings.record_set_bytes_max)
            if not batches:  # the next records are on their way back from the spill
                break
            self._send_set(batches, now_ns)
        if now_ns - self._heartbeat_ns >= self._settings.heartbeat_interval_ns:
            self._send_set([], now_ns)

    def _send_set(self, batches: list[RecordBatch], now_ns: int) -> None:
        wanted = [part for batch in batches if (part := self._wanted_part(batch)) is not None]
        if self.cut_ns:
            wanted = cut_batches(wanted, self.sent_through_ns, self.cut_ns, self._track_size_bytes)
        headers = b"".join([batch.headers for batch in wanted])
        payload = b"".join([batch.payload for batch in wanted])
        # Only a stream with nothing left unsent may promise more than the records it has sent.
        if not self.backlog.unsent_bytes:
            through_ns = self._promise()
        else:
            through_ns = batches[-1].last_time_ns if batches else self.sent_through_ns
            through_ns = min(through_ns, self.cut_ns or through_ns)
        self._sequence += 1
        self.send(RecordSet(self._sequence, through_ns, headers, payload))
        size_bytes = len(headers) + len(payload)
        self.sent_bytes += size_bytes
        self.link_pending_bytes += size_bytes
        self.sent_through_ns = through_ns
        self._heartbeat_ns = now_ns

    def _wanted_part(self, batch: RecordBatch) -> RecordBatch | None:
        """Return what the mover is to have of `batch`, None for nothing.

        Volumes that have left the session may still stand in the backlog. The mover no longer knows them; if one has
        come back, its new secondary is copied from the present state, and older records would outlive what was zeroed
        while nobody captured it. Of records that went to the spill together, the mover may have received the first.
        """
        if batch.volume == MIXED_VOLUMES:
            spans_ns = {
                number: (captured.captured_from_ns, captured.suspended_ns or NEVER_NS)
                for number, captured in self.volumes.items()
            }
            return select_records(batch, spans_ns, self.sent_through_ns, self._track_size_bytes)
        captured = self.volumes.get(batch.volume)
        is_wanted = captured is not None and batch.first_time_ns > captured.captured_from_ns
        if captured is None or not is_wanted or batch.first_time_ns <= self.sent_through_ns:
            return None
        if captured.suspended_ns:
            return cut_batch(batch, self.sent_through_ns, captured.suspended_ns, self._track_size_bytes)
        return batch

    def send_progress(self, now_ns: int) -> None:
        """Tell the mover how far the copies are: at once when one is complete, else at intervals."""
        if self.link is None or not self._configured or not self.incarnation:
            return
        news = {number: captured.progress() for number, captured in self.volumes.items()}
        if news == self._progress_told:
            return
        told = self._progress_told
        finished = any(
            (v.copied_through_ns and not (n in told and told[n].copied_through_ns))
            or v.suspended_ns != (told[n].suspended_ns if n in told else 0)
            for n, v in news.items()
        )
        if not finished and now_ns - self._progress_ns < self._settings.progress_interval_ns:
            return
        changed = [volume for number, volume in news.items() if told.get(number) != volume]
        self._progress_told = news
        self._progress_ns = now_ns
        for start in range(0, len(changed), PROGRESS_VOLUMES_MAX):
            self.send(CopyProgress(changed[start : start + PROGRESS_VOLUMES_MAX]))

    def prune(self, now_ns: int, remember: Callable[[SessionStream], None]) -> None:
        """Clear marks that are proven hardened and start new generations (S3, see pruning).

        `remember` persists `document.hardened_record_ns` before the first mark is cleared on its strength.
        """
        if self.incarnation:
            self.pruner.work(self.volumes, self.surely_kept_ns, now_ns, lambda: remember(self))

    def volume_infos(self) -> list[VolumeInfo]:
        """Return the captured volumes as told to the mover."""
        return [
            VolumeInfo(
                captured.volume.name,
                number,
                captured.volume.size_bytes,
                captured.tracks_remaining,
                captured.suspended_ns,
            )
            for number, captured in sorted(self.volumes.items())
        ]
