"""A third party's index kind, installed on ``sys.path`` with its metadata as ``pip`` leaves it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vectordb.index import registry

WAYWARD = '''
"""An exact kind that builds apart, and misbehaves on request."""

import ctypes
import os
import time

import numpy as np

from vectordb.errors import InvalidArgument
from vectordb.index.base import Capabilities, CannotExtend, Neighbours, Parameter
from vectordb.metric import Metric, distances, scores


class Index:
    def __init__(self, vectors, metric, built_by, extended):
        self.vectors, self.metric, self.built_by, self.is_extended = vectors, metric, built_by, extended

    def search(self, queries, limit, *, allowed=None, params=None):
        rows = np.full((len(queries), limit), -1, np.int64)
        far = np.full((len(queries), limit), np.inf, np.float32)
        for i, query in enumerate(queries):
            d = distances(scores(query, self.vectors, self.metric), self.metric)
            best = np.argsort(d, kind="stable")[:limit]
            rows[i, : len(best)], far[i, : len(best)] = best, d[best]
        return Neighbours(rows, far, len(queries) * len(self.vectors))

    def extended(self, vectors, build):
        if len(vectors) - len(self.vectors) == 7:
            raise CannotExtend("seven more rows are unlucky")
        assert (vectors[: len(self.vectors)] == self.vectors).all()
        return Index(vectors, self.metric, os.getpid(), True)

    def save(self, path):
        path.write_text(f"{len(self.vectors)} {self.built_by} {int(self.is_extended)}")

    def memory_bytes(self):
        return 0


class Kind:
    name = "wayward"
    capabilities = Capabilities(
        family="wayward",
        metrics=frozenset(Metric),
        extends=True,
        builds_apart=True,
        build_params={"mode": Parameter(str, "fine"), "note": Parameter(str, "")},
    )

    def build(self, vectors, metric, options):
        mode, note = options.params["mode"], options.params["note"]
        print("talking to standard output", flush=True)
        options.progress(0.25)
        if note:
            with open(note, "a") as file:
                file.write(f"{os.getpid()} {os.getpriority(os.PRIO_PROCESS, 0)}\\n")
        if mode == "slow":
            time.sleep(600)
        if mode == "stuck":
            ctypes.PyDLL(None).sleep(600)  # never lets go of the GIL
        if mode == "abort":
            os.abort()
        if mode == "segfault":
            ctypes.string_at(0)
        if mode == "exit":
            os._exit(3)
        if mode == "killed":
            os.kill(os.getpid(), 9)
        if mode == "refuses":
            raise InvalidArgument("these vectors do not suit", row=3)
        if mode == "fails":
            raise ZeroDivisionError("by nought")
        if mode == "memory":
            raise MemoryError
        options.progress(1.0)
        return Index(np.asarray(vectors), metric, os.getpid(), False)

    def load(self, path, vectors, metric, options):
        rows, pid, extended = path.read_text().split()
        assert int(rows) == len(vectors)
        return Index(vectors, metric, int(pid), extended == "1")


KIND = Kind()
'''


@pytest.fixture
def wayward(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder where the kind ``wayward`` is installed."""
    folder = tmp_path_factory.mktemp("site-packages")
    (folder / "wayward_index.py").write_text(WAYWARD)
    facts = folder / "wayward_index-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: wayward-index\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[{registry.GROUP}]\nwayward = wayward_index:KIND\n")
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    registry.clear_cache()
    yield folder
    sys.modules.pop("wayward_index", None)
    registry.clear_cache()
