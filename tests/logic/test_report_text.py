from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from isochrone.model.choices import OverflowPolicy
from isochrone.model.split import Divergence
from isochrone.model.states import SessionState
from isochrone.report.backlog_models import BacklogReport, VolumeDelayReport
from isochrone.report.models import PacingReport
from isochrone.report.recovery_text import recover_question, recovered_text
from isochrone.report.split_models import SplitReport
from isochrone.report.text import (
    capture_view,
    captures_table,
    delay_lines,
    pairs_table,
    pool_line,
    pool_view,
    session_view,
    sessions_table,
    sources_table,
    status_view,
    writes_text,
)
from isochrone.report.times import NOT_MEASURED
from support.reports import CAPTURE, EMPTY, PAIR, POOL, SESSION, SOURCE, STATUS, behind


def text_of(view: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, width=240).print(view)
    return stream.getvalue()


BACKLOG = BacklogReport(
    session_bytes=3 << 30,
    used_bytes=int(3.2 * (1 << 30)),
    capacity_bytes=4 << 30,
    spilled_bytes=3 << 30,
    full_in_s=40,
    waiting_write_count=6,
    held_write_count=100,
    held_s=1.5,
    spill_trouble="no space left",
    volumes=(
        VolumeDelayReport(volume="vol7", delay_ms=2.0, delay_ms_p50=0.5, delay_ms_p99=1.8, write_count=900),
        VolumeDelayReport(volume="vol8", delay_ms=2.0, delay_ms_p50=0, delay_ms_p99=0, write_count=0),
    ),
)


def test_both_sites_name_who_is_delayed_by_how_much_and_why() -> None:
    expected = [
        "vol7 +1.8 ms p99: backlog 3.2 GiB of 4.0 GiB",
        "6 writes wait for room: backlog 3.2 GiB of 4.0 GiB",
        "at this rate the side file is full in 40.0 s: backlog 3.2 GiB of 4.0 GiB",
        "the spill cannot be written: no space left",
    ]
    assert delay_lines(BACKLOG) == expected
    primary = text_of(capture_view(CAPTURE.model_copy(update={"backlog": BACKLOG})))
    source = SOURCE.model_copy(update={"backlog": BACKLOG})
    secondary = text_of(session_view(SESSION.model_copy(update={"sources": (source,)})))
    for line in expected:
        assert line in primary
        assert f"{source.name}: {line}" in secondary


def test_nothing_is_said_of_a_side_file_that_costs_nothing() -> None:
    quiet = BACKLOG.model_copy(
        update={"full_in_s": None, "waiting_write_count": 0, "spill_trouble": None, "volumes": ()}
    )
    assert delay_lines(quiet) == []


def test_status_names_everything_there_is() -> None:
    text = text_of(status_view(STATUS))
    for word in (
        "secondary",
        "SERVING",
        "db-copy",
        "bank",
        "tcp:10.0.0.1:7481",
        "COPY",
        "ledger-db",
        "third-site",
    ):
        assert word in text


def test_an_idle_controller_shows_no_empty_tables() -> None:
    text = text_of(status_view(EMPTY))
    assert "VOLUME" not in text
    assert "checkpoint never" in text


def test_outside_text_is_never_markup() -> None:
    text = text_of(status_view(STATUS))
    assert "[Errno 111] Connection refused" in text
    assert "secondary of session bank [not recovered]" in text
    source = SOURCE.model_copy(update={"last_error": "[bold]refused[/bold]"})
    assert "[bold]refused[/bold]" in text_of(sources_table([source]))


def test_a_session_shows_its_lags_and_progress() -> None:
    text = text_of(session_view(SESSION))
    assert "F 12.0 ms  J 14.0 ms  C 16.0 ms" in text
    assert "75.0 %" in text
    assert "1 min 15 s" in text
    assert "image NOT complete: pair db-copy is COPY" in text


def test_what_was_not_measured_is_a_dash_not_a_zero() -> None:
    session = SESSION.model_copy(
        update={"form": NOT_MEASURED, "journal": NOT_MEASURED, "consistency": NOT_MEASURED}
    )
    text = text_of(session_view(session))
    assert "F -  J -  C -" in text
    assert "0.0 ms" not in text


def test_a_blocked_session_says_on_what() -> None:
    session = SESSION.model_copy(update={"blocked_on": "controller a: link down 3.2 s"})
    assert "blocked on controller a: link down 3.2 s" in text_of(session_view(session))
    assert "controller a: link down 3.2 s" in text_of(sessions_table([session]))


