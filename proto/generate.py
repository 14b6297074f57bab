"""Generates the committed Python code from the .proto files: ``python proto/generate.py [--check]``.

Needs grpcio-tools 1.75.x: code of a later one refuses the oldest protobuf runtime that the package allows (6.31.1).
With ``--check`` nothing is written; the exit code is 1 where the committed code is not what the files generate.
"""

from __future__ import annotations

import importlib.metadata
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PACKAGE = Path("vectordb_proto/v1")
TOOLS = "1.75."
SUFFIXES = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


def generated() -> dict[Path, str]:
    """The code that the .proto files give: text by path relative to this folder.

    Raises:
        SystemExit: protoc refused a file, or grpcio-tools has the wrong version.
    """
    # Imported here: the tools are a development dependency, and their absence should be told in one line.
    try:
        from grpc_tools import _proto, protoc  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise SystemExit(f"grpcio-tools is missing: pip install 'grpcio-tools=={TOOLS}*'") from None
    version = importlib.metadata.version("grpcio-tools")
    if not version.startswith(TOOLS):
        raise SystemExit(f"grpcio-tools {version} found, {TOOLS}x needed: pip install 'grpcio-tools=={TOOLS}*'")
    sources = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / PACKAGE).glob("*.proto"))]
    includes = Path(_proto.__file__ or next(iter(_proto.__path__))).parent
    with tempfile.TemporaryDirectory() as folder:
        outputs = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", f"-I{ROOT}", f"-I{includes}", *outputs, *sources]):
            raise SystemExit("protoc failed")
        out = Path(folder)
        found = {path.relative_to(out): path.read_text() for path in sorted(out.rglob("*.py*"))}
    # A file without a service has no stubs worth keeping.
    return {path: text for path, text in found.items() if "_pb2_grpc" not in path.name or "class " in text}


def committed() -> dict[Path, str]:
    """The code that stands beside the .proto files."""
    paths = [path for path in (ROOT / PACKAGE).iterdir() if path.name.endswith(SUFFIXES)]
    return {path.relative_to(ROOT): path.read_text() for path in paths}


def main(arguments: list[str]) -> int:
    """Writes, or with ``--check`` compares; returns the exit code."""
    if arguments not in ([], ["--check"]):
        print(__doc__, file=sys.stderr)
        return 2
    wanted, standing = generated(), committed()
    stale = sorted(path for path in wanted.keys() | standing.keys() if wanted.get(path) != standing.get(path))
    if arguments:
        for path in stale:
            print(f"not what the .proto files generate: proto/{path}", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        if path in wanted:
            (ROOT / path).write_text(wanted[path])
        else:
            (ROOT / path).unlink()
        print(f"{'wrote' if path in wanted else 'removed'} proto/{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
