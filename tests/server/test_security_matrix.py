"""The whole matrix: how a client connects, which key it has, and what it may do; and both renewed under load."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.server.credentials import Authority, keys_file
from tests.waiting import wait_until
from vectordb import errors
from vectordb.engine.database import Engine
from vectordb.server.app import Server
from vectordb.server.config import load
from vectordb_client import connect

POLICY = '{"field": "tenant", "op": "==", "value": "a"}'
KEYS: dict[str, dict[str, Any]] = {
    "expired": {"role": "admin", "expires": "2020-01-01"},
    "read": {"role": "read"},
    "write": {"role": "write"},
    "admin": {"role": "admin"},
    "read+scope": {"role": "read", "collections": ["docs*"]},
    "write+scope": {"role": "write", "collections": ["docs*"]},
    "admin+scope": {"role": "admin", "collections": ["docs*"]},
    "read+policy": {"role": "read", "filter": POLICY},
    "write+policy": {"role": "write", "filter": POLICY},
    "read+policy+scope": {"role": "read", "filter": POLICY, "collections": ["docs*"]},
    "write+policy+scope": {"role": "write", "filter": POLICY, "collections": ["docs*"]},
}


class Stage(NamedTuple):
    """Servers by how they are reached, clients' ways to connect, and keys by name."""

    addresses: dict[str, str]
    clients: dict[str, Any]
    keys: dict[str, str]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    root = tmp_path_factory.mktemp("tls")
    for name in ("own", "other", "clients"):
        (root / name).mkdir()
    own, other, clients = (Authority(root / name, name) for name in ("own", "other", "clients"))
    good, old, elsewhere = own.issue("server"), own.issue("old", days=-1), own.issue("far", host="elsewhere.example")
    keys = keys_file(root / "keys.toml", *({"name": name, **entry} for name, entry in KEYS.items()))
    pairs: dict[str, Any] = {"plain": None, "tls": good, "mtls": good, "expired": old, "elsewhere": elsewhere}
    servers = []
    addresses = {}
    for name, pair in pairs.items():
        settings: dict[str, Any] = {"listen": "127.0.0.1:0", "api_keys": str(root / "keys.toml")}
        if pair is not None:
            settings.update(tls_cert=str(pair[0]), tls_key=str(pair[1]))
        if name == "mtls":
            settings["tls_client_ca"] = str(clients.ca)
        servers.append(Server(lambda: Engine(":memory:"), load(settings, environment={})))
        addresses[name] = servers[-1].start()
    certificates = {
        "mtls": clients.issue("client"),
        "stranger": other.issue("stranger"),
        "lapsed": clients.issue("lapsed", days=-1),
    }
    ways: dict[str, Any] = {"plain": None, "tls": own.ca, "wrong CA": other.ca, "system CA": True}
    ways.update({n: {"ca": own.ca, "cert": c, "key": k} for n, (c, k) in certificates.items()})
    named = dict(zip(KEYS, keys, strict=True))
    for name in ("plain", "tls", "mtls"):
        with connect(addresses[name], tls=ways[name], api_key=named["admin"]) as db:
            for collection in ("docs", "secret"):
                rows = [{"tenant": "a"}, {"tenant": "b", "pin": "hidden"}]
                db.create_collection(collection, 2).upsert(["mine", "other"], [[1, 0], [1, 0]], rows)
    yield Stage(addresses, ways, {**named, "unknown": "vdb_unknown"})
    for server in servers:
        server.stop()


REFUSED = {
    ("plain", "tls"): "speaks no TLS",
    ("tls", "plain"): "it speaks TLS",
    ("mtls", "plain"): "it speaks TLS",
    ("tls", "wrong CA"): "no authority known here signed",
    ("tls", "system CA"): "no authority known here signed",
    ("mtls", "wrong CA"): "no authority known here signed",
    ("mtls", "tls"): "only clients with certificates",
    ("mtls", "stranger"): "only clients with certificates",
    ("mtls", "lapsed"): "only clients with certificates",
    ("expired", "tls"): "has expired; renew it",
    ("expired", "mtls"): "has expired; renew it",
    ("elsewhere", "tls"): "another host name",
    ("elsewhere", "mtls"): "another host name",
}


