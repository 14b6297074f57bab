"""TLS, API keys, roles, scopes, rotation and the audit log, by a real server and real clients."""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server.credentials import Authority, keys_file
from tests.waiting import wait_until
from vectordb import errors
from vectordb.server.app import Server
from vectordb.server.audit import AuditLog
from vectordb.server.keys import KeyRing, Role, read_keys
from vectordb_client import col, connect

Serve = Callable[..., Server]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def fill(address: str, **options: Any) -> None:
    with connect(address, **options) as db:
        for name in ("docs", "news-1", "secret"):
            db.create_collection(name, 2).upsert(["a"], [[1, 0]])


# TLS


def test_tls(serve_engine: Serve, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("server")
    address = serve_engine(tls_cert=str(certificate), tls_key=str(key)).address
    fill(address, tls=authority.ca)
    with connect(f"grpcs://{address}", tls={"ca": authority.ca}) as db:
        assert db["docs"].count() == 1
    (tmp_path / "other").mkdir()
    for wrong in ({"tls": None}, {"tls": Authority(tmp_path / "other").ca}):
        with connect(address, retries=0, timeout=5, **wrong) as db, pytest.raises(errors.Unavailable):
            db.list_collections()


def test_a_client_without_a_certificate_is_not_let_in(
    serve_engine: Serve, authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue("server")
    (tmp_path / "clients").mkdir()
    clients = Authority(tmp_path / "clients")
    address = serve_engine(tls_cert=str(certificate), tls_key=str(key), tls_client_ca=str(clients.ca)).address
    good, good_key = clients.issue("client")
    with connect(address, tls={"ca": authority.ca, "cert": good, "key": good_key}) as db:
        assert db.list_collections() == []
    bad, bad_key = authority.issue("stranger")
    for tls in (authority.ca, {"ca": authority.ca, "cert": bad, "key": bad_key}):
        with connect(address, retries=0, timeout=5, tls=tls) as db, pytest.raises(errors.Unavailable):
            db.list_collections()


def test_certificates_are_renewed_without_a_restart(serve_engine: Serve, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("server")
    address = serve_engine(tls_cert=str(certificate), tls_key=str(key)).address
    (tmp_path / "new").mkdir()
    fresh = Authority(tmp_path / "new")
    with connect(address, tls=authority.ca) as before:
        before.create_collection("docs", 2)
        new_certificate, new_private_key = fresh.issue("server")
        # Broken for a moment: the old one stays in force.
        certificate.write_text("half written")
        with connect(address, tls=authority.ca) as during:
            assert during.list_collections() == ["docs"]
        key.write_bytes(new_private_key.read_bytes())
        certificate.write_bytes(new_certificate.read_bytes())
        with connect(address, tls=fresh.ca) as after:
            assert after.list_collections() == ["docs"]
        assert before.list_collections() == ["docs"]


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_plain_text_beyond_this_machine_must_be_asked_for(serve_engine: Serve, listen: str) -> None:
    with pytest.raises(errors.FailedPrecondition, match="allow_plaintext"):
        serve_engine(listen=listen)


def test_plain_text_where_it_is_allowed(serve_engine: Serve) -> None:
    address = serve_engine(listen="0.0.0.0:0", allow_plaintext=True).address
    with connect(address.replace("0.0.0.0", "127.0.0.1")) as db:
        assert db.list_collections() == []


def test_settings_of_tls_that_cannot_be(serve_engine: Serve, authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("server")
    for settings, said in (
        ({"tls_cert": str(certificate)}, "both"),
        ({"tls_cert": str(tmp_path / "none"), "tls_key": str(key)}, "cannot read"),
        ({"tls_cert": str(key), "tls_key": str(key)}, "no PEM certificate"),
    ):
        with pytest.raises(errors.InvalidArgument, match=said):
            serve_engine(**settings)


# Keys


def test_no_key_no_call(serve_engine: Serve, tmp_path: Path) -> None:
    (admin,) = keys_file(tmp_path / "keys.toml", {"name": "root", "role": "admin"})
    address = serve_engine(api_keys=str(tmp_path / "keys.toml")).address
    fill(address, api_key=admin)
    for key in (None, "vdb_wrong", admin + "x", admin.upper()):
        with connect(address, api_key=key) as db:
            for call in (
                db.list_collections,
                db.info,
                lambda db=db: db["docs"],
                lambda db=db: db.create_collection("x", 2),
                lambda db=db: db.backup(""),
            ):
                with pytest.raises(errors.Unauthenticated) as refused:
                    call()
                assert key is None or key not in str(refused.value)


def test_the_matrix_of_roles(serve_engine: Serve, tmp_path: Path) -> None:
    read, write, admin = keys_file(
        tmp_path / "keys.toml", *({"name": role, "role": role} for role in ("read", "write", "admin"))
    )
    address = serve_engine(api_keys=str(tmp_path / "keys.toml"), backup_to=str(tmp_path / "backups")).address
    fill(address, api_key=admin)
    calls: list[tuple[Role, Callable[[Any], Any]]] = [
        (Role.READ, lambda db: db.list_collections()),
        (Role.READ, lambda db: db.info()),
        (Role.READ, lambda db: db["docs"].search([1, 0])),
        (Role.READ, lambda db: db["docs"].search_batch([[1, 0]])),
        (Role.READ, lambda db: db["docs"].explain([1, 0])),
        (Role.READ, lambda db: db["docs"].get(["a"])),
        (Role.READ, lambda db: db["docs"].count()),
        (Role.READ, lambda db: list(db["docs"].scan())),
        (Role.READ, lambda db: db["docs"].stats()),
        (Role.WRITE, lambda db: db["docs"].upsert(["b"], [[0, 1]])),
        (Role.WRITE, lambda db: db["docs"].bulk_upsert([{"id": "c", "vector": [0, 1]}] * 1, progress=False)),
        (Role.WRITE, lambda db: db["docs"].update_metadata(["a"], set={"n": 1})),
        (Role.WRITE, lambda db: db["docs"].delete(["nobody"])),
        (Role.READ, lambda db: db["docs"].search_text("word")),
        (Role.ADMIN, lambda db: db["docs"].optimize()),
        (Role.ADMIN, lambda db: db["docs"].optimize(erase=True)),
        (Role.ADMIN, lambda db: db["docs"].delete(["nobody"], erase=True)),
        (Role.ADMIN, lambda db: db.verify(0)),
        (Role.ADMIN, lambda db: db.repair(dry_run=True)),
        (Role.ADMIN, lambda db: db["docs"].reindex(index="flat")),
        (Role.ADMIN, lambda db: db["docs"].cancel_reindex()),
        (Role.ADMIN, lambda db: db.create_collection("more", 2, exist_ok=True)),
        (Role.ADMIN, lambda db: db.delete_collection("more")),
    ]
    for role, key in ((Role.READ, read), (Role.WRITE, write), (Role.ADMIN, admin)):
        with connect(address, api_key=key) as db:
            for needed, call in calls:
                if role >= needed:
                    call(db)
                else:
                    with pytest.raises(errors.PermissionDenied, match=f"needs '{needed.name.lower()}'"):
                        call(db)


def test_a_key_for_some_collections(serve_engine: Serve, tmp_path: Path) -> None:
    admin, scoped = keys_file(
        tmp_path / "keys.toml",
        {"name": "root", "role": "admin"},
        {"name": "some", "role": "admin", "collections": ["docs", "news-*"]},
    )
    address = serve_engine(api_keys=str(tmp_path / "keys.toml"), backup_to=str(tmp_path / "backups")).address
    fill(address, api_key=admin)
    with connect(address, api_key=scoped) as db:
        assert db.list_collections() == ["docs", "news-1"]
        assert db.info().collections == ("docs", "news-1")
        assert db["news-1"].count() == 1
        db.create_collection("news-2", 2)
        messages = set()
        for name in ("secret", "missing"):
            with pytest.raises(errors.PermissionDenied) as refused:
                db.collection(name)
            messages.add(str(refused.value).replace(name, "?"))
        assert len(messages) == 1
        for call in (
            lambda: db.create_collection("other", 2),
            lambda: db.delete_collection("secret"),
            lambda: db.backup(""),
            lambda: db.verify(0),
            lambda: db.repair(),
        ):
            with pytest.raises(errors.PermissionDenied, match="is not for collection"):
                call()


def test_a_key_for_some_collections_is_not_told_the_names_of_others(serve_engine: Serve, tmp_path: Path) -> None:
    admin, scoped = keys_file(
        tmp_path / "keys.toml",
        {"name": "root", "role": "admin"},
        {"name": "some", "role": "admin", "collections": ["news-*"]},
    )
    address = serve_engine(api_keys=str(tmp_path / "keys.toml")).address
    fill(address, api_key=admin)
    with connect(address, api_key=scoped) as db:
        gone = db.create_collection("news-9", 2)
        db.delete_collection("news-9")
        for call in (
            lambda: db["news-none"],
            lambda: db.delete_collection("news-none"),
            lambda: gone.search([1, 0]),
            lambda: list(gone.scan()),
            lambda: gone.upsert(["a"], [[1, 0]]),
            lambda: db.with_policy(col("a") == 1)["news-none"],
        ):
            with pytest.raises(errors.CollectionNotFound, match="does not exist") as refused:
                call()
            assert "docs" not in str(refused.value)
            assert "secret" not in str(refused.value)


def test_a_key_for_names_of_one_letter_is_not_for_everything(serve_engine: Serve, tmp_path: Path) -> None:
    all_of_them, scoped = keys_file(
        tmp_path / "keys.toml",
        {"name": "root", "role": "admin", "collections": ["*"]},
        {"name": "short", "role": "admin", "collections": ["?"]},
    )
    address = serve_engine(api_keys=str(tmp_path / "keys.toml")).address
    fill(address, api_key=all_of_them)
    with connect(address, api_key=scoped) as db:
        db.create_collection("a", 2)
        for call in (lambda: db.verify(0), lambda: db.repair(dry_run=True)):
            with pytest.raises(errors.PermissionDenied, match="is not for collection"):
                call()
    with connect(address, api_key=all_of_them) as db:
        assert db.verify(0).ok


def test_keys_are_rotated_under_load(serve_engine: Serve, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    (old,) = keys_file(path, {"name": "old", "role": "admin"})
    address = serve_engine(api_keys=str(path)).address
    fill(address, api_key=old)
    first = path.read_text()
    (new,) = keys_file(path, {"name": "new", "role": "read"})
    second = path.read_text()
    path.write_text(first + "\n" + second)

    def works(key: str) -> bool:
        with connect(address, api_key=key) as db:
            try:
                return db["docs"].count() == 1
            except errors.Unauthenticated:
                return False

    wait_until(lambda: works(new))
    assert works(old)
    path.write_text("broken [")
    time.sleep(1.2)
    assert works(old)
    assert works(new)
    path.write_text(second)
    wait_until(lambda: not works(old))
    assert works(new)


def test_a_stream_ends_with_its_key(serve_engine: Serve, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    root, writer = keys_file(path, {"name": "root", "role": "admin"}, {"name": "ingest", "role": "write"})
    text = path.read_text()
    address = serve_engine(api_keys=str(path)).address
    fill(address, api_key=root)
    sent: list[int] = []

    def refused() -> bool:
        with connect(address, api_key=writer, retries=0) as other:
            try:
                other.list_collections()
            except errors.Unauthenticated:
                return True
        return False

    def records() -> Iterator[dict[str, Any]]:
        for number in range(20):
            if number == 10:
                path.write_text(text[: text.rindex("[[key]]")])
                wait_until(refused)
            sent.append(number)
            yield {"id": f"row-{number}", "vector": [1, number]}

    with connect(address, api_key=writer, retries=0) as db, pytest.raises(errors.Unauthenticated, match="not known"):
        db["docs"].bulk_upsert(records(), batch_size=1, progress=False)
    with connect(address, api_key=root) as db:
        assert db["docs"].count() == 11
    assert len(sent) < 20


def test_an_expired_key(tmp_path: Path) -> None:
    old, new = keys_file(
        tmp_path / "keys.toml",
        {"name": "old", "role": "read", "expires": "2020-01-01"},
        {"name": "new", "role": "read", "expires": "2999-01-01T00:00:00Z"},
    )
    ring = KeyRing(tmp_path / "keys.toml")
    with pytest.raises(errors.Unauthenticated, match="'old' has expired"):
        ring.authenticate(old)
    assert ring.authenticate(new).name == "new"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "one table"),
        ("[[key]]\nname = 'a'", "64 hexadecimal"),
        ("[[key]]\nname = ''\nsha256 = 'x'", "name is text"),
        ("[[key]]\nname = 'a'\nsha256 = '{h}'\nrole = 'god'", "role is"),
        ("[[key]]\nname = 'a'\nsha256 = '{h}'\nrights = 1", "unknown 'rights'"),
        ("[[key]]\nname = 'a'\nsha256 = '{h}'\ncollections = 'docs'", "collections is a list"),
        ("[[key]]\nname = 'a'\nsha256 = '{h}'\nexpires = 'soon'", "expires is a date"),
        ("[[key]]\nname = 'a'\nsha256 = '{h}'\n[[key]]\nname = 'a'\nsha256 = '{h}'", "two keys of one name"),
        ("other = 1", "one table"),
        ("[[key", "not TOML"),
    ],
)
def test_key_files_that_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text.replace("{h}", "ab" * 32))
    with pytest.raises(errors.InvalidArgument, match=said):
        read_keys(path)


# Audit


def test_the_audit_log_names_who_did_what_and_holds_no_secret(serve_engine: Serve, tmp_path: Path) -> None:
    admin, reader = keys_file(
        tmp_path / "keys.toml", {"name": "root", "role": "admin"}, {"name": "guest", "role": "read"}
    )
    path = tmp_path / "audit.jsonl"
    address = serve_engine(api_keys=str(tmp_path / "keys.toml"), audit_log=str(path)).address
    fill(address, api_key=admin)
    with connect(address, api_key=reader) as db:
        db["docs"].search([1, 0])
        with pytest.raises(errors.PermissionDenied):
            db["docs"].delete(["a"])
    with connect(address, api_key="vdb_wrong") as db, pytest.raises(errors.Unauthenticated):
        db.list_collections()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = [(line["key"], line["call"], line["collection"], line["outcome"]) for line in lines]
    assert told[:2] == [("root", "create_collection", "docs", "ok"), ("root", "upsert", "docs", "ok")]
    assert told[-2:] == [
        ("guest", "delete", "docs", "PermissionDenied"),
        (None, "ListCollections", None, "Unauthenticated"),
    ]
    # Over the lane it is known whose process it was.
    peers = {line["peer"].rpartition(":")[0] or line["peer"] for line in lines}
    assert peers <= {"ipv4:127.0.0.1", "unix"}
    assert {line["peer"] for line in lines if line["peer"].startswith("unix:")} <= {
        f"unix:pid={os.getpid()},uid={os.geteuid()}"
    }
    assert not any(secret in path.read_text() for secret in (admin, reader, "vdb_wrong"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_audit_log_without_keys(serve_engine: Serve, tmp_path: Path) -> None:
    address = serve_engine(audit_log=str(tmp_path / "audit.jsonl")).address
    fill(address)
    assert json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[0])["key"] == "everyone"
    with pytest.raises(errors.InvalidArgument, match="cannot write"):
        serve_engine(audit_log=str(tmp_path / "none" / "audit.jsonl"))


def test_an_audit_log_that_was_moved_away_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = AuditLog(path)
    before = os.umask(0o022)
    try:
        path.rename(tmp_path / "audit.1")
        audit.note("unix:", "root", "upsert", "docs", None)
    finally:
        os.umask(before)
        audit.close()
    assert json.loads(path.read_text())["call"] == "upsert"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_write_that_cannot_be_noted_in_the_audit_log_is_told_as_done(
    serve_engine: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    address = serve_engine(audit_log=str(folder / "audit.jsonl")).address
    fill(address)
    shutil.rmtree(folder)
    with connect(address) as db:
        assert db["docs"].upsert(["b"], [[0, 1]]).count == 1
        assert db["docs"].count() == 2
    (line,) = [record.getMessage() for record in caplog.records if "audit_log: cannot write" in record.getMessage()]
    assert '"call": "upsert"' in line
