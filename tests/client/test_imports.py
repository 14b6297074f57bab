"""What importing the client, and connecting, loads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import vectordb_client
from vectordb import errors

HEAVY = ("faiss", "rocksdict", "torch", "pyroaring", "grpc", "google.protobuf", "pandas", "pyarrow", "tqdm", "asyncio")


def loaded(code: str) -> list[str]:
    """Which heavy modules are there after running ``code`` in a fresh interpreter."""
    script = f"{code}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_client_loads_no_library_of_either_side() -> None:
    assert loaded("import vectordb_client") == []


def test_connecting_to_a_server_does_not_load_the_engine() -> None:
    found = loaded("import vectordb_client as v; v.connect('localhost:1').close()")
    assert "grpc" in found
    assert not {"faiss", "rocksdict", "pyroaring", "torch", "pandas", "pyarrow"} & set(found)


def test_import_is_quick() -> None:
    """Under 0.3 s more than numpy takes by itself, the fastest of a few tries: the machine may be busy."""
    code = "import numpy, time; t = time.perf_counter(); import vectordb_client; print(time.perf_counter() - t)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    times = []
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        times.append(float(done.stdout))
        if times[-1] < 0.3:
            return
    pytest.fail(f"import vectordb_client took {min(times):.2f} s at best")


def test_everything_that_is_promised_is_exported() -> None:
    for name in vectordb_client.__all__:
        assert getattr(vectordb_client, name) is not None
    for name, kind in errors.BY_NAME.items():
        assert getattr(vectordb_client, name) is kind
        assert name in vectordb_client.__all__
    promised = {
        "connect",
        "connect_async",
        "col",
        "Database",
        "Collection",
        "AsyncDatabase",
        "AsyncCollection",
        "Record",
    }
    assert promised | {"Hit", "SearchResult", "WriteResult", "Filter", "errors"} <= set(vectordb_client.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        vectordb_client.nope  # noqa: B018
