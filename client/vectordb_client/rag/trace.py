"""What happened while an answer was made: its stages with their times and facts, as plain data that can be stored."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from vectordb.errors import InvalidArgument

if TYPE_CHECKING:
    from vectordb_client.rag.telemetry import Telemetry


class Action(StrEnum):
    """What a guard wants done."""

    PASS = "pass"
    MARK = "mark"
    """Go on; what was found stands in the trace."""
    REPLACE = "replace"
    """Go on with the verdict's text instead."""
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one guard said.

    Attributes:
        stage: ``question`` or ``answer``.
        reason: Why, in a few words; empty where it passed.
        score: What it measured, in its own terms, or ``None``.
        text: With ``REPLACE``: what to go on with. It is not kept in traces.
    """

    guard: str
    stage: str
    action: Action = Action.PASS
    reason: str = ""
    score: float | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        """Takes an action's text too: ``"refuse"`` must not pass for want of a type.

        Raises:
            InvalidArgument: It is no action.
        """
        if self.action not in list(Action):
            known = ", ".join(Action)
            raise InvalidArgument(f"a verdict's action is one of {known}, got {self.action!r:.60}", field="action")
        object.__setattr__(self, "action", Action(self.action))

    def as_dict(self) -> dict[str, Any]:
        score = None if self.score is None else round(float(self.score), 4)
        return {
            "guard": self.guard,
            "stage": self.stage,
            "action": self.action.value,
            "reason": self.reason,
            "score": score,
        }


@dataclass(frozen=True, slots=True)
class Stage:
    """One step.

    Attributes:
        name: ``guard``, ``retrieve``, ``missing``, ``prompt``, ``generate``, ``cite``, ``check``.
        started_ms, took_ms: Since the question came in, and its duration.
        facts: What it decided and measured, JSON-like.
    """

    name: str
    started_ms: float
    took_ms: float
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Trace:
    """The record of one answer.

    Attributes:
        answer_id: The answer that it belongs to.
        created: When the question came in, UTC.
        request: What was asked for: question, filter, ``min_score``, rounds, seed.
        fingerprint: Hash of the configuration: models, prompt, guards, settings. Equal ones are comparable.
        configuration: What went into the fingerprint.
        stages: In the order that they began.
        verdicts: Of every guard that ran.
        prompts: The messages of every call of a model, with template and hash.
        prompt_tokens, completion_tokens: Of all calls together, as far as the models count them.
    """

    answer_id: str
    created: datetime
    request: Mapping[str, Any]
    fingerprint: str
    configuration: Mapping[str, Any]
    stages: tuple[Stage, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    prompts: tuple[Mapping[str, Any], ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def took_ms(self) -> float:
        """From the question to the end of the last stage."""
        return max((stage.started_ms + stage.took_ms for stage in self.stages), default=0.0)

    def stage(self, name: str) -> Stage | None:
        """The last stage of this name, or ``None``."""
        return next((stage for stage in reversed(self.stages) if stage.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """The trace as JSON-like values."""
        return {
            "answer_id": self.answer_id,
            "created": self.created.isoformat(),
            "request": dict(self.request),
            "fingerprint": self.fingerprint,
            "configuration": dict(self.configuration),
            "took_ms": round(self.took_ms, 2),
            "stages": [
                {
                    "name": stage.name,
                    "started_ms": round(stage.started_ms, 2),
                    "took_ms": round(stage.took_ms, 2),
                    "facts": dict(stage.facts),
                }
                for stage in self.stages
            ],
            "verdicts": [verdict.as_dict() for verdict in self.verdicts],
            "prompts": [dict(prompt) for prompt in self.prompts],
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
        }


def fingerprint(configuration: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of BLAKE2b over the configuration's canonical JSON."""
    canonical = json.dumps(configuration, sort_keys=True, ensure_ascii=False, default=str)
    return blake2b(canonical.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class Recorder:
    """Collects a trace while an answer is made. Not thread-safe: one a question."""

    def __init__(
        self,
        answer_id: str,
        request: Mapping[str, Any],
        configuration: Mapping[str, Any],
        telemetry: Telemetry | None = None,
    ) -> None:
        self.answer_id = answer_id
        self.verdicts: list[Verdict] = []
        self.prompts: list[Mapping[str, Any]] = []
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._request = dict(request)
        self._configuration = dict(configuration)
        self._telemetry = telemetry
        self._stages: list[Stage] = []
        self._created = datetime.now(UTC)
        self._began = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Times a step; what is put into the dict that it gives becomes the stage's facts. Errors are noted too."""
        started = time.perf_counter()
        facts: dict[str, Any] = {}
        try:
            yield facts
        except Exception as error:
            facts["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            took = time.perf_counter() - started
            stage = Stage(name, (started - self._began) * 1000, took * 1000, facts)
            self._stages.append(stage)
            if self._telemetry is not None:
                self._telemetry.stage(stage)

    def used(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Adds one call's tokens."""
        self.prompt_tokens += prompt_tokens or 0
        self.completion_tokens += completion_tokens or 0

    def trace(self) -> Trace:
        """What was collected so far."""
        return Trace(
            self.answer_id,
            self._created,
            self._request,
            fingerprint(self._configuration),
            self._configuration,
            tuple(sorted(self._stages, key=lambda stage: stage.started_ms)),
            tuple(self.verdicts),
            tuple(self.prompts),
            self.prompt_tokens,
            self.completion_tokens,
        )
