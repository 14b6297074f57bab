"""Every strategy: spans are verbatim, the model's limit holds, no word is lost."""

from __future__ import annotations

import base64
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectordb import errors
from vectordb_client.rag import (
    Chunker,
    Document,
    HeadingChunker,
    MiniLM,
    Section,
    SemanticChunker,
    SentenceChunker,
    TokenChunker,
    WholeDocument,
)
from vectordb_client.rag.chunking import base
from vectordb_client.rag.chunking.sentences import sentence_spans
from vectordb_client.rag.chunking.strategies import markdown_sections
from vectordb_client.rag.embedding import Tokens
from vectordb_client.rag.embedding.tokens import Pieces

STRATEGIES: list[Chunker] = [
    TokenChunker(),
    TokenChunker(40, 10),
    TokenChunker(7, 0),
    SentenceChunker(60),
    SentenceChunker(60, overlap=1),
    HeadingChunker(50),
    SemanticChunker(50),
    SemanticChunker(50, markdown=True),
    WholeDocument(),
]


def _check(document: Document, chunker: Chunker, tokens: Tokens) -> None:
    chunks = chunker.chunk(document, tokens)
    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    covered = np.zeros(len(document.text), dtype=bool)
    for chunk in chunks:
        assert chunk.text == document.text[chunk.start : chunk.end]
        assert chunk.text.strip() == chunk.text != ""
        assert tokens.max_tokens is None or len(tokens.token_spans(chunk.text)) <= tokens.max_tokens
        covered[chunk.start : chunk.end] = True
    assert all(character.isspace() for character, seen in zip(document.text, covered, strict=True) if not seen)
    assert [chunk.start for chunk in chunks] == sorted(chunk.start for chunk in chunks)


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM(threads=1)


@pytest.mark.parametrize("chunker", STRATEGIES, ids=lambda chunker: chunker.name)
def test_real_texts(chunker: Chunker, xquad: Any, model: MiniLM) -> None:
    text = "\n\n".join(f"# Paragraph {d['id']}\n\n{d['text']}" for d in xquad.documents[:12])
    _check(Document("d", text, {"source": "x"}, tuple(markdown_sections(text))), chunker, model)
    _check(Document("d", text), chunker, Pieces(128))
    for other in xquad.documents[12:30]:
        _check(Document(other["id"], other["text"]), chunker, model)


_TEXT = st.text(st.sampled_from("ab .\n#-`\u00e9\u3042\u0416\U0001f600\u200b\t'1"), max_size=400)


@pytest.mark.parametrize("chunker", STRATEGIES, ids=lambda chunker: chunker.name)
@settings(max_examples=40, deadline=None)
@given(text=_TEXT)
def test_any_text(chunker: Chunker, text: str) -> None:
    _check(Document("d", text), chunker, Pieces(32))


@pytest.mark.parametrize("chunker", STRATEGIES, ids=lambda chunker: chunker.name)
def test_what_is_no_token_stays_with_its_letter(chunker: Chunker, model: MiniLM) -> None:
    """The tokenizer leaves accents out that are characters of their own, as file names and some editors have them."""
    for text in ("Un cafe\u0301", "un cafe\u0301 " * 60 + "cafe\u0301", "\u0301a " + "word " * 300 + "e\u0301"):
        _check(Document("d", text), chunker, model)


