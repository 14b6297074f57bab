"""Row policies against a model: a caller bound by one, and one who is not, do random operations on one collection.

The bound caller must see the matching rows and no others, must not change any other, and every refusal must be the
typed error that the model expects; embedded, by an API key, and by a policy that the client binds itself to.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vectordb.engine.database import Engine
from vectordb.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    VectorDBError,
)
from vectordb.filter import Filter, as_filter, col, matches
from vectordb.requests import Backend
from vectordb.row_policy import PolicyBackend
from vectordb.server.access import CallersBackend
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb.server.keys import new_key
from vectordb_client import connect

POLICIES = [
    col("t") == "a",
    ~(col("t") == "b"),
    (col("n") >= 2) & col("t").exists(),
    col("tags").contains("x") | (col("t") == "a"),
]
IDS = [f"r{i}" for i in range(5)]
_T = st.sampled_from(["a", "a", "b", None])
_REST = {"n": st.integers(0, 3), "tags": st.lists(st.sampled_from(["x", "y"]), max_size=2)}
METADATA = st.one_of(
    st.fixed_dictionaries({"t": _T}, optional=_REST), st.fixed_dictionaries({}, optional={"t": _T, **_REST})
)
WHERE = st.sampled_from([None, col("n") < 2, col("t") == "b", ~(col("t") == "a"), col("tags").contains("y")])
ROWS = st.dictionaries(st.sampled_from(IDS), METADATA, min_size=1, max_size=4)
CHOSEN = st.one_of(st.none(), st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True))
BOUND = st.booleans()
OPERATION = st.one_of(
    st.tuples(st.sampled_from(["upsert", "insert", "update"]), BOUND, ROWS, st.sampled_from([None, None, "now", 0])),
    st.tuples(st.just("set"), BOUND, CHOSEN, WHERE, METADATA, st.sampled_from([(), ("t",), ("n",)])),
    st.tuples(st.just("delete"), BOUND, CHOSEN, WHERE),
)


class Place(NamedTuple):
    """Two handles on the same data: of everybody, and a maker of bound ones by the policy's number."""

    whole: Any
    bound: Callable[[int], Any]


