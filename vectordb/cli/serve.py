"""``vectordb serve``: one folder over gRPC, until SIGTERM or SIGINT."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vectordb.cli import open_files
from vectordb.cli.notify import notify
from vectordb.errors import InvalidArgument
from vectordb.server.config import SETTINGS, Config, load, misspelt
from vectordb.server.logs import set_up

if TYPE_CHECKING:
    from vectordb.server.app import Server

log = logging.getLogger("vectordb.server")


def command(config: str | None = None, **flags: Any) -> None:
    """Serves a folder over gRPC.

    Prints one line, "listening on HOST:PORT", once it serves; stops on SIGTERM or SIGINT, letting running calls finish.
    """
    settings = load(flags, config)
    # Both transports have lines of their own about a failed bind; the error that is raised says it better.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.getLogger("pygrpc_native").addFilter(lambda record: "could not bind" not in record.getMessage())
    set_up(settings.log_level, settings.log_format)
    # The kernel may give a signal to any native thread, and a handler in Python waits for the main thread, which
    # nothing would wake then. The wake-up pipe is written by whichever thread the signal comes to.
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    if settings.api_keys is None and os.environ.get("VECTORDB_API_KEY"):
        log.warning("VECTORDB_API_KEY is a client's; this server has no api_keys and asks nobody for a key")
    for name, meant in misspelt(os.environ):
        log.warning("the environment variable %s is no setting; did you mean %s?", name, meant)
    open_files.allow()
    server = _server(settings)
    print(f"listening on {server.start()}", flush=True)
    _tell_systemd("READY=1")
    os.read(told, 1)
    _tell_systemd("STOPPING=1")
    server.stop()
    logging.shutdown()
    left = [thread for thread in threading.enumerate() if thread.name.startswith("vectordb-") and not thread.daemon]
    end = time.monotonic() + 1
    for thread in left:
        thread.join(max(0.0, end - time.monotonic()))
    if any(thread.is_alive() for thread in left):
        # A call that would not stop must not keep the process: the backend is closed, nothing is lost.
        os._exit(0)


def _tell_systemd(state: str) -> None:
    try:
        notify(state)
    except OSError as error:
        # Whoever should be told is not there, as where a container inherited the variable: the data is served anyway.
        log.warning("NOTIFY_SOCKET: cannot tell %s: %s", state, error.strerror or error)


def _server(settings: Config) -> Server:
    from vectordb.server.app import Server

    def engine() -> Any:
        from vectordb.engine.capacity.resources import Demands
        from vectordb.engine.database import Engine
        from vectordb.limits import BOUNDS
        from vectordb.server.sharing import open_shared

        known = [*list(inspect.signature(Engine).parameters)[1:-1], *Demands.__dataclass_fields__, *BOUNDS]
        for name in settings.engine:
            if name not in known:
                raise InvalidArgument(f"the engine has no option {name!r}; known are {', '.join(known)}", field=name)
        options = {"shared": True, "own_process": True, "memory_limit": settings.memory_limit, **settings.engine}
        if options["memory_limit"] == "none":
            options["memory_limit"] = None
        return open_shared(settings.data, **options)

    return Server(engine, settings)


def _with_flags() -> inspect.Signature:
    """The signature that typer reads: ``--config`` and a flag a setting."""
    text = "TOML file of settings [env: VECTORDB_CONFIG]."
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(
            "config", kind, default=None, annotation=Annotated[str | None, typer.Option("--config", help=text)]
        )
    ]
    for setting in SETTINGS:
        default = "" if setting.default is None else f", default: {setting.default}"
        option = typer.Option(setting.flag, help=f"{setting.help} [env: {setting.variable}{default}]")
        parameters.append(inspect.Parameter(setting.name, kind, default=None, annotation=Annotated[str | None, option]))
    return inspect.Signature(parameters)


command.__signature__ = _with_flags()  # type: ignore[attr-defined]
command.__annotations__ = {name: p.annotation for name, p in _with_flags().parameters.items()}
