"""What a forked child must do about native handles that it inherited: nothing, for as long as it lives.

RocksDB's threads do not exist in the child. Two things at its end wait for them all the same: freeing a handle, which
the end of the interpreter would do, blocks for ever; and RocksDB's own exit handler, which joins them, crashes the
process (``PosixEnv::JoinThreadsOnExit``). A child that ends by ``os._exit``, as those of ``multiprocessing`` do, or by
``exec`` meets neither; one that returns, as the workers of a pre-forking server do, meets both.
"""

from __future__ import annotations

import ctypes


def keep(handles: object) -> None:
    """Makes an object and what it holds immortal in this process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handles))


def skip_exit_handlers() -> None:
    """Ends this process, once it ends, with its exit status but without the C library's remaining exit handlers.

    Python's own ``atexit`` functions and the flushing of its files come before and take place. Handlers run latest
    first, so this one precedes RocksDB's, and ends the process there. Where the C library has no ``on_exit`` (it is
    an extension of glibc) nothing is done.
    """
    process = ctypes.CDLL(None)
    if hasattr(process, "on_exit"):
        # `_exit` takes the status, the first of the two arguments that a handler is called with.
        process.on_exit(process._exit, None)
