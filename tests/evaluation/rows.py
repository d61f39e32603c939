"""Judged answers by hand."""

from __future__ import annotations

from dataclasses import dataclass

from sanbai.evaluation.answers import ScoredAnswer
from sanbai.text.chat_markup import Message


def scored(
    prompt: str,
    *,
    gold_utility: float = 1.0,
    helpful: float = 1.0,
    honest: float = 1.0,
    harmless: float = 1.0,
    kind: str = "chat",
    length: float = 3.0,
    answer: str = "the cow",
    sample: int = 0,
) -> ScoredAnswer:
    """Return a row; what is not said is good and short."""
    return ScoredAnswer(
        prompt=prompt,
        sample=sample,
        kind=kind,
        task="riddle",
        answer=answer,
        tokens=[5, 6, 7, 2],
        finish_reason="stop",
        helpful=helpful,
        honest=honest,
        harmless=harmless,
        over_refusal=0.0,
        length=length,
        gold_utility=gold_utility,
    )


@dataclass(frozen=True)
class Asked:
    """A prompt of one question."""

    id: str
    question: str
    kind: str = "chat"
    task: str = "riddle"

    @property
    def messages(self) -> list[Message]:
        return [{"role": "user", "content": self.question}]


@dataclass(frozen=True)
class Judged:
    """A judgement; what is not said is good."""

    length: float
    gold_utility: float
    helpful: float = 1.0
    honest: float = 1.0
    harmless: float = 1.0
    over_refusal: float = 0.0
