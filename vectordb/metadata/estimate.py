"""How many rows a filter will match, from the sizes of slices alone, without making row sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vectordb.filter import And, Condition, Filter, Not, Op, Or
from vectordb.metadata.select import KeyRange, select

if TYPE_CHECKING:
    from vectordb.metadata.postings import FieldPostings, Postings


class Estimate(NamedTuple):
    """Bounds that hold (``low <= true <= high``), and the expectation between them, in rows."""

    low: int
    expected: int
    high: int

    @classmethod
    def exact(cls, count: int) -> Estimate:
        """A count that is known."""
        return cls(count, count, count)


def estimate(tree: Filter, postings: Postings) -> Estimate:
    """Bounds and expectation of ``len(evaluate(tree, postings))``.

    Single conditions are counted, exactly but for elements of lists. Connectives combine by the Fréchet bounds, and
    expect independence.

    Raises:
        InvalidFilter: A field is declared with ``indexed: false``.
    """
    n = postings.n
    if isinstance(tree, And):
        return conjunction([estimate(child, postings) for child in tree.children], n)
    if isinstance(tree, Or):
        # De Morgan: one of the two rules is enough.
        return complement(conjunction([complement(estimate(child, postings), n) for child in tree.children], n), n)
    if isinstance(tree, Not):
        return complement(estimate(tree.child, postings), n)
    assert isinstance(tree, Condition)
    field = postings.field(tree.field)
    if field is None:
        return Estimate.exact(n if tree.op in (Op.NE, Op.NOT_IN, Op.IS_NULL) else 0)
    if tree.op in (Op.EXISTS, Op.IS_NULL):
        exists = n if field.exists is None else len(field.exists)
        return Estimate.exact(exists if tree.op is Op.EXISTS else n - exists + len(field.nulls))
    found = _selected(field, tree, n)
    return complement(found, n) if tree.op in (Op.NE, Op.NOT_IN) else found


def conjunction(parts: list[Estimate], n: int) -> Estimate:
    """All of several conditions on n rows."""
    if n == 0:
        return Estimate.exact(0)
    low = max(0, sum(part.low for part in parts) - (len(parts) - 1) * n)
    high = min(part.high for part in parts)
    expected = float(n)
    for part in parts:
        expected *= part.expected / n
    return Estimate(low, min(max(round(expected), low), high), high)


def complement(part: Estimate, n: int) -> Estimate:
    """The negation on n rows."""
    return Estimate(n - part.high, n - part.expected, n - part.low)


def total(parts: list[Estimate]) -> Estimate:
    """The sum over disjoint sets of rows."""
    return Estimate(sum(p.low for p in parts), sum(p.expected for p in parts), sum(p.high for p in parts))


def _selected(field: FieldPostings, condition: Condition, n: int) -> Estimate:
    scalars = 0
    pairs = 0
    largest = 0
    for keys in select(field, condition):
        if isinstance(keys, KeyRange):
            counted = most = keys.column.count(keys.low, keys.high)
        else:
            counts = keys.column.counts(keys.indexes)
            counted, most = int(counts.sum()), int(counts.max())
        if field.elements.get(keys.column.kind) is keys.column:
            # A row may hold several of the elements: the pairs bound the rows from above, one element from below.
            pairs += counted
            largest = max(largest, most)
        else:
            scalars += counted
    high = min(scalars + pairs, n)
    low = min(scalars + largest, high)
    return Estimate(low, low + round((high - low) * 0.75), high)
