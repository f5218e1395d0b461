"""The log tells once a minute that the pool gives history up, and at once when all of it went."""

from __future__ import annotations

from structlog.testing import capture_logs

from isochrone.controller.history_log import PAUSE_S, HistoryLog
from isochrone.store.history_keeper import HistoryGivenUp


def test_history_given_up_is_told_at_once_then_summed_up() -> None:
    now_s = 5.0
    log = HistoryLog(lambda: now_s, {1: "pay"}.get)
    told = []
    for new_first_ns, later_s in ((200, 0.0), (300, 1.0), (400, PAUSE_S), (500, 1.0), (None, 1.0)):
        now_s += later_s
        with capture_logs() as lines:
            log.given_up(HistoryGivenUp(1, 100, new_first_ns, 10))
        told += [(line["session"], line["record_count"], line["begins_now_ns"]) for line in lines]
    assert told == [("pay", 10, 200), ("pay", 20, 400), ("pay", 20, None)]


def test_sessions_are_told_apart_and_one_that_is_gone_goes_by_its_number() -> None:
    log = HistoryLog(lambda: 5.0, {1: "pay"}.get)
    with capture_logs() as lines:
        for number in (1, 2):
            log.given_up(HistoryGivenUp(number, 100, 200, 10))
    assert [line["session"] for line in lines] == ["pay", 2]
