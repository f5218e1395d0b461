"""The faults: each is done to real processes, its documented state is waited for, and it is taken away again.

A fault leaves every process running and every way open, but does not wait until the session is DUPLEX: what comes next
may meet a resync. Durations are drawn from the soak's seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from isochrone.model.choices import MarkPolicy
from isochrone.testing.processes import ControllerProcess, wait_until
from soak.loads import DatabaseLoad, Load
from soak.primary_device import PRIMARY_DEVICE_FAULTS
from soak.sites import BLOCKED_S_MAX, WEST, SoakError, freeze, thaw
from soak.stage import SHORT_S, Fault, Stage
from soak.turning import TURNS
from support.faulty_device import DeviceError

LINK_RATE_BYTES_PER_S: Final = 200_000
LAG_SLACK_MS: Final = 1500.0
IDLE_SLACK_NS: Final = 50_000_000
"""A copy knows the last time at which something was committed; between that and the suspension nothing was written."""
"""How much smaller than the length of a trouble the lag may be that is told of it: what was on its way when it began."""


def _kill_primary(stage: Stage) -> str:
    lost = stage.a_primary()
    stage.lose(lost)
    seconds = stage.pause(SHORT_S)
    stage.regain(lost)
    return f"{lost.name} for {seconds:.1f} s"


def _kill_west(stage: Stage) -> str:
    stage.sites.west.kill()
    seconds = stage.pause(SHORT_S)
    stage.sites.west.start()
    return f"for {seconds:.1f} s"


def _freeze_primary(stage: Stage) -> str:
    frozen = stage.a_primary()
    began_ns = stage.sites.host_time_ns()
    freeze(frozen)
    try:
        _wait_silent(stage, frozen.name)
        _wait_lag_grows(stage, began_ns)
    finally:
        thaw(frozen)
    return frozen.name


def _freeze_west(stage: Stage) -> str:
    freeze(stage.sites.west)
    try:
        seconds = stage.pause((1.0, 7.0))
    finally:
        thaw(stage.sites.west)
    return f"for {seconds:.1f} s"


def _cut(stage: Stage) -> str:
    cut = stage.random.choice([stage.sites.east, (stage.a_primary(),)])
    for controller in cut:
        stage.sites.network.cut(controller.name, WEST)
    return _outage(stage, cut)


def _cut_towards_west(stage: Stage) -> str:
    primary = stage.a_primary()
    stage.sites.network.block(primary.name, WEST)
    return _outage(stage, (primary,))


def _cut_towards_east(stage: Stage) -> str:
    primary = stage.a_primary()
    stage.sites.network.block(WEST, primary.name)
    return _outage(stage, (primary,))


def _outage(stage: Stage, cut: Sequence[ControllerProcess]) -> str:
    began_ns = stage.sites.host_time_ns()
    try:
        for controller in cut:
            _wait_silent(stage, controller.name)
        _wait_lag_grows(stage, began_ns)
        stage.pause((0.0, 2.0))
    finally:
        stage.sites.network.heal()
    return ", ".join(controller.name for controller in cut)


def _vanish_primary(stage: Stage) -> str:
    """The primary dies behind a cut and comes back: west still holds a connection that nobody is at the other end of."""
    lost = stage.a_primary()
    stage.sites.network.cut(lost.name, WEST)
    try:
        stage.lose(lost)
        stage.regain(lost)
        stage.pause(SHORT_S)
    finally:
        stage.sites.network.heal()
    return lost.name


def _vanish_west(stage: Stage) -> str:
    """The same with west: primaries hold half-open connections while it calls again."""
    for controller in stage.sites.east:
        stage.sites.network.cut(controller.name, WEST)
    try:
        stage.sites.west.kill()
        stage.pause(SHORT_S)
        stage.sites.west.start()
    finally:
        stage.sites.network.heal()
    return "both links"


def _slow_link(stage: Stage) -> str:
    stage.sites.network.limit_rate(WEST, LINK_RATE_BYTES_PER_S)
    try:
        seconds = stage.pause((4.0, 8.0))
    finally:
        stage.restore_link()
    return f"{LINK_RATE_BYTES_PER_S // 1000} kB/s for {seconds:.1f} s"


def _fail_device(error: DeviceError) -> Callable[[Stage], str]:
    def do(stage: Stage) -> str:
        device = stage.sites.device
        if device is None:
            raise SoakError("this soak has no device that can fail")
        began_ns = stage.sites.host_time_ns()
        device.fail(error)
        try:
            _wait_lag_grows(stage, began_ns)
            seconds = stage.pause((0.5, 3.0))
        finally:
            device.heal()
        return f"for {seconds:.1f} s after it was told"

    return do


def _fail_device_rarely(stage: Stage) -> str:
    device = stage.sites.device
    if device is None:
        raise SoakError("this soak has no device that can fail")
    device.fail(DeviceError.EIO_RARELY)
    try:
        seconds = stage.pause((2.0, 6.0))
    finally:
        device.heal()
    return f"for {seconds:.1f} s"


def _lose_device(stage: Stage) -> str:
    """The device is pulled out: the pool turns read-only, and says so, until the device is back and west restarted."""
    device, west = stage.sites.device, stage.sites.west
    if device is None:
        raise SoakError("this soak has no device that can fail")
    began_ns = stage.sites.host_time_ns()
    device.pull_out()
    wait_until(
        lambda: west.get("/v1/pool")["state"] == "READ_ONLY",
        "west's pool is read-only",
        deadline_s=BLOCKED_S_MAX,
    )
    _wait_lag_grows(stage, began_ns)
    west.kill()
    device.plug_in()
    west.start()
    return "until west was restarted"


def _suspend(stage: Stage) -> str:
    stage.sites.suspend("the soak says so")
    stage.sites.wait_told(lambda report: report["state"] == "SUSPENDED", "it is SUSPENDED")
    seconds = stage.pause(SHORT_S)
    stage.sites.resume()
    return f"for {seconds:.1f} s"


def _suspend_in_resync(stage: Stage) -> str:
    """Suspend, resume, and suspend again in the middle of the resync, with writes going on."""
    count = stage.random.randint(2, 4)
    for _ in range(count):
        stage.sites.suspend("the soak says so")
        stage.pause((0.0, 0.6))
        stage.sites.resume()
        stage.pause((0.0, 0.2))
    return f"{count} times"


def _suspend_drained(stage: Stage) -> str:
    """Suspend with all that is acknowledged now, and prove on a copy that it is there.

    Not in a resync, whose old image would stay, nor while the session is suspended by what went before.
    """
    stage.sites.settle()
    asked_ns = stage.sites.host_time_ns()
    stage.sites.suspend("the soak says so", drain=True)
    stage.sites.wait_told(lambda report: report["state"] == "SUSPENDED", "it is SUSPENDED")
    with stage.sites.recovered_copy() as (copy, recovered_ns):
        if recovered_ns < asked_ns - IDLE_SLACK_NS:
            raise SoakError(f"a drained image is of {asked_ns - recovered_ns} ns before the command")
        proved = stage.prove(copy, recovered_ns, _provable_beside(stage))
    stage.sites.resume()
    return proved


def _provable_beside(stage: Stage) -> list[Load]:
    """Loads whose images can be checked while they run: a database's mounts are in use."""
    return [load for load in stage.loads if not isinstance(load, DatabaseLoad)]


