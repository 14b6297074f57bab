"""An index kind in a package of its own, installed by pip, used by a process that was never told of it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

MODULE = '''
"""Rows in buckets by the signs of random projections."""

import numpy as np

from vectordb.errors import Corruption
from vectordb.index.base import BuildCancelled, Capabilities, Effort, Neighbours, Parameter
from vectordb.metric import Metric, distances, scores


class Buckets:
    def __init__(self, vectors, planes, codes, metric):
        self.vectors, self.planes, self.codes, self.metric = vectors, planes, codes, metric

    def search(self, queries, limit, *, allowed=None, params=None):
        share = (params or {}).get("percent", 60) / 100
        rows = np.full((len(queries), limit), -1, np.int64)
        far = np.full((len(queries), limit), np.inf, np.float32)
        scored = 0
        for i, query in enumerate(queries):
            differing = (self.codes ^ (query @ self.planes > 0)).sum(axis=1)
            near = np.argsort(differing, kind="stable")[: max(limit, int(share * len(self.codes)))]
            if allowed is not None:
                near = near[(allowed[near >> 3] >> (near & 7)) & 1 == 1]
            scored += len(near)
            found = distances(scores(query, self.vectors[near], self.metric), self.metric)
            best = np.argsort(found, kind="stable")[:limit]
            rows[i, : len(best)], far[i, : len(best)] = near[best], found[best]
        return Neighbours(rows, far, scored)

    def save(self, path):
        with path.open("wb") as file:
            np.savez(file, planes=self.planes, codes=self.codes)

    def memory_bytes(self):
        return self.planes.nbytes + self.codes.nbytes


class Kind:
    name = "toy"
    capabilities = Capabilities(
        family="hashing",
        metrics=frozenset({Metric.COSINE}),
        filtered=True,
        build_params={"bits": Parameter(int, 32, 8, 256, "projections")},
        search_params={"percent": Parameter(int, 60, 1, 100, "share of the rows that a search reads")},
        effort=Effort(factor=0.0, compared=200.0, dimension=0.001),
        min_filtered_selectivity=0.05,
    )

    def build(self, vectors, metric, options):
        if options.cancelled():
            raise BuildCancelled
        planes = np.random.default_rng(1).standard_normal((vectors.shape[1], options.params["bits"]))
        planes = planes.astype(np.float32)
        index = Buckets(vectors, planes, vectors @ planes > 0, metric)
        options.progress(1.0)
        return index

    def load(self, path, vectors, metric, options):
        with np.load(path) as stored:
            if len(stored["codes"]) != len(vectors):
                raise Corruption("other rows")
            return Buckets(vectors, stored["planes"], stored["codes"], metric)


KIND = Kind()
'''

PROGRAM = """
import sys
import numpy as np
import vectordb
from vectordb import col, errors

base = np.random.default_rng(0).standard_normal((3_000, 48)).astype(np.float32)
unit = base / np.linalg.norm(base, axis=1, keepdims=True)
ids = [str(i) for i in range(len(base))]

def recall(collection, rows, **options):
    hits = 0
    for query in unit[:50] + np.float32(0.02):
        result = collection.search(query, 10, include=(), **options)
        truth = rows[np.argsort(-(unit[rows] @ query))[:10]]
        hits += len({int(h.id) for h in result} & set(truth.tolist()))
    return hits / 500, result.plan[0].strategy

everything, even = np.arange(3_000), np.arange(0, 3_000, 2)
with vectordb.Database(sys.argv[1]) as db:
    try:
        db.create_collection("c", 48, metric="l2", index="toy")
    except errors.InvalidArgument as error:
        assert "only cosine" in error.message, error
    try:
        db.create_collection("c", 48, index={"kind": "toy", "bits": 4})
    except errors.InvalidArgument as error:
        assert "between 8 and 256" in error.message, error
    c = db.create_collection("c", 48, index={"kind": "toy", "bits": 64})
    c.upsert(ids, base, [{"n": i % 2} for i in range(len(ids))])
    c.optimize()
    print("built", *recall(c, everything))
    print("filtered", *recall(c, even, where=col("n") == 0, filter_mode="in"))
with vectordb.Database(sys.argv[1]) as db:
    c = db.collection("c")
    print("reopened", *recall(c, everything))
    print("widened", *recall(c, everything, params={"percent": 100}))
    print("auto", *recall(c, even, where=col("n") == 0))
    print("kind", c.config.index.kind, c.stats().optimizer.state)
"""


def _wheel(folder: Path) -> Path:
    """A wheel of one module, as a build tool would leave it."""
    path = folder / "toy_kind-1.0-py3-none-any.whl"
    facts = "toy_kind-1.0.dist-info"
    files = {
        "toy_kind.py": MODULE,
        f"{facts}/METADATA": "Metadata-Version: 2.1\nName: toy-kind\nVersion: 1.0\n",
        f"{facts}/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{facts}/entry_points.txt": "[vectordb.indexes]\ntoy = toy_kind:KIND\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{facts}/RECORD"))
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, f"{facts}/RECORD": record}.items():
            wheel.writestr(name, text)
    return path


def test_it_is_found_built_searched_filtered_saved_and_reopened(tmp_path: Path) -> None:
    target = tmp_path / "site-packages"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, "--disable-pip-version-check", str(_wheel(tmp_path))], check=True, timeout=120)
    paths = [str(target), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "db")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    said = {line.split()[0]: line.split()[1:] for line in run.stdout.splitlines()}
    assert set(said) == {"built", "filtered", "reopened", "widened", "auto", "kind"}
    assert said["kind"] == ["toy", "idle"]
    assert [said[name][1] for name in ("built", "filtered", "reopened", "widened")] == ["hashing"] * 4
    assert said["built"] == said["reopened"]
    assert min(float(said[name][0]) for name in ("built", "filtered", "reopened", "auto")) >= 0.95
    assert float(said["widened"][0]) == 1.0
