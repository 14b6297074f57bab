"""Reading a stream under one deadline for the whole of it.

HTTP clients bound the wait for each piece, not the sum: an endpoint that sends a piece now and then never times out.
So a thread reads, and the caller waits for the thread only as long as its call has left.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Self

from vectordb_client.transport.retry import Clock


class _End(NamedTuple):
    """The stream is over: ``error`` is what ended it, or ``None``."""

    error: Exception | None


class Pump:
    """Runs ``open_stream()`` and reads what it returns in a thread of its own. A context manager, for one caller.

    Leaving it before the end stops the reading at the next piece, and at the latest when the HTTP client's own timeout
    for one piece is over.
    """

    def __init__(self, open_stream: Callable[[], Any]) -> None:
        self._open = open_stream
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._read, name="llm-stream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()

    def items(self, clock: Clock) -> Iterator[Any]:
        """The stream's pieces.

        Raises:
            TimeoutError: The clock ran out. Else what opening or reading the stream raised.
        """
        while True:
            try:
                item = self._queue.get(timeout=clock.remaining())
            except queue.Empty:
                raise TimeoutError from None
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def _read(self) -> None:
        try:
            stream = self._open()
            try:
                for item in stream:
                    if self._stopped.is_set():
                        break
                    self._queue.put(item)
            finally:
                with contextlib.suppress(Exception):
                    stream.close()
        except Exception as error:  # handed to the caller, whatever it is
            self._queue.put(_End(error))
        else:
            self._queue.put(_End(None))