def _recover_copy(stage: Stage) -> str:
    with stage.sites.recovered_copy() as (copy, recovered_ns):
        return stage.prove(copy, recovered_ns, _provable_beside(stage))


def _lose_site(stage: Stage) -> str:
    stage.lose(*stage.sites.east)
    proved = stage.prove(stage.sites.west, stage.sites.recover(), stage.loads)
    marks = stage.random.choice(tuple(MarkPolicy))
    stage.sites.session_settings["mark_policy"] = marks
    settled = stage.sites.rebuild()
    for load in stage.loads:
        load.start()
    return f"{proved}; rebuilt in {settled.seconds:.1f} s, marks {marks}"


def _lose_site_and_give_back(stage: Stage) -> str:
    """The same; then west works on for a while, and its writes are given up for those of the old primaries."""
    stage.lose(*stage.sites.east)
    proved = stage.prove(stage.sites.west, stage.sites.recover(), stage.loads)
    blocks = stage.sites.scribble(stage.random)
    settled = stage.sites.give_back()
    for load in stage.loads:
        load.start()
    return f"{proved}; given back, with {blocks} writes given up, in {settled.seconds:.1f} s"


def _wait_silent(stage: Stage, primary: str) -> None:
    """Wait until the session says that `primary` is gone, or has suspended because nothing gets through."""

    def is_told(report: dict[str, Any]) -> bool:
        if report["state"] == "SUSPENDED":
            return True
        link_state = next(source["link_state"] for source in report["sources"] if source["name"] == primary)
        return link_state != "UP" and f"primary {primary} is not streaming" in (report["blocked_on"] or "")

    stage.sites.wait_told(is_told, f"primary {primary} is not streaming")


