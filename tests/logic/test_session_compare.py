"""Comparison between two sites: what is only suspected is not sent when it is equal, come what may (P2.1, P2.6)."""

from __future__ import annotations

from random import Random

import pytest
from xxhash import xxh3_128_digest

from isochrone.link.messages import (
    COMPARE_QUERIES_MAX,
    Compare,
    Compared,
    CopyProgress,
    RecordSet,
    Refused,
    VolumeCopy,
)
from isochrone.model.choices import ComparePolicy
from isochrone.session.explain import blocked_on
from support.cores import (
    MILLISECOND_NS,
    SESSION_ID,
    PrimarySite,
    SecondarySite,
    Wire,
    form_and_harden,
    images_equal,
    mover_of,
)
from support.cores import data as received
from support.store import TRACK, run, tracks

SIZE = 64
WRITTEN = 40


def duplex(compare: ComparePolicy = ComparePolicy.SUSPECTED) -> Wire:
    """A pair in DUPLEX, hardened at both sites; tracks 0 to 39 hold their number plus 1."""
    secondary = SecondarySite()
    document = secondary.session.document
    secondary.session.change_settings(document.changed(policy=document.policy.changed(compare=compare)))
    wire = Wire(secondary, PrimarySite(secondary.clock, volumes={"a": SIZE}))
    primary = wire.primaries[0]
    primary.write("a", 0, *range(1, WRITTEN + 1))
    wire.run_until(lambda: is_duplex(wire))
    run(primary.pool.sync())
    return wire


def is_duplex(wire: Wire) -> bool:
    return wire.secondary.session.document.pairs[0].duplex


def lose_power(wire: Wire) -> None:
    """The primary's host loses power and comes back; the link breaks."""
    wire.cut()
    wire.primaries[0].disk.power_loss(Random(1))
    wire.primaries[0].start()


def resync(wire: Wire) -> int:
    """Step until the resync is over; returns the bytes that it sent."""
    before = wire.secondary.session.mover.bytes_received
    wire.run_until(lambda: not is_duplex(wire))
    wire.run_until(lambda: is_duplex(wire))
    assert images_equal(wire.primaries[0], wire.secondary, "a")
    return wire.secondary.session.mover.bytes_received - before


def last_copy(wire: Wire) -> VolumeCopy:
    return wire.secondary.session.contacts[0].copies[1]


def test_p2_6_after_a_power_loss_only_what_differs_is_sent() -> None:
    wire = duplex()
    wire.cut()
    lose_power(wire)
    primary = wire.primaries[0]
    primary.write("a", 3, 99)
    primary.pool.volumes["a"].write(7 * TRACK, tracks(98))  # nobody captured or marked it
    assert resync(wire) < 3 * TRACK
    copy = last_copy(wire)
    assert (copy.compared_count, copy.equal_count) == (SIZE - 1, SIZE - 2)


def test_the_first_copy_compares_nothing() -> None:
    assert last_copy(duplex()).compared_count == 0


def test_by_policy_nothing_is_compared() -> None:
    wire = duplex(ComparePolicy.NEVER)
    lose_power(wire)
    assert resync(wire) > WRITTEN * TRACK
    assert last_copy(wire).compared_count == 0


def test_by_policy_certain_marks_are_compared_too() -> None:
    wire = duplex(ComparePolicy.ALWAYS)
    wire.secondary.session.suspend("by the test")
    wire.steps(2)
    wire.primaries[0].write("a", 5, 6, 7, 66)  # two of the three hold what they held
    wire.secondary.session.resume()
    assert resync(wire) < 2 * TRACK
    assert (last_copy(wire).compared_count, last_copy(wire).equal_count) == (3, 2)


def test_a_link_lost_in_the_middle_of_a_comparison_costs_only_the_questions() -> None:
    wire = duplex()
    lose_power(wire)
    before = wire.secondary.session.mover.bytes_received
    wire.run_until(lambda: not is_duplex(wire))
    for _ in range(5):
        wire.primaries[0].primary.tick()  # asks; the answers never come
        wire.cut()
        wire.steps(3)
    wire.run_until(lambda: is_duplex(wire))
    assert images_equal(wire.primaries[0], wire.secondary, "a")
    assert wire.secondary.session.mover.bytes_received - before < 2 * TRACK


