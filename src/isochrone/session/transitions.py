"""Commands and events as pure functions from one session document to the next (mechanisms section 1, states).

Each raises ConflictError when the state does not allow it, with what to do instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from isochrone.link.messages import cut_text
from isochrone.model.choices import PaceLevel
from isochrone.model.errors import ConflictError, NotFoundError, RefusedError
from isochrone.model.policy import SessionPolicy
from isochrone.model.states import SessionState, SuspendCause
from isochrone.session.document import PairDocument, SessionDocument, SourceDocument


def suspended(
    document: SessionDocument,
    reason: str,
    now_ns: int,
    *,
    cause: SuspendCause = SuspendCause.COMMAND,
    form_ns: int = 0,
) -> SessionDocument:
    """ACTIVE -> SUSPENDED. A suspension that was pending is over with it; its time still bounds the image.

    An operator's word outlasts what happens by itself: a command to suspend what is SUSPENDED for another cause keeps it
    from resuming by itself, and so does one that was pending when the cause came first.

    Args:
        form_ns: F now.
    """
    if document.is_over:
        raise ConflictError(
            f"session {document.name!r} is {document.state}: there is nothing to suspend",
            session=document.name,
        )
    if document.state is SessionState.SUSPENDED:
        if cause is not SuspendCause.COMMAND or document.cause is SuspendCause.COMMAND:
            return document
        return document.changed(reason=cut_text(f"{reason} (before that: {document.reason})"), cause=cause)
    at_ns = document.suspend_at_ns
    if at_ns:
        document = _with_stream_ends(document, at_ns if form_ns > at_ns else None)
        if cause is not SuspendCause.COMMAND:
            reason = f"{reason} (a commanded suspension was pending: resume it by command)"
            cause = SuspendCause.COMMAND
    return document.changed(
        state=SessionState.SUSPENDED, reason=cut_text(reason), cause=cause, since_ns=now_ns, suspended_at_ns=0
    )


def suspending(document: SessionDocument, at_ns: int, reason: str) -> SessionDocument:
    """A suspension is pending: the image will stop at `at_ns`."""
    return document.changed(suspend_at_ns=at_ns, suspend_reason=cut_text(reason))


def suspended_at(
    document: SessionDocument, reason: str, now_ns: int, *, form_ns: int, is_exact: bool
) -> SessionDocument:
    """The time of a pending suspension has come: ACTIVE -> SUSPENDED, and the image stays as it is at F or at that time.

    With `is_exact` the committed image is that of the time. The incarnations end here also for a primary that does not
    hear of it before the session is resumed: its stream was cut, and what it wrote since is only marked.
    """
    at_ns = document.suspend_at_ns
    document = _with_stream_ends(document, min(at_ns, form_ns))
    return document.changed(
        state=SessionState.SUSPENDED,
        reason=cut_text(reason),
        cause=SuspendCause.COMMAND,
        since_ns=now_ns,
        suspended_at_ns=at_ns if is_exact else 0,
    )


def _with_stream_ends(document: SessionDocument, floor_ns: int | None) -> SessionDocument:
    """No suspension is pending any more, every stream ends, and the image is kept at `floor_ns` until the next resync."""
    sources = tuple(source.model_copy(update={"incarnation": ""}) for source in document.sources)
    held = floor_ns if document.hold_floor_ns is None else document.hold_floor_ns
    return document.changed(suspend_at_ns=0, suspend_reason="", sources=sources, hold_floor_ns=held)


def resumed(document: SessionDocument, now_ns: int) -> SessionDocument:
    """SUSPENDED -> ACTIVE; the primaries then copy what they marked, and no pair is DUPLEX before that is done."""
    if document.suspend_at_ns:
        raise ConflictError(
            f"a suspension of session {document.name!r} is pending: forget it with "
            f"`isochrone session suspend {document.name} --cancel`",
            session=document.name,
        )
    if document.state is not SessionState.SUSPENDED:
        raise ConflictError(
            f"session {document.name!r} is {document.state}: only a SUSPENDED session can be resumed",
            session=document.name,
        )
    sources = tuple(source.model_copy(update={"resume_wanted": True}) for source in document.sources)
    pairs = tuple(pair.model_copy(update={"duplex": False}) for pair in document.pairs)
    return document.changed(
        state=SessionState.ACTIVE,
        reason="",
        since_ns=now_ns,
        suspended_at_ns=0,
        sources=sources,
        pairs=pairs,
    )


def with_hold(
    document: SessionDocument, source: int, incarnation: str, floor_ns: int, through_ns: int
) -> SessionDocument:
    """A new incarnation begins at `source`: records were lost on the way, marked tracks will be copied.

    Its pairs are no longer DUPLEX. If any of them was complete, the committed image is kept as it is at `floor_ns` (or at
    the floor of a hold already in force) until the copies are hardened. Pairs that are suspended are not copied: of theirs
    nothing has come that is later than `through_ns`, what the primary had promised, and nothing will.
    """
    document = document.with_source(source, incarnation=incarnation, resume_wanted=False)
    cut_off = {
        pair.secondary_volume: pair.model_copy(update={"image_ns": max(1, through_ns)})
        for pair in document.pairs
        if pair.source == source and pair.suspended and pair.image_ns > through_ns
    }
    document = document.with_pairs(cut_off)
    gaps = [pair for pair in document.pairs if pair.source == source and not pair.suspended]
    return with_gap(document, gaps, floor_ns)


def with_gap(document: SessionDocument, pairs: Iterable[PairDocument], floor_ns: int) -> SessionDocument:
    """Records of `pairs` were lost on the way after `floor_ns`, and their volumes are being copied; see `with_hold`."""
    changed = {pair.secondary_volume: pair.model_copy(update={"duplex": False}) for pair in pairs}
    held = document.hold_floor_ns
    if held is None and any(pair.complete for pair in changed.values()):
        held = floor_ns
    return document.with_pairs(changed).changed(hold_floor_ns=held)


def with_hold_lifted(document: SessionDocument) -> SessionDocument:
    """Every copy under the hold is complete and hardened: the next commit takes C past the floor, and all images with it."""
    floor_ns = document.hold_floor_ns or 0
    behind = {
        pair.secondary_volume: pair.model_copy(update={"image_until_ns": floor_ns})
        for pair in document.pairs
        if pair.image_ns and not pair.suspended
    }
    return document.with_pairs(behind).changed(hold_floor_ns=None)


def with_duplex(document: SessionDocument, secondary_volumes: Iterable[str]) -> SessionDocument:
    """The group that completes these pairs has been committed."""
    reached = set(secondary_volumes)
    return document.with_pairs(
        {
            pair.secondary_volume: pair.model_copy(
                update={
                    "duplex": True,
                    "complete": True,
                    "image_ns": 0,
                    "image_until_ns": 0,
                    "suspend_reason": "",
                }
            )
            for pair in document.pairs
            if pair.secondary_volume in reached
        }
    )


def with_pairs_added(
    document: SessionDocument, sources: Iterable[SourceDocument], pairs: Iterable[tuple[str, str, str]]
) -> SessionDocument:
    """Add primaries by name and pairs (primary name, primary volume, secondary volume). Raises RefusedError.

    A primary that is named again may come with a new address; nothing else of it changes.
    """
    if document.is_over:
        raise ConflictError(
            f"session {document.name!r} is {document.state}: delete it and create a new one",
            session=document.name,
        )
    members = list(document.sources)
    known = {source.name: number for number, source in enumerate(members)}
    for source in sources:
        if source.name in known:
            member = members[known[source.name]]
            members[known[source.name]] = member.model_copy(update={"address": source.address})
        else:
            known[source.name] = len(members)
            members.append(source)
    grown = list(document.pairs)
    # By either end, the place of the first pair that has it: a new pair is told of the first one in its way.
    secondaries: dict[str, int] = {}
    primaries: dict[tuple[int, str], int] = {}
    for place, pair in enumerate(grown):
        secondaries.setdefault(pair.secondary_volume, place)
        primaries.setdefault((pair.source, pair.primary_volume), place)
    for primary, primary_volume, secondary_volume in pairs:
        if primary not in known:
            raise RefusedError(
                f"pair {primary}:{primary_volume} names no primary of the session: add --primary {primary}=ADDRESS"
            )
        ends = (known[primary], primary_volume)
        secondary_place = secondaries.setdefault(secondary_volume, len(grown))
        primary_place = primaries.setdefault(ends, len(grown))
        if secondary_place < len(grown) and secondary_place <= primary_place:
            raise ConflictError(
                f"volume {secondary_volume!r} is a secondary of session {document.name!r} already"
            )
        if primary_place < len(grown):
            raise ConflictError(f"volume {primary}:{primary_volume} is in session {document.name!r} already")
        grown.append(
            PairDocument(source=ends[0], primary_volume=primary_volume, secondary_volume=secondary_volume)
        )
    return document.changed(sources=tuple(members), pairs=tuple(grown))


def with_settings(document: SessionDocument, **settings: object) -> SessionDocument:
    """Change the settings that are given (fields of the document or of its policy), keep the others."""
    if document.is_over:
        raise ConflictError(
            f"session {document.name!r} is {document.state}: its settings have no effect any more",
            session=document.name,
        )
    of_policy = {name: settings.pop(name) for name in settings.keys() & SessionPolicy.model_fields.keys()}
    return document.changed(**settings, policy=document.policy.changed(**of_policy))


def with_priorities(document: SessionDocument, priorities: Mapping[str, int]) -> SessionDocument:
    """Change the priorities of pairs, by secondary volume. Raises NotFoundError."""
    changes = {
        pair.secondary_volume: pair.model_copy(update={"priority": priorities[pair.secondary_volume]})
        for pair in document.pairs
        if pair.secondary_volume in priorities
    }
    if missing := priorities.keys() - changes.keys():
        raise NotFoundError(
            f"session {document.name!r} has no pair with secondary volume {min(missing)!r}",
            volume=min(missing),
        )
    return document.with_pairs(changes)


def with_pair_pace(document: SessionDocument, paces: Mapping[str, PaceLevel | None]) -> SessionDocument:
    """Give pairs pace levels of their own, None for the session's. Raises NotFoundError.

    Pairs are named by their secondary volume, or as PRIMARY:VOLUME.
    """
    changes: dict[str, PairDocument] = {}
    by_name: dict[str, PairDocument] = {}
    for each in document.pairs:
        by_name.setdefault(each.secondary_volume, each)
        by_name.setdefault(f"{document.sources[each.source].name}:{each.primary_volume}", each)
    for name, pace in paces.items():
        pair = by_name.get(name)
        if pair is None:
            raise NotFoundError(f"session {document.name!r} has no pair {name!r}", volume=name)
        changes[pair.secondary_volume] = pair.model_copy(update={"pace": pace})
    return document.with_pairs(changes)


def with_pairs_removing(document: SessionDocument, secondary_volumes: Iterable[str]) -> SessionDocument:
    """Mark pairs as leaving; they are gone once their primary has confirmed. Raises NotFoundError."""
    if document.is_over:
        raise ConflictError(
            f"session {document.name!r} is {document.state}: its pairs have ended", session=document.name
        )
    by_name = {pair.secondary_volume: pair for pair in document.pairs}
    changes: dict[str, PairDocument] = {}
    for name in secondary_volumes:
        pair = by_name.get(name)
        if pair is None:
            raise NotFoundError(
                f"session {document.name!r} has no pair with secondary volume {name!r}", volume=name
            )
        changes[name] = pair.model_copy(update={"removing": True})
    return document.with_pairs(changes)


def incompleteness(document: SessionDocument) -> str:
    """Return why the committed image is not one instant of all volumes, "" when it is."""
    if not document.pairs:
        return "the session has no pairs"
    missing = [pair.secondary_volume for pair in document.pairs if not pair.complete]
    stale = [p.secondary_volume for p in document.pairs if p.complete and (p.suspended or p.image_ns)]
    reasons = []
    if missing:
        reasons.append(f"the first copy of {', '.join(missing)} is not complete")
    if stale:
        reasons.append(
            f"{', '.join(stale)} was suspended, and its image is of an earlier time than the others'"
        )
    return "; ".join(reasons)


def recovering(
    document: SessionDocument, limit_ns: int, now_ns: int, *, allow_incomplete: bool
) -> SessionDocument:
    """ACTIVE or SUSPENDED -> RECOVERY: the epoch rises, nothing is received any more, commits go to `limit_ns`."""
    if document.is_over:
        return document
    if not document.is_image_complete and not allow_incomplete:
        raise ConflictError(
            f"session {document.name!r} has no complete image: {incompleteness(document)}. "
            "Recover with --incomplete only if a partial image is better than none",
            session=document.name,
        )
    return document.changed(
        state=SessionState.RECOVERY,
        epoch=document.epoch + 1,
        recovered_ns=limit_ns,
        since_ns=now_ns,
        reason="",
        suspend_at_ns=0,
        suspend_reason="",
        suspended_at_ns=0,
    )


def rewinding(
    document: SessionDocument, at_ns: int, from_ns: int, kept_copy: str, now_ns: int
) -> SessionDocument:
    """ACTIVE or SUSPENDED -> RECOVERY, to `at_ns` of the history. The image of `from_ns` is kept as `kept_copy`."""
    document = recovering(document, at_ns, now_ns, allow_incomplete=True)
    return document.changed(rewound_from_ns=from_ns, kept_copy=kept_copy)


def not_rewound(document: SessionDocument, reason: str) -> SessionDocument:
    """In RECOVERY: the history was given up before the volumes could go back. They stay at the image that was there."""
    return document.changed(recovered_ns=document.rewound_from_ns, rewound_from_ns=0, reason=cut_text(reason))


def ended(document: SessionDocument, now_ns: int) -> SessionDocument:
    """RECOVERY -> ENDED: the volumes are in service here. Of those that went back all are of one time."""
    if document.rewound_from_ns:
        one_time = {"suspended": False, "suspend_at_ns": 0, "image_ns": 0, "image_until_ns": 0}
        pairs = {pair.secondary_volume: pair.model_copy(update=one_time) for pair in document.pairs}
        document = document.with_pairs(pairs)
    return document.changed(state=SessionState.ENDED, since_ns=now_ns, hold_floor_ns=None)


def with_fenced(
    document: SessionDocument, source: int, last_write_ns: int, marked_tracks: Mapping[str, int]
) -> SessionDocument:
    """Primary `source` has ended the session; what it said of its own writes is kept. `marked_tracks` by volume name."""
    document = document.with_source(source, fenced=True, last_write_ns=last_write_ns)
    return document.with_pairs(
        {
            pair.secondary_volume: pair.model_copy(
                update={"primary_marked_tracks": marked_tracks.get(pair.primary_volume)}
            )
            for pair in document.pairs
            if pair.source == source
        }
    )


def begun_again(document: SessionDocument, now_ns: int) -> SessionDocument:
    """ENDED -> ACTIVE under a newer epoch, to take the primaries' content: a forced start after a split.

    The image in service is kept, as in any resync, until everything that either side wrote has been copied. Pairs that were
    suspended by themselves are copied too: their images hold writes that are given up, and are of no time of the session.
    """
    if document.state is not SessionState.ENDED:
        raise ConflictError(
            f"session {document.name!r} is {document.state}: only one that was recovered can be resynchronised after a "
            "split; a suspended session is resumed",
            session=document.name,
        )
    sources = tuple(
        source.model_copy(
            update={"incarnation": "", "fenced": False, "resume_wanted": False, "last_write_ns": None}
        )
        for source in document.sources
    )
    pairs = tuple(
        pair.model_copy(
            update={
                "duplex": False,
                "primary_marked_tracks": None,
                "suspend_at_ns": 0,
                "suspended": False,
                "suspend_reason": "",
            }
        )
        for pair in document.pairs
    )
    return document.changed(
        state=SessionState.ACTIVE,
        epoch=document.epoch + 1,
        reason="",
        cause=SuspendCause.COMMAND,
        suspend_at_ns=0,
        suspended_at_ns=0,
        since_ns=now_ns,
        sources=sources,
        pairs=pairs,
        hold_floor_ns=document.recovered_ns if any(pair.complete for pair in pairs) else None,
        recovered_ns=0,
        rewound_from_ns=0,
        kept_copy="",
    )
