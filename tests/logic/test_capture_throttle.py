"""Delays of acknowledgements, volume by volume, waiting for room at the limit, and what movers are told of both."""

from __future__ import annotations

import pytest

from isochrone.capture.document import CaptureState
from isochrone.capture.settings import CaptureSettings
from isochrone.capture.throttle import OVERSHOOT
from isochrone.link.messages import Ack, CaptureReport, Configure, WantedVolume
from isochrone.model.choices import OverflowPolicy, PaceLevel
from isochrone.model.policy import SessionPolicy
from support.cores import MILLISECOND_NS, SECOND_NS, WINDOW_OPEN, PrimarySite, hello
from support.store import TRACK

SIZE = TRACK + 24
LIMIT = 10
OTHER_ID = "5f" * 16
HOLD_NS = 50 * MILLISECOND_NS


def paced(
    policy: SessionPolicy,
    volumes: dict[str, PaceLevel | None] | None = None,
    *,
    limit: int = LIMIT,
    clock_error_ns: int = 0,
) -> PrimarySite:
    """A site whose session captures volumes with the given levels of their own, and whose mover takes nothing."""
    wanted = volumes or {"a": None}
    settings = CaptureSettings(side_file_bytes_max=limit * SIZE, clock_error_ns=clock_error_ns)
    site = PrimarySite(volumes=dict.fromkeys(wanted, 64), settings=settings)
    site.links.link_opened(1)
    site.say(1, hello())
    configure(site, policy, wanted)
    site.say(1, Ack(0, 0, 0))
    for _ in range(5):
        site.tick()
    return site


def configure(site: PrimarySite, policy: SessionPolicy, volumes: dict[str, PaceLevel | None]) -> None:
    wanted = [WantedVolume(name, True, pace=pace) for name, pace in volumes.items()]
    site.say(1, Configure(1, wanted, policy))
    # Nothing is to be copied: the volumes are empty here and count as equal there.
    for stream in site.primary.streams.values():
        for captured in stream.volumes.values():
            captured.copier = None
            captured.change_map.freeze()
    site.primary.rebuild_routes()


def holding(limit: int = LIMIT, hold_ns: int = HOLD_NS) -> PrimarySite:
    return paced(
        SessionPolicy(overflow_policy=OverflowPolicy.HOLD, pace_level=PaceLevel.OFF, hold_ns_max=hold_ns),
        limit=limit,
    )


def one(site: PrimarySite):  # type: ignore[no-untyped-def]
    return next(iter(site.primary.streams.values()))


def drain(site: PrimarySite) -> None:
    """The mover takes and hardens everything."""
    stream = one(site)
    stream.acknowledged(Ack(0, WINDOW_OPEN, 0))
    site.sets(ticks=3)
    stream.acknowledged(Ack(stream.sent_through_ns, WINDOW_OPEN, 0))


# Pacing


@pytest.mark.parametrize("level", [PaceLevel.GENTLE, PaceLevel.STEADY, PaceLevel.FIRM])
def test_delays_grow_with_the_backlog_and_never_pass_the_maximum(level: PaceLevel) -> None:
    site = paced(SessionPolicy(pace_level=level, pace_delay_ns_max=MILLISECOND_NS))
    delays = [site.write("a", track, 1) for track in range(LIMIT)]
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (0, MILLISECOND_NS)


def test_a_session_that_is_not_to_be_paced_is_not() -> None:
    site = paced(SessionPolicy(pace_level=PaceLevel.OFF))
    assert {site.write("a", track, 1) for track in range(LIMIT)} == {0}
    site = paced(SessionPolicy(overflow_policy=OverflowPolicy.SUSPEND))
    assert {site.write("a", track, 1) for track in range(LIMIT)} == {0}


def test_a_volume_may_have_a_level_of_its_own() -> None:
    policy = SessionPolicy(pace_level=PaceLevel.STEADY, pace_delay_ns_max=MILLISECOND_NS)
    site = paced(policy, {"a": None, "b": PaceLevel.OFF, "c": PaceLevel.FIRM}, limit=20)
    for track in range(8):
        site.write("b", track, 1)
    assert [site.write(name, 9, 1) for name in ("a", "b")] == [0, 0]
    assert 0 < site.write("c", 9, 1) < MILLISECOND_NS


