"""The seam to durable storage: an ordered key-value store with atomic batches and an explicit sync.

Two implementations, RocksDB (``rocks.py``) and memory (``memory.py``), pass one conformance suite
(``tests/conformance/test_storage.py``). Keys and values are ``bytes``; keys are ordered bytewise within a family.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Protocol


class Family(StrEnum):
    """The few fixed key spaces; collections share them and are told apart by key prefix (``keys.py``)."""

    META = "default"
    """Catalogue, states, id map, tombstones, manifests, idempotency keys: small values."""
    ROWS = "rows"
    """Payloads: id, metadata and text of a row version."""
    VECTORS = "vectors"
    """Raw float32 vectors, written once."""


class Batch(Protocol):
    """Changes applied together by :meth:`Storage.write`. Built by one thread; later calls win over earlier ones."""

    def put(self, family: Family, key: bytes, value: bytes) -> None: ...

    def put_many(self, family: Family, keys: Iterable[bytes], values: Iterable[bytes]) -> None:
        """Puts pairs in order, without a Python loop. Raises ValueError when the lengths differ."""
        ...

    def delete(self, family: Family, key: bytes) -> None:
        """Removes the key; one that is absent is no error."""
        ...

    def delete_range(self, family: Family, start: bytes, end: bytes) -> None:
        """Removes all keys in ``[start, end)``."""
        ...

    def __len__(self) -> int:
        """Number of changes so far; each pair of :meth:`put_many` is one."""
        ...


class Storage(Protocol):
    """The store. All methods are thread-safe; after :meth:`close` all but ``close`` raise ``Closed``.

    Errors: a failing disk raises ``ResourceExhausted`` (no space) or ``Internal``; data that fails a checksum raises
    ``Corruption``. After a failed ``write`` or ``sync`` the store takes neither until it is opened again.

    Attributes:
        failure: Why, from then on.
    """

    @property
    def failure(self) -> str | None: ...

    def batch(self) -> Batch:
        """A new empty batch for this store."""
        ...

    def write(self, batch: Batch) -> None:
        """Applies the batch: all or nothing, visible to reads on return.

        Durability: survives the end of the process once :meth:`sync` or an operating-system flush followed; until
        :meth:`sync` returns, a kill or a power loss may take it back, but only together with all later writes.
        Holds the GIL while it runs: keep batches below about 1 MB and 500 rows.
        """
        ...

    def sync(self) -> int:
        """Makes every write that returned before this call survive power loss. Releases the GIL.

        Returns:
            The store's sequence number before the call: all writes up to it are durable.
        """
        ...

    def get(self, family: Family, key: bytes) -> bytes | None: ...

    def get_many(self, family: Family, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of ``keys``, ``None`` where absent. Releases the GIL. Not a snapshot across keys."""
        ...

    def scan(self, family: Family, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with ``start <= key < end`` in key order (``reverse``: descending), as of the call.

        Closing or dropping the iterator frees what it holds. It stays preemptible: other threads run in between.
        """
        ...

    def sequence(self) -> int:
        """A number that grows by every change; never decreases while data is intact, reopening included."""
        ...

    def compact(self, family: Family, start: bytes, end: bytes) -> None:
        """Rewrites the range so that deleted data leaves the disk. Releases the GIL; may take long."""
        ...

    def disk_bytes(self) -> int:
        """Bytes on disk (0 in memory), an estimate."""
        ...

    def memory_bytes(self) -> int:
        """Bytes of memory held by caches and unflushed writes, an estimate."""
        ...

    def hurry(self) -> None:
        """Says that it will be closed soon: a write that it holds up fails within seconds, with ``ResourceExhausted``,
        and does nothing."""
        ...

    def close(self) -> None:
        """Syncs and frees everything, waiting for running reads. Idempotent."""
        ...
