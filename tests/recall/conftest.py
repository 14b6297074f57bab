"""What the tests of recall share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import vectordb


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[vectordb.Database]:
    """A database on disk for all tests of a module."""
    with vectordb.Database(tmp_path_factory.mktemp("recall") / "db") as db:
        yield db
