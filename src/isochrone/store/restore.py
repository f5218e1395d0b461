"""Several volumes become what others are now, whole, as one record of the log: all of them or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isochrone.model.errors import RefusedError
from isochrone.store.documents import Documents
from isochrone.store.limits import TOGETHER_COUNT_MAX
from isochrone.store.log_records import Part, RecordType, pack_establish
from isochrone.store.references import check_references
from isochrone.store.volume import VolumeParts
from isochrone.store.volume_set import VolumeSet, check_writable


def restore(
    parts: VolumeParts,
    volumes: VolumeSet,
    documents: Documents,
    pairs: Sequence[tuple[str, str]],
    changes: Mapping[str, bytes | None],
) -> None:
    """Copy the first volume of each of `pairs` onto the second; see `Pool.restore`."""
    parts.health.check()
    found = [(volumes.volume(source), volumes.volume(target)) for source, target in pairs]
    if len(pairs) > TOGETHER_COUNT_MAX:
        raise RefusedError(f"{len(pairs)} volumes are too many for one step: at most {TOGETHER_COUNT_MAX}")
    targets = {target.number for _, target in found}
    if len(targets) < len(found) or targets & {source.number for source, _ in found}:
        raise RefusedError("a volume is restored twice, or from one that is restored: name each once")
    for _, target in found:
        check_writable(target, "restored")
    documents.check(changes)
    volumes.check_sizes([(source.size_bytes, target.size_bytes) for source, target in found])
    tables = [(parts.state.volumes[a.number], parts.state.volumes[b.number]) for a, b in found]
    check_references(parts.state, lambda: sum(2 * source.repeat_count_max for source, _ in tables))
    volumes.reserve_shared({volume.number for pair in found for volume in pair})
    records: list[Part] = []
    for source, target in found:
        parts.state.establish(source.number, target.number, None)
        target.refresh()
        records.append((RecordType.ESTABLISH, pack_establish(source.number, target.number, None)))
    volumes.log_together([*records, *documents.change(changes)])
