"""The recipe section `[serve]`."""

from __future__ import annotations

from pydantic import Field

from sanbai.foundation.recipe import RecipeSection
from sanbai.generation.sampling import Sampling


class ServeRecipe(RecipeSection):
    """Where the server listens, how much it does at once, and how chat answers are drawn."""

    host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    """Address to listen on; anything but this machine's own needs `allow_remote`."""
    port: int = Field(default=8300, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    allow_remote: bool = False
    """Whether other machines may connect. The server speaks plain HTTP: put a proxy with TLS before it."""
    num_workers: int = Field(default=2, ge=1, le=256)
    """Answers that are generated at the same time."""
    max_waiting: int = Field(default=32, ge=0, le=100_000)
    """Answers that may wait for a worker; beyond, requests are refused with 429 and Retry-After."""
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
