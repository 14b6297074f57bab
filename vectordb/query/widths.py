"""Widths and oversampling of an index search: how many candidates to fetch, and parameters that span them. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vectordb.index.base import Capabilities

SLACK = 4
"""Candidates fetched from an index beyond the limit (times the oversampling), since exact scores may order them
otherwise."""

OVERSAMPLING = "oversampling"
"""The search parameter by which a query sets ``Capabilities.oversampling``."""


def candidates(capabilities: Capabilities, limit: int, params: Mapping[str, Any] | None) -> int:
    """How many candidates are scored from their full vectors: ``limit`` times the oversampling, and a few."""
    factor = capabilities.oversampling
    if params and OVERSAMPLING in params and OVERSAMPLING in capabilities.search_params:
        factor = float(params[OVERSAMPLING])
    return math.ceil(limit * max(1.0, factor)) + SLACK


def settings(
    capabilities: Capabilities, params: Mapping[str, Any] | None, k: int, least: float
) -> Mapping[str, int | float]:
    """The parameters of a search for ``k`` candidates: those of the request that the index knows, its width at least
    what spans ``k`` rows.

    Args:
        least: How many rows it should span at least where the request does not set the width.
    """
    known, name = capabilities.search_params, capabilities.width
    out: dict[str, Any] = {} if not params else {n: v for n, v in params.items() if n in known and n != OVERSAMPLING}
    if name is None:
        return out
    if name not in out:
        parameter = known[name]
        width = math.ceil(max(float(parameter.default), least * capabilities.width_per_row))
        out[name] = width if parameter.high is None else min(width, int(parameter.high))
    return spanning(capabilities, out, k)


def spanning(capabilities: Capabilities, params: Mapping[str, Any], k: int) -> Mapping[str, Any]:
    """The parameters with a width that spans at least ``k`` rows. May return its argument."""
    name = capabilities.width
    if name is None or spanned(capabilities, params, 0) >= k:
        return params
    width, high = math.ceil(k * capabilities.width_per_row), capabilities.search_params[name].high
    # A beam must hold its k candidates whatever its usual bound; of anything else there is no more than all.
    if high is not None and not capabilities.has_beam:
        width = min(width, int(high))
    return {**params, name: max(width, int(params[name]))}


def spanned(capabilities: Capabilities, params: Mapping[str, Any], otherwise: int) -> int:
    """How many of the nearest rows a search with these parameters spans, matching or not."""
    width = width_of(capabilities, params)
    return otherwise if width is None else math.floor(width / capabilities.width_per_row)


def width_of(capabilities: Capabilities, params: Mapping[str, Any]) -> int | None:
    """The width among the parameters; None for a kind without one."""
    return None if capabilities.width is None else int(params[capabilities.width])
