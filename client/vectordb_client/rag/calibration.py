"""Choosing the score below which a question is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vectordb.errors import InvalidArgument

if TYPE_CHECKING:
    from numpy.typing import NDArray

REFUSE_FOREIGN, REFUSE_ANSWERABLE = 0.90, 0.05
"""What is asked for: at least so many of the foreign questions refused, at most so many of the answerable ones."""


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """A threshold and how it does on the half of the questions that it was not chosen on.

    Attributes:
        min_score: Cosine similarity.
        refused_foreign, refused_answerable: Fractions of the held-out questions.
        chosen_foreign, chosen_answerable: The same on the half that it was chosen on.
        sufficient: Whether the held-out half meets 90 % and 5 %.
        questions: How many there were, both halves and kinds together.
    """

    min_score: float
    refused_foreign: float
    refused_answerable: float
    chosen_foreign: float
    chosen_answerable: float
    sufficient: bool
    questions: int

    def __str__(self) -> str:
        verdict = "sufficient" if self.sufficient else "NOT sufficient"
        return (
            f"min_score {self.min_score:.3f} refuses {self.refused_foreign:.1%} of foreign and "
            f"{self.refused_answerable:.1%} of answerable questions: {verdict}"
        )


def calibrated(answerable: NDArray[np.float64], foreign: NDArray[np.float64]) -> CalibrationReport:
    """The report for the best scores of both kinds of questions, in their order.

    Raises:
        InvalidArgument: Fewer than two questions of a kind.
    """
    for name, found in (("answerable", answerable), ("foreign", foreign)):
        if len(found) < 2:
            raise InvalidArgument(f"{name} has {len(found)} questions; at least two are needed", field=name)
    threshold = _threshold(answerable[::2], foreign[::2])
    held = float(np.mean(foreign[1::2] < threshold)), float(np.mean(answerable[1::2] < threshold))
    chosen = float(np.mean(foreign[::2] < threshold)), float(np.mean(answerable[::2] < threshold))
    sufficient = held[0] >= REFUSE_FOREIGN and held[1] <= REFUSE_ANSWERABLE
    return CalibrationReport(threshold, *held, *chosen, sufficient, len(answerable) + len(foreign))


def _threshold(answerable: NDArray[np.float64], foreign: NDArray[np.float64]) -> float:
    """The middle of the scores that meet both bounds; where none does, the one that exceeds them least."""
    low = float(np.quantile(foreign, REFUSE_FOREIGN, method="higher"))
    high = float(np.quantile(answerable, REFUSE_ANSWERABLE, method="lower"))
    if np.isfinite([low, high]).all() and low < high:
        return (low + high) / 2
    edges = np.unique(np.concatenate([answerable, foreign]))
    edges = edges[np.isfinite(edges)]
    if not len(edges):
        return 0.0
    kept_foreign = np.mean(foreign[None, :] >= edges[:, None], axis=1)
    lost = np.mean(answerable[None, :] < edges[:, None], axis=1)
    excess = np.maximum(kept_foreign - (1 - REFUSE_FOREIGN), 0) + np.maximum(lost - REFUSE_ANSWERABLE, 0)
    best = np.flatnonzero(excess == excess.min())
    return float(edges[best[len(best) // 2]])
