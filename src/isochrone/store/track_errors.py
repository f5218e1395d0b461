"""The one device error that a write can meet without having changed anything."""

from __future__ import annotations

import errno


class TrackReadError(OSError):
    """Old content that a request for part of a track needs cannot be read: nothing was changed, nothing was written.

    An OSError with the device's errno, so the client is answered with it. A write of the whole track needs no old
    content and goes through.
    """


def track_read_error(volume: str, track: int, cause: OSError) -> TrackReadError:
    """Return the error of a request for part of `track` that failed with `cause`."""
    return TrackReadError(
        cause.errno or errno.EIO,
        f"track {track} of volume {volume} cannot be read ({cause.strerror or cause}), so a part of it cannot be changed: "
        "write the whole track",
    )
