"""What the tools of integrity report: checks, repairs and erasures. Plain data, the same on every target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vectordb.types import Readable


@dataclass(frozen=True, slots=True)
class Problem(Readable):
    """Something that does not hold.

    Attributes:
        kind: ``format``, ``acknowledged`` (data is missing that was), ``storage`` (RocksDB itself), ``catalogue``,
            ``records`` (ids, rows, tombstones and vectors contradict each other), ``segment``, ``index``, ``text``,
            ``postings`` or ``search``.
        message: What, where, and what mends it.
        collection: The collection's name, where it is about one.
        subject: The segment (``<name>``) or index (``<segment>/<name>``) that it is about, if any.
    """

    kind: str
    message: str
    collection: str | None = None
    subject: str | None = None

    @property
    def is_loss(self) -> bool:
        """Whether the truth is damaged, not merely what can be made anew from it."""
        return self.kind in ("acknowledged", "storage", "catalogue", "records")

    def __str__(self) -> str:
        return self.message if self.collection is None else f"collection {self.collection!r}: {self.message}"


@dataclass(frozen=True, slots=True)
class CheckedCollection(Readable):
    """What was checked of one collection.

    Attributes:
        version: Its committed version. records: Live ones. segments: Sealed ones.
        searches: How many sample searches were run, each also exactly.
        recall: Mean share of the 10 nearest that the searches found as users run them; ``None`` without searches.
    """

    name: str
    version: int
    records: int
    segments: int
    searches: int = 0
    recall: float | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport(Readable):
    """The outcome of a full check.

    Attributes:
        path: The folder.
        problems: What does not hold; empty when all does.
        notes: What is no problem but should be known, such as an unfinished commit that opening takes back.
        collections: What was checked, by collection.
        files: Files read in full; ``bytes``: their size with that of all entries of storage.
    """

    path: str
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    collections: tuple[CheckedCollection, ...] = ()
    files: int = 0
    bytes: int = 0

    @property
    def ok(self) -> bool:
        """Whether every checksum and every cross-check holds."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {"ok": self.ok, **asdict(self)}


@dataclass(frozen=True, slots=True)
class Lost(Readable):
    """Data that is gone.

    Attributes:
        kind: ``versions`` (commits), ``records``, ``vectors`` (the records stay) or ``collection``.
        message: What is lost, exactly as far as it is known.
        collection: The collection's name, or ``None`` where even that is not known.
        count: How many; ``None`` where it is not known.
        ids: Ids of the records, at most 1,000 of them.
    """

    kind: str
    message: str
    collection: str | None = None
    count: int | None = None
    ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message if self.collection is None else f"collection {self.collection!r}: {self.message}"


@dataclass(frozen=True, slots=True)
class RepairReport(Readable):
    """What a repair did, or with ``dry_run`` would do.

    Attributes:
        dry_run: Nothing was changed.
        rebuilt: What was made anew from storage.
        quarantined: What was moved aside, relative to the folder; nothing is ever deleted.
        lost: Records that could not be read; empty where only caches were damaged.
        problems: What is still wrong afterwards (of a dry run: before).
    """

    path: str
    dry_run: bool = False
    rebuilt: tuple[str, ...] = ()
    quarantined: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong any more."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """As JSON-like values."""
        return {"ok": self.ok, **asdict(self)}


class Erasure(int):
    """The receipt of an erasure; as a number, how many records the call deleted.

    It says that at ``finished`` no file of the database's folder held any record of the collection that was dead at
    ``version``, nor any value that had been replaced by then.

    Attributes:
        collection: The collection's name.
        ids: The ids that the call named.
        version: Everything that was dead at this version of the collection is erased.
        rows: Dead rows and replaced payloads that left storage.
        segments: Names of the segments that were rewritten or whose index was learned anew.
        files: Files and folders that were removed for it, relative to the database's folder.
        remaining: What else may hold erased bytes and was left alone, such as ``quarantine``.
        started, finished: UTC, ISO 8601.
    """

    collection: str
    ids: tuple[str, ...]
    version: int
    rows: int
    segments: tuple[str, ...]
    files: tuple[str, ...]
    remaining: tuple[str, ...]
    started: str
    finished: str

    def __new__(cls, count: int, facts: Mapping[str, Any]) -> Erasure:
        receipt = super().__new__(cls, count)
        for name in cls.__annotations__:
            value = facts[name]
            setattr(receipt, name, tuple(value) if isinstance(value, list) else value)
        return receipt

    def __reduce__(self) -> tuple[type[Erasure], tuple[int, dict[str, Any]]]:
        # To be copied and pickled: a receipt is kept.
        return Erasure, (int(self), {name: getattr(self, name) for name in Erasure.__annotations__})

    @property
    def count(self) -> int:
        """How many records the call deleted."""
        return int(self)

    def as_json(self) -> dict[str, Any]:
        """As JSON-like values, to keep."""
        return {"count": int(self), **{name: getattr(self, name) for name in Erasure.__annotations__}}

    def __repr__(self) -> str:
        return (
            f"<Erasure of {int(self)} records from {self.collection!r} up to version {self.version}: {self.rows} rows, "
            f"{len(self.files)} files removed>"
        )
