"""Threads that carry out calls for as long as the process lives."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import Any


class CallPool(ThreadPoolExecutor):
    """A pool that takes calls until it is shut down, also after the main thread has ended.

    From then on ``concurrent.futures`` takes no work, although other threads of the program may run on for as long as
    they like: whoever else uses their folder would wait for answers in vain. Each call then has a thread of its own.
    """

    _ended = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As of ``ThreadPoolExecutor``."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            if self._ended:
                raise
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        # The process does not wait for it: when it ends the caller finds another owner.
        Thread(target=_carry_out, args=(future, fn, args, kwargs), name="vectordb-late", daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As of ``ThreadPoolExecutor``."""
        self._ended = True
        super().shutdown(wait, cancel_futures=cancel_futures)


def _carry_out(future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        future.set_result(fn(*args, **kwargs))
    except BaseException as error:
        future.set_exception(error)
