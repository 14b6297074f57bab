"""Results of calls with an idempotency key, kept for ten minutes so that a repeated call is answered, not repeated."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from vectordb.storage.codec import IdempotentResult

KEPT_SECONDS = 600.0


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
