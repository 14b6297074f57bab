"""Rows that were found, read by column: from the parts that hold them, and from storage what no part has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import compress, repeat
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

import numpy as np

from vectordb.encoding import decode_metadata
from vectordb.filter import Filter, matches
from vectordb.storage import codec, keys
from vectordb.storage.base import Family
from vectordb.types import Record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.engine.live import LiveCollection
    from vectordb.requests import GetRequest, ScanRequest, SearchRequest
    from vectordb.segments.part import Part

T = TypeVar("T")


class Located(Protocol):
    """Rows by column: where their payloads are stored, and what is known of them without asking storage."""

    @property
    def offsets(self) -> list[int]: ...

    @property
    def versions(self) -> list[int]:
        """The versions that wrote their payloads."""
        ...

    @property
    def ids(self) -> list[str]: ...

    @property
    def metadata(self) -> list[bytes] | None:
        """Encoded; None where only storage has it."""
        ...


class Entries(NamedTuple):
    """Rows that were found by their ids: parts are not asked."""

    offsets: list[int]
    versions: list[int]
    ids: list[str]
    metadata: list[bytes] | None = None


class PartRows:
    """Rows int64[k] of one part. Each column is made when asked for."""

    def __init__(self, part: Part, rows: NDArray[np.int64]) -> None:
        self._part, self._rows = part, rows

    @cached_property
    def offsets(self) -> list[int]:
        found: list[int] = self._part.offsets(self._rows).tolist()
        return found

    @cached_property
    def versions(self) -> list[int]:
        found: list[int] = self._part.payload_versions(self._rows).tolist()
        return found

    @property
    def ids(self) -> list[str]:
        return self._part.ids(self._rows)

    @property
    def metadata(self) -> list[bytes] | None:
        return self._part.metadata(self._rows)


class Rows:
    """Rows int64[k] of several parts; ``owners`` int64[k] has each row's part. Each column is made when asked for."""

    def __init__(self, parts: Sequence[Part], owners: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        self._count = len(rows)
        self._pieces: list[tuple[list[int], PartRows]] = []
        for number in np.unique(owners).tolist():
            places = np.flatnonzero(owners == number)
            self._pieces.append((places.tolist(), PartRows(parts[number], rows[places])))

    @cached_property
    def offsets(self) -> list[int]:
        return self._gathered(lambda piece: piece.offsets) or []

    @cached_property
    def versions(self) -> list[int]:
        return self._gathered(lambda piece: piece.versions) or []

    @property
    def ids(self) -> list[str]:
        return self._gathered(lambda piece: piece.ids) or []

    @property
    def metadata(self) -> list[bytes] | None:
        return self._gathered(lambda piece: piece.metadata)

    def _gathered(self, column: Callable[[PartRows], list[T] | None]) -> list[T] | None:
        """A column of all rows, each part asked once; None where one of them does not have it."""
        found: list[Any] = [None] * self._count
        for places, piece in self._pieces:
            values = column(piece)
            if values is None:
                return None
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found


def rows_of_parts(parts: Sequence[Part], owners: NDArray[np.int64], rows: NDArray[np.int64]) -> Located:
    """Rows int64[k]; ``owners`` int64[k] has each row's part."""
    numbers = owners.tolist()
    if numbers and numbers.count(numbers[0]) == len(numbers):
        return PartRows(parts[numbers[0]], rows)
    return Rows(parts, owners, rows)


class Stored:
    """The columns of rows that a request includes; ``None`` for the others.

    Payloads are read from storage only where texts are asked for, or metadata that the parts do not have. Whatever
    reads them raises ``Corruption`` where one is missing, and whatever reads storage ``CollectionNotFound`` where the
    collection was deleted meanwhile.
    """

    def __init__(
        self, live: LiveCollection, located: Located, request: SearchRequest | GetRequest | ScanRequest
    ) -> None:
        self._live, self._located, self._request = live, located, request

    @cached_property
    def _payloads(self) -> list[bytes]:
        located = self._located
        wanted = keys.payload_keys_at(self._live.number, located.offsets, located.versions)
        found = self._live.storage.get_many(Family.ROWS, wanted)
        if None in found:
            row = found.index(None)
            raise self._live.missing_payload(located.offsets[row], located.versions[row])
        return cast("list[bytes]", found)

    def keep(self, where: Filter) -> None:
        """Leaves out the rows that do not match."""
        there = [matches(where, decode_metadata(codec.payload_metadata(data))) for data in self._payloads]
        self._payloads = list(compress(self._payloads, there))
        located = self._located
        offsets, versions = compress(located.offsets, there), compress(located.versions, there)
        self._located = Entries(list(offsets), list(versions), list(compress(located.ids, there)))

    def metadata(self) -> list[Any] | None:
        include = self._request.include
        if "metadata" not in include:
            return None
        # With texts, the whole payloads are read anyhow.
        found = None if "text" in include else self._located.metadata
        if found is None:
            found = list(map(codec.payload_metadata, self._payloads))
        return found if self._request.encoded else list(map(decode_metadata, found))

    def texts(self) -> list[str | None] | None:
        if "text" not in self._request.include:
            return None
        texts = map(codec.payload_text, self._payloads)
        return [None if text is None else text.decode() for text in texts]

    def vectors(self) -> list[NDArray[np.float32] | None] | None:
        if "vector" not in self._request.include:
            return None
        number, offsets = self._live.number, self._located.offsets
        found = self._live.storage.get_many(Family.VECTORS, keys.vector_keys_at(number, offsets))
        if None in found:
            self._live.check_open()  # of a collection that is being deleted no row has one
        return [None if data is None else np.frombuffer(data, "<f4") for data in found]

    def records(self) -> Iterator[Record]:
        located = self._located
        columns = (self.vectors(), self.metadata(), self.texts())
        others = (repeat(None) if column is None else column for column in columns)
        return map(Record, located.ids, *others, located.versions)
