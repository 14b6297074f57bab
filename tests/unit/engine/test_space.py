"""The watermark of a disk: what is refused below it, what is not, and that it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from vectordb.engine.capacity import space
from vectordb.engine.capacity.space import DEFAULT_BYTES, DiskSpace, Usage, watermark
from vectordb.errors import InvalidArgument, ResourceExhausted

MIB = 1 << 20


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, DEFAULT_BYTES),
        (0, 0),
        ("0", 0),
        (5 * MIB, 5 * MIB),
        ("2 GiB", 2048 * MIB),
        ("5%", 5000 * MIB),
        ("2.5 %", 2500 * MIB),
    ],
)
def test_watermarks(given: int | str | None, expected: int) -> None:
    assert watermark(given, 100_000 * MIB) == expected


def test_the_default_of_a_small_disk_is_a_share_of_it() -> None:
    assert watermark(None, 1000 * MIB) == 50 * MIB


@pytest.mark.parametrize("given", ["much", -1, 1.5, "100%", True])
def test_what_is_no_watermark(given: object) -> None:
    with pytest.raises(InvalidArgument, match="min_free_disk"):
        watermark(given, MIB)  # type: ignore[arg-type]


class Disk:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 1000 * MIB
        monkeypatch.setattr(space, "usage", lambda folder: Usage(10_000 * MIB, self.free))
        monkeypatch.setattr(space, "_AGE", -1.0)
        self.space = DiskSpace(folder, 100 * MIB)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path, monkeypatch)


def test_writes_end_at_the_watermark_and_deletions_at_a_quarter_of_it(disk: Disk) -> None:
    disk.space.check_write(1, frees=False)
    disk.free = 99 * MIB
    with pytest.raises(ResourceExhausted, match=r"99 MiB free.*min_free_disk keeps 100 MiB free") as caught:
        disk.space.check_write(1, frees=False)
    assert (caught.value.free, caught.value.limit, caught.value.resource) == (99 * MIB, 100 * MIB, "disk")
    assert "99 MiB free" in str(disk.space.read_only_reason)
    disk.space.check_write(1, frees=True)
    disk.free = 24 * MIB
    with pytest.raises(ResourceExhausted):
        disk.space.check_write(1, frees=True)


def test_it_ends_by_itself_and_does_not_flap(disk: Disk) -> None:
    disk.free = 99 * MIB
    assert disk.space.read_only_reason is not None
    disk.free = 105 * MIB
    assert disk.space.read_only_reason is not None
    disk.free = 111 * MIB
    assert disk.space.read_only_reason is None
    disk.free = 105 * MIB
    assert disk.space.read_only_reason is None


def test_large_writes_are_counted_before(disk: Disk) -> None:
    disk.free = 200 * MIB
    disk.space.check_write(50 * MIB, frees=False)
    with pytest.raises(ResourceExhausted, match="300 MiB are needed"):
        disk.space.check_write(100 * MIB, frees=False)


def test_jobs_stop_before_writes_do_but_not_those_that_give_space_back(disk: Disk) -> None:
    disk.free = 150 * MIB
    disk.space.check_write(1, frees=False)
    disk.space.check_job(50 * MIB, frees=False)
    with pytest.raises(ResourceExhausted, match="builds and merges wait"):
        disk.space.check_job(60 * MIB, frees=False)
    disk.space.check_job(60 * MIB, frees=True)


def test_a_real_disk_has_a_size(tmp_path: Path) -> None:
    total, free = space.usage(tmp_path)
    assert total >= free > 0