@pytest.mark.parametrize(("server", "client"), REFUSED)
def test_connections_that_are_refused(stage: Stage, server: str, client: str) -> None:
    options = {"tls": stage.clients[client], "api_key": stage.keys["admin"], "retries": 0, "timeout": 10}
    with connect(stage.addresses[server], **options) as db:
        with pytest.raises(errors.Unavailable, match=REFUSED[server, client]) as refused:
            db.list_collections()
        assert refused.value.sent is False
        assert stage.keys["admin"] not in str(refused.value)


PINNED = {"field": "pin", "op": "exists"}
# A call, and what of it a key must have: a role, the collection in its scope, no policy, rows that its policy shows.
CALLS: dict[str, tuple[str, bool, Callable[[Any], Any]]] = {
    "count": ("read", False, lambda db: db["docs"].count()),
    "search": ("read", False, lambda db: db["docs"].search([1, 0]).ids),
    "get": ("read", False, lambda db: [r.id for r in db["docs"].get(["other", "mine"])]),
    "scan": ("read", False, lambda db: sorted(r.id for r in db["docs"].scan())),
    "stats": ("read", True, lambda db: db["docs"].stats().rows >= 2),
    "write": ("write", False, lambda db: db["docs"].upsert(["mine"], [[1, 0]], [{"tenant": "a"}]).count),
    "set": ("write", False, lambda db: db["docs"].update_metadata(where=PINNED, set={"x": 1})),
    "bulk": ("write", False, lambda db: db["docs"].bulk_upsert(
        [{"id": "mine", "vector": [1, 0], "metadata": {"tenant": "a"}}], progress=False).count),
    "delete": ("write", False, lambda db: db["docs"].delete(where={"field": "tenant", "op": "==", "value": "c"})),
    "optimize": ("admin", True, lambda db: db["docs"].optimize()),
    "create": ("admin", True, lambda db: db.create_collection("docs-2", 2, exist_ok=True).name),
}  # fmt: skip
ROLES = ("read", "write", "admin")
SHOWN: dict[str, tuple[Any, Any]] = {
    # To everybody, and under the policy.
    "count": (2, 1),
    "search": (["mine", "other"], ["mine"]),
    "get": (["other", "mine"], ["mine"]),
    "scan": (["mine", "other"], ["mine"]),
    "set": (1, 0),
}


@pytest.mark.parametrize("key", ["none", "unknown", *KEYS])
@pytest.mark.parametrize("way", ["plain", "tls", "mtls"])
def test_what_a_key_allows(stage: Stage, way: str, key: str) -> None:
    entry = KEYS.get(key, {})
    with connect(stage.addresses[way], tls=stage.clients[way], api_key=stage.keys.get(key)) as db:
        if key in ("none", "unknown", "expired"):
            for call in (db.list_collections, db.info, *(lambda c=c: c[2](db) for c in CALLS.values())):
                with pytest.raises(errors.Unauthenticated):
                    call()
            return
        bound, scoped = "filter" in entry, "collections" in entry
        for name, (role, whole, call) in CALLS.items():
            may = ROLES.index(entry["role"]) >= ROLES.index(role) and not (whole and bound)
            if not may:
                with pytest.raises(errors.PermissionDenied):
                    call(db)
                continue
            done = call(db)
            if name in SHOWN:
                assert done == SHOWN[name][bound], name
        secret = db.collection if not scoped else None
        if secret is not None:
            assert secret("secret").count() == (1 if bound else 2)
        else:
            with pytest.raises(errors.PermissionDenied, match="is not for collection"):
                db.collection("secret")
        if bound and entry["role"] == "write":
            for rows in ((["mine"], [{"tenant": "b"}]), (["other"], [{"tenant": "a"}]), (["new"], [{}])):
                with pytest.raises(errors.PermissionDenied, match="row policy") as refused:
                    db["docs"].upsert(rows[0], [[1, 0]], rows[1])
                assert (refused.value.row, refused.value.id) == (0, rows[0][0])
                assert "hidden" not in str(refused.value)


