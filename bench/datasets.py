"""What is measured: vectors, metadata and queries, with the exact truth computed here by brute force.

    wordnet20k      20,000 embeddings of WordNet glosses (real; in ``$VECTORDB_TEST_DATA`` or ``../shared/data``)
    clusters100k    100,000 vectors DERIVED from them: each with small noise, five times over; say so when you quote it
    corpus          the shipped corpus, cut into sentences and embedded here with MiniLM (real; needs no other data)
    wordnet         all 116,659 glosses of WordNet, embedded here with MiniLM, once (real; needs ``wordnet-base``)
    PATH.parquet    a column of vectors (the first that holds lists) and columns of metadata; some rows are the queries
    PATH.hdf5       any ann-benchmarks file with ``train``, ``test`` and the attribute ``distance``

Every row has an invented integer ``u``, uniform over 0..9999, so that a filter on it hits an exact share of the rows
that has nothing to do with where they lie; ``wordnet20k`` has its own metadata too, and filters that do.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

METRICS = {"angular": "cosine", "euclidean": "l2", "dot": "dot"}
SHARES = (0.5, 0.1, 0.01, 0.001)
U_RANGE = 10_000


@dataclass(frozen=True)
class Condition:
    """A filter, as the engine takes it and as bool[n] over the rows."""

    name: str
    where: Mapping[str, Any]
    mask: Array

    @property
    def matches(self) -> int:
        return int(self.mask.sum())


@dataclass(frozen=True)
class Dataset:
    """Rows to store and queries to ask.

    Attributes:
        base: float32[n, d]; unit length under cosine.
        queries: float32[q, d].
        metadata: One map a row; ``u`` is always there.
        real: False where the vectors are derived or made up.
    """

    name: str
    metric: str
    base: Array
    queries: Array
    metadata: list[dict[str, Any]]
    real: bool
    conditions: list[Condition] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """Ids are row numbers of equal width: equal scores then sort as rows do."""
        return [f"{row:08d}" for row in range(len(self.base))]

    def truth(self, limit: int, condition: Condition | None = None, queries: int | None = None) -> Array:
        """The exact nearest rows of each query, best first: int64[q, min(limit, matches)]."""
        rows = np.arange(len(self.base)) if condition is None else np.flatnonzero(condition.mask)
        return rows[nearest(self.queries[:queries], self.base[rows], limit, self.metric)]


def nearest(queries: Array, base: Array, limit: int, metric: str) -> Array:
    """Brute force in blocks: int64[q, min(limit, n)]."""
    limit = min(limit, len(base))
    found = np.empty((len(queries), limit), dtype=np.int64)
    squares = np.einsum("nd,nd->n", base, base, dtype=np.float64) if metric == "l2" else 0.0
    for start in range(0, len(queries), 50):
        block = queries[start : start + 50]
        far = squares - (2.0 if metric == "l2" else 1.0) * (block @ base.T).astype(np.float64)
        near = np.argpartition(far, limit - 1, axis=1)[:, :limit]
        order = np.argsort(np.take_along_axis(far, near, axis=1), axis=1, kind="stable")
        found[start : start + len(block)] = np.take_along_axis(near, order, axis=1)
    return found


def load(name: str, rows: int | None = None, queries: int = 500) -> Dataset:
    """The named set, cut to ``rows`` rows, evenly spread (some sets are sorted), and the first ``queries`` queries.

    Raises:
        SystemExit: It is not here; the text says what to do.
    """
    if name.endswith((".hdf5", ".h5")):
        metric, base, asked, metadata, real = _hdf5(Path(name))
        name = Path(name).stem
    elif name.endswith(".parquet"):
        metric, base, asked, metadata, real = _parquet(Path(name), queries)
        name = Path(name).stem
    elif name in _NAMED:
        metric, base, asked, metadata, real = _NAMED[name]()
    else:
        raise SystemExit(
            f"unknown data set {name!r}: choose one of {', '.join(_NAMED)}, or name an .hdf5 or .parquet file"
        )
    asked = asked[:queries]
    if rows is not None and rows < len(base):
        kept = np.linspace(0, len(base) - 1, rows).astype(np.int64)
        base, metadata = base[kept], [metadata[row] for row in kept]
    if metric == "cosine":
        base, asked = _unit(base), _unit(asked)
    u = np.random.default_rng(7).permutation(len(base)) * U_RANGE // len(base)
    metadata = [{**row, "u": int(value)} for row, value in zip(metadata, u, strict=True)]
    return Dataset(name, metric, base, asked, metadata, real, _conditions(metadata, u))


def _conditions(metadata: list[dict[str, Any]], u: Array) -> list[Condition]:
    found = [
        Condition(f"u {share:.1%}", {"field": "u", "op": "<", "value": int(share * U_RANGE)}, u < share * U_RANGE)
        for share in SHARES
    ]
    if metadata and "lexname" in metadata[0]:
        mask = np.array([row["lexname"] == "noun.animal" for row in metadata])
        where = {"field": "lexname", "op": "==", "value": "noun.animal"}
        found.append(Condition(f"animals {mask.mean():.1%}, correlated", where, mask))
    return [condition for condition in found if condition.matches]


def _unit(vectors: Array) -> Array:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    unit: Array = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


_Raw = tuple[str, Array, Array, list[dict[str, Any]], bool]


def _wordnet() -> _Raw:
    folder = Path(os.environ.get("VECTORDB_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")
    if not (folder / "wordnet20k_384_f16.npy").is_file():
        raise SystemExit(f"no WordNet vectors in {folder}: set VECTORDB_TEST_DATA, or measure with --data corpus")
    base = np.load(folder / "wordnet20k_384_f16.npy").astype(np.float32)
    queries = np.load(folder / "wordnet20k_queries_384_f16.npy").astype(np.float32)
    with gzip.open(folder / "wordnet20k.jsonl.gz", "rt", encoding="utf-8") as lines:
        metadata = [json.loads(line)["metadata"] for line in lines]
    for row in metadata:
        del row["definition"]  # As long as the text: the figures are to be those of ordinary metadata.
    return "cosine", base, queries, metadata, True


def _clusters(copies: int = 5, noise: float = 0.5) -> _Raw:
    """WordNet vectors with noise of half their length, ``copies`` times; cosine to the original about 0.9."""
    metric, base, queries, metadata, _ = _wordnet()
    rng = np.random.default_rng(11)
    spread = noise / np.sqrt(base.shape[1])
    parts = [_unit(base + rng.standard_normal(base.shape, dtype=np.float32) * spread) for _ in range(copies)]
    return metric, np.concatenate(parts), queries, metadata * copies, False


def _corpus() -> _Raw:
    from vectordb_client.rag import MiniLM
    from vectordb_client.rag.corpus import load as load_corpus

    corpus = load_corpus()
    sentences = [
        (document.metadata["article"], sentence.strip())
        for document in corpus.documents
        for sentence in document.text.replace("! ", ". ").replace("? ", ". ").split(". ")
        if len(sentence) > 20
    ]
    model = MiniLM()
    base = model.embed_documents([sentence for _, sentence in sentences])
    queries = model.embed_queries([question.text for question in corpus.questions])
    return "cosine", base, queries, [{"article": article} for article, _ in sentences], True


def _hdf5(path: Path) -> _Raw:
    try:
        import h5py
    except ImportError as missing:
        raise SystemExit("reading .hdf5 files needs h5py: pip install 'vectordb-engine[bench]'") from missing
    with h5py.File(path) as file:
        distance = str(file.attrs["distance"])
        if distance not in METRICS:
            raise SystemExit(f"{path} has distance {distance!r}; supported are {', '.join(METRICS)}")
        base, queries = np.asarray(file["train"], np.float32), np.asarray(file["test"], np.float32)
    return METRICS[distance], base, queries, [{"row": row} for row in range(len(base))], True


def _parquet(path: Path, queries: int) -> _Raw:
    """Queries are rows taken out at random: a tenth at most. Metric: the file's metadata ``distance``, else cosine."""
    try:
        import pyarrow.parquet
    except ImportError as missing:
        raise SystemExit("reading .parquet files needs pyarrow: pip install 'vectordb-engine[parquet]'") from missing
    table = pyarrow.parquet.read_table(path)
    distance = (table.schema.metadata or {}).get(b"distance", b"angular").decode()
    if distance not in METRICS:
        raise SystemExit(f"{path} has distance {distance!r}; supported are {', '.join(METRICS)}")
    listed = [field.name for field in table.schema if hasattr(field.type, "value_type")]
    if not listed or not table.num_rows:
        raise SystemExit(f"{path} has no rows with a column of vectors (lists of numbers)")
    flat = table[listed[0]].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.astype(np.float32).reshape(table.num_rows, -1)
    asked = np.zeros(len(vectors), dtype=bool)
    asked[np.random.default_rng(3).choice(len(vectors), max(1, min(queries, len(vectors) // 10)), replace=False)] = True
    rows = (
        table.drop_columns(listed).filter(pyarrow.array(~asked)).to_pylist() if len(listed) < len(table.schema) else []
    )
    return METRICS[distance], vectors[~asked], vectors[asked], rows or [{} for _ in range(int((~asked).sum()))], True


def cache_folder() -> Path:
    """``$VECTORDB_BENCH_CACHE``, else ``vectordb-bench`` in the user's cache."""
    if given := os.environ.get("VECTORDB_BENCH_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vectordb-bench"


def _all_of_wordnet() -> _Raw:
    from bench import wordnet

    base, queries, metadata = wordnet.load(cache_folder())
    return "cosine", base, queries, metadata, True


_NAMED = {"wordnet20k": _wordnet, "wordnet": _all_of_wordnet, "clusters100k": _clusters, "corpus": _corpus}
