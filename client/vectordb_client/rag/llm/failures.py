"""From what the ``openai`` package raises to the project's errors. Pure functions."""

from __future__ import annotations

from typing import Any

from vectordb.errors import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    VectorDBError,
)

DEFAULT_RETRY_AFTER = 1.0
"""Seconds to wait where an endpoint limits the rate and does not say for how long."""


def translated(
    openai: Any, error: Exception, model: str, address: str, partial: str, timeout: float | None
) -> VectorDBError:
    """The typed error for a failed request.

    Args:
        openai: The module, so that nothing here imports it.
        partial: What the model wrote before it failed.
        timeout: Seconds that the call had.
    """
    where = f"{model!r} at {address}"
    facts: dict[str, Any] = {"endpoint": address, "model": model, "partial": partial}
    if isinstance(error, openai.APITimeoutError):
        return out_of_time(model, address, timeout, partial)
    if isinstance(error, openai.APIStatusError):
        return _by_status(error, where, facts)
    if partial:
        return broke_off(model, address, partial, str(error))
    if isinstance(error, openai.APIConnectionError):
        why = error.__cause__ or error
        return Unavailable(f"{where} cannot be reached ({why}); is it running?", **facts)
    return Unavailable(f"{where} failed: {error}", **facts)


def out_of_time(model: str, address: str, timeout: float | None, partial: str) -> DeadlineExceeded:
    """The call's time is over."""
    return DeadlineExceeded(
        f"{model!r} at {address} did not finish within {timeout} s ({len(partial)} characters came); give it a longer "
        "timeout or fewer max_tokens",
        timeout=timeout,
        endpoint=address,
        model=model,
        partial=partial,
    )


def broke_off(model: str, address: str, partial: str, why: str = "the stream ended without a reason") -> Unavailable:
    """The endpoint stopped in the middle of an answer."""
    return Unavailable(
        f"{model!r} at {address} broke off after {len(partial)} characters: {why}; ask again",
        endpoint=address,
        model=model,
        partial=partial,
    )


def _by_status(error: Any, where: str, facts: dict[str, Any]) -> VectorDBError:
    code: int = error.status_code
    said = f"{where} said {code}: {_detail(error)}"
    facts = {**facts, "http_status": code}
    if code == 429:
        wait = _retry_after(error)
        if wait is not None:
            facts["retry_after"] = wait
        return ResourceExhausted(f"{said}; wait, or raise the limit", **facts)
    if code == 401:
        return Unauthenticated(f"{said}; give a valid api_key", **facts)
    if code == 403:
        return PermissionDenied(said, **facts)
    if code == 404:
        return NotFound(f"{said}; check base_url (it usually ends in /v1) and the model's name", **facts)
    if code in (408, 504):
        return Unavailable(said, **facts)
    if code == 413 or (code == 400 and "context" in _detail(error).lower()):
        return ResourceExhausted(f"{said}; set context_tokens to what the model takes", **facts)
    if code < 500:
        return InvalidArgument(said, **facts)
    return Unavailable(said, **facts)


def _detail(error: Any) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.message)[:300]


def _retry_after(error: Any) -> float | None:
    """Seconds to wait before trying again, or ``None`` where waiting does not help."""
    body = error.body if isinstance(error.body, dict) else {}
    if body.get("code") == "insufficient_quota":
        return None
    try:
        return max(0.0, float(error.response.headers.get("retry-after", DEFAULT_RETRY_AFTER)))
    except ValueError:
        return DEFAULT_RETRY_AFTER
