"""The seam of the comparison: what a system must be able to do, and what it says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from numpy.typing import NDArray

from bench.compare.arena import Rows, Where

M = 16
EF_CONSTRUCTION = 200
"""Every graph is built with these. Source: Malkov & Yashunin 2018 (M, efConstruction)."""


@dataclass(frozen=True)
class Ground:
    """What a system is made for.

    Attributes:
        columns: ``"int"`` or ``"str"`` by metadata field; all of them are to be filterable.
        rows: How many will come, for systems that must know.
        threads: That it may use at most.
        index, quantization: Another form than a system's usual one; this engine only.
    """

    folder: Path
    dim: int
    metric: str
    columns: dict[str, str]
    rows: int
    limit: int = 10
    threads: int = 2
    index: str | None = None
    quantization: str | None = None

    @property
    def filterable(self) -> tuple[str, ...]:
        """The fields that are filtered by and thus indexed, where a system indexes fields one by one."""
        return tuple(name for name in ("u", "lexname", "topic") if name in self.columns)


class Search(NamedTuple):
    """One search: the vector float32[d], the system's own width, and a filter as :meth:`Peer.filter` made it."""

    vector: NDArray[Any]
    width: int
    where: Any = None


class Peer(ABC):
    """One system on one folder, within its own process. ``search`` and ``search_batch`` are timed: nothing but search.

    A search asks for ids and scores of ``ground.limit`` rows. What a subclass does not support it says by ``can_*``.

    Attributes:
        width: Name of the parameter that trades speed for recall; empty where search is exact.
        widths: Its least and greatest value.
        durable: What an acknowledged write has survived, in words for the report.
        build: Parameters it is built with, for the report.
    """

    width: str = "ef"
    widths: tuple[int, int] = (10, 2_048)
    durable: ClassVar[str] = "no: in memory"
    synced: ClassVar[bool] = False
    build: ClassVar[dict[str, Any]] = {"m": M, "ef_construction": EF_CONSTRUCTION}
    can_filter: ClassVar[bool] = True
    can_delete: ClassVar[bool] = True
    can_write_beside: ClassVar[bool] = True
    write_batch: ClassVar[int] = 1_000

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    @abstractmethod
    def create(self) -> None:
        """Makes an empty collection in the folder."""

    @abstractmethod
    def reopen(self) -> None:
        """Opens the folder that an earlier process filled."""

    @abstractmethod
    def write(self, rows: Rows) -> None:
        """Stores a batch and returns when it is acknowledged."""

    @abstractmethod
    def finish(self) -> None:
        """Returns when everything that was written is indexed, merged and saved."""

    def filter(self, where: Where, mask: NDArray[Any]) -> Any:
        """A filter in the system's own form; made once, not timed. ``mask`` bool[n] is for raw libraries."""
        return None

    def use(self, width: int) -> None:  # noqa: B027 - most systems take it with each search
        """Called before searches of one width, not timed: for systems in which it is no argument of a search."""

    @abstractmethod
    def search(self, search: Search) -> Any: ...

    def search_batch(self, searches: Sequence[Search]) -> Any:
        """Many searches with ``ground.threads`` threads; a pool of single ones where a system has no better."""
        return list(self._pool.map(self.search, searches))

    @abstractmethod
    def rows(self, answer: Any) -> list[int]:
        """The row numbers in an answer of :meth:`search`."""

    def delete(self, numbers: Sequence[int]) -> None:
        raise NotImplementedError

    def pids(self) -> list[int]:
        """Processes of a server; none where the system runs in this one."""
        return []

    def address(self) -> str | None:
        """Where another process reaches the running server; None where the system runs in this process."""
        return None

    def attach(self, address: str) -> None:
        """Connects to a running server instead of starting one."""
        raise NotImplementedError

    @abstractmethod
    def close(self) -> None: ...

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.ground.threads)


def condition(where: Where) -> str:
    """The filter as most query languages write it: ``u < 5000``, ``lexname = 'noun.animal'``."""
    return f"{where.field} < {where.value}" if where.op == "<" else f"{where.field} = '{where.value}'"


def folder_bytes(folder: Path) -> int:
    """Blocks on disk of all files, sparse ones by what they hold."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())
