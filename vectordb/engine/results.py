"""Results of calls with an idempotency key, kept for ten minutes so that a repeated call is answered, not repeated."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

import xxhash

from vectordb.errors import FailedPrecondition
from vectordb.storage.codec import IdempotentResult

if TYPE_CHECKING:
    from vectordb.engine.checks import CheckedRows
    from vectordb.requests import DeleteRequest, UpdateMetadataRequest, WriteMode

KEPT_SECONDS = 600.0
_PIECE = 256
_VECTORS = 1 << 13


@dataclass(frozen=True, slots=True)
class Key:
    """The idempotency key of one call.

    Attributes:
        given: As the caller gave it.
        stored: What its result is kept under. Not the key itself: a client may have put anything into it, such as an
            id that is to be erased.
        fingerprint: Digest of what the call writes, to tell a repeated call from another one with the same key.
    """

    given: str
    stored: str
    fingerprint: bytes

    @classmethod
    def of(cls, given: str, scoped: str, fingerprint: bytes) -> Key:
        """``scoped``: the key within the caller's row policy."""
        stored = blake2b(scoped.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return cls(given, stored, fingerprint)

    def check(self, known: IdempotentResult) -> None:
        """Raises ``FailedPrecondition`` where the result is that of another call; of before there were fingerprints,
        any may be."""
        if known.fingerprint and known.fingerprint != self.fingerprint:
            raise FailedPrecondition(
                f"idempotency_key {self.given!r:.60} was another call's within the last {KEPT_SECONDS / 60:.0f} "
                "minutes, and nothing was written: take a new key for each call, and the same only to repeat one as it "
                "was (ids that are left out are new each time: give them)",
                idempotency_key=self.given,
            )


def fingerprint_of_rows(mode: WriteMode, rows: CheckedRows) -> bytes:
    """Of ids, metadata and texts, and of no more than 64 KiB of the vectors: every served write has a key, and most of
    it is vectors."""
    digest = xxhash.xxh3_64(mode.value.encode())
    _add(digest, rows.keys)
    _add(digest, rows.metadata)
    if rows.texts is not None and any(rows.texts):
        _add(digest, [text or b"" for text in rows.texts])
    # Where rows are without one, zeros stand there or not, by the way that they came.
    if rows.vectors is not None and rows.has_vector is None:
        flat = rows.vectors.reshape(-1)
        digest.update(flat[:_VECTORS].data)
        digest.update(flat[max(_VECTORS, len(flat) - _VECTORS) :].data)
    return digest.digest()


def fingerprint_of_change(
    request: UpdateMetadataRequest | DeleteRequest, kind: str, changes: Sequence[object]
) -> bytes:
    """Of a call by ids and filter; ``changes``: what is set and unset."""
    where = None if request.where is None else request.where.to_json()
    digest = xxhash.xxh3_64(json.dumps([kind, where, repr(changes)], sort_keys=True).encode())
    if request.ids is not None:
        _add(digest, [id_.encode("utf-8", "surrogatepass") for id_ in request.ids])
    return digest.digest()


def _add(digest: xxhash.xxh3_64, values: Sequence[bytes]) -> None:
    digest.update(b"%d:" % len(values))
    # In pieces: neither a call a value nor a copy of them all.
    for start in range(0, len(values), _PIECE):
        digest.update(b"\0".join(values[start : start + _PIECE]))


class Results:
    """Key -> result of one collection, in the order of time. Thread-safe: the committer adds, the sweeper forgets."""

    def __init__(self, stored: Iterable[tuple[str, IdempotentResult]] = ()) -> None:
        self._lock = threading.Lock()
        self._results = dict(sorted(stored, key=lambda item: item[1].expires))

    def get(self, key: str) -> IdempotentResult | None:
        """The result of the call that had this key, unless its time is over."""
        result = self._results.get(key)
        return None if result is None or result.expires < time.time() else result

    def add(self, key: str, result: IdempotentResult) -> None:
        with self._lock:
            # A key whose time was over moves to the end.
            self._results.pop(key, None)
            self._results[key] = result

    def take_expired(self, most: int) -> list[str]:
        """Forgets the oldest keys whose time is over and names up to ``most`` of them."""
        now = time.time()
        expired: list[str] = []
        with self._lock:
            for key, result in self._results.items():
                if result.expires >= now or len(expired) == most:
                    break
                expired.append(key)
            for key in expired:
                del self._results[key]
        return expired
