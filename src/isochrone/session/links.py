"""What primaries say to this session, and what it answers: one handler a message, named after it."""

from __future__ import annotations

from isochrone.link.messages import (
    PROTOCOL_VERSION,
    Appointed,
    CaptureReport,
    Compare,
    Compared,
    Configured,
    CopyProgress,
    Fence,
    Fenced,
    Forget,
    Forgotten,
    Hello,
    Marked,
    Message,
    NamedInstant,
    Quiesced,
    RecordSet,
    RefusalCode,
    Refused,
    Resumed,
    StreamCut,
    Suspended,
    Unquiesce,
    Welcome,
)
from isochrone.model.errors import IsochroneError, ProtocolError, RefusedError
from isochrone.model.states import SessionState
from isochrone.mover.lookup import VolumeLookup
from isochrone.mover.mover import ReceivedSet
from isochrone.session import transitions
from isochrone.session.contact import Contact, ContactState
from isochrone.session.document import PairDocument, SessionDocument
from isochrone.session.fitting import Misfit, confirmed_pair, misfit_of
from isochrone.session.session import Session
from isochrone.store.pool import Pool


class SessionLinks:
    """The links of one Session to its primaries, by source number."""

    def __init__(self, session: Session, pool: Pool, mover_id: str, mover_name: str) -> None:
        self._session = session
        self._pool = pool
        self._mover_id = mover_id
        self._mover_name = mover_name
        self._lookups: dict[int, VolumeLookup] = {}

    def link_opened(self, source: int) -> None:
        """The shell has connected to `source`: say who we are and where we stand."""
        document = self._session.document
        contact = self._session.contacts[source]
        if self._session.is_forgotten:
            self._session.close(source, "the session was deleted")
            return
        contact.enter(ContactState.GREETED, self._session.now_ns())
        contact.epoch = document.epoch
        self._session.acks_told.pop(source, None)
        received_ns = 0
        if source in self._session.mover.sources:
            self._session.mover.restart_window(source)
            received_ns = self._session.mover.sources[source].taken_ns
        self._session.send(
            source,
            Hello(
                PROTOCOL_VERSION,
                document.session_id,
                document.name,
                document.epoch,
                self._mover_id,
                self._mover_name,
                document.sources[source].controller_id,
                self._pool.track_size_bytes,
                document.compression,
                document.sources[source].incarnation,
                received_ns,
            ),
        )

    def link_lost(self, source: int, reason: str, *, damaged: bool = False) -> None:
        """The link to `source` is gone, or could not be had. `damaged`: because what came on it broke the protocol."""
        if damaged:
            self._session.contacts[source].rejected(reason, self._session.now_ns())
        if self._session.contacts[source].state is not ContactState.DOWN:
            self._session.contacts[source].lost(reason, self._session.now_ns())

    def link_received(self, source: int, message: Message) -> None:
        """Act on one message of `source`. A message that breaks the protocol, or cannot be acted on, closes the link.

        The primary sends again from what is staged: were the link kept, the promise of the next record set would cover
        one that was never stored. What a pool or device had against it is raised for the shell to tell.
        """
        contact = self._session.contacts[source]
        if not contact.is_up:
            return
        if contact.epoch != self._session.document.epoch:
            self._session.close(
                source,
                f"the link was opened under epoch {contact.epoch}, the session is at {self._session.document.epoch} now: "
                "nothing that comes on it counts",
            )
            return
        contact.heard_ns = self._session.now_ns()
        try:
            self._dispatch(source, contact, message)
        except RefusedError as error:
            contact.rejected(error.message, self._session.now_ns())
            self._session.close(source, error.message)
        except (IsochroneError, OSError) as error:
            self._session.close(source, str(error))
            raise

    def _dispatch(self, source: int, contact: Contact, message: Message) -> None:
        if isinstance(message, Refused):
            self._handle_refused(source, message)
        elif isinstance(message, Welcome):
            self._handle_welcome(source, contact, message)
        elif isinstance(message, Marked | Appointed) and contact.state is ContactState.APPOINTING:
            self._handle_appointing(source, message)
        elif not contact.is_welcomed and not (
            isinstance(message, Forgotten) and contact.state is ContactState.APPOINTING
        ):
            raise ProtocolError(f"{type(message).__name__} before Welcome")
        elif isinstance(message, RecordSet):
            self._handle_record_set(source, contact, message)
        elif isinstance(message, Compare):
            self._handle_compare(source, contact, message)
        elif isinstance(message, Configured):
            self._handle_configured(source, contact, message)
        elif isinstance(message, CopyProgress):
            self._handle_copy_progress(source, contact, message)
        elif isinstance(message, StreamCut):
            self._session.suspension.was_cut(source, contact, message.through_ns)
        elif isinstance(message, NamedInstant):
            self._handle_named_instant(source, message)
        elif isinstance(message, CaptureReport):
            contact.capture = message
            contact.held.note(self._session.now_ns(), message.held_ns)
            self._session.suspension.keep_held(source, contact)
        elif isinstance(message, Suspended):
            self._handle_suspended(source, contact, message)
        elif isinstance(message, Resumed):
            self._handle_resumed(source, contact, message)
        elif isinstance(message, Quiesced):
            contact.quiesces_unanswered -= 1
            if contact.quiesces_unanswered == 0 and self._session.is_draining:
                contact.quiesced_ns = message.through_ns
        elif isinstance(message, Fenced):
            self._handle_fenced(source, message)
        elif isinstance(message, Forgotten):
            self._handle_forgotten(source)
        else:
            raise ProtocolError(f"a primary does not send {type(message).__name__}")

    def _handle_refused(self, source: int, refused: Refused) -> None:
        # A busy primary takes the session later; any other refusal stands until a person acts.
        verdict = "busy" if refused.code is RefusalCode.BUSY else "refused"
        self._session.close(source, f"{verdict}: {refused.text}")

    def _handle_welcome(self, source: int, contact: Contact, welcome: Welcome) -> None:
        known = self._session.document.sources[source]
        if known.controller_id and known.controller_id != welcome.controller_id:
            self._session.close(
                source,
                f"the controller at {known.address} is {welcome.controller_name} ({welcome.controller_id}), not the one "
                f"this session began with ({known.controller_id}): correct the address of primary {known.name}",
            )
            return
        if welcome.epoch != self._session.document.epoch:
            self._session.close(
                source,
                f"primary {known.name} is at epoch {welcome.epoch}, the session at {self._session.document.epoch}",
            )
            return
        contact.enter(ContactState.WELCOMED, self._session.now_ns())
        contact.suspended = welcome.suspended
        if self._pool.read_only_reason and self._session.document.state is SessionState.SUSPENDED:
            # Nothing can be written down here any more, but the primary must not be held up by that.
            self._agree_on_suspension(source, contact, welcome)
            return
        document = self._session.document.with_source(source, controller_id=welcome.controller_id)
        if not welcome.suspended:
            document = document.with_source(source, resume_wanted=False)
        new_stream = not (welcome.continues or welcome.suspended or welcome.awaits_appointment)
        if new_stream and not document.is_over:
            document = self._with_hold(document, source, welcome.incarnation)
        self._session.remember(document)
        if welcome.continues:
            self._session.mover.continue_stream(source)
        elif not welcome.suspended:
            self._session.mover.begin_stream(source)
        if document.state is not SessionState.ENDED and self._session.is_deleting:
            self._session.send(source, Forget())
        elif document.is_over:
            if document.state is SessionState.ENDED:
                pairs = [pair for pair in document.pairs if pair.source == source and pair.is_confirmed]
                self._session.send(
                    source,
                    Fence(
                        document.epoch,
                        document.recovered_ns,
                        [pair.primary_volume for pair in pairs],
                        # With several primary controllers no one of them can take the others' place.
                        [pair.secondary_volume for pair in pairs]
                        if len(document.sources_in_use) == 1
                        else [],
                    ),
                )
        elif welcome.awaits_appointment:
            self._session.split.begin_to_tell(source, contact)
        else:
            self._session.configure(source)
            self._agree_on_suspension(source, contact, welcome)

    def _agree_on_suspension(self, source: int, contact: Contact, welcome: Welcome) -> None:
        """The primary may have suspended while the link was down, or not have heard that the session is."""
        if self._session.document.state is SessionState.SUSPENDED:
            if not contact.suspended:
                self._session.suspension.suspend_source(source)
        elif contact.suspended and self._session.document.sources[source].resume_wanted:
            self._session.suspension.resume_source(source, contact)
        elif contact.suspended:
            name = self._session.document.sources[source].name
            self._session.suspension.suspend_all(f"primary {name}: {welcome.reason}", welcome.cause)

    def _with_hold(self, document: SessionDocument, source: int, incarnation: str) -> SessionDocument:
        mover = self._session.mover
        through_ns = mover.sources[source].through_ns if source in mover.sources else 0
        return transitions.with_hold(document, source, incarnation, mover.form_ns, through_ns)

    def _handle_configured(self, source: int, contact: Contact, configured: Configured) -> None:
        self._session.pair_suspension.were_resumed(source, configured.volumes)
        if configured.number != contact.configures_sent:
            return  # of pairs that were wanted once; the answer to the last Configure is on its way
        infos = {info.name: info for info in configured.volumes}
        # Progress is told anew after this; what was told before may be of a pair that has left and come back.
        contact.copied_through_ns.clear()
        kept: list[PairDocument] = []
        gone: list[PairDocument] = []
        misfits: dict[str, Misfit] = {}
        refused = {refusal.name: refusal.text for refusal in configured.refused}
        aside: list[str] = []
        for pair in self._session.document.pairs:
            if pair.source != source:
                kept.append(pair)
                continue
            info = infos.get(pair.primary_volume)
            if pair.removing and info is None:
                gone.append(pair)
                continue
            if info is not None:
                contact.tracks_remaining[info.number] = info.tracks_to_copy
                try:
                    pair = confirmed_pair(self._pool, pair, info.number, info.size_bytes)
                except IsochroneError as error:
                    misfits[pair.primary_volume] = misfit_of(self._pool, pair, info, error)
                    refused[pair.primary_volume] = error.message
            if pair.is_confirmed and not pair.removing and (reason := refused.get(pair.primary_volume)):
                aside += [] if pair.is_set_aside else [pair.primary_volume]
                pair = self._session.pair_suspension.set_aside(pair, reason)
            kept.append(pair)
        self._session.drop_pairs(gone)
        # A primary that copies a pair which is DUPLEX here has not captured it all the time: a power loss here may have
        # undone the pair's removal.
        gaps = [
            pair
            for pair in kept
            if pair.source == source
            and pair.duplex
            and (info := infos.get(pair.primary_volume))
            and info.tracks_to_copy
        ]
        document = self._session.document.changed(pairs=tuple(kept))
        self._session.remember(transitions.with_gap(document, gaps, self._session.mover.form_ns))
        if (gone or aside) and self._session.mover.drop_waiting(source):
            self._session.close(source, "what waited for room held writes of a pair that has left")
            return
        numbers = {
            pair.primary_number: pair.secondary_number
            for pair in kept
            if pair.source == source and pair.primary_number is not None and pair.secondary_number is not None
        }
        self._lookups[source] = VolumeLookup(numbers, {misfit.primary_number for misfit in misfits.values()})
        contact.misfits.found(misfits, self._session.now_ns())
        contact.refused = refused | contact.misfits.reasons
        if aside or any(not misfit.was_confirmed for misfit in misfits.values()):
            self._session.configure(source)
        contact.enter(ContactState.STREAMING, self._session.now_ns())
        # A primary that lost its link while it was quiesced has not heard that the switchover was given up.
        if self._session.is_draining:
            self._session.recovery.quiesce(source)
        else:
            self._session.send(source, Unquiesce())
        self._session.send_ack(source)

    def _handle_record_set(self, source: int, contact: Contact, record_set: RecordSet) -> None:
        if contact.state is not ContactState.STREAMING or source not in self._session.mover.sources:
            raise ProtocolError("a record set before the session was configured")
        if self._session.document.is_over:
            return
        records, payload = self._lookups[source].translate(
            record_set.headers, record_set.payload, self._pool.track_size_bytes
        )
        self._session.mover.receive(source, ReceivedSet(record_set.through_ns, records, payload))
        if contact.rejected_count:
            contact.accepted()

    def _handle_compare(self, source: int, contact: Contact, query: Compare) -> None:
        if contact.state is not ContactState.STREAMING or source not in self._session.mover.sources:
            raise ProtocolError("a comparison before the session was configured")
        if query.volume in self._lookups[source].left_out:
            self._session.send(source, Compared(query.number, (True,) * query.track_count))
        elif not self._session.document.is_over:
            self._session.mover.compare(source, query, self._lookups[source].secondary_of(query.volume))

    def _handle_copy_progress(self, source: int, contact: Contact, progress: CopyProgress) -> None:
        for volume in progress.volumes:
            contact.tracks_remaining[volume.number] = volume.tracks_remaining
            contact.copied_through_ns[volume.number] = volume.copied_through_ns
            contact.copies[volume.number] = volume
            if volume.suspended_ns and not self._session.pair_suspension.was_suspended(source, volume):
                self._session.close(source, "what waited for room held a copy that was broken off")
                return

    def _handle_named_instant(self, source: int, instant: NamedInstant) -> None:
        if not self._session.document.is_over:
            self._session.history.was_named(source, instant)

    def _handle_suspended(self, source: int, contact: Contact, suspended: Suspended) -> None:
        contact.suspended = True
        contact.cut_ns = 0
        contact.copied_through_ns.clear()
        if self._session.document.state is SessionState.ACTIVE and not contact.resuming:
            self._session.suspension.suspend_all(
                f"primary {self._session.document.sources[source].name}: {suspended.reason}", suspended.cause
            )

    def _handle_resumed(self, source: int, contact: Contact, resumed: Resumed) -> None:
        contact.suspended = False
        contact.resumes_unanswered -= 1
        contact.copied_through_ns.clear()
        for info in resumed.volumes:
            contact.tracks_remaining[info.number] = info.tracks_to_copy
        self._session.remember(self._with_hold(self._session.document, source, resumed.incarnation))
        self._session.pair_suspension.were_resumed(source, resumed.volumes)
        self._session.mover.begin_stream(source)
        if self._session.document.state is SessionState.SUSPENDED:
            # It was suspended again before the primary had answered Resume.
            self._session.suspension.suspend_source(source)

    def _handle_fenced(self, source: int, fenced: Fenced) -> None:
        marked = {volume.name: volume.marked_tracks for volume in fenced.volumes}
        self._session.remember(
            transitions.with_fenced(self._session.document, source, fenced.last_write_ns, marked)
        )
        self._session.close(source, f"fenced under epoch {fenced.epoch}")
        self._session.finish_delete_if_done()

    def _handle_appointing(self, source: int, message: Marked | Appointed) -> None:
        if isinstance(message, Marked):
            self._session.split.tell_next(source)
        else:
            self._session.split.appointed(source)

    def _handle_forgotten(self, source: int) -> None:
        self._session.close(source, "the session was deleted")
        self._session.remember(self._session.document.with_source(source, fenced=True))
        self._session.finish_delete_if_done()
