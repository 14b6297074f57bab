"""Fuzzers of what people write: filters, configuration, key files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

from tests.fuzz.mutate import Mutator
from vectordb.errors import InvalidFilter
from vectordb.filter import Filter, as_filter, col, matches
from vectordb.server.config import SETTINGS, load
from vectordb.server.keys import parse_keys
from vectordb.wire.filters import policy_from_bytes, policy_to_bytes
from vectordb_client import connect

_NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
_METADATA = [
    {"n": i % 5, "f": i / 3, "s": "abcdef"[: i % 7], "b": i % 2 == 0, "t": _NOW, "l": [i % 3, "x", None], "o": {"p": i}}
    for i in range(24)
] + [{}, {"n": None, "s": None, "l": []}, {"n": "text", "s": 5, "o": 1}]
_FILTERS: list[Filter] = [
    (col("n") >= 2) & (col("f") < 5.5),
    col("s").isin(["a", "abc"]) | ~(col("b") == True),  # noqa: E712 - a filter
    col("n").notin([1, 2.0, 3]) & col("l").contains("x"),
    col("t").between(_NOW, _NOW) | col("s").startswith("ab"),
    col("o.p").exists() & ~col("n").is_null() & (col("l") == [1, "x", None][:2]),
    (col("n") != 3) & (col("o.p") > 2**40),
]


class _Filters:
    """A collection on which each filter that can be read must mean what the reference evaluator says."""

    def __init__(self) -> None:
        self._db = connect(":memory:")
        self._docs = self._db.create_collection("docs", 1)
        self._docs.upsert([str(i) for i in range(len(_METADATA))], None, _METADATA)

    def compare(self, where: Filter) -> None:
        found = self._docs.count(where)
        wanted = sum(matches(where, row) for row in _METADATA)
        if found != wanted:
            raise AssertionError(f"{where!r} counts {found}, the reference {wanted}")

    def close(self) -> None:
        self._db.close()


class JsonFilters(_Filters):
    """Filters as JSON text and as trees."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._corpus = [where.to_json() for where in _FILTERS]

    def case(self, mutator: Mutator) -> None:
        tree = mutator.random.choice(self._corpus)
        if mutator.random.random() < 0.5:
            source: object = mutator.text(json.dumps(tree))
        else:
            source = mutator.tree(tree)
        where = as_filter(source)
        if where is not None:
            self.compare(where)
            if as_filter(where.to_json()) != where:
                raise AssertionError(f"{where!r} does not come back from its JSON form")


class WireFilters(_Filters):
    """Filters as messages, as a row policy carries them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._corpus = [policy_to_bytes(where) for where in _FILTERS]

    def case(self, mutator: Mutator) -> None:
        where = policy_from_bytes(mutator.bytes(mutator.random.choice(self._corpus)))
        self.compare(where)
        try:
            again = policy_from_bytes(policy_to_bytes(where))
        except InvalidFilter as error:
            raise AssertionError(f"{where!r} was read and cannot be read again") from error
        if again != where:
            raise AssertionError(f"{where!r} does not come back from its message")


_CONFIG = """
listen = "127.0.0.1:50051"
log_format = "json"
max_message_bytes = "256 MiB"
max_workers = 8
scan_idle_seconds = 60.5
allow_plaintext = true
tls_cert = '/etc/cert.pem'
[engine]
cache_bytes = 67_108_864
durability = "sync"
"""


class Config:
    """The server's configuration: the file's text, and the values of each setting."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "vectordb.toml"

    def case(self, mutator: Mutator) -> None:
        if mutator.random.random() < 0.7:
            self._path.write_bytes(mutator.bytes(_CONFIG.encode()))
            load(file=self._path, environment={})
            return
        setting = mutator.random.choice(SETTINGS)
        text = mutator.text(str(setting.default or "127.0.0.1:80"))
        load({setting.name: text}, environment={})

    def close(self) -> None:
        """Nothing is open."""


_KEYS = """
[[key]]
name = "ingest"
sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
role = "write"
collections = ["docs", "news-*"]
expires = 2027-01-01T00:00:00Z
filter = {and = [{field = "t", op = "==", value = "a"}, {field = "at", op = "<", value = 2026-01-31}]}

[[key]]
name = "reader"
sha256 = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
filter = '{"field": "n", "op": "in", "value": [1, 2]}'
"""


class Keys:
    """Key files."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "keys.toml"

    def case(self, mutator: Mutator) -> None:
        parse_keys(mutator.text(_KEYS), self._path)

    def close(self) -> None:
        """Nothing is open."""