def test_what_the_secondary_cannot_read_is_said_to_differ_and_sent() -> None:
    wire = duplex()
    lose_power(wire)
    volume = wire.secondary.pool.volumes["a"]
    wire.secondary.disk.spoil_track(volume, 5)
    assert TRACK < resync(wire) < 3 * TRACK
    assert (last_copy(wire).compared_count, last_copy(wire).equal_count) == (SIZE, SIZE - 1)


def test_a_primary_closes_a_link_that_answers_what_was_not_asked() -> None:
    wire = duplex()
    lose_power(wire)
    primary = wire.primaries[0]
    wire.run_until(lambda: bool(primary.primary.streams[SESSION_ID].is_copying))
    link = wire.links[0]
    for answer in (Compared(9, (True,)), Compared(0, (True,))):
        said = primary.say(link, answer)
        assert isinstance(said[-1], Refused)
        assert "was not asked" in said[-1].text


def test_an_answer_about_another_number_of_tracks_is_refused_and_they_are_asked_for_again() -> None:
    site = PrimarySite(volumes={"a": 8})
    stream = site.open_stream(not_empty=["a"])
    asked = [m for _ in range(3) for m in site.tick() if isinstance(m, Compare)]
    assert [query.runs for query in asked] == [((0, 8),)]
    said = site.say(1, Compared(asked[0].number, (False,) * 7))
    assert isinstance(said[-1], Refused)
    assert stream.volumes[1].tracks_remaining == 8


def test_no_question_is_asked_before_everything_older_was_sent() -> None:
    site = PrimarySite(volumes={"a": 8})
    site.open_stream(not_empty=["a"])
    sent = [message for _ in range(5) for message in site.tick()]
    (query,) = (m for m in sent if isinstance(m, Compare))
    before = sent[: sent.index(query)]
    assert max(m.through_ns for m in before if isinstance(m, RecordSet)) >= query.began_ns


# The mover


def query_of(*tags: int, number: int = 1, began_ns: int = 0, first: int = 0) -> Compare:
    """A query whose tracks hold `tags` at the primary."""
    hashes = b"".join(xxh3_128_digest(tracks(tag), seed=3) for tag in tags)
    return Compare(number, 1, began_ns, 3, ((first, len(tags)),), hashes)


def test_the_newest_staged_content_is_compared_not_the_committed() -> None:
    mover, pool = mover_of(0)
    mover.receive(0, received(10, 0, 1, 2, 3))
    form_and_harden(mover, pool, 20 * MILLISECOND_NS)
    mover.commit(10)
    mover.receive(0, received(20, 1, 9))
    mover.compare(0, query_of(1, 9, 3, 0, began_ns=20), 1)
    mover.compare(0, query_of(1, 2, 3, number=2), 1)
    answers = [answer for _, answer in mover.answers(lambda: 0)]
    assert answers == [Compared(1, (False,) * 4), Compared(2, (False, True, False))]
    form_and_harden(mover, pool, 40 * MILLISECOND_NS)
    mover.commit(20)  # the staged entry is in the table now: same answer
    mover.compare(0, query_of(1, 9, 3, 0, number=3, began_ns=20), 1)
    assert mover.answers(lambda: 0) == [(0, Compared(3, (False,) * 4))]


def test_what_a_late_primary_sent_counts_though_it_is_older_than_what_is_committed() -> None:
    mover, pool = mover_of(0)
    mover.receive(0, received(100, 3, 5))
    form_and_harden(mover, pool, 20 * MILLISECOND_NS)
    mover.commit(100)
    assert mover.consistency_ns == 100
    mover.add_source(1)
    mover.receive(1, received(40, 0, 7))
    mover.compare(1, query_of(0, 7, began_ns=40), 1)
    mover.compare(1, query_of(7, number=2, began_ns=40), 1)
    assert mover.answers(lambda: 0) == [(1, Compared(1, (True, True))), (1, Compared(2, (False,)))]


def test_what_was_staged_and_dropped_again_does_not_count() -> None:
    mover, pool = mover_of(0)
    mover.receive(0, received(10, 0, 1))
    mover.compare(0, query_of(1), 1)
    assert mover.answers(lambda: 0) == [(0, Compared(1, (False,)))]
    pool.discard_volume(1, 1)
    mover.compare(0, query_of(1, number=2), 1)
    assert mover.answers(lambda: 0) == [(0, Compared(2, (True,)))]


