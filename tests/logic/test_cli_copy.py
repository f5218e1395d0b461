"""`isochrone copy` says what it did, asks before anything is lost, and gives JSON everywhere."""

from __future__ import annotations

import json

import pytest

from isochrone.cli.exits import ExitCode
from support.cli import CommandLine, done
from support.copy_reports import COPY
from support.fake_operations import FakeOperations


def test_a_copy_lives_from_create_to_delete(isochrone: CommandLine, operations: FakeOperations) -> None:
    said = done(
        isochrone("copy", "create", "db", "db-wal", "--name", "x", "--expires", "7d", "--writable")
    ).out
    assert "writes were held for  0.25 ms" in said
    (request,) = operations.copying.created
    assert request.volumes == ["db", "db-wal"]
    assert request.writable
    assert request.expires_after_s == 7 * 86_400
    assert json.loads(done(isochrone("copy", "show", "x", "--json")).out)["exclusive_bytes"] == 3 << 20
    asked = isochrone("copy", "delete", "x")
    assert asked.code == ExitCode.REFUSED
    assert "that hold 3.0 MiB alone? This cannot be undone" in asked.err
    assert (
        done(isochrone("copy", "delete", "x", "--yes")).out == "copy x is deleted; 3.0 MiB were given back\n"
    )
    assert isochrone("copy", "show", "x").code == ExitCode.NOT_FOUND


def test_the_name_is_the_controllers_to_choose_when_none_is_given(
    isochrone: CommandLine, operations: FakeOperations
) -> None:
    done(isochrone("copy", "create", "db@monday"))
    (request,) = operations.copying.created
    assert (request.name, request.expires_after_s, request.volumes) == (None, None, ["db@monday"])


def test_the_list_shows_copies_schedules_and_what_is_wrong_with_them(isochrone: CommandLine) -> None:
    said = done(isochrone("copy", "list")).out
    for word in (
        "monday",
        "EXCLUSIVE",
        "3.0 MiB",
        "daily",
        "schedule daily failed: no volume 'db' here [see list]",
    ):
        assert word in said
    told = json.loads(done(isochrone("copy", "list", "--json")).out)
    assert [copy["name"] for copy in told["copies"]] == [COPY.name]
    assert [schedule["keep"] for schedule in told["schedules"]] == [7]


def test_a_restore_is_asked_about_and_names_what_is_lost(
    isochrone: CommandLine, operations: FakeOperations
) -> None:
    asked = isochrone("copy", "restore", "monday")
    assert asked.code == ExitCode.REFUSED
    assert "Set db back to 2027-01-15T07:00:00.000Z?" in asked.err
    assert operations.copying.restored == []
    said = done(isochrone("copy", "restore", "monday", "--volume", "db", "--yes")).out
    assert said == "db restored: 1.0 MiB had changed since; writes were held for 0.50 ms\n"
    assert [request.volumes for request in operations.copying.restored] == [["db"]]


def test_a_diff_that_comes_in_parts_is_shown_as_one(isochrone: CommandLine) -> None:
    told = json.loads(done(isochrone("copy", "diff", "monday", "db", "--json")).out)
    assert told["changed"] == [{"offset": 4096, "length": 8192}, {"offset": 1 << 20, "length": 4096}]
    assert told["changed_bytes"] == 12288
    assert (
        "2 ranges, 12.0 KiB of 1.0 GiB of db may differ"
        in done(isochrone("copy", "diff", "monday", "db")).out
    )


def test_a_relation_lives_from_establish_to_withdraw(isochrone: CommandLine) -> None:
    assert isochrone("copy", "establish", "db", "db-test").code == ExitCode.REFUSED
    extents = ("--extents", "0:1MiB", "--extents", "4MiB:1MiB:2MiB")
    told = json.loads(done(isochrone("copy", "establish", "db", "db-test", *extents, "--yes", "--json")).out)
    mib = 1 << 20
    assert [tuple(extent.values()) for extent in told["extents"]] == [(0, 0, mib), (4 * mib, 2 * mib, mib)]
    assert "db-test" in done(isochrone("copy", "show", "db-test")).out
    said = done(isochrone("copy", "refresh", "db-test", "--yes")).out
    assert "2.0 MiB changed; writes were held for 1.50 ms" in said
    assert "db is no longer copied onto db-test" in done(isochrone("copy", "withdraw", "db-test")).out
    assert isochrone("copy", "refresh", "db-test", "--yes").code == ExitCode.NOT_FOUND


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (("create", "db", "--expires", "soon"), "write for example 90s"),
        (("create", "db", "--name", "a@b"), "use 1 to 64 letters"),
        (("create", "d/b"), "use 1 to 64 letters"),
        (("show", "a@b"), "use 1 to 64 letters"),
        (("diff", "monday", "d/b"), "use 1 to 64 letters"),
        (("establish", "db", "t", "--extents", "4096", "--yes"), "write OFFSET:LENGTH"),
        (("establish", "db", "t", "--extents", "0:x", "--yes"), "write for example 4096"),
        (("establish", "db", "t", "--extents", "0:0", "--yes"), "greater than 0"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_cure(
    isochrone: CommandLine, arguments: tuple[str, ...], cure: str
) -> None:
    refused = isochrone("copy", *arguments)
    assert refused.code == ExitCode.REFUSED
    assert cure in refused.err


def test_a_snapshot_is_shown_like_any_volume(isochrone: CommandLine) -> None:
    assert (
        isochrone("volume", "show", "db@monday").code == ExitCode.NOT_FOUND
    )  # of the fake, not of the name's form
