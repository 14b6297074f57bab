"""A native RocksDB iterator, read in chunks and freed on demand."""

from __future__ import annotations

from typing import Protocol

from vectordb.errors import Closed

_CHUNK_BYTES = 256 * 1024


class NativeIterator(Protocol):
    """What is used of ``rocksdict.RdictIter``. Its ``items()`` would end silently at a damaged block."""

    def valid(self) -> bool: ...

    def status(self) -> None: ...

    def seek(self, key: bytes) -> None: ...

    def seek_for_prev(self, key: bytes) -> None: ...

    def next(self) -> None: ...

    def prev(self) -> None: ...

    def key(self) -> bytes: ...

    def value(self) -> bytes: ...


class Cursor:
    """A native iterator that is read in chunks inside the gate and can be freed from outside.

    Args:
        iterator: Freshly made, over an upper bound of ``bounds[1]``.
        bounds: ``[start, end)``.
        reverse: Walk down from the end.
        keep: What must live as long as the iterator: its options, whose memory it uses.
    """

    __slots__ = ("__weakref__", "_edge", "_iterator", "_keep", "_reverse")

    def __init__(self, iterator: NativeIterator, bounds: tuple[bytes, bytes], reverse: bool, keep: object) -> None:
        start, end = bounds
        self._keep = keep
        self._iterator: NativeIterator | None = iterator
        # Going backwards nothing native stops at the start of the range.
        self._edge = start if reverse else None
        self._reverse = reverse
        if reverse:
            iterator.seek_for_prev(end)
        else:
            iterator.seek(start)

    def read(self, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to ``limit`` further pairs (fewer when they are large); empty at the end."""
        iterator, edge = self._iterator, self._edge
        if iterator is None:
            raise Closed("this scan's storage is closed; open it again to scan it")
        advance = iterator.prev if self._reverse else iterator.next
        chunk: list[tuple[bytes, bytes]] = []
        room = _CHUNK_BYTES
        while iterator.valid():
            key = iterator.key()
            if edge is not None and key < edge:
                return chunk
            value = iterator.value()
            chunk.append((key, value))
            advance()
            room -= len(value)
            if len(chunk) >= limit or room <= 0:
                return chunk
        if not chunk:
            # Raises where a damaged block, not the end of the data, ended the walk; what stood before it was given.
            iterator.status()
        return chunk

    def free(self) -> None:
        """Drops the native iterator. Only where no thread can be inside :meth:`read`."""
        self._iterator = None