def test_while_records_wait_for_room_so_does_the_answer() -> None:
    mover, pool = mover_of(0, pool_tracks=16)
    mover.receive(0, received(10, 0, *range(1, 9)))
    pool.create_volume("b", 16 * TRACK).write(0, tracks(*range(1, 9)))
    mover.receive(0, received(20, 1, 9))
    assert mover.full_reason
    mover.compare(0, query_of(9, began_ns=20, first=1), 1)
    assert mover.answers(lambda: 0) == []
    pool.volumes["b"].zero(0, 8 * TRACK, allocate=False)
    run(pool.sync())
    mover.stage_waiting()
    assert mover.answers(lambda: 0) == [(0, Compared(1, (False,)))]


def test_answers_stop_when_their_time_is_up() -> None:
    mover, _ = mover_of(0)
    for number in (1, 2, 3):
        mover.compare(0, query_of(1, number=number), 1)
    now_ns = iter(range(0, 10**12, 3 * MILLISECOND_NS))
    assert [a.number for _, a in mover.answers(lambda: next(now_ns))] == [1, 2]
    assert [a.number for _, a in mover.answers(lambda: next(now_ns))] == [3]


@pytest.mark.parametrize("fault", ["too many", "too early"])
def test_a_primary_that_breaks_the_rules_of_comparing_is_refused(fault: str) -> None:
    mover, _ = mover_of(0)
    if fault == "too early":
        with pytest.raises(Exception, match="before the records that it is about"):
            mover.compare(0, query_of(1, began_ns=5), 1)
        return
    for number in range(COMPARE_QUERIES_MAX):
        mover.compare(0, query_of(1, number=number + 1), 1)
    with pytest.raises(Exception, match="comparisons wait for an answer"):
        mover.compare(0, query_of(1, number=99), 1)


def test_a_new_link_forgets_the_questions_of_the_old_one() -> None:
    mover, _ = mover_of(0)
    mover.compare(0, query_of(1), 1)
    mover.restart_window(0)
    assert mover.answers(lambda: 0) == []


# Unreadable tracks of the primary


def test_unreadable_tracks_keep_the_old_image_in_service_and_are_named() -> None:
    wire = duplex()
    session, primary = wire.secondary.session, wire.primaries[0]
    session.suspend("by the test")
    wire.steps(2)
    primary.write("a", 3, 91, 92, 93)
    for track in (3, 4):
        primary.disk.spoil_track(primary.pool.volumes["a"], track)
    image = wire.secondary.pool.volumes["a"].read(0, SIZE * TRACK)
    session.resume()
    wire.steps(40)
    assert not is_duplex(wire)
    assert wire.secondary.pool.volumes["a"].read(0, SIZE * TRACK) == image
    text = blocked_on(session, wire.secondary.clock())
    assert "primary p1, volume a: 2 tracks cannot be read there (3-4)" in text
    assert last_copy(wire).unreadable_count == 2
    primary.write("a", 3, 94, 95)
    wire.run_until(lambda: is_duplex(wire))
    assert images_equal(primary, wire.secondary, "a")
    assert "cannot be read" not in blocked_on(session, wire.secondary.clock())


def test_an_unreadable_track_that_the_device_reads_after_all_completes_the_copy() -> None:
    wire = duplex()
    session, primary = wire.secondary.session, wire.primaries[0]
    lose_power(wire)
    primary.disk.spoil_track(primary.pool.volumes["a"], 8)
    wire.steps(30)
    assert (is_duplex(wire), last_copy(wire).unreadable_count) == (False, 1)
    primary.disk.bad_sectors.heal()
    wire.run_until(lambda: is_duplex(wire))
    assert images_equal(primary, wire.secondary, "a")
    assert not session.contacts[0].copies[1].unreadable


def test_progress_is_told_only_of_volumes_whose_copy_moved() -> None:
    site = PrimarySite(volumes={"a": 4, "b": 4})
    site.write("a", 0, 1)
    site.open_stream(["a", "b"])
    told = [m for _ in range(60) for m in site.tick() if isinstance(m, CopyProgress)]
    assert {volume.number for volume in told[0].volumes} == {1, 2}
    assert sum(len(message.volumes) for message in told) <= 4
