"""The primary side of one controller: application writes in, ordered streams out.

This is the only door through which application writes reach a replicated volume, so the order that the promises rest on
stands here, in `Primary.write`, and nowhere else:

    make their regions durably active                  where a session's marks are to survive power loss
    mark the tracks in every session's change map      before the volume is touched
    write the volume
    stamp, and append to the batch                     before the write is acknowledged

All of it runs in one thread without a break; a promise (heartbeat) is given only between batches, when every stamped
write is in the stream. `end_batch` seals what one wake-up of one connection brought into one batch shared by all
sessions, and says how long its acknowledgements are held.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from isochrone.capture.actions import Action, CloseLink, ReleaseHeld
from isochrone.capture.activity import Activities
from isochrone.capture.backlog import Backlog
from isochrone.capture.capture_reports import CaptureReporter
from isochrone.capture.captured_volume import CapturedVolume
from isochrone.capture.copy_pacer import APPLICATION_QUIET_NS
from isochrone.capture.document import DOCUMENT_PREFIX, CaptureDocument, CaptureState, load_document
from isochrone.capture.forecast import FillForecast
from isochrone.capture.mark_files import MarkFiles
from isochrone.capture.pending_batch import PendingBatch
from isochrone.capture.route import Route, build_routes, durable_marks
from isochrone.capture.settings import CaptureSettings
from isochrone.capture.side_file import open_side_file
from isochrone.capture.spill import SpillJob
from isochrone.capture.stamper import Stamper
from isochrone.capture.stream import SessionStream
from isochrone.capture.throttle import Throttle
from isochrone.link.messages import CaptureReport, WantedVolume, cut_text
from isochrone.model.errors import ConflictError, NotFoundError
from isochrone.model.records import RECORD_STRUCT, RecordBatch, RecordKind
from isochrone.model.states import SuspendCause
from isochrone.store.disk import Buffer, Disk
from isochrone.store.pool import Pool
from isochrone.store.track_errors import TrackReadError
from isochrone.store.volume import Volume

_PACK = RECORD_STRUCT.pack
_DATA = int(RecordKind.DATA)
_ZERO = int(RecordKind.ZERO)


class Primary:
    """See the module's essay. Sessions are told apart by id; links by the number the shell gives them.

    Args:
        disk: the pool's folder, where change maps live.
        clock: host time in nanoseconds.
        stamp_floor_ns: high-water mark of earlier stamps.
        spill_disk: the folder of the spill, where it is not `disk`.

    Attributes:
        distrusted: by session, the volumes whose marks could not be believed at the start and are marked whole.
    """

    def __init__(
        self,
        pool: Pool,
        disk: Disk,
        clock: Callable[[], int],
        settings: CaptureSettings,
        stamp_floor_ns: int,
        spill_disk: Disk | None = None,
    ) -> None:
        self.settings = settings
        self.side_file = open_side_file(settings, disk, spill_disk or disk)
        self.throttle = Throttle(self.side_file)
        self.forecast = FillForecast()
        self._reporter = CaptureReporter(self.side_file, self.throttle, self.forecast)
        self.streams: dict[str, SessionStream] = {}
        self.stamper = Stamper(clock, stamp_floor_ns)
        self.actions: list[Action] = []
        self._pool = pool
        self._clock = clock
        self._track_size_bytes = pool.track_size_bytes
        self.activities = Activities(settings, pool.track_size_bytes)
        self._files = MarkFiles(pool, disk, settings)
        self._routes: dict[int, Route] = {}
        self._noted: list[Route] = []
        self._pending = PendingBatch()
        self._written_ns = (
            -APPLICATION_QUIET_NS
        )  # of an application write that a session captured or left out
        self._restore()

    def _restore(self) -> None:
        """Take up every session the pool remembers, marking from the first write on."""
        for key, value in self._pool.documents.items():
            if key.startswith(DOCUMENT_PREFIX):
                stream = self.add_stream(load_document(key, value))
                self.stamper.raise_floor(stream.document.stamps_after_ns)
                for number in stream.document.volumes:
                    captured = self._open_captured(stream, stream.document, number)
                    if captured.change_map.note.is_dirty or captured.change_map.was_suspected:
                        captured.change_map.note.settle(self.stamper.promise())
        self._pool.settle_loss()
        self.distrusted = {
            stream.document.session_name: volumes
            for stream in self.streams.values()
            if (volumes := {c.volume.name: c.suspicion for c in stream.volumes.values() if c.suspicion})
        }
        self._files.remove_orphans([stream.document for stream in self.streams.values()])
        self.rebuild_routes()

    def now_ns(self) -> int:
        """Return host time."""
        return self._clock()

    def close(self) -> None:
        """Make the marks durable at a clean stop, after the last write and before the pool is closed. Raises OSError.

        What was captured is given up; no job of the spill may be under way.
        """
        if self.side_file.spill is not None:
            self.side_file.spill.close()
        self.settle_notes()
        for stream in self.streams.values():
            for captured in stream.volumes.values():
                captured.change_map.close_durably()
                if captured.activity is not None:
                    captured.activity.close()

    # Application writes: the hot path

    def write(self, volume: Volume, offset: int, data: Buffer) -> None:
        """Write `data` at `offset` of `volume`, marked and captured.

        Raises ConflictError (writes are refused now), PoolFullError, PoolReadOnlyError or OSError; then nothing is
        captured, and what the volume holds is marked if it may have changed.
        """
        route = self._routes.get(volume.number)
        if route is None:
            volume.write(offset, data)
            return
        if route.refusal:
            raise ConflictError(route.refusal, volume=volume.name)
        size = self._track_size_bytes
        track = offset // size
        track_count = (offset + len(data) - 1) // size - track + 1
        if route.activities:
            for activity in route.activities:
                activity.enter(track, track_count)
        if not route.is_noted:
            self._note(route)
        for change_map in route.maps:
            change_map.mark(track, track_count)
        try:
            track, track_count, image = volume.write(offset, data)
        except TrackReadError:  # nothing was changed: it is the application's error alone
            raise
        except OSError:
            self._write_failed(route, volume, [(track, track_count)])
            raise
        if route.copiers:
            self._capture_beside_copy(route, volume.number, [(track, track_count, image)], [])
        elif route.backlogs:
            pending = self._pending
            if pending.volume != volume.number:
                self._seal()
                pending.volume = volume.number
                pending.backlogs = route.backlogs
            pending.last_time_ns = stamp_ns = self.stamper.stamp()
            pending.headers.append(_PACK(stamp_ns, volume.number, track, track_count, _DATA))
            pending.payload.append(image)
            if len(pending.headers) == 1:
                pending.first_time_ns = stamp_ns

    def zero(self, volume: Volume, offset: int, length: int, *, allocate: bool) -> None:
        """Make a range of `volume` read as zeros (TRIM, WRITE_ZEROES), marked and captured. Raises as `write`."""
        route = self._routes.get(volume.number)
        if route is None:
            volume.zero(offset, length, allocate=allocate)
            return
        if route.refusal:
            raise ConflictError(route.refusal, volume=volume.name)
        size = self._track_size_bytes
        touched = [
            (start // size, (start + run_length - 1) // size - start // size + 1)
            for start, run_length, mapped in volume.mapped_runs(offset, length)
            if mapped
        ]
        if touched and not route.is_noted:
            self._note(route)
        for track, track_count in touched:
            for activity in route.activities:
                activity.enter(track, track_count)
            for change_map in route.maps:
                change_map.mark(track, track_count)
        try:
            result = volume.zero(offset, length, allocate=allocate)
        except TrackReadError:
            raise
        except OSError:
            self._write_failed(route, volume, touched)
            raise
        if not route.backlogs:
            return
        self._capture_beside_copy(route, volume.number, list(result.edges), list(result.runs))

    def end_batch(self, volume_number: int, write_count: int = 1) -> int:
        """Seal the batch of `write_count` writes to a volume, and return the nanoseconds to hold their replies: usually 0.

        Where it is more, `room_wait_ns` says whether they wait for room besides. After it, the pointer log is written: an
        acknowledged write survives a kill of the process.
        """
        if self._pending.headers:
            self._seal()
        self._pool.log_write()
        if self.side_file.is_full:
            self._meet_limit()
        hold_ns = self.settings.clock_error_ns
        if self.side_file.used_bytes > self.throttle.from_bytes:
            route = self._routes.get(volume_number)
            if route is not None:
                hold_ns = max(hold_ns, self.throttle.hold_ns(route, write_count, self._clock()))
        return hold_ns

    def room_wait_ns(self, volume_number: int, write_count: int = 1) -> int:
        """Return how long, at most, replies to the batch just ended wait for room; 0 when they do not.

        ReleaseHeld ends the wait of all.
        """
        route = self._routes.get(volume_number)
        return self.throttle.wait_ns(route, write_count, self._clock()) if route else 0

    def _note(self, route: Route) -> None:
        """The first write of a volume since the last tick."""
        route.is_noted = True
        self._noted.append(route)
        for change_map in route.maps:
            change_map.note.begin()

    def settle_notes(self) -> None:
        """Put the time of what was written since the last tick into the notes, before anything later is promised."""
        if self._noted:
            now_ns = self.stamper.promise()
            for route in self._noted:
                route.is_noted = False
                for change_map in route.maps:
                    change_map.note.settle(now_ns)
            self._noted.clear()

    def _seal(self) -> None:
        pending = self._pending
        if pending.headers:
            self.side_file.enter(pending.take(), pending.backlogs)
        pending.volume = -1

    def _capture_beside_copy(
        self,
        route: Route,
        volume: int,
        data_runs: list[tuple[int, int, Buffer]],
        zero_runs: list[tuple[int, int]],
    ) -> None:
        """Capture one write, at one time, leaving out for each session the tracks whose image is still to come."""
        self._seal()
        if not data_runs and not zero_runs:
            return
        self._written_ns = stamp_ns = self.stamper.stamp()
        copiers = dict(route.copiers)
        for backlog in route.backlogs:
            copier = copiers.get(backlog)
            headers: list[bytes] = []
            payload: list[Buffer] = []
            for first, count, image in data_runs:
                for track, track_count in copier.sendable_runs(first, count) if copier else [(first, count)]:
                    headers.append(_PACK(stamp_ns, volume, track, track_count, _DATA))
                    start = (track - first) * self._track_size_bytes
                    payload.append(memoryview(image)[start : start + track_count * self._track_size_bytes])
            for first, count in zero_runs:
                for track, track_count in copier.sendable_runs(first, count) if copier else [(first, count)]:
                    headers.append(_PACK(stamp_ns, volume, track, track_count, _ZERO))
            if headers:
                batch = RecordBatch(
                    volume, stamp_ns, stamp_ns, len(headers), b"".join(headers), b"".join(payload)
                )
                self.side_file.enter(batch, (backlog,))

    def _write_failed(self, route: Route, volume: Volume, runs: list[tuple[int, int]]) -> None:
        """Capture what the volume holds after a write that failed, perhaps half-way.

        The secondary must not keep the old content when readers here see the new one; where even reading fails, nobody
        knows what to send, and the sessions suspend with the tracks marked.
        """
        size = self._track_size_bytes
        try:
            images: list[tuple[int, int, Buffer]] = [
                (track, count, volume.read(track * size, count * size)) for track, count in runs
            ]
        except OSError as error:
            for stream in route.streams:
                self.suspend(
                    stream, f"volume {volume.name}: a write failed and the track cannot be read: {error}"
                )
        else:
            self._capture_beside_copy(route, volume.number, images, [])

    # Work between batches

    def tick(self) -> None:
        """Copy, send, promise, prune. Called every few milliseconds, and soon after many bytes were captured."""
        self._seal()
        self.settle_notes()
        now_ns = self._clock()
        beside_writes = now_ns - self._written_ns < APPLICATION_QUIET_NS
        self.side_file.spill_excess(self._backlogs(), now_ns)
        self.forecast.sample(self.side_file.used_bytes, now_ns)
        if self.throttle.until_ns is not None:
            self._meet_limit()
        routes_changed = False
        for stream in self.streams.values():
            if stream.link_is_overdue:
                timeout_s = stream.document.policy.link_timeout_ns / 1e9
                self.suspend(
                    stream, f"the mover has not been connected for {timeout_s:g} s", SuspendCause.LINK
                )
            routes_changed |= stream.copy(now_ns, self._enter, beside_writes=beside_writes)
            routes_changed |= stream.cut_if_due()
            if stream.suspend_due_volumes():
                self._remember_volumes(stream)
                stream.tell_suspended_volumes()
                routes_changed = True
            stream.send_records(now_ns)
            stream.send_progress(now_ns)
            self._reporter.work(stream, now_ns)
        if routes_changed:
            self.rebuild_routes()
        self._pool.log_write()
        # Last, because it writes documents: where the pool takes none any more, what was captured still leaves.
        for stream in self.streams.values():
            stream.prune(now_ns, self._remember_hardened)

    def next_spill_job(self) -> SpillJob | None:
        """Return blocking calls to be made in a thread; None when there are none, or some are under way."""
        spill = self.side_file.spill
        return spill.next_job() if spill else None

    def spill_job_done(self, job: SpillJob) -> None:
        """Take the outcome of a job of the spill in; sessions that have lost captured records suspend."""
        self._seal()
        for entry in self.side_file.finished(job, self._backlogs(), self._clock()):
            for stream in self.streams.values():
                if entry in stream.backlog:
                    self.suspend(stream, entry.loss)

    def capture_report(self, stream: SessionStream) -> CaptureReport:
        """Return what is to be said now of the side file and of delays, for one session."""
        return self._reporter.report(stream, self._clock())

    def _backlogs(self) -> list[Backlog]:
        return [stream.backlog for stream in self.streams.values()]

    def _enter(self, stream: SessionStream, batch: RecordBatch) -> None:
        self.side_file.enter(batch, (stream.backlog,), is_image=True)

    def _remember_hardened(self, stream: SessionStream) -> None:
        hardened_record_ns = max(stream.document.hardened_record_ns, stream.backlog.dropped_through_ns)
        if hardened_record_ns != stream.document.hardened_record_ns:
            self.remember(stream, stream.document.changed(hardened_record_ns=hardened_record_ns))

    @property
    def unsent_bytes(self) -> int:
        """Captured bytes not yet sent, of the fullest stream: the shell ticks early when it grows."""
        return max((stream.backlog.unsent_bytes for stream in self.streams.values()), default=0)

    def take_actions(self) -> list[Action]:
        """Return and forget what the shell is to do."""
        actions = self.actions[:]
        self.actions.clear()
        return actions

    # Sessions

    def add_stream(self, document: CaptureDocument) -> SessionStream:
        """Take up a session."""
        stream = SessionStream(
            document, self.side_file, self.stamper, self.settings, self._track_size_bytes, self.actions
        )
        self.streams[document.session_id] = stream
        return stream

    def remember(self, stream: SessionStream, document: CaptureDocument) -> None:
        """Make `document` the stream's, in memory and in the pool's log, before anybody is told of it."""
        if document != stream.document or document.key not in self._pool.documents:
            self._pool.put_document(document.key, document.model_dump_json().encode())
            stream.document = document
            self._pool.log_write()

    def set_volumes(self, stream: SessionStream, wanted: Iterable[WantedVolume]) -> dict[str, str]:
        """Capture exactly the volumes named in `wanted`.

        Returns the names that cannot be captured, with the reason.
        """
        self._seal()
        self.settle_notes()
        refused: dict[str, str] = {}
        numbers: dict[int, WantedVolume] = {}
        for wish in wanted:
            volume = self._pool.volumes.get(wish.name)
            if volume is None:
                refused[wish.name] = f"no volume {wish.name!r} here: create it, or correct the pair's name"
            else:
                numbers[volume.number] = wish
        dropped = [stream.volumes.pop(number) for number in list(stream.volumes) if number not in numbers]
        for number, wish in numbers.items():
            is_captured = number in stream.volumes
            if not is_captured:
                try:
                    self._open_captured(stream, stream.document, number)
                except OSError as error:  # the folder is full, say: the other volumes go on
                    refused[wish.name] = f"its change map cannot be made in the pool's folder: {error}"
                    continue
            else:
                self._files.follow_policy(stream.document, stream.volumes[number])
            captured = stream.volumes[number]
            captured.priority, captured.pace, captured.suspend_at_ns = (
                wish.priority,
                wish.pace,
                wish.suspend_at_ns,
            )
            captured.is_duplex = wish.is_duplex and captured.copied_through_ns > 0
            if captured.suspended_ns and not wish.suspend_at_ns:
                stream.resume_volume(captured)
            # A secondary that is empty still (its pair may have left and come back unheard) lacks all that is mapped.
            if not is_captured or not wish.not_empty:
                self._begin_copy(stream, number, wish.not_empty)
        # A map exists before the document that names it and is removed after it: a session never starts on a map
        # that a crash has emptied.
        self._remember_volumes(stream)
        self.rebuild_routes()  # before files are removed, which may fail: no write may meet a map that is closed
        for captured in dropped:
            self._files.remove(captured)
        return refused

    def _remember_volumes(self, stream: SessionStream) -> None:
        suspended = tuple((n, c.suspended_ns) for n, c in sorted(stream.volumes.items()) if c.suspended_ns)
        volumes = tuple(sorted(stream.volumes))
        self.remember(stream, stream.document.changed(volumes=volumes, suspended_volumes=suspended))

    def mark_only(self, stream: SessionStream, document: CaptureDocument, volumes: Iterable[int]) -> None:
        """Mark what is written to `volumes` (numbers) and capture nothing; marks that there are stay.

        A volume whose map cannot be made goes unmarked.
        """
        self._seal()
        self.settle_notes()
        wanted = set(volumes)
        dropped = [stream.volumes.pop(number) for number in list(stream.volumes) if number not in wanted]
        for number in sorted(wanted):
            with contextlib.suppress(OSError):  # the session's history says of which volume nothing is known
                if number in stream.volumes:
                    self._files.follow_policy(document, stream.volumes[number])
                else:
                    self._open_captured(stream, document, number)
        self.remember(stream, document.changed(volumes=tuple(sorted(stream.volumes))))
        self.rebuild_routes()
        for captured in dropped:
            self._files.remove(captured)

    def _begin_copy(self, stream: SessionStream, number: int, not_empty: bool) -> None:
        captured = stream.volumes[number]
        if not_empty:
            captured.suspect_all()
        else:
            captured.mark_mapped()
        if stream.incarnation and not captured.suspended_ns:
            stream.start_copy(captured)

    def _open_captured(self, stream: SessionStream, document: CaptureDocument, number: int) -> CapturedVolume:
        captured = self._files.open(document, number, self.stamper.promise())
        captured.suspended_ns = dict(document.suspended_volumes).get(number, 0)
        stream.volumes[number] = captured
        return captured

    def suspend(self, stream: SessionStream, reason: str, cause: SuspendCause = SuspendCause.ERROR) -> None:
        """Stop capturing for a session; its writes are marked from here on. Tells the mover."""
        self._seal()
        if stream.state is CaptureState.SUSPENDED or stream.document.awaits_appointment:
            return
        stream.end_incarnation()
        self.rebuild_routes()
        self.remember(
            stream,
            stream.document.changed(
                suspended=True, reason=cut_text(reason), cause=cause, since_ns=self.stamper.promise()
            ),
        )
        stream.told_suspended()

    def _suspend_for_room(self, stream: SessionStream, reason: str) -> None:
        self.suspend(stream, reason, SuspendCause.SIDE_FILE)

    def _meet_limit(self) -> None:
        if self.throttle.meet_limit(self.streams.values(), self._suspend_for_room, self._clock()):
            self.actions.append(ReleaseHeld())

    def delete_stream(self, session_id: str) -> None:
        """Forget a session: its marks, its captured records, its refusals of writes. Raises NotFoundError."""
        self._seal()
        self.settle_notes()
        stream = self.streams.pop(session_id, None)
        if stream is None:
            raise NotFoundError(f"no captured session {session_id!r} here", session=session_id)
        stream.backlog.clear()
        stream.instants.lose()
        self._pool.delete_document(stream.document.key)
        self._pool.log_write()
        if stream.link is not None:
            self.actions.append(CloseLink(stream.link, "the session was deleted here"))
            stream.detach()
        self.rebuild_routes()
        for captured in stream.volumes.values():
            self._files.remove(captured)

    def sessions_of_volume(self, number: int) -> list[str]:
        """Return the names of the sessions that capture volume `number`."""
        return [s.document.session_name for s in self.streams.values() if number in s.volumes]

    def write_refusal(self, number: int) -> str:
        """Return why writes to volume `number` are refused now, "" when they are not."""
        route = self._routes.get(number)
        return route.refusal if route else ""

    def rebuild_routes(self) -> None:
        """Derive the capture path's tables from the sessions."""
        self.settle_notes()
        self._routes = build_routes(self.streams.values())
        self.activities.rebuild(durable_marks(self.streams.values()))
        self.throttle.set_routes(self._routes.values())
