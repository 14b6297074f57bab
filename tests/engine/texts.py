"""A collection of a few texts that searches tell apart."""

from __future__ import annotations

from typing import Any

TEXTS = [
    "The quick brown fox jumps over the lazy dog",
    "A quick study of lazy evaluation",
    "Foxes and dogs are canines; the fox is quick",
    "Zürich liegt am See",
    "北京是中国的首都",
    None,
    "",
    "...",
]
IDS = [f"t{i}" for i in range(len(TEXTS))]


def fill(db: Any, **config: Any) -> Any:
    collection = db.create_collection("c", 2, metric="l2", **config)
    collection.upsert(IDS, [[float(i), 1.0] for i in range(len(TEXTS))], [{"n": i} for i in range(len(TEXTS))], TEXTS)
    return collection


def said(result: Any) -> list[tuple[str, float]]:
    return list(zip(result.ids, result.scores, strict=True))
