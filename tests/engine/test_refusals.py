"""The system refuses something for a while (disk space, files, memory): what callers are told, and what is left."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import vectordb
from vectordb import errors

ROWS = np.random.default_rng(3).normal(size=(300, 8)).astype(np.float32)
IDS = [f"i{n}" for n in range(len(ROWS))]


def _refusing(number: int) -> Callable[..., Any]:
    def refuse(*args: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("wrong", [{"min_free_disk": "much"}, {"memory_limit": "little"}, {"max_dim": 0}])
def test_a_wrong_option_leaves_the_folder_free(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument):
        vectordb.Database(tmp_path, **wrong)
    vectordb.Database(tmp_path).close()


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_at_opening_is_told_and_leaves_the_folder_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, _refusing(errno.ENOSPC))
        with pytest.raises(errors.ResourceExhausted, match="no space is left"):
            vectordb.Database(tmp_path)
    vectordb.Database(tmp_path).close()
