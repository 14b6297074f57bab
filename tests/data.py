"""The data sets that tests measure against: real ones where they lie, made-up ones of the same shape elsewhere.

The folder is ``$VECTORDB_TEST_DATA``, or ``../shared/data`` beside the checkout. Where neither is there, the same
objects come back filled with clustered random vectors and invented metadata, their truth computed by brute force: no
test is skipped, and thresholds of recall hold for both. ``WordNet.real`` and ``Mnist.real`` tell which it is.

Tests ask for the fixtures of ``conftest.py``, which load each set once.
"""

from __future__ import annotations

import functools
import gzip
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

REPOSITORY = Path(__file__).resolve().parents[1]

FILTERS: dict[str, dict[str, Any]] = {
    "verb": {"field": "pos", "op": "==", "value": "verb"},
    "animal": {"field": "lexname", "op": "==", "value": "noun.animal"},
    "short_word": {"field": "word_length", "op": "<=", "value": 5},
    "proper_person": {
        "and": [
            {"field": "lexname", "op": "==", "value": "noun.person"},
            {"field": "proper", "op": "==", "value": True},
        ]
    },
}
"""The named conditions of the WordNet set, in the JSON form of filters: 12, 6, 16 and 4 % of the rows."""


@dataclass(frozen=True)
class WordNet:
    """Glosses of WordNet and their embeddings, cosine; rows in one order everywhere.

    Attributes:
        ids: n ids.
        base: float32[n, 384], unit length.
        texts: n texts.
        metadata: n maps with ``pos``, ``lexname``, ``word``, ``words``, ``word_length``, ``proper``, ...
        queries: float32[q, 384], unit length; q is 500 with the real set.
        truth: int64[q, 100], the exact nearest rows of ``base``, best first.
        filters: Named conditions in the JSON form of filters.
        matching: For each name bool[n], which rows meet it.
        filtered_truth: For each name int64[100, 20], the exact nearest matching rows of the first 100 queries.
        real: Whether these are the real vectors.
    """

    ids: list[str]
    base: Array
    texts: list[str]
    metadata: list[dict[str, Any]]
    queries: Array
    truth: Array
    filters: dict[str, dict[str, Any]]
    matching: dict[str, Array]
    filtered_truth: dict[str, Array]
    real: bool


@dataclass(frozen=True)
class Mnist:
    """Handwritten digits, Euclidean: base float32[5000, 784], labels int64[5000], queries, truth int64[200, 100]."""

    base: Array
    labels: Array
    queries: Array
    truth: Array
    real: bool


@dataclass(frozen=True)
class Xquad:
    """Paragraphs and questions in English: the shipped corpus, with stored reference embeddings where they lie.

    Attributes:
        documents: ``{"id", "text", "metadata"}`` a paragraph.
        questions: ``{"id", "text", "answers", "answer_start"}`` a question.
        relevant: For each question the position of its paragraph in ``documents``.
        document_vectors, question_vectors: float32[n, 384] from the unquantised model, or ``None`` without the data.
    """

    documents: list[dict[str, Any]]
    questions: list[dict[str, Any]]
    relevant: list[int]
    document_vectors: Array | None
    question_vectors: Array | None