def test_only_the_stretch_that_is_cut_again_is_looked_at(model: MiniLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text without words, such as base64, has pieces that are more tokens alone than in their place."""
    looked, real = list[int](), np.isin
    monkeypatch.setattr(base.np, "isin", lambda codes, among: looked.append(len(codes)) or real(codes, among))
    text = base64.b64encode(np.random.default_rng(0).bytes(300_000)).decode()
    TokenChunker().chunk(Document("d", text), model)
    assert len(looked) > 10
    assert sum(looked) < 3 * len(text)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: TokenChunker("200"), "size"),  # type: ignore[arg-type]
        (lambda: TokenChunker(2.5), "size"),  # type: ignore[arg-type]
        (lambda: TokenChunker(True), "size"),
        (lambda: TokenChunker(0), "size"),
        (lambda: TokenChunker(10, 0.5), "overlap"),  # type: ignore[arg-type]
        (lambda: TokenChunker(10, 6), "overlap"),
        (lambda: SentenceChunker(10, "1"), "overlap"),  # type: ignore[arg-type]
        (lambda: SentenceChunker(10, -1), "overlap"),
        (lambda: HeadingChunker("x"), "size"),  # type: ignore[arg-type]
        (lambda: SemanticChunker(-1), "size"),
    ],
)
def test_settings_that_are_none_are_refused(make: Callable[[], Any], field: str) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        make()
    assert caught.value.field == field


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=300))
def test_pieces_cover_the_text_and_bound_its_bytes(text: str) -> None:
    spans = Pieces(64).token_spans(text)
    assert "".join(text[start:end] for start, end in spans.tolist()) == text
    for start, end in spans.tolist():
        assert len(text[start:end].encode("utf-8", "surrogatepass")) <= 4


def test_pieces_are_more_than_a_real_tokenizers_tokens(xquad: Any, model: MiniLM) -> None:
    pieces = Pieces(None)
    for document in xquad.documents[:40]:
        assert len(pieces.token_spans(document["text"])) >= len(model.token_spans(document["text"]))


def test_long_texts_are_tokenized_in_stretches_as_in_one(model: MiniLM, xquad: Any) -> None:
    text = " ".join(d["text"] for d in xquad.documents)
    text += text
    assert len(text) > 1 << 16
    whole = model._counter.encode(text, add_special_tokens=False).offsets
    assert model.token_spans(text).tolist() == [list(span) for span in whole]
    assert model.token_spans("").shape == (0, 2)


def test_token_chunks_overlap_by_what_was_asked(model: MiniLM, xquad: Any) -> None:
    text = " ".join(d["text"] for d in xquad.documents[:5])
    chunks = TokenChunker(100, 20).chunk(Document("d", text), model)
    counts = [len(model.token_spans(chunk.text)) for chunk in chunks]
    assert max(counts) <= 100
    assert min(counts[:-1]) > 70
    shared = [len(model.token_spans(text[b.start : a.end])) for a, b in pairwise(chunks)]
    assert all(10 <= count <= 21 for count in shared)
    assert all(chunk.start == 0 or text[chunk.start - 1].isspace() for chunk in chunks)


def test_the_default_size_follows_the_model(model: MiniLM, xquad: Any) -> None:
    text = " ".join(d["text"] for d in xquad.documents[:5])
    assert max(len(model.token_spans(c.text)) for c in TokenChunker().chunk(Document("d", text), model)) <= 200
    large = TokenChunker(1000).chunk(Document("d", text), model)
    assert 230 < max(len(model.token_spans(chunk.text)) for chunk in large) <= model.max_tokens == 254


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Dr. Smith met J. S. Bach in the U.S. in 1999. He left.", None),
        ('He said "Go." Then left... Really?! Yes.', ['He said "Go."', "Then left...", "Really?!", "Yes."]),
        ("Pi is 3.14 exactly. No, e.g. this is one.", ["Pi is 3.14 exactly.", "No, e.g. this is one."]),
        ("这是第一句。这是第二句。好。", ["这是第一句。", "这是第二句。", "好。"]),
        ("A heading\n\nThen a sentence.\nSame paragraph.", ["A heading", "Then a sentence.", "Same paragraph."]),
        ("", []),
        ("  \n ", []),
    ],
)
def test_sentences(text: str, sentences: list[str] | None) -> None:
    found = [text[span.start : span.end] for span in sentence_spans(text)]
    assert found == (sentences or found)
    if sentences is None:
        assert found == ["Dr. Smith met J. S. Bach in the U.S. in 1999.", "He left."]


def test_chunks_know_their_section(model: MiniLM) -> None:
    text = "Intro.\n\n# One\n\nFirst.\n\n## Deep\n\nSecond.\n\n# Two\n\nThird."
    document = Document("d", text, {"source": "x"}, tuple(markdown_sections(text)))
    headings = [(c.text.splitlines()[-1], c.metadata.get("heading")) for c in HeadingChunker().chunk(document, model)]
    assert headings == [("Intro.", None), ("First.", "One"), ("Second.", "One > Deep"), ("Third.", "Two")]
    pages = Document("d", "aaa bbb ccc", {}, (Section(0, {"page": 1}), Section(8, {"page": 2})))
    assert [c.metadata for c in TokenChunker(1, 0).chunk(pages, model)][-1] == {"page": 2}


def test_whole_documents_beyond_the_limit(model: MiniLM, xquad: Any) -> None:
    long = Document("long", " ".join(d["text"] for d in xquad.documents[:3]))
    assert len(WholeDocument().chunk(long, model)) > 1
    (cut,) = WholeDocument("truncate").chunk(long, model)
    assert cut.text == long.text
    with pytest.raises(errors.InvalidArgument, match=r"'long' has .* tokens, the embedding model takes 254"):
        WholeDocument("error").chunk(long, model)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: TokenChunker(0), "size"),
        (lambda: TokenChunker(10, 6), "overlap"),
        (lambda: TokenChunker(10, -1), "overlap"),
        (lambda: SentenceChunker(10, overlap=-1), "overlap"),
        (lambda: WholeDocument("cut"), "too_long"),
    ],
)
def test_settings_that_make_no_sense(make: Any, field: str) -> None:
    with pytest.raises(errors.InvalidArgument) as raised:
        make()
    assert raised.value.field == field


def test_names_tell_settings_apart() -> None:
    assert len({chunker.name for chunker in STRATEGIES}) == len(STRATEGIES)
