"""Makes the golden folder of the present format: ``python tests/golden/make.py``.

It writes ``v<format>.tar.xz``, a database as a kill would leave it (some of it only in the log), and
``v<format>.json``, what it answers. To be run once for each format, by the last release that writes it; both files are
never made again, so that later releases show that they read them.
"""

from __future__ import annotations

import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import vectordb
from vectordb.storage.keys import FORMAT_VERSION

HERE = Path(__file__).parent
DIM = 16
ROWS = 150

COLLECTIONS: dict[str, dict[str, Any]] = {
    "flat-cosine": {"metric": "cosine", "index": "flat"},
    "auto-dot": {
        "metric": "dot", "analyzer": "english", "fields": {"year": "int", "note": {"type": "text", "indexed": False}},
    },
    "hnsw-l2": {"metric": "l2", "index": {"kind": "hnsw", "m": 8, "ef_construction": 40}},
    "hnsw-l1": {"metric": "l1", "index": "hnsw"},
    "hnsw-fp16-cosine": {"metric": "cosine", "index": "hnsw", "quantization": "fp16"},
    "hnsw-sq8-dot": {"metric": "dot", "index": "hnsw", "quantization": "sq8"},
    "flat-binary-cosine": {"metric": "cosine", "index": "flat", "quantization": "binary"},
    "ivf-l2": {"metric": "l2", "index": {"kind": "ivf", "nlist": 8}},
    "ivf-sq8-cosine": {"metric": "cosine", "index": {"kind": "ivf", "nlist": 8}, "quantization": "sq8"},
    "flat-rabitq-l2": {"metric": "l2", "index": "flat", "quantization": "rabitq"},
    "lsh-cosine": {"metric": "cosine", "index": "lsh"},
}  # fmt: skip


def fill(db: vectordb.Database, name: str, config: dict[str, Any]) -> None:
    """Sealed and indexed rows, deleted and changed ones, rows without a vector, and a tail."""
    rng = np.random.default_rng(len(name))
    vectors = rng.standard_normal((ROWS, DIM)).astype(np.float32)
    docs = db.create_collection(name, DIM, **config)
    metadata = [{"year": 1990 + i % 30, "tags": ["a", "b", "c"][: i % 4], "note": f"note {i}"} for i in range(ROWS)]
    texts = [f"running text number {i} about topic{i % 7}" if i % 5 else None for i in range(ROWS)]
    docs.upsert([f"r{i}" for i in range(ROWS)], vectors, metadata, texts)
    docs.optimize()
    docs.delete([f"r{i}" for i in range(0, 30, 10)])
    docs.update_metadata(["r5", "r6"], set={"year": 2050})
    docs.upsert(
        ["r7", "tail", "bare"], [vectors[0], vectors[1], None], [{"year": 1}, {}, {}], ["changed", "", "no vector"]
    )


def answers(db: vectordb.Database, name: str) -> dict[str, Any]:
    """What a collection says, as JSON-like values; scores as hexadecimal floats."""
    docs = db[name]
    queries = np.random.default_rng(99).standard_normal((5, DIM)).astype(np.float32)
    where = {"field": "year", "op": ">=", "value": 2010}
    exact = docs.search_batch(queries, limit=10, exact=True)
    filtered = docs.search_batch(queries, limit=5, exact=True, where=where)
    words = docs.search_text("run topic3", limit=8)
    stats = docs.stats()
    return {
        "config": repr(docs.config),
        "segments": sorted([s.name, s.index, s.rows, s.deleted] for s in stats.segments),
        "counts": [docs.count(), docs.count(where), stats.tail_rows, stats.version],
        "exact": [[[h.id, h.score.hex()] for h in result] for result in exact],
        "filtered": [[[h.id, h.score.hex()] for h in result] for result in filtered],
        "words": [[h.id, h.score.hex()] for h in words],
        "usual": [result.ids for result in docs.search_batch(queries, limit=10)],
        "records": [
            [r.id, r.version, dict(r.metadata or {}), r.text, None if r.vector is None else r.vector.tobytes().hex()]
            for r in docs.get(["r5", "r7", "r149", "bare"], include=("metadata", "text", "vector"))
        ],
    }


def main() -> None:
    archive = HERE / f"v{FORMAT_VERSION}.tar.xz"
    if archive.exists() and "--force" not in sys.argv:
        raise SystemExit(f"{archive} is there already: it is never made again")
    with tempfile.TemporaryDirectory() as folder, vectordb.Database(folder, scrub_bytes_per_second=0) as db:
        for name, config in COLLECTIONS.items():
            fill(db, name, config)
        said = {name: answers(db, name) for name in COLLECTIONS}
        with tarfile.open(archive, "w:xz") as tar:
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file() and path.name[:3] != "LOG" and path.name != "LOCK":
                    tar.add(path, path.relative_to(folder).as_posix(), filter=_anonymous)
    (HERE / f"v{FORMAT_VERSION}.json").write_text(json.dumps(said, indent=None, separators=(",", ":")) + "\n")


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main()
