"""Results of calls with an idempotency key, kept for ten minutes so that a repeated call is answered, not repeated."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from hashlib import blake2b

from vectordb.storage.codec import IdempotentResult

KEPT_SECONDS = 600.0


def stored_key(key: str) -> str:
    """What a result is kept under. Not the key itself: a client may have put anything into it, such as an id that is to
    be erased."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


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
