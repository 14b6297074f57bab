"""The gate waits for those inside, and lets nobody in afterwards."""

from __future__ import annotations

import threading
import time

import pytest

from vectordb.errors import Closed
from vectordb.storage.gate import Gate


def test_close_waits_for_those_inside() -> None:
    gate, events = Gate("the thing"), []
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with gate:
            inside.set()
            leave.wait()
            time.sleep(0.02)
            events.append("left")

    def close() -> None:
        assert gate.close()
        events.append("closed")

    worker, closer = threading.Thread(target=work), threading.Thread(target=close)
    worker.start()
    inside.wait()
    closer.start()
    while not gate.shut:
        time.sleep(0.001)
    with pytest.raises(Closed, match="the thing is closed"), gate:
        pytest.fail("let in")
    leave.set()
    worker.join()
    closer.join()
    assert events == ["left", "closed"]
    assert not gate.close()


def test_errors_inside_leave_the_gate_free() -> None:
    gate = Gate("x")
    with pytest.raises(KeyError), gate:
        raise KeyError
    gate.close()
