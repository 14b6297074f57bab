"""Fuzzers of files: segments as they are opened, the loaders behind their checksums, backups, FORMAT and ACKED.

Checksums are no signatures: who can write a folder can make them fit. So lists are also damaged and signed again, and
the loaders of this library's own formats are given damaged files directly. Not so what other libraries wrote (the
native part of an index): they trust it, which is why checksums are checked before they see it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.mutate import Mutator
from vectordb.backup import archive
from vectordb.backup.places import place_of
from vectordb.engine.care import backup as backups
from vectordb.engine.database import Engine
from vectordb.errors import Corruption
from vectordb.filter import col
from vectordb.index.base import BuildOptions
from vectordb.index.registry import get_kind
from vectordb.metadata.evaluate import evaluate
from vectordb.metadata.postings import Postings
from vectordb.segments.info import _checksum as segment_checksum
from vectordb.segments.opening import map_segment, open_segment
from vectordb.segments.store import SegmentStore
from vectordb.storage.acked import read_acked
from vectordb.storage.format import check_format, read_format
from vectordb.text.files import open_index
from vectordb_client import connect

_KINDS: tuple[Any, ...] = ("flat", "hnsw", {"kind": "ivf", "nlist": 4}, "lsh")
_ROWS = 120


def _database(folder: Path) -> Path:
    """A database whose collections have segments of several kinds, with texts and metadata; closed."""
    path = folder / "db"
    rng = np.random.default_rng(7)
    with connect(path, share=False) as db:
        for i, kind in enumerate(_KINDS):
            docs = db.create_collection(f"c{i}", 8, index=kind, index_bytes=1)
            metadata = [
                {"n": r % 7, "s": "ab"[r % 2] * (r % 4), "l": [r, "x"], "t": {"b": r % 3 == 0}} for r in range(_ROWS)
            ]
            vectors = [None if r % 9 == 4 else list(rng.standard_normal(8)) for r in range(_ROWS)]
            texts = [f"some words of row {r} and more" if r % 2 else None for r in range(_ROWS)]
            docs.upsert([f"id-{r}" for r in range(_ROWS)], vectors, metadata, texts)
            docs.delete([f"id-{r}" for r in range(5)])
            docs.optimize()
    return path


class _Damaged:
    """One of some files, damaged for a moment."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sound = path.read_bytes()

    def replace(self, data: bytes) -> None:
        # A new inode: what is mapped stays as it was.
        self.path.unlink(missing_ok=True)
        self.path.write_bytes(data)


def _signed(mutator: Mutator, sound: bytes, checksum: Callable[[Any], str]) -> bytes:
    """A list with a damaged body, and the checksum of that."""
    body = mutator.tree(json.loads(sound)["body"])
    return json.dumps({"checksum": checksum(body), "body": body}).encode()


class Segments:
    """Whole segments, opened as the engine opens them: any file damaged, lists also signed again."""

    def __init__(self, folder: Path) -> None:
        self._root = _database(folder) / "segments"
        self._store = SegmentStore(self._root)
        self._refs = self._store.refs()
        self._files = [_Damaged(p) for p in sorted(self._root.rglob("*")) if p.is_file() and p.suffix != ".stamp"]
        self._sound = folder / "sound"
        shutil.copytree(self._root, self._sound)

    def case(self, mutator: Mutator) -> None:
        file = mutator.random.choice(self._files)
        if file.path.suffix == ".json" and mutator.random.random() < 0.7:
            data = _signed(mutator, file.sound, segment_checksum)
        else:
            data = mutator.bytes(file.sound)
        file.replace(data)
        name = file.path.relative_to(self._root).parts[0]
        try:
            for ref in [ref for ref in self._refs if ref.split("/")[0] == name]:
                segment = open_segment(self._store, ref, None).segment
                if segment is not None:
                    view = segment.view(1 << 40)
                    view.matching(col("n") == 3)
                    view.ids(np.arange(min(5, segment.rows)))
                    view.metadata(np.arange(min(5, segment.rows)))
        finally:
            # Whatever was damaged or set aside comes back.
            for path in self._root.iterdir():
                if path.name == name or not (self._sound / path.name).exists():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(self._sound / name, self._root / name)

    def close(self) -> None:
        """Nothing is open."""


