"""Language models behind an endpoint: what is sent, and the right error in time when the endpoint misbehaves."""

from __future__ import annotations

import socket
import time
from types import ModuleType
from typing import Any

import pytest

from vectordb import errors
from vectordb_client.rag.llm import LLM, Message, OpenAICompatible, Role, Usage
from vectordb_client.rag.llm.base import estimated_tokens

HELLO = [Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "Hello?")]


def test_what_is_sent_and_what_comes_back(endpoint: Any, endpoints: ModuleType, llm: OpenAICompatible) -> None:
    assert isinstance(llm, LLM)
    endpoint.replies = [endpoints.Reply("Three short words")]
    found = llm.complete(HELLO, max_tokens=7, temperature=0.0, seed=3, stop=["\n"])
    assert (found.text, found.model, found.finish_reason) == ("Three short words", "scripted", "stop")
    assert found.usage == Usage(100, 3)
    sent = endpoint.requests[0]
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello?"},
    ]
    assert (sent["max_tokens"], sent["temperature"], sent["seed"], sent["stop"]) == (7, 0.0, 3, ["\n"])
    assert sent["model"] == "scripted"


def test_a_stream_comes_in_pieces(endpoint: Any, endpoints: ModuleType, llm: OpenAICompatible) -> None:
    endpoint.replies = [endpoints.Reply("One two three", finish_reason="length")]
    deltas = list(llm.stream(HELLO))
    assert [delta.text for delta in deltas] == ["One ", "two ", "three", ""]
    assert [delta.completion is None for delta in deltas] == [True, True, True, False]
    assert deltas[-1].completion is not None
    assert deltas[-1].completion.text == "One two three"
    assert deltas[-1].completion.finish_reason == "length"


def test_an_endpoint_that_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    model = OpenAICompatible("m", base_url=address, timeout=5.0, retries=1)
    with pytest.raises(errors.Unavailable, match="cannot be reached") as caught:
        model.complete(HELLO)
    assert caught.value.endpoint.startswith(address)
    with pytest.raises(errors.Unavailable):
        list(model.stream(HELLO))


@pytest.mark.parametrize("streamed", [False, True])
def test_an_endpoint_that_is_silent(endpoint: Any, endpoints: ModuleType, llm: Any, streamed: bool) -> None:
    endpoint.replies = [endpoints.Reply("late", delay=3.0)]
    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded) as caught:
        list(llm.stream(HELLO, timeout=0.3)) if streamed else llm.complete(HELLO, timeout=0.3)
    assert time.monotonic() - began < 2.5  # not when the endpoint deigns to answer
    assert (caught.value.timeout, caught.value.partial) == (0.3, "")


def test_an_endpoint_that_drips_is_cut_off_as_a_whole(endpoint: Any, endpoints: ModuleType, llm: Any) -> None:
    endpoint.replies = [endpoints.Reply("word " * 200, drip=0.1)]
    seen: list[str] = []
    with pytest.raises(errors.DeadlineExceeded) as caught:
        seen.extend(delta.text for delta in llm.stream(HELLO, timeout=1.0))
    assert 1 <= len(seen) < 20
    assert caught.value.partial == "".join(seen)


def test_too_many_requests(endpoint: Any, endpoints: ModuleType, llm: Any) -> None:
    endpoint.replies = [endpoints.Reply(status=429, headers={"Retry-After": "7"}, body={"message": "slow down"})]
    with pytest.raises(errors.ResourceExhausted, match="slow down") as caught:
        llm.complete(HELLO)
    assert caught.value.retry_after == 7.0
    endpoint.replies = [endpoints.Reply(status=429, body={"message": "pay", "code": "insufficient_quota"})]
    with pytest.raises(errors.ResourceExhausted) as caught:
        llm.complete(HELLO)
    assert "retry_after" not in caught.value.fields