def _wait_lag_grows(stage: Stage, began_ns: int) -> None:
    """Blocked is not zero lag: since `began_ns` nothing gets through, and the session says so, with a lag as long."""

    def is_honest(report: dict[str, Any]) -> bool:
        blocked_ms = (stage.sites.host_time_ns() - began_ns) / 1e6
        lag_ms = report["consistency"]["lag_ms"]
        return bool(
            blocked_ms > LAG_SLACK_MS
            and report["blocked_on"]
            and (lag_ms is None or lag_ms > blocked_ms - LAG_SLACK_MS)
        )

    stage.sites.wait_told(is_honest, "it is blocked, with a lag that grows")


_FENCED: Final = (
    r"was recovered at west under epoch.*request failed",
    r"request failed.*was recovered at west",
)
_TROUBLE: Final = (
    r"session cannot go on",
    r"SUSPENDED.*(tried again to the limit|the pool is read-only).*(session|capture) changed",
)
_LOSS: Final = (
    *_TROUBLE,
    r"pool turned read-only",
    r"pool was not left in order",
    r"repair the device.*received writes wait",
)

FAULTS: Final = (
    Fault("kill -9 of a primary", _kill_primary),
    Fault("kill -9 of the secondary", _kill_west),
    Fault("SIGSTOP of a primary", _freeze_primary),
    Fault("SIGSTOP of the secondary", _freeze_west),
    Fault("link cut", _cut),
    Fault("link cut towards the secondary", _cut_towards_west),
    Fault("link cut towards the primary", _cut_towards_east),
    Fault("half-open: primary dies behind a cut", _vanish_primary),
    Fault("half-open: secondary dies behind a cut", _vanish_west),
    Fault("slow link", _slow_link),
    Fault("secondary's device: EIO", _fail_device(DeviceError.EIO), _TROUBLE),
    Fault("secondary's device: ENOSPC", _fail_device(DeviceError.ENOSPC), _TROUBLE),
    Fault("secondary's device: EIO now and then", _fail_device_rarely, _TROUBLE),
    Fault("secondary's device pulled out", _lose_device, _LOSS),
    *PRIMARY_DEVICE_FAULTS,
    Fault("suspend and resume", _suspend),
    Fault("suspend in the middle of a resync", _suspend_in_resync),
    Fault("recover a copy of the secondary", _recover_copy),
    Fault("suspend at a drained instant", _suspend_drained),
    Fault("site lost, recovered, rebuilt", _lose_site, _FENCED, needs_rest=True),
    Fault("site lost, recovered, given back", _lose_site_and_give_back, _FENCED, needs_rest=True),
    *TURNS,
)
