"""Prometheus metrics: base units, labels from a bounded set. Needs prometheus-client (extra ``metrics``).

    vectordb_rpc_seconds{call,code}            histogram: time in the server
    vectordb_rpc_running{call}                 calls being answered
    vectordb_wal_syncs_total, vectordb_wal_sync_seconds_total
    vectordb_rows{collection}, vectordb_deleted_rows, vectordb_tail_rows, vectordb_indexed_rows, vectordb_segments
    vectordb_memory_bytes{collection}, vectordb_disk_bytes{collection}
    vectordb_pending_bytes{collection}         raw vector bytes that wait for their segment or index
    vectordb_build_lag_seconds{collection}     how long the longest waiting segment has been due for its index
    vectordb_recall_estimate{collection}, vectordb_recall_samples_total{collection}    see server/recall.py
    vectordb_optimizer_failed{collection}      1 where the last job failed
    vectordb_read_only                         1 while writes are refused
    vectordb_memory_kind_bytes{kind}, vectordb_memory_limit_bytes
    vectordb_disk_free_bytes, vectordb_disk_watermark_bytes
    vectordb_calls_running, vectordb_calls_waiting, vectordb_queue_seconds
    vectordb_calls_refused_total{reason}       calls shed: see admission.py

and those of the process and of Python itself. Figures about collections are read when they are asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import grpc

from vectordb.errors import FailedPrecondition, VectorDBError
from vectordb.server.interceptors import Wrapper, in_its_pool

if TYPE_CHECKING:
    from vectordb.requests import Backend
    from vectordb.server.admission import Admission
    from vectordb.server.recall import Recall
    from vectordb.stats import CollectionStats

_MOST_COLLECTIONS = 200
"""Collections with figures of their own; more would make the answer, and whoever stores it, grow without bound."""
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_FIGURES: dict[str, tuple[str, Callable[[CollectionStats], float]]] = {
    "vectordb_rows": ("Live records.", lambda s: s.rows),
    "vectordb_deleted_rows": ("Dead rows not yet merged away.", lambda s: s.deleted),
    "vectordb_tail_rows": ("Rows not yet sealed.", lambda s: s.tail_rows),
    "vectordb_indexed_rows": ("Rows under an approximate index.", lambda s: s.indexed_rows),
    "vectordb_segments": ("Sealed segments.", lambda s: len(s.segments)),
    "vectordb_memory_bytes": ("Memory of segments and tail.", lambda s: s.memory_bytes),
    "vectordb_disk_bytes": ("Bytes on disk.", lambda s: s.disk_bytes),
    "vectordb_pending_bytes": ("Raw vectors that wait for their index.", lambda s: s.optimizer.pending_bytes),
    "vectordb_optimizer_failed": ("Whether the last background job failed.", lambda s: s.optimizer.state == "failed"),
}


class Metrics(Wrapper):
    """Counts the calls of this protocol, and serves the figures over HTTP. Thread-safe.

    Raises:
        FailedPrecondition: prometheus-client is not installed.
    """

    def __init__(self) -> None:
        try:
            import prometheus_client
            import prometheus_client.core
        except ImportError as missing:
            raise FailedPrecondition(
                "metrics need prometheus-client: pip install 'vectordb-engine[metrics]'"
            ) from missing
        self.library: Any = prometheus_client
        self._registry = prometheus_client.CollectorRegistry()
        for collector in (
            prometheus_client.ProcessCollector,
            prometheus_client.PlatformCollector,
            prometheus_client.GCCollector,
        ):
            collector(registry=self._registry)
        self._seconds = prometheus_client.Histogram(
            "vectordb_rpc_seconds", "Time in the server.", ("call", "code"), registry=self._registry, buckets=_BUCKETS
        )
        self._running = prometheus_client.Gauge(
            "vectordb_rpc_running", "Calls being answered.", ("call",), registry=self._registry
        )
        self.recall: Callable[[], Mapping[str, Recall]] = dict
        """Estimates of recall by collection."""
        self._http: Any = None
        self.address = ""
        """``host:port`` of the HTTP server, once started."""

    def start(self, listen: str, backend: Backend, admission: Admission) -> None:
        """Serves ``/metrics``.

        Raises:
            FailedPrecondition: The address cannot be listened on.
        """
        self._registry.register(_Database(backend, self))
        self._registry.register(_Load(backend, admission, self.library))
        host, _, port = listen.rpartition(":")
        try:
            self._http, _ = self.library.start_http_server(int(port), host.strip("[]"), registry=self._registry)
        except OSError as error:
            raise FailedPrecondition(
                f"metrics cannot be served on {listen}: {error.strerror}", address=listen
            ) from None
        self.address = f"{host}:{self._http.server_port}"

    def stop(self) -> None:
        """Ends the HTTP server. Idempotent."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def _unary(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        call, answer = method.rpartition("/")[2], handler.unary_unary
        running, observe = self._running.labels(call), self._observer(call)

        def counted(data: bytes, context: grpc.ServicerContext) -> Any:
            started = time.perf_counter()
            running.inc()
            try:
                return answer(data, context)
            finally:
                running.dec()
                observe(context, started)

        return grpc.unary_unary_rpc_method_handler(in_its_pool(answer, counted))

    def _stream(self, method: str, handler: grpc.RpcMethodHandler) -> grpc.RpcMethodHandler:
        call, answer = method.rpartition("/")[2], handler.stream_stream
        running, observe = self._running.labels(call), self._observer(call)

        def counted(data: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            started = time.perf_counter()
            running.inc()
            try:
                yield from answer(data, context)
            finally:
                running.dec()
                observe(context, started)

        return grpc.stream_stream_rpc_method_handler(in_its_pool(answer, counted))

    def _observer(self, call: str) -> Callable[[grpc.ServicerContext, float], None]:
        ok = self._seconds.labels(call, "OK")

        def observe(context: grpc.ServicerContext, started: float) -> None:
            took = time.perf_counter() - started
            code = context.code()
            if code is None or code is grpc.StatusCode.OK:
                ok.observe(took)
            else:
                self._seconds.labels(call, code.name).observe(took)

        return observe


class _Database:
    """A collector of prometheus-client: the figures of a database as of each scrape."""

    def __init__(self, backend: Backend, metrics: Metrics) -> None:
        self._backend = backend
        self._metrics = metrics

    def describe(self) -> list[Any]:
        """Nothing: else registering would already read the database."""
        return []

    def collect(self) -> Iterator[Any]:
        core = self._metrics.library.core
        names = self._backend.list_collections()[:_MOST_COLLECTIONS]
        families = {
            name: core.GaugeMetricFamily(name, text, labels=["collection"]) for name, (text, _) in _FIGURES.items()
        }
        for collection in names:
            try:
                stats = self._backend.stats(collection)
            except VectorDBError:  # deleted meanwhile
                continue
            for name, (_, figure) in _FIGURES.items():
                families[name].add_metric([collection], float(figure(stats)))
        yield from families.values()
        yield from self._background(core, names)
        info = self._backend.info()
        yield core.GaugeMetricFamily(
            "vectordb_read_only", "Whether writes are refused.", value=float(info.read_only_reason is not None)
        )
        syncs = getattr(self._backend, "syncs", None)
        if syncs is not None:
            yield core.CounterMetricFamily("vectordb_wal_syncs", "Syncs of the log.", value=syncs.count)
            yield core.CounterMetricFamily("vectordb_wal_sync_seconds", "Time in them.", value=syncs.seconds)

    def _background(self, core: Any, names: list[str]) -> Iterator[Any]:
        """Builds and recall."""
        lags: Mapping[str, float] = getattr(self._backend, "build_lags", dict)()
        lag = core.GaugeMetricFamily("vectordb_build_lag_seconds", "Longest wait for an index.", labels=["collection"])
        recall = core.GaugeMetricFamily("vectordb_recall_estimate", "Recall of served searches.", labels=["collection"])
        samples = core.CounterMetricFamily("vectordb_recall_samples", "Searches repeated.", labels=["collection"])
        found = self._metrics.recall()
        for name in names:
            if name in lags:
                lag.add_metric([name], lags[name])
            if name in found:
                recall.add_metric([name], found[name].estimate)
                samples.add_metric([name], found[name].samples)
        yield from (lag, recall, samples)


class _Load:
    """A collector: what runs, waits and was refused, and the machine's memory and disk."""

    def __init__(self, backend: Backend, admission: Admission, library: Any) -> None:
        self._resources = getattr(backend, "resources", None)
        self._admission = admission
        self._core = library.core

    def describe(self) -> list[Any]:
        """Nothing, as above."""
        return []

    def collect(self) -> Iterator[Any]:
        gauge, admission = self._core.GaugeMetricFamily, self._admission
        yield gauge("vectordb_calls_running", "Calls that have a place.", value=admission.running)
        yield gauge("vectordb_calls_waiting", "Calls that wait for one.", value=admission.waiting)
        yield gauge("vectordb_queue_seconds", "How long a new call would wait.", value=admission.waiting_seconds)
        shed = self._core.CounterMetricFamily("vectordb_calls_refused", "Calls refused for load.", labels=["reason"])
        for reason, count in sorted(admission.shed.items()):
            shed.add_metric([reason], count)
        yield shed
        if self._resources is None:
            return
        memory, disk = self._resources.memory, self._resources.disk
        kinds = gauge("vectordb_memory_kind_bytes", "Memory that counts against the limit.", labels=["kind"])
        for kind, size in memory.by_kind().items():
            kinds.add_metric([kind], size)
        yield kinds
        if memory.limit is not None:
            yield gauge("vectordb_memory_limit_bytes", "What memory is kept to.", value=memory.limit)
        if disk is not None:
            yield gauge("vectordb_disk_free_bytes", "Free on the database's disk.", value=disk.look().free)
            yield gauge("vectordb_disk_watermark_bytes", "Below it writes are refused.", value=disk.watermark)
