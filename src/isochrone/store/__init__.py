"""Pools of tracks and the volumes on them: what an acknowledged write rests on. Disks are handed in."""

from isochrone.store.pool import Pool
from isochrone.store.state import CommitResult
from isochrone.store.stats import PoolStats
from isochrone.store.volume import Volume, ZeroResult

__all__ = ["CommitResult", "Pool", "PoolStats", "Volume", "ZeroResult"]
