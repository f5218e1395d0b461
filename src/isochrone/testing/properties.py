"""The properties of the loss layer, each a function that is named after it (S2, S3, S5, S6) and of going back.

A function gets evidence in plain terms (histories, images, marks), knows nothing of how the product works, and raises
PropertyError with the property's number and words. Who gathers the evidence, and when, is in `judge` (at any instant)
and `watch` (at every tick, message and death of a primary).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isochrone.testing.history import ZERO_TOKEN, History, Place, Write, expand
from isochrone.testing.oracle import OracleError

PROPERTIES: Final = {
    "P2.1": "after a resync with no further writes, the secondary equals the primary byte for byte",
    "P2.2": "once DUPLEX, no track of the secondary goes back in time",
    "P2.3": "a write acknowledged while mirroring was down is marked or on the secondary, never neither",
    "P2.4": "no update of a track is sent before the pending image of that track",
    "P2.5": "a resync that was broken off at any point and run again gives P2.1",
    "P2.6": "tracks copied are at most the tracks ever dirty, each once, and not the size of the volume",
    "P3.1": "whatever is not hardened at the secondary is marked, at all times, across crash and toggle",
    "P3.2": "once the hardened time has passed a toggle, no mark from before it remains unless it was written again",
    "P3.3": "marks are at most the tracks changed within about two periods of pruning, while mirroring goes on",
    "P3.4": "the marks of a suspended or resyncing volume are never pruned",
    "P5.3": "writes to a source never change a copy of it, and the reverse",
    "P5.5": "a copy of several volumes is of one instant, and there whole or not at all",
    "P6.1": "no image and no promise contains anything later than a record that waits for the device",
    "P6.2": "one track that cannot be stored stops no other",
    "P6.3": "within its budget a session is not suspended for a track that cannot be stored",
    "P6.4": "a volume tells of waiting tracks if and only if there are some",
    "P6.5": "when the trouble is over, no track waits longer than a bounded time",
    "PR.1": "an image of any instant of the history is exactly the writes up to it, in all volumes together",
    "PR.2": "an image that could not be made leaves nothing behind",
    "PR.3": "an instant that had a whole image stays within reach until it is given up as the oldest",
    "PR.4": "an instant that a primary was told is kept is known, and stands where it was named",
    "PR.5": "what changed since the instant that the volumes went back to is marked",
}
"""Numbers and words."""

Tracks = NDArray[np.bool_]
"""Which tracks of a volume: shape (track_count,)."""


class PropertyError(OracleError):
    """A property does not hold. `number` says which."""

    def __init__(self, number: str, findings: list[str]) -> None:
        super().__init__(f"{number} is broken: {PROPERTIES[number]}:", findings)
        self.number = number


def check_equal(
    sides: Iterable[tuple[str, bytes, bytes]], track_size_bytes: int, *, after_abort: bool
) -> None:
    """P2.1, and P2.5 when a resync was broken off before: each (pair, primary's bytes, secondary's bytes) is equal."""
    findings = []
    for name, primary, secondary in sides:
        if primary != secondary:
            size = track_size_bytes
            tracks = [
                at // size
                for at in range(0, max(len(primary), len(secondary)), size)
                if primary[at : at + size] != secondary[at : at + size]
            ]
            findings.append(f"pair {name} differs in tracks {tracks}")
    if findings:
        raise PropertyError("P2.5" if after_abort else "P2.1", findings)


def check_never_back(history: History, volume: str, before: Sequence[bytes], now: Sequence[bytes]) -> None:
    """P2.2: every track holds the same as before or something written later.

    Args:
        before, now: content of each track of the secondary of `volume`, at two looks at a pair that is DUPLEX, or whose
            last complete image stays in service.
    """
    findings = []
    for track, (old, new) in enumerate(zip(before, now, strict=True)):
        if old == new:
            continue
        old_times = _times_of(history, (volume, track), history.token_of(old))
        new_times = _times_of(history, (volume, track), history.token_of(new))
        if not new_times or (old_times and max(new_times) < min(old_times)):
            findings.append(f"{volume} track {track} went from times {old_times} to {new_times}")
    if findings:
        raise PropertyError("P2.2", findings)


def _times_of(history: History, place: Place, token: bytes | None) -> list[int]:
    """Return the times at which a place may have come to hold `token`."""
    at_first = [0] if token == ZERO_TOKEN else []
    return at_first + [
        write.time_ns
        for write in history.by_place.get(place, ())
        if write.time_ns is not None and write.token_at(place) == token
    ]


def check_marked_or_there(
    history: History,
    volume: str,
    marked: Tracks,
    secondary: Sequence[bytes] | None,
    committed_ns: int,
    hardened: Mapping[Place, bytes],
    hardened_ns: int,
) -> None:
    """P2.3: the newest acknowledged write of every track is marked, or on the secondary.

    On the secondary means: in the committed image once that is of its time, until then hardened there and waiting.

    Args:
        secondary: content of each track of the committed image, which is of `committed_ns`; None when nobody can look.
        hardened: tokens as of `hardened_ns`, through which everything is durable at the secondary. Zeros over zeros
            leave no mark.
    """
    findings = []
    for track in np.flatnonzero(~marked).tolist():
        place = (volume, track)
        write = history.acknowledged.get(place)
        if write is None or write.time_ns is None:
            continue
        if write.time_ns > hardened_ns:
            if write.token_at(place) == hardened.get(place, ZERO_TOKEN):
                continue
            findings.append(f"{write} is neither marked (track {track}) nor hardened through {hardened_ns}")
        elif secondary is not None and write.time_ns <= committed_ns:
            times = _times_of(history, place, history.token_of(secondary[track]))
            if not times or max(times) < write.time_ns:
                findings.append(
                    f"{write} is not marked (track {track}), and the image of {committed_ns} lacks it"
                )
    if findings:
        raise PropertyError("P2.3", findings)


def check_image_first(volume: str, pending: Tracks, track: int, track_count: int, time_ns: int) -> None:
    """P2.4: an update record is of no track whose image is still `pending`."""
    early = np.flatnonzero(pending[track : track + track_count]) + track
    if len(early):
        raise PropertyError(
            "P2.4", [f"{volume}: the update at {time_ns} of tracks {early.tolist()} came before their images"]
        )


def check_copied_once(volume: str, pending: Tracks, track: int, track_count: int) -> None:
    """P2.6: an image is of tracks that were marked when the copy began, and comes once."""
    again = np.flatnonzero(~pending[track : track + track_count]) + track
    if len(again):
        raise PropertyError(
            "P2.6", [f"{volume}: tracks {again.tolist()} were copied again, or were never marked"]
        )


def check_only_dirty(history: History, volume: str, to_copy: Tracks) -> None:
    """P2.6: only tracks that were ever written are copied. Not for volumes of whose marks nothing is known."""
    clean = [track for track in np.flatnonzero(to_copy).tolist() if not history.by_place.get((volume, track))]
    if clean:
        raise PropertyError("P2.6", [f"{volume}: tracks {clean} are to be copied and were never written"])


def check_superset(
    volume: str,
    held: Mapping[Place, bytes],
    hardened: Mapping[Place, bytes],
    marked: Tracks,
    among: Iterable[int],
) -> None:
    """P3.1: of the tracks `among`, each that holds something else than what is surely hardened is marked.

    Args:
        held, hardened: tokens by place, as the primary has them now and as of the hardened time.
    """
    findings = [
        f"{volume} track {track}"
        for track in among
        if not marked[track]
        and held.get((volume, track), ZERO_TOKEN) != hardened.get((volume, track), ZERO_TOKEN)
    ]
    if findings:
        raise PropertyError("P3.1", findings)


def check_released(history: History, volume: str, marked: Tracks, toggle_ns: int) -> None:
    """P3.2: after the release of a toggle at `toggle_ns`, each mark left is of a track written since."""
    findings = [
        f"{volume} track {track}, last written at {writes[-1].time_ns if writes else None}, toggle {toggle_ns}"
        for track in np.flatnonzero(marked).tolist()
        if not _written_since(writes := history.by_place.get((volume, track), []), toggle_ns)
    ]
    if findings:
        raise PropertyError("P3.2", findings)


def _written_since(writes: list[Write], time_ns: int) -> bool:
    """Whether one of `writes` is later, or was never dated (it failed, or its controller died in it)."""
    return any(write.time_ns is None or write.time_ns > time_ns for write in reversed(writes))


def check_bounded(history: History, volume: str, marked: Tracks, since_ns: int) -> None:
    """P3.3: each mark is of a track written since `since_ns`, which is about two periods of pruning ago."""
    findings = [
        f"{volume} track {track} is marked, and was last written before {since_ns}"
        for track in np.flatnonzero(marked).tolist()
        if not _written_since(history.by_place.get((volume, track), []), since_ns)
    ]
    if findings:
        raise PropertyError("P3.3", findings)


def check_not_pruned(volume: str, before: Tracks, now: Tracks) -> None:
    """P3.4: no mark of a map that was frozen `before` and is `now` is gone."""
    _check_kept("P3.4", volume, before, now, "while the map was frozen")


def check_survived(volume: str, before: Tracks, now: Tracks) -> None:
    """P3.1 across a crash: no mark that the process had when it died is missing in the next one."""
    _check_kept("P3.1", volume, before, now, "after a restart")


def _check_kept(number: str, volume: str, before: Tracks, now: Tracks, what_happened: str) -> None:
    gone = np.flatnonzero(before & ~now).tolist()
    if gone:
        raise PropertyError(number, [f"{volume}: marks of tracks {gone} are gone {what_happened}"])


def check_promises_stop(waiting_ns: int, times_ns: Mapping[str, int]) -> None:
    """P6.1: no time that is told or used, by name, has reached `waiting_ns`, the oldest record that waits."""
    passed = [f"{what}: {time_ns}" for what, time_ns in times_ns.items() if time_ns >= waiting_ns]
    if passed:
        raise PropertyError("P6.1", [f"the record of {waiting_ns} waits", *passed])


def check_others_go_on(waiting_bytes: int, waiting_bytes_max: int, stream_waits_because: str) -> None:
    """P6.2: a stream waits for tracks of the device only when they take all the memory that they may."""
    if "tracks wait" in stream_waits_because and waiting_bytes < waiting_bytes_max:
        raise PropertyError(
            "P6.2", [f"{waiting_bytes} of {waiting_bytes_max} bytes wait", stream_waits_because]
        )


def check_patience(is_suspended_for_it: bool, age_ns: int, track_count: int, budget: tuple[int, int]) -> None:
    """P6.3: a session suspends for tracks that wait only past its budget of (age_ns, tracks)."""
    if is_suspended_for_it and age_ns <= budget[0] and track_count <= budget[1]:
        raise PropertyError(
            "P6.3", [f"{track_count} tracks for {age_ns} ns, of {budget[1]} for {budget[0]} ns"]
        )


def check_told(oldest_ns: int | None, track_count: int, by_volume: Mapping[int, int]) -> None:
    """P6.4: a session with a waiting record says of which volumes how many tracks wait, any other that none does."""
    if (oldest_ns is not None) != (track_count > 0) or track_count != sum(by_volume.values()):
        raise PropertyError(
            "P6.4", [f"oldest {oldest_ns}, {track_count} tracks, by volume {dict(by_volume)}"]
        )


def check_cleared(oldest_ns: int | None, trouble_over_ns: int, now_ns: int, clear_ns_max: int) -> None:
    """P6.5: nothing waits `clear_ns_max` after the trouble was over."""
    if oldest_ns is not None and now_ns - trouble_over_ns > clear_ns_max:
        raise PropertyError("P6.5", [f"the record of {oldest_ns} waits {now_ns - trouble_over_ns} ns later"])


def check_apart(volume: str, before: Sequence[bytes], now: Sequence[bytes]) -> None:
    """P5.3: the tracks of a copy are `now` what they were `before` its source was written again."""
    changed = [track for track, content in enumerate(now) if content != before[track]]
    if changed:
        raise PropertyError("P5.3", [f"tracks {changed} of {volume} changed"])


def check_images_whole(volumes: Collection[str], members: Collection[str], gone: Collection[str]) -> None:
    """P5.5: the `volumes` of images are the `members` of those that are known, and none that was made is `gone`."""
    findings = [f"{name} belongs to no image" for name in sorted(set(volumes) - set(members))]
    findings += [f"{name} is missing from its image" for name in sorted(set(members) - set(volumes))]
    findings += [f"{image} was made, and is gone" for image in sorted(gone)]
    if findings:
        raise PropertyError("P5.5", findings)


def check_exact(
    history: History, volume: str, tracks: Sequence[bytes], tokens: Mapping[Place, bytes], at_ns: int
) -> None:
    """PR.1: `tracks`, the content of an image of `volume`, are `tokens`, what was written up to `at_ns`."""
    size = history.track_size_bytes
    findings = []
    for track, content in enumerate(tracks):
        if content != expand(tokens.get((volume, track), ZERO_TOKEN), size):
            times_ns = _times_of(history, (volume, track), history.token_of(content))
            findings.append(f"{volume} track {track} holds what was written at {times_ns}")
    if findings:
        raise PropertyError("PR.1", [f"the image of {at_ns}", *findings])


def check_no_trace(image: str, volumes: Sequence[str], *, is_known: bool) -> None:
    """PR.2: of an image that was not made there are no `volumes`, and nothing is known."""
    if is_known or volumes:
        raise PropertyError("PR.2", [f"{image} failed, and left {volumes}"])


def check_still_reached(
    seen_ns: Iterable[int], first_ns: int | None, through_ns: int, is_reached: Callable[[int], bool]
) -> None:
    """PR.3: of the times `seen_ns`, of which there were whole images, all from the first one kept on can be reached."""
    lost = [
        f"{at_ns}"
        for at_ns in seen_ns
        if first_ns is not None and first_ns <= at_ns <= through_ns and not is_reached(at_ns)
    ]
    if lost:
        raise PropertyError("PR.3", lost)


def check_instants_known(confirmed: Mapping[int, str], known: Mapping[int, str]) -> None:
    """PR.4: names by time that primaries were told are kept are among those that the secondary knows."""
    lost = [f"{text!r} at {time_ns}" for time_ns, text in confirmed.items() if known.get(time_ns) != text]
    if lost:
        raise PropertyError("PR.4", lost)


def check_instant_between(history: History, time_ns: int, event: int) -> None:
    """PR.4: an instant named at `event` is later than what was acknowledged then, earlier than what was issued after."""
    findings = []
    for write in history.stamped():
        if write.observed or write.time_ns is None:
            continue
        if write.acknowledged_at is not None and write.acknowledged_at <= event and write.time_ns > time_ns:
            findings.append(f"{write} came before the instant {time_ns}")
        elif write.issued_at > event and write.time_ns <= time_ns:
            findings.append(f"{write} came after the instant {time_ns}")
    if findings:
        raise PropertyError("PR.4", findings)


def check_changes_marked(
    volume: str,
    track_count: int,
    then: Mapping[Place, bytes],
    left: Mapping[Place, bytes],
    marked: Tracks | None,
) -> None:
    """PR.5: each track that holds something else `then`, where the volume went back to, than in what it `left` is marked."""
    findings = [
        f"{volume} track {track}"
        for track in range(track_count)
        if then.get((volume, track), ZERO_TOKEN) != left.get((volume, track), ZERO_TOKEN)
        and (marked is None or not marked[track])
    ]
    if findings:
        raise PropertyError("PR.5", findings)
