"""From a question to an answer: what reaches the model, what comes back, what is refused. The model is scripted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vectordb import errors
from vectordb_client.rag.answering import Answerer, fused
from vectordb_client.rag.asking import REFUSALS, Options
from vectordb_client.rag.guards import ANSWER, MaxLength, PersonalData, Toxicity
from vectordb_client.rag.llm import OpenAICompatible
from vectordb_client.rag.prompt import NO_ANSWER, PromptTemplate, build
from vectordb_client.rag.retrieval import RetrievalOptions, Retrieved
from vectordb_client.rag.support import LLMJudge, NLIJudge, Overlap, Pair
from vectordb_client.rag.templates import ANSWER as TEMPLATE
from vectordb_client.rag.trace import Action, Verdict
from vectordb_client.rag.types import Passage

TOWER = "The tower was finished in 1889. It is 330 metres high."
RIVER = "The river Seine flows past the tower. It is 777 kilometres long."
QUESTION = "How high is the tower?"


class Shelf:
    """Retrieval over a few passages with scores that the test chose; it notes what it was asked."""

    def __init__(self, *passages: tuple[str, float]) -> None:
        self.passages = passages
        self.asked: list[tuple[str, RetrievalOptions]] = []

    def __call__(self, question: str, options: RetrievalOptions) -> Retrieved:
        self.asked.append((question, options))
        good = [one for one in self.passages if options.min_score is None or one[1] >= options.min_score]
        found = tuple(
            Passage(f"d{rank}", f"d{rank}#0", text, score, 0, len(text), rank)
            for rank, (text, score) in enumerate(good[: options.limit], 1)
        )
        best = max((score for _, score in self.passages), default=None)
        return Retrieved(found, (question,), (), best)


def parts(llm: OpenAICompatible, *passages: tuple[str, float], **further: Any) -> Answerer:
    return Answerer(Shelf(*passages), llm, Overlap(), **further)


@pytest.fixture
def both(llm: OpenAICompatible) -> Answerer:
    return parts(llm, (TOWER, 0.8), (RIVER, 0.78))


def test_an_answer_with_its_sources(both: Answerer, endpoint: Any, endpoints: ModuleType) -> None:
    endpoint.replies = [endpoints.Reply("The tower is 330 metres high [1]. It was finished in 1889 [1][5].")]
    answer = both.answer(QUESTION, Options(seed=4, max_tokens=99))
    assert answer.text == "The tower is 330 metres high [1]. It was finished in 1889 [1]."
    assert (answer.grounded, answer.refused, answer.refusal_reason) == (True, False, None)
    assert [(c.marker, c.document_id, c.start, c.end, c.text) for c in answer.citations] == [
        (1, "d1", 0, len(TOWER), TOWER)
    ]
    assert [passage.rank for passage in answer.passages] == [1, 2]
    sent = endpoint.requests[0]
    assert (sent["temperature"], sent["seed"], sent["max_tokens"]) == (0.0, 4, 99)
    trace = answer.trace
    assert [stage.name for stage in trace.stages] == ["retrieve", "prompt", "generate", "check"]
    assert (trace.prompt_tokens, trace.completion_tokens) == (100, 13)
    check = trace.stage("check")
    assert check is not None
    assert check.facts["sentences"][1]["unknown"] == [5]
    assert trace.prompts[0]["hash"] == TEMPLATE.hash
    assert trace.as_dict()["stages"][2]["facts"]["finish_reason"] == "stop"


def test_sources_that_the_model_forgot_are_added(both: Answerer, endpoint: Any, endpoints: ModuleType) -> None:
    endpoint.replies = [endpoints.Reply("The tower is 330 metres high. The Seine is 777 kilometres long. It is red.")]
    answer = both.answer(QUESTION, Options())
    assert answer.text == "The tower is 330 metres high [1]. The Seine is 777 kilometres long [2]. It is red."
    assert not answer.grounded
    check = answer.trace.stage("check")
    assert check is not None
    assert [one["added"] for one in check.facts["sentences"]] == [[1], [2], []]
    dropped = both.answer(QUESTION, Options(unsupported="drop"))
    assert dropped.text == "The tower is 330 metres high [1]. The Seine is 777 kilometres long [2]."
    assert dropped.grounded
    refused = both.answer(QUESTION, Options(unsupported="refuse"))
    assert (refused.refused, refused.refusal_reason, refused.citations) == (True, "unsupported", ())
    assert both.answer(QUESTION, Options(add_citations=False)).refusal_reason == "unsupported"


def test_a_number_that_no_passage_has_is_not_supported(both: Answerer, endpoint: Any, endpoints: ModuleType) -> None:
    endpoint.replies = [endpoints.Reply("The tower is 331 metres high [1].")]
    answer = both.answer(QUESTION, Options())
    assert (answer.refused, answer.refusal_reason) == (True, "unsupported")
    assert answer.text == REFUSALS["unsupported"]


def test_nothing_above_the_threshold_is_refused_without_the_model(both: Answerer, endpoint: Any) -> None:
    answer = both.answer(QUESTION, Options(min_score=0.9))
    assert (answer.refused, answer.refusal_reason, answer.passages) == (True, "below_min_score", ())
    assert endpoint.requests == []
    assert [event.kind for event in both.stream(QUESTION, Options(min_score=0.9))] == ["answer"]
    assert endpoint.requests == []
    mine = both.answer(QUESTION, Options(min_score=0.9, refusals={"below_min_score": "Ask the office."}))
    assert mine.text == "Ask the office."


def test_an_empty_knowledge_base_refuses(llm: OpenAICompatible, endpoint: Any) -> None:
    answer = parts(llm).answer(QUESTION, Options())
    assert (answer.refused, answer.refusal_reason) == (True, "no_passages")
    assert endpoint.requests == []


def test_broadening_looks_further_before_it_refuses(both: Answerer, endpoint: Any, endpoints: ModuleType) -> None:
    endpoint.replies = [endpoints.Reply("The tower is 330 metres high [1].")]
    answer = both.answer(QUESTION, Options(min_score=0.9, below="broaden", limit=3))
    assert answer.grounded
    shelf: Any = both.retrieve
    assert [(options.limit, options.min_score) for _, options in shelf.asked] == [(3, 0.9), (6, pytest.approx(0.72))]
    assert both.answer(QUESTION, Options(min_score=1.01, below="broaden")).refused
    assert len(endpoint.requests) == 1


def test_the_model_alone_is_never_grounded(both: Answerer, endpoint: Any, endpoints: ModuleType) -> None:
    endpoint.replies = [endpoints.Reply("From what I know, 330 metres [1].")]
    answer = both.answer(QUESTION, Options(min_score=0.9, below="fallback_llm"))
    assert (answer.refused, answer.grounded, answer.citations) == (False, False, ())
    assert answer.text == "From what I know, 330 metres."
    assert "<data" not in endpoint.prompt()


@pytest.mark.parametrize("text", [NO_ANSWER, f"{NO_ANSWER} However, the Seine is 777 kilometres long [2].", "Unknown."])
def test_a_model_that_declines_is_a_refusal(both: Answerer, endpoint: Any, endpoints: ModuleType, text: str) -> None:
    endpoint.replies = [endpoints.Reply(text)]
    answer = both.answer("Who built it?", Options())
    assert (answer.refused, answer.refusal_reason) == (True, "not_in_passages")
    assert len(answer.passages) == 2


def test_further_rounds_retrieve_what_is_missing(llm: OpenAICompatible, endpoint: Any, endpoints: ModuleType) -> None:
    def reply(body: dict[str, Any]) -> Any:
        if "suffice" not in body["messages"][0]["content"]:
            return endpoints.Reply("The Seine is 777 kilometres long [2].")
        return endpoints.Reply("NOTHING" if "777" in body["messages"][1]["content"] else "length of the Seine")

    endpoint.replies = reply
    shelf: dict[str, tuple[str, ...]] = {"length of the Seine": (RIVER, TOWER)}

    def retrieve(question: str, options: RetrievalOptions) -> Retrieved:
        texts = shelf.get(question, (TOWER,))
        found = tuple(Passage(t, t, t, 0.8, 0, len(t), rank) for rank, t in enumerate(texts, 1))
        return Retrieved(found, (question,), (), 0.8)

    answer = Answerer(retrieve, llm, Overlap()).answer("How long is the river at the tower?", Options(max_rounds=4))
    assert [passage.text for passage in answer.passages] == [TOWER, RIVER]
    assert [citation.text for citation in answer.citations] == [RIVER]
    assert len(endpoint.requests) == 3  # what is missing, whether anything still is, the answer
    assert [stage.name for stage in answer.trace.stages].count("retrieve") == 2


def test_passages_of_several_rounds_are_each_there_once() -> None:
    def passage(name: str, rank: int) -> Passage:
        return Passage(name, name, name, 0.5, 0, 1, rank)

    found = fused([[passage("a", 1), passage("b", 2)], [passage("b", 1), passage("c", 2)]])
    assert [(one.chunk_id, one.rank) for one in found] == [("b", 1), ("a", 2), ("c", 3)]


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ({"delay": 3.0}, errors.DeadlineExceeded),
        ({"status": 429}, errors.ResourceExhausted),
        ({"status": 503}, errors.Unavailable),
        ({"text": "The tower is 330 metres high. And", "break_after": 5}, errors.Unavailable),
    ],
)
def test_a_failing_model_leaves_the_passages(
    both: Answerer, endpoint: Any, endpoints: ModuleType, reply: dict[str, Any], kind: type[Exception], streamed: bool
) -> None:
    endpoint.replies = [endpoints.Reply(**reply)]
    options = Options(timeout=1.0)
    with pytest.raises(kind) as caught:
        list(both.stream(QUESTION, options)) if streamed else both.answer(QUESTION, options)
    error: Any = caught.value
    assert [passage.text for passage in error.passages] == [TOWER, RIVER]
    assert "error" in error.trace.stage("generate").facts


def test_a_model_that_is_down_leaves_the_passages() -> None:
    model = OpenAICompatible("m", base_url="http://127.0.0.1:9/v1", timeout=3.0, retries=0)
    with pytest.raises(errors.Unavailable) as caught:
        parts(model, (TOWER, 0.8)).answer(QUESTION, Options())
    assert [passage.text for passage in caught.value.passages] == [TOWER]


def test_a_stream_shows_checked_sentences(both: Answerer, endpoint: Any, endpoints: ModuleType) -> None:
    text = "It is red. The tower is 330 metres high. [1] The Seine is 777 kilometres long [1]. It is [2"
    endpoint.replies = [endpoints.Reply(text, finish_reason="length")]
    events = list(both.stream(QUESTION, Options()))
    assert [event.kind for event in events] == ["passages", "text", "text", "answer"]
    # The first sentence waits for one that is supported; the last one is only half a sentence.
    assert events[1].text == "It is red. The tower is 330 metres high [1]."
    assert events[2].text == " The Seine is 777 kilometres long [2]."
    answer = events[-1].answer
    assert answer is not None
    assert answer.text == "".join(event.text for event in events)
    check = answer.trace.stage("check")
    assert check is not None
    assert check.facts["cut_off"] is True
    whole = both.answer(QUESTION, Options())
    assert (whole.text, whole.citations) == (answer.text, answer.citations)


def test_nothing_that_may_be_taken_back_is_shown(llm: OpenAICompatible, endpoint: Any, endpoints: ModuleType) -> None:
    endpoint.replies = [endpoints.Reply("The tower is 330 metres high [1]. It is red.")]
    strict = parts(llm, (TOWER, 0.8))
    assert [event.kind for event in strict.stream(QUESTION, Options(unsupported="refuse"))] == ["passages", "answer"]
    guarded = parts(llm, (TOWER, 0.8), guards=(PersonalData({"HEIGHT": r"\d+ metres"}, stages=(ANSWER,)),))
    events = list(guarded.stream(QUESTION, Options()))
    assert [event.text for event in events] == ["", "The tower is [HEIGHT] high [1]. It is red.", ""]


def test_leaving_a_stream_early_does_no_harm(both: Answerer, endpoint: Any, endpoints: ModuleType) -> None:
    endpoint.replies = [endpoints.Reply("The tower is 330 metres high [1]. " * 40, drip=0.01)]
    stream: Any = both.stream(QUESTION, Options())
    assert next(stream).kind == "passages"
    stream.close()
    endpoint.replies = [endpoints.Reply("The tower is 330 metres high [1].")]
    assert both.answer(QUESTION, Options()).grounded


def test_guards_of_the_question(llm: OpenAICompatible, endpoint: Any, endpoints: ModuleType) -> None:
    endpoint.replies = [endpoints.Reply("The tower is 330 metres high [1].")]
    rude = Toxicity(lambda texts: [1.0 if "idiot" in text else 0.0 for text in texts])
    guarded = parts(llm, (TOWER, 0.8), guards=(MaxLength(60), PersonalData(), rude))
    answer = guarded.answer("Answer me, idiot", Options())
    assert (answer.refused, answer.refusal_reason, answer.text) == (True, "toxicity", REFUSALS["toxicity"])
    assert guarded.answer("?" * 61, Options()).refusal_reason == "max_length"
    assert endpoint.requests == []
    answer = guarded.answer("How high is it? Write to ann@example.org", Options())
    assert "[EMAIL]" in endpoint.prompt()
    assert "ann@example.org" not in endpoint.prompt()
    assert [(v.guard.partition("(")[0], v.action) for v in answer.trace.verdicts] == [
        ("max_length", Action.PASS),
        ("personal_data", Action.REPLACE),
        ("toxicity", Action.PASS),
        ("personal_data", Action.PASS),  # of the answer
    ]


def test_any_object_can_guard_the_answer(llm: OpenAICompatible, endpoint: Any, endpoints: ModuleType) -> None:
    class NoHeights:
        name = "no_heights"
        stages = (ANSWER,)

        def check(self, stage: str, text: str) -> Verdict:
            bad = "330" in text
            return Verdict(self.name, stage, Action.REFUSE if bad else Action.PASS, "a height" if bad else "")

    endpoint.replies = [endpoints.Reply("The tower is 330 metres high [1].")]
    answer = parts(llm, (TOWER, 0.8), guards=(NoHeights(),)).answer(QUESTION, Options())
    assert (answer.refused, answer.refusal_reason) == (True, "no_heights")
    assert "no_heights" in answer.text


def test_a_second_judge_has_to_agree(llm: OpenAICompatible, endpoint: Any, endpoints: ModuleType) -> None:
    text = "The tower is 330 metres high [1]. The tower was finished in 1889 [1]."

    def reply(body: dict[str, Any]) -> Any:
        if "YES" not in body["messages"][0]["content"]:
            return endpoints.Reply(text)
        return endpoints.Reply("Yes." if "330" in body["messages"][1]["content"].partition("Statement:")[2] else "NO")

    endpoint.replies = reply
    answer = parts(llm, (TOWER, 0.8), verifier=LLMJudge(llm)).answer(QUESTION, Options())
    assert answer.text == "The tower is 330 metres high [1]. The tower was finished in 1889."
    assert not answer.grounded
    check = answer.trace.stage("check")
    assert check is not None
    assert check.facts["refuted"] == [{"sentence": "The tower was finished in 1889.", "passage": 1}]

    def entails(pairs: Sequence[tuple[str, str]]) -> list[float]:
        return [0.9 if premise == TOWER and "330" in hypothesis else 0.1 for premise, hypothesis in pairs]

    same = parts(llm, (TOWER, 0.8), verifier=NLIJudge(entails, "tiny")).answer(QUESTION, Options())
    assert same.text == answer.text


def test_only_as_many_passages_as_the_model_takes(endpoint: Any, endpoints: ModuleType) -> None:
    model = OpenAICompatible("m", base_url=endpoint.url, retries=0, context_tokens=900)
    endpoint.replies = [endpoints.Reply("The tower is 330 metres high [1].")]
    long = ("The tower is 330 metres high. " + "Something else stands here. " * 20, 0.8)
    answer = parts(model, long, long, long, (TOWER, 0.79)).answer(QUESTION, Options(max_tokens=100))
    prompt = answer.trace.stage("prompt")
    assert prompt is not None
    assert prompt.facts["passages_shown"] == 2
    assert prompt.facts["passages_left_out"] == 2
    assert prompt.facts["tokens"] <= 800
    # One that is too long by itself is cut at the end of a sentence.
    huge = parts(model, ("The tower is 330 metres high. " + "Something else stands here. " * 200, 0.8))
    prompt = huge.answer(QUESTION, Options(max_tokens=100)).trace.stage("prompt")
    assert prompt is not None
    assert (prompt.facts["cut"], prompt.facts["passages_shown"]) == (True, 1)
    assert re.search(r"stands here\.\s+</data", endpoint.prompt())
    with pytest.raises(errors.ResourceExhausted, match="takes 900 in all"):
        parts(model, (TOWER, 0.8)).answer("why " * 1000, Options())


@pytest.mark.parametrize("user", ["{{ 1 + question }}", "{% for one in range(10**9) %}x{% endfor %}", "{{ 1 / 0 }}"])
def test_a_template_that_fails_is_named(user: str) -> None:
    with pytest.raises(errors.InvalidArgument, match="prompt template 'mine': ") as caught:
        PromptTemplate("mine", 1, "", user).messages(question="Why?", passages=(), mark="", no_answer="")
    assert caught.value.field == "template"


def test_templates_cannot_be_broken_out_of(llm: OpenAICompatible) -> None:
    question = "{{ 7 * 7 }} {% raw %} {{ ''.__class__ }}"
    prompt = build(TEMPLATE, question, [], llm, max_tokens=10, seed=0)
    assert question in prompt.messages[1].content
    bad = PromptTemplate("bad", 1, "", "{{ question.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(errors.InvalidArgument, match=r"bad.*unsafe"):
        build(bad, "x", [], llm, max_tokens=10, seed=0)
    with pytest.raises(errors.InvalidArgument, match="'nam' is undefined"):
        build(PromptTemplate("typo", 1, "", "{{ nam }}"), "x", [], llm, max_tokens=10, seed=0)
    assert PromptTemplate("a", 1, "x", "y").hash == PromptTemplate("b", 2, "x", "y").hash != TEMPLATE.hash


def test_what_the_fingerprint_tells_apart(both: Answerer, llm: OpenAICompatible) -> None:
    one = both.answer(QUESTION, Options(min_score=0.9)).trace.fingerprint
    assert one == both.answer("Another question?", Options(min_score=0.95, seed=3)).trace.fingerprint
    assert one != both.answer(QUESTION, Options(min_score=0.9, limit=6)).trace.fingerprint
    assert one != parts(llm, (TOWER, 0.8), guards=(MaxLength(),)).answer(QUESTION, Options()).trace.fingerprint


def test_support_by_words_and_embeddings(hashing: Any) -> None:
    for judge in (Overlap(), Overlap(hashing())):
        scores = judge.scores(
            QUESTION,
            [
                Pair("The tower is 330 metres high.", TOWER),
                Pair("330 metres.", TOWER),
                Pair("The tower is 331 metres high.", TOWER),
                Pair("Bananas grow in Ecuador.", TOWER),
            ],
        )
        assert scores[0] >= judge.threshold
        assert scores[1] >= judge.threshold
        assert scores[2] < judge.threshold
        assert scores[3] < 0.3
        assert np.all((np.array(scores) >= 0) & (np.array(scores) <= 1))
        assert judge.scores(QUESTION, []) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"below": "shrug"}, "below is one of refuse, broaden, fallback_llm"),
        ({"max_rounds": 0}, "max_rounds is a whole number, at least 1"),
        ({"timeout": 0}, "timeout is seconds greater than 0"),
        ({"tempo": 1}, "asking has no option 'tempo'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=message):
        Options.of(options)
