"""Pairs that are suspended by themselves, while the others of their session go on.

::

    running --suspend(T)--> pending --primary cuts the volume at c >= T--> SUSPENDED (image of c)
       ^                       |                                              |
       |                       +-- cancel, in time --> running                | resume: Configure without it
       +------ DUPLEX <------ COPY, under the hold of a resync <--------------+

The primary goes on with its stream and leaves the volume out of it from c on: it keeps every mark, captures nothing of it,
and remembers that over restarts. It says so before it promises a time past c, so the pair is not DUPLEX any more when C
passes c: from then on its image is that of c, while the others follow C. A recovery then has to be told that the image is
not of one instant.

Where the pair is not DUPLEX when its time comes, its copy is broken off and nothing more of it is sent. The first copy of a
pair has no image to protect. In a resync what was staged of it may have gaps and must never be committed: it is
discarded, and the image stays as it was. That loses nothing, because marks are only cleared when C has passed them, and
all of it is later than C.

A resume is a copy of the marked tracks within the running session, under the hold of any resync (transitions.with_gap): the
images of all pairs stay in service as they were until it is complete, this pair's being of c. Configure says what is
wanted of each volume, so it may be sent again at any time; a cancel that crosses the cut is a resume.
"""

from __future__ import annotations

from collections.abc import Iterable

from isochrone.link.messages import VolumeCopy, VolumeInfo, cut_text
from isochrone.model.errors import ConflictError, NotFoundError
from isochrone.session import transitions
from isochrone.session.core import SessionCore
from isochrone.session.document import PairDocument
from isochrone.session.recovery import Recovery