def test_levels_are_changed_while_the_session_runs() -> None:
    site = paced(SessionPolicy(pace_level=PaceLevel.OFF))
    for track in range(9):
        site.write("a", track, 1)
    configure(site, SessionPolicy(pace_delay_ns_max=7), {"a": None})
    assert site.write("a", 9, 1) == 7
    configure(site, SessionPolicy(pace_delay_ns_max=7), {"a": PaceLevel.OFF})
    site.primary.side_file.bytes_max *= 2
    assert site.write("a", 9, 1) == 0


def test_a_volume_of_two_sessions_is_delayed_by_the_firmer_and_put_down_to_it() -> None:
    site = paced(SessionPolicy(pace_delay_ns_max=1000), limit=20)
    first = one(site)
    site.links.link_opened(2)
    site.say(2, hello(session_id=OTHER_ID, session_name="t"))
    firm = SessionPolicy(pace_level=PaceLevel.FIRM, pace_delay_ns_max=5000)
    site.say(2, Configure(1, [WantedVolume("a", True)], firm))
    second = site.primary.streams[OTHER_ID]
    for captured in second.volumes.values():
        captured.copier = None
    site.primary.rebuild_routes()
    delays = [site.write("a", track, 1) for track in range(18)]
    assert delays[-1] == 5000
    assert first.delay_totals.held_ns == 0
    assert second.delay_totals.held_ns == sum(delays)
    assert second.delay_totals.write_count == sum(delay > 0 for delay in delays)


def test_the_clock_error_is_waited_out_also_where_pacing_asks_for_less() -> None:
    site = paced(SessionPolicy(pace_delay_ns_max=4), clock_error_ns=5)
    assert {site.write("a", track, 1) for track in range(LIMIT)} == {5}


# Waiting for room


def test_writes_wait_for_room_at_the_limit_and_leave_as_soon_as_it_is_there() -> None:
    site = holding()
    for track in range(LIMIT):
        assert site.write("a", track, 1) == 0
    assert site.write("a", 11, 1) == 1
    wait_ns = site.primary.room_wait_ns(1)
    assert 0 < wait_ns <= HOLD_NS
    site.tick(advance_ns=10 * MILLISECOND_NS)
    assert site.released_count == 0
    drain(site)
    site.tick(advance_ns=MILLISECOND_NS)
    assert (site.released_count, one(site).state) == (1, CaptureState.STREAMING)
    assert site.write("a", 12, 1) == 0
    assert one(site).delay_totals.write_count == 1
    assert 10 * MILLISECOND_NS <= one(site).delay_totals.held_ns <= HOLD_NS


def test_a_wait_in_vain_ends_at_its_bound_with_the_session_suspended_and_the_tracks_marked() -> None:
    site = holding()
    for track in range(LIMIT + 1):
        site.write("a", track, 1)
    until_ns = site.clock.ns + site.primary.room_wait_ns(1)
    site.tick(advance_ns=HOLD_NS)
    assert site.clock.ns >= until_ns
    assert (site.released_count, one(site).state) == (1, CaptureState.SUSPENDED)
    assert "waited for room in vain" in one(site).document.reason
    assert site.marked() >= set(range(LIMIT + 1))
    assert site.write("a", 20, 1) == 0


