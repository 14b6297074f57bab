"""Bulk loads that go wrong, on every target and by both faces: the same rows are written, the same error is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from vectordb import Record, errors
from vectordb_client import connect, connect_async
from vectordb_client.transport.folder import FolderBackend

DIM = 4
BATCH = 100


@pytest.fixture(params=["sync", "async", "async source"])
def loaded(request: pytest.FixtureRequest, place: str) -> Callable[[Any], tuple[Any, list[str]]]:
    """Loads records into a new collection; what was answered or raised, and the ids that are there then."""
    name = f"c{uuid4().hex}"

    def synchronously(records: Any) -> tuple[Any, list[str]]:
        with connect(place) as db:
            assert isinstance(db._backend, FolderBackend) == place.endswith("shared")
            docs = db.create_collection(name, DIM)
            found = _outcome(lambda: docs.bulk_upsert(records, batch_size=BATCH, progress=False))
            return found, [r.id for r in docs.scan()]

    def asynchronously(records: Any) -> tuple[Any, list[str]]:
        async def main() -> tuple[Any, list[str]]:
            async with await connect_async(place) as db:
                docs = await db.create_collection(name, DIM)
                source = _in_turn(records) if request.param == "async source" else records
                try:
                    found: Any = await docs.bulk_upsert(source, batch_size=BATCH, progress=False)
                except Exception as error:
                    found = error
                return found, [r.id async for r in docs.scan()]

        return asyncio.run(main())

    return synchronously if request.param == "sync" else asynchronously


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:
        return error


async def _in_turn(records: Any) -> AsyncIterator[Any]:
    for record in records:
        yield record


def _records(n: int, bad: dict[int, Any] | None = None) -> Iterator[Any]:
    for i in range(n):
        yield (bad or {}).get(i, {"id": f"r{i}", "vector": [1, i, 0, 0]})


WRONG: dict[str, tuple[Any, type[errors.VectorDBError], str]] = {
    # Found by the client, while batches are on their way.
    "dim": ({"id": "row 7", "vector": [1, 2, 3]}, errors.DimensionMismatch, "has dim 4, got 3 in row 750"),
    "vector of strings": ({"vector": ["a", "b", "c", "d"]}, errors.InvalidArgument, "vector in row 750 cannot be read"),
    "vector of vectors": ({"vector": np.ones((DIM, 2))}, errors.InvalidArgument, "vector in row 750 cannot be read"),
    "vector of a dict": (
        {"vector": dict.fromkeys("abcd", 1)},
        errors.InvalidArgument,
        "vector in row 750 cannot be read",
    ),
    "string": ("just a string", errors.InvalidArgument, "record in row 750 is str; a record is a Record or a dict"),
    "number": (7, errors.InvalidArgument, "record in row 750 is int"),
    "tuple": (("x", [1, 2, 3, 4]), errors.InvalidArgument, "record in row 750 is tuple"),
    "row of a matrix": (np.ones(DIM), errors.InvalidArgument, "record in row 750 is ndarray"),
    "none": (None, errors.InvalidArgument, "record in row 750 is NoneType"),
    "key": ({"row 50": 1}, errors.InvalidArgument, "record in row 750 has unknown key 'row 50'"),
    "metadata": ({"id": "x", "metadata": {"row 50": {1}}}, errors.InvalidArgument, "field 'row 50' in row 750"),
    # Found by the engine.
    "nan": ({"id": "x", "vector": [1, float("nan"), 0, 0]}, errors.InvalidVector, "row 750 is NaN at position 1"),
    "id": ({"id": "", "vector": [1, 0, 0, 0]}, errors.InvalidArgument, "id in row 750 has 0 bytes"),
    "id twice": ({"id": "r710", "vector": [1, 0, 0, 0]}, errors.InvalidArgument, "'r710' is in rows 710 and 750"),
}


@pytest.mark.parametrize("name", WRONG)
def test_all_batches_before_a_wrong_record_are_written_and_it_is_named(loaded: Any, name: str) -> None:
    record, kind, told = WRONG[name]
    error, ids = loaded(_records(1000, {750: record}))
    assert type(error) is kind
    assert told in error.message
    assert error.row == 750
    assert ids == [f"r{i}" for i in range(700)]


def test_a_batch_of_arrays_that_are_no_numbers_names_its_first_record(loaded: Any) -> None:
    error, ids = loaded([*_records(BATCH), *({"vector": np.array(list("abcd"))} for _ in range(BATCH))])
    assert (type(error), error.row, error.field, len(ids)) == (errors.InvalidArgument, BATCH, "vectors", BATCH)


def test_of_two_wrong_records_the_first_ends_the_load(loaded: Any) -> None:
    nan = {"id": "x", "vector": [1, float("nan"), 0, 0]}
    error, ids = loaded(_records(1000, {450: nan, 550: "just a string"}))
    assert (type(error), error.row) == (errors.InvalidVector, 450)
    assert len(ids) == 400


@pytest.mark.parametrize("own", [KeyError("row 3"), errors.InvalidArgument("row 3 of the file is bad", row=3)])
def test_all_batches_before_the_source_fails_are_written_and_its_error_is_its_own(loaded: Any, own: Exception) -> None:
    def source() -> Iterator[Any]:
        yield from _records(750)
        raise own

    error, ids = loaded(source())
    assert error is own
    assert len(ids) == 700


@pytest.mark.parametrize("records", [["just", "strings"], np.ones((3, DIM)), {"id": "x"}, "text"], ids=type)
def test_what_holds_no_records_is_refused_by_name(loaded: Any, records: Any) -> None:
    error, ids = loaded(records)
    assert (type(error), error.row, error.field) == (errors.InvalidArgument, 0, "records")
    assert "a record is a Record or a dict" in error.message
    assert ids == []


@pytest.mark.parametrize("records", [7, None, Record("x")], ids=type)
def test_what_cannot_be_iterated_is_refused_by_name(place: str, records: Any) -> None:
    with connect(place) as db:
        docs = db.create_collection(f"c{uuid4().hex}", DIM)
        with pytest.raises(errors.InvalidArgument, match="give an iterable of Record or dict"):
            docs.bulk_upsert(records, progress=False)

    async def main() -> None:
        async with await connect_async(place) as db:
            docs = await db.create_collection(f"c{uuid4().hex}", DIM)
            with pytest.raises(errors.InvalidArgument, match="give an iterable of Record or dict"):
                await docs.bulk_upsert(records, progress=False)

    asyncio.run(main())


def test_records_without_vectors_are_records(loaded: Any) -> None:
    result, ids = loaded([Record("a"), {"id": "b"}, {"id": "c", "vector": None}, {"id": "d", "vector": [1, 0, 0, 0]}])
    assert (result.count, result.ids, ids) == (4, ["a", "b", "c", "d"], ["a", "b", "c", "d"])
