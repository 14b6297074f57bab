"""The threshold that tells questions with an answer from those without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vectordb import errors
from vectordb_client import Database
from vectordb_client.rag import Document, KnowledgeBase
from vectordb_client.rag.calibration import calibrated


def test_separable_scores() -> None:
    rng = np.random.default_rng(0)
    report = calibrated(rng.uniform(0.5, 0.9, 400), rng.uniform(0.0, 0.4, 400))
    assert 0.35 < report.min_score < 0.55
    assert report.sufficient
    assert report.refused_foreign > 0.95
    assert report.refused_answerable < 0.05
    assert "sufficient" in str(report)


def test_scores_that_cannot_be_separated() -> None:
    same = np.linspace(0.0, 1.0, 400)
    report = calibrated(same, same)
    assert not report.sufficient
    assert "NOT sufficient" in str(report)
    assert 0.0 <= report.min_score <= 1.0


def test_the_halves_are_apart() -> None:
    answerable = np.array([0.9, 0.1] * 50)
    report = calibrated(answerable, np.full(100, 0.5))
    assert (report.chosen_answerable, report.refused_answerable) == (0.0, 1.0)
    assert not report.sufficient


def test_it_is_kept_with_the_knowledge_base(db: Database, hashing: Callable[..., Any]) -> None:
    kb = KnowledgeBase(db, "kb", hashing(512))
    assert kb.min_score is None
    with pytest.raises(errors.FailedPrecondition, match="empty"):
        kb.calibrate(["a", "b"], ["c", "d"])
    words = [f"alpha{n} beta{n} gamma{n}" for n in range(40)]
    kb.add([Document(str(n), text) for n, text in enumerate(words)], progress=False)
    foreign = [f"other{n} thing{n} else{n}" for n in range(40)]
    report = kb.calibrate(words, foreign, store=False)
    assert kb.min_score is None
    assert report.sufficient
    assert (report.stored, str(report).endswith("sufficient, not stored")) == (False, True)
    assert kb.calibrate(words, foreign) == replace(report, stored=True)
    assert KnowledgeBase(db, "kb", hashing(512)).min_score == report.min_score
    assert kb.retrieve(words[0], min_score=kb.min_score)[0].document_id == "0"
    assert kb.retrieve(foreign[1], min_score=kb.min_score) == []
    with pytest.raises(errors.InvalidArgument, match="answerable has 1"):
        kb.calibrate(["a"], ["b", "c"])


def test_what_is_not_sufficient_is_not_kept(memory: Database, hashing: Callable[..., Any]) -> None:
    kb = KnowledgeBase(memory, "kb", hashing(512))
    words = [f"alpha{n} beta{n} gamma{n}" for n in range(40)]
    kb.add([Document(str(n), text) for n, text in enumerate(words)], progress=False)
    # The same questions on both sides: nothing tells them apart.
    report = kb.calibrate(words, words)
    assert (report.sufficient, report.stored) == (False, False)
    assert str(report).endswith("NOT sufficient, not stored")
    assert kb.min_score is None
    good = kb.calibrate(words, [f"other{n} thing{n} else{n}" for n in range(40)])
    assert good.stored
    assert not kb.calibrate(words, words).stored
    assert kb.min_score == good.min_score
