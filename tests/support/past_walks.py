"""Seeded runs of a `CopiesWorld` and a `HistoryWorld`, without hypothesis: fast. Each raises when a check fails."""

from __future__ import annotations

from random import Random

from isochrone.model.volume_kind import VolumeKind
from isochrone.testing.store_model_copies import Documents, Extent
from support.copies_machine import MARKS
from support.copies_world import CopiesWorld
from support.history_world import HistoryWorld
from support.recount import check_counts
from support.store_world import TRACK, StoreWorld

VOLUME_TRACKS = 12
VOLUMES_MAX = 8


def copies_walk(seed: int, step_count: int = 50) -> None:
    """Copies of copies, together and onto each other, between writes and crashes."""
    world, rng = CopiesWorld(seed), Random(seed)
    for name in ("a", "b"):
        world.create_volume(name, VOLUME_TRACKS * TRACK)
    world.whole_sync()
    for step in range(step_count):
        numbers = world.numbers()
        number, other = rng.choice(numbers), rng.choice(world.writable_numbers())
        match rng.choice(COPIES_WALK):
            case "write":
                world.write(other, *_span(world, rng, other))
            case "trim":
                world.zero(other, *_span(world, rng, other), allocate=False)
            case "copy" if len(numbers) < VOLUMES_MAX:
                _copy(world, rng, step)
            case "delete" if len(numbers) > 3:
                world.delete_volumes(rng.sample(numbers, k=rng.choice((1, 1, 2))), _documents(world, rng))
            case "establish":
                world.establish(number, other, None, _documents(world, rng))
            case "ranges":
                world.establish(number, other, _extents(world, rng, number, other), _documents(world, rng))
            case "refused" if world.model.state.volumes[number].kind is VolumeKind.SNAPSHOT:
                world.check_refused(number)
            case "look":
                track_count = max(world.model.state.volumes[n].size_bytes // TRACK for n in (number, other))
                world.check_diff(number, other, 0, track_count)
                world.check_space([number])
            case what:
                _live_on(world, rng, what)
        check_counts(world.pool)
        if not world.writable_numbers():
            world.create_volume(f"n{step}", VOLUME_TRACKS * TRACK)
            if not world.writable_numbers():
                return
    world.crash(power_loss=seed % 2 == 0)
    world.crash(power_loss=True)


COPIES_WALK = (
    *("write",) * 6, *("trim",) * 2, *("copy",) * 4, *("delete",) * 2, *("establish",) * 3, *("ranges",) * 3, "refused",
    *("look",) * 3,
    *("log",) * 2, *("sync",) * 2, *("step",) * 2, "checkpoint", "kill", "power", *("arm",) * 3,
)  # fmt: skip


class FullHistoryWorld(HistoryWorld):
    """Its pool is full now and then, and gives history up."""

    pool_track_count = 34


def history_walk(seed: int, step_count: int = 60) -> None:
    """Two volumes whose past is kept: images of any instant, rewinds, the oldest given up, volumes that leave and return."""
    world, rng = (HistoryWorld if seed % 3 else FullHistoryWorld)(seed), Random(seed)
    for name in ("a", "b"):
        world.create_volume(name, VOLUME_TRACKS * TRACK)
    world.history_begin(1, [1, 2], {})
    world.whole_sync()
    for _ in range(step_count):
        what = rng.choice(HISTORY_WALK)
        history = world.model.state.histories.get(1)
        if what in ("replicate", "late"):
            _replicate(world, rng, is_late=what == "late")
        elif what == "join":
            world.history_begin(1, [rng.choice(world.writable_numbers())], {})
        elif what == "write":
            number = rng.choice(world.writable_numbers())
            world.write(number, *_span(world, rng, number))
        elif what in ("image", "rewind", "release", "leave") and history is not None:
            at_ns = _instant(world, rng)
            if what == "leave":
                world.history_end(1, rng.choice(history.stays).number)
            elif what == "release":
                world.history_release(1, min(at_ns, _instant(world, rng)))
            elif what == "rewind":
                _rewind(world, rng, at_ns)
            elif len(world.numbers()) < VOLUMES_MAX:
                _image(world, rng, at_ns)
        elif what == "delete" and len(world.numbers()) > 4:
            world.delete_volumes([rng.choice(world.numbers()[2:])], {})
        else:
            _live_on(world, rng, what)
        check_counts(world.pool)
        world.check_metadata()
    world.whole_making()
    world.crash(power_loss=seed % 2 == 0)
    world.crash(power_loss=True)


HISTORY_WALK = (
    *("replicate",) * 10, *("late",) * 2, *("image",) * 5, *("rewind",) * 2, *("release",) * 2, "join", "leave",
    *("write",) * 2, "delete", *("go on",) * 4, *("log",) * 2, *("sync",) * 2, *("step",) * 2,
    "checkpoint", *("whole checkpoint",) * 2, "kill", "power", "arm",
)  # fmt: skip


def _live_on(world: StoreWorld, rng: Random, what: str) -> None:
    match what:
        case "log":
            world.log_write()
        case "sync":
            world.whole_sync()
        case "step":
            world.step_sync()
        case "checkpoint":
            world.step_checkpoint()
        case "whole checkpoint":
            world.whole_checkpoint()
        case "kill" | "power":
            world.crash(power_loss=what == "power")
        case "arm":
            world.arm_crash(rng.randrange(1, 12), power_loss=rng.random() < 0.5)
        case "go on" if isinstance(world, HistoryWorld):
            world.step_making()


def _span(world: StoreWorld, rng: Random, number: int) -> tuple[int, int]:
    track_count = world.model.state.volumes[number].size_bytes // TRACK
    track = rng.randrange(track_count)
    return track * TRACK, min(rng.choice((1, 1, 2, 4)), track_count - track) * TRACK


def _documents(world: StoreWorld, rng: Random) -> Documents:
    key = rng.choice(("x", "y"))
    is_gone = key in world.model.state.documents and rng.random() < 0.3
    return {} if rng.random() < 0.3 else {key: None if is_gone else world.new_bytes(8)}


def _copy(world: CopiesWorld, rng: Random, step: int) -> None:
    sources = rng.sample(world.numbers(), k=min(len(world.numbers()), rng.choice((1, 2, 3))))
    kind = rng.choice((VolumeKind.SNAPSHOT, VolumeKind.COPY))
    copies = {
        f"{world.name(source).partition('@')[0][:20]}{MARKS[kind]}{step}x{source}": (source, kind)
        for source in sources
    }
    world.create_copies(copies, _documents(world, rng))


def _extents(world: CopiesWorld, rng: Random, source: int, target: int) -> list[Extent]:
    counts = [world.model.state.volumes[number].size_bytes // TRACK for number in (source, target)]
    extents = []
    for _ in range(rng.choice((1, 2, 3))):
        first, to = rng.randrange(counts[0]), rng.randrange(counts[1])
        extents.append((first, to, min(rng.choice((1, 2, 5)), counts[0] - first, counts[1] - to)))
    return extents


def _replicate(world: HistoryWorld, rng: Random, *, is_late: bool) -> None:
    """Records arrive for one volume, and some of what has arrived is committed."""
    number = rng.choice(world.writable_numbers()[:3])
    track_count = world.model.state.volumes[number].size_bytes // TRACK
    rows = [(number, rng.randrange(track_count), 1, rng.random() < 0.2) for _ in range(rng.choice((1, 2, 4)))]
    life, source = world.open_count, number % 2
    if is_late:
        world.stage_late(1, source, rows, rng.randrange(4), commit=rng.random() < 0.5)
    else:
        world.stage(1, source, rows)
    if world.open_count == life and rng.random() < 0.8 and 1 in world.model.state.sessions:
        world.commit(1, world.time_ns - rng.choice((0, 0, 10, 15)))


def _instant(world: HistoryWorld, rng: Random) -> int:
    """A time that is kept, mostly; often one at which something changed."""
    history = world.model.state.histories[1]
    times = [entry.time_ns for stay in history.stays for entry in stay.entries]
    times += [history.first_ns, history.through_ns]
    times += [stay.from_ns for stay in history.stays]
    return max(0, rng.choice(times) + rng.choice((0, 0, 0, -1, -1, 5)))


def _image(world: HistoryWorld, rng: Random, at_ns: int) -> None:
    history = world.model.state.histories[1]
    stays = [stay for stay in history.stays if history.covering(stay.number, at_ns)] or list(history.stays)
    names = {stay.number: f"n{stay.number}~i{world.time_ns}" for stay in stays}
    world.begin_image(1, at_ns, names, VolumeKind.IMAGE, {})
    if rng.random() < 0.6:
        world.whole_making()


def _rewind(world: HistoryWorld, rng: Random, at_ns: int) -> None:
    life = world.open_count
    if 1 in world.model.state.sessions and not world.is_making:
        world.discard(1, at_ns)
    if world.open_count == life:
        world.begin_rewind(1, at_ns)
    if rng.random() < 0.6:
        world.whole_making()
