"""Answers and what people say about them, kept in a collection of their own: exported, and asked again.

The collection is ``NAME.answers`` beside the knowledge base ``NAME``; its records have no vectors. It holds questions,
passages and answers word for word: see :class:`~vectordb_client.rag.asking.AnswerConfig` for keeping none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vectordb.api import Collection, Database
from vectordb.errors import CollectionNotFound, InvalidArgument, NotFound
from vectordb.filter import Filter, as_filter, col
from vectordb.ids import generated_ids
from vectordb_client.rag.arguments import number

if TYPE_CHECKING:
    from vectordb.types import Record
    from vectordb_client.rag.types import Answer

_FIELDS = {"body": {"type": "text", "indexed": False}, "comment": {"type": "text", "indexed": False}}
_MAX_COMMENT = 10_000
_MAX_BODY = 200_000
"""Characters of an answer that are kept in its own record; longer ones in records of so many:"""
_PART = 4_000_000


@dataclass(frozen=True, slots=True)
class Replay:
    """A stored answer beside what the same question gets now.

    Attributes:
        before: The stored answer as JSON-like values.
        answer: The new one.
        same_configuration: Models, prompt, guards and settings are the same: differences come from the documents.
        same_passages: The same chunks were found in the same order.
        same_text: The answers are equal to the letter.
    """

    before: Mapping[str, Any]
    answer: Answer
    same_configuration: bool
    same_passages: bool
    same_text: bool


class AnswerStore:
    """Answers and feedback of the knowledge base ``name``. Thread-safe. Nothing is created before the first answer."""

    def __init__(self, db: Database, name: str) -> None:
        self._db = db
        self._name = f"{name}.answers"
        self._collection: Collection | None = None

    def keep(self, answer: Answer) -> None:
        """Stores an answer, durably."""
        collection = self._existing()
        if collection is None:  # to make it takes an administrator's key, to write to it does not
            collection = self._db.create_collection(self._name, dim=1, fields=_FIELDS, exist_ok=True)
            self._collection = collection
        metadata = {
            "kind": "answer",
            "created": answer.trace.created,
            "refused": answer.refused,
            "refusal_reason": answer.refusal_reason,
            "grounded": answer.grounded,
            "fingerprint": answer.trace.fingerprint,
        }
        body = json.dumps(as_dict(answer), ensure_ascii=False, default=str)
        parts: list[str] = []
        if len(body) <= _MAX_BODY:
            metadata["body"] = body
        else:  # whole documents as passages: more than metadata may hold
            parts = [body[start : start + _PART] for start in range(0, len(body), _PART)]
            metadata["parts"] = len(parts)
        collection.upsert(
            [answer.id, *_part_ids(answer.id, len(parts))],
            metadata=[metadata, *({"kind": "part"} for _ in parts)],
            texts=[answer.question, *parts],
        )

    def get(self, answer_id: str) -> dict[str, Any]:
        """A stored answer as JSON-like values.

        Raises:
            NotFound: There is none of this id.
        """
        collection = self._existing()
        found = [] if collection is None else collection.get([answer_id], include=("metadata",))
        if not found or (found[0].metadata or {}).get("kind") != "answer":
            raise NotFound(f"no answer {answer_id!r} is kept in {self._name!r}", ids=[answer_id])
        assert collection is not None
        return _body(collection, found[0])

    def feedback(self, answer_id: str, rating: float, comment: str = "") -> str:
        """Stores what somebody says about an answer; returns the feedback's id.

        Args:
            rating: Any number; higher is better.

        Raises:
            NotFound: There is no such answer.
            InvalidArgument: The rating is no number, or the comment no string or one of more than 10,000 characters.
        """
        rating = number("rating", rating, "is a number", -sys.float_info.max, sys.float_info.max)
        if not isinstance(comment, str):
            raise InvalidArgument(f"comment is a string, got {comment!r:.60}", field="comment")
        if len(comment) > _MAX_COMMENT:
            raise InvalidArgument(f"comment has {len(comment)} characters, {_MAX_COMMENT} are kept", field="comment")
        self.get(answer_id)
        collection = self._existing()
        assert collection is not None
        facts = {
            "kind": "feedback",
            "answer_id": answer_id,
            "created": datetime.now(UTC),
            "rating": rating,
            "comment": comment,
        }
        written = collection.insert(generated_ids(1), metadata=[facts])
        return written.ids[0]

    def export(self, where: Any = None) -> Iterator[dict[str, Any]]:
        """All answers in the order of their time, each with its ``feedback``: JSON-like values.

        Args:
            where: A filter on ``created, refused, refusal_reason, grounded, fingerprint``.
        """
        collection = self._existing()
        if collection is None:
            return
        said: dict[str, list[dict[str, Any]]] = {}
        for record in collection.scan(where=col("kind") == "feedback", order_by="created", include=("metadata",)):
            facts = dict(record.metadata or {})
            told = {"id": record.id, "rating": facts["rating"], "comment": facts["comment"]}
            said.setdefault(facts["answer_id"], []).append(told | {"created": facts["created"].isoformat()})
        wanted: Filter = col("kind") == "answer"
        if (further := as_filter(where)) is not None:
            wanted = wanted & further
        for record in collection.scan(where=wanted, order_by="created", include=("metadata",)):
            yield {**_body(collection, record), "feedback": said.get(record.id, [])}

    def write(self, path: Path, where: Any = None) -> int:
        """Exports to a file, one JSON object a line; returns how many."""
        count = 0
        with path.open("w", encoding="utf-8") as file:
            for answer in self.export(where):
                file.write(json.dumps(answer, ensure_ascii=False) + "\n")
                count += 1
        return count

    def _existing(self) -> Collection | None:
        if self._collection is None:
            try:
                self._collection = self._db.collection(self._name)
            except CollectionNotFound:
                return None
        return self._collection


def _part_ids(answer_id: str, count: int) -> list[str]:
    return [f"{answer_id}/{number}" for number in range(count)]


def _body(collection: Collection, record: Record) -> dict[str, Any]:
    """A stored answer as JSON-like values."""
    metadata = record.metadata or {}
    stored = metadata.get("body")
    if stored is None:
        parts = collection.get(_part_ids(record.id, metadata["parts"]), include=("text",))
        stored = "".join(part.text or "" for part in parts)
    body: dict[str, Any] = json.loads(stored)
    return body


def as_dict(answer: Answer) -> dict[str, Any]:
    """An answer as JSON-like values."""
    return {
        "id": answer.id,
        "question": answer.question,
        "text": answer.text,
        "citations": [asdict(citation) for citation in answer.citations],
        "passages": [asdict(passage) | {"metadata": dict(passage.metadata)} for passage in answer.passages],
        "grounded": answer.grounded,
        "refused": answer.refused,
        "refusal_reason": answer.refusal_reason,
        "trace": answer.trace.as_dict(),
    }


def replayed_retrieval(kept: Mapping[str, Any], configured: Mapping[str, Any]) -> dict[str, Any]:
    """The kept options of a retrieval. Functions and filters are kept as their text only: those are as configured."""
    plain = {
        name: value for name, value in kept.items() if not isinstance(value, str) or name == "mode" or value == "rrf"
    }
    return {name: configured[name] for name in kept if name in configured} | plain


def compared(before: Mapping[str, Any], answer: Answer) -> Replay:
    """What is the same in a stored answer and a new one."""
    return Replay(
        before,
        answer,
        before["trace"]["fingerprint"] == answer.trace.fingerprint,
        [p["chunk_id"] for p in before["passages"]] == [p.chunk_id for p in answer.passages],
        before["text"] == answer.text,
    )
