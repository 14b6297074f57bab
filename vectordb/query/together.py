"""The candidates of many queries of a batch, judged and scored at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from vectordb.query import probe
from vectordb.query.merge import Alike, Found

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vectordb.query.indexed import Search


def unjudged(
    state: Search, numbers: Sequence[int], candidates: NDArray[np.int64], k: int
) -> Iterable[tuple[int, NDArray[np.int64]]]:
    """The queries whose candidates int64[q, c] need a closer look, with them; those of the others are taken over.

    These have as many that may be returned as are to be scored, and no equal scores at the cut. They are scored
    together: as ``indexed._judge`` does it, without its calls for each.
    """
    run, limit = state.run, state.run.limit
    wanted = min(state.step.rescored, candidates.shape[1])
    if len(numbers) == 1 or wanted <= limit:
        return zip(numbers, candidates, strict=True)
    passing = _passing(state, candidates)
    unsure: list[int] = []
    places: Sequence[int] = range(len(numbers))
    chosen = candidates[:, :wanted]
    if passing is not None:
        # The first that pass, in their order.
        order = (~passing).argsort(axis=1, kind="stable")[:, :wanted]
        sure = np.take_along_axis(passing, order[:, -1:], axis=1)[:, 0]
        if state.told is not None:
            sure &= probe.rank(order[:, state.needed - 1], state.needed, state.share) <= probe.BELIEVED * k
        if not sure.any():
            return zip(numbers, candidates, strict=True)
        unsure, places = np.flatnonzero(~sure).tolist(), np.flatnonzero(sure).tolist()
        chosen = np.take_along_axis(candidates[sure], order[sure], axis=1)
    rows = state.part.rows_of(chosen)
    distances = run.all_final_distances([numbers[place] for place in places], state.part, rows)
    # Places in the flat arrays: numpy's take_along_axis makes an index for every axis.
    order = distances.argsort(axis=1, kind="stable")
    order += np.arange(0, len(places) * wanted, wanted)[:, None]
    distances, rows = distances.take(order), rows.take(order)
    tied = distances[:, limit - 1] == distances[:, -1]
    if len(places) == len(run.queries) and not tied.any():
        run.put_alike(Alike(state.number, rows, distances))
        return ()
    for i, place in enumerate(places):
        if tied[i]:
            unsure.append(place)
        else:
            run.put(numbers[place], Found(state.number, rows[i], distances[i]))
    return [(numbers[place], candidates[place]) for place in sorted(unsure)]


def _passing(state: Search, candidates: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Which of the candidates int64[q, c] may be returned: bool[q, c]; ``None`` where all may."""
    part, there = state.part, candidates >= 0
    if state.bits is not None:
        # Set bits are those of living rows.
        positions = np.maximum(candidates, 0)
        there &= (state.bits[positions >> 3] >> (positions & 7)) & 1 == 1
    elif part.dead:
        rows = np.maximum(part.rows_of(candidates), 0)
        there &= part.alive(rows.ravel()).reshape(rows.shape)
    elif there.all():
        return None
    return there
