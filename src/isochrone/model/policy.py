"""What an operator asks of a session's primaries: one value that the session keeps, tells its primaries, and they keep."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from isochrone.model.choices import ComparePolicy, MarkPolicy, OverflowPolicy, PaceLevel

Nanoseconds = Annotated[int, Field(ge=0, lt=1 << 64)]


class SessionPolicy(BaseModel):
    """Settings that primaries obey. Every field has a default, so that a session is created with those given only.

    Attributes:
        overflow_policy: what a primary does when its side file approaches the limit.
        compare: which marked tracks are compared before they are sent.
        pace_level: how early and how steeply writes are delayed, but under OverflowPolicy.SUSPEND.
        pace_delay_ns_max: longest delay of one acknowledgement by pacing.
        hold_ns_max: under OverflowPolicy.HOLD, the longest that a write waits for room at the limit.
        copy_rate_bytes_max: images of tracks that one primary sends in a second at most; 0 for no limit.
        link_timeout_ns: a primary that was without its link for so long suspends, and so does a session that a primary was
            missing from for so long; 0 for never: the side file's limit decides.
        auto_resume: a suspension that was not by command ends by itself (see session.auto_resume).
        auto_resume_budget_ns: not while acknowledgements were held for longer than this in the last hour.
        copy_share_percent: of the time, at most so much of the link is given to images while applications write.
        mark_policy: what the marks of changed tracks survive.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    overflow_policy: OverflowPolicy = OverflowPolicy.PACE
    compare: ComparePolicy = ComparePolicy.SUSPECTED
    pace_level: PaceLevel = PaceLevel.STEADY
    pace_delay_ns_max: Nanoseconds = 100_000_000
    hold_ns_max: Nanoseconds = 5_000_000_000
    copy_rate_bytes_max: Annotated[int, Field(ge=0, lt=1 << 48)] = 0
    copy_share_percent: Annotated[int, Field(ge=1, le=100)] = 50
    mark_policy: MarkPolicy = MarkPolicy.MEMORY
    link_timeout_ns: Nanoseconds = 0
    auto_resume: bool = True
    auto_resume_budget_ns: Nanoseconds = 60_000_000_000

    def changed(self, **fields: object) -> SessionPolicy:
        """Return a copy with `fields` replaced."""
        return self.model_copy(update=fields)
