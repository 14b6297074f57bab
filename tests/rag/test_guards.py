"""Guards: what they let pass, mask and refuse."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from vectordb import errors
from vectordb_client.rag.guards import ANSWER, QUESTION, Guard, MaxLength, PersonalData, Toxicity, default_guards
from vectordb_client.rag.trace import Action


def test_a_question_of_the_shipped_corpus_is_not_toxic(xquad: Any) -> None:
    guard = Toxicity()
    assert isinstance(guard, Guard)
    for question in xquad.questions[::5]:
        verdict = guard.check(QUESTION, question["text"])
        assert verdict.action is Action.PASS, question
        assert verdict.score is not None
        assert verdict.score < 0.5
    rude = guard.check(QUESTION, "You worthless idiot, shut up")
    assert (rude.action, rude.guard) == (Action.REFUSE, "toxicity(alt-profanity-check, 0.9)")
    assert "offensive" in rude.reason


def test_any_classifier_will_do() -> None:
    def shouting(texts: Sequence[str]) -> list[float]:
        return [float(text.isupper()) for text in texts]

    guard = Toxicity(shouting, threshold=0.5, stages=(QUESTION, ANSWER))
    assert guard.name == "toxicity(shouting, 0.5)"
    assert guard.check(ANSWER, "LOUD").action is Action.REFUSE
    assert guard.check(ANSWER, "quiet").action is Action.PASS
    with pytest.raises(errors.InvalidArgument, match="stage 'passages' is none of question, answer"):
        Toxicity(shouting, stages=("passages",))


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [type(guard) for guard in default_guards()] == [MaxLength, Toxicity]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert [type(guard) for guard in default_guards()] == [MaxLength]
    monkeypatch.setitem(sys.modules, "profanity_check", None)
    with pytest.raises(errors.FailedPrecondition, match=r"vectordb-engine\[guards\]"):
        Toxicity()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to ann.lee+x@mail.example.org.", "Write to [EMAIL]."),
        ("Call +49 30 1234567 today", "Call [PHONE] today"),
        ("Card 4111 1111 1111 1111, please", "Card [CARD], please"),
        ("To DE89 3704 0044 0532 0130 00 now", "To [IBAN] now"),
        ("Order 4111 1111 1111 1112 of 1889", "Order 4111 1111 1111 1112 of 1889"),  # the check digit is wrong
        ("In 1889, 330 metres, pi is 3.14159265358979", "In 1889, 330 metres, pi is 3.14159265358979"),
    ],
)
def test_personal_data_is_masked(text: str, masked: str) -> None:
    verdict = PersonalData().check(QUESTION, text)
    if text == masked:
        assert (verdict.action, verdict.text) == (Action.PASS, None)
    else:
        assert (verdict.action, verdict.text) == (Action.REPLACE, masked)
    assert masked not in str(verdict.as_dict())


def test_personal_data_can_be_refused_or_marked() -> None:
    for action in (Action.REFUSE, Action.MARK):
        verdict = PersonalData(action=action).check(QUESTION, "a@b.org and +49 30 1234567")
        assert (verdict.action, verdict.text, verdict.score) == (action, None, 2)
        assert verdict.reason == "found EMAIL, PHONE"


def test_length() -> None:
    guard = MaxLength(10)
    assert guard.check(QUESTION, "x" * 10).action is Action.PASS
    verdict = guard.check(QUESTION, "x" * 11)
    assert (verdict.action, verdict.reason) == (Action.REFUSE, "the question has 11 characters, 10 are allowed")
    with pytest.raises(errors.InvalidArgument, match="at least 1"):
        MaxLength(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patterns": 5}, "patterns is a mapping"),
        ({"patterns": {"A": "("}}, r"patterns\['A'\] is no regular expression: missing \)"),
        ({"patterns": {"A": 5}}, r"patterns\['A'\] is no regular expression"),
        ({"action": "hide"}, "action is one of pass, mark, replace, refuse, got 'hide'"),
        ({"stages": ["end"]}, "stage 'end' is none of question, answer"),
    ],
)
def test_what_personal_data_are_looked_for_with_is_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=message):
        PersonalData(**arguments)


@pytest.mark.parametrize("make", [lambda: MaxLength("x"), lambda: Toxicity(lambda texts: [0.0], "high")])  # type: ignore[arg-type]
def test_settings_of_another_type_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(errors.InvalidArgument):
        make()
