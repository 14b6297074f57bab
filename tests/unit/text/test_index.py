"""Text indexes: built, merged, grown in runs and read back, they say the same as the texts."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vectordb.errors import Corruption
from vectordb.text import build, merge
from vectordb.text.analyzers import analyzer
from vectordb.text.build import slices
from vectordb.text.files import encoded, open_index
from vectordb.text.index import TextIndex
from vectordb.text.merge import Moved, merged
from vectordb.text.runs import TextRuns

STANDARD = analyzer("standard")
WORDS = ["a", "ab", "abc", "b", "zé", "京都", "東", "x" * 300]
TEXTS = st.lists(st.none() | st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join), max_size=12)


def made(texts: list[str | None], name: str = "standard") -> TextIndex:
    return build.build([None if text is None else text.encode() for text in texts], analyzer(name))


def said(index: TextIndex) -> tuple[dict[str, dict[int, list[int]]], list[int]]:
    """Everything that an index holds: for each word its rows and the places there, and the lengths of the rows."""
    arrays = index.arrays
    words: dict[str, dict[int, list[int]]] = {}
    for number in range(len(index.words)):
        begin, end = arrays.starts[number : number + 2].tolist()
        at = int(arrays.place_starts[number])
        rows = {}
        for row, frequency in zip(arrays.rows[begin:end].tolist(), arrays.frequencies[begin:end].tolist(), strict=True):
            rows[row] = arrays.places[at : at + frequency].tolist()
            at += frequency
        assert at == arrays.place_starts[number + 1]
        words[index.words[number].decode()] = rows
    return words, arrays.lengths.tolist()


def told(texts: list[str | None]) -> tuple[dict[str, dict[int, list[int]]], list[int]]:
    """The same from the texts, by plain Python."""
    words: dict[str, dict[int, list[int]]] = {}
    lengths = []
    for row, text in enumerate(texts):
        found = STANDARD.words(text or "")
        lengths.append(found.length)
        for place, word in zip(found.places or range(len(found.words)), found.words, strict=True):
            words.setdefault(word[:255], {}).setdefault(row, []).append(place)
    return dict(sorted(words.items(), key=lambda item: item[0].encode())), lengths


def same(left: TextIndex, right: TextIndex) -> bool:
    pairs = zip(left.arrays, right.arrays, strict=True)
    return left.fingerprint == right.fingerprint and all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs)


@settings(deadline=None)
@given(TEXTS)
def test_an_index_says_what_the_texts_say(texts: list[str | None]) -> None:
    index = made(texts)
    expected = told(texts)
    assert said(index) == expected
    assert (index.n, index.documents, index.total) == (len(texts), np.count_nonzero(expected[1]), sum(expected[1]))
    for word in [*WORDS, "", "nothing"]:
        number = index.find(word[:255].encode())
        assert (number >= 0) == (word[:255] in expected[0])
        assert number == index.find(word[:255].encode())


@settings(deadline=None)
@given(TEXTS, TEXTS, st.data())
def test_a_merge_is_the_index_of_what_is_kept(first: list[str | None], second: list[str | None], data: Any) -> None:
    parts, texts = [], []
    for source in (first, second):
        kept = [row for row in range(len(source)) if data.draw(st.booleans())]
        parts.append(Moved(made(source), np.array(kept, np.int64), np.arange(len(texts), len(texts) + len(kept))))
        texts += [source[row] for row in kept]
        texts += [None] * data.draw(st.integers(0, 2))
    assert same(merged(parts, len(texts)), made(texts))


def test_a_merge_in_many_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str | None] = [f"w{i % 7} w{i % 5} common w{i}" for i in range(100)]
    monkeypatch.setattr(merge, "SLICE", 20)
    polls: list[int] = []
    halves = [
        Moved(made(texts[:50]), np.arange(50), np.arange(50)),
        Moved(made(texts[50:]), np.arange(50), np.arange(50, 100)),
    ]
    assert same(merged(halves, 100, lambda: polls.append(1)), made(texts))
    assert len(polls) > 10

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        merged(halves, 100, stop)
    with pytest.raises(InterruptedError):
        build.build([b"x"], STANDARD, stop)


def test_an_index_taken_whole_is_not_copied() -> None:
    index = made(["a b", None])
    assert merged([Moved(index, np.arange(2), np.arange(2))], 2) is index


def test_slices_bound_number_and_bytes() -> None:
    texts = [b"x" * 10, None, b"x" * 100, b"x", b"x", b"x"]
    assert list(slices(texts, 0, 6, (2, 50))) == [(0, 2), (2, 3), (3, 5), (5, 6)]
    assert list(slices(texts, 1, 1, (2, 50))) == []


def test_frequencies_and_places_beyond_a_byte_and_two() -> None:
    texts: list[str | None] = ["a " * 300 + "b", "b " * 70_000 + "a"]
    index = made(texts)
    assert index.arrays.frequencies.dtype == np.uint32
    assert index.arrays.places.dtype == np.uint32
    assert said(index) == told(texts)
    small = merged([Moved(index, np.array([0]), np.array([0]))], 1)
    assert (small.arrays.frequencies.dtype, small.arrays.places.dtype) == (np.uint16, np.uint16)
    assert said(small) == told(texts[:1])


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=5))
def test_runs_grow_and_views_stay(batches: list[list[str | None]]) -> None:
    runs = TextRuns(STANDARD)
    texts: list[str | None] = []
    for number, batch in enumerate(batches):
        runs.append(None if not any(batch) else [t if t is None else t.encode() for t in batch], len(batch))
        texts += batch
        if number % 2:
            continue
        for length in {0, len(texts) // 2, len(texts)}:
            pieces = runs.pieces(length)
            if not any(text is not None for text in texts) or not any(texts):
                assert sum(piece.text.documents for piece in pieces) == 0
                continue
            parts = [Moved(piece.text, np.arange(piece.rows), np.arange(piece.rows) + piece.start) for piece in pieces]
            expected = [text or None for text in texts[:length]]
            assert said(merged(parts, length)) == told(expected)


def test_runs_stay_few_and_texts_cost_nothing_until_asked_for() -> None:
    runs = TextRuns(STANDARD)
    runs.append(None, 10_000)
    assert runs.pieces(10_000) == ()
    for i in range(200):
        runs.append([b"word %d" % i], 1)
        pieces = runs.pieces(10_001 + i)
        assert len(pieces) <= 15
    assert sum(piece.text.documents for piece in runs.pieces(10_200)) == 200
    assert runs.bytes == sum(len(b"word %d" % i) for i in range(200))
    before = runs.memory_bytes
    runs.append([b"x" * 10_000], 1)
    assert runs.memory_bytes > before + 10_000
    assert runs.pieces(10_201)
    assert runs.memory_bytes < before + 5_000


def test_what_a_stopped_reader_indexed_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vectordb.text.runs._STEP", (10, 1 << 20))
    runs = TextRuns(STANDARD)
    runs.append([b"word"] * 100, 100)
    calls = 0

    def poll() -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise TimeoutError

    with pytest.raises(TimeoutError):
        runs.pieces(100, poll)
    calls = -100
    assert sum(piece.rows for piece in runs.pieces(100, poll)) == 100
    assert calls + 100 == 7


def test_a_waiting_reader_keeps_looking_at_its_time() -> None:
    runs = TextRuns(STANDARD)
    runs.append([b"word"], 1)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        leave.wait(20)

    holder = threading.Thread(target=lambda: runs.pieces(1, hold))
    holder.start()
    inside.wait(20)

    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        runs.pieces(1, stop)
    leave.set()
    holder.join()
    assert runs.pieces(1)[0].text.documents == 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "t"
    written.write_bytes(b"".join(bytes(piece) for piece in encoded(made(["a ab abc", None, "京都 a a", "zé"]))))
    return written


def test_reopened_arrays_are_mapped_read_only_and_equal(path: Path) -> None:
    reopened = open_index(path)
    assert same(reopened, made(["a ab abc", None, "京都 a a", "zé"]))
    assert not any(array.flags.writeable for array in reopened.arrays)
    assert all(array.base is not None for array in reopened.arrays)


@settings(deadline=None)
@given(TEXTS)
def test_any_index_reads_back(tmp_path_factory: Any, texts: list[str | None]) -> None:
    file = tmp_path_factory.mktemp("t") / "t"
    file.write_bytes(b"".join(bytes(piece) for piece in encoded(made(texts))))
    assert same(open_index(file), made(texts))


def test_every_truncation_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for length in [0, 5, 15, *range(16, len(content) - 1, 61), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(Corruption, match="t is damaged"):
            open_index(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.pop("fingerprint"),
        lambda h: h["arrays"].pop("rows"),
        lambda h: h["arrays"].update(rows=["<i8", 0, 1]),
        lambda h: h["arrays"]["rows"].__setitem__(2, 10_000),
        lambda h: h["arrays"]["rows"].__setitem__(1, 7),
        lambda h: h["arrays"]["letters"].__setitem__(2, 1),
        lambda h: h["arrays"]["starts"].__setitem__(2, 2),
        lambda h: h.update(size=3),
    ],
)
def test_a_directory_that_does_not_fit_is_refused(path: Path, change: Any) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[8:16], "little")
    header = json.loads(content[16 : 16 + length])
    body = content[16 + length + -(16 + length) % 64 :]
    change(header)
    directory = json.dumps(header).encode()
    head = content[:8] + len(directory).to_bytes(8, "little") + directory
    path.write_bytes(head + bytes(-len(head) % 64) + body)
    with pytest.raises(Corruption, match="t is damaged"):
        open_index(path)
