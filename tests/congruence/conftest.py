"""Every place that a database can be reached at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vectordb.cli.process import ServerProcess
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import load


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    folder: Path = tmp_path_factory.mktemp("places")
    servers = {
        name: Server(lambda: Engine(":memory:"), load({"listen": "127.0.0.1:0", "transport": name}, None, {}))
        for name in ("native", "grpcio")
    }
    with ServerProcess(folder / "shared"):
        yield {
            "embedded": str(folder / "own"),
            "memory": ":memory:",
            "guest": str(folder / "shared"),
            **{name: server.start() for name, server in servers.items()},
        }
    for server in servers.values():
        server.stop()


@pytest.fixture(params=["embedded", "memory", "guest", "native", "grpcio"])
def place(request: pytest.FixtureRequest, places: dict[str, str]) -> str:
    return places[request.param]
