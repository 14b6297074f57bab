"""From a filter to the rows that meet it: whole-set operations only, no loop over rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vectordb.filter import And, Condition, Filter, Not, Op, Or
from vectordb.metadata import rowset
from vectordb.metadata.select import KeyRange, select

if TYPE_CHECKING:
    from vectordb.metadata.postings import Postings
    from vectordb.metadata.rowset import RowSet


def evaluate(tree: Filter, postings: Postings) -> RowSet:
    """The rows that meet the filter, as a set of the caller's own. Agrees with :func:`vectordb.filter.matches`.

    Raises:
        InvalidFilter: A field is declared with ``indexed: false``.
        Corruption: Mapped postings are inconsistent.
    """
    if isinstance(tree, And):
        out = evaluate(tree.children[0], postings)
        for child in tree.children[1:]:
            # The rest is evaluated even when nothing is left, so that a refused field is refused on any data.
            out = out & evaluate(child, postings)
        return out
    if isinstance(tree, Or):
        out = evaluate(tree.children[0], postings)
        for child in tree.children[1:]:
            out = out | evaluate(child, postings)
        return out
    if isinstance(tree, Not):
        return rowset.complement(evaluate(tree.child, postings), postings.n)
    assert isinstance(tree, Condition)
    return _condition(tree, postings)


def _condition(condition: Condition, postings: Postings) -> RowSet:
    n = postings.n
    field = postings.field(condition.field)
    if field is None:
        return rowset.full(n) if condition.op in (Op.NE, Op.NOT_IN, Op.IS_NULL) else rowset.RowSet()
    if condition.op in (Op.EXISTS, Op.IS_NULL):
        exists = rowset.full(n) if field.exists is None else rowset.from_rows(field.exists, n)
        if condition.op is Op.EXISTS:
            return exists
        return rowset.complement(exists, n) | rowset.from_rows(field.nulls, n)
    out = rowset.RowSet()
    for keys in select(field, condition):
        if isinstance(keys, KeyRange):
            rows = keys.column.range_rows(keys.low, keys.high)
        else:
            rows = keys.column.key_rows(keys.indexes)
        out = out | rows if out else rows
    return rowset.complement(out, n) if condition.op in (Op.NE, Op.NOT_IN) else out
