"""The adapters for other harnesses, driven as those drive them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

RNG = np.random.default_rng(4)
BASE = RNG.standard_normal((1_200, 12)).astype(np.float32)
QUERIES = BASE[:20] + 0.01


@pytest.mark.parametrize("metric", ["euclidean", "angular"])
def test_ann_benchmarks(metric: str) -> None:
    from bench.adapters.ann_benchmarks import module

    config = yaml.safe_load((Path(module.__file__).parent / "config.yml").read_text())["float"]["any"][0]
    assert config["base_args"] == ["@metric"]
    group = config["run_groups"]["M-16"]
    algorithm = getattr(module, config["constructor"])(metric, group["arg_groups"][0])
    algorithm.fit(BASE)
    algorithm.set_query_arguments(group["query_args"][0][3])
    single = [algorithm.query(query, 5) for query in QUERIES]
    assert [answer[0] for answer in single] == list(range(20))
    algorithm.batch_query(QUERIES, 5)
    assert all((one == other).all() for one, other in zip(single, algorithm.get_batch_results(), strict=True))
    assert algorithm.get_additional()["disk_bytes"] > 0
    assert "ef 80" in str(algorithm)
    algorithm.done()


class _Case:
    """What VectorDBBench passes as the configuration of a case."""

    def index_param(self) -> dict[str, Any]:
        return {"metric_type": "L2", "m": 8, "ef_construction": 60}

    def search_param(self) -> dict[str, Any]:
        return {"ef": 64}


def test_vectordbbench(tmp_path: Path) -> None:
    from bench.adapters.vectordbbench import VectorDBEngineClient

    config = {"target": str(tmp_path / "db")}
    client = VectorDBEngineClient(12, config, _Case(), "made", drop_old=True, with_scalar_labels=True)
    ids = list(range(len(BASE)))
    labels = ["odd" if number % 2 else "even" for number in ids]
    with client.init():
        assert client.insert_embeddings(BASE.tolist(), ids, labels_data=labels) == (len(BASE), None)
        client.optimize(len(BASE))
        assert [client.search_embedding(query.tolist(), 5)[0] for query in QUERIES] == list(range(20))
        client.prepare_filter(SimpleNamespace(type="NumGE", int_field="id", int_value=600))
        assert min(client.search_embedding(QUERIES[0].tolist(), 50)) >= 600
        client.prepare_filter(SimpleNamespace(type="Label", label_field="labels", label_value="odd"))
        assert all(number % 2 for number in client.search_embedding(QUERIES[0].tolist(), 50))
        client.prepare_filter(SimpleNamespace(type="NonFilter"))
        assert client.search_embedding(QUERIES[3].tolist(), 1) == [3]
        written, error = client.insert_embeddings([[1.0]], [0])
        assert written == 0
        assert "dim" in str(error)
    # It is made anew with drop_old, and found again without.
    again = VectorDBEngineClient(12, config, _Case(), "made")
    with again.init():
        assert len(again.search_embedding(QUERIES[0].tolist(), 10)) == 10
    emptied = VectorDBEngineClient(12, config, _Case(), "made", drop_old=True)
    with emptied.init():
        assert emptied.search_embedding(QUERIES[0].tolist(), 10) == []
