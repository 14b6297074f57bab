"""What the tests of another form under a live collection share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import vectordb
from tests.engine.reindex.gate import Gate


@pytest.fixture
def gate(tmp_path: Path, slow_kind: ModuleType) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture(params=["folder", "memory"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with vectordb.Database(tmp_path / "db" if request.param == "folder" else ":memory:") as opened:
        yield opened
