"""The recipe section `[serve]`."""

from __future__ import annotations

from pydantic import Field

from sanbai.foundation.recipe import RecipeSection
from sanbai.generation.continuous import Speculation
from sanbai.generation.engine import Precision
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
    precision: Precision = "stored"
    """`stored`: the weights as they were saved; `bfloat16`: a smaller and faster copy."""
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
    max_message_characters: int = Field(default=100_000, ge=100, le=10_000_000)
    """Longest message in the chat."""
    sampling: Sampling = Sampling(temperature=0.4, top_p=0.95, max_new_tokens=256)
    """How answers in the chat are drawn; for the API, what a request does not say."""
    shutdown_seconds: float = Field(default=6.0, gt=0.0, le=600.0)
    """After SIGTERM, answers may go on for so long; then they are kept as interrupted."""
