"""The oracle bites: every broken promise is found and named, and nothing that is right is."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from isochrone.model.errors import InternalError
from isochrone.model.records import RecordKind
from isochrone.testing.history import TOKEN_BYTES, History, Write, expand
from isochrone.testing.oracle import InFlight, Oracle, OracleError

TRACK = 512
DATA, LOG = "a/data", "b/log"
Contents = dict[str, list[bytes]]


class Story:
    """A short history over two volumes: time 10 per write, each acknowledged unless told otherwise."""

    def __init__(self) -> None:
        self.history = History(TRACK)
        self.oracle = Oracle(self.history)
        self.history.add_volume(DATA, 8)
        self.history.add_volume(LOG, 4)
        self.now_ns = 0

    def write(self, volume: str, track: int, track_count: int = 1, **how: object) -> Write:
        write = self.history.issue(volume, track, track_count, how.get("kind", RecordKind.DATA))  # type: ignore[arg-type]
        if how.get("stamped", True):
            self.now_ns += 10
            self.history.stamp(write, self.now_ns)
        if how.get("acknowledged", True):
            self.history.acknowledge(write)
        return write

    def image(self, through_ns: int | None = None) -> Contents:
        return self.history.image_at(self.now_ns if through_ns is None else through_ns)

    def track(self, write: Write, index: int = 0) -> bytes:
        return expand(write.tokens[index], TRACK)


@pytest.fixture
def story() -> Story:
    """10: log 0, 20: data 0-3, 30: log 1, 40: data 2 again, 50: zero data 0-1, 60: log 0 again."""
    told = Story()
    told.write(LOG, 0)
    told.write(DATA, 0, 4)
    told.write(LOG, 1)
    told.write(DATA, 2)
    told.write(DATA, 0, 2, kind=RecordKind.ZERO)
    told.write(LOG, 0)
    return told


def refused(check: Callable[[], object], *words: str) -> OracleError:
    with pytest.raises(OracleError) as caught:
        check()
    for word in words:
        assert word in str(caught.value)
    return caught.value


def test_the_image_of_every_time_passes_at_that_time_only(story: Story) -> None:
    times = range(0, 70, 10)
    for taken_ns in times:
        image = story.image(taken_ns)
        assert story.oracle.check_prefix_any(image) == taken_ns
        story.oracle.check_image(image, taken_ns)
        story.oracle.check_image(image, taken_ns + 9)
        for other_ns in set(times) - {taken_ns}:
            refused(lambda i=image, t=other_ns: story.oracle.check_image(i, t))  # type: ignore[misc]


def test_images_hold_what_a_simple_replay_holds() -> None:
    choose = random.Random(7)
    told = Story()
    plain: Contents = {DATA: [bytes(TRACK)] * 8, LOG: [bytes(TRACK)] * 4}
    for _ in range(200):
        volume, limit = choose.choice([(DATA, 8), (LOG, 4)])
        track = choose.randrange(limit)
        count = choose.randint(1, limit - track)
        kind = choose.choice([RecordKind.DATA, RecordKind.DATA, RecordKind.ZERO])
        write = told.write(volume, track, count, kind=kind, acknowledged=choose.random() < 0.5)
        payload = told.history.split_tracks(told.history.payload(write))
        plain[volume][track : track + count] = payload
        told.oracle.check_image(plain, told.now_ns)
        assert told.oracle.check_prefix_any(plain) == told.now_ns


def test_a_missing_write_is_named(story: Story) -> None:
    image = story.image(30)
    image[DATA][3] = bytes(TRACK)
    error = refused(lambda: story.oracle.check_image(image, 30), "a/data track 3 holds zeros", "time 20")
    assert "write 2 (a/data tracks 0-3, time 20, acknowledged) is torn: 3 tracks" in str(error)
    refused(lambda: story.oracle.check_prefix_any(image), "no time; it comes closest at")


def test_a_later_write_is_named(story: Story) -> None:
    image = story.image(30)
    image[LOG][0] = story.image(60)[LOG][0]
    refused(lambda: story.oracle.check_image(image, 30), "b/log track 0 holds write 6", "time 60", "write 1")
    refused(lambda: story.oracle.check_prefix_any(image))


def test_an_old_write_that_came_back_is_found(story: Story) -> None:
    image = story.image()
    image[DATA][2] = story.image(20)[DATA][2]
    refused(lambda: story.oracle.check_image(image, 60), "a/data track 2 holds write 2", "write 4")
    refused(lambda: story.oracle.check_prefix_any(image))


def test_volumes_at_two_times_are_no_prefix(story: Story) -> None:
    image = {DATA: story.image(40)[DATA], LOG: story.image(20)[LOG]}
    refused(lambda: story.oracle.check_prefix_any(image), "no time")
    assert story.oracle.check_prefix_any({DATA: image[DATA]}, [DATA]) == 40
    assert story.oracle.check_prefix_any({LOG: image[LOG]}, [LOG]) == 20


def test_half_of_a_write_is_torn_also_at_its_own_time(story: Story) -> None:
    late = story.write(DATA, 4, 4)
    image = story.image()
    for through_ns, missing in ((60, [4, 5, 6]), (70, [7])):
        half = {volume: list(contents) for volume, contents in image.items()}
        for track in missing:
            half[DATA][track] = bytes(TRACK)
        refused(lambda h=half, t=through_ns: story.oracle.check_image(h, t), f"{late} is torn")  # type: ignore[misc]


def test_writes_of_one_time_come_together_or_not_at_all() -> None:
    told = Story()
    first, second = told.history.issue(DATA, 0), told.history.issue(LOG, 0)
    for write in (first, second):
        told.history.stamp(write, 5)
        told.history.acknowledge(write)
    assert told.oracle.check_prefix_any(told.image(5)) == 5
    half = told.image(0) | {DATA: told.image(5)[DATA]}
    refused(lambda: told.oracle.check_prefix_any(half))


def test_bytes_mixed_within_a_track_are_found(story: Story) -> None:
    image = story.image()
    image[DATA][3] = image[DATA][3][:TOKEN_BYTES] + image[DATA][2][TOKEN_BYTES:]
    refused(lambda: story.oracle.check_image(image, 60), "a mixture of contents")
    refused(lambda: story.oracle.check_prefix_any(image), "a mixture")


@pytest.mark.parametrize("place", [(DATA, 4), (LOG, 3)])
def test_content_of_another_place_is_found(story: Story, place: tuple[str, int]) -> None:
    image = story.image()
    image[place[0]][place[1]] = image[DATA][3]
    refused(lambda: story.oracle.check_image(image, 60), "what write 2", "wrote to a/data track 3")


def test_content_of_nobody_and_of_uncaptured_writes_is_found(story: Story) -> None:
    image = story.image()
    image[DATA][4] = b"x" * TRACK
    refused(lambda: story.oracle.check_image(image, 60), "which nobody wrote")
    image[DATA][4] = story.track(story.write(DATA, 4, stamped=False, acknowledged=False))
    refused(lambda: story.oracle.check_image(image, 60), "time None, not acknowledged")


def test_an_image_of_the_wrong_shape_is_found(story: Story) -> None:
    image = story.image()
    refused(lambda: story.oracle.check_image({DATA: image[DATA]}, 60), "b/log is not in the image")
    refused(lambda: story.oracle.check_prefix_any({DATA: image[DATA]}), "b/log is not in the image")
    refused(lambda: story.oracle.check_image(image, 60, [DATA]), "b/log does not belong")
    refused(lambda: story.oracle.check_image(image | {LOG: image[LOG][:3]}, 60), "has 3 tracks, not 4")
    short = image | {LOG: [*image[LOG][:3], image[LOG][3][:-1]]}
    refused(lambda: story.oracle.check_image(short, 60), "b/log track 3 holds a mixture")


def test_stamped_writes_count_whether_acknowledged_or_not(story: Story) -> None:
    before = story.image()
    story.write(DATA, 7, acknowledged=False)
    story.oracle.check_image(story.image(), 70)
    refused(lambda: story.oracle.check_image(before, 70))


def test_times_that_honour_dependencies_pass(story: Story) -> None:
    first, second = story.history.issue(DATA, 0), story.history.issue(LOG, 0)
    story.history.stamp(second, 70)  # concurrent writes may be stamped in any order
    story.history.stamp(first, 80)
    story.history.acknowledge(first)
    story.history.acknowledge(second)
    story.oracle.check_dependencies()


@pytest.mark.parametrize("time_ns", [59, 60])
def test_a_dependent_write_with_no_later_time_is_found(story: Story, time_ns: int) -> None:
    write = story.history.issue(DATA, 0)
    story.history.stamp(write, time_ns)
    refused(story.oracle.check_dependencies, "write 7", "issued after write 6", "not later")


def test_times_shared_within_a_volume_and_uncaptured_acknowledgements_are_found(story: Story) -> None:
    for track in (0, 1):
        story.history.stamp(story.history.issue(DATA, track), 70)
    refused(story.oracle.check_dependencies, "2 writes of a/data share the time 70")
    story.write(DATA, 5, stamped=False)
    refused(story.oracle.check_dependencies, "write 9", "never captured")


def test_an_acknowledged_write_is_there_or_in_flight_or_marked(story: Story) -> None:
    check = story.oracle.check_nothing_forgotten
    check(story.image(), [], {})
    old = story.image(50)
    refused(lambda: check(old, [], {}), "b/log track 0: write 6", "neither there, in flight nor marked")
    check(old, [InFlight(LOG, 0, 1, 60)], {})
    check(old, [InFlight(LOG, 0, 4, 75)], {})
    check(old, [], {LOG: {0}})
    refused(lambda: check(old, [InFlight(LOG, 0, 1, 59)], {}))
    refused(lambda: check(old, [InFlight(LOG, 1, 3, 60)], {}))
    refused(lambda: check(old, [InFlight(DATA, 0, 1, 60)], {LOG: {1}, DATA: {0}}))
    check({DATA: old[DATA]}, [], {})


def test_a_zeroed_track_that_still_has_data_is_forgotten(story: Story) -> None:
    refused(
        lambda: story.oracle.check_nothing_forgotten(story.image(40) | {LOG: story.image()[LOG]}, [], {}),
        "zero 5",
    )


def test_a_later_unacknowledged_write_is_as_good_and_an_unacknowledged_one_is_not_missed(
    story: Story,
) -> None:
    before = story.image()
    story.write(LOG, 0, acknowledged=False)
    story.oracle.check_nothing_forgotten(story.image(), [], {})
    story.oracle.check_nothing_forgotten(before, [], {})


def test_a_killed_controller_keeps_all_acknowledged_writes(story: Story) -> None:
    story.oracle.check_restart(story.image(), power_lost=False)
    refused(
        lambda: story.oracle.check_restart(story.image(50), power_lost=False),
        "does not hold what was acknowledged",
        "b/log track 0 holds write 1",
        "not write 6",
    )


def test_a_killed_controller_may_keep_any_part_of_an_open_write(story: Story) -> None:
    write = story.write(DATA, 4, 3, stamped=False, acknowledged=False)
    image = story.image()
    image[DATA][5] = story.track(write, 1)
    story.oracle.check_restart(image, power_lost=False)
    story.history.settle(image, 75, power_lost=False)
    story.now_ns = 80
    story.oracle.check_image(image, 80)
    refused(lambda: story.oracle.check_image(image, 70), "time None")
    image[DATA][4] = story.track(write, 0)
    refused(lambda: story.oracle.check_restart(image, power_lost=False), "a/data track 4 holds write 7")
    with pytest.raises(InternalError, match="ended before"):
        story.history.acknowledge(write)


def test_what_was_open_and_seen_after_one_restart_does_not_change_at_the_next(story: Story) -> None:
    write = story.write(LOG, 2, acknowledged=False)
    kept = story.image()
    story.history.settle(kept, 75, power_lost=False)
    story.oracle.check_restart(kept, power_lost=False)
    gone = story.image(60)
    refused(lambda: story.oracle.check_restart(gone, power_lost=False), "b/log track 2 holds zeros")
    assert story.oracle.check_prefix_any(kept) == 75
    assert write.closed


def test_a_power_loss_keeps_what_was_flushed(story: Story) -> None:
    early = story.history.begin_flush()
    story.write(DATA, 6)
    story.history.end_flush(DATA, early)
    story.history.end_flush(LOG, early)
    lost = story.image(60)
    story.oracle.check_restart(lost, power_lost=True)
    story.oracle.check_restart(story.image(), power_lost=True)
    refused(lambda: story.oracle.check_restart(lost, power_lost=False), "write 7")
    refused(
        lambda: story.oracle.check_restart(story.image(50), power_lost=True),
        "what was flushed",
        "b/log track 0",
    )


def test_a_flush_covers_only_its_volume_and_what_was_acknowledged_before_it_began(story: Story) -> None:
    story.history.end_flush(LOG, story.history.begin_flush())
    story.oracle.check_restart({DATA: story.image(0)[DATA]}, power_lost=True)
    late = story.history.issue(LOG, 3)
    flush = story.history.begin_flush()
    story.history.stamp(late, 70)
    story.history.acknowledge(late)
    story.history.end_flush(LOG, flush)
    story.oracle.check_restart({LOG: story.image(60)[LOG]}, power_lost=True)


def test_what_a_power_loss_took_back_is_right_from_then_on(story: Story) -> None:
    before = story.image()
    after = story.image(30)
    story.oracle.check_restart(after, power_lost=True)
    story.history.settle(after, 100, power_lost=True)
    story.oracle.check_image(before, 60)
    story.oracle.check_image(after, 100)
    story.oracle.check_nothing_forgotten(after, [], {})
    refused(lambda: story.oracle.check_nothing_forgotten(before, [], {}), "observation")
    refused(lambda: story.oracle.check_restart(before, power_lost=True), "observation")


def test_what_survived_one_power_loss_survives_the_next(story: Story) -> None:
    kept = story.image()
    story.history.settle(kept, 75, power_lost=True)
    story.oracle.check_restart(kept, power_lost=True)
    refused(lambda: story.oracle.check_restart(story.image(50), power_lost=True), "b/log track 0")


def test_a_refused_write_must_not_appear(story: Story) -> None:
    write = story.history.issue(DATA, 5)
    story.history.refuse(write)
    story.oracle.check_restart(story.image(), power_lost=False)
    image = story.image()
    image[DATA][5] = story.track(write)
    refused(lambda: story.oracle.check_restart(image, power_lost=False), "write 7")
    refused(lambda: story.oracle.check_image(image, 60), "write 7")


def test_a_history_that_contradicts_itself_is_a_fault_of_the_test(story: Story) -> None:
    write = story.history.writes[0]
    with pytest.raises(InternalError, match="stamped twice"):
        story.history.stamp(write, 99)
    with pytest.raises(InternalError, match="ended before"):
        story.history.acknowledge(write)
    with pytest.raises(InternalError, match="cannot be refused"):
        story.history.refuse(write)
    with pytest.raises(InternalError, match="not on volume"):
        story.history.issue(DATA, 7, 2)
    with pytest.raises(InternalError, match="already"):
        story.history.add_volume(DATA, 1)


def test_many_findings_are_counted_and_a_few_are_shown() -> None:
    told = Story()
    told.history.add_volume("c", 100)
    told.write("c", 0, 100)
    error = refused(lambda: told.oracle.check_image(told.image(0), 10), "and 88 more")
    assert len(error.findings) == 100
