"""Bulk writes over one stream: a few batches on their way, results in order, nothing written twice.

The user's iterator is read in the caller's thread. Each batch carries its idempotency key; when the stream breaks,
the batches without a result are sent again as unary writes with the same keys, in order, and the server answers those
that it has done already with their first result.

A batch that cannot be made (its records are wrong, the user's iterator raises) ends the load only when those before it
are written, as it does embedded.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc

from vectordb.api.streams import rows_counted_from
from vectordb.errors import ResourceExhausted, Unavailable
from vectordb.wire.varints import varint
from vectordb_client.transport import calls
from vectordb_client.transport.calls import Call
from vectordb_client.transport.channel import traced

if TYPE_CHECKING:
    from vectordb.requests import WriteRequest
    from vectordb.types import WriteResult
    from vectordb_client.transport.grpc import GrpcBackend

MAX_IN_FLIGHT = 4
"""Batches without a result: enough to keep the server busy while the next one is made."""
MAX_BYTES_IN_FLIGHT = 64 << 20
"""Their bytes together, beyond which only one batch is on its way."""
_WRITE = b"\x0a"
"""Tag of ``BulkWriteRequest.write``."""
IDLE_SECONDS = 30.0
"""A stream that sent nothing for so long is replaced: the server ends idle ones after a minute."""


class _Stream:
    """One BulkWrite call and what it sends. Not thread-safe: for the caller's thread."""

    def __init__(self, backend: GrpcBackend) -> None:
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._responses = backend.stub.BulkWrite(iter(self._outbox.get, None), metadata=traced(backend.call_metadata))
        self._sent_at = time.monotonic()

    def send(self, call: Call[WriteResult]) -> None:
        message = call.whole
        self._outbox.put(b"".join((_WRITE, varint(len(message)), message)))
        self._sent_at = time.monotonic()

    def receive(self) -> Any:
        """The next result's message, as of a unary write.

        Raises:
            grpc.RpcError: The stream broke. StopIteration: The server ended it.
        """
        return next(self._responses)

    @property
    def idle(self) -> bool:
        return time.monotonic() - self._sent_at > IDLE_SECONDS

    def end(self) -> None:
        """Ends the call, and grpc's thread that reads the outbox."""
        self._outbox.put(None)
        self._responses.cancel()


class _Pipeline:
    """The batches on their way and the stream that carries them, if any."""

    def __init__(self, backend: GrpcBackend) -> None:
        self._backend = backend
        self._stream: _Stream | None = None
        self._unary = False
        self._waiting: deque[tuple[Call[WriteResult], int]] = deque()
        self._bytes = 0
        self._written = 0

    @property
    def full(self) -> bool:
        """Whether a result must be pulled before the next push."""
        if not self._waiting:
            return False
        # Without a stream what waits goes out one by one, and all of it before a new stream may overtake it.
        return self._stream is None or len(self._waiting) >= MAX_IN_FLIGHT or self._bytes >= MAX_BYTES_IN_FLIGHT

    def push(self, call: Call[WriteResult], size: int) -> None:
        """Sends a batch, or notes it where there is no stream.

        Raises:
            Closed: The backend is.
        """
        self._backend.check_open()
        self._waiting.append((call, size))
        self._bytes += size
        if self._unary:
            return
        if self._stream is None:
            try:
                self._stream = _Stream(self._backend)
            except ValueError as error:
                # It was closed just now.
                raise self._backend.error(error) from None
        self._stream.send(call)

    def pull(self) -> WriteResult:
        """The oldest batch's result; its errors name rows of the whole load."""
        call, size = self._waiting[0]
        with rows_counted_from(self._written):
            result = self._result(call)
        self._waiting.popleft()
        self._bytes -= size
        self._written += result.count
        return result

    def drain(self) -> Iterator[WriteResult]:
        """The results of all that is on its way."""
        while self._waiting:
            yield self.pull()

    def refresh(self) -> bool:
        """Whether the stream was idle for so long that it must be drained and replaced."""
        return self._stream is not None and self._stream.idle

    def end(self) -> None:
        if self._stream is not None:
            self._stream.end()
            self._stream = None

    def _result(self, call: Call[WriteResult]) -> WriteResult:
        if self._stream is None:
            return self._backend.call(call)
        try:
            return call.read(self._stream.receive())
        except (grpc.RpcError, ValueError, StopIteration) as failure:
            self._broken(failure)
            return self._backend.call(call)

    def _broken(self, failure: BaseException) -> None:
        """Drops the stream; what waits goes out as unary writes.

        Raises:
            VectorDBError: The failure is one that repeating would only repeat.
        """
        self.end()
        if isinstance(failure, StopIteration):
            return
        error = self._backend.error(failure)
        full = isinstance(error, ResourceExhausted) and "retry_after" in error.fields
        lost = isinstance(error, Unavailable) and self._backend.options.retries > 0
        if not (full or lost):
            raise error from None
        # Where the server has no stream to spare it is not asked again.
        self._unary = self._unary or full


def bulk_write(backend: GrpcBackend, collection: str, requests: Iterator[WriteRequest]) -> Iterator[WriteResult]:
    """Writes batches and yields their results in order; see the module.

    Raises:
        VectorDBError: A batch was refused, or nobody answered. Those whose results were yielded are written.
        Exception: What ``requests`` raised, after the results of all batches before it.
    """
    pipeline = _Pipeline(backend)
    batches = ((calls.write(collection, request, backend.limits), request.rows.size()) for request in requests)
    try:
        while True:
            try:
                call, size = next(batches)
            except StopIteration:
                break
            except Exception:
                yield from pipeline.drain()
                raise
            if pipeline.refresh():
                yield from pipeline.drain()
                pipeline.end()
            pipeline.push(call, size)
            while pipeline.full:
                yield pipeline.pull()
        yield from pipeline.drain()
    finally:
        # Left early or refused, what is on its way is cancelled; the server finishes at most the batch it has begun.
        pipeline.end()
