"""Sessions whose marks survive power loss: what is suspected after one, and when the policy or the pairs change."""

from __future__ import annotations

from random import Random

import pytest

from isochrone.capture.activity import Change
from isochrone.capture.activity_map import Suspicion
from isochrone.capture.own_marks import OwnMarks
from isochrone.capture.settings import CaptureSettings
from isochrone.link.messages import Ack, Configure, WantedVolume
from isochrone.model.choices import MarkPolicy
from isochrone.model.policy import SessionPolicy
from isochrone.store.disk import File
from support.cores import SECOND_NS, SESSION_ID, WINDOW_OPEN, PrimarySite, hello
from support.store import TRACK, run

TRACKS = 256
REGION_TRACKS = 8
NAME = f"activity-{SESSION_ID}-1"
SETTINGS = CaptureSettings(
    prune_interval_ns=0,
    activity_region_bytes=REGION_TRACKS * TRACK,
    activity_regions_max=2,
    activity_idle_ns=SECOND_NS,
    activity_trim_interval_ns=SECOND_NS,
)


def trim(site: PrimarySite) -> None:
    """What the shell does with time."""
    site.clock.advance(2 * SECOND_NS)
    if site.primary.activities.trim_is_due(site.clock()):
        site.primary.activities.begin_trim(site.clock())
        run(site.pool.sync())
        site.primary.activities.end_trim()


def quiet_site(marks: MarkPolicy = MarkPolicy.DURABLE) -> PrimarySite:
    """A site whose volume has 256 tracks, all written, copied and hardened, and was left alone for a while."""
    site = PrimarySite(volumes={"a": TRACKS}, settings=SETTINGS, pool_tracks=2 * TRACKS)
    site.write("a", 0, *([1] * TRACKS))
    stream = site.open_stream(marks=marks)
    settle(site)
    assert site.marked() == set()
    run(site.pool.sync())
    site.disk.sync()
    assert stream.volumes[1].activity is None or stream.volumes[1].activity.active_count == 2
    return site


def settle(site: PrimarySite) -> int:
    """Everything is copied and hardened; returns how many tracks were sent."""
    stream = site.primary.streams[SESSION_ID]
    replica = site.copied()
    for _ in range(4):
        stream.acknowledged(Ack(replica.through_ns, WINDOW_OPEN, replica.through_ns))
        for record_set in site.sets():
            replica.receive(record_set)
        trim(site)
    return replica.track_count


def lose_power(site: PrimarySite, seed: int = 1) -> None:
    site.disk.power_loss(Random(seed))
    site.start()


