"""The recipe section `[serve]`."""

from __future__ import annotations

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from sanbai.foundation.recipe import RecipeSection
from sanbai.generation.engine import Speculation
from sanbai.generation.precision import DecodingPrecision
from sanbai.generation.sampling import Sampling


class ServeRecipe(RecipeSection):
    """Where the server listens, how much it does at once, and how chat answers are drawn."""

    host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    """Address to listen on; anything but this machine's own needs `allow_remote`."""
    port: int = Field(default=8300, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    allow_remote: bool = False
    """Whether other machines may connect. The server speaks plain HTTP: put a proxy with TLS before it."""
    max_running: int = Field(default=16, ge=1, le=65_536)
    """Answers that are made at the same time, a token of each a step. With 1 an answer's numbers do not depend on who
    else asks; with more they are the same up to rounding."""
    max_waiting: int = Field(default=64, ge=0, le=100_000)
    """Answers that may wait; beyond, requests are refused with 429 and Retry-After."""
    step_tokens: int = Field(default=512, ge=2, le=10_000_000)
    """Tokens that one step reads at most. More read prompts faster, fewer let nobody wait for another's long prompt."""
    cache_mebibytes: int = Field(default=512, ge=1, le=10_000_000)
    """Memory of the keys and values of prompts and answers; always enough for one whole context."""
    prefix_cache: bool = True
    """Whether what an account's earlier requests began with need not be read again."""
    precision: DecodingPrecision = "stored"
    """`stored`: the weights as they were saved; `bfloat16`: a faster copy; `int8`, `int4`: one whose weights are
    rounded to so many bits, faster still for a single answer at a time. docs/experiments.md says what rounding
    loses."""
    speculation: Speculation = "off"
    """Whether tokens are guessed, so that a step may give an answer several: `ngram` from what the text repeats,
    `draft` by the small model `draft_model`. Answers stay the same; it stops by itself where it does not pay."""
    draft_model: str = Field(default="", max_length=255)
    """Registered name of the small model, of the same vocabulary; of no effect but with `draft`."""
    max_active_per_account: int = Field(default=8, ge=1, le=10_000)
    """Chat answers that one account may have running or waiting."""
    max_choices: int = Field(default=16, ge=1, le=128)
    """Largest `n` of a chat completion."""
    max_body_bytes: int = Field(default=8_000_000, ge=1_000, le=1_000_000_000)
    """Longest body of a request."""
    body_seconds: float = Field(default=30.0, gt=0.0, le=3600.0)
    """A body must have arrived after so long."""
    max_requests: int = Field(default=1000, ge=1, le=1_000_000)
    """Requests that may be open at once; beyond, they are refused with 503 and Retry-After."""
    idempotency_seconds: float = Field(default=600.0, ge=0.0, le=86_400.0)
    """An answer to a request with an Idempotency-Key is kept in memory for so long, for whoever asks again; 0 keeps
    none."""
    max_message_characters: int = Field(default=100_000, ge=100, le=10_000_000)
    """Longest message in the chat."""
    sampling: Sampling = Sampling(temperature=0.4, top_p=0.95, max_new_tokens=256)
    """How answers in the chat are drawn; for the API, what a request does not say."""
    candidates: int = Field(default=1, ge=1, le=64)
    """Answers that are drawn for each of the chat's, judged by the model itself; the best of the safe ones is given.
    1: the first is, unjudged. More want a model of `sanbai train self-judge`, and answers no longer grow before one's
    eyes."""
    safe_threshold: float = Field(default=0.5, ge=0.0, le=1.0)
    """Candidates that the model thinks less likely to be safe are left out."""
    unsafe_answer: str = Field(default="I would rather not answer that.", min_length=1, max_length=1000)
    """Said in place of an answer where no candidate is safe."""
    shutdown_seconds: float = Field(default=6.0, gt=0.0, le=600.0)
    """After SIGTERM, answers may go on for so long; then they are kept as interrupted."""
    backend: str = Field(default="", max_length=500)
    """Address of a server that speaks OpenAI's protocol, as `http://127.0.0.1:8000/v1`: it answers in place of the
    engine here, which loads nothing. Empty: the engine answers."""
    backend_model: str = Field(default="", max_length=200)
    """Which of the backend's models answers; empty takes the first that it lists."""
    backend_key_variable: str = Field(default="", pattern=r"[A-Za-z_][A-Za-z0-9_]*|")
    """Environment variable that holds the backend's key; empty where it wants none."""
    backend_timeout_seconds: float = Field(default=120.0, gt=0.0, le=3600.0)
    """Longest silence of the backend before an answer counts as failed."""
    backend_retries: int = Field(default=2, ge=0, le=10)
    """How often a request is sent again that the backend failed before its first word."""

    @model_validator(mode="after")
    def _check_backend(self) -> Self:
        """Of the whole section, so that a password in the address is not repeated."""
        parts = urlsplit(self.backend)
        if self.backend and (parts.scheme not in {"http", "https"} or not parts.hostname):
            raise ValueError("backend: wanted http://HOST:PORT/v1 or https://HOST/v1")
        _ = parts.port  # raises where it is none
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("backend: wanted no user, query or fragment; a key goes into backend_key_variable")
        if self.backend and self.candidates > 1:
            raise ValueError("backend: another server's model does not judge candidates; leave candidates out")
        return self
