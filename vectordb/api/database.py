"""The database as users hold it: the same class embedded and served."""

from __future__ import annotations

import os
from collections.abc import Iterator
from copy import copy
from types import TracebackType
from typing import Any, Self

from vectordb.api import build
from vectordb.api.collection import Collection
from vectordb.arguments import collection_name, flag, whole
from vectordb.errors import InvalidArgument, InvalidFilter
from vectordb.filter import as_filter
from vectordb.metric import Metric
from vectordb.reports import RepairReport, VerifyReport
from vectordb.requests import SAMPLE_SEARCHES, Backend, CreateRequest
from vectordb.stats import BackupInfo, DatabaseInfo


class Database:
    """Collections behind one backend. Thread-safe; a context manager that closes.

    Args:
        backend: What carries out the requests: the engine, or a client's transport.
        timeout: Default in seconds for point calls (not for scans, bulk loads and ``wait=True``).
    """

    def __init__(self, backend: Backend, *, timeout: float | None = None) -> None:
        self._backend = backend
        self._timeout = timeout

    def create_collection(
        self,
        name: str,
        dim: int,
        metric: str | Metric = Metric.COSINE,
        index: Any = "auto",
        quantization: Any = None,
        fields: Any = None,
        exist_ok: bool = False,
        **config: Any,
    ) -> Collection:
        """Creates a collection.

        Args:
            name: 1 to 255 of letters, digits, ``_``, ``-``, ``.``.
            dim: Length of its vectors.
            metric: ``cosine``, ``dot``, ``l2`` or ``l1``.
            index: ``"auto"`` (exact while small, then ``hnsw``), a kind, or
                ``{"kind": "hnsw", "m": 16, "ef_construction": 200}``.
            quantization: ``"fp16"``, ``"sq8"``, ``"pq"``, ``"rabitq"``, ``"binary"``, or a dict with ``kind`` and its
                parameters, such as ``{"kind": "pq", "m": 48, "oversampling": 4.0}``.
            fields: Optional types of metadata fields, ``{"year": "int", "note": {"type": "text", "indexed": False}}``.
            exist_ok: Return the existing collection if its ``dim``, ``metric``, ``fields`` and ``analyzer`` are these.
                ``index``, ``quantization`` and thresholds may have been changed since, by ``reindex`` say: they are
                compared where something else than the default is asked for.
            **config: ``analyzer``: how texts become words for keyword search, ``"standard"`` (default: Unicode words,
                lower case) or a language such as ``"english"``, whose stems are searched; and thresholds, see
                :class:`vectordb.types.Tuning`.

        Raises:
            AlreadyExists: The name is taken. FailedPrecondition: with ``exist_ok``, and the configuration differs.
        """
        wanted = build.collection_config(name, dim, metric, index, quantization, fields, config)
        request = CreateRequest(wanted, flag(exist_ok, "exist_ok"), self._timeout)
        created = self._backend.create_collection(request)
        return Collection(self._backend, created, timeout=self._timeout)

    def collection(self, name: str) -> Collection:
        """The handle of an existing collection.

        Raises:
            CollectionNotFound: There is none of this name.
        """
        config = self._backend.collection_config(collection_name(name))
        return Collection(self._backend, config, timeout=self._timeout)

    def __getitem__(self, name: str) -> Collection:
        return self.collection(name)

    def __contains__(self, name: object) -> bool:
        """Whether there is a collection of this name."""
        return name in self.list_collections()

    def __iter__(self) -> Iterator[str]:
        """Names of all collections, sorted."""
        return iter(self.list_collections())

    def list_collections(self) -> list[str]:
        """Names of all collections, sorted."""
        return self._backend.list_collections()

    def delete_collection(self, name: str) -> None:
        """Deletes a collection and all it holds.

        Raises:
            CollectionNotFound: There is none of this name.
        """
        self._backend.delete_collection(collection_name(name))

    def info(self) -> DatabaseInfo:
        """Versions, folder, collections, and why writes are refused where they are."""
        return self._backend.info()

    def backup(self, destination: str | os.PathLike[str]) -> BackupInfo:
        """Writes a backup of everything as of now, while reads and writes go on; ``vectordb restore`` brings it back.

        A destination holds any number of backups; each adds only what changed since the ones before.

        Args:
            destination: A folder, or any URL that fsspec knows; of a server, as the server's process sees it.

        Raises:
            InvalidArgument: The destination lies in the database's own folder.
            FailedPrecondition: The database is in memory, or the URL needs a package that is not installed.
        """
        given = os.fspath(destination) if isinstance(destination, os.PathLike) else destination
        if not isinstance(given, str):
            raise InvalidArgument(
                f"the destination of a backup is a folder or a URL, got {destination!r:.60}", field="destination"
            )
        return self._backend.backup(given)

    def verify(self, searches: int = SAMPLE_SEARCHES) -> VerifyReport:
        """Checks everything as of now, while reads and writes go on: every checksum, and whether records, segments,
        postings and texts agree; ``vectordb verify`` on the command line.

        Args:
            searches: Searches of each collection, for vectors near stored ones, that are compared with exact ones; the
                report has the recall, and an exact answer that is wrong is a problem. 0: none.

        Returns:
            A report whose ``problems`` are empty where all holds.
        """
        return self._backend.verify(whole(searches, "searches"))

    def repair(self, dry_run: bool = False) -> RepairReport:
        """Checks everything and makes damaged segments, indexes and texts anew from storage, while reads and writes go
        on. What storage itself lost is told and left alone: ``vectordb repair`` on the closed folder reads what can be
        read of it.

        Args:
            dry_run: Only say what would be done.
        """
        return self._backend.repair(flag(dry_run, "dry_run"))

    def with_policy(self, where: Any) -> Self:
        """This database within a row policy: all its collections seem to hold the matching rows and no others.

        Reads see only rows that match, writes must write such rows and cannot touch others, and what concerns all rows
        (statistics, indexes, collections, backups) is refused; see :mod:`vectordb.row_policy`. For an application that
        serves many tenants over one handle: ``db.with_policy(col("tenant") == "a")["docs"]``. It guards against
        mistakes: code of the same process can still reach the database itself. Of a server, a policy of this kind
        narrows that of the API key.

        Args:
            where: A filter, or its JSON form. Applied to a policy's handle: rows must match both.

        Returns:
            A handle that shares this one's target; closing it leaves the target open.

        Raises:
            InvalidFilter: It is no filter. PermissionDenied: Later, from calls that the policy does not allow.
        """
        policy = as_filter(where)
        if policy is None:
            raise InvalidFilter("a row policy is a filter such as col('tenant') == 'a', got None", path="")
        narrowed = copy(self)
        narrowed._backend = self._backend.with_policy(policy)
        return narrowed

    def close(self) -> None:
        """Releases the target. Idempotent; calls after it raise ``Closed``."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
