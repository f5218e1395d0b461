"""Documents: small named values that live in the pool, ordered in its log with everything else.

The rooms above keep their own state in them (sessions, pairs), so that it can never disagree with the data
after a crash.
"""

from __future__ import annotations

from isochrone.model.errors import BusyError, NotFoundError, RefusedError
from isochrone.store.limits import (
    DOCUMENT_BYTES_MAX,
    DOCUMENT_BYTES_TOTAL_MAX,
    DOCUMENT_COUNT_MAX,
    DOCUMENT_KEY_BYTES_MAX,
)
from isochrone.store.log import Log
from isochrone.store.log_records import RecordType, pack_document


class Documents:
    """The documents of one pool, over the dict that its state keeps."""

    def __init__(self, values: dict[str, bytes], log: Log) -> None:
        self.values = values
        self._log = log
        self._size_bytes = sum(map(len, values.values()))

    def put(self, key: str, value: bytes) -> None:
        """Store `value` under `key`; see `Pool.put_document`."""
        if not 0 < len(key.encode()) <= DOCUMENT_KEY_BYTES_MAX or len(value) > DOCUMENT_BYTES_MAX:
            raise RefusedError(
                f"document {key[:80]!r} of {len(value)} bytes is not usable: keys have 1 to {DOCUMENT_KEY_BYTES_MAX} "
                f"bytes, values at most {DOCUMENT_BYTES_MAX}",
                key=key[:80],
            )
        size_bytes = self._size_bytes + len(value) - len(self.values.get(key, b""))
        too_many = key not in self.values and len(self.values) >= DOCUMENT_COUNT_MAX
        if size_bytes > DOCUMENT_BYTES_TOTAL_MAX or too_many:
            raise BusyError(
                f"the pool's documents are limited to {DOCUMENT_COUNT_MAX} of {DOCUMENT_BYTES_TOTAL_MAX} bytes together: "
                "delete some first",
                key=key,
            )
        self._size_bytes = size_bytes
        self.values[key] = bytes(value)
        self._log.append(RecordType.DOCUMENT_PUT, pack_document(key, value))

    def delete(self, key: str) -> None:
        """Remove a document; NotFoundError when there is none."""
        if key not in self.values:
            raise NotFoundError(f"document {key[:80]!r} does not exist in this pool", key=key[:80])
        self._size_bytes -= len(self.values.pop(key))
        self._log.append(RecordType.DOCUMENT_DELETE, pack_document(key, b""))
