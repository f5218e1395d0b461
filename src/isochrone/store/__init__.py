"""Pools of tracks and the volumes on them: what an acknowledged write rests on. Disks are handed in."""
