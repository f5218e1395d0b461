"""Each property of the loss layer is told from its violation, and the violation names it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from isochrone.model.records import RecordKind
from isochrone.testing import properties
from isochrone.testing.history import ZERO_TOKEN, History, Write, expand
from isochrone.testing.properties import PROPERTIES, PropertyError, Tracks

TRACK = 512
VOLUME = "a/data"
CHECKED = {
    "P2.1": properties.check_equal,
    "P2.2": properties.check_never_back,
    "P2.3": properties.check_marked_or_there,
    "P2.4": properties.check_image_first,
    "P2.5": properties.check_equal,
    "P2.6": properties.check_copied_once,
    "P3.1": properties.check_superset,
    "P3.2": properties.check_released,
    "P3.3": properties.check_bounded,
    "P3.4": properties.check_not_pruned,
    "P5.3": properties.check_apart,
    "P5.5": properties.check_images_whole,
    "P6.1": properties.check_promises_stop,
    "P6.2": properties.check_others_go_on,
    "P6.3": properties.check_patience,
    "P6.4": properties.check_told,
    "P6.5": properties.check_cleared,
    "PR.1": properties.check_exact,
    "PR.2": properties.check_no_trace,
    "PR.3": properties.check_still_reached,
    "PR.4": properties.check_instants_known,
    "PR.5": properties.check_changes_marked,
}


class Story:
    """Eight tracks; writes are stamped 10, 20, ... and acknowledged."""

    def __init__(self) -> None:
        self.history = History(TRACK)
        self.history.add_volume(VOLUME, 8)
        self.now_ns = 0

    def write(self, track: int, kind: RecordKind = RecordKind.DATA) -> Write:
        write = self.history.issue(VOLUME, track, 1, kind)
        self.now_ns += 10
        self.history.stamp(write, self.now_ns)
        self.history.acknowledge(write)
        return write

    def image(self, through_ns: int) -> list[bytes]:
        return self.history.image_at(through_ns)[VOLUME]


def tracks(*marked: int) -> Tracks:
    result = np.zeros(8, np.bool_)
    result[list(marked)] = True
    return result


def broken(number: str, check: Callable[[], None]) -> str:
    with pytest.raises(PropertyError) as caught:
        check()
    assert caught.value.number == number
    assert str(caught.value).startswith(f"{number} is broken: {PROPERTIES[number]}")
    return str(caught.value)


def test_every_property_has_a_function_that_says_its_number_first() -> None:
    assert CHECKED.keys() == PROPERTIES.keys()
    for number, check in CHECKED.items():
        assert number in (check.__doc__ or "").split(":")[0], number


def test_no_time_may_pass_a_record_that_waits() -> None:
    properties.check_promises_stop(50, {"J": 49, "C": 10})
    assert "J: 50" in broken("P6.1", lambda: properties.check_promises_stop(50, {"J": 50, "C": 49}))


def test_a_stream_may_wait_for_tracks_of_the_device_only_past_their_memory() -> None:
    properties.check_others_go_on(100, 100, "too many tracks wait for the device")
    properties.check_others_go_on(10, 100, "the pool is full")
    broken("P6.2", lambda: properties.check_others_go_on(10, 100, "too many tracks wait for the device"))


def test_a_session_may_suspend_for_waiting_tracks_only_past_its_budget() -> None:
    for age_ns, tracks_waiting in ((11, 1), (1, 4)):
        properties.check_patience(True, age_ns, tracks_waiting, (10, 3))
    properties.check_patience(False, 1, 1, (10, 3))
    broken("P6.3", lambda: properties.check_patience(True, 10, 3, (10, 3)))


def test_waiting_tracks_must_be_told_and_no_others() -> None:
    properties.check_told(None, 0, {})
    properties.check_told(7, 3, {1: 2, 5: 1})
    for oldest_ns, count, by_volume in ((None, 1, {1: 1}), (7, 0, {}), (7, 3, {1: 2})):
        broken("P6.4", lambda o=oldest_ns, c=count, v=by_volume: properties.check_told(o, c, v))  # type: ignore[misc]


def test_waiting_must_end_after_the_trouble() -> None:
    properties.check_cleared(7, 100, 150, 50)
    properties.check_cleared(None, 100, 999, 50)
    broken("P6.5", lambda: properties.check_cleared(7, 100, 151, 50))


def test_sides_must_be_equal() -> None:
    same, other = b"a" * 2 * TRACK, b"a" * TRACK + b"b" * TRACK
    properties.check_equal([("v", same, same)], TRACK, after_abort=True)
    assert "[1]" in broken(
        "P2.1", lambda: properties.check_equal([("v", same, other)], TRACK, after_abort=False)
    )
    broken("P2.5", lambda: properties.check_equal([("v", same, other)], TRACK, after_abort=True))


def test_a_track_must_not_go_back_also_to_zeros() -> None:
    story = Story()
    story.write(2)
    story.write(2)
    story.write(3, RecordKind.ZERO)
    images = [story.image(time_ns) for time_ns in (0, 10, 20, 30)]
    for before, after in pairwise(images):
        properties.check_never_back(story.history, VOLUME, before, after)
    for early, late in ((2, 1), (2, 0), (1, 0)):
        broken(
            "P2.2",
            lambda e=early, x=late: properties.check_never_back(story.history, VOLUME, images[e], images[x]),  # type: ignore[misc]
        )
    foreign = [*images[2][:-1], b"x" * TRACK]
    broken("P2.2", lambda: properties.check_never_back(story.history, VOLUME, images[2], foreign))


def test_an_acknowledged_write_is_marked_or_there() -> None:
    story = Story()
    story.write(1)
    story.write(2)
    story.write(5, RecordKind.ZERO)  # zeros over zeros

    def check(marked: Tracks, image_ns: int | None, committed_ns: int, hardened_ns: int) -> None:
        image = None if image_ns is None else story.image(image_ns)
        hardened = story.history.state_at(hardened_ns)
        properties.check_marked_or_there(
            story.history, VOLUME, marked, image, committed_ns, hardened, hardened_ns
        )

    check(tracks(1, 2), 0, 0, 0)
    check(tracks(2), None, 0, 10)  # hardened, not committed, nobody can look
    check(tracks(2), 10, 10, 10)
    check(tracks(), 20, 20, 20)
    assert "neither marked" in broken("P2.3", lambda: check(tracks(1), 0, 0, 10))
    assert "lacks it" in broken("P2.3", lambda: check(tracks(1), 10, 20, 20))


def test_an_update_must_not_come_before_its_image() -> None:
    properties.check_image_first(VOLUME, tracks(4), 2, 2, 10)
    assert "[4]" in broken("P2.4", lambda: properties.check_image_first(VOLUME, tracks(4), 3, 3, 10))


def test_only_marked_tracks_are_copied_and_each_once() -> None:
    properties.check_copied_once(VOLUME, tracks(3, 4), 3, 2)
    assert "[5]" in broken("P2.6", lambda: properties.check_copied_once(VOLUME, tracks(3, 4), 4, 2))


def test_only_written_tracks_are_copied() -> None:
    story = Story()
    story.write(3)
    properties.check_only_dirty(story.history, VOLUME, tracks(3))
    assert "[7]" in broken("P2.6", lambda: properties.check_only_dirty(story.history, VOLUME, tracks(3, 7)))


def test_marks_cover_what_is_not_hardened() -> None:
    story = Story()
    story.write(1)
    story.write(2)
    held, hardened = story.history.state_at(None), story.history.state_at(10)
    properties.check_superset(VOLUME, held, hardened, tracks(2), range(8))
    properties.check_superset(VOLUME, held, hardened, tracks(), [1, 3])
    assert "track 2" in broken(
        "P3.1", lambda: properties.check_superset(VOLUME, held, hardened, tracks(1), range(8))
    )


def test_marks_survive_a_restart() -> None:
    properties.check_survived(VOLUME, tracks(1), tracks(1, 2))
    broken("P3.1", lambda: properties.check_survived(VOLUME, tracks(1, 2), tracks(1)))


def test_a_release_leaves_only_marks_of_later_writes() -> None:
    story = Story()
    story.write(1)
    story.write(2)
    story.history.issue(VOLUME, 6)  # failed: it marked, and was never dated
    properties.check_released(story.history, VOLUME, tracks(2, 6), 10)
    assert "track 1" in broken(
        "P3.2", lambda: properties.check_released(story.history, VOLUME, tracks(1, 2), 10)
    )
    broken("P3.2", lambda: properties.check_released(story.history, VOLUME, tracks(7), 0))


def test_marks_are_bounded_by_what_was_written_lately() -> None:
    story = Story()
    story.write(1)
    story.write(2)
    properties.check_bounded(story.history, VOLUME, tracks(2), 10)
    assert "track 1" in broken(
        "P3.3", lambda: properties.check_bounded(story.history, VOLUME, tracks(1, 2), 10)
    )


def test_frozen_marks_stay() -> None:
    properties.check_not_pruned(VOLUME, tracks(1), tracks(1, 2))
    assert "[2]" in broken("P3.4", lambda: properties.check_not_pruned(VOLUME, tracks(1, 2), tracks(1, 3)))


def test_the_newest_acknowledged_write_of_a_place_is_known() -> None:
    story = Story()
    first = story.write(1)
    late = story.history.issue(VOLUME, 1)
    story.history.stamp(late, 500)
    assert story.history.acknowledged[VOLUME, 1] is first
    story.history.acknowledge(late)
    assert story.history.acknowledged[VOLUME, 1] is late
    assert expand(late.tokens[0], TRACK) == story.image(500)[1]
    assert story.history.state_at(10)[VOLUME, 1] == first.tokens[0]
    assert story.history.state_at(5).get((VOLUME, 1), ZERO_TOKEN) == ZERO_TOKEN


def test_a_copy_stays_what_it_was() -> None:
    properties.check_apart("copy", [b"a", b"b"], [b"a", b"b"])
    assert "[1]" in broken("P5.3", lambda: properties.check_apart("copy", [b"a", b"b"], [b"a", b"c"]))


def test_images_are_there_whole_or_not_at_all() -> None:
    properties.check_images_whole(["a~i", "b~i"], ["b~i", "a~i"], [])
    assert "b~i is missing" in broken(
        "P5.5", lambda: properties.check_images_whole(["a~i"], ["a~i", "b~i"], [])
    )
    assert "a~i belongs to no image" in broken("P5.5", lambda: properties.check_images_whole(["a~i"], [], []))
    broken("P5.5", lambda: properties.check_images_whole([], [], ["image/i"]))


def test_an_image_of_an_instant_is_the_writes_up_to_it() -> None:
    story = Story()
    story.write(1)
    story.write(1)
    then = story.history.state_then(10)
    properties.check_exact(story.history, VOLUME, story.image(10), then, 10)
    assert "track 1 holds what was written at [20]" in broken(
        "PR.1", lambda: properties.check_exact(story.history, VOLUME, story.image(20), then, 10)
    )
    broken("PR.1", lambda: properties.check_exact(story.history, VOLUME, story.image(5), then, 10))


def test_an_image_that_failed_leaves_nothing() -> None:
    properties.check_no_trace("image/i", [], is_known=False)
    broken("PR.2", lambda: properties.check_no_trace("image/i", ["a~i"], is_known=False))
    broken("PR.2", lambda: properties.check_no_trace("image/i", [], is_known=True))


def test_what_could_be_reached_can_be_until_it_is_given_up() -> None:
    properties.check_still_reached([10, 30, 50], 20, 40, lambda at_ns: at_ns == 30)
    properties.check_still_reached([10, 30], None, 40, lambda _: False)
    assert "30" in broken("PR.3", lambda: properties.check_still_reached([10, 30], 20, 40, lambda _: False))


def test_confirmed_instants_are_known_and_stand_where_they_were_named() -> None:
    properties.check_instants_known({10: "a"}, {10: "a", 20: "b"})
    broken("PR.4", lambda: properties.check_instants_known({10: "a"}, {20: "a"}))
    story = Story()
    story.write(1)
    event = story.history.event_count
    story.write(2)
    properties.check_instant_between(story.history, 15, event)
    assert "came before" in broken("PR.4", lambda: properties.check_instant_between(story.history, 9, event))
    assert "came after" in broken("PR.4", lambda: properties.check_instant_between(story.history, 20, event))


def test_what_changed_since_the_instant_gone_back_to_is_marked() -> None:
    story = Story()
    story.write(1)
    story.write(2)
    then, left = dict(story.history.state_then(10)), story.history.state_then(20)
    properties.check_changes_marked(VOLUME, 8, then, left, tracks(2))
    assert "track 2" in broken(
        "PR.5", lambda: properties.check_changes_marked(VOLUME, 8, then, left, tracks(1))
    )
    broken("PR.5", lambda: properties.check_changes_marked(VOLUME, 8, then, left, None))
