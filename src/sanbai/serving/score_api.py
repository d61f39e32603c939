"""Rewards of answers, in the frame of vLLM's score route: what the reward model behind the served one thinks of them.

Only differences mean anything; the zero is the mean of the demonstrations.
"""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.concurrency import run_in_threadpool

from sanbai.serving.answers import unless_gone
from sanbai.serving.openai_schema import ALIAS, ChatMessage, FirstError, Texts
from sanbai.serving.problems import Problem
from sanbai.serving.readings import reading_for
from sanbai.serving.rewards import ServedReward
from sanbai.serving.routes import Call, PlainText, Row
from sanbai.serving.tool_calls import turns_of
from sanbai.training.reward_model import encode_answer

MOST_ANSWERS = 2048


class ScoreRequest(BaseModel):
    """The body of POST /v1/score: messages or a prompt with answers to it; or, as vLLM has it, two texts or lists."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: PlainText = Field(default=ALIAS, min_length=1, max_length=200)
    messages: Annotated[list[ChatMessage], FirstError()] | None = Field(default=None, min_length=1, max_length=2000)
    prompt: PlainText | None = None
    """A user's message alone."""
    answers: Texts | None = Field(default=None, min_length=1, max_length=MOST_ANSWERS)
    text_1: PlainText | Texts | None = None
    """A prompt to every answer, or one to each."""
    text_2: PlainText | Texts | None = None
    """Answers."""

    @model_validator(mode="after")
    def _check_pairs(self) -> ScoreRequest:
        if (self.text_1 is None) != (self.text_2 is None):
            raise ValueError("text_1 and text_2 go together")
        asked = [self.messages, self.prompt, self.text_1]
        if sum(one is not None for one in asked) != 1 or (self.text_1 is None) != (self.answers is not None):
            raise ValueError("wanted messages and answers, or prompt and answers, or text_1 and text_2")
        if self.text_1 is not None and self.text_2 is not None:
            prompts, answers = _listed(self.text_1), _listed(self.text_2)
            if len(prompts) not in {1, len(answers)} or not 0 < len(answers) <= MOST_ANSWERS:
                raise ValueError(f"text_1: wanted one text, or as many as in text_2, of 1 to {MOST_ANSWERS}")
        return self

    def pairs(self) -> list[tuple[list[ChatMessage], str]]:
        """Return each answer with the messages that it answers."""
        if self.text_1 is not None:
            prompts, answers = _listed(self.text_1), _listed(self.text_2 or "")
            asked = [[ChatMessage(role="user", content=prompt)] for prompt in prompts]
            return list(zip(asked * len(answers) if len(asked) == 1 else asked, answers, strict=True))
        messages = self.messages or [ChatMessage(role="user", content=self.prompt)]
        return [(messages, answer) for answer in self.answers or []]


def _listed(texts: str | list[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else texts


async def score(call: Call) -> dict[str, Any]:
    """Return the reward model's score of each answer."""
    request = call.body(ScoreRequest)
    served = await run_in_threadpool(call.house.rewards.behind, call.house.engine.served.round)
    if request.model not in {ALIAS, served.name}:
        message = f"the model {request.model[:80]!r} does not score; {served.name!r} does"
        raise Problem(404, message, "model_not_found", param="model")
    rows = await run_in_threadpool(_encode, served, request)
    reading, scores = reading_for(rows, served.scores, tenant=call.account.id)
    call.house.engine.read(reading)
    try:
        found = await unless_gone(call.request, scores)
    finally:
        reading.stop()
    count = sum(map(len, rows))
    return {
        "id": f"score-{secrets.token_hex(12)}",
        "object": "list",
        "created": int(time.time()),
        "model": served.name,
        "data": [{"index": index, "object": "score", "score": one} for index, one in enumerate(found)],
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


def _encode(served: ServedReward, request: ScoreRequest) -> list[list[int]]:
    """Return prompt and answer as one row each.

    Raises:
        Problem: one is longer than the model's context.
    """
    context, rows = served.reward.model.config.max_positions, list[list[int]]()
    for messages, answer in request.pairs():
        num_tokens = -(-(len(answer) + sum(len(one.text) for one in messages)) // served.longest_token)  # at least
        if num_tokens <= context:
            row = encode_answer(served.tokenizer, turns_of(messages), answer)
            num_tokens = len(row)
            rows.append(row)
        if num_tokens > context:
            message = f"prompt and answer {len(rows)}: {num_tokens} tokens, and the model's context is {context}"
            raise Problem(400, f"{message}; shorten them", "context_length_exceeded")
    return rows


ROWS = (Row("POST", "/v1/score", "user", score, ScoreRequest),)
