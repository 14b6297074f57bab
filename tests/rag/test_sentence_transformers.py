"""What runs on torch: the default embedder, cross-encoders. Collected only where sentence-transformers is installed."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of imports that are not ours
    import sentence_transformers
    import transformers

from vectordb import errors
from vectordb_client import Database, connect
from vectordb_client.rag import (
    CrossEncoderReranker,
    Document,
    Embedder,
    KnowledgeBase,
    MiniLM,
    Reranker,
    SentenceTransformerEmbedder,
    WholeDocument,
)
from vectordb_client.rag.embedding import Tokens, default_embedder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def model() -> SentenceTransformerEmbedder:
    return SentenceTransformerEmbedder()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers with random weights and a vocabulary of letters, saved as a folder."""
    folder = tmp_path_factory.mktemp("tiny")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)
    tokenizer.save_pretrained(folder)
    transformers.set_seed(0)
    sizes = {"vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=32, max_position_embeddings=64, num_labels=1)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture
def kb(memory: Database, model: SentenceTransformerEmbedder) -> KnowledgeBase:
    return KnowledgeBase(memory, "kb", model)


def test_it_is_the_default_where_it_is_installed(model: SentenceTransformerEmbedder) -> None:
    assert isinstance(default_embedder(), SentenceTransformerEmbedder)
    assert isinstance(default_embedder(MiniLM.name), MiniLM)
    assert isinstance(model, Embedder)
    assert isinstance(model, Tokens)
    assert (model.name, model.dim, model.max_tokens) == ("sentence-transformers/all-MiniLM-L6-v2", 384, 254)
    assert len(model.revision) == 12
    assert model.min_score == MiniLM.min_score


def test_its_vectors_are_the_stored_ones(model: SentenceTransformerEmbedder, xquad: Any) -> None:
    texts = [document["text"] for document in xquad.documents[:8]]
    vectors = model.embed_documents(texts)
    assert vectors.dtype == np.float32
    if xquad.document_vectors is not None:
        assert np.all(np.einsum("nd,nd->n", vectors, xquad.document_vectors[:8]) > 0.999)
    onnx = MiniLM().embed_documents(texts)
    assert np.all(np.einsum("nd,nd->n", vectors, onnx) > 0.99)
    assert model.embed_queries([]).shape == (0, 384)


def test_its_tokens_are_counted_without_cutting(model: SentenceTransformerEmbedder) -> None:
    model.embed_documents(["word " * 600])  # sets the truncation of the model's own tokenizer
    assert len(model.token_spans("word " * 1000)) == 1000
    assert model.token_spans("some words").tolist() == [[0, 4], [5, 10]]


def test_prompts_are_put_before(model: SentenceTransformerEmbedder) -> None:
    prompted = SentenceTransformerEmbedder(
        model._model, query_prompt="query: ", document_prompt="passage: ", min_score=0.2
    )
    assert prompted.min_score == 0.2
    assert prompted.max_tokens == 254 - 2
    for embed, text in ((prompted.embed_queries, "query: rain"), (prompted.embed_documents, "passage: rain")):
        assert np.allclose(embed(["rain"]), model.embed_queries([text]), atol=1e-5)


def test_other_weights_are_another_model(tiny: Path, memory: Database, kb: KnowledgeBase) -> None:
    kb.add(Document("d", "text"), progress=False)
    base = sentence_transformers.SentenceTransformer(str(tiny))
    other = SentenceTransformerEmbedder(base)
    assert (other.dim, other.max_tokens) == (16, 62)
    with pytest.raises(errors.ModelMismatch):
        KnowledgeBase(memory, "kb", other).retrieve("text")
    assert KnowledgeBase(memory, "kb", SentenceTransformerEmbedder()).retrieve("text")[0].document_id == "d"


def test_a_tiny_cross_encoder_reranks(tiny: Path, kb: KnowledgeBase) -> None:
    reranker = CrossEncoderReranker(str(tiny), batch_size=2)
    assert isinstance(reranker, Reranker)
    texts = ["one text", "another one", "third", "something else"]
    judged = reranker.scores("question", texts)
    expected = sentence_transformers.CrossEncoder(str(tiny)).predict([("question", text) for text in texts])
    assert np.allclose(judged, np.asarray(expected).reshape(-1), atol=1e-5)
    assert len(set(judged)) > 1
    kb.add([Document(str(n), text) for n, text in enumerate(texts)], progress=False)
    kb.reranker = reranker
    passages = kb.retrieve("question", limit=4)
    assert [p.rerank_score for p in passages] == sorted((p.rerank_score for p in passages), reverse=True)
    assert {p.text: p.rerank_score for p in passages} == pytest.approx(dict(zip(texts, judged, strict=True)), abs=1e-5)
    with pytest.raises(errors.DeadlineExceeded):
        reranker.scores("question", texts, timeout=0.0)


@pytest.mark.slow
def test_retrieval_by_the_default_model(
    model: SentenceTransformerEmbedder, data: ModuleType, quality: ModuleType
) -> None:
    """The README's figures of the data: XQuAD 0.958, within 0.005."""
    if not data.have_shared_data():
        return
    collection = quality.load(data, "xquad_a_en")
    with connect(":memory:") as db:
        kb = KnowledgeBase(db, "kb", model, chunker=WholeDocument("truncate"))
        kb.add(collection.documents, progress=False)
        assert quality.mean_ndcg(kb, collection) == pytest.approx(0.958, abs=0.005)


@pytest.mark.slow
def test_retrieval_of_cranfield(model: SentenceTransformerEmbedder, data: ModuleType, quality: ModuleType) -> None:
    if not data.have_shared_data():
        return
    collection = quality.load(data, "cranfield")
    with connect(":memory:") as db:
        kb = KnowledgeBase(db, "kb", model, chunker=WholeDocument("truncate"))
        kb.add(collection.documents, progress=False)
        assert quality.mean_ndcg(kb, collection) == pytest.approx(0.500, abs=0.005)