def test_a_scan_is_read_on_by_who_began_it_only(stage: Stage) -> None:
    from vectordb.requests import ScanRequest
    from vectordb_client.transport import calls

    def page(key: str, cursor: str) -> Any:
        with connect(stage.addresses["plain"], api_key=stage.keys[key]) as db:
            return db._backend.call(calls.scan("docs", ScanRequest(page_size=1), cursor))

    first, cursor = page("read", "")
    for other in ("read+policy", "admin", "write"):
        with pytest.raises(errors.FailedPrecondition, match="not open"):
            page(other, cursor)
    records, _ = page("read", cursor)
    assert {r.id for r in [*first, *records]} == {"mine", "other"}


def test_a_key_with_a_filter_is_no_admin(tmp_path: Path) -> None:
    from vectordb.server.keys import read_keys

    for entry, said in (
        ({"role": "admin", "filter": POLICY}, "a key with a filter is 'read' or 'write'"),
        ({"role": "read", "filter": "{"}, "filter is not JSON"),
        ({"role": "read", "filter": 5}, "got int"),
    ):
        keys_file(tmp_path / "keys.toml", {"name": "k", **entry})
        with pytest.raises(errors.InvalidArgument, match=said):
            read_keys(tmp_path / "keys.toml")
    (tmp_path / "keys.toml").write_text(
        f"[[key]]\nname = 'k'\nsha256 = '{'ab' * 32}'\n"
        "filter = {and = [{field = 'at', op = '>=', value = 2026-01-31T12:00:00Z}, {field = 'x', op = 'exists'}]}"
    )
    (key,) = read_keys(tmp_path / "keys.toml")
    assert str(key.policy.to_json()["and"][0]["value"]) == "{'$datetime': '2026-01-31T12:00:00Z'}"  # type: ignore[union-attr]


def test_keys_and_certificates_are_renewed_under_load(tmp_path: Path) -> None:
    """Clients with credentials that are in force see no error while both are replaced again and again."""
    authority = Authority(tmp_path)
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    file = tmp_path / "keys.toml"

    def renew(number: int) -> None:
        fresh, fresh_key = authority.issue(f"server{number}")
        # One after the other: for a moment they do not belong together.
        certificate.write_bytes(fresh.read_bytes())
        time.sleep(0.02)
        key.write_bytes(fresh_key.read_bytes())

    renew(0)
    (current,) = keys_file(file, {"name": "key0", "role": "admin"})
    settings = {"listen": "127.0.0.1:0", "tls_cert": str(certificate), "tls_key": str(key), "api_keys": str(file)}
    server = Server(lambda: Engine(":memory:"), load(settings, environment={}))
    address = server.start()
    over, failures, served = threading.Event(), [], itertools.count()
    in_force = [current]

    def use(lasting: bool) -> None:
        while not over.is_set():
            with connect(address, tls=authority.ca, api_key=in_force[0], retries=0) as db:
                for _ in range(50 if lasting else 2):
                    try:
                        db["docs"].count()
                        next(served)
                    except errors.VectorDBError as error:
                        failures.append(error)

    try:
        with connect(address, tls=authority.ca, api_key=current) as db:
            db.create_collection("docs", 2)
        users = [threading.Thread(target=use, args=(lasting,)) for lasting in (True, False, False)]
        for user in users:
            user.start()
        for number in range(1, 4):
            old = file.read_text()
            (fresh,) = keys_file(tmp_path / "new.toml", {"name": f"key{number}", "role": "admin"})
            file.write_text(old + "\n" + (tmp_path / "new.toml").read_text())
            renew(number)
            wait_until(lambda fresh=fresh: _works(address, authority.ca, fresh))
            gone, in_force[0] = in_force[0], fresh
            # Whoever began with the old key ends before it is removed.
            time.sleep(0.5)
            file.write_text((tmp_path / "new.toml").read_text())
            wait_until(lambda gone=gone: not _works(address, authority.ca, gone))
    finally:
        over.set()
        for user in users:
            user.join()
        server.stop()
    assert next(served) > 50
    assert failures == []


def _works(address: str, ca: Path, key: str) -> bool:
    with connect(address, tls=ca, api_key=key, retries=0) as db:
        try:
            return db["docs"].count() == 0
        except errors.Unauthenticated:
            return False
