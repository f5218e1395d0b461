"""Marks are believed only when they can be: a power loss at any moment, also after a clean stop or during a start."""

from __future__ import annotations

from random import Random

import pytest

from isochrone.capture.activity_map import Suspicion
from isochrone.link.messages import Suspend
from isochrone.testing.sim_disk import SimDisk, SimulatedCrash, crash_nth
from support.cores import SESSION_ID, Clock, PrimarySite, SecondarySite, Wire


def suspended_site() -> PrimarySite:
    """A primary that copied everything, was suspended, and was written to since: track 3 of `a` differs."""
    site = PrimarySite(volumes={"a": 16, "b": 16})
    site.write("a", 0, *range(1, 9))
    stream = site.open_stream(("a", "b"))
    site.copied()
    stream.hardened_ns = stream.consistency_ns = site.clock() + 1  # the mover has all of it
    stream.prune(site.clock(), lambda _: None)
    assert not site.marked("a")
    site.say(1, Suspend("by the operator"))
    for call in site.pool.sync():
        call()
    site.write("a", 3, 77)
    for call in site.pool.sync():
        call()
    assert 3 in site.marked("a")
    return site


def stop(site: PrimarySite) -> None:
    """A clean stop."""
    site.primary.close()
    site.pool.close()


@pytest.mark.parametrize("seed", range(6))
def test_marks_outlive_a_power_loss_that_follows_a_clean_stop(seed: int) -> None:
    site = suspended_site()
    stop(site)
    site.disk.power_loss(Random(seed))
    site.start()
    assert 3 in site.marked("a")


def test_a_clean_stop_and_start_keep_the_marks_as_they_are() -> None:
    site = suspended_site()
    stop(site)
    site.start()
    assert site.marked("a") == {3}
    assert site.marked("b") == set()


def test_volumes_whose_marks_were_not_trusted_are_named_until_the_next_start() -> None:
    site = suspended_site()
    site.disk.power_loss(Random(1))
    site.start()
    assert site.primary.distrusted == {"s": {"a": Suspicion(1, 1), "b": Suspicion(1, 1)}}
    site.restart()
    assert site.primary.distrusted == {}
    stop(site)
    site.start()
    assert site.primary.distrusted == {}


@pytest.mark.parametrize("seed", range(6))
def test_marks_set_after_a_clean_stop_are_not_trusted_after_a_power_loss(seed: int) -> None:
    site = suspended_site()
    stop(site)
    site.start()
    site.write("a", 9, 5)
    for call in site.pool.sync():
        call()
    site.disk.power_loss(Random(seed))
    site.start()
    assert {3, 9} <= site.marked("a")


@pytest.mark.parametrize("operation", range(1, 80))
def test_a_start_that_dies_after_a_power_loss_does_not_make_the_marks_trusted(operation: int) -> None:
    site = suspended_site()
    lose_power(site.disk, operation)
    site.disk.hook = crash_nth(operation)
    try:
        site.start()
    except SimulatedCrash:
        site.disk.kill()
        site.start()
    else:
        site.disk.hook = None
    assert site.primary.streams[SESSION_ID].document.suspended
    assert 3 in site.marked("a")
    assert 3 in site.marked("b"), "a start that died has made the marks of the second volume trusted"


def lose_power(disk: SimDisk, seed: int) -> None:
    disk.power_loss(Random(seed))


def test_what_a_resync_has_committed_is_recovered_after_a_power_loss_of_the_secondary() -> None:
    clock = Clock()
    primary = PrimarySite(clock)
    primary.write("a", 0, 1, 2, 3)
    secondary = SecondarySite(clock)
    wire = Wire(secondary, primary)
    wire.run_until(lambda: secondary.session.document.pairs[0].duplex)
    wire.restart_primary()
    primary.write("a", 1, 9)
    wire.run_until(lambda: secondary.session.document.hold_floor_ns is not None)
    floor_ns = secondary.session.mover.consistency_ns
    for _ in range(300):
        wire.secondary.clock.advance(10_000_000)
        primary.links.link_pending_bytes(wire.links[0], 0)
        primary.primary.tick()
        secondary.session.tick()
        while wire.deliver():
            pass
        if secondary.session.mover.consistency_ns > floor_ns:
            break
        secondary.harden()
    else:
        raise AssertionError("the resync does not end")
    secondary.disk.power_loss(Random(2))
    secondary.reopen()
    secondary.session.recover(drain=False, allow_incomplete=False)
    secondary.harden()
    assert secondary.pool.volumes["a"].read(4096, 1) == bytes([9])
