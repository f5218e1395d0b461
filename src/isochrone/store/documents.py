"""Documents: small named values that live in the pool, ordered in its log with everything else.

The rooms above keep their own state in them (sessions, pairs), so that it can never disagree with the data
after a crash.
"""

from __future__ import annotations

from collections.abc import Mapping

from isochrone.model.errors import BusyError, NotFoundError, RefusedError
from isochrone.store.limits import (
    DOCUMENT_BYTES_MAX,
    DOCUMENT_BYTES_TOTAL_MAX,
    DOCUMENT_COUNT_MAX,
    DOCUMENT_KEY_BYTES_MAX,
)
from isochrone.store.log import Log
from isochrone.store.log_records import Part, RecordType, pack_document


class Documents:
    """The documents of one pool, over the dict that its state keeps."""

    def __init__(self, values: dict[str, bytes], log: Log) -> None:
        self.values = values
        self._log = log
        self._size_bytes = sum(map(len, values.values()))

    def put(self, key: str, value: bytes) -> None:
        """Store `value` under `key`; see `Pool.put_document`."""
        self._one({key: value})

    def delete(self, key: str) -> None:
        """Remove a document; NotFoundError when there is none."""
        self._one({key: None})

    def check(self, changes: Mapping[str, bytes | None]) -> None:
        """Refuse changes that cannot all be made: values by key, None to remove it.

        Raises:
            RefusedError: a key or value is too long, or a key is empty.
            NotFoundError: a document to be removed does not exist.
            BusyError: a limit of the pool is reached.
        """
        count = len(self.values)
        size_bytes = self._size_bytes
        for key, value in changes.items():
            if value is None:
                if key not in self.values:
                    raise NotFoundError(f"document {key[:80]!r} does not exist in this pool", key=key[:80])
            elif not 0 < len(key.encode()) <= DOCUMENT_KEY_BYTES_MAX or len(value) > DOCUMENT_BYTES_MAX:
                raise RefusedError(
                    f"document {key[:80]!r} of {len(value)} bytes is not usable: keys have 1 to {DOCUMENT_KEY_BYTES_MAX} "
                    f"bytes, values at most {DOCUMENT_BYTES_MAX}",
                    key=key[:80],
                )
            count += (value is not None) - (key in self.values)
            size_bytes += len(value or b"") - len(self.values.get(key, b""))
        is_more = size_bytes > self._size_bytes, count > len(self.values)
        if (size_bytes > DOCUMENT_BYTES_TOTAL_MAX and is_more[0]) or (
            count > DOCUMENT_COUNT_MAX and is_more[1]
        ):
            raise BusyError(
                f"the pool's documents are limited to {DOCUMENT_COUNT_MAX} of {DOCUMENT_BYTES_TOTAL_MAX} bytes together: "
                "delete some first",
                key=next(iter(changes)),
            )

    def change(self, changes: Mapping[str, bytes | None]) -> list[Part]:
        """Make changes that were checked; return what the log is to say of them."""
        parts: list[Part] = []
        for key, value in changes.items():
            self._size_bytes += len(value or b"") - len(self.values.pop(key, b""))
            if value is None:
                parts.append((RecordType.DOCUMENT_DELETE, pack_document(key, b"")))
            else:
                self.values[key] = bytes(value)
                parts.append((RecordType.DOCUMENT_PUT, pack_document(key, value)))
        return parts

    def _one(self, changes: Mapping[str, bytes | None]) -> None:
        self.check(changes)
        self._log.append_together(self.change(changes))
