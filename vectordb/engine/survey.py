"""What the policy is told of a collection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vectordb.engine.policy import Facts, Job, is_wasted, next_job

if TYPE_CHECKING:
    from vectordb.engine.live import LiveCollection
    from vectordb.types import Tuning


def facts_of(live: LiveCollection, asked: tuple[int, int] | None) -> list[Facts]:
    """The segments in offset order; for calls of ``optimize`` those below an offset, as of a version."""
    with live.lock:
        segments, parts = live.segments, live.snapshot.parts
    facts = []
    for segment, part in zip(segments, parts, strict=False):
        if asked is not None:
            upto, version = asked
            if segment.lo >= upto:
                break
            part = segment.view(version)
        facts.append(
            Facts(
                bytes=segment.rows * live.row_bytes,
                rows=segment.rows,
                dead=part.dead,
                overlaid=len(part.changed_rows()),
                replacements=part.replacements,
                wants_index=live.needs_index(segment),
                held=live.is_held(segment),
            )
        )
    return facts


class Outrun:
    """Whether a job of the background has been overtaken by a call of ``optimize`` that throws its result away.

    A graph over the first rows is built while the others are still being written: finished, it would be worth nothing
    to the merge of all that somebody waits for. Asked often, it looks at the segments once a call.
    """

    def __init__(self, live: LiveCollection, job: Job) -> None:
        self._live = live
        self._job = job
        self._extends = live.form.kind is not None and live.form.kind.capabilities.extends
        self._call = 0
        self._answer = False

    def by(self, call: int, asked: tuple[int, int], tuning: Callable[[LiveCollection], Tuning]) -> bool:
        """``call``: the number of the one that waits, 0 for none; ``asked``: what it is about (:func:`facts_of`)."""
        if call > self._call:
            facts = facts_of(self._live, asked)
            merge = next_job(facts, tuning(self._live), asked=True)
            self._answer = is_wasted(self._job, merge, facts, extends=self._extends)
            self._call = call
        return self._answer