def test_a_retry_waits_as_asked_and_stays_within_the_time(endpoint: Any, endpoints: ModuleType) -> None:
    model = OpenAICompatible("m", base_url=endpoint.url, timeout=10.0, retries=2)
    endpoint.replies = [endpoints.Reply(status=429, headers={"Retry-After": "0"}), endpoints.Reply("Now.")]
    assert model.complete(HELLO).text == "Now."
    assert len(endpoint.requests) == 2
    endpoint.replies = [endpoints.Reply(status=429, headers={"Retry-After": "60"})]
    with pytest.raises(errors.ResourceExhausted):
        model.complete(HELLO, timeout=2.0)
    assert len(endpoint.requests) == 3  # a minute does not fit into two seconds


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"message": "the request exceeds the available context size"}, errors.ResourceExhausted),
        (400, {"message": "bad temperature"}, errors.InvalidArgument),
        (401, {"message": "who?"}, errors.Unauthenticated),
        (403, {"message": "not you"}, errors.PermissionDenied),
        (404, {"message": "no such model"}, errors.NotFound),
        (413, {"message": "too large"}, errors.ResourceExhausted),
        (500, {"message": "oops"}, errors.Unavailable),
        (503, {"message": "loading"}, errors.Unavailable),
    ],
)
def test_every_status_has_its_error(
    endpoint: Any, endpoints: ModuleType, llm: Any, status: int, body: dict[str, str], kind: type[Exception]
) -> None:
    endpoint.replies = [endpoints.Reply(status=status, body=body)]
    with pytest.raises(kind, match=body["message"]) as caught:
        llm.complete(HELLO)
    assert type(caught.value) is kind
    assert caught.value.http_status == status  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", ["break_after", "end_after"])
def test_a_stream_that_breaks_off(endpoint: Any, endpoints: ModuleType, llm: Any, how: str) -> None:
    endpoint.replies = [endpoints.Reply("One two three four", **{how: 2})]
    seen: list[str] = []
    with pytest.raises(errors.Unavailable, match="broke off after 8 characters") as caught:
        seen.extend(delta.text for delta in llm.stream(HELLO))
    assert seen == ["One ", "two "]
    assert caught.value.partial == "One two "
    assert len(endpoint.requests) == 1


def test_what_was_not_shown_yet_is_asked_again(endpoint: Any, endpoints: ModuleType) -> None:
    model = OpenAICompatible("m", base_url=endpoint.url, timeout=10.0, retries=1)
    endpoint.replies = [endpoints.Reply("One two three", break_after=1), endpoints.Reply("One two three")]
    assert model.complete(HELLO).text == "One two three"
    # A stream that has shown a piece cannot take it back.
    endpoint.requests.clear()
    with pytest.raises(errors.Unavailable):
        list(model.stream(HELLO))
    assert len(endpoint.requests) == 1


def test_leaving_a_stream_stops_it(endpoint: Any, endpoints: ModuleType, llm: Any) -> None:
    endpoint.replies = [endpoints.Reply("word " * 50, drip=0.02)]
    stream = llm.stream(HELLO)
    assert next(stream).text == "word "
    stream.close()
    endpoint.replies = [endpoints.Reply("Next.")]
    assert llm.complete(HELLO).text == "Next."


def test_options_are_checked(endpoint: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(errors.InvalidArgument, match="unknown option 'contxt'"):
        OpenAICompatible("m", base_url=endpoint.url, contxt=1)
    with pytest.raises(errors.InvalidArgument, match="retries is a whole number, at least 0"):
        OpenAICompatible("m", base_url=endpoint.url, retries=-1)
    model = OpenAICompatible("m", base_url=endpoint.url, usage=False, extra={"top_k": 1}, context_tokens=99)
    assert model.context_tokens == 99
    assert model.complete(HELLO).usage == Usage()
    assert "stream_options" not in endpoint.requests[0]
    assert endpoint.requests[0]["top_k"] == 1
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(errors.FailedPrecondition, match=r"pip install 'vectordb-engine\[llm\]'"):
        OpenAICompatible("m")


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": ""}, {"timeout": None}, {"timeout": "5"}, {"timeout": 0}, {"retries": "2"}, {"retries": -1},
        {"context_tokens": "8k"}, {"context_tokens": 0}, {"usage": "no"}, {"extra": 5},
    ],
)  # fmt: skip
def test_options_of_another_type_are_named(endpoint: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidArgument) as caught:
        OpenAICompatible(**{"model": "m", "base_url": endpoint.url, **arguments})
    assert caught.value.field == next(iter(arguments))


def test_tokens_are_estimated_from_above() -> None:
    assert estimated_tokens("") == 0
    assert estimated_tokens("word") == 2
    assert estimated_tokens("\u4e2d\u6587") == 2
