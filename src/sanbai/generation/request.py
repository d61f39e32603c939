"""What may be asked of the continuous engine, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field
from torch import Tensor

from sanbai.foundation.recipe import RecipeSection
from sanbai.generation.sampling import Sampling

EndReason = Literal["stop", "length", "failed"]
"""`stop`: a stop token or stop string came, or the mask left nothing; `length`: the limit or the context was reached;
`failed`: the request's own mask function raised."""

TokenMask = Callable[[Sequence[int]], Tensor]
"""Given the answer's tokens so far, which may come next: bool_V, true where allowed. The seam for grammars; called once
a token in the engine's thread. Nothing allowed ends the answer."""


class Shaping(RecipeSection):
    """How a request bends the logits before temperature, top-k and top-p; the defaults leave them alone."""

    min_p: float = Field(default=0.0, ge=0.0, le=1.0)
    """Draw only tokens at least this many times as likely as the likeliest (Nguyen et al. 2024, arXiv:2407.01082)."""
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100.0)
    """Logits of tokens in prompt or answer: positive ones divided by it, negative ones multiplied (Keskar et al. 2019,
    arXiv:1909.05858)."""
    presence_penalty: float = Field(default=0.0, ge=-100.0, le=100.0)
    """Taken from the logit of each token that the answer holds."""
    frequency_penalty: float = Field(default=0.0, ge=-100.0, le=100.0)
    """Taken from the logit of each token for every time that the answer holds it."""
    logit_bias: Mapping[int, float] = {}
    """Added to the logits of these tokens."""

    @property
    def bends_logits(self) -> bool:
        """Whether logits change; `min_p` only cuts probabilities off."""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1.0, 0.0, 0.0) or bool(self.logit_bias)


AS_THEY_ARE = Shaping()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and how to answer it; as many answers as seeds."""

    prompt: Sequence[int]
    """Token ids, at least one."""
    sampling: Sampling
    seeds: Sequence[int]
    """One an answer. An answer depends on model, prompt, rules and its seed alone, up to rounding."""
    stop_ids: frozenset[int] = frozenset()
    """Tokens that end an answer."""
    stop_strings: Sequence[str] = ()
    """Texts that end an answer and are left out of its text; need the engine's tokenizer. Empty ones are ignored."""
    shaping: Shaping = AS_THEY_ARE
    mask: TokenMask | None = None
    top_logprobs: int = 0
    """How many likeliest tokens are reported beside each drawn one."""
    prompt_logprobs: bool = False
    """Whether the prompt's own log-probabilities are reported; the prompt is then read whole."""
    tenant: str = ""
    """Tenants take turns, and no prefix is shared between them."""
    adapter: str | None = None
    """Name of the engine's adapter that answers; None for the model alone."""
    remember: bool = True
    """Whether prefixes are looked up and left for others; False leaves no trace of the text in the cache."""


TopLogprobs = list[tuple[int, float]]
"""Token and log-probability, likeliest first."""


@dataclass(frozen=True, slots=True)
class PromptLogprobs:
    """What the model thought of a prompt, at temperature 1."""

    logprobs: list[float]
    """In nats, of each token but the first, which nothing precedes."""
    top: list[TopLogprobs]
    """As many a token as `Request.top_logprobs`."""


@dataclass(frozen=True, slots=True)
class NewToken:
    """What one step adds to one answer."""

    request: int
    """As `submit` numbered it."""
    answer: int
    """Index among the request's seeds."""
    token: int
    logprob: float
    """In nats, at the sampling temperature (1 where it is 0), before all else: what training computes."""
    sampled_logprob: float
    """Under the distribution that was drawn from; 0 at temperature 0."""
    top: TopLogprobs
    """Of the distribution that `logprob` is of."""
    text: str
    """What may be shown now, with a tokenizer: never half a character nor the beginning of a stop string."""
    finish_reason: EndReason | None
    """Set on an answer's last token alone."""
    prompt: PromptLogprobs | None
    """Set on the first answer's first token, where the request asks for it."""


@dataclass(slots=True)
class Answer:
    """One whole answer."""

    tokens: list[int] = field(default_factory=list)
    """The token that stopped it included."""
    logprobs: list[float] = field(default_factory=list)
    sampled_logprobs: list[float] = field(default_factory=list)
    top: list[TopLogprobs] = field(default_factory=list)
    text: str = ""
    finish_reason: EndReason | None = None
    """None while it grows."""
    prompt: PromptLogprobs | None = None

    def add(self, new: NewToken) -> None:
        """Append what a step added."""
        self.tokens.append(new.token)
        self.logprobs.append(new.logprob)
        self.sampled_logprobs.append(new.sampled_logprob)
        self.top.append(new.top)
        self.text += new.text
        self.finish_reason = new.finish_reason
        self.prompt = self.prompt or new.prompt