class Loaders:
    """The loaders themselves, without the checksums before them: postings, texts, and the frames around indexes."""

    def __init__(self, folder: Path) -> None:
        self._root = _database(folder) / "segments"
        self._store = SegmentStore(self._root)
        self._work = folder / "damaged"
        names = ("postings.bin", "text.bin", "index.bin")
        self._files = [p for p in sorted(self._root.rglob("*.bin")) if p.name in names]

    def case(self, mutator: Mutator) -> None:
        path = mutator.random.choice(self._files)
        sound = path.read_bytes()
        self._work.unlink(missing_ok=True)
        if path.name == "index.bin":
            # The frame: lengths and facts at the end. The rest is another library's.
            frame = max(0, len(sound) - mutator.random.choice((40, 400)))
            self._work.write_bytes(mutator.bytes(sound, frame))
            self._load_index(path)
            return
        # Half of the damage to the directory at the front, where the structure is.
        directory = mutator.random.random() < 0.5
        data = mutator.bytes(sound[:2000]) + sound[2000:] if directory else mutator.bytes(sound)
        self._work.write_bytes(data)
        if path.name == "postings.bin":
            postings = Postings.open(self._work)
            evaluate((col("n") >= 3) & col("s").startswith("a") | col("l").contains("x"), postings)
            evaluate(~(col("t.b") == True), postings)  # noqa: E712 - a filter
        else:
            open_index(self._work)

    def _load_index(self, path: Path) -> None:
        name = path.relative_to(self._root).parts[0]
        ref = path.parent.relative_to(self._root).as_posix()
        info, _ = self._store.index_info(ref)
        segment = map_segment(self._store, name, None)
        options = BuildOptions(params=info.params, quantization=info.quantization)
        index = get_kind(info.kind).load(self._work, segment.data.vectors.array, segment.data.info.metric, options)
        index.search(np.ones((1, 8), np.float32), 5)

    def close(self) -> None:
        """Nothing is open."""


class Backups:
    """Lists and contents of backups, restored."""

    def __init__(self, folder: Path) -> None:
        source = folder / "db"
        with connect(source, share=False) as db:
            db.create_collection("docs", 2).upsert(["a"], [[1, 0]])
            db.backup(folder / "backups")
        self._place = folder / "backups"
        self._restored = folder / "restored"
        self._files = [_Damaged(path) for path in sorted(self._place.rglob("*")) if path.is_file()]
        self._lists = [file for file in self._files if file.path.suffix == ".json"]

    def case(self, mutator: Mutator) -> None:
        file = mutator.random.choice(self._lists if mutator.random.random() < 0.8 else self._files)
        if file in self._lists and mutator.random.random() < 0.7:
            file.replace(_signed(mutator, file.sound, archive._checksum))
        else:
            file.replace(mutator.bytes(file.sound))
        before = {path for path in self._place.parent.rglob("*") if path.is_file()}
        try:
            place = place_of(str(self._place))
            for listing in archive.listings(place):
                archive.check(place, listing)
            backups.restore(str(self._place), self._restored)
        finally:
            shutil.rmtree(self._restored, ignore_errors=True)
            stray = {path for path in self._place.parent.rglob("*") if path.is_file()} - before
            file.replace(file.sound)
        if stray:
            raise AssertionError(f"a restore left {sorted(stray)[:3]}")

    def close(self) -> None:
        """Nothing is open."""


class Pages:
    """FORMAT, LOCK and ACKED of a database that is then opened."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "db"
        with connect(self._folder, share=False) as db:
            db.create_collection("docs", 2).upsert(["a"], [[1, 0]])
        (self._folder / "LOCK").write_bytes(b'{"pid": 4711, "host": "here", "address": "127.0.0.1:1", "door": "/x"}')
        self._files = [_Damaged(self._folder / name) for name in ("FORMAT", "ACKED", "LOCK")]

    def case(self, mutator: Mutator) -> None:
        file = mutator.random.choice(self._files)
        file.replace(mutator.bytes(file.sound))
        try:
            if mutator.random.random() < 0.02:
                Engine(self._folder, durability="async").close()
            elif file.path.name == "ACKED":
                read_acked(file.path)
            else:
                check_format(self._folder)
                read_format(self._folder)
        except Corruption as error:
            if file.path.name not in str(error) and "acknowledged" not in str(error):
                raise AssertionError(f"{error} does not name {file.path.name}") from error
        finally:
            file.replace(file.sound)

    def close(self) -> None:
        """Nothing is open."""
