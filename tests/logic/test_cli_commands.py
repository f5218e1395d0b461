from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.responses import HTMLResponse

from isochrone.cli.exits import ExitCode, exit_code
from isochrone.model.errors import IsochroneError
from isochrone.model.states import SessionState
from support.api_server import served
from support.cli import CommandLine, Result, done
from support.fake_operations import FakeOperations, every_error
from support.reports import CAPTURE, PAIR, POOL, SESSION, behind

CREATE_BANK = ("session", "create", "bank", "--primary", "a=10.0.0.1:7481", "--pair", "a:db=db-copy")


def test_a_volume_lives_from_create_to_delete(isochrone: CommandLine) -> None:
    assert "1.5 GiB" in done(isochrone("volume", "create", "db", "1.5GiB")).out
    assert "db-copy" in done(isochrone("volume", "list")).out
    assert "2.0 GiB" in done(isochrone("volume", "resize", "db", "2GiB")).out
    assert json.loads(done(isochrone("volume", "show", "db", "--json")).out)["size_bytes"] == 2 << 30
    assert done(isochrone("volume", "delete", "db", "--yes")).out == "volume db is deleted\n"
    assert isochrone("volume", "show", "db").code == ExitCode.NOT_FOUND


def test_a_volume_is_shrunk_only_when_that_is_said_and_confirmed(isochrone: CommandLine) -> None:
    done(isochrone("volume", "create", "db", "2GiB"))
    assert isochrone("volume", "resize", "db", "1GiB").code == ExitCode.CONFLICT
    refused = isochrone("volume", "resize", "db", "1GiB", "--shrink")
    assert refused.code == ExitCode.REFUSED
    assert "from 2.0 GiB to 1.0 GiB" in refused.err
    assert "1.0 GiB" in done(isochrone("volume", "resize", "db", "1GiB", "--shrink", "--yes")).out


