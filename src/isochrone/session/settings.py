"""Limits of a session's dealings with its primaries."""

from __future__ import annotations

from dataclasses import dataclass

MILLISECOND_NS = 1_000_000
SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Times are host time.

    Attributes:
        redial_ns_min, redial_ns_max: back-off between attempts to reach a primary doubles from one to the other.
        silence_ns_max: a streaming link that says nothing for so long is half-open and is closed.
        suspend_wait_ns_max: a suspension whose time has come waits so long for primaries that have not reached it.
        auto_resume_ns_min, auto_resume_ns_max: from a suspension to an automatic resume; doubles from one to the other.
        auto_resume_reset_ns: the doubling begins anew when every pair has been DUPLEX for so long.
        report_wait_ns: over a new link a primary has said by then how long it held acknowledgements meanwhile.
        pair_lead_ns: the time at which pairs are drained and suspended lies so far ahead, for every primary to hear of it.
        drain_ns_max: a planned switchover that is not drained by then is given up.
    """

    redial_ns_min: int = 100 * MILLISECOND_NS
    redial_ns_max: int = 5 * SECOND_NS
    silence_ns_max: int = 5 * SECOND_NS
    suspend_wait_ns_max: int = 30 * SECOND_NS
    auto_resume_ns_min: int = 10 * SECOND_NS
    auto_resume_ns_max: int = 900 * SECOND_NS
    auto_resume_reset_ns: int = 600 * SECOND_NS
    report_wait_ns: int = 2 * SECOND_NS
    pair_lead_ns: int = 100 * MILLISECOND_NS
    drain_ns_max: int = 60 * SECOND_NS
