"""Folders that are in use, foreign or newer, and messages that are too large: refused, and nothing changed."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import errors
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb_client import connect


def test_a_message_over_the_servers_limit(tmp_path: Path) -> None:
    settings = {"data": str(tmp_path / "db"), "listen": "127.0.0.1:0", "max_message_bytes": "2 MiB"}
    server = Server(lambda: Engine(tmp_path / "db"), load(settings, None, {}))
    with connect(server.start()) as db:
        collection = db.create_collection("c", 1000)
        with pytest.raises(errors.ResourceExhausted):
            collection.upsert([str(i) for i in range(25_000)], np.ones((25_000, 1000), np.float32))
        assert collection.count() == 0
    server.stop()


def test_a_folder_in_use_names_its_owner(tmp_path: Path) -> None:
    with vectordb.Database(tmp_path), pytest.raises(errors.DirectoryLocked, match=str(os.getpid())) as caught:
        vectordb.Database(tmp_path)
    assert (caught.value.pid, caught.value.host) == (os.getpid(), socket.gethostname())
    server = Server(lambda: Engine(tmp_path), load({"data": str(tmp_path), "listen": "127.0.0.1:0"}, None, {}))
    address = server.start()
    with pytest.raises(errors.DirectoryLocked, match=address):
        vectordb.Database(tmp_path)
    server.stop()
    vectordb.Database(tmp_path).close()


def test_foreign_and_newer_folders_are_refused_untouched(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    with pytest.raises(errors.FailedPrecondition, match=r"thesis\.txt"):
        vectordb.Database(foreign)
    assert [p.name for p in foreign.iterdir()] == ["thesis.txt"]
    newer = tmp_path / "newer"
    vectordb.Database(newer).close()
    (newer / "FORMAT").write_text('{"vectordb": 99}')
    with pytest.raises(errors.FailedPrecondition, match="format 99"):
        vectordb.Database(newer)
    (newer / "FORMAT").write_text("nonsense")
    with pytest.raises(errors.Corruption, match="FORMAT"):
        vectordb.Database(newer)


@pytest.mark.parametrize("path", ["a\0b", "\udcff", "", b"bytes", 5, None])
def test_what_is_no_folders_path_is_told_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for opener in (connect, vectordb.Database):
        with pytest.raises(errors.InvalidArgument):
            opener(path)
    assert list(tmp_path.iterdir()) == []
