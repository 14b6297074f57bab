"""The server: built, bound, started, drained."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from vectordb.errors import FailedPrecondition, InvalidArgument
from vectordb.requests import Backend
from vectordb.server.admission import Admission, Bounds
from vectordb.server.arrivals import ArrivalPool
from vectordb.server.audit import AuditLog
from vectordb.server.authentication import Authentication
from vectordb.server.config import Config
from vectordb.server.entry import Entry
from vectordb.server.grpcio import GrpcioServer
from vectordb.server.interceptors import SERVICE, Guard, Wrapper, wrapped_handlers
from vectordb.server.keys import KeyRing
from vectordb.server.lane import Lane
from vectordb.server.pools import CallPool
from vectordb.server.recall import RecallSampler
from vectordb.server.scans import Scans
from vectordb.server.service import Service
from vectordb.server.slow_log import SlowLog
from vectordb.server.streams import Streams
from vectordb.server.tls import TlsFiles, server_credentials
from vectordb.server.transports import GRPCIO, UNIX, CallBounds, Transport, chosen, has_lane, is_local, native
from vectordb.server.watch import Observer, WatchedBackend

if TYPE_CHECKING:
    from vectordb.server.metrics import Metrics
    from vectordb.server.tracing import Spans

log = logging.getLogger("vectordb.server")

_REFUSING = 32
"""Threads beyond those of calls that run and wait: for calls that are refused, and health checks."""


class Server:
    """One listening server around one backend.

    Args:
        open_backend: Opens what answers the calls. Called by :meth:`start` once the address is bound; the server
            closes the backend when it stops.
        config: See :mod:`vectordb.server.config`.

    Thread-safe.
    """

    def __init__(self, open_backend: Callable[[], Backend], config: Config) -> None:
        self.transport = chosen(config)
        """What speaks HTTP/2, by name: see :mod:`vectordb.server.transports`."""
        self._open_backend = open_backend
        self._config = config
        self._backend: Backend | None = None
        self.address = ""
        """Where it listens, once started."""
        self._scans = Scans(config.max_scans, config.scan_idle_seconds)
        self._streams = Streams(config.max_streams, config.scan_idle_seconds)
        self._admission = Admission(Bounds(*(getattr(config, name) for name in Bounds.__dataclass_fields__)))
        self._keys = None if config.api_keys is None else KeyRing(Path(config.api_keys))
        self._audit = None if config.audit_log is None else AuditLog(Path(config.audit_log))
        self._metrics = _metrics() if config.metrics_listen else None
        self._spans = _spans() if config.tracing else None
        self._recall: RecallSampler | None = None
        self._lane: Lane | None = None
        self._service = Service(self._scans, config.backup_to, config.max_message_bytes, self._audit)
        self._health = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=CallPool(1, "vectordb-health")
        )
        self._server = self._built()
        self._stopping = threading.Event()
        self._stop_lock = threading.Lock()
        self._stopped = False  # guarded by self._stop_lock

    def _built(self) -> Transport:
        config = self._config
        # One more than may run, so that a call over the cap is refused at once instead of waiting.
        self._long_pool = CallPool(config.max_streams + 1, "vectordb-stream")
        # Many threads and few places: a call that waits, is refused, or whose message never comes holds only a thread.
        threads = config.max_pending_calls + _REFUSING
        self._pool = CallPool(threads, "vectordb-rpc")
        self._computing = ArrivalPool(self._admission.arrivals, threads, "vectordb-compute")
        # From the innermost outwards.
        pools = self._long_pool, self._computing
        wrappers: list[Wrapper] = [Guard(self._admission, self._streams, *pools, config.max_message_bytes)]
        if self._keys is not None or self._audit is not None:
            wrappers.append(Authentication(self._keys, self._audit))
        if self._metrics is not None:
            wrappers.append(self._metrics)
        tells = self._spans is not None or config.slow_query_seconds is not None
        wrappers.append(Entry(self._spans, tells, lambda: "" if self._lane is None else self._lane.address))
        bounds = CallBounds(threads, threads + config.max_streams + 1)
        server = grpc.server(self._pool, options=channel_options(config), maximum_concurrent_rpcs=bounds.most_calls)
        handlers = wrapped_handlers(self._service, wrappers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        answering = GrpcioServer(server, SERVICE, handlers)
        paths = {f"/{SERVICE}/{name}": handler for name, handler in handlers.items()}
        if has_lane(config):
            self._lane = Lane(paths, bounds, config.max_message_bytes)
        return answering if self.transport == GRPCIO else native(paths, answering, bounds, config)

    def start(self) -> str:
        """Binds, opens the backend, serves, and returns the address.

        Health says NOT_SERVING, and calls are ``Unavailable``, until the backend is open.

        Raises:
            FailedPrecondition: The address is taken or cannot be listened on.
            VectorDBError: What opening the backend raised; nothing is left running.
        """
        backend: Backend | None = None
        started = False
        try:
            self.address = _bound(self._server, self._config.listen, self._credentials())
            for pool in (self._pool, self._computing, self._long_pool):
                # One thread each from the beginning: where the system has no more, calls wait for those that there are.
                pool.submit(_nothing)
            self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
            self._server.start()
            started = True
            if self._lane is not None:
                self._lane.start()
            backend = self._open_backend()
            if self._metrics is not None:
                self._metrics.start(self._config.metrics_listen, backend, self._admission)
            announce = getattr(backend, "announce", None)
            if announce is not None:
                announce(self.address)
        except BaseException:
            if started:
                self._drain(0)
            if self._metrics is not None:
                self._metrics.stop()
            self._close_pools()
            if self._audit is not None:
                self._audit.close()
            if backend is not None:
                backend.close()
            raise
        self._backend = backend
        self._service.open(self._watched(backend))
        threading.Thread(target=self._expire_idle, name="vectordb-idle", daemon=True).start()
        self._set_health(health_pb2.HealthCheckResponse.SERVING)
        log.info("serving on %s by %s", self.address, self.transport)
        return self.address

    def _watched(self, backend: Backend) -> Backend:
        """The backend, observed where the settings ask for it."""
        config, observers = self._config, list[Observer]()
        if config.slow_query_seconds is not None:
            observers.append(SlowLog(config.slow_query_seconds, config.slow_query_values))
        if self._spans is not None:
            observers.append(self._spans)
        if self._metrics is not None:
            self._recall = RecallSampler(backend, config.recall_sample_seconds)
            self._recall.start()
            self._metrics.recall = self._recall.found
            observers.append(self._recall)
        return cast("Backend", WatchedBackend(backend, observers)) if observers else backend

    def _credentials(self) -> grpc.ServerCredentials | None:
        """TLS as configured; None for plain text, which must be asked for where others can hear it.

        Raises:
            InvalidArgument: A certificate or key is missing or cannot be read.
            FailedPrecondition: Plain text beyond this machine, without ``allow_plaintext``.
        """
        config = self._config
        if config.tls_cert or config.tls_key or config.tls_client_ca:
            if not (config.tls_cert and config.tls_key):
                raise InvalidArgument("TLS needs both tls_cert and tls_key", field="tls_cert")
            client_ca = None if config.tls_client_ca is None else Path(config.tls_client_ca)
            return server_credentials(TlsFiles(Path(config.tls_cert), Path(config.tls_key), client_ca))
        if not config.allow_plaintext and not is_local(config.listen):
            raise FailedPrecondition(
                f"{config.listen} can be reached from other machines, and without TLS they could read everything, keys "
                "included: set tls_cert and tls_key, or allow_plaintext where the network is trusted",
                address=config.listen,
            )
        return None

    def stop(self) -> None:
        """Refuses new calls, lets running ones finish within ``drain_seconds``, closes the backend. Idempotent."""
        with self._stop_lock:
            if self._stopped:
                return
            self._stopped = True
            began = time.monotonic()
            self._stopping.set()
            self._health.enter_graceful_shutdown()
            self._drain(self._config.drain_seconds)
            self._admission.close()
            if self._recall is not None:
                self._recall.stop()
            if self._metrics is not None:
                self._metrics.stop()
            self._scans.close_all()
            if self._backend is not None:
                self._backend.close()
            self._close_pools()
            if self._audit is not None:
                self._audit.close()
            log.info("stopped after %.1f s", time.monotonic() - began)

    def _drain(self, seconds: float) -> None:
        """Refuses new calls, and returns when those that run have ended, or their time has."""
        draining = [self._server.stop(seconds)]
        if self._lane is not None:
            draining.append(self._lane.stop(seconds))
        for ended in draining:
            ended.wait()

    def _close_pools(self) -> None:
        self._stopping.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._computing.shutdown(wait=False, cancel_futures=True)
        self._long_pool.shutdown(wait=False, cancel_futures=True)

    def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in (health.OVERALL_HEALTH, SERVICE):
            self._health.set(name, status)

    def _expire_idle(self) -> None:
        while not self._stopping.wait(min(5.0, self._config.scan_idle_seconds / 4)):
            try:
                self._scans.expire()
                self._streams.expire()
            except Exception:
                log.exception("releasing idle scans failed")


def _nothing() -> None:
    """What a thread is begun with that nothing needs yet."""


def _metrics() -> Metrics:
    # Imported here: the package that it needs is an extra.
    from vectordb.server.metrics import Metrics

    return Metrics()


def _spans() -> Spans:
    from vectordb.server.tracing import Spans

    return Spans()


def channel_options(config: Config) -> list[tuple[str, int]]:
    """grpc's options for these settings."""
    keepalive = int(config.keepalive_seconds * 1000)
    return [
        # Else a second server on a taken port "succeeds" and gets a share of its connections.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", keepalive),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Clients may ping every 10 s; grpc's default ends the connection of one that pings within 5 minutes.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]


def _bound(server: Transport, listen: str, credentials: grpc.ServerCredentials | None) -> str:
    """Binds the server and returns the address with its real port.

    Raises:
        FailedPrecondition: It cannot be bound; the reason is named.
    """
    if listen.startswith(UNIX):
        _refuse_taken_socket(listen)
    port = 0
    # Newer releases of grpc raise, older ones return 0.
    with contextlib.suppress(RuntimeError):
        port = server.add_insecure_port(listen) if credentials is None else server.add_secure_port(listen, credentials)
    if port == 0:
        raise FailedPrecondition(f"cannot listen on {listen}: {_reason(listen)}", address=listen)
    return listen if listen.startswith(UNIX) else f"{listen.rpartition(':')[0]}:{port}"


def _refuse_taken_socket(listen: str) -> None:
    # grpc would unlink the socket of a server that still runs.
    path = Path(listen.removeprefix(UNIX).removeprefix("//"))
    if not path.exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except OSError as error:
            raise FailedPrecondition(f"cannot listen on {listen}: {error.strerror}", address=listen) from None
    raise FailedPrecondition(f"cannot listen on {listen}: another server listens there", address=listen)


def _reason(listen: str) -> str:
    """Why binding failed, in the operating system's words; grpc does not tell."""
    try:
        if listen.startswith(UNIX):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.bind(listen.removeprefix(UNIX).removeprefix("//"))
        else:
            host, _, port = listen.rpartition(":")
            family, kind, _, _, target = socket.getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind) as probe:
                probe.bind(target)
    except OSError as error:
        return f"{error.strerror or error}"
    return "the address cannot be bound"