def data_folder() -> Path | None:
    """The folder with the real sets, or ``None``."""
    named = os.environ.get("VECTORDB_TEST_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if (folder / "wordnet20k_384_f16.npy").is_file():
        return folder
    if named:
        raise FileNotFoundError(
            f"VECTORDB_TEST_DATA={named} has no wordnet20k_384_f16.npy; unset it or name the folder"
        )
    return None


def have_shared_data() -> bool:
    """Whether the real sets are here."""
    return data_folder() is not None


def brute_force(queries: Array, base: Array, limit: int, *, metric: str = "dot") -> Array:
    """The exact nearest rows, best first, equal ones by row: int64[q, min(limit, n)]. Metric: dot, l2 or l1."""
    limit = min(limit, len(base))
    found = np.empty((len(queries), limit), dtype=np.int64)
    squares = np.einsum("nd,nd->n", base, base, dtype=np.float64) if metric == "l2" else None
    step = 64 if metric != "l1" else 1
    for start in range(0, len(queries), step):
        block = queries[start : start + step]
        if metric == "l1":
            far = np.abs(base - block[0]).sum(axis=1, dtype=np.float64)[None, :]
        else:
            far = -(block.astype(np.float64) @ base.T.astype(np.float64))
            if squares is not None:
                far = squares + 2.0 * far
        found[start : start + len(block)] = np.argsort(far, axis=1, kind="stable")[:, :limit]
    return found


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All lines of a gzipped JSON-lines file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _matching(metadata: list[dict[str, Any]]) -> dict[str, Array]:
    """Which rows meet each of :data:`FILTERS`, written out by hand: independent of the library's evaluators."""
    return {
        "verb": np.array([m["pos"] == "verb" for m in metadata]),
        "animal": np.array([m["lexname"] == "noun.animal" for m in metadata]),
        "short_word": np.array([m["word_length"] <= 5 for m in metadata]),
        "proper_person": np.array([m["lexname"] == "noun.person" and m["proper"] is True for m in metadata]),
    }


def _filtered_truth(base: Array, queries: Array, matching: dict[str, Array]) -> dict[str, Array]:
    found = {}
    for name, mask in matching.items():
        rows = np.flatnonzero(mask)
        found[name] = rows[brute_force(queries[:100], base[rows], 20)]
    return found


@functools.cache
def wordnet(n: int = 20_000) -> WordNet:
    """``n`` rows of the WordNet set, evenly spread: it is sorted by part of speech. Below 20,000 truth is made anew."""
    folder = data_folder()
    if folder is None:
        return _invented_wordnet(n)
    base = np.load(folder / "wordnet20k_384_f16.npy").astype(np.float32)
    records = read_jsonl(folder / "wordnet20k.jsonl.gz")
    if n < len(base):
        rows = np.linspace(0, len(base) - 1, n).astype(np.int64)
        base, records = base[rows], [records[row] for row in rows]
    queries = np.load(folder / "wordnet20k_queries_384_f16.npy").astype(np.float32)
    metadata = [record["metadata"] for record in records]
    matching = _matching(metadata)
    if n >= 20_000:
        truth = np.load(folder / "wordnet20k_gt_idx.npy").astype(np.int64)
        with np.load(folder / "wordnet20k_gt_filtered.npz") as stored:
            filtered = {name: stored[name].astype(np.int64) for name in FILTERS}
    else:
        truth = brute_force(queries, base, 100)
        filtered = _filtered_truth(base, queries, matching)
    return WordNet(
        ids=[record["_id"] for record in records],
        base=base,
        texts=[record["text"] for record in records],
        metadata=metadata,
        queries=queries,
        truth=truth,
        filters=FILTERS,
        matching=matching,
        filtered_truth=filtered,
        real=True,
    )


def invented_texts(n: int, seed: int = 0) -> list[str]:
    """``n`` texts of 3 to 20 words out of 600, as frequent as words are (Zipf): ``bado`` above all, then ``bega``."""
    rng = np.random.default_rng(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
    vocabulary = [syllables[i % 60] + syllables[(7 * i + i // 60 + 8) % 60] for i in range(600)]
    frequency = 1.0 / np.arange(1, 601)
    frequency /= frequency.sum()
    return [" ".join(rng.choice(vocabulary, int(rng.integers(3, 21)), p=frequency)) for _ in range(n)]


def clustered(n: int, dim: int, clusters: int, seed: int) -> tuple[Array, Array]:
    """Unit vectors around ``clusters`` centres, as embeddings lie: float32[n, dim] and the centre of each, int64[n]."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((clusters, dim))
    member = rng.integers(0, clusters, n)
    spread = rng.uniform(0.6, 1.4, (n, 1))
    points = centres[member] + spread * rng.standard_normal((n, dim))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), member


_CLUSTERS, _CENTRES, _WITHIN = 300, 32, 64
"""Clusters of invented embeddings, and in how many dimensions rows differ from cluster to cluster and within one. Real
ones have about so many: were rows spread in all of theirs, those of other clusters would all be equally far away, and
no graph would lead from one to the next."""


def _invented_embeddings(n: int, dim: int, seed: int) -> tuple[Array, Array]:
    """Unit vectors as texts' embeddings lie: float32[n, dim] and the cluster of each, int64[n]."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    centres = fixed.standard_normal((_CLUSTERS, _CENTRES)) @ fixed.standard_normal((_CENTRES, dim)) / _CENTRES**0.5
    axes = fixed.standard_normal((_WITHIN, dim)) / _WITHIN**0.5
    member = rng.integers(0, _CLUSTERS, n)
    points = centres[member] + rng.uniform(0.6, 1.4, (n, 1)) * (rng.standard_normal((n, _WITHIN)) @ axes)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32), member


def _invented_wordnet(n: int) -> WordNet:
    lexnames = ("noun.animal", "noun.person", "noun.artifact", "noun.plant", "noun.act", "verb.motion", "adj.all")
    base, member = _invented_embeddings(n, 384, seed=1)
    queries, _ = _invented_embeddings(500, 384, seed=2)
    rng = np.random.default_rng(3)
    metadata: list[dict[str, Any]] = []
    for row in range(n):
        lexname = lexnames[member[row] % len(lexnames)] if rng.random() < 0.5 else "noun.state"
        length = int(rng.integers(2, 20))
        word = f"w{row:0>{max(1, length - 1)}}"[:length]
        metadata.append(
            {
                "pos": lexname.partition(".")[0],
                "lexname": lexname,
                "word": word,
                "words": [word] * int(rng.integers(1, 4)),
                "word_length": length,
                "n_words": 1,
                "n_pointers": int(rng.integers(0, 12)),
                "n_examples": int(rng.integers(0, 3)),
                "gloss_length": int(rng.integers(20, 300)),
                "proper": bool(rng.random() < 0.5),
                "definition": f"the thing numbered {row}",
            }
        )
    matching = _matching(metadata)
    return WordNet(
        ids=[f"x{row:08}" for row in range(n)],
        base=base,
        texts=[f"{m['word']}: {m['definition']}" for m in metadata],
        metadata=metadata,
        queries=queries,
        truth=brute_force(queries, base, 100),
        filters=FILTERS,
        matching=matching,
        filtered_truth=_filtered_truth(base, queries, matching),
        real=False,
    )


@functools.cache
def mnist() -> Mnist:
    """5,000 digits of 784 pixels, 0 to 255, and 200 to search with."""
    folder = data_folder()
    if folder is None:
        base, member = clustered(5_000, 784, 40, seed=4)
        queries, _ = clustered(200, 784, 40, seed=5)
        base, queries = np.abs(base) * 1000, np.abs(queries) * 1000
        return Mnist(base, member % 10, queries, brute_force(queries, base, 100, metric="l2"), real=False)
    return Mnist(
        base=np.load(folder / "mnist5k_784_u8.npy").astype(np.float32),
        labels=np.load(folder / "mnist5k_labels.npy").astype(np.int64),
        queries=np.load(folder / "mnist5k_queries_784_u8.npy").astype(np.float32),
        truth=np.load(folder / "mnist5k_gt_idx.npy").astype(np.int64),
        real=True,
    )


@functools.cache
def xquad() -> Xquad:
    """The corpus that the project ships, with reference embeddings where the real sets lie."""
    from vectordb_client.rag.corpus import load

    corpus = load()
    row_of = {document.id: row for row, document in enumerate(corpus.documents)}
    folder = data_folder()
    stored = [
        None if folder is None else np.load(folder / "xquad_a_en" / f"{name}_384_f16.npy").astype(np.float32)
        for name in ("corpus", "queries")
    ]
    return Xquad(
        documents=[{"id": d.id, "text": d.text, "metadata": dict(d.metadata)} for d in corpus.documents],
        questions=[
            {"id": q.id, "text": q.text, "answers": list(q.answers), "answer_start": q.answer_start}
            for q in corpus.questions
        ],
        relevant=[row_of[q.document_id] for q in corpus.questions],
        document_vectors=stored[0],
        question_vectors=stored[1],
    )
