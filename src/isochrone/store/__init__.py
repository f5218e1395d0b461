"""Pools of tracks and the volumes on them: what an acknowledged write rests on. Disks are handed in."""

from isochrone.store.differences import TrackRuns
from isochrone.store.establish import Extent
from isochrone.store.pool import Pool
from isochrone.store.space import VolumeSpace
from isochrone.store.state import CommitResult
from isochrone.store.stats import PoolStats
from isochrone.store.volume import Volume, ZeroResult
from isochrone.store.volume_set import CopyItem

__all__ = [
    "CommitResult",
    "CopyItem",
    "Extent",
    "Pool",
    "PoolStats",
    "TrackRuns",
    "Volume",
    "VolumeSpace",
    "ZeroResult",
]
