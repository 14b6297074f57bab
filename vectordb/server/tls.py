"""TLS of the server: certificates that are read again when they change, and mutual TLS."""

from __future__ import annotations

import logging
import math
import os
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

import grpc

from vectordb.errors import InvalidArgument

_log = logging.getLogger("vectordb.server")

_SETTLE = 0.2
"""Seconds in which grpc has surely done with an answer of the fetcher, also on a loaded machine."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files.

    Attributes:
        certificate: The server's certificate, with its chain.
        key: Its private key.
        client_ca: Authorities whose clients are let in (mutual TLS); None lets in clients without a certificate.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Changes whenever a file is replaced or written."""
        files = [self.certificate, self.key, *([self.client_ca] if self.client_ca is not None else [])]
        return tuple((found.st_ino, found.st_mtime_ns) for found in map(os.stat, files))


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that follow the files: a new handshake uses what they hold then.

    A file that cannot be read leaves the certificates as they were, and says so in the log.

    grpc (1.85) asks at each handshake, in several threads, and puts new credentials in the place of the former without
    a lock: another handshake that is about to use these then reads freed memory. So a change is told only when no
    handshake was told anything for a moment, and the next one waits for as long until it is: renewing delays those
    that come just then by up to 0.4 s.

    Raises:
        InvalidArgument: A file cannot be read, or is no PEM file of its kind.
    """
    first = _configuration(files)
    stamp = files.stamp()
    lock = threading.Lock()
    told = replaced = -math.inf  # when grpc had its last answer, and its last new credentials

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal told
        with lock:
            sleep(max(0.0, replaced + _SETTLE - monotonic()))
            try:
                return renewed()
            finally:
                told = monotonic()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal stamp, replaced
        try:
            now = files.stamp()
            if now == stamp:
                return None
            configuration = _configuration(files)
            if files.stamp() != now:
                return None  # changed while it was read: the next handshake looks again
        except (OSError, InvalidArgument) as error:
            _log.error("the certificates stay as they were: %s", error)
            return None
        stamp = now
        _log.info("certificates read again from %s", files.certificate)
        sleep(max(0.0, told + _SETTLE - monotonic()))
        replaced = monotonic()
        return configuration

    return grpc.dynamic_ssl_server_credentials(first, changed, files.client_ca is not None)


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    certificate = _pem(files.certificate, "CERTIFICATE", "tls_cert")
    key = _pem(files.key, "PRIVATE KEY", "tls_key")
    authorities = None if files.client_ca is None else _pem(files.client_ca, "CERTIFICATE", "tls_client_ca")
    _check_pair(files)
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authorities)


def _check_pair(files: TlsFiles) -> None:
    """That the key is the certificate's: it is not for a moment while both are being replaced.

    Raises:
        InvalidArgument: It is another, it has a password, or a file is damaged.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key, lambda: "")
    except OSError as error:
        raise InvalidArgument(
            f"tls_key: {files.key} cannot be used with the certificate {files.certificate} (another certificate's, "
            f"locked by a password, or damaged): {error.strerror or error}",
            field="tls_key",
        ) from None


def _pem(path: Path, kind: str, setting: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{setting}: cannot read {path}: {error.strerror}", field=setting) from None
    if f"{kind}-----".encode() not in data:
        raise InvalidArgument(f"{setting}: {path} holds no PEM {kind.lower()}", field=setting)
    return data
