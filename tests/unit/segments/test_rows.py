import numpy as np
import pytest

from vectordb.segments.rows import RowBatch


def test_rows_of_one_commit() -> None:
    batch = RowBatch.dense(7, 3, ["a", "b"], [b"", b""], np.zeros((2, 4), np.float32), np.array([True, False]))
    assert batch.offsets.tolist() == [7, 8]
    assert batch.payload_versions.tolist() == [3, 3]
    assert batch.vector_mask().tolist() == [True, False]
    assert RowBatch.dense(0, 1, ["a"], [b""]).vector_mask().tolist() == [False]
    assert RowBatch.dense(0, 1, ["a"], [b""], np.zeros((1, 4), np.float32)).vector_mask().tolist() == [True]


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        RowBatch.dense(0, 1, ["a", "b"], [b""])
    with pytest.raises(ValueError, match="differ in length"):
        RowBatch.dense(0, 1, ["a"], [b""], np.zeros((2, 4), np.float32))
