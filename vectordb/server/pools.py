"""Threads that carry out calls for as long as the process lives."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import Any

log = logging.getLogger("vectordb.server")

_TOLD_EVERY = 60.0


class _Told:
    """When it was last told that there are no more threads; guarded by nothing: twice does no harm."""

    at: float | None = None


def tell_of_no_threads() -> None:
    """Notes that the system gave no thread for a call, once a minute."""
    now = time.monotonic()
    if _Told.at is None or now - _Told.at >= _TOLD_EVERY:
        _Told.at = now
        log.warning(
            "the system gives no more threads, and calls wait for those that there are: raise the limit of processes "
            "(ulimit -u, pids, TasksMax), or lower max_pending_calls"
        )


class CallPool(ThreadPoolExecutor):
    """A pool that takes calls until it is shut down, also after the main thread has ended.

    From then on ``concurrent.futures`` takes no work, although other threads of the program may run on for as long as
    they like: whoever else uses their folder would wait for answers in vain. Each call then has a thread of its own.
    Where the system has no thread for a call, it waits for one of those that there are.
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

    def _adjust_thread_count(self) -> None:
        # The executor's own, called once the call is in its queue. An error would end the thread of grpcio that takes
        # up calls, and with it the server for all time.
        try:
            super()._adjust_thread_count()  # type: ignore[misc,unused-ignore]
        except RuntimeError:
            tell_of_no_threads()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As of ``ThreadPoolExecutor``."""
        self._ended = True
        super().shutdown(wait, cancel_futures=cancel_futures)


def _carry_out(future: Future[Any], fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        future.set_result(fn(*args, **kwargs))
    except BaseException as error:
        future.set_exception(error)
