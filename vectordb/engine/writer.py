"""The single committer: it takes the waiting operations as a group, writes them, syncs once, publishes, acknowledges.

    1. check    each operation against the id map and the earlier ones of its group; a failing one leaves the group,
                whatever it raised: nothing has been written
    2. write    new rows first (nobody can see them), then ids, tombstones, results and last the state: one atomic
                batch, or, for large groups, pieces whose undo records are removed by the last one
    3. sync     one sync for the group; THIS IS THE COMMIT; the ACKED page follows
    4. publish  only now the rows join the tail and readers get the new snapshot: no reader sees unsynced data
    5. acknowledge

A failed write or sync makes the database read-only until it is opened again: what is on disk is not known then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from vectordb import failpoints
from vectordb.engine.draft import Draft
from vectordb.engine.results import KEPT_SECONDS, Key
from vectordb.errors import (
    Closed,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    ResourceExhausted,
    VectorDBError,
    described,
)
from vectordb.storage import codec, keys
from vectordb.storage.base import Batch, Family, Storage
from vectordb.storage.codec import IdempotentResult
from vectordb.types import Durability

if TYPE_CHECKING:
    from vectordb.engine.live import LiveCollection
    from vectordb.storage.acked import AckedPage

_log = logging.getLogger("vectordb.engine")

# A batch of 1,000 rows of 1.5 KB holds the GIL for 7.5 ms (rocksdict writes under it): smaller pieces let searches in.
_ROWS_A_PIECE = 250
_CHANGES_A_PIECE = 2_000
_GROUP_BYTES = 32 << 20


class Operation(Protocol):
    """One write call."""

    @property
    def needs_snapshot(self) -> bool:
        """Whether it must run first in its group, on the published snapshot."""
        ...

    def apply(self, draft: Draft) -> tuple[int, int]:
        """Checks, then changes the draft; returns (rows changed, version)."""
        ...


class Syncs:
    """How often the log was synced, and the seconds that took. Written by the committer's thread alone."""

    __slots__ = ("count", "seconds")

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0


@dataclass(slots=True)
class Call:
    """An operation that waits for the committer."""

    collection: LiveCollection
    operation: Operation
    key: Key | None
    size: int
    done: Future[tuple[int, int]] = field(default_factory=Future)


Result: TypeAlias = tuple[Call, tuple[int, int] | VectorDBError]
"""A call and what it is told."""


