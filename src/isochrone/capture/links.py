"""What movers say to this primary, and what it answers: one handler a message, named after it."""

from __future__ import annotations

from collections.abc import Callable

from isochrone.capture.actions import CloseLink, SendDurably, SendMessage
from isochrone.capture.document import CaptureState
from isochrone.capture.fencing import Fencing, in_service, stale
from isochrone.capture.handshake import StreamPosition, decide_hello
from isochrone.capture.primary import Primary
from isochrone.capture.stream import SessionStream
from isochrone.link.messages import (
    REFUSAL_TEXT_BYTES_MAX,
    Ack,
    Appoint,
    Compared,
    Configure,
    Configured,
    Fence,
    Forget,
    Forgotten,
    Hello,
    Marks,
    Message,
    Quiesce,
    Quiesced,
    RefusalCode,
    Refused,
    Resume,
    Resumed,
    Suspend,
    Unquiesce,
    VolumeRefusal,
    Welcome,
    cut_text,
)
from isochrone.model.errors import ProtocolError, UnavailableError

LINKS_MAX = 64
"""Most links open at a time; a further one is refused."""


class PrimaryLinks:
    """The links of movers to one Primary.

    Args:
        controller_id: this controller's identity.
        new_identity: draws a fresh identity (32 hexadecimal digits).
        refuse_volume: returns why a volume of this name cannot be a primary (a mover of this controller writes it), ""
            when it can.
        is_mover_here: whether the session of an id is pulled by this controller itself.
    """

    def __init__(
        self,
        primary: Primary,
        controller_id: str,
        controller_name: str,
        track_size_bytes: int,
        new_identity: Callable[[], str],
        refuse_volume: Callable[[str], str],
        is_mover_here: Callable[[str], bool],
    ) -> None:
        self._primary = primary
        self._controller_id = controller_id
        self._controller_name = controller_name
        self._track_size_bytes = track_size_bytes
        self._new_identity = new_identity
        self._refuse_volume = refuse_volume
        self._is_mover_here = is_mover_here
        self._fencing = Fencing(primary, refuse_volume)
        self._epochs: dict[int, int] = {}
        self._streams: dict[int, SessionStream | None] = {}
        self._forgotten: set[int] = set()

    def link_opened(self, link: int) -> None:
        """A mover has connected; it must say Hello first."""
        self._streams[link] = None
        if len(self._streams) > LINKS_MAX:
            self._refuse(
                link, Refused(RefusalCode.BUSY, f"{LINKS_MAX} links are open here already: try again later")
            )

    def link_lost(self, link: int) -> None:
        """A link is gone; its session keeps capturing."""
        self._forgotten.discard(link)
        self._epochs.pop(link, None)
        stream = self._streams.pop(link, None)
        if stream is not None and stream.link == link:
            stream.detach()

    def link_pending_bytes(self, link: int, pending_bytes: int) -> None:
        """The transport holds `pending_bytes` that the kernel has not taken yet."""
        stream = self._streams.get(link)
        if stream is not None and stream.link == link:
            stream.link_pending_bytes = pending_bytes

    def link_received(self, link: int, message: Message) -> None:
        """Act on one message. Answers and refusals are in the primary's actions.

        What the pool or the device had against it is answered too: the mover calls again later.
        """
        if link not in self._streams or link in self._forgotten:
            return
        try:
            self._dispatch(link, message)
        except ProtocolError as error:
            self._refuse(link, Refused(RefusalCode.BAD_REQUEST, error.message))
        except (UnavailableError, OSError) as error:
            self._refuse(link, Refused(RefusalCode.BUSY, cut_text(str(error))))

    def _dispatch(self, link: int, message: Message) -> None:
        stream = self._streams[link]
        if isinstance(message, Hello) and stream is None:
            self._handle_hello(link, message)
        elif stream is None:
            self._refuse(link, Refused(RefusalCode.BAD_REQUEST, "a link must begin with Hello"))
        elif stream.document.epoch != self._epochs[link]:
            self._refuse(link, stale(stream, self._epochs[link]))
        elif stream.link != link:
            self._refuse(link, Refused(RefusalCode.BAD_REQUEST, "the session is pulled on another link now"))
        elif isinstance(message, Ack):
            stream.acknowledged(message)
        elif isinstance(message, Fence | Marks | Appoint):
            self._handle_split(link, stream, message)
        elif stream.document.serving and not isinstance(message, Forget):
            self._refuse(link, in_service(stream, message))
        elif isinstance(message, Compared):
            stream.compared(message)
        elif isinstance(message, Configure):
            self._handle_configure(stream, message)
        elif isinstance(message, Suspend):
            self._handle_suspend(stream, message)
        elif isinstance(message, Resume):
            self._handle_resume(stream)
        elif isinstance(message, Quiesce):
            self._handle_quiesce(link, stream)
        elif isinstance(message, Unquiesce):
            self._handle_unquiesce(stream)
        elif isinstance(message, Forget):
            self._handle_forget(link, stream)
        else:
            self._refuse(
                link, Refused(RefusalCode.BAD_REQUEST, f"a mover does not send {type(message).__name__}")
            )

    def _refuse(self, link: int, refused: Refused) -> None:
        self._primary.actions += [SendMessage(link, refused), CloseLink(link, refused.text)]

    def _handle_hello(self, link: int, hello: Hello) -> None:
        primary = self._primary
        stream = primary.streams.get(hello.session_id)
        same_name = next(
            (
                other.document
                for other in primary.streams.values()
                if other.document.session_name == hello.session_name
                and other is not stream
                and not other.document.serving
            ),
            None,
        )
        position = StreamPosition(
            stream.incarnation if stream else "", stream.backlog.dropped_through_ns if stream else 0
        )
        known = stream.document if stream else None
        verdict = decide_hello(
            hello,
            known,
            same_name,
            position,
            self._track_size_bytes,
            controller_id=self._controller_id,
            is_mover_here=self._is_mover_here(hello.session_id),
        )
        if isinstance(verdict, Refused):
            self._refuse(link, verdict)
            return
        stream = stream or primary.add_stream(verdict.document)
        if stream.link is not None and stream.link != link:
            primary.actions.append(CloseLink(stream.link, "the mover has connected anew"))
        primary.remember(stream, verdict.document)
        if verdict.fences:
            self._fencing.end_stream(stream)
        if verdict.lost_history:
            for captured in stream.volumes.values():
                captured.suspect_all()
        if not (verdict.continues or stream.document.suspended or stream.document.awaits_appointment):
            stream.begin_incarnation(self._new_identity())
        stream.attach(link, hello.received_through_ns if verdict.continues else 0)
        self._streams[link] = stream
        self._epochs[link] = hello.epoch
        primary.rebuild_routes()
        stream.send(
            Welcome(
                self._controller_id,
                self._controller_name,
                stream.incarnation or self._new_identity(),
                stream.document.epoch,
                primary.stamper.promise(),
                verdict.continues,
                stream.state is CaptureState.SUSPENDED,
                stream.document.reason,
                stream.document.cause,
                stream.document.awaits_appointment,
            )
        )

    def _handle_configure(self, stream: SessionStream, configure: Configure) -> None:
        if stream.document.ended:
            stream.send(Configured(configure.number, []))
            return
        if configure.number < stream.configure_number:
            return  # it was overtaken: what it says is no longer wanted
        stream.configure_number = configure.number
        self._primary.remember(stream, stream.document.changed(policy=configure.policy))
        refused = {v.name: text for v in configure.volumes if (text := self._refuse_volume(v.name))}
        wanted = [volume for volume in configure.volumes if volume.name not in refused]
        refused |= self._primary.set_volumes(stream, wanted)
        stream.suspend_at_ns = configure.suspend_at_ns
        stream.configured()
        refusals = [
            VolumeRefusal(name, cut_text(text, REFUSAL_TEXT_BYTES_MAX)) for name, text in refused.items()
        ]
        stream.send(Configured(configure.number, stream.volume_infos(), refusals))
        stream.tell_cut()
        stream.tell_suspended_volumes()
        stream.instants.tell()

    def _handle_suspend(self, stream: SessionStream, suspend: Suspend) -> None:
        if stream.state is CaptureState.SUSPENDED:
            stream.told_suspended()
        else:
            self._primary.suspend(stream, suspend.reason, suspend.cause)

    def _handle_resume(self, stream: SessionStream) -> None:
        if stream.document.ended:
            return
        primary = self._primary
        primary.remember(stream, stream.document.changed(suspended=False, reason="", since_ns=0))
        stream.begin_incarnation(self._new_identity())
        primary.rebuild_routes()
        stream.send(Resumed(stream.incarnation, stream.volume_infos()))

    def _handle_quiesce(self, link: int, stream: SessionStream) -> None:
        primary = self._primary
        primary.remember(stream, stream.document.changed(quiesced=True))
        primary.rebuild_routes()  # which also settles when the last write was
        primary.actions.append(SendDurably(link, Quiesced(primary.stamper.promise())))

    def _handle_unquiesce(self, stream: SessionStream) -> None:
        self._primary.remember(stream, stream.document.changed(quiesced=False))
        self._primary.rebuild_routes()

    def _handle_split(self, link: int, stream: SessionStream, message: Fence | Marks | Appoint) -> None:
        """Fences and appointments, see Fencing."""
        if isinstance(message, Fence):
            refused = self._fencing.handle_fence(link, stream, message)
        elif isinstance(message, Marks):
            refused = self._fencing.handle_marks(stream, message)
        else:
            refused = self._fencing.handle_appoint(link, stream, message)
        if refused is not None:
            self._refuse(link, refused)
        self._epochs[link] = stream.document.epoch

    def _handle_forget(self, link: int, stream: SessionStream) -> None:
        # The mover closes the link once it has the answer; what it sent before it had is of no more use.
        self._streams[link] = None
        self._forgotten.add(link)
        stream.detach()
        self._primary.delete_stream(stream.document.session_id)
        self._primary.actions.append(SendDurably(link, Forgotten()))
