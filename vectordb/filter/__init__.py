"""Filters over metadata: the condition tree, the builder ``col``, the JSON form, and the reference evaluator."""

from vectordb.filter.builder import Field, col
from vectordb.filter.json_form import as_filter
from vectordb.filter.reference import MISSING, Missing, lookup, matches
from vectordb.filter.tree import MAX_DEPTH, MAX_NODES, And, Condition, Filter, Not, Op, Or
from vectordb.filter.values import MAX_STRING, MAX_VALUES, Scalar, Value, kind_of

__all__ = [
    "MAX_DEPTH",
    "MAX_NODES",
    "MAX_STRING",
    "MAX_VALUES",
    "MISSING",
    "And",
    "Condition",
    "Field",
    "Filter",
    "Missing",
    "Not",
    "Op",
    "Or",
    "Scalar",
    "Value",
    "as_filter",
    "col",
    "kind_of",
    "lookup",
    "matches",
]