def test_no_write_of_a_wait_may_wait_longer_than_its_end() -> None:
    site = holding(limit=4 * LIMIT)
    for track in range(4 * LIMIT + 1):
        site.write("a", track, 1)
    end_ns = site.clock.ns + site.primary.room_wait_ns(1)
    site.clock.advance(HOLD_NS // 2)
    site.write("a", 60, 1)
    assert site.clock.ns + site.primary.room_wait_ns(1) <= end_ns + 10
    assert one(site).state is CaptureState.STREAMING


def test_writes_in_flight_past_the_overshoot_suspend_at_once() -> None:
    site = holding(limit=LIMIT)
    count = 0
    while one(site).state is CaptureState.STREAMING:
        site.write("a", count % 64, 1)
        count += 1
    assert count * SIZE > LIMIT * SIZE * (OVERSHOOT + 1) // OVERSHOOT
    assert count <= LIMIT + LIMIT // OVERSHOOT + 2
    site.tick(advance_ns=1)
    assert site.primary.room_wait_ns(1) == 0
    assert site.released_count == 1


def test_a_suspension_by_command_lets_everybody_go() -> None:
    site = holding()
    for track in range(LIMIT + 1):
        site.write("a", track, 1)
    site.primary.suspend(one(site), "by command")
    site.tick(advance_ns=1)
    assert site.released_count == 1


def test_a_wait_of_no_length_suspends_at_once() -> None:
    site = holding(hold_ns=0)
    for track in range(LIMIT + 1):
        site.write("a", track, 1)
    assert one(site).state is CaptureState.SUSPENDED


# What movers are told


def reports(site: PrimarySite, ticks: int, advance_ns: int = 100 * MILLISECOND_NS) -> list[CaptureReport]:
    return [m for _ in range(ticks) for m in site.tick(advance_ns=advance_ns) if isinstance(m, CaptureReport)]


def test_an_idle_session_reports_nothing() -> None:
    assert reports(paced(SessionPolicy()), 50) == []


def test_a_growing_backlog_is_reported_about_once_a_second() -> None:
    site = paced(SessionPolicy(pace_level=PaceLevel.OFF), limit=1000)
    told = []
    for track in range(50):
        site.write("a", track % 64, 1)
        told += reports(site, 1)
    assert 4 <= len(told) <= 6
    assert [report.side_file_bytes for report in told] == sorted({report.side_file_bytes for report in told})
    assert told[-1].capacity_bytes == 1000 * SIZE
    assert told[-1].full_in_s == pytest.approx(95, rel=0.5)  # 10 records a second, 950 to go


def test_a_delay_that_begins_or_ends_is_reported_at_once_with_who_and_how_much() -> None:
    site = paced(SessionPolicy(pace_delay_ns_max=MILLISECOND_NS), {"a": None, "b": PaceLevel.OFF})
    for track in range(9):
        site.write("b", track, 1)
    delay_ns = site.write("a", 9, 1)
    (report,) = reports(site, 1)
    assert [delay.volume for delay in report.volumes] == ["a"]
    (delay,) = report.volumes
    assert delay.p50_ns == delay.p99_ns == delay_ns == MILLISECOND_NS
    assert (delay.write_count, delay.delay_ns) == (1, MILLISECOND_NS)
    assert (report.held_write_count, report.held_ns) == (1, MILLISECOND_NS)
    drain(site)
    (report,) = reports(site, 1)
    assert [delay.delay_ns for delay in report.volumes] == [0]


def test_a_wait_for_room_is_reported_at_once() -> None:
    site = holding(hold_ns=SECOND_NS)
    for track in range(LIMIT + 1):
        site.write("a", track, 1)
    assert site.primary.room_wait_ns(1)
    assert reports(site, 1)[-1].waiting_write_count == 1
    drain(site)
    assert reports(site, 2)[-1].waiting_write_count == 0


def test_a_mover_that_comes_back_is_told_anew() -> None:
    site = paced(SessionPolicy(pace_delay_ns_max=MILLISECOND_NS))
    for track in range(9):
        site.write("a", track, 1)
    (first,) = reports(site, 1)
    stream = one(site)
    site.links.link_lost(1)
    site.links.link_opened(2)
    site.say(2, hello(incarnation=stream.incarnation))
    site.say(2, Configure(1, [WantedVolume("a", True)], stream.document.policy))
    told = [m for m in site.tick(2, advance_ns=100 * MILLISECOND_NS) if isinstance(m, CaptureReport)]
    assert [report.side_file_bytes for report in told] == [first.side_file_bytes]
