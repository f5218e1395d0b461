"""The past of two sessions: "bank" is moved here, "ledger" is fed from here."""

from __future__ import annotations

from isochrone.api.history_requests import CreateImageRequest, NameInstantRequest
from isochrone.model.errors import ConflictError, NotFoundError
from isochrone.report.history_models import (
    GapReport,
    HistoryReport,
    HistorySummary,
    ImageReport,
    ImageVolumeReport,
    InstantReport,
    KeptVolumeReport,
    NamedInstantReport,
)
from support.reports import behind

SUMMARY = HistorySummary(
    window_s=3600.0,
    record_count=1200,
    held_bytes=1200 * 4096,
    metadata_bytes=1200 * 28,
    given_up=behind(4_000_000),
    given_up_reason="the pool needed the space",
    trouble=None,
)
HISTORY = HistoryReport(
    session="bank",
    window_s_max=86_400.0,
    bytes_max=20 << 30,
    first=behind(3_600_000),
    through=behind(5),
    summary=SUMMARY,
    gaps=(
        GapReport(since=behind(2_000_000), until=behind(1_900_000)),
        GapReport(since=behind(100), until=None),
    ),
    instants=(
        NamedInstantReport(text="before the upgrade", time=behind(1_000_000), source="a", reachable=True),
        NamedInstantReport(text="in the gap", time=behind(1_950_000), source="a", reachable=False),
    ),
    volumes=(KeptVolumeReport(volume="db-copy", since=behind(3_600_000), until=None),),
)


class FakeHistoryOperations:
    """Implements api.history_operations.HistoryOperations.

    Attributes:
        calls: what was called.
        requests: what images were asked for.
        clients: NBD clients of every image's volumes.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.requests: list[CreateImageRequest] = []
        self.clients: tuple[str, ...] = ()
        self.history_report = HISTORY
        self._images: dict[str, ImageReport] = {}

    async def name_instant(self, name: str, request: NameInstantRequest) -> InstantReport:
        self.calls.append("name_instant")
        if name == "bank":
            raise ConflictError("the mover of session bank is here: give the command to a primary")
        return InstantReport(session=name, text=request.text, time=behind(3), hardened=request.wait_s > 0)

    async def history(self, name: str) -> HistoryReport:
        self.calls.append("history")
        self._known(name)
        return self.history_report

    async def images(self, name: str) -> list[ImageReport]:
        self.calls.append("images")
        self._known(name)
        return list(self._images.values())

    async def create_image(self, name: str, request: CreateImageRequest) -> ImageReport:
        self.calls.append("create_image")
        self.requests.append(request)
        self._known(name)
        image = request.image or "20261120T103102Z"
        self._images[image] = ImageReport(
            session=name,
            image=image,
            time=behind(1000),
            made=behind(0).wall or "",
            volumes=(
                ImageVolumeReport(secondary="db-copy", volume=f"db-copy~{image}", clients=self.clients),
            ),
            left_out=("late",),
        )
        return self._images[image].model_copy(update={"made_in_ms": 1.5})

    async def discard_image(self, name: str, image: str) -> ImageReport:
        self.calls.append("discard_image")
        self._known(name)
        if self.clients:
            raise ConflictError(f"image {image} is open by {self.clients[0]}: disconnect first")
        if image not in self._images:
            raise NotFoundError(f"no image {image}")
        return self._images.pop(image)

    @staticmethod
    def _known(name: str) -> None:
        if name != "bank":
            raise NotFoundError(f"no session {name}: see isochrone session list")
