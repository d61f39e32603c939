"""The request of a chat completion, as OpenAI's specification has it: checked ranges, unknown fields ignored.

What is not built is refused with its name where it would change the answer; nothing is dropped in silence.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sanbai.generation.sampling import Sampling
from sanbai.serving.problems import Problem
from sanbai.serving.routes import PlainText

MOST_STOPS = 4


class TextPart(BaseModel):
    """One part of a message's content; only text can be read."""

    type: Literal["text"]
    text: PlainText


class ChatMessage(BaseModel):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: PlainText | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    """What else a stream should say."""

    include_usage: bool = False


class ResponseFormat(BaseModel):
    """How the answer should be formed; only as text."""

    type: str = "text"


class CompletionRequest(BaseModel):
    """The body of POST /v1/chat/completions."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: PlainText = Field(min_length=1, max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=2000)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=128)
    temperature: float | None = Field(default=None, ge=0.0, le=2.0)
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    """Not OpenAI's, but other servers': 0 is off."""
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: PlainText | list[PlainText] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    presence_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    frequency_penalty: float | None = Field(default=None, ge=-2.0, le=2.0)
    logit_bias: dict[str, float] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Any] | None = None

    @field_validator("stop")
    @classmethod
    def _check_stops(cls, stop: str | list[str] | None) -> str | list[str] | None:
        if isinstance(stop, list) and len(stop) > MOST_STOPS:
            raise ValueError(f"wanted at most {MOST_STOPS} texts")
        return stop

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts that end an answer."""
        if isinstance(self.stop, str):
            return (self.stop,)
        return tuple(self.stop or ())

    def check_supported(self) -> None:
        """Refuse what would change the answer and is not built.

        Raises:
            Problem: the first such field.
        """
        unsupported = {
            "tools": bool(self.tools),
            "response_format": self.response_format is not None and self.response_format.type != "text",
            "logit_bias": bool(self.logit_bias),
            "presence_penalty": bool(self.presence_penalty),
            "frequency_penalty": bool(self.frequency_penalty),
            "top_logprobs": bool(self.top_logprobs),
        }
        for name, wanted in unsupported.items():
            if wanted:
                raise Problem(400, f"{name}: not supported by this server; leave it out", "unsupported", param=name)

    def sampling(self, default: Sampling, *, room: int) -> Sampling:
        """Return how to draw: what the request says, else the server's default; no longer than there is room."""
        limit = self.max_completion_tokens or self.max_tokens or default.max_new_tokens
        return Sampling(
            temperature=default.temperature if self.temperature is None else self.temperature,
            top_p=default.top_p if self.top_p is None else self.top_p,
            top_k=self.top_k or default.top_k,
            max_new_tokens=min(limit, room),
        )
