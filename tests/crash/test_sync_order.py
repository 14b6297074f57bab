"""The sync precedes the acknowledgement: by the order of the engine's steps, and by the order of system calls.

The second is seen by a library that is preloaded into a server (``syscalls.c``, compiled here), which needs no
privilege as tracing does. Where there is no C compiler the first alone is run.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

import vectordb
from vectordb import failpoints
from vectordb.cli.process import ServerProcess
from vectordb_client import connect

_COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
_DATA_FRAME = 0


def test_the_steps_of_a_commit(tmp_path: Path) -> None:
    names = ["storage.write", "storage.written", "storage.sync", "storage.synced", "acked.torn", "commit.published"]
    with vectordb.Database(tmp_path) as db:
        collection = db.create_collection("c", 2)
        collection.upsert(["first"], [[1, 2]])
        seen: list[str] = []
        try:
            for name in names:
                failpoints.arm(name, lambda name=name: seen.append(name), times=None)  # type: ignore[misc]
            for i in range(20):
                seen.clear()
                collection.upsert([f"i{i}"], [[1, i]])
                seen.append("acknowledged")
                assert seen == [*names, "acknowledged"]
        finally:
            failpoints.disarm()


class Event(NamedTuple):
    """One line of the log; ``at`` is its number."""

    at: int
    name: str
    path: str
    data: bytes


def _events(log: Path) -> list[Event]:
    found = []
    for at, line in enumerate(log.read_text().splitlines()):
        name, path, data = line.split("\t")
        found.append(Event(at, name, path, bytes.fromhex(data)))
    return found


def _answers(events: list[Event]) -> list[int]:
    """When the server sent frames with messages, by number of event."""
    streams: dict[str, bytearray] = defaultdict(bytearray)
    parsed: dict[str, int] = defaultdict(int)
    answers = []
    for event in events:
        if not event.path.startswith("socket:"):
            continue
        stream = streams[event.path]
        stream += event.data
        while parsed[event.path] < len(stream):
            # A frame's header: length in 3 bytes, type, flags, stream in 4.
            start = parsed[event.path]
            if stream[start + 3] == _DATA_FRAME:
                answers.append(event.at)
            parsed[event.path] = start + 9 + int.from_bytes(stream[start : start + 3], "big")
    return answers


if _COMPILER is not None:

    def _served(tmp_path: Path) -> list[Event]:
        """What a server does while one client writes 150 times, one after the other, and has it sealed and indexed."""
        library, log = tmp_path / "syscalls.so", tmp_path / "events"
        source = Path(__file__).with_name("syscalls.c")
        subprocess.run(
            [_COMPILER, "-shared", "-fPIC", "-O1", "-w", "-o", str(library), str(source), "-ldl", "-pthread"],
            check=True,
        )
        environment = {"LD_PRELOAD": str(library), "SYSCALLS_LOG": str(log)}
        with ServerProcess(tmp_path / "db", environment=environment) as server, connect(server.address) as db:
            collection = db.create_collection(
                "c", 4, index={"kind": "hnsw", "m": 4, "ef_construction": 16}, seal_bytes=1_000, merge_factor=2
            )
            for i in range(150):
                collection.upsert([f"marker-{i}-"], np.ones((1, 4)), texts=["some words"])
            collection.optimize()
            collection.upsert(["marker-150-"], np.ones((1, 4)))
        return _events(log)

    def test_the_system_calls(tmp_path: Path) -> None:
        events = _served(tmp_path)
        answers = _answers(events)
        assert len(answers) >= 152
        logs = [e for e in events if e.name == "write" and e.path.endswith(".log")]
        written = [next(e for e in logs if f"marker-{i}-".encode() in e.data) for i in range(151)]
        synced = [next(e.at for e in events[w.at :] if e.name == "sync" and e.path == w.path) for w in written]
        for i, (write, sync) in enumerate(zip(written, synced, strict=True)):
            # The client waits for each answer: what is sent before the sync would be this one.
            assert not [at for at in answers if write.at < at < sync], f"write {i} was answered before it was synced"
            end = written[i + 1].at if i < 150 else len(events)
            assert [at for at in answers if sync < at < end], f"write {i} was answered"
        _check_publications(events, logs)

    def _check_publications(events: list[Event], logs: list[Event]) -> None:
        """Files synced, folder synced, renamed, outer folder synced; only then is the name written to the log."""
        renames = [e for e in events if e.name == "rename" and "/tmp-" in e.path and e.path.count("/tmp-") == 1]
        published = in_manifests = 0
        for rename in renames:
            final = events[rename.at + 1].path
            inside = [e for e in events[: rename.at] if e.path.startswith(rename.path + "/")]
            if not inside:  # a stamp, or a folder on its way out
                continue
            published += 1
            for path in {e.path for e in inside if e.name == "write"}:
                assert [e.name for e in inside if e.path == path][-1] == "sync", f"{path} is not synced when published"
            assert [e.name for e in events[: rename.at] if e.path == rename.path][-1] == "sync", rename.path
            outer = str(Path(final).parent)
            # Where the server was stopped in between, it is named nowhere.
            sync = next((e.at for e in events[rename.at :] if e.name == "sync" and e.path == outer), len(events))
            name = Path(final).name.removeprefix("index-").encode()
            named = [e.at for e in logs if len(name) == 32 and name in e.data]
            assert all(at > sync for at in named), f"{final} is in a manifest before its folder is synced"
            in_manifests += bool(named)
        assert published >= 3
        assert in_manifests >= 2
