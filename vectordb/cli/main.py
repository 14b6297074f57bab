"""``vectordb``: the table of subcommands. Each file is imported only when its command is asked for."""

from __future__ import annotations

import io
import sys
from importlib import import_module

from vectordb.errors import VectorDBError

# Command: (module, help). A module has either a function `command` or a typer application `app`.
COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("vectordb.cli.serve", "Serve a folder over gRPC."),
    "health": ("vectordb.cli.health", "Whether a server serves: for probes."),
    "info": ("vectordb.cli.info", "What a folder or a running server holds."),
    "verify": ("vectordb.cli.verify", "Check every checksum and cross-check of a database."),
    "repair": ("vectordb.cli.repair", "Make a damaged database sound again, and say what is lost."),
    "upgrade": ("vectordb.cli.upgrade", "Bring a folder of an older format to this release's."),
    "doctor": ("vectordb.cli.doctor", "What this machine and a folder offer a database."),
    "backup": ("vectordb.cli.backup", "Back up a database while it is in use."),
    "restore": ("vectordb.cli.restore", "Make a database folder from a backup."),
    "export": ("vectordb.cli.export", "Write a collection to a Parquet file."),
    "import": ("vectordb.cli.import_", "Read a Parquet file into a collection."),
    "demo": ("vectordb.cli.demo", "The main job from beginning to end on real text."),
    "ingest": ("vectordb.cli.ingest", "Files and folders into a knowledge base."),
    "ask": ("vectordb.cli.ask", "One question to a knowledge base, answered with its sources."),
    "chat": ("vectordb.cli.chat", "Questions and answers in the terminal."),
    "key": ("vectordb.cli.key", "Make API keys for a server."),
    "config": ("vectordb.cli.config", "The server's settings."),
}


def usage() -> str:
    """The help of the whole command."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items())
    return (
        "Usage: vectordb [--help | --version] COMMAND [ARGS]...\n\n"
        "  An embeddable vector database and its server.\n\n"
        f"Commands:\n{commands}\n\n"
        "'vectordb COMMAND --help' tells a command's arguments.\n"
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line, and exits.

    Exit codes: 0 done, 1 an error of the library (one line on stderr), 2 wrong usage, 3 a refused answer (``ask``), 130
    interrupted.

    Raises:
        SystemExit: Always.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # Under a locale of few letters a name, or an answer, in others is written with escapes instead of not at all.
        sys.stdout.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if arguments is None else arguments
    name, rest = (given[0], given[1:]) if given else ("", [])
    if name in ("--help", "-h", "help"):
        print(usage(), end="")
        sys.exit(0)
    if name == "--version":
        from vectordb import __version__

        print(__version__)
        sys.exit(0)
    if name not in COMMANDS:
        print(f"vectordb: unknown command {name!r}\n" if name else "", usage(), sep="\n", end="", file=sys.stderr)
        sys.exit(2)
    try:
        _run(name, rest)
    except VectorDBError as error:
        print(f"{type(error).__name__}: {error.message}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


def _run(name: str, arguments: list[str]) -> None:
    # Imported here, so that `vectordb --help` is quick.
    import typer

    module = import_module(COMMANDS[name][0])
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name)(module.command)
    typer.main.get_command(app).main(args=arguments, prog_name=f"vectordb {name}")


if __name__ == "__main__":
    main()
