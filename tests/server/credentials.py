"""Certificates and API keys for a test's servers and clients."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from vectordb.server.keys import new_key


class Authority:
    """A certificate authority of one test, made with the openssl command."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self.ca = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        self._run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                  "-subj", f"/CN={name}", "-keyout", self._key, "-out", self.ca)  # fmt: skip

    def _run(self, *arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    def issue(self, name: str, days: int = 2, host: str = "localhost") -> tuple[Path, Path]:
        """Certificate and key for this machine; with fewer than 0 days it has expired."""
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}-key.pem"
        request, extra = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extra.write_text(f"subjectAltName=DNS:{host}" + (",IP:127.0.0.1\n" if host == "localhost" else "\n"))
        self._run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                  "-keyout", key, "-out", request)  # fmt: skip
        self._run("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._key, "-CAcreateserial",
                  "-days", days, "-extfile", extra, "-out", certificate)  # fmt: skip
        return certificate, key


def keys_file(path: Path, *entries: dict[str, Any]) -> list[str]:
    """Writes a key file; returns the keys."""
    keys, tables = [], []
    for entry in entries:
        key, digest = new_key()
        keys.append(key)
        lines = {"sha256": digest, **entry}
        tables.append("[[key]]\n" + "".join(f"{n} = {json.dumps(v)}\n" for n, v in lines.items() if n != "expires"))
        if "expires" in entry:
            tables[-1] += f"expires = {entry['expires']}\n"
    path.write_text("\n".join(tables))
    return keys
