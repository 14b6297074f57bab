"""Random batches, scans and reopenings against a dict, for every storage."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from vectordb.storage.base import Family, Storage
from vectordb.storage.memory import MemoryStorage
from vectordb.storage.rocks import RocksStorage

keys = st.binary(max_size=2).map(lambda key: bytes(byte & 0x83 for byte in key))
values = st.binary(max_size=6)
families = st.sampled_from(list(Family))
changes = st.one_of(
    st.tuples(st.just("put"), families, keys, values),
    st.tuples(st.just("put_many"), families, st.lists(st.tuples(keys, values), max_size=4), st.none()),
    st.tuples(st.just("delete"), families, keys, st.none()),
    st.tuples(st.just("delete_range"), families, keys, keys),
)
Pairs = list[tuple[bytes, bytes]]


class StorageMachine(RuleBasedStateMachine):
    """The dict is the truth; scans that were begun hold a copy of it as of then."""

    storage: Storage

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[Family, dict[bytes, bytes]] = {family: {} for family in Family}
        self.scans: list[tuple[Iterator[tuple[bytes, bytes]], Pairs]] = []
        self.last_sequence = 0

    @rule(batch=st.lists(changes, max_size=8))
    def write(self, batch: list[tuple[str, Family, object, object]]) -> None:
        recorded = self.storage.batch()
        for name, family, first, second in batch:
            table = self.model[family]
            if name == "put":
                recorded.put(family, first, second)  # type: ignore[arg-type]
                table[first] = second  # type: ignore[index, assignment]
            elif name == "put_many":
                recorded.put_many(family, [k for k, _ in first], [v for _, v in first])  # type: ignore[attr-defined]
                table.update(first)  # type: ignore[call-overload]
            elif name == "delete":
                recorded.delete(family, first)  # type: ignore[arg-type]
                table.pop(first, None)  # type: ignore[call-overload]
            else:
                recorded.delete_range(family, first, second)  # type: ignore[arg-type]
                for key in [k for k in table if first <= k < second]:  # type: ignore[operator]
                    del table[key]
        self.storage.write(recorded)

    def expected(self, family: Family, start: bytes, end: bytes, reverse: bool) -> Pairs:
        return sorted(((k, v) for k, v in self.model[family].items() if start <= k < end), reverse=reverse)

    @rule(family=families, start=keys, end=keys, reverse=st.booleans())
    def begin_scan(self, family: Family, start: bytes, end: bytes, reverse: bool) -> None:
        scan = self.storage.scan(family, start, end, reverse=reverse)
        self.scans.append((scan, self.expected(family, start, end, reverse)))

    @precondition(lambda self: self.scans)
    @rule()
    def finish_scan(self) -> None:
        scan, expected = self.scans.pop(0)
        assert list(scan) == expected

    @rule(family=families, asked=st.lists(keys, max_size=5))
    def get(self, family: Family, asked: list[bytes]) -> None:
        table = self.model[family]
        assert self.storage.get_many(family, asked) == [table.get(key) for key in asked]
        for key in asked[:1]:
            assert self.storage.get(family, key) == table.get(key)

    @rule(family=families, start=keys, end=keys)
    def compact(self, family: Family, start: bytes, end: bytes) -> None:
        self.storage.compact(family, start, end)

    @rule()
    def sync(self) -> None:
        assert self.storage.sync() == self.storage.sequence()

    @invariant()
    def everything_is_there(self) -> None:
        for family in Family:
            for reverse in (False, True):
                found = list(self.storage.scan(family, b"", b"\xff" * 4, reverse=reverse))
                assert found == self.expected(family, b"", b"\xff" * 4, reverse)
        assert self.storage.sequence() >= self.last_sequence
        self.last_sequence = self.storage.sequence()

    def teardown(self) -> None:
        self.storage.close()


class MemoryMachine(StorageMachine):
    def __init__(self) -> None:
        super().__init__()
        self.storage = MemoryStorage()


class RocksMachine(StorageMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.storage = RocksStorage(self.folder / "db")

    @rule()
    def reopen(self) -> None:
        self.scans.clear()
        self.storage.close()
        self.storage = RocksStorage(self.folder / "db")

    def teardown(self) -> None:
        super().teardown()
        shutil.rmtree(self.folder)


TestMemory = MemoryMachine.TestCase
TestMemory.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestRocks = RocksMachine.TestCase
TestRocks.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