def test_a_suspended_session_says_why_and_since_when() -> None:
    session = SESSION.model_copy(
        update={
            "state": SessionState.SUSPENDED,
            "suspended_reason": "side file full",
            "suspended_since": "2027-01-15T07:00:00.000000Z",
        }
    )
    assert "suspended since 2027-01-15T07:00:00.000000Z: side file full" in text_of(session_view(session))


@pytest.mark.parametrize("divergence", Divergence)
def test_the_list_of_sessions_says_that_both_sides_wrote(divergence: Divergence) -> None:
    split = SplitReport(divergence=divergence, last_common=NOT_MEASURED, sides=(), commands=())
    session = SESSION.model_copy(update={"split": split, "blocked_on": None})
    assert ("DIVERGED" in text_of(sessions_table([session]))) == (divergence is Divergence.DIVERGED)


def test_a_read_only_pool_says_why_in_its_line() -> None:
    pool = POOL.model_copy(update={"read_only_reason": "fdatasync: [Errno 5] EIO"})
    assert "READ_ONLY" in text_of(pool_line(pool))
    assert "read-only: fdatasync: [Errno 5] EIO" in text_of(pool_line(pool))
    assert "fdatasync: [Errno 5] EIO" in text_of(pool_view(pool))


def test_a_checkpoint_that_waits_for_room_is_shown_with_its_reason() -> None:
    pool = POOL.model_copy(update={"checkpoint_waits_because": "no room for the root"})
    assert "checkpoint waits: no room for the root" in text_of(pool_line(pool))
    assert "no room for the root" in text_of(pool_view(pool))
    assert "waits" not in text_of(pool_line(POOL))


@pytest.mark.parametrize(
    ("delay_ms", "held", "quiesced", "text"),
    [
        (3.5, 6, False, "paced by 3.5 ms of at most 100 ms, 6 held now"),
        (0.0, 2, False, "paced by 0.0 ms of at most 100 ms, 2 held now"),
        (0.0, 0, False, "not held (1000 were paced, 2.5 s in sum)"),
        (3.5, 6, True, "refused for a planned switchover"),
    ],
)
def test_writes_that_are_held_are_never_passed_over(
    delay_ms: float, held: int, quiesced: bool, text: str
) -> None:
    pacing = CAPTURE.pacing.model_copy(update={"delay_ms": delay_ms, "held_write_count": held})
    capture = CAPTURE.model_copy(update={"pacing": pacing, "quiesced": quiesced})
    assert writes_text(capture) == text
    assert text in text_of(captures_table([capture]))


def test_writes_that_were_never_paced_are_simply_not_held() -> None:
    pacing = PacingReport(
        policy=OverflowPolicy.SUSPEND,
        delay_ms=0,
        delay_ms_max=0,
        held_write_count=0,
        paced_write_count=0,
        paced_s=0,
    )
    assert writes_text(CAPTURE.model_copy(update={"pacing": pacing})) == "not held"


def test_the_view_of_a_captured_session_tells_its_marks() -> None:
    text = text_of(capture_view(CAPTURE))
    assert "marks: memory, 77 tracks, toggled 2027-01-15T08:00:00.000Z" in text
    assert "ledger-db: 2100 of 25600 regions suspected at the start" in text
    assert "1234 singly" in text


def test_a_recovery_tells_its_time_and_what_is_missing() -> None:
    ended = SESSION.model_copy(update={"state": SessionState.ENDED, "recovered": behind(14)})
    assert f"recovered to {behind(14).wall}" in recovered_text(ended)
    assert "NOT complete: pair db-copy is COPY" in recovered_text(ended)
    assert "NOT complete" not in recovered_text(ended.model_copy(update={"image_complete": True}))
    assert "nothing was recovered" in recovered_text(SESSION)


def test_the_question_before_a_recovery_tells_what_it_costs() -> None:
    question = recover_question(SESSION, drain=False)
    assert "NOT complete (pair db-copy is COPY)" in question
    assert "14.0 ms" in question
    assert "Writes at its primaries are refused" in recover_question(SESSION, drain=True)


def test_a_pair_says_what_comparing_has_saved() -> None:
    pair = PAIR.model_copy(
        update={
            "reason": None,
            "compared_track_count": 300,
            "equal_track_count": 256,
            "compare_saved_bytes": 1 << 20,
        }
    )
    assert "300 tracks compared, 256 equal: 1.0 MiB not sent" in text_of(pairs_table([pair]))
