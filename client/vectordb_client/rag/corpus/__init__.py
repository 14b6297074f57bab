"""A small real corpus for first runs, examples and tests: paragraphs of Wikipedia and questions that they answer.

It is the English first half of XQuAD: 120 paragraphs of 24 articles, 574 questions, each answered by one paragraph.
Licence CC BY-SA 4.0; see ``ATTRIBUTION.md`` beside this file.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Paragraph:
    """One paragraph; ``metadata`` has ``article`` and ``paragraph`` (numbers) and ``lang``."""

    id: str
    text: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """One question, and the one paragraph that answers it.

    Attributes:
        answers: The wordings that count as right; each is found in the paragraph.
        answer_start: Where the answer begins in the paragraph's text, in characters.
    """

    id: str
    text: str
    document_id: str
    answers: tuple[str, ...]
    answer_start: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """The paragraphs, in the order of their articles, and the questions."""

    documents: tuple[Paragraph, ...]
    questions: tuple[Question, ...]


def load() -> Corpus:
    """The whole corpus, read from package data: a few milliseconds."""
    return Corpus(
        documents=tuple(Paragraph(**row) for row in _rows("paragraphs.jsonl.gz")),
        questions=tuple(Question(**{**row, "answers": tuple(row["answers"])}) for row in _rows("questions.jsonl.gz")),
    )


def _rows(name: str) -> list[dict[str, Any]]:
    packed = files(__name__).joinpath(name).read_bytes()
    return [json.loads(line) for line in gzip.decompress(packed).decode("utf-8").splitlines()]
