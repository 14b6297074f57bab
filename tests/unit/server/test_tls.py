"""When grpc is told of new certificates: never beside a handshake that may still use the former."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.clock import Clock
from tests.server.credentials import Authority
from vectordb.server import tls


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(tls, "monotonic", made.read)
    monkeypatch.setattr(tls, "sleep", made.let_pass)
    return made


def test_new_certificates_are_told_apart_from_all_other_answers(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetchers: list[Callable[[], Any]] = []
    monkeypatch.setattr(tls.grpc, "dynamic_ssl_server_credentials", lambda first, fetch, mutual: fetchers.append(fetch))
    authority = Authority(tmp_path)
    certificate, key = authority.issue("first")
    tls.server_credentials(tls.TlsFiles(certificate, key))
    (fetch,) = fetchers

    assert fetch() is None
    assert clock.now == 0.0  # handshakes wait for nothing as long as nothing changes
    clock.now = 10.0
    assert fetch() is None

    fresh, fresh_key = authority.issue("second")
    certificate.write_bytes(fresh.read_bytes())
    assert fetch() is None  # the key is another's
    key.write_bytes(fresh_key.read_bytes())
    assert fetch() is not None
    assert clock.now == pytest.approx(10.0 + tls._SETTLE)
    assert fetch() is None
    assert clock.now == pytest.approx(10.0 + 2 * tls._SETTLE)
    clock.now = 20.0
    assert fetch() is None
    assert clock.now == 20.0
