"""Runs of a `StoreWorld`: random ones, and orders that random ones rarely meet. Each raises when a check fails."""

from __future__ import annotations

from random import Random

from support.store_world import ERRORS, SESSIONS, TRACK, StoreWorld


def sync_while_the_log_switches(seed: int) -> None:
    """The log's datasync has ended in its thread; before the pool hears of it, records follow and the log switches.

    Then a second sync, and power loss: AssertionError unless all is there.
    """
    world = StoreWorld(seed)
    world.create_volume("a", 30 * TRACK)
    world.whole_sync()
    world.write(1, 0, TRACK)
    world.log_write()
    for _ in range(4):  # begin; make the tracks durable; write the barrier; make the log durable
        world.step_sync()
    world.write(1, 2 * TRACK, TRACK)
    world.log_write()
    world.step_checkpoint()
    world.write(1, 4 * TRACK, TRACK)
    world.log_write()
    world.step_sync()
    assert not world.sync_is_running
    world.whole_sync()
    world.crash(power_loss=True)


def overwrite_after_a_copy_is_deleted(seed: int) -> None:
    """The copy shared a whole page; power loss brings it back."""
    world = StoreWorld(seed)
    world.create_volume("a", 4 * TRACK)
    world.write(1, 0, 2 * TRACK)
    world.copy_volume(1, "b")
    world.whole_sync()
    world.delete_volume(2)
    world.write(1, 0, TRACK)
    world.log_write()
    world.crash(power_loss=True)


def overwrite_twice_after_a_copy_is_deleted(seed: int) -> None:
    """The first write makes the page changeable; the second one meets another track of it."""
    world = StoreWorld(seed)
    world.create_volume("a", 4 * TRACK)
    world.write(1, 0, 4 * TRACK)
    world.copy_volume(1, "b")
    world.whole_sync()
    world.delete_volume(2)
    world.write(1, 0, TRACK)
    world.write(1, 2 * TRACK, TRACK)
    world.log_write()
    world.crash(power_loss=True)


def give_a_track_up_again_during_a_sync(seed: int) -> None:
    """The sync makes one giving up of the track durable, not the one that came after it had begun."""
    world = StoreWorld(seed)
    world.create_volume("a", 4 * TRACK)
    world.write(1, 0, TRACK)
    world.copy_volume(1, "b")
    world.whole_sync()
    world.write(2, 0, TRACK)
    world.copy_volume(1, "c")
    world.step_sync()
    world.zero(3, 0, TRACK, allocate=False)
    world.whole_sync()
    world.write(1, 0, TRACK)
    world.log_write()
    world.crash(power_loss=True)


def lose_a_write_to_a_failed_datasync(seed: int) -> None:
    """What the pool shows after its restart is what a power loss leaves."""
    world = StoreWorld(seed)
    world.create_volume("a", 4 * TRACK)
    world.write(1, 0, TRACK)
    world.whole_sync()
    world.write(1, 0, TRACK)
    world.log_write()
    world.fail_next_datasync()
    world.whole_sync()
    world.crash(power_loss=True)


def die_while_opening_after_a_power_loss(seed: int) -> None:
    """At any step of opening: the next open tells of the loss."""
    world = StoreWorld(seed)
    world.create_volume("a", 4 * TRACK)
    world.write(1, 0, TRACK)
    world.whole_sync()
    world.crash(power_loss=True, crash_in_open=1 + seed)


def walk(seed: int, step_count: int = 60) -> None:
    """A seeded run of the commonest operations on small volumes, ending in both crashes; no hypothesis: fast."""
    world, rng = StoreWorld(seed), Random(seed)
    world.create_volume("a", 12 * TRACK)
    world.create_volume("b", 12 * TRACK)
    world.whole_sync()
    for step in range(step_count):
        number = rng.choice(world.numbers())
        track_count = world.model.state.volumes[number].size_bytes // TRACK
        track = rng.randrange(track_count)
        count = min(rng.choice([1, 1, 2, 4]), track_count - track)
        session = rng.choice(SESSIONS)
        known = session in world.model.state.sessions
        match rng.choice(WALK):
            case "write":
                world.write(number, track * TRACK, count * TRACK)
            case "trim":
                world.zero(number, track * TRACK, count * TRACK, allocate=False)
            case "stage":
                world.stage(session, number % 2, [(number, track, count, False)])
            case "commit" if known:
                world.commit(session, world.time_ns - rng.choice([0, 10, 20]))
            case "discard" if known:
                world.discard(session, world.time_ns - rng.choice([0, 10, 20]))
            case "resize":
                world.resize_volume(number, rng.choice([4, 8, 12]) * TRACK)
            case "copy" if len(world.numbers()) < 3:
                world.copy_volume(number, f"copy{step}")
            case "delete" if len(world.numbers()) > 2:
                world.delete_volume(number)
            case "document":
                world.put_document("x", world.new_bytes(40))
            case "log":
                world.log_write()
            case "sync":
                world.whole_sync()
            case "step":
                world.step_sync()
            case "checkpoint":
                world.step_checkpoint()
            case "kill" | "power" as crash:
                world.crash(power_loss=crash == "power")
            case "error":
                world.arm_error(rng.randrange(1, 4), rng.choice(list(ERRORS)))
    world.crash(power_loss=seed % 2 == 0)
    world.crash(power_loss=True)


WALK = (
    *("write",) * 6, *("trim",) * 3, *("stage",) * 3, *("log",) * 4, *("commit",) * 2, *("sync",) * 2, *("step",) * 3,
    "discard", "resize", "copy", "delete", "document", "checkpoint", "kill", "power", "error",
)  # fmt: skip


def walk_short_of_room(seed: int, step_count: int = 60) -> None:
    """A log that fills up again and again, and a file system that is now and then full when a checkpoint is written."""
    world, rng = StoreWorld(seed), Random(seed)
    world.create_volume("a", 12 * TRACK)
    world.whole_sync()
    for _ in range(step_count):
        number = world.numbers()[0]
        match rng.choice(ROOM_WALK):
            case "write":
                world.write(number, rng.randrange(12) * TRACK, TRACK)
            case "stage":
                world.stage(1, number % 2, [(number, rng.randrange(12), 1, False)])
            case "commit" if 1 in world.model.state.sessions:
                world.commit(1, world.time_ns - rng.choice([0, 10, 20]))
            case "document":
                world.put_document("x", world.new_bytes(4) * (rng.randrange(100, 300) * 256))
            case "log":
                world.log_write()
            case "sync":
                world.whole_sync()
            case "no room":
                world.arm_no_room(rng.randrange(1, 4))
            case "checkpoint":
                world.whole_checkpoint()
            case "kill" | "power" as crash:
                world.crash(power_loss=crash == "power")
    world.crash(power_loss=seed % 2 == 0)
    world.crash(power_loss=True)


ROOM_WALK = (
    *("write",) * 2, *("stage",) * 3, "commit", *("document",) * 5, *("log",) * 4, "sync", *("no room",) * 2, "checkpoint",
    "kill", "power",
)  # fmt: skip