class PairSuspension:
    """Suspend and resume of single pairs of one session. Pairs are named by their secondary volumes."""

    def __init__(self, core: SessionCore, recovery: Recovery) -> None:
        self._core = core
        self._recovery = recovery

    # Commands

    def suspend(self, names: Iterable[str], at_ns: int, reason: str) -> None:
        """Suspend pairs from `at_ns` on, host time; those that are suspended stay as they are.

        Raises NotFoundError or ConflictError; then nothing is changed.
        """
        pairs = self._named(names)
        for pair in pairs:
            if not pair.is_confirmed:
                raise ConflictError(
                    f"pair {pair.secondary_volume!r} is PENDING: its primary has not confirmed it; remove it instead",
                    name=pair.secondary_volume,
                )
        if at_ns < self._core.mover.form_ns:
            raise ConflictError(
                f"time already passed: session {self._core.document.name!r} has received later writes; "
                "give a time that is still to come, or suspend with --drain"
            )
        changed = {"suspend_at_ns": max(1, at_ns), "suspend_reason": cut_text(reason)}
        self._change([pair for pair in pairs if not (pair.suspended and pair.suspend_at_ns)], **changed)

    def suspend_now(self, names: Iterable[str], reason: str, now_ns: int) -> None:
        """Suspend pairs as soon as their primaries hear of it. Raises as `suspend`."""
        self.suspend(names, max(now_ns, self._core.now_ns(), self._core.mover.form_ns), reason)

    def drain(self, names: Iterable[str], reason: str, now_ns: int) -> None:
        """Suspend pairs once everything acknowledged up to now is in their images. Raises as `suspend`.

        All at one instant, that every primary hears of before it comes if its link is well.
        """
        at_ns = max(now_ns, self._core.now_ns(), self._core.mover.form_ns) + self._core.settings.pair_lead_ns
        self.suspend(names, at_ns, reason)

    def cancel(self, names: Iterable[str]) -> None:
        """Forget a pending suspension of pairs. Raises NotFoundError, and ConflictError where none is pending."""
        pairs = self._named(names)
        for pair in pairs:
            if pair.suspended or not pair.suspend_at_ns:
                text = "is SUSPENDED: resume it" if pair.suspended else "has no pending suspension"
                raise ConflictError(f"pair {pair.secondary_volume!r} {text}", name=pair.secondary_volume)
        self._change(pairs, suspend_at_ns=0, suspend_reason="")

    def resume(self, names: Iterable[str]) -> None:
        """Copy what was marked of suspended pairs; those that run go on. Raises NotFoundError or ConflictError."""
        pairs = self._named(names)
        for pair in pairs:
            if reason := self._core.contacts[pair.source].misfits.reasons.get(pair.primary_volume):
                raise ConflictError(
                    f"pair {pair.secondary_volume!r} cannot be resumed: {reason}", name=pair.secondary_volume
                )
            if pair.suspend_at_ns and not pair.suspended:
                raise ConflictError(
                    f"a suspension of pair {pair.secondary_volume!r} is pending: forget it with --cancel",
                    name=pair.secondary_volume,
                )
        self._change(pairs, suspend_at_ns=0)

    def _named(self, names: Iterable[str]) -> list[PairDocument]:
        document = self._core.document
        if document.is_over:
            raise ConflictError(
                f"session {document.name!r} is {document.state}: its pairs have ended", session=document.name
            )
        if self._recovery.is_draining:
            raise ConflictError(
                f"session {document.name!r} is switching over, with all its pairs: give the command afterwards",
                session=document.name,
            )
        known = {pair.secondary_volume: pair for pair in document.pairs if not pair.removing}
        wanted = list(names)
        for name in wanted:
            if name not in known:
                raise NotFoundError(
                    f"session {document.name!r} has no pair with secondary volume {name!r}", volume=name
                )
        return [known[name] for name in wanted]

    def _change(self, pairs: Iterable[PairDocument], **fields: object) -> None:
        changes = {pair.secondary_volume: pair.model_copy(update=fields) for pair in pairs}
        if changes:
            self._core.remember(self._core.document.with_pairs(changes))
            self._core.reconfigure()

    # What primaries say

    def was_suspended(self, source: int, volume: VolumeCopy) -> bool:
        """Primary `source` has suspended a volume. Returns False when its link must be opened anew first.

        What waits for room in the pool would be staged after this; sent again, it lacks what was given up.
        """
        core = self._core
        pair = next(
            (p for p in core.document.pairs if p.source == source and p.primary_number == volume.number), None
        )
        if pair is None or pair.suspended:
            return True
        image_ns = volume.suspended_ns
        if volume.copied_through_ns == 0:
            if core.mover.drop_waiting(source):
                return False
            image_ns = pair.image_time_ns(core.mover.consistency_ns)
            if pair.complete and pair.secondary_number is not None:
                core.mover.forget_volume(pair.secondary_number)
        suspended = pair.model_copy(
            update={
                "suspended": True,
                "duplex": False,
                "image_ns": image_ns,
                "image_until_ns": 0,
                "suspended_since_ns": core.now_ns(),
            }
        )
        core.remember(core.document.with_pairs({pair.secondary_volume: suspended}))
        return True

    def set_aside(self, pair: PairDocument, reason: str) -> PairDocument:
        """Return a confirmed pair whose primary's volume is no longer the one it was: suspended, its image as it is.

        What is staged of it is given up; whoever calls remembers the pair, and tells its primary. See fitting.
        """
        if pair.is_set_aside:
            return pair
        core = self._core
        if pair.secondary_number is not None:
            core.mover.forget_volume(pair.secondary_number)
        now_ns = core.now_ns()
        return pair.model_copy(
            update={
                "suspended": True,
                "duplex": False,
                "suspend_at_ns": pair.suspend_at_ns or max(1, now_ns),
                "suspend_reason": cut_text(reason),
                "image_ns": max(1, pair.image_time_ns(core.mover.consistency_ns)),
                "image_until_ns": 0,
                "suspended_since_ns": now_ns,
            }
        )

    def were_resumed(self, source: int, volumes: Iterable[VolumeInfo]) -> None:
        """Primary `source` says how its volumes stand: of those that run again, images come next.

        Also an answer to a Configure that was followed by another tells this: the primary has obeyed both. Of a pair that is
        set aside nothing is taken that its primary may send before it has heard so.
        """
        core = self._core
        misfits = core.contacts[source].misfits
        running = {volume.name for volume in volumes if not volume.suspended_ns}
        resumed = [
            pair.model_copy(update={"suspended": False})
            for pair in core.document.pairs
            if pair.source == source and pair.suspended and pair.primary_volume in running
            if pair.primary_volume not in misfits
        ]
        for pair in resumed:  # what was told of its copies was before the suspension
            if pair.primary_number is not None:
                core.contacts[source].copied_through_ns.pop(pair.primary_number, None)
        if resumed:
            core.remember(transitions.with_gap(core.document, resumed, core.mover.form_ns))
