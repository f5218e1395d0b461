"""The copier keeps to the operator's rate, and gives the link back to applications for the rest of the time."""

import pytest

from isochrone.capture.copy_pacer import (
    BURST_BYTES,
    BURST_NS_MAX,
    LOOK_NS_MAX,
    REST_NS_MAX,
    SECOND_NS,
    CopyPacer,
)

MS = 1_000_000
TRACK = 4096


def room(
    pacer: CopyPacer,
    now_ns: int,
    *,
    rate: int = 0,
    share: float = 0.5,
    unhardened: int = 0,
    writes: bool = True,
) -> int | None:
    return pacer.room_bytes(
        now_ns, rate_bytes_max=rate, share=share, unhardened_bytes=unhardened, beside_writes=writes
    )


def test_without_a_rate_and_without_writes_there_is_no_limit() -> None:
    assert room(CopyPacer(), 0, writes=False) is None


@pytest.mark.parametrize("rate", [1000, 100_000, 50 << 20])
@pytest.mark.parametrize("writes", [False, True])
def test_the_rate_is_kept_whatever_a_step_takes(rate: int, writes: bool) -> None:
    pacer = CopyPacer()
    sent = 0
    for now_ns in range(0, 10 * SECOND_NS, 2 * MS):
        allowed = room(pacer, now_ns, rate=rate, share=1.0, writes=writes)
        assert allowed is not None
        if allowed:
            step = max(TRACK, allowed // TRACK * TRACK)
            pacer.entered(now_ns, step)
            sent += step
    assert 0.95 * 10 * rate - TRACK <= sent <= 1.02 * 10 * rate + TRACK


def test_a_rate_that_is_changed_holds_at_once() -> None:
    pacer = CopyPacer()
    room(pacer, 0, rate=1 << 30, writes=False)
    assert room(pacer, SECOND_NS, rate=1 << 30, writes=False) == (1 << 30) // 10
    assert room(pacer, SECOND_NS, rate=1 << 20, writes=False) == (1 << 20) // 10


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("link_bytes_per_s", [10 << 20, 400 << 20])
def test_beside_writes_images_have_the_link_for_their_share_of_the_time(
    share: float, link_bytes_per_s: int
) -> None:
    pacer = CopyPacer()
    in_link = busy_ms = 0
    for now_ms in range(60_000):
        if in_link:
            busy_ms += 1
        in_link = max(0, in_link - link_bytes_per_s // 1000)
        allowed = room(pacer, now_ms * MS, share=share, unhardened=in_link)
        assert allowed is not None
        if step := min(allowed, 64 * TRACK):
            pacer.entered(now_ms * MS, step)
            in_link += step
    assert busy_ms / 60_000 == pytest.approx(share, abs=0.12)


def test_a_burst_is_bounded_and_the_next_waits_until_it_is_hardened() -> None:
    pacer = CopyPacer()
    assert room(pacer, 0) == BURST_BYTES
    pacer.entered(0, BURST_BYTES)
    assert room(pacer, 10 * MS, unhardened=TRACK) == 0
    assert room(pacer, 20 * MS) == 0  # hardened after 20 ms: rests as long
    assert room(pacer, 39 * MS) == 0
    assert room(pacer, 40 * MS) == BURST_BYTES


def test_a_link_that_stalled_does_not_stop_the_copy_for_long() -> None:
    pacer = CopyPacer()
    pacer.entered(0, BURST_BYTES)
    minute_ns = 60 * SECOND_NS
    for now_ns in range(0, minute_ns, 100 * MS):
        assert room(pacer, now_ns, unhardened=TRACK) == 0
    assert room(pacer, minute_ns) == 0
    assert room(pacer, minute_ns + REST_NS_MAX - MS) == 0
    assert room(pacer, minute_ns + REST_NS_MAX) == BURST_BYTES


def test_a_burst_on_a_slow_link_ends_by_time() -> None:
    pacer = CopyPacer()
    pacer.entered(0, TRACK)
    for now_ns in range(0, BURST_NS_MAX, 100 * MS):
        assert room(pacer, now_ns, unhardened=TRACK) == BURST_BYTES - TRACK
    assert room(pacer, BURST_NS_MAX, unhardened=TRACK) == 0
    assert room(pacer, BURST_NS_MAX + 100 * MS) == 0  # hardened: rests as long
    assert room(pacer, 2 * (BURST_NS_MAX + 100 * MS)) == BURST_BYTES


def test_time_in_which_nothing_could_be_copied_earns_no_rest() -> None:
    pacer = CopyPacer()
    pacer.entered(0, TRACK)
    hour_ns = 3600 * SECOND_NS  # without a link, say
    assert room(pacer, hour_ns) == BURST_BYTES - TRACK
    pacer.entered(hour_ns, BURST_BYTES - TRACK)
    assert room(pacer, hour_ns + MS) == 0
    assert room(pacer, hour_ns + 2 * MS + LOOK_NS_MAX) == BURST_BYTES


def test_a_rest_ends_when_applications_stop_writing() -> None:
    pacer = CopyPacer()
    pacer.entered(0, BURST_BYTES)
    assert room(pacer, SECOND_NS) == 0
    assert room(pacer, SECOND_NS + MS, writes=False) is None
