"""The shipped corpus is whole, and its licence ships with it."""

from __future__ import annotations

from importlib.resources import files

from vectordb_client.rag.corpus import load


def test_every_question_is_answered_by_its_paragraph() -> None:
    corpus = load()
    assert (len(corpus.documents), len(corpus.questions)) == (120, 574)
    by_id = {document.id: document for document in corpus.documents}
    assert len(by_id) == 120
    assert len({question.id for question in corpus.questions}) == 574
    for question in corpus.questions:
        text = by_id[question.document_id].text
        assert question.answers
        assert all(answer in text for answer in question.answers)
        assert any(text.startswith(answer, question.answer_start) for answer in question.answers)


def test_metadata_can_be_filtered_by() -> None:
    documents = load().documents
    assert all(set(document.metadata) == {"article", "paragraph", "lang"} for document in documents)
    assert len({document.metadata["article"] for document in documents}) == 24
    assert {document.metadata["lang"] for document in documents} == {"en"}


def test_the_licence_is_named() -> None:
    text = files("vectordb_client.rag.corpus").joinpath("ATTRIBUTION.md").read_text()
    assert "CC BY-SA 4.0" in text
    assert "google-deepmind/xquad" in text
    assert "SQuAD" in text
