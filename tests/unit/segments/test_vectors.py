from pathlib import Path

import numpy as np
import pytest

from vectordb.segments import vectors
from vectordb.segments.files import Draft
from vectordb.segments.vectors import VectorMatrix, map_array


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.arange(6000, dtype="<f4").tofile(tmp_path / "v")
    return tmp_path / "v"


def test_a_file_is_mapped_without_a_copy(file: Path) -> None:
    matrix = VectorMatrix.open(file, 1500, 4)
    assert matrix._map is not None
    assert not matrix.array.flags.writeable
    assert matrix.take(np.array([7, 0])).tolist() == [[28, 29, 30, 31], [0, 1, 2, 3]]
    pieces = list(matrix.stretches(100))
    assert [start for start, _ in pieces] == list(range(0, 1500, 6))
    assert np.array_equal(np.concatenate([piece for _, piece in pieces]), matrix.array)


def test_values_hold_while_parts_are_unmapped(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_LEAST", 1)
    monkeypatch.setattr(vectors, "_WINDOW", 4096)
    matrix = VectorMatrix.open(file, 1500, 4)
    expected = matrix.array.copy()
    matrix.set_sparse(0.9)
    assert matrix.resident_bytes == int(0.9 * matrix.nbytes)
    rng = np.random.default_rng(0)
    for count in [4] * 50 + [1500] * 50:
        rows = rng.integers(0, 1500, count)
        assert np.array_equal(matrix.take(rows), expected[rows])
    assert np.array_equal(np.concatenate([block for _, block in matrix.stretches(1 << 10)]), expected)


def test_rescoring_leaves_little_resident(tmp_path: Path) -> None:
    draft = Draft(tmp_path)
    draft.path.mkdir()
    with draft.writer("large") as file:
        for _ in range(64):
            file.write(np.ones(1 << 18, "<f4"))
    matrix = VectorMatrix.open(draft.path / "large", 1 << 15, 512)
    before = _resident_kib()
    matrix.set_sparse(0.9)
    rng = np.random.default_rng(0)
    most = 0
    for _ in range(400):
        matrix.take(rng.integers(0, 1 << 15, 10))
        most = max(most, _resident_kib() - before)
    # 90 % of 64 MiB, and what is touched between two looks.
    assert (32 << 10) < most < (60 << 10)


def test_a_small_matrix_stays_mapped_and_half_of_a_large_one() -> None:
    assert vectors.usual_share(100 << 20) == vectors.usual_share(0) == 0.99
    assert vectors.usual_share(400 << 20) == pytest.approx(0.64)
    assert vectors.usual_share(10 << 30) == 0.5


def _resident_kib() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssFile"))


def test_an_empty_file_is_an_empty_array(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    array, mapped = map_array(tmp_path / "empty", np.dtype("<f4"), 0)
    assert len(array) == 0
    assert mapped is None


def test_a_short_file_is_refused(file: Path) -> None:
    with pytest.raises(ValueError, match="buffer is smaller"):
        VectorMatrix.open(file, 1501, 4)