@pytest.mark.parametrize(
    "arguments",
    [
        ("volume", "create", "db", "ten"),
        ("volume", "create", "db", "0"),
        ("volume", "create", "a/b", "1GiB"),
        ("volume", "show", "a/b"),
        ("session", "show", "../status"),
        ("session", "show", "bank", "--wait", "happy"),
        ("session", "create", "bank", "--primary", "a", "--pair", "a:db"),
        ("session", "create", "bank", "--primary", "a=10.0.0.1:1", "--pair", "db"),
        ("session", "create", "bank", "--primary", "a=10.0.0.1:1", "--pair", "a:db="),
        ("session", "create", "bank", "--primary", "a=nowhere", "--pair", "a:db"),
        (*CREATE_BANK, "--compression", "gzip"),
        (*CREATE_BANK, "--group-size-max", "much"),
        ("status", "--watch", "--json"),
        ("status", "--controller", "ftp://host"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(
    isochrone: CommandLine, operations: FakeOperations, arguments: tuple[str, ...]
) -> None:
    result = isochrone(*arguments)
    assert result.code == ExitCode.REFUSED
    assert result.out == ""
    assert "Traceback" not in result.err
    assert not {"create_volume", "create_session"} & set(operations.calls)


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_what_the_controller_refuses_is_told_in_its_words(
    isochrone: CommandLine, operations: FakeOperations, error: IsochroneError
) -> None:
    operations.failure = error
    result = isochrone("volume", "list")
    assert result == Result(exit_code(error), "", f"isochrone: {error.message}\n")


def test_a_bug_of_the_controller_is_a_failure_without_traceback(
    isochrone: CommandLine, operations: FakeOperations
) -> None:
    operations.failure = KeyError("x")
    result = isochrone("status")
    assert result.code == ExitCode.FAILED
    assert "Traceback" not in result.err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_controller_that_does_not_answer_is_told_with_the_cure(
    isochrone: CommandLine, tmp_path: Path
) -> None:
    result = isochrone("status", "--controller", f"unix:{tmp_path}/nobody.sock")
    gc.collect()  # httpcore leaves a socket that could not connect to the collector, which warns
    assert result.code == ExitCode.UNAVAILABLE
    assert "isochrone controller run" in result.err
    assert "--controller" in result.err


def test_status_shows_everything_and_all_of_it_as_json(
    isochrone: CommandLine, operations: FakeOperations
) -> None:
    operations.put_session(SESSION)
    shown = done(isochrone("status")).out
    assert "C 16.0 ms" in shown
    assert "paced by 3.5 ms" in shown
    assert set(json.loads(done(isochrone("status", "--json")).out)) == {
        "controller",
        "pool",
        "volumes",
        "sessions",
        "captures",
        "copies",
    }


def test_the_pool_is_shown(isochrone: CommandLine) -> None:
    assert POOL.uuid in done(isochrone("pool", "show")).out
    assert json.loads(done(isochrone("pool", "show", "--json")).out)["state"] == "SERVING"


def test_sessions_are_listed_from_both_sides(isochrone: CommandLine, operations: FakeOperations) -> None:
    operations.put_session(SESSION)
    listed = done(isochrone("session", "list")).out
    assert "bank" in listed
    assert "ledger" in listed
    assert set(json.loads(done(isochrone("session", "list", "--json")).out)) == {"sessions", "captures"}


def test_a_primary_shows_the_session_that_it_feeds(isochrone: CommandLine) -> None:
    assert "feeding session ledger" in done(isochrone("session", "show", "ledger")).out
    assert json.loads(done(isochrone("session", "show", "ledger", "--json")).out)["role"] == "primary"
    assert isochrone("session", "show", "nobody").code == ExitCode.NOT_FOUND


def test_creating_waits_until_every_pair_is_duplex(isochrone: CommandLine) -> None:
    result = done(isochrone(*CREATE_BANK, "--pair", "a:wal", "--wait", "--timeout", "30", "--json"))
    pairs = json.loads(result.out)["pairs"]
    assert [(pair["secondary_volume"], pair["state"]) for pair in pairs] == [
        ("db-copy", "DUPLEX"),
        ("wal", "DUPLEX"),
    ]


def test_a_proxy_for_the_web_is_not_asked(isochrone: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "nonsense://proxy")
    nobody = isochrone("volume", "list", "--controller", "tcp:127.0.0.1:1")
    assert nobody.code == ExitCode.UNAVAILABLE


def test_settings_reach_the_session(isochrone: CommandLine) -> None:
    settings = ("--group-interval-ms", "25", "--group-size-max", "8MiB", "--compression", "zstd")
    pacing = ("--overflow", "suspend", "--pace", "firm", "--pace-delay-ms-max", "7", "--hold-ms-max", "900")
    retrying = ("--retry-ms-max", "5000", "--retry-tracks-max", "9")
    copying = ("--copy-rate-max", "50MiB", "--copy-share", "30", "--compare", "always")
    marks = ("--marks", "durable")
    history = ("--history", "36h", "--history-size-max", "20GiB")
    suspending = ("--link-timeout", "90", "--auto-resume", "off", "--auto-resume-budget", "20")
    command = (*CREATE_BANK, *settings, *retrying, *pacing, *copying, *marks, *history, *suspending, "--json")
    answer = json.loads(done(isochrone(*command)).out)
    assert answer["settings"] == {
        "group_interval_ms": 25.0,
        "group_bytes_max": 8 << 20,
        "retry_ms_max": 5000.0,
        "retry_tracks_max": 9,
        "history_s_max": 129_600.0,
        "history_bytes_max": 20 << 30,
        "compression": "zstd",
        "overflow_policy": "suspend",
        "pace_level": "firm",
        "pace_delay_ms_max": 7.0,
        "hold_ms_max": 900.0,
        "copy_rate_bytes_max": 50 << 20,
        "copy_share_percent": 30,
        "compare": "always",
        "mark_policy": "durable",
        "link_timeout_s": 90.0,
        "auto_resume": False,
        "auto_resume_budget_s": 20.0,
    }
    assert answer["sources"][0]["address"] == "tcp:10.0.0.1:7481"


def test_settings_are_changed_one_by_one(isochrone: CommandLine) -> None:
    before = json.loads(done(isochrone(*CREATE_BANK, "--json")).out)["settings"]
    answer = json.loads(done(isochrone("session", "set", "bank", "--compression", "lz4", "--json")).out)
    assert answer["settings"] == {**before, "compression": "lz4"}
    nothing = isochrone("session", "set", "bank")
    assert nothing.code == ExitCode.REFUSED
    assert "at least one setting" in nothing.err


def test_a_pair_may_have_a_pace_of_its_own(isochrone: CommandLine) -> None:
    done(isochrone(*CREATE_BANK, "--json"))
    bad = isochrone("session", "set", "bank", "--pair-pace", "db-copy")
    assert bad.code == ExitCode.REFUSED
    assert "is not PAIR=LEVEL" in bad.err
    assert isochrone("session", "set", "bank", "--pair-pace", "db-copy=slow").code == ExitCode.REFUSED
    done(isochrone("session", "set", "bank", "--pair-pace", "db-copy=off"))


def test_pairs_come_and_go(isochrone: CommandLine) -> None:
    done(isochrone(*CREATE_BANK))
    assert "logs-copy" in done(isochrone("session", "add", "bank", "--pair", "a:logs=logs-copy")).out
    assert "logs-copy" not in done(isochrone("session", "remove", "bank", "logs-copy")).out


def test_a_session_is_suspended_with_its_reason_and_resumed(isochrone: CommandLine) -> None:
    done(isochrone(*CREATE_BANK))
    suspended = done(isochrone("session", "suspend", "bank", "--reason", "line work")).out
    assert "SUSPENDED" in suspended
    assert "line work" in suspended
    assert "line work" not in done(isochrone("session", "resume", "bank")).out


def test_waiting_for_duplex_ends_when_the_session_is_suspended(
    isochrone: CommandLine, operations: FakeOperations
) -> None:
    operations.put_session(
        SESSION.model_copy(update={"state": SessionState.SUSPENDED, "suspended_reason": "side file full"})
    )
    result = isochrone("session", "show", "bank", "--wait", "duplex")
    assert result.code == ExitCode.CONFLICT
    assert "side file full" in result.err


def test_waiting_for_duplex_ends_with_the_reason_when_a_pair_is_refused(
    isochrone: CommandLine, operations: FakeOperations
) -> None:
    refused = PAIR.model_copy(update={"refused": True, "reason": "no volume 'db' here: create it"})
    operations.put_session(SESSION.model_copy(update={"pairs": (refused,)}))
    result = isochrone("session", "show", "bank", "--wait", "duplex")
    assert result.code == ExitCode.CONFLICT
    assert "pair db-copy: no volume 'db' here: create it" in result.err


def test_waiting_ends_at_its_time_limit_and_says_what_is_waited_for(
    isochrone: CommandLine, operations: FakeOperations
) -> None:
    operations.tracks_copied_per_look = 0
    operations.put_session(SESSION.model_copy(update={"blocked_on": "controller a: link down 3.2 s"}))
    result = isochrone("session", "show", "bank", "--wait", "duplex", "--timeout", "0")
    assert result.code == ExitCode.UNAVAILABLE
    assert "controller a: link down 3.2 s" in result.err


def test_recovery_is_asked_about_then_waited_for_and_tells_its_time(
    isochrone: CommandLine, operations: FakeOperations
) -> None:
    operations.tracks_copied_per_look = 0
    done(isochrone(*CREATE_BANK))
    refused = isochrone("session", "recover", "bank")
    assert refused.code == ExitCode.REFUSED
    assert "--yes" in refused.err
    incomplete = isochrone("session", "recover", "bank", "--yes")
    assert incomplete.code == ExitCode.CONFLICT
    assert "not complete" in incomplete.err
    result = done(isochrone("session", "recover", "bank", "--yes", "--incomplete", "--timeout", "30"))
    assert f"recovered to {behind(14).wall}" in result.out
    assert "NOT complete" in result.out


def test_a_recovery_can_be_repeated_without_a_question(
    isochrone: CommandLine, operations: FakeOperations
) -> None:
    operations.put_session(
        SESSION.model_copy(
            update={"state": SessionState.ENDED, "recovered": behind(14), "image_complete": True}
        )
    )
    first, second = (done(isochrone("session", "recover", "bank")).out for _ in range(2))
    assert first == second
    assert "recovered to" in first


def test_a_recovery_that_is_given_up_is_no_success(
    isochrone: CommandLine, operations: FakeOperations, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations.put_session(SESSION)

    async def give_up(name: str, request: object) -> object:
        return SESSION

    monkeypatch.setattr(operations, "recover", give_up)
    result = isochrone("session", "recover", "bank", "--drain", "--yes")
    assert result.code == ExitCode.CONFLICT


@pytest.mark.parametrize(
    "arguments",
    [("volume", "delete", "db-copy"), ("session", "delete", "bank"), ("session", "recover", "bank")],
)
def test_what_cannot_be_undone_is_refused_where_nobody_can_be_asked(
    isochrone: CommandLine, operations: FakeOperations, arguments: tuple[str, ...]
) -> None:
    operations.put_session(SESSION)
    result = isochrone(*arguments)
    assert result.code == ExitCode.REFUSED
    assert "nothing was done: add --yes" in result.err
    assert not {"delete_volume", "delete_session", "recover"} & set(operations.calls)


@pytest.mark.parametrize(("agrees", "code"), [(True, ExitCode.OK), (False, ExitCode.REFUSED)])
def test_at_a_terminal_the_person_decides(
    isochrone: CommandLine,
    operations: FakeOperations,
    monkeypatch: pytest.MonkeyPatch,
    agrees: bool,
    code: ExitCode,
) -> None:
    monkeypatch.setattr("isochrone.cli.output.is_terminal", lambda _: True)
    monkeypatch.setattr("typer.confirm", answering(agrees))
    operations.put_session(SESSION)
    assert isochrone("session", "delete", "bank").code == code
    assert ("delete_session" in operations.calls) is agrees


def answering(agrees: bool) -> Callable[..., bool]:
    def confirm(question: str, **_: object) -> bool:
        assert question.startswith("Delete session bank?")
        return agrees

    return confirm


def test_a_named_instant_is_told_with_its_exact_time(isochrone: CommandLine) -> None:
    told = done(isochrone("session", "mark", "ledger", "before the upgrade")).out
    assert "'before the upgrade'" in told
    assert "), durable at the secondary" in told
    answer = json.loads(done(isochrone("session", "mark", "ledger", "x", "--no-wait", "--json")).out)
    assert (answer["text"], answer["hardened"]) == ("x", False)


def test_an_instant_that_is_not_hardened_in_time_is_told_and_is_no_success(isochrone: CommandLine) -> None:
    late = isochrone("session", "mark", "ledger", "x", "--timeout", "0")
    assert late.code == ExitCode.UNAVAILABLE
    assert "not known to be durable" in late.out
    assert "session show ledger" in late.err


@pytest.mark.parametrize("text", ["", "  ", "two\nlines", "x" * 201])
def test_an_instant_that_cannot_be_called_so_is_refused(isochrone: CommandLine, text: str) -> None:
    refused = isochrone("session", "mark", "ledger", text)
    assert refused.code == ExitCode.REFUSED
    assert "one line of 1 to 200" in refused.err


def test_the_history_of_a_session_is_shown(isochrone: CommandLine) -> None:
    told = done(isochrone("session", "history", "bank")).out
    for words in (
        "any instant, but for gaps",
        "given up through",
        "a resync is under way",
        "before the upgrade",
    ):
        assert words in told
    assert json.loads(done(isochrone("session", "history", "bank", "--json")).out)["window_s_max"] == 86_400


def test_an_image_is_made_listed_and_discarded(isochrone: CommandLine, operations: FakeOperations) -> None:
    made = done(isochrone("session", "image", "bank", "--as", "drill")).out
    assert "test image drill of session bank" in made
    assert "db-copy~drill" in made
    assert "left out, because there is no image of them then: late" in made
    assert "--as drill --discard" in made
    assert "db-copy~drill" in done(isochrone("session", "image", "bank", "--list")).out
    unasked = isochrone("session", "image", "bank", "--discard")
    assert unasked.code == ExitCode.REFUSED
    assert "Discard drill of session bank" in unasked.err
    operations.past.clients = ("unix client 7",)
    in_use = isochrone("session", "image", "bank", "--as", "drill", "--discard", "--yes")
    assert in_use.code == ExitCode.CONFLICT
    assert "unix client 7" in in_use.err
    operations.past.clients = ()
    assert (
        "drill of session bank is discarded"
        in done(isochrone("session", "image", "bank", "--discard", "--yes")).out
    )
    none_left = isochrone("session", "image", "bank", "--discard", "--yes")
    assert none_left.code == ExitCode.REFUSED


@pytest.mark.parametrize(
    ("at", "field", "value"),
    [
        ("1763638262123456789", "at_ns", 1763638262123456789),
        ("-5m", "before_s", 300.0),
        ("before the upgrade", "instant", "before the upgrade"),
    ],
)
def test_an_instant_is_written_in_several_ways(
    isochrone: CommandLine, operations: FakeOperations, at: str, field: str, value: object
) -> None:
    done(isochrone("session", "image", "bank", "--at", at))
    assert operations.past.requests[0].model_dump(exclude_none=True) == {field: value}


def test_a_moment_of_the_wall_clock_says_its_offset(
    isochrone: CommandLine, operations: FakeOperations
) -> None:
    done(isochrone("session", "image", "bank", "--at", "2026-11-20T10:31:02.123456Z"))
    at = operations.past.requests[0].at
    assert at is not None
    assert at.isoformat() == "2026-11-20T10:31:02.123456+00:00"
    refused = isochrone("session", "image", "bank", "--at", "2026-11-20T10:31:02")
    assert refused.code == ExitCode.REFUSED
    assert "offset from UTC" in refused.err


@pytest.mark.parametrize("options", [("--list", "--discard"), ("--at", "-5m", "--list"), ("--at", "-1y")])
def test_options_of_an_image_that_make_no_sense_are_refused(
    isochrone: CommandLine, options: tuple[str, ...]
) -> None:
    assert isochrone("session", "image", "bank", *options).code == ExitCode.REFUSED


def test_a_recovery_to_an_instant_is_asked_about_with_what_it_keeps(isochrone: CommandLine) -> None:
    done(isochrone(*CREATE_BANK, "--wait"))
    asked = isochrone("session", "recover", "bank", "--at", "-10m")
    assert asked.code == ExitCode.REFUSED
    assert "as it was at -10m" in asked.err
    assert "kept as snapshots" in asked.err
    done(isochrone("session", "recover", "bank", "--at", "-10m", "--yes"))
    both = isochrone("session", "recover", "bank", "--at", "-10m", "--drain", "--yes")
    assert both.code == ExitCode.REFUSED


def test_a_session_is_deleted(isochrone: CommandLine) -> None:
    done(isochrone(*CREATE_BANK))
    assert done(isochrone("session", "delete", "bank", "--yes")).out == "session bank is deleted\n"
    assert isochrone("session", "show", "bank").code == ExitCode.NOT_FOUND


def test_something_else_that_answers_is_recognised(isochrone: CommandLine, tmp_path: Path) -> None:
    with served(HTMLResponse("<html>"), tmp_path / "other.sock") as address:
        result = isochrone("status", "--controller", address)
    assert result.code == ExitCode.PROTOCOL
    assert "no Isochrone controller" in result.err


def test_a_capture_has_no_state_to_wait_for(isochrone: CommandLine) -> None:
    assert isochrone("session", "show", CAPTURE.name, "--wait", "duplex").code == ExitCode.NOT_FOUND