@pytest.mark.parametrize("seed", range(8))
def test_p2_6_after_a_power_loss_what_is_copied_is_bounded_by_the_active_regions(seed: int) -> None:
    site = quiet_site()
    site.write("a", 100, 7)
    site.write("a", 200, 8)
    lose_power(site, seed)
    assert site.marked() >= {100, 200}
    assert len(site.marked()) <= 4 * REGION_TRACKS
    assert site.primary.distrusted == {"s": {"a": Suspicion(4, TRACKS // REGION_TRACKS)}}
    known = hello(received_through_ns=site.primary.streams[SESSION_ID].document.hardened_record_ns)
    site.open_stream(greeting=known, not_empty=["a"], marks=MarkPolicy.DURABLE)
    assert 2 <= settle(site) <= 4 * REGION_TRACKS


def test_with_marks_in_memory_everything_is_suspected() -> None:
    site = quiet_site(MarkPolicy.MEMORY)
    site.write("a", 100, 7)
    lose_power(site)
    assert site.marked() == set(range(TRACKS))
    assert site.primary.distrusted == {"s": {"a": Suspicion(32, 32)}}


def test_a_write_that_did_not_ask_makes_its_region_durable_before_the_data() -> None:
    site = quiet_site()
    calls: list[str] = []
    activity = site.primary.streams[SESSION_ID].volumes[1].activity
    assert activity is not None
    make_durable = activity._make_durable

    def count(file: File) -> None:
        calls.append("sync")
        make_durable(file)

    activity._make_durable = count
    volume = site.pool.volumes["a"]
    site.primary.write(volume, 100 * TRACK, memoryview(bytes(TRACK)))
    site.primary.write(volume, 101 * TRACK, memoryview(bytes(TRACK)))
    assert calls == ["sync"]


def test_one_sync_serves_all_that_asked_and_then_nobody_waits() -> None:
    site = quiet_site()
    volume = site.pool.volumes["a"]
    changes = [Change(track * TRACK, TRACK, zeroes=False) for track in range(0, TRACKS, REGION_TRACKS)]
    assert not site.primary.activities.ask(volume, changes)
    steps = site.primary.activities.activate()
    next(steps)()
    assert not site.primary.activities.ask(volume, changes), "the step is not over"
    assert list(steps) == []
    assert site.primary.activities.ask(volume, changes)


def test_a_trim_of_what_is_not_mapped_asks_for_nothing() -> None:
    site = quiet_site()
    site.trim("a", 64, 8)
    settle(site)
    site.write("a", 0, 1)
    site.write("a", 200, 1)
    settle(site)
    volume = site.pool.volumes["a"]
    assert not site.primary.activities.ask(volume, [Change(64 * TRACK, 8 * TRACK, zeroes=False)])
    assert site.primary.activities.ask(volume, [Change(64 * TRACK, 8 * TRACK, zeroes=True)])


def test_the_policy_is_followed_while_the_session_runs() -> None:
    site = quiet_site(MarkPolicy.MEMORY)
    captured = site.primary.streams[SESSION_ID].volumes[1]
    wanted = [WantedVolume("a", True)]
    site.say(1, Configure(2, wanted, SessionPolicy(mark_policy=MarkPolicy.DURABLE)))
    assert captured.activity is not None
    assert captured.activity.active_count == 32, "what was written before is not known"
    trim(site)
    trim(site)
    site.say(1, Configure(3, wanted, SessionPolicy(mark_policy=MarkPolicy.MEMORY)))
    assert site.primary.streams[SESSION_ID].volumes[1].activity is None
    assert NAME not in site.disk.names()


@pytest.mark.parametrize("seed", range(8))
def test_a_file_whose_removal_a_power_loss_undoes_is_not_believed(seed: int) -> None:
    site = quiet_site()
    site.say(1, Configure(2, [WantedVolume("a", True)], SessionPolicy(mark_policy=MarkPolicy.MEMORY)))
    site.write("a", 100, 7)
    lose_power(site, seed)
    assert site.marked() == set(range(TRACKS)), "the write was not told to the file"


def test_what_is_suspected_anew_is_durably_active_first() -> None:
    site = quiet_site()
    site.say(1, Configure(2, [WantedVolume("a", False)], SessionPolicy(mark_policy=MarkPolicy.DURABLE)))
    assert site.marked() == set(range(TRACKS))
    lose_power(site)
    assert site.marked() == set(range(TRACKS))


def test_marks_closed_well_are_believed_and_regions_kept() -> None:
    site = quiet_site()
    site.write("a", 100, 7)
    site.primary.close()
    site.pool.close()
    site.disk.sync()
    site.disk.kill()
    lose_power(site)
    assert site.marked() == {100}
    assert site.primary.distrusted == {}


def serving_site(policy: SessionPolicy) -> PrimarySite:
    """A site that recovered a session and serves its volume of 256 tracks; it was left alone for a while since."""
    site = PrimarySite(volumes={"a": TRACKS}, settings=SETTINGS, pool_tracks=2 * TRACKS)
    site.write("a", 0, *([1] * TRACKS))
    serve(site, policy)
    for _ in range(4):
        trim(site)
    run(site.pool.sync())
    site.disk.sync()
    return site


def serve(site: PrimarySite, policy: SessionPolicy) -> None:
    OwnMarks(site.primary, "c" * 32, "site").serve(
        SESSION_ID, "s", 2, recovered_ns=1, volumes=[1], heirs=(), policy=policy
    )


@pytest.mark.parametrize("seed", range(4))
def test_durable_marks_stay_durable_when_the_other_side_is_recovered(seed: int) -> None:
    site = serving_site(SessionPolicy(mark_policy=MarkPolicy.DURABLE))
    site.write("a", 100, 7)
    site.write("a", 200, 8)
    lose_power(site, seed)
    assert site.marked() >= {100, 200}
    assert len(site.marked()) <= 4 * REGION_TRACKS


def test_a_recovered_side_with_marks_in_memory_suspects_everything() -> None:
    site = serving_site(SessionPolicy())
    site.write("a", 100, 7)
    lose_power(site)
    assert site.marked() == set(range(TRACKS))


def test_a_recovery_that_is_repeated_under_another_policy_keeps_the_marks() -> None:
    site = serving_site(SessionPolicy())
    site.write("a", 100, 7)
    serve(site, SessionPolicy(mark_policy=MarkPolicy.DURABLE))
    assert site.marked() == {100}
    for _ in range(4):
        trim(site)
    run(site.pool.sync())
    site.disk.sync()
    lose_power(site)
    assert 100 in site.marked()
    assert len(site.marked()) <= 3 * REGION_TRACKS
