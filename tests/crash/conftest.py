"""The process that forks children to be killed, one for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.children import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()
