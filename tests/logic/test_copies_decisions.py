"""Copies without a pool: who descends from whom, when a schedule runs, what is too much, what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isochrone.copies.catalogue import Catalogue
from isochrone.copies.documents import (
    CopyDocument,
    CopyMember,
    RelationDocument,
    RelationExtent,
    ScheduleDocument,
)
from isochrone.copies.extents import check_extents, track_extents
from isochrone.copies.naming import default_name, member_name
from isochrone.copies.refusals import (
    refuse_deletion_of_copy,
    refuse_deletion_of_volume,
    refuse_overwriting,
)
from isochrone.copies.schedule import Schedule
from isochrone.copies.space_watch import SpaceWatch
from isochrone.model.errors import ConflictError, DamagedError, RefusedError

S = 1_000_000_000
HOUR = 3600 * S


def copy(
    name: str, at_ns: int, *members: tuple[str, str], writable: bool = False, schedule: str = ""
) -> CopyDocument:
    return CopyDocument(
        name=name,
        writable=writable,
        members=tuple(CopyMember(source=source, volume=volume) for source, volume in members),
        taken_ns=at_ns,
        taken_wall_ns=at_ns,
        schedule=schedule,
    )


MON = copy("mon", 1, ("db", "db@mon"), ("wal", "wal@mon"))
TRIAL = copy("trial", 2, ("db@mon", "db-trial"), writable=True)
TUE = copy("tue", 3, ("db", "db@tue"), ("db-trial", "db-trial@tue"))
WED = copy("wed", 4, ("db", "db@wed"))
AGAIN = copy("again", 5, ("db@mon", "db@mon@again"))
FAMILY = (MON, TRIAL, TUE, WED, AGAIN)


def catalogue(*documents: CopyDocument | RelationDocument | ScheduleDocument) -> Catalogue:
    return Catalogue({document.key: document.dump() for document in documents})


class Used:
    """Uses by what is in the dictionaries."""

    def __init__(
        self, sessions: dict[str, str] | None = None, clients: dict[str, list[str]] | None = None
    ) -> None:
        self._incomplete: set[str] = set()
        self._sessions = sessions or {}
        self._clients = clients or {}

    def is_incomplete(self, volume: str) -> bool:
        return volume in self._incomplete

    def session_of(self, volume: str) -> str:
        return self._sessions.get(volume, "")

    def clients_of(self, volume: str) -> list[str]:
        return self._clients.get(volume, [])


def test_documents_come_back_as_they_were_written() -> None:
    relation = RelationDocument(
        source="db",
        target="t",
        extents=(RelationExtent(source_offset=0, target_offset=4096, length=4096),),
        established_wall_ns=1,
        refreshed_wall_ns=2,
    )
    found = catalogue(*FAMILY, relation, ScheduleDocument(name="hourly", last_run_wall_ns=7))
    assert found.copies == {one.name: one for one in FAMILY}
    assert found.relations == {"t": relation}
    assert found.last_runs == {"hourly": 7}


def test_a_document_that_cannot_be_read_is_damage_and_named() -> None:
    with pytest.raises(DamagedError, match="'copy/mon'"):
        Catalogue({"copy/mon": b"{}"})


def test_documents_of_others_are_not_looked_at() -> None:
    assert Catalogue({"session/bank": b"?", "capture/x": b"?"}).copies == {}


def test_a_lineage_goes_back_to_what_is_no_copy() -> None:
    found = catalogue(*FAMILY)
    assert found.lineage("db-trial@tue") == ["db-trial@tue", "db-trial", "db@mon", "db"]
    assert found.lineage("db") == ["db"]


@pytest.mark.parametrize(
    ("volume", "bases"),
    [
        ("db", {"mon": "db@mon", "tue": "db@tue", "wed": "db@wed"}),
        ("db@tue", {"mon": "db@mon"}),
        ("db@mon", {}),
        ("db@mon@again", {"mon": "db@mon"}),
        ("db-trial", {"mon": "db@mon", "tue": "db-trial@tue"}),
        ("db-trial@tue", {"mon": "db@mon"}),
        ("wal", {"mon": "wal@mon"}),
        ("other", {}),
    ],
)
def test_a_volume_came_after_the_snapshots_before_it_of_its_lineage(
    volume: str, bases: dict[str, str]
) -> None:
    found = catalogue(*FAMILY).bases(volume)
    assert found == bases
    assert list(found) == list(bases)


def test_a_removed_copy_leaves_nothing_behind() -> None:
    found = catalogue(*FAMILY)
    for one in reversed(FAMILY):
        found.remove(one.name)
    fresh = catalogue()
    assert vars(found) == vars(fresh)


# --- schedules ---

HOURLY = Schedule("hourly", ("db",), HOUR, 3)


@pytest.mark.parametrize(
    ("last_ns", "now_ns", "due"),
    [
        (None, 5 * HOUR + 1, True),
        (5 * HOUR + 1, 5 * HOUR + 2, False),
        (5 * HOUR + 1, 6 * HOUR - 1, False),
        (5 * HOUR + 1, 6 * HOUR, True),
        (5 * HOUR, 9 * HOUR + 5, True),
        (9 * HOUR + 5, 9 * HOUR + 6, False),
        (9 * HOUR, 8 * HOUR + 1, False),
        (9 * HOUR, 5 * HOUR, True),
    ],
    ids=[
        "never ran",
        "just ran",
        "before the hour",
        "on the hour",
        "after hours of downtime",
        "and then not again",
        "a clock a little back",
        "a clock far back",
    ],
)
def test_a_schedule_is_due_once_in_every_interval(last_ns: int | None, now_ns: int, due: bool) -> None:
    assert HOURLY.is_due(last_ns, now_ns) is due


@given(every_s=st.integers(1, 10**6), last_ns=st.integers(0, 10**18), later_ns=st.integers(0, 10**18))
def test_a_schedule_is_due_exactly_from_its_next_run_on(every_s: int, last_ns: int, later_ns: int) -> None:
    schedule = Schedule("s", ("db",), every_s * S, 1)
    next_ns = schedule.next_run_wall_ns(last_ns, last_ns)
    assert last_ns < next_ns <= last_ns + every_s * S
    assert not schedule.is_due(last_ns, next_ns - 1)
    assert schedule.is_due(last_ns, next_ns + later_ns)


def test_the_oldest_copies_of_a_schedule_are_too_many_and_no_others() -> None:
    made = [copy(f"h{n}", n, ("db", f"db@h{n}"), schedule="hourly") for n in range(5)]
    by_hand = copy("mine", 0, ("db", "db@mine"))
    of_another = copy("d0", 0, ("db", "db@d0"), schedule="daily")
    found = catalogue(*made, by_hand, of_another)
    assert [one.name for one in HOURLY.surplus(found.scheduled("hourly"))] == ["h1", "h0"]


def test_a_wall_clock_that_was_set_back_does_not_make_the_newest_copy_one_too_many() -> None:
    ahead = [copy(f"h{n}", n, ("db", f"db@h{n}"), schedule="hourly") for n in range(3)]
    ahead = [one.model_copy(update={"taken_wall_ns": 10**18}) for one in ahead]
    right = copy("h9", 9, ("db", "db@h9"), schedule="hourly").model_copy(update={"taken_wall_ns": 10**17})
    found = catalogue(*ahead, right)
    assert [one.name for one in HOURLY.surplus(found.scheduled("hourly"))] == ["h0"]


def test_what_a_schedule_makes_is_named_by_its_time() -> None:
    assert HOURLY.copy_name(1_800_000_000 * S) == "hourly-20270115T080000Z"


def test_copies_expire_children_first() -> None:
    old = copy("old", 1, ("db", "db@old")).model_copy(update={"expires_wall_ns": 10})
    child = copy("child", 2, ("db@old", "db@old@child")).model_copy(update={"expires_wall_ns": 5})
    found = catalogue(old, child, WED)
    assert [one.name for one in found.expired(4)] == []
    assert [one.name for one in found.expired(10)] == ["child", "old"]


# --- names ---


@pytest.mark.parametrize(
    ("source", "writable", "expected"),
    [
        ("db", False, "db@x"),
        ("db@mon", False, "db@mon@x"),
        ("db~drill", False, "db~drill@x"),
        ("db", True, "db-x"),
        ("db@mon@again", True, "db-x"),
        ("db~drill", True, "db-x"),
    ],
)
def test_volumes_of_a_copy_say_what_they_are_of(source: str, writable: bool, expected: str) -> None:
    assert member_name(source, "x", writable=writable) == expected


@pytest.mark.parametrize(("source", "writable"), [("d" * 64, True), ("@".join(["d" * 60] * 5), False)])
def test_a_name_that_would_be_too_long_is_refused(source: str, writable: bool) -> None:
    with pytest.raises(RefusedError, match=r"64|too long"):
        member_name(source, "x" * 40, writable=writable)


def test_a_copy_without_a_name_is_named_by_the_time_and_never_as_another() -> None:
    name = default_name(1_800_000_000 * S, set())
    assert name == "20270115T080000Z"
    assert default_name(1_800_000_000 * S, {name, f"{name}-2"}) == f"{name}-3"


# --- refusals ---


def test_a_copy_with_children_stays_and_they_are_named() -> None:
    with pytest.raises(
        ConflictError, match=r"db-trial, db@mon@again were made from db@mon; delete copy again, trial first"
    ):
        refuse_deletion_of_copy(catalogue(*FAMILY), Used(), MON)


def test_children_within_the_same_copy_do_not_count() -> None:
    both = copy("both", 1, ("db", "db@both"), ("db@both", "db@both@both"))
    refuse_deletion_of_copy(catalogue(both), Used(), both)


def test_a_copy_in_use_stays_and_says_by_whom() -> None:
    clients = [f"process {n}" for n in range(7)]
    with pytest.raises(ConflictError, match="process 3, process 4 and 2 more; disconnect them first"):
        refuse_deletion_of_copy(catalogue(WED), Used(clients={"db@wed": clients}), WED)
    with pytest.raises(ConflictError, match="it is a secondary of bank; take it out"):
        refuse_deletion_of_copy(
            catalogue(MON, TRIAL),
            Used(sessions={"db-trial": "it is a secondary of bank; take it out"}),
            TRIAL,
        )


def test_a_copy_that_is_copied_elsewhere_stays_until_that_is_withdrawn() -> None:
    relation = RelationDocument(source="db@wed", target="t", established_wall_ns=1, refreshed_wall_ns=1)
    with pytest.raises(ConflictError, match="`isochrone copy withdraw t`"):
        refuse_deletion_of_copy(catalogue(WED, relation), Used(), WED)
    with pytest.raises(ConflictError, match="`isochrone copy withdraw t`"):
        refuse_deletion_of_volume(catalogue(WED, relation), "t")


def test_a_volume_with_copies_stays_and_one_that_is_a_copy_goes_with_it() -> None:
    with pytest.raises(
        ConflictError, match=r"has 3 copies and cannot be deleted.*delete copy mon, tue, wed first"
    ):
        refuse_deletion_of_volume(catalogue(*FAMILY), "db")
    with pytest.raises(ConflictError, match="`isochrone copy delete trial`"):
        refuse_deletion_of_volume(catalogue(*FAMILY), "db-trial")
    refuse_deletion_of_volume(catalogue(*FAMILY), "other")


def test_only_what_can_be_written_and_is_free_is_overwritten() -> None:
    found = catalogue(*FAMILY)
    refuse_overwriting(found, Used(), "db", "restored")
    refuse_overwriting(found, Used(), "db-trial", "restored")
    with pytest.raises(
        ConflictError, match="snapshot of copy 'mon' and cannot be restored: make a writable copy"
    ):
        refuse_overwriting(found, Used(), "db@mon", "restored")
    with pytest.raises(
        ConflictError, match=r"'db' cannot be restored: db is open over NBD by 10.0.0.1:5; disconnect it"
    ):
        refuse_overwriting(found, Used(clients={"db": ["10.0.0.1:5"]}), "db", "restored")
    with pytest.raises(ConflictError, match="in a session"):
        refuse_overwriting(found, Used(sessions={"db": "in a session"}), "db", "restored")


# --- ranges ---


def extent(source: int, target: int, length: int) -> RelationExtent:
    return RelationExtent(source_offset=source, target_offset=target, length=length)


@pytest.mark.parametrize(
    ("extents", "fault"),
    [
        ([extent(0, 0, 4095)], "whole tracks: use multiples of 4096"),
        ([extent(0, 1, 4096)], "whole tracks"),
        ([extent(8192, 0, 8192)], "beyond the source, which has 12288"),
        ([extent(0, 16384, 8192)], "beyond the target, which has 20480"),
        ([extent(0, 4096, 8192), extent(0, 0, 8192)], "0:8192:0 and 0:8192:4096 overlap in the target"),
    ],
)
def test_a_range_that_cannot_be_is_refused_with_the_reason(extents: list[RelationExtent], fault: str) -> None:
    with pytest.raises(RefusedError, match=fault):
        check_extents(extents, track_size_bytes=4096, source_size_bytes=12288, target_size_bytes=20480)


def test_ranges_may_overlap_in_the_source_and_go_anywhere() -> None:
    extents = [extent(0, 8192, 8192), extent(4096, 0, 8192)]
    check_extents(extents, track_size_bytes=4096, source_size_bytes=12288, target_size_bytes=20480)
    assert track_extents(extents, 4096) == [(0, 2, 2), (1, 0, 2)]


# --- space ---


def test_every_level_is_told_once_on_the_way_up_and_on_the_way_down() -> None:
    watch = SpaceWatch([90, 80])
    told = [
        (watch.look(used, 1000), watch.reached_percent)
        for used in (799, 800, 850, 900, 895, 889, 795, 789, 0)
    ]
    assert told == [
        (0, None),
        (1, 80),
        (0, 80),
        (1, 90),
        (0, 90),
        (-1, 80),
        (0, 80),
        (-1, None),
        (0, None),
    ]


def test_a_pool_that_fills_at_once_is_told_of_the_highest_level() -> None:
    watch = SpaceWatch([80, 90, 95])
    assert (watch.look(10, 10), watch.reached_percent) == (1, 95)


def test_without_levels_nothing_is_told() -> None:
    watch = SpaceWatch([])
    assert (watch.look(10, 10), watch.reached_percent) == (0, None)