@pytest.fixture(scope="module", params=["embedded", "key", "header"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if request.param == "embedded":
        with connect(":memory:") as db:
            yield Place(db, lambda i: db.with_policy(POLICIES[i]))
        return
    file = tmp_path_factory.mktemp("keys") / "keys.toml"
    keys = [new_key() for _ in range(len(POLICIES) + 1)]
    tables = [f'[[key]]\nname = "root"\nsha256 = "{keys[-1][1]}"\nrole = "admin"\n']
    for i, policy in enumerate(POLICIES):
        form = json.dumps(json.dumps(policy.to_json()))
        tables.append(f'[[key]]\nname = "k{i}"\nsha256 = "{keys[i][1]}"\nrole = "write"\nfilter = {form}\n')
    file.write_text("\n".join(tables))
    server = Server(lambda: Engine(":memory:"), load({"listen": "127.0.0.1:0", "api_keys": str(file)}, environment={}))
    address = server.start()
    handles = [connect(address, api_key=key) for key, _ in keys]
    if request.param == "key":
        yield Place(handles[-1], lambda i: handles[i])
    else:
        yield Place(handles[-1], lambda i: handles[-1].with_policy(POLICIES[i]))
    for handle in handles:
        handle.close()
    server.stop()


class Model:
    """What the collection holds, and what each operation is to do."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def seen(self, policy: Filter | None) -> dict[str, dict[str, Any]]:
        return {i: m for i, m in self.rows.items() if policy is None or matches(policy, m)}

    def write(
        self, mode: str, policy: Filter | None, rows: dict[str, dict[str, Any]], missing: bool
    ) -> type[VectorDBError] | int:
        seen = self.seen(policy)
        if policy is not None and not all(matches(policy, m) for m in rows.values()):
            return PermissionDenied
        if missing and any(i in seen for i in rows):
            return FailedPrecondition
        if mode == "insert" and any(i in seen for i in rows):
            return AlreadyExists
        if mode == "update" and not all(i in seen for i in rows):
            return NotFound
        if any(i in self.rows and i not in seen for i in rows):
            return PermissionDenied
        self.rows.update(rows)
        return len(rows)

    def chosen(self, policy: Filter | None, ids: list[str] | None, where: Filter | None) -> list[str]:
        return [
            i
            for i, m in self.seen(policy).items()
            if (ids is None or i in ids) and (where is None or matches(where, m))
        ]

    def set(
        self, policy: Filter | None, targets: list[str], new: dict[str, Any], gone: tuple[str, ...]
    ) -> type[VectorDBError] | int:
        changed = {i: {k: v for k, v in {**self.rows[i], **new}.items() if k not in gone} for i in targets}
        if policy is not None and not all(matches(policy, m) for m in changed.values()):
            return PermissionDenied
        self.rows.update(changed)
        return len(changed)


def outcome(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    try:
        done = call(*arguments, **options)
    except VectorDBError as error:
        return type(error)
    return getattr(done, "count", done)


def vectors(rows: dict[str, Any]) -> list[list[float]]:
    return [[1.0, float(IDS.index(i))] for i in rows]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, len(POLICIES) - 1),
    st.lists(METADATA, min_size=3, max_size=3),
    st.lists(OPERATION, min_size=3, max_size=25),
)
def test_a_bound_caller_sees_and_changes_matching_rows_only(
    place: Place, number: int, first: list[dict[str, Any]], operations: list[Any]
) -> None:
    name = f"c{uuid4().hex}"
    whole, bound = place.whole.create_collection(name, 2, metric="l2"), place.bound(number).collection(name)
    model, policy = Model(), POLICIES[number]
    rows = dict(zip(IDS, first, strict=False))
    model.write("upsert", None, rows, False)
    whole.upsert(list(rows), vectors(rows), first, ["word"] * len(rows))
    for what, by_bound, *rest in operations:
        docs, within = (bound, policy) if by_bound else (whole, None)
        if what == "set":
            ids, where, new, gone = rest
            if (ids is None and where is None) or not (new or gone):
                continue
            expected: Any = model.set(within, model.chosen(within, ids, where), new, gone)
            got = outcome(docs.update_metadata, ids, where, set=new, unset=gone)
        elif what == "delete":
            ids, where = rest
            if ids is None and where is None:
                continue
            targets = model.chosen(within, ids, where)
            expected = len(targets)
            for i in targets:
                del model.rows[i]
            got = outcome(docs.delete, ids, where)
        else:
            rows, version = rest
            options: dict[str, Any] = {}
            if version == 0 and what == "upsert":
                options["if_version"] = 0
            expected = model.write(what, within, rows, bool(options))
            columns = (list(rows), vectors(rows), list(rows.values()), ["word"] * len(rows))
            got = outcome(getattr(docs, what), *columns, **options)
        assert got == expected, (what, by_bound, rest)
        for docs, within in ((bound, policy), (whole, None)):
            check_reads(docs, model, within)
    place.whole.delete_collection(name)


def check_reads(docs: Any, model: Model, policy: Filter | None) -> None:
    seen = model.seen(policy)
    assert {r.id: r.metadata for r in docs.get(IDS)} == seen
    assert {r.id for r in docs.scan()} == set(seen)
    assert docs.count() == len(seen)
    where = col("n") < 2
    some = {i for i, m in seen.items() if matches(where, m)}
    assert docs.count(where) == len(some)
    assert set(docs.search([1, 0], limit=20, include=()).ids) == set(seen)
    assert set(docs.search([1, 0], limit=20, where=where).ids) == some
    assert set(docs.search_text("word", limit=20, where=where).ids) == some
    if policy is not None:
        plan = docs.explain([1, 0], analyze=True)
        assert all(part.rows <= len(seen) and part.estimated <= len(seen) for part in plan)


def test_what_a_policy_refuses(place: Place) -> None:
    name = f"c{uuid4().hex}"
    whole, bound = place.whole.create_collection(name, 2), place.bound(0)
    whole.upsert(["mine", "other"], [[1, 0], [1, 0]], [{"t": "a"}, {"t": "b", "secret": "hidden words"}])
    docs = bound.collection(name)
    for call in (docs.stats, docs.optimize, lambda: docs.reindex(index="flat"), docs.cancel_reindex,
                 lambda: bound.create_collection("x", 2), lambda: bound.delete_collection(name),
                 lambda: bound.backup("/nowhere")):  # fmt: skip
        with pytest.raises(PermissionDenied):
            call()
    with pytest.raises(PermissionDenied) as refused:
        docs.upsert(["mine", "other"], [[0, 1], [0, 1]], [{"t": "a"}, {"t": "a"}])
    assert (refused.value.row, refused.value.id) == (1, "other")
    assert "secret" not in str(refused.value)
    for change in ({"set": {"t": "b"}}, {"unset": ["t"]}):
        with pytest.raises(PermissionDenied, match="would not match") as refused:
            docs.update_metadata(where={"field": "t", "op": "exists"}, **change)
        assert refused.value.id == "mine"
    assert docs.update_metadata(["mine", "other"], set={"seen": True}) == 1
    with pytest.raises(PermissionDenied) as refused:
        docs.upsert(["new", "mine"], [[0, 1], [0, 1]], [{"t": "a"}, {"t": "b"}])
    assert (refused.value.row, refused.value.id) == (1, "mine")
    kept = [{"t": "a", "seen": True}, {"t": "b", "secret": "hidden words"}]
    assert [r.metadata for r in whole.get(["mine", "other"])] == kept


def test_a_bound_caller_is_not_told_of_the_machine(place: Place) -> None:
    whole, bound = place.whole.info(), place.bound(0).info()
    assert (bound.path, bound.memory, bound.memory_limit) == ("", {}, None)
    assert whole.path != ""
    assert (bound.version, bound.collections) == (whole.version, whole.collections)


@pytest.mark.parametrize("kind", [PolicyBackend, CallersBackend])
def test_every_request_is_judged(kind: type) -> None:
    """A request that is added to the seam must not pass a policy, or a key, by the way."""
    requests = {name for name in vars(Backend) if not name.startswith("_")}
    assert requests <= set(vars(kind))
    assert not hasattr(kind, "__getattr__")


def test_callers_of_other_policies_do_not_share_idempotency_keys(place: Place) -> None:
    name = f"c{uuid4().hex}"
    whole = place.whole.create_collection(name, 2)
    first, second = place.bound(0).collection(name), place.bound(1).collection(name)
    first.upsert(["p"], [[1, 0]], [{"t": "a"}], idempotency_key="same")
    first.upsert(["p"], [[1, 0]], [{"t": "a"}], idempotency_key="same")
    second.upsert(["q"], [[1, 0]], [{"t": "c"}], idempotency_key="same")
    whole.upsert(["r"], [[1, 0]], [{"t": "b"}], idempotency_key="same")
    assert sorted(r.id for r in whole.scan()) == ["p", "q", "r"]


def test_a_policy_that_cannot_be_applied_allows_nothing(place: Place) -> None:
    name = f"c{uuid4().hex}"
    place.whole.create_collection(name, 2, fields={"t": {"type": "text", "indexed": False}}).upsert(["a"], [[1, 0]])
    docs = place.bound(0).collection(name)
    for call in (docs.count, lambda: docs.search([1, 0]), lambda: list(docs.scan()), lambda: docs.get(["a"]),
                 lambda: docs.upsert(["b"], [[1, 0]], [{"t": "a"}]), lambda: docs.delete(["a"])):  # fmt: skip
        with pytest.raises(PermissionDenied, match="cannot be applied"):
            call()


def test_policies_add_up(place: Place) -> None:
    name = f"c{uuid4().hex}"
    whole = place.whole.create_collection(name, 2)
    whole.upsert(["p", "q", "r"], [[1, 0]] * 3, [{"t": "a", "n": 1}, {"t": "a", "n": 2}, {"t": "b", "n": 2}])
    twice = place.bound(0).with_policy({"field": "n", "op": ">=", "value": 2})
    assert [r.id for r in twice[name].scan()] == ["q"]
    assert [r.id for r in twice[name].get(["p", "q", "r"])] == ["q"]
    assert twice.with_policy(col("n") > 2)[name].count() == 0
    assert twice[name].delete(["p", "r"]) == 0
    assert twice[name].update_metadata(["p", "r"], set={"seen": True}) == 0
    for outside in ({"t": "a", "n": 1}, {"t": "b", "n": 2}):
        with pytest.raises(PermissionDenied):
            twice[name].upsert(["s"], [[1, 0]], [outside])
    with pytest.raises(PermissionDenied):
        twice[name].upsert(["p"], [[1, 0]], [{"t": "a", "n": 2}])
    twice.close()
    assert whole.count() == 3
    with pytest.raises(VectorDBError, match="a row policy is a filter"):
        place.whole.with_policy(as_filter(None))


def test_the_check_and_the_write_are_one_step() -> None:
    """A hidden row never changes under its owner's eyes, however hard a bound caller tries to come in between."""
    with connect(":memory:") as db:
        docs = db.create_collection("docs", 2)
        bound = db.with_policy(col("t") == "a")["docs"]
        over, taken = threading.Event(), [0, 0]

        def grab() -> None:
            while not over.is_set():
                try:
                    bound.upsert(["x"], [[0, 1]], [{"t": "a"}])
                    taken[0] += 1
                except PermissionDenied:
                    taken[1] += 1

        grabbers = [threading.Thread(target=grab) for _ in range(3)]
        for grabber in grabbers:
            grabber.start()
        try:
            for _ in range(300):
                docs.upsert(["x"], [[1, 0]], [{"t": "a"}])
                version = docs.upsert(["x"], [[1, 0]], [{"t": "b"}]).version
                for _ in range(3):
                    version = docs.upsert(["x"], [[1, 0]], [{"t": "b"}], if_version=version).version
        finally:
            over.set()
            for grabber in grabbers:
                grabber.join()
    assert min(taken) > 0


def test_bulk_writes_are_bound_too(place: Place) -> None:
    name = f"c{uuid4().hex}"
    whole = place.whole.create_collection(name, 2)
    whole.upsert(["other"], [[1, 0]], [{"t": "b"}])
    docs = place.bound(0).collection(name)
    rows = [{"id": f"r{i}", "vector": [1, 0], "metadata": {"t": "a"}} for i in range(5)]
    assert docs.bulk_upsert(rows, batch_size=2, progress=False).count == 5
    for wrong in ({"id": "x", "vector": [1, 0], "metadata": {"t": "b"}}, {**rows[0], "id": "other"}):
        with pytest.raises(PermissionDenied, match="row policy"):
            docs.bulk_upsert([*rows, wrong], batch_size=10, progress=False)
    assert (whole.count(), docs.count()) == (6, 5)
