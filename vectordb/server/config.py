"""Every setting of the server in one table: its flag, environment variable, TOML key, default and meaning.

A value comes from the first that gives one: flag > environment > file > default. ``listen`` is the flag ``--listen``,
the variable ``VECTORDB_LISTEN`` and the key ``listen``. Keys of the file's table ``[engine]`` go to the engine as they
are.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from vectordb.errors import InvalidArgument
from vectordb.limits import BOUNDS, DEFAULTS
from vectordb.sizes import parse_size
from vectordb.types import Durability

_LEVELS = ("debug", "info", "warning", "error")
_ENGINE = "engine"
_PREFIX = "VECTORDB_"
_CLIENTS = "VECTORDB_API_KEY"
"""A variable of clients that only looks like one of the settings."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        parse: Turns text (or a TOML value) into the value; ``ValueError`` says what is wrong.
        default: ``None`` for a setting without one.
        help: One sentence.
        engine: Whether the engine is given it.
    """

    name: str
    parse: Callable[[Any], Any]
    default: Any
    help: str
    engine: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return _PREFIX + self.name.upper()


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("is text and not empty")
    return value


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9](_?[0-9]){0,19}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"is a whole number from {low} to {high}")
        return value

    return parse


def _size(value: Any) -> int:
    size = parse_size(value)
    if size is None or not 1 << 20 <= size <= 1 << 40:
        raise ValueError("is a number of bytes from 1 MiB to 1 TiB, such as 268435456 or '256 MiB'")
    return size


def _memory(value: Any) -> int | str:
    if value in ("auto", "none"):
        return str(value)
    size = parse_size(value)
    if size is None or size < 32 << 20:
        raise ValueError("is a number of bytes from 32 MiB, such as '4 GiB', or 'auto', or 'none'")
    return size


def _free(value: Any) -> int | str:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,2}(\.[0-9]+)?\s*%", value):
        return value
    size = parse_size(value)
    if size is None:
        raise ValueError("is a number of bytes, such as '2 GiB', or a share of the disk, such as '5%', or 0")
    return size


def _cap(name: str) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        size = parse_size(value)
        if size is None or not 1 <= size <= BOUNDS[name]:
            raise ValueError(f"is a whole number from 1 to {BOUNDS[name]}")
        return size

    return parse


def _seconds(value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError):
        number = -1.0
    if not 0 < number <= 86_400:
        raise ValueError("is seconds greater than 0, at most 86400")
    return number


def _flag(value: Any) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in known:
        raise ValueError("is true or false")
    return known[str(value).lower()]


def _one_of(*names: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if not isinstance(value, str) or value.lower() not in names:
            raise ValueError(f"is one of {', '.join(names)}")
        return value.lower()

    return parse


def _listen(value: Any) -> str:
    if not isinstance(value, str) or not (
        re.fullmatch(r"unix:.+", value) or re.fullmatch(r"(\[[0-9a-fA-F:.%a-z]+\]|[^:\s/]+):[0-9]{1,5}", value)
    ):
        raise ValueError("is HOST:PORT ([v6]:PORT), or unix:/path")
    if not value.startswith("unix:") and int(value.rpartition(":")[2]) > 65_535:
        raise ValueError("has a port above 65535")
    return value


def _tcp(value: Any) -> str:
    if str(value).startswith("unix:"):
        raise ValueError("is HOST:PORT ([v6]:PORT)")
    return _listen(value)


SETTINGS: tuple[Setting, ...] = (
    Setting("data", _text, "./data", "Folder of the database, or :memory:."),
    Setting("listen", _listen, "127.0.0.1:50051", "HOST:PORT (port 0 picks one) or unix:/path."),
    Setting(
        "transport",
        _one_of("auto", "grpcio", "native"),
        "auto",
        "What speaks HTTP/2: native (extra of that name) costs less a call but has no TLS; auto takes it where it can.",
    ),
    Setting("lane", _flag, True, "Searches and writes of this user's clients on this machine go over a Unix socket."),
    Setting("log_level", _one_of(*_LEVELS), "info", "Least severe lines to log on standard error."),
    Setting("log_format", _one_of("text", "json"), "text", "Lines for people, or one JSON object a line."),
    Setting("metrics_listen", _tcp, None, "HOST:PORT where Prometheus finds /metrics; none without it."),
    Setting(
        "recall_sample_seconds",
        _seconds,
        60.0,
        "With metrics: how often one served search is repeated exactly, to estimate the recall.",
    ),
    Setting("slow_query_seconds", _seconds, None, "Operations that take so long are logged with their plan."),
    Setting("slow_query_values", _flag, False, "Log the values of slow filters too: they are data of users."),
    Setting("tracing", _flag, False, "A span of OpenTelemetry for each call."),
    Setting("max_message_bytes", _size, 272 << 20, "Largest message either way: a write and its overhead."),
    Setting("max_workers", _whole(1, 1024), 8, "Calls that are carried out at a time."),
    Setting(
        "max_searches",
        _whole(1, 1024),
        len(os.sched_getaffinity(0)) + 1,
        "Of these, searches, counts and scans that compute for more than 3 ms.",
    ),
    Setting("max_pending_calls", _whole(1, 1 << 14), 1000, "Calls running and waiting; more are refused."),
    Setting("max_queue_seconds", _seconds, 2.0, "Calls that would wait longer for their turn are refused."),
    Setting("max_queued_bytes", _size, 512 << 20, "Bytes of the messages that wait; more are refused."),
    Setting(
        "max_streams",
        _whole(1, 1024),
        16,
        "Calls at a time that may take long (bulk writes, builds, backups, checks, erasures); more are refused.",
    ),
    Setting("max_scans", _whole(1, 1 << 20), 64, "Open scans; more are refused."),
    Setting("scan_idle_seconds", _seconds, 60.0, "A scan or bulk write that is silent for so long is released."),
    Setting("drain_seconds", _seconds, 3.0, "Time that running calls have to finish when the server stops."),
    Setting("keepalive_seconds", _seconds, 60.0, "Silent connections are pinged so often; dead ones are closed."),
    Setting("tls_cert", _text, None, "PEM file of the server's certificate and chain; with tls_key it speaks TLS."),
    Setting("tls_key", _text, None, "PEM file of its private key. Changed files are read again."),
    Setting("tls_client_ca", _text, None, "PEM file of authorities: only clients with their certificates are let in."),
    Setting("allow_plaintext", _flag, False, "Listen without TLS where other machines can connect."),
    Setting("api_keys", _text, None, "TOML file of API keys; without it nobody is asked for one."),
    Setting("audit_log", _text, None, "File that gets a line of JSON for each write, change and refusal."),
    Setting("backup_to", _text, None, "Folder or URL where backups go that clients ask for; none are made without it."),
    Setting("durability", _one_of(*Durability), "sync", "What acknowledged writes survive.", engine=True),
    Setting("accept_loss", _flag, False, "Open although acknowledged data is known to be lost.", engine=True),
    Setting(
        "scrub_bytes_per_second",
        _whole(0, 1 << 40),
        8 << 20,
        "How fast files are checked in the background; 0: not at all.",
        engine=True,
    ),
    Setting("cache_bytes", _size, None, "Memory for the storage's block cache; without it the engine's.", engine=True),
    Setting(
        "memory_limit",
        _memory,
        "auto",
        "Memory that the process keeps to: bytes, auto (80 % of the container's or machine's), none.",
        engine=True,
    ),
    Setting(
        "min_free_disk",
        _free,
        None,
        "Free disk space below which writes are refused; without it 256 MiB, or 5 % of a small disk.",
        engine=True,
    ),
    *(
        Setting(name, _cap(name), getattr(DEFAULTS, name), f"At most so many {text}.", engine=True)
        for name, text in (
            ("max_dim", "dimensions of a collection"),
            ("max_limit", "hits a query, and records a page of a scan"),
            ("max_queries", "queries of one search"),
            ("max_batch_rows", "records of one write"),
            ("max_get_ids", "ids of one get"),
            ("max_text_bytes", "bytes of one text"),
            ("max_metadata_bytes", "bytes of one record's metadata"),
            ("max_id_bytes", "bytes of one id"),
            ("max_filter_depth", "levels of one filter"),
            ("max_filter_nodes", "conditions of one filter"),
            ("max_collections", "collections"),
        )
    ),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Config:
    """Settled values, and where each came from.

    Attributes:
        values: By setting; read them as attributes too: ``config.listen``.
        origins: ``flag --listen``, ``environment VECTORDB_LISTEN``, ``file /etc/vectordb.toml`` or ``default``; those
            of engine options that are no settings as ``engine.NAME``.
        engine: Options for the engine: those given (not defaults), and the file's ``[engine]`` table.
    """

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    engine: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(f"there is no setting {name!r}") from None


def load(
    flags: Mapping[str, Any] | None = None,
    file: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Settles every setting.

    Args:
        flags: Values from the command line (or from code) by setting; ``None`` values were not given.
        file: TOML file; without it ``VECTORDB_CONFIG`` names one, or there is none.
        environment: ``os.environ`` unless given.

    Raises:
        InvalidArgument: An unknown key or a bad value; the message names the key and where it stands.
    """
    environment = os.environ if environment is None else environment
    path = file or environment.get("VECTORDB_CONFIG") or None
    table, engine = _read(Path(path)) if path is not None else ({}, {})
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    for name in given:
        if name not in _BY_NAME:
            raise _unknown(name, "flags")
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in SETTINGS:
        name = setting.name
        if name in given:
            raw, origin = given[name], f"flag {setting.flag}"
        elif setting.variable in environment:
            raw, origin = environment[setting.variable], f"environment {setting.variable}"
        elif name in table:
            raw, origin = table[name], f"file {path}"
        elif setting.engine and name in engine:
            # As it is: the engine says what is wrong with it.
            values[name], origins[name] = engine[name], f"file {path}, table [{_ENGINE}]"
            continue
        else:
            values[name], origins[name] = setting.default, "default"
            continue
        try:
            values[name] = setting.parse(raw)
        except ValueError as error:
            raise InvalidArgument(f"{name} {error}, got {raw!r} ({origin})", field=name, origin=origin) from None
        origins[name] = origin
        if setting.engine:
            engine[name] = values[name]
    origins.update((f"{_ENGINE}.{name}", f"file {path}") for name in engine if name not in _BY_NAME)
    return Config(values, origins, engine)


def misspelt(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables that look like a setting's and are none, and the setting's that was probably meant.

    Others of ours are left alone: clients and other commands have variables of their own.
    """
    variables = [setting.variable for setting in SETTINGS]
    found = []
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name not in variables and name != _CLIENTS:
            found += [(name, meant) for meant in get_close_matches(name, variables, n=1, cutoff=0.9)]
    return found


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The file's settings and its engine table."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise InvalidArgument(f"cannot read the config file {path}: {error.strerror}", field="config") from None
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the config file {path} is not TOML: {error}", field="config") from None
    engine = table.pop(_ENGINE, {})
    if not isinstance(engine, dict):
        raise InvalidArgument(f"{_ENGINE} is a table of engine options (file {path})", field=_ENGINE)
    for name in table:
        if name not in _BY_NAME:
            raise _unknown(name, f"file {path}")
    return table, dict(engine)


def _unknown(name: str, origin: str) -> InvalidArgument:
    return InvalidArgument(
        f"unknown setting {name!r} ({origin}); known are {', '.join(_BY_NAME)}", field=name, origin=origin
    )
