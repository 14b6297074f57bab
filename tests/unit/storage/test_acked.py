"""The ACKED page survives torn stores, grows, and tells exactly what was lost."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from vectordb.errors import Closed, ResourceExhausted
from vectordb.storage.acked import Acked, AckedPage, Loss, lost, read_acked


def slots(path: Path) -> tuple[int, int]:
    """Byte positions of the (newer, older) slot."""
    data = path.read_bytes()
    capacity = struct.unpack_from("<I", data, 8)[0]
    at = [64, 64 + 40 + 16 * capacity]
    at.sort(key=lambda a: struct.unpack_from("<Q", data, a + 8)[0], reverse=True)
    return at[0], at[1]


def damage(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_missing_file_is_unknown_until_the_first_store(tmp_path: Path) -> None:
    page = AckedPage(tmp_path / "ACKED")
    assert not page.load().known
    assert "missing" in str(page.load().problem)
    assert not (tmp_path / "ACKED").exists()
    page.store(10, {1: 1})
    assert page.load() == Acked(10, {1: 1})
    page.close()
    assert read_acked(tmp_path / "ACKED") == Acked(10, {1: 1})


def test_stores_accumulate_and_reopen(tmp_path: Path) -> None:
    path = tmp_path / "ACKED"
    expected: dict[int, int] = {}
    for opening in range(3):
        page = AckedPage(path)
        assert page.load().versions == expected
        for i in range(1, 30):
            number, version = i % 7 + 1, opening * 100 + i
            page.store(opening * 1000 + i, {number: version})
            expected[number] = version
            assert read_acked(path) == page.load() == Acked(opening * 1000 + i, expected)
        page.close()


def test_a_torn_store_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "ACKED"
    page = AckedPage(path)
    page.store(1, {1: 1, 2: 1})
    page.store(2, {1: 2})
    page.store(3, {2: 3})
    newer, older = slots(path)
    for at in (newer, newer + 8, newer + 16, newer + 24, newer + 48, newer + 60):
        damage(path, at)
        assert read_acked(path) == Acked(2, {1: 2, 2: 1})
        damage(path, at)
    assert read_acked(path) == Acked(3, {1: 2, 2: 3})
    damage(path, newer)
    damage(path, older)
    page.close()
    page = AckedPage(path)
    assert not page.load().known
    assert "damaged" in str(page.load().problem)
    assert lost(page.load(), 0, {}) == []
    page.store(9, {5: 5})
    assert read_acked(path) == Acked(9, {5: 5})
    page.close()


@pytest.mark.parametrize("content", [b"", b"x" * 10, b"x" * 10_000, b"VDBACK01" + b"\xff" * 60])
def test_foreign_content_is_unknown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ACKED").write_bytes(content)
    assert not read_acked(tmp_path / "ACKED").known


def test_truncated_file_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "ACKED"
    page = AckedPage(path)
    page.store(1, {1: 1})
    page.close()
    path.write_bytes(path.read_bytes()[:1000])
    assert not read_acked(path).known


def test_grows_and_drops(tmp_path: Path) -> None:
    path = tmp_path / "ACKED"
    page = AckedPage(path)
    expected = {}
    for number in range(1, 1200):
        expected[number] = number * 2
        page.store(number, {number: number * 2})
    assert read_acked(path) == Acked(1199, expected)
    page.store(2000, {7: 99}, dropped=[3, 500, 4000])
    expected[7] = 99
    del expected[3], expected[500]
    assert read_acked(path) == Acked(2000, expected)
    page.store(2001, {3000: 1})
    page.store(2002, {7: 100})
    assert read_acked(path) == Acked(2002, {**expected, 3000: 1, 7: 100})
    page.close()


def test_sequence_never_goes_back(tmp_path: Path) -> None:
    page = AckedPage(tmp_path / "ACKED")
    page.store(10, {1: 1})
    page.store(7, {1: 2})
    assert page.load() == Acked(10, {1: 2})
    page.close()


def test_accepted_loss_resets(tmp_path: Path) -> None:
    page = AckedPage(tmp_path / "ACKED")
    page.store(100, {1: 10, 2: 5})
    page.close()
    page = AckedPage(tmp_path / "ACKED")
    page.reset(90, {1: 8}, dropped=[2])
    assert lost(read_acked(tmp_path / "ACKED"), 90, {1: 8}) == []
    assert read_acked(tmp_path / "ACKED") == Acked(90, {1: 8})
    page.close()


def test_closed_page_refuses(tmp_path: Path) -> None:
    page = AckedPage(tmp_path / "ACKED")
    page.store(1, {})
    page.close()
    page.close()
    with pytest.raises(Closed):
        page.store(2, {1: 1})


def test_full_disk_is_told_before_anything_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    page = AckedPage(tmp_path / "ACKED")
    page.store(1, {1: 1})
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(ResourceExhausted, match="no space left"):
        page.store(2, dict.fromkeys(range(1, 2000), 5))
    assert read_acked(tmp_path / "ACKED") == Acked(1, {1: 1})
    page.close()


def test_a_full_disk_keeps_nobody_from_deleting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "ACKED"
    page = AckedPage(path)
    page.store(1, dict.fromkeys(range(1, 251), 1))
    with monkeypatch.context() as patch:
        patch.setattr("os.posix_fallocate", full)
        page.drop(2, 7)
        page.store(3, {250: 2, 1: 2})
        with pytest.raises(ResourceExhausted, match="no space left"):
            page.store(4, {251: 0})
        page.store(5, {250: 3, 2: 2})
    there = {number: read_acked(path).versions[number] for number in range(1, 251) if number != 7}
    assert there == dict.fromkeys(there, 1) | {250: 3, 1: 2, 2: 2}
    assert lost(read_acked(path), 5, there, next_number=252) == []
    page.store(6, {251: 0})
    assert read_acked(path).versions == there | {251: 0}
    page.close()


def test_storing_takes_microseconds(tmp_path: Path) -> None:
    page = AckedPage(tmp_path / "ACKED")
    page.store(1, dict.fromkeys(range(1, 1001), 1))
    started = time.process_time()
    for i in range(1000):
        page.store(i, {1 + i % 1000: i})
    assert (time.process_time() - started) / 1000 < 0.001
    page.close()


def test_lost() -> None:
    acked = Acked(100, {1: 10, 2: 5, 3: 7})
    assert lost(acked, 100, {1: 10, 2: 5, 3: 7}) == []
    assert lost(acked, 250, {1: 12, 2: 5, 3: 7, 4: 1}) == []
    found = lost(acked, 90, {1: 8, 2: 5})
    assert found == [Loss(1, 10, 8), Loss(3, 7, None)]
    assert [str(loss) for loss in found] == [
        "collection number 1 lost acknowledged versions 9 to 10",
        "collection number 3, acknowledged at version 7, is lost",
    ]
    assert str(lost(acked, 100, {1: 9, 2: 5, 3: 7})[0]) == "collection number 1 lost acknowledged version 10"
    assert lost(acked, 90, {1: 10, 2: 5, 3: 7}) == [Loss(None, 100, 90)]
    assert "sequence number 90 up to 100" in str(Loss(None, 100, 90))
    assert lost(Acked(100, {1: 10}, known=False), 0, {}) == []
    # Number 3 was given out and is gone: it was deleted before the page said so. Number 4 never was.
    assert lost(acked, 100, {1: 10, 2: 5}, next_number=4) == []
    assert lost(Acked(100, {4: 1}), 100, {}, next_number=4) == [Loss(4, 1, None)]
