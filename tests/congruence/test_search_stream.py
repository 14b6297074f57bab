"""Streams of searches, on every target and by both faces: answers of single searches, in order, also before errors."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import pandas
import pyarrow
import pytest

from vectordb import col, errors
from vectordb.api.streams import SEARCHES_AHEAD
from vectordb_client import connect, connect_async

DIM = 4
ROWS = 60
BATCH = 7
RNG = np.random.default_rng(3)
VECTORS = RNG.normal(size=(ROWS, DIM)).astype(np.float32)
QUERIES = RNG.normal(size=(100, DIM)).astype(np.float32)

Streamed = Callable[..., tuple[list[Any], Exception | None]]


@pytest.fixture(params=["embedded", "guest", "native", "grpcio"])
def place(request: pytest.FixtureRequest, places: dict[str, str]) -> str:
    """Those that more than one connection can be had to."""
    return places[request.param]


@pytest.fixture(params=["sync", "async", "async source"])
def streamed(request: pytest.FixtureRequest, place: str) -> Streamed:
    """Searches a collection for a stream of vectors; the results that came, and the error that ended them."""
    name = f"c{uuid4().hex}"
    with connect(place) as db:
        docs = db.create_collection(name, DIM)
        docs.upsert([f"r{i}" for i in range(ROWS)], VECTORS, [{"n": i} for i in range(ROWS)], ["red fox"] * ROWS)

    def synchronously(vectors: Any, **options: Any) -> tuple[list[Any], Exception | None]:
        found: list[Any] = []
        with connect(place) as db:
            try:
                # What came before an error stays in the list.
                found.extend(db[name].search_stream(vectors, **options))
            except Exception as error:
                return found, error
        return found, None

    def asynchronously(vectors: Any, **options: Any) -> tuple[list[Any], Exception | None]:
        async def main() -> tuple[list[Any], Exception | None]:
            found: list[Any] = []
            async with await connect_async(place) as db:
                docs = await db[name]
                source = _in_turn(vectors) if request.param == "async source" else vectors
                try:
                    async for result in docs.search_stream(source, **options):
                        found.append(result)  # noqa: PERF401 -- what came before an error is to be there
                except Exception as error:
                    return found, error
            return found, None

        return asyncio.run(main())

    return synchronously if request.param == "sync" else asynchronously


async def _in_turn(vectors: Any) -> AsyncIterator[Any]:
    for vector in vectors:
        yield vector


def _answers(results: list[Any]) -> list[Any]:
    return [[(hit.id, hit.score, hit.metadata, hit.text) for hit in result] for result in results]


def test_columns_and_frames_are_vectors_too() -> None:
    with connect(":memory:") as db:
        docs = db.create_collection("docs", DIM)
        docs.upsert([f"r{i}" for i in range(ROWS)], VECTORS)
        wanted = _answers(docs.search_batch(QUERIES, limit=3))
        lists = pyarrow.array(list(QUERIES), pyarrow.list_(pyarrow.float32()))
        frame = pandas.DataFrame(QUERIES)
        for vectors in (lists, pyarrow.chunked_array([lists]), frame, pandas.Series(list(QUERIES))):
            assert _answers(docs.search_batch(vectors, limit=3)) == wanted
            assert _answers(list(docs.search_stream(vectors, limit=3))) == wanted


@pytest.mark.parametrize("batch", [1, BATCH, 100, 1_000])
def test_each_vector_gets_the_answer_of_a_search_of_its_own_in_order(
    streamed: Streamed, place: str, batch: int
) -> None:
    options: dict[str, Any] = {"where": col("n") >= 20, "min_score": -0.5, "include": ("metadata", "text")}
    found, error = streamed((list(map(float, query)) for query in QUERIES), limit=5, batch_size=batch, **options)
    assert error is None
    with connect(place) as db:
        docs = db.create_collection(f"c{uuid4().hex}", DIM)
        docs.upsert([f"r{i}" for i in range(ROWS)], VECTORS, [{"n": i} for i in range(ROWS)], ["red fox"] * ROWS)
        assert _answers(found) == _answers([docs.search(query, 5, **options) for query in QUERIES])


def test_words_are_the_same_for_all(streamed: Streamed) -> None:
    found, error = streamed(QUERIES[:20], text="fox", batch_size=BATCH, limit=3)
    assert (error, [len(result) for result in found]) == (None, [3] * 20)
    found, error = streamed(QUERIES[:2], text=["fox", "red"])
    assert isinstance(error, errors.InvalidArgument)
    assert error.field == "text"


def test_no_vectors_no_results(streamed: Streamed) -> None:
    assert streamed([]) == ([], None)
    assert streamed(iter(())) == ([], None)


WRONG: dict[str, tuple[Any, type[errors.VectorDBError]]] = {
    "dim": ([1.0, 2.0], errors.DimensionMismatch),  # found by the client
    "none": (None, errors.InvalidArgument),
    "words": (list("abcd"), errors.InvalidArgument),
    "nan": ([1.0, float("nan"), 0.0, 0.0], errors.InvalidVector),  # found by the engine
    "zero": ([0.0] * DIM, errors.InvalidVector),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_vector_is_named_after_the_results_of_all_batches_before(streamed: Streamed, name: str) -> None:
    vector, kind = WRONG[name]
    vectors: list[Any] = [*QUERIES[:30], vector, *QUERIES[30:60]]
    found, error = streamed(vectors, batch_size=BATCH)
    assert type(error) is kind
    assert error.row == 30
    assert re.search(r"\b(row|query) 30\b", str(error))
    assert len(found) == 28


def test_an_error_of_the_source_comes_after_the_results_of_what_was_read(streamed: Streamed) -> None:
    own = KeyError("row 3")

    def source() -> Iterator[Any]:
        yield from QUERIES[:40]
        raise own

    found, error = streamed(source(), batch_size=10)
    assert error is own
    assert len(found) == 40


def test_what_is_no_stream_of_vectors_is_refused_at_once(place: str) -> None:
    with connect(place) as db:
        docs = db.create_collection(f"c{uuid4().hex}", DIM)
        for vectors in (7, None):
            with pytest.raises(errors.InvalidArgument, match="give an iterable of vectors"):
                docs.search_stream(vectors)
        for options in ({"batch_size": 0}, {"limit": "5"}, {"where": {"field": "a", "op": "~", "value": 1}}):
            with pytest.raises(errors.InvalidArgument):
                docs.search_stream(QUERIES, **options)
        with pytest.raises(TypeError, match="no argument 'wher'"):
            docs.search_stream(QUERIES, wher=1)
        with pytest.raises(errors.InvalidArgument, match=r"vectors is a list of vectors|in row 0"):
            list(docs.search_stream(QUERIES[0]))


def test_only_a_few_batches_are_read_ahead(place: str) -> None:
    read = 0

    def source() -> Iterator[Any]:
        nonlocal read
        for query in QUERIES:
            read += 1
            yield query

    with connect(place) as db:
        docs = db.create_collection(f"c{uuid4().hex}", DIM)
        docs.upsert(["a"], VECTORS[:1])
        results = docs.search_stream(source(), batch_size=5)
        assert read == 0
        for number, result in enumerate(results):
            assert result.ids == ["a"]
            assert read <= 5 * (number // 5 + SEARCHES_AHEAD + 2)
            if number == 50:
                break
        results.close()
        left = [thread for thread in threading.enumerate() if thread.name.startswith("vectordb-stream")]
        for thread in left:
            thread.join(10.0)
            assert not thread.is_alive()
