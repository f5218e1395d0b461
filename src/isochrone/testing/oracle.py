"""The oracle: does what is found keep the promises of the product?

Each check looks at one promise, knows nothing of how the product works, and says in words which writes break it. It
is slow and obvious on purpose.

- `check_image`, `check_prefix_any`: an image is all writes with time <= T and none later, over all volumes.
- `check_dependencies`: the times themselves honour what applications can know: a write issued after another was
  acknowledged has a later time. Only then does a prefix of the times never reorder dependent writes.
- `check_nothing_forgotten`: an acknowledged write is on the secondary, in flight, or marked.
- `check_restart`: a restarted primary volume holds what was acknowledged (after a power loss: flushed), else only
  what was open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from isochrone.testing.history import ZERO_TOKEN, Buffer, History, Image, Place, Write, expand

FINDINGS_SHOWN_MAX: Final = 12


class OracleError(AssertionError):
    """A promise is broken. `findings` has every fault in words; the message shows the first few."""

    def __init__(self, promise: str, findings: list[str]) -> None:
        shown = findings[:FINDINGS_SHOWN_MAX]
        more = [f"... and {len(findings) - len(shown)} more"] if len(findings) > len(shown) else []
        super().__init__("\n  ".join([promise, *shown, *more]))
        self.findings = findings


@dataclass(frozen=True, slots=True)
class InFlight:
    """Tracks of one record between the primary's volume and the secondary's image, wherever it is just now."""

    volume: str
    track: int
    track_count: int
    time_ns: int


class Oracle:
    """The judge of a history. Every check raises OracleError."""

    def __init__(self, history: History) -> None:
        self.history = history

    def check_image(self, image: Image, through_ns: int, volumes: Collection[str] | None = None) -> None:
        """An image is exactly all writes with time <= through_ns.

        It must have every track of `volumes` (None: of all in the history) and nothing else.
        """
        findings = self._shape_findings(image, volumes)
        expected = self.history.state_at(through_ns)
        size = self.history.track_size_bytes
        for volume, contents in image.items():
            for track, content in enumerate(contents):
                place = (volume, track)
                if content != expand(expected.get(place, ZERO_TOKEN), size):
                    findings.append(self._describe(place, content, through_ns))
        if findings:
            findings += self._torn_findings(image, expected)
            raise OracleError(f"the image is not the writes up to {through_ns}:", findings)

    def check_prefix_any(self, image: Image, volumes: Collection[str] | None = None) -> int:
        """An image is exactly all writes up to some time: return the newest such time that is a write's, or 0."""
        shape = self._shape_findings(image, volumes)
        if shape:
            raise OracleError("the image cannot be judged:", shape)
        found = self._tokens(image)
        wrong = {place for place, token in found.items() if token != ZERO_TOKEN}
        best_ns, least = 0, len(wrong)
        for time_ns, writes in groupby(self.history.stamped(), key=lambda write: write.time_ns or 0):
            for write in writes:
                for place in write.places:
                    if place in found:
                        (wrong.discard if found[place] == write.token_at(place) else wrong.add)(place)
            if len(wrong) <= least:
                best_ns, least = time_ns, len(wrong)
        if least:
            try:
                self.check_image(image, best_ns, volumes)
            except OracleError as error:
                raise OracleError(
                    f"the image is the writes up to no time; it comes closest at {best_ns}:", error.findings
                ) from None
        return best_ns

    def check_dependencies(self) -> None:
        """Every acknowledged write has a time, later than those of all acknowledged before it was issued.

        Two writes of one volume never share a time.
        """
        acknowledged = [write for write in self.history.writes if write.acknowledged_at is not None]
        findings = [f"{write} was never captured" for write in acknowledged if write.time_ns is None]
        events = [
            (write.issued_at, "issued", write) for write in self.history.stamped() if not write.observed
        ]
        events += [(write.acknowledged_at or 0, "acknowledged", write) for write in acknowledged]
        newest: Write | None = None
        for _, event, write in sorted(events, key=lambda event: event[0]):
            later = newest is None or (write.time_ns or 0) > (newest.time_ns or 0)
            if event == "acknowledged" and later:
                newest = write
            elif event == "issued" and not later:
                findings.append(
                    f"{write} was issued after {newest} was acknowledged, but its time is not later"
                )
        times = Counter(
            (write.volume, write.time_ns) for write in self.history.stamped() if not write.observed
        )
        findings += [
            f"{count} writes of {key[0]} share the time {key[1]}" for key, count in times.items() if count > 1
        ]
        if findings:
            raise OracleError("the times do not honour the order that applications can know:", findings)

    def check_nothing_forgotten(
        self, secondary: Image, in_flight: Iterable[InFlight], marks: Mapping[str, Collection[int]]
    ) -> None:
        """The newest acknowledged content of every track of an image is there, in flight, or marked.

        Args:
            secondary: the committed image, of any volumes.
            in_flight: records in side files, on links and staged. A later record of the track is as good.
            marks: tracks marked for resync, by volume key, at the primary.
        """
        flying: dict[Place, int] = {}
        for record in in_flight:
            for track in range(record.track, record.track + record.track_count):
                place = (record.volume, track)
                flying[place] = max(flying.get(place, 0), record.time_ns)
        findings = []
        for place, token in self._tokens(secondary).items():
            newest = self._newest(place, lambda write: write.acknowledged_at is not None)
            safe = (
                newest is None
                or place[1] in marks.get(place[0], ())
                or flying.get(place, -1) >= (newest.time_ns or 0)
                or token in self._tokens_from(place, newest)
            )
            if not safe:
                findings.append(
                    f"{place[0]} track {place[1]}: {newest} is neither there, in flight nor marked"
                )
        if findings:
            raise OracleError("acknowledged writes are forgotten:", findings)

    def check_restart(self, image: Image, *, power_lost: bool) -> None:
        """Volumes of a restarted controller hold what was acknowledged, or what was open when it died.

        After a power loss what was flushed must be there; anything later may be. Call it before `History.settle`,
        with the same image.
        """
        findings = []
        newest = self.history.state_at(None)
        size = self.history.track_size_bytes
        for volume, contents in image.items():
            for track, content in enumerate(contents):
                place = (volume, track)
                if content == expand(newest.get(place, ZERO_TOKEN), size):
                    continue  # the newest captured content is right whatever happened
                floor = self._newest(
                    place, lambda write: write.durable if power_lost else write.acknowledged_at is not None
                )
                allowed = self._tokens_from(place, floor)
                allowed |= {write.token_at(place) for write in self._writes_at(place) if write.open}
                if self.history.token_of(content) not in allowed:
                    must = f"{floor} or later" if floor else "zeros or any write"
                    findings.append(f"{volume} track {track} holds {self._name(place, content)}, not {must}")
        if findings:
            lost = "flushed" if power_lost else "acknowledged"
            raise OracleError(f"a restarted volume does not hold what was {lost}:", findings)

    # What the checks share.

    def _tokens(self, image: Image) -> dict[Place, bytes | None]:
        return {
            (volume, track): self.history.token_of(content)
            for volume, contents in image.items()
            for track, content in enumerate(contents)
        }

    def _writes_at(self, place: Place) -> list[Write]:
        return self.history.by_place.get(place, [])

    def _newest(self, place: Place, counts: Callable[[Write], bool]) -> Write | None:
        """Return the stamped write of a place with the latest time, among those that count."""
        stamped = [write for write in self._writes_at(place) if write.time_ns is not None and counts(write)]
        return max(stamped, key=lambda write: (write.time_ns or 0, write.number), default=None)

    def _tokens_from(self, place: Place, floor: Write | None) -> set[bytes]:
        """Return what a place holds after `floor` (None: at first) or after any stamped write later than it."""
        after_ns = -1 if floor is None else floor.time_ns or 0
        later = {
            write.token_at(place) for write in self._writes_at(place) if (write.time_ns or -1) > after_ns
        }
        return later | {_token(floor, place)}

    def _shape_findings(self, image: Image, volumes: Collection[str] | None) -> list[str]:
        counts = self.history.track_counts
        wanted = set(counts if volumes is None else volumes)
        findings = [f"volume {volume} is not in the image" for volume in sorted(wanted - set(image))]
        findings += [
            f"volume {volume} does not belong to the image" for volume in sorted(set(image) - wanted)
        ]
        for volume in sorted(wanted & set(image)):
            if len(image[volume]) != counts[volume]:
                findings.append(f"volume {volume} has {len(image[volume])} tracks, not {counts[volume]}")
        return findings

    def _torn_findings(self, image: Image, expected: Mapping[Place, bytes]) -> list[str]:
        """Name the multi-track writes of which an image has some tracks and lacks others that nothing replaced."""
        found = self._tokens(image)
        findings = []
        for write in self.history.writes:
            if write.tokens[0] == ZERO_TOKEN or write.observed:
                continue
            present = [place for place in write.places if found.get(place) == write.token_at(place)]
            due = [
                place for place in write.places if expected.get(place) == write.token_at(place)
            ] or write.places
            missing = [place for place in due if place not in present]
            if present and missing:
                findings.append(
                    f"{write} is torn: {len(present)} tracks of it are there, {len(missing)} are not"
                )
        return findings

    def _describe(self, place: Place, content: Buffer, through_ns: int) -> str:
        due = self._newest(place, lambda write: (write.time_ns or 0) <= through_ns)
        should = f"it should hold {due}" if due else "nothing was written there"
        return f"{place[0]} track {place[1]} holds {self._name(place, content)}; {should}"

    def _name(self, place: Place, content: Buffer) -> str:
        token = self.history.token_of(content)
        if token is None:
            return f"a mixture of contents, beginning {bytes(content[:16])!r}"
        if token == ZERO_TOKEN:
            return "zeros"
        origin = self.history.origin(token)
        if origin is None:
            return f"{token!r}, which nobody wrote"
        write, home = origin
        return str(write) if home == place else f"what {write} wrote to {home[0]} track {home[1]}"


def _token(write: Write | None, place: Place) -> bytes:
    return ZERO_TOKEN if write is None else write.token_at(place)
