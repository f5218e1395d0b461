"""Getting rid of what the page cache shows but the device never stored.

After a failed datasync the pages that could not be written are clean and still in the cache, for as long as
memory allows. A process that reads them takes them for stored; they are gone when they are evicted, or with the
power. So the open that finds such a failure noted (see head) drops the clean pages of every file that it is going
to trust, before it reads the first. From then on reads show what the device holds and what is still dirty: the same
mixture of old and new sectors that a power loss leaves, and recovery treats it as one.
"""

from __future__ import annotations

from isochrone.store.disk import Disk
from isochrone.store.head import Trouble, decode_trouble, read_head
from isochrone.store.page_slots import PAGES_NAME
from isochrone.store.parts import open_part
from isochrone.store.root import ROOT_NAME
from isochrone.store.segment import SEGMENT_NAMES
from isochrone.store.superblock import Superblock


def drop_lost_pages(disk: Disk, superblock: Superblock) -> Trouble:
    """Drop the cached pages of the pool's files if the head tells of a failed datasync; return all it tells of.

    Changes no byte of any file. DamagedError when a file is missing.
    """
    trouble = decode_trouble(read_head(disk))
    if Trouble.CACHE_LOST in trouble:
        for name in (superblock.tracks_path, *SEGMENT_NAMES, PAGES_NAME, ROOT_NAME):
            file = open_part(disk, name)
            try:
                file.drop_cache()
            finally:
                file.close()
    return trouble
