"""Fixtures that every test folder may ask for."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

# hnswlib and annoy have to be compiled: without a compiler these files have nothing to test.
collect_ignore = (
    []
    if all(importlib.util.find_spec(module) for module in ("hnswlib", "annoy", "scann", "svs"))
    else ["unit/index/test_other_kinds.py", "recall/test_other_kinds_recall.py"]
)


def _load_data_module() -> ModuleType:
    """``tests/data.py`` as a module: under ``--import-mode=importlib`` the folder is no package and not on the path."""
    name = "vectordb_test_data"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("data.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def data() -> ModuleType:
    """The module ``tests/data.py``: ``brute_force``, ``clustered``, ``have_shared_data`` and the loaders."""
    return _load_data_module()


@pytest.fixture(scope="session")
def wordnet(data: ModuleType) -> Any:
    """20,000 WordNet glosses (``data.WordNet``): base, queries, truth, ids, metadata, texts, filters, ..."""
    return data.wordnet()


@pytest.fixture(scope="session")
def wordnet5k(data: ModuleType) -> Any:
    """5,000 of them, evenly spread, with their own truth: for tests that write them many times."""
    return data.wordnet(5_000)


@pytest.fixture(scope="session")
def mnist(data: ModuleType) -> Any:
    """5,000 MNIST digits (``data.Mnist``): base, labels, queries, truth under Euclidean distance."""
    return data.mnist()


@pytest.fixture(scope="session")
def xquad(data: ModuleType) -> Any:
    """The shipped corpus (``data.Xquad``): documents, questions, relevant, reference vectors or ``None``."""
    return data.xquad()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out tests marked ``slow`` unless ``-m`` says what to run."""
    if config.getoption("-m"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        left_out = set(slow)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def slow_kind(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the distribution ``tests/slow_kind``, installed for the test, also for processes that it starts."""
    from vectordb.index import registry

    folder = str(Path(__file__).with_name("slow_kind"))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", folder, prepend=os.pathsep)
    registry.clear_cache()
    module = importlib.import_module("slow_kind")
    module.BUILDS.clear()
    yield module
    registry.clear_cache()
