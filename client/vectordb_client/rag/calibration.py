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
        stored: Whether it is the knowledge base's threshold now: one that is not sufficient is never stored.
    """

    min_score: float
    refused_foreign: float
    refused_answerable: float
    chosen_foreign: float
    chosen_answerable: float
    sufficient: bool
    questions: int
    stored: bool = False

    def __str__(self) -> str:
        verdict = "sufficient" if self.sufficient else "NOT sufficient"
        stored = "stored" if self.stored else "not stored"
        return (
            f"min_score {self.min_score:.3f} refuses {self.refused_foreign:.1%} of foreign and "
            f"{self.refused_answerable:.1%} of answerable questions: {verdict}, {stored}"
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
    """The score that keeps furthest from both bounds, or exceeds them least, each in parts of what it allows.

    The middle of the scores would not do: near the bounds the two kinds of scores are not equally dense.
    """
    edges = np.unique(np.concatenate([answerable, foreign]))
    edges = edges[np.isfinite(edges)]
    if not len(edges):
        return 0.0
    edges = np.append((edges[:-1] + edges[1:]) / 2, np.nextafter(edges[-1], np.inf))
    kept_foreign = 1.0 - np.searchsorted(np.sort(foreign), edges) / len(foreign)
    lost = np.searchsorted(np.sort(answerable), edges) / len(answerable)
    allowed = 1.0 - REFUSE_FOREIGN
    slack = np.minimum((allowed - kept_foreign) / allowed, (REFUSE_ANSWERABLE - lost) / REFUSE_ANSWERABLE)
    best = edges[slack >= slack.max() - 1e-12]
    return float(best[len(best) // 2])
