"""Contact with one primary: the link, its back-off, and what was heard on it last."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from isochrone.link.messages import CaptureReport, VolumeCopy
from isochrone.session.auto_resume import HeldTime
from isochrone.session.document import HeldDocument
from isochrone.session.fitting import Misfits
from isochrone.session.settings import SessionSettings


class ContactState(StrEnum):
    """A link as the session sees it.

    ::

        DOWN --Dial--> DIALING --opened--> GREETED --Welcome--> WELCOMED --Configured--> STREAMING
          ^               |                   |                    |                         |
          +---------------+-------------------+--------------------+-------------------------+   lost, closed

    A primary that awaits its appointment is APPOINTING instead of WELCOMED; once appointed the link is opened anew.
    """

    DOWN = "DOWN"
    DIALING = "DIALING"
    GREETED = "GREETED"
    WELCOMED = "WELCOMED"
    APPOINTING = "APPOINTING"
    STREAMING = "STREAMING"


class Contact:
    """Link state to one primary.

    Attributes:
        since_ns: when `state` was entered.
        epoch: of the session when the link was opened: what comes under an older one does not count.
        heard_ns: when the last message came.
        error: why the link is down, for people; "" when it is up.
        streaming_until_ns: when it was STREAMING last; of one that never was, when it was first wanted.
        held: how long it held acknowledgements of applications for this session lately.
        suspended: the primary has suspended the session.
        cut_ns: the primary has cut its stream at this time, 0 when it has not.
        configures_sent: on this link.
        resumes_unanswered: Resume messages sent on this link that it has not answered.
        quiesced_ns: time after which it acknowledges no write; None while it may.
        quiesces_unanswered: Quiesce messages sent on this link that it has not answered.
        capture: what it told last of its side file and of delays; None before, and while the link is down.
        rejected_since_ns: host time since when every record set was damaged or contradicted itself; None when the last
            one was sound. `rejected_count` of them came; `rejected_because` says what was wrong with the last.
        tracks_remaining, copied_through_ns: by primary volume number, as last told.
        copies: what was told of each volume's copy beside them; of display value only.
        refused: why pairs cannot start as they are, by primary volume: the primary has it not, or it is among `misfits`.
        misfits: pairs left out of what it is asked for on this link.
    """

    def __init__(
        self,
        settings: SessionSettings,
        jitter: Callable[[], float],
        now_ns: int,
        held: HeldDocument | None = None,
    ) -> None:
        self.state = ContactState.DOWN
        self.since_ns = now_ns
        self.heard_ns = now_ns
        self.epoch = 0
        self.error = "not connected yet"
        self.streaming_until_ns = now_ns
        self.held = HeldTime(held)
        self.suspended = False
        self.cut_ns = 0
        self.configures_sent = 0
        self.resumes_unanswered = 0
        self.quiesced_ns: int | None = None
        self.quiesces_unanswered = 0
        self.capture: CaptureReport | None = None
        self.rejected_since_ns: int | None = None
        self.rejected_count = 0
        self.rejected_because = ""
        self.tracks_remaining: dict[int, int] = {}
        self.copied_through_ns: dict[int, int] = {}
        self.copies: dict[int, VolumeCopy] = {}
        self.refused: dict[str, str] = {}
        self.misfits = Misfits()
        self._settings = settings
        self._jitter = jitter
        self._redial_at_ns = now_ns
        self._redial_ns = settings.redial_ns_min

    @property
    def resuming(self) -> bool:
        """Whether what it says of its state is older than what it was asked last."""
        return self.resumes_unanswered > 0

    @property
    def is_up(self) -> bool:
        """Whether messages can be sent."""
        return self.state not in (ContactState.DOWN, ContactState.DIALING)

    @property
    def is_welcomed(self) -> bool:
        """Whether the primary has accepted the session on this link."""
        return self.state in (ContactState.WELCOMED, ContactState.STREAMING)

    def enter(self, state: ContactState, now_ns: int) -> None:
        """Enter `state`."""
        if self.state is ContactState.STREAMING:
            self.streaming_until_ns = now_ns
        self.state = state
        self.since_ns = now_ns
        self.heard_ns = now_ns
        if state is ContactState.STREAMING:
            self.error = ""
            self._redial_ns = self._settings.redial_ns_min

    def rejected(self, reason: str, now_ns: int) -> None:
        """Something came that could not be taken, and will be sent again."""
        if self.rejected_since_ns is None:
            self.rejected_since_ns = now_ns
        self.rejected_count += 1
        self.rejected_because = reason

    def accepted(self) -> None:
        """A sound record set has come, or somebody has decided that it is worth another try."""
        self.rejected_since_ns = None
        self.rejected_count = 0

    def should_dial(self, now_ns: int) -> bool:
        """Whether it is time to try again."""
        return self.state is ContactState.DOWN and now_ns >= self._redial_at_ns

    def lost(self, reason: str, now_ns: int) -> None:
        """The link is gone or could not be had: try again after a back-off that doubles, with jitter."""
        self.enter(ContactState.DOWN, now_ns)
        self.error = reason
        self.suspended = False
        self.cut_ns = 0
        self.configures_sent = 0
        self.resumes_unanswered = 0
        self.quiesced_ns = None
        self.quiesces_unanswered = 0
        self.capture = None
        self.tracks_remaining.clear()
        self.copied_through_ns.clear()
        self.copies.clear()
        self.misfits.clear()
        self._redial_at_ns = now_ns + int(self._redial_ns * (0.5 + self._jitter() / 2))
        self._redial_ns = min(2 * self._redial_ns, self._settings.redial_ns_max)

    def is_silent(self, now_ns: int) -> bool:
        """Whether an open link has said nothing for longer than a live one can."""
        greeting = (ContactState.GREETED, ContactState.WELCOMED, ContactState.APPOINTING)
        expects_words = self.state in greeting or (
            self.state is ContactState.STREAMING and (self.resuming or not self.suspended)
        )
        return expects_words and now_ns - self.heard_ns > self._settings.silence_ns_max
