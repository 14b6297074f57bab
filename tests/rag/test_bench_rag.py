"""``python -m bench rag`` runs, and the layer's modules stay light until they are used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_retrieval_is_compared(tmp_path: Path) -> None:
    out = tmp_path / "rag.json"
    arguments = ["--parts", "retrieval", "--chunkers", "whole", "tokens(200)", "--questions", "40", "--out", str(out)]
    command = [sys.executable, "-m", "bench", "rag", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())["retrieval"]
    assert {name.partition(", ")[2] for name in found} >= {"whole, vector", "tokens(200), vector"}
    for name, figures in found.items():
        assert figures["retrieval"]["nDCG@10"] > 0.85, name
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_importing_loads_no_model_and_no_client_of_one() -> None:
    heavy = [
        "torch",
        "transformers",
        "openai",
        "xllamacpp",
        "jinja2",
        "onnxruntime",
        "sklearn",
        "matplotlib",
        "ir_measures",
    ]
    code = f"import sys, vectordb_client.rag.llm; print([module for module in {heavy} if module in sys.modules])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
