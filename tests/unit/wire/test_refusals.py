"""What is no request, or fits into no message, is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from vectordb.errors import InvalidArgument, InvalidFilter
from vectordb.requests import Rrf, SearchRequest, Weights
from vectordb.wire import filters, requests, search
from vectordb_proto.v1 import filter_pb2, service_pb2


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"ids": ["a"], "dim": 2, "vectors": b"\0" * 9}, "rows.vectors"),
        ({"ids": ["a"], "dim": 2}, "rows.vectors"),
        ({"ids": ["a"], "vectors": b"\0" * 4}, "rows.vectors"),
        ({"ids": ["a"] * 9, "dim": 1, "vectors": b"\0" * 36, "has_vector": b"\1"}, "rows.has_vector"),
        ({"ids": ["a"], "has_vector": b"\1"}, "rows.has_vector"),
        ({"ids": ["a"], "metadata": [b"", b""]}, "rows.metadata"),
        ({"ids": ["a"], "texts": ["", ""]}, "rows.texts"),
        ({"ids": ["a"], "texts": [""], "has_text": b"\1\1"}, "rows.has_text"),
        ({"ids": ["a"], "has_text": b"\1"}, "rows.has_text"),
    ],
)
def test_columns_that_do_not_fit_name_the_field(message, field):
    with pytest.raises(InvalidArgument) as caught:
        requests.write_from_message(service_pb2.WriteRequest(rows=message))
    assert caught.value.field == field
    assert field in caught.value.message


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"limit": 1 << 70}, "limit"),
        ({"limit": "10"}, "limit"),
        ({"limit": 1.5}, "limit"),
        ({"limit": True}, "limit"),
        ({"min_score": "high"}, "min_score"),
        ({"timeout": "soon"}, "timeout"),
        ({"params": {"ef": object()}}, "params"),
        ({"params": {1: 2}}, "params"),
        ({"include": ("\ud800",)}, "include"),
        ({"include": (1,)}, "include"),
        ({"vector_name": 3}, "vector_name"),
        ({"texts": ("a", None)}, "text"),
        ({"texts": ("\ud800",)}, "text"),
        ({"texts": (5,)}, "text"),
        ({"fusion": Rrf("high")}, "fusion"),
        ({"fusion": Weights(("high",))}, "fusion"),
    ],
)
def test_what_a_message_cannot_hold_is_refused_by_name(options, field):
    with pytest.raises(InvalidArgument) as caught:
        requests.search_to_message("c", SearchRequest(np.ones((1, 2), np.float32), **options))
    assert caught.value.field == field
    with pytest.raises(InvalidArgument) as caught:
        search.search_to_parts("c", SearchRequest(np.ones((1, 2), np.float32), **options))
    assert caught.value.field == field


def test_malformed_filters_name_their_place():
    bad = filter_pb2.Filter(connective=1, children=[{"connective": 3, "children": [{"condition": {"field": "a"}}]}])
    with pytest.raises(InvalidFilter) as caught:
        filters.filter_from_message(bad)
    assert caught.value.path == "and[0].not.op"
    for message in (
        {"connective": 9},
        {"connective": 3},
        {"connective": 1},
        {"connective": 1, "condition": {"field": "a", "op": 13}, "children": [{"condition": {"field": "a", "op": 13}}]},
        {"condition": {"field": "a", "op": 1}},
        {"condition": {"field": "a", "op": 1, "values": [{}]}},
        {"condition": {"field": "a", "op": 12, "values": [{"int_value": 1}]}},
        {"condition": {"field": "a", "op": 3, "values": [{"datetime_value": 2**62}]}},
        {"condition": {"field": "a", "op": 7, "values": [{"list_value": {"values": [{"int_value": 1}]}}]}},
    ):
        with pytest.raises(InvalidFilter):
            filters.filter_from_message(filter_pb2.Filter(**message))
