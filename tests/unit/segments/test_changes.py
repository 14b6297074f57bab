from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vectordb.segments.changes import Changes


class Interrupting(int):
    """The version of the last change; something happens right after a view was compared with it."""

    meanwhile: Callable[[], object]

    def __le__(self, other: int) -> bool:
        found = int(self) <= other
        self.meanwhile()
        return found


def dead(changes: Changes, version: int) -> list[int]:
    return changes.at(version)[0].rows().to_array().tolist()


def test_a_view_made_beside_a_deletion_is_not_kept_after_it() -> None:
    changes = Changes(None)
    changes.mark_deleted(np.array([3]), 1, 10)
    changes._changed = Interrupting(1)
    changes._changed.meanwhile = lambda: changes.mark_deleted(np.array([5]), 2, 10)
    assert dead(changes, 1) == [3]
    assert dead(changes, 2) == [3, 5]
    assert dead(changes, 1) == [3]


def test_a_view_serves_later_versions_until_something_changes() -> None:
    changes = Changes(None)
    changes.mark_deleted(np.array([3]), 1, 10)
    first = changes.at(4)
    assert changes.at(5)[0] is first[0]
    changes.overlay(np.array([1]), 6, [b""])
    assert changes.at(6)[1] is not None
    assert dead(changes, 6) == [3]