class Committer:
    """The committing thread of one database and its queue. ``submit`` may be called from any thread."""

    def __init__(self, storage: Storage, acked: AckedPage | None, durability: Durability) -> None:
        self._storage = storage
        self._acked = acked
        self._durability = durability
        self._waiting: deque[Call] = deque()  # guarded by self._ready
        self._ready = threading.Condition()
        self._closing = False  # guarded by self._ready
        self._failure: str | None = None
        self.syncs = Syncs()
        self._thread = threading.Thread(target=self._run, name="vectordb-committer", daemon=True)
        self._thread.start()

    @property
    def read_only_reason(self) -> str | None:
        """Why no more writes are taken: a commit failed, or another write to storage did."""
        return self._failure or self._storage.failure

    def submit(self, call: Call, timeout: float | None, waited: float = 0.0) -> tuple[int, int]:
        """Runs one operation and waits until it is acknowledged.

        Args:
            timeout: Seconds for the whole request; ``waited``: those of them that have passed.

        Returns:
            (rows changed, the collection's version).

        Raises:
            DeadlineExceeded: Not acknowledged in time. Where the commit had not begun it will not happen; otherwise
                the outcome is unknown.
        """
        with self._ready:
            if self._closing:
                raise Closed("the database is closed; open it again")
            if self.read_only_reason is not None:
                raise self._read_only()
            self._waiting.append(call)
            self._ready.notify()
        try:
            # Longer than this no lock can be waited for; infinity is a number of seconds too.
            return call.done.result(None if timeout is None else min(max(0.0, timeout - waited), threading.TIMEOUT_MAX))
        except FutureTimeout:
            if call.done.cancel():
                raise DeadlineExceeded(
                    f"the write waited {timeout} s for its turn and was withdrawn; nothing was written", timeout=timeout
                ) from None
            raise DeadlineExceeded(
                f"the write was not acknowledged within {timeout} s; it may still be committed: repeat it with the "
                "same idempotency_key to learn the outcome",
                timeout=timeout,
            ) from None

    def close(self) -> None:
        """Commits what is queued and ends the thread."""
        with self._ready:
            self._closing = True
            self._ready.notify()
        self._thread.join()

    def _read_only(self) -> FailedPrecondition:
        return FailedPrecondition(
            f"the database refuses writes since a write failed ({self.read_only_reason}); "
            "mend the cause, then close and open it again",
            reason=self.read_only_reason,
        )

    def _run(self) -> None:
        while True:
            with self._ready:
                while not self._waiting and not self._closing:
                    self._ready.wait()
                if not self._waiting:
                    return
                group = self._take_group()
            self._commit(group)
            # The frame must not keep futures, rows or snapshots of the last group alive while it waits.
            del group

    def _take_group(self) -> list[Call]:
        """The next calls to commit together (under self._ready)."""
        group: list[Call] = []
        size = 0
        while self._waiting and size < _GROUP_BYTES:
            # One that reads the snapshot must see every earlier write published.
            if group and self._waiting[0].operation.needs_snapshot:
                break
            call = self._waiting.popleft()
            if call.done.set_running_or_notify_cancel():
                group.append(call)
                size += call.size
        return group

    def _commit(self, group: list[Call]) -> None:
        if self.read_only_reason is not None:
            for call in group:
                call.done.set_exception(self._read_only())
            return
        gates = sorted({call.collection.number: call.collection for call in group}.items())
        for _, collection in gates:
            collection.commit_gate.acquire()
        try:
            drafts, results = self._checked(group)
            self._commit_gated(drafts, results)
            for _, collection in gates:
                collection.unsynced = None
        except BaseException as error:
            # `unsynced` stays: readers go on to see the state before this group.
            self._fail(group, error)
        finally:
            for _, collection in gates:
                collection.commit_gate.release()

    def _checked(self, group: list[Call]) -> tuple[list[Draft], list[Result]]:
        """What the group is to change, and what its calls are to be told.

        A call that raises what no check raises (a defect, no memory) may leave its draft half made: it is told, and the
        others are checked again as if it had never come.
        """
        while True:
            drafts: dict[int, Draft] = {}
            results: list[Result] = []
            for call in group:
                try:
                    call.collection.check_open()
                    draft = drafts.get(call.collection.number)
                    if draft is None:
                        draft = drafts[call.collection.number] = Draft(call.collection)
                    results.append((call, self._applied(call, draft)))
                except VectorDBError as error:
                    # Told with the others: it may be because of a call before it that nobody can see yet.
                    results.append((call, error))
                except Exception as error:
                    _log.exception("a write to collection %r failed; nothing was written", call.collection.name)
                    told = f"the write failed ({described(error)}); nothing was written"
                    call.done.set_exception(Internal(told, collection=call.collection.name))
                    group = [other for other in group if other is not call]
                    break
            else:
                return list(drafts.values()), results

    def _commit_gated(self, drafts: list[Draft], results: list[Result]) -> None:
        changed = [draft for draft in drafts if not draft.is_empty]
        if changed:
            self._write(changed)
            failpoints.hit("commit.written")
            if any(self._is_sync(draft.collection) for draft in changed):
                self._sync(changed)
            for draft in changed:
                for key, kept in draft.remembered.items():
                    draft.collection.results.add(key, kept)
                draft.collection.publish(draft.effects)
            failpoints.hit("commit.published")
        for call, result in results:
            if isinstance(result, VectorDBError):
                call.done.set_exception(result)
            else:
                call.done.set_result(result)

    def _applied(self, call: Call, draft: Draft) -> tuple[int, int]:
        key = call.key
        if key is None:
            return call.operation.apply(draft)
        known = draft.remembered.get(key.stored) or call.collection.results.get(key.stored)
        if known is not None:
            key.check(known)
            return known.count, known.version
        count, version = call.operation.apply(draft)
        draft.remember(key.stored, IdempotentResult(time.time() + KEPT_SECONDS, count, version, key.fingerprint))
        return count, version

    def _is_sync(self, collection: LiveCollection) -> bool:
        return (collection.config.tuning.durability or self._durability) is Durability.SYNC

    def _write(self, drafts: list[Draft]) -> None:
        batch = self._storage.batch()
        for draft in drafts:
            draft.collection.unsynced = draft.collection.state.version, draft.before
            self._write_new_rows(batch, draft)
            if len(draft.small) + len(draft.rewritten) > _CHANGES_A_PIECE:
                self._write_with_undo(draft)
                batch.delete_range(Family.META, *keys.undo_range(draft.number))
            else:
                for family, written, values in draft.changes:
                    _apply(batch, family, written, values)
            effects = draft.effects
            state = draft.collection.state.advanced(effects.version, effects.next_offset, effects.alive)
            batch.put(Family.META, keys.state_key(draft.number), codec.encode_state(state))
        self._storage.write(batch)

    def _write_new_rows(self, last: Batch, draft: Draft) -> None:
        """New rows: few go into the last batch, many into pieces of their own before it. Their offsets lie beyond the
        committed ones, so until the state says so they are nothing, and recovery clears them away."""
        columns = draft.new_rows
        if sum(len(written) for _, written, _ in columns) <= 2 * _ROWS_A_PIECE:
            for family, written, values in columns:
                last.put_many(family, written, values)
            return
        for family, written, values in columns:
            for start in range(0, len(written), _ROWS_A_PIECE):
                piece = slice(start, start + _ROWS_A_PIECE)
                batch = self._storage.batch()
                batch.put_many(family, written[piece], values[piece])
                self._storage.write(batch)

    def _write_with_undo(self, draft: Draft) -> None:
        """Many changes in several batches; each carries what it overwrites until the last batch removes it."""
        piece = 0
        for family, written, values in draft.changes:
            for start in range(0, len(written), _CHANGES_A_PIECE):
                chosen = slice(start, start + _CHANGES_A_PIECE)
                # A payload's key is new: to take it back is to remove it.
                before = (
                    self._storage.get_many(family, written[chosen])
                    if family is Family.META
                    else [None] * len(written[chosen])
                )
                batch = self._storage.batch()
                undo = keys.undo_key(draft.number, draft.effects.version, piece)
                batch.put(Family.META, undo, codec.encode_undo(list(zip(written[chosen], before, strict=True))))
                _apply(batch, family, written[chosen], values[chosen])
                self._storage.write(batch)
                failpoints.hit("commit.piece")
                piece += 1

    def _sync(self, drafts: list[Draft]) -> None:
        started = time.perf_counter()
        sequence = self._storage.sync()
        self.syncs.count += 1
        self.syncs.seconds += time.perf_counter() - started
        failpoints.hit("commit.synced")
        if self._acked is not None:
            self._acked.store(sequence, {draft.number: draft.effects.version for draft in drafts})
        failpoints.hit("commit.acked")

    def _fail(self, group: list[Call], error: BaseException) -> None:
        """Nobody knows what reached the disk: refuse writes from now on."""
        self._failure = described(error)
        _log.error("a commit failed; the database is read-only until it is opened again", exc_info=error)
        told = f"the write failed and its outcome is unknown: {self._failure}; open the database again"
        for call in group:
            if not call.done.done():
                kind = type(error) if isinstance(error, VectorDBError) else Internal
                call.done.set_exception(kind(told))


@contextmanager
def outcome_unknown(what: str) -> Iterator[None]:
    """Says of a failing write or sync in the block that what it was for may have been done."""
    try:
        yield
    except (Internal, ResourceExhausted) as error:
        told = f"{what} failed and its outcome is unknown: {error.message}; open the database again"
        raise type(error)(told, **error.fields) from error


def _apply(batch: Batch, family: Family, written: list[bytes], values: list[bytes | None]) -> None:
    if None not in values:
        batch.put_many(family, written, cast(list[bytes], values))
        return
    for key, value in zip(written, values, strict=True):
        if value is None:
            batch.delete(family, key)
        else:
            batch.put(family, key, value)
