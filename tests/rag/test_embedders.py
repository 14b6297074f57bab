"""The embedders that need no torch: functions, endpoints, and the cache before any of them."""

from __future__ import annotations

import gc
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vectordb import errors
from vectordb_client import Database
from vectordb_client.rag import (
    CachedEmbedder,
    Document,
    Embedder,
    FunctionEmbedder,
    FunctionLLM,
    KnowledgeBase,
    MiniLM,
    OpenAIEmbedder,
)
from vectordb_client.rag.embedding import Tokens
from vectordb_client.rag.store.identity import ModelIdentity, identify


class Endpoint(ThreadingHTTPServer):
    """Speaks the OpenAI embeddings protocol; ``failures`` are statuses that it answers first, ``raw`` is all it says.

    A text's vector has its length, its words and the dimension's number, so that the order of answers can be checked.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.failures: list[int] = []
        self.dim = 3
        self.pause = 0.0
        self.raw: bytes | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append({**body, "authorization": self.headers["Authorization"]})
        time.sleep(self.server.pause)
        if self.server.raw is not None:
            self._send(200, self.server.raw)
            return
        if self.server.failures:
            self._answer(self.server.failures.pop(0), {"error": {"message": "not now"}})
            return
        dim = body.get("dimensions", self.server.dim)
        rows = [
            {"object": "embedding", "index": n, "embedding": [float(len(t)), float(len(t.split())), *range(2, dim)]}
            for n, t in enumerate(body["input"])
        ]
        # Out of order, as the protocol allows.
        self._answer(200, {"object": "list", "model": body["model"], "data": rows[::-1], "usage": {}})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_all_are_embedders(endpoint: Endpoint, hashing: Callable[..., Any]) -> None:
    for embedder in (hashing(), MiniLM(), CachedEmbedder(hashing()), OpenAIEmbedder("m", base_url=endpoint.url)):
        assert isinstance(embedder, Embedder)
        assert isinstance(embedder, Tokens)


def test_an_endpoint_embeds_in_batches_and_keeps_the_order(endpoint: Endpoint) -> None:
    embedder = OpenAIEmbedder(
        "nomic", base_url=endpoint.url, batch_size=2, query_prompt="query: ", document_prompt="passage: "
    )
    assert embedder.dim == 3
    texts = ["aaaa", "b", "cc cc cc", "ddddd"]
    vectors = embedder.embed_documents(texts)
    assert vectors.dtype == np.float32
    assert vectors[:, 0].tolist() == [len("passage: " + text) for text in texts]
    assert [len(request["input"]) for request in endpoint.requests[1:]] == [2, 2]
    assert endpoint.requests[1]["input"] == ["passage: b", "passage: aaaa"]
    assert embedder.embed_queries(["abc"])[0, 0] == len("query: abc")
    assert endpoint.requests[-1]["authorization"] == "Bearer none"
    shorter = OpenAIEmbedder("nomic", base_url=endpoint.url, dimensions=2, api_key="key")
    assert shorter.embed_queries(["abc"]).shape == (1, 2)
    assert (endpoint.requests[-1]["dimensions"], endpoint.requests[-1]["authorization"]) == (2, "Bearer key")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, errors.Unauthenticated),
        (404, errors.NotFound),
        (400, errors.InvalidArgument),
        (429, errors.ResourceExhausted),
        (503, errors.Unavailable),
    ],
)
def test_an_endpoint_that_fails(endpoint: Endpoint, status: int, error: type[Exception]) -> None:
    endpoint.failures = [status]
    with pytest.raises(error, match="not now"):
        OpenAIEmbedder("m", base_url=endpoint.url, dimensions=3, retries=0).embed_queries(["q"])


def test_an_endpoint_that_recovers_is_asked_again(endpoint: Endpoint) -> None:
    endpoint.failures = [503, 429]
    assert OpenAIEmbedder("m", base_url=endpoint.url, retries=2).embed_queries(["q"]).shape == (1, 3)


def test_an_endpoint_that_is_slow_or_gone(endpoint: Endpoint) -> None:
    endpoint.pause = 0.5
    with pytest.raises(errors.DeadlineExceeded):
        OpenAIEmbedder("m", base_url=endpoint.url, timeout=0.05, retries=0).embed_queries(["q"])
    with pytest.raises(errors.Unavailable, match="cannot be reached"):
        OpenAIEmbedder("m", base_url="http://127.0.0.1:9/v1", retries=0).embed_queries(["q"])


def test_an_endpoint_that_changes_its_mind(endpoint: Endpoint) -> None:
    embedder = OpenAIEmbedder("m", base_url=endpoint.url)
    embedder.embed_queries(["q"])
    endpoint.dim = 5
    with pytest.raises(errors.DimensionMismatch, match="5 numbers, before it was 3"):
        embedder.embed_queries(["q"])


def _answering(*vectors: Any, **further: Any) -> bytes:
    return json.dumps({"data": [{"embedding": vector, **further} for vector in vectors]}).encode()


@pytest.mark.parametrize(
    ("raw", "error", "message"),
    [
        (b"", errors.Unavailable, "'m' at http.* failed"),
        (b"<html>", errors.Unavailable, "'m' at http.* failed"),
        (b'{"error": {"message": "no such model"}}', errors.InvalidArgument, "returned 0 vectors .*no such model"),
        (b"[[1, 2]]", errors.InvalidArgument, "returned 0 vectors for 2 texts"),
        (b"null", errors.InvalidArgument, "returned 0 vectors for 2 texts"),
        (_answering([1.0]), errors.InvalidArgument, "returned 1 vectors for 2 texts"),
        (_answering([1.0], [1.0, 2.0]), errors.InvalidArgument, "a list that is no array"),
        (_answering(["a"], ["b"]), errors.InvalidArgument, "returned a list of <U1"),
        (_answering([None], [None]), errors.InvalidArgument, "returned a list"),
        (_answering(None, None), errors.InvalidArgument, "returned a list"),
        (_answering(1.0, 2.0), errors.InvalidArgument, r"an array of shape \(2,\)"),
    ],
)
def test_an_endpoint_that_answers_anything(
    endpoint: Endpoint, raw: bytes, error: type[errors.VectorDBError], message: str
) -> None:
    endpoint.raw = raw
    with pytest.raises(error, match=message):
        OpenAIEmbedder("m", base_url=endpoint.url, dimensions=1, retries=0).embed_documents(["one", "two"])


def test_vectors_without_numbers_are_in_the_order_of_the_texts(endpoint: Endpoint) -> None:
    endpoint.raw = _answering([1.0], [2.0])
    embedder = OpenAIEmbedder("m", base_url=endpoint.url, dimensions=1)
    assert embedder.embed_documents(["a", "b"]).tolist() == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": ""}, {"batch_size": 0}, {"batch_size": "8"}, {"max_tokens": 0}, {"dimensions": 0}, {"timeout": 0},
        {"timeout": None}, {"retries": -1}, {"retries": 1.5},
    ],
)  # fmt: skip
def test_what_an_endpoint_is_asked_with_is_checked(endpoint: Endpoint, arguments: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        OpenAIEmbedder(**{"model": "m", "base_url": endpoint.url, **arguments})
    assert caught.value.field == next(iter(arguments))


def test_the_key_is_the_environments_unless_given(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    OpenAIEmbedder("m", base_url=endpoint.url, dimensions=3).embed_queries(["q"])
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
    OpenAIEmbedder("m", dimensions=3).embed_queries(["q"])
    assert [request["authorization"] for request in endpoint.requests] == ["Bearer theirs", "Bearer none"]


def test_a_question_waits_no_longer_for_an_endpoint_than_it_may(endpoint: Endpoint, memory: Database) -> None:
    kb = KnowledgeBase(memory, "kb", CachedEmbedder(OpenAIEmbedder("m", base_url=endpoint.url, timeout=20.0)))
    kb.add(Document("d", "some words"), progress=False)
    assert kb.retrieve("a question", timeout=20.0)
    endpoint.pause = 4.0
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded, match=r"did not finish within 0\.\d+ s"):
        kb.retrieve("another question", timeout=0.3)
    assert time.monotonic() - began < 3.0


def test_checking_an_answer_waits_no_longer_for_an_endpoint_than_it_may(endpoint: Endpoint, memory: Database) -> None:
    def write(messages: Any) -> str:
        endpoint.pause = 4.0
        return "Some words say so [1]."

    model = FunctionLLM(write, name="canned")
    kb = KnowledgeBase(memory, "kb", OpenAIEmbedder("m", base_url=endpoint.url, timeout=20.0), model, guards=())
    kb.add(Document("d", "some words"), progress=False)
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded) as caught:
        kb.ask("What do some words say?", timeout=2.0)
    assert time.monotonic() - began < 3.9
    assert [passage.document_id for passage in caught.value.passages] == ["d"]


def test_a_knowledge_base_on_an_endpoint(endpoint: Endpoint, memory: Database) -> None:
    endpoint.dim = 8
    kb = KnowledgeBase(memory, "kb", OpenAIEmbedder("m", base_url=endpoint.url, max_tokens=64))
    report = kb.add(Document("d", "some words " * 100), progress=False)
    assert report.chunks > 10
    asked = [text for request in endpoint.requests for text in request["input"]]
    assert max(len(text.encode()) for text in asked if text.startswith("some")) <= 64
    assert kb.retrieve("some words")
    # The endpoint serves another model under the same name: its probe tells.
    endpoint.dim = 9
    with pytest.raises(errors.ModelMismatch):
        KnowledgeBase(memory, "kb", OpenAIEmbedder("m", base_url=endpoint.url)).retrieve("some words")


def test_a_tokenizer_of_the_users(endpoint: Endpoint) -> None:
    def words(text: str) -> Any:
        ends = np.array([place for place, character in enumerate(text + " ") if character == " "])
        return np.stack([np.concatenate([[0], ends[:-1] + 1]), ends], axis=1)

    embedder = OpenAIEmbedder("m", base_url=endpoint.url, max_tokens=10, tokenizer=words, query_prompt="two words")
    assert embedder.max_tokens == 8
    assert len(embedder.token_spans("a b c")) == 3


def test_a_cache_embeds_each_text_once(tmp_path: Path, hashing: Callable[..., Any]) -> None:
    inner = hashing()
    with CachedEmbedder(inner, tmp_path / "cache.db") as cached:
        first = cached.embed_documents(["a", "b", "a"])
        assert (inner.calls, cached.hits, cached.misses) == (2, 1, 2)
        assert np.array_equal(first, inner.embed_documents(["a", "b", "a"]))
        inner.calls = 0
        assert np.array_equal(cached.embed_documents(["b", "c"]), inner.embed_documents(["b", "c"]))
        assert inner.calls == 1 + 2
        assert np.array_equal(cached.embed_queries(["a"]), inner.embed_queries(["a"]))
        assert (cached.name, cached.revision, cached.dim, cached.max_tokens) == ("hashing", "", 64, inner.max_tokens)
        assert len(cached.token_spans("some words")) > 0
        assert cached.embed_documents([]).shape == (0, 64)
    again = hashing()
    with CachedEmbedder(again, tmp_path / "cache.db") as cached:
        assert np.array_equal(cached.embed_documents(["a", "b", "a"]), first)
        assert again.calls == 0
    other = hashing(name="other")
    with CachedEmbedder(other, tmp_path / "cache.db") as cached:
        cached.embed_documents(["a"])
        assert other.calls == 1


def test_a_cache_does_not_remember_what_is_no_vector() -> None:
    answer: list[float] = [1.0, 2.0, 3.0]
    cached = CachedEmbedder(FunctionEmbedder(lambda texts: [answer for _ in texts], name="ill", dim=2))
    with pytest.raises(errors.DimensionMismatch, match=r"it promised \(1, 2\)"):
        cached.embed_documents(["a"])
    answer = [float("nan"), 2.0]
    assert np.isnan(cached.embed_documents(["a"])).any()
    answer = [1.0, 2.0]
    assert cached.embed_documents(["a"]).tolist() == [[1.0, 2.0]]
    assert (cached.hits, cached.misses) == (0, 2)


def test_a_cache_whose_file_fails_says_so(tmp_path: Path, hashing: Callable[..., Any]) -> None:
    (tmp_path / "text.db").write_bytes(b"This is no database. " * 100)
    for path in (tmp_path / "text.db", tmp_path / "nowhere" / "vectors.db"):
        with pytest.raises(
            errors.FailedPrecondition, match=f"cache of vectors {path} cannot be used: .*; give another"
        ):
            CachedEmbedder(hashing(), path)
    with CachedEmbedder(hashing(), tmp_path / "vectors.db") as cached:
        cached.embed_documents(["a"])
    with pytest.raises(errors.Closed, match="is closed"):
        cached.embed_documents(["a"])


def test_a_full_cache_forgets_what_was_not_used(hashing: Callable[..., Any]) -> None:
    inner = hashing()
    cached = CachedEmbedder(inner, max_rows=3)
    for text in ("a", "b", "c", "a", "d", "a"):
        cached.embed_documents([text])
    assert inner.calls == 4
    cached.embed_documents(["b"])
    assert inner.calls == 5


def test_a_cache_serves_many_threads(hashing: Callable[..., Any]) -> None:
    inner = hashing()
    cached = CachedEmbedder(inner)
    texts = [f"text {n}" for n in range(50)]
    expected = inner.embed_documents(texts)
    wrong: list[int] = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(50)
        if not np.array_equal(cached.embed_documents([texts[n] for n in order]), expected[order]):
            wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_functions_find_out_their_dimension() -> None:
    embedder = FunctionEmbedder(lambda texts: [[1.0, 2.0]] * len(texts), name="f", revision="r")
    assert embedder.dim == 2
    assert embedder.embed_queries(["a", "b"]).tolist() == [[1.0, 2.0], [1.0, 2.0]]


def test_identities(hashing: Callable[..., Any]) -> None:
    one = identify(hashing())
    assert one.normalized
    assert ModelIdentity.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert one.same_as(identify(hashing()))
    assert len(one.probe_hash) == 12
    assert not one.same_as(identify(hashing(seed=1)))
    scaled = FunctionEmbedder(lambda texts: 2 * hashing().embed_queries(texts), name="hashing", dim=64)
    assert not one.same_as(identify(scaled))
    nearly = hashing()
    shaken = FunctionEmbedder(
        lambda texts: nearly.embed_queries(texts) + np.float32(1e-4), nearly.embed_queries, name="hashing", dim=64
    )
    assert one.same_as(identify(shaken))


def test_a_cache_that_nobody_has_any_more_is_closed(hashing: Callable[..., Any]) -> None:
    cached = CachedEmbedder(hashing())
    file = cached._db
    assert file.execute("SELECT count(*) FROM vectors").fetchone() == (0,)
    del cached
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        file.execute("SELECT 1")


def test_minilm_counts_tokens_without_cutting(minilm: Any) -> None:
    model = MiniLM(threads=1)
    assert model.max_tokens == 254
    long = "word " * 1000
    assert len(model.token_spans(long)) == 1000
    before = model.truncated
    model.embed_documents(["word " * 254])
    assert model.truncated == before
    model.embed_documents(["word " * 255])
    assert model.truncated == before + 1
    assert minilm.min_score == model.min_score
