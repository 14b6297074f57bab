"""What each form of target means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vectordb.errors import InvalidArgument
from vectordb_client import connect
from vectordb_client.targets import Kind, Target, parse_target


@pytest.mark.parametrize(
    ("target", "kind", "address", "tls"),
    [
        (":memory:", Kind.MEMORY, ":memory:", None),
        ("localhost:50051", Kind.SERVER, "localhost:50051", None),
        ("10.0.0.1:1", Kind.SERVER, "10.0.0.1:1", None),
        ("db.example.org:065", Kind.SERVER, "db.example.org:65", None),
        ("[::1]:50051", Kind.SERVER, "[::1]:50051", None),
        ("data:1", Kind.SERVER, "data:1", None),
        ("grpc://localhost:50051", Kind.SERVER, "localhost:50051", False),
        ("grpc://localhost:50051/", Kind.SERVER, "localhost:50051", False),
        ("GRPCS://[::1]:443", Kind.SERVER, "[::1]:443", True),
        ("unix:/tmp/a.sock", Kind.SERVER, "unix:/tmp/a.sock", None),
        ("unix:///tmp/a.sock", Kind.SERVER, "unix:///tmp/a.sock", None),
        ("unix:a.sock", Kind.SERVER, "unix:a.sock", None),
        ("data", Kind.FOLDER, "data", None),
        ("./data", Kind.FOLDER, "./data", None),
        ("./data:1", Kind.FOLDER, "./data:1", None),
        ("/srv/a:50051", Kind.FOLDER, "/srv/a:50051", None),
        ("C:\\x", Kind.FOLDER, "C:\\x", None),
        ("C:/x", Kind.FOLDER, "C:/x", None),
        ("C://x", Kind.FOLDER, "C://x", None),
        ("host:", Kind.FOLDER, "host:", None),
        ("./host:http", Kind.FOLDER, "./host:http", None),
        ("C:x", Kind.FOLDER, "C:x", None),
        ("my data:1", Kind.FOLDER, "my data:1", None),
        ("localhost", Kind.FOLDER, "localhost", None),
        (" localhost ", Kind.FOLDER, " localhost ", None),
        (" ", Kind.FOLDER, " ", None),
        (Path("localhost:50051"), Kind.FOLDER, "localhost:50051", None),
        (Path(":memory:"), Kind.FOLDER, ":memory:", None),
    ],
)
def test_target(target: str | Path, kind: Kind, address: str, tls: bool | None) -> None:
    assert parse_target(target) == Target(kind, address, tls)


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("", "must name a folder"),
        ("a\0b", "must name a folder"),
        (7, "got int"),
        (None, "got NoneType"),
        (b"data", "got bytes"),
        ("http://localhost:50051", "unknown scheme 'http://'"),
        ("localhost:50051\n", "blanks around it; write 'localhost:50051'"),
        (" unix:/tmp/a.sock", "blanks around it"),
        ("https://localhost:50051", "unknown scheme"),
        ("file:///srv/data", "unknown scheme"),
        ("grpc://localhost", "not of the form 'grpc://host:port'"),
        ("grpcs://user@host:1/path", "not of the form"),
        ("localhost:99999", "ports are 1 to 65535"),
        ("localhost:0", "ports are 1 to 65535"),
        ("localhost:" + "9" * 5000, "ports are 1 to 65535"),
        ("localhost:abc", r"port is no number; write 'host:50051', or './localhost:abc'"),
        ("host:\uff15\uff10", "port is no number"),
        ("db.example.org:5O051", "port is no number"),
        (":50051", "has no host"),
        ("::1:50051", r"write '\[::1\]:50051'"),
        ("unix:", "names no socket"),
    ],
)
def test_bad_target(target: object, told: str) -> None:
    with pytest.raises(InvalidArgument, match=told):
        parse_target(target)  # type: ignore[arg-type]


def test_numbers_of_numpy_are_numbers() -> None:
    with connect("localhost:1", timeout=np.int64(3), retries=np.int32(0)) as db:  # type: ignore[arg-type]
        assert (db._timeout, type(db._timeout)) == (3.0, float)
    with connect(":memory:", timeout=np.float32(2.5)) as db:  # type: ignore[arg-type]
        assert db._timeout == 2.5


def test_a_path_is_a_folder_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "localhost:50051"):
        with connect(Path(name)) as db:
            assert db.info().path == str(tmp_path / name)
