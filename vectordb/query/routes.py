"""How each part of a snapshot is searched: the planner's choice, and what is kept of it for the next search.

Planning is pure (``planner.py``) but takes longer than all else around a search through an index, and so does a look at
how the rows lie that a filter selects. Both are done once: without a filter for parts of one shape, under a filter with
what it selects (``segments/selection.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from vectordb.index.base import capabilities_of
from vectordb.index.copies import METRICS as COPIED_METRICS
from vectordb.index.registry import TARGET_RECALL
from vectordb.metadata.estimate import Estimate
from vectordb.query import costs, indexed
from vectordb.query.planner import Ask, PartFacts, Step, Way, plan

if TYPE_CHECKING:
    from vectordb.query.run import Run
    from vectordb.query.spec import SearchSpec
    from vectordb.segments.part import Part
    from vectordb.segments.selection import Selection

COPIED_AFTER = 4
"""After so many searches with one filter the vectors of the rows that it selects may be copied ..."""
COPIED_WITHIN = 0.1
"""... by searches that have so many seconds left ..."""
_COPIED_FOR = 32
"""... one piece for so many queries of a batch, which gain as much."""
_KEPT_PLANS = 512
_KEPT_SPREADS = 128
_plans: dict[tuple[Any, ...], tuple[PartFacts, Step]] = {}
"""Of parts without a filter, all of the process together."""


class Route(NamedTuple):
    """How one part is searched.

    Attributes:
        selection: What the filter selects there; ``None`` without one.
        cost: Microseconds that a query is estimated to take.
    """

    facts: PartFacts
    step: Step
    selection: Selection | None
    cost: float


def ask_of(spec: SearchSpec) -> Ask:
    """What a request says to the planner."""
    params = spec.params
    if not params or TARGET_RECALL not in params:
        return Ask(spec.limit, spec.filter_mode, spec.exact, params)
    others = {name: value for name, value in params.items() if name != TARGET_RECALL}
    return Ask(spec.limit, spec.filter_mode, spec.exact, others, float(params[TARGET_RECALL]))


def route_of(run: Run, number: int, ask: Ask) -> Route:
    """How a part is searched, planned or as it was planned before."""
    part, where, dim = run.parts[number], run.spec.where, run.queries.shape[1]
    if where is None:
        facts, step = planned(part, dim, ask)
        cost = costs.scan(facts.vectors, dim) if step.way is Way.EXACT else step.cost
        return Route(facts, step, None, cost)
    selection = part.selection(where)
    facts, step = _planned_filtered(run, number, ask, selection)
    scanned = step.way is Way.EXACT or step.way is Way.EXACT_FILTERED
    cost = costs.scan_matches(len(selection), facts.vectors, dim) if scanned else step.cost
    return Route(facts, step, selection, cost)


def facts_of(part: Part, dim: int, estimate: Estimate | None) -> PartFacts:
    """What the planner knows of a part."""
    index, kind = part.index, part.kind
    capabilities = None if index is None or kind is None else capabilities_of(index, kind)
    return PartFacts(part.rows, part.dead, part.vector_count, dim, capabilities, estimate, False, part.calibration)


def planned(part: Part, dim: int, ask: Ask) -> tuple[PartFacts, Step]:
    """The plan of a part without a filter, kept: planning takes longer than all else around an index search."""
    index, kind = part.index, part.kind
    if index is None or kind is None:
        facts = facts_of(part, dim, None)
        return facts, plan(facts, ask)
    capabilities = capabilities_of(index, kind)
    params = tuple(ask.params.items()) if ask.params else None
    # Capabilities hold dicts and have no hash. The kept facts keep them alive, so that their address is theirs alone.
    sizes = (part.rows, part.dead, part.vector_count, dim)
    key: tuple[Any, ...] = (id(capabilities), *sizes, ask.limit, ask.exact, params)
    if ask.target is not None:
        key = (*key, id(part.calibration), ask.target)
    known = _plans.get(key)
    if known is None:
        facts = facts_of(part, dim, None)
        known = (facts, plan(facts, ask))
        if len(_plans) >= _KEPT_PLANS:
            _plans.clear()
        _plans[key] = known
    return known


def _planned_filtered(run: Run, number: int, ask: Ask, selection: Selection) -> tuple[PartFacts, Step]:
    """The plan of a part under a filter, kept with what the filter selects there.

    Where rows were selected so often that a copy of their vectors would be searched from now on, each search makes a
    piece of it. Until then nobody looks whether they are scattered: that takes longer than most searches.
    """
    part, where = run.parts[number], run.spec.where
    assert where is not None
    copyable = selection.copyable and run.spec.metric in COPIED_METRICS
    selection.uses += 1
    scattered = part.spread.get(where)
    facts, step = _kept_plan(run, number, ask, selection, scattered)
    if copyable and selection.copied is None:
        if selection.uses <= COPIED_AFTER:
            return facts, step
        if plan(facts._replace(copied=True), ask).way is Way.EXACT_FILTERED:
            for _ in range(0, len(run.queries), _COPIED_FOR):
                if selection.copied is None and run.deadline.remaining() > COPIED_WITHIN:
                    part.copy_on(selection, run.spec.metric)
            return facts, step
    if step.doubt:
        return _kept_plan(run, number, ask, selection, _is_scattered(run, number, facts, selection))
    return facts, step


def _kept_plan(run: Run, number: int, ask: Ask, selection: Selection, scattered: bool | None) -> tuple[PartFacts, Step]:
    """The plan of a part by the number of selected rows, made once."""
    part, dim = run.parts[number], run.queries.shape[1]
    index, kind = part.index, part.kind
    capabilities = None if index is None or kind is None else capabilities_of(index, kind)
    copied = selection.copied is not None
    params = tuple(ask.params.items()) if ask.params else None
    # As in planned(), the kept facts keep what the address stands for alive.
    key = (id(capabilities), id(part.calibration), *ask[:3], params, ask.target, scattered, copied)

    def make() -> tuple[PartFacts, Step]:
        count = len(selection)
        facts = facts_of(part, dim, Estimate.exact(count))
        facts = facts._replace(counted=True, scattered=scattered, copied=copied)
        return facts, plan(facts, ask)

    found: tuple[PartFacts, Step] = selection.planned(key, make)
    return found


def _is_scattered(run: Run, number: int, facts: PartFacts, selection: Selection) -> bool:
    """Whether the matches lie scattered, as it was found when the filter was first looked at; it changes slowly."""
    spread, where = run.parts[number].spread, run.spec.where
    assert where is not None
    known = spread.get(where)
    if known is None:
        if len(spread) >= _KEPT_SPREADS:
            spread.clear()
        known = spread[where] = indexed.is_scattered(run, number, facts, selection)
    return known
