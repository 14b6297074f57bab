"""How well questions find their documents: nDCG with the judgements' grades as gains, as the data's README has it.

Loaded by ``conftest.py``. Source: Jarvelin & Kekalainen 2002 (cumulated gain).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vectordb_client.rag import Document, FunctionEmbedder, KnowledgeBase


@dataclass(frozen=True)
class Collection:
    """Texts, questions and judgements, with the vectors of the unquantised model for every text.

    Attributes:
        relevant: For each question the grades of its documents.
        vectors: Of every document's text and every question.
    """

    documents: list[Document]
    questions: dict[str, str]
    relevant: dict[str, dict[str, float]]
    vectors: Mapping[str, Any]

    def reference_embedder(self) -> FunctionEmbedder:
        """The unquantised model, as far as its vectors are stored."""

        def embed(texts: list[str]) -> Any:
            known = np.full(384, 384**-0.5, dtype=np.float32)
            return np.stack([self.vectors.get(text, known) for text in texts])

        return FunctionEmbedder(embed, name="reference", dim=384)


def load(data: ModuleType, name: str) -> Collection:
    """``"cranfield"`` or ``"xquad_a_en"``; a document is its title, a blank and its text."""
    folder: Path = data.data_folder() / name
    rows, questions = (data.read_jsonl(folder / f"{part}.jsonl.gz") for part in ("corpus", "queries"))
    texts = [f"{row['title']} {row['text']}".strip() for row in rows]
    relevant: dict[str, dict[str, float]] = {}
    with (folder / "qrels.tsv").open(encoding="utf-8") as lines:
        for question, document, grade in list(csv.reader(lines, delimiter="\t"))[1:]:
            relevant.setdefault(question, {})[document] = float(grade)
    vectors: dict[str, Any] = {}
    for part, wordings in (("corpus", texts), ("queries", [question["text"].strip() for question in questions])):
        stored = np.load(folder / f"{part}_384_f16.npy").astype(np.float32)
        vectors |= dict(zip(wordings, stored, strict=True))
    return Collection(
        documents=[Document(row["_id"], text) for row, text in zip(rows, texts, strict=True)],
        questions={question["_id"]: question["text"].strip() for question in questions},
        relevant=relevant,
        vectors=vectors,
    )


def ndcg(ranked: Sequence[str], grades: Mapping[str, float], depth: int = 10) -> float:
    """Of one question."""
    gain = sum(grades.get(one, 0.0) / math.log2(place + 2) for place, one in enumerate(ranked[:depth]))
    best = sum(
        grade / math.log2(place + 2) for place, grade in enumerate(sorted(grades.values(), reverse=True)[:depth])
    )
    return gain / best if best else 0.0


def mean_ndcg(kb: KnowledgeBase, collection: Collection, **options: Any) -> float:
    """Over all judged questions, each asked by itself; a document is as good as its best chunk."""
    found = []
    for question, grades in collection.relevant.items():
        passages = kb.retrieve(collection.questions[question], limit=40, exact=True, **options)
        found.append(ndcg(list(dict.fromkeys(passage.document_id for passage in passages)), grades))
    return float(np.mean(found))
